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
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import discord

from bot.messages import DISCORD_ERRORS, TRY_SECONDS, may_work_later
from bot.report import Undeliverable
from comfy_client import ComfyClient, ProgressFeed
from jobs.hold import Hold
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


class Alerts:
    """Watches ComfyUI and the disk, takes note of errors, and tells the owner, if the settings name
    one. While nothing else asks ComfyUI, its client finds an absence by this watch."""

    def __init__(
        self,
        client: discord.Client,
        settings: Settings,
        comfy: ComfyClient,
        feed: ProgressFeed,
        hold: Hold,
        threads: ThreadPoolExecutor,
    ) -> None:
        """`threads` are for the calls of ComfyUI."""
        self._client = client
        self._owner_id = settings.alert_user_id
        self._folder = settings.db_path.parent
        self._comfy = comfy
        self._feed = feed
        self._hold = hold
        self._threads = threads
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._due: set[Alert] = set()  # until they have been sent
        self._sent_at: dict[Alert, float] = {}
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
        # A feed that is down is no proof: there are proxies without WebSockets.
        if not self._feed.connection or self._comfy.away_since is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._comfy.ping)
        self._follow(self._comfy.away_since, AWAY_SECONDS, Alert.COMFYUI_AWAY, Alert.BACK)
        self._follow(self._hold.since, 0.0, Alert.FAILING, Alert.WORKING)
        await self._check_disk()
        await self._send_due()

    def _follow(self, since: float | None, seconds: float, alert: Alert, end: Alert) -> None:
        """Alert the owner of a state that has lasted for so many seconds, and of its end once they
        have read of it; `since` is None while all is well."""
        is_sent = self._sent_at.get(alert, NEVER) > self._sent_at.get(end, NEVER)
        if since is None:
            self._due.discard(alert)
            if is_sent:
                self._alert(end)
        else:
            self._due.discard(end)
            if time.monotonic() - since >= seconds and not is_sent:
                self._alert(alert)

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

    def _alert(self, alert: Alert) -> None:
        """Plan to send an alert, unless that was done a short time ago; any thread."""
        since = time.monotonic() - self._sent_at.get(alert, NEVER)
        if self._owner_id is None or since < QUIET_SECONDS or alert in self._due:
            return
        log.warning("alert: %s", self._text(alert))
        self._due.add(alert)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._woken.set)

    async def _send_due(self) -> None:
        for alert in [alert for alert in Alert if alert in self._due]:
            if await self._send(self._text(alert)):
                self._sent_at[alert] = time.monotonic()
                self._due.discard(alert)

    def _text(self, alert: Alert) -> str:
        return alert.value.format(kind=self._hold.kind)

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
