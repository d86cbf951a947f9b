"""The jobs, and each server's blocked terms: the only file with SQL.

Owns the SQLite database: its schema, its migrations, and every statement that reads or changes a
row. Knows neither Discord nor ComfyUI. The worker, the sweeper and the
event loop's thread pool share one `Store`; a lock lets them in one at a time. A statement may wait
for the disk, so the bot's event loop never calls in here directly.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from text import PublicError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

LOW_DISK_BYTES = 2**30  # bytes; with less, the disk of the database is nearly full
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
    (
        "ALTER TABLE jobs ADD COLUMN on_server INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN report_tried_at INTEGER",
        "ALTER TABLE jobs ADD COLUMN report_message_ids TEXT",
        "UPDATE jobs SET on_server = 1 WHERE status = 'running'",
        "UPDATE jobs SET report_tried_at = completed_at WHERE delivered_at IS NULL",
        "CREATE INDEX idx_jobs_on_server ON jobs(status) WHERE on_server",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN workflow TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE jobs ADD COLUMN shape TEXT NOT NULL DEFAULT ''",
    ),
    (
        """
        CREATE TABLE blocked_terms (
            discord_guild_id TEXT NOT NULL,
            term             TEXT NOT NULL,
            typed            TEXT NOT NULL,
            added_by         TEXT NOT NULL,
            added_at         INTEGER NOT NULL,
            PRIMARY KEY (discord_guild_id, term)
        ) WITHOUT ROWID
        """,
        "ALTER TABLE jobs ADD COLUMN report_channel_id TEXT",
        "CREATE INDEX idx_jobs_waiting ON jobs(discord_user_id)"
        " WHERE status IN ('queued', 'running')",
        "CREATE INDEX idx_jobs_history ON jobs(discord_user_id, discord_guild_id, status)"
        " WHERE status = 'completed'",
    ),
)


class StoreError(PublicError):
    """The database cannot be used."""

    user_message = "The bot could not write to its job list. Please try again in a minute."


class JobStatus(str, Enum):
    """Where a job stands (architecture.md §2.1)."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class PictureParams:
    """What a person asks for. `seed` is 0 to 2**64 - 1, or None for the seeds of the workflow file.
    `workflow` is the name of its folder, empty for the default; `shape` is one of binder.SHAPES,
    empty for the size of the file. What the workflow has no place for is empty, or 0."""

    model: str
    sampler: str
    scheduler: str
    steps: int
    cfg: float
    positive_prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    workflow: str = ""
    shape: str = ""


@dataclass(frozen=True, kw_only=True)
class JobParams(PictureParams):
    """What a person asks for, and where. Ids are Discord snowflakes as text."""

    user_id: str
    guild_id: str
    channel_id: str


@dataclass(frozen=True, kw_only=True)
class Job(JobParams):
    """One row. Times are Unix milliseconds; `output_images` are names that comfy_client reads.

    `discord_message_id` is of the running message: None if none was begun, empty while a post has
    begun and its id is not known. `on_server`: ComfyUI may have a prompt of it that has not ended.
    `report_tried_at`: when the last try to report it began; `report_message_ids`: the messages it
    was reported with; `report_channel_id`: where these are, None if that was not noted.
    """

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
    on_server: bool = False
    report_tried_at: int | None = None
    report_message_ids: tuple[str, ...] = ()
    report_channel_id: str | None = None

    @property
    def prompt_id(self) -> str:
        """The id to ask ComfyUI for: the job's own, unless an older server gave another, or the
        picture had to be made once more."""
        return self.comfy_prompt_id or self.id


@dataclass(frozen=True, kw_only=True)
class BlockedTerm:
    """A word that a server does not want: `key` is what it is compared by, `typed` what its
    moderator typed, `user_id` who that was, and `added_at` when, in Unix milliseconds."""

    key: str
    typed: str
    user_id: str
    added_at: int


# The column of each field of a job; those with Discord's ids have a longer name.
LONGER_NAMES = {name: f"discord_{name}" for name in ("user_id", "guild_id", "channel_id")}
COLUMNS = {field.name: LONGER_NAMES.get(field.name, field.name) for field in fields(Job)}
ADDED_BY = {  # columns by the migration that added them, but for the first
    2: {"seed", "delivered_at"},
    3: {"on_server", "report_tried_at", "report_message_ids"},
    4: {"workflow", "shape"},
    5: {"report_channel_id"},
}
FINAL = "('completed', 'failed', 'cancelled')"
PURGED_AT_ONCE = 500  # rows of one transaction, so that nobody waits long


def unix_ms() -> int:
    """Now, in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Store:
    """The jobs and blocked terms of one database file; safe to share between threads.

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
            raise StoreError(
                f"the database {path} cannot be used: {error}; set DB_PATH to another place"
            ) from error
        try:
            with self._translated():
                self._connection = sqlite3.connect(
                    self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
                )
                self._cleanup.callback(self._connection.close)
                self._identity = _identity(self._path)
                self._cleanup.callback(self._empty_journal)
                self._connection.row_factory = sqlite3.Row
                # sqlite3 would refuse all rows of an answer for one text that is not UTF-8.
                self._connection.text_factory = lambda text: text.decode("utf-8", "replace")
                _check(self._connection, self._path)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._migrate()
            self._close_unknown_states()
            with self._transaction():
                pass  # a file that may be read and not written is found out here, not by a job
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        with self._lock:
            self._cleanup.close()

    def _empty_journal(self) -> None:
        """SQLite leaves its journal (`-wal`) in place if the database is not there any more, and
        would replay it into whatever file has that name next."""
        if self._is_gone():
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _is_gone(self) -> bool:
        return _identity(self._path) != self._identity

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
        return self._select(f"WHERE status IN {FINAL} AND delivered_at IS NULL ORDER BY rowid")

    def unwanted(self) -> list[tuple[str, str]]:
        """The jobs in a final state of which ComfyUI may still have a prompt, with the prompt's
        id, oldest first."""
        rows = self._rows(
            f"SELECT id, coalesce(comfy_prompt_id, id) FROM jobs WHERE status IN {FINAL}"
            " AND on_server ORDER BY rowid"
        )
        return [(str(row[0]), str(row[1])) for row in rows]

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

    def standings(
        self, job_ids: Collection[str], places: int
    ) -> dict[str, tuple[JobStatus, bool, int | None]]:
        """Of each of these jobs its state, whether it is reported, and its position if that is
        among so many first. Without those whose rows are gone."""
        first = self._rows(
            "SELECT id FROM jobs WHERE status = 'queued' ORDER BY rowid LIMIT ?", places
        )
        positions = {row[0]: position for position, row in enumerate(first, start=1)}
        rows = self._rows(
            "SELECT id, status, delivered_at IS NOT NULL FROM jobs"
            f" WHERE id IN ({', '.join('?' * len(job_ids))})",
            *job_ids,
        )
        states = {status.value: status for status in JobStatus}  # but for what somebody damaged
        return {
            row[0]: (states[row[1]], bool(row[2]), positions.get(row[0]))
            for row in rows
            if row[1] in states
        }

    def typical_ms(self) -> int | None:
        """How long a job takes: the median of the last 20 that were completed, in milliseconds;
        None if there is none."""
        rows = self._rows(
            "SELECT completed_at - started_at FROM jobs WHERE status = 'completed'"
            " ORDER BY rowid DESC LIMIT 20"
        )
        times = sorted(row[0] for row in rows if isinstance(row[0], int))
        return times[len(times) // 2] if times else None

    def estimate(self, position: int) -> float | None:
        """Return the seconds until the job at this position is done, by the median of the last
        runs; None before the first."""
        typical = self.typical_ms()
        if typical is None:
            return None
        left = position * typical
        for job in self.by_status(JobStatus.RUNNING):
            left += max(0, typical - (self._now() - (job.started_at or 0)))
        return left / 1000

    def waiting(self, user_id: str) -> int:
        """How many jobs of this person wait or run, in all servers."""
        rows = self._rows(
            "SELECT count(*) FROM jobs WHERE discord_user_id = ?"
            " AND status IN ('queued', 'running')",
            user_id,
        )
        return int(rows[0][0])

    def by_person(
        self, user_id: str, guild_id: str, *, offset: int, limit: int
    ) -> tuple[list[Job], int]:
        """Of the completed jobs of a person in a server, newest first, at most `limit` after the
        first `offset`; and how many there are in all."""
        condition = "WHERE discord_user_id = ? AND discord_guild_id = ? AND status = 'completed'"
        jobs = self._select(
            f"{condition} ORDER BY rowid DESC LIMIT ? OFFSET ?", user_id, guild_id, limit, offset
        )
        rows = self._rows(f"SELECT count(*) FROM jobs {condition}", user_id, guild_id)
        return jobs, int(rows[0][0])

    def blocked(self, guild_id: str) -> tuple[BlockedTerm, ...]:
        """The blocked terms of a server, in the order of their keys."""
        rows = self._rows(
            "SELECT term, typed, added_by, added_at FROM blocked_terms"
            " WHERE discord_guild_id = ? ORDER BY term",
            guild_id,
        )
        return tuple(
            BlockedTerm(key=row[0], typed=row[1], user_id=row[2], added_at=row[3]) for row in rows
        )

    # Changing

    def insert(self, params: JobParams) -> str:
        """Add a queued job; its id (UUIDv4) is returned once the row is safely on the disk.
        StoreError if that would be into a file that nobody will read again."""
        self._refuse_if_gone()
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
            "UPDATE jobs SET status = 'running', started_at = ?, on_server = 1"
            " WHERE id = ? AND status = 'queued'",
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
            "UPDATE jobs SET status = 'completed', output_images = ?, completed_at = ?,"
            " on_server = 0 WHERE id = ? AND status = 'running'",
            json.dumps(list(images)),
            self._now(),
            job_id,
        )

    def fail(self, job_id: str, message: str, *, on_server: bool = False) -> bool:
        """running → failed, with a sentence fit for the person who asked. `on_server`: its prompt
        may still be there, and has to be stopped."""
        return self._change(
            "UPDATE jobs SET status = 'failed', error_message = ?, completed_at = ?, on_server = ?"
            " WHERE id = ? AND status = 'running'",
            message,
            self._now(),
            on_server,
            job_id,
        )

    def cancel(self, job_id: str, leaving: JobStatus, message: str | None = None) -> bool:
        """`leaving`, which is queued or running, → cancelled; with a sentence for the person who
        asked if it was somebody else's doing."""
        return self._change(
            "UPDATE jobs SET status = 'cancelled', error_message = ?, completed_at = ?"
            " WHERE id = ? AND status = ? AND status IN ('queued', 'running')",
            message,
            self._now(),
            job_id,
            leaving.value,
        )

    def off_server(self, job_id: str) -> bool:
        """Note that ComfyUI has no prompt of an ended job any more."""
        return self._change(
            f"UPDATE jobs SET on_server = 0 WHERE id = ? AND status IN {FINAL}", job_id
        )

    def announced(self, job_id: str, message_id: str) -> bool:
        """Note the "Generating…" message of a job, the one that shows its progress."""
        return self._change(
            "UPDATE jobs SET discord_message_id = ? WHERE id = ?", message_id, job_id
        )

    def report_tried(self, job_id: str) -> bool:
        """Note that the report of an ended job is about to be posted."""
        return self._change(
            f"UPDATE jobs SET report_tried_at = ? WHERE id = ? AND status IN {FINAL}",
            self._now(),
            job_id,
        )

    def delivered(
        self, job_id: str, message_ids: Sequence[str] = (), channel_id: str | None = None
    ) -> bool:
        """Note that the report of an ended job has reached Discord, in these messages of a
        channel."""
        return self._change(
            "UPDATE jobs SET delivered_at = ?, report_message_ids = ?, report_channel_id = ?"
            f" WHERE id = ? AND delivered_at IS NULL AND status IN {FINAL}",
            self._now(),
            json.dumps(list(message_ids)),
            channel_id,
            job_id,
        )

    def report_removed(self, job_id: str) -> bool:
        """Note that the messages which a job was reported with are there no more."""
        return self._change("UPDATE jobs SET report_message_ids = '[]' WHERE id = ?", job_id)

    def purge(self, before: int) -> int:
        """Remove the reported jobs that ended before this time (Unix ms); how many there were.
        A part at a time, so that others get their turn."""
        total, gone = 0, PURGED_AT_ONCE
        while gone == PURGED_AT_ONCE:
            with self._transaction() as connection:
                gone = connection.execute(
                    "DELETE FROM jobs WHERE rowid IN (SELECT rowid FROM jobs WHERE completed_at < ?"
                    f" AND delivered_at IS NOT NULL AND NOT on_server AND status IN {FINAL}"
                    " LIMIT ?)",
                    (before, PURGED_AT_ONCE),
                ).rowcount
            total += gone
            time.sleep(0)  # whoever waits for the lock has it next
        return total

    def add_blocked(self, guild_id: str, terms: Iterable[tuple[str, str]], user_id: str) -> int:
        """Add terms to those of a server, each its key and as it was typed; how many were new. All
        or none is added; StoreError as in `insert`."""
        self._refuse_if_gone()
        now = self._now()
        with self._transaction() as connection:
            return connection.executemany(
                "INSERT INTO blocked_terms (discord_guild_id, term, typed, added_by, added_at)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                ((guild_id, key, typed, user_id, now) for key, typed in terms),
            ).rowcount

    def remove_blocked(self, guild_id: str, key: str) -> bool:
        """Remove a term from those of a server; False if it has none with this key. StoreError
        as in `insert`."""
        self._refuse_if_gone()
        return self._change(
            "DELETE FROM blocked_terms WHERE discord_guild_id = ? AND term = ?", guild_id, key
        )

    # Inside

    def _refuse_if_gone(self) -> None:
        if self._is_gone():
            raise StoreError(
                f"the database {self._path} was deleted or replaced while the bot works on it:"
                " nothing is queued any more; restart the bot, with the old file if there is one",
                "The bot's job list is not available. Please tell the bot's owner.",
            )

    def _select(self, condition: str, *values: object) -> list[Job]:
        columns = ", ".join(f"{column} AS {name}" for name, column in COLUMNS.items())
        jobs = []
        for row in self._rows(f"SELECT {columns} FROM jobs {condition}", *values):
            try:
                jobs.append(_job(row))
            except (ValueError, TypeError, RecursionError) as error:
                self._close_unreadable(str(row["id"]), error)
        return jobs

    def _close_unknown_states(self) -> None:
        """Such a row is in none of the lists, so nobody would ever come across it."""
        states = sorted(status.value for status in JobStatus)
        gaps = [f"status < '{states[0]}'", f"status > '{states[-1]}'"]
        # As ranges, so that the index finds them among a million others at once.
        gaps += [f"status > '{low}' AND status < '{high}'" for low, high in pairwise(states)]
        self._select(f"WHERE {' OR '.join(gaps)}")

    def _close_unreadable(self, job_id: str, error: Exception) -> None:
        """One row that somebody has damaged must not keep the others from being made."""
        log.error("job %s: its row cannot be read (%s), so it is closed as failed", job_id, error)
        self._change(
            "UPDATE jobs SET status = 'failed', error_message = 'The row could not be read.',"
            " completed_at = ?1, delivered_at = ?1"
            " WHERE id = ?2 AND (delivered_at IS NULL OR status != 'failed')",
            self._now(),
            job_id,
        )

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
            if "locked" in text:
                text = "it is locked by another program; close that one and try again"
            elif type(error) is sqlite3.DatabaseError or "malformed" in text:
                text = f"it is damaged or not a database ({text}); restore a backup or move it away"
            else:
                text += "; check its place and who may write there, or set DB_PATH to another file"
            raise StoreError(f"the database {self._path} cannot be used: {text}") from error

    def _migrate(self) -> None:
        for number in range(_version(self._connection) + 1, len(MIGRATIONS) + 1):
            with self._transaction() as connection:
                for statement in MIGRATIONS[number - 1]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            log.info("database: migration %d applied", number)


@contextlib.contextmanager
def _instance_lock(database: Path) -> Iterator[None]:
    """Keep every other process off the database; StoreError if one has it already. The
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
            raise StoreError(
                f"another copy of the bot already works on the database {database}: stop that one"
                " first, or set DB_PATH to another file"
            ) from error
        yield


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that this version must not write to. Only reads."""
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the database {path} is of version {version}, this program knows versions up to"
            f" {len(MIGRATIONS)}: update the program or set DB_PATH to another file"
        )
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    columns = {row["name"] for row in connection.execute("PRAGMA table_info(jobs)")}
    later = (names for number, names in ADDED_BY.items() if number > version)
    expected = set(COLUMNS.values()).difference(*later)
    if columns and not columns >= expected:
        raise StoreError(
            f"the database {path} belongs to another program: set DB_PATH to another file"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file this is, whatever its name; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _job(row: sqlite3.Row) -> Job:
    """The row as a job; ValueError, TypeError or RecursionError if it is not one that this program
    wrote."""
    values: dict[str, Any] = dict(row)
    values["status"] = JobStatus(values["status"])
    values["output_images"] = _names(values["output_images"])
    values["report_message_ids"] = _names(values["report_message_ids"])
    values["seed"] = None if values["seed"] is None else int(values["seed"])
    values["on_server"] = bool(values["on_server"])
    for name in ("created_at", "steps", "cfg"):
        float(values[name])
    for name in ("started_at", "completed_at", "delivered_at", "report_tried_at"):
        if not isinstance(values[name], int | None):
            raise TypeError(f"{name} is no number")
    for field in fields(JobParams):
        if field.type == "str" and not isinstance(values[field.name], str):
            raise TypeError(f"{field.name} is no text")
    if values["status"] is JobStatus.COMPLETED:
        for name in ("started_at", "completed_at"):
            if not isinstance(values[name], int):
                raise TypeError(f"it is completed without {name}")
    return Job(**values)


def _names(text: str | None) -> tuple[str, ...]:
    names = json.loads(text or "[]")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("its pictures are no list of names")
    return tuple(names)
