"""The buttons of a job: Again, Edit, Delete, Cancel; and the "Queued!" reply.

Runs on the event loop; what blocks goes to a thread.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable
from dataclasses import replace

import discord

from bot.blocked import BlockedPrompt
from bot.context import BotContext
from bot.controls import ControlId, Interaction, job_view
from bot.messages import CANCELLED_BY_MODERATOR, DISCORD_ERRORS, PERMANENT_STATUSES
from bot.permissions import cannot_post, check_may_change
from bot.running import place_in_queue, waiting
from jobs.draft import new_seed
from jobs.offered import check_offered
from jobs.typed import FormError
from jobs.workers import Queued
from store import StoreError
from text import UserError

log = logging.getLogger(__name__)


async def on_again(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Queue the job again; of a double click the first counts."""
    press = interaction.user.id, control.key
    if context.again_guard.is_repeat(*press):
        await interaction.response.defer()
        return
    try:
        await again(context, interaction, control)
    except Exception:
        context.again_guard.forget(*press)
        raise


async def again(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Queue the same settings with a new seed, for the person who clicked; open a form with
    them if something is no longer offered."""
    context.check_place(interaction)
    await interaction.response.defer(ephemeral=True, thinking=True)
    job = await context.job(control.key)
    if job.image and not await asyncio.to_thread(context.store.picture, job.image):
        await context.forms.open_from(interaction, replace(job, seed=None))
        return
    try:
        fresh = replace(job, seed=new_seed())
        params, notes = check_offered(fresh, context.catalog.offers, context.settings)
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
        queued = await context.accept(interaction, params)
    except BlockedPrompt as blocked_prompt:
        await context.forms.open_from(
            interaction, replace(job, seed=None), blocked_prompt.user_message
        )
        return
    await say_queued(context, interaction, queued, *notes)


async def edit(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Open a form filled in from the job, for the person who clicked."""
    context.check_place(interaction)
    await interaction.response.defer(ephemeral=True, thinking=True)
    await context.forms.open_from(interaction, await context.job(control.key))


async def delete(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Ask for a confirmation, for the person's eyes alone. The reply's buttons carry all that is
    needed, so they work after a restart and without the job's row."""
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
    """Delete every message of the result, as the person has confirmed."""
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
    """Keep the result after all."""
    await interaction.response.edit_message(content="Nothing was deleted.", view=None)


async def cancel(context: BotContext, interaction: Interaction, control: ControlId) -> None:
    """Cancel a queued or running job."""
    await interaction.response.defer()
    await cancel_job(context, interaction, control.key)
    message = interaction.message
    if message is not None and message.flags.ephemeral:
        context.reporter.replies.forget(control.key)
        await tidy(interaction.edit_original_response(content="Cancelled.", view=None))


async def cancel_job(context: BotContext, interaction: Interaction, job_id: str) -> None:
    """Cancel a job. Raises UserError if the person may not, or if it has ended."""
    job = await context.job(job_id)
    check_may_change(interaction, job.user_id, job.guild_id)
    is_own = job.user_id == str(interaction.user.id)
    word = None if is_own else CANCELLED_BY_MODERATOR
    if not await asyncio.to_thread(context.worker.cancel, job.id, word):
        raise UserError("Too late: this job has ended already.")
    log.info("job %s: cancelled by user %d", job.id, interaction.user.id)
    context.reporter.job_ended(job.id)


async def say_queued(
    context: BotContext, interaction: Interaction, queued: Queued, *notes: str
) -> None:
    """Send the "Queued!" reply, which then follows the queue, with a line for each note."""
    away_since = context.comfy.away_since
    place = place_in_queue(queued.position, queued.seconds) + waiting(away_since)
    more = "".join(f"\n{note}" for note in (*notes, cannot_post(interaction)) if note)
    for is_last in (False, True):
        try:
            view = job_view(queued.job_id, "cancel")
            message = await interaction.followup.send(
                f"Queued! {place}{more}", view=view, ephemeral=True, wait=True
            )
        except DISCORD_ERRORS as error:
            # The job is queued: an error's "try again" would double it.
            log.warning("job %s: the reply Queued! did not arrive: %s", queued.job_id, error)
            if is_last or isinstance(error, discord.HTTPException):
                return
        else:
            follow = context.reporter.replies.follow
            follow(queued.job_id, interaction.followup, message.id, place, more)
            return


async def tidy(edit: Awaitable[object]) -> None:
    """Await an edit of the reply, and only log its failure: what the reply is about is done."""
    try:
        await edit
    except DISCORD_ERRORS as error:
        log.warning("Discord did not accept an edit: %s", error)
