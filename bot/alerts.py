"""What the owner hears of: trouble that nobody else can end.

Owns which trouble that is, how it is noticed while nobody asks for a picture, how often it is told,
and the words. These are fixed, so that no prompt, path or token can be in them: the log has the
detail. Knows no Discord: `send` brings a text to the owner. `Alerts` lives on the event loop;
`hear()` is called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path

from jobs.worker import WorkflowUnusable
from settings import redact
from store import LOW_DISK_BYTES, StoreError
from text import PublicError

log = logging.getLogger(__name__)

LOOK_EVERY = 15.0  # seconds
DISK_EVERY = 300.0  # seconds
AWAY_SECONDS = 120.0  # a ComfyUI that is restarted is back before that
QUIET_SECONDS = 3600.0  # between two alerts of one kind
NO_SPACE = "disk is full"  # in SQLite's words


class Alert(Enum):
    """The kinds of trouble, and what the owner reads."""

    DISCORD_ERRORS = (
        "ComfyUI has not answered for two minutes: no picture can be made until it is back. Look"
        " at the machine it runs on."
    )
    BACK = "ComfyUI is back: pictures are made again."
    OWN_ERROR = (
        "A job failed by an error of the bot's own, which it should not have. The log says what"
        " happened."
    )
    DISK = (
        "The disk with the bot's database is nearly full. Once nothing can be written, nobody can"
        " ask for a picture: please make room."
    )
    WORKFLOW = (
        "A workflow cannot be used any more: no picture can be made with it until its file is"
        " corrected. The log says which, and what is wrong with it."
    )


class Alerts:
    """Watches ComfyUI and the disk, hears of errors, and tells the owner."""

    def __init__(
        self,
        send: Callable[[str], Awaitable[bool]],
        *,
        connection: Callable[[], int],
        ping: Callable[[], bool],
        threads: ThreadPoolExecutor,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`send` says whether there is no use in sending the text again; `connection` is
        `ProgressFeed.connection`, `ping` is `ComfyClient.ping` and runs in `threads`; `folder` is
        that of the database."""
        self._send = send
        self._connection = connection
        self._ping = ping
        self._threads = threads
        self._folder = folder
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._due: set[Alert] = set()  # until they have been sent
        self._told_at: dict[Alert, float] = {}
        self._away_since: float | None = None
        self._disk_looked_at = float("-inf")
        self._disk_is_full = False

    def hear(self, error: Exception) -> None:
        """An error that somebody met, which may be one for the owner; any thread."""
        if isinstance(error, WorkflowUnusable):
            self._note(Alert.WORKFLOW)
        elif isinstance(error, StoreError):
            if NO_SPACE in str(error):
                self._note(Alert.DISK)
        elif not isinstance(error, PublicError):
            self._note(Alert.OWN_ERROR)

    async def watch(self) -> None:
        """Look and tell until cancelled."""
        self._loop = asyncio.get_running_loop()
        if self._due:  # heard while the bot started
            self._woken.set()
        while True:
            try:
                await asyncio.wait_for(self._woken.wait(), LOOK_EVERY)
            except asyncio.TimeoutError:
                await self.step()
            else:
                self._woken.clear()
                await self._tell()

    async def step(self) -> None:
        """Look once at everything, and tell what is due."""
        await self._look_at_comfyui()
        await self._look_at_disk()
        await self._tell()

    async def _look_at_comfyui(self) -> None:
        """A feed that is down is no proof: there are proxies without WebSockets."""
        now = self._clock()
        loop = asyncio.get_running_loop()
        if self._connection() or await loop.run_in_executor(self._threads, self._ping):
            self._away_since = None
            self._due.discard(Alert.DISCORD_ERRORS)
            if self._away_is_told:
                self._note(Alert.BACK)
            return
        self._due.discard(Alert.BACK)
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since >= AWAY_SECONDS and not self._away_is_told:
            self._note(Alert.DISCORD_ERRORS)

    @property
    def _away_is_told(self) -> bool:
        """Whether the owner believes that ComfyUI is away."""
        never = float("-inf")
        return self._told_at.get(Alert.DISCORD_ERRORS, never) > self._told_at.get(Alert.BACK, never)

    async def _look_at_disk(self) -> None:
        now = self._clock()
        if now - self._disk_looked_at < DISK_EVERY:
            return
        self._disk_looked_at = now
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, self._folder)
        except OSError as error:
            log.debug("the disk of the database: %s", error)
            return
        is_full = usage.free < LOW_DISK_BYTES
        if is_full and not self._disk_is_full:
            self._note(Alert.DISK)
        self._disk_is_full = is_full

    def _note(self, alert: Alert) -> None:
        """It is to be told, unless that was done a short time ago; any thread."""
        since = self._clock() - self._told_at.get(alert, float("-inf"))
        if since < QUIET_SECONDS or alert in self._due:
            return
        log.warning("alert: %s", alert.value)
        self._due.add(alert)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._woken.set)

    async def _tell(self) -> None:
        for alert in [alert for alert in Alert if alert in self._due]:
            if await self._send(redact(alert.value)):
                self._told_at[alert] = self._clock()
                self._due.discard(alert)
