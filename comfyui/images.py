"""The pictures that people give to a workflow: their formats and sizes, read from their bytes.

ComfyUI takes any file, fails when it loads it, and makes a batch of an animation's frames
(docs/comfyui.md): so a file is looked at before it is stored, and cut after its first frame. Pure
functions on bytes: no pixel is decoded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

BYTES_MAX = 20 * 2**20
PIXELS_MAX = 64 * 10**6
SEND = "Send a PNG, JPEG, WebP or GIF picture instead."
SMALLER = "Send a smaller one."

PNG_HEADER = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
JPEG_PIXELS = (0xDA, 0xD9)  # SOS, EOI: the size stands before them
JPEG_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
WEBP_ANIMATED = 0x02  # in the flags of VP8X
WEBP_SIDE = 0x3FFF  # of the bits of a side in VP8 and VP8L, those that count
GIF_IMAGE, GIF_EXTENSION = b",!"
BROKEN = "is broken or not complete"

# What people send instead, by its first bytes.
OTHERS = {
    rb"....ftyp(hei|hev|mif1|msf1)": "an HEIC photo",
    rb"....ftypavi": "an AVIF picture",
    rb"....ftyp|\x1aE\xdf\xa3": "a video",
    rb"%PDF": "a PDF document",
    rb"II\*\0|MM\0\*": "a TIFF picture",
    rb"BM": "a BMP picture",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "a JPEG XL picture",
    rb"(?i:\s*(<!--.*)?<(!doctype )?html)": "a web page",
    rb"(?i:\s*(<[?!].*)?<svg)": "an SVG drawing",
}


class Image(NamedTuple):
    """A picture of a single frame that ComfyUI loads; its size is that of the stored pixels, which
    a photo's orientation may turn."""

    data: bytes
    suffix: str
    width: int
    height: int


class Unusable(Exception):
    """Why a file of one of FORMATS cannot be used."""


def too_large(size: int) -> str:
    """Return the sentence that refuses a file of so many bytes."""
    most = f"at most {BYTES_MAX // 2**20} MB can be used"
    return f"This file has {size / 2**20:.1f} MB; {most}. {SMALLER}"


def kind_of(data: bytes) -> Image | str:
    """Return the picture in a file, or a sentence that refuses it and says what to send."""
    if len(data) > BYTES_MAX:
        return too_large(len(data))
    found = [kind for start, kind in FORMATS.items() if re.match(start, data, re.S)]
    if not found:
        names = (name for start, name in OTHERS.items() if re.match(start, data[:1000], re.S))
        return f"This file is {next(names, 'no picture that can be used here')}. {SEND}"
    name, read = found[0]
    try:
        image = read(data)
        if not image.width or not image.height:
            raise Unusable(BROKEN)
    except (Unusable, struct.error, IndexError) as error:  # the last two: it is cut off
        return f"This {name} picture {error if type(error) is Unusable else BROKEN}. {SEND}"
    if image.width * image.height > PIXELS_MAX:
        most = f"at most {PIXELS_MAX // 10**6} million can be used"
        return f"This picture has {image.width} x {image.height} pixels; {most}. {SMALLER}"
    return image


def _png(data: bytes) -> Image:
    if not data.startswith(PNG_HEADER):
        raise Unusable(BROKEN)
    parts, kind, at = [data[:8]], b"", 8
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        start, at = at, at + length + 12  # with length, kind and checksum
        if at > len(data):
            raise Unusable(BROKEN)
        if kind not in PNG_ANIMATION:
            parts.append(data[start:at])
    return Image(b"".join(parts), ".png", *struct.unpack_from(">II", data, len(PNG_HEADER)))


def _jpeg(data: bytes) -> Image:
    at = 2
    while marker := JPEG_MARKER.match(data, at):
        length, height, width = struct.unpack_from(">HxHH", data, marker.end())
        if marker[1][0] in JPEG_SIZES:
            return Image(data, ".jpg", width, height)
        if marker[1][0] in JPEG_PIXELS:
            break
        at = marker.end() + length
    raise Unusable(BROKEN)


def _webp(data: bytes) -> Image:
    size, kind, start = struct.unpack_from("<4xI4x4s4x6s", data)
    if 8 + size > len(data):
        raise Unusable(BROKEN)
    if kind == b"VP8X":
        if start[0] & WEBP_ANIMATED:
            raise Unusable("is an animation")
        sides = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L" and start[0] == 0x2F:
        bits = int.from_bytes(start[1:5], "little")
        sides = ((bits >> shift & WEBP_SIDE) + 1 for shift in (0, 14))
    elif kind == b"VP8 " and start[3:] == b"\x9d\x01\x2a":
        sides = (side & WEBP_SIDE for side in struct.unpack_from("<HH", data, 26))
    else:
        raise Unusable(BROKEN)
    return Image(data, ".webp", *sides)


def _gif(data: bytes) -> Image:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _color_table(flags)
    while data[at] == GIF_EXTENSION:
        at = _blocks_end(data, at + 2)
    if data[at] != GIF_IMAGE:
        raise Unusable(BROKEN)
    at = _blocks_end(data, at + 11 + _color_table(data[at + 9]))
    return Image(data[:at] + b";", ".gif", width, height)


def _color_table(flags: int) -> int:
    """Return how many bytes of colors follow."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks_end(data: bytes, at: int) -> int:
    """Return the end of the blocks that start here, each after its length; one of 0 is the last."""
    while data[at]:
        at += data[at] + 1
    return at + 1


FORMATS: dict[bytes, tuple[str, Callable[[bytes], Image]]] = {
    rb"\x89PNG": ("PNG", _png),
    rb"\xff\xd8\xff": ("JPEG", _jpeg),
    rb"RIFF....WEBP": ("WebP", _webp),
    rb"GIF8[79]a": ("GIF", _gif),
}
