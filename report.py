"""What a channel sees of a job: the running message, the result, the failure; each exactly once.

Owns those messages, their buttons, and how they reach Discord whatever fails on the way. Reads the
job's row for each try and notes in it what has arrived. `Reporter` lives on the event loop; the
worker's thread only calls `job_started()` and `job_ended()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp
import discord

from comfy_client import (
    BadAnswer,
    ComfyClient,
    ImageRef,
    NoPictures,
    Progress,
    Unreachable,
    shortened,
)
from form import Controls, button, display_name, ends_of, escaped
from settings import DAY_MS
from store import Job, JobStatus, Store, StoreError, unix_ms

log = logging.getLogger(__name__)

# What a call to Discord raises: if nothing came back, and if Discord is away or refuses.
NO_ANSWER = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
AWAY = (discord.DiscordException, *NO_ANSWER)
CLOSED = (400, 403, 404)  # statuses of a channel that the bot cannot use; 400: archived, for one

FILES_PER_MESSAGE = 10
REQUEST_LIMIT = 24 * 2**20  # bytes of files in one message; a whole request may have 25 MiB
PROMPT_SHOWN = 200  # characters of the prompt in a result (architecture.md M9)
BAR_LENGTH = 20
REPORT_WITHIN_MS = DAY_MS  # a job that ended earlier is not reported after a restart
ANNOUNCE_AFTER = 1.0  # seconds that a job runs before the channel is told
EDIT_EVERY = 2.0  # seconds between two edits of the message that shows the progress
RETRY_PAUSES = (1.0, 60.0)  # the shortest and the longest, in seconds

# What is tried for a picture that is too big for Discord: as it is, then re-encoded by ComfyUI.
ENCODINGS = ("", "webp;90", "jpeg;80", "jpeg;60")
SUFFIXES = {"webp": ".webp", "jpeg": ".jpg"}

TOO_LARGE = (
    "The picture was made, but it is too large for Discord. The bot's owner finds it in ComfyUI's"
    " output folder."
)


def may_work_later(error: Exception) -> bool:
    """Whether the same attempt may work later: Discord, ComfyUI or the database is away."""
    if isinstance(error, discord.HTTPException):
        return error.status == 429 or error.status >= 500
    passing = (discord.RateLimited, *NO_ANSWER, StoreError, Unreachable, BadAnswer)
    return isinstance(error, passing)


# ---------------------------------------------------------------------------------------------
# The messages

BUTTONS = {
    "cancel": ("Cancel", discord.ButtonStyle.danger),
    "again": ("Again", discord.ButtonStyle.primary),
    "edit": ("Edit", discord.ButtonStyle.secondary),
    "delete": ("Delete", discord.ButtonStyle.secondary),
}


def job_button(job_id: str, action: str, label_end: str = "") -> discord.ui.Button[Any]:
    """The button with this action on a job; `label_end` tells it from others like it."""
    label, style = BUTTONS[action]
    return button("job", action, job_id, label + label_end, style)


def job_view(job_id: str, *actions: str) -> Controls:
    """Buttons about one job. They carry its id, so they work for ever, also after a restart."""
    return Controls(*(job_button(job_id, action) for action in actions))


def job_mark(job_id: str) -> str:
    """How a message shows which job it is about, to people and to `Reporter._posted_marks`."""
    return f"job {job_id[:8]}"


def nonce(job_id: str, part: object) -> str:
    """Discord drops a second message with the same nonce. It may have 25 characters: of the id's
    32 digits as many as fit."""
    return f"{job_id.replace('-', '')[:20]}-{part}"


def result_embed(job: Job) -> discord.Embed:
    """The settings of a finished job (architecture.md M9)."""
    embed = discord.Embed(description=_prompt_of(job), colour=discord.Colour.green())
    for name, value in (
        ("Model", escaped(ends_of(display_name(job.model), 200))),
        ("Sampler", escaped(job.sampler)),
        ("Scheduler", escaped(job.scheduler)),
        ("Steps", str(job.steps)),
        ("CFG", f"{job.cfg:g}"),
    ):
        embed.add_field(name=name, value=value)
    if job.seed is not None:
        embed.add_field(name="Seed", value=str(job.seed))
    return embed.set_footer(text=job_mark(job.id))


def failure_embed(job: Job) -> discord.Embed:
    """Why there is no picture, and for which prompt."""
    embed = discord.Embed(
        title="No picture this time",
        description=escaped(job.error_message or "Nobody knows why.", 2000),
        colour=discord.Colour.red(),
    )
    embed.add_field(name="Prompt", value=_prompt_of(job), inline=False)
    return embed.set_footer(text=job_mark(job.id))


def running_embed(job: Job, progress: Progress) -> discord.Embed:
    """A job that is being made. The time is Discord's own, which counts without an edit."""
    lines = [f"started <t:{(job.started_at or 0) // 1000}:R>"]
    if progress.seen:
        filled = round(progress.fraction * BAR_LENGTH)
        bar = "█" * filled + "░" * (BAR_LENGTH - filled)
        passes = f"pass {progress.current_pass} of {progress.passes}"
        lines.insert(0, f"`{bar}` {progress.fraction:.0%}, {passes}")
    embed = discord.Embed(description=_prompt_of(job), colour=discord.Colour.blurple())
    return embed.add_field(name="Progress", value="\n".join(lines))


def _prompt_of(job: Job) -> str:
    return escaped(shortened(job.positive_prompt, PROMPT_SHOWN))


@dataclass(frozen=True)
class Picture:
    """A picture as it is uploaded; `encoding` is the one of ENCODINGS that it came with."""

    mark: str  # its file name without the suffix, which tells it in a channel's history
    data: bytes
    suffix: str
    encoding: str = ""


@dataclass(frozen=True)
class ReportPart:
    """One message of a report: the arguments of `send()`, and the marks by which it is found in a
    channel's history."""

    marks: tuple[str, ...]
    message: Mapping[str, Any]


def report_parts(
    job: Job, pictures: Sequence[Picture], *, from_start: bool, note: str = ""
) -> Iterator[ReportPart]:
    """The report of a finished job: one message, and more if the pictures are too many for it.
    Not `from_start`: the first message is there, only pictures are missing. Pings only the person
    who asked."""
    if any(picture.encoding for picture in pictures):
        note += "\nToo big for Discord as it was made, so it is shown compressed."
    for batch in batches([len(picture.data) for picture in pictures]):
        chosen = pictures[batch]
        marks = [picture.mark for picture in chosen]
        message: dict[str, Any] = {
            "files": [
                discord.File(io.BytesIO(picture.data), filename=picture.mark + picture.suffix)
                for picture in chosen
            ],
            "nonce": nonce(job.id, marks[0].partition("-")[2] if marks else 0),
        }
        if from_start and batch.start == 0:
            marks.append(job_mark(job.id))
            message["content"] = f"<@{job.user_id}>{note}"
            message["view"] = job_view(job.id, "again", "edit", "delete")
            message["embed"] = result_embed(job) if pictures else failure_embed(job)
            message["allowed_mentions"] = discord.AllowedMentions(
                users=[discord.Object(int(job.user_id))]
            )
        try:
            if marks:
                yield ReportPart(tuple(marks), message)
        finally:  # discord.py's File is a cycle, which would hold the bytes for a while
            for file in message["files"]:
                file.fp.close()


def batches(sizes: Sequence[int]) -> Iterator[slice]:
    """The pictures of each message: at most ten, and no more bytes than a request may have."""
    first = total = 0
    for number, size in enumerate(sizes):
        if number > first and (number - first == FILES_PER_MESSAGE or total + size > REQUEST_LIMIT):
            yield slice(first, number)
            first, total = number, 0
        total += size
    yield slice(first, len(sizes))


# ---------------------------------------------------------------------------------------------
# Their way to Discord


@dataclass
class RunningMessage:
    """The "Generating…" message of the job that runs: the task that keeps it, and what ends it."""

    progress: Progress
    job_ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Reporter:
    """Reports each job, however long that takes; a job that has ended is tried again until it is
    reported, by the next start at the latest."""

    def __init__(self, client: discord.Client, store: Store, comfy: ComfyClient) -> None:
        self._client = client
        self._store = store
        self._comfy = comfy
        self._posting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()  # what a shutdown waits for
        self._running: dict[str, RunningMessage] = {}  # by the id of the job

    # What happens to a job; any thread may call these

    def job_started(self, job_id: str, progress: Progress) -> None:
        """It is being made: the channel is told, unless it is a quick one."""
        self._on_loop(self._start_message(job_id, progress))

    def job_ended(self, job_id: str, pictures: Sequence[bytes] = ()) -> None:
        """Its row is in a final state. `pictures` saves fetching them from ComfyUI again."""
        self._on_loop(self._start_report(job_id, pictures))

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        """The worker never waits for Discord: the GPU has its next job while pictures upload."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._client.loop)
        except (RuntimeError, AttributeError):  # the loop has closed, or discord.py forgot it
            work.close()
            log.warning("Discord is gone already; what is left is reported at the next start")
        else:
            future.add_done_callback(_see_failure)

    # The program's start and end

    async def catch_up(self) -> None:
        """Report the jobs that ended in an earlier run and were not reported then."""
        for job in await asyncio.to_thread(self._store.undelivered):
            await self._start_report(job.id, may_be_posted=True)

    async def drain(self, seconds: float) -> None:
        """Wait so long for the reports that are on their way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def drop(self) -> None:
        """Leave the rest to the next start."""
        for task in self._tasks:
            task.cancel()

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The running message

    async def _start_message(self, job_id: str, progress: Progress) -> None:
        self._running[job_id] = running = RunningMessage(progress)
        running.task = self._start_task(self._keep_message(job_id, running))

    async def _keep_message(self, job_id: str, running: RunningMessage) -> None:
        """The one message in the channel while a job runs (Job.discord_message_id): posted when it
        has run for a second, and edited when there is progress to show."""
        try:
            job = await asyncio.to_thread(self._store.get, job_id)
            ran = (unix_ms() - (job.started_at or 0)) / 1000 if job else 0.0
            if await _wait(running.job_ended, max(0.0, ANNOUNCE_AFTER - ran)):
                return  # a quick job needs no message
            job = await asyncio.to_thread(self._store.get, job_id)
            if job is None or job.status is not JobStatus.RUNNING:
                return
            shown = running_embed(job, running.progress)
            message = await self._running_message(job, shown)
            while not await _wait(running.job_ended, EDIT_EVERY):
                embed = running_embed(job, running.progress)
                if embed != shown:
                    try:
                        await message.edit(embed=embed)
                        shown = embed
                    except Exception as error:
                        if not may_work_later(error):
                            raise
                        log.debug("job %s: its progress was not shown: %s", job_id, error)
        except (*AWAY, StoreError) as error:
            log.warning("job %s: its progress cannot be shown: %s", job_id, error)

    async def _running_message(
        self, job: Job, embed: discord.Embed
    ) -> discord.Message | discord.PartialMessage:
        """The job's message: posted now, or by an earlier run of the bot."""
        channel = self._client.get_partial_messageable(int(job.channel_id))
        if job.discord_message_id is not None:
            return channel.get_partial_message(int(job.discord_message_id))
        send = functools.partial(
            channel.send,
            f"Generating for <@{job.user_id}>",
            embed=embed,
            view=job_view(job.id, "cancel"),
            nonce=nonce(job.id, "run"),
        )
        try:
            message = await send()
        except NO_ANSWER:
            message = await send()  # perhaps only its answer was lost: the nonce finds it
        await asyncio.to_thread(self._store.announced, job.id, str(message.id))
        return message

    async def _close_message(self, job: Job) -> None:
        """The "Generating…" message goes with the result; of a cancelled job it says so."""
        if job.discord_message_id is None:
            return
        channel = self._client.get_partial_messageable(int(job.channel_id))
        message = channel.get_partial_message(int(job.discord_message_id))
        try:
            if job.status is JobStatus.CANCELLED:
                text = f"Cancelled: the picture for <@{job.user_id}>"
                await message.edit(content=text, view=None)
            else:
                await message.delete()
        except (discord.Forbidden, discord.NotFound) as error:
            log.debug("job %s: its message is gone already: %s", job.id, error)

    # The report

    async def _start_report(
        self, job_id: str, pictures: Sequence[bytes] = (), *, may_be_posted: bool = False
    ) -> None:
        running = self._running.pop(job_id, None)
        if running is not None:
            running.job_ended.set()
        self._start_task(self._deliver(job_id, pictures, running, may_be_posted))

    async def _deliver(
        self,
        job_id: str,
        pictures: Sequence[bytes],
        running: RunningMessage | None,
        may_be_posted: bool,
    ) -> None:
        """Report a job that has ended, however long it takes; one job at a time. What an earlier
        try, or an earlier run, may have posted is looked for before each further try."""
        if self._posting.locked() or not self._client.is_ready():
            pictures = ()  # it has to wait: fetched again then, not held until then
        await self._client.wait_until_ready()
        first_pause, longest_pause = RETRY_PAUSES
        pause = first_pause
        while True:
            try:
                async with self._posting:
                    if running is not None and running.task is not None:
                        await asyncio.wait([running.task])  # its message goes with the report
                    await self._report(job_id, pictures, may_be_posted)
                return
            except Exception as error:
                if not may_work_later(error):
                    log.error("job %s: cannot be reported", job_id, exc_info=error)
                    return
                level = logging.WARNING if pause == first_pause else logging.DEBUG
                log.log(level, "job %s: not reported yet, trying again: %s", job_id, error)
            pictures, may_be_posted = (), True
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest_pause)

    async def _report(self, job_id: str, pictures: Sequence[bytes], may_be_posted: bool) -> None:
        """One try at the report."""
        job = await asyncio.to_thread(self._store.get, job_id)
        if job is None or job.delivered_at is not None:
            return
        if unix_ms() - (job.completed_at or 0) > REPORT_WITHIN_MS:
            log.warning("job %s: ended more than 24 h ago, not reported any more", job.id)
        elif job.status is not JobStatus.CANCELLED:
            await self._post(job, pictures, may_be_posted)
        await self._close_message(job)
        await asyncio.to_thread(self._store.delivered, job_id)
        log.info("job %s: closed as %s", job_id, job.status.value)

    async def _post(self, job: Job, originals: Sequence[bytes], may_be_posted: bool) -> None:
        """Into the channel; if that is closed to the bot, to the person alone."""
        channel = self._client.get_partial_messageable(int(job.channel_id))
        guild = self._client.get_guild(int(job.guild_id))
        smallest = discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        try:
            posted = await self._posted_marks(channel, job) if may_be_posted else set()
            limit = guild.filesize_limit if guild else smallest
            await self._send(channel, job, originals, limit, posted)
            return
        except discord.HTTPException as error:
            if error.status not in CLOSED:
                raise
            log.warning("job %s: its channel is closed to the bot: %s", job.id, error)
        note = f" The bot may not post in <#{job.channel_id}>, so here it is."
        try:
            person = await self._client.create_dm(discord.Object(int(job.user_id)))
            posted = await self._posted_marks(person, job) if may_be_posted else set()
            await self._send(person, job, originals, smallest, posted, note)
        except discord.HTTPException as error:
            if error.status not in CLOSED:
                raise
            log.error("job %s: cannot be reported to anybody: %s", job.id, error)

    async def _send(
        self,
        place: discord.abc.Messageable,
        job: Job,
        originals: Sequence[bytes],
        limit: int,
        posted: Collection[str],
        note: str = "",
    ) -> None:
        """The parts of the report that are not posted yet. What Discord finds too large all the
        same is sent again, smaller."""
        done = set(posted)
        for encoding in ENCODINGS:
            pictures = await asyncio.to_thread(self._pictures, job, originals, encoding, limit)
            if job.output_images and not pictures:
                job = replace(job, error_message=NoPictures.gone)
            left = [picture for picture in pictures if picture.mark not in done]
            from_start = job_mark(job.id) not in done
            try:
                for part in report_parts(job, left, from_start=from_start, note=note):
                    await place.send(**part.message)
                    done.update(part.marks)
                return
            except discord.HTTPException as error:
                if error.status != 413:
                    raise
                log.info("job %s: Discord finds it too large: %s", job.id, error)
        job = replace(job, error_message=TOO_LARGE)
        for part in report_parts(job, [], from_start=True, note=note):
            await place.send(**part.message)

    def _pictures(
        self, job: Job, originals: Sequence[bytes], encoding: str, limit: int
    ) -> list[Picture]:
        """The job's pictures with this encoding, or the first after it that is within the limit
        (bytes). Without those that the server has no more. Blocks."""
        pictures = []
        for number, name in enumerate(job.output_images):
            ref = ImageRef.parse(name)
            for step in ENCODINGS[ENCODINGS.index(encoding) :]:
                try:
                    as_made = originals and not step
                    data = originals[number] if as_made else self._comfy.image(ref, step)
                except NoPictures as error:
                    log.error("job %s: %s", job.id, error)
                    break
                if len(data) <= limit or step == ENCODINGS[-1]:
                    suffix = SUFFIXES[step.partition(";")[0]] if step else Path(ref.filename).suffix
                    pictures.append(Picture(f"{job.id[:8]}-{number + 1}", data, suffix, step))
                    break
        return pictures

    async def _posted_marks(self, channel: discord.abc.Messageable, job: Job) -> set[str]:
        """The marks of our own messages since the job ended. Discord forgets a nonce after some
        minutes; this finds what was posted before a longer absence."""
        marks: set[str] = set()
        # Discord's clock decides, and this machine's may be ahead of it.
        since = datetime.fromtimestamp((job.completed_at or 0) / 1000, timezone.utc)
        since -= timedelta(hours=1)
        try:
            async for message in channel.history(after=since, limit=2000, oldest_first=True):
                if message.author == self._client.user:
                    marks.update(Path(file.filename).stem for file in message.attachments)
                    if job.discord_message_id != str(message.id):
                        marks.update(embed.footer.text or "" for embed in message.embeds)
        except (discord.Forbidden, discord.NotFound):
            log.debug("job %s: the channel's history is closed to the bot", job.id)
        return marks

    async def remove(self, message: discord.Message, job: Job) -> None:
        """Delete: every message of the job's result goes; `message` is the first."""
        if len(job.output_images) > 1:
            async for later in message.channel.history(after=message, limit=20):
                names = [attachment.filename for attachment in later.attachments]
                if later.author == self._client.user and any(
                    name.startswith(job.id[:8]) for name in names
                ):
                    with contextlib.suppress(discord.NotFound):
                        await later.delete()


def _see_failure(future: Future[None]) -> None:
    """A coroutine that the worker handed over has ended: an error of its own must not vanish."""
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("a report could not be begun", exc_info=error)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event; False if the time is over first."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
