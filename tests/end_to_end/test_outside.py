"""The world outside fails for long: ComfyUI is away, answers nonsense or fails everything, clocks
jump, Discord refuses what it gets. No job is burnt by it, no picture lost, and people read why."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from typing import Any

import pytest

from tests.end_to_end.common import (
    POST_MESSAGE,
    expect_exactly_one_result,
    press_generate,
    result_of,
    results,
    until,
)
from tests.harness.bot import Bot
from tests.harness.house import House
from tests.harness.steps import ask_for, fill_in, generate, labels, open_form, text_of
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.people import Channel, Person, Reply

AWAY = re.compile("ComfyUI (does not answer|has not answered)")
SOON = 20.0  # seconds, of a stop that has a grace of three times as many
LONG_GRACE = {"SHUTDOWN_GRACE_MS": "60000"}
BROKEN_GPU = ("RuntimeError", "CUDA error: unspecified launch failure")


def plain(message: dict[str, Any]) -> str:
    """What people read of a message."""
    return text_of(message).replace("\\", "")


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def order(house: House, person: Person, prompt: str = "a fox") -> Reply:
    """From /gen to the press of Generate and its answer."""
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt=prompt)
    return generate(person, form)


def statuses(house: House) -> list[str]:
    """Of all jobs, in their order."""
    return [row[0] for row in house.installation.rows("SELECT status FROM jobs ORDER BY rowid")]


def expect_one_result_each(house: House, people: list[Person]) -> None:
    """Once all is done, each has one picture, made once, and nothing else is in the channel."""
    house.settle(60)
    assert [len(results(house, person)) for person in people] == [1] * len(people)
    assert len(house.channel.messages) == len(people)
    ids = [prompt_id for prompt_id, _ in house.comfyui.posted]
    assert len(ids) == len(set(ids)) == len(people)


def expect_a_soon_end(bot: Bot) -> None:
    """SIGTERM ends it long before the grace is over."""
    began = time.monotonic()
    bot.signal(signal.SIGTERM)
    try:
        assert bot.wait(SOON) == 0
    except subprocess.TimeoutExpired:
        bot.kill()
    assert time.monotonic() - began < SOON, "the stop waits for what only tries again"


# ComfyUI away


def away_with_jobs(house: House, people: list[Person], *, begun: bool = True) -> Bot:
    """A job of each, the first of them at work if `begun`, and ComfyUI gone."""
    bot = house.start(COMFY_TIMEOUT_MS="2000", **LONG_GRACE)
    house.comfyui.hold()
    if not begun:
        house.comfyui.go_down()
    for person in people:
        order(house, person, f"for {person.name}")
    if begun:
        house.comfyui.wait_for(lambda c: len(c.posted) == 1)
        house.comfyui.go_down()
    return bot


@pytest.mark.parametrize("begun", [True, False], ids=["one-at-work", "none-begun"])
def test_an_absence_longer_than_the_time_of_a_job_burns_none(house: House, begun: bool) -> None:
    people = [house.discord.person(f"p{number}") for number in range(4)]
    away_with_jobs(house, people, begun=begun)
    pause(6)  # three times COMFY_TIMEOUT_MS
    assert statuses(house) == ["running", "queued", "queued", "queued"]
    house.comfyui.release()
    house.comfyui.come_up()
    expect_one_result_each(house, people)


def test_a_comfyui_that_comes_back_empty_makes_each_waiting_job_once(house: House) -> None:
    people = [house.discord.person(f"p{number}") for number in range(3)]
    away_with_jobs(house, people)
    pause(6)
    house.comfyui.release()
    house.comfyui.restart()
    house.settle(60)
    assert statuses(house) == ["completed"] * 3
    assert [len(results(house, person)) for person in people] == [1, 1, 1]
    assert len(house.comfyui.finished) == 3


def test_people_read_that_comfyui_is_away_and_that_their_picture_waits(house: House) -> None:
    person, other = house.discord.person(), house.discord.person("other")
    away_with_jobs(house, [person])
    shown = house.discord.wait_for_message(house.channel, lambda m: bool(AWAY.search(text_of(m))))
    assert "your picture waits" in text_of(shown)
    form = open_form(other, house.channel)
    assert form.message is not None
    assert AWAY.search(text_of(form.message))
    assert "waits until it is back" in text_of(form.message)
    reply = order(house, other)
    reply.wait_shown(lambda m: "Queued!" in m["content"] and AWAY.search(m["content"]))
    queue = other.slash("queue", house.channel).wait().wait_message()
    assert AWAY.search(text_of(queue))
    house.comfyui.release()
    house.comfyui.come_up()
    expect_one_result_each(house, [person, other])
    form = open_form(other, house.channel)
    assert form.message is not None
    assert not AWAY.search(text_of(form.message))


def test_an_idle_bot_without_an_owner_to_alert_notices_an_absence_and_its_end(
    house: House,
) -> None:
    house.start()
    person = house.discord.person()

    def form_says_away() -> bool:
        form = open_form(person, house.channel)
        assert form.message is not None
        return bool(AWAY.search(text_of(form.message)))

    assert not form_says_away()
    house.comfyui.go_down()
    until(form_says_away)
    house.comfyui.come_up()
    until(lambda: not form_says_away())


def test_what_waits_for_comfyui_is_cancelled_at_once_and_never_made(house: House) -> None:
    people = [house.discord.person(f"p{number}") for number in range(3)]
    house.start(COMFY_TIMEOUT_MS="2000")
    house.comfyui.go_down()
    replies = [order(house, person) for person in people]
    pause(6)
    for number in (0, 1):
        queued = replies[number].wait_message(lambda m: "job:cancel:" in str(m["components"]))
        answer = people[number].press(queued, "Cancel").wait()
        answer.wait_message(lambda m: "Cancelled" in m["content"])
    until(lambda: statuses(house) == ["cancelled", "cancelled", "running"])
    house.comfyui.come_up()
    house.discord.wait_for(lambda d: bool(results(house, people[2])), 60)
    house.settle()
    assert len(house.comfyui.posted) == 1
    assert [len(results(house, person)) for person in people] == [0, 0, 1]


@pytest.mark.parametrize("begun", [True, False], ids=["at-work", "not-begun"])
def test_a_stop_does_not_wait_for_a_comfyui_that_is_away(house: House, begun: bool) -> None:
    people = [house.discord.person(f"p{number}") for number in range(2)]
    house.comfyui.hold()
    bot = house.start(**LONG_GRACE)
    if not begun:
        house.comfyui.go_down()
    for person in people:
        order(house, person)
    if begun:
        house.comfyui.wait_for(lambda c: bool(c.posted))
        house.comfyui.go_down()
    bot.wait_for_line("ComfyUI does not answer")
    expect_a_soon_end(bot)
    assert statuses(house) == ["running", "queued"]
    house.comfyui.release()
    house.comfyui.come_up()
    house.start()
    expect_one_result_each(house, people)


def test_time_in_which_this_machine_slept_does_not_count(house: House) -> None:
    house.comfyui.hold()
    bot = house.start(COMFY_TIMEOUT_MS="4000")
    person = house.discord.person()
    press_generate(house, person)
    house.comfyui.wait_for(lambda c: bool(c.held))
    bot.signal(signal.SIGSTOP)
    pause(8)
    before = len(house.comfyui.requests)
    bot.signal(signal.SIGCONT)
    house.comfyui.wait_for(lambda c: len(c.requests) > before + 4)  # it has looked
    house.comfyui.release()
    house.settle()
    assert statuses(house) == ["completed"]
    expect_exactly_one_result(house, person)


# One bad picture

BAD = [
    ("404", "no longer on the image server"),
    ("403", "does not hand it out"),
    ("svg", "no picture that the bot can post"),
    ("too large", "larger than 100 MB"),
]


@pytest.mark.parametrize("place", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize(("kind", "reason"), BAD)
def test_of_two_pictures_one_that_cannot_be_had_does_not_cost_the_other(
    house: House, kind: str, reason: str, place: int
) -> None:
    house.comfyui.pictures_per_prompt = 2
    house.comfyui.bad_pictures = {place: kind}
    house.start()
    person = house.discord.person()
    press_generate(house, person)
    message = result_of(house, person)
    (attachment,) = message["attachments"]
    good = [*house.comfyui.pictures.values()][1 - place]
    assert house.discord.attachment_bytes(attachment) == good
    assert "1 of 2 pictures is missing" in plain(message)
    assert reason in plain(message)
    house.settle()
    assert house.channel.messages == [message]
    assert statuses(house) == ["completed"]
    assert len(house.comfyui.posted) == 1


@pytest.mark.parametrize(("kind", "reason"), BAD)
def test_where_no_picture_can_be_had_people_read_why_and_the_next_job_runs(
    house: House, kind: str, reason: str
) -> None:
    house.comfyui.bad_pictures = {0: kind}
    house.start()
    unlucky, lucky = house.discord.person(), house.discord.person()
    press_generate(house, unlucky)
    message = result_of(house, unlucky)
    assert not message["attachments"]
    assert reason in plain(message)
    house.comfyui.bad_pictures = {}
    press_generate(house, lucky)
    house.discord.wait_for(lambda d: bool(results(house, lucky)))
    assert statuses(house) == ["failed", "completed"]


@pytest.mark.parametrize("elsewhere", [True, False], ids=["other-host", "same-host"])
def test_a_redirected_picture_is_fetched_and_comfyuis_headers_stay_at_home(
    house: House, elsewhere: bool
) -> None:
    secret = {"Authorization": "Bearer secret", "X-Key": "secret"}
    house.comfyui.required_headers = secret
    with ComfyUIStandIn() as other:
        other._files = house.comfyui._files
        house.comfyui.moved_to = other.url if elsewhere else f"{house.comfyui.url}/api"
        header = "Authorization: Bearer secret; X-Key: secret"
        house.start(COMFY_HEADERS=header)
        person = house.discord.person()
        press_generate(house, person)
        expect_exactly_one_result(house, person)
        assert bool(other.requests) == elsewhere
        for request in other.requests:
            assert not secret.keys() & request.headers.keys()
            assert "secret" not in str(request.headers)


# A server that fails everything


def failing(house: House, people: list[Person], **changes: str) -> tuple[Person, list[Reply]]:
    """ComfyUI has failed three, of whose failures the owner has heard; the other jobs wait."""
    owner = house.discord.person("owner")
    house.start(ALERT_USER_ID=str(owner.id), **changes)
    house.comfyui.error_state = BROKEN_GPU
    replies = [order(house, person) for person in people]
    house.discord.wait_for_message(
        owner, lambda m: "ComfyUI has failed the last three pictures" in m["content"]
    )
    return owner, replies


def test_a_gpu_in_an_error_state_burns_three_jobs_and_the_others_survive_its_restart(
    house: House,
) -> None:
    people = [house.discord.person(f"p{number}") for number in range(6)]
    owner, _ = failing(house, people)
    shown = house.discord.wait_for_message(
        house.channel, lambda m: "ComfyUI has failed the last pictures" in text_of(m)
    )
    assert "your picture waits" in text_of(shown)
    for person in people[:3]:
        text = plain(result_of(house, person))
        assert "another model" not in text
        assert "probably needs a restart" in text
        assert "bot's owner" in text
    assert statuses(house) == ["failed"] * 3 + ["running", "queued", "queued"]
    house.comfyui.restart()
    house.settle(60)
    assert statuses(house) == ["failed"] * 3 + ["completed"] * 3
    assert [len(results(house, person)) for person in people] == [0, 0, 0, 1, 1, 1]
    assert len(house.channel.messages) == 6
    house.discord.wait_for_message(
        owner, lambda m: "ComfyUI makes pictures again" in m["content"], 60
    )
    said = [m for m in owner.dms if "ComfyUI has failed" in m["content"]]
    assert len(said) == 1


def test_a_job_that_is_tried_again_after_a_while_ends_the_hold(house: House) -> None:
    people = [house.discord.person(f"p{number}") for number in range(5)]
    failing(house, people)
    house.comfyui.error_state = None  # without a restart
    house.settle(60)
    assert statuses(house) == ["failed"] * 3 + ["completed"] * 2


def test_what_waits_for_a_failing_comfyui_is_cancelled_and_stopped_at_once(house: House) -> None:
    people = [house.discord.person(f"p{number}") for number in range(5)]
    _, replies = failing(house, people, **LONG_GRACE)
    until(lambda: statuses(house) == ["failed"] * 3 + ["running", "queued"])
    queued = replies[3].wait_message(lambda m: "job:cancel:" in str(m["components"]))
    answer = people[3].press(queued, "Cancel").wait()
    answer.wait_message(lambda m: "Cancelled" in m["content"])
    until(lambda: statuses(house)[3:] == ["cancelled", "running"])
    expect_a_soon_end(house.bots[-1])
    assert statuses(house)[4] == "running"
    house.comfyui.restart()
    house.start()
    house.settle(60)
    assert len(results(house, people[4])) == 1


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


# A history that was cleared


def test_a_picture_whose_history_was_cleared_is_fetched_by_what_the_feed_said(
    house: House,
) -> None:
    house.start()
    house.comfyui.wait_for(lambda c: bool(c.listeners))
    house.comfyui.histories_cleared = 1
    person = house.discord.person()
    press_generate(house, person)
    expect_exactly_one_result(house, person)
    assert statuses(house) == ["completed"]
    assert len(house.comfyui.posted) == 1


def test_a_picture_with_no_history_and_no_known_files_is_made_again(house: House) -> None:
    house.start()
    house.comfyui.wait_for(lambda c: bool(c.listeners))
    house.comfyui.tells_executed = False
    house.comfyui.histories_cleared = 1
    person = house.discord.person()
    press_generate(house, person)
    expect_exactly_one_result(house, person)
    assert statuses(house) == ["completed"]
    assert len(house.comfyui.posted) == 2


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
    house.settle()
    (message,) = person.dms
    assert not message["attachments"]
    expect_told(plain(message), house, words)
    assert house.channel.messages == []
    reply.wait_message(lambda m: "Done, but Discord refused to post it" in m["content"])


@pytest.mark.parametrize(("status", "code", "words"), REFUSALS)
def test_without_direct_messages_the_channel_says_what_was_refused_and_not_the_prompt(
    house: House, status: int, code: int, words: str
) -> None:
    house.start()
    person = house.discord.person()
    person.accepts_dms = False
    refuse(house, house.channel, status, code)
    reply = order(house, person, "a very private fox")
    house.settle()
    (message,) = house.channel.messages
    assert [user["id"] for user in message["mentions"]] == [str(person.id)]
    assert not message["attachments"]
    assert words in plain(message)
    assert "private fox" not in text_of(message)
    reply.wait_message(lambda m: "Done, but Discord refused to post it" in m["content"])


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
    person.press(message, "Cancel").wait()
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
