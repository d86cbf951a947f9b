"""/mine: the last pictures of one person in one server, for their eyes alone.

Owns that message and its pages. Again and Edit in it are those of every result. Runs on the event
loop; the database is asked in a thread.
"""

from __future__ import annotations

import asyncio
from typing import Any

import discord

from bot.controls import Controls, Interaction, button, job_button
from store import Job, Store
from text import escape, truncate

PAGE = 10  # pictures: two rows of buttons for each five, and one for the pages
PROMPT_SHOWN = 100  # characters
LINK = "https://discord.com/channels"


async def page_of(
    store: Store, interaction: Interaction, page: int
) -> tuple[discord.Embed, Controls]:
    """The person's pictures of this server, newest first; `page` counts from 0."""
    user_id, guild_id = str(interaction.user.id), str(interaction.guild_id)
    jobs, total = await asyncio.to_thread(
        store.by_person, user_id, guild_id, offset=page * PAGE, limit=PAGE
    )
    if not jobs and page:  # retention has removed what was there
        return await page_of(store, interaction, 0)
    first = page * PAGE + 1
    lines = [line(number, job) for number, job in enumerate(jobs, first)]
    embed = discord.Embed(
        title="Your pictures",
        description="\n".join(lines) or "None yet in this server: /gen makes one.",
        colour=discord.Colour.blurple(),
    )
    if jobs:
        embed.set_footer(text=f"{first} to {first + len(jobs) - 1} of {total}")
    return embed, Controls(*buttons(jobs, page, total))


def line(number: int, job: Job) -> str:
    """A picture in a line: when, a link to it, its prompt and its seed."""
    when = f"<t:{(job.completed_at or job.created_at) // 1000}:R>"
    place = f", [message]({address})" if (address := link(job)) else ""
    prompt = escape(truncate(" ".join(job.positive_prompt.split()), PROMPT_SHOWN))
    seed = "" if job.seed is None else f", seed {job.seed}"
    return f"**{number}** {when}{place}: {prompt}{seed}"


def link(job: Job) -> str:
    """The address of the message with the result, in the server or in a direct message; empty if
    there is none any more."""
    if not job.report_message_ids:
        return ""
    place_id = job.report_channel_id or job.channel_id
    where = job.guild_id if place_id == job.channel_id else "@me"
    return f"{LINK}/{where}/{place_id}/{job.report_message_ids[0]}"


def buttons(jobs: list[Job], page: int, total: int) -> list[discord.ui.Button[Any]]:
    """Again and Edit for each, by its number, and the ways to the other pages."""
    shown: list[discord.ui.Button[Any]] = []
    for place, job in enumerate(jobs):
        for row, action in enumerate(("again", "edit"), 2 * (place // 5)):
            item = job_button(job.id, action, f" {page * PAGE + place + 1}")
            item.row = row
            shown.append(item)
    grey = discord.ButtonStyle.secondary
    ways = {"Newer": (page - 1, page > 0), "Older": (page + 1, (page + 1) * PAGE < total)}
    for label, (other, is_there) in ways.items():
        if is_there:
            item = button("mine", "page", str(other), label, grey)
            item.row = 4
            shown.append(item)
    return shown
