"""The database of the jobs, of people's pictures and of blocked terms: the only file with SQL.

Owns the schema, the migrations, and every statement that reads or changes a row. The worker, the
sweeper and the event loop's thread pool share one `Store`; a lock lets them in one at a time. A
statement may wait for the disk, so the event loop never calls in here directly.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import lock
from job import Job, JobParams, JobStatus
from settings import DAY_MS
from text import PublicError

log = logging.getLogger(__name__)

LOW_DISK_BYTES = 2**30  # with less, the disk of the database is nearly full
BUSY_SECONDS = 5.0  # how long a statement waits for another program that holds the database

# Each entry is one migration, committed together with its number in PRAGMA user_version.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, discord_user_id TEXT NOT NULL,"
        " discord_guild_id TEXT NOT NULL, discord_channel_id TEXT NOT NULL,"
        " discord_message_id TEXT, status TEXT NOT NULL DEFAULT 'queued', model TEXT NOT NULL,"
        " sampler TEXT NOT NULL, scheduler TEXT NOT NULL, steps INTEGER NOT NULL, cfg REAL NOT"
        " NULL, positive_prompt TEXT NOT NULL, negative_prompt TEXT NOT NULL DEFAULT '',"
        " comfy_prompt_id TEXT, output_images TEXT, error_message TEXT,"
        " created_at INTEGER NOT NULL, started_at INTEGER, completed_at INTEGER)",
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
        "CREATE TABLE blocked_terms (discord_guild_id TEXT NOT NULL, term TEXT NOT NULL,"
        " typed TEXT NOT NULL, added_by TEXT NOT NULL, added_at INTEGER NOT NULL,"
        " PRIMARY KEY (discord_guild_id, term)) WITHOUT ROWID",
        "ALTER TABLE jobs ADD COLUMN report_channel_id TEXT",
        "CREATE INDEX idx_jobs_waiting ON jobs(discord_user_id)"
        " WHERE status IN ('queued', 'running')",
        "CREATE INDEX idx_jobs_history ON jobs(discord_user_id, discord_guild_id, status)"
        " WHERE status = 'completed'",
    ),
    ("ALTER TABLE jobs ADD COLUMN interaction_id TEXT",),
    (
        "ALTER TABLE jobs ADD COLUMN size TEXT",
        "CREATE TABLE typed_texts (form TEXT PRIMARY KEY, discord_user_id TEXT NOT NULL,"
        " texts TEXT NOT NULL, kept_at INTEGER NOT NULL) WITHOUT ROWID",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN count INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN length INTEGER NOT NULL DEFAULT 0",
    ),
    (
        "CREATE TABLE pictures (hash TEXT PRIMARY KEY, data BLOB NOT NULL,"
        " added_at INTEGER NOT NULL)",
        "ALTER TABLE jobs ADD COLUMN image TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE jobs ADD COLUMN strength REAL NOT NULL DEFAULT 0",
        "CREATE INDEX idx_jobs_image ON jobs(image) WHERE image != ''",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN server TEXT NOT NULL DEFAULT ''",
        # Prompts of jobs that have gone from a server to the queue, and are to be stopped there.
        "CREATE TABLE left_prompts (prompt_id TEXT PRIMARY KEY, job_id TEXT NOT NULL,"
        " server TEXT NOT NULL) WITHOUT ROWID",
    ),
)


class StoreError(PublicError):
    """The database cannot be used."""

    user_message = "The bot could not write to its job list. Please try again in a minute."


class InUse(StoreError):
    """Another copy of the bot has it."""


@dataclass(frozen=True, kw_only=True)
class BlockedTerm:
    """A word that a server does not want: `key` is what it is compared by, `typed` what its
    moderator typed, `user_id` who that was, and `added_at` when, in Unix milliseconds."""

    key: str
    typed: str
    user_id: str
    added_at: int


COLUMNS = {field.name: field.name for field in fields(Job)}  # by the field of a job
COLUMNS |= {name: f"discord_{name}" for name in ("user_id", "guild_id", "channel_id")}
QUEUED, RUNNING = "status = 'queued'", "status = 'running'"
WAITING = "status IN ('queued', 'running')"
FINAL = "status IN ('completed', 'failed', 'cancelled')"
STATES = sorted(status.value for status in JobStatus)
UNKNOWN_STATE = " OR ".join(  # as ranges, so that the index finds them among a million others
    [f"status > '{low}' AND status < '{high}'" for low, high in pairwise(STATES)]
    + [f"status < '{STATES[0]}'", f"status > '{STATES[-1]}'"]
)
PURGED_AT_ONCE = 500  # rows of one transaction, so that other threads do not wait long


def unix_ms() -> int:
    """Return the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Store:
    """The jobs and blocked terms of one database file; safe to share between threads.

    Raises a `StoreError` from every method when the database fails. Transitions return True if
    this call made the change, False if the job had already left the state that it starts from.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the database and bring it to this version; nothing is written to a file
        that is damaged, of a newer version, or of another program."""
        self._path = path.resolve()
        self._lock = threading.RLock()
        self._cleanup = contextlib.ExitStack()
        try:
            self._cleanup.enter_context(_locked(self._path))
            # Closed after the connection, as closing a file drops the locks that SQLite has on it.
            last = self._cleanup.enter_context(contextlib.ExitStack())
            with _translated(self._path):
                self._connection = sqlite3.connect(
                    self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
                )
                self._cleanup.callback(self._connection.close)
                self._file = last.enter_context(self._path.open("rb"))
                self._cleanup.callback(self._empty_journal)
                _prepare(self._connection, self._path)
            self._select(f"WHERE {UNKNOWN_STATE}")  # reading them closes them
            # A file that may be read and not written is found out here, not by a job.
            self.keep_typed("", "", "")
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        with self._lock:
            self._cleanup.close()

    def _empty_journal(self) -> None:
        """Empty the journal (`-wal`) of a file that was moved: SQLite leaves it in place, and would
        replay it into whatever file has that name next."""
        with contextlib.suppress(sqlite3.Error):
            if self._is_gone():
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _is_gone(self) -> bool:
        return not (self._file.closed or _is_same(self._file, self._path))

    def get(self, job_id: str) -> Job | None:
        """Return the job with this id."""
        return next(iter(self._select("WHERE id = ?", job_id)), None)

    def by_status(self, status: JobStatus) -> list[Job]:
        """Return all jobs in this state, oldest first."""
        return self._select("WHERE status = ? ORDER BY rowid", status.value)

    def undelivered(self) -> list[Job]:
        """Return the ended jobs whose report has not reached Discord, oldest first."""
        return self._select(f"WHERE {FINAL} AND delivered_at IS NULL ORDER BY rowid")

    def unwanted(self, keys: Sequence[str] = ("",), is_only: bool = True) -> list[tuple[str, str]]:
        """Return the jobs of which a server with these keys may still have a prompt that is not
        wanted any more, with the prompt's id, oldest first; the only one has all jobs."""
        there = f"server IN ({', '.join('?' * len(keys))})"
        query = f"SELECT id, coalesce(comfy_prompt_id, id) FROM jobs WHERE {FINAL} AND on_server"
        left = f"SELECT job_id, prompt_id FROM left_prompts WHERE {there}"
        rows = self._rows(f"{query} AND (? OR {there}) ORDER BY rowid", is_only, *keys)
        rows += self._rows(left, *keys)
        return [(str(job), str(prompt)) for job, prompt in rows]

    def position(self, job_id: str) -> int | None:
        """Return the place in the queue, from 1; None if the job is not queued."""
        # The rowid is the order of insertion, and in the index on status: no row is read.
        rows = self._rows(
            "SELECT (SELECT count(*) FROM jobs WHERE status = 'queued' AND rowid < this.rowid) + 1"
            " FROM jobs AS this WHERE id = ? AND status = 'queued'",
            job_id,
        )
        return int(rows[0][0]) if rows else None

    def standings(
        self, job_ids: Collection[str], places: int
    ) -> dict[str, tuple[JobStatus, bool, int | None]]:
        """Return for each of these jobs its state, whether it is reported, and its position if
        that is among so many first. Jobs whose rows are gone are left out."""
        first = self._rows(f"SELECT id FROM jobs WHERE {QUEUED} ORDER BY rowid LIMIT ?", places)
        positions = {row[0]: position for position, row in enumerate(first, start=1)}
        asked = ", ".join("?" * len(job_ids))
        query = f"SELECT id, status, delivered_at IS NOT NULL FROM jobs WHERE id IN ({asked})"
        return {
            job_id: (JobStatus(status), bool(is_reported), positions.get(job_id))
            for job_id, status, is_reported in self._rows(query, *job_ids)
            if status in STATES  # a damaged row may have another
        }

    def estimate(self, position: int, servers: int) -> float | None:
        """Return the seconds until the job at this position is done by so many servers, by the
        median of the last 20 that were completed; None before the first."""
        query = "SELECT completed_at - started_at FROM jobs WHERE status = 'completed'"
        rows = self._rows(f"{query} ORDER BY rowid DESC LIMIT 20")
        times = sorted(row[0] for row in rows if isinstance(row[0], int))
        if not times:
            return None
        typical = times[len(times) // 2]
        running = [job.started_at or 0 for job in self.by_status(JobStatus.RUNNING)]
        left = sum(max(0, typical - (unix_ms() - started)) for started in running)
        # Nothing is quicker than one job.
        return max(position * typical + left, typical * min(position, 1) * servers) / 1000 / servers

    def waiting(self, user_id: str) -> int:
        """Return how many jobs of this person wait or run, in all servers."""
        return self._count(f"WHERE discord_user_id = ? AND {WAITING}", user_id)

    def by_person(
        self, user_id: str, guild_id: str, *, offset: int, limit: int
    ) -> tuple[list[Job], int]:
        """Return the completed jobs of a person in a server, newest first, at most `limit` after
        the first `offset`; and how many there are in all."""
        condition = "WHERE discord_user_id = ? AND discord_guild_id = ? AND status = 'completed'"
        part = f"{condition} ORDER BY rowid DESC LIMIT ? OFFSET ?"
        jobs = self._select(part, user_id, guild_id, limit, offset)
        return jobs, self._count(condition, user_id, guild_id)

    def blocked(self, guild_id: str) -> tuple[BlockedTerm, ...]:
        """Return the blocked terms of a server, in the order of their keys."""
        columns = "term AS key, typed, added_by AS user_id, added_at"
        query = f"SELECT {columns} FROM blocked_terms WHERE discord_guild_id = ? ORDER BY term"
        return tuple(BlockedTerm(**row) for row in self._rows(query, guild_id))

    def insert(self, params: JobParams) -> str:
        """Add a queued job and return its id (UUIDv4) once the row is safely on the disk. Raises
        StoreError if the file was deleted or replaced, as no later start would read the row."""
        self._refuse_if_gone()
        job_id = str(uuid.uuid4())
        row = {COLUMNS[field.name]: getattr(params, field.name) for field in fields(JobParams)}
        row |= {"id": job_id, "created_at": unix_ms()}
        row["seed"] = None if params.seed is None else str(params.seed)
        self._execute(
            f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            *row.values(),
        )
        return job_id

    def start(self, job_id: str, server: str = "") -> bool:
        """queued → running, on the server with this key."""
        changes = {"started_at": unix_ms(), "on_server": True, "server": server}
        return self._update(job_id, QUEUED, status="running", **changes)

    def put_back(self, job_id: str) -> bool:
        """running → queued, to be run under another prompt id; that of before is noted as left on
        its server, where it has to be stopped."""
        changes = "status = 'queued', started_at = NULL, on_server = 0, comfy_prompt_id = ?"
        return self._leave(job_id, changes, str(uuid.uuid4()))

    def take_up(self, job_id: str, server: str) -> bool:
        """Note that a running job goes on on another server, under the same prompt id."""
        return self._leave(job_id, "server = ?", server)

    def _leave(self, job_id: str, changes: str, value: str) -> bool:
        job, row = f"id = ? AND {RUNNING}", "coalesce(comfy_prompt_id, id), id, server FROM jobs"
        with self._transaction() as connection:
            connection.execute(f"REPLACE INTO left_prompts SELECT {row} WHERE {job}", (job_id,))
            changed = connection.execute(f"UPDATE jobs SET {changes} WHERE {job}", (value, job_id))
            return changed.rowcount == 1

    def submitted(self, job_id: str, prompt_id: str) -> bool:
        """Note the id under which ComfyUI has the prompt of a running job."""
        return self._update(job_id, RUNNING, comfy_prompt_id=prompt_id)

    def complete(self, job_id: str, images: Sequence[str]) -> bool:
        """running → completed, with the names of its pictures."""
        names = json.dumps(list(images))
        return self._end(job_id, RUNNING, "completed", output_images=names, on_server=False)

    def fail(self, job_id: str, message: str, *, on_server: bool = False) -> bool:
        """running → failed, with a sentence fit for the person who asked. `on_server`: its prompt
        may still be there, and has to be stopped."""
        return self._end(job_id, RUNNING, "failed", error_message=message, on_server=on_server)

    def cancel(self, job_id: str, leaving: JobStatus, message: str | None = None) -> bool:
        """`leaving`, which is queued or running, → cancelled; with a sentence for the person who
        asked if it was not their own doing."""
        condition = f"status = '{leaving.value}' AND {WAITING}"
        return self._end(job_id, condition, "cancelled", error_message=message)

    def off_server(self, job_id: str, prompt_id: str) -> bool:
        """Note that ComfyUI does not have an unwanted prompt of a job any more."""
        if self._execute("DELETE FROM left_prompts WHERE prompt_id = ?", prompt_id):
            return True
        return self._update(job_id, FINAL, on_server=False)

    def announced(self, job_id: str, message_id: str) -> bool:
        """Note the "Generating…" message of a job, the one that shows its progress."""
        return self._update(job_id, discord_message_id=message_id)

    def report_tried(self, job_id: str) -> bool:
        """Note that the report of an ended job is about to be posted."""
        return self._update(job_id, FINAL, report_tried_at=unix_ms())

    def report_moved(self, job_id: str, channel_id: str) -> bool:
        """Note that the report of an ended job is about to be posted in another channel."""
        return self._update(job_id, FINAL, report_channel_id=channel_id)

    def delivered(
        self, job_id: str, message_ids: Sequence[str] = (), channel_id: str | None = None
    ) -> bool:
        """Note that the report of an ended job has reached Discord, in these messages of a
        channel."""
        ids, condition = json.dumps(list(message_ids)), f"delivered_at IS NULL AND {FINAL}"
        changes = {"delivered_at": unix_ms(), "report_channel_id": channel_id}
        return self._update(job_id, condition, report_message_ids=ids, **changes)

    def report_removed(self, job_id: str) -> bool:
        """Note that the messages which a job was reported with are there no more."""
        return self._update(job_id, report_message_ids="[]")

    def purge(self, before: int) -> int:
        """Remove the reported jobs that ended before this time (Unix ms), a part at a time, and
        return how many there were."""
        total, gone = 0, PURGED_AT_ONCE
        while gone == PURGED_AT_ONCE:
            gone = self._execute(
                "DELETE FROM jobs WHERE rowid IN (SELECT rowid FROM jobs WHERE completed_at < ?"
                f" AND delivered_at IS NOT NULL AND NOT on_server AND {FINAL} LIMIT ?)",
                before,
                PURGED_AT_ONCE,
            )
            total += gone
            time.sleep(0)  # lets another thread have the lock
        return total

    def add_blocked(self, guild_id: str, terms: Iterable[tuple[str, str]], user_id: str) -> int:
        """Add terms to those of a server, each its key and as it was typed, and return how many
        were new. All or none is added; raises StoreError as `insert` does."""
        self._refuse_if_gone()
        with self._transaction() as connection:
            return connection.executemany(
                "INSERT INTO blocked_terms (discord_guild_id, term, typed, added_by, added_at)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                ((guild_id, key, typed, user_id, unix_ms()) for key, typed in terms),
            ).rowcount

    def remove_blocked(self, guild_id: str, key: str) -> bool:
        """Remove a term from those of a server and return whether it had one with this key. Raises
        StoreError as `insert` does."""
        self._refuse_if_gone()
        statement = "DELETE FROM blocked_terms WHERE discord_guild_id = ? AND term = ?"
        return self._execute(statement, guild_id, key) == 1

    def keep_typed(self, form: str, user_id: str, texts: str) -> None:
        """Keep what a person typed into a form, for a day; empty texts forget it."""
        with self._transaction() as connection:
            outdated = "DELETE FROM typed_texts WHERE form = ? OR kept_at < ?"
            connection.execute(outdated, (form, unix_ms() - DAY_MS))
            if texts:
                row = (form, user_id, texts, unix_ms())
                connection.execute("INSERT INTO typed_texts VALUES (?, ?, ?, ?)", row)

    def typed(self, form: str, user_id: str) -> str:
        """Return what is kept of a form of this person; empty if nothing is."""
        query = "SELECT texts FROM typed_texts WHERE form = ? AND discord_user_id = ?"
        return next((str(row[0]) for row in self._rows(query, form, user_id)), "")

    def keep_picture(self, data: bytes) -> str:
        """Keep a person's picture, for another while if it is here already, and return its hash."""
        name = hashlib.sha256(data).hexdigest()
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO pictures VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET added_at = excluded.added_at",
                (name, data, unix_ms()),
            )
        return name

    def picture(self, name: str) -> bytes | None:
        """Return the picture with this hash; None if it is not kept."""
        rows = self._rows("SELECT data FROM pictures WHERE hash = ?", name)
        return bytes(rows[0][0]) if rows else None

    def purge_pictures(self, before: int) -> int:
        """Remove the pictures that came before this time (Unix ms), and after a day those of no
        job; but none that a queued or running job needs. Return how many there were."""
        job = "SELECT 1 FROM jobs WHERE image != '' AND image = hash"
        return self._execute(
            f"DELETE FROM pictures WHERE NOT EXISTS ({job} AND {WAITING})"
            f" AND (added_at < ? OR added_at < ? AND NOT EXISTS ({job}))",
            before,
            unix_ms() - DAY_MS,
        )

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

    def _count(self, condition: str, *values: object) -> int:
        return int(self._rows(f"SELECT count(*) FROM jobs {condition}", *values)[0][0])

    def _close_unreadable(self, job_id: str, error: Exception) -> None:
        """Close a damaged row as failed, so that the other jobs are made all the same."""
        log.error("job %s: its row cannot be read (%s), so it is closed as failed", job_id, error)
        told = {"error_message": "The row could not be read.", "delivered_at": unix_ms()}
        self._end(job_id, "(delivered_at IS NULL OR status != 'failed')", "failed", **told)

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, _translated(self._path):
            return self._connection.execute(query, values).fetchall()

    def _update(self, job_id: str, condition: str = "TRUE", **changes: object) -> bool:
        """Change the job's row if it meets the condition, and return whether it did."""
        assignments = ", ".join(f"{column} = ?" for column in changes)
        statement = f"UPDATE jobs SET {assignments} WHERE id = ? AND {condition}"
        return self._execute(statement, *changes.values(), job_id) == 1

    def _end(self, job_id: str, condition: str, status: str, **changes: object) -> bool:
        """Bring a job into a final state; else as `_update()`."""
        return self._update(job_id, condition, status=status, completed_at=unix_ms(), **changes)

    def _execute(self, statement: str, *values: object) -> int:
        """Change rows in one transaction, and return how many."""
        with self._transaction() as connection:
            return connection.execute(statement, values).rowcount

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for one transaction, rolled back when the body fails."""
        with self._lock, _translated(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection


def _locked(database: Path) -> BinaryIO:
    """Keep every other process off the database, until the file that is returned is closed."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        return lock.hold(Path(f"{database}.lock"))
    except BlockingIOError as error:
        copy = "another copy of the bot already works on the database"
        raise InUse(f"{copy} {database}: stop that one first") from error
    except OSError as error:
        text = f"the database {database} cannot be used: {error}; set DB_PATH elsewhere"
        raise StoreError(text) from error


def _is_same(file: BinaryIO, path: Path) -> bool:
    """Return whether an open file still has its name. On a share (CIFS, FUSE) its inode may get
    another number meanwhile, so another number alone does not make it another file."""
    with contextlib.suppress(OSError):
        ours, named = os.fstat(file.fileno()), os.stat(path)
        is_as_it_was = (ours.st_size, ours.st_mtime_ns) == (named.st_size, named.st_mtime_ns)
        return is_as_it_was or os.path.samestat(ours, named)
    return False


def inspect(path: Path) -> None:
    """Check that a start could use a database; change nothing, and keep no bot from it."""
    _locked(path).close()
    with _translated(path):
        connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None)
        with contextlib.closing(connection):
            _check(connection, path)
            connection.execute("BEGIN IMMEDIATE")  # a file that may be read and not written


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn sqlite3's errors into ours."""
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
        raise StoreError(f"the database {path} cannot be used: {text}") from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check the file, set the connection up, and apply the migrations that the file lacks."""
    connection.row_factory = sqlite3.Row
    # sqlite3 would refuse all rows of an answer for one text that is not UTF-8.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    _check(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    for number in range(_version(connection) + 1, len(MIGRATIONS) + 1):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in MIGRATIONS[number - 1]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        log.info("database: migration %d applied", number)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise for a file that this version must not write to. Only reads."""
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the database {path} is of version {version}, this program knows versions up to"
            f" {len(MIGRATIONS)}: update the program or set DB_PATH to another file"
        )
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    columns = {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}
    added_later = re.findall(r"ALTER TABLE jobs ADD COLUMN (\w+)", str(MIGRATIONS[version:]))
    expected = set(COLUMNS.values()).difference(added_later)
    if columns and not columns >= expected:
        raise StoreError(
            f"the database {path} belongs to another program: set DB_PATH to another file"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _job(row: sqlite3.Row) -> Job:
    """Return the row as a job. Raises ValueError, TypeError or RecursionError if it is not one that
    this program wrote."""
    values: dict[str, Any] = dict(row)
    values["status"] = JobStatus(values["status"])
    values["output_images"] = _names(values["output_images"])
    values["report_message_ids"] = _names(values["report_message_ids"])
    values["seed"] = None if values["seed"] is None else int(values["seed"])
    values["on_server"] = bool(values["on_server"])
    for name in ("created_at", "steps", "cfg", "count", "length"):
        float(values[name])
    needed = ("started_at", "completed_at") if values["status"] is JobStatus.COMPLETED else ()
    for name in ("started_at", "completed_at", "delivered_at", "report_tried_at"):
        if not isinstance(values[name], int if name in needed else int | None):
            raise TypeError(f"{name} is no number")
    for field in fields(JobParams):
        if field.type == "str" and not isinstance(values[field.name], str):
            raise TypeError(f"{field.name} is no text")
    return Job(**values)


def _names(text: str | None) -> tuple[str, ...]:
    names = json.loads(text or "[]")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("its pictures are no list of names")
    return tuple(names)
