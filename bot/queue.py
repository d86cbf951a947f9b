"""/queue: what is being made, who waits, and who may cancel what of it.

Owns the message of /queue with its buttons and its menu for moderators, and what members are called
in it. Everything here runs on the event loop; what blocks goes to a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import discord

from bot.controls import ControlId, Controls, Interaction, job_button
from bot.messages import DISCORD_ERRORS
from bot.permissions import is_moderator
from jobs.names import MENU_LIMIT
from store import Job, JobStatus, Store
from text import duration, escape, truncate

log = logging.getLogger(__name__)

QUEUE_TITLE = "The queue"
OTHERS_MENU = "Cancel a job of somebody else"
QUEUE_SHOWN = 15  # waiting jobs that /queue lists
OWN_SHOWN = 20  # of a person's own jobs, with a button each
NAME_SECONDS = 2.0  # within which Discord tells what somebody is called, or it goes without
NAMES_KEPT = 1000


class MemberNames:
    """What people are called in a server, of which the bot knows nothing before it asks."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], str] = {}

    async def of(self, guild: discord.Guild, user_ids: set[str]) -> dict[str, str]:
        """Names by user id, at least of these; without those that Discord does not tell soon."""
        if len(self._known) > NAMES_KEPT:
            self._known.clear()
        await asyncio.gather(*(self._learn(guild, user_id) for user_id in user_ids))
        return {user_id: name for (at, user_id), name in self._known.items() if at == guild.id}

    async def _learn(self, guild: discord.Guild, user_id: str) -> None:
        if (guild.id, user_id) in self._known:
            return
        try:
            member = await asyncio.wait_for(guild.fetch_member(int(user_id)), NAME_SECONDS)
        except DISCORD_ERRORS as error:
            log.debug("the name of user %s is not known: %s", user_id, error)
        else:
            self._known[guild.id, user_id] = member.display_name


class Waiting:
    """What waits, as /queue shows it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names = MemberNames()

    async def message(self, interaction: Interaction) -> tuple[discord.Embed, Controls]:
        """What runs, who waits, and what the person may cancel: their own jobs, each with a button,
        and for a moderator a menu of the others."""
        # In this order: a job that starts in between is then in both, and not in neither.
        queued = await asyncio.to_thread(self._store.by_status, JobStatus.QUEUED)
        running = await asyncio.to_thread(self._store.by_status, JobStatus.RUNNING)
        queued = [job for job in queued if job.id not in {other.id for other in running}]
        embed = queue_embed(running, queued)
        if queued and (estimate := await asyncio.to_thread(self._store.estimate, len(queued))):
            embed.set_footer(text=f"all done in about {duration(estimate)}")
        places = [(" the one now", job) for job in running]
        places += [(f" number {number}", job) for number, job in enumerate(queued, 1)]
        user_id = str(interaction.user.id)
        own = [(place, job) for place, job in places if job.user_id == user_id][:OWN_SHOWN]
        for place, job in own:
            prompt = escape(truncate(job.positive_prompt, 100))
            embed.add_field(name=f"Yours:{place}", value=prompt, inline=False)
        buttons = [job_button(job.id, "cancel", place) for place, job in own]
        others = [(place, job) for place, job in places if job.user_id != user_id]
        others = [(place, job) for place, job in others if is_moderator(interaction, job.guild_id)]
        if not others or interaction.guild is None:
            return embed, Controls(*buttons)
        return embed, Controls(*buttons, await self._others_menu(interaction.guild, others))

    async def _others_menu(
        self, guild: discord.Guild, others: Sequence[tuple[str, Job]]
    ) -> discord.ui.Select[Any]:
        """A moderator's menu of these jobs, each with its place in the queue, to cancel one."""
        shown = others[:MENU_LIMIT]
        names = await self._names.of(guild, {job.user_id for _, job in shown})
        some = f" (the first {len(shown)} of {len(others)})" if len(others) > len(shown) else ""
        menu: discord.ui.Select[Any] = discord.ui.Select(
            custom_id=str(ControlId("queue", "cancel", "")), placeholder=OTHERS_MENU + some
        )
        for place, job in shown:
            name = f": {names[job.user_id]}" if job.user_id in names else ""
            menu.add_option(label=place.strip().capitalize() + name, value=job.id)
        return menu


def queue_embed(running: Sequence[Job], queued: Sequence[Job]) -> discord.Embed:
    """What runs and who waits."""
    lines = [
        f"**now** <@{job.user_id}>, started <t:{(job.started_at or 0) // 1000}:R>"
        for job in running
    ]
    lines += [f"**{n}** <@{job.user_id}>" for n, job in enumerate(queued[:QUEUE_SHOWN], 1)]
    if len(queued) > QUEUE_SHOWN:
        lines.append(f"and {len(queued) - QUEUE_SHOWN} more")
    return discord.Embed(
        title=QUEUE_TITLE,
        description="\n".join(lines) or "Nothing is being made, and nobody waits.",
        colour=discord.Colour.blurple(),
    )
