"""The pictures that the stand-in "generates": drawn in pure Python, different for each seed."""

from __future__ import annotations

import colorsys
import hashlib
import math
import random
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

CELL = 8  # pixels of a preview that stand for one of the latent image


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


def _landscape(seed: bytes, width: int, height: int) -> tuple[bytes, bytes]:
    """A palette, and a landscape of indexes into it, column by column.

    Drawn as whole columns (sky, a sun with a halo, three ranges of hills): that is what pure Python
    does in a few milliseconds.
    """
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
    return palette, b"".join(columns)


def _png(size: tuple[int, int], palette: bytes, rows: bytes, extra: list[bytes]) -> bytes:
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 3, 0, 0, 0)),
        *extra,
        _chunk(b"PLTE", palette),
        _chunk(b"IDAT", zlib.compress(rows, 4)),
        _chunk(b"IEND", b""),
    ]
    return b"".join(parts)


class Drawing(NamedTuple):
    """A picture: its palette, and its pixels as indexes into it, column by column."""

    size: tuple[int, int]
    palette: bytes
    pixels: bytes

    def resized(self, size: tuple[int, int]) -> Drawing:
        """The same picture in another size."""
        (width, height), (wide, high) = self.size, size
        if size == self.size:
            return self
        rows = [y * height // high for y in range(high)]
        columns = (self.pixels[x * height : (x + 1) * height] for x in range(width))
        stretched = [bytes(map(column.__getitem__, rows)) for column in columns]
        pixels = b"".join(stretched[x * width // wide] for x in range(wide))
        return Drawing(size, self.palette, pixels)

    def restyled(self, seed: bytes, part: float) -> Drawing:
        """The same picture with its colours changed by `part`, from 0 to 1."""
        other = _landscape(seed, 1, 1)[0][: len(self.palette)]
        mixed = (
            int(old + (new - old) * part)
            for old, new in zip(self.palette, other.ljust(len(self.palette), b"\0"), strict=True)
        )
        return Drawing(self.size, bytes(mixed), self.pixels)


def draw(seed: bytes, size: tuple[int, int]) -> Drawing:
    """A small landscape that depends on the seed alone."""
    return Drawing(size, *_landscape(seed, *size))


def decoded(png: bytes) -> Drawing | None:
    """One of our own drawings, read from its file; None for another's."""
    chunks: dict[bytes, bytes] = {}
    at = 8
    while png.startswith(b"\x89PNG") and b"IEND" not in chunks:
        length, kind = struct.unpack_from(">I4s", png, at)
        chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + length]
        at += length + 12
    if b"IDAT" not in chunks or chunks[b"IHDR"][8:] != bytes((8, 3, 0, 0, 0)):
        return None
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    rows = zlib.decompress(chunks[b"IDAT"])
    if any(rows[:: width + 1]):  # rows that are stored as differences: not ours
        return None
    columns = (rows[x :: width + 1] for x in range(1, width + 1))
    return Drawing((width, height), chunks[b"PLTE"], b"".join(columns))


def png_of(drawing: Drawing, texts: Mapping[str, str], pad_to: int) -> bytes:
    """A drawing as a file, with text chunks as ComfyUI writes them."""
    size, palette, pixels = drawing
    height = size[1]
    rows = b"".join(b"\0" + pixels[y::height] for y in range(height))
    chunks = [_chunk(b"tEXt", f"{key}\0{text}".encode("latin-1")) for key, text in texts.items()]
    picture = _png(size, palette, rows, chunks)
    missing = pad_to - len(picture) - 12
    if missing > 0:
        picture = _png(size, palette, rows, [*chunks, _chunk(b"paDd", bytes(missing))])
    return picture


def draw_png(seed: bytes, size: tuple[int, int], texts: Mapping[str, str], pad_to: int) -> bytes:
    """A small landscape as a file."""
    return png_of(draw(seed, size), texts, pad_to)


def draw_step(seed: bytes, size: tuple[int, int], part: float, image_format: str) -> bytes:
    """The picture of draw() while it is made: a mosaic that comes out of noise as `part` goes
    from 0 to 1. At most 512 pixels wide or high, "JPEG" or "PNG"."""
    cells = [max(1, side * min(512, max(size)) // max(size) // CELL) for side in size]
    palette, pixels = _landscape(seed, *cells)
    turns, noise = random.Random(seed), random.Random(seed + str(part).encode())
    pixels = bytes(
        pixel if turn < 256 * part else other
        for pixel, turn, other in zip(
            pixels, turns.randbytes(len(pixels)), noise.randbytes(len(pixels)), strict=True
        )
    )
    rows = [pixels[y :: cells[1]] for y in range(cells[1])]
    if image_format == "JPEG":
        return _jpeg(palette, rows)
    wide = [b"\0" + b"".join(bytes((pixel,)) * CELL for pixel in row) for row in rows]
    lines = b"".join(line * CELL for line in wide)
    return _png((cells[0] * CELL, cells[1] * CELL), palette, lines, [])


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _jpeg(palette: bytes, rows: list[bytes]) -> bytes:
    """Each pixel as a block of 8 by 8 in one colour: a block has nothing but its mean, which is
    coded as the difference to that of the block before."""
    colours = [_ycc(*palette[index : index + 3]) for index in range(0, len(palette), 3)]
    bits, before = [], (0, 0, 0)
    for pixel in b"".join(rows):
        colour = colours[pixel]
        for value, last in zip(colour, before, strict=True):
            step = value - last
            size = abs(step).bit_length()
            bits.append(f"{size:04b}")
            if size:
                bits.append(f"{step if step > 0 else step + (1 << size) - 1:0{size}b}")
            bits.append("0")  # no more in this block
        before = colour
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width = len(rows) * CELL, len(rows[0]) * CELL
    parts = [
        b"\xff\xd8",
        _segment(0xE0, b"JFIF\0" + bytes((1, 1, 0, 0, 1, 0, 1, 0, 0))),
        _segment(0xDB, b"\0" + bytes([8] * 64)),
        _segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"),
        _segment(0xC4, b"\0" + bytes([0, 0, 0, 10] + [0] * 12) + bytes(range(10))),
        _segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0"),
        _segment(0xDA, b"\3\1\0\2\0\3\0" + bytes((0, 63, 0))),
        data,
        b"\xff\xd9",
    ]
    return b"".join(parts)


def _ycc(red: int, green: int, blue: int) -> tuple[int, int, int]:
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    return round(light) - 128, round(0.564 * (blue - light)), round(0.713 * (red - light))


def draw_preview(picture: bytes, image_format: str, quality: int) -> bytes:
    """What stands for the re-encoded picture: the right first bytes, smaller with the quality."""
    size = max(128, len(picture) * quality // (430 if image_format == "webp" else 300))
    head = b"\xff\xd8" + _segment(0xE0, b"JFIF\0" + bytes(9)) + _segment(0xDA, bytes(8))
    end = b"\xff\xd9"
    if image_format == "webp":
        size += size % 2
        head = b"RIFF" + struct.pack("<I4s4sI", size - 8, b"WEBP", b"VP8 ", size - 20)
        end = b""
    noise = hashlib.sha256(picture).digest().replace(b"\xff", b"\xfe")
    pixels = noise * (size // len(noise) + 1)
    return head + pixels[: size - len(head) - len(end)] + end
