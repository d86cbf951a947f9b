"""Strip the prompt, the workflow and all other texts from pictures, videos and sound.

Owns where these formats have texts. Pure functions on bytes: no pixel is decoded or changed. Of
PNG, WebP, JPEG, GIF, FLAC and MP3 only what makes the picture or the sound is kept. In mp4, mov,
webm and mkv the parts with texts are overwritten in place, so that all offsets hold. Every other
format is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

Cut: TypeAlias = tuple[int, int, bytes]  # from where to where, and what comes in its place

PNG_KEPT = (  # besides the pixels: colors, transparency, size, and the frames of an animation
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"),
    *(b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"cICP", b"mDCV", b"cLLI"),
)
WEBP_KEPT = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP")
WEBP_TEXT_FLAGS = 0x08 | 0x04  # in VP8X, which announces EXIF and XMP
JPEG_APPS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}  # the others have texts
SCAN, END, FIRST_APP = 0xDA, 0xD9, 0xE0  # codes of JPEG's markers; comments come after the last
JPEG_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
# In the coded pixels of a scan, 0xFF is followed by 0 or by the number of a restart marker.
JPEG_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
GIF_EXTENSION, GIF_FRAME, GIF_END = b"!,;"
GIF_KEPT = re.compile(  # how a frame is shown; how often all are
    rb"!(?:\xf9\x04.{4}|\xff\x0b(?:NETSCAPE2\.0|ANIMEXTS1\.0)\x03\x01..)\0", re.DOTALL
)
MP4_TOP = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"mfra")
MP4_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf")
MP4_TEXTS = (b"udta", b"meta", b"uuid", b"free", b"skip", b"wide", b"XMP_")
MP4_HANDLER_NAME = 24  # where it begins in `hdlr`
SEGMENT, CLUSTER, VOID = 0x18538067, 0x1F43B675, 0xEC  # ids in webm and mkv
MKV_PARENTS = (SEGMENT, 0x1549A966, 0x1654AE6B, 0xAE)  # Info, Tracks, TrackEntry
MKV_TEXTS = (
    *(0x1254C367, 0x1941A469, 0x1043A770),  # Tags, Attachments, Chapters
    *(0x7BA9, 0x536E, 0x7384, 0x3C83AB, 0x3E83BB),  # Title, Name, names of files
    *(VOID, 0xBF),  # CRC-32: of what is overwritten
)
FLAC_KEPT = (0, 3)  # blocks: how the sound is coded, and where to seek
MP3_TAGS_AFTER = re.compile(rb"TAG.{125}\Z|APETAGEX.*\Z", re.DOTALL)


class MetadataStays(Exception):
    """The texts of a file cannot be removed: it is broken, or of an unknown format."""


def without_metadata(data: bytes) -> bytes:
    """Return the picture or video without the texts in its file, and without whatever follows its
    end; all else byte for byte. Raises MetadataStays."""
    find_cuts = next((find for start, find in FORMATS if start.match(data)), None)
    if find_cuts is None:
        raise MetadataStays("of a format whose texts are not known")
    view = memoryview(data)
    try:
        cuts = list(find_cuts(view))
    except (struct.error, IndexError, RecursionError):  # a header that is cut off, or a maze
        raise MetadataStays("broken") from None
    parts: list[memoryview | bytes] = []
    place = 0
    for start, end, instead in cuts:
        parts += [view[place:start], instead]
        place = end
    return b"".join([*parts, view[place:]]) if cuts else data


def _after(data: memoryview, end: int) -> Iterator[Cut]:
    """Yield the cut of what follows the end of a picture."""
    if end < len(data):
        yield end, len(data), b""


def _png(data: memoryview) -> Iterator[Cut]:
    kind, place = b"", 8
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        start, place = place, place + length + 12  # with length, kind and checksum
        if place > len(data) or (kind == b"IEND" and length):
            raise MetadataStays("a broken PNG")
        if kind not in PNG_KEPT:
            yield start, place, b""
    yield from _after(data, place)


def _webp(data: memoryview) -> Iterator[Cut]:
    (size,) = struct.unpack_from("<I", data, 4)
    place, end = 12, 8 + size
    cuts: list[Cut] = []
    flags: list[Cut] = []
    while place < end <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        if place + 8 + length > end:
            break
        start, place = place, min(end, place + 8 + length + length % 2)
        if kind == b"VP8X" and length:
            flags = [(start + 8, start + 9, bytes((data[start + 8] & ~WEBP_TEXT_FLAGS,)))]
        elif kind not in WEBP_KEPT:
            cuts.append((start, place, b""))
    if place != end:
        raise MetadataStays("a broken WebP")
    if cuts:
        size -= sum(stop - start for start, stop, _ in cuts)
        yield 4, 8, struct.pack("<I", size)
        yield from sorted([*flags, *cuts])
    yield from _after(data, end)


def _jpeg(data: memoryview) -> Iterator[Cut]:
    kind, place = 0, 2
    while kind != END:
        marker = JPEG_MARKER.match(data, place)
        if marker is None:
            raise MetadataStays("a broken JPEG")
        kind, body = marker[1][0], marker.end()
        start, place = place, body if kind == END else _jpeg_end(data, body, kind)
        kept = JPEG_APPS.get(kind)
        if kind >= FIRST_APP and not (kept and data[body + 2 : place].tobytes().startswith(kept)):
            yield start, place, b""
    yield from _after(data, place)


def _jpeg_end(data: memoryview, start: int, kind: int) -> int:
    """Return the end of the segment whose length is at `start`; a scan has its pixels after it."""
    end = start + int.from_bytes(data[start : start + 2], "big")
    if kind == SCAN:
        after = JPEG_SCAN_END.search(data, end)
        if after is None:
            raise MetadataStays("a broken JPEG")
        end = after.start()
    return end


def _gif(data: memoryview) -> Iterator[Cut]:
    place = 13 + _gif_colors(data[10])
    while (kind := data[place]) != GIF_END:
        if kind not in (GIF_EXTENSION, GIF_FRAME):
            raise MetadataStays("a broken GIF")
        start = place
        place += 2 if kind == GIF_EXTENSION else 11 + _gif_colors(data[place + 9])
        while length := data[place]:
            place += 1 + length
        place += 1
        if kind == GIF_EXTENSION and not GIF_KEPT.fullmatch(data[start:place]):
            yield start, place, b""
    yield from _after(data, place + 1)


def _gif_colors(flags: int) -> int:
    """Return the bytes of the table of colors that these flags announce."""
    return int(3 << (flags & 7) + 1) if flags & 0x80 else 0


def _mp4(data: memoryview, place: int = 0, end: int | None = None) -> Iterator[Cut]:
    is_top, end = end is None, len(data) if end is None else end
    while place < end:
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, place + 8), 16
        elif size == 0:  # up to the end of the file
            size = end - place
        body, stop = place + head, place + size
        if size < head or stop > end:
            raise MetadataStays("a broken mp4")
        if kind in MP4_PARENTS:
            yield from _mp4(data, body, stop)
        elif kind == b"hdlr":
            body = min(stop, body + MP4_HANDLER_NAME)
            yield body, stop, bytes(stop - body)
        elif kind in MP4_TEXTS or (is_top and kind not in MP4_TOP):
            yield place + 4, place + 8, b"free"
            yield body, stop, bytes(stop - body)
        place = stop


def _mkv(data: memoryview, place: int = 0, end: int | None = None) -> Iterator[Cut]:
    end = len(data) if end is None else end
    while place < end:
        kind, width = _mkv_number(data, place)
        size, size_width = _mkv_number(data, place + width)
        body = place + width + size_width
        most = (1 << 7 * size_width) - 1
        size &= most
        if size == most and kind in (SEGMENT, CLUSTER):  # of unknown length: its parts come next
            place = body
            continue
        stop = body + size
        if stop > end:
            raise MetadataStays("a broken webm")
        if kind in MKV_PARENTS:
            yield from _mkv(data, body, stop)
        elif kind in MKV_TEXTS:
            yield place, stop, _mkv_void(stop - place, body - place)
        if kind == SEGMENT:
            yield from _after(data, stop)
            return
        place = stop


def _flac(data: memoryview) -> Iterator[Cut]:
    place, is_last = 4, 0
    while not is_last:
        start, kind = place, data[place] & 0x7F
        is_last = data[place] & 0x80
        place += 4 + int.from_bytes(data[start + 1 : start + 4], "big")
        if place > len(data):
            raise MetadataStays("a broken FLAC")
        if kind not in FLAC_KEPT:  # blank, since the first block must not become the last
            yield start, start + 1, bytes((is_last | 1,))
            yield start + 4, place, bytes(place - start - 4)


def _mp3(data: memoryview) -> Iterator[Cut]:
    start = 0
    while data[start : start + 3].tobytes() == b"ID3":
        size = data[start + 6 : start + 10]  # of seven bits each
        start += 10 + sum(part << 7 * (3 - place) for place, part in enumerate(size))
    if data[start] != 0xFF:
        raise MetadataStays("a broken MP3")
    yield 0, start, b""
    if after := MP3_TAGS_AFTER.search(data, start):
        yield after.start(), len(data), b""


def _mkv_number(data: memoryview, place: int) -> tuple[int, int]:
    """Return a number of variable length, with the bit that tells its length, and that length."""
    width = 9 - data[place].bit_length()
    if width > 8 or place + width > len(data):
        raise MetadataStays("a broken webm")
    return int.from_bytes(data[place : place + width], "big"), width


def _mkv_void(total: int, head: int) -> bytes:
    """Return a blank element of so many bytes, in place of one whose id and length have `head`."""
    width = min(8, head - 1)
    size = total - 1 - width
    return bytes((VOID,)) + (size | 1 << 7 * width).to_bytes(width, "big") + bytes(size)


# The last but one: not AVIF and HEIC, which have their pixels in `meta`.
FORMATS: list[tuple[re.Pattern[bytes], Callable[[memoryview], Iterator[Cut]]]] = [
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _webp),
    (re.compile(rb"\xff\xd8"), _jpeg),
    (re.compile(rb"fLaC"), _flac),
    (re.compile(rb"ID3|\xff[\xe2-\xff]"), _mp3),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb".{4}(?:ftyp(?!avi|hei|hev|mif|msf)|moov|mdat|wide|free|skip)", re.DOTALL), _mp4),
    (re.compile(rb"\x1a\x45\xdf\xa3"), _mkv),
]
