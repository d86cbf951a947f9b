"""The jobs table: the only file with SQL.

Owns the SQLite database: its schema, its migrations, and every statement that reads or changes a
job. Imports nothing of ours and knows neither Discord nor ComfyUI. The worker thread and the event
loop's thread pool share one `Store`; a lock lets them in one at a time. A statement may wait for
the disk, so the event loop itself never calls in here directly.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

BUSY_SECONDS = 5.0  # how long a statement waits for another program that holds the database

# Each entry is one migration, committed together with its number in PRAGMA user_version.
# Migration 1 is the schema of architecture.md §2.1; the later ones add what design.md needs.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE IF NOT EXISTS jobs (
            id                 TEXT PRIMARY KEY,
            discord_user_id    TEXT NOT NULL,
            discord_guild_id   TEXT NOT NULL,
            discord_channel_id TEXT NOT NULL,
            discord_message_id TEXT,
            status             TEXT NOT NULL DEFAULT 'queued',
            model              TEXT NOT NULL,
            sampler            TEXT NOT NULL,
            scheduler          TEXT NOT NULL,
            steps              INTEGER NOT NULL,
            cfg                REAL NOT NULL,
            positive_prompt    TEXT NOT NULL,
            negative_prompt    TEXT NOT NULL DEFAULT '',
            comfy_prompt_id    TEXT,
            output_images      TEXT,
            error_message      TEXT,
            created_at         INTEGER NOT NULL,
            started_at         INTEGER,
            completed_at       INTEGER
        )
        """,
        "CREATE INDEX IF NOT EXISTS idx_jobs_status ON jobs(status)",
        "CREATE INDEX IF NOT EXISTS idx_jobs_user ON jobs(discord_user_id)",
    ),
    (
        # A seed has 64 bits without a sign, one more than SQLite's INTEGER holds: so it is text.
        "ALTER TABLE jobs ADD COLUMN seed TEXT",
        "ALTER TABLE jobs ADD COLUMN delivered_at INTEGER",
        "CREATE INDEX idx_jobs_undelivered ON jobs(status) WHERE delivered_at IS NULL",
    ),
)


class StoreError(Exception):
    """The database cannot be used. `str()` is for the log; `public` is for people."""

    public = "The bot could not write to its job list. Please try again in a minute."


class DatabaseLocked(StoreError):
    """Another program holds the database."""


class DatabaseInUse(StoreError):
    """Another copy of the bot works on it."""


class DatabaseCorrupt(StoreError):
    """The file is not a healthy SQLite database."""


class DatabaseTooNew(StoreError):
    """The file was written by a newer version of this program."""


class DatabaseUnusable(StoreError):
    """Anything else: no permission, no space, a folder in the file's place."""


class JobStatus(str, Enum):
    """Where a job stands (architecture.md §2.1)."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class JobParams:
    """What a person asked for. Ids are Discord snowflakes as text; `seed` is 0 to 2**64 - 1, or
    None for the seeds of the workflow file."""

    user_id: str
    guild_id: str
    channel_id: str
    model: str
    sampler: str
    scheduler: str
    steps: int
    cfg: float
    positive_prompt: str
    negative_prompt: str = ""
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job(JobParams):
    """One row. Times are Unix milliseconds; `output_images` are names that comfy_client reads."""

    id: str
    status: JobStatus
    discord_message_id: str | None
    comfy_prompt_id: str | None
    output_images: tuple[str, ...]
    error_message: str | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    delivered_at: int | None

    @property
    def prompt_id(self) -> str:
        """The id of its prompt in ComfyUI: the job's own, but on servers that give theirs."""
        return self.comfy_prompt_id or self.id


# The column of each field of a job; those with Discord's ids have a longer name.
LONGER_NAMES = {name: f"discord_{name}" for name in ("user_id", "guild_id", "channel_id")}
COLUMNS = {field.name: LONGER_NAMES.get(field.name, field.name) for field in fields(Job)}
ADDED_LATER = {"seed", "delivered_at"}  # by migrations after the first


def unix_ms() -> int:
    """Now, in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Store:
    """The jobs of one database file; safe to share between threads.

    Raises a `StoreError` from every method when the database fails. Transitions return True if
    this call made the change, False if the job had already left the state that it starts from.
    """

    def __init__(self, path: Path, *, now: Callable[[], int] = unix_ms) -> None:
        """Open or create the database and bring it to this version; nothing is written to a file
        that is damaged, of a newer version, or of another program."""
        self._path = path.resolve()
        self._now = now
        self._lock = threading.RLock()
        self._cleanup = contextlib.ExitStack()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._cleanup.enter_context(_instance_lock(self._path))
        except OSError as error:
            raise DatabaseUnusable(
                f"the database {path} cannot be used: {error}; set DB_PATH to another place"
            ) from error
        try:
            with self._translated():
                self._connection = sqlite3.connect(
                    self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
                )
                self._cleanup.callback(self._connection.close)
                self._connection.row_factory = sqlite3.Row
                self._check()
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._migrate()
            with self._transaction():
                pass  # a file that may be read and not written is found out here, not by a job
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        with self._lock:
            self._cleanup.close()

    # Reading

    def get(self, job_id: str) -> Job | None:
        """The job with this id."""
        jobs = self._select("WHERE id = ?", job_id)
        return jobs[0] if jobs else None

    def by_status(self, status: JobStatus) -> list[Job]:
        """All jobs in this state, oldest first."""
        return self._select("WHERE status = ? ORDER BY rowid", status.value)

    def undelivered(self) -> list[Job]:
        """Jobs in a final state whose report has not reached Discord, oldest first."""
        return self._select(
            "WHERE status IN ('completed', 'failed', 'cancelled') AND delivered_at IS NULL"
            " ORDER BY rowid"
        )

    def position(self, job_id: str) -> int | None:
        """The place in the queue, from 1: the queued jobs before this one, plus 1
        (architecture.md M8). None if the job is not queued."""
        # rowid is the order of insertion whatever the clock did meanwhile, and the index on status
        # holds it, so the count never touches a row.
        rows = self._rows(
            "SELECT (SELECT count(*) FROM jobs WHERE status = 'queued' AND rowid < this.rowid) + 1"
            " FROM jobs AS this WHERE id = ? AND status = 'queued'",
            job_id,
        )
        return int(rows[0][0]) if rows else None

    def typical_ms(self) -> int | None:
        """How long a job takes: the median of the last 20 that were completed, in milliseconds;
        None if there is none."""
        rows = self._rows(
            "SELECT completed_at - started_at FROM jobs WHERE status = 'completed'"
            " ORDER BY rowid DESC LIMIT 20"
        )
        return sorted(int(row[0]) for row in rows)[len(rows) // 2] if rows else None

    # Changing

    def insert(self, params: JobParams) -> str:
        """Add a queued job; its id (UUIDv4) is returned once the row is safely on the disk."""
        job_id = str(uuid.uuid4())
        row: dict[str, object] = {"id": job_id, "created_at": self._now()}
        for field in fields(JobParams):
            row[COLUMNS[field.name]] = getattr(params, field.name)
        row["seed"] = None if params.seed is None else str(params.seed)
        self._change(
            f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            *row.values(),
        )
        return job_id

    def start(self, job_id: str) -> bool:
        """queued → running."""
        return self._change(
            "UPDATE jobs SET status = 'running', started_at = ? WHERE id = ? AND status = 'queued'",
            self._now(),
            job_id,
        )

    def submitted(self, job_id: str, prompt_id: str) -> bool:
        """Note the id under which ComfyUI took a running job."""
        return self._change(
            "UPDATE jobs SET comfy_prompt_id = ? WHERE id = ? AND status = 'running'",
            prompt_id,
            job_id,
        )

    def complete(self, job_id: str, images: Sequence[str]) -> bool:
        """running → completed, with the names of its pictures."""
        return self._change(
            "UPDATE jobs SET status = 'completed', output_images = ?, completed_at = ?"
            " WHERE id = ? AND status = 'running'",
            json.dumps(list(images)),
            self._now(),
            job_id,
        )

    def fail(self, job_id: str, message: str) -> bool:
        """running → failed, with a sentence fit for the person who asked."""
        return self._change(
            "UPDATE jobs SET status = 'failed', error_message = ?, completed_at = ?"
            " WHERE id = ? AND status = 'running'",
            message,
            self._now(),
            job_id,
        )

    def cancel(self, job_id: str, leaving: JobStatus) -> bool:
        """`leaving`, which is queued or running, → cancelled."""
        return self._change(
            "UPDATE jobs SET status = 'cancelled', completed_at = ?"
            " WHERE id = ? AND status = ? AND status IN ('queued', 'running')",
            self._now(),
            job_id,
            leaving.value,
        )

    def announced(self, job_id: str, message_id: str) -> bool:
        """Note the "Generating…" message of a job, the one that shows its progress."""
        return self._change(
            "UPDATE jobs SET discord_message_id = ? WHERE id = ?", message_id, job_id
        )

    def purge(self, before: int) -> int:
        """Remove the reported jobs that ended before this time (Unix ms); how many there were."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM jobs WHERE completed_at < ? AND delivered_at IS NOT NULL"
                " AND status IN ('completed', 'failed', 'cancelled')",
                (before,),
            ).rowcount

    def delivered(self, job_id: str) -> bool:
        """Note that the report of a finished job has reached Discord."""
        return self._change(
            "UPDATE jobs SET delivered_at = ? WHERE id = ? AND delivered_at IS NULL"
            " AND status IN ('completed', 'failed', 'cancelled')",
            self._now(),
            job_id,
        )

    # Inside

    def _select(self, condition: str, *values: object) -> list[Job]:
        columns = ", ".join(f"{column} AS {name}" for name, column in COLUMNS.items())
        rows = self._rows(f"SELECT {columns} FROM jobs {condition}", *values)
        return [_job(row) for row in rows]

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, self._translated():
            return self._connection.execute(query, values).fetchall()

    def _change(self, statement: str, *values: object) -> bool:
        with self._transaction() as connection:
            return connection.execute(statement, values).rowcount == 1

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, alone and inside one transaction; rolled back when the body fails."""
        with self._lock, self._translated(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn sqlite3's errors into ours, at this one place."""
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            kind: type[StoreError] = DatabaseUnusable
            if "locked" in text:
                kind = DatabaseLocked
                text = "it is locked by another program; close that one and try again"
            elif type(error) is sqlite3.DatabaseError or "malformed" in text:
                kind = DatabaseCorrupt
                text = f"it is damaged or not a database ({text}); restore a backup or move it away"
            else:
                text += "; check its place and who may write there, or set DB_PATH to another file"
            raise kind(f"the database {self._path} cannot be used: {text}") from error

    def _check(self) -> None:
        """Refuse a file that this version must not write to. Only reads."""
        version = self._version()
        if version > len(MIGRATIONS):
            raise DatabaseTooNew(
                f"the database {self._path} is of version {version}, this program knows versions"
                f" up to {len(MIGRATIONS)}: update the program or set DB_PATH to another file"
            )
        verdict = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        columns = {row["name"] for row in self._connection.execute("PRAGMA table_info(jobs)")}
        expected = set(COLUMNS.values()) - (ADDED_LATER if version < 2 else set())
        if columns and not columns >= expected:
            raise DatabaseUnusable(
                f"the database {self._path} belongs to another program: set DB_PATH to another file"
            )

    def _migrate(self) -> None:
        for number in range(self._version() + 1, len(MIGRATIONS) + 1):
            with self._transaction() as connection:
                for statement in MIGRATIONS[number - 1]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            log.info("database: migration %d applied", number)

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def _instance_lock(database: Path) -> Iterator[None]:
    """Keep every other process off the database; DatabaseInUse if one has it already. The
    operating system releases the lock when the process dies, so no stale lock is left behind."""
    with open(f"{database}.lock", "ab") as file:
        try:
            if sys.platform == "win32":
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise  # a file system without locks, say
            raise DatabaseInUse(
                f"another copy of the bot already works on the database {database}: stop that one"
                " first, or set DB_PATH to another file"
            ) from error
        yield


def _job(row: sqlite3.Row) -> Job:
    values: dict[str, Any] = dict(row)
    values["status"] = JobStatus(values["status"])
    values["output_images"] = tuple(json.loads(values["output_images"] or "[]"))
    values["seed"] = None if values["seed"] is None else int(values["seed"])
    return Job(**values)
