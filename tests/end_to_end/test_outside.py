"""The world outside fails for long: ComfyUI is away, lacks files, fails everything or forgets. No
job is burnt by it, no picture lost, and people read what goes on."""

from __future__ import annotations

import re
import signal

import pytest

from tests.end_to_end.common import (
    LONG_GRACE,
    expect_a_soon_end,
    expect_exactly_one_result,
    order,
    pause,
    plain,
    press_generate,
    result_of,
    results,
    statuses,
    until,
)
from tests.harness.bot import Bot
from tests.harness.house import House
from tests.harness.labels import CANCEL
from tests.harness.steps import open_form, text_of
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.people import Person, Reply

AWAY = re.compile("ComfyUI (does not answer|has not answered)")
BROKEN_GPU = ("RuntimeError", "CUDA error: unspecified launch failure")


def expect_one_result_each(house: House, people: list[Person]) -> None:
    """Once all is done, each has one picture, made once, and nothing else is in the channel."""
    house.settle(60)
    assert [len(results(house, person)) for person in people] == [1] * len(people)
    assert len(house.channel.messages) == len(people)
    ids = [prompt_id for prompt_id, _ in house.comfyui.posted]
    assert len(ids) == len(set(ids)) == len(people)


# ComfyUI away


def away_with_jobs(house: House, people: list[Person], *, begun: bool = True) -> Bot:
    """A job of each, the first of them at work if `begun`, and ComfyUI gone."""
    bot = house.start(COMFY_TIMEOUT_MS="2000", **LONG_GRACE)
    house.comfyui.hold()
    if not begun:
        house.comfyui.go_down()
    for person in people:
        reply = order(house, person, f"for {person.name}")
        reply.wait_shown(lambda m: "Queued!" in m["content"])
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
    house.comfyui.restart()  # before it can end what it was at
    house.comfyui.release()
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
        answer = people[number].press(queued, CANCEL).wait()
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
        order(house, person).wait_shown(lambda m: "Queued!" in m["content"])
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
    answer = people[3].press(queued, CANCEL).wait()
    answer.wait_message(lambda m: "Cancelled" in m["content"])
    until(lambda: statuses(house)[3:] == ["cancelled", "running"])
    expect_a_soon_end(house.bots[-1])
    assert statuses(house)[4] == "running"
    house.comfyui.restart()
    house.start()
    house.settle(60)
    assert len(results(house, people[4])) == 1


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
