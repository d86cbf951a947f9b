"""Use: the ways from a picture in the channel, or on a person's device, into a form.

Apps > Use this picture, the button Use… of a result, and the form's button Picture. Runs on the
event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import discord
from discord import app_commands

from bot.context import BotContext
from bot.controls import ControlId, Interaction
from bot.sources import PictureModal, Source, pictures_in
from text import UserError

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
    """Open a form with the first of some pictures, in which the others can be chosen."""
    context.check_place(interaction)
    context.forms.check_takers()
    if not sources:
        raise UserError(NO_PICTURE)
    await interaction.response.defer(ephemeral=True, thinking=True)
    await context.forms.open_with(interaction, sources)


async def choose_source(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Put another picture of the message into the form."""
    data: Any = interaction.data
    await context.forms.choose_source(interaction, control.key, next(iter(data["values"]), ""))


async def show_window(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Open the window for a file."""
    context.check_place(interaction)
    context.forms.draft(interaction, control.key)
    await interaction.response.send_modal(PictureModal(control.key))


async def on_file(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Put the file of a submitted window into its form."""
    context.check_place(interaction)
    await context.forms.on_file(interaction, control.key, PictureModal.file(interaction))
