"""People's pictures in the store: kept by their hash, and for how long."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import store
from job import JobStatus
from settings import DAY_MS
from store import Store
from tests.factories import params

NOON = 1_767_268_800_000  # in Unix milliseconds


class Clock:
    ms = NOON

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(store, "unix_ms", clock)
    return clock


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with closing(Store(tmp_path / "jobs.db")) as opened:
        yield opened


def an_ended_job(jobs: Store, image: str) -> str:
    job_id = jobs.insert(params(image=image))
    assert jobs.start(job_id)
    assert jobs.complete(job_id, ["a.png"])
    return job_id


def test_a_picture_is_kept_once_under_its_hash(jobs: Store, tmp_path: Path) -> None:
    data = b"\x00a picture\xff"
    assert jobs.picture(hashlib.sha256(data).hexdigest()) is None
    name = jobs.keep_picture(data)
    assert name == hashlib.sha256(data).hexdigest() == jobs.keep_picture(data)
    assert jobs.picture(name) == data
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        assert connection.execute("SELECT count(*) FROM pictures").fetchone() == (1,)


def test_a_job_names_its_picture_and_its_strength(jobs: Store) -> None:
    asked = params(image=jobs.keep_picture(b"a"), strength=0.3)
    job = jobs.get(jobs.insert(asked))
    assert job is not None
    assert (job.image, job.strength) == (asked.image, 0.3)
    assert replace(params(), image="", strength=0.0) == params()


def test_a_picture_of_no_job_is_removed_after_a_day(jobs: Store, clock: Clock) -> None:
    name = jobs.keep_picture(b"a")
    clock.ms += DAY_MS
    assert jobs.purge_pictures(0) == 0
    clock.ms += 1
    assert jobs.purge_pictures(0) == 1
    assert jobs.picture(name) is None


def test_a_picture_of_an_ended_job_is_removed_when_it_is_old(jobs: Store, clock: Clock) -> None:
    name = jobs.keep_picture(b"a")
    an_ended_job(jobs, name)
    clock.ms += 10 * DAY_MS
    assert jobs.purge_pictures(NOON) == 0
    assert jobs.purge_pictures(NOON + 1) == 1
    assert jobs.picture(name) is None


def test_a_picture_that_is_given_again_is_new(jobs: Store, clock: Clock) -> None:
    an_ended_job(jobs, jobs.keep_picture(b"a"))
    clock.ms += 10 * DAY_MS
    jobs.keep_picture(b"a")
    assert jobs.purge_pictures(NOON + DAY_MS) == 0


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_a_picture_that_a_waiting_job_needs_is_never_removed(
    jobs: Store, clock: Clock, status: JobStatus
) -> None:
    name = jobs.keep_picture(b"a")
    job_id = jobs.insert(params(image=name))
    if status is JobStatus.RUNNING:
        jobs.start(job_id)
    clock.ms += 100 * DAY_MS
    assert jobs.purge_pictures(clock.ms) == 0
    assert jobs.picture(name) == b"a"
