"""The world outside fails for long: clocks jump, Discord refuses what it gets, the bot itself makes
a mistake, the owner stops it. No picture is lost or doubled, and people read where it is."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.end_to_end.common import (
    LONG_GRACE,
    POST_MESSAGE,
    SOON,
    expect_a_soon_end,
    expect_exactly_one_result,
    order,
    plain,
    press_generate,
    result_of,
    results,
    statuses,
    until,
)
from tests.harness.house import House
from tests.harness.labels import CANCEL
from tests.harness.steps import ask_for, text_of
from tests.standins.discord.people import Channel

# Clocks


@pytest.mark.parametrize("hours", [49, -49])
def test_a_jump_of_the_clock_while_discord_is_away_loses_no_result(
    house: House, hours: float
) -> None:
    house.set_clock(0)
    house.start()
    house.discord.fault("POST", POST_MESSAGE, 503, None)
    person = house.discord.person()
    reply = order(house, person)
    house.bots[-1].wait_for_line("not reported yet")
    house.set_clock(hours)
    house.discord.clear_faults()
    expect_exactly_one_result(house, person)
    reply.wait_message(lambda m: "Done: see the channel." in m["content"])


@pytest.mark.parametrize(
    ("before", "after"), [(-3, -3), (3, 3), (-48, -48), (48, 48), (48, 0), (-3, 0)]
)
def test_a_wrong_clock_and_a_crash_after_the_post_make_no_second_report(
    house: House, before: float, after: float
) -> None:
    house.discord.nonce_memory = 0
    house.installation.configure(house.settings)
    house.set_clock(before)
    bot = house.run(environment={"KILL_AT": "before:Store.delivered"})
    person = house.discord.person()
    press_generate(house, person)
    assert bot.wait() == -signal.SIGKILL
    house.set_clock(after)
    house.run()
    expect_exactly_one_result(house, person)


@pytest.mark.parametrize("hours", [-49, -3, 3, 49])
def test_a_wrong_clock_and_a_crash_leave_no_running_message(house: House, hours: float) -> None:
    house.set_clock(hours)
    house.discord.nonce_memory = 0
    house.comfyui.hold()
    bot = house.start()
    house.discord.after("POST", POST_MESSAGE, bot.process.kill)
    person = house.discord.person()
    press_generate(house, person)
    assert bot.wait() == -signal.SIGKILL
    (message,) = house.channel.messages
    house.run()
    house.discord.wait_for(lambda d: message["edited_timestamp"] is not None)
    house.comfyui.release()
    expect_exactly_one_result(house, person)


def test_a_result_of_days_ago_that_was_never_reported_is_reported(house: House) -> None:
    house.installation.configure(house.settings)
    bot = house.run(environment={"KILL_AT": "after:Store.complete"})
    person = house.discord.person()
    press_generate(house, person)
    bot.wait()
    house.installation.change("UPDATE jobs SET completed_at = completed_at - 49 * 3600 * 1000")
    house.run()
    expect_exactly_one_result(house, person)


# What Discord refuses for its content

REFUSALS = [
    (400, 20009, "explicit content"),
    (403, 20009, "explicit content"),
    (400, 200000, "AutoMod"),
]


def refuse(house: House, place: Channel, status: int, code: int, *, files: bool = True) -> None:
    """From now on Discord takes no message there: none with a picture, if `files`."""
    path = rf"/channels/{place.id}/messages$"
    house.discord.fault("POST", path, status, None, code=code, with_files=files)


def expect_told(text: str, house: House, words: str) -> None:
    """It says what Discord refused, and where."""
    assert "Discord refused to post your picture" in text
    assert f"<#{house.channel.id}>" in text
    assert words in text
    assert "may not post" not in text


@pytest.mark.parametrize(("status", "code", "words"), REFUSALS)
def test_what_discord_refuses_in_a_channel_comes_as_a_direct_message(
    house: House, status: int, code: int, words: str
) -> None:
    house.start()
    refuse(house, house.channel, status, code)
    person = house.discord.person()
    reply = order(house, person)
    reply.wait_message(lambda m: "Done: see your direct messages." in m["content"])
    (message,) = person.dms
    assert len(message["attachments"]) == 1
    expect_told(plain(message), house, words)
    assert house.channel.messages == []
    query = "SELECT report_channel_id FROM jobs"
    assert house.installation.rows(query) == [(str(person._dm.id),)]


@pytest.mark.parametrize(("status", "code", "words"), REFUSALS)
def test_a_picture_that_discord_refuses_there_too_is_told_of_in_words(
    house: House, status: int, code: int, words: str
) -> None:
    house.start()
    person = house.discord.person()
    refuse(house, house.channel, status, code)
    refuse(house, person._dm, status, code)
    reply = order(house, person)
    reply.wait_message(lambda m: "Done, but Discord refused to post it" in m["content"])
    house.settle()
    (message,) = person.dms
    assert not message["attachments"]
    expect_told(plain(message), house, words)
    assert house.channel.messages == []


@pytest.mark.parametrize("is_told_in_words", [False, True])
def test_what_the_person_was_told_alone_before_a_crash_is_not_told_again_in_the_channel(
    house: House, is_told_in_words: bool
) -> None:
    house.installation.configure(house.settings)
    bot = house.run(environment={"KILL_AT": "before:Store.delivered"})
    person = house.discord.person()
    refuse(house, house.channel, 400, 20009)
    if is_told_in_words:
        refuse(house, person._dm, 400, 20009)
    press_generate(house, person)
    assert bot.wait() == -signal.SIGKILL
    house.discord.clear_faults()
    house.run()
    house.settle()
    (message,) = person.dms
    assert len(message["attachments"]) == int(not is_told_in_words)
    assert house.channel.messages == []


@pytest.mark.parametrize(("status", "code", "words"), REFUSALS)
def test_without_direct_messages_the_channel_says_what_was_refused_and_not_the_prompt(
    house: House, status: int, code: int, words: str
) -> None:
    house.start()
    person = house.discord.person()
    person.accepts_dms = False
    refuse(house, house.channel, status, code)
    reply = order(house, person, "a very private fox")
    reply.wait_message(lambda m: "Done, but Discord refused to post it" in m["content"])
    house.settle()
    (message,) = house.channel.messages
    assert [user["id"] for user in message["mentions"]] == [str(person.id)]
    assert not message["attachments"]
    assert words in plain(message)
    assert "private fox" not in text_of(message)


@pytest.mark.parametrize(("status", "code", "words"), REFUSALS)
def test_where_nothing_can_be_said_the_reply_says_so_and_the_owner_hears_of_it(
    house: House, status: int, code: int, words: str
) -> None:
    owner, person = house.discord.person("owner"), house.discord.person()
    person.accepts_dms = False
    house.start(ALERT_USER_ID=str(owner.id))
    refuse(house, house.channel, status, code, files=False)
    reply = order(house, person)
    message = reply.wait_message(lambda m: "Done, but Discord refused" in m["content"], 20)
    assert words in message["content"]
    house.discord.wait_for_message(owner, lambda m: "disk" not in m["content"])
    house.settle()
    assert house.channel.messages == []


def test_done_says_where_a_picture_is_that_the_bot_may_not_post(house: House) -> None:
    house.start()
    person = house.discord.person()
    refuse(house, house.channel, 403, 50013, files=False)
    reply = order(house, person)
    reply.wait_message(lambda m: "Done: see your direct messages." in m["content"])
    (message,) = person.dms
    assert message["attachments"]
    assert "may not post" in message["content"]


# The bot's own mistakes


@pytest.mark.parametrize("point", ["before:Store.fail", "before:Store.complete"])
def test_no_job_stays_running_when_its_last_step_fails(house: House, point: str) -> None:
    house.installation.configure({**house.settings, "MAX_WAITING_PER_PERSON": "1"})
    house.run(environment={"BREAK_AT": point})
    if point == "before:Store.fail":
        house.comfyui.fail_next("RuntimeError", "it broke")
    person = house.discord.person()
    press_generate(house, person)
    result_of(house, person)
    assert statuses(house) == ["failed"]
    ask_for(person, house.channel, "the next")  # which the row left over would forbid
    house.discord.wait_for(lambda d: bool(results(house, person)))


def test_the_feed_goes_on_after_an_unexpected_error(house: House) -> None:
    house.installation.configure(house.settings)
    house.run(environment={"BREAK_AT": "before:ComfyClient.feed_url"})
    house.comfyui.wait_for(lambda c: bool(c.listeners))


def test_the_alerts_go_on_after_an_unexpected_error(house: House) -> None:
    owner = house.discord.person("owner")
    house.installation.configure({**house.settings, "ALERT_USER_ID": str(owner.id)})
    bot = house.run(environment={"BREAK_AT": "before:ComfyClient.ping"})
    house.comfyui.go_down()
    bot.wait_for_line("broken before:ComfyClient.ping")
    house.discord.wait_for_message(owner, lambda m: "has not answered" in m["content"])


def test_the_housekeeping_goes_on_after_an_unexpected_error(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    press_generate(house, person)
    result_of(house, person)
    house.settle()
    bot.stop()
    house.installation.change("UPDATE jobs SET completed_at = completed_at - 8 * 86400000")
    house.installation.configure({**house.settings, "JOB_RETENTION_DAYS": "7"})
    house.run(environment={"BREAK_AT": "before:Store.purge"})
    until(lambda: statuses(house) == [])


def test_the_next_job_does_not_wait_until_comfyui_has_stopped_the_one_before(
    house: House,
) -> None:
    house.comfyui.jobs_api = True
    house.comfyui.hold()
    house.installation.configure(house.settings)
    house.run(environment={"SHORT_WAITS": ""})  # an answer is waited for for 10 s
    person, other = house.discord.person(), house.discord.person("other")
    message = ask_for(person, house.channel, "changed my mind")
    ask_for(other, house.channel, "still wanted")
    house.comfyui.wait_for(lambda c: bool(c.held))
    house.comfyui.fault("POST /jobs", "hang", None)  # the stop
    moments: dict[str, float] = {}
    for route in ("POST /jobs", "POST /prompt"):
        house.comfyui.before(
            route, lambda _, name=route: moments.setdefault(name, time.monotonic())
        )
    began = time.monotonic()
    person.press(message, CANCEL).wait()
    house.comfyui.wait_for(lambda c: len(c.posted) == 2, 60)
    assert moments["POST /prompt"] - began < 8


# A stop


def test_a_stop_does_not_wait_for_a_report_that_discord_does_not_take(house: House) -> None:
    house.discord.fault("POST", POST_MESSAGE, 503, None)
    bot = house.start(**LONG_GRACE)
    person = house.discord.person()
    press_generate(house, person)
    bot.wait_for_line("not reported yet")
    expect_a_soon_end(bot)
    house.discord.clear_faults()
    house.start()
    expect_exactly_one_result(house, person)


def test_a_stop_does_not_wait_for_an_old_report_while_the_last_job_is_finished(
    house: House,
) -> None:
    elsewhere = house.discord.guild.add_channel("elsewhere")
    path = rf"/channels/{house.channel.id}/messages$"
    house.discord.fault("POST", path, 503, None)
    ids = f"{house.channel.id},{elsewhere.id}"
    bot = house.start(ALLOWED_CHANNEL_IDS=ids, **LONG_GRACE)
    stuck, last = house.discord.person("stuck"), house.discord.person("last")
    press_generate(house, stuck)
    bot.wait_for_line("not reported yet")
    house.comfyui.hold()
    ask_for(last, elsewhere, "the last one")
    house.comfyui.wait_for(lambda c: bool(c.held))
    began = time.monotonic()
    bot.signal(signal.SIGTERM)
    bot.wait_for_line("shutting down")
    house.comfyui.release()
    try:
        bot.wait(SOON)
    except subprocess.TimeoutExpired:
        bot.kill()
    assert time.monotonic() - began < SOON
    assert [len(m["attachments"]) for m in elsewhere.messages] == [1]
    house.discord.clear_faults()
    house.run()
    expect_exactly_one_result(house, stuck)
