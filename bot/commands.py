"""The tables of commands and of control handlers, and /refresh.

The router in comfygen.py looks a control up here by its custom id. Runs on the event loop; what
waits for ComfyUI runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from discord import app_commands

from bot import actions, blocked, gen, mine, queue, use
from bot.context import BotContext
from bot.controls import ControlId, Interaction
from bot.permissions import check_manager
from jobs.catalog import Offer
from jobs.draft import ExpiredForm
from text import UserError, quote

LEFT_OUT_SHOWN = 10  # names of workflows that cannot be used


@app_commands.command(name="refresh", description="Read ComfyUI's models and samplers again")
@app_commands.default_permissions(manage_guild=True)
async def refresh(interaction: Interaction) -> None:
    """Read the lists of options again, without a restart; for members with Manage Server."""
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
    """Return the models, samplers and schedulers of all workflows."""
    return (
        {model for offer in offers.values() for model in offer.models.values},
        {sampler for offer in offers.values() for sampler in offer.samplers.values},
        {scheduler for offer in offers.values() for scheduler in offer.schedulers.values},
    )


async def answer_unknown(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Refuse a control that this version of the bot does not have."""
    if control.area == "form":
        raise ExpiredForm
    raise UserError("This button comes from another version of the bot.")


Command = app_commands.Command[Any, ..., Any] | app_commands.Group | app_commands.ContextMenu
COMMANDS: tuple[Command, ...] = (
    gen.gen,
    queue.show_queue,
    mine.show_mine,
    refresh,
    blocked.blocked,
    use.use_picture,
)
COMMAND_NAMES = {command.name for command in COMMANDS}


Handler = Callable[[BotContext, Interaction, ControlId], Awaitable[None]]
HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("form", "model"): gen.choose,
    ("form", "sampler"): gen.choose,
    ("form", "scheduler"): gen.choose,
    ("form", "shape"): gen.choose,
    ("form", "count"): gen.choose,
    ("form", "length"): gen.show_modal,
    ("form", "strength"): gen.choose,
    ("form", "workflow"): gen.choose,
    ("form", "source"): use.choose_source,
    ("form", "picture"): use.show_window,
    ("form", "edit"): gen.show_modal,
    ("form", "retry"): gen.show_modal,
    ("form", "generate"): gen.generate,
    ("modal", "edit"): gen.on_modal,
    ("modal", "length"): gen.on_modal,
    ("modal", "retry"): gen.on_modal,
    ("modal", "picture"): use.on_file,
    ("job", "cancel"): actions.cancel,
    ("queue", "cancel"): queue.cancel_chosen,
    ("mine", "page"): mine.turn_page,
    ("job", "again"): actions.on_again,
    ("job", "edit"): actions.edit,
    ("job", "use"): use.use_result,
    ("job", "delete"): actions.delete,
    ("job", "remove"): actions.remove,
    ("job", "keep"): actions.keep,
}
