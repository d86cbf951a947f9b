"""Names and texts of people and servers: how they are shown, and how a name is found.

Owns what a model is called in a sentence, which one somebody means by what they type, and how text
that others wrote is quoted. Pure functions; imports nothing of ours and knows no form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

FIELD_LIMIT = 1024
OPTION_LIMIT = 100
MENU_LIMIT = 25


class UnknownName(Exception):
    """Nothing is called what somebody typed; `public` is a finished sentence for them."""

    @property
    def public(self) -> str:
        """The sentence."""
        return str(self)


def display_name(name: str) -> str:
    """A model's file without its folders and its extension."""
    return without_extension(re.split(r"[\\/]", name)[-1]) or name


def without_extension(path: str) -> str:
    """A model's path as people read it."""
    return re.sub(r"\.(safetensors|ckpt|pth?|bin|sft|gguf)$", "", path, flags=re.IGNORECASE).strip()


def moved_model(name: str, offered: Sequence[str]) -> str | None:
    """The one offered model of the same file name, in whatever folder; None if there is none, or
    if several are called so."""

    def file_of(path: str) -> str:
        return re.split(r"[\\/]", path)[-1].lower()

    same = [model for model in offered if file_of(model) == file_of(name)]
    return same[0] if len(same) == 1 else None


def nearest(name: str, offered: Sequence[str]) -> str:
    """A finished sentence with the offered names that resemble one, or none."""
    import difflib  # not before somebody mistypes a name

    shown = {display_name(value).lower(): display_name(value) for value in offered}
    close = difflib.get_close_matches(display_name(name).lower(), list(shown), n=3, cutoff=0.4)
    names = ", ".join(escaped(ends_of(shown[key], 100)) for key in close)
    return f" The nearest: {names}." if names else ""


def find_model(text: str, models: Sequence[str]) -> str:
    """The model that a person names: as autocomplete gives it, or any part of it. UnknownName, with
    the nearest names, if there is none."""
    lower = text.lower()
    exact = [model for model in models if text in (model, ends_of(model, OPTION_LIMIT))]
    named = [model for model in models if lower in (model.lower(), display_name(model).lower())]
    containing = [model for model in models if lower in model.lower()]
    for found in (exact, named, containing):
        if found:
            return found[0]
    raise UnknownName(f"There is no model {quoted(text)}.{nearest(text, models)}")


def matching_models(text: str, models: Sequence[str]) -> list[str]:
    """What autocomplete offers: the models with this text anywhere in their path, whatever its
    case, as many as Discord shows."""
    found = [model for model in models if text.lower() in model.lower()]
    return list(dict.fromkeys(ends_of(model, OPTION_LIMIT) for model in found))[:MENU_LIMIT]


def without_half_emoji(text: str) -> str:
    """The text without lone surrogates, which are valid in JSON and nowhere else."""
    return text.encode("utf-8", "replace").decode("utf-8")


def ends_of(text: str, limit: int) -> str:
    """Shortened in the middle: the ends of a name tell more than its middle."""
    if len(text) <= limit:
        return text
    left = (limit - 1) // 2
    return f"{text[:left]}…{text[len(text) - (limit - 1 - left) :]}"


def escaped(text: str, limit: int = FIELD_LIMIT) -> str:
    """Text of people or servers for an embed: markdown has no effect, length is bounded."""
    # Not discord.utils.escape_markdown: it takes seconds for a prompt like `[[[…](](](`.
    text = re.sub(r"[\\*_~`|\[]", r"\\\g<0>", text[:limit])
    text = re.sub(r"^([ \t]*)([-#>])", r"\1\\\2", text, flags=re.MULTILINE)
    return text if len(text) <= limit else text[: limit - 1].rstrip("\\") + "…"


def quoted(text: str) -> str:
    """What a person typed, within a sentence."""
    return f"`{ends_of(text.replace('`', chr(39)), 40)}`" if text.strip() else "empty"


def shortened(text: str, limit: int) -> str:
    """Cut at the end, with an ellipsis within the limit."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
