#!/usr/bin/env python3
"""ComfyGen: /gen in Discord, a picture from the ComfyUI at home.

The bot and the way in: the command line, start and stop, Discord's events, and one router for
clicks and modals. The way of a job, from file to file: `/gen` opens a form (form.py), Generate
hands it to the worker (worker.py), which asks ComfyUI (comfy_client.py) for the bound workflow
(binder.py) and notes each step (store.py); report.py shows the channel what came of it.

Four kinds of threads share the work. The event loop runs everything of discord.py and must never
block: what waits for a disk or a socket goes to its pool (`asyncio.to_thread`). The worker makes
one job at a time, the sweeper stops in ComfyUI what nobody wants; neither touches a discord object.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import re
import signal
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import discord
from discord import app_commands

import binder
import object_info
from checks import (
    INVITE_PERMISSIONS,
    INVITE_SCOPES,
    Inspection,
    StartupError,
    check_application,
    check_channel,
    explanation,
    log_check,
    print_checks,
)
from comfy_client import ComfyClient, ComfyError, ProgressFeed, shortened
from form import (
    EXPIRED_FORM,
    ControlId,
    Controls,
    Forms,
    Stage,
    StaleForm,
    check_offered,
    escaped,
    form_embed,
    matching_models,
    new_seed,
    without_half_emoji,
)
from object_info import ComfyOptions, ObjectInfo
from report import AWAY, Reporter, job_button, job_view, see_failure
from settings import (
    DAY_MS,
    PROMPT_LIMIT,
    ConfigError,
    Settings,
    load_settings,
    read_environment,
    redact,
    set_up_logging,
)
from store import Job, JobParams, JobStatus, Store, StoreError, unix_ms
from worker import Queued, Worker, load_workflow, public_sentence

log = logging.getLogger("comfygen")

Interaction = discord.Interaction[Any]

EXIT_INTERRUPTED = 130
# For what the event loop may not wait for. ComfyUI, which may hang for long, has threads apart, so
# that a click always finds one for the database.
POOL_THREADS = 4
COMFYUI_THREADS = 4
QUEUE_TITLE = "The queue"
QUEUE_SHOWN = 15  # waiting jobs that /queue lists
OWN_SHOWN = 20  # of a person's own jobs, with a button each
ACKNOWLEDGED_ALREADY = 40060  # Discord's code

RESTARTING = "The bot is restarting. Please try again in a minute."


class Refusal(Exception):
    """Why the bot does not do what somebody asks; `public` is the finished sentence for them."""

    @property
    def public(self) -> str:
        """The sentence."""
        return str(self)


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
    bot: ComfyGen = interaction.client
    text = without_half_emoji(prompt or "")
    await bot.forms.open(interaction, text, model or "", seed or "")


@gen.autocomplete("model")
async def complete_model(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
    """The models that a person may mean."""
    bot: ComfyGen = interaction.client
    names = matching_models(current, bot.forms.options.models)
    return [app_commands.Choice(name=name, value=name) for name in names]


@app_commands.command(name="queue", description="What is being made, who waits, and your own jobs")
async def show_queue(interaction: Interaction) -> None:
    """/queue, for the caller's eyes alone."""
    bot: ComfyGen = interaction.client
    bot.check_place(interaction)
    await interaction.response.defer(ephemeral=True)
    embed, view = await queue_message(bot, interaction.user.id)
    await interaction.followup.send(embed=embed, view=view, ephemeral=True)


@app_commands.command(name="refresh", description="Read ComfyUI's models and samplers again")
@app_commands.default_permissions(manage_guild=True)
async def refresh(interaction: Interaction) -> None:
    """/refresh, for members who may manage the server: the option lists, without a restart."""
    # Asked again: a server's settings can show the command to others.
    if interaction.guild_id is None or not interaction.permissions.manage_guild:
        raise Refusal("Only members who may manage the server can do that.")
    bot: ComfyGen = interaction.client
    await interaction.response.defer(ephemeral=True)
    before = bot.forms.options
    now = await bot.loop.run_in_executor(bot.comfyui_threads, bot.read_lists)
    new = len(set(now.models) - set(before.models))
    gone = len(set(before.models) - set(now.models))
    await interaction.followup.send(
        f"The lists are fresh: {len(now.models)} models ({new} new, {gone} gone),"
        f" {len(now.samplers)} samplers, {len(now.schedulers)} schedulers.",
        ephemeral=True,
    )


COMMANDS: tuple[app_commands.Command[Any, ..., Any], ...] = (gen, show_queue, refresh)
COMMAND_NAMES = {command.name for command in COMMANDS}


async def queue_message(bot: ComfyGen, user_id: int) -> tuple[discord.Embed, Controls]:
    """What runs, who waits, and the person's own jobs with Cancel."""
    # In this order: a job that starts in between is then in both, and not in neither.
    queued = await asyncio.to_thread(bot.store.by_status, JobStatus.QUEUED)
    running = await asyncio.to_thread(bot.store.by_status, JobStatus.RUNNING)
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
    if queued and (estimate := await asyncio.to_thread(bot.worker.estimate, len(queued))):
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


async def choose(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """A menu of the form."""
    data: Any = interaction.data
    await bot.forms.choose(interaction, control.key, control.action, data["values"][0])


async def show_modal(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """Edit Prompts & Settings, or Correct it."""
    await bot.forms.show_modal(interaction, control.key, control.action)


async def take_modal(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """A modal that was submitted."""
    data: Any = interaction.data
    await bot.forms.take_modal(interaction, control.key, control.action, data["components"])


async def generate(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """Generate (architecture.md §3.4): the draft becomes a job."""
    draft = bot.forms.draft(interaction, control.key)
    bot.check_place(interaction)
    if missing := draft.missing():
        raise Refusal(f"Still missing: {', '.join(missing)}. Fill it in and press Generate.")
    params = draft.job_params(
        interaction.user.id,
        interaction.guild_id,
        interaction.channel_id,
        random_seeds=bot.settings.random_seeds,
    )
    check_offered(params, bot.forms.options)
    if draft.stage is Stage.SENDING:  # a second press; the first answers, whichever way it ends
        await interaction.response.defer()
        return
    draft.stage = Stage.SENDING  # before the first await
    try:
        await interaction.response.defer()
        queued = await asyncio.to_thread(bot.worker.accept, params)
        draft.stage = Stage.SENT
    finally:
        if draft.stage is Stage.SENDING:
            draft.stage = Stage.OPEN
    await say_queued(interaction, queued)
    await tidy(interaction.edit_original_response(content=None, embed=form_embed(draft), view=None))


async def again(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """Again: the same settings with a new seed, for whoever presses it."""
    bot.check_place(interaction)
    await interaction.response.defer(ephemeral=True, thinking=True)
    params: JobParams = replace(
        await bot.job(control.key),
        user_id=str(interaction.user.id),
        guild_id=str(interaction.guild_id),
        channel_id=str(interaction.channel_id),
        seed=new_seed(),
    )
    check_offered(params, bot.forms.options)
    await say_queued(interaction, await asyncio.to_thread(bot.worker.accept, params))


async def edit(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """Edit: the form filled from that job, for whoever presses it."""
    bot.check_place(interaction)
    await interaction.response.defer(ephemeral=True, thinking=True)
    await bot.forms.open_from(interaction, await bot.job(control.key))


async def delete(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """Delete: every message of the result goes, also if retention has removed the job's row."""
    await interaction.response.defer()
    message = interaction.message
    assert message is not None  # a button stands in one
    job = await asyncio.to_thread(bot.store.get, control.key)
    mention = re.match(r"<@(\d+)>", message.content)
    check_may_change(interaction, job.user_id if job else mention[1] if mention else "")
    await bot.reporter.remove(message, control.key, job)
    with contextlib.suppress(discord.NotFound):  # a second press, or a moderator
        await interaction.delete_original_response()
    log.info("job %s: its result was deleted by user %d", control.key, interaction.user.id)


async def cancel(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """Cancel, of a queued or running job."""
    await interaction.response.defer()
    job = await bot.job(control.key)
    check_may_change(interaction, job.user_id)
    if not await asyncio.to_thread(bot.worker.cancel, job.id):
        raise Refusal("Too late: this job has ended already.")
    log.info("job %s: cancelled by user %d", job.id, interaction.user.id)
    bot.reporter.job_ended(job.id)
    message = interaction.message
    if message is None or not message.flags.ephemeral:
        return
    changes: dict[str, Any] = {"view": None}
    if any(embed.title == QUEUE_TITLE for embed in message.embeds):
        changes["embed"], changes["view"] = await queue_message(bot, interaction.user.id)
    await tidy(interaction.edit_original_response(content="Cancelled.", **changes))


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


Handler = Callable[["ComfyGen", Interaction, ControlId], Awaitable[None]]

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


# ---------------------------------------------------------------------------------------------
# The bot

# discord.py warns twice at each start that it cannot speak; this bot never will.
discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False


class ComfyGen(discord.Client):
    """Discord's side of the program; lives on the event loop."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        client: ComfyClient,
        info: ObjectInfo,
        options: ComfyOptions,
        workflow: binder.Workflow,
    ) -> None:
        """What the checks have opened and read."""
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
        )
        self.settings = settings
        self.store = store
        self.comfy = client
        negative_prompt = settings.default_negative_prompt
        defaults = binder.defaults(workflow)
        self.forms = Forms(options, defaults, negative_prompt, self.check_place)
        self.comfyui_threads = ThreadPoolExecutor(COMFYUI_THREADS, "pool-comfyui")
        self.reporter = Reporter(self, store, client, self.comfyui_threads)
        self.worker = Worker(
            store,
            client,
            functools.partial(load_workflow, settings.workflow_path),
            timeout=settings.comfy_timeout,
            started=self.reporter.job_started,
            ended=self.reporter.job_ended,
            connection=lambda: self.feed.connection,
        )
        self.worker.seed_maxima = info.maxima(binder.SEED_INPUTS)
        self.feed = ProgressFeed(client, self.worker.hear)
        self._background: list[asyncio.Task[None]] = []
        self.tree = app_commands.CommandTree(self)
        self.tree.error(self._on_command_error)
        for command in COMMANDS:
            self.tree.add_command(command)

    # Connecting

    async def connect(self, *, reconnect: bool = True) -> None:
        """As discord.py does it, which gives up if the gateway refuses the very first connection:
        that is waited for like any later one."""
        backoff = discord.backoff.ExponentialBackoff()
        while True:
            try:
                return await super().connect(reconnect=reconnect)
            except AttributeError:  # it asks for the session of a connection that never was
                if self.ws is not None:
                    raise
            seconds = backoff.delay()
            log.warning("Discord's gateway does not answer yet, trying again in %.0f s", seconds)
            await asyncio.sleep(seconds)

    async def setup_hook(self) -> None:
        """Once, after the login and before the gateway (discord.py)."""
        actual = self.application_id
        check = check_application(self.settings, actual)
        if check.state == "FAILED":
            raise StartupError(check.text)
        assert actual is not None  # known once logged in
        link = discord.utils.oauth_url(actual, permissions=INVITE_PERMISSIONS, scopes=INVITE_SCOPES)
        log.info("invite link: %s", link)
        await self._register_commands()
        await self.reporter.catch_up()
        await asyncio.to_thread(self.worker.start)
        self._background = [
            asyncio.create_task(self._keep_house()),
            asyncio.create_task(self.feed.run()),
        ]
        for task in self._background:
            task.add_done_callback(see_failure)

    async def _keep_house(self) -> None:
        """At the start and once a day: remove the rows that the owner does not want to keep."""
        days = self.settings.retention_days
        while days:
            try:
                gone = await asyncio.to_thread(self.store.purge, unix_ms() - days * DAY_MS)
                log.info("housekeeping: %d jobs older than %d days removed", gone, days)
            except StoreError as error:
                log.error("%s", error)
            await asyncio.sleep(DAY_MS / 1000)

    async def _register_commands(self) -> None:
        guild_id = self.settings.guild_id
        if guild_id is None:
            await self.tree.sync()
            log.info("commands registered everywhere")
            return
        guild = discord.Object(guild_id)
        self.tree.copy_global_to(guild=guild)
        try:
            await self.tree.sync(guild=guild)
        except discord.Forbidden as error:
            raise StartupError(
                f"the bot may not register commands in server {guild_id} (DISCORD_GUILD_ID):"
                " invite it with the link above, or correct the id"
            ) from error
        log.info("commands registered in server %d", guild_id)

    async def on_ready(self) -> None:
        """Connected; also after a lost session. Says where the bot could not work."""
        log.info("connected as %s; allowed channels: %d", self.user, len(self.settings.channel_ids))
        for channel_id in sorted(self.settings.channel_ids):
            check = check_channel(channel_id, self.get_channel(channel_id))
            if check.state != "ok":
                log_check(check)

    # Answering

    async def on_interaction(self, interaction: Interaction) -> None:
        """Every control and every modal comes by here; commands go through the tree."""
        kinds = discord.InteractionType
        if interaction.type not in (kinds.component, kinds.modal_submit):
            return
        data: Any = interaction.data
        control = ControlId.parse(data["custom_id"])
        handler = HANDLERS.get((control.area, control.action), answer_unknown)
        try:
            await handler(self, interaction, control)
        except Exception as error:
            await self.answer_error(interaction, error)

    async def _on_command_error(
        self, interaction: Interaction, error: app_commands.AppCommandError
    ) -> None:
        original = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        await self.answer_error(interaction, original)

    async def answer_error(self, interaction: Interaction, error: Exception) -> None:
        """Turn what a handler raised into an answer for the person."""
        if self.is_closed():  # aiohttp's complaint of that is no error of ours
            log.warning("the end of the bot has cut an answer off: %s", error)
            return
        if isinstance(error, ComfyError | StoreError):
            log.error("%s", error)
        elif isinstance(error, AWAY):
            log.warning("Discord did not take an answer: %s", error)
        elif not hasattr(error, "public"):
            log.error("a handler failed", exc_info=error)
        try:
            await _answer(interaction, error)
        except (*AWAY, RuntimeError) as failure:  # the latter if the bot ends at this moment
            log.warning("an answer did not reach Discord: %s", failure)

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
                if getattr(self.get_channel(channel_id), "guild", None) == interaction.guild
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
        info = object_info.fetch(self.comfy)
        workflow = load_workflow(self.settings.workflow_path)
        bound_classes = binder.bound_classes(workflow.workflow) if workflow.ok else {}
        self.forms.options = info.options(bound_classes)
        if workflow.ok:
            self.forms.defaults = binder.defaults(workflow.workflow)
        self.worker.seed_maxima = info.maxima(binder.SEED_INPUTS)
        return self.forms.options

    # The end

    async def shut_down(self) -> None:
        """Finish and report the current job, within the grace; queued ones stay queued."""
        grace = self.settings.shutdown_grace
        deadline = self.loop.time() + grace
        self.worker.stop()
        log.info("shutting down: the current job has %g s; a second signal ends at once", grace)
        # A thread that hangs in a socket would keep the process alive for minutes after this.
        last_resort = threading.Timer(grace + 5.0, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()
        # Not in the thread pool, all of which may hang on ComfyUI.
        finished = asyncio.wrap_future(self.worker.finished)
        if not (await asyncio.wait([finished], timeout=grace))[0]:
            log.warning("the current job is not finished; it is taken up at the next start")
            self.worker.abort()
        if self.is_ready():  # without a connection yet, every report waits for one
            await self.reporter.drain(max(0.0, deadline - self.loop.time()))

    def stop_tasks(self) -> None:
        """Drop what is still going on; the next start takes it up."""
        self.worker.abort()
        self.reporter.drop()
        for task in self._background:
            task.cancel()
        self.comfyui_threads.shutdown(wait=False, cancel_futures=True)


async def answer_unknown(bot: ComfyGen, interaction: Interaction, control: ControlId) -> None:
    """A control that this version of the bot does not have."""
    if control.area == "form":
        raise StaleForm(EXPIRED_FORM)
    raise Refusal("This button is of another version of the bot.")


async def _answer(interaction: Interaction, error: Exception) -> None:
    if isinstance(error, StaleForm):  # the controls go, so that nobody presses them again
        await interaction.response.edit_message(content=error.public, view=None)
        return
    sentence = public_sentence(error)
    try:
        if not interaction.response.is_done():
            await interaction.response.send_message(sentence, ephemeral=True)
            return
    except discord.HTTPException as failure:
        if failure.code != ACKNOWLEDGED_ALREADY:
            raise
        # The first answer did arrive, only Discord's reply to it was lost.
    await interaction.followup.send(sentence, ephemeral=True)


# ---------------------------------------------------------------------------------------------
# The way in


def prepare(settings: Settings) -> ComfyGen | None:
    """The bot, after the checks; None if one has failed. Each is a line in the log."""
    inspection = Inspection(settings)
    inspection.run()
    for check in inspection.checks:
        log_check(check)
    store, workflow = inspection.store, inspection.workflow
    info, options = inspection.info, inspection.options
    if inspection.passed and store and info and options and workflow.ok:
        return ComfyGen(settings, store, inspection.client, info, options, workflow.workflow)
    inspection.close()
    return None


async def serve(bot: ComfyGen, token: str) -> int:
    """Run the bot until a signal or an error ends it; the exit code."""
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(POOL_THREADS, "pool")
    loop.set_default_executor(pool)
    stop = asyncio.Event()
    set_signal_handlers(loop, stop)
    async with bot:
        connection = asyncio.create_task(bot.start(token))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({connection, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await bot.shut_down()
        while not connection.done():
            # Before Python 3.12 wait_for() swallows it if what it waits for ends just then.
            connection.cancel()
            await asyncio.wait({connection}, timeout=0.5)
        stopped.cancel()
        bot.stop_tasks()
        (outcome,) = await asyncio.gather(connection, return_exceptions=True)
    if isinstance(outcome, (StartupError, StoreError, *AWAY)):
        log.critical("%s", explanation(outcome))
    elif isinstance(outcome, Exception):
        log.critical("the bot ended by an error of its own", exc_info=outcome)
    # asyncio waits for its pool at the end, and a thread may hang on ComfyUI: it gets a new one.
    pool.shutdown(wait=False, cancel_futures=True)
    loop.set_default_executor(ThreadPoolExecutor(1))
    return 0 if stop.is_set() else 1


def set_signal_handlers(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """The first signal sets `stop`, a second one ends the process at once."""

    def on_signal(*_: object) -> None:
        if stop.is_set():
            # Nothing is lost: what is unfinished stands in the database.
            log.warning("second signal: ended at once")
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            # Its wake-up file descriptor is what ends the loop's wait, whenever the signal comes.
            loop.add_signal_handler(number, on_signal)
        except NotImplementedError:  # Windows, whose loop has that descriptor from the start
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(on_signal))


def run(settings: Settings) -> int:
    """The bot, from its checks to its end; the exit code."""
    # Threads take turns ten times as often, so that a click need not wait for the worker while it
    # unpacks a large picture.
    sys.setswitchinterval(0.0005)
    bot = prepare(settings)
    if bot is None:
        return 1
    try:
        code = asyncio.run(serve(bot, settings.token))
    finally:
        bot.store.close()
        bot.comfy.close()
    if any(thread.name.startswith("pool") for thread in threading.enumerate()):
        # It hangs on ComfyUI, and Python would wait for it.
        logging.shutdown()
        os._exit(code)
    return code


def parse_arguments(arguments: Sequence[str]) -> Any:
    """The command line, an attribute for each option; ends the program if it makes no sense."""
    if not arguments:  # a start of the bot needs no parser
        return types.SimpleNamespace(check=False, once=None, offline=False)
    import argparse

    from once import add_options

    parser = argparse.ArgumentParser(
        prog="comfygen.py",
        description="A Discord bot whose /gen makes pictures with the ComfyUI at home.",
        epilog="It is configured by the environment and a .env file beside it: see README.md.",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="check everything a start needs")
    mode.add_argument("--once", metavar="PROMPT", help="make one picture without Discord")
    parser.add_argument("--offline", action="store_true", help="with --check: leave Discord out")
    names = add_options(parser)
    parsed = parser.parse_args(arguments)
    if parsed.offline and not parsed.check:
        parser.error("--offline goes with --check")
    if parsed.once is None and any(getattr(parsed, name) is not None for name in names):
        parser.error("options for one picture go with --once")
    parsed.out = parsed.out or Path()
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """`python comfygen.py`; the exit code."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    problems: Sequence[str] = ()
    try:
        settings = load_settings(read_environment(), for_discord=options.once is None)
    except ConfigError as error:
        problems = error.problems
        if error.settings is None or not options.check:
            for problem in problems:
                print(f"configuration: {redact(problem)}", file=sys.stderr)
            return 1
        settings = error.settings
    if options.check or options.once is not None:
        settings = replace(settings, log_level=max(settings.log_level, logging.ERROR))
    set_up_logging(settings)
    try:
        if options.check:
            return print_checks(settings, problems, COMMAND_NAMES, offline=options.offline)
        if options.once is not None:
            from once import run_once

            return run_once(settings, options)
        return run(settings)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (StoreError, OSError) as error:
        print(redact(str(error), *settings.secrets), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
