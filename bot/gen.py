"""/gen: the command, its autocomplete, and the controls of its form up to Generate.

bot/form.py has the form's message and drafts. Runs on the event loop; what blocks goes to a thread.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import discord
from discord import app_commands

import binder
from bot.actions import say_queued, tidy
from bot.blocked import BlockedPrompt
from bot.context import BotContext
from bot.controls import ControlId, Interaction
from bot.form import Forms, form_embed, retry_view
from bot.sources import source_of
from jobs.catalog import LISTS_AGE, Offer
from jobs.draft import AS_IN_FILE, Stage, changes_since
from jobs.names import OptionNames
from jobs.offered import check_offered
from settings import MOST_PICTURES, PROMPT_LIMIT
from text import UserError, collecting, drop_lone_surrogates


@app_commands.command(name="gen", description="Make a picture on this server's own GPU")
@app_commands.describe(
    prompt="What the picture shows",
    model="Type any part of a model's name",
    seed="The same seed and settings give the same picture",
    workflow="What makes the picture, where there is a choice",
    shape="Square, portrait, landscape, wide or tall",
    lora="Type any part of a LoRA's name: its tag is added to the prompt",
    count="How many pictures",
    image="A picture to work on",
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
    count: app_commands.Range[int, 1, MOST_PICTURES] | None = None,
    image: discord.Attachment | None = None,
) -> None:
    """Open a form, filled in from the command's options."""
    context: BotContext = interaction.client.context
    context.catalog.refresh_if_older(time.monotonic() - LISTS_AGE)
    given = {
        "prompt": prompt,
        "model": model,
        "seed": seed,
        "workflow": workflow,
        "shape": shape,
        "lora": lora,
        "count": str(count or ""),
    }
    texts = {name: drop_lone_surrogates(text or "") for name, text in given.items()}
    await context.forms.open(interaction, texts, source_of(image) if image else None)


@gen.autocomplete("model")
async def complete_model(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
    """Suggest models."""
    return choices_of(interaction, offer_of(interaction).models, current)


@gen.autocomplete("lora")
async def complete_lora(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
    """Suggest LoRAs."""
    return choices_of(interaction, offer_of(interaction).loras, current)


@gen.autocomplete("workflow")
async def complete_workflow(
    interaction: Interaction, current: str
) -> list[app_commands.Choice[str]]:
    """Suggest workflows."""
    return choices_of(interaction, interaction.client.context.catalog.names, current)


def offer_of(interaction: Interaction) -> Offer:
    """Return the offer of the workflow that the command names, or of the one its form will have."""
    forms: Forms = interaction.client.context.forms
    options = interaction.namespace
    has_image = options.image is not None
    workflow = forms.workflow_of(interaction.user.id, options.workflow or "", has_image=has_image)
    return forms.catalog.offer(workflow)


def choices_of(
    interaction: Interaction, names: OptionNames, text: str
) -> list[app_commands.Choice[str]]:
    """Return the entries of a list that match a text, for autocomplete; none where /gen would be
    refused."""
    try:
        interaction.client.context.check_place(interaction)
    except UserError:
        return []
    return [app_commands.Choice(name=name, value=value) for name, value in names.choices(text)]


async def choose(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Apply a choice from a menu of the form, or a step of a button."""
    data: Any = interaction.data
    value = next(iter(data.get("values", ())), "")
    await context.forms.choose(interaction, control.key, control.action, value)


async def show_modal(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Open the modal of Edit Prompts & Settings, or of Correct it."""
    await context.forms.show_modal(interaction, control.key, control.action)


async def on_modal(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Apply the texts of a submitted modal."""
    data: Any = interaction.data
    await context.forms.on_modal(interaction, control.key, control.action, data["components"])


async def generate(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Queue the draft as a job."""
    draft = context.forms.draft(interaction, control.key)
    if draft.stage is Stage.SENDING:  # a second click; the first replies, however it ends
        await interaction.response.defer()
        return
    context.check_place(interaction)
    if missing := draft.missing():
        raise UserError(f"Still missing: {', '.join(missing)}. Fill it in and press Generate.")
    draft.stage = Stage.SENDING  # before the first await
    try:
        await asyncio.to_thread(context.catalog.reread, draft.workflow)
    finally:
        draft.stage = Stage.OPEN
    params = draft.job_params(interaction.user.id, interaction.guild_id, interaction.channel_id)
    problems = changes_since(draft, context.catalog.offer(draft.workflow))
    with collecting(problems):
        params, notes = check_offered(params, context.catalog.offers, context.settings)
    if problems:
        await context.forms.show_anew(interaction, draft, "\n".join(problems))
        return
    draft.change(positive_prompt=params.positive_prompt)  # with the LoRAs' names of now
    draft.stage = Stage.SENDING
    try:
        await interaction.response.defer()
        queued = await context.accept(interaction, params)
        draft.sent()
    except BlockedPrompt as blocked_prompt:  # what was typed is in the form, and behind the button
        draft.stage = Stage.OPEN  # before the person can have read it and typed again
        sentence = blocked_prompt.user_message
        await context.forms.keep_typed(interaction, draft, draft.saved())
        await interaction.followup.send(sentence, view=retry_view(draft), ephemeral=True)
        return
    finally:
        if draft.stage is not Stage.SENT:
            draft.stage = Stage.OPEN
            await tidy(context.forms.show_after_refusal(interaction, draft))
    await say_queued(context, interaction, queued, *notes)
    await tidy(interaction.edit_original_response(content=None, embed=form_embed(draft), view=None))
