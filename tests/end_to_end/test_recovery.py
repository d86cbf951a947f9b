"""No job lost, none doubled: the process, ComfyUI and Discord fail at every point of a job's way.

The real process, a real SQLite file, and stand-ins on loopback.
"""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.common import (
    POST_MESSAGE,
    expect_exactly_one_result,
    press_generate,
    results,
)
from tests.harness.house import House
from tests.harness.labels import CANCEL, DELETE
from tests.harness.steps import ask_for, delete, text_of
from tests.standins.discord.people import Person

Arrange = Callable[[House, Callable[[], None]], None]


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
    # Judged at ComfyUI: of results that are ready at the same moment, either may be posted first.
    order = [re.findall(r"for (p\d)", json.dumps(graph)) for _, graph in house.comfyui.posted]
    assert order == [[person.name] for person in people]
    assert sorted(m["content"] for m in house.channel.messages if m["attachments"]) == sorted(
        f"<@{person.id}>" for person in people
    )


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
    house.start(COMFY_TIMEOUT_MS="1000")
    person = house.discord.person()
    press_generate(house, person)
    house.comfyui.wait_for(lambda c: bool(c.held))
    ours, foreign = house.comfyui.held, house.comfyui.submit_foreign()
    message = house.discord.wait_for_message(house.channel, lambda m: "took too long" in text_of(m))
    assert message["content"] == f"<@{person.id}>"
    house.comfyui.wait_for(lambda c: c.held == foreign)
    assert house.comfyui.interrupted == [ours]
    house.comfyui.release()
    ask_for(person, house.channel, "next")
    house.discord.wait_for(lambda d: bool(results(house, person)))
    assert foreign in house.comfyui.finished


def looks_at_the_queue(house: House) -> int:
    return sum(request.matches("GET /queue") for request in house.comfyui.requests)


def test_jobs_behind_a_long_prompt_of_somebody_else_all_complete(house: House) -> None:
    house.comfyui.hold()
    foreign = house.comfyui.submit_foreign()
    house.comfyui.wait_for(lambda c: c.held == foreign)
    house.start(COMFY_TIMEOUT_MS="5000")
    people = [house.discord.person(f"p{number}") for number in range(3)]
    for person in people:
        ask_for(person, house.channel, f"for {person.name}")
    house.comfyui.wait_for(lambda c: bool(c.posted))
    # The wait looks each two seconds: after four, more than the time of a job is over.
    house.comfyui.wait_for(lambda c: looks_at_the_queue(house) >= 4, 60)
    assert house.comfyui.pending == [house.comfyui.posted[0][0]]
    house.comfyui.release()
    house.settle(60)
    assert [len(results(house, person)) for person in people] == [1, 1, 1]
    assert house.installation.rows("SELECT DISTINCT status FROM jobs") == [("completed",)]


def test_a_job_that_waits_behind_somebody_elses_prompt_is_cancelled_alone(house: House) -> None:
    house.comfyui.interrupt_ignores_body = True
    house.comfyui.hold()
    foreign = house.comfyui.submit_foreign()
    house.comfyui.wait_for(lambda c: c.held == foreign)
    house.start()
    person = house.discord.person()
    message = ask_for(person, house.channel, "changed my mind")
    house.comfyui.wait_for(lambda c: bool(c.pending))
    person.press(message, CANCEL).wait()
    house.comfyui.wait_for(lambda c: not c.pending)
    assert (house.comfyui.held, house.comfyui.interrupted) == (foreign, [])
    house.comfyui.release()
    house.comfyui.wait_for(lambda c: foreign in c.finished)


def cancel_while_comfyui_is_down(house: House, person: Person) -> str:
    """A job that runs, ComfyUI away, the job cancelled; the id of its prompt, which goes on."""
    house.comfyui.hold()
    message = ask_for(person, house.channel, "changed my mind")
    house.comfyui.wait_for(lambda c: bool(c.held))
    prompt_id = house.comfyui.held
    assert prompt_id is not None
    house.comfyui.go_down()
    house.bots[-1].wait_for_line("ComfyUI does not answer")
    answer = person.press(message, CANCEL).wait()
    answer.wait_message(lambda m: "Cancelled" in m["content"])
    assert house.installation.rows("SELECT status FROM jobs") == [("cancelled",)]
    return prompt_id


def expect_stopped_and_forgotten(house: House, prompt_id: str) -> None:
    house.comfyui.wait_for(lambda c: c.interrupted == [prompt_id], 60)
    query = "SELECT count(*) FROM jobs WHERE on_server"
    house.comfyui.wait_for(lambda c: house.installation.rows(query) == [(0,)], 60)


def test_what_was_cancelled_while_comfyui_was_down_is_stopped_when_it_is_up(house: House) -> None:
    bot = house.start()
    person = house.discord.person()
    prompt_id = cancel_while_comfyui_is_down(house, person)
    bot.wait_for_line("cannot be cancelled yet")
    house.comfyui.come_up()
    expect_stopped_and_forgotten(house, prompt_id)
    house.comfyui.release()
    ask_for(person, house.channel, "something else")
    house.discord.wait_for(lambda d: bool(results(house, person)), 60)
    house.settle()


def test_what_was_cancelled_before_a_kill_is_stopped_after_the_next_start(house: House) -> None:
    """The bot died between the cancellation and the stop."""
    bot = house.start()
    prompt_id = cancel_while_comfyui_is_down(house, house.discord.person())
    bot.kill()
    house.comfyui.come_up()
    assert house.comfyui.held == prompt_id
    house.run()
    expect_stopped_and_forgotten(house, prompt_id)
    assert len(house.comfyui.posted) == 1


def test_a_submission_that_arrives_after_its_cancellation_is_stopped(house: House) -> None:
    house.start()
    person = house.discord.person()
    house.comfyui.hold()
    house.comfyui.fault("POST /prompt", "hang")
    message = ask_for(person, house.channel, "changed my mind")
    house.comfyui.wait_for(lambda c: any(r.matches("POST /prompt") for r in c.requests))
    answer = person.press(message, CANCEL).wait()
    answer.wait_message(lambda m: "Cancelled" in m["content"])
    ((job_id, status),) = house.installation.rows("SELECT id, status FROM jobs")
    assert (status, house.comfyui.posted) == ("cancelled", [])
    house.comfyui.clear_faults()
    expect_stopped_and_forgotten(house, job_id)


def test_what_the_owner_takes_out_of_the_queue_is_cancelled_and_the_person_told(
    house: House,
) -> None:
    house.comfyui.hold()
    foreign = house.comfyui.submit_foreign()
    house.comfyui.wait_for(lambda c: c.held == foreign)
    house.start()
    person = house.discord.person()
    press_generate(house, person)
    house.comfyui.wait_for(lambda c: bool(c.pending))
    house.comfyui.take_out(house.comfyui.pending[0])
    # Its row says so, with the sentence for the person.
    query = "SELECT status FROM jobs"
    house.comfyui.wait_for(lambda c: house.installation.rows(query) == [("cancelled",)], 60)
    ((sentence,),) = house.installation.rows("SELECT error_message FROM jobs")
    assert "removed this picture from ComfyUI's queue" in sentence
    told = house.discord.wait_for_message(house.channel, lambda m: bool(m["mentions"]))
    assert [user["id"] for user in told["mentions"]] == [str(person.id)]
    assert sentence in text_of(told).replace("\\", "")
    house.settle()
    assert len(house.comfyui.posted) == 1
    assert house.comfyui.interrupted == []


def test_a_cached_picture_whose_file_was_deleted_is_made_again(house: House) -> None:
    house.start()
    person = house.discord.person()
    ask_for(person, house.channel, "a fox", seed="5")
    house.discord.wait_for(lambda d: len(results(house, person)) == 1)
    (name,) = house.comfyui.pictures
    house.comfyui.forget_file(name)
    ask_for(person, house.channel, "a fox", seed="5")
    house.discord.wait_for(lambda d: len(results(house, person)) == 2)
    house.settle()
    ids = [prompt_id for prompt_id, _ in house.comfyui.posted]
    assert len(set(ids)) == 3
    rows = house.installation.rows("SELECT comfy_prompt_id FROM jobs ORDER BY rowid")
    assert rows == [(ids[0],), (ids[2],)]
    (again,) = house.comfyui.pictures
    assert again != name
    (attachment,) = results(house, person)[1]["attachments"]
    assert house.discord.attachment_bytes(attachment) == house.comfyui.pictures[again]


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


def test_one_post_that_hangs_holds_up_nobody_elses_result(house: House) -> None:
    elsewhere = house.discord.guild.add_channel("elsewhere")
    bot = house.start(ALLOWED_CHANNEL_IDS=f"{house.channel.id},{elsewhere.id}")
    stuck, near, far = (house.discord.person(name) for name in ("stuck", "near", "far"))
    press_generate(house, near)  # discord.py sends one request alone until it knows the limits
    house.discord.wait_for(lambda d: bool(results(house, near)))
    house.discord.fault("POST", rf"/channels/{house.channel.id}/messages$", "hang")
    press_generate(house, stuck)
    house.discord.wait_for(lambda d: any(call.fault == "hang" for call in d.requests))
    press_generate(house, near)
    ask_for(far, elsewhere, "in another channel")
    house.discord.wait_for_message(elsewhere, lambda m: bool(m["attachments"]))
    # Long before the one that hangs is given up (report.TRY_SECONDS).
    house.discord.wait_for(lambda d: len(results(house, near)) == 2, 10)
    assert results(house, stuck) == []
    bot.kill()
    house.run()
    house.settle()
    assert [len(results(house, person)) for person in (near, stuck)] == [2, 1]
    assert len(house.channel.messages) == 3


def test_a_new_result_comes_before_a_long_backlog(house: House) -> None:
    house.discord.rate_limits = False
    bot = house.start()
    person = house.discord.person()
    press_generate(house, person)
    expect_exactly_one_result(house, person)
    bot.kill()
    columns = [row[1] for row in house.installation.rows("PRAGMA table_info(jobs)")]
    same = ", ".join(name for name in columns if name not in ("id", "delivered_at"))
    house.installation.change(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
        f" INSERT INTO jobs (id, {same}) SELECT printf('%036d', i), {same} FROM jobs, n",
    )
    house.installation.change(
        "UPDATE jobs SET status = 'failed', output_images = NULL, error_message = 'It broke.',"
        " report_tried_at = NULL, discord_message_id = NULL WHERE delivered_at IS NULL",
    )
    bot = house.run()
    newcomer = house.discord.person("new")
    press_generate(house, newcomer)
    house.discord.wait_for(lambda d: bool(results(house, newcomer)))
    left = "SELECT count(*) FROM jobs WHERE delivered_at IS NULL"
    assert house.installation.rows(left)[0][0] > 100
    bot.kill()


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
    (row,) = message["components"]
    (button,) = row["components"]
    assert button["label"] == DELETE
    # As a version of the bot has posted it that knew of no difference.
    row["components"] = [
        {**button, "label": action, "custom_id": button["custom_id"].replace("delete", action)}
        for action in ("again", "edit", "delete")
    ]
    for action in ("again", "edit"):
        refused = person.press(message, action).wait()
        assert refused.texts == ["This button works in a server's channel, not in direct messages."]
    delete(person, message).wait_message(lambda m: m["content"] == "Deleted.")
    assert person.dms == []


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
        component.get("label") == CANCEL
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
    answer = unlucky.press(mine, CANCEL).wait()
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
        refused = stranger.press(running, CANCEL).wait()
        refused.wait_message(lambda m: "Only the person" in m["content"])
        assert "started" in text_of(running)
        who.press(running, CANCEL).wait()
        cancelled = house.discord.wait_for_message(
            house.channel,
            lambda m, own=running["id"]: m["id"] == own and "Cancelled" in m["content"],
        )
        assert text_of(cancelled) == f"Cancelled: the picture for <@{owner.id}>" + (
            "\nslow" if who is owner else ""
        )
        assert (cancelled["components"], cancelled["attachments"]) == ([], [])
        house.comfyui.wait_for(lambda c, n=before: len(c.interrupted) == n + 1)
        house.settle()
    assert results(house, owner) == []
    told = [text_of(m) for m in house.channel.messages if m["mentions"]]
    assert len(told) == 1  # of what the moderator did
    assert "A moderator cancelled this picture." in told[0]
    assert "slow" not in told[0]
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
            person.press(message, CANCEL).wait()

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
    house.discord.fault("PATCH", r"/webhooks/.+/messages/\d+$", 404)  # else the button goes
    message = ask_for(person, house.channel, "quick")
    house.settle()
    answer = person.press(message, CANCEL).wait()
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


def test_a_running_message_that_was_posted_right_before_a_kill_is_taken_up_and_goes(
    house: House,
) -> None:
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
    assert house.channel.messages == [message]
    house.comfyui.release()
    expect_exactly_one_result(house, person)


def test_a_result_is_found_behind_thousands_of_messages(house: House) -> None:
    house.discord.nonce_memory = 0
    house.comfyui.pictures_per_prompt = 12
    house.installation.configure(house.settings)
    bot = house.run(environment={"KILL_AT": "before:Store.delivered"})
    person, others = house.discord.person(), house.discord.person("others")
    # Half of them between its two messages.
    house.discord.after("POST", POST_MESSAGE, lambda: others.say(house.channel, times=2500))
    press_generate(house, person)
    assert bot.wait() == -signal.SIGKILL
    others.say(house.channel, times=2500)
    house.run()
    house.settle()
    shown = [len(m["attachments"]) for m in house.channel.messages if m["attachments"]]
    assert shown == [10, 2]
    assert len(house.channel.messages) == 5002
