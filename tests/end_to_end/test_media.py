"""Videos, animations and sound: what is more than a picture is posted as it was made."""

from __future__ import annotations

import pytest

from tests.end_to_end.common import order, result_of
from tests.harness.house import House
from tests.harness.steps import text_of
from tests.standins.comfyui import execution
from tests.standins.comfyui.media import flac, gif, mp3, mp4, webm


@pytest.mark.parametrize(
    ("key", "suffix", "made"),
    [
        ("images", ".mp4", mp4(b"by SaveVideo")),
        ("gifs", ".mp4", mp4(b"by VHS_VideoCombine")),
        ("images", ".webm", webm(b"by SaveWEBM")),
        ("gifs", ".gif", gif(b"an animation")),
        ("audio", ".flac", flac(b"by SaveAudio")),
        ("audio", ".mp3", mp3(b"by SaveAudioMP3")),
    ],
)
def test_a_video_or_a_sound_is_posted_with_the_prompt(
    house: House, monkeypatch: pytest.MonkeyPatch, key: str, suffix: str, made: bytes
) -> None:
    monkeypatch.setattr(execution, "png_of", lambda *_: made)
    house.comfyui.saved_as = (key, suffix)
    house.start()
    person = house.discord.person()
    order(house, person, "rain on a roof")
    result = result_of(house, person)
    (attachment,) = result["attachments"]
    assert attachment["filename"].endswith(f"-1{suffix}")
    assert attachment["description"] == "rain on a roof"
    assert house.discord.attachment_bytes(attachment) == made
    assert "rain on a roof" in text_of(result)


def test_of_a_video_above_discords_limit_the_person_reads_its_size(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mp4(b"a long one") + b"\0" * 13 * 2**20
    monkeypatch.setattr(execution, "png_of", lambda *_: made)
    house.comfyui.saved_as = ("gifs", ".mp4")
    house.start()
    person = house.discord.person()
    order(house, person, "a fox that runs")
    result = result_of(house, person)
    assert result["attachments"] == []
    assert (
        "The video was made, but it has 13.0 MB, more than the 10 MB that Discord takes here. The"
        " bot's owner finds it in ComfyUI's output folder."
    ) in text_of(result)
    assert not [r for r in house.comfyui.requests if "preview" in r.query]
