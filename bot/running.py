"""The messages about a job in progress: the "Generating…" message and the "Queued!" reply.

Keeps both up to date while Discord, the database or the bot itself fails on the way. The reporter
starts and ends them; bot/report.py has the messages about a job that has ended. Runs on the event
loop; the database is read in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import discord

from bot.controls import ControlId, job_view
from bot.messages import (
    DISCORD_ERRORS,
    HANGING_SECONDS,
    PERMANENT_STATUSES,
    TRY_SECONDS,
    buttons_of,
    description_of,
    is_withheld,
    log_exception,
    may_work_later,
    nonce,
    own_messages,
    prompt_of,
    search_start,
)
from comfyui.progress import Preview, Progress
from job import Job, JobStatus
from jobs.servers import Servers
from store import Store, StoreError
from text import duration

log = logging.getLogger(__name__)

BAR_LENGTH = 20
JUST_AWAY = "ComfyUI does not answer"
ANNOUNCE_AFTER = 1.0  # seconds that a job runs before its message is posted
EDIT_EVERY = 2.0  # seconds between two edits of the message that shows the progress
PICTURE_EVERY = 4.0  # seconds between two pictures in it, each of which is an upload

FOLLOWED = 10  # "Queued!" replies that count down, and that are edited in one round
ROUND_EVERY = 2.5  # seconds between two rounds; Discord allows 5 edits of a reply in 5 s
LOOK_EVERY = 15.0  # seconds until the time left is estimated again if nothing else changes
REPLIES_KEPT = 500
TOKEN_SECONDS = 14.5 * 60  # Discord lets a reply be edited for 15 minutes from the click
ENDED = {
    JobStatus.COMPLETED: "Done: see the channel.",
    JobStatus.FAILED: "No picture this time: see the channel.",
    JobStatus.CANCELLED: "Cancelled.",
}


# ---------------------------------------------------------------------------------------------
# The "Generating…" message


def job_embed(job: Job) -> discord.Embed:
    """Return the embed of a job without its progress."""
    return discord.Embed(description=prompt_of(job), colour=discord.Colour.blurple())


def running_embed(job: Job, progress: Progress) -> discord.Embed:
    """Return the embed of a running job: its progress, or what it waits for. The time is one of
    Discord's timestamps, which count without an edit."""
    embed = job_embed(job)
    return embed.add_field(name="Progress", value="\n".join(_progress_lines(job, progress)))


def _progress_lines(job: Job, progress: Progress) -> Iterator[str]:
    if progress.away_since is not None:
        yield f"{absence(progress.away_since)}; your picture waits"
        return
    if progress.held_until is not None:
        left = in_words(max(60.0, progress.held_until - time.monotonic() + 30))
        yield f"ComfyUI has failed the last pictures; trying again in {left}; your picture waits"
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
        yield "ComfyUI does not report progress"
    yield f"started <t:{int(progress.ran_since or (job.started_at or 0) / 1000)}:R>"


def absence(since: float) -> str:
    """Return a clause about a ComfyUI that is away, since this moment of `time.monotonic()`."""
    seconds = time.monotonic() - since
    return f"ComfyUI has not answered for {in_words(seconds)}" if seconds >= 60 else JUST_AWAY


def in_words(seconds: float) -> str:
    """Return a time in whole minutes, or hours from the second on."""
    number, unit = (seconds // 60, "minute") if seconds < 7200 else (seconds // 3600, "hour")
    return f"{number:.0f} {unit}{'s' * (number != 1)}"


def _bar(progress: Progress) -> str:
    filled = round(progress.fraction * BAR_LENGTH)
    bar = "█" * filled + "░" * (BAR_LENGTH - filled)
    # Number first: screen readers read the bar as noise.
    line = f"{100 * progress.fraction:.0f} % `{bar}`"
    line += f", pass {progress.current_pass} of {progress.passes}"
    step, steps = progress.step
    line += f", step {step} of {steps}" if steps else ""
    return line + (f", round {progress.round}" if progress.round > 1 else "")


class RunningMessage:
    """The "Generating…" message of a job, in the channel while the job runs.

    Its id is in the row (Job.discord_message_id). The id is empty from the start of a post until
    Discord's response: a bot that is restarted then looks for the message in the channel's history,
    so that it is neither posted twice nor left behind.
    """

    def __init__(
        self, client: discord.Client, store: Store, job_id: str, progress: Progress | None = None
    ) -> None:
        """Without `progress` it can only be closed: an earlier run has posted it."""
        self._client = client
        self._store = store
        self._job_id = job_id
        self._progress = progress or Progress("", {})
        self._job_ended = asyncio.Event()
        self._message_id: str | None = None  # the row may not have it yet
        self._may_be_doubled = False  # by a post whose response was lost
        self._embed: discord.Embed | None = None  # None: whatever an earlier run left there
        self._preview: Preview | None = None  # the picture in it
        self._picture_at = float("-inf")  # the last upload of one, in seconds of the loop's clock
        self._takes_pictures = True
        self._is_editing = False
        self.task: asyncio.Task[None] | None = None  # of `keep()`

    async def keep(self) -> None:
        """Post it when the job has run for a second, and edit it on each progress until the job
        has ended."""
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
        """Edit it if the text has changed, or the picture and a new one is due."""
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
            else:  # without `attachments` the picture stays
                await asyncio.wait_for(message.edit(embed=shown), TRY_SECONDS)
        finally:
            self._is_editing = False
        self._embed, self._preview = embed, preview

    def _due_preview(self) -> Preview | None:
        """Return the newest picture, or the one before if it is too soon for another upload."""
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
        """Edit it with this picture in place of the one before. If the channel refuses files, show
        text alone from then on."""
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
            log.warning("job %s: its channel refuses a picture of its progress: %s", job.id, error)
            self._takes_pictures = False
        finally:  # discord.py's File is a cycle, which would hold the bytes for a while
            for file in files:
                file.fp.close()

    async def _find_or_post(
        self, job: Job, embed: discord.Embed
    ) -> tuple[discord.PartialMessage, bool]:
        """Return the message, and whether it is new: False if an earlier try or run posted it."""
        channel = self._client.get_partial_messageable(int(job.channel_id))
        if job.discord_message_id is None:
            await asyncio.to_thread(self._store.announced, job.id, "")
        elif job.discord_message_id:
            return channel.get_partial_message(int(job.discord_message_id)), False
        elif not self._may_be_doubled:
            # An earlier run may have posted it, too long ago for the nonce.
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
        # A first try that went well leaves no second message to look for.
        self._may_be_doubled = job.discord_message_id is not None
        return channel.get_partial_message(message.id), True

    async def _find(self, channel: discord.PartialMessageable, job: Job) -> list[int]:
        """Return its id from the channel's history; several if it was posted more than once."""
        custom_id = str(ControlId("job", "cancel", job.id))
        messages = own_messages(self._client, channel, search_start(job))
        return [message.id async for message in messages if custom_id in buttons_of(message)]

    async def stop(self) -> None:
        """End the edits, as the job has ended, and drop the picture."""
        self._job_ended.set()
        if self.task is not None:
            # An edit can be cut off at once, a post had better end: close() has to find it.
            seconds = 0.0 if self._is_editing else HANGING_SECONDS
            _, unfinished = await asyncio.wait([self.task], timeout=seconds)
            for task in unfinished:
                task.cancel()
        self._preview = self._progress.preview = None

    async def close(self, job: Job) -> None:
        """Delete it; if the job was cancelled, edit it to say so. Raises what Discord does, except
        for a message or channel that is gone."""
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
                    embed = None if is_withheld(job) else job_embed(job)
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
# The "Queued!" reply


def place_in_queue(position: int, seconds: float | None) -> str:
    """Return the sentence about a place in the queue, with the estimated time until its end."""
    return f"You are position **{position}** in the queue{_about(seconds)}."


def waiting(away_since: float | None) -> str:
    """Return what the reply adds while ComfyUI is away."""
    return "" if away_since is None else f" {absence(away_since)}; your picture waits for it."


def _about(seconds: float | None) -> str:
    return f" (about {duration(seconds)})" if seconds is not None else ""


@dataclass
class QueuedReply:
    """A "Queued!" reply: how to edit it and between which times, in seconds of the loop's clock,
    and what it says."""

    webhook: discord.Webhook
    message_id: int
    since: float  # until then its first sentence can be read
    until: float
    shown: str
    notes: str  # lines that stay below until the job has ended


class QueuedReplies:
    """The "Queued!" replies, each for one person's eyes, edited in rounds after what the rows say.

    Those of the next jobs follow the queue; each says when its job is running, and when it has
    ended. A restart ends them, as it loses the interactions' tokens.
    """

    def __init__(self, store: Store, comfy: Servers) -> None:
        self._store = store
        self._comfy = comfy
        self._replies: dict[str, QueuedReply] = {}  # by the id of the job
        self._endings: dict[str, str] = {}  # what they say at last, where it is not as usual
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(
        self, job_id: str, webhook: discord.Webhook, message_id: int, shown: str, notes: str
    ) -> None:
        """Keep a reply up to date, which says `shown` of the job's place, and then the notes. If
        there are too many, the older ones stay: their jobs are next."""
        if len(self._replies) >= REPLIES_KEPT:
            return
        now = asyncio.get_running_loop().time()
        since, until = now + ROUND_EVERY, now + TOKEN_SECONDS
        self._replies[job_id] = QueuedReply(webhook, message_id, since, until, shown, notes)
        self.queue_changed()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(log_exception)

    def queue_changed(self) -> None:
        """Plan a round, as a job was queued, started or ended."""
        self._changed.set()

    def forget(self, job_id: str) -> None:
        """Leave the job's reply as it is: Cancel edits it itself."""
        self._replies.pop(job_id, None)
        self._endings.pop(job_id, None)

    def set_ending(self, job_id: str, text: str) -> None:
        """Let the job's reply end in this sentence instead of the usual one."""
        if job_id in self._replies:
            self._endings[job_id] = text

    def stop(self) -> None:
        """End the edits."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._replies:
            await asyncio.sleep(ROUND_EVERY)
            await _wait(self._changed, LOOK_EVERY)
            self._changed.clear()
            await self._round()

    async def _round(self) -> None:
        """Edit the replies that are out of date, those of ended jobs first."""
        now = asyncio.get_running_loop().time()
        self._replies = kept = {id_: r for id_, r in self._replies.items() if r.until >= now}
        try:
            texts = await asyncio.to_thread(self._texts, list(kept))
        except StoreError as error:
            log.debug("the replies of the queue are not up to date: %s", error)
            return
        new = [id_ for id_, text in texts.items() if id_ in kept and text != kept[id_].shown]
        new.sort(key=lambda id_: not self._is_ending(id_, texts[id_]))
        due = [id_ for id_ in new if kept[id_].since <= now][:FOLLOWED]
        if len(due) < len(new):
            self.queue_changed()
        await asyncio.gather(*(self._edit(id_, kept[id_], texts[id_]) for id_ in due))

    def _texts(self, job_ids: Collection[str]) -> Mapping[str, str]:
        """Return what the replies should say, by the id of the job. Blocks."""
        texts: dict[str, str] = {}
        wait = waiting(self._comfy.away_since)
        standings = self._store.standings(job_ids, FOLLOWED)
        for job_id, (status, is_reported, position) in standings.items():
            if status is JobStatus.RUNNING:
                texts[job_id] = wait.strip() or "It is being made now."
            elif status in ENDED and is_reported:
                texts[job_id] = self._endings.get(job_id, ENDED[status])
            elif position == 1:
                texts[job_id] = (
                    f"You are next{_about(self._store.estimate(1, self._comfy.answering))}." + wait
                )
            elif position is not None:
                seconds = self._store.estimate(position, self._comfy.answering)
                texts[job_id] = place_in_queue(position, seconds) + wait
        return texts

    def _is_ending(self, job_id: str, text: str) -> bool:
        """Return whether the job's reply is not edited after this text."""
        return text in (*ENDED.values(), self._endings.get(job_id))

    async def _edit(self, job_id: str, reply: QueuedReply, text: str) -> None:
        if job_id not in self._replies:  # forgotten in the meantime
            return
        is_last = self._is_ending(job_id, text)
        changes: dict[str, Any] = {"content": text if is_last else text + reply.notes}
        if is_last:
            changes["view"] = None
        try:
            edit = reply.webhook.edit_message(reply.message_id, **changes)
            await asyncio.wait_for(edit, HANGING_SECONDS)
            reply.shown = text
        except DISCORD_ERRORS as error:
            log.debug("job %s: its reply is not up to date: %s", job_id, error)
            is_last = not may_work_later(error)  # the person may have dismissed it
        if is_last:
            self.forget(job_id)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait so long for the event, and return whether it has been set."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
