"""Post each finished job's result or failure exactly once.

A report is tried until it has arrived; the job's row says what has. Messages about a job in
progress are bot/running.py's. `Reporter` lives on the event loop; the worker's thread only calls
`job_started()`, `job_ended()` and `on_error()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import discord

from bot.alerts import Alerts
from bot.messages import (
    HANGING_SECONDS,
    log_exception,
    may_work_later,
)
from bot.pictures import Original, Pictures
from bot.report import Poster, Undeliverable
from bot.running import QueuedReplies, RunningMessage
from comfyui.progress import Progress
from job import Job, JobStatus
from jobs.catalog import Catalog
from jobs.servers import Servers
from settings import Settings
from store import Store, StoreError

log = logging.getLogger(__name__)

RETRY_PAUSES = (1.0, 60.0)  # the shortest and the longest, in seconds
MAX_HANGING = 3  # uploads that gave their slots away: each holds its pictures in memory


class UploadSlots:
    """One upload at a time in each channel, in the order in which they were asked for. An upload
    that hangs gives its slot away, so it does not keep the others waiting."""

    def __init__(self) -> None:
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(1))
        self._hanging = 0  # uploads that gave their slots away, in all channels

    def is_taken(self, channel_id: str) -> bool:
        """Return whether the next upload has to wait."""
        return self._slots[channel_id].locked()

    @contextlib.asynccontextmanager
    async def slot(self, channel_id: str) -> AsyncIterator[None]:
        """Wait for the channel's slot, and hold it for the body."""
        slot = self._slots[channel_id]
        await slot.acquire()
        is_given_away = False

        def give_away() -> None:
            nonlocal is_given_away
            if self._hanging < MAX_HANGING:
                self._hanging += 1
                is_given_away = True
                slot.release()

        timer = asyncio.get_running_loop().call_later(HANGING_SECONDS, give_away)
        try:
            yield
        finally:
            timer.cancel()
            if is_given_away:
                self._hanging -= 1
            else:
                slot.release()


class Reporter:
    """Reports of all jobs, each tried until it has arrived, by the next start at the latest."""

    def __init__(
        self,
        client: discord.Client,
        settings: Settings,
        store: Store,
        comfy: Servers,
        catalog: Catalog,
        threads: ThreadPoolExecutor,
    ) -> None:
        """`threads` are for the pictures that have to be fetched from ComfyUI."""
        self._client = client
        self._store = store
        pictures = Pictures(comfy, threads, keep_metadata=settings.keep_metadata)
        self.replies = QueuedReplies(store, comfy)
        self._poster = Poster(client, store, catalog, pictures, self.replies, settings)
        self.alerts: Alerts | None = None
        self._slots = UploadSlots()
        self._in_order = asyncio.Lock()  # until a new result stands in its channel's line
        self._tasks: set[asyncio.Task[None]] = set()  # what a shutdown waits for
        # What is tried again, by channel: the jobs in their order, and the task for all of them.
        self._backlog: defaultdict[str, dict[str, RunningMessage]] = defaultdict(dict)
        self._retries: dict[str, asyncio.Task[None]] = {}
        self._failed: set[str] = set()  # ids of the jobs in it that the log has a warning of
        self._running: dict[str, RunningMessage] = {}  # by the id of the job
        self._reporting: set[str] = set()  # ids of jobs that have ended

    def job_started(self, job_id: str, progress: Progress) -> None:
        """Show the job's progress in its channel, unless it is a quick one; any thread."""
        self._on_loop(self._start_message(job_id, progress))

    def job_ended(self, job_id: str, pictures: Sequence[Original] = ()) -> None:
        """Report a job whose row is in a final state; any thread. `pictures` saves fetching
        them."""
        self._on_loop(self._start_report(job_id, pictures))

    async def remove(self, message: discord.PartialMessage, job_id: str, job: Job | None) -> None:
        """Delete the messages of a result, of which this is the first; `job` is its row."""
        await self._poster.remove(message, job_id, job)

    def on_error(self, error: Exception) -> None:
        """Pass on an error, which may be one for the owner; any thread."""
        if self.alerts is not None:
            self.alerts.on_error(error)

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it on the event loop. The worker does not wait: the GPU has its next job while
        pictures upload."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._client.loop)
        except (RuntimeError, AttributeError):  # the loop has closed, or discord.py forgot it
            work.close()
            log.warning("Discord is gone already; what is left is reported at the next start")
        else:
            future.add_done_callback(log_exception)

    async def catch_up(self) -> None:
        """Report the jobs that ended in an earlier run and were not reported then."""
        for job in await asyncio.to_thread(self._store.undelivered):
            self._retry_later(job, RunningMessage(self._client, self._store, job.id), 0.0)

    async def drain(self, seconds: float) -> None:
        """Wait up to so many seconds for the reports that are being posted."""
        posting = self._tasks - {running.task for running in self._running.values()}
        if posting:
            await asyncio.wait(posting, timeout=seconds)

    def drop(self) -> None:
        """Drop what is not posted: the next start takes it up."""
        self.replies.stop()
        for task in (*self._tasks, *self._retries.values()):
            task.cancel()

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _start_message(self, job_id: str, progress: Progress) -> None:
        self.replies.queue_changed()
        if before := self._running.pop(job_id, None):  # of the server that it has left
            await before.stop()
        running = RunningMessage(self._client, self._store, job_id, progress)
        self._running[job_id] = running
        running.task = self._start_task(running.keep())
        running.task.add_done_callback(lambda _: self._forget(job_id, running))

    def _forget(self, job_id: str, running: RunningMessage) -> None:
        if self._running.get(job_id) is running:
            del self._running[job_id]

    async def _start_report(self, job_id: str, pictures: Sequence[Original] = ()) -> None:
        if job_id in self._reporting:  # a second try beside the first might double it
            return
        self._reporting.add(job_id)
        running = self._running.pop(job_id, None)
        task = self._start_task(self._report_new(job_id, list(pictures), running))
        task.add_done_callback(lambda _: self._reporting.discard(job_id))

    async def _report_new(
        self, job_id: str, pictures: list[Original], running: RunningMessage | None
    ) -> None:
        """Report a job that has just ended; if that fails for now, try again later. A report that
        has to wait gives its pictures up, and fetches them again then."""
        async with self._in_order:  # then it asks for its slot before any that ended later
            if running is not None:
                await running.stop()
            if not self._client.is_ready():
                pictures.clear()
                await self._client.wait_until_ready()
            job = await self._row(job_id)
        running = running or RunningMessage(self._client, self._store, job_id)
        if job is not None and not await self._try(job, pictures, running):
            self._retry_later(job, running, RETRY_PAUSES[0])

    def _retry_later(self, job: Job, running: RunningMessage, pause: float) -> None:
        """Add a report to the channel's backlog, which one task works off: a new result waits for
        one of them at most."""
        self._backlog[job.channel_id][job.id] = running
        if job.channel_id not in self._retries:
            task = asyncio.create_task(self._work_off(job.channel_id, pause))
            task.add_done_callback(log_exception)
            self._retries[job.channel_id] = task

    async def _work_off(self, channel_id: str, pause: float) -> None:
        """Try a channel's backlog again and again, with a growing pause, until it is empty."""
        backlog = self._backlog[channel_id]
        try:
            while backlog:
                await asyncio.sleep(pause)
                await self._client.wait_until_ready()
                for job_id, running in list(backlog.items()):
                    job = await self._row(job_id)
                    if job is None or await self._try(job, [], running):
                        del backlog[job_id]
                pause = min(max(2 * pause, RETRY_PAUSES[0]), RETRY_PAUSES[1])
        finally:
            del self._retries[channel_id]

    async def _try(self, job: Job, pictures: list[Original], running: RunningMessage) -> bool:
        """Try to report a job once. Return False if it may work later."""
        try:
            await self._report(job, pictures, running)
        except Exception as error:
            if may_work_later(error):
                self._log_failure(job.id, error)
                return False
            log.error("job %s: cannot be reported", job.id, exc_info=error)
        self._failed.discard(job.id)
        return True

    async def _row(self, job_id: str) -> Job | None:
        """Return the job's row as soon as the database answers."""
        while True:
            try:
                return await asyncio.to_thread(self._store.get, job_id)
            except StoreError as error:
                self._log_failure(job_id, error)
                await asyncio.sleep(RETRY_PAUSES[0])

    def _log_failure(self, job_id: str, error: Exception) -> None:
        """Log that a report is tried again, as a warning the first time."""
        level = logging.DEBUG if job_id in self._failed else logging.WARNING
        log.log(level, "job %s: not reported yet, trying again: %s", job_id, error)
        self._failed.add(job_id)

    async def _report(self, job: Job, pictures: list[Original], running: RunningMessage) -> None:
        if job.delivered_at is not None:
            return
        message_ids: list[str] = []
        place_id = job.channel_id
        if job.status is not JobStatus.CANCELLED or job.error_message:
            if self._slots.is_taken(job.channel_id):
                pictures.clear()
            async with self._slots.slot(job.channel_id):
                message_ids, place_id = await self._poster.post(job, pictures)
            if not message_ids:
                self.on_error(Undeliverable(f"job {job.id}: the person cannot be told"))
        await running.close(job)
        await asyncio.to_thread(self._store.delivered, job.id, message_ids, place_id)
        self.replies.queue_changed()
        log.info("job %s: closed as %s", job.id, job.status.value)
