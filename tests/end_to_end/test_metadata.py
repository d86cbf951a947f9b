"""KEEP_METADATA, from the owner's `.env` to the picture in the channel."""

from __future__ import annotations

import pytest

from tests.end_to_end.common import order, press_generate, result_of
from tests.harness.house import House
from tests.harness.steps import text_of
from tests.standins.comfyui import execution
from tests.standins.comfyui.media import flac, gif, mp3, mp4, webm

AVIF = b"\0\0\0\x1cftypavif\0\0\0\0a red fox"


def test_with_keep_metadata_off_a_picture_does_not_tell_how_it_was_made(house: House) -> None:
    house.start(KEEP_METADATA="off")
    person = house.discord.person()
    press_generate(house, person, "a red fox")
    (attachment,) = result_of(house, person)["attachments"]
    posted = house.discord.attachment_bytes(attachment)
    (made,) = house.comfyui.pictures.values()
    assert b"a red fox" in made
    assert b"a red fox" not in posted
    assert posted[posted.index(b"IDAT") :] == made[made.index(b"IDAT") :]


@pytest.mark.parametrize(
    ("suffix", "made", "posted_as", "note"),
    [
        (".gif", gif(b"a red fox"), ".gif", ""),
        (".mp4", mp4(b"a red fox"), ".mp4", ""),
        (".webm", webm(b"a red fox"), ".webm", ""),
        (".flac", flac(b"a red fox"), ".flac", ""),
        (".mp3", mp3(b"a red fox"), ".mp3", ""),
        (".avif", AVIF, ".webp", "Its metadata cannot be removed as it was made, so it is shown"),
    ],
)
def test_nor_does_a_file_of_another_format(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    made: bytes,
    posted_as: str,
    note: str,
) -> None:
    monkeypatch.setattr(execution, "png_of", lambda *_: made)
    house.comfyui.saved_as = ("images", suffix)
    house.start(KEEP_METADATA="off")
    person = house.discord.person()
    press_generate(house, person, "a red fox")
    result = result_of(house, person)
    (attachment,) = result["attachments"]
    assert attachment["filename"].endswith(posted_as)
    assert b"a red fox" not in house.discord.attachment_bytes(attachment)
    assert note in result["content"]


def test_a_file_that_cannot_be_parsed_is_not_posted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "png_of", lambda *_: mp4(b"a red fox")[:-300])
    house.comfyui.saved_as = ("gifs", ".mp4")
    house.start(KEEP_METADATA="off")
    person = house.discord.person()
    order(house, person, "a red fox")
    result = result_of(house, person)
    assert result["attachments"] == []
    assert (
        "The video was made, but its metadata cannot be removed. The bot's owner finds it in"
        " ComfyUI's output folder." in text_of(result)
    )
