#!/usr/bin/env python3
"""ComfyGen: /gen in Discord makes a picture with the ComfyUI at home.

Owns the command line, start and stop, Discord's events, and one router for clicks and modals. The
way of a job: `/gen` (bot/gen.py) opens a form (bot/form.py), Generate hands it to the worker
(jobs/worker.py), which submits the bound workflow (binder.py) to ComfyUI (comfy_client.py) and
records each step (store.py); bot/running.py shows the progress, bot/reporter.py and
bot/report.py post the result.

Four kinds of threads share the work. The event loop runs everything of discord.py and must never
block: what waits for a disk or a socket goes to a pool of threads. For each server a
worker makes one job at a time, and a sweeper stops prompts in ComfyUI that are no longer needed;
neither touches a discord object.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.util import find_spec

if __name__ == "__main__":
    # In words that an older Python understands, too, and before any import that it does not.
    lacking = [name for name in ("discord", "requests", "dotenv") if find_spec(name) is None]
    if sys.version_info < (3, 10) or lacking:
        beside = os.path.dirname(sys.argv[0])
        venv = os.path.join(beside, ".venv")
        python = os.path.join(
            venv, *(["Scripts", "python"] if os.name == "nt" else ["bin", "python"])
        )
        around = os.path.dirname(os.path.dirname(sys.executable))
        is_inside = os.path.realpath(around) == os.path.realpath(venv)
        if sys.version_info < (3, 10):  # noqa: UP036
            problem = (
                "ComfyGen needs Python 3.10 or newer, and this is Python " + sys.version.split()[0]
            )
            step = "Install a newer one, and make a new .venv with it: README.md, section 1."
        else:
            problem = "This Python, " + sys.executable + ", has no module " + lacking[0]
            step = "Make a .venv beside comfygen.py, and install into it: README.md, section 1."
            if is_inside:
                requirements = os.path.join(beside, "requirements.txt")
                step = "Install what is missing: " + python + " -m pip install -r " + requirements
        if os.path.isdir(venv) and not is_inside:
            step = "Start it with: " + python + " " + " ".join(sys.argv)
        sys.stderr.write(problem + ".\n" + step + "\n")
        sys.exit(78)
    # Modules leave no garbage while they load, and collecting takes a tenth of that time. The last
    # lines of this file switch the collector on again.
    gc.disable()

import argparse
import asyncio
import io
import logging
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import discord
from discord import app_commands

from bot.alerts import Alerts
from bot.commands import COMMAND_NAMES, COMMANDS, HANDLERS, answer_unknown
from bot.context import BotContext
from bot.controls import ControlId, Interaction
from bot.messages import DISCORD_ERRORS, may_work_later
from bot.reporter import Reporter
from bot.supervise import supervise
from cli.checks import (
    INVITE_PERMISSIONS,
    INVITE_SCOPES,
    LOGIN_PAUSES,
    StartupChecks,
    StartupError,
    check_application,
    check_channels,
    check_roles,
    discord_failure,
    is_for_owner,
    log_check,
    print_checks,
)
from cli.once import add_options, run_once
from comfyui.errors import ComfyError
from jobs.catalog import Catalog
from jobs.draft import StaleForm
from jobs.failure import user_message_of
from jobs.servers import Servers
from jobs.workers import Workers
from settings import (
    ACKNOWLEDGED_ALREADY,
    DAY_MS,
    EXIT_CONFIG,
    EXIT_INTERRUPTED,
    ConfigError,
    Settings,
    about_file,
    load_settings,
    read_environment,
    redact,
    set_up_logging,
)
from store import Store, StoreError, unix_ms
from text import MESSAGE_LIMIT, PublicError, truncate

log = logging.getLogger("comfygen")

POOL_THREADS = 4  # for the database, so that a click always finds one
COMFYUI_THREADS = 4  # for ComfyUI, which may hang for long
LOOK_SECONDS = 0.5  # between two looks whether ComfyUI still answers, at a stop
COPY_NAMED_EVERY = 3600.0  # seconds

# discord.py warns twice at each start that voice does not work; this bot does not use it.
discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False


class ComfyGen(discord.Client):
    """The Discord client: it owns the parts of the bot, and runs on the event loop."""

    def __init__(
        self, settings: Settings, store: Store, servers: Servers, catalog: Catalog
    ) -> None:
        """Start nothing yet; `StartupChecks` has opened what is handed in."""
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
            proxy=settings.discord_proxy,
        )
        self.settings = settings
        self.store = store
        self.comfy = servers
        self.comfyui_threads = threads = ThreadPoolExecutor(COMFYUI_THREADS, "pool-comfyui")
        self.reporter = Reporter(self, settings, store, servers, catalog, threads)
        self.worker = Workers(settings, store, servers, catalog, self.reporter)
        self.context = BotContext(
            settings, store, servers, catalog, self.worker, self.reporter, threads
        )
        self.alerts = Alerts(self, settings, self.worker.lanes, threads)
        self.reporter.alerts = self.alerts
        self._copy_named_at = -COPY_NAMED_EVERY
        self._background: list[asyncio.Task[None]] = []
        self.tree = app_commands.CommandTree(self)
        self.tree.error(self._on_command_error)
        for command in COMMANDS:
            self.tree.add_command(command)

    # Connecting

    async def login(self, token: str) -> None:
        """Log in as discord.py does, and again while Discord limits this address or is away."""
        pause, longest = LOGIN_PAUSES
        while True:
            try:
                return await super().login(token)
            except discord.HTTPException as error:
                if not may_work_later(error):
                    raise
                told = error.response.headers.get("Retry-After", "")
                seconds = int(told) if told.isdecimal() else pause
                log.warning("%s; next try in %g s", discord_failure(error), seconds)
            pause = min(2 * pause, longest)
            await self.http.close()  # discord.py opens a new session at each login
            self.http.connector = discord.utils.MISSING
            await asyncio.sleep(seconds)

    async def connect(self, *, reconnect: bool = True) -> None:
        """Connect as discord.py does, but retry the first connection too: discord.py gives up if
        the gateway refuses that one."""
        backoff = discord.backoff.ExponentialBackoff()
        while True:
            try:
                return await super().connect(reconnect=reconnect)
            except AttributeError:  # discord.py asks a connection that never was for its session
                if self.ws is not None:
                    raise
            seconds = backoff.delay()
            log.warning("Discord's gateway does not answer yet, trying again in %.0f s", seconds)
            await asyncio.sleep(seconds)

    async def setup_hook(self) -> None:
        """Register the commands and start the work; discord.py calls this once, after the login."""
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
            asyncio.create_task(supervise(self._purge_daily)),
            asyncio.create_task(supervise(self._remove_other_commands)),
            asyncio.create_task(supervise(self.alerts.watch)),
            *(asyncio.create_task(supervise(worker.follow)) for worker in self.worker.each),
        ]

    async def _purge_daily(self) -> None:
        """Remove old jobs, and then the pictures that were given to them, at the start and once a
        day."""
        days, picture_days = self.settings.retention_days, self.settings.image_retention_days
        while True:
            try:
                if days:
                    gone = await asyncio.to_thread(self.store.purge, unix_ms() - days * DAY_MS)
                    log.info("housekeeping: %d jobs older than %d days removed", gone, days)
                before = unix_ms() - picture_days * DAY_MS if picture_days else 0
                await asyncio.to_thread(self.store.purge_pictures, before)
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

    async def _remove_other_commands(self) -> None:
        """Remove the commands that a start with another DISCORD_GUILD_ID has registered: people
        would see each of them twice."""
        await self.wait_until_ready()
        assert self.application_id is not None  # known once logged in
        for guild in (None, *self.guilds):
            if (guild and guild.id) == self.settings.guild_id:
                continue
            try:
                found = await self.tree.fetch_commands(guild=guild)
                if COMMAND_NAMES.isdisjoint(command.name for command in found):
                    continue
                if guild:
                    await self.http.bulk_upsert_guild_commands(self.application_id, guild.id, [])
                else:
                    await self.http.bulk_upsert_global_commands(self.application_id, [])
                log.info("the commands of an earlier start are removed %s", guild or "everywhere")
            except discord.Forbidden:
                log.debug("the bot may register no commands in %s", guild)
            except DISCORD_ERRORS as error:
                log.warning("commands of an earlier start may be left: %s", error)

    async def on_ready(self) -> None:
        """Log each channel and role that is configured wrongly; also after a lost session."""
        log.info("connected as %s; allowed channels: %d", self.user, len(self.settings.channel_ids))
        for channel_id in sorted(self.settings.channel_ids):
            place = self.get_channel(channel_id) or self.get_guild(channel_id)
            for check in check_channels(channel_id, place, self.get_all_channels()):
                if check.state != "ok":
                    log_check(check)
        for check in check_roles(self.settings, {r.id for g in self.guilds for r in g.roles}):
            log_check(check)

    # Answering

    async def on_interaction(self, interaction: Interaction) -> None:
        """Route a control or a modal by its custom id; commands go through the tree."""
        kinds = discord.InteractionType
        if interaction.type not in (kinds.component, kinds.modal_submit):
            return
        data: Any = interaction.data
        control = ControlId.parse(data["custom_id"])
        handler = HANDLERS.get((control.area, control.action), answer_unknown)
        try:
            await handler(self.context, interaction, control)
        except Exception as error:
            await self.answer_error(interaction, error)

    async def _on_command_error(
        self, interaction: Interaction, error: app_commands.AppCommandError
    ) -> None:
        original = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        await self.answer_error(interaction, original)

    async def answer_error(self, interaction: Interaction, error: Exception) -> None:
        """Reply with the sentence for an error that a handler raised; log what the owner needs."""
        if self.is_closed():  # the handler's call to Discord was cut off
            log.warning("shutting down: a reply was not sent: %s", error)
            return
        if getattr(error, "code", None) == ACKNOWLEDGED_ALREADY:
            self._note_other_copy()
            return
        if isinstance(error, ComfyError | StoreError):
            log.error("%s", error)
            self.reporter.on_error(error)
        elif isinstance(error, DISCORD_ERRORS):
            log.warning("Discord did not accept a reply: %s", error)
        elif not isinstance(error, PublicError):
            log.error("a handler failed", exc_info=error)
        try:
            await _reply(interaction, error)
        except (*DISCORD_ERRORS, RuntimeError) as failure:  # the latter if the bot ends just now
            log.warning("a reply did not reach Discord: %s", failure)

    def _note_other_copy(self) -> None:
        """Log that somebody else has answered, once an hour."""
        now = self.loop.time()
        if now >= self._copy_named_at + COPY_NAMED_EVERY:
            self._copy_named_at = now
            log.error(
                "another copy of the bot seems to use this DISCORD_TOKEN, as it has answered first:"
                " stop one of the two, or give it a token of its own"
            )

    # The end

    async def shut_down(self) -> None:
        """Finish and report the current job, within the grace and while ComfyUI answers; queued
        ones stay queued."""
        grace = self.settings.shutdown_grace
        deadline = self.loop.time() + grace
        self.worker.stop()
        log.info("shutting down: the current job has %g s; a second signal ends at once", grace)
        # A thread that hangs in a socket would keep the process alive for minutes after this.
        last_resort = threading.Timer(grace + 5.0, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()
        # Not in the pool, all of whose threads may hang.
        finished = asyncio.wrap_future(self.worker.finished)
        while not finished.done() and self.loop.time() < deadline:
            left = deadline - self.loop.time()
            await asyncio.wait([finished], timeout=min(left, LOOK_SECONDS))
            if self.worker.are_stuck:  # a thread may hang in a call
                break
        if not finished.done():
            log.warning("the current job is not finished; it is taken up at the next start")
            self.worker.abort()
        if self.is_ready():  # without a connection yet, every report waits for one
            await self.reporter.drain(max(0.0, deadline - self.loop.time()))

    def stop_tasks(self) -> None:
        """Cancel what still runs; the next start takes it up."""
        self.worker.abort()
        self.reporter.drop()
        for task in self._background:
            task.cancel()
        self.comfyui_threads.shutdown(wait=False, cancel_futures=True)


async def _reply(interaction: Interaction, error: Exception) -> None:
    if isinstance(error, StaleForm):  # its controls would be refused again, so remove them
        await interaction.response.edit_message(content=error.user_message, view=None)
        return
    sentence = truncate(user_message_of(error), MESSAGE_LIMIT)
    try:
        if not interaction.response.is_done():
            await interaction.response.send_message(sentence, ephemeral=True)
            return
    except discord.HTTPException as failure:
        if failure.code != ACKNOWLEDGED_ALREADY:
            raise
        # The response did arrive, and what Discord said to it was lost.
    await interaction.followup.send(sentence, ephemeral=True)


# ---------------------------------------------------------------------------------------------
# The way in


def prepare(settings: Settings) -> tuple[ComfyGen | None, int]:
    """Run the checks, log them, and return the bot; None and the exit code if one has failed."""
    startup = StartupChecks(settings)
    startup.run()
    for check in startup.checks:
        log_check(check)
    if not startup.failed and startup.store is not None:
        return ComfyGen(settings, startup.store, startup.servers, startup.catalog), 0
    startup.close()
    return None, EXIT_CONFIG if startup.is_for_owner else 1


async def serve(bot: ComfyGen, token: str) -> int:
    """Run the bot until a signal or an error ends it, and return the exit code."""
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
    if isinstance(outcome, (StartupError, StoreError, *DISCORD_ERRORS)):
        log.critical("%s", discord_failure(outcome))
    elif isinstance(outcome, Exception):
        log.critical("the bot ended because of a bug", exc_info=outcome)
    # asyncio waits for its pool at the end, and a thread may hang: hand it a new pool.
    pool.shutdown(wait=False, cancel_futures=True)
    loop.set_default_executor(ThreadPoolExecutor(1))
    if stop.is_set():
        return 0
    return EXIT_CONFIG if isinstance(outcome, Exception) and is_for_owner(outcome) else 1


def set_signal_handlers(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Have the first signal set `stop`, and a second one end the process at once."""

    def on_signal(*_: object) -> None:
        if stop.is_set():
            # Nothing is lost: the database has what is unfinished.
            log.warning("second signal: ended at once")
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            # This sets a wake-up file descriptor, which ends the loop's wait whenever it comes.
            loop.add_signal_handler(number, on_signal)
        except NotImplementedError:  # Windows, whose loop has that descriptor from the start
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(on_signal))


def run(settings: Settings) -> int:
    """Run the checks and the bot, and return the exit code."""
    # Threads switch ten times as often, so that a click need not wait while the worker unpacks a
    # large picture.
    sys.setswitchinterval(0.0005)
    bot, code = prepare(settings)
    if bot is None:
        return code
    try:
        code = asyncio.run(serve(bot, settings.token))
    finally:
        bot.store.close()
        bot.comfy.close()
    if any(thread.name.startswith("pool") for thread in threading.enumerate()):
        # It hangs, and Python would wait for it.
        logging.shutdown()
        os._exit(code)
    return code


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line; end the program if they make no sense."""
    parser = argparse.ArgumentParser(
        prog="comfygen.py",
        description="A Discord bot whose /gen makes pictures with the ComfyUI at home.",
        epilog="It is configured by the environment and a .env file beside it: see README.md.",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--setup", action="store_true", help="ask for everything, and write .env")
    mode.add_argument("--check", action="store_true", help="check everything a start needs")
    mode.add_argument("--once", metavar="PROMPT", help="make one picture without Discord")
    mode.add_argument(
        "--adopt", metavar="FILE", type=Path, help="make a workflow of what ComfyUI exported"
    )
    parser.add_argument("--name", help="with --adopt: what the workflow is called")
    parser.add_argument("--json", action="store_true", help="with --adopt: only say what is found")
    parser.add_argument("--yes", action="store_true", help="with --adopt: take its guesses")
    parser.add_argument("--offline", action="store_true", help="with --check: leave Discord out")
    names = add_options(parser)
    parsed = parser.parse_args()
    if parsed.offline and not parsed.check:
        parser.error("--offline goes with --check")
    if parsed.adopt is None and (parsed.name is not None or parsed.json or parsed.yes):
        parser.error("--name, --json and --yes go with --adopt")
    if parsed.once is None and any(getattr(parsed, name) is not None for name in names):
        parser.error("options for one picture go with --once")
    parsed.out = parsed.out or Path()
    return parsed


def main() -> int:
    """Run `python comfygen.py`, and return the exit code."""
    # A code page does not have every letter; stderr is like this from the start.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = run_command(parse_arguments())
        if sys.stdout is not None:  # as in pythonw
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def run_command(options: argparse.Namespace) -> int:
    """Read the settings, run what the command line asks for, and return the exit code."""
    if options.setup:
        from cli.setup import run_setup

        return run_setup()
    problems: Sequence[str] = ()
    try:
        alone = options.once is not None or options.adopt is not None or options.offline
        settings = load_settings(read_environment(), for_discord=not alone)
        notes = about_file(problems)
    except ConfigError as error:
        problems = error.problems
        notes = about_file(problems) if error.settings else []
        if error.settings is None or not options.check:
            for problem in (*problems, *notes):
                print(f"configuration: {redact(problem)}", file=sys.stderr)
            return EXIT_CONFIG
        settings = error.settings
    if options.check or options.adopt is not None or options.once is not None:
        settings = replace(settings, log_level=max(settings.log_level, logging.ERROR))
    set_up_logging(settings)
    try:
        if options.check:
            return print_checks(settings, problems, notes, COMMAND_NAMES, offline=options.offline)
        if options.adopt is not None:
            from cli.adopt import run_adopt

            return run_adopt(settings, options)
        if options.once is not None:
            return run_once(settings, options)
        for note in notes:
            log.warning("configuration: %s", note)
        return run(settings)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except (StoreError, OSError) as error:
        print(redact(str(error), *settings.secrets), file=sys.stderr)
    return 1


if __name__ == "__main__":
    gc.freeze()  # What is loaded stays: later collections, which halt the event loop, skip it.
    gc.enable()
    sys.exit(main())
