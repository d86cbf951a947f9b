"""Small files of other formats with a text in them, as ComfyUI's nodes for videos write it."""

from __future__ import annotations

import struct

LOOP = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
FRAME = b"!\xf9\x04\0\x0a\0\0\0,\0\0\0\0\1\0\1\0\0\x02\x02L\x01\0"


def gif(text: bytes) -> bytes:
    """An animation with a comment, XMP and a text after its end."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    block = bytes((len(text),)) + text + b"\0"
    texts = b"!\xfe" + block + b"!\xff\x0bXMP DataXMP" + block + b"!\x01" + block
    return head + LOOP + texts + FRAME + texts + FRAME + b";" + text


def box(kind: bytes, data: bytes) -> bytes:
    """A part of an mp4."""
    return struct.pack(">I4s", 8 + len(data), kind) + data


def mp4(text: bytes) -> bytes:
    """A video with the text in every place that writers use, and one that looks like it in the
    pixels."""
    user = box(b"udta", box(b"meta", b"\0\0\0\0" + box(b"ilst", text)))
    other = box(b"uuid", bytes(16) + text)
    handler = box(b"hdlr", bytes(8) + b"vide" + bytes(12) + text + b"\0")
    track = box(b"trak", box(b"tkhd", bytes(84)) + box(b"mdia", handler) + user + other)
    film = box(b"moov", box(b"mvhd", bytes(100)) + track + user + box(b"meta", text))
    part = box(b"moof", box(b"traf", box(b"tfhd", bytes(8)) + user) + other)
    large = struct.pack(">I4sQ", 1, b"uuid", 16 + len(text)) + text
    pixels = box(b"mdat", b"\0\0\0\x10udta: pixels")
    return (
        box(b"ftyp", b"isom\0\0\2\0isommp42") + box(b"free", text) + film + pixels
        + part + large + other + box(b"what", text) + struct.pack(">I4s", 0, b"skip") + text
    )  # fmt: skip


def element(kind: int, data: bytes, width: int = 1, *, unknown: bool = False) -> bytes:
    """A part of a webm, with its length in so many bytes."""
    size = (1 << 7 * width) - 1 if unknown else len(data)
    head = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return head + (size | 1 << 7 * width).to_bytes(width, "big") + data


def webm(text: bytes, *, unknown: bool = False) -> bytes:
    """A video with texts in its tags, attachments and titles; `unknown`: as it is streamed."""
    info = element(0x2AD7B1, b"\x0f\x42\x40") + element(0x7BA9, text) + element(0xBF, b"1234")
    entry = element(0xD7, b"\1") + element(0x536E, text, 2)
    cluster = element(0xE7, b"\0") + element(0xA3, b"\x81\0\0\x80\x12\x54\xc3\x67 pixels")
    inside = (
        element(0x114D9B74, b"seek") + element(0x1549A966, info, 8) + element(0xEC, text, 4)
        + element(0x1654AE6B, element(0xAE, entry), 8)
        + element(0x1F43B675, cluster, 8, unknown=unknown)
        + element(0x1254C367, text, 8) + element(0x1941A469, text, 3) + element(0x1043A770, text)
    )  # fmt: skip
    head = element(0x1A45DFA3, element(0x4282, b"webm"))
    return head + element(0x18538067, inside, 8, unknown=unknown)


def flac(text: bytes) -> bytes:
    """A sound with the text in its comments and in a picture."""
    blocks = [(0, bytes(34)), (4, text), (6, text), (3, bytes(18)), (0x81, text)]
    head = b"".join(bytes((kind,)) + len(data).to_bytes(3, "big") + data for kind, data in blocks)
    return b"fLaC" + head + b"\xff\xf8 sound"


def mp3(text: bytes) -> bytes:
    """A sound with the text in the tags before and after it."""
    size = len(text)
    return (
        b"ID3\x04\0\0" + bytes((0, 0, size >> 7, size & 0x7F)) + text
        + b"\xff\xfb sound" + b"TAG" + text[:125].ljust(125, b"\0")
    )  # fmt: skip
