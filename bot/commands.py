"""What people can do: each command, button, menu and modal, from the press to the answer.

Owns the slash commands, the handlers that the bot's router calls by a control's custom id, who may
do what and where, and the `BotContext`: the parts of the bot that all of them work with. Everything
here runs on the event loop; what blocks goes to a thread.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import discord
from discord import app_commands

import binder
from bot.blocked import BlockedPrompt, BlockedWords, blocked
from bot.controls import ControlId, Interaction, job_view
from bot.form import Forms, form_embed, retry_view
from bot.messages import DISCORD_ERRORS, PERMANENT_STATUSES
from bot.mine import page_of
from bot.permissions import cannot_post, check_manager, check_may_change, check_place
from bot.queue import QUEUE_TITLE, Waiting
from bot.report import Reporter
from bot.running import place_in_queue
from jobs.catalog import LISTS_AGE, Catalog, Offer
from jobs.draft import AS_IN_FILE, ExpiredForm, FormError, Stage, check_offered, new_seed
from jobs.names import OptionNames
from jobs.worker import Queued, Worker
from settings import PROMPT_LIMIT, Settings
from store import Job, JobParams, Store, StoreError
from text import UserError, drop_lone_surrogates, quote

log = logging.getLogger(__name__)

LEFT_OUT_SHOWN = 10  # of the workflows that cannot be used
DOUBLE_TAP = 2.0  # seconds within which a second press is part of the first
CANCELLED_BY_MODERATOR = (
    "A moderator cancelled this picture. If you do not know why, please ask the moderators."
)
RESTARTING = "The bot is restarting. Please try again in a minute."


class DoubleClickGuard:
    """Tells the second press of a double tap from a first one."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._first: dict[tuple[int, str], float] = {}  # when, by person and job

    def is_second(self, user_id: int, job_id: str) -> bool:
        """Whether this person has just pressed the same; if not, this press is noted."""
        now = self._now()
        self._first = {tap: at for tap, at in self._first.items() if now - at < DOUBLE_TAP}
        is_second = (user_id, job_id) in self._first
        self._first.setdefault((user_id, job_id), now)
        return is_second

    def forget(self, user_id: int, job_id: str) -> None:
        """That press came to nothing: the next one counts."""
        self._first.pop((user_id, job_id), None)


class BotContext:
    """What the commands work with: the parts of the bot, and what holds for all of them."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        catalog: Catalog,
        worker: Worker,
        reporter: Reporter,
        comfyui_threads: ThreadPoolExecutor,
    ) -> None:
        """`comfyui_threads` are for calls that wait for ComfyUI, which may hang for long."""
        self.settings = settings
        self.store = store
        self.catalog = catalog
        self.worker = worker
        self.reporter = reporter
        self.comfyui_threads = comfyui_threads
        self.agains = DoubleClickGuard()
        self.waiting = Waiting(store)
        self.words = BlockedWords(store)
        self.forms = Forms(settings, catalog, self.check_place)

    def check_place(self, interaction: Interaction) -> None:
        """UserError while shutting down, and where this person may not ask for pictures."""
        if self.worker.stopping:
            raise UserError(RESTARTING)
        check_place(self.settings, interaction)

    async def accept(self, params: JobParams) -> Queued:
        """Queue a job, unless the server's moderators do not want its prompt: BlockedPrompt."""
        prompt = params.positive_prompt
        found = await asyncio.to_thread(self.words.found, params.guild_id, prompt)
        if found:
            raise BlockedPrompt(found)
        return await asyncio.to_thread(self.worker.accept, params)

    async def job(self, job_id: str) -> Job:
        """The job that a button is about; UserError if retention has removed it."""
        job = await asyncio.to_thread(self.store.get, job_id)
        if job is None:
            raise UserError("This job is so old that the bot does not know it any more.")
        return job


# ---------------------------------------------------------------------------------------------
# The commands


@app_commands.command(name="gen", description="Make a picture on this server's own GPU")
@app_commands.describe(
    prompt="What the picture shows",
    model="Type any part of a model's name",
    seed="The same seed and settings give the same picture",
    workflow="What makes the picture, where there is a choice",
    shape="Square, portrait, landscape, wide or tall",
    lora="Type any part of a LoRA's name: its tag is added to the prompt",
)
@app_commands.choices(
    shape=[app_commands.Choice(name=name, value=name) for name in (AS_IN_FILE, *binder.SHAPES)]
)
async def gen(
    interaction: Interaction,
    prompt: app_commands.Range[str, 1, PROMPT_LIMIT] | None = None,
    model: str | None = None,
    seed: str | None = None,
    workflow: str | None = None,
    shape: str | None = None,
    lora: str | None = None,
) -> None:
    """/gen (architecture.md §3.1); with options the form opens filled in."""
    context: BotContext = interaction.client.context
    context.catalog.refresh_if_older(time.monotonic() - LISTS_AGE)
    given = (
        drop_lone_surrogates(text or "") for text in (prompt, model, seed, workflow, shape, lora)
    )
    await context.forms.open(interaction, *given)


@gen.autocomplete("model")
async def complete_model(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
    """The models that a person may mean, of the workflow that stands in the command already, or of
    the one they will get."""
    forms: Forms = interaction.client.context.forms
    workflow = forms.workflow_of(interaction.user.id, interaction.namespace.workflow or "")
    return choices_of(forms.catalog.offer(workflow).models, current)


@gen.autocomplete("lora")
async def complete_lora(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
    """The LoRAs that a person may mean."""
    forms: Forms = interaction.client.context.forms
    workflow = forms.workflow_of(interaction.user.id, interaction.namespace.workflow or "")
    return choices_of(forms.catalog.offer(workflow).loras, current)


@gen.autocomplete("workflow")
async def complete_workflow(
    interaction: Interaction, current: str
) -> list[app_commands.Choice[str]]:
    """The workflows that a person may mean."""
    return choices_of(interaction.client.context.catalog.names, current)


def choices_of(names: OptionNames, text: str) -> list[app_commands.Choice[str]]:
    """Return what autocomplete offers out of a list."""
    return [app_commands.Choice(name=name, value=value) for name, value in names.choices(text)]


@app_commands.command(name="queue", description="What is being made, who waits, and your own jobs")
async def show_queue(interaction: Interaction) -> None:
    """/queue, for the caller's eyes alone."""
    context: BotContext = interaction.client.context
    context.check_place(interaction)
    await interaction.response.defer(ephemeral=True)
    embed, view = await context.waiting.message(interaction)
    await interaction.followup.send(embed=embed, view=view, ephemeral=True)


@app_commands.command(name="refresh", description="Read ComfyUI's models and samplers again")
@app_commands.default_permissions(manage_guild=True)
async def refresh(interaction: Interaction) -> None:
    """/refresh, for members who may manage the server: the option lists, without a restart."""
    check_manager(interaction)
    context: BotContext = interaction.client.context
    await interaction.response.defer(ephemeral=True)
    before = all_options(context.catalog.offers)
    loop = asyncio.get_running_loop()
    offers = await loop.run_in_executor(context.comfyui_threads, context.catalog.refresh)
    now = all_options(offers)
    new, gone = (len(a - b) for a, b in ((now[0], before[0]), (before[0], now[0])))
    models, samplers, schedulers = map(len, now)
    text = f"Lists refreshed: {models} models ({new} new, {gone} gone), {samplers} samplers,"
    text += f" {schedulers} schedulers"
    text += f", {len(offers)} workflows." if len(offers) > 1 else "."
    if context.catalog.left_out:
        names = ", ".join(map(quote, list(context.catalog.left_out)[:LEFT_OUT_SHOWN]))
        text += f"\nThe bot's log says why these workflows are left out: {names}."
    await interaction.followup.send(text, ephemeral=True)


def all_options(offers: Mapping[str, Offer]) -> tuple[set[str], set[str], set[str]]:
    """The models, samplers and schedulers of all workflows."""
    return (
        {model for offer in offers.values() for model in offer.models.values},
        {sampler for offer in offers.values() for sampler in offer.samplers.values},
        {scheduler for offer in offers.values() for scheduler in offer.schedulers.values},
    )


@app_commands.command(name="mine", description="Your last pictures of this server")
async def show_mine(interaction: Interaction) -> None:
    """/mine, for the caller's eyes alone."""
    context: BotContext = interaction.client.context
    context.check_place(interaction)
    await interaction.response.defer(ephemeral=True)
    embed, view = await page_of(context.store, interaction, 0)
    await interaction.followup.send(embed=embed, view=view, ephemeral=True)


COMMANDS: tuple[app_commands.Command[Any, ..., Any] | app_commands.Group, ...] = (
    gen,
    show_queue,
    show_mine,
    refresh,
    blocked,
)
COMMAND_NAMES = {command.name for command in COMMANDS}


# ---------------------------------------------------------------------------------------------
# Clicks and modals: a handler for each control, by the area and the action of its custom id


async def choose(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """A menu of the form."""
    data: Any = interaction.data
    await context.forms.choose(interaction, control.key, control.action, data["values"][0])


async def turn_page(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Newer or Older, of /mine."""
    context.check_place(interaction)
    await interaction.response.defer()
    embed, view = await page_of(context.store, interaction, int(control.key))
    await interaction.edit_original_response(embed=embed, view=view)


async def show_modal(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Edit Prompts & Settings, or Correct it."""
    await context.forms.show_modal(interaction, control.key, control.action)


async def take_modal(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """A modal that was submitted."""
    data: Any = interaction.data
    await context.forms.on_modal(interaction, control.key, control.action, data["components"])


async def generate(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Generate (architecture.md §3.4): the draft becomes a job."""
    draft = context.forms.draft(interaction, control.key)
    if draft.stage is Stage.SENDING:  # a second press; the first answers, whichever way it ends
        await interaction.response.defer()
        return
    context.check_place(interaction)
    if missing := draft.missing():
        raise UserError(f"Still missing: {', '.join(missing)}. Fill it in and press Generate.")
    params = draft.job_params(
        interaction.user.id,
        interaction.guild_id,
        interaction.channel_id,
        random_seeds=context.settings.random_seeds,
    )
    try:
        params, notes = check_offered(params, context.catalog.offers, context.settings.max_steps)
    except FormError as gone:
        await context.forms.show_anew(interaction, draft, gone.user_message)
        return
    draft.stage = Stage.SENDING  # before the first await
    try:
        await interaction.response.defer()
        queued = await context.accept(params)
        draft.sent()
    except BlockedPrompt as blocked_prompt:  # what was typed is in the form, and behind the button
        draft.stage = Stage.OPEN  # before anybody can have read it, and typed again
        sentence = blocked_prompt.user_message
        await interaction.followup.send(sentence, view=retry_view(draft), ephemeral=True)
        return
    finally:
        if draft.stage is Stage.SENDING:
            draft.stage = Stage.OPEN
    await say_queued(context, interaction, queued, *notes)
    await tidy(interaction.edit_original_response(content=None, embed=form_embed(draft), view=None))


async def again(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Again: the same settings with a new seed, for whoever presses it; a form with them where
    something is not offered any more."""
    context.check_place(interaction)
    await interaction.response.defer(ephemeral=True, thinking=True)
    job = await context.job(control.key)
    try:
        fresh = replace(job, seed=new_seed())
        params, notes = check_offered(fresh, context.catalog.offers, context.settings.max_steps)
    except FormError:
        note = "Nothing is queued yet: choose, and press Generate."
        await context.forms.open_from(interaction, replace(job, seed=None), note)
        return
    params = replace(
        params,
        user_id=str(interaction.user.id),
        guild_id=str(interaction.guild_id),
        channel_id=str(interaction.channel_id),
    )
    try:
        queued = await context.accept(params)
    except BlockedPrompt as blocked_prompt:
        await context.forms.open_from(
            interaction, replace(job, seed=None), blocked_prompt.user_message
        )
        return
    await say_queued(context, interaction, queued, *notes)


async def again_once(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Again, of which a double tap makes one job: the first press answers for both."""
    tap = interaction.user.id, control.key
    if context.agains.is_second(*tap):
        await interaction.response.defer()
        return
    try:
        await again(context, interaction, control)
    except Exception:
        context.agains.forget(*tap)
        raise


async def edit(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Edit: the form filled from that job, for whoever presses it."""
    context.check_place(interaction)
    await interaction.response.defer(ephemeral=True, thinking=True)
    await context.forms.open_from(interaction, await context.job(control.key))


async def delete(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Delete: asks the person alone. The answer's buttons carry all that is needed, so that they
    work after a restart, and if retention has removed the job's row."""
    await interaction.response.defer(ephemeral=True, thinking=True)
    message = interaction.message
    assert message is not None  # a button stands in one
    job = await asyncio.to_thread(context.store.get, control.key)
    mention = re.match(r"<@(\d+)>", message.content)
    asker_id = job.user_id if job else mention[1] if mention else "nobody"
    check_may_change(interaction, asker_id, interaction.guild_id)
    what = ("this message", "this picture", "these pictures")[min(len(message.attachments), 2)]
    view = job_view(f"{control.key}:{message.id}:{asker_id}", "remove", "keep")
    await interaction.followup.send(f"Delete {what} for everybody?", view=view, ephemeral=True)


async def remove(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Delete, confirmed: every message of the result goes."""
    await interaction.response.defer()
    job_id, message_id, asker_id = control.key.split(":")
    check_may_change(interaction, asker_id, interaction.guild_id)
    job = await asyncio.to_thread(context.store.get, job_id)
    assert interaction.channel_id is not None  # the result stands in one
    place = interaction.client.get_partial_messageable(interaction.channel_id)
    try:
        await context.reporter.remove(place.get_partial_message(int(message_id)), job_id, job)
    except discord.HTTPException as error:
        if error.status not in PERMANENT_STATUSES:
            raise
        raise UserError(
            "Discord does not let the bot delete it any more: a moderator can."
        ) from None
    try:
        await asyncio.to_thread(context.store.report_removed, job_id)
    except StoreError as error:  # it is deleted all the same
        log.warning("job %s: /mine still has a link to its result: %s", job_id, error)
    log.info("job %s: its result was deleted by user %d", job_id, interaction.user.id)
    await tidy(interaction.edit_original_response(content="Deleted.", view=None))


async def keep(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Not deleted after all."""
    await interaction.response.edit_message(content="Nothing was deleted.", view=None)


async def cancel(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Cancel, of a queued or running job."""
    await interaction.response.defer()
    job = await context.job(control.key)
    check_may_change(interaction, job.user_id, job.guild_id)
    is_own = job.user_id == str(interaction.user.id)
    word = None if is_own else CANCELLED_BY_MODERATOR
    if not await asyncio.to_thread(context.worker.cancel, job.id, word):
        raise UserError("Too late: this job has ended already.")
    log.info("job %s: cancelled by user %d", job.id, interaction.user.id)
    context.reporter.job_ended(job.id)
    message = interaction.message
    if message is None or not message.flags.ephemeral:
        return
    changes: dict[str, Any] = {"view": None}
    if any(embed.title == QUEUE_TITLE for embed in message.embeds):
        changes["embed"], changes["view"] = await context.waiting.message(interaction)
    else:
        context.reporter.answers.forget(job.id)
    await tidy(interaction.edit_original_response(content="Cancelled.", **changes))


async def cancel_chosen(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """The menu of /queue with the jobs of others."""
    data: Any = interaction.data
    await cancel(context, interaction, control._replace(key=data["values"][0]))


async def answer_unknown(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """A control that this version of the bot does not have."""
    if control.area == "form":
        raise ExpiredForm
    raise UserError("This button is of another version of the bot.")


async def tidy(edit: Awaitable[object]) -> None:
    """An edit after the work is done. That it fails is no reason to say that anything has."""
    try:
        await edit
    except DISCORD_ERRORS as error:
        log.warning("Discord did not take an edit: %s", error)


async def say_queued(
    context: BotContext, interaction: Interaction, queued: Queued, *notes: str
) -> None:
    """The answer to Generate and Again, which then follows the queue; with a line for each note."""
    place = place_in_queue(queued.position, queued.seconds)
    more = "".join(f"\n{note}" for note in (*notes, cannot_post(interaction)) if note)
    for is_last in (False, True):
        try:
            view = job_view(queued.job_id, "cancel")
            message = await interaction.followup.send(
                f"Queued! {place}{more}", view=view, ephemeral=True, wait=True
            )
        except DISCORD_ERRORS as error:
            # The job is safe: an error's "try again" would double it.
            log.warning("job %s: its Queued! did not arrive: %s", queued.job_id, error)
            if is_last or isinstance(error, discord.HTTPException):
                return
        else:
            follow = context.reporter.answers.follow
            follow(queued.job_id, interaction.followup, message.id, place, more)
            return


Handler = Callable[[BotContext, Interaction, ControlId], Awaitable[None]]
HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("form", "model"): choose,
    ("form", "sampler"): choose,
    ("form", "scheduler"): choose,
    ("form", "shape"): choose,
    ("form", "edit"): show_modal,
    ("form", "retry"): show_modal,
    ("form", "generate"): generate,
    ("modal", "edit"): take_modal,
    ("modal", "retry"): take_modal,
    ("job", "cancel"): cancel,
    ("queue", "cancel"): cancel_chosen,
    ("mine", "page"): turn_page,
    ("job", "again"): again_once,
    ("job", "edit"): edit,
    ("job", "delete"): delete,
    ("job", "remove"): remove,
    ("job", "keep"): keep,
}
