"""The owner's alerts between fakes of Discord, ComfyUI and the disk, with a clock of the test's."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bot import alerts
from bot.alerts import AWAY_SECONDS, CHECK_EVERY, DISK_EVERY, QUIET_SECONDS, Alert, Alerts
from comfyui.errors import Rejected
from jobs.hold import Hold
from jobs.run import JobError
from jobs.worker import WorkflowUnusable
from store import LOW_DISK_BYTES, StoreError
from tests.factories import settings

LIMIT = 10.0  # seconds that anything may take which has to come
DISK_FULL = StoreError("the database jobs.db cannot be used: database or disk is full; check")


class FakeLane:
    """The one server."""

    def __init__(self, world: World) -> None:
        self.client = self.feed = world
        self.hold = world.hold


class World:
    """Alerts, with what they check and how they reach the owner."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        threads: ThreadPoolExecutor,
        owner_id: int | None = 7,
    ) -> None:
        self.now = 1000.0
        self.connection = 1
        self.is_there = True  # as a ping finds ComfyUI
        self.pings = 0
        self.away_since: float | None = None
        self.hold = Hold()
        self.free = LOW_DISK_BYTES
        self.disk_looks = 0
        self.texts: list[str] = []
        self.arrives = True
        self.told = asyncio.Event()
        self.alerts = Alerts(
            cast(Any, self),
            settings(alert_user_id=owner_id),
            [cast(Any, FakeLane(self))],
            threads,
        )
        monkeypatch.setattr(alerts, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(shutil, "disk_usage", self.disk_usage)

    async def create_dm(self, user: Any) -> World:
        assert user.id == 7
        return self

    async def send(self, text: str, nonce: int) -> None:
        self.texts.append(text)
        self.told.set()
        if not self.arrives:
            raise OSError("reset")

    def ping(self) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        self.pings += 1
        if self.is_there:
            self.away_since = None
        elif self.away_since is None:
            self.away_since = self.now
        return self.is_there

    def disk_usage(self, folder: Path) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        self.disk_looks += 1
        if self.free < 0:
            raise PermissionError(13, "not for you", "/somewhere")
        return SimpleNamespace(free=self.free)

    async def goes_on(self, seconds: float) -> None:
        """As `watch()` does it, but in no time."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + CHECK_EVERY, end)
            await self.alerts.check()

    async def is_away(self, seconds: float) -> None:
        self.connection, self.is_there = 0, False
        await self.goes_on(seconds)

    async def is_back(self, seconds: float = CHECK_EVERY) -> None:
        self.is_there = True
        await self.goes_on(seconds)
        self.connection = 2

    def hears(self, *errors: Exception) -> list[Alert]:
        for error in errors:
            self.alerts.on_error(error)
        asyncio.run(self.alerts.check())
        return self.alerts_told()

    def alerts_told(self) -> list[Alert]:
        """Those since the last call."""
        told = [Alert(text) for text in self.texts]
        self.texts.clear()
        return told


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with ThreadPoolExecutor(1) as threads:
        yield World(monkeypatch, threads)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), LIMIT))


async def end(task: asyncio.Task[None]) -> None:
    while not task.done():
        # Before Python 3.12 wait_for() swallows it if what it waits for ends just then.
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


# ComfyUI


def test_a_comfyui_that_is_away_for_two_minutes_is_told_once_and_its_return_once(
    world: World,
) -> None:
    async def story() -> None:
        await world.is_away(AWAY_SECONDS)
        assert world.alerts_told() == []
        await world.goes_on(CHECK_EVERY)
        assert world.alerts_told() == [Alert.COMFYUI_AWAY]
        await world.goes_on(5 * QUIET_SECONDS)
        assert world.alerts_told() == []
        await world.is_back()
        assert world.alerts_told() == [Alert.BACK]
        await world.goes_on(2 * QUIET_SECONDS)
        assert world.alerts_told() == []

    run(story)


def test_a_short_absence_is_no_news_and_neither_is_its_end(world: World) -> None:
    async def story() -> None:
        for _ in range(3):
            await world.is_away(AWAY_SECONDS)
            await world.is_back()
        assert world.texts == []

    run(story)


def test_a_feed_that_is_down_is_no_alarm_where_comfyui_answers(world: World) -> None:
    """A proxy without WebSockets, say."""

    async def story() -> None:
        world.connection = 0
        await world.goes_on(2 * QUIET_SECONDS)
        assert world.texts == []
        assert world.pings > 0

    run(story)


def test_comfyui_is_not_asked_while_the_feed_is_connected(world: World) -> None:
    async def story() -> None:
        world.is_there = False
        await world.goes_on(QUIET_SECONDS)
        assert (world.pings, world.texts) == (0, [])

    run(story)


def test_a_second_absence_within_the_hour_is_told_when_the_hour_is_over_if_it_lasts(
    world: World,
) -> None:
    async def story() -> None:
        await world.is_away(AWAY_SECONDS + CHECK_EVERY)
        first = world.now
        await world.is_back()
        assert world.alerts_told() == [Alert.COMFYUI_AWAY, Alert.BACK]
        await world.is_away(QUIET_SECONDS / 2)
        await world.is_back()
        assert world.alerts_told() == []  # not even its end: the owner has not heard of it
        await world.is_away(first + QUIET_SECONDS - world.now - 1)
        assert world.alerts_told() == []
        await world.goes_on(1)
        assert world.alerts_told() == [Alert.COMFYUI_AWAY]
        await world.is_back(1)  # within the hour after the first return
        assert world.alerts_told() == []
        await world.goes_on(CHECK_EVERY)
        assert world.alerts_told() == [Alert.BACK]  # late, but the owner does wait for it

    run(story)


def test_an_absence_that_a_job_found_is_looked_after_though_the_feed_is_connected(
    world: World,
) -> None:
    async def story() -> None:
        world.away_since = world.now
        await world.goes_on(CHECK_EVERY)
        assert (world.pings, world.away_since) == (1, None)

    run(story)


def test_without_an_owner_to_alert_an_absence_is_found_and_nothing_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(world: World) -> None:
        await world.is_away(CHECK_EVERY)
        assert world.away_since == world.now
        await world.goes_on(AWAY_SECONDS)
        world.alerts.on_error(KeyError())
        await world.goes_on(CHECK_EVERY)
        await world.is_back()
        assert world.away_since is None
        assert (world.texts, world.disk_looks) == ([], 0)

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(story(World(monkeypatch, threads, owner_id=None)))


# A server that fails everything


def test_a_hold_of_the_queue_is_told_once_with_the_kind_of_error_and_so_is_its_end(
    world: World,
) -> None:
    async def story() -> None:
        world.hold.since, world.hold.kind = world.now, "AcceleratorError"
        await world.goes_on(2 * QUIET_SECONDS)
        world.hold.since = None
        await world.goes_on(2 * QUIET_SECONDS)
        assert world.texts == [
            Alert.FAILING.value.format(kind="AcceleratorError"),
            Alert.WORKING.value,
        ]

    run(story)


# The disk


def test_a_disk_that_is_nearly_full_is_told_and_again_only_once_it_had_room(world: World) -> None:
    async def story() -> None:
        await world.goes_on(QUIET_SECONDS)
        assert world.texts == []
        world.free = LOW_DISK_BYTES - 1
        await world.goes_on(2 * QUIET_SECONDS)
        assert world.alerts_told() == [Alert.DISK]
        world.free = LOW_DISK_BYTES
        await world.goes_on(DISK_EVERY)
        world.free = 0
        await world.goes_on(DISK_EVERY)
        assert world.alerts_told() == [Alert.DISK]
        assert world.disk_looks < world.now / DISK_EVERY

    run(story)


def test_a_statement_that_found_no_space_is_told_at_once(world: World) -> None:
    assert world.hears(DISK_FULL, DISK_FULL) == [Alert.DISK]
    assert world.hears(DISK_FULL) == []


def test_a_disk_that_cannot_be_looked_at_is_none_that_is_full(world: World) -> None:
    world.free = -1
    assert world.hears() == []


# Errors


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("a prompt"), [Alert.OWN_ERROR]),
        (WorkflowUnusable("It has no node 152."), [Alert.WORKFLOW]),
        (JobError("The image server lost this picture."), []),
        (Rejected("no such model"), []),
        (StoreError("attempt to write a readonly database"), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_of_errors_the_owner_hears_only_what_nobody_else_can_mend(
    world: World, error: Exception, told: list[Alert]
) -> None:
    assert world.hears(error) == told


def test_each_kind_is_told_once_an_hour_and_does_not_silence_another(world: World) -> None:
    assert world.hears(KeyError(), KeyError()) == [Alert.OWN_ERROR]
    world.now += QUIET_SECONDS - 1
    assert world.hears(KeyError(), WorkflowUnusable()) == [Alert.WORKFLOW]
    world.now += 1
    assert world.hears(KeyError(), WorkflowUnusable()) == [Alert.OWN_ERROR]


def test_no_text_holds_what_the_error_says(world: World) -> None:
    token = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789ab"
    world.alerts.on_error(KeyError("a red fox", "/home/owner", token))
    world.alerts.on_error(WorkflowUnusable("/home/owner/base.json is broken"))
    asyncio.run(world.alerts.check())
    assert world.texts == [Alert.OWN_ERROR.value, Alert.WORKFLOW.value]


# Its way


def test_what_cannot_be_sent_now_is_sent_at_the_next_look_and_then_not_again(world: World) -> None:
    async def story() -> None:
        world.arrives = False
        world.alerts.on_error(KeyError())
        await world.goes_on(2 * CHECK_EVERY)
        world.arrives = True
        await world.goes_on(2 * CHECK_EVERY)
        assert world.alerts_told() == [Alert.OWN_ERROR] * 3

    run(story)


def test_an_absence_that_could_not_be_told_before_it_ended_is_not_told_any_more(
    world: World,
) -> None:
    async def story() -> None:
        world.arrives = False
        await world.is_away(AWAY_SECONDS + CHECK_EVERY)
        assert world.alerts_told() == [Alert.COMFYUI_AWAY]
        world.arrives = True
        await world.is_back()
        assert world.alerts_told() == []
        await world.is_away(AWAY_SECONDS + CHECK_EVERY)
        world.arrives = False
        await world.is_back()
        assert world.alerts_told() == [Alert.COMFYUI_AWAY, Alert.BACK]
        world.arrives = True
        await world.is_away(QUIET_SECONDS)  # it is not back, and that it is away is known
        assert world.alerts_told() == []

    run(story)


def test_an_error_in_another_thread_is_told_without_waiting_for_the_next_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "CHECK_EVERY", 10 * LIMIT)

    async def story() -> None:
        watching = asyncio.create_task(world.alerts.watch())
        for error in (KeyError(), WorkflowUnusable()):
            await asyncio.to_thread(world.alerts.on_error, error)
            await world.told.wait()
            world.told.clear()
        await end(watching)
        assert world.alerts_told() == [Alert.OWN_ERROR, Alert.WORKFLOW]

    run(story)
    world.alerts.on_error(DISK_FULL)  # the loop has closed


def test_an_error_from_before_the_first_look_is_told_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "CHECK_EVERY", 10 * LIMIT)

    async def story() -> None:
        world.alerts.on_error(KeyError())
        watching = asyncio.create_task(world.alerts.watch())
        await world.told.wait()
        await end(watching)
        assert world.alerts_told() == [Alert.OWN_ERROR]

    run(story)


def test_it_looks_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "CHECK_EVERY", 0.001)
    monkeypatch.setattr(alerts, "AWAY_SECONDS", 0.0)
    world.connection, world.is_there = 0, False

    async def story() -> None:
        watching = asyncio.create_task(world.alerts.watch())
        await world.told.wait()
        world.told.clear()
        world.now += 1
        world.connection, world.is_there = 1, True
        await world.told.wait()
        await end(watching)
        assert world.alerts_told() == [Alert.COMFYUI_AWAY, Alert.BACK]

    run(story)
