"""/queue: the running job, the waiting ones, and Cancel for those a person may cancel.

The command, its controls and its message. Runs on the event loop; the database is read in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import discord
from discord import app_commands

from bot.actions import cancel_job, tidy
from bot.context import BotContext
from bot.controls import BUTTONS, ControlId, Controls, Interaction, button
from bot.messages import words_of
from bot.permissions import is_moderator
from bot.running import absence
from job import Job, JobStatus
from jobs.names import MENU_LIMIT
from jobs.servers import Servers
from text import OPTION_LIMIT, duration, escape, truncate

QUEUE_TITLE = "The queue"
OTHERS_MENU = "Cancel a job of somebody else"
QUEUE_SHOWN = 15  # waiting jobs that /queue lists
OWN_SHOWN = 20  # of a person's own jobs, each with a button

Entry = tuple[str, Job]  # "running" or the number in the queue, and the job


@app_commands.command(name="queue", description="What is being made, who waits, and your own jobs")
async def show_queue(interaction: Interaction) -> None:
    """Show the queue, for the caller's eyes alone."""
    context: BotContext = interaction.client.context
    context.check_place(interaction)
    await interaction.response.defer(ephemeral=True)
    embed, view = await queue_message(context, interaction)
    await interaction.followup.send(embed=embed, view=view, ephemeral=True)


async def cancel_chosen(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Cancel the job of a button, or the one chosen from the moderator's menu, and show the queue
    as it is now."""
    data: Any = interaction.data
    await interaction.response.defer()
    await cancel_job(context, interaction, control.key or data["values"][0])
    embed, view = await queue_message(context, interaction)
    await tidy(interaction.edit_original_response(content="Cancelled.", embed=embed, view=view))


async def queue_message(
    context: BotContext, interaction: Interaction
) -> tuple[discord.Embed, Controls]:
    """Return the queue and what the person may cancel: their own jobs, each with a button, and for
    a moderator a menu of the others."""
    store = context.store
    # In this order: a job that starts in between is then in both, and not in neither.
    queued = await asyncio.to_thread(store.by_status, JobStatus.QUEUED)
    running = await asyncio.to_thread(store.by_status, JobStatus.RUNNING)
    queued = [job for job in queued if job.id not in {other.id for other in running}]
    embed = queue_embed(running, queued, context.comfy)
    if (away_since := context.comfy.away_since) is not None:
        embed.description = f"{absence(away_since)}.\n{embed.description}"
    if queued and (
        estimate := await asyncio.to_thread(store.estimate, len(queued), context.comfy.answering)
    ):
        embed.set_footer(text=f"all done in about {duration(estimate)}")
    places = [("running", job) for job in running]
    places += [(f"number {number}", job) for number, job in enumerate(queued, 1)]
    user_id = str(interaction.user.id)
    own = [(place, job) for place, job in places if job.user_id == user_id][:OWN_SHOWN]
    for place, job in own:
        prompt = escape(truncate(words_of(job), OPTION_LIMIT))
        is_running = job.status is JobStatus.RUNNING
        name = "Yours, running" if is_running else f"Yours: {place}"
        embed.add_field(name=name, value=prompt, inline=False)
    others = [(place, job) for place, job in places if job.user_id != user_id]
    others = [(place, job) for place, job in others if is_moderator(interaction, job.guild_id)]
    menus = [others_menu(others)] if others else []
    return embed, Controls(*map(cancel_button, own), *menus)


def cancel_button(own: Entry) -> discord.ui.Button[Any]:
    """Return the button that cancels one of the person's own jobs."""
    place, job = own
    label, style = BUTTONS["cancel"]
    end = "the running one" if job.status is JobStatus.RUNNING else place
    return button("queue", "cancel", job.id, f"{label} {end}", style)


def others_menu(others: Sequence[Entry]) -> discord.ui.Select[Any]:
    """Return a moderator's menu of other people's jobs, each with the first words of its prompt."""
    shown = others[:MENU_LIMIT]
    some = f" (the first {len(shown)} of {len(others)})" if len(others) > len(shown) else ""
    menu: discord.ui.Select[Any] = discord.ui.Select(
        custom_id=str(ControlId("queue", "cancel", "")), placeholder=OTHERS_MENU + some
    )
    for place, job in shown:
        words = " ".join(words_of(job).split())
        menu.add_option(
            label=place.capitalize(), value=job.id, description=truncate(words, OPTION_LIMIT)
        )
    return menu


def queue_embed(running: Sequence[Job], queued: Sequence[Job], servers: Servers) -> discord.Embed:
    """Return the running job and the waiting ones, in their order."""
    lines = [
        f"**{_now(servers, job)}** <@{job.user_id}>, started <t:{(job.started_at or 0) // 1000}:R>"
        for job in running
    ]
    lines += [f"**{n}** <@{job.user_id}>" for n, job in enumerate(queued[:QUEUE_SHOWN], 1)]
    if len(queued) > QUEUE_SHOWN:
        lines.append(f"and {len(queued) - QUEUE_SHOWN} more")
    return discord.Embed(
        title=QUEUE_TITLE,
        description="\n".join(lines) or "The queue is empty.",
        colour=discord.Colour.blurple(),
    )


def _now(servers: Servers, job: Job) -> str:
    """Return what stands before a running job: of several servers also its number."""
    number = servers.number(job.server)
    return "now" if number is None else f"now ({number})"
