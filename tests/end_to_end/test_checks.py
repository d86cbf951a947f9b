"""What is checked before a start and by --check, and the starts that are refused (M1)."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import Any

import pytest

from settings import EXIT_CONFIG
from tests.end_to_end.common import press_generate, run, seconds_to_stop
from tests.harness.bot import Bot
from tests.harness.house import House


def refusal(house: House, **changes: str) -> list[str]:
    """The critical lines of a start that fails, and may do better the next time."""
    bot = house.start(ready=False, **changes)
    assert bot.wait() == 1, bot.output
    return [line for line in bot.lines if " CRITICAL " in line]


def final_refusal(house: House, **changes: str) -> list[str]:
    """The critical lines of a start that fails until the owner mends something."""
    bot = house.start(ready=False, **changes)
    assert bot.wait() == EXIT_CONFIG, bot.output
    return [line for line in bot.lines if " CRITICAL " in line]


def test_a_wrong_configuration_is_told_whole_one_line_each(house: House) -> None:
    bot = house.start(
        ready=False, DISCORD_TOKEN="", ALLOWED_CHANNEL_IDS="x", LOG_LEVEL="loud", PREVIEW="off"
    )
    assert bot.wait() == EXIT_CONFIG
    named = [line.split()[1] for line in bot.lines if line.startswith("configuration:")]
    assert sorted(named[:3]) == ["ALLOWED_CHANNEL_IDS", "DISCORD_TOKEN", "LOG_LEVEL"]
    assert named[3:] == ["PREVIEW", "looked"]


def test_a_name_that_is_no_setting_is_a_warning_of_a_start_that_works(house: House) -> None:
    assert "PREVIEWS?" in house.start(PREVIEW="off").wait_for_line("WARNING")


def test_the_checks_are_logged_in_order_before_discord_is_asked(house: House) -> None:
    bot = house.start()
    order = ["check: database", "check: ComfyUI", "check: options: 31", "check: workflow", "invite"]
    places = [bot.output.index(text) for text in order]
    assert places == sorted(places)
    assert "permissions=274878024704" in bot.wait_for_line("invite link")
    assert f"client_id={house.discord.application_id}" in bot.wait_for_line("invite link")


def test_comfyui_that_is_down_refuses_the_start(house: House) -> None:
    house.comfyui.go_down()
    (line,) = refusal(house)
    assert "COMFY_BASE_URL" in line


def test_a_login_page_in_place_of_comfyui_refuses_the_start(house: House) -> None:
    house.comfyui.fault("*", "login page", None)
    (line,) = refusal(house)
    assert "login" in line


def without(info: dict[str, Any], *texts: str) -> dict[str, Any]:
    return {name: c for name, c in info.items() if not any(text in name for text in texts)}


def test_missing_node_classes_refuse_the_start_with_a_line_for_each(house: House) -> None:
    house.comfyui.object_info = without(house.comfyui.object_info, "Checkpoint", "KSampler")
    loader, sampler = refusal(house)
    assert "Mikey" in loader
    assert "Efficiency" in sampler


def test_plain_samplers_are_a_warning_and_no_refusal(house: House) -> None:
    house.comfyui.object_info = without(house.comfyui.object_info, "(Efficient)")
    bot = house.start()
    assert "WARNING" in bot.wait_for_line("plain KSampler")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ('{"152": {"inputs": {"ckpt_name": "x"}}}', "no node 268"),
        (None, "does not exist"),
    ],
)
def test_a_broken_workflow_file_refuses_the_start(
    house: House, content: str | None, said: str
) -> None:
    house.installation.workflow.unlink()
    if content is not None:
        house.installation.workflow.write_text(content, "utf-8")
    (line,) = final_refusal(house)
    assert said in line


def test_several_things_broken_are_one_line_each(house: House) -> None:
    house.comfyui.go_down()
    house.installation.workflow.unlink()
    house.installation.database.parent.mkdir()
    house.installation.database.write_bytes(b"no database at all" * 100)
    lines = final_refusal(house)
    assert len(lines) == 3


def test_a_locked_database_refuses_the_start(house: House) -> None:
    house.installation.database.parent.mkdir()
    connection = sqlite3.connect(house.installation.database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    (line,) = refusal(house)
    connection.close()
    assert "locked" in line


def test_a_wrong_token_refuses_the_start_and_is_not_shown(house: House) -> None:
    wrong = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.wrong-wrong-wrong-wrong-wrong-wrong-wr"
    (line,) = final_refusal(house, DISCORD_TOKEN=wrong, LOG_LEVEL="debug")
    assert "DISCORD_TOKEN" in line
    assert wrong not in house.bots[-1].output


def test_a_client_id_of_another_application_refuses_the_start(house: House) -> None:
    (line,) = final_refusal(house, DISCORD_CLIENT_ID="4711")
    assert "DISCORD_CLIENT_ID" in line
    assert str(house.discord.application_id) in line


def test_discord_out_of_reach_refuses_the_start(house: House) -> None:
    house.installation.configure(house.settings)
    bot = house.run(ready=False, offline=True)
    assert bot.wait(60) == 1
    (line,) = [line for line in bot.lines if " CRITICAL " in line]
    assert "internet" in line


def test_a_server_without_the_bot_refuses_the_start(house: House) -> None:
    stranger = house.discord.add_guild("strangers", bot_is_member=False)
    (line,) = final_refusal(house, DISCORD_GUILD_ID=str(stranger.id))
    assert "invite" in line


def test_channels_the_bot_cannot_use_are_named_in_the_log(house: House) -> None:
    bot = house.start(ALLOWED_CHANNEL_IDS=f"{house.channel.id},4711")
    assert "4711" in bot.wait_for_line("does not see channel")


@pytest.mark.parametrize("kind", ["reset", "502", "truncate"])
def test_a_start_survives_a_hiccup_of_comfyui_at_every_question(house: House, kind: str) -> None:
    for route in ("GET /system_stats", "GET /queue", "GET /object_info"):
        house.comfyui.fault(route, kind)
    bot = house.start()
    assert "31 models" in bot.output
    assert not [line for line in bot.lines if " CRITICAL " in line]


@pytest.fixture
def refused(house: House) -> Bot:
    """A bot with a job to report, which Discord's gateway has refused several times."""
    house.installation.configure(house.settings)
    killed = house.run(environment={"KILL_AT": "after:Store.complete"})
    press_generate(house, house.discord.person())
    killed.wait()
    house.discord.refuse_gateway(True)
    bot = house.run(ready=False)
    house.discord.wait_for(lambda discord: discord.refusals >= 4)
    assert bot.process.poll() is None
    return bot


def test_a_gateway_that_refuses_is_waited_for(house: House, refused: Bot) -> None:
    assert "WARNING" in refused.wait_for_line("gateway does not answer yet")
    house.discord.refuse_gateway(False)
    refused.wait_for_line("connected as")
    house.settle()
    assert len(house.channel.messages) == 1
    assert "object has no attribute" not in refused.output
    assert len(refused.lines) < 40


def test_a_signal_ends_the_wait_for_the_gateway(refused: Bot) -> None:
    assert seconds_to_stop(refused) < 10  # and the report is for the next start
    assert "object has no attribute" not in refused.output


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
    assert bot.lines[-1] == "The bot would start."
    areas = {line.split()[1] for line in lines_of(bot, "ok")}
    assert areas == {
        "configuration",
        "database",
        "ComfyUI",
        "options",
        "workflow",
        "Discord",
    }
    for text in (
        house.comfyui.url,
        "0.3.64",
        "31 models",
        str(house.discord.application_id),
        "all permissions",
    ):
        assert text in bot.output
    assert "commands are registered" in bot.output
    assert house.discord.identifies == identifies  # nobody saw it online


def test_check_sees_that_a_database_cannot_be_made_below_a_file(house: House) -> None:
    bot = run(house, "--check", "--offline", DB_PATH=str(house.installation.workflow / "jobs.db"))
    assert bot.process.returncode == 1
    (line,) = lines_of(bot, "FAILED")
    assert "DB_PATH" in line


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may look everywhere")
def test_check_names_the_folder_of_a_database_that_it_may_not_look_into(house: House) -> None:
    closed = house.installation.folder / "closed"
    closed.mkdir(mode=0)
    bot = run(house, "--check", "--offline", DB_PATH=str(closed / "jobs.db"))
    closed.chmod(0o700)
    assert lines_of(bot, "FAILED") == [
        f"FAILED   database       {closed} is no writable folder: set DB_PATH elsewhere"
    ]


def test_check_offline_leaves_discord_out(house: House) -> None:
    bot = run(house, "--check", "--offline", offline=True)
    assert bot.process.returncode == 0, bot.output
    assert "Discord " not in bot.output
    assert bot.lines[-1] == "All is well so far, without Discord."


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
    unknown, value = lines_of(bot, "warning")
    assert "'LatentUpscaleByy'" in unknown
    assert "'LatentUpscaleBy'" in unknown
    assert "'magic'" in value
    assert "not-here.safetensors" not in bot.output  # people choose a model in the form


def test_check_tells_a_wrong_token_and_missing_permissions(house: House) -> None:
    house.channel.bot_permissions &= ~(1 << 15)
    bot = run(house, "--check")
    assert "lacks attach files" in bot.output
    wrong = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.wrong-wrong-wrong-wrong-wrong-wrong-wr"
    bot = run(house, "--check", DISCORD_TOKEN=wrong)
    assert bot.process.returncode == 1
    assert any("DISCORD_TOKEN" in line for line in lines_of(bot, "FAILED"))
    assert wrong not in bot.output


def test_check_looks_at_no_other_place_than_the_one_that_is_wrong(house: House) -> None:
    bot = run(
        house,
        "--check",
        COMFY_BASE_URL="my pc",
        WORKFLOW_PATH="/home/base.json",
        DISCORD_TOKEN="123456789012345678",
        ALLOWED_CHANNEL_IDS="x",
    )
    assert bot.process.returncode == 1
    assert {line.split()[1] for line in lines_of(bot, "FAILED")} == {"configuration"}
    assert [line.split()[1] for line in lines_of(bot, "ok")] == ["database"]
    assert bot.lines[-1] == "The bot would not start: 4 things to mend (FAILED)."


def test_check_runs_beside_the_bot_and_keeps_none_from_starting(house: House) -> None:
    bot = house.start()
    assert "the bot is running" in "".join(lines_of(run(house, "--check"), "ok"))
    bot.stop()
    checking = house.run(
        ready=False,
        arguments=("--check",),
        environment={"KILL_AT": "before:ComfyClient.version"},
    )
    checking.wait()
    house.comfyui.hold()
    house.start().stop()


def test_check_offline_warns_of_what_only_discord_needs_and_of_a_servers_id_as_a_channel(
    house: House,
) -> None:
    server = str(house.channel.guild.id)
    ids = {"DISCORD_GUILD_ID": server, "ALLOWED_CHANNEL_IDS": server}
    bot = run(house, "--check", "--offline", offline=True, DISCORD_TOKEN="", **ids)
    assert bot.process.returncode == 0, bot.output
    token, channel = lines_of(bot, "warning")
    assert "DISCORD_TOKEN is missing" in token
    assert f"{server} in ALLOWED_CHANNEL_IDS is the id of your server" in channel
    bot = run(house, "--check", **ids)
    assert f"{server} in ALLOWED_CHANNEL_IDS is the id of the server" in bot.output


def test_check_tells_one_fault_once(house: House) -> None:
    graph = {"1": {"class_type": "Absent", "inputs": {"text": "a"}}}
    house.installation.add_workflow("flux", graph, {"positive": ["1.text"]})
    bot = run(house, "--check", "--offline")
    assert len([line for line in bot.lines if "Absent" in line or "flux" in line]) == 1, bot.output
