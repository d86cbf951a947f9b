"""Which files are pictures that a workflow can work on, and what people read of all others."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from comfyui.images import BYTES_MAX, Image, kind_of

# Pictures of 5 x 3 pixels as Pillow writes them.
FILES = {
    "png": (
        "iVBORw0KGgoAAAANSUhEUgAAAAUAAAADCAIAAADUVFKvAAAAEElEQVR4nGP8z4ACmBjw8wEvkQEFsRIyegAAAA"
        "BJRU5ErkJggg=="
    ),
    "apng": (
        "iVBORw0KGgoAAAANSUhEUgAAAAUAAAADCAIAAADUVFKvAAAACGFjVEwAAAADAAAAAM7tusAAAAAaZmNUTAAAAA"
        "AAAAAFAAAAAwAAAAAAAAAAAAAAAQAAKqRK8gAAABBJREFUeJxj/M+AApgY8PMBL5EBBbESMnoAAAAaZmNUTAAA"
        "AAEAAAAFAAAAAwAAAAAAAAAAAAAAAQAAsdegJgAAABZmZEFUAAAAAnicY2RoYEAGTAwMePkAF8AAhisBq18AAA"
        "AaZmNUTAAAAAMAAAAFAAAAAwAAAAAAAAAAAAAAAQAAXEFzzwAAABRmZEFUAAAABHicY/zPgAKYGPDzAS+RAQV0"
        "NAvyAAAAAElFTkSuQmCC"
    ),
    "jpeg": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/4QAiRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAD/2wBDAP////"
        "//////////////////////////////////////////////////////////////////////////////////2wBD"
        "Af////////////////////////////////////////////////////////////////////////////////////"
        "//wAARCAADAAUDASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIE"
        "AwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3OD"
        "k6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2"
        "t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEBAQEBAQEBAQAAAAAAAA"
        "ECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAECAxEEBSExBhJBUQdhcRMiMoEIFEKRobHBCSMzUvAV"
        "YnLRChYkNOEl8RcYGRomJygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6goOEhYaHiI"
        "mKkpOUlZaXmJmaoqOkpaanqKmqsrO0tba3uLm6wsPExcbHyMnK0tPU1dbX2Nna4uPk5ebn6Onq8vP09fb3+Pn6"
        "/9oADAMBAAIRAxEAPwBtFFFI0P/Z"
    ),
    "progressive": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP////////////////////////////////////////////////////"
        "//////////////////////////////////2wBDAf//////////////////////////////////////////////"
        "////////////////////////////////////////wgARCAADAAUDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAA"
        "AAAAAAAAH/xAAVAQEBAAAAAAAAAAAAAAAAAAABAv/aAAwDAQACEAMQAAABgK//xAAUEAEAAAAAAAAAAAAAAAAA"
        "AAAA/9oACAEBAAEFAn//xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oACAEDAQE/AX//xAAUEQEAAAAAAAAAAAAAAA"
        "AAAAAA/9oACAECAQE/AX//xAAUEAEAAAAAAAAAAAAAAAAAAAAA/9oACAEBAAY/An//xAAUEAEAAAAAAAAAAAAA"
        "AAAAAAAA/9oACAEBAAE/IX//2gAMAwEAAgADAAAAEAv/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oACAEDAQE/EH"
        "//xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oACAECAQE/EH//xAAUEAEAAAAAAAAAAAAAAAAAAAAA/9oACAEBAAE/"
        "EH//2Q=="
    ),
    "lossy": ("UklGRjIAAABXRUJQVlA4ICYAAABwAQCdASoFAAMADMDOJaACdAFAAAD+3FHSXS5Df6u/O36ntgAAAA=="),
    "lossless": ("UklGRhwAAABXRUJQVlA4TA8AAAAvBIAAAAcQ/Y/+ByKi/wEA"),
    "extended": (
        "UklGRloAAABXRUJQVlA4WAoAAAAYAAAABAAAAgAAQUxQSA8AAAABB0AgaYu3/RERR0T0PwAAVlA4IBgAAAAwAQ"
        "CdASoFAAMADMDOJaQAA3AA/uwdgABFWElGAwAAAGFiYwA="
    ),
    "animated": (
        "UklGRsYAAABXRUJQVlA4WAoAAAACAAAABAAAAgAAQU5JTQYAAAAAAAAAAABBTk1GSgAAAAAAAAAAAAQAAAIAAA"
        "AAAAJWUDggMgAAADABAJ0BKgUAAwABQCYloAADcAD+8ut///mwP/bz/wR6Af//0uD//pcH//S4P/SkAAAAQU5N"
        "RkgAAAAAAAAAAAAEAAACAAAAAAAAVlA4IDAAAAA0AQCdASoFAAMAAAAmJaAAA3AA/vNpl//5sD/yD/5B9/v//0"
        "0j/+mkf/00j5TQAAA="
    ),
    "gif": ("R0lGODdhBQADAIEAAP8AAAAAAAAAAAAAACwAAAAABQADAAAICAABCBxIsGBAADs="),
    "frames": (
        "R0lGODlhBQADAIEAAP8AAAAAAAAAAAAAACH/C05FVFNDQVBFMi4wAwEAAAAh+QQACgAAACwAAAAABQADAAAICA"
        "ABCBxIsGBAACH5BAEKAAEALAAAAAAFAAMAgQCAAAAAAAAAAAAAAAgIAAEIHEiwYEAAIfkEAQoAAQAsAAAAAAUA"
        "AwCB/wAAAAAAAAAAAAAACAgAAQgcSLBgQAA7"
    ),
}
DATA = {name: base64.b64decode(text) for name, text in FILES.items()}
SEND = "Send a PNG, JPEG, WebP or GIF picture instead."
BROKEN = f"picture is broken or not complete. {SEND}"


def image(data: bytes) -> Image:
    found = kind_of(data)
    assert isinstance(found, Image), found
    return found


def png(width: int, height: int) -> bytes:
    """A PNG of that size, whose pixels are missing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in ((b"IHDR", header), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + data))
        parts += [struct.pack(">I", len(data)), kind, data, check]
    return b"".join(parts)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("png", ".png"),
        ("jpeg", ".jpg"),
        ("progressive", ".jpg"),
        ("lossy", ".webp"),
        ("lossless", ".webp"),
        ("extended", ".webp"),
        ("gif", ".gif"),
    ],
)
def test_a_picture_is_taken_as_it_is_with_its_size(name: str, suffix: str) -> None:
    assert image(DATA[name]) == (DATA[name], suffix, 5, 3)


def test_each_side_of_a_webp_is_read_to_its_last_bit() -> None:
    """A size of two bytes a side, and with bits that do not count, in each of its three kinds."""
    lossy = bytearray(DATA["lossy"])
    lossy[26:30] = struct.pack("<HH", 0x4000 | 300, 0x8000 | 200)
    lossless = bytearray(DATA["lossless"])
    lossless[21:25] = struct.pack("<I", 1 << 28 | 199 << 14 | 299)
    extended = bytearray(DATA["extended"])
    extended[24:30] = (299).to_bytes(3, "little") + (199).to_bytes(3, "little")
    for data in (lossy, lossless, extended):
        assert image(bytes(data))[2:] == (300, 200)


def test_of_a_gif_with_frames_the_first_is_taken() -> None:
    taken = image(DATA["frames"])
    assert taken[1:] == (".gif", 5, 3)
    assert DATA["frames"].startswith(taken.data[:-1])
    descriptor = b",\0\0\0\0\5\0\3\0"
    assert (DATA["frames"].count(descriptor), taken.data.count(descriptor)) == (3, 1)
    assert taken.data.endswith(b"\0;")
    assert image(taken.data) == taken


def test_a_frame_may_have_colors_of_its_own() -> None:
    colors, pixels = b"\x63" * 6, b"\2\2D\1\0"
    head = b"GIF89a" + struct.pack("<HHBBB", 5, 3, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 5, 3, 0x80) + colors + pixels
    assert image(head + frame + frame + b";").data == head + frame + b";"


def test_the_tables_of_a_jpeg_may_stand_before_its_size() -> None:
    table = b"\xff\xc4\0\x09\7\7\7\7\7\7\7"
    assert image(b"\xff\xd8" + table + DATA["jpeg"][2:])[1:] == (".jpg", 5, 3)


def test_of_an_animated_png_the_picture_that_all_programs_show_is_taken() -> None:
    taken = image(DATA["apng"])
    assert taken[1:] == (".png", 5, 3)
    for kind in (b"acTL", b"fcTL", b"fdAT"):
        assert kind in DATA["apng"]
        assert kind not in taken.data
    assert taken.data.endswith(DATA["png"][-16:])


def test_an_animated_webp_is_refused() -> None:
    assert kind_of(DATA["animated"]) == f"This WebP picture is an animation. {SEND}"


@pytest.mark.parametrize("name", [name for name in FILES if name != "animated"])
def test_a_file_that_ends_within_its_header_is_refused(name: str) -> None:
    data = DATA[name]
    whole = len(data) if data.startswith((b"RIFF", b"\x89PNG")) else 0
    headers = {"jpeg": 100, "progressive": 100, "gif": len(data) - 1, "frames": 55}
    for length in range(12, whole or headers[name]):
        refused = kind_of(data[:length])
        assert isinstance(refused, str), length
        assert refused.endswith(BROKEN)


@pytest.mark.parametrize(
    "data",
    [
        png(0, 5),
        png(5, 0),
        DATA["png"].replace(b"IHDR", b"IHDX"),
        DATA["jpeg"][:2] + DATA["jpeg"][-2:],
        DATA["jpeg"][:20] + b"no marker" + DATA["jpeg"][20:],
        DATA["lossy"].replace(b"\x9d\x01\x2a", b"\x9d\x01\x2b"),
        DATA["lossless"][:20] + b"\0" + DATA["lossless"][21:],
        DATA["lossy"].replace(b"VP8 ", b"ALPH"),
        DATA["gif"][:6] + bytes(4) + DATA["gif"][10:],
        b"GIF89a\5\0\3\0\0\0\0;",
        b"GIF89a\5\0\3\0\0\0\0x" + bytes(20),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(data: bytes) -> None:
    refused = kind_of(data)
    assert isinstance(refused, str)
    assert refused.endswith(BROKEN)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "an HEIC photo"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "an HEIC photo"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF picture"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "a video"),
        (b"\x1aE\xdf\xa3\x01", "a video"),
        (b"%PDF-1.7", "a PDF document"),
        (b"II*\0\x08\0", "a TIFF picture"),
        (b"MM\0*\0\0", "a TIFF picture"),
        (b"BM\x36\0", "a BMP picture"),
        (b"\xff\x0a\xfa", "a JPEG XL picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b'\n<?xml version="1.0"?>\n<!-- x -->\n<svg/>', "an SVG drawing"),
        (b"<!DOCTYPE html><title>Sign in</title><svg/>", "a web page"),
        (b"\n<HTML><body>", "a web page"),
        (b"bm, a text", "no picture that can be used here"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "no picture that can be used here"),
        (b"", "no picture that can be used here"),
    ],
)
def test_what_is_no_picture_is_named_with_what_to_send(data: bytes, what: str) -> None:
    assert kind_of(data) == f"This file is {what}. {SEND}"


def test_a_file_of_more_than_20_mb_is_refused_and_one_of_20_is_not() -> None:
    padded = DATA["jpeg"].ljust(BYTES_MAX, b"\0")
    assert image(padded).width == 5
    refused = "This file has 20.0 MB; at most 20 MB can be used. Send a smaller one."
    assert kind_of(padded + b"\0") == refused


def test_a_picture_of_more_than_64_megapixels_is_refused_and_one_of_64_is_not() -> None:
    assert image(png(8000, 8000)).height == 8000
    refused = "This picture has 8000 x 8001 pixels; at most 64 million can be used. Send a smaller"
    assert kind_of(png(8000, 8001)) == f"{refused} one."
