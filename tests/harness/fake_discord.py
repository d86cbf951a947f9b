"""Fakes of discord.py's client and of ComfyUI in the process, with a real store: a World for the
reporter's tests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import discord
import pytest

from bot import reporter, running
from bot.controls import job_view
from bot.reporter import Reporter
from comfyui.errors import NoPreview
from comfyui.history import ImageRef
from comfyui.progress import Progress
from job import Job, JobStatus
from settings import Server
from store import Store, unix_ms
from tests.factories import CHANNEL, ELSEWHERE, GUILD, a_catalog, params, settings

LIMIT = 10.0  # seconds that anything may take which has to come
BOT = discord.Object(99)
SOMEBODY = discord.Object(98)
MIB = 2**20
SMALLEST_LIMIT = 100  # bytes of a file, where a test makes Discord's limits small


def http_error(status: int) -> discord.HTTPException:
    """What discord.py raises for an answer with this status."""
    kinds = {403: discord.Forbidden, 404: discord.NotFound}
    kind = kinds.get(status, discord.DiscordServerError if status >= 500 else discord.HTTPException)
    response: Any = SimpleNamespace(status=status, reason="as told")
    return kind(response, {"code": 0, "message": "as told"})


@dataclass
class Posted:
    """A message in a fake channel."""

    id: int
    channel: FakeChannel
    content: str = ""
    embeds: list[discord.Embed] = field(default_factory=list)
    view: discord.ui.View | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    descriptions: list[str | None] = field(default_factory=list)  # of the files
    author: discord.Object = BOT
    created_at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    allowed_mentions: discord.AllowedMentions | None = None

    @property
    def attachments(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(filename=name) for name in self.files]

    @property
    def components(self) -> list[discord.ActionRow]:
        rows: list[Any] = self.view.to_components() if self.view else []
        return [discord.ActionRow(row) for row in rows]

    async def edit(self, **changes: Any) -> None:
        await self.channel.act("edit", self.id)
        if self.channel.hanging_edits:
            self.channel.hanging_edits -= 1
            await asyncio.Event().wait()
        if "embed" in changes:
            self.embeds = [changes["embed"]]
        self.content = changes.get("content", self.content)
        self.view = changes.get("view", self.view)
        if "attachments" in changes:
            self.files = {file.filename: file.fp.read() for file in changes["attachments"]}
            self.descriptions = [file.description for file in changes["attachments"]]
            self.channel.pictures += list(self.files.values())
            self.channel.uploads += changes["attachments"]
            for file in changes["attachments"]:
                file.close()  # discord.py's own, which only gives the file back

    async def delete(self) -> None:
        await self.channel.act("delete", self.id)
        del self.channel.messages[self.id]


class FakeChannel:
    """A channel, or the DM with a person. Notes what is done, and fails as told."""

    def __init__(self, world: World, channel_id: int = 0) -> None:
        self.id = channel_id
        self._world = world
        self._failures: dict[str, list[Exception | None]] = {}
        self._nonces: dict[str, Posted] = {}
        self._ids = itertools.count(1000)
        self._lost: list[Exception] = []
        self.hanging_edits = 0  # so many edits from now on do not arrive, and are never answered
        self.hangs_after = 0  # so many posts from now on arrive, and are never answered
        self.forgets_nonces = False  # as Discord does after some minutes
        self.is_open = asyncio.Event()  # until it is, whoever posts has to wait
        self.is_open.set()
        self.messages: dict[int, Posted] = {}
        self.acts: list[str] = []  # what was tried, by its method's name
        self.pictures: list[bytes] = []  # that came into messages with an edit
        self.uploads: list[discord.File] = []  # with which they came

    def fail(self, kind: str, *errors: Exception | None) -> None:
        """The next tries end with these errors, one each; None: that one works."""
        self._failures.setdefault(kind, []).extend(errors)

    def lose(self, *errors: Exception) -> None:
        """The next posts arrive, and their answers are these errors."""
        self._lost.extend(errors)

    async def act(self, kind: str, message_id: int | None = None) -> None:
        self.acts.append(kind)
        self._world.changed()
        error = self._failures[kind].pop(0) if self._failures.get(kind) else None
        if error is not None:
            raise error
        if message_id is not None and message_id not in self.messages:
            raise http_error(404)

    def put(self, **changes: Any) -> Posted:
        """A message that is there already."""
        message = Posted(next(self._ids), self, **changes)
        self.messages[message.id] = message
        return message

    async def send(self, content: str | None = None, **more: Any) -> Posted:
        files: dict[str, bytes] = {}
        descriptions: list[str | None] = []
        for file in more.get("files", ()):
            files[file.filename] = file.fp.read()
            descriptions.append(file.description)
            file.close()  # discord.py's own, which only gives the file back
        self.acts.append("begin")
        self._world.changed()
        await self.is_open.wait()
        await self.act("send")
        message = None if self.forgets_nonces else self._nonces.get(more["nonce"])
        if message is None:
            message = self.put(
                content=content or "",
                embeds=[more["embed"]] if "embed" in more else [],
                view=more.get("view"),
                files=files,
                descriptions=descriptions,
                allowed_mentions=more.get("allowed_mentions"),
            )
            self._nonces[more["nonce"]] = message
        if self.hangs_after:
            self.hangs_after -= 1
            self._world.changed()
            await asyncio.Event().wait()
        if self._lost:
            raise self._lost.pop(0)
        return message

    def get_partial_message(self, message_id: int) -> Any:
        return self.messages.get(message_id) or Posted(message_id, self)

    async def history(
        self, *, after: Any, limit: int | None, oldest_first: bool
    ) -> AsyncIterator[Posted]:
        await self.act("history")
        assert limit is None  # whatever was said in between
        assert oldest_first
        for message in sorted(self.messages.values(), key=lambda message: message.created_at):
            if message.created_at > after.created_at:
                yield message

    def count(self, kind: str) -> int:
        return self.acts.count(kind)

    @property
    def contents(self) -> list[str]:
        return [message.content for message in self.messages.values()]

    @property
    def files(self) -> list[str]:
        """The names of all files in the channel, in order."""
        return [name for message in self.messages.values() for name in message.files]

    @property
    def texts(self) -> str:
        """Everything that its embeds say."""
        embeds = [embed for message in self.messages.values() for embed in message.embeds]
        return "\n".join(str(embed.to_dict()) for embed in embeds)


class FakeDiscord:
    """`discord.Client`, as far as the reporter knows it."""

    def __init__(self, world: World) -> None:
        self._ready = asyncio.Event()
        self._ready.set()
        self.loop: Any = None
        self.user = BOT
        self.channels = {name: FakeChannel(world, name) for name in (CHANNEL, ELSEWHERE)}
        self.channel = self.channels[CHANNEL]
        self.dm = FakeChannel(world)
        self.filesize_limit: int | None = 10 * MIB  # None: the bot does not know the server
        self.spoken_to: list[int] = []

    def is_ready(self) -> bool:
        return self._ready.is_set()

    async def wait_until_ready(self) -> None:
        await self._ready.wait()

    def disconnect(self) -> None:
        self._ready.clear()

    def connect(self) -> None:
        self._ready.set()

    def get_guild(self, guild_id: int) -> Any:
        assert guild_id == GUILD
        limit = self.filesize_limit
        return SimpleNamespace(filesize_limit=limit) if limit is not None else None

    def get_partial_messageable(self, channel_id: int) -> FakeChannel:
        return {**self.channels, self.dm.id: self.dm}[channel_id]

    async def create_dm(self, person: discord.Object) -> FakeChannel:
        self.spoken_to.append(person.id)
        return self.dm


class FakeComfy:
    """One server: `ComfyClient.image`, pictures by their encoding."""

    server = Server("http://127.0.0.1:8188")

    answering = 1

    def __init__(self) -> None:
        self.away_since: float | None = None
        self.sizes = {"": 3, "webp;90": 3, "jpeg;80": 3, "jpeg;60": 3}
        self.failures: dict[str, list[Exception]] = {}  # by file name
        self.no_preview_of: set[str] = set()  # file names
        self.too_large: set[str] = set()  # file names; in every form
        self.asked: list[tuple[str, str]] = []

    def find(self, key: str) -> FakeComfy:
        return self

    def image(self, ref: ImageRef, preview: str = "") -> bytes:
        self.asked.append((ref.filename, preview))
        if self.failures.get(ref.filename):
            raise self.failures[ref.filename].pop(0)
        if preview and ref.filename in self.no_preview_of:
            raise NoPreview(f"{ref} cannot be re-encoded as {preview}")
        return b"x" * (
            SMALLEST_LIMIT + 1 if ref.filename in self.too_large else self.sizes[preview]
        )


class Clock:
    """The store's."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return unix_ms() + self.ahead


class NotedStore(Store):
    """A real store that tells when something was read or noted in it."""

    told: Callable[[str], None] = staticmethod(lambda what: None)

    def get(self, job_id: str) -> Job | None:
        job = super().get(job_id)
        self.told("get")
        return job

    def announced(self, job_id: str, message_id: str) -> bool:
        noted = super().announced(job_id, message_id)
        self.told("announced")
        return noted

    def delivered(
        self, job_id: str, message_ids: Sequence[str] = (), channel_id: str | None = None
    ) -> bool:
        noted = super().delivered(job_id, message_ids, channel_id)
        self.told("delivered")
        return noted

    def standings(
        self, job_ids: Collection[str], places: int
    ) -> dict[str, tuple[JobStatus, bool, int | None]]:
        standings = super().standings(job_ids, places)
        self.told("standings")
        return standings


class World(logging.Handler):
    """A reporter between the fakes, with a real store, and its log."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = NotedStore(folder / "jobs.db")
        self.told: list[str] = []
        self.records: list[logging.LogRecord] = []
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.discord = FakeDiscord(self)
        self.channel = self.discord.channel
        self.comfy = FakeComfy()
        self.threads = ThreadPoolExecutor(4)
        self.reporter = self.restarted()

    # Running a story

    def run(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            self._loop = self.discord.loop = asyncio.get_running_loop()
            try:
                await story()
            finally:
                await self.killed()

        asyncio.run(run())

    async def killed(self) -> None:
        """End the reporter's tasks. Python before 3.12 forgets a cancellation that comes at the
        very moment at which a call with a time limit ends: so it is repeated."""
        for _ in range(100):
            self.reporter.drop()
            await self.reporter.drain(0.05)

    def restarted(self) -> Reporter:
        """A new reporter, which knows only what the store knows."""
        client: Any = self.discord
        comfy: Any = self.comfy
        self.reporter = Reporter(client, settings(), self.store, comfy, a_catalog({}), self.threads)
        return self.reporter

    # Waiting

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._wake()

    def note(self, what: str) -> None:
        self.told.append(what)
        self._wake()

    def changed(self) -> None:
        self._changed.set()

    def _wake(self) -> None:
        """From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as it holds."""

        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), LIMIT)

    async def reported(self, *job_ids: str) -> None:
        """Return once these jobs are noted as reported, and their tasks are over."""
        await self.until(lambda: all(self.job(job_id).delivered_at for job_id in job_ids))
        await asyncio.wait_for(self.reporter.drain(LIMIT), LIMIT)

    async def turns(self) -> None:
        """More turns of the loop and its threads than anything takes that could happen now."""
        for _ in range(30):
            await asyncio.to_thread(lambda: None)

    def log(self, level: int = logging.WARNING) -> str:
        """What was logged, from this level on."""
        return "\n".join(r.getMessage() for r in self.records if r.levelno >= level)

    # Jobs

    def job(self, job_id: str) -> Job:
        job = Store.get(self.store, job_id)
        assert job is not None
        return job

    def running(self, **changes: Any) -> str:
        job_id = self.store.insert(params(**changes))
        assert self.store.start(job_id)
        return job_id

    def completed(self, images: Sequence[str] = ("a.png",), **changes: Any) -> str:
        job_id = self.running(**changes)
        assert self.store.complete(job_id, images)
        return job_id

    def fill(self, count: int) -> None:
        """So many failed jobs that are not reported."""
        job_id = self.failed()
        path = self.store._path
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
            same = ", ".join(columns[1:])
            connection.execute(
                f"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
                f" INSERT INTO jobs (id, {same}) SELECT printf('%032x', i), {same}"
                " FROM jobs, n WHERE id = ?",
                (count - 1, job_id),
            )

    def failed(self) -> str:
        job_id = self.running()
        assert self.store.fail(job_id, "It broke.")
        return job_id

    def post(self, job_id: str, *names: str, **changes: Any) -> Posted:
        """The first message of its report, as an earlier try has posted it."""
        return self.channel.put(
            content="there already",
            view=job_view(job_id, "again", "edit", "delete"),
            files={f"{job_id[:8]}-{name}": b"" for name in names},
            **changes,
        )

    def start(self, job_id: str) -> Progress:
        """Tell the reporter that it began."""
        progress = Progress(job_id, {"239": 10, "52": 10})
        self.reporter.job_started(job_id, progress)
        return progress

    async def announced(self, job_id: str) -> Posted:
        """Its "Generating…" message, once that is posted and noted."""
        await self.until(lambda: bool(self.job(job_id).discord_message_id))
        message: Posted = self.channel.messages[int(self.job(job_id).discord_message_id or 0)]
        return message


@contextlib.contextmanager
def quick_world(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """What is repeated takes no time; a message is posted at once."""
    monkeypatch.setattr(running, "ANNOUNCE_AFTER", 0.0)
    monkeypatch.setattr(running, "EDIT_EVERY", 0.001)
    monkeypatch.setattr(running, "PICTURE_EVERY", 0.0)
    monkeypatch.setattr(running, "ROUND_EVERY", 0.001)
    monkeypatch.setattr(running, "LOOK_EVERY", 3600.0)
    monkeypatch.setattr(reporter, "RETRY_PAUSES", (0.001, 0.002))
    world = World(folder)
    monkeypatch.setattr("store.unix_ms", world.clock)
    monkeypatch.setattr(NotedStore, "told", lambda self, what: world.note(what))
    loggers = [
        logging.getLogger(name)
        for name in ("bot.messages", "bot.running", "bot.report", "bot.reporter")
    ]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        logger.addHandler(world)
    yield world
    for logger in loggers:
        logger.removeHandler(world)
    world.store.close()
