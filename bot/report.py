"""One report: the messages of a finished job's result or failure, and their way to Discord.

Which job is reported when, and again, is bot/reporter.py's. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import discord

from binder import SHAPES, Size, in_shape
from bot.controls import ControlId, job_view
from bot.messages import (
    CONTENT_REFUSALS,
    PERMANENT_STATUSES,
    PROMPT_SHOWN,
    TRY_SECONDS,
    buttons_of,
    description_of,
    is_withheld,
    nonce,
    own_messages,
    prompt_of,
    search_start,
)
from bot.pictures import ENCODINGS, Original, Picture, Pictures, PictureTooLargeForDiscord
from bot.running import QueuedReplies
from bot.sources import kept
from comfyui.errors import PictureMissing
from job import Job
from jobs.catalog import Catalog, Offer
from jobs.draft import own_negative, shown_strength
from jobs.image import made_from
from jobs.names import OptionNames
from settings import Settings
from store import Store
from text import PublicError, escape, shorten_middle, truncate

log = logging.getLogger(__name__)

FILES_PER_MESSAGE = 10
REQUEST_LIMIT = 24 * 2**20  # bytes of files in one message; a whole request may have 25 MiB
PARTS_WITHIN = timedelta(hours=1)  # of the first message, by Discord's clock
MIN_UPLOAD_SPEED = 50_000  # bytes per second; adds to the timeout of a message with files


def job_label(job_id: str) -> str:
    """Return the words by which a message names its job."""
    return f"job {job_id[:8]}"


def result_embed(
    job: Job,
    offers: Mapping[str, Offer] | None = None,
    usual_negative: str = "",
    made_of: str = "",
) -> discord.Embed:
    """Return the settings of a finished job, as far as its workflow has them. `offers` are those of
    now: they name the model, and say whether there is more than one workflow. A negative prompt is
    shown if it is not the one that a form begins with. `made_of`: the picture it worked on."""
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
        "Made from": made_of,
        "Strength": shown_strength(job.strength) if job.strength else "",
        "Steps": str(job.steps or ""),
        "CFG": f"{job.cfg:g}" if job.cfg else "",
        "Length": f"{job.length} frames" if job.length else "",
        "Seed": "" if job.seed is None else str(job.seed),
    }
    for name, value in fields.items():
        if value:
            embed.add_field(name=name, value=value)
    usual = (own_negative(offer) if offer else "") or usual_negative
    if (negative := job.negative_prompt.strip()) and negative != usual:
        shown = escape(truncate(negative, PROMPT_SHOWN))
        embed.add_field(name="Negative prompt", value=shown, inline=False)
    return embed.set_footer(text=job_label(job.id))


def shape_of(job: Job, offer: Offer | None) -> str:
    """Return the shape with its size, as far as both are known."""
    if not job.shape or job.shape not in SHAPES:
        return ""
    size = Size.parse(job.size)
    if size is None and offer and offer.size:  # a row from before sizes were kept
        size = in_shape(offer.size, job.shape)
    return f"{job.shape} ({size})" if size else job.shape


def failure_embed(job: Job) -> discord.Embed:
    """Return why there is no picture, and for which prompt."""
    embed = discord.Embed(
        title="No picture this time",
        description=escape(job.error_message or "The bot has no record of the reason.", 2000),
        colour=discord.Colour.red(),
    )
    if prompt := prompt_of(job):
        embed.add_field(name="Prompt", value=prompt, inline=False)
    return embed.set_footer(text=job_label(job.id))


FIRST_PART = "first part"  # the message with the text and the buttons
IN_CHANNEL = ("again", "edit", "use", "delete")  # the buttons of a result
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")  # that a workflow can work on
# In a DM, which has no commands to fill in or to queue; and after a moderator has said no.
ONLY_DELETE = ("delete",)
PROMPT_KEPT = 1800  # characters of a withheld prompt, which its person alone reads


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
    usual_negative: str = "",
    buttons: Sequence[str] = IN_CHANNEL,
    made_of: str = "",
) -> Iterator[ReportPart]:
    """Yield the report of a finished job: one message, and more if the pictures are too many for
    it. Without `from_start` the first message is there and only pictures are missing. Pings only
    the person who asked."""
    for cause in dict.fromkeys(picture.cause for picture in pictures if picture.encoding):
        note += f"\n{cause}, so it is shown compressed."
    is_of_use = any(offer.takes_image for offer in (offers or {}).values())
    if not is_of_use or all(picture.suffix.lower() not in PICTURES for picture in pictures):
        buttons = [name for name in buttons if name != "use"]
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
            shown = result_embed(job, offers, usual_negative, made_of)
            embed = shown if pictures else failure_embed(job)
            message["embed"] = embed
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


class Undeliverable(PublicError):
    """A report that neither the channel nor the person takes."""


def missing_note(missing: Sequence[PictureMissing], total: int) -> str:
    """Return a line that says how many of the pictures cannot be had, and why."""
    verb = "is" if len(missing) == 1 else "are"
    reasons = dict.fromkeys(f"{error.reason}. {error.advice}" for error in missing)
    start = f"{len(missing)} of {total} pictures {verb} missing"
    if len(missing) == 1:
        return f"{start}: {next(iter(reasons))}"
    return "\n- ".join([f"{start}:", *reasons])


class Poster:
    """The way of one report to Discord: into its channel, or to the person alone."""

    def __init__(
        self,
        client: discord.Client,
        store: Store,
        catalog: Catalog,
        pictures: Pictures,
        replies: QueuedReplies,
        settings: Settings,
    ) -> None:
        """Take the replies, which say where a report is."""
        self._client = client
        self._store = store
        self._catalog = catalog
        self._pictures = pictures
        self._replies = replies
        self._settings = settings

    async def post(self, job: Job, originals: Sequence[Original]) -> tuple[list[str], str]:
        """Post into the channel, or to the person alone if Discord does not take it there. Return
        the ids of the messages and of the channel that they are in."""
        if job.report_tried_at is None:  # later tries look first for what this one has posted
            await asyncio.to_thread(self._store.report_tried, job.id)
        if is_withheld(job):
            prompt = escape(job.positive_prompt, PROMPT_KEPT)
            self._replies.set_ending(
                job.id, f"Cancelled: see the channel. Your prompt was: {prompt}"
            )
        if job.report_channel_id and (told := await self._told_alone(job, originals)):
            return told, job.report_channel_id
        channel = self._client.get_partial_messageable(int(job.channel_id))
        guild = self._client.get_guild(int(job.guild_id))
        smallest = discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        try:
            limit = guild.filesize_limit if guild else smallest
            return await self._send(channel, job, originals, limit), job.channel_id
        except discord.HTTPException as error:
            if error.status not in PERMANENT_STATUSES:
                raise
            reason = CONTENT_REFUSALS.get(error.code, "")
            why = "does not take it" if reason else "is closed to the bot"
            log.warning("job %s: its channel %s: %s", job.id, why, error)
        note = f" The bot may not post in <#{job.channel_id}>, so here it is."
        if reason:
            what = f"Discord refused to post your picture in <#{job.channel_id}>: {reason}."
            note = f" {what}"
        places: list[discord.PartialMessageable | discord.DMChannel] = [channel]
        try:
            person = await self._client.create_dm(discord.Object(int(job.user_id)))
            places.insert(0, person)
            await asyncio.to_thread(self._store.report_moved, job.id, str(person.id))
            ids, place = (
                await self._send(person, job, originals, smallest, note),
                str(person.id),
            )
            self._replies.set_ending(job.id, "Done: see your direct messages.")
            return ids, place
        except discord.HTTPException as error:
            if error.status not in PERMANENT_STATUSES:
                raise
            log.warning("job %s: the person cannot be sent it either: %s", job.id, error)
        if not reason:
            ending = "Done, but the bot may not post here and you take no direct messages from it."
            return self._give_up(job, ending)
        ending = f"Done, but Discord refused to post it: {reason}."
        self._replies.set_ending(job.id, ending)
        for where in places:
            try:
                return await self._say(where, job, what), str(where.id)
            except discord.HTTPException as error:
                if error.status not in PERMANENT_STATUSES:
                    raise
        return self._give_up(job, ending)

    async def _told_alone(self, job: Job, originals: Sequence[Original]) -> list[str]:
        """Return the messages by which an earlier try has told the person alone, before the bot
        was stopped, say; with the rest of them. Empty if it has not: the channel may be open."""
        place = self._client.get_partial_messageable(int(job.report_channel_id or job.channel_id))
        done = await self._posted(place, job)
        if FIRST_PART not in done:
            return []
        if len(done) > 1:  # not just a sentence
            smallest = discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
            return await self._send(place, job, originals, smallest)
        return [done[FIRST_PART]]

    def _give_up(self, job: Job, ending: str) -> tuple[list[str], str]:
        """Let the reply alone say it."""
        log.error("job %s: cannot be reported to anybody", job.id)
        self._replies.set_ending(job.id, ending)
        return [], job.channel_id

    async def _say(
        self, place: discord.PartialMessageable | discord.DMChannel, job: Job, what: str
    ) -> list[str]:
        """Send a sentence without picture and prompt in place of a report, unless an earlier try
        has; return the message's id."""
        done = await self._posted(place, job) if job.report_tried_at is not None else {}
        if FIRST_PART in done:
            return [done[FIRST_PART]]
        sending = place.send(
            f"<@{job.user_id}> {what}",
            view=job_view(job.id, *ONLY_DELETE),
            nonce=nonce(job.id, "why"),
            allowed_mentions=discord.AllowedMentions(users=[discord.Object(int(job.user_id))]),
        )
        return [str((await asyncio.wait_for(sending, TRY_SECONDS)).id)]

    async def _send(
        self,
        place: discord.PartialMessageable | discord.DMChannel,
        job: Job,
        originals: Sequence[Original],
        limit: int,
        note: str = "",
    ) -> list[str]:
        """Send the parts of the report that are not posted yet, and return the ids of all of
        them. What Discord finds too large all the same is sent again, smaller."""
        done = await self._posted(place, job) if job.report_tried_at is not None else {}
        total = len(job.output_images)
        for encoding in ENCODINGS:
            pictures, missing = await self._pictures.get(job, originals, encoding, limit)
            about, more = job, note
            if missing and pictures:
                more += f"\n{missing_note(missing, total)}"
            elif missing:
                about = replace(job, error_message=missing[0].user_message)
            left = [picture for picture in pictures if picture.stem not in done]
            try:
                await self._post_parts(place, about, left, more, done)
                return list(dict.fromkeys(done.values()))
            except discord.HTTPException as error:
                if error.status != 413:
                    raise
                log.info("job %s: Discord finds it too large: %s", job.id, error)
        too_large = PictureTooLargeForDiscord("in every form")
        missing += [too_large for picture in pictures if picture.stem not in done]
        if FIRST_PART in done:  # the first message came through: it says what is missing
            text = f"<@{job.user_id}>{note}\n{missing_note(missing, total)}"
            await place.get_partial_message(int(done[FIRST_PART])).edit(content=text)
        else:
            about = replace(job, error_message=too_large.user_message)
            await self._post_parts(place, about, [], note, done)
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
        is_open = place.id == int(job.channel_id) and not is_withheld(job)
        parts = report_parts(
            job,
            pictures,
            from_start=FIRST_PART not in done,
            note=note,
            offers=self._catalog.offers,
            usual_negative=self._settings.default_negative_prompt,
            buttons=IN_CHANNEL if is_open else ONLY_DELETE,
            made_of=await self._made_of(job),
        )
        for part in parts:
            seconds = TRY_SECONDS + part.size / MIN_UPLOAD_SPEED
            message = await asyncio.wait_for(place.send(**part.message), seconds)
            done.update(dict.fromkeys(part.names, str(message.id)))

    async def _made_of(self, job: Job) -> str:
        """Return the size of the picture that a job has worked on, if there was one."""
        image = await asyncio.to_thread(kept, self._store, job.image) if job.image else None
        return made_from(image, self._settings.max_megapixels) if image else ""

    async def remove(self, message: discord.PartialMessage, job_id: str, job: Job | None) -> None:
        """Delete the messages of a result. `message` is its first and goes last: as long as
        anything is left, so is its button. `job` is None if its row has been removed."""
        ids: Sequence[str] = job.report_message_ids if job else ()
        place = self._client.get_partial_messageable(message.channel.id)
        if not ids and (job is None or len(job.output_images) > 1):
            ids = [str(later.id) async for later in self._later_parts(place, message, job_id)]
        first_id = str(message.id)
        for message_id in (*(other for other in ids if other != first_id), first_id):
            with contextlib.suppress(discord.NotFound):  # a second press, or a moderator
                await place.get_partial_message(int(message_id)).delete()

    async def _later_parts(
        self, place: discord.PartialMessageable, message: discord.PartialMessage, job_id: str
    ) -> AsyncIterator[discord.Message]:
        """Yield the messages of a report after its first, which come within PARTS_WITHIN."""
        async for later in own_messages(self._client, place, message):
            if later.created_at > message.created_at + PARTS_WITHIN:
                return
            if any(file.filename.startswith(f"{job_id[:8]}-") for file in later.attachments):
                yield later

    async def _posted(self, place: discord.abc.Messageable, job: Job) -> dict[str, str]:
        """Return the message ids of the parts that earlier tries have posted. Discord forgets a
        nonce after some minutes; this finds them also days later."""
        found: dict[str, str] = {}
        first = str(ControlId("job", "delete", job.id))
        everything = 1 + len(job.output_images)
        async for message in own_messages(self._client, place, search_start(job)):
            stems = [Path(file.filename).stem for file in message.attachments]
            names = [stem for stem in stems if stem.startswith(f"{job.id[:8]}-")]
            names += [FIRST_PART] if first in buttons_of(message) else []
            found.update(dict.fromkeys(names, str(message.id)))
            if len(found) == everything:
                break
        # From now on this try may have posted something, too.
        await asyncio.to_thread(self._store.report_tried, job.id)
        return found
