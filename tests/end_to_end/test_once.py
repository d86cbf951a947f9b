"""--once: a picture without Discord."""

from __future__ import annotations

import signal
import struct
from pathlib import Path

import pytest

from tests.end_to_end.common import run
from tests.harness.house import House


def test_once_makes_one_picture_without_discord(house: House, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    arguments = ["--once", "a red fox", "--steps", "9", "--cfg", "4.5", "--sampler", "heun"]
    arguments += ["--scheduler", "beta", "--negative", "fog", "--seed", "7", "--model", "flux1"]
    bot = run(
        house, *arguments, "--out", str(out), offline=True, DISCORD_TOKEN="", ALLOWED_CHANNEL_IDS=""
    )
    assert bot.process.returncode == 0, bot.output
    (path,) = out.iterdir()
    assert path.read_bytes() in house.comfyui.pictures.values()
    assert str(path) in bot.output
    assert "9 steps, CFG 4.5, seed 7" in bot.output
    assert "100%" in bot.output or "pass 1 of 4" in bot.output
    ((_, workflow),) = house.comfyui.posted
    assert workflow["268"]["inputs"]["text"] == "a red fox"
    assert workflow["4"]["inputs"]["text"] == "fog"
    base = workflow["239"]["inputs"]
    assert (base["steps"], base["cfg"], base["seed"]) == (9, 4.5, 7)
    assert (base["sampler_name"], base["scheduler"]) == ("heun", "beta")
    assert "flux1" in workflow["152"]["inputs"]["ckpt_name"]


def test_once_takes_a_shape_and_loras(house: House, tmp_path: Path) -> None:
    house.comfyui.picture_size = None
    out = tmp_path / "pictures"
    arguments = ["--shape", "portrait", "--out", str(out), "--seed", "7"]
    bot = run(house, "--once", "a fox <lora:inkSketch_v2:0.5>", *arguments, offline=True)
    assert bot.process.returncode == 0, bot.output
    assert "karras, portrait, 20 steps" in bot.output
    (picture,) = out.iterdir()
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1248, 1824)
    ((_, workflow),) = house.comfyui.posted
    assert workflow["268"]["inputs"]["text"] == "a fox"
    assert workflow["lora-1"]["inputs"]["strength_model"] == 0.5
    bot = run(house, "--once", "a fox <lora:inkScetch_v2>", offline=True)
    assert bot.process.returncode == 1
    assert "There is no LoRA inkScetch_v2. The nearest: inkSketch_v2," in bot.output
    bot = run(house, "--once", "a fox <lora:fox>, <lora pixel:1>", offline=True)
    assert bot.process.returncode == 1
    assert "<lora:fox> fits several LoRAs: Illustrious/characters/fox girl (v3), SDXL" in bot.output
    assert "<lora pixel:1> would be painted as text" in bot.output
    assert len(house.comfyui.posted) == 1


def test_once_takes_the_seed_0_for_a_seed(house: House, tmp_path: Path) -> None:
    bot = run(house, "--once", "a fox", "--seed", "0", "--out", str(tmp_path), offline=True)
    assert bot.process.returncode == 0, bot.output
    assert "seed 0" in bot.output
    ((_, workflow),) = house.comfyui.posted
    assert workflow["239"]["inputs"]["seed"] == 0


def test_once_names_the_setting_of_a_time_out_and_makes_no_folder_and_prints_no_line_twice(
    house: House, tmp_path: Path
) -> None:
    house.comfyui.hold()  # at the same progress for longer than between two looks
    out = tmp_path / "new" / "folder"
    bot = run(house, "--once", "a", "--out", str(out), offline=True, COMFY_TIMEOUT_MS="1000")
    assert bot.process.returncode == 1
    assert "COMFY_TIMEOUT_MS allows it 1000 ms" in bot.output
    assert not list(tmp_path.glob("new"))
    assert len(bot.lines) == len({*bot.lines, ""}) - 1 >= 3, bot.output


def test_once_says_that_out_is_a_file(house: House, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "folder"):
        bot = run(house, "--once", "a fox", "--out", str(out), offline=True)
        assert bot.process.returncode == 1
        assert f"{file} is a file, not a folder" in bot.output
    assert house.comfyui.posted == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--steps", "many"), "Steps"),
        (("--model", "nothing-like-it"), "no model"),
        (("--sampler", "euleer"), "euler"),
        (("--shape", "oval"), "There are: square, portrait, landscape, wide, tall."),
        (("--seed", "-1"), "Seed"),
    ],
)
def test_once_refuses_what_the_form_would_refuse(
    house: House, arguments: tuple[str, str], said: str
) -> None:
    bot = run(house, "--once", "a fox", *arguments, offline=True)
    assert bot.process.returncode == 1
    assert said in bot.output
    assert house.comfyui.posted == []


def test_once_tells_why_there_is_no_picture(house: House) -> None:
    house.comfyui.fail_next("torch.OutOfMemoryError", "Allocation on device")
    bot = run(house, "--once", "a fox", offline=True)
    assert bot.process.returncode == 1
    assert "too big for the GPU" in bot.output
    house.comfyui.go_down()
    bot = run(house, "--once", "a fox", offline=True)
    assert bot.process.returncode == 1
    assert "COMFY_BASE_URL" in bot.output


@pytest.mark.parametrize("failing", [None, "POST /queue", "POST /interrupt"])
def test_once_leaves_the_gpu_free_after_ctrl_c(house: House, failing: str | None) -> None:
    house.comfyui.hold()
    if failing:  # what the worker tries at once, and the first try after that
        house.comfyui.fault(failing, "502", 2)
    house.installation.configure(house.settings)
    bot = house.run(ready=False, offline=True, arguments=("--once", "a fox"))
    house.comfyui.wait_for(lambda c: bool(c.running))
    bot.signal(signal.SIGINT)
    assert bot.wait() == 130
    assert len(house.comfyui.interrupted) == 1
