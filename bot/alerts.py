"""DM the owner about problems that only they can fix.

Owns which problems these are, how they are noticed while no picture is asked for, how often the
owner reads of one, and the words. These are fixed, so that no prompt, path or token can be in them:
the log has the detail. `Alerts` lives on the event loop; `on_error()` is for any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import TypeAlias

import discord

from bot.messages import DISCORD_ERRORS, TRY_SECONDS, may_work_later
from bot.report import Undeliverable
from jobs.jobqueue import Lane
from jobs.worker import WorkflowUnusable
from settings import Settings
from store import LOW_DISK_BYTES, StoreError
from text import PublicError

log = logging.getLogger(__name__)

CHECK_EVERY = 15.0  # seconds
DISK_EVERY = 300.0  # seconds
AWAY_SECONDS = 120.0  # a ComfyUI that is restarted is back before that
QUIET_SECONDS = 3600.0  # between two alerts of one kind
NO_SPACE = "disk is full"  # in SQLite's words
NEVER = float("-inf")


class Alert(Enum):
    """The kinds of problems, and what the owner reads."""

    COMFYUI_AWAY = (
        "ComfyUI has not answered for two minutes: no picture can be made until it is back. Look"
        " at the machine it runs on."
    )
    BACK = "ComfyUI is back: pictures are made again."
    FAILING = (
        "ComfyUI has failed the last three pictures: {kind}. It probably needs a restart. One"
        " picture is tried again from time to time; the others wait."
    )
    WORKING = "ComfyUI makes pictures again."
    OWN_ERROR = "A job failed because of a bug in the bot. The log says what happened."
    DISK = (
        "The disk with the bot's database is nearly full. Once nothing can be written, nobody can"
        " ask for a picture: please make room."
    )
    UNDELIVERED = (
        "A person could not be told of their picture: Discord takes it neither in the channel nor"
        " as a direct message. The log says which job, and why."
    )
    WORKFLOW = (
        "A workflow cannot be used any more: no picture can be made with it until its file is"
        " corrected. The log says which, and what is wrong with it."
    )


OTHERS_GO_ON = {  # where there are several servers
    "no picture can be made until it is back": "the other servers go on",
    "the others wait": "the other servers go on",
}
Due: TypeAlias = tuple[Alert, Lane | None]  # and the server that it is about


class Alerts:
    """Watches ComfyUI and the disk, takes note of errors, and tells the owner, if the settings name
    one. While nothing else asks ComfyUI, its client finds an absence by this watch."""

    def __init__(
        self,
        client: discord.Client,
        settings: Settings,
        lanes: Sequence[Lane],
        threads: ThreadPoolExecutor,
    ) -> None:
        """`threads` are for the calls of ComfyUI."""
        self._client = client
        self._owner_id = settings.alert_user_id
        self._folder = settings.db_path.parent
        self._lanes = lanes
        self._threads = threads
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._due: set[Due] = set()  # until they have been sent
        self._sent_at: dict[Due, float] = {}
        self._disk_checked_at = NEVER
        self._disk_is_full = False
        self._owner_is_out_of_reach = False

    def on_error(self, error: Exception) -> None:
        """Alert the owner if only they can fix it; any thread."""
        if isinstance(error, WorkflowUnusable):
            self._alert(Alert.WORKFLOW)
        elif isinstance(error, Undeliverable):
            self._alert(Alert.UNDELIVERED)
        elif isinstance(error, StoreError):
            if NO_SPACE in str(error):
                self._alert(Alert.DISK)
        elif not isinstance(error, PublicError):
            self._alert(Alert.OWN_ERROR)

    async def watch(self) -> None:
        """Check and alert until cancelled."""
        self._loop = asyncio.get_running_loop()
        if self._due:  # from before the loop ran
            self._woken.set()
        while True:
            try:
                await asyncio.wait_for(self._woken.wait(), CHECK_EVERY)
            except asyncio.TimeoutError:
                await self.check()
            else:
                self._woken.clear()
                await self._send_due()

    async def check(self) -> None:
        """Check everything once, and send what is due."""
        loop = asyncio.get_running_loop()
        pings = [
            loop.run_in_executor(self._threads, lane.client.ping)
            for lane in self._lanes
            # A feed that is down is no proof: there are proxies without WebSockets.
            if not lane.feed.connection or lane.client.away_since is not None
        ]
        await asyncio.gather(*pings)
        for lane in self._lanes:
            away_since = lane.client.away_since
            self._follow(lane, away_since, AWAY_SECONDS, (Alert.COMFYUI_AWAY, Alert.BACK))
            self._follow(lane, lane.hold.since, 0.0, (Alert.FAILING, Alert.WORKING))
        await self._check_disk()
        await self._send_due()

    def _follow(
        self, lane: Lane, since: float | None, seconds: float, pair: tuple[Alert, Alert]
    ) -> None:
        """Alert the owner of a state that has lasted for so many seconds, and of its end once they
        have read of it; `since` is None while all is well."""
        alert, end = ((alert, lane) for alert in pair)
        is_sent = self._sent_at.get(alert, NEVER) > self._sent_at.get(end, NEVER)
        if since is None:
            self._due.discard(alert)
            if is_sent:
                self._alert(*end)
        else:
            self._due.discard(end)
            if time.monotonic() - since >= seconds and not is_sent:
                self._alert(*alert)

    async def _check_disk(self) -> None:
        now = time.monotonic()
        if self._owner_id is None or now - self._disk_checked_at < DISK_EVERY:
            return
        self._disk_checked_at = now
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, self._folder)
        except OSError as error:
            log.debug("the disk of the database cannot be checked: %s", error)
            return
        is_full = usage.free < LOW_DISK_BYTES
        if is_full and not self._disk_is_full:
            self._alert(Alert.DISK)
        self._disk_is_full = is_full

    def _alert(self, alert: Alert, lane: Lane | None = None) -> None:
        """Plan to send an alert, about a server or not, unless that was done a short time ago; any
        thread."""
        due = alert, lane
        since = time.monotonic() - self._sent_at.get(due, NEVER)
        if self._owner_id is None or since < QUIET_SECONDS or due in self._due:
            return
        log.warning("alert: %s", self._text(alert, lane))
        self._due.add(due)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._woken.set)

    async def _send_due(self) -> None:
        order = list(Alert)
        for alert, lane in sorted(self._due, key=lambda due: order.index(due[0])):
            if await self._send(self._text(alert, lane)):
                self._sent_at[alert, lane] = time.monotonic()
                self._due.discard((alert, lane))

    def _text(self, alert: Alert, lane: Lane | None) -> str:
        """Return what the owner reads; of several servers it names the one that it is about."""
        text = alert.value.format(kind=lane.hold.kind if lane else "")
        if lane is None or len(self._lanes) == 1:
            return text
        server = lane.client.server
        text = text.replace("ComfyUI", f"ComfyUI {server.number} ({server.host})", 1)
        for words, others in OTHERS_GO_ON.items():
            text = text.replace(words, others)
        return text

    async def _send(self, text: str) -> bool:
        """Send a direct message. Return False if it should be sent again, which makes no sense
        where the owner takes none."""
        assert self._owner_id is not None  # else nothing is due
        try:
            owner = await self._client.create_dm(discord.Object(self._owner_id))
            # The same nonce: a second try after a lost answer is no second message.
            sent = owner.send(text, nonce=zlib.crc32(text.encode()))
            await asyncio.wait_for(sent, TRY_SECONDS)
        except DISCORD_ERRORS as error:
            if not self._owner_is_out_of_reach:
                log.warning("ALERT_USER_ID cannot be sent a message: %s", error)
            self._owner_is_out_of_reach = True
            return not may_work_later(error)
        self._owner_is_out_of_reach = False
        return True
