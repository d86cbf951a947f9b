"""Pictures that people give: --once with a file, and jobs that are killed on their way."""

from __future__ import annotations

import shutil
import signal
import struct
from contextlib import closing
from pathlib import Path

import pytest

from job import JobParams
from store import Store
from tests.end_to_end.common import expect_exactly_one_result, run
from tests.harness.bot import REPOSITORY
from tests.harness.house import House
from tests.harness.steps import text_of
from tests.standins.comfyui.pictures import draw_png

PHOTO = draw_png(b"a photo", (64, 48), {}, 0)


def ship(house: House, *names: str) -> None:
    """Install workflows that come with the program."""
    for name in names:
        source = REPOSITORY / "workflows" / name
        shutil.copytree(source, house.installation.folder / "workflows" / name, dirs_exist_ok=True)


def made(out: Path) -> bytes:
    (picture,) = out.iterdir()
    return picture.read_bytes()


def test_once_works_on_a_picture_and_its_strength_counts(house: House, tmp_path: Path) -> None:
    ship(house, "edit")
    house.comfyui.picture_size = None
    file = tmp_path / "photo.png"
    file.write_bytes(PHOTO)
    arguments = ["--once", "a fox", "--workflow", "edit", "--image", str(file), "--seed", "7"]
    arguments += ["--model", "sdxl"]
    found = []
    for strength in ("light", "all"):
        out = tmp_path / strength
        more = ["--strength", strength, "--out", str(out)]
        bot = run(house, *arguments, *more, offline=True)
        assert bot.process.returncode == 0, bot.output
        found.append(made(out))
    assert [workflow["6"]["inputs"]["denoise"] for _, workflow in house.comfyui.posted] == [0.3, 1]
    assert struct.unpack(">II", found[0][16:24]) == (64, 48)
    assert found[0] != found[1]


def test_once_scales_a_large_picture_down_and_refuses_what_is_none(
    house: House, tmp_path: Path
) -> None:
    ship(house, "upscale")
    house.comfyui.picture_size = None
    file = tmp_path / "photo.png"
    file.write_bytes(PHOTO)
    arguments = ["--once", "", "--workflow", "upscale", "--image", str(file)]
    out = tmp_path / "out"
    less = {"MAX_IMAGE_MEGAPIXELS": "0.02"}
    bot = run(house, *arguments, "--out", str(out), offline=True, **less)
    assert bot.process.returncode == 0, bot.output
    assert "picture-1" not in house.comfyui.posted[-1][1]
    big = draw_png(b"a photo", (400, 300), {}, 0)
    file.write_bytes(big)
    bot = run(house, *arguments, "--out", str(tmp_path / "big"), offline=True, **less)
    assert bot.process.returncode == 0, bot.output
    scaling = house.comfyui.posted[-1][1]["picture-1"]
    assert scaling["class_type"] == "ImageScaleToTotalPixels"
    assert scaling["inputs"]["megapixels"] <= 0.02
    file.write_bytes(b"%PDF-1.4")
    bot = run(house, *arguments, offline=True)
    assert bot.process.returncode == 1
    assert "This file is a PDF document. Send a PNG, JPEG, WebP or GIF picture" in bot.output
    bot = run(house, *arguments[:-2], offline=True)
    assert "The workflow needs a picture to work on: --image FILE" in bot.output


@pytest.mark.parametrize(
    "point",
    [
        "before:Store.start",
        "after:Store.start",
        "before:ComfyClient.upload",
        "after:ComfyClient.upload",
        "after:ComfyClient.submit",
        "after:Store.submitted",
        "before:Store.complete",
        "after:Store.complete",
        "before:Store.delivered",
    ],
)
def test_a_job_with_a_picture_killed_anywhere_arrives_once_though_the_input_folder_is_emptied(
    house: House, point: str
) -> None:
    ship(house, "upscale")
    person = house.discord.person()
    house.installation.configure(house.settings)
    with closing(Store(house.installation.database)) as store:
        asked = {"model": "", "sampler": "", "scheduler": "", "steps": 0, "cfg": 0.0}
        place = {"guild_id": str(house.discord.guild.id), "channel_id": str(house.channel.id)}
        image = store.keep_picture(PHOTO)
        store.insert(
            JobParams(
                **asked,  # type: ignore[arg-type]
                **place,
                user_id=str(person.id),
                positive_prompt="",
                workflow="upscale",
                image=image,
            )
        )
    bot = house.run(ready=False, environment={"KILL_AT": point})
    assert bot.wait() == -signal.SIGKILL
    house.comfyui.empty_input()
    house.run()
    expect_exactly_one_result(house, person)
    assert len(house.comfyui.posted) == 1


def test_a_picture_is_uploaded_once_more_if_the_input_folder_is_emptied_before_it_is_loaded(
    house: House, tmp_path: Path
) -> None:
    ship(house, "upscale")
    file = tmp_path / "photo.png"
    file.write_bytes(PHOTO)
    house.comfyui.after("POST /prompt", lambda _: house.comfyui.uploads.clear())
    arguments = ["--workflow", "upscale", "--image", str(file), "--out", str(tmp_path / "out")]
    bot = run(house, "--once", "", *arguments, offline=True)
    assert bot.process.returncode == 0, bot.output
    assert len(house.comfyui.posted) == 2
    assert "of 0" not in bot.output


def test_a_picture_is_uploaded_once_more_if_the_input_folder_is_emptied_before_the_submission(
    house: House, tmp_path: Path
) -> None:
    ship(house, "upscale")
    file = tmp_path / "photo.png"
    file.write_bytes(PHOTO)
    house.comfyui.before("POST /prompt", lambda _: house.comfyui.uploads.clear())
    arguments = ["--workflow", "upscale", "--image", str(file), "--out", str(tmp_path / "out")]
    bot = run(house, "--once", "", *arguments, offline=True)
    assert bot.process.returncode == 0, bot.output


@pytest.mark.parametrize("fault", ["403", "500", "login page"])
def test_a_server_that_answers_and_takes_no_pictures_does_not_hold_up_the_others(
    house: House, tmp_path: Path, fault: str
) -> None:
    ship(house, "upscale")
    file = tmp_path / "photo.png"
    file.write_bytes(PHOTO)
    house.comfyui.fault("POST /upload/image", fault, None)
    arguments = ["--workflow", "upscale", "--image", str(file)]
    bot = run(house, "--once", "", *arguments, offline=True)
    assert bot.process.returncode == 1
    assert "The image server does not take this picture." in bot.output


def test_a_picture_that_a_server_cannot_read_is_no_fault_of_the_server(
    house: House, tmp_path: Path
) -> None:
    ship(house, "upscale")
    file = tmp_path / "photo.png"
    file.write_bytes(PHOTO)
    for _ in range(2):
        house.comfyui.fail_next("PIL.UnidentifiedImageError", "cannot identify image file", "1")
    arguments = ["--workflow", "upscale", "--image", str(file)]
    bot = run(house, "--once", "", *arguments, offline=True)
    assert bot.process.returncode == 1
    assert "ComfyUI cannot read this picture. Send another one," in bot.output


def test_a_job_with_a_picture_that_its_workflow_takes_no_more_is_not_made_without(
    house: House,
) -> None:
    person = house.discord.person()
    house.installation.configure(house.settings)
    with closing(Store(house.installation.database)) as store:
        store.insert(
            JobParams(
                model="",
                sampler="",
                scheduler="",
                steps=0,
                cfg=0.0,
                positive_prompt="in oil",
                guild_id=str(house.discord.guild.id),
                channel_id=str(house.channel.id),
                user_id=str(person.id),
                image=store.keep_picture(PHOTO),
            )
        )
    house.run()
    house.discord.wait_for_message(
        house.channel,
        lambda m: "does not work on a picture any more. Press Edit." in text_of(m),
    )
    assert not house.comfyui.posted
