"""/mine: a person's last pictures in one server, for their eyes alone.

The command, its pages and its message. Runs on the event loop; the database is read in a thread.
"""

from __future__ import annotations

import asyncio
from typing import Any

import discord
from discord import app_commands

from bot.context import BotContext
from bot.controls import ControlId, Controls, Interaction, button, job_button
from bot.messages import words_of
from job import Job
from store import Store
from text import escape, truncate

PAGE_SIZE = 10  # pictures; each five have two of the five rows of buttons
PROMPT_IN_LIST = 100  # characters
DISCORD_URL = "https://discord.com/channels"


@app_commands.command(name="mine", description="Your last pictures of this server")
async def show_mine(interaction: Interaction) -> None:
    """Show the first page, for the caller's eyes alone."""
    context: BotContext = interaction.client.context
    context.check_place(interaction)
    await interaction.response.defer(ephemeral=True)
    embed, view = await page_of(context.store, interaction, 0)
    await interaction.followup.send(embed=embed, view=view, ephemeral=True)


async def turn_page(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Turn to a newer or older page."""
    context.check_place(interaction)
    await interaction.response.defer()
    embed, view = await page_of(context.store, interaction, int(control.key))
    await interaction.edit_original_response(embed=embed, view=view)


async def page_of(
    store: Store, interaction: Interaction, page: int
) -> tuple[discord.Embed, Controls]:
    """Return the message with the person's pictures of this server, newest first; `page` counts
    from 0."""
    user_id, guild_id = str(interaction.user.id), str(interaction.guild_id)
    jobs, total = await asyncio.to_thread(
        store.by_person, user_id, guild_id, offset=page * PAGE_SIZE, limit=PAGE_SIZE
    )
    if not jobs and page:  # retention has removed what was there
        return await page_of(store, interaction, 0)
    first = page * PAGE_SIZE + 1
    lines = [picture_line(number, job) for number, job in enumerate(jobs, first)]
    embed = discord.Embed(
        title="Your pictures",
        description="\n".join(lines) or "None yet in this server: /gen makes one.",
        colour=discord.Colour.blurple(),
    )
    if jobs:
        embed.set_footer(text=f"{first} to {first + len(jobs) - 1} of {total}")
    return embed, Controls(*page_buttons(jobs, page, total))


def picture_line(number: int, job: Job) -> str:
    """Return a picture's line: when, a link to it, its prompt and its seed."""
    when = f"<t:{(job.completed_at or job.created_at) // 1000}:R>"
    place = f", [message]({address})" if (address := message_url(job)) else ""
    prompt = escape(truncate(" ".join(words_of(job).split()), PROMPT_IN_LIST))
    seed = "" if job.seed is None else f", seed {job.seed}"
    return f"**{number}** {when}{place}: {prompt}{seed}"


def message_url(job: Job) -> str:
    """Return the URL of the message with the result, in the server or in a direct message; empty
    if there is none any more."""
    if not job.report_message_ids:
        return ""
    place_id = job.report_channel_id or job.channel_id
    where = job.guild_id if place_id == job.channel_id else "@me"
    return f"{DISCORD_URL}/{where}/{place_id}/{job.report_message_ids[0]}"


def page_buttons(jobs: list[Job], page: int, total: int) -> list[discord.ui.Button[Any]]:
    """Return Again and Edit for each picture, by its number, and the buttons to other pages."""
    shown: list[discord.ui.Button[Any]] = []
    for place, job in enumerate(jobs):
        for row, action in enumerate(("again", "edit"), 2 * (place // 5)):
            item = job_button(job.id, action, f" {page * PAGE_SIZE + place + 1}")
            item.row = row
            shown.append(item)
    grey = discord.ButtonStyle.secondary
    ways = {"Newer": (page - 1, page > 0), "Older": (page + 1, (page + 1) * PAGE_SIZE < total)}
    for label, (other, is_there) in ways.items():
        if is_there:
            item = button("mine", "page", str(other), label, grey)
            item.row = 4
            shown.append(item)
    return shown
