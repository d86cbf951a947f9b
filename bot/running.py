"""What is seen of a job before its end: the "Queued!" answer, and the message while it runs.

Owns that message in the channel, from its post to its end, whatever fails on the way, and what the
answer says after its first sentence; report.py begins and ends both. Everything here runs on the
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import discord

from bot.controls import ControlId, job_view
from bot.messages import (
    DISCORD_ERRORS,
    PATIENCE,
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
from comfyui.progress import Preview, Progress
from store import Job, JobStatus, Store, StoreError
from text import duration

log = logging.getLogger(__name__)

BAR_LENGTH = 20
ANNOUNCE_AFTER = 1.0  # seconds that a job runs before the channel is told
EDIT_EVERY = 2.0  # seconds between two edits of the message that shows the progress
PICTURE_EVERY = 4.0  # seconds between two pictures in it, each of which has to go up

FOLLOWED = 10  # "Queued!" answers that count down, and that are edited in one round
ROUND_EVERY = 2.5  # seconds between two rounds; Discord allows 5 edits in 5 s for an answer
LOOK_EVERY = 15.0  # seconds after which the time is worked out again, if nothing else changes
ANSWERS_KEPT = 500
TOKEN_SECONDS = 14.5 * 60  # an answer can be edited for 15 minutes from the press
ENDED = {
    JobStatus.COMPLETED: "Done: see the channel.",
    JobStatus.FAILED: "No picture this time: see the channel.",
    JobStatus.CANCELLED: "Cancelled.",
}


# ---------------------------------------------------------------------------------------------
# The message while it runs


def job_embed(job: Job) -> discord.Embed:
    """A job, and no word about how far it is."""
    return discord.Embed(description=prompt_of(job), colour=discord.Colour.blurple())


def running_embed(job: Job, progress: Progress) -> discord.Embed:
    """A job that is being made, or what it waits for. The time is Discord's own, which counts
    without an edit."""
    embed = job_embed(job)
    return embed.add_field(name="Progress", value="\n".join(_progress_lines(job, progress)))


def _progress_lines(job: Job, progress: Progress) -> Iterator[str]:
    if progress.is_away:
        yield "ComfyUI does not answer, waiting"
        return
    if progress.before:
        others = f"{progress.before} other prompts are"
        others = "1 other prompt is" if progress.before == 1 else others
        yield f"Waiting: {others} before it in ComfyUI"
        return
    if progress.before is None:
        yield "Waiting for ComfyUI to begin"
        return
    if progress.has_progress:
        yield _bar(progress)
    elif progress.has_started:
        yield "Waiting for the first step: ComfyUI loads the model"
    else:
        yield "ComfyUI does not tell how far it is"
    yield f"started <t:{int(progress.ran_since or (job.started_at or 0) / 1000)}:R>"


def _bar(progress: Progress) -> str:
    """The number first: the bar is noise to who has it read out."""
    filled = round(progress.fraction * BAR_LENGTH)
    bar = "█" * filled + "░" * (BAR_LENGTH - filled)
    line = f"{100 * progress.fraction:.0f} % `{bar}`"
    line += f", pass {progress.current_pass} of {progress.passes}"
    step, steps = progress.step
    line += f", step {step} of {steps}" if steps else ""
    return line + (f", round {progress.round}" if progress.round > 1 else "")


class RunningMessage:
    """The "Generating…" message of a job, in the channel while it runs.

    Its id is in the row (Job.discord_message_id), empty while a post of it has begun and its answer
    has not come: then it is looked for, so that it is neither doubled nor left behind.
    """

    def __init__(
        self, client: discord.Client, store: Store, job_id: str, progress: Progress | None = None
    ) -> None:
        """`progress` is what it shows; a message of an earlier run that is only to be closed has
        none."""
        self._client = client
        self._store = store
        self._job_id = job_id
        self._progress = progress or Progress("", {})
        self._job_ended = asyncio.Event()
        self._message_id: str | None = None  # once it is known; the row may not have it yet
        self._may_be_doubled = False  # by a post whose answer was lost
        self._embed: discord.Embed | None = None  # what it shows; None: what an earlier run left
        self._preview: Preview | None = None  # the picture in it
        self._picture_at = float(
            "-inf"
        )  # when the last one was sent, in seconds of the loop's clock
        self._takes_pictures = True
        self._is_editing = False
        self.task: asyncio.Task[None] | None = None  # of `keep()`

    async def keep(self) -> None:
        """Post it when the job has run for a second, and edit it when there is progress to show,
        until the job has ended."""
        pause = ANNOUNCE_AFTER
        message: discord.PartialMessage | None = None
        job = None
        while not await _wait(self._job_ended, pause):  # a quick job needs no message
            try:
                if message is None:
                    job = await asyncio.to_thread(self._store.get, self._job_id)
                    if job is None or job.status is not JobStatus.RUNNING:
                        return
                    new = running_embed(job, self._progress)
                    message, is_new = await self._find_or_post(job, new)
                    self._embed = new if is_new else None
                    pause = EDIT_EVERY
                if self._message_id is None:
                    self._message_id = str(message.id)
                    await asyncio.to_thread(self._store.announced, self._job_id, self._message_id)
                assert job is not None
                await self._show(message, job)
            except Exception as error:
                if not may_work_later(error):
                    log.warning("job %s: its progress cannot be shown: %s", self._job_id, error)
                    return
                log.debug("job %s: its progress was not shown: %s", self._job_id, error)

    async def _show(self, message: discord.PartialMessage, job: Job) -> None:
        """Edit it if there is anything new: the text, or a picture whose time has come."""
        embed, preview = running_embed(job, self._progress), self._due_preview()
        is_new = preview != self._preview or self._embed is None
        if not is_new and embed == self._embed:
            return
        shown = embed.copy()
        if preview is not None:
            shown.set_image(url=f"attachment://{_file_name(preview)}")
        self._is_editing = True
        try:
            if is_new:
                await self._edit_picture(message, job, shown, preview)
            else:  # says nothing of the file, which stays
                await asyncio.wait_for(message.edit(embed=shown), TRY_SECONDS)
        finally:
            self._is_editing = False
        self._embed, self._preview = embed, preview

    def _due_preview(self) -> Preview | None:
        """The picture to be shown now: the newest, or still the one before."""
        newest = self._progress.preview if self._takes_pictures else None
        too_soon = asyncio.get_running_loop().time() < self._picture_at + PICTURE_EVERY
        return self._preview if newest is not None and too_soon else newest

    async def _edit_picture(
        self,
        message: discord.PartialMessage,
        job: Job,
        embed: discord.Embed,
        preview: Preview | None,
    ) -> None:
        """With this picture in place of the one before. A channel that takes no files is shown the
        text from then on."""
        files = []
        if preview is not None:
            self._picture_at = asyncio.get_running_loop().time()
            files.append(
                discord.File(
                    io.BytesIO(preview.data),
                    filename=_file_name(preview),
                    description=description_of(job, "Preview of: "),
                )
            )
        try:
            await asyncio.wait_for(message.edit(embed=embed, attachments=files), TRY_SECONDS)
        except discord.HTTPException as error:
            if not files or error.status == 404 or may_work_later(error):
                raise
            log.warning("job %s: its channel takes no picture of it yet: %s", job.id, error)
            self._takes_pictures = False
        finally:  # discord.py's File is a cycle, which would hold the bytes for a while
            for file in files:
                file.fp.close()

    async def _find_or_post(
        self, job: Job, embed: discord.Embed
    ) -> tuple[discord.PartialMessage, bool]:
        """The message, and whether it was posted now, not by an earlier try or run."""
        channel = self._client.get_partial_messageable(int(job.channel_id))
        if job.discord_message_id is None:
            await asyncio.to_thread(self._store.announced, job.id, "")
        elif job.discord_message_id:
            return channel.get_partial_message(int(job.discord_message_id)), False
        elif not self._may_be_doubled:
            # An earlier run has tried. What this one has tried, the nonce keeps from being doubled.
            self._may_be_doubled = True
            for message_id in await self._find(channel, job):
                return channel.get_partial_message(message_id), False
        self._may_be_doubled = True
        posting = channel.send(
            f"Generating for <@{job.user_id}>",
            embed=embed,
            view=job_view(job.id, "cancel"),
            nonce=nonce(job.id, "run"),
        )
        message = await asyncio.wait_for(posting, TRY_SECONDS)
        # Not after a first try that went well; what an earlier one has left is looked for later.
        self._may_be_doubled = job.discord_message_id is not None
        return channel.get_partial_message(message.id), True

    async def _find(self, channel: discord.PartialMessageable, job: Job) -> list[int]:
        """Its id, out of the channel's history; several if it was posted more than once."""
        mark = str(ControlId("job", "cancel", job.id))
        messages = own_messages(self._client, channel, job.started_at, job.completed_at)
        return [message.id async for message in messages if mark in buttons_of(message)]

    async def stop(self) -> None:
        """The job has ended: no more edits, and no picture is kept."""
        self._job_ended.set()
        if self.task is not None:
            # An edit is not waited for: nobody will miss it, and a picture takes a while.
            patience = 0.0 if self._is_editing else PATIENCE
            _, unfinished = await asyncio.wait([self.task], timeout=patience)
            for task in unfinished:  # it hangs; what it may have posted is looked for
                task.cancel()
        self._preview = self._progress.preview = None

    async def close(self, job: Job) -> None:
        """It goes with the result; of a cancelled job it says so, without a progress."""
        known = self._message_id or job.discord_message_id
        if known is None:
            return
        channel = self._client.get_partial_messageable(int(job.channel_id))
        ids = [int(known)] if known else []
        if self._may_be_doubled or not known:
            ids += [other for other in await self._find(channel, job) if other not in ids]
        for message_id in ids:
            message = channel.get_partial_message(message_id)
            try:
                if job.status is JobStatus.CANCELLED and message_id == ids[0]:
                    text = f"Cancelled: the picture for <@{job.user_id}>"
                    embed = job_embed(job)
                    await message.edit(content=text, embed=embed, view=None, attachments=[])
                else:
                    await message.delete()
            except discord.HTTPException as error:
                if error.status not in PERMANENT_STATUSES:
                    raise
                log.debug("job %s: its message is gone already: %s", job.id, error)


def _file_name(preview: Preview) -> str:
    return f"preview{preview.suffix}"


# ---------------------------------------------------------------------------------------------
# The "Queued!" answer


def place_in_queue(position: int, seconds: float | None) -> str:
    """The first sentence about a place in the queue (architecture.md §3.4)."""
    return f"You are position **{position}** in the queue{_about(seconds)}."


def _about(seconds: float | None) -> str:
    return f" (about {duration(seconds)})" if seconds is not None else ""


@dataclass
class Answer:
    """A "Queued!" answer: how to edit it and between which times, of the loop's clock in seconds,
    and what it says of the job."""

    webhook: discord.Webhook
    message_id: int
    since: float  # its first sentence can be read before
    until: float
    shown: str
    notes: str  # that stay below it until the job has ended


class QueueAnswers:
    """The "Queued!" answers, each for one person's eyes. Those of the next jobs follow the queue;
    each tells when its job is being made, and when that has ended. The rows say what is true, so
    nobody need tell more than that something has changed. Lost with a restart, as their tokens
    are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._answers: dict[str, Answer] = {}  # by the id of the job
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(
        self,
        job_id: str,
        webhook: discord.Webhook,
        message_id: int,
        shown: str,
        notes: str = "",
    ) -> None:
        """Keep this answer up to date, which says `shown` of the job's place, and then the notes.
        Where too many are kept already, those stay: their jobs are next."""
        if len(self._answers) >= ANSWERS_KEPT:
            return
        now = asyncio.get_running_loop().time()
        since, until = now + ROUND_EVERY, now + TOKEN_SECONDS
        self._answers[job_id] = Answer(webhook, message_id, since, until, shown, notes)
        self.queue_changed()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(log_exception)

    def queue_changed(self) -> None:
        """A job has come, begun or ended."""
        self._changed.set()

    def forget(self, job_id: str) -> None:
        """Somebody else says in that answer what became of the job."""
        self._answers.pop(job_id, None)

    def stop(self) -> None:
        """No more edits."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._answers:
            await asyncio.sleep(ROUND_EVERY)
            await _wait(self._changed, LOOK_EVERY)
            self._changed.clear()
            await self._round()

    async def _round(self) -> None:
        """Edit the answers that are not true any more, of ended jobs first."""
        now = asyncio.get_running_loop().time()
        for job_id in [name for name, answer in self._answers.items() if answer.until < now]:
            del self._answers[job_id]
        try:
            texts = await asyncio.to_thread(self._texts, list(self._answers))
        except StoreError as error:
            log.debug("the answers of the queue are not up to date: %s", error)
            return
        kept = self._answers
        new = [name for name, text in texts.items() if name in kept and text != kept[name].shown]
        new.sort(key=lambda name: texts[name] not in ENDED.values())
        due = [name for name in new if kept[name].since <= now][:FOLLOWED]
        if len(due) < len(new):
            self.queue_changed()
        await asyncio.gather(*(self._edit(name, kept[name], texts[name]) for name in due))

    def _texts(self, job_ids: Collection[str]) -> Mapping[str, str]:
        """What there is to say of these jobs. Blocks."""
        texts: dict[str, str] = {}
        standings = self._store.standings(job_ids, FOLLOWED)
        for job_id, (status, is_reported, position) in standings.items():
            if status is JobStatus.RUNNING:
                texts[job_id] = "It is being made now."
            elif status in ENDED and is_reported:
                texts[job_id] = ENDED[status]
            elif position == 1:
                texts[job_id] = f"You are next{_about(self._store.estimate(1))}."
            elif position is not None:
                texts[job_id] = place_in_queue(position, self._store.estimate(position))
        return texts

    async def _edit(self, job_id: str, answer: Answer, text: str) -> None:
        if job_id not in self._answers:  # forgotten meanwhile: it says something else
            return
        is_last = text in ENDED.values()
        changes: dict[str, Any] = {"content": text if is_last else text + answer.notes}
        if is_last:
            changes["view"] = None
        try:
            edit = answer.webhook.edit_message(answer.message_id, **changes)
            await asyncio.wait_for(edit, PATIENCE)
            answer.shown = text
        except DISCORD_ERRORS as error:
            log.debug("job %s: its answer is not up to date: %s", job_id, error)
            is_last = not may_work_later(error)  # the person has dismissed it, say
        if is_last:
            self.forget(job_id)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event; False if the time is over first."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
