"""KEEP_METADATA, from the owner's `.env` to the picture in the channel."""

from __future__ import annotations

from tests.end_to_end.common import press_generate, result_of
from tests.harness.house import House


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
