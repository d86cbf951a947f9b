"""Strip the prompt and workflow that ComfyUI embeds in PNG, WebP and JPEG files.

Owns where these formats have texts, which is where ComfyUI and its custom nodes write them. Pure
functions on bytes: no pixel is decoded or changed. Videos (and GIF, TIFF, AVIF, JPEG XL) are left
as they are: ComfyUI writes the prompt into mp4 and webm too, but to remove it there the whole file
would have to be muxed again.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TypeAlias

Parts: TypeAlias = list[memoryview | bytes]  # of a file, in their order

PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf")  # the last: ComfyUI's animated PNGs
WEBP_TEXTS = (b"EXIF", b"XMP ")
WEBP_TEXT_FLAGS = 0x08 | 0x04  # in VP8X, which announces the two
JPEG_TEXTS = (0xE1, 0xED, 0xFE)  # APP1: EXIF and XMP; APP13: IPTC; COM
SCAN, END = 0xDA, 0xD9  # further codes of JPEG's markers
JPEG_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
# In the coded pixels of a scan, 0xFF is followed by 0 or by the number of a restart marker.
JPEG_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class Broken(Exception):
    """A file that is not of the format that it begins like, or is cut off."""


def without_metadata(data: bytes) -> bytes:
    """Return the picture without the texts in its file, and without whatever follows its end; all
    else byte for byte. A file that is broken, or of another format, is returned as it is."""
    split = next((parts for start, parts in FORMATS.items() if data.startswith(start)), None)
    if split is None:
        return data
    try:
        parts = split(memoryview(data))
    except (Broken, struct.error):  # the latter: a header that is cut off
        return data
    return data if sum(map(len, parts)) == len(data) else b"".join(parts)


def _png_parts(data: memoryview) -> Parts:
    parts: Parts = [data[:8]]
    kind, place = b"", 8
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        start, place = place, place + length + 12  # with length, kind and checksum
        if place > len(data):
            raise Broken
        if kind not in PNG_TEXTS:
            parts.append(data[start:place])
    return parts


def _webp_parts(data: memoryview) -> Parts:
    size, form = struct.unpack_from("<I4s", data, 4)
    end = 8 + size
    if form != b"WEBP" or end > len(data):
        raise Broken
    parts: Parts = []
    place = 12
    while place < end:
        kind, length = struct.unpack_from("<4sI", data, place)
        if place + 8 + length > end:
            raise Broken
        start, place = place, place + 8 + length + length % 2
        if kind == b"VP8X" and length:
            flags = bytes((data[start + 8] & ~WEBP_TEXT_FLAGS,))
            parts += [data[start : start + 8], flags, data[start + 9 : place]]
        elif kind not in WEBP_TEXTS:
            parts.append(data[start:place])
    return [struct.pack("<4sI4s", b"RIFF", 4 + sum(map(len, parts)), form), *parts]


def _jpeg_parts(data: memoryview) -> Parts:
    parts: Parts = [data[:2]]
    kind, place = 0, 2
    while kind != END:
        marker = JPEG_MARKER.match(data, place)
        if marker is None:
            raise Broken
        kind = marker[1][0]
        start, place = place, marker.end() if kind == END else _jpeg_end(data, marker.end(), kind)
        if kind not in JPEG_TEXTS:
            parts.append(data[start:place])
    return parts


def _jpeg_end(data: memoryview, start: int, kind: int) -> int:
    """Return the end of the segment whose length is at `start`; a scan has its pixels after it."""
    end = start + int.from_bytes(data[start : start + 2], "big")
    if kind == SCAN:
        after = JPEG_SCAN_END.search(data, end)
        if after is None:
            raise Broken
        end = after.start()
    return end


FORMATS: dict[bytes, Callable[[memoryview], Parts]] = {
    b"\x89PNG\r\n\x1a\n": _png_parts,
    b"RIFF": _webp_parts,
    b"\xff\xd8": _jpeg_parts,
}
