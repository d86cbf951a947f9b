"""Post each finished job's result or failure exactly once.

A report is tried until it has arrived; the job's row says what has. Messages about a job in
progress are bot/running.py's. `Reporter` lives on the event loop; the worker's thread only calls
`job_started()`, `job_ended()` and `on_error()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import discord

from binder import SHAPES, in_shape
from bot.alerts import Alerts
from bot.controls import ControlId, job_view
from bot.messages import (
    HANGING_SECONDS,
    PERMANENT_STATUSES,
    TRY_SECONDS,
    buttons_of,
    description_of,
    log_exception,
    may_work_later,
    nonce,
    own_messages,
    prompt_of,
)
from bot.pictures import ENCODINGS, Picture, Pictures
from bot.running import QueuedReplies, RunningMessage
from comfy_client import ComfyClient
from comfyui.errors import NoPictures
from comfyui.progress import Progress
from jobs.catalog import Catalog, Offer
from jobs.names import OptionNames
from settings import DAY_MS, Settings
from store import Job, JobStatus, Store, StoreError, unix_ms
from text import escape, shorten_middle

log = logging.getLogger(__name__)

FILES_PER_MESSAGE = 10
REQUEST_LIMIT = 24 * 2**20  # bytes of files in one message; a whole request may have 25 MiB
REPORT_WITHIN_MS = DAY_MS  # a job that ended earlier is not reported after a restart
RETRY_PAUSES = (1.0, 60.0)  # the shortest and the longest, in seconds
MAX_HANGING = 3  # uploads that gave their slots away: each holds its pictures in memory
MIN_UPLOAD_SPEED = 50_000  # bytes per second; adds to the timeout of a message with files

TOO_LARGE = (
    "The picture was made, but it is too large for Discord. The bot's owner finds it in ComfyUI's"
    " output folder."
)
TOO_LARGE_ALONE = "too large for Discord, to be found in ComfyUI's output folder."


# ---------------------------------------------------------------------------------------------
# The messages


def job_label(job_id: str) -> str:
    """Return the words by which a message names its job."""
    return f"job {job_id[:8]}"


def result_embed(job: Job, offers: Mapping[str, Offer] | None = None) -> discord.Embed:
    """Return the settings of a finished job, as far as its workflow has them. `offers` are those of
    now: they name the model, and say whether there is more than one workflow."""
    offers = offers or {}
    embed = discord.Embed(description=prompt_of(job), colour=discord.Colour.green())
    offer = offers.get(job.workflow) or next(iter(offers.values()), None)
    model = (offer.models if offer else OptionNames(())).shown(job.model) if job.model else ""
    fields = {
        "Workflow": escape(shorten_middle(job.workflow, 100)) if len(offers) > 1 else "",
        "Model": escape(model),
        "Sampler": escape(job.sampler),
        "Scheduler": escape(job.scheduler),
        "Shape": shape_of(job, offer),
        "Steps": str(job.steps or ""),
        "CFG": f"{job.cfg:g}" if job.cfg else "",
        "Seed": "" if job.seed is None else str(job.seed),
    }
    for name, value in fields.items():
        if value:
            embed.add_field(name=name, value=value)
    return embed.set_footer(text=job_label(job.id))


def shape_of(job: Job, offer: Offer | None) -> str:
    """Return the shape with its size, as far as both are known."""
    if not job.shape or job.shape not in SHAPES:
        return ""
    size = f" ({in_shape(offer.size, job.shape)})" if offer and offer.size else ""
    return job.shape + size


def failure_embed(job: Job) -> discord.Embed:
    """Return why there is no picture, and for which prompt."""
    embed = discord.Embed(
        title="No picture this time",
        description=escape(job.error_message or "The bot has no record of the reason.", 2000),
        colour=discord.Colour.red(),
    )
    embed.add_field(name="Prompt", value=prompt_of(job), inline=False)
    return embed.set_footer(text=job_label(job.id))


FIRST_PART = "first part"  # the message with the text and the buttons
IN_CHANNEL = ("again", "edit", "delete")  # the buttons of a result
IN_DM = ("delete",)  # there are no commands, and so nothing to fill in or to queue


@dataclass(frozen=True)
class ReportPart:
    """One message of a report: the arguments of `send()`, the names of its parts by which it is
    found in a channel's history, and the bytes of its files."""

    names: tuple[str, ...]
    message: Mapping[str, Any]
    size: int


def report_parts(
    job: Job,
    pictures: Sequence[Picture],
    *,
    from_start: bool,
    note: str = "",
    offers: Mapping[str, Offer] | None = None,
    buttons: Sequence[str] = IN_CHANNEL,
) -> Iterator[ReportPart]:
    """Yield the report of a finished job: one message, and more if the pictures are too many for
    it. Without `from_start` the first message is there and only pictures are missing. Pings only
    the person who asked."""
    if any(picture.encoding for picture in pictures):
        note += "\nToo big for Discord as it was made, so it is shown compressed."
    for batch in batches([len(picture.data) for picture in pictures]):
        chosen = pictures[batch]
        names = [picture.stem for picture in chosen]
        message: dict[str, Any] = {
            "files": [
                discord.File(
                    io.BytesIO(picture.data),
                    filename=picture.stem + picture.suffix,
                    description=description_of(job),
                )
                for picture in chosen
            ],
            "nonce": nonce(job.id, names[0].partition("-")[2] if names else 0),
        }
        if from_start and batch.start == 0:
            names.append(FIRST_PART)
            message["content"] = f"<@{job.user_id}>{note}"
            message["view"] = job_view(job.id, *buttons)
            message["embed"] = result_embed(job, offers) if pictures else failure_embed(job)
            message["allowed_mentions"] = discord.AllowedMentions(
                users=[discord.Object(int(job.user_id))]
            )
        try:
            if names:
                size = sum(len(picture.data) for picture in chosen)
                yield ReportPart(tuple(names), message, size)
        finally:  # discord.py's File is a cycle, which would hold the bytes for a while
            for file in message["files"]:
                file.fp.close()


def batches(sizes: Sequence[int]) -> Iterator[slice]:
    """Yield the pictures of each message: at most ten, and no more bytes than a request may
    have."""
    first = total = 0
    for number, size in enumerate(sizes):
        if number > first and (number - first == FILES_PER_MESSAGE or total + size > REQUEST_LIMIT):
            yield slice(first, number)
            first, total = number, 0
        total += size
    yield slice(first, len(sizes))


# ---------------------------------------------------------------------------------------------
# Their way to Discord


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
        comfy: ComfyClient,
        catalog: Catalog,
        threads: ThreadPoolExecutor,
    ) -> None:
        """`threads` are for the pictures that have to be fetched from ComfyUI."""
        self._client = client
        self._store = store
        self._catalog = catalog
        self._pictures = Pictures(comfy, threads, keep_metadata=settings.keep_metadata)
        self.replies = QueuedReplies(store, comfy)
        self.alerts: Alerts | None = None
        self._slots = UploadSlots()
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

    def job_ended(self, job_id: str, pictures: Sequence[bytes] = ()) -> None:
        """Report a job whose row is in a final state; any thread. `pictures` saves fetching
        them."""
        self._on_loop(self._start_report(job_id, pictures))

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
        running = RunningMessage(self._client, self._store, job_id, progress)
        self._running[job_id] = running
        running.task = self._start_task(running.keep())
        running.task.add_done_callback(lambda _: self._running.pop(job_id, None))

    async def _start_report(self, job_id: str, pictures: Sequence[bytes] = ()) -> None:
        if job_id in self._reporting:  # a second try beside the first might double it
            return
        self._reporting.add(job_id)
        running = self._running.pop(job_id, None)
        task = self._start_task(self._report_new(job_id, list(pictures), running))
        task.add_done_callback(lambda _: self._reporting.discard(job_id))

    async def _report_new(
        self, job_id: str, pictures: list[bytes], running: RunningMessage | None
    ) -> None:
        """Report a job that has just ended; if that fails for now, try again later. A report that
        has to wait gives its pictures up, and fetches them again then."""
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

    async def _try(self, job: Job, pictures: list[bytes], running: RunningMessage) -> bool:
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

    async def _report(self, job: Job, pictures: list[bytes], running: RunningMessage) -> None:
        if job.delivered_at is not None:
            return
        message_ids: list[str] = []
        place_id = job.channel_id
        if unix_ms() - (job.completed_at or 0) > REPORT_WITHIN_MS:
            log.warning("job %s: ended more than 24 h ago, not reported any more", job.id)
        elif job.status is not JobStatus.CANCELLED or job.error_message:
            if self._slots.is_taken(job.channel_id):
                pictures.clear()
            async with self._slots.slot(job.channel_id):
                message_ids, place_id = await self._post(job, pictures)
        await running.close(job)
        await asyncio.to_thread(self._store.delivered, job.id, message_ids, place_id)
        self.replies.queue_changed()
        log.info("job %s: closed as %s", job.id, job.status.value)

    async def _post(self, job: Job, originals: Sequence[bytes]) -> tuple[list[str], str]:
        """Post into the channel, or to the person alone if the channel is closed to the bot.
        Return the ids of the messages and of the channel that they are in."""
        if job.report_tried_at is None:  # later tries look first for what this one has posted
            await asyncio.to_thread(self._store.report_tried, job.id)
        channel = self._client.get_partial_messageable(int(job.channel_id))
        guild = self._client.get_guild(int(job.guild_id))
        smallest = discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        try:
            limit = guild.filesize_limit if guild else smallest
            return await self._send(channel, job, originals, limit), job.channel_id
        except discord.HTTPException as error:
            if error.status not in PERMANENT_STATUSES:
                raise
            log.warning("job %s: its channel is closed to the bot: %s", job.id, error)
        note = f" The bot may not post in <#{job.channel_id}>, so here it is."
        try:
            person = await self._client.create_dm(discord.Object(int(job.user_id)))
            return await self._send(person, job, originals, smallest, note), str(person.id)
        except discord.HTTPException as error:
            if error.status not in PERMANENT_STATUSES:
                raise
            log.error("job %s: cannot be reported to anybody: %s", job.id, error)
        return [], job.channel_id

    async def _send(
        self,
        place: discord.PartialMessageable | discord.DMChannel,
        job: Job,
        originals: Sequence[bytes],
        limit: int,
        note: str = "",
    ) -> list[str]:
        """Send the parts of the report that are not posted yet, and return the ids of all of
        them. What Discord finds too large all the same is sent again, smaller."""
        done = await self._posted(place, job) if job.report_tried_at is not None else {}
        for encoding in ENCODINGS:
            pictures, too_large = await self._pictures.get(job, originals, encoding, limit)
            about, more = job, note
            if too_large and pictures:
                more += f"\n{too_large} of {too_large + len(pictures)}: {TOO_LARGE_ALONE}"
            elif too_large:
                about = replace(job, error_message=TOO_LARGE)
            elif job.output_images and not pictures:
                about = replace(job, error_message=NoPictures.gone)
            left = [picture for picture in pictures if picture.stem not in done]
            try:
                await self._post_parts(place, about, left, more, done)
                return list(dict.fromkeys(done.values()))
            except discord.HTTPException as error:
                if error.status != 413:
                    raise
                log.info("job %s: Discord finds it too large: %s", job.id, error)
        if FIRST_PART in done:  # the first message came through: it says what is missing
            missing = sum(picture.stem not in done for picture in pictures) + too_large
            text = f"<@{job.user_id}>{note}\n{missing}"
            text += f" of {len(pictures) + too_large}: {TOO_LARGE_ALONE}"
            await place.get_partial_message(int(done[FIRST_PART])).edit(content=text)
        else:
            await self._post_parts(place, replace(job, error_message=TOO_LARGE), [], note, done)
        return list(dict.fromkeys(done.values()))

    async def _post_parts(
        self,
        place: discord.PartialMessageable | discord.DMChannel,
        job: Job,
        pictures: Sequence[Picture],
        note: str,
        done: dict[str, str],
    ) -> None:
        """Post the missing parts, and note in `done` which have arrived: message ids by part."""
        parts = report_parts(
            job,
            pictures,
            from_start=FIRST_PART not in done,
            note=note,
            offers=self._catalog.offers,
            buttons=IN_CHANNEL if place.id == int(job.channel_id) else IN_DM,
        )
        for part in parts:
            seconds = TRY_SECONDS + part.size / MIN_UPLOAD_SPEED
            message = await asyncio.wait_for(place.send(**part.message), seconds)
            done.update(dict.fromkeys(part.names, str(message.id)))

    async def _posted(self, place: discord.abc.Messageable, job: Job) -> dict[str, str]:
        """Return the message ids of the parts that earlier tries have posted. Discord forgets a
        nonce after some minutes; this finds them also hours later."""
        found: dict[str, str] = {}
        first = str(ControlId("job", "delete", job.id))
        everything = 1 + len(job.output_images)
        async for message in own_messages(
            self._client, place, job.completed_at, job.report_tried_at
        ):
            stems = [Path(file.filename).stem for file in message.attachments]
            names = [stem for stem in stems if stem.startswith(f"{job.id[:8]}-")]
            names += [FIRST_PART] if first in buttons_of(message) else []
            found.update(dict.fromkeys(names, str(message.id)))
            if len(found) == everything:
                break
        # From now on this try may have posted something, too.
        await asyncio.to_thread(self._store.report_tried, job.id)
        return found

    async def remove(self, message: discord.PartialMessage, job_id: str, job: Job | None) -> None:
        """Delete the messages of a result. `message` is its first and goes last: as long as
        anything is left, so is its button. `job` is None if its row has been removed."""
        ids: Sequence[str] = job.report_message_ids if job else ()
        place = self._client.get_partial_messageable(message.channel.id)
        if not ids and (job is None or len(job.output_images) > 1):
            posted_ms = int(message.created_at.timestamp() * 1000)
            ids = [
                str(later.id)
                async for later in own_messages(self._client, place, posted_ms, posted_ms)
                if any(file.filename.startswith(f"{job_id[:8]}-") for file in later.attachments)
            ]
        first_id = str(message.id)
        for message_id in (*(other for other in ids if other != first_id), first_id):
            with contextlib.suppress(discord.NotFound):  # a second press, or a moderator
                await place.get_partial_message(int(message_id)).delete()
