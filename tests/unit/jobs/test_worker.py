"""The worker without threads, Discord or ComfyUI: a stub client, and one step at a time (M5)."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

import binder
from comfyui.errors import (
    NOT_IN_LIST,
    BrokenModel,
    ComfyError,
    Fault,
    Interrupted,
    NodeFailed,
    NoPictures,
    OutOfMemory,
    PictureGone,
    PictureMissing,
    Rejected,
    Removed,
    TimedOut,
    Unreachable,
    UnreadablePrompt,
)
from comfyui.history import HistoryEntry, ImageRef, Queue
from comfyui.object_info import Capabilities
from comfyui.progress import Preview, Progress
from job import Job, JobParams, JobStatus
from jobs.catalog import Catalog, Offer, Workflows
from jobs.failure import UNEXPECTED
from jobs.hold import FAILURES, HOLD_PAUSES, PROBES, Hold
from jobs.pauses import Pauses, Stopped
from jobs.run import LATE_SECONDS, JobError
from jobs.servers import Servers
from jobs.sweeper import Sweeper
from jobs.worker import WorkflowUnusable
from jobs.workers import Workers
from settings import Server
from store import Store, StoreError
from tests.factories import an_offer, settings
from tests.harness.bot import REPOSITORY

WORKFLOW = REPOSITORY / "workflows/multisampler/base.json"
PICTURE = ImageRef("ComfyGen_00001_.png")
OFFERED = an_offer(("b.safetensors",), ("euler",), ("karras",))


class Clock:
    """Goes on only where the worker pauses; what is planned happens as it passes."""

    def __init__(self) -> None:
        self.now = 0.0
        self._steps = 0
        self._plans: list[tuple[float, Callable[[], object]]] = []

    def at(self, moment: float, act: Callable[[], object]) -> None:
        self._plans.append((moment, act))
        self._plans.sort(key=lambda plan: plan[0])

    def go(self, seconds: float) -> None:
        self._steps += 1
        assert self._steps < 20_000, "it waits for ever"
        self.now += max(seconds, 1e-6)  # less than it can tell would be no time at all
        while self._plans and self._plans[0][0] <= self.now:
            self._plans.pop(0)[1]()


class StubClient:
    """Answers as told; keeps what it was asked.

    Prompts in `known` stand in its queue, behind those of others in `ahead`; `past` ones only in
    its history. An older server gives ids of its own: `given`, by those that were asked for.
    """

    server = Server("http://127.0.0.1:8188")

    def __init__(self) -> None:
        self.submitted: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[str] = []
        self.known: set[str] = set()
        self.past: set[str] = set()
        self.ahead: list[str] = []
        self.given: dict[str, str] = {}
        self.is_away = False
        self.away_since: float | None = None
        self.stops_fail = False
        self.ignored = 0  # how many stops the node at work does not heed
        self.finish: Callable[[str], HistoryEntry | None] = lambda _: HistoryEntry((PICTURE,))
        self.on_submit: Callable[[str], None] = self.known.add
        self.pictures: Iterator[bytes | Exception] = iter(())
        self.looked = 0

    def reach(self) -> None:
        if self.is_away:
            if self.away_since is None:
                self.away_since = time.monotonic()
            raise Unreachable("refused")
        self.away_since = None

    def ping(self) -> bool:
        return not self.is_away

    def submit(self, workflow: dict[str, Any], prompt_id: str) -> str:
        self.reach()
        self.submitted.append((prompt_id, copy.deepcopy(workflow)))
        self.on_submit(prompt_id)
        return self.given.get(prompt_id, prompt_id)

    def history(self, prompt_id: str) -> HistoryEntry | None:
        self.reach()
        self.looked += 1
        return self.finish(prompt_id) if prompt_id in self.known | self.past else None

    def queue(self) -> Queue:
        self.reach()
        order = (*self.ahead, *sorted(self.known))
        running = order[:1] if self.ahead else order  # as if the GPU had room for all of ours
        here = {asked: own for asked, own in self.given.items() if own in self.known}
        return Queue(running, order[len(running) :], here)

    def find_ended(self, asked_id: str) -> str | None:
        self.reach()
        own = self.given.get(asked_id)
        return own if own in self.past else None

    def image(self, ref: ImageRef) -> bytes:
        self.reach()
        answer = next(self.pictures, b"picture")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, prompt_id: str) -> None:
        self.reach()
        if self.stops_fail:
            raise Unreachable("reset")
        self.cancelled.append(prompt_id)
        if self.ignored:
            self.ignored -= 1
        else:
            self.known.discard(prompt_id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "jobs.db")
    yield store
    store.close()


@pytest.fixture
def client() -> StubClient:
    return StubClient()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Pauses take no time, and count as the time they would have taken."""
    clock = Clock()
    monkeypatch.setattr(Pauses, "pause", lambda self, seconds: clock.go(seconds))
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


class Feed:
    """The feed's connection; 0 for none."""

    connection = 0


@pytest.fixture
def feed() -> Feed:
    return Feed()


class StubCatalog(Catalog):
    """The shipped workflow, with lists that can be read again as `readable`."""

    def __init__(self, readable: Offer | None = OFFERED) -> None:
        super().__init__(cast(Any, None), Workflows(WORKFLOW))
        self.readable = readable
        self.refreshes = 0
        self.absences: list[float] = []  # when each absence of ComfyUI began that is over

    def try_refresh(self) -> bool:
        self.refreshes += 1
        if self.readable is None:
            return False
        self.offers = {self.default: self.readable}
        return True

    def refresh_if_older(self, moment: float) -> None:
        self.absences.append(moment)


class Reports:
    """What the worker reports."""

    def __init__(self) -> None:
        self.begun: list[Progress] = []  # the progress of each job
        self.ended: list[tuple[str, list[bytes | PictureMissing]]] = []
        self.errors: list[Exception] = []
        self.on_end: Callable[[str], object] = lambda job_id: None
        self.has_error = threading.Event()

    def job_started(self, job_id: str, progress: Progress) -> None:
        self.begun.append(progress)

    def job_ended(self, job_id: str, pictures: Sequence[bytes | PictureMissing] = ()) -> None:
        self.ended.append((job_id, list(pictures)))
        self.on_end(job_id)

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)
        self.has_error.set()


@pytest.fixture
def heard() -> Reports:
    return Reports()


@pytest.fixture
def reports(heard: Reports) -> list[tuple[str, list[bytes | PictureMissing]]]:
    return heard.ended


@pytest.fixture
def begun(heard: Reports) -> list[Progress]:
    return heard.begun


@pytest.fixture
def troubles(heard: Reports) -> list[Exception]:
    return heard.errors


@pytest.fixture
def catalog() -> StubCatalog:
    return StubCatalog()


@pytest.fixture
def absences(catalog: StubCatalog) -> list[float]:
    return catalog.absences


class Worker(Workers):
    """The one worker of the one server, and the queue before it."""

    @property
    def hold(self) -> Hold:
        return self.lanes[0].hold

    @property
    def sweeper(self) -> Sweeper:
        return self.each[0].sweeper

    def run_job(self, job_id: str, accepted: float | None = None) -> None:
        assert not self.each[0].run_job(job_id, accepted)

    def on_event(self, event: str, data: dict[str, Any]) -> None:
        self.each[0].on_event(event, data)

    def on_preview(self, preview: Preview) -> None:
        self.each[0].on_preview(preview)

    def on_reconnect(self, since: float) -> None:
        self.each[0].on_reconnect(since)


def a_worker(
    store: Store,
    client: StubClient,
    heard: Reports,
    feed: Feed | None = None,
    catalog: StubCatalog | None = None,
    **changes: Any,
) -> Worker:
    worker = Worker(
        settings(**{"comfy_timeout": 60.0, "max_waiting": 0, **changes}),
        store,
        Servers([cast(Any, client)]),
        catalog or StubCatalog(),
        heard,
    )
    worker.lanes[0].feed = cast(Any, feed or Feed())
    return worker


@pytest.fixture
def worker(
    store: Store, client: StubClient, heard: Reports, clock: Clock, feed: Feed, catalog: StubCatalog
) -> Worker:
    return a_worker(store, client, heard, feed, catalog)


def add(store: Store, **changes: Any) -> str:
    values: dict[str, Any] = {
        "user_id": "1",
        "guild_id": "2",
        "channel_id": "3",
        "model": "a.safetensors",
        "sampler": "euler",
        "scheduler": "karras",
        "steps": 11,
        "cfg": 4.5,
        "positive_prompt": "a fox",
    }
    return store.insert(JobParams(**{**values, **changes}))


def got(store: Store, job_id: str) -> Job:
    job = store.get(job_id)
    assert job is not None
    return job


def test_a_job_runs_from_queued_to_completed_with_its_pictures(
    store: Store, client: StubClient, worker: Worker, reports: list[Any]
) -> None:
    job_id = add(store)
    worker.run_job(job_id)
    job = store.get(job_id)
    assert job is not None
    assert job.status is JobStatus.COMPLETED
    assert job.output_images == (PICTURE.filename,)
    assert job.comfy_prompt_id == job_id
    assert job.started_at is not None
    assert job.completed_at is not None
    assert job.created_at <= job.started_at <= job.completed_at
    assert reports == [(job_id, [b"picture"])]
    ((prompt_id, workflow),) = client.submitted
    assert prompt_id == job_id
    assert workflow["239"]["inputs"]["steps"] == 11


def test_a_job_has_its_own_seed_and_without_one_keeps_the_files(
    store: Store, client: StubClient, worker: Worker
) -> None:
    worker.run_job(add(store, seed=12345))
    worker.run_job(add(store, seed=None))
    seeds = [workflow["239"]["inputs"]["seed"] for _, workflow in client.submitted]
    loaded = binder.load(WORKFLOW)
    assert loaded.ok
    assert seeds == [12345, loaded.graph["239"]["inputs"]["seed"]]


@pytest.mark.parametrize(
    "error", [NodeFailed("detail"), OutOfMemory("detail"), Rejected("detail", "Not this one.")]
)
def test_an_error_of_comfyui_fails_the_job_with_its_public_sentence(
    store: Store, client: StubClient, worker: Worker, reports: list[Any], error: Any
) -> None:
    client.finish = lambda _: HistoryEntry((), error)
    job_id = add(store)
    worker.run_job(job_id)
    job = store.get(job_id)
    assert job is not None
    assert (job.status, job.error_message) == (JobStatus.FAILED, error.user_message)
    assert reports == [(job_id, [])]


def test_a_value_that_is_not_offered_fails_the_job_after_the_lists_were_read(
    store: Store, client: StubClient, worker: Worker
) -> None:
    def refuse(_: str) -> None:
        fault = Fault("node 152", NOT_IN_LIST, "No", "ckpt_name", "a.safetensors", "152")
        rejected = Rejected("node 152")
        rejected.faults = (fault,)
        raise rejected

    client.on_submit = refuse
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).error_message == (
        "The model `a` is not offered by ComfyUI any more. The list has been refreshed: press Edit."
    )


def test_an_error_of_our_own_fails_the_job_without_its_text(
    store: Store, client: StubClient, worker: Worker
) -> None:
    def broken(_: str) -> None:
        raise KeyError("/home/owner/secret")

    client.on_submit = broken
    job_id = add(store)
    worker.run_job(job_id)
    job = store.get(job_id)
    assert job is not None
    assert job.status is JobStatus.FAILED
    assert "secret" not in str(job.error_message)
    client.on_submit = client.known.add
    second = add(store)
    worker.run_job(second)
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [second]


def test_what_a_job_fails_by_is_told_as_trouble(
    store: Store, client: StubClient, worker: Worker, troubles: list[Exception]
) -> None:
    errors = [KeyError("a bug"), Rejected("no such model")]

    def submit(prompt_id: str) -> None:
        client.known.add(prompt_id)
        if errors:
            raise errors.pop(0)

    client.on_submit = submit
    for _ in range(3):
        worker.run_job(add(store))
    assert [type(error) for error in troubles] == [KeyError, Rejected]
    assert len(store.by_status(JobStatus.COMPLETED)) == 1


def test_a_workflow_that_cannot_be_used_is_told_as_trouble_at_generate_and_in_the_queue(
    store: Store,
    worker: Worker,
    catalog: StubCatalog,
    troubles: list[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = add(store)
    params = store.get(job_id)
    assert params is not None
    monkeypatch.setattr(catalog.workflows, "load", lambda name: binder.validate({}))
    with pytest.raises(WorkflowUnusable):
        worker.accept(params)
    worker.run_job(job_id)
    assert [type(error) for error in troubles] == [WorkflowUnusable] * 2


def test_the_log_says_which_of_several_workflows_cannot_be_used(
    store: Store, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = add(store, workflow="doomed")
    with pytest.raises(WorkflowUnusable):
        worker.accept(got(store, job_id))
    worker.run_job(job_id)
    reason = "the workflow doomed cannot be used: there is no workflow doomed any more"
    assert [record.getMessage() for record in caplog.records].count(reason) == 2


def test_a_database_that_is_waited_for_is_told_as_trouble(
    store: Store, worker: Worker, troubles: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [StoreError("database or disk is full")]
    start = store.start

    def start_later(job_id: str, server: str) -> bool:
        if failures:
            raise failures[0]
        return start(job_id, server)

    monkeypatch.setattr(store, "start", start_later)
    monkeypatch.setattr(Pauses, "pause", lambda self, seconds: failures.clear())
    worker.run_job(add(store))
    assert [str(error) for error in troubles] == ["database or disk is full"]


def test_an_error_that_leaves_a_job_without_its_end_is_told_as_trouble(
    store: Store, client: StubClient
) -> None:
    def broken(job_id: str) -> None:
        raise KeyError("a bug")

    heard = Reports()
    heard.on_end = broken
    worker = a_worker(store, client, heard)
    add(store)
    worker.start()
    assert heard.has_error.wait(20)
    worker.abort()
    worker.finished.result(20)
    assert [type(error) for error in heard.errors] == [KeyError]


@pytest.mark.parametrize("step", ["complete", "fail"])
def test_a_job_whose_last_step_fails_is_ended_all_the_same(
    store: Store, client: StubClient, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def broken(*_: Any, **__: Any) -> bool:
        monkeypatch.undo()
        raise KeyError("a bug")

    if step == "fail":
        client.finish = lambda _: HistoryEntry((), NodeFailed("x"))
    done = threading.Event()
    heard = Reports()
    heard.on_end = lambda _: done.set()
    monkeypatch.setattr(store, step, broken)
    worker = a_worker(store, client, heard)
    job_id = add(store)
    worker.start()
    assert done.wait(20)
    worker.abort()
    worker.finished.result(20)
    assert got(store, job_id).error_message == UNEXPECTED
    assert store.by_status(JobStatus.RUNNING) == []


def test_a_bots_token_in_a_servers_words_reaches_nobody(
    store: Store, client: StubClient, worker: Worker
) -> None:
    token = "MTA4SECRETxxxxxxxxxxxxxx.GabcDe.SECRETxxxxxxxxxxxxxxxxxxxxxxx"
    error = NodeFailed("detail", f"The node said {token}打开{token}.")
    client.finish = lambda _: HistoryEntry((), error)
    job_id = add(store)
    worker.run_job(job_id)
    job = store.get(job_id)
    assert job is not None
    assert job.error_message == "The node said [redacted]打开[redacted]."


def test_success_without_a_picture_is_a_failure(
    store: Store, client: StubClient, worker: Worker
) -> None:
    client.finish = lambda _: HistoryEntry(())
    job_id = add(store)
    worker.run_job(job_id)
    assert [job.id for job in store.by_status(JobStatus.FAILED)] == [job_id]


def test_a_job_over_its_time_is_stopped_on_the_server_and_fails(
    store: Store, client: StubClient, worker: Worker
) -> None:
    client.finish = lambda _: None
    late, next_one = add(store), add(store)
    worker.run_job(late)
    assert worker.sweeper.step() == 1
    assert client.cancelled == [late]
    client.finish = lambda _: HistoryEntry((PICTURE,))
    worker.run_job(next_one)
    assert [job.id for job in store.by_status(JobStatus.FAILED)] == [late]
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [next_one]


def test_the_pause_between_polls_grows_with_the_wait(
    store: Store, client: StubClient, worker: Worker
) -> None:
    waits: list[float] = []

    def after_forty_seconds(_: str) -> HistoryEntry | None:
        waits.append(time.monotonic())
        return HistoryEntry((PICTURE,)) if waits[-1] >= 40 else None

    client.finish = after_forty_seconds
    worker.run_job(add(store))
    pauses = [later - earlier for earlier, later in itertools.pairwise(waits)]
    pauses = [pause for pause in pauses if pause]  # some looks ask twice
    assert min(pauses) == pytest.approx(0.1)
    assert max(pauses) == pytest.approx(2.0, abs=0.1)
    assert waits[-1] <= 40 * 1.06


def test_a_job_submitted_before_a_crash_is_not_submitted_again(
    store: Store, client: StubClient, worker: Worker
) -> None:
    job_id = add(store)
    store.start(job_id)
    client.known.add(job_id)
    worker.run_job(job_id)
    assert client.submitted == []
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [job_id]


def test_a_job_that_the_server_does_not_know_after_a_crash_is_submitted(
    store: Store, client: StubClient, worker: Worker
) -> None:
    job_id = add(store)
    store.start(job_id)
    worker.run_job(job_id)
    assert [prompt_id for prompt_id, _ in client.submitted] == [job_id]


def test_a_submission_whose_answer_is_lost_is_not_repeated(
    store: Store, client: StubClient, worker: Worker
) -> None:
    def answer_lost(prompt_id: str) -> None:
        client.known.add(prompt_id)
        raise Unreachable("reset")

    client.on_submit = answer_lost
    job_id = add(store)
    worker.run_job(job_id)
    assert len(client.submitted) == 1
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [job_id]


def test_a_submission_that_arrives_after_its_answer_was_lost_is_not_repeated(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    def late(prompt_id: str) -> None:
        clock.at(clock.now + LATE_SECONDS / 2, lambda: client.known.add(prompt_id))
        raise Unreachable("reset")

    client.on_submit = late
    job_id = add(store)
    worker.run_job(job_id)
    assert len(client.submitted) == 1
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [job_id]


def test_a_submission_that_never_arrives_is_repeated(
    store: Store, client: StubClient, worker: Worker
) -> None:
    def lost(prompt_id: str) -> None:
        client.on_submit = client.known.add
        raise Unreachable("reset")

    client.on_submit = lost
    job_id = add(store)
    worker.run_job(job_id)
    assert [prompt_id for prompt_id, _ in client.submitted] == [job_id] * 2
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [job_id]


def test_a_server_that_forgets_the_prompt_gets_it_again_at_most_twice(
    store: Store, client: StubClient, worker: Worker
) -> None:
    client.on_submit = lambda _: None  # accepted, and forgotten at once
    job_id = add(store)
    worker.run_job(job_id)
    assert [prompt_id for prompt_id, _ in client.submitted] == [job_id] * 3
    assert [job.id for job in store.by_status(JobStatus.FAILED)] == [job_id]


def test_an_outage_is_waited_out_with_one_line_and_a_growing_pause(
    store: Store,
    client: StubClient,
    worker: Worker,
    caplog: pytest.LogCaptureFixture,
    absences: list[float],
) -> None:
    tries: list[float] = []

    def away(_: str) -> HistoryEntry | None:
        tries.append(time.monotonic())
        if tries[-1] < 30:
            raise Unreachable("refused")
        return HistoryEntry((PICTURE,))

    client.finish = away
    job_id = add(store)
    worker.run_job(job_id)
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [job_id]
    assert len(tries) < 15
    assert sum("does not answer" in record.getMessage() for record in caplog.records) == 1
    assert absences == [tries[0]]  # told once, when it is over


DAY = 24 * 3600
GIVEN_UP = (
    "ComfyUI has not answered for 24 hours, so this picture was given up. Run /gen to ask for it"
    " again."
)


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
@pytest.mark.parametrize(("away", "status"), [(DAY - 60, "completed"), (DAY + 60, "failed")])
def test_a_job_waits_a_day_for_a_comfyui_that_is_away(
    store: Store,
    client: StubClient,
    worker: Worker,
    clock: Clock,
    begun: bool,
    away: float,
    status: str,
) -> None:
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now > 50 else None
    start = 20.0 if begun else 0.0
    clock.at(start, lambda: setattr(client, "is_away", True))
    clock.at(start + away, lambda: setattr(client, "is_away", False))
    clock.go(0)
    job_id = add(store)
    worker.run_job(job_id)
    job = got(store, job_id)
    assert job.status.value == status
    assert job.error_message == (GIVEN_UP if status == "failed" else None)
    assert len(client.submitted) == (0 if status == "failed" and not begun else 1)


def test_each_job_waits_a_day_from_the_later_of_its_own_begin_and_that_of_the_absence(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    early, late = add(store), add(store)
    clock.now = 1000
    client.is_away = True
    with pytest.raises(Unreachable):
        client.queue()
    clock.now = 2000
    worker.run_job(early, accepted=10)
    assert DAY + 1000 <= clock.now < DAY + 1010
    worker.run_job(late, accepted=1500)
    assert DAY + 1500 <= clock.now < DAY + 1510
    assert {got(store, job).error_message for job in (early, late)} == {GIVEN_UP}


def test_of_a_time_in_which_this_machine_slept_no_more_than_one_look_counts(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 8 * 3600 + 10 else None
    clock.at(10, lambda: setattr(clock, "now", 8 * 3600.0))
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.COMPLETED


def test_a_picture_that_breaks_off_is_fetched_again(
    store: Store, client: StubClient, worker: Worker, reports: list[Any]
) -> None:
    client.pictures = iter([Unreachable("broken off"), Unreachable("broken off"), b"whole"])
    job_id = add(store)
    worker.run_job(job_id)
    assert reports == [(job_id, [b"whole"])]


def test_a_cancelled_job_is_passed_over(store: Store, client: StubClient, worker: Worker) -> None:
    job_id = add(store)
    store.start(job_id)
    store.fail(job_id, "no")
    worker.run_job(job_id)
    assert client.submitted == []


def test_unfinished_jobs_are_taken_up_in_their_order_the_running_one_first(
    store: Store, client: StubClient
) -> None:
    done = threading.Event()
    order: list[str] = []

    def report(job_id: str) -> None:
        order.append(job_id)
        if len(order) == 4:
            done.set()

    first, running, last = add(store), add(store), add(store)
    store.start(running)
    heard = Reports()
    heard.on_end = report
    worker = a_worker(store, client, heard)
    worker.start()
    new = worker.accept(params("1")).job_id
    assert done.wait(20)
    assert order == [running, first, last, new]
    worker.stop()
    worker.finished.result(20)


def test_stop_lets_the_current_job_finish_and_leaves_the_others_queued(
    store: Store, client: StubClient, heard: Reports
) -> None:
    running, finish = threading.Event(), threading.Event()

    def submit(prompt_id: str) -> None:
        running.set()
        assert finish.wait(20)
        client.known.add(prompt_id)

    client.on_submit = submit
    first, second = add(store), add(store)
    worker = a_worker(store, client, heard)
    worker.start()
    assert running.wait(20)
    worker.stop()
    finish.set()
    worker.finished.result(20)
    assert heard.ended == [(first, [b"picture"])]
    assert [job.id for job in store.by_status(JobStatus.QUEUED)] == [second]


def test_abort_leaves_the_current_job_as_it_stands(store: Store, client: StubClient) -> None:
    looked = threading.Event()

    def never(_: str) -> None:
        looked.set()

    client.finish = never
    job_id = add(store)
    worker = a_worker(store, client, Reports(), comfy_timeout=600.0)
    worker.start()
    assert looked.wait(20)
    worker.abort()
    worker.finished.result(20)
    assert [job.id for job in store.by_status(JobStatus.RUNNING)] == [job_id]


# What nobody wants any more is stopped


def never(_: str) -> None:
    """A prompt that does not end by itself."""


def lost(_: str) -> None:
    """A submission that does not arrive, or not yet."""
    raise Unreachable("reset")


def sweep_all(sweeper: Sweeper, clock: Clock) -> None:
    """Until nothing is left to be done, as its thread does it."""
    for _ in range(100):
        with contextlib.suppress(ComfyError):
            if sweeper.step() is None:
                return
        clock.go(Sweeper.AGAIN_SECONDS)
    raise AssertionError("the sweeper does not come to an end")


def test_a_cancelled_prompt_is_stopped_by_the_sweeper_and_is_then_let_go(
    store: Store, client: StubClient, worker: Worker, clock: Clock, reports: list[Any]
) -> None:
    client.finish = never
    job_id = add(store)
    clock.at(10, lambda: worker.cancel(job_id))
    worker.run_job(job_id)
    assert client.cancelled == []  # the next job does not wait for it
    assert worker.sweeper._wake.is_set()
    assert worker.sweeper.step() == 1
    assert (client.cancelled, client.known) == ([job_id], set())
    assert reports == []  # the person knows
    assert store.unwanted() == [(job_id, job_id)]
    assert worker.sweeper.step() == 0
    clock.go(Sweeper.AGAIN_SECONDS - 0.1)
    assert worker.sweeper.step() == 0
    assert store.unwanted() == [(job_id, job_id)]
    clock.go(0.1)
    worker.sweeper.step()
    assert store.unwanted() == []
    looks = client.queue
    client.queue = lambda: pytest.fail("ComfyUI is asked for nothing")  # type: ignore[method-assign]
    assert worker.sweeper.step() is None
    client.queue = looks  # type: ignore[method-assign]
    assert client.cancelled == [job_id]


def test_a_job_cancelled_while_its_picture_is_fetched_leaves_nothing_to_be_stopped(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    def cancelled() -> Iterator[bytes | Exception]:
        worker.cancel(job_id)
        yield Unreachable("reset")

    job_id = add(store)
    client.pictures = cancelled()
    client.on_submit = client.past.add  # it has ended at once
    worker.run_job(job_id)
    worker.sweeper.step()
    clock.go(Sweeper.AGAIN_SECONDS)
    worker.sweeper.step()
    assert store.unwanted() == []
    assert client.cancelled == []


@pytest.mark.parametrize("away", [4.5, 60.0, 7 * 24 * 3600.0])
def test_what_is_cancelled_while_comfyui_is_away_is_stopped_when_it_is_back(
    store: Store, client: StubClient, worker: Worker, clock: Clock, away: float
) -> None:
    client.finish = never
    job_id = add(store)

    def go_away_and_cancel() -> None:
        client.is_away = True
        worker.cancel(job_id)

    clock.at(10, go_away_and_cancel)
    worker.run_job(job_id)
    assert clock.now < 12  # it was not waited for
    assert (client.cancelled, client.known) == ([], {job_id})
    for _ in range(3):
        clock.go(away / 3)
        with pytest.raises(Unreachable):
            worker.sweeper.step()
    assert store.unwanted() == [(job_id, job_id)]
    client.is_away = False
    assert worker.sweeper.step() == 1
    assert (client.cancelled, client.known) == ([job_id], set())
    sweep_all(worker.sweeper, clock)
    assert store.unwanted() == []


def test_what_is_given_up_while_comfyui_is_away_is_stopped_when_it_is_back(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    client.finish = never
    job_id = add(store)
    clock.at(5, lambda: setattr(client, "is_away", True))
    worker.run_job(job_id)
    assert got(store, job_id).error_message == GIVEN_UP
    assert (client.cancelled, client.known) == ([], {job_id})
    client.is_away = False
    sweep_all(worker.sweeper, clock)
    assert (client.cancelled, client.known, store.unwanted()) == ([job_id], set(), [])


def test_a_stop_that_fails_is_tried_again_and_the_next_job_does_not_wait_for_it(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    client.finish, client.stops_fail = never, True
    late, next_one = add(store), add(store)
    worker.run_job(late)
    client.finish = lambda _: HistoryEntry((PICTURE,))
    before = clock.now
    worker.run_job(next_one)
    assert got(store, next_one).status is JobStatus.COMPLETED
    assert clock.now - before < 1
    assert client.cancelled == []
    client.stops_fail = False
    assert worker.sweeper.step() == 1
    assert client.cancelled == [late]


def test_a_node_that_ignores_its_interrupt_is_told_again_until_it_heeds(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    client.finish, client.ignored = never, 4
    late, next_one = add(store), add(store)
    clock.at(10, lambda: worker.cancel(late))
    worker.run_job(late)
    client.finish = lambda _: HistoryEntry((PICTURE,))
    worker.run_job(next_one)
    assert got(store, next_one).status is JobStatus.COMPLETED
    client.known.discard(next_one)
    for _ in range(5):
        clock.go(30)
        assert worker.sweeper.step() == 1
    assert client.known == set()
    sweep_all(worker.sweeper, clock)
    assert client.cancelled == [late] * 5
    assert store.unwanted() == []


def test_a_submission_that_arrives_after_the_cancellation_is_stopped(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    client.on_submit = lost
    job_id = add(store)

    def cancel_it(_: str) -> None:
        worker.cancel(job_id)
        raise Unreachable("reset")

    client.on_submit = cancel_it
    worker.run_job(job_id)
    assert client.cancelled == []
    clock.go(Sweeper.AGAIN_SECONDS - 0.1)
    client.known.add(job_id)
    assert worker.sweeper.step() == 1
    assert client.cancelled == [job_id]
    clock.go(0.1)
    worker.sweeper.step()  # it is gone for the first time now, and may come once more
    assert store.unwanted() == [(job_id, job_id)]
    sweep_all(worker.sweeper, clock)
    assert store.unwanted() == []


def test_a_submission_under_way_is_awaited_however_long_it_takes(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    """The sweeper is at work in its own thread when the job is cancelled during its POST."""
    client.finish = never
    job_id = add(store)

    def slow(prompt_id: str) -> None:
        worker.cancel(job_id)
        for _ in range(5):
            worker.sweeper.step()
            clock.go(10)
        client.known.add(prompt_id)

    client.on_submit = slow
    worker.run_job(job_id)
    worker.sweeper.step()
    assert (client.cancelled, client.known) == ([job_id], set())
    sweep_all(worker.sweeper, clock)
    assert store.unwanted() == []


def test_after_a_restart_of_the_bot_what_was_cancelled_before_is_stopped(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    cancelled, failed, wanted, queued = (add(store) for _ in range(4))
    for job_id in (cancelled, failed, wanted):
        store.start(job_id)
        client.known.add(job_id)
    store.cancel(cancelled, JobStatus.RUNNING)
    store.fail(failed, "too late", on_server=True)
    store.cancel(queued, JobStatus.QUEUED)
    client.known.add("of somebody else")
    sweep_all(Sweeper(store, cast(Any, client), ("",), is_only=True), clock)
    assert sorted(client.cancelled) == sorted([cancelled, failed])
    assert client.known == {wanted, "of somebody else"}


def test_a_job_taken_up_and_cancelled_at_once_is_stopped(
    store: Store, client: StubClient, worker: Worker
) -> None:
    client.finish = never
    job_id = add(store)
    store.start(job_id)
    client.known.add(job_id)
    looks = store.get

    def get_and_cancel(id_: str) -> Job | None:
        job = looks(id_)
        store.cancel(job_id, JobStatus.RUNNING)
        return job

    store.get = get_and_cancel  # type: ignore[method-assign]
    worker.run_job(job_id)
    worker.sweeper.step()
    assert (client.submitted, client.cancelled) == ([], [job_id])


def test_what_is_taken_up_and_cannot_be_bound_any_more_is_stopped(
    store: Store, client: StubClient, worker: Worker
) -> None:
    job_id = add(store)
    store.start(job_id)
    client.known.add(job_id)
    vars(worker._catalog.workflows)["load"] = lambda name: binder.Invalid("broken")
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.FAILED
    worker.sweeper.step()
    assert client.cancelled == [job_id]


@pytest.mark.parametrize(
    ("error", "was_queued"),
    [
        (NodeFailed("x"), False),
        (Rejected("x"), False),
        (Rejected("x"), True),
        (KeyError("x"), True),
    ],
    ids=str,
)
def test_what_comfyui_has_ended_or_never_taken_is_not_looked_for(
    store: Store, client: StubClient, worker: Worker, error: Exception, was_queued: bool
) -> None:
    if isinstance(error, Rejected):
        error.was_queued = was_queued

    def refuse(_: str) -> None:
        raise error

    if isinstance(error, NodeFailed):
        client.finish = lambda _: HistoryEntry((), error)
    else:
        client.on_submit = refuse
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.FAILED
    assert store.unwanted() == [(job_id, job_id)] * was_queued


# Older servers: they give ids of their own


def older_server(client: StubClient, *ids: str, lose: bool = False, ended: bool = False) -> None:
    """It gives these ids, one to each submission; the answer may be lost, or the prompt have ended
    by the time somebody asks."""
    left = iter(ids)

    def take(asked_id: str) -> None:
        own = client.given[asked_id] = next(left)
        (client.past if ended else client.known).add(own)
        if lose:
            raise Unreachable("reset")

    client.on_submit = take


@pytest.mark.parametrize("lose", [False, True], ids=["", "the answer is lost"])
@pytest.mark.parametrize("where", ["running", "waiting", "ended"])
def test_a_prompt_under_an_id_of_the_servers_own_is_found_noted_and_not_posted_again(
    store: Store, client: StubClient, worker: Worker, clock: Clock, where: str, lose: bool
) -> None:
    older_server(client, "theirs", lose=lose, ended=where == "ended")
    client.ahead = ["of somebody else"] * (where == "waiting")
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 10 else None
    if where == "ended":
        client.finish = lambda _: HistoryEntry((PICTURE,))
    job_id = add(store)
    noted: list[str | None] = []
    clock.at(5, lambda: noted.append(got(store, job_id).comfy_prompt_id))
    worker.run_job(job_id)
    assert len(client.submitted) == 1
    job = got(store, job_id)
    assert (job.status, job.comfy_prompt_id) == (JobStatus.COMPLETED, "theirs")
    assert noted == ["theirs"] * (where != "ended")


@pytest.mark.parametrize("where", ["running", "ended"])
def test_a_prompt_whose_id_was_never_heard_is_found_after_a_crash_of_the_bot(
    store: Store, client: StubClient, worker: Worker, where: str
) -> None:
    job_id = add(store)
    store.start(job_id)
    client.given[job_id] = "theirs"
    (client.past if where == "ended" else client.known).add("theirs")
    worker.run_job(job_id)
    assert client.submitted == []
    job = got(store, job_id)
    assert (job.status, job.comfy_prompt_id) == (JobStatus.COMPLETED, "theirs")


def test_a_second_submission_whose_answer_is_lost_is_found_by_the_id_in_the_row(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    """The server restarted in between; the bot crashed after that, or not."""
    older_server(client, "first", "second")
    client.finish = lambda id_: HistoryEntry((PICTURE,)) if clock.now >= 30 else None

    def restart() -> None:
        client.known.clear()
        again = client.on_submit

        def take_and_lose(asked_id: str) -> None:
            assert got(store, job_id).prompt_id == asked_id
            again(asked_id)
            raise Unreachable("reset")

        client.on_submit = take_and_lose

    clock.at(10, restart)
    job_id = add(store)
    worker.run_job(job_id)
    assert len(client.submitted) == 2
    assert got(store, job_id).comfy_prompt_id == "second"
    assert got(store, job_id).status is JobStatus.COMPLETED


@pytest.mark.parametrize("lose", [False, True], ids=["", "the answer is lost"])
@pytest.mark.parametrize("moment", ["while it runs", "during the submission"])
def test_a_cancelled_prompt_is_stopped_under_the_servers_own_id(
    store: Store, client: StubClient, worker: Worker, clock: Clock, moment: str, lose: bool
) -> None:
    client.finish = never
    older_server(client, "theirs", lose=lose)
    job_id = add(store)
    take = client.on_submit

    def cancel_and_take(asked_id: str) -> None:
        worker.cancel(job_id)
        take(asked_id)

    if moment == "during the submission":
        client.on_submit = cancel_and_take
    else:
        clock.at(10, lambda: worker.cancel(job_id))
    worker.run_job(job_id)
    worker.sweeper.step()
    assert (client.cancelled, client.known) == (["theirs"], set())


@pytest.mark.parametrize("lose", [False, True], ids=["", "the answer is lost"])
def test_so_is_one_that_was_submitted_again_after_the_server_restarted(
    store: Store, client: StubClient, worker: Worker, clock: Clock, lose: bool
) -> None:
    client.finish = never
    older_server(client, "first", "second")
    job_id = add(store)
    take = client.on_submit

    def cancel_and_take(asked_id: str) -> None:
        if client.submitted[1:]:
            worker.cancel(job_id)
        take(asked_id)
        if client.submitted[1:] and lose:
            raise Unreachable("reset")

    client.on_submit = cancel_and_take
    clock.at(10, client.known.clear)
    worker.run_job(job_id)
    worker.sweeper.step()
    assert (client.cancelled, client.known) == (["second"], set())


# Whatever happens


class Server(StubClient):
    """A ComfyUI in small: each prompt runs for some time, one after the other."""

    def __init__(self, clock: Clock, dice: random.Random, store: Store) -> None:
        super().__init__()
        self.clock, self.dice, self.store = clock, dice, store
        self.is_older = dice.random() < 0.4
        self.on_submit = self.take
        self.finish = lambda _: HistoryEntry((PICTURE,), from_cache=dice.random() < 0.2)

    def take(self, asked_id: str) -> None:
        own = f"own-{len(self.submitted)}" if self.is_older else asked_id
        if self.is_older:
            self.given[asked_id] = own
        fate = self.dice.random()
        if fate < 0.15:
            raise Unreachable("reset before")
        if fate < 0.3:
            self.clock.at(self.clock.now + 4 * self.dice.random(), lambda: self.arrive_late(own))
            raise Unreachable("late")
        self.arrive(own)
        if fate < 0.5:
            raise Unreachable("lost")

    def arrive(self, own: str) -> None:
        self.known.add(own)
        self.clock.at(self.clock.now + self.dice.choice([1, 20, 500]), lambda: self.end(own))

    def arrive_late(self, own: str) -> None:
        if not self.store.by_status(JobStatus.RUNNING):  # else it is lost, and posted once more
            self.arrive(own)

    def end(self, own: str) -> None:
        if own in self.known:
            self.known.discard(own)
            self.past.add(own)

    def history(self, prompt_id: str) -> HistoryEntry | None:
        return super().history(prompt_id) if prompt_id in self.past else self.reach()  # type: ignore[func-returns-value]

    def forget(self) -> None:
        self.known.clear()
        self.past.clear()


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_no_prompt_of_an_ended_job_stays_in_the_queue(
    store: Store, clock: Clock, feed: Feed, heard: Reports, seed: int
) -> None:
    dice = random.Random(seed)
    client = Server(clock, dice, store)
    worker = a_worker(store, client, heard, feed)

    looking = threading.Lock()

    def look_in_the_background() -> None:
        if not looking.locked():
            with looking:
                worker.sweeper._try()

    for _ in range(4):
        job_id = add(store)
        begin = clock.now
        for _ in range(dice.randrange(3)):
            away = begin + dice.choice([0.01, 1, 5, 30]) * dice.random()
            clock.at(away, lambda: setattr(client, "is_away", True))
            if dice.random() < 0.5:
                clock.at(away, client.forget)
            back = away + dice.choice([1, 10, 100])
            clock.at(back, lambda: setattr(client, "is_away", False))
        if dice.random() < 0.6:
            moment = begin + dice.choice([0.01, 2, 60]) * dice.random()
            clock.at(moment, lambda job_id=job_id: worker.cancel(job_id))  # type: ignore[misc]
        for _ in range(dice.randrange(4)):
            clock.at(begin + 60 * dice.random(), look_in_the_background)
        client.ignored = dice.choice([0, 0, 3])
        worker.run_job(job_id)
        assert got(store, job_id).status not in (JobStatus.QUEUED, JobStatus.RUNNING)
    clock.go(0)
    for _ in range(40):
        clock.go(Sweeper.AGAIN_SECONDS)
        client.is_away = False
        client.ignored = 0
        worker.sweeper._try()
        if not store.unwanted():
            break
    assert store.unwanted() == []
    assert client.known == set()


class Script:
    """In place of the sweeper's event: what each wait comes to, and the pauses it was asked for."""

    def __init__(self, sweeper: Sweeper, *outcomes: bool | Callable[[], bool]) -> None:
        self.pauses: list[float | None] = []
        self._sweeper = sweeper
        self._outcomes = list(outcomes)

    def wait(self, pause: float | None) -> bool:
        self.pauses.append(pause)
        if not self._outcomes:
            self._sweeper._is_stopping = True
            return True
        outcome = self._outcomes.pop(0)
        return outcome if isinstance(outcome, bool) else outcome()

    def set(self) -> None: ...

    def clear(self) -> None: ...


def run_loop(sweeper: Sweeper, *outcomes: bool | Callable[[], bool]) -> list[float | None]:
    script = Script(sweeper, *outcomes)
    sweeper._wake = script  # type: ignore[assignment]
    sweeper._loop()
    return script.pauses


def unwanted_one(store: Store, client: StubClient) -> str:
    """A job that was cancelled and still runs in ComfyUI."""
    job_id = add(store)
    store.start(job_id)
    store.cancel(job_id, JobStatus.RUNNING)
    client.known.add(job_id)
    return job_id


def test_the_sweeper_rests_until_there_is_something_to_do(
    store: Store, client: StubClient, worker: Worker
) -> None:
    assert run_loop(worker.sweeper) == [None]
    assert client.cancelled == []


def test_the_sweeper_repeats_a_stop_with_a_growing_pause(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    unwanted_one(store, client)
    client.ignored = 8

    def wait() -> bool:
        clock.go(pauses[-1] or 0.0)
        return False

    script = Script(worker.sweeper, *[wait] * 11)
    pauses = script.pauses
    worker.sweeper._wake = script  # type: ignore[assignment]
    worker.sweeper._loop()
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 5, 5, None]
    assert len(client.cancelled) == 9


def test_a_stop_that_is_not_heeded_is_repeated_in_the_callers_thread_with_pauses(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    """As `--once` ends, which has no thread of the sweeper's own."""

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if not self.is_set():
                clock.go(timeout or 0.0)
            return self.is_set()

    unwanted_one(store, client)
    client.ignored = 1000
    worker.sweeper._wake = Wake()
    worker.sweeper.wake()
    worker.sweeper.finish(10.0)
    assert clock.now == pytest.approx(10)
    assert len(client.cancelled) == 1 + 20


def test_a_comfyui_that_is_back_is_told_at_once_and_one_just_told_is_given_a_moment(
    store: Store, client: StubClient, worker: Worker
) -> None:
    job_id = unwanted_one(store, client)
    client.is_away = True
    script = Script(worker.sweeper)
    woken: list[str] = []
    script.set = lambda: woken.append("woken")  # type: ignore[method-assign]
    worker.sweeper._wake = script  # type: ignore[assignment]

    worker.on_event("status", {})
    assert woken == []  # nothing has failed yet
    worker.sweeper._try()
    worker.on_event("status", {})
    assert woken == ["woken"]

    def come_back() -> bool:
        client.is_away = False
        return True

    client.ignored = 1
    pauses = run_loop(worker.sweeper, False, come_back, True, False)
    # Away; away until woken; told, and woken: a moment later told once more. The end.
    assert pauses == [0.5, 1, 0.5, 0.5, 0.5, 0.5]
    assert client.cancelled == [job_id, job_id]


def test_going_on_until_comfyui_has_none_is_done_with_pauses(
    store: Store, client: StubClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add(store)
    store.start(job_id)
    client.known.add(job_id)
    worker.cancel(job_id)
    client.ignored = 10**6
    pauses: list[float | None] = []

    def pause(seconds: float | None) -> bool:
        pauses.append(seconds)
        client.ignored = 0 if len(pauses) == 3 else client.ignored
        return False

    monkeypatch.setattr(worker.sweeper._wake, "wait", pause)
    worker.sweeper.wake()  # as the worker has done before
    worker.sweeper.finish(1000.0)
    assert pauses == [Sweeper.PAUSES[0]] * 4
    assert not worker.sweeper._wake.is_set()
    assert client.known == set()


def test_an_outage_is_one_line_in_the_log_of_the_sweeper(
    store: Store, client: StubClient, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    unwanted_one(store, client)
    client.is_away = True
    for _ in range(5):
        worker.sweeper._try()
    store.close()
    worker.sweeper._try()
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1


# Fair share


def params(user_id: str) -> JobParams:
    return JobParams(
        user_id=user_id,
        guild_id="2",
        channel_id="3",
        model="a.safetensors",
        sampler="euler",
        scheduler="karras",
        steps=11,
        cfg=4.5,
        positive_prompt="a fox",
    )


def refusal(worker: Worker, user_id: str) -> str:
    with pytest.raises(JobError) as caught:
        worker.accept(params(user_id))
    return caught.value.user_message


def test_a_person_is_told_how_many_wait_and_when_the_next_of_theirs_is_done(
    store: Store, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_settings", settings(max_waiting=2))
    worker.accept(params("2"))
    for _ in range(2):
        worker.accept(params("1"))
    start = "You have 2 pictures waiting, and one person may have 2. Try again"
    end = "when the next of yours is done. Nothing was lost."
    assert refusal(worker, "1") == f"{start} in a minute, {end}"  # nothing to go by yet
    now = [0]
    monkeypatch.setattr("store.unix_ms", lambda: now[0])
    made = add(store, user_id="3")
    store.start(made)
    now[0] = 80_000
    store.complete(made, ["a.png"])
    assert refusal(worker, "1") == f"{start} in about 3 min, {end}"  # behind one of another person
    first = store.by_status(JobStatus.QUEUED)[1]
    store.start(first.id)
    assert refusal(worker, "1") == f"{start} in about 1 min, {end}"  # theirs is being made
    store.fail(first.id, "It failed.")
    worker.accept(params("1"))
    monkeypatch.setattr(worker, "_settings", settings(max_waiting=1))
    assert refusal(worker, "2").startswith("You have 1 picture waiting, and one person may have 1.")


def test_of_two_requests_at_once_one_passes_the_last_place(
    store: Store, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_settings", settings(max_waiting=1))
    count, both = store.waiting, threading.Barrier(2)

    def waiting(user_id: str) -> int:
        waiting = count(user_id)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)  # for the other, if it gets here before this one has its row
        return waiting

    def ask() -> None:
        with contextlib.suppress(JobError):
            worker.accept(params("1"))

    monkeypatch.setattr(store, "waiting", waiting)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.by_status(JobStatus.QUEUED)) == 1


def test_without_a_limit_nobody_is_refused(store: Store, worker: Worker) -> None:
    for _ in range(30):
        worker.accept(params("1"))
    assert store.waiting("1") == 30


# The clock of a job


def test_waiting_behind_the_prompts_of_others_costs_no_time_of_the_job(
    store: Store, client: StubClient, worker: Worker, clock: Clock, begun: list[Progress]
) -> None:
    client.ahead = ["one", "two"]
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 1050 else None
    places: list[int | None] = []

    def note() -> None:
        places.append(begun[0].before)

    clock.at(0.05, note)
    for moment, leave in ((500, 1), (1000, 0)):
        clock.at(moment - 1, note)
        clock.at(moment, lambda leave=leave: client.ahead.__delitem__(slice(leave, None)))  # type: ignore[misc]
        clock.at(moment + 5, note)
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.COMPLETED
    assert places == [None, 2, 1, 1, 0]


def test_the_time_of_a_job_begins_when_it_runs(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    client.ahead = ["one"]
    client.finish = never
    clock.at(1000, client.ahead.clear)
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).error_message == TimedOut.user_message
    assert 1058 <= clock.now <= 1064  # it is asked each 2 s
    worker.sweeper.step()
    assert client.cancelled == [job_id]


def test_the_feed_tells_that_its_time_begins_before_the_queue_does(
    store: Store, client: StubClient, worker: Worker, clock: Clock, begun: list[Progress]
) -> None:
    client.ahead = ["one"]
    client.finish = never
    job_id = add(store)

    def start() -> None:
        worker.on_event("execution_start", {"prompt_id": "of another"})
        assert begun[0].before == 1
        client.ahead.clear()
        worker.on_event("execution_start", {"prompt_id": job_id})
        assert begun[0].before == 0

    clock.at(1000, start)
    worker.run_job(job_id)
    assert 1058 <= clock.now <= 1062


@pytest.mark.parametrize("ahead", [["one"], []], ids=["waits", "runs"])
def test_while_comfyui_is_away_no_time_of_the_job_passes(
    store: Store, client: StubClient, worker: Worker, clock: Clock, ahead: list[str]
) -> None:
    client.ahead = ahead
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 2000 else None
    clock.at(20, lambda: setattr(client, "is_away", True))
    clock.at(1990, lambda: setattr(client, "is_away", False))
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.COMPLETED


def test_a_picture_of_what_is_at_work_reaches_the_progress_of_the_job_it_is_of(
    store: Store, client: StubClient, worker: Worker, clock: Clock, begun: list[Progress]
) -> None:
    client.ahead = ["one"]
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 40 else None
    job_id = add(store)
    nameless = Preview(b"nameless", ".jpg", None)
    seen: list[Preview | None] = []

    def show(*previews: Preview) -> None:
        for preview in previews:
            worker.on_preview(preview)
            seen.append(begun[0].preview)

    clock.at(10, lambda: show(nameless))  # of the prompt that runs before it
    own = Preview(b"its own", ".jpg", job_id)
    other = Preview(b"another's", ".jpg", "of another")
    clock.at(20, client.ahead.clear)
    clock.at(30, lambda: show(own, other, nameless))
    worker.run_job(job_id)
    assert seen == [None, own, own, nameless]
    worker.on_preview(own)  # nothing is at work
    assert begun[0].preview == nameless


def test_progress_tells_that_comfyui_is_away_for_as_long_as_it_is(
    store: Store, client: StubClient, worker: Worker, clock: Clock, begun: list[Progress]
) -> None:
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 40 else None
    seen: list[bool] = []

    def note() -> None:
        seen.append(begun[0].away_since is not None)

    clock.at(9, note)
    clock.at(10, lambda: setattr(client, "is_away", True))
    clock.at(15, note)
    clock.at(20, lambda: setattr(client, "is_away", False))
    clock.at(30, note)
    clock.at(35, lambda: setattr(client, "is_away", True))
    clock.at(45, lambda: setattr(client, "is_away", False))
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.COMPLETED
    # In the end it answered: the pictures are being fetched while this is still shown.
    assert [*seen, begun[0].away_since is not None] == [False, True, False, False]


def test_progress_begins_anew_when_comfyui_has_restarted(
    store: Store, client: StubClient, worker: Worker, clock: Clock, begun: list[Progress]
) -> None:
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 30 else None
    job_id = add(store)
    seen: list[tuple[float, int | None]] = []

    def note(prompt_id: str) -> None:
        seen.append((begun[0].fraction, begun[0].before))
        client.known.add(prompt_id)

    def restart() -> None:
        worker.on_event("progress", {"node": "239", "value": 11, "max": 11, "prompt_id": job_id})
        seen.append((begun[0].fraction, begun[0].before))
        client.known.clear()

    client.on_submit = note
    clock.at(10, restart)
    worker.run_job(job_id)
    first, at_work, again = seen
    assert first == again == (0, None)
    assert at_work[0] > 0
    assert at_work[1] == 0


# Removed in ComfyUI's page, or forgotten by it


def test_what_its_owner_took_out_of_comfyuis_queue_is_cancelled_and_not_submitted_again(
    store: Store,
    client: StubClient,
    worker: Worker,
    clock: Clock,
    feed: Feed,
    reports: list[Any],
) -> None:
    feed.connection = 1
    client.finish = never
    clock.at(20, client.known.clear)
    job_id = add(store)
    worker.run_job(job_id)
    job = got(store, job_id)
    assert (job.status, job.error_message) == (JobStatus.CANCELLED, Removed.user_message)
    assert reports == [(job_id, [])]
    assert len(client.submitted) == 1
    assert clock.now < 25
    assert client.cancelled == []
    assert worker.sweeper._wake.is_set()  # it makes sure, and then the row may be purged
    sweep_all(worker.sweeper, clock)
    assert store.unwanted() == []


def test_so_is_one_that_waited(
    store: Store, client: StubClient, worker: Worker, clock: Clock, feed: Feed
) -> None:
    feed.connection, client.ahead = 1, ["one"]
    client.finish = never
    clock.at(500, client.known.clear)
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).error_message == Removed.user_message
    assert clock.now < 505


def test_a_person_who_cancelled_first_hears_nothing_of_the_owner(
    store: Store,
    client: StubClient,
    worker: Worker,
    clock: Clock,
    feed: Feed,
    reports: list[Any],
) -> None:
    feed.connection = 1
    client.finish = never
    job_id = add(store)
    cancel = store.cancel

    def just_before(*arguments: Any) -> bool:
        cancel(job_id, JobStatus.RUNNING)
        return cancel(*arguments)

    store.cancel = just_before  # type: ignore[method-assign]
    clock.at(20, client.known.clear)
    worker.run_job(job_id)
    assert got(store, job_id).error_message is None
    assert reports == []


@pytest.mark.parametrize(
    ("before", "during", "after"),
    [(1, 0, 2), (1, 2, 2), (1, 0, 0), (0, 0, 0), (0, 1, 1)],
    ids=["back again", "back at once", "not back", "none", "the first"],
)
def test_a_comfyui_that_restarted_gets_the_prompt_again(
    store: Store,
    client: StubClient,
    worker: Worker,
    clock: Clock,
    feed: Feed,
    before: int,
    during: int,
    after: int,
) -> None:
    feed.connection = before
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 50 else None

    def restart() -> None:
        client.known.clear()
        feed.connection = during

    clock.at(20, restart)
    clock.at(30, lambda: setattr(feed, "connection", after))
    job_id = add(store)
    worker.run_job(job_id)
    assert [prompt_id for prompt_id, _ in client.submitted] == [job_id] * 2
    assert got(store, job_id).status is JobStatus.COMPLETED


def test_a_feed_that_notices_a_restart_a_moment_later_is_waited_for(
    store: Store, client: StubClient, worker: Worker, clock: Clock, feed: Feed
) -> None:
    feed.connection = 1
    client.finish = lambda _: HistoryEntry((PICTURE,)) if clock.now >= 50 else None

    def notice_later(_: str) -> None:
        clock.at(clock.now + 0.5, lambda: setattr(feed, "connection", 0))

    job_id = add(store)
    clock.at(3, client.known.clear)  # when it still looks several times a second
    looks = client.queue
    missed: list[float] = []

    def queue() -> Queue:
        answer = looks()
        if clock.now >= 3 and not missed and job_id not in answer:
            missed.append(clock.now)
            notice_later(job_id)
        return answer

    client.queue = queue  # type: ignore[method-assign]
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.COMPLETED
    assert len(client.submitted) == 2


def test_a_prompt_missed_for_a_moment_is_not_taken_for_removed(
    store: Store, client: StubClient, worker: Worker, clock: Clock, feed: Feed
) -> None:
    """Between the end of a prompt and its history it is in neither list."""
    feed.connection = 1
    job_id = add(store)
    client.finish = never

    def write_history() -> None:
        client.past.add(job_id)
        client.finish = lambda _: HistoryEntry((PICTURE,))

    looks = client.queue

    def queue() -> Queue:
        answer = looks()
        if clock.now >= 20 and job_id in answer:
            client.known.clear()
            clock.at(clock.now + 2.5, write_history)  # it is missed at the next look, in 2 s
        return answer

    client.queue = queue  # type: ignore[method-assign]
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.COMPLETED
    assert len(client.submitted) == 1


# A run from ComfyUI's cache whose file is gone

GONE = PictureGone("it is not there any more")
CACHED = HistoryEntry((PICTURE,), from_cache=True)


def prefixes(workflow: dict[str, Any]) -> list[str]:
    inputs = (node["inputs"] for node in workflow.values())
    return [entry["filename_prefix"] for entry in inputs if "filename_prefix" in entry]


def without_prefixes(workflow: dict[str, Any]) -> str:
    for node in (copied := copy.deepcopy(workflow)).values():
        node["inputs"].pop("filename_prefix", None)
    return json.dumps(copied)


def test_a_cached_picture_whose_file_is_gone_is_made_once_more_under_another_name(
    store: Store, client: StubClient, worker: Worker, reports: list[Any]
) -> None:
    client.finish = lambda _: CACHED
    client.pictures = iter([GONE, b"again"])
    job_id = add(store, seed=5)
    noted: list[str | None] = []

    def take(prompt_id: str) -> None:
        noted.append(got(store, job_id).comfy_prompt_id)
        client.known.add(prompt_id)

    client.on_submit = take
    worker.run_job(job_id)
    assert reports == [(job_id, [b"again"])]
    (first, workflow), (second, again) = client.submitted
    assert first == job_id
    assert str(uuid.UUID(second)) == second != first
    assert noted == [None, second]  # before it is posted, so that a restart finds it
    job = got(store, job_id)
    assert (job.status, job.comfy_prompt_id) == (JobStatus.COMPLETED, second)
    assert prefixes(workflow) != prefixes(again)
    assert len(prefixes(again)) == len(prefixes(workflow))
    assert without_prefixes(workflow) == without_prefixes(again)
    assert store.unwanted() == []


@pytest.mark.parametrize(
    ("entry", "gone", "submissions"),
    [(HistoryEntry((PICTURE,)), 1, 1), (CACHED, 2, 2), (HistoryEntry((), from_cache=True), 0, 1)],
    ids=["not from the cache", "gone again", "without any picture"],
)
def test_in_all_other_cases_a_picture_that_is_gone_fails_the_job(
    store: Store,
    client: StubClient,
    worker: Worker,
    reports: list[Any],
    entry: HistoryEntry,
    gone: int,
    submissions: int,
) -> None:
    client.finish = lambda _: entry
    client.pictures = iter([GONE] * gone)
    job_id = add(store)
    worker.run_job(job_id)
    assert len(client.submitted) == submissions
    job = got(store, job_id)
    expected = GONE.user_message if gone else NoPictures.user_message
    assert (job.status, job.error_message) == (JobStatus.FAILED, expected)
    assert reports == [(job_id, [])]


def test_a_crash_before_the_second_submission_goes_on_under_the_new_id(
    store: Store, client: StubClient, worker: Worker, reports: list[Any]
) -> None:
    client.finish = lambda _: CACHED
    client.pictures = iter([GONE, b"again"])
    job_id = add(store)

    def crash(prompt_id: str) -> None:
        if prompt_id != job_id:
            raise Stopped
        client.known.add(prompt_id)

    client.on_submit = crash
    with pytest.raises(Stopped):
        worker.run_job(job_id)
    new_id = got(store, job_id).comfy_prompt_id
    assert new_id not in (None, job_id)
    client.on_submit = client.known.add
    worker.run_job(job_id)
    assert [prompt_id for prompt_id, _ in client.submitted] == [job_id, new_id, new_id]
    assert reports == [(job_id, [b"again"])]


def test_the_second_submission_is_stopped_if_it_is_cancelled(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    job_id = add(store)
    client.finish = lambda id_: CACHED if id_ == job_id else None
    client.pictures = iter([GONE])
    clock.at(10, lambda: worker.cancel(job_id))
    worker.run_job(job_id)
    (_, _), (second, _) = client.submitted
    worker.sweeper.step()
    assert client.cancelled == [second]


def test_the_second_submission_may_wait_behind_others_as_long_as_it_takes(
    store: Store, client: StubClient, worker: Worker, clock: Clock, begun: list[Progress]
) -> None:
    job_id = add(store)
    client.finish = lambda id_: CACHED if id_ == job_id or clock.now >= 1000 else None
    client.pictures = iter([GONE, b"again"])

    def take(prompt_id: str) -> None:
        client.known.add(prompt_id)
        if prompt_id == job_id:
            worker.on_event("execution_start", {"prompt_id": job_id})
        else:
            assert (begun[0].before, begun[0].fraction) == (None, 0)
            client.ahead = ["one"]

    client.on_submit = take
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.COMPLETED
    assert len(client.submitted) == 2


def test_a_second_submission_that_is_lost_is_repeated_and_not_taken_for_removed(
    store: Store, client: StubClient, worker: Worker, feed: Feed
) -> None:
    feed.connection = 1
    client.finish = lambda _: CACHED
    client.pictures = iter([GONE, b"again"])

    def lose_the_second(prompt_id: str) -> None:
        if len(client.submitted) == 2:
            raise Unreachable("reset")
        client.known.add(prompt_id)

    client.on_submit = lose_the_second
    job_id = add(store)
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.COMPLETED
    first, second, third = (prompt_id for prompt_id, _ in client.submitted)
    assert first != second == third


def test_a_job_keeps_to_the_largest_seeds_that_the_nodes_take(
    store: Store, client: StubClient, worker: Worker
) -> None:
    maxima = {("KSampler (Efficient)", "seed"): 999}
    worker._catalog.server = Capabilities(maxima, {}, ())
    worker.run_job(add(store, seed=2**53 + 1))
    ((_, workflow),) = client.submitted
    seeds = [workflow[node]["inputs"]["seed"] for node in ("239", "249", "52", "118")]
    assert seeds[0] == (2**53 + 1) % 1000
    assert max(seeds) <= 999


# A server that fails everything

BROKEN = NodeFailed("CUDA error")
BROKEN.kind = "AcceleratorError"


def burn(store: Store, client: StubClient, worker: Worker, count: int = FAILURES) -> None:
    """So many jobs fail by the server's own fault."""
    client.finish = lambda _: HistoryEntry((), BROKEN)
    for _ in range(count):
        worker.run_job(add(store))
    assert len(store.by_status(JobStatus.FAILED)) == count


def test_from_the_third_failure_in_a_row_the_next_job_waits_and_is_tried_again_thrice(
    store: Store, client: StubClient, worker: Worker, clock: Clock, begun: list[Progress]
) -> None:
    burn(store, client, worker)
    assert clock.now < 10
    assert (worker.hold.since is None, worker.hold.kind) == (False, "AcceleratorError")
    tries: list[float] = []

    def note(prompt_id: str) -> None:
        assert begun[-1].held_until is None
        tries.append(clock.now)
        client.known.add(prompt_id)

    client.on_submit = note
    before = clock.now
    clock.at(before + 30, lambda: tries.append(begun[-1].held_until or 0.0))
    clock.go(0)
    job_id, next_id = add(store), add(store)
    worker.run_job(job_id)
    shown, *tries = tries
    assert shown == tries[0]
    pauses = [b - a for a, b in itertools.pairwise([before, *tries])]
    assert pauses == pytest.approx(HOLD_PAUSES[:PROBES], abs=1)
    assert got(store, job_id).status is JobStatus.FAILED
    ids = [prompt_id for prompt_id, _ in client.submitted[FAILURES:]]
    assert ids[0] == job_id
    assert len(set(ids)) == PROBES  # ComfyUI would not run one id twice
    assert ids[-1] == got(store, job_id).comfy_prompt_id
    client.finish = lambda _: HistoryEntry((PICTURE,))
    before = clock.now
    worker.run_job(next_id)  # still with the pause
    assert clock.now - before == pytest.approx(HOLD_PAUSES[PROBES], abs=1)
    assert got(store, next_id).status is JobStatus.COMPLETED
    assert worker.hold.since is None
    before = clock.now
    burn_id = add(store)
    worker.run_job(burn_id)
    assert clock.now - before < 1


def test_the_last_pause_of_a_hold_repeats_and_a_new_hold_begins_with_the_first(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    burn(store, client, worker)
    for _ in range(2):
        worker.run_job(add(store))
    before = clock.now
    worker.run_job(add(store))
    assert clock.now - before == pytest.approx(PROBES * HOLD_PAUSES[-1], abs=2)
    client.finish = lambda _: HistoryEntry((PICTURE,))
    worker.run_job(add(store))
    client.finish = lambda _: HistoryEntry((), BROKEN)
    for _ in range(FAILURES):
        worker.run_job(add(store))
    assert worker.hold.left == pytest.approx(HOLD_PAUSES[0], abs=1)


@pytest.mark.parametrize(
    "error",
    [OutOfMemory("x"), BrokenModel("x"), UnreadablePrompt("x"), Interrupted("x"), Rejected("x")],
    ids=lambda error: type(error).__name__,
)
def test_failures_of_the_jobs_own_hold_nothing(
    store: Store, client: StubClient, worker: Worker, error: ComfyError
) -> None:
    client.finish = lambda _: HistoryEntry((), error)
    for _ in range(2 * FAILURES):
        worker.run_job(add(store))
    assert worker.hold.since is None
    assert len(client.submitted) == 2 * FAILURES


def test_a_picture_in_between_begins_the_count_anew(
    store: Store, client: StubClient, worker: Worker
) -> None:
    for _ in range(3):
        client.finish = lambda _: HistoryEntry((), BROKEN)
        for _ in range(FAILURES - 1):
            worker.run_job(add(store))
        client.finish = lambda _: HistoryEntry((PICTURE,))
        worker.run_job(add(store))
    assert worker.hold.since is None


def test_a_restart_of_comfyui_ends_the_pause_of_a_hold(
    store: Store, client: StubClient, worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    burn(store, client, worker)
    client.finish = lambda _: HistoryEntry((PICTURE,))

    def pause(self: Pauses, seconds: float) -> None:
        worker.on_reconnect(clock.now)
        assert self._wake.is_set()
        clock.go(1.0)

    monkeypatch.setattr(Pauses, "pause", pause)
    before = clock.now
    worker.run_job(add(store))
    assert clock.now - before < 3
    assert worker.hold.since is None


def test_a_job_that_is_held_is_cancelled_without_being_submitted(
    store: Store, client: StubClient, worker: Worker, clock: Clock
) -> None:
    burn(store, client, worker)
    job_id = add(store)
    clock.at(clock.now + 10, lambda: worker.cancel(job_id))
    worker.run_job(job_id)
    assert got(store, job_id).status is JobStatus.CANCELLED
    assert len(client.submitted) == FAILURES


# A stop


@pytest.mark.parametrize("why", ["away", "held"])
def test_a_stop_leaves_a_job_that_only_waits_for_comfyui(
    store: Store, client: StubClient, heard: Reports, why: str
) -> None:
    worker = a_worker(store, client, heard)
    if why == "away":
        client.is_away = True
    else:
        worker.hold.since, worker.hold.until = 0.0, time.monotonic() + 600
    job_id = add(store)
    worker.start()
    until(lambda: bool(heard.begun) and (heard.begun[0].away_since or heard.begun[0].held_until))
    began = time.monotonic()
    worker.stop()
    worker.finished.result(20)
    assert time.monotonic() - began < 2
    assert [job.id for job in store.by_status(JobStatus.RUNNING)] == [job_id]
    assert heard.ended == []


def until(is_so: Callable[[], object]) -> None:
    """Ask again and again, until it is so."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


# Pictures that cannot be had


def test_of_several_pictures_those_that_can_be_had_are_reported_with_what_is_missing(
    store: Store, client: StubClient, worker: Worker, reports: list[Any]
) -> None:
    client.finish = lambda _: HistoryEntry((PICTURE, ImageRef("b.png"), ImageRef("c.png")))
    client.pictures = iter([GONE, b"two", Unreachable("reset"), b"three"])
    job_id = add(store)
    worker.run_job(job_id)
    assert reports == [(job_id, [GONE, b"two", b"three"])]
    job = got(store, job_id)
    assert job.status is JobStatus.COMPLETED
    assert len(job.output_images) == 3  # in their order, to be looked up later
    assert len(client.submitted) == 1


def test_where_none_can_be_had_the_job_fails_with_the_first_reason(
    store: Store, client: StubClient, worker: Worker, reports: list[Any]
) -> None:
    client.finish = lambda _: HistoryEntry((PICTURE, ImageRef("b.png")))
    client.pictures = iter([PictureMissing("403"), GONE])
    job_id = add(store)
    worker.run_job(job_id)
    job = got(store, job_id)
    assert (job.status, job.error_message) == (
        JobStatus.FAILED,
        PictureMissing("").user_message,
    )
    assert reports == [(job_id, [])]


def test_a_picture_that_fails_for_the_whole_time_while_comfyui_answers_is_given_up(
    store: Store, client: StubClient, worker: Worker, clock: Clock, reports: list[Any]
) -> None:
    client.finish = lambda _: HistoryEntry((PICTURE, ImageRef("b.png")))

    def image(ref: ImageRef) -> bytes:
        if ref is PICTURE:
            raise Unreachable("status 502")
        return b"other"

    client.image = image  # type: ignore[method-assign]
    worker.run_job(add(store))
    ((_, (missing, other)),) = reports
    assert isinstance(missing, PictureMissing)
    assert other == b"other"
    assert 60 <= clock.now <= 70


def test_for_pictures_a_comfyui_that_is_away_is_waited_for(
    store: Store, client: StubClient, worker: Worker, clock: Clock, reports: list[Any]
) -> None:
    job_id = add(store)
    client.finish = lambda _: setattr(client, "is_away", True) or HistoryEntry((PICTURE,))  # type: ignore[func-returns-value]
    clock.at(10 * 3600, lambda: setattr(client, "is_away", False))
    worker.run_job(job_id)
    assert reports == [(job_id, [b"picture"])]


# A history that was cleared

EXECUTED = {"node": "9", "output": {"images": [{"filename": "z.png", "type": "output"}]}}


@pytest.mark.parametrize("after", [1, 2], ids=["", "and ComfyUI restarts"])
def test_after_its_good_end_a_prompt_without_history_has_the_files_that_the_feed_told(
    store: Store, client: StubClient, worker: Worker, clock: Clock, feed: Feed, after: int
) -> None:
    feed.connection = 1
    client.finish = never
    job_id = add(store)

    def end_and_clear() -> None:
        worker.on_event("executed", {**EXECUTED, "prompt_id": job_id})
        worker.on_event("execution_success", {"prompt_id": job_id})
        client.known.clear()
        feed.connection = after

    clock.at(20, end_and_clear)
    worker.run_job(job_id)
    job = got(store, job_id)
    assert (job.status, job.output_images) == (JobStatus.COMPLETED, ("z.png",))
    assert len(client.submitted) == 1
    assert clock.now < 25


def test_without_known_files_it_is_submitted_again_and_that_counts(
    store: Store, client: StubClient, worker: Worker, clock: Clock, feed: Feed
) -> None:
    feed.connection = 1
    client.finish = never
    job_id = add(store)

    def end_and_clear() -> None:
        worker.on_event("execution_success", {"prompt_id": job_id})
        client.known.clear()

    def accept(prompt_id: str) -> None:
        client.known.add(prompt_id)
        clock.at(clock.now + 5, end_and_clear)

    client.on_submit = accept
    worker.run_job(job_id)
    assert [prompt_id for prompt_id, _ in client.submitted] == [job_id] * 3
    assert got(store, job_id).status is JobStatus.FAILED


def test_a_prompt_of_an_earlier_run_that_is_gone_is_submitted_again(
    store: Store, client: StubClient, worker: Worker, feed: Feed
) -> None:
    feed.connection = 1  # all the while, and it tells the earlier client of the end
    looks = iter(range(100))

    def vanish(prompt_id: str) -> HistoryEntry | None:
        if client.submitted:
            return HistoryEntry((PICTURE,))
        if next(looks) > 5:
            client.known.discard(prompt_id)
        return None

    client.finish = vanish
    job_id = add(store)
    store.start(job_id)
    client.known.add(job_id)
    worker.run_job(job_id)
    assert len(client.submitted) == 1
    assert got(store, job_id).status is JobStatus.COMPLETED


def test_a_job_is_cancelled_though_it_goes_to_another_server_at_that_moment(
    store: Store, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add(store)
    store.start(job_id)
    cancel = store.cancel

    def then_it_moves(job_id: str, leaving: JobStatus, message: str | None = None) -> bool:
        is_cancelled = cancel(job_id, leaving, message)
        store.put_back(job_id)
        return is_cancelled

    monkeypatch.setattr(store, "cancel", then_it_moves)
    assert worker.cancel(job_id)
    assert got(store, job_id).status is JobStatus.CANCELLED


def test_a_job_leaves_a_server_that_fails_everything_as_soon_as_another_does_not(
    store: Store, client: StubClient, heard: Reports, clock: Clock
) -> None:
    other = StubClient()
    other.server = dataclasses.replace(client.server, base_url="http://127.0.0.1:8189")
    servers = Servers([cast(Any, client), cast(Any, other)])
    workers = Workers(settings(comfy_timeout=60.0), store, servers, StubCatalog(), heard)
    first, second = workers.lanes
    for lane in (first, second):
        for _ in range(FAILURES):
            lane.hold.failed(NodeFailed("it failed"))
    clock.at(10.0, second.hold.succeeded)
    assert workers.each[0].run_job(add(store))
    assert clock.now < 20.0
    assert client.submitted == []
