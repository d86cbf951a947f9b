"""What the bot's messages in a channel have in common.

Owns the nonce, how a prompt is quoted in them, how a message of our own is found again, and which
of Discord's failures pass with time. What the messages say, running.py and report.py know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Future
from datetime import datetime, timedelta, timezone

import aiohttp
import discord

from comfyui.errors import BadAnswer, Unreachable
from store import Job, StoreError, unix_ms
from text import escape, truncate

log = logging.getLogger(__name__)

# What a call to Discord raises: if nothing came back, and if Discord is away or refuses.
NO_ANSWER = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
DISCORD_ERRORS = (discord.DiscordException, *NO_ANSWER)
PERMANENT_STATUSES = (
    400,
    403,
    404,
)  # statuses of a channel that the bot cannot use; 400: archived, for one
PROMPT_SHOWN = 200  # characters of the prompt in a result (architecture.md M9)
DESCRIPTION_LIMIT = 1024  # characters that Discord takes of a file's description
PATIENCE = 5.0  # seconds after which others need not wait any more for a post that hangs
TRY_SECONDS = 20.0  # for one message without files
CLOCK_ERROR = timedelta(hours=1)  # of this machine's clock, which is held against Discord's
LATE = timedelta(minutes=10)  # a message may appear so long after its post was begun


def may_work_later(error: Exception) -> bool:
    """Whether the same attempt may work later: Discord, ComfyUI or the database is away."""
    if isinstance(error, discord.HTTPException):
        return error.status == 429 or error.status >= 500
    passing = (discord.RateLimited, *NO_ANSWER, StoreError, Unreachable, BadAnswer)
    return isinstance(error, passing)


def nonce(job_id: str, part: object) -> str:
    """Discord drops a second message with the same nonce. It may have 25 characters: of the id's
    32 digits as many as fit."""
    return f"{job_id.replace('-', '')[:20]}-{part}"


def prompt_of(job: Job) -> str:
    return escape(truncate(job.positive_prompt, PROMPT_SHOWN))


def description_of(job: Job, before: str = "") -> str:
    """A picture in words, for those who cannot see it: what was asked for. Not markdown."""
    return truncate(before + job.positive_prompt, DESCRIPTION_LIMIT)


def buttons_of(message: discord.Message) -> set[str]:
    """The custom ids of a message's buttons: they tell our messages about one job from others."""
    rows = [row for row in message.components if isinstance(row, discord.ActionRow)]
    return {item.custom_id or "" for row in rows for item in row.children}


async def own_messages(
    client: discord.Client,
    place: discord.abc.Messageable,
    since_ms: int | None,
    until_ms: int | None,
) -> AsyncIterator[discord.Message]:
    """Our messages that may have been posted between these times (Unix ms, of this machine's
    clock; None: now), oldest first, however many others there are."""
    since, until = (
        datetime.fromtimestamp((unix_ms() if ms is None else ms) / 1000, timezone.utc)
        for ms in (since_ms, until_ms)
    )
    try:
        history = place.history(after=since - CLOCK_ERROR, limit=None, oldest_first=True)
        async for message in history:
            if message.created_at > until + CLOCK_ERROR + LATE:
                return
            if message.author == client.user:
                yield message
    except (discord.Forbidden, discord.NotFound):
        log.debug("the history of a channel is closed to the bot")


def log_exception(work: Future[None] | asyncio.Future[None]) -> None:
    """When work has ended that nobody waits for: an error of its own must not vanish."""
    if not work.cancelled() and (error := work.exception()) is not None:
        log.error("work in the background has failed", exc_info=error)
