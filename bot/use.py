"""Use: the ways from a picture in the channel, or on a person's device, into a form.

Apps > Use this picture, the button Use… of a result, and the form's button Picture. Runs on the
event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import discord
from discord import app_commands

from bot.context import BotContext
from bot.controls import ControlId, Interaction
from bot.sources import PictureModal, Source, pictures_in
from jobs.draft import SentForm, Stage, StaleForm
from jobs.names import MENU_LIMIT
from text import UserError, collecting, in_lines

NO_PICTURE = (
    "There is no picture in this message. Choose one with a picture, or send yours with `/gen"
    " image:`."
)


@app_commands.context_menu(name="Use this picture")
async def use_picture(interaction: Interaction, message: discord.Message) -> None:
    """Open a form with a picture of any message."""
    await open_with(interaction.client.context, interaction, pictures_in(message))


async def use_result(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Open a form with a picture of a result."""
    message = interaction.message
    assert message is not None  # a button stands in one
    await open_with(context, interaction, pictures_in(message))


async def open_with(
    context: BotContext, interaction: Interaction, sources: Sequence[Source]
) -> None:
    """Open a form with the first of some pictures, in which the others can be chosen. Raises
    UserError if it is the only one and cannot be used."""
    forms = context.forms
    context.check_place(interaction)
    forms.check_takers()
    if not sources:
        raise UserError(NO_PICTURE)
    await interaction.response.defer(ephemeral=True, thinking=True)
    draft = forms.new_draft(interaction, forms.workflow_of(interaction.user.id, "", has_image=True))
    draft.use_image("", "", "")
    draft.sources = sources[:MENU_LIMIT]
    problems: list[str] = []
    with contextlib.nullcontext() if len(sources) == 1 else collecting(problems):
        await forms.give(interaction, draft, sources[0])
    await forms.send(interaction, draft, in_lines(problems))


async def choose_source(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Put another picture of its message into a form, and show the form again."""
    draft = context.forms.draft(interaction, control.key)
    data: Any = interaction.data
    value = next(iter(data["values"]), "")
    await interaction.response.defer()
    if draft.stage is not Stage.OPEN or value not in map(str, range(len(draft.sources))):
        return
    problems: list[str] = []
    with collecting(problems):
        await context.forms.give(interaction, draft, draft.sources[int(value)])
    await context.forms.send(interaction, draft, in_lines(problems))


async def show_window(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Open the window for a file."""
    context.check_place(interaction)
    context.forms.draft(interaction, control.key)
    await interaction.response.send_modal(PictureModal(control.key))


async def on_file(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Put the file of a submitted window into its form; into a new one where the bot no longer has
    that form, or has sent it."""
    forms, source = context.forms, PictureModal.file(interaction)
    context.check_place(interaction)
    forms.check_takers()
    notes: list[str] = []
    stays = interaction.message is None  # what the window was opened from
    try:
        draft = forms.draft(interaction, control.key)
        if draft.stage is not Stage.OPEN:
            raise SentForm
    except StaleForm as stale:
        workflow = forms.workflow_of(interaction.user.id, "", has_image=True)
        draft = forms.new_draft(interaction, workflow)
        notes.append(f"{stale.reason}, so here is a new one.")
        stays = stays or isinstance(stale, SentForm)
    await interaction.response.defer(ephemeral=True, thinking=stays)
    with collecting(notes):
        await forms.give(interaction, draft, source)
    await forms.send(interaction, draft, in_lines(notes))
