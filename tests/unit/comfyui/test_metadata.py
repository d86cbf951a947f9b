"""Pictures without their metadata, parsed again by the tests' own parsers."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest

from comfyui.metadata import MetadataStays, without_metadata
from tests.standins.comfyui.media import FRAME, LOOP, box, gif, mp4, webm
from tests.standins.comfyui.pictures import draw_png, draw_step

Chunk = tuple[bytes, bytes]

SECRET = "D:\\models\\a red fox"
TEXTS = {"prompt": json.dumps({"268": SECRET}), "workflow": json.dumps({"nodes": [SECRET]})}
SECRET_BYTES = json.dumps(SECRET)[1:-1].encode()
PLAIN_PNG = draw_png(b"1", (64, 48), {}, 0)
PLAIN_JPEG = draw_step(b"1", (64, 48), 0.5, "JPEG")


# PNG


def png(*chunks: Chunk) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        check = zlib.crc32(kind + data)
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))
    return b"".join(parts)


def png_chunks(data: bytes) -> Iterator[Chunk]:
    rest = data[8:]
    while rest:
        length = int.from_bytes(rest[:4], "big")
        yield rest[4:8], rest[8 : 8 + length]
        assert rest[8 + length : 12 + length] == struct.pack(">I", zlib.crc32(rest[4 : 8 + length]))
        rest = rest[12 + length :]


def png_pixels(data: bytes) -> bytes:
    return zlib.decompress(b"".join(body for kind, body in png_chunks(data) if kind == b"IDAT"))


def test_a_png_loses_comfyuis_texts_and_no_pixel() -> None:
    made = draw_png(b"1", (64, 48), TEXTS, 5000)
    assert SECRET_BYTES in made
    posted = without_metadata(made)
    assert SECRET_BYTES not in posted
    assert png_pixels(posted) == png_pixels(made) == png_pixels(PLAIN_PNG)
    kept = [(kind, body) for kind, body in png_chunks(made) if kind not in (b"tEXt", b"paDd")]
    assert list(png_chunks(posted)) == kept
    assert {kind for kind, _ in kept} == {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"comf"])
@pytest.mark.parametrize("place", [1, -1], ids=["before-the-pixels", "behind-them"])
def test_every_chunk_that_holds_a_prompt_goes_wherever_it_stands(kind: bytes, place: int) -> None:
    chunks = list(png_chunks(PLAIN_PNG))
    chunks.insert(place, (kind, b"prompt\0" + SECRET_BYTES))
    assert without_metadata(png(*chunks)) == PLAIN_PNG


def test_colours_and_the_frames_of_an_animation_stay() -> None:
    start, palette, pixels, end = png_chunks(PLAIN_PNG)
    others = (b"iCCP", b"profile"), (b"gAMA", b"\0\0\xb1\x8f"), (b"tRNS", b"\0"), (b"acTL", b"2")
    frames = (b"fcTL", b"first"), pixels, (b"fcTL", b"second"), (b"fdAT", b"tEXt: no chunk")
    animated = [start, *others, palette, *frames]
    made = png(*animated, (b"comf", SECRET_BYTES), end)
    assert without_metadata(made) == png(*animated, end)


def test_what_stands_behind_the_end_of_a_picture_goes() -> None:
    assert without_metadata(PLAIN_PNG + SECRET_BYTES) == PLAIN_PNG
    assert without_metadata(PLAIN_JPEG + SECRET_BYTES) == PLAIN_JPEG
    plain = webp((b"VP8L", b"pixels"))
    assert without_metadata(plain + SECRET_BYTES) == plain


# WebP


def webp(*chunks: Chunk) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def vp8x(flags: int) -> Chunk:
    return b"VP8X", bytes((flags, 0, 0, 0, 63, 0, 0, 47, 0, 0))


PROFILE, ANIMATED, ALPHA, EXIF, XMP = 0x20, 0x02, 0x10, 0x08, 0x04


@pytest.mark.parametrize("secret", [SECRET_BYTES, SECRET_BYTES + b"!"], ids=["odd", "even"])
def test_a_webp_loses_exif_and_xmp_and_says_so_in_its_header(secret: bytes) -> None:
    pixels = [(b"ICCP", b"profile"), (b"ANIM", b"123456"), (b"ANMF", b"EXIF in the pixels")]
    shown = PROFILE | ANIMATED | ALPHA
    texts = (b"EXIF", b"prompt:" + secret), (b"XMP ", secret)
    made = webp(vp8x(shown | EXIF | XMP), *pixels, texts[0], (b"free", secret), texts[1])
    assert without_metadata(made) == webp(vp8x(shown), *pixels)


def test_a_webp_whose_last_chunk_lacks_its_padding_is_read_all_the_same() -> None:
    made = webp(vp8x(EXIF), (b"VP8L", b"pixels"), (b"EXIF", b"odd"))
    cut = made[:4] + struct.pack("<I", len(made) - 9) + made[8:-1]
    assert without_metadata(cut) == webp(vp8x(0), (b"VP8L", b"pixels"))


def test_a_webp_with_a_chunk_that_is_longer_than_the_file_is_refused() -> None:
    made = webp((b"VP8L", b"pixels"), (b"EXIF", b"even"))
    wrong = made.replace(b"EXIF\4", b"EXIF\7")
    with pytest.raises(MetadataStays):
        without_metadata(wrong)


# JPEG


def segment(code: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(data) + 2) + data


@pytest.mark.parametrize("code", [0xE1, 0xED, 0xFE], ids=["EXIF-or-XMP", "IPTC", "comment"])
def test_a_jpeg_loses_every_segment_that_holds_a_prompt_and_no_pixel(code: int) -> None:
    colours = segment(0xE2, b"ICC_PROFILE\0") + segment(0xEE, b"Adobe\0")
    made = PLAIN_JPEG[:2] + segment(code, SECRET_BYTES) + colours + PLAIN_JPEG[2:]
    assert without_metadata(made) == PLAIN_JPEG[:2] + colours + PLAIN_JPEG[2:]


def test_a_jpeg_may_have_several_scans_with_texts_and_restarts_between() -> None:
    table, scan = segment(0xC4, b"table"), segment(0xDA, b"\1\1\0\0\x3f\0")
    first, second = scan + b"pi\xff\0xe\xff\xd0ls\xff\xd7\xff\0", table + scan + b"more\xff\0"
    comment = segment(0xFE, SECRET_BYTES)
    filled = b"\xff\xff" + comment  # any marker may have more of these before it
    made = b"\xff\xd8" + filled + first + comment + filled + second + comment + b"\xff\xff\xd9"
    assert without_metadata(made) == b"\xff\xd8" + first + second + b"\xff\xff\xd9"


def test_a_jpegs_other_segments_go_too() -> None:
    others = segment(0xE2, b"MPF\0" + SECRET_BYTES) + segment(0xE9, SECRET_BYTES)
    assert without_metadata(PLAIN_JPEG[:2] + others + PLAIN_JPEG[2:]) == PLAIN_JPEG


# GIF


def test_a_gif_keeps_its_frames_and_how_often_they_are_shown() -> None:
    posted = without_metadata(gif(SECRET_BYTES))
    head = gif(b"")[:19]
    assert posted == head + LOOP + FRAME + FRAME + b";"


# Videos


@pytest.mark.parametrize(
    "made",
    [mp4, webm, lambda text: webm(text, unknown=True)],
    ids=["mp4", "webm", "streamed-webm"],
)
def test_a_videos_texts_are_overwritten_in_place(made: Callable[[bytes], bytes]) -> None:
    posted = without_metadata(made(SECRET_BYTES))
    assert len(posted) == len(made(SECRET_BYTES))
    assert SECRET_BYTES not in posted
    assert b"pixels" in posted
    assert posted.index(b"pixels") == made(SECRET_BYTES).index(b"pixels")
    assert without_metadata(posted) == posted


def test_what_follows_a_webm_goes() -> None:
    assert without_metadata(webm(b"") + SECRET_BYTES) == without_metadata(webm(b""))


# All of them

WITH_TEXTS = [
    draw_png(b"1", (64, 48), TEXTS, 0),
    webp(vp8x(EXIF), (b"VP8L", b"pixels"), (b"EXIF", SECRET_BYTES)),
    PLAIN_JPEG[:2] + segment(0xFE, SECRET_BYTES) + PLAIN_JPEG[2:],
    gif(SECRET_BYTES),
    mp4(SECRET_BYTES),
    webm(SECRET_BYTES),
]


@pytest.mark.parametrize("made", WITH_TEXTS, ids=["png", "webp", "jpeg", "gif", "mp4", "webm"])
def test_a_broken_file_never_comes_back_with_its_texts_wherever_it_is_cut(made: bytes) -> None:
    assert SECRET_BYTES in made
    for length in range(len(made)):
        with contextlib.suppress(MetadataStays):
            assert SECRET_BYTES not in without_metadata(made[:length])
    for place in range(2, min(400, len(made))):  # and a byte that is wrong is no other exception
        with contextlib.suppress(MetadataStays):
            without_metadata(made[:place] + b"\xff" + made[place + 1 :])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\x20ftypavif" + SECRET_BYTES,
        b"\0\0\0\x20ftypheic" + SECRET_BYTES,
        webp((b"EXIF", SECRET_BYTES)).replace(b"WEBP", b"AVI "),
        b"II*\0" + SECRET_BYTES,
        PLAIN_PNG[:-12],
    ],
    ids=["nothing", "avif", "heic", "avi", "tiff", "cut"],
)
def test_other_formats_and_broken_files_are_refused(data: bytes) -> None:
    with pytest.raises(MetadataStays):
        without_metadata(data)


def test_a_maze_of_boxes_is_refused() -> None:
    maze = b""
    for _ in range(2000):
        maze = box(b"moov", maze)
    with pytest.raises(MetadataStays):
        without_metadata(maze)


def test_a_picture_without_texts_is_not_copied_and_any_other_only_once() -> None:
    assert without_metadata(PLAIN_PNG) is PLAIN_PNG
    assert without_metadata(PLAIN_JPEG) is PLAIN_JPEG
    plain_webp = webp(vp8x(EXIF), (b"VP8L", b"pixels"))  # announced, and not there
    assert without_metadata(plain_webp) is plain_webp
    made = draw_png(b"1", (64, 48), TEXTS, 4_000_000)
    tracemalloc.start()
    posted = without_metadata(made)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(posted) < peak < len(made) + 100_000
