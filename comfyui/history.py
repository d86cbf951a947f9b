"""The answers of `/history` and `/queue`: ended prompts with their files, and prompts that wait.

Owns the shapes in which ComfyUI names a file, an ended prompt and its queue (docs/comfyui.md). Does
no I/O.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from comfyui.errors import ComfyError, NoPictures, dicts

# Of a node's output: core nodes and common packs.
MEDIA_KEYS = ("images", "gifs", "videos", "video", "audio")
NOUNS = {  # of files of which ComfyUI makes no preview
    **dict.fromkeys((".mp4", ".webm", ".gif", ".mov", ".mkv", ".avi"), "video"),
    **dict.fromkeys((".flac", ".mp3", ".opus", ".ogg", ".wav", ".m4a"), "sound"),
}
ASKED_ID = "comfygen_id"  # in a prompt's extra_data: finds it on servers that ignore our id


class ImageRef(NamedTuple):
    """A file on the server, as `/history` names it and `/view` takes it."""

    filename: str
    subfolder: str = ""
    type: str = "output"

    def __str__(self) -> str:
        """Return ComfyUI's own annotated form: `subfolder/name.png`, or `name.png [temp]`."""
        path = f"{self.subfolder}/{self.filename}" if self.subfolder else self.filename
        return path if self.type == "output" else f"{path} [{self.type}]"

    @property
    def suffix(self) -> str:
        """Return the ending of its name, with the dot."""
        return Path(self.filename).suffix.lower()

    @property
    def noun(self) -> str:
        """Return the word for such a file: picture, video or sound."""
        return NOUNS.get(self.suffix, "picture")

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Reverse `str()`."""
        path, kind = text, "output"
        annotated = re.fullmatch(r"(.*) \[(output|temp|input)\]", text, re.DOTALL)
        if annotated:
            path, kind = annotated.groups()
        subfolder, _, filename = path.rpartition("/")
        return cls(filename, subfolder, kind)


@dataclass(frozen=True)
class HistoryEntry:
    """A finished prompt: its pictures, or the error it ended with."""

    images: tuple[ImageRef, ...]
    error: ComfyError | None = None
    from_cache: bool = False  # some nodes did not run: a file may be that of an earlier prompt

    def pictures(self) -> tuple[ImageRef, ...]:
        """Return the pictures. Raises the error, or NoPictures if there is neither."""
        if self.error is not None:
            raise self.error
        if not self.images:
            raise NoPictures("the prompt succeeded, and its outputs hold no images")
        return self.images


@dataclass(frozen=True)
class Queue:
    """The prompt ids the server runs and has waiting, in their order, other people's included."""

    running: tuple[str, ...]
    pending: tuple[str, ...]
    own_ids: Mapping[str, str] = field(default_factory=dict)  # of our prompts, by the id asked for

    def before(self, prompt_id: str) -> int:
        """Return how many prompts run or wait before this one, which is in the queue."""
        if prompt_id in self.running:
            return 0
        return len(self.running) + self.pending.index(prompt_id)

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self.running or prompt_id in self.pending


def used_cache(status: object) -> bool:
    """Return whether the status of a history entry names nodes that did not run."""
    messages = status.get("messages") if isinstance(status, dict) else None
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and message[:1] == ["execution_cached"]:
            return any(data.get("nodes") for data in dicts(message[1:]))
    return False


def images_in(outputs: object) -> tuple[ImageRef, ...]:
    """Return every picture and video once, in order; previews only if nothing was saved."""
    found: dict[ImageRef, None] = {}
    for output in dicts(list(outputs.values()) if isinstance(outputs, dict) else None):
        for image in [image for key in MEDIA_KEYS for image in dicts(output.get(key))]:
            name = image.get("filename")
            if isinstance(name, str) and name:
                subfolder, kind = image.get("subfolder"), image.get("type")
                found[ImageRef(name, str(subfolder or ""), str(kind or "output"))] = None
    saved = tuple(ref for ref in found if ref.type == "output")
    return saved or tuple(found)


def prompt_ids(rows: list[Any]) -> tuple[str, ...]:
    """Return the ids of `[[number, prompt_id, prompt, extra_data, outputs], …]`, in the order of
    the numbers: the server keeps a heap."""
    items = [row for row in rows if isinstance(row, list) and len(row) > 1]
    with contextlib.suppress(TypeError):
        items.sort(key=lambda row: row[0])
    return tuple(str(row[1]) for row in items)


def ids_asked_for(rows: Iterable[Any]) -> dict[str, str]:
    """Return the prompt ids of such rows by the id that we asked for."""
    items = [row for row in rows if isinstance(row, list) and len(row) > 3]
    extras = [(row[3], str(row[1])) for row in items if isinstance(row[3], dict)]
    return {str(extra[ASKED_ID]): prompt_id for extra, prompt_id in extras if ASKED_ID in extra}
