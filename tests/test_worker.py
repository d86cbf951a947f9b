"""The worker without threads, Discord or ComfyUI: a stub client, and one step at a time (M5)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import binder
from comfy_client import (
    HistoryEntry,
    ImageRef,
    NodeFailed,
    OutOfMemory,
    Queue,
    Refused,
    Unreachable,
)
from store import JobParams, JobStatus, Store
from tests.harness.bot import REPOSITORY
from worker import Worker, load_workflow

WORKFLOW = REPOSITORY / "workflows/multisampler/base.json"
PICTURE = ImageRef("ComfyGen_00001_.png")


class StubClient:
    """Answers as told; keeps what it was asked."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[str] = []
        self.known: set[str] = set()
        self.finish: Callable[[str], HistoryEntry | None] = lambda _: HistoryEntry((PICTURE,))
        self.on_submit: Callable[[str], None] = self.known.add
        self.pictures: Iterator[bytes | Exception] = iter(())
        self.looked = 0

    def submit(self, workflow: dict[str, Any], prompt_id: str) -> str:
        self.submitted.append((prompt_id, workflow))
        self.on_submit(prompt_id)
        return prompt_id

    def history(self, prompt_id: str) -> HistoryEntry | None:
        self.looked += 1
        return self.finish(prompt_id) if prompt_id in self.known else None

    def queue(self) -> Queue:
        return Queue(tuple(self.known), ())

    def image(self, ref: ImageRef) -> bytes:
        answer = next(self.pictures, b"picture")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, prompt_id: str) -> None:
        self.cancelled.append(prompt_id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "jobs.db")
    yield store
    store.close()


@pytest.fixture
def client() -> StubClient:
    return StubClient()


@pytest.fixture
def reports() -> list[tuple[str, list[bytes]]]:
    return []


@pytest.fixture
def worker(
    store: Store,
    client: StubClient,
    reports: list[tuple[str, list[bytes]]],
    monkeypatch: pytest.MonkeyPatch,
) -> Worker:
    """A worker whose pauses take no time, and count as the time they would have taken."""
    clock = [0.0]

    def pause(self: Worker, seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(Worker, "_pause", pause)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return Worker(
        store,
        client,  # type: ignore[arg-type]
        lambda: load_workflow(WORKFLOW),
        timeout=60.0,
        started=lambda job_id, progress: None,
        ended=lambda job_id, pictures: reports.append((job_id, pictures)),
    )


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


def test_a_job_runs_from_queued_to_completed_with_its_pictures(
    store: Store, client: StubClient, worker: Worker, reports: list[Any]
) -> None:
    job_id = add(store)
    worker.step(job_id)
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
    worker.step(add(store, seed=12345))
    worker.step(add(store, seed=None))
    seeds = [workflow["239"]["inputs"]["seed"] for _, workflow in client.submitted]
    loaded = binder.load(WORKFLOW)
    assert loaded.ok
    assert seeds == [12345, loaded.workflow["239"]["inputs"]["seed"]]


@pytest.mark.parametrize(
    "error", [NodeFailed("detail"), OutOfMemory("detail"), Refused("detail", "Not this one.")]
)
def test_an_error_of_comfyui_fails_the_job_with_its_public_sentence(
    store: Store, client: StubClient, worker: Worker, reports: list[Any], error: Any
) -> None:
    client.finish = lambda _: HistoryEntry((), error)
    job_id = add(store)
    worker.step(job_id)
    job = store.get(job_id)
    assert job is not None
    assert (job.status, job.error_message) == (JobStatus.FAILED, error.public)
    assert reports == [(job_id, [])]


def test_an_error_of_our_own_fails_the_job_without_its_text(
    store: Store, client: StubClient, worker: Worker
) -> None:
    def broken(_: str) -> None:
        raise KeyError("/home/owner/secret")

    client.on_submit = broken
    job_id = add(store)
    worker.step(job_id)
    job = store.get(job_id)
    assert job is not None
    assert job.status is JobStatus.FAILED
    assert "secret" not in str(job.error_message)
    client.on_submit = client.known.add
    second = add(store)
    worker.step(second)
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [second]


def test_a_bots_token_in_a_servers_words_reaches_nobody(
    store: Store, client: StubClient, worker: Worker
) -> None:
    token = "MTA4SECRETxxxxxxxxxxxxxx.GabcDe.SECRETxxxxxxxxxxxxxxxxxxxxxxx"
    error = NodeFailed("detail", f"The node said {token}打开{token}.")
    client.finish = lambda _: HistoryEntry((), error)
    job_id = add(store)
    worker.step(job_id)
    job = store.get(job_id)
    assert job is not None
    assert job.error_message == "The node said [redacted]打开[redacted]."


def test_success_without_a_picture_is_a_failure(
    store: Store, client: StubClient, worker: Worker
) -> None:
    client.finish = lambda _: HistoryEntry(())
    job_id = add(store)
    worker.step(job_id)
    assert [job.id for job in store.by_status(JobStatus.FAILED)] == [job_id]


def test_a_job_over_its_time_is_stopped_on_the_server_and_fails(
    store: Store, client: StubClient, worker: Worker
) -> None:
    client.finish = lambda _: None
    late, next_one = add(store), add(store)
    worker.step(late)
    assert client.cancelled == [late]
    client.finish = lambda _: HistoryEntry((PICTURE,))
    worker.step(next_one)
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
    worker.step(add(store))
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
    worker.step(job_id)
    assert client.submitted == []
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [job_id]


def test_a_job_that_the_server_does_not_know_after_a_crash_is_submitted(
    store: Store, client: StubClient, worker: Worker
) -> None:
    job_id = add(store)
    store.start(job_id)
    worker.step(job_id)
    assert [prompt_id for prompt_id, _ in client.submitted] == [job_id]


def test_a_submission_whose_answer_is_lost_is_not_repeated(
    store: Store, client: StubClient, worker: Worker
) -> None:
    def answer_lost(prompt_id: str) -> None:
        client.known.add(prompt_id)
        raise Unreachable("reset")

    client.on_submit = answer_lost
    job_id = add(store)
    worker.step(job_id)
    assert len(client.submitted) == 1
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [job_id]


def test_a_server_that_forgets_the_prompt_gets_it_again_at_most_twice(
    store: Store, client: StubClient, worker: Worker
) -> None:
    client.on_submit = lambda _: None  # accepted, and forgotten at once
    job_id = add(store)
    worker.step(job_id)
    assert [prompt_id for prompt_id, _ in client.submitted] == [job_id] * 3
    assert [job.id for job in store.by_status(JobStatus.FAILED)] == [job_id]


def test_an_outage_is_waited_out_with_one_line_and_a_growing_pause(
    store: Store, client: StubClient, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[float] = []

    def away(_: str) -> HistoryEntry | None:
        tries.append(time.monotonic())
        if tries[-1] < 30:
            raise Unreachable("refused")
        return HistoryEntry((PICTURE,))

    client.finish = away
    job_id = add(store)
    worker.step(job_id)
    assert [job.id for job in store.by_status(JobStatus.COMPLETED)] == [job_id]
    assert len(tries) < 15
    assert sum("does not answer" in record.getMessage() for record in caplog.records) == 1


def test_an_outage_longer_than_the_jobs_time_fails_it_with_the_reason(
    store: Store, client: StubClient, worker: Worker
) -> None:
    def away(_: str) -> None:
        raise Unreachable("refused")

    client.on_submit = away
    job_id = add(store)
    worker.step(job_id)
    job = store.get(job_id)
    assert job is not None
    assert job.error_message == Unreachable.public


def test_a_picture_that_breaks_off_is_fetched_again(
    store: Store, client: StubClient, worker: Worker, reports: list[Any]
) -> None:
    client.pictures = iter([Unreachable("broken off"), Unreachable("broken off"), b"whole"])
    job_id = add(store)
    worker.step(job_id)
    assert reports == [(job_id, [b"whole"])]


def test_a_cancelled_job_is_passed_over(store: Store, client: StubClient, worker: Worker) -> None:
    job_id = add(store)
    store.start(job_id)
    store.fail(job_id, "no")
    worker.step(job_id)
    assert client.submitted == []


def test_unfinished_jobs_are_taken_up_in_their_order_the_running_one_first(
    store: Store, client: StubClient
) -> None:
    done = threading.Event()
    order: list[str] = []

    def report(job_id: str, _: list[bytes]) -> None:
        order.append(job_id)
        if len(order) == 4:
            done.set()

    first, running, last = add(store), add(store), add(store)
    store.start(running)
    worker = Worker(
        store,
        client,  # type: ignore[arg-type]
        lambda: load_workflow(WORKFLOW),
        timeout=60.0,
        started=lambda job_id, progress: None,
        ended=report,
    )
    worker.start()
    new = add(store)
    worker.submit(new)
    assert done.wait(20)
    assert order == [running, first, last, new]
    worker.stop()
    assert worker.join(20)


def test_stop_lets_the_current_job_finish_and_leaves_the_others_queued(
    store: Store, client: StubClient, reports: list[Any]
) -> None:
    running, finish = threading.Event(), threading.Event()

    def submit(prompt_id: str) -> None:
        running.set()
        assert finish.wait(20)
        client.known.add(prompt_id)

    client.on_submit = submit
    first, second = add(store), add(store)
    worker = Worker(
        store,
        client,  # type: ignore[arg-type]
        lambda: load_workflow(WORKFLOW),
        timeout=60.0,
        started=lambda job_id, progress: None,
        ended=lambda job_id, pictures: reports.append(job_id),
    )
    worker.start()
    assert running.wait(20)
    worker.stop()
    finish.set()
    assert worker.join(20)
    assert reports == [first]
    assert [job.id for job in store.by_status(JobStatus.QUEUED)] == [second]


def test_abort_leaves_the_current_job_as_it_stands(store: Store, client: StubClient) -> None:
    looked = threading.Event()

    def never(_: str) -> None:
        looked.set()

    client.finish = never
    job_id = add(store)
    worker = Worker(
        store,
        client,  # type: ignore[arg-type]
        lambda: load_workflow(WORKFLOW),
        timeout=600.0,
        started=lambda job_id, progress: None,
        ended=lambda job_id, pictures: None,
    )
    worker.start()
    assert looked.wait(20)
    worker.abort()
    assert worker.join(20)
    assert [job.id for job in store.by_status(JobStatus.RUNNING)] == [job_id]
