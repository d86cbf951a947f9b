"""The database under a running bot: damaged rows, a file that goes away, a lock, a full disk."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store import StoreError
from tests.end_to_end.common import (
    POST_MESSAGE,
    expect_exactly_one_result,
    jobs_of,
    press_generate,
    result_of,
    results,
)
from tests.harness.bot import Bot
from tests.harness.house import House
from tests.harness.labels import AGAIN, CANCEL
from tests.harness.steps import (
    ask_for,
    fill_in,
    generate,
    labels,
    open_form,
    queued,
    text_of,
)
from tests.standins.discord.people import Person, Reply


def filled_form(house: House, person: Person, prompt: str) -> Reply:
    """A form in which only Generate is left to be pressed."""
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt=prompt)
    return form


def told(reply: Reply, sentence: str) -> None:
    """Wait until the person reads this sentence, alone."""
    message = reply.wait_message(lambda m: sentence in m["content"])
    assert message["flags"] & 64


def still_open(form: Reply, prompt: str) -> None:
    """The form has its controls, and what was typed."""
    assert form.message is not None
    assert form.message["components"]
    assert prompt in text_of(form.message)


# Damaged rows


def test_rows_that_cannot_be_read_are_closed_and_the_other_jobs_are_made(house: House) -> None:
    house.discord.rate_limits = False  # these are six messages
    bot = house.start()
    damaged = {
        "pictures": "UPDATE jobs SET output_images = '[\"a.png', delivered_at = NULL",
        "status": "UPDATE jobs SET status = 'done', delivered_at = NULL",
        "times": "UPDATE jobs SET started_at = NULL, completed_at = NULL, delivered_at = NULL",
    }
    person, waiting = house.discord.person(), house.discord.person()
    for prompt in damaged:
        ask_for(person, house.channel, prompt)
    house.settle()
    house.comfyui.hold()
    for prompt in ("in work", "waiting"):
        ask_for(waiting, house.channel, prompt)
    bot.kill()
    house.comfyui.release()
    for prompt, statement in damaged.items():
        house.installation.change(f"{statement} WHERE positive_prompt = ?", prompt)
    bot = house.start()
    house.settle()
    assert len(results(house, waiting)) == 2
    ask_for(person, house.channel, "a new one")
    house.settle()
    assert len(results(house, person)) == len(damaged) + 1
    rows = house.installation.rows("SELECT positive_prompt, id, status FROM jobs")
    for prompt, job_id, status in rows:
        assert status == ("failed" if prompt in damaged else "completed")
        said = [line for line in bot.lines if job_id in line and "cannot be read" in line]
        assert bool(said) == (prompt in damaged)


# A file that goes away


def deleted(database: Path) -> None:
    database.unlink()


def replaced(database: Path) -> None:
    other = database.with_name("backup.db")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO ?", (str(other),))
    other.replace(database)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps an open file in its place")
@pytest.mark.parametrize("lose", [deleted, replaced])
def test_a_lost_database_is_told_at_generate_and_again_and_costs_no_job_that_runs(
    house: House, lose: Callable[[Path], None]
) -> None:
    bot = house.start()
    first, running, late = (house.discord.person() for _ in range(3))
    ask_for(first, house.channel, "before")
    result = result_of(house, first)
    house.settle()
    form = filled_form(house, late, "typed with care")
    house.comfyui.hold()
    ask_for(running, house.channel, "in work")
    house.comfyui.wait_for(lambda c: bool(c.held))
    lose(house.installation.database)
    told(generate(late, form), GONE)
    still_open(form, "typed with care")
    told(late.press(result, AGAIN).wait(), GONE)
    assert "ERROR" in bot.wait_for_line("was deleted or replaced while the bot works on it")
    house.comfyui.release()
    house.discord.wait_for(lambda _: bool(results(house, running)))
    assert bot.stop() == 0
    assert len(house.comfyui.posted) == 2
    # Put right by a restart: what was typed can still be read, and the bot works.
    house.run()
    told(generate(late, form), "no longer has this form")
    assert form.message is not None
    assert "typed with care" in text_of(form.message)
    ask_for(late, house.channel, "typed again")
    assert result_of(house, late)["attachments"]
    house.settle()
    assert jobs_of(house, late) == 1
    assert len(results(house, running)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps an open file in its place")
def test_a_database_that_is_moved_back_works_again_with_the_same_form(house: House) -> None:
    house.start()
    person = house.discord.person()
    form = filled_form(house, person, "typed with care")
    database = house.installation.database
    database.rename(database.with_name("away"))
    told(generate(person, form), GONE)
    database.with_name("away").rename(database)
    queued(person, form)
    expect_exactly_one_result(house, person)


# A lock


class OtherProgram:
    """Another program that keeps the bot from writing to the database."""

    def __init__(self, house: House) -> None:
        self._path = house.installation.database
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(20)
        self._connection: sqlite3.Connection | None = None

    def pauses_at(self, point: str) -> dict[str, str]:
        """The environment of a bot that waits there for `lock_there()`."""
        return {"PAUSE_AT": point, "PAUSE_PORT": str(self._listener.getsockname()[1])}

    def lock(self) -> None:
        """Keep it locked until `unlock()`; any thread."""
        self._connection = sqlite3.connect(
            self._path, timeout=20, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("BEGIN IMMEDIATE")

    def lock_there(self) -> None:
        """Once the bot has come to its point, lock the database and let the bot go on."""
        waiting, _ = self._listener.accept()
        with waiting:
            self.lock()

    def unlock(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def close(self) -> None:
        self.unlock()
        self._listener.close()


@pytest.fixture
def other(house: House) -> Iterator[OtherProgram]:
    with contextlib.closing(OtherProgram(house)) as other:
        yield other


GONE = "The bot's job list is not available. Please tell the bot's owner."
WORKER_WAITS = "waiting for the database: "
REPORT_WAITS = "not reported yet, trying again: "
PROGRESS_WAITS = "its progress was not shown: "


@pytest.mark.parametrize(
    ("method", "noticed"),
    [
        ("start", WORKER_WAITS),
        ("submitted", WORKER_WAITS),
        ("announced", PROGRESS_WAITS),
        ("complete", WORKER_WAITS),
        ("report_tried", REPORT_WAITS),
        ("delivered", REPORT_WAITS),
    ],
)
def test_a_database_locked_on_the_way_of_a_job_costs_time_and_doubles_nothing(
    house: House, other: OtherProgram, method: str, noticed: str
) -> None:
    if method == "announced":
        house.comfyui.hold()  # a quick job has no message
    house.installation.configure({**house.settings, "LOG_LEVEL": "debug"})
    bot = house.run(environment=other.pauses_at(f"before:Store.{method}"))
    person = house.discord.person()
    press_generate(house, person)
    other.lock_there()
    bot.wait_for_line(f"{noticed}the database")
    other.unlock()
    house.comfyui.release()
    expect_exactly_one_result(house, person)
    expect_one_job(house, bot)


def test_a_database_locked_while_the_progress_is_posted_leaves_no_such_message_behind(
    house: House, other: OtherProgram
) -> None:
    house.comfyui.hold()
    bot = house.start(LOG_LEVEL="debug")
    person = house.discord.person()
    house.discord.after("POST", POST_MESSAGE, other.lock)
    press_generate(house, person)
    bot.wait_for_line(f"{PROGRESS_WAITS}the database")
    house.comfyui.release()  # and it is still locked when the job is to be completed
    bot.wait_for_line(f"{WORKER_WAITS}the database")
    other.unlock()
    expect_exactly_one_result(house, person)
    expect_one_job(house, bot)


def expect_one_job(house: House, bot: Bot) -> None:
    """It was made once, and posted once: a report, and what showed its progress."""
    assert len(house.comfyui.posted) == 1
    assert house.installation.rows("SELECT status FROM jobs") == [("completed",)]
    posts = [r for r in house.discord.requests if r.method == "POST"]
    assert sum(bool(re.search(POST_MESSAGE, r.path)) for r in posts) <= 2
    assert bot.process.poll() is None


def test_a_database_locked_at_a_press_is_told_and_the_press_works_later(
    house: House, other: OtherProgram
) -> None:
    house.comfyui.hold()
    house.start()
    person = house.discord.person()
    form = filled_form(house, person, "a fox")
    other.lock()
    told(generate(person, form), StoreError.user_message)
    still_open(form, "a fox")
    other.unlock()
    assert jobs_of(house, person) == 0
    message = queued(person, form)
    house.comfyui.wait_for(lambda c: bool(c.held))
    other.lock()
    told(person.press(message, CANCEL).wait(), StoreError.user_message)
    other.unlock()
    assert house.comfyui.held
    answer = person.press(message, CANCEL).wait()
    answer.wait_message(lambda m: m["content"] == "Cancelled.")
    house.comfyui.wait_for(lambda c: len(c.interrupted) == 1)
    house.settle()
    assert results(house, person) == []
    assert jobs_of(house, person) == 1


# A full disk


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits another")
def test_a_full_disk_is_told_and_what_is_in_work_is_completed_once_there_is_room(
    house: House,
) -> None:
    import resource  # Windows has none

    def room(most: int) -> None:
        limits = (most, resource.RLIM_INFINITY)
        resource.prlimit(bot.process.pid, resource.RLIMIT_FSIZE, limits)

    house.comfyui.hold()
    bot = house.start()
    first, second = house.discord.person(), house.discord.person()
    press_generate(house, first)
    house.comfyui.wait_for(lambda c: bool(c.held))
    form = filled_form(house, second, "a fox")
    room(os.stat(house.installation.database).st_blksize)
    told(generate(second, form), StoreError.user_message)
    house.comfyui.release()
    bot.wait_for_line(f"{WORKER_WAITS}the database")
    assert results(house, first) == []
    room(resource.RLIM_INFINITY)
    expect_exactly_one_result(house, first)
    assert jobs_of(house, second) == 0
    queued(second, form)
    house.settle()
    assert len(results(house, second)) == len(results(house, first)) == 1
