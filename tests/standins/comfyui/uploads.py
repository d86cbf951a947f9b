"""The stand-in's input folder: what is uploaded, under which names, and what LoadImage finds."""

from __future__ import annotations

import posixpath
import re
import struct
from typing import Any, NamedTuple

from tests.standins.comfyui.pictures import Drawing, decoded, draw, draw_png

EXAMPLE = "example.png"  # is in every new ComfyUI's input folder
EXAMPLE_DATA = draw_png(b"example", (64, 96), {}, 0)
GIF_FRAME = re.compile(rb"!\xf9\x04.{4}\0,", re.DOTALL)


class NotAnImage(Exception):
    """What Pillow raises for a file that is none."""


class Loaded(NamedTuple):
    """What LoadImage makes of a file."""

    drawing: Drawing
    frames: int

    @property
    def size(self) -> tuple[int, int]:
        return self.drawing.size


def store(files: dict[str, bytes], name: str, data: bytes, form: Any) -> dict[str, str] | None:
    """Put a file into the input folder, and return the answer of POST /upload/image; None for a
    path that leads out of the folder."""
    subfolder = str(form.get("subfolder", ""))
    path = posixpath.normpath(posixpath.join("/", "input", subfolder, name))
    if not name or not path.startswith("/input/"):
        return None
    stem, suffix = posixpath.splitext(name)
    number = 1
    while form.get("overwrite") not in ("true", "1"):
        if files.get(_key(subfolder, name), data) == data:
            break
        name, number = f"{stem} ({number}){suffix}", number + 1
    files[_key(subfolder, name)] = data
    return {"name": name, "subfolder": subfolder, "type": str(form.get("type", "input"))}


def _key(subfolder: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(subfolder, name))


def load(data: bytes) -> Loaded:
    """Load a file as Pillow does. One of our own drawings is decoded, of all others only the size
    is read, and another picture stands for theirs."""
    size = _size(data)
    frames = len(GIF_FRAME.findall(data)) if data.startswith(b"GIF") else 1
    return Loaded(decoded(data) or draw(data, size), max(1, frames))


def _size(data: bytes) -> tuple[int, int]:
    if data.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in data:
        return struct.unpack(">II", data[16:24])
    if data.startswith(b"GIF8") and data.endswith(b";"):
        return struct.unpack("<HH", data[6:10])
    if frame := data.startswith(b"\xff\xd8") and re.search(
        rb"\xff[\xc0-\xc3]\0\x11\x08(.{4})", data, re.DOTALL
    ):
        height, width = struct.unpack(">HH", frame[1])
        return width, height
    if data[12:16] == b"VP8X":
        sides = [int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27)]
        return sides[0], sides[1]
    if data[12:16] == b"VP8 ":
        sides = [side % 2**14 for side in struct.unpack("<HH", data[26:30])]
        return sides[0], sides[1]
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return bits % 2**14 + 1, (bits >> 14) % 2**14 + 1
    raise NotAnImage("cannot identify image file")
