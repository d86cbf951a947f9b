"""Text for people: shortening, quoting and escaping of names and of other people's words.

Owns the one error whose message people may read, and the reading of JSON, the one function that is
not pure. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MESSAGE_LIMIT = 2000
FIELD_LIMIT = 1024
OPTION_LIMIT = 100
QUOTED_LIMIT = 40

SEPARATOR = re.compile(r"[\\/]+")
EXTENSION = re.compile(r"\.(safetensors|ckpt|pth?|bin|sft|gguf)$", re.IGNORECASE)

# The beginnings of markdown: styles, code, spoilers, masked links; mentions, times, custom emoji;
# links and emoji by name; pings.
MARKUP = re.compile(r"[\\*_~`|\[<]|:(?=//|[^\s:]*:)|@(?=everyone|here)")
# Markdown that only works at the start of a line: lists, headings, small print, block quotes.
LINE_START = re.compile(r"(^|[\r\f])([ \t]*(?:[0-9]+(?=\.\s))?)([-#>]|(?<=[0-9])\.)", re.MULTILINE)


class PublicError(Exception):
    """An error that people may read about: `user_message` is a finished sentence, without paths,
    addresses and secrets. `str()` is the detail for the log; without one of its own, the class's
    sentence or the detail itself is what people read."""

    user_message = ""

    def __init__(self, detail: str = "", user_message: str | None = None) -> None:
        super().__init__(detail)
        self.user_message = user_message or self.user_message or detail


class UserError(PublicError):
    """Refusal of what a person asks, with the reason."""


@contextlib.contextmanager
def collecting(problems: list[str]) -> Iterator[None]:
    """Add the sentence of a UserError to a list, and go on after the block."""
    try:
        yield
    except UserError as error:
        problems.append(error.user_message)


def display_name(name: str) -> str:
    """Return a path without its folders and its extension."""
    return without_extension(file_of(name)) or name


def file_of(path: str) -> str:
    """Return a path without its folders; ComfyUI on Windows separates them by `\\`."""
    return SEPARATOR.split(path)[-1]


def without_extension(path: str) -> str:
    """Return a path without the extension of a model's file."""
    return EXTENSION.sub("", path).strip()


def shorten_middle(text: str, limit: int) -> str:
    """Cut a text in its middle, since the ends of a name tell more."""
    if len(text) <= limit:
        return text
    left = (limit - 1) // 2
    return f"{text[:left]}…{text[len(text) - (limit - 1 - left) :]}"


def truncate(text: str, limit: int) -> str:
    """Cut a text at its end, with an ellipsis within the limit."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def drop_lone_surrogates(text: str) -> str:
    """Replace lone surrogates, which are valid in JSON and nowhere else."""
    return text.encode("utf-8", "replace").decode("utf-8")


def escape(text: str, limit: int = FIELD_LIMIT) -> str:
    """Escape a text of people or servers for an embed or a message, so that it reads as it was
    typed and pings no one. At most `limit` characters long.

    Discord takes a backslash before any ASCII mark for that mark alone, and `http\\://` for no link
    (github.com/LyricLy/parse-discord, which is held against its client).
    """
    # Not discord.utils.escape_markdown: it takes seconds for a prompt like `[[[…](](](`.
    shown = MARKUP.sub(r"\\\g<0>", text[: limit + 1])
    shown = LINE_START.sub(r"\1\2\\\3", shown)
    return shown if len(shown) <= limit else shown[: limit - 1].rstrip("\\") + "…"


def quote(text: str) -> str:
    """Quote what a person typed, for use within a sentence."""
    if not text.strip():
        return "empty"
    short = " ".join(shorten_middle(text, QUOTED_LIMIT).splitlines())
    return f"`{short}`" if "`" not in short else f'"{escape(short)}"'


def in_lines(texts: Iterable[str | None]) -> str | None:
    """Join the texts that are not empty to a message of at most MESSAGE_LIMIT characters, a line
    each; None if there is none."""
    return truncate("\n".join(filter(None, texts)), MESSAGE_LIMIT) or None


def duration(seconds: float) -> str:
    """Return a rounded time for an estimate: `40 s`, `3 min`, `2 h`."""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{round(seconds / 3600)} h"


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file. Raises ValueError, which says of `what` it speaks."""
    try:
        text = path.read_text("utf-8-sig")
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except FileNotFoundError:
        raise ValueError(f"{what} does not exist") from None
    except OSError as error:
        raise ValueError(f"{what} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from error


def as_number(value: Any) -> Any:
    """Return a number, also one that is kept as text; None for what is none."""
    number = value
    try:
        if isinstance(value, str):
            number = json.loads(value, parse_constant=_refuse, parse_float=_finite)
    except ValueError:
        return None
    return number if type(number) in (int, float) else None


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a number that ComfyUI takes")
