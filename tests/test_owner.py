"""The owner's side: --check, --once, and a ComfyUI behind a prefix and a key."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.bot import Bot
from tests.harness.house import House
from tests.harness.steps import ask_for, text_of
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.server import DiscordStandIn

KEY = "s3cr3t-key-of-the-proxy"


def run(house: House, *arguments: str, offline: bool = False, **changes: str) -> Bot:
    """The program with these arguments, run to its end."""
    house.installation.configure({**house.settings, **changes})
    bot = house.run(ready=False, offline=offline, arguments=arguments)
    bot.wait(60)
    return bot


def lines_of(bot: Bot, state: str) -> list[str]:
    return [line for line in bot.lines if line.startswith(state)]


def test_check_finds_nothing_wrong_where_nothing_is(house: House) -> None:
    assert run(house, "--check", "--offline").process.returncode == 0
    assert not house.installation.database.exists()
    house.start().stop()
    identifies = house.discord.identifies
    bot = run(house, "--check")
    assert bot.process.returncode == 0, bot.output
    assert lines_of(bot, "FAILED") == lines_of(bot, "warning") == []
    areas = {line.split()[1] for line in lines_of(bot, "ok")}
    assert areas == {"configuration", "database", "ComfyUI", "options", "workflow", "Discord"}
    for text in ("0.3.64", "31 models", str(house.discord.application_id), "all permissions"):
        assert text in bot.output
    assert "commands are registered" in bot.output
    assert house.discord.identifies == identifies  # nobody saw it online


def test_check_offline_leaves_discord_out(house: House) -> None:
    bot = run(house, "--check", "--offline", offline=True)
    assert bot.process.returncode == 0, bot.output
    assert "Discord" not in bot.output


def test_check_tells_everything_that_is_wrong_and_what_to_do(house: House) -> None:
    house.comfyui.go_down()
    house.installation.workflow.write_text('{"nodes": [], "links": []}', "utf-8")
    house.installation.database.parent.mkdir()
    house.installation.database.write_bytes(b"no database at all" * 1000)
    house.channel.delete()
    bot = run(house, "--check", DISCORD_CLIENT_ID="4711", QUEUE_CONCURRENCY="2")
    assert bot.process.returncode == 1
    failed = "\n".join(lines_of(bot, "FAILED"))
    for text in (
        "QUEUE_CONCURRENCY",
        "COMFY_BASE_URL",
        "Export (API)",
        "damaged",
        "DISCORD_CLIENT_ID",
    ):
        assert text in failed
    (warning,) = [line for line in lines_of(bot, "warning") if "does not see" in line]
    assert str(house.channel.id) in warning


def test_check_names_unknown_classes_with_the_nearest_and_values_not_offered(
    house: House,
) -> None:
    workflow = json.loads(house.installation.workflow.read_text("utf-8"))
    workflow["240"]["class_type"] = "LatentUpscaleByy"
    workflow["250"]["inputs"]["upscale_method"] = "magic"
    workflow["152"]["inputs"]["ckpt_name"] = "not-here.safetensors"
    house.installation.workflow.write_text(json.dumps(workflow), "utf-8")
    bot = run(house, "--check", "--offline")
    assert bot.process.returncode == 0
    unknown, model, value = sorted(
        (line for line in lines_of(bot, "warning")), key=lambda line: line.find("240") < 0
    )
    assert "'LatentUpscaleByy'" in unknown
    assert "'LatentUpscaleBy'" in unknown
    assert "not-here.safetensors" in model + value
    assert "'magic'" in model + value


def test_check_tells_a_wrong_token_and_missing_permissions(house: House) -> None:
    house.channel.bot_permissions &= ~(1 << 15)
    bot = run(house, "--check")
    assert "lacks attach files" in bot.output
    wrong = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.wrong-wrong-wrong-wrong-wrong-wrong-wr"
    bot = run(house, "--check", DISCORD_TOKEN=wrong)
    assert bot.process.returncode == 1
    assert any("DISCORD_TOKEN" in line for line in lines_of(bot, "FAILED"))
    assert wrong not in bot.output


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


def test_once_takes_the_seed_0_for_a_seed(house: House, tmp_path: Path) -> None:
    bot = run(house, "--once", "a fox", "--seed", "0", "--out", str(tmp_path), offline=True)
    assert bot.process.returncode == 0, bot.output
    assert "seed 0" in bot.output
    ((_, workflow),) = house.comfyui.posted
    assert workflow["239"]["inputs"]["seed"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--steps", "many"), "Steps"),
        (("--model", "nothing-like-it"), "no model"),
        (("--sampler", "euleer"), "euler"),
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


def test_once_leaves_the_gpu_free_after_ctrl_c(house: House) -> None:
    house.comfyui.hold()
    house.installation.configure(house.settings)
    bot = house.run(ready=False, offline=True, arguments=("--once", "a fox"))
    house.comfyui.wait_for(lambda c: bool(c.running))
    bot.signal(signal.SIGINT)
    assert bot.wait() == 130
    assert len(house.comfyui.interrupted) == 1


def test_ctrl_c_during_the_checks_ends_without_a_traceback(house: House) -> None:
    house.comfyui.fault("GET /object_info", "hang", None)
    bot = house.start(ready=False)
    house.comfyui.wait_for(lambda c: any("object_info" in r.path for r in c.requests))
    bot.signal(signal.SIGINT)
    house.comfyui.clear_faults()
    assert bot.wait() == 130


@pytest.mark.parametrize(
    "arguments", [("--offline",), ("--steps", "5"), ("--check", "--once", "x")]
)
def test_arguments_that_make_no_sense_are_refused(house: House, arguments: tuple[str, ...]) -> None:
    bot = house.run(ready=False, arguments=arguments)
    assert bot.wait() == 2


@pytest.fixture
def house_behind_a_proxy(tmp_path: Path) -> Iterator[House]:
    with (
        DiscordStandIn() as discord,
        ComfyUIStandIn(prefix="/comfy/direct", required_headers={"X-Api-Key": KEY}) as comfyui,
    ):
        house = House(tmp_path / "comfygen", discord, comfyui)
        yield house
        house.check()


def test_the_whole_flow_works_behind_a_prefix_and_a_required_header(
    house_behind_a_proxy: House,
) -> None:
    house = house_behind_a_proxy
    house.comfyui.seconds_per_step = 0.08
    bot = house.start(COMFY_HEADERS=f"X-Api-Key: {KEY}; X-Other: 1", LOG_LEVEL="debug")
    person = house.discord.person()
    ask_for(person, house.channel, "behind a proxy")
    house.discord.wait_for_message(house.channel, lambda m: "%" in text_of(m))  # the WebSocket too
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))
    bot.stop()
    assert KEY not in bot.output


def test_without_the_header_the_start_is_refused(house_behind_a_proxy: House) -> None:
    bot = house_behind_a_proxy.start(ready=False)
    assert bot.wait() == 1
    assert "COMFY_BASE_URL" in bot.output
