"""What people can do: each command, button, menu and modal, from the press to the answer.

Owns the slash commands, the handlers that the bot's router calls by a control's custom id, who may
do what and where, and the `Desk`: the parts of the bot that all of them work with. Everything here
runs on the event loop; what blocks goes to a thread. Knows no connection, no start and no stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands

import binder
import object_info
from channel import AWAY, job_button, job_view
from comfy_client import ComfyClient
from form import (
    ControlId,
    Controls,
    ExpiredForm,
    Forms,
    Refusal,
    Stage,
    check_offered,
    form_embed,
    new_seed,
)
from names import escaped, names_of, shortened, without_half_emoji
from object_info import ComfyOptions
from report import Reporter
from settings import PROMPT_LIMIT, Settings
from store import Job, JobParams, JobStatus, Store
from worker import Queued, Worker
from workflows import Offer, Workflows

log = logging.getLogger(__name__)

Interaction = discord.Interaction[Any]
QUEUE_TITLE = "The queue"
QUEUE_SHOWN = 15  # waiting jobs that /queue lists
OWN_SHOWN = 20  # of a person's own jobs, with a button each
RESTARTING = "The bot is restarting. Please try again in a minute."


class Desk:
    """What the commands work with: the parts of the bot, and what holds for all of them."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        comfy: ComfyClient,
        comfyui_threads: ThreadPoolExecutor,
        worker: Worker,
        reporter: Reporter,
        workflows: Workflows,
        offers: Mapping[str, Offer],
    ) -> None:
        """`comfyui_threads` are for what waits for ComfyUI, which may hang for long; `offers` are
        as the checks have read them."""
        self.settings = settings
        self.store = store
        self.worker = worker
        self.reporter = reporter
        self.forms = Forms(
            offers[workflows.default].options,
            offers[workflows.default].defaults,
            settings.default_negative_prompt,
            self.check_place,
        )
        self._comfy = comfy
        self._workflows = workflows
        self.comfyui_threads = comfyui_threads
        for found in offers.values():
            names_of(found.options.models)  # now, not at the first click
        reporter.models = lambda: self.forms.options.models

    def check_place(self, interaction: Interaction) -> None:
        """Refusal while shutting down, and outside of the allowed channels and their threads."""
        if self.worker.stopping:
            raise Refusal(RESTARTING)
        if interaction.guild_id is None:
            raise Refusal("/gen works in a server's channel, not in direct messages.")
        parent_id = getattr(interaction.channel, "parent_id", None)
        if self.settings.channel_ids.isdisjoint({interaction.channel_id, parent_id}):
            here = [
                f"<#{channel_id}>"
                for channel_id in sorted(self.settings.channel_ids)
                if getattr(interaction.client.get_channel(channel_id), "guild", None)
                == interaction.guild
            ]
            advice = f"use {', '.join(here[:5])}" if here else "ask the bot's owner"
            raise Refusal(f"/gen is not available in this channel. Please {advice}.")

    async def job(self, job_id: str) -> Job:
        """The job that a button is about; Refusal if retention has removed it."""
        job = await asyncio.to_thread(self.store.get, job_id)
        if job is None:
            raise Refusal("This job is so old that the bot does not know it any more.")
        return job

    def read_lists(self) -> ComfyOptions:
        """Read what ComfyUI offers now. Blocks."""
        info = object_info.fetch(self._comfy)
        offers, left_out = self._workflows.offers(info)
        for name, reason in left_out.items():
            log.warning("the workflow %s is left out: %s", name, reason)
        for found in offers.values():
            names_of(found.options.models)  # here, not on the event loop
        default = offers[self._workflows.default]
        self.forms.options, self.forms.defaults = default.options, default.defaults
        self.worker.seed_maxima = info.maxima(binder.SEED_INPUTS)
        return self.forms.options


# ---------------------------------------------------------------------------------------------
# The commands


@app_commands.command(name="gen", description="Make a picture on this server's own GPU")
@app_commands.describe(
    prompt="What the picture shows",
    model="Type any part of a model's name",
    seed="The same seed and settings give the same picture",
)
async def gen(
    interaction: Interaction,
    prompt: app_commands.Range[str, 1, PROMPT_LIMIT] | None = None,
    model: str | None = None,
    seed: str | None = None,
) -> None:
    """/gen (architecture.md §3.1); with options the form opens filled in."""
    desk: Desk = interaction.client.desk
    given = (without_half_emoji(text or "") for text in (prompt, model, seed))
    await desk.forms.open(interaction, *given)


@gen.autocomplete("model")
async def complete_model(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
    """The models that a person may mean."""
    desk: Desk = interaction.client.desk
    choices = names_of(desk.forms.options.models).choices(current)
    return [app_commands.Choice(name=choice.name, value=choice.value) for choice in choices]


@app_commands.command(name="queue", description="What is being made, who waits, and your own jobs")
async def show_queue(interaction: Interaction) -> None:
    """/queue, for the caller's eyes alone."""
    desk: Desk = interaction.client.desk
    desk.check_place(interaction)
    await interaction.response.defer(ephemeral=True)
    embed, view = await queue_message(desk, interaction.user.id)
    await interaction.followup.send(embed=embed, view=view, ephemeral=True)


@app_commands.command(name="refresh", description="Read ComfyUI's models and samplers again")
@app_commands.default_permissions(manage_guild=True)
async def refresh(interaction: Interaction) -> None:
    """/refresh, for members who may manage the server: the option lists, without a restart."""
    # Asked again: a server's settings can show the command to others.
    if interaction.guild_id is None or not interaction.permissions.manage_guild:
        raise Refusal("Only members who may manage the server can do that.")
    desk: Desk = interaction.client.desk
    await interaction.response.defer(ephemeral=True)
    before = desk.forms.options
    now = await asyncio.get_running_loop().run_in_executor(desk.comfyui_threads, desk.read_lists)
    new = len(set(now.models) - set(before.models))
    gone = len(set(before.models) - set(now.models))
    await interaction.followup.send(
        f"The lists are fresh: {len(now.models)} models ({new} new, {gone} gone),"
        f" {len(now.samplers)} samplers, {len(now.schedulers)} schedulers.",
        ephemeral=True,
    )


COMMANDS: tuple[app_commands.Command[Any, ..., Any], ...] = (gen, show_queue, refresh)
COMMAND_NAMES = {command.name for command in COMMANDS}


async def queue_message(desk: Desk, user_id: int) -> tuple[discord.Embed, Controls]:
    """What runs, who waits, and the person's own jobs with Cancel."""
    # In this order: a job that starts in between is then in both, and not in neither.
    queued = await asyncio.to_thread(desk.store.by_status, JobStatus.QUEUED)
    running = await asyncio.to_thread(desk.store.by_status, JobStatus.RUNNING)
    queued = [job for job in queued if job.id not in {other.id for other in running}]
    lines = [
        f"**now** <@{job.user_id}>, started <t:{(job.started_at or 0) // 1000}:R>"
        for job in running
    ]
    lines += [f"**{n}** <@{job.user_id}>" for n, job in enumerate(queued[:QUEUE_SHOWN], 1)]
    if len(queued) > QUEUE_SHOWN:
        lines.append(f"and {len(queued) - QUEUE_SHOWN} more")
    embed = discord.Embed(
        title=QUEUE_TITLE,
        description="\n".join(lines) or "Nothing is being made, and nobody waits.",
        colour=discord.Colour.blurple(),
    )
    if queued and (estimate := await asyncio.to_thread(desk.worker.estimate, len(queued))):
        embed.set_footer(text=f"all done in about {duration(estimate)}")
    places = [(" the one now", job) for job in running]
    places += [(f" number {number}", job) for number, job in enumerate(queued, 1)]
    own = [(place, job) for place, job in places if job.user_id == str(user_id)][:OWN_SHOWN]
    for place, job in own:
        prompt = escaped(shortened(job.positive_prompt, 100))
        embed.add_field(name=f"Yours:{place}", value=prompt, inline=False)
    return embed, Controls(*(job_button(job.id, "cancel", place) for place, job in own))


def duration(seconds: float) -> str:
    """A time in the words of an estimate: `40 s`, `3 min`, `2 h`."""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{round(seconds / 3600)} h"


# ---------------------------------------------------------------------------------------------
# Clicks and modals: a handler for each control, by the area and the action of its custom id


async def choose(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """A menu of the form."""
    data: Any = interaction.data
    await desk.forms.choose(interaction, control.key, control.action, data["values"][0])


async def show_modal(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """Edit Prompts & Settings, or Correct it."""
    await desk.forms.show_modal(interaction, control.key, control.action)


async def take_modal(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """A modal that was submitted."""
    data: Any = interaction.data
    await desk.forms.take_modal(interaction, control.key, control.action, data["components"])


async def generate(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """Generate (architecture.md §3.4): the draft becomes a job."""
    draft = desk.forms.draft(interaction, control.key)
    desk.check_place(interaction)
    if missing := draft.missing():
        raise Refusal(f"Still missing: {', '.join(missing)}. Fill it in and press Generate.")
    params = draft.job_params(
        interaction.user.id,
        interaction.guild_id,
        interaction.channel_id,
        random_seeds=desk.settings.random_seeds,
    )
    check_offered(params, desk.forms.options)
    if draft.stage is Stage.SENDING:  # a second press; the first answers, whichever way it ends
        await interaction.response.defer()
        return
    draft.stage = Stage.SENDING  # before the first await
    try:
        await interaction.response.defer()
        queued = await asyncio.to_thread(desk.worker.accept, params)
        draft.sent()
    finally:
        if draft.stage is Stage.SENDING:
            draft.stage = Stage.OPEN
    await say_queued(interaction, queued)
    await tidy(interaction.edit_original_response(content=None, embed=form_embed(draft), view=None))


async def again(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """Again: the same settings with a new seed, for whoever presses it."""
    desk.check_place(interaction)
    await interaction.response.defer(ephemeral=True, thinking=True)
    params: JobParams = replace(
        await desk.job(control.key),
        user_id=str(interaction.user.id),
        guild_id=str(interaction.guild_id),
        channel_id=str(interaction.channel_id),
        seed=new_seed(),
    )
    check_offered(params, desk.forms.options)
    await say_queued(interaction, await asyncio.to_thread(desk.worker.accept, params))


async def edit(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """Edit: the form filled from that job, for whoever presses it."""
    desk.check_place(interaction)
    await interaction.response.defer(ephemeral=True, thinking=True)
    await desk.forms.open_from(interaction, await desk.job(control.key))


async def delete(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """Delete: every message of the result goes, also if retention has removed the job's row."""
    await interaction.response.defer()
    message = interaction.message
    assert message is not None  # a button stands in one
    job = await asyncio.to_thread(desk.store.get, control.key)
    mention = re.match(r"<@(\d+)>", message.content)
    check_may_change(interaction, job.user_id if job else mention[1] if mention else "")
    await desk.reporter.remove(message, control.key, job)
    with contextlib.suppress(discord.NotFound):  # a second press, or a moderator
        await interaction.delete_original_response()
    log.info("job %s: its result was deleted by user %d", control.key, interaction.user.id)


async def cancel(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """Cancel, of a queued or running job."""
    await interaction.response.defer()
    job = await desk.job(control.key)
    check_may_change(interaction, job.user_id)
    if not await asyncio.to_thread(desk.worker.cancel, job.id):
        raise Refusal("Too late: this job has ended already.")
    log.info("job %s: cancelled by user %d", job.id, interaction.user.id)
    desk.reporter.job_ended(job.id)
    message = interaction.message
    if message is None or not message.flags.ephemeral:
        return
    changes: dict[str, Any] = {"view": None}
    if any(embed.title == QUEUE_TITLE for embed in message.embeds):
        changes["embed"], changes["view"] = await queue_message(desk, interaction.user.id)
    await tidy(interaction.edit_original_response(content="Cancelled.", **changes))


async def answer_unknown(desk: Desk, interaction: Interaction, control: ControlId) -> None:
    """A control that this version of the bot does not have."""
    if control.area == "form":
        raise ExpiredForm
    raise Refusal("This button is of another version of the desk.")


def check_may_change(interaction: Interaction, asker_id: str) -> None:
    """Refusal for everybody but the person who asked and moderators."""
    is_owner = asker_id == str(interaction.user.id)
    if not is_owner and not interaction.permissions.manage_messages:
        raise Refusal("Only the person who asked for it and moderators can do that.")


async def tidy(edit: Awaitable[object]) -> None:
    """An edit after the work is done. That it fails is no reason to say that anything has."""
    try:
        await edit
    except AWAY as error:
        log.warning("Discord did not take an edit: %s", error)


async def say_queued(interaction: Interaction, queued: Queued) -> None:
    """The answer to Generate and Again."""
    about = f" (about {duration(queued.seconds)})" if queued.seconds is not None else ""
    text = f"Queued! You are position **{queued.position}** in the queue{about}."
    for is_last in (False, True):
        try:
            view = job_view(queued.job_id, "cancel")
            await interaction.followup.send(text, view=view, ephemeral=True)
            return
        except AWAY as error:
            # The job is safe: an error's "try again" would double it.
            log.warning("job %s: its Queued! did not arrive: %s", queued.job_id, error)
            if is_last or isinstance(error, discord.HTTPException):
                return


Handler = Callable[[Desk, Interaction, ControlId], Awaitable[None]]
HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("form", "model"): choose,
    ("form", "sampler"): choose,
    ("form", "scheduler"): choose,
    ("form", "edit"): show_modal,
    ("form", "retry"): show_modal,
    ("form", "generate"): generate,
    ("modal", "edit"): take_modal,
    ("modal", "retry"): take_modal,
    ("job", "cancel"): cancel,
    ("job", "again"): again,
    ("job", "edit"): edit,
    ("job", "delete"): delete,
}
