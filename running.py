"""What is seen of a job before its end: the message in the channel while it runs.

Owns that message, from its post to its end, whatever fails on the way; report.py begins and ends
it. Everything here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import discord

from channel import (
    CLOSED,
    PATIENCE,
    TRY_SECONDS,
    buttons_of,
    job_view,
    may_work_later,
    nonce,
    own_messages,
    prompt_of,
)
from comfy_client import Progress
from form import ControlId
from store import Job, JobStatus, Store

log = logging.getLogger(__name__)

BAR_LENGTH = 20
ANNOUNCE_AFTER = 1.0  # seconds that a job runs before the channel is told
EDIT_EVERY = 2.0  # seconds between two edits of the message that shows the progress


def running_embed(job: Job, progress: Progress) -> discord.Embed:
    """A job that is being made, or what it waits for. The time is Discord's own, which counts
    without an edit."""
    embed = discord.Embed(description=prompt_of(job), colour=discord.Colour.blurple())
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
    if progress.seen:
        filled = round(progress.fraction * BAR_LENGTH)
        bar = "█" * filled + "░" * (BAR_LENGTH - filled)
        line = f"`{bar}` {progress.fraction:.0%}, pass {progress.current_pass} of {progress.passes}"
        step, steps = progress.step
        line += f", step {step} of {steps}" if steps else ""
        yield line + (f", round {progress.round}" if progress.round > 1 else "")
    yield f"started <t:{int(progress.ran_since or (job.started_at or 0) / 1000)}:R>"


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
        self.task: asyncio.Task[None] | None = None  # of `keep()`

    async def keep(self) -> None:
        """Post it when the job has run for a second, and edit it when there is progress to show,
        until the job has ended."""
        pause, shown = ANNOUNCE_AFTER, None
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
                    shown = new if is_new else None  # one of an earlier run shows what was then
                    pause = EDIT_EVERY
                if self._message_id is None:
                    self._message_id = str(message.id)
                    await asyncio.to_thread(self._store.announced, self._job_id, self._message_id)
                assert job is not None
                embed = running_embed(job, self._progress)
                if embed != shown:
                    await asyncio.wait_for(message.edit(embed=embed), TRY_SECONDS)
                    shown = embed
            except Exception as error:
                if not may_work_later(error):
                    log.warning("job %s: its progress cannot be shown: %s", self._job_id, error)
                    return
                log.debug("job %s: its progress was not shown: %s", self._job_id, error)

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
        """The job has ended: no more edits."""
        self._job_ended.set()
        if self.task is not None:
            _, unfinished = await asyncio.wait([self.task], timeout=PATIENCE)
            for task in unfinished:  # it hangs; what it may have posted is looked for
                task.cancel()

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
                    embed = discord.Embed(description=prompt_of(job))
                    await message.edit(content=text, embed=embed, attachments=[], view=None)
                else:
                    await message.delete()
            except discord.HTTPException as error:
                if error.status not in CLOSED:
                    raise
                log.debug("job %s: its message is gone already: %s", job.id, error)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event; False if the time is over first."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()
