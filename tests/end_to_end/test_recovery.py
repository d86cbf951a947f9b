"""No job lost, none doubled: the process, ComfyUI and Discord fail at every point of a job's way.

The real process, a real SQLite file, and stand-ins on loopback.
"""

from __future__ import annotations

import re
import signal
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness.house import House
from tests.harness.steps import ask_for, fill_in, labels, open_form, text_of
from tests.standins.discord.people import Person

POST_MESSAGE = r"/channels/\d+/messages$"
Arrange = Callable[[House, Callable[[], None]], None]


def results(house: House, person: Person) -> list[dict[str, Any]]:
    """The results a person has in the channel."""
    mention = f"<@{person.id}>"
    return [
        message
        for message in house.channel.messages
        if message["content"] == mention and message["attachments"]
    ]


def press_generate(house: House, person: Person, prompt: str = "a fox") -> None:
    """Up to the press of Generate, without waiting for its answer."""
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt=prompt)
    person.press(form.message, "Generate")


def expect_exactly_one_result(house: House, person: Person) -> None:
    house.discord.wait_for(lambda d: bool(results(house, person)))
    house.settle()
    (message,) = results(house, person)
    (attachment,) = message["attachments"]
    assert house.discord.attachment_bytes(attachment) in house.comfyui.pictures.values()
    assert [m for m in house.channel.messages if m is not message] == []


def before_the_submission(house: House, act: Callable[[], None]) -> None:
    house.comfyui.before("POST /prompt", lambda _: act())


def the_answer_to_the_submission_lost(house: House, act: Callable[[], None]) -> None:
    house.comfyui.after("POST /prompt", lambda _: act())


def while_it_runs(house: House, act: Callable[[], None]) -> None:
    house.comfyui.hold()
    polled = threading.Event()

    def then(_: object) -> None:
        act()
        house.comfyui.release()
        polled.set()

    def second_poll(_: object) -> None:
        house.comfyui.before("GET /history", then)

    house.comfyui.after("POST /prompt", lambda _: house.comfyui.after("GET /history", second_poll))


def before_the_download(house: House, act: Callable[[], None]) -> None:
    house.comfyui.before("GET /view", lambda _: act())


def after_the_download(house: House, act: Callable[[], None]) -> None:
    house.comfyui.after("GET /view", lambda _: act())


def before_the_post(house: House, act: Callable[[], None]) -> None:
    house.discord.fault("POST", POST_MESSAGE, "reset")
    house.discord.before("POST", POST_MESSAGE, act)


def after_the_post(house: House, act: Callable[[], None]) -> None:
    house.discord.after("POST", POST_MESSAGE, act)


POINTS_OUTSIDE: list[Arrange] = [
    before_the_submission,
    the_answer_to_the_submission_lost,
    while_it_runs,
    before_the_download,
    after_the_download,
    before_the_post,
    after_the_post,
]
POINTS_INSIDE = [
    "after:Store.insert",
    "before:Store.start",
    "after:Store.start",
    "after:ComfyClient.submit",
    "after:Store.submitted",
    "before:Store.complete",
    "after:Store.complete",
    "before:Store.delivered",
]


def name_of(point: object) -> str:
    return point if isinstance(point, str) else getattr(point, "__name__", str(point))


@pytest.mark.parametrize("comfyui_restarts", [False, True], ids=["", "and-comfyui-restarts"])
@pytest.mark.parametrize("point", [*POINTS_OUTSIDE, *POINTS_INSIDE], ids=name_of)
def test_a_job_killed_anywhere_arrives_exactly_once(
    house: House, point: Arrange | str, comfyui_restarts: bool
) -> None:
    person = house.discord.person()
    if isinstance(point, str):
        house.installation.configure(house.settings)
        bot = house.run(environment={"KILL_AT": point})
    else:
        bot = house.start()
        point(house, bot.process.kill)
    press_generate(house, person)
    assert bot.wait() == -signal.SIGKILL
    house.comfyui.release()
    if comfyui_restarts:
        house.comfyui.restart()
    house.run()
    expect_exactly_one_result(house, person)
    assert len(house.comfyui.posted) <= (2 if comfyui_restarts else 1)


@pytest.mark.parametrize("point", POINTS_OUTSIDE, ids=name_of)
def test_comfyui_restarting_anywhere_costs_one_more_submission_at_most(
    house: House, point: Arrange
) -> None:
    bot = house.start()
    person = house.discord.person()
    point(house, house.comfyui.restart)
    press_generate(house, person)
    expect_exactly_one_result(house, person)
    assert len(house.comfyui.posted) <= 2
    assert bot.process.poll() is None


def test_the_second_message_of_a_large_result_is_not_posted_twice(house: House) -> None:
    house.comfyui.pictures_per_prompt = 12
    house.discord.nonce_memory = 0
    house.installation.configure(house.settings)
    bot = house.run(environment={"KILL_AT": "before:Store.delivered"})
    person = house.discord.person()
    press_generate(house, person)
    assert bot.wait() == -signal.SIGKILL
    house.run()
    house.settle()
    assert [len(m["attachments"]) for m in house.channel.messages] == [10, 2]


def test_a_time_out_is_stopped_although_comfyui_falters(house: House) -> None:
    house.comfyui.hold()
    house.start(COMFY_TIMEOUT_MS="1500")
    person = house.discord.person()
    press_generate(house, person)
    house.comfyui.wait_for(lambda c: bool(c.posted))
    house.comfyui.fault("GET /queue", "502", 2)
    house.discord.wait_for_message(house.channel, lambda m: "took too long" in text_of(m))
    assert len(house.comfyui.interrupted) == 1


def test_running_and_queued_jobs_are_taken_up_in_their_order(house: House) -> None:
    house.comfyui.hold()
    bot = house.start()
    people = [house.discord.person(f"p{number}") for number in range(3)]
    for person in people:
        ask_for(person, house.channel, f"for {person.name}")
    house.comfyui.wait_for(lambda c: len(c.posted) == 1)
    bot.kill()
    house.comfyui.release()
    house.run()
    house.settle()
    order = [message["content"] for message in house.channel.messages if message["attachments"]]
    assert order == [f"<@{person.id}>" for person in people]
    assert len(house.comfyui.posted) == 3


def test_what_ended_more_than_a_day_ago_is_not_reported_any_more(house: House) -> None:
    house.installation.configure(house.settings)
    bot = house.run(environment={"KILL_AT": "after:Store.complete"})
    press_generate(house, house.discord.person())
    bot.wait()
    connection = sqlite3.connect(house.installation.database)
    with connection:
        connection.execute("UPDATE jobs SET completed_at = completed_at - 25 * 3600 * 1000")
    connection.close()
    again = house.run()
    again.wait_for_line("more than 24 h ago")
    house.settle()
    assert house.channel.messages == []


def test_a_second_bot_on_the_same_database_is_refused(house: House) -> None:
    first = house.start()
    second = house.run(ready=False)
    assert second.wait() == 1
    (line,) = [line for line in second.lines if " CRITICAL " in line]
    assert "another copy" in line
    first.kill()  # and a killed one leaves no lock behind
    house.run()


@pytest.mark.parametrize(
    ("route", "kind"),
    [
        *(("GET /history", kind) for kind in ("reset", "502", "half json", "bad json", "429")),
        ("GET /history", "login page"),
        *(("GET /view", kind) for kind in ("reset", "502", "truncate", "lost answer")),
        *(("POST /prompt", kind) for kind in ("reset", "502", "lost answer")),
    ],
)
def test_a_comfyui_that_falters_costs_time_and_no_picture(
    house: House, route: str, kind: str
) -> None:
    bot = house.start()
    house.comfyui.fault(route, kind, 2)
    person = house.discord.person()
    press_generate(house, person)
    expect_exactly_one_result(house, person)
    assert len(house.comfyui.posted) == 1
    assert bot.output.count("ComfyUI does not answer") == 1


def test_a_comfyui_that_is_away_for_a_while_is_waited_for(house: House) -> None:
    house.comfyui.hold()
    bot = house.start()
    person = house.discord.person()
    press_generate(house, person)
    house.comfyui.wait_for(lambda c: bool(c.posted))
    house.comfyui.go_down()
    bot.wait_for_line("ComfyUI does not answer")
    house.comfyui.come_up()
    house.comfyui.release()
    expect_exactly_one_result(house, person)
    bot.wait_for_line("ComfyUI answers again")


def test_a_hanging_answer_is_given_up_and_asked_again(house: House) -> None:
    house.start()
    house.comfyui.fault("GET /history", "hang", 1)
    person = house.discord.person()
    press_generate(house, person)
    expect_exactly_one_result(house, person)


def test_a_time_out_stops_this_prompt_alone(house: House) -> None:
    house.comfyui.interrupt_ignores_body = True
    house.comfyui.hold()
    foreign = house.comfyui.submit_foreign()
    house.comfyui.wait_for(lambda c: foreign in c.executed)
    house.start(COMFY_TIMEOUT_MS="1000")
    person = house.discord.person()
    press_generate(house, person)
    message = house.discord.wait_for_message(house.channel, lambda m: "took too long" in text_of(m))
    assert message["content"] == f"<@{person.id}>"
    assert house.comfyui.interrupted == []
    assert house.comfyui.pending == []
    house.comfyui.release()
    ask_for(person, house.channel, "next")
    house.discord.wait_for(lambda d: bool(results(house, person)))
    assert foreign in house.comfyui.finished


@pytest.mark.parametrize("kind", [502, "reset", "lost answer", "rate limit"])
def test_a_result_survives_a_faltering_discord_and_arrives_once(
    house: House, kind: int | str
) -> None:
    house.start()
    house.discord.fault("POST", POST_MESSAGE, kind, 2, seconds=0.3)
    person = house.discord.person()
    press_generate(house, person)
    expect_exactly_one_result(house, person)
    posts = [r.body for r in house.discord.requests if re.search(POST_MESSAGE, r.path) and r.body]
    assert len({body["nonce"] for body in posts}) == 1  # Discord itself drops a second one
    assert all(body["enforce_nonce"] for body in posts)


def test_ten_failures_of_discord_in_a_row_delay_the_result_and_not_the_gpu(house: House) -> None:
    house.start()
    house.discord.fault("POST", POST_MESSAGE, 503, 10)
    first, second = house.discord.person(), house.discord.person()
    press_generate(house, first)
    press_generate(house, second)
    house.comfyui.wait_for(lambda c: len(c.executed) == 2)
    assert results(house, first) == []
    house.discord.wait_for(lambda d: bool(results(house, first)), 60)
    house.discord.wait_for(lambda d: bool(results(house, second)), 60)
    house.settle(60)
    assert len(results(house, first)) == len(results(house, second)) == 1


def test_a_lost_gateway_loses_no_result(house: House) -> None:
    house.comfyui.hold()
    house.start()
    person = house.discord.person()
    press_generate(house, person)
    house.comfyui.wait_for(lambda c: bool(c.posted))
    house.discord.drop_gateway(resumable=False)
    house.comfyui.release()
    house.discord.wait_for(lambda d: bool(results(house, person)), 60)
    house.settle()
    assert len(results(house, person)) == 1
    house.discord.wait_for(lambda d: d.connected, 60)


def test_a_closed_channel_sends_the_picture_to_the_person(house: House) -> None:
    house.comfyui.hold()
    house.start()
    person = house.discord.person()
    press_generate(house, person)
    house.comfyui.wait_for(lambda c: bool(c.posted))
    house.channel.delete()
    house.comfyui.release()
    house.discord.wait_for(lambda d: bool(person.dms))
    (message,) = person.dms
    assert f"<#{house.channel.id}>" in message["content"]
    (attachment,) = message["attachments"]
    assert house.discord.attachment_bytes(attachment) in house.comfyui.pictures.values()
    house.settle()


def test_a_channel_that_refuses_for_another_reason_sends_it_there_too_and_once(
    house: House,
) -> None:
    house.start()
    house.discord.fault("POST", rf"/channels/{house.channel.id}/messages$", 400, None, code=50083)
    person = house.discord.person()
    press_generate(house, person)
    house.discord.wait_for(lambda d: bool(person.dms))
    house.settle()
    assert len(person.dms) == 1


def test_where_even_that_is_impossible_the_log_says_so_and_the_job_is_closed(
    house: House,
) -> None:
    house.comfyui.hold()
    bot = house.start()
    person = house.discord.person()
    person.accepts_dms = False
    press_generate(house, person)
    house.comfyui.wait_for(lambda c: bool(c.posted))
    house.channel.bot_permissions = 0
    house.comfyui.release()
    bot.wait_for_line("cannot be reported to anybody")
    house.settle()


def cancel_button_of(message: dict[str, Any]) -> bool:
    return any(
        component.get("label") == "Cancel"
        for row in message["components"]
        for component in row["components"]
    )


def test_a_queued_job_is_cancelled_and_the_others_move_up(house: House) -> None:
    house.comfyui.hold()
    house.start()
    ask_for(house.discord.person(), house.channel, "in work")
    house.comfyui.wait_for(lambda c: bool(c.posted))
    unlucky, waiting, late = (house.discord.person() for _ in range(3))
    mine = ask_for(unlucky, house.channel, "changed my mind")
    ask_for(waiting, house.channel, "still wanted")
    answer = unlucky.press(mine, "Cancel").wait()
    answer.wait_message(lambda m: "Cancelled" in m["content"] and not m["components"])
    assert "position **2**" in ask_for(late, house.channel, "comes late")["content"]
    house.comfyui.release()
    house.settle()
    assert results(house, unlucky) == []
    assert len(results(house, waiting)) == len(results(house, late)) == 1
    assert len(house.comfyui.posted) == 3


def test_a_running_job_is_cancelled_by_its_owner_or_a_moderator_and_by_nobody_else(
    house: House,
) -> None:
    house.comfyui.hold()
    house.start()
    owner, stranger = house.discord.person("owner"), house.discord.person("stranger")
    moderator = house.discord.person("mod", permissions=stranger.permissions | 1 << 13)
    for who in (owner, moderator):
        before = len(house.comfyui.interrupted)
        ask_for(owner, house.channel, "slow")
        running = house.discord.wait_for_message(house.channel, cancel_button_of)
        assert f"<@{owner.id}>" in running["content"]
        assert running["mentions"] == []
        refused = stranger.press(running, "Cancel").wait()
        refused.wait_message(lambda m: "Only the person" in m["content"])
        who.press(running, "Cancel").wait()
        house.discord.wait_for_message(
            house.channel,
            lambda m, own=running["id"]: m["id"] == own and "Cancelled" in m["content"],
        )
        house.comfyui.wait_for(lambda c, n=before: len(c.interrupted) == n + 1)
        house.settle()
    assert results(house, owner) == []
    statuses = house.installation.rows("SELECT DISTINCT status FROM jobs")
    assert statuses == [("cancelled",)]


def test_a_cancellation_at_the_very_end_has_one_outcome(house: House) -> None:
    house.comfyui.hold()
    house.start()
    for number in range(6):
        person = house.discord.person()
        queued = ask_for(person, house.channel, f"race {number}")
        house.comfyui.wait_for(lambda c, n=number: len(c.posted) == n + 1)
        started = threading.Barrier(2)

        def press(person: Person = person, message: Any = queued) -> None:
            started.wait(20)  # noqa: B023
            person.press(message, "Cancel").wait()

        thread = threading.Thread(target=press)
        thread.start()
        started.wait(20)
        house.comfyui.release(1)
        thread.join(20)
        house.settle()
        house.comfyui.wait_for(lambda c: not c.running)
        ((status,),) = house.installation.rows(
            "SELECT status FROM jobs WHERE discord_user_id = ?", str(person.id)
        )
        assert (status, len(results(house, person))) in (("completed", 1), ("cancelled", 0))


def test_a_job_that_has_ended_cannot_be_cancelled(house: House) -> None:
    house.start()
    person = house.discord.person()
    message = ask_for(person, house.channel, "quick")
    house.settle()
    answer = person.press(message, "Cancel").wait()
    answer.wait_message(lambda m: "Too late" in m["content"])
    assert len(results(house, person)) == 1


def test_the_running_message_goes_when_the_result_comes_also_after_a_restart(
    house: House,
) -> None:
    house.comfyui.hold()
    bot = house.start()
    person = house.discord.person()
    press_generate(house, person)
    house.discord.wait_for_message(house.channel, cancel_button_of)
    bot.kill()
    house.run()
    house.comfyui.release()
    expect_exactly_one_result(house, person)


def test_finished_jobs_are_removed_after_the_days_the_owner_set(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    for number in range(2):
        ask_for(person, house.channel, f"picture {number}")
        house.settle()
    bot.stop()
    connection = sqlite3.connect(house.installation.database)
    with connection:
        connection.execute(
            "UPDATE jobs SET completed_at = completed_at - 8 * 24 * 3600 * 1000"
            " WHERE positive_prompt = 'picture 0'"
        )
    connection.close()
    house.start().stop()
    assert len(house.installation.rows("SELECT id FROM jobs")) == 2
    house.start(JOB_RETENTION_DAYS="7").wait_for_line("1 jobs older than 7 days removed")
    assert house.installation.rows("SELECT positive_prompt FROM jobs") == [("picture 1",)]
