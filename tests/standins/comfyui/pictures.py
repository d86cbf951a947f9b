"""The pictures that the stand-in "generates": drawn in pure Python, different for each seed."""

from __future__ import annotations

import colorsys
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", check)))


def _shades(hue: float, light: float, hue_end: float, light_end: float, count: int) -> bytes:
    colours = bytearray()
    for step in range(count):
        part = step / max(1, count - 1)
        mixed = hue + (hue_end - hue) * part, light + (light_end - light) * part
        colours += bytes(int(255 * c) for c in colorsys.hls_to_rgb(mixed[0] % 1, mixed[1], 0.55))
    return bytes(colours)


def draw_png(seed: bytes, size: tuple[int, int], texts: Mapping[str, str], pad_to: int) -> bytes:
    """A small landscape that depends on the seed alone, with text chunks as ComfyUI writes them.

    Drawn as whole columns (sky, a sun with a halo, three ranges of hills) of palette indexes: that
    is what pure Python does in a few milliseconds.
    """
    width, height = size
    digest = hashlib.sha256(seed).digest()
    dice = [byte / 255 for byte in digest]
    hue, noon = dice[0], dice[1]
    palette = _shades(hue, 0.25 + 0.4 * noon, hue + 0.15 - 0.3 * dice[2], 0.85, 100)
    palette += _shades(hue + 0.1, 0.93, hue + 0.05, 0.86, 12) + _shades(hue, 0.84, hue, 0.9, 12)
    for layer in range(3):
        shade = 0.5 - 0.14 * layer
        palette += _shades(hue + dice[3] * 0.4 - 0.05 * layer, shade, hue + dice[3], shade / 2, 44)

    def strip(first: int, count: int) -> bytes:
        return bytes(first + y * count // height for y in range(height))

    sky, sun, halo = strip(0, 100), strip(100, 12), strip(112, 12)
    ranges = [
        (
            strip(124 + 44 * layer, 44),
            height * (0.52 + 0.15 * layer + 0.05 * dice[5 + layer]),
            height * (0.10 - 0.02 * layer),
            (2 + layer + 3 * dice[8 + layer]) / width,
            7 * dice[11 + layer],
        )
        for layer in range(3)
    ]
    sun_x, sun_y = int(width * (0.15 + 0.7 * dice[14])), int(height * (0.15 + 0.3 * dice[15]))
    radius = int(height * (0.06 + 0.08 * dice[16]))
    columns = []
    for x in range(width):
        column = sky
        for disc, reach in ((halo, radius * 2), (sun, radius)):
            half = math.isqrt(max(0, reach * reach - (x - sun_x) ** 2))
            top, bottom = max(0, sun_y - half), min(height, sun_y + half)
            column = column[:top] + disc[top:bottom] + column[bottom:]
        for hill, middle, swing, pace, start in ranges:
            wave = math.sin(pace * x + start) + 0.4 * math.sin(2.7 * pace * x + 2 * start)
            crest = min(height, max(0, int(middle - swing * wave)))
            column = column[:crest] + hill[crest:]
        columns.append(column)
    pixels = b"".join(columns)
    rows = b"".join(b"\0" + pixels[y::height] for y in range(height))
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        *(_chunk(b"tEXt", f"{key}\0{text}".encode("latin-1")) for key, text in texts.items()),
        _chunk(b"PLTE", palette),
        _chunk(b"IDAT", zlib.compress(rows, 4)),
        _chunk(b"IEND", b""),
    ]
    missing = pad_to - sum(map(len, parts)) - 12
    if missing > 0:
        parts.insert(-2, _chunk(b"paDd", bytes(missing)))
    return b"".join(parts)


def draw_preview(picture: bytes, image_format: str, quality: int) -> bytes:
    """What stands for the re-encoded picture: the right first bytes, smaller with the quality."""
    size = max(128, len(picture) * quality // (430 if image_format == "webp" else 300))
    start = b"\xff\xd8\xff\xe0\x00\x10JFIF\0"
    if image_format == "webp":
        start = b"RIFF" + struct.pack("<I", size - 8) + b"WEBPVP8 "
    noise = hashlib.sha256(picture).digest()
    return (start + noise * (size // len(noise) + 1))[:size]
