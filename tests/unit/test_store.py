"""The store: its schema, the guarded transitions of a job, and what a damaged file does."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import pytest

import store
from job import Job, JobParams, JobStatus
from store import BlockedTerm, Store, StoreError

# The schema of the first version.
DOCUMENT = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    discord_user_id TEXT NOT NULL, discord_guild_id TEXT NOT NULL,
    discord_channel_id TEXT NOT NULL, discord_message_id TEXT,
    status TEXT NOT NULL DEFAULT 'queued',
    model TEXT NOT NULL, sampler TEXT NOT NULL, scheduler TEXT NOT NULL,
    steps INTEGER NOT NULL, cfg REAL NOT NULL,
    positive_prompt TEXT NOT NULL, negative_prompt TEXT NOT NULL DEFAULT '',
    comfy_prompt_id TEXT, output_images TEXT, error_message TEXT,
    created_at INTEGER NOT NULL, started_at INTEGER, completed_at INTEGER
);
CREATE INDEX IF NOT EXISTS idx_jobs_status ON jobs(status);
CREATE INDEX IF NOT EXISTS idx_jobs_user   ON jobs(discord_user_id);
"""
NOON = 1_767_268_800_000  # in Unix milliseconds
PARAMS = JobParams(
    user_id="80351110224678912",
    guild_id="197038439483310086",
    channel_id="41771983423143937",
    model="SDXL/a folder/one.safetensors",
    sampler="dpmpp_2m",
    scheduler="karras",
    steps=20,
    cfg=7.5,
    positive_prompt="a fox",
)
QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED = JobStatus
FINAL = {COMPLETED, FAILED, CANCELLED}


class Clock:
    ms = NOON

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(store, "unix_ms", clock)
    return clock


@pytest.fixture
def jobs(path: Path, clock: Clock) -> Iterator[Store]:
    with closing(Store(path)) as opened:
        yield opened


def sql(path: Path, statement: str, *values: object) -> list[Any]:
    """What another program sees, or does, through a connection of its own."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def got(jobs: Store, job_id: str) -> Job:
    job = jobs.get(job_id)
    assert job is not None
    return job


def beside(path: Path) -> list[Path]:
    """What of SQLite's own files is left beside a database."""
    return [p for p in path.parent.iterdir() if re.fullmatch(r".*-(wal|shm|journal)", p.name)]


def schema(path: Path) -> Any:
    """Columns with type, NOT NULL, default and key, and the indexes with their columns."""
    indexes = sql(path, "SELECT name FROM pragma_index_list('jobs')")
    return sql(path, "PRAGMA table_info(jobs)"), {
        name: sql(path, "SELECT name FROM pragma_index_info(?)", name) for (name,) in indexes
    }


def create(path: Path, script: str, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{script}; PRAGMA user_version = {version};")


def create_with_rows(path: Path, version: int) -> None:
    create(path, DOCUMENT, version)
    insert = (
        "INSERT INTO jobs (id, status, output_images, created_at, started_at, completed_at, cfg,"
        " discord_user_id, discord_guild_id, discord_channel_id, model, sampler, scheduler, steps,"
        " positive_prompt) VALUES (?, ?, ?, ?, ?, ?, 7, '1', '2', '3', 'm', 's', 'c', 20, 'a fox')"
    )
    sql(path, insert, "first", "completed", '["a.png", "b/é.png"]', NOON, NOON, NOON + 2)
    sql(path, insert, "second", "queued", None, NOON + 1, None, None)
    sql(path, insert, "third", "running", None, NOON + 2, NOON + 3, None)


def put_into(path: Path, status: JobStatus, *job_ids: str) -> None:
    """Make these jobs stand there, with the times that belong to it; without ids, all."""
    times = {QUEUED: (None, None), RUNNING: (NOON, None)}.get(status, (NOON, NOON))
    change = "UPDATE jobs SET status = ?, started_at = ?, completed_at = ?"
    for job_id in job_ids or (None,):
        where = " WHERE id = ?" if job_id else ""
        sql(path, change + where, status.value, *times, *filter(None, [job_id]))


def race(count: int, act: Callable[[int], object]) -> list[Any]:
    """What each of the threads got, or the exception it ended with; all start together."""
    barrier, results = threading.Barrier(count), list[Any]()

    def run(number: int) -> None:
        barrier.wait(10)
        try:
            results.append(act(number))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == count
    return results


# Schema and migrations


def test_the_first_migration_is_the_schema_of_the_document(tmp_path: Path) -> None:
    create(tmp_path / "document.db", DOCUMENT, 0)
    create(tmp_path / "ours.db", ";".join(store.MIGRATIONS[0]), 0)
    assert schema(tmp_path / "ours.db") == schema(tmp_path / "document.db")


def test_later_migrations_only_add_to_it(path: Path, tmp_path: Path, jobs: Store) -> None:
    create(tmp_path / "document.db", DOCUMENT, 0)
    old_columns, old_indexes = schema(tmp_path / "document.db")
    columns, indexes = schema(path)
    assert columns[:19] == old_columns
    added = [column[1:] for column in columns[19:]]
    assert added == [
        ("seed", "TEXT", 0, None, 0),
        ("delivered_at", "INTEGER", 0, None, 0),
        ("on_server", "INTEGER", 1, "0", 0),
        ("report_tried_at", "INTEGER", 0, None, 0),
        ("report_message_ids", "TEXT", 0, None, 0),
        ("workflow", "TEXT", 1, "''", 0),
        ("shape", "TEXT", 1, "''", 0),
        ("report_channel_id", "TEXT", 0, None, 0),
        ("interaction_id", "TEXT", 0, None, 0),
        ("size", "TEXT", 0, None, 0),
        ("count", "INTEGER", 1, "0", 0),
        ("length", "INTEGER", 1, "0", 0),
        ("image", "TEXT", 1, "''", 0),
        ("strength", "REAL", 1, "0", 0),
        ("server", "TEXT", 1, "''", 0),
    ]
    assert len(store.MIGRATIONS) == 10
    assert old_indexes.items() <= indexes.items()


def test_opening_a_file_again_changes_nothing(path: Path) -> None:
    with closing(Store(path)) as jobs:
        job = got(jobs, jobs.insert(PARAMS))
    before = path.read_bytes()
    for _ in range(2):
        with closing(Store(path)) as jobs:
            assert jobs.by_status(QUEUED) == [job]
    assert path.read_bytes() == before
    assert sql(path, "PRAGMA user_version") == [(len(store.MIGRATIONS),)]


@pytest.mark.parametrize("version", [0, 1])
def test_a_file_of_the_first_version_keeps_its_rows(path: Path, version: int) -> None:
    create_with_rows(path, version)
    with closing(Store(path)) as jobs:
        first, second = got(jobs, "first"), got(jobs, "second")
        assert (first.status, first.output_images) == (COMPLETED, ("a.png", "b/é.png"))
        assert (second.status, second.created_at, second.cfg) == (QUEUED, NOON + 1, 7.0)
        assert (second.seed, second.delivered_at, second.negative_prompt) == (None, None, "")
        # What may have been posted, and reported, by then is known from now on.
        third = got(jobs, "third")
        assert [job.on_server for job in (first, second, third)] == [False, False, True]
        assert [job.report_tried_at for job in (first, second, third)] == [NOON + 2, None, None]
        assert [jobs.position(job_id) for job_id in ("second", jobs.insert(PARAMS))] == [1, 2]


def test_a_migration_that_fails_leaves_the_version_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_with_rows(path, 1)
    broken = ("ALTER TABLE jobs ADD COLUMN half TEXT", "CREATE NONSENSE")
    with monkeypatch.context() as patch:
        patch.setattr(store, "MIGRATIONS", (*store.MIGRATIONS, broken))
        with pytest.raises(StoreError):
            Store(path)
    assert sql(path, "PRAGMA user_version") == [(len(store.MIGRATIONS),)]
    assert "half" not in {column[1] for column in schema(path)[0]}
    with closing(Store(path)) as jobs:
        assert len(jobs.by_status(QUEUED)) == 1


def test_of_several_copies_of_the_bot_one_gets_the_database(path: Path) -> None:
    """Whoever comes first: it is created once, and the others are told what to do."""
    results = race(8, lambda _: Store(path))
    (jobs,) = (result for result in results if isinstance(result, Store))
    refused = [result for result in results if result is not jobs]
    assert all(isinstance(error, StoreError) and "stop" in str(error) for error in refused)
    with closing(jobs):
        job_id = jobs.insert(PARAMS)
    with closing(Store(path)) as jobs:
        assert [job.id for job in jobs.by_status(QUEUED)] == [job_id]


def test_the_folder_is_created_and_rows_are_safe_against_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "a/b/jobs.db"
    with closing(Store(path)) as jobs:
        assert sql(path, "PRAGMA journal_mode") == [("wal",)]
        assert jobs._connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


# Files that are refused


def make_newer(path: Path) -> None:
    create_with_rows(path, len(store.MIGRATIONS) + 1)


def make_garbage(path: Path) -> None:
    path.write_bytes(b"These are not the rows you are looking for. " * 200)


def make_short(path: Path) -> None:
    create_with_rows(path, 1)
    path.write_bytes(path.read_bytes()[:-4096])


def make_scratched(path: Path) -> None:
    """The second page is overwritten; the schema, on the first, can still be read."""
    create_with_rows(path, 1)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * 4096 + data[8192:])


def make_foreign(path: Path) -> None:
    create(path, "CREATE TABLE jobs (id, status, discord_user_id)", 0)


def make_foreign_view(path: Path) -> None:
    create(path, "CREATE VIEW jobs AS SELECT 1 AS id", 0)


ADVICE = re.compile(r"\b(restore|move|close|update|set|choose)\b", re.IGNORECASE)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (make_newer, StoreError),
        (make_garbage, StoreError),
        (make_short, StoreError),
        (make_scratched, StoreError),
        (Path.mkdir, StoreError),
        (make_foreign, StoreError),
        (make_foreign_view, StoreError),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(
    path: Path, make: Callable[[Path], None], error: type[StoreError]
) -> None:
    make(path)
    with pytest.raises(error) as caught:
        Store(path)
    assert str(path) in str(caught.value)
    assert str(path.parent) not in caught.value.user_message
    assert ADVICE.search(str(caught.value).replace(str(path), ""))
    with pytest.raises(error):  # and not StoreError: the first attempt has let go of it
        Store(path)


@pytest.mark.parametrize(
    "make",
    [
        *(make_newer, make_garbage, make_short, make_scratched),
        make_foreign,
        make_foreign_view,
    ],
)
def test_a_file_that_is_refused_is_not_touched(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError):
        Store(path)
    assert path.read_bytes() == before
    assert beside(path) == []


def test_a_database_in_use_elsewhere_can_be_read_but_not_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.01)
    with closing(Store(path)) as jobs, closing(sqlite3.connect(path)) as other:
        job_id = jobs.insert(PARAMS)
        other.execute("BEGIN IMMEDIATE")
        for change in (
            lambda: jobs.insert(PARAMS),
            lambda: jobs.start(job_id),
            lambda: jobs.add_blocked("1", [("fox", "fox")], "7"),
            lambda: jobs.remove_blocked("1", "fox"),
        ):
            with pytest.raises(StoreError, match="close"):
                change()
        assert [job.id for job in jobs.by_status(QUEUED)] == [job_id]
        other.rollback()
        assert jobs.start(job_id)
        assert jobs.by_status(QUEUED) == []


def test_a_database_that_another_program_keeps_to_itself_is_not_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.01)
    create_with_rows(path, 1)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="close"):
            Store(path)


# Rows


def test_what_is_changed_is_on_the_disk_when_the_call_returns(path: Path, jobs: Store) -> None:
    job_id = jobs.insert(PARAMS)
    assert sql(path, "SELECT id, status FROM jobs") == [(job_id, "queued")]
    assert str(uuid.UUID(job_id)) == job_id
    assert uuid.UUID(job_id).version == 4
    jobs.start(job_id)
    jobs.fail(job_id, "sorry")
    assert sql(path, "SELECT status, error_message FROM jobs") == [("failed", "sorry")]


NASTY = '🦊 naïve\r\n\t\'; DROP TABLE jobs; -- "quoted" %s {} \\ \x00 @everyone'


@pytest.mark.parametrize("seed", [None, 0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_field_comes_back_as_it_was_given(jobs: Store, seed: int | None) -> None:
    texts: Any = {k: k + NASTY for k, v in asdict(PARAMS).items() if isinstance(v, str)}
    params = replace(PARAMS, **texts, steps=150, cfg=1.1, seed=seed)
    ids = [jobs.insert(params), jobs.insert(params)]
    unset = ("discord_message_id", "comfy_prompt_id", "error_message")
    unset += ("started_at", "completed_at", "delivered_at")
    new = Job(
        **asdict(params),
        **dict.fromkeys(unset),
        id=ids[0],
        status=QUEUED,
        output_images=(),
        created_at=NOON,
    )
    assert [jobs.get(job_id) for job_id in ids] == [new, replace(new, id=ids[1])]
    for job_id in ids:
        jobs.start(job_id)
        jobs.submitted(job_id, NASTY)
        assert got(jobs, job_id).comfy_prompt_id == NASTY
    jobs.complete(ids[0], [NASTY, "", "a.png"])
    assert got(jobs, ids[0]).output_images == (NASTY, "", "a.png")
    jobs.fail(ids[1], NASTY)
    assert got(jobs, ids[1]).error_message == NASTY


def test_rows_have_the_types_they_declare_and_cannot_be_changed(jobs: Store) -> None:
    jobs.insert(replace(PARAMS, cfg=7, seed=2**64 - 1))
    (job,) = jobs.by_status(QUEUED)
    assert (type(job), type(job.status), type(job.cfg)) == (Job, JobStatus, float)
    assert (type(job.steps), type(job.seed), type(job.created_at)) == (int, int, int)
    with pytest.raises(FrozenInstanceError):
        job.steps = 3  # type: ignore[misc]


def test_the_states_are_those_of_the_document() -> None:
    assert {s.value for s in JobStatus} == {"queued", "running", *(s.value for s in FINAL)}
    assert {s.value for s in FINAL} == {"completed", "failed", "cancelled"}


def test_jobs_are_listed_and_counted_in_the_order_they_came_whatever_the_clock_does(
    path: Path, jobs: Store, clock: Clock
) -> None:
    ids = []
    for _ in range(7):
        ids.append(jobs.insert(PARAMS))
        clock.ms -= 60_000
    assert [jobs.position(job_id) for job_id in ids] == [1, 2, 3, 4, 5, 6, 7]
    assert [job.id for job in jobs.by_status(QUEUED)] == ids
    for number, status in ((5, RUNNING), (1, RUNNING), (2, COMPLETED), (3, FAILED), (4, CANCELLED)):
        put_into(path, status, ids[number])
    assert [jobs.position(job_id) for job_id in ids] == [1, None, None, None, None, None, 2]
    listed = {status: [job.id for job in jobs.by_status(status)] for status in JobStatus}
    assert (listed[QUEUED], listed[RUNNING]) == ([ids[0], ids[6]], [ids[1], ids[5]])
    assert [listed[status] for status in (COMPLETED, FAILED, CANCELLED)] == [[i] for i in ids[2:5]]
    assert (jobs.get("nobody"), jobs.position("nobody")) == (None, None)


def test_it_is_told_at_once_how_several_jobs_stand_and_who_is_next(path: Path, jobs: Store) -> None:
    ids = [jobs.insert(PARAMS) for _ in range(8)]
    for number, status in ((0, RUNNING), (1, COMPLETED), (2, FAILED), (3, CANCELLED)):
        put_into(path, status, ids[number])
    jobs.delivered(ids[1])
    assert jobs.standings([*ids[:4], ids[5], ids[6], ids[7], "nobody"], 3) == {
        ids[0]: (RUNNING, False, None),
        ids[1]: (COMPLETED, True, None),
        ids[2]: (FAILED, False, None),
        ids[3]: (CANCELLED, False, None),
        ids[5]: (QUEUED, False, 2),
        ids[6]: (QUEUED, False, 3),
        ids[7]: (QUEUED, False, None),
    }
    assert jobs.standings([], 3) == {}


def test_times_are_unix_milliseconds_unless_told_otherwise(path: Path) -> None:
    before = time.time() * 1000
    with closing(Store(path)) as jobs:
        job = got(jobs, jobs.insert(PARAMS))
    assert before - 1 <= job.created_at <= time.time() * 1000 + 1


# Transitions

LATER = NOON + 5
Change = Callable[[Store, str], bool]


def change(act: Change, *states: JobStatus, **effect: object) -> tuple[Change, set[JobStatus], Any]:
    """What it calls, the states it may start from, and what it alters in the row."""
    return act, set(states), effect


ENDED = {"completed_at": LATER}
CHANGES = {
    "start": change(Store.start, QUEUED, status=RUNNING, started_at=LATER, on_server=True),
    "submitted": change(lambda s, i: s.submitted(i, "pid"), RUNNING, comfy_prompt_id="pid"),
    "complete": change(
        lambda s, i: s.complete(i, ["a.png"]),
        RUNNING,
        status=COMPLETED,
        output_images=("a.png",),
        on_server=False,
        **ENDED,
    ),
    "fail": change(
        lambda s, i: s.fail(i, "no"),
        RUNNING,
        status=FAILED,
        error_message="no",
        on_server=False,
        **ENDED,
    ),
    "fail on the server": change(
        lambda s, i: s.fail(i, "no", on_server=True),
        RUNNING,
        status=FAILED,
        error_message="no",
        on_server=True,
        **ENDED,
    ),
    "cancel queued": change(lambda s, i: s.cancel(i, QUEUED), QUEUED, status=CANCELLED, **ENDED),
    "cancel running": change(lambda s, i: s.cancel(i, RUNNING), RUNNING, status=CANCELLED, **ENDED),
    "cancel for a reason": change(
        lambda s, i: s.cancel(i, RUNNING, "The owner did."),
        RUNNING,
        status=CANCELLED,
        error_message="The owner did.",
        **ENDED,
    ),
    "cancel completed": change(lambda s, i: s.cancel(i, COMPLETED)),
    "off server": change(lambda s, i: s.off_server(i, i), *FINAL, on_server=False),
    "report tried": change(Store.report_tried, *FINAL, report_tried_at=LATER),
    "announced": change(lambda s, i: s.announced(i, "987"), *JobStatus, discord_message_id="987"),
    "delivered": change(
        lambda s, i: s.delivered(i, ["987", "988"], "55"),
        *FINAL,
        delivered_at=LATER,
        report_message_ids=("987", "988"),
        report_channel_id="55",
    ),
    "delivered nowhere": change(Store.delivered, *FINAL, delivered_at=LATER),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("status", JobStatus)
def test_a_change_is_made_only_from_the_state_it_leaves(
    path: Path, jobs: Store, clock: Clock, name: str, status: JobStatus
) -> None:
    act, allowed, effect = CHANGES[name]
    job_id, bystander = jobs.insert(PARAMS), jobs.insert(PARAMS)
    put_into(path, status)
    sql(path, "UPDATE jobs SET on_server = ?", status is not QUEUED)
    before, other = got(jobs, job_id), got(jobs, bystander)
    clock.ms = LATER
    assert act(jobs, job_id) is (status in allowed)
    assert got(jobs, job_id) == (replace(before, **effect) if status in allowed else before)
    assert got(jobs, bystander) == other
    assert act(jobs, "nobody") is False


ONCE = ["start", "complete", "fail", "cancel queued", "cancel running", "delivered"]


@pytest.mark.parametrize("name", ONCE)
def test_of_sixteen_threads_one_makes_the_change(path: Path, jobs: Store, name: str) -> None:
    act, allowed, _ = CHANGES[name]
    job_id = jobs.insert(PARAMS)
    put_into(path, min(allowed))
    assert sorted(race(16, lambda _: act(jobs, job_id)), key=str) == [False] * 15 + [True]


@pytest.mark.parametrize(
    "names",
    [("complete", "fail"), ("start", "cancel queued"), ("complete", "cancel running")],
    ids=" or ".join,
)
def test_of_two_changes_from_one_state_one_wins_and_the_row_agrees(
    path: Path, jobs: Store, clock: Clock, names: tuple[str, str]
) -> None:
    job_id = jobs.insert(PARAMS)
    put_into(path, *CHANGES[names[0]][1])
    sql(path, "UPDATE jobs SET on_server = (status = 'running')")
    before = got(jobs, job_id)
    clock.ms = LATER
    results = race(16, lambda n: CHANGES[names[n % 2]][0](jobs, job_id) and names[n % 2])
    (winner,) = filter(None, results)
    assert got(jobs, job_id) == replace(before, **CHANGES[winner][2])


def test_jobs_inserted_from_many_threads_are_all_there(jobs: Store) -> None:
    ids = race(16, lambda _: jobs.insert(PARAMS))
    assert {job.id for job in jobs.by_status(QUEUED)} == set(ids)
    assert sorted(jobs.position(job_id) or 0 for job_id in ids) == list(range(1, 17))


def test_a_final_job_is_undelivered_until_it_is_delivered_once(
    path: Path, jobs: Store, clock: Clock
) -> None:
    ids = [jobs.insert(PARAMS) for _ in JobStatus]
    for job_id, status in zip(ids, reversed(JobStatus), strict=True):
        put_into(path, status, job_id)
    assert [job.id for job in jobs.undelivered()] == ids[:3]
    assert jobs.delivered(ids[1])
    clock.ms += 7
    assert not jobs.delivered(ids[1])
    assert got(jobs, ids[1]).delivered_at == NOON
    assert [job.id for job in jobs.undelivered()] == [ids[0], ids[2]]


def test_only_jobs_that_ended_and_were_reported_before_a_time_are_purged(
    path: Path, jobs: Store
) -> None:
    change = "UPDATE jobs SET status = ?, completed_at = ?, delivered_at = ? WHERE id = ?"
    kept, old = [], [jobs.insert(PARAMS) for _ in FINAL]
    for job_id, status in zip(old, FINAL, strict=True):
        sql(path, change, status.value, NOON - 1, NOON + 9, job_id)
    for status, ended, reported in (
        *((QUEUED, None, None), (RUNNING, None, None), (COMPLETED, NOON, NOON)),
        *((status, NOON - 1, None) for status in FINAL),
    ):
        kept.append(jobs.insert(PARAMS))
        sql(path, change, status.value, ended, reported, kept[-1])
    assert jobs.purge(NOON) == 3
    assert [row[0] for row in sql(path, "SELECT id FROM jobs ORDER BY rowid")] == kept
    assert jobs.purge(NOON) == 0
    assert jobs.position(jobs.insert(PARAMS)) == 2


def test_many_old_jobs_are_purged_in_parts_until_none_is_left(
    path: Path, jobs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PURGED_AT_ONCE", 3)
    transactions: list[str] = []
    jobs._connection.set_trace_callback(transactions.append)
    for count, parts in ((0, 1), (2, 1), (3, 2), (8, 3)):
        for _ in range(count):
            jobs.insert(PARAMS)
        put_into(path, COMPLETED)
        sql(path, "UPDATE jobs SET delivered_at = 1")
        kept = jobs.insert(PARAMS)
        transactions.clear()
        assert jobs.purge(NOON + 1) == count
        assert sum("DELETE" in statement for statement in transactions) == parts
        assert sql(path, "SELECT id FROM jobs") == [(kept,)]
        sql(path, "DELETE FROM jobs")


def test_a_job_whose_prompt_may_still_be_in_comfyui_is_not_purged(path: Path, jobs: Store) -> None:
    busy, old = jobs.insert(PARAMS), jobs.insert(PARAMS)
    put_into(path, CANCELLED)
    sql(path, "UPDATE jobs SET delivered_at = 1, on_server = (id = ?)", busy)
    assert jobs.purge(NOON + 1) == 1
    assert (jobs.get(busy) is None, jobs.get(old) is None) == (False, True)
    jobs.off_server(busy, busy)
    assert jobs.purge(NOON + 1) == 1


# What a person has

OTHER, ELSEWHERE = replace(PARAMS, user_id="7"), replace(PARAMS, guild_id="8")


def test_messages_that_were_removed_are_known_no_more(jobs: Store) -> None:
    kept, removed = (jobs.insert(PARAMS) for _ in range(2))
    for job_id in (kept, removed):
        jobs.start(job_id)
        jobs.complete(job_id, ["a.png"])
        jobs.delivered(job_id, ["987"], "55")
    assert jobs.report_removed(removed)
    assert got(jobs, removed).report_message_ids == ()
    assert got(jobs, kept).report_message_ids == ("987",)


def test_the_jobs_of_a_person_that_wait_or_run_are_counted_in_all_servers(
    path: Path, jobs: Store
) -> None:
    for status in JobStatus:
        for params in (PARAMS, OTHER, ELSEWHERE):
            put_into(path, status, jobs.insert(params))
    assert [jobs.waiting(user) for user in (PARAMS.user_id, "7", "nobody")] == [4, 2, 0]


def test_the_completed_jobs_of_a_person_in_a_server_are_read_in_pages_newest_first(
    path: Path, jobs: Store, clock: Clock
) -> None:
    ids: list[str] = []
    for _ in range(5):
        for status in JobStatus:
            for params in (PARAMS, OTHER, ELSEWHERE):
                job_id = jobs.insert(params)
                put_into(path, status, job_id)
                if (status, params) == (COMPLETED, PARAMS):
                    ids.insert(0, job_id)
        clock.ms -= 60_000

    def page(offset: int, user_id: str = PARAMS.user_id) -> tuple[list[str], int]:
        found, total = jobs.by_person(user_id, PARAMS.guild_id, offset=offset, limit=2)
        return [job.id for job in found], total

    assert [page(offset) for offset in (0, 2, 4, 6)] == [
        *((ids[:2], 5), (ids[2:4], 5), (ids[4:], 5), ([], 5))
    ]
    assert page(0, "nobody") == ([], 0)


def test_no_question_about_a_person_or_a_server_reads_the_rows_of_others(jobs: Store) -> None:
    asked: list[str] = []
    jobs._connection.set_trace_callback(asked.append)
    jobs.waiting("1")
    jobs.by_person("1", "2", offset=0, limit=10)
    jobs.blocked("2")
    jobs._connection.set_trace_callback(None)
    plans = [
        [step["detail"] for step in jobs._connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        for statement in asked
    ]
    history = "(discord_user_id=? AND discord_guild_id=? AND status=?)"
    assert plans == [
        ["SEARCH jobs USING INDEX idx_jobs_waiting (discord_user_id=?)"],
        [f"SEARCH jobs USING INDEX idx_jobs_history {history}"],
        [f"SEARCH jobs USING COVERING INDEX idx_jobs_history {history}"],
        ["SEARCH blocked_terms USING PRIMARY KEY (discord_guild_id=?)"],
    ]


# What a server does not want


def keys(jobs: Store, guild_id: str = "1") -> list[str]:
    return [term.key for term in jobs.blocked(guild_id)]


def test_a_term_is_added_once_to_a_server_and_kept_as_it_was_typed_first(
    path: Path, jobs: Store, clock: Clock
) -> None:
    assert jobs.add_blocked("1", [("wolf", "Wolf"), ("fox*", "FOX*"), ("wolf", "WOLF")], "7") == 2
    clock.ms = LATER
    assert jobs.add_blocked("1", [("fox*", "fox*"), ("red fox", NASTY)], "8") == 1
    assert jobs.add_blocked("2", [("fox*", "Fox*")], "8") == 1
    assert jobs.add_blocked("2", [], "8") == 0
    jobs.close()
    with closing(Store(path)) as jobs:
        assert jobs.blocked("1") == (
            BlockedTerm(key="fox*", typed="FOX*", user_id="7", added_at=NOON),
            BlockedTerm(key="red fox", typed=NASTY, user_id="8", added_at=LATER),
            BlockedTerm(key="wolf", typed="Wolf", user_id="7", added_at=NOON),
        )
        assert [term.typed for term in jobs.blocked("2")] == ["Fox*"]
        assert jobs.blocked("3") == ()


def test_a_term_is_removed_once_and_from_one_server(jobs: Store) -> None:
    for guild_id in ("1", "2"):
        jobs.add_blocked(guild_id, [("fox", "fox"), ("wolf", "wolf")], "7")
    assert [jobs.remove_blocked("1", key) for key in ("fox", "fox", "FOX", "wol")] == [
        *(True, False, False, False)
    ]
    assert (keys(jobs, "1"), keys(jobs, "2")) == (["wolf"], ["fox", "wolf"])


def test_of_a_list_that_cannot_be_added_nothing_is(jobs: Store) -> None:
    broken: Any = [("fox", "fox"), ("wolf", None)]
    with pytest.raises(StoreError):
        jobs.add_blocked("1", broken, "7")
    assert keys(jobs) == []


def test_terms_added_from_many_threads_are_all_there_once(jobs: Store) -> None:
    added = race(8, lambda n: jobs.add_blocked("1", [("fox", "fox"), (f"{n}", "x")], "7"))
    assert sorted(added) == [1] * 7 + [2]
    assert keys(jobs) == [*"01234567", "fox"]


# What ComfyUI may still have


def test_the_prompts_nobody_wants_are_those_of_ended_jobs_that_comfyui_may_have(
    path: Path, jobs: Store
) -> None:
    """By the id that ComfyUI gave, if it gave one, and oldest first."""
    wanted, unwanted = [], []
    for status in JobStatus:
        for on_server in (True, False):
            job_id = jobs.insert(PARAMS)
            put_into(path, status, job_id)
            sql(path, "UPDATE jobs SET on_server = ? WHERE id = ?", on_server, job_id)
            (unwanted if on_server and status in FINAL else wanted).append(job_id)
    sql(path, "UPDATE jobs SET comfy_prompt_id = 'theirs' WHERE id = ?", unwanted[1])
    first, second, third = unwanted
    assert jobs.unwanted() == [(first, first), (second, "theirs"), (third, third)]
    assert jobs.off_server(second, "theirs")
    assert jobs.unwanted() == [(first, first), (third, third)]


@pytest.mark.parametrize(
    ("end", "is_unwanted"),
    [
        ("complete", False),
        ("fail", False),
        ("fail on the server", True),
        ("cancel running", True),
        ("cancel for a reason", True),
    ],
)
def test_a_job_that_began_leaves_a_prompt_behind_if_it_ends_without_it(
    jobs: Store, end: str, is_unwanted: bool
) -> None:
    job_id = jobs.insert(PARAMS)
    jobs.start(job_id)
    assert jobs.unwanted() == []
    CHANGES[end][0](jobs, job_id)
    assert jobs.unwanted() == [(job_id, job_id)] * is_unwanted


def test_a_job_cancelled_before_it_began_leaves_no_prompt_behind(jobs: Store) -> None:
    jobs.cancel(jobs.insert(PARAMS), QUEUED)
    assert jobs.unwanted() == []


# Rows that somebody has damaged

DAMAGES: dict[str, tuple[JobStatus, str, object]] = {
    "pictures that break off": (COMPLETED, "output_images", '["a.png'),
    "pictures that are no JSON": (COMPLETED, "output_images", "a.png"),
    "pictures that are an object": (COMPLETED, "output_images", '{"a.png": 1}'),
    "pictures that are a text": (COMPLETED, "output_images", '"a.png"'),
    "pictures that are no texts": (COMPLETED, "output_images", '["a.png", null]'),
    "pictures of endless depth": (COMPLETED, "output_images", "[" * 200_000),
    "pictures that are no Unicode": (COMPLETED, "output_images", b"\xff"),
    "messages that break off": (FAILED, "report_message_ids", "["),
    "an unknown status": (RUNNING, "status", "done"),
    "no status": (RUNNING, "status", ""),
    "completed, and never started": (COMPLETED, "started_at", None),
    "completed, and never ended": (COMPLETED, "completed_at", None),
    "failed at no time": (FAILED, "completed_at", "yesterday"),
    "started at no time": (RUNNING, "started_at", "yesterday"),
    "a seed that is no number": (QUEUED, "seed", "twelve"),
    "a seed that is empty": (RUNNING, "seed", ""),
    "steps that are no number": (QUEUED, "steps", "many"),
    "a time that is no number": (QUEUED, "created_at", "yesterday"),
    "a prompt that is no text": (QUEUED, "positive_prompt", b"\0"),
}


def damage(path: Path, job_id: str, name: str) -> JobStatus:
    """Write into the row what this program never does; the state it is then in."""
    status, column, value = DAMAGES[name]
    put_into(path, status, job_id)
    kind = "CAST(? AS TEXT)" if value == b"\xff" else "?"
    sql(path, f"UPDATE jobs SET {column} = {kind} WHERE id = ?", value, job_id)
    return status


@pytest.mark.parametrize("name", DAMAGES)
def test_a_row_that_cannot_be_read_is_closed_as_failed_and_logged_with_its_id(
    path: Path, jobs: Store, clock: Clock, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    job_id = jobs.insert(PARAMS)
    damage(path, job_id, name)
    clock.ms = LATER
    assert jobs.get(job_id) is None
    (record,) = caplog.records
    assert (record.levelname, job_id in record.getMessage()) == ("ERROR", True)
    row = "SELECT status, completed_at, delivered_at, error_message FROM jobs"
    closed = sql(path, row)
    assert closed == [("failed", LATER, LATER, "The row could not be read.")]
    clock.ms += 1
    jobs.get(job_id)
    assert sql(path, row) == closed
    assert [jobs.undelivered(), *map(jobs.by_status, (QUEUED, RUNNING))] == [[], [], []]


@pytest.mark.parametrize("name", DAMAGES)
def test_every_method_goes_on_with_the_rows_beside_a_damaged_one(
    path: Path, jobs: Store, name: str
) -> None:
    before, damaged, after = (jobs.insert(PARAMS) for _ in range(3))
    status = damage(path, damaged, name)
    put_into(path, status, before, after)
    assert [job.id for job in jobs.by_status(status)] == [before, after]
    damage(path, damaged, name)
    if status in FINAL:
        assert [job.id for job in jobs.undelivered()] == [before, after]
    assert [got(jobs, job_id).id for job_id in (before, after)] == [before, after]
    assert [act(jobs, after) for act, _, _ in CHANGES.values()].count(True) > 0
    new = jobs.insert(PARAMS)
    waiting = jobs.by_status(QUEUED)  # which closes a damaged one before it is counted
    assert (waiting[-1].id, jobs.position(new)) == (new, len(waiting))
    jobs.estimate(1, 1)
    jobs.unwanted()
    assert jobs.standings([before, damaged, after], 9).keys() >= {before, after}


def test_a_damaged_row_that_was_reported_long_ago_is_closed_too(path: Path, jobs: Store) -> None:
    job_id = jobs.insert(PARAMS)
    damage(path, job_id, "an unknown status")
    sql(path, "UPDATE jobs SET delivered_at = ?", NOON - 1)
    assert jobs.get(job_id) is None
    assert sql(path, "SELECT status FROM jobs") == [("failed",)]
    assert jobs.purge(NOON + 1) == 1


def test_the_prompt_of_a_damaged_row_is_stopped_like_any_other_that_nobody_wants(
    path: Path, jobs: Store
) -> None:
    job_id = jobs.insert(PARAMS)
    jobs.start(job_id)
    sql(path, "UPDATE jobs SET seed = 'twelve'")
    assert jobs.by_status(RUNNING) == []
    assert jobs.unwanted() == [(job_id, job_id)]


# A file that goes away under the bot


def delete(path: Path) -> None:
    path.unlink()


def replace_by_another(path: Path) -> None:
    other = path.with_name("other.db")
    with closing(Store(other)):
        pass
    other.replace(path)


def replace_by_a_copy(path: Path) -> None:
    """What restoring a backup does, while the bot runs."""
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps an open file in its place")
@pytest.mark.parametrize("act", [delete, replace_by_another, replace_by_a_copy])
def test_nothing_is_queued_in_a_file_that_nobody_will_read_again_and_running_jobs_go_on(
    path: Path, jobs: Store, act: Callable[[Path], None]
) -> None:
    running, queued = jobs.insert(PARAMS), jobs.insert(PARAMS)
    jobs.start(running)
    act(path)
    with pytest.raises(StoreError):
        jobs.add_blocked("1", [("fox", "fox")], "7")
    with pytest.raises(StoreError):
        jobs.remove_blocked("1", "fox")
    with pytest.raises(StoreError, match=r"deleted or replaced.*restart") as caught:
        jobs.insert(PARAMS)
    assert str(path) in str(caught.value)
    assert str(path.parent) not in caught.value.user_message
    assert "owner" in caught.value.user_message
    assert jobs.complete(running, ["a.png"])
    assert got(jobs, running).status is COMPLETED
    assert jobs.delivered(running, ["987"])
    assert jobs.cancel(queued, QUEUED)
    assert jobs.by_status(QUEUED) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps an open file in its place")
def test_a_file_whose_inode_number_changes_is_still_the_same(path: Path, jobs: Store) -> None:
    """As on a share (CIFS, FUSE); here a copy with the same size and time has that number."""
    copy = path.with_name("copy.db")
    shutil.copy2(path, copy)
    copy.replace(path)
    assert jobs.insert(PARAMS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps an open file in its place")
def test_a_lost_file_is_whole_and_what_takes_its_place_is_read_as_it_is(path: Path) -> None:
    backup, moved = path.with_name("backup.db"), path.with_name("moved.db")
    with closing(Store(backup)) as jobs:
        kept = [jobs.insert(PARAMS) for _ in range(3)]
    with closing(Store(path)) as jobs:
        lost = [jobs.insert(PARAMS) for _ in range(30)]
        path.rename(moved)
        backup.rename(path)
    for file, ids in ((path, kept), (moved, lost)):
        with closing(Store(file)) as jobs:
            assert [job.id for job in jobs.by_status(QUEUED)] == ids


def test_a_row_in_an_unknown_state_is_closed_at_the_next_start(path: Path, jobs: Store) -> None:
    damaged, good = jobs.insert(PARAMS), jobs.insert(PARAMS)
    damage(path, damaged, "an unknown status")
    jobs.close()
    with closing(Store(path)) as jobs:
        assert sql(path, "SELECT status FROM jobs") == [("failed",), ("queued",)]
        assert [job.id for job in jobs.by_status(QUEUED)] == [good]


# The end


def test_closing_again_does_nothing_and_a_closed_store_says_so(path: Path) -> None:
    jobs = Store(path)
    job_id = jobs.insert(PARAMS)
    jobs.close()
    jobs.close()
    uses: list[Callable[[], object]] = [
        *(lambda: jobs.get(job_id), lambda: jobs.by_status(QUEUED), jobs.undelivered),
        *(lambda: jobs.estimate(1, 1), lambda: jobs.standings([job_id], 10)),
        *(jobs.unwanted, lambda: jobs.waiting("1"), lambda: jobs.blocked("1")),
        lambda: jobs.by_person("1", "2", offset=0, limit=10),
        lambda: jobs.add_blocked("1", [("fox", "fox")], "7"),
        lambda: jobs.remove_blocked("1", "fox"),
        *(lambda: jobs.position(job_id), lambda: jobs.insert(PARAMS), lambda: jobs.purge(NOON)),
        *(lambda act=act: act(jobs, job_id) for act, _, _ in CHANGES.values()),
    ]
    for use in uses:
        with pytest.raises(StoreError):
            use()
    assert beside(path) == []
    assert sql(path, "SELECT id, status FROM jobs") == [(job_id, "queued")]


# What was typed


def test_what_was_typed_is_kept_for_its_person_for_a_day(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = store.unix_ms()
    with closing(Store(path)) as jobs:
        jobs.keep_typed("a form", "1", "half a poem")
        jobs.keep_typed("a form", "1", "a poem")
        jobs.keep_typed("another", "2", "prose")
        assert [jobs.typed("a form", user) for user in "12"] == ["a poem", ""]
        jobs.keep_typed("another", "2", "")
        assert jobs.typed("another", "2") == ""
    for hours, left in ((23, "a poem"), (25, "")):
        monkeypatch.setattr(store, "unix_ms", lambda hours=hours: now + hours * 3_600_000)
        with closing(Store(path)) as jobs:
            assert jobs.typed("a form", "1") == left
