"""Starting and stopping, as the owner sees it: the process, its log, its exit code (M1, M10)."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.house import House
from tests.harness.steps import ask_for, fill_in, labels, open_form, queued, text_of


def refusal(house: House, **changes: str) -> list[str]:
    """The critical lines of a start that fails with exit code 1."""
    bot = house.start(ready=False, **changes)
    assert bot.wait() == 1, bot.output
    return [line for line in bot.lines if " CRITICAL " in line]


def test_help_explains_itself_without_a_configuration(house: House) -> None:
    bot = house.run(ready=False, arguments=("--help",))
    assert bot.wait() == 0
    assert "README" in bot.output


def test_a_wrong_configuration_is_told_whole_one_line_each(house: House) -> None:
    bot = house.start(ready=False, DISCORD_TOKEN="", ALLOWED_CHANNEL_IDS="x", LOG_LEVEL="loud")
    assert bot.wait() == 1
    named = [line.split()[1] for line in bot.lines if line.startswith("configuration:")]
    assert sorted(named) == ["ALLOWED_CHANNEL_IDS", "DISCORD_TOKEN", "LOG_LEVEL"]


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
        ("[]", "not a JSON object"),
        ('{"nodes": [], "links": []}', "Export (API)"),
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
    (line,) = refusal(house)
    assert said in line


def test_several_things_broken_are_one_line_each(house: House) -> None:
    house.comfyui.go_down()
    house.installation.workflow.unlink()
    house.installation.database.parent.mkdir()
    house.installation.database.write_bytes(b"no database at all" * 100)
    lines = refusal(house)
    assert len(lines) == 3


def damaged(database: Path) -> None:
    database.write_bytes(b"no database at all" * 1000)


def newer(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 999")
    connection.close()


def a_folder(database: Path) -> None:
    database.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(damaged, "damaged"), (newer, "version 999"), (a_folder, "unable to open")],
)
def test_a_database_that_cannot_be_used_refuses_the_start(
    house: House, spoil: Callable[[Path], None], said: str
) -> None:
    database = house.installation.database
    database.parent.mkdir()
    spoil(database)
    before = database.read_bytes() if database.is_file() else None
    (line,) = refusal(house)
    assert said in line
    assert before is None or database.read_bytes() == before


def test_a_locked_database_refuses_the_start(house: House) -> None:
    house.installation.database.parent.mkdir()
    connection = sqlite3.connect(house.installation.database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    (line,) = refusal(house)
    connection.close()
    assert "locked" in line


def test_a_wrong_token_refuses_the_start_and_is_not_shown(house: House) -> None:
    wrong = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.wrong-wrong-wrong-wrong-wrong-wrong-wr"
    (line,) = refusal(house, DISCORD_TOKEN=wrong, LOG_LEVEL="debug")
    assert "DISCORD_TOKEN" in line
    assert wrong not in house.bots[-1].output


def test_a_client_id_of_another_application_refuses_the_start(house: House) -> None:
    (line,) = refusal(house, DISCORD_CLIENT_ID="4711")
    assert "DISCORD_CLIENT_ID" in line
    assert str(house.discord.application_id) in line


def test_discord_out_of_reach_refuses_the_start(house: House) -> None:
    house.installation.configure(house.settings)
    bot = house.run(ready=False, offline=True)
    assert bot.wait(60) == 1
    (line,) = [line for line in bot.lines if " CRITICAL " in line]
    assert "internet" in line


def test_commands_go_to_one_server_when_it_is_given_and_everywhere_otherwise(house: House) -> None:
    names = {"gen", "queue", "refresh"}
    guild = house.discord.guild.id
    house.start(DISCORD_GUILD_ID=str(guild)).stop()
    assert {command["name"] for command in house.discord.commands[guild]} == names
    assert not house.discord.commands.get(None)
    house.start()
    assert {command["name"] for command in house.discord.commands[None]} == names


def test_a_server_without_the_bot_refuses_the_start(house: House) -> None:
    stranger = house.discord.add_guild("strangers", bot_is_member=False)
    (line,) = refusal(house, DISCORD_GUILD_ID=str(stranger.id))
    assert "invite" in line


def test_channels_the_bot_cannot_use_are_named_in_the_log(house: House) -> None:
    bot = house.start(ALLOWED_CHANNEL_IDS=f"{house.channel.id},4711")
    assert "4711" in bot.wait_for_line("does not see channel")


def test_the_token_is_in_no_line_even_at_the_finest_level(house: House) -> None:
    bot = house.start(LOG_LEVEL="trace")
    ask_for(house.discord.person(), house.channel, "a fox")
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))
    bot.stop()
    assert house.discord.token not in bot.output
    assert "IHDR" not in bot.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_current_job_finish_and_keeps_the_others(
    house: House, number: signal.Signals
) -> None:
    house.comfyui.hold()
    bot = house.start()
    first, second = house.discord.person("first"), house.discord.person("second")
    ask_for(first, house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    ask_for(second, house.channel, "waiting")
    bot.signal(number)
    bot.wait_for_line("shutting down")
    late = house.discord.person().slash("gen", house.channel).wait()
    assert "restarting" in late.texts[0]
    house.comfyui.release()
    assert bot.wait() == 0
    (message,) = house.channel.messages
    assert message["content"] == f"<@{first.id}>"
    assert message["attachments"]
    house.start()
    message = house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{second.id}>"
    )
    assert message["attachments"]


def test_a_second_signal_ends_at_once_and_the_job_is_taken_up_later(house: House) -> None:
    house.comfyui.hold()
    bot = house.start()
    ask_for(house.discord.person(), house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    bot.signal(signal.SIGINT)
    bot.wait_for_line("shutting down")
    bot.signal(signal.SIGINT)
    assert bot.wait() == 130
    house.comfyui.release()
    house.start()
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))
    assert len(house.comfyui.posted) == 1


def test_the_grace_bounds_the_shutdown(house: House) -> None:
    house.comfyui.hold()
    bot = house.start(SHUTDOWN_GRACE_MS="200")
    ask_for(house.discord.person(), house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    assert bot.stop() == 0
    assert "taken up at the next start" in bot.output


def test_a_form_from_before_a_restart_says_run_gen_again(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    bot.stop()
    house.start()
    assert "run /gen again" not in text_of(form.message)
    answer = person.press(form.message, "Generate").wait()
    assert any("run /gen again" in text for text in answer.texts)
    assert not form.message["components"]


def test_what_was_typed_into_a_modal_survives_a_restart(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    modal = person.press(form.message, "Edit Prompts & Settings").wait().modal
    assert modal is not None
    bot.stop()
    house.start()
    answer = person.submit(modal, positive_prompt="a whole poem", steps="31").wait()
    assert answer.message is not None
    shown = text_of(answer.message)
    assert "a whole poem" in shown
    assert "31" in shown
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    queued(person, form)
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))


def test_a_job_over_its_time_is_stopped_reported_and_followed_by_the_next(house: House) -> None:
    house.start(COMFY_TIMEOUT_MS="1500")
    house.comfyui.hold()
    person = house.discord.person()
    ask_for(person, house.channel, "too slow")
    house.discord.wait_for_message(house.channel, lambda m: "took too long" in text_of(m))
    assert len(house.comfyui.interrupted) == 1
    house.comfyui.release()
    ask_for(person, house.channel, "quick")
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))


def test_seeds_of_the_workflow_file_stay_when_asked_for(house: House) -> None:
    house.start(SEED_MODE="workflow")
    ask_for(house.discord.person(), house.channel, "a fox")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    _, workflow = house.comfyui.posted[0]
    own = json.loads(house.installation.workflow.read_text("utf-8"))
    assert workflow["239"]["inputs"]["seed"] == own["239"]["inputs"]["seed"]


def test_the_default_negative_prompt_stands_in_the_form(house: House) -> None:
    house.start(DEFAULT_NEGATIVE_PROMPT="blurry, low quality")
    person = house.discord.person()
    form = open_form(person, house.channel)
    assert form.message is not None
    assert "blurry, low quality" in text_of(form.message)
    fill_in(person, form, positive_prompt="a fox")
    assert "blurry, low quality" in text_of(form.message)


def test_clicks_are_answered_while_a_job_runs(house: House) -> None:
    house.comfyui.hold()
    house.start()
    ask_for(house.discord.person(), house.channel, "in work")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    barrier = threading.Barrier(5)
    answered: list[float | None] = []

    def one_person() -> None:
        barrier.wait(20)
        answered.append(open_form(house.discord.person(), house.channel).acknowledged_after)

    threads = [threading.Thread(target=one_person) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(answered) == 5
    assert all(seconds is not None and seconds < 3 for seconds in answered)


def test_a_signal_during_the_login_ends_it_without_a_traceback(house: House) -> None:
    house.discord.fault("GET", "/users/@me", "hang")
    bot = house.start(ready=False)
    house.discord.wait_for(lambda d: any("/users/@me" in r.path for r in d.requests))
    bot.signal(signal.SIGTERM)
    assert bot.wait() == 0


def test_a_gateway_that_refuses_is_one_clear_line(house: House) -> None:
    house.discord.refuse_gateway(True)
    (line,) = refusal(house)
    assert "internet" in line
    assert len(house.bots[-1].lines) < 40


def test_a_comfyui_that_hangs_does_not_hold_the_shutdown_up(house: House) -> None:
    bot = house.start(SHUTDOWN_GRACE_MS="500")
    ask_for(house.discord.person(), house.channel, "a fox")
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))
    house.comfyui.fault("*", "hang", None)
    before = len(house.comfyui.requests)
    member = house.discord.person()
    owner = house.discord.person("owner", permissions=member.permissions | 1 << 5)
    owner.slash("refresh", house.channel).wait()
    house.comfyui.wait_for(
        lambda c: any("object_info" in request.path for request in c.requests[before:])
    )
    assert bot.stop() == 0
