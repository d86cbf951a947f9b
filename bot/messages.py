"""Helpers for posting: nonces, finding our own messages, which errors to retry.

Also how a prompt is quoted. The messages themselves are in bot/running.py and bot/report.py.
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
from job import Job
from store import StoreError
from text import escape, truncate

log = logging.getLogger(__name__)

NO_ANSWER = (aiohttp.ClientError, OSError, asyncio.TimeoutError)  # a call to Discord got none
DISCORD_ERRORS = (discord.DiscordException, *NO_ANSWER)  # whatever a call to Discord raises
PERMANENT_STATUSES = (400, 403, 404)  # Discord does not take it there; 400: archived, for one
PROMPT_SHOWN = 200  # characters of the prompt in an embed
DESCRIPTION_LIMIT = 1024  # characters that Discord takes of a file's description
HANGING_SECONDS = 5.0  # after which a call to Discord no longer keeps others waiting
TRY_SECONDS = 20.0  # for one message without files
CANCELLED_BY_MODERATOR = (
    "A moderator cancelled this picture. If you do not know why, please ask the moderators."
)
OLD_ROW_MARGIN = timedelta(days=7)

# Why Discord refuses a message for its content, by Discord's error code.
AUTOMOD = "a rule of this server's AutoMod blocks it"
CONTENT_REFUSALS = {
    20009: "its filter takes it for explicit content",
    200000: AUTOMOD,
    200001: AUTOMOD,
    240000: "its filter takes a link in it for harmful",
}


def may_work_later(error: Exception) -> bool:
    """Return whether to retry: Discord, ComfyUI or the database is away."""
    if isinstance(error, discord.HTTPException):
        return error.status == 429 or error.status >= 500
    passing = (discord.RateLimited, *NO_ANSWER, StoreError, Unreachable, BadAnswer)
    return isinstance(error, passing)


def nonce(job_id: str, part: object) -> str:
    """Return the nonce of a message about a job: Discord drops a second message with the same one.
    It may have 25 characters, so only 20 of the id's 32 digits are in it."""
    return f"{job_id.replace('-', '')[:20]}-{part}"


def is_withheld(job: Job) -> bool:
    """Return whether the channel may not read the prompt: a moderator has cancelled the job."""
    return job.error_message == CANCELLED_BY_MODERATOR


def prompt_of(job: Job) -> str:
    """Return the beginning of the job's prompt, as markdown; empty if it is withheld."""
    return "" if is_withheld(job) else escape(truncate(words_of(job), PROMPT_SHOWN))


def words_of(job: Job) -> str:
    """Return the job's prompt, or words in the place of one, which an upscaler's has not."""
    return job.positive_prompt or f"({job.workflow}, without a prompt)"


def description_of(job: Job, before: str = "") -> str:
    """Return the alt text of a job's picture, which is its prompt; not markdown."""
    return truncate(before + words_of(job), DESCRIPTION_LIMIT)


def buttons_of(message: discord.Message) -> set[str]:
    """Return the custom ids of a message's buttons, by which our messages about a job are found."""
    rows = [row for row in message.components if isinstance(row, discord.ActionRow)]
    return {item.custom_id or "" for row in rows for item in row.children}


def search_start(job: Job) -> discord.abc.Snowflake:
    """Return a moment, by Discord's own clock, before our first message about a job."""
    if job.interaction_id:
        return discord.Object(int(job.interaction_id))
    if job.discord_message_id:
        return discord.Object(int(job.discord_message_id) - 1)
    # A row of an older version: this machine's clock may be days off.
    created = datetime.fromtimestamp(job.created_at / 1000, timezone.utc)
    return discord.Object(discord.utils.time_snowflake(created - OLD_ROW_MARGIN))


async def own_messages(
    client: discord.Client, place: discord.abc.Messageable, after: discord.abc.Snowflake
) -> AsyncIterator[discord.Message]:
    """Yield our messages after a snowflake, oldest first, however many others there are."""
    try:
        async for message in place.history(after=after, limit=None, oldest_first=True):
            if message.author == client.user:
                yield message
    except (discord.Forbidden, discord.NotFound):
        log.debug("the bot may not read the history of a channel")


def log_exception(task: Future[None] | asyncio.Future[None]) -> None:
    """Log the exception of a background task, which nothing awaits; a done callback."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background task failed", exc_info=error)
