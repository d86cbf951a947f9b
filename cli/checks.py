"""The checks before a start, for the log and for --check.

Checks the database, ComfyUI, the workflow and Discord, in words for the owner, and opens what the
bot then works with. `StartupChecks` blocks; the checks of Discord run on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import discord
from discord import app_commands

import binder
from bot.messages import DISCORD_ERRORS
from comfy_client import ComfyClient
from comfyui.errors import ComfyError, Unreachable
from comfyui.object_info import ComfyOptions, ObjectInfo, OptionsMissing
from jobs.catalog import Catalog, Offer, WorkflowError, Workflows, lacking
from jobs.servers import Servers
from settings import BACKEND_HEADER, Server, Settings, redact
from store import LOW_DISK_BYTES, MIGRATIONS, InUse, Store, StoreError, inspect

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

RETRY_SECONDS = 5.0  # for how long ComfyUI is asked again; a hiccup passes in that time
RETRY_EVERY = 0.5  # seconds
LOGIN_PAUSES = (15.0, 900.0)  # seconds, the first and the longest, where Discord names no time
INVITE_SCOPES = ("bot", "applications.commands")
INVITE_PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    embed_links=True,
    attach_files=True,
    read_message_history=True,
)


class StartupError(Exception):
    """An error that keeps the bot from starting; `str()` says why and what to do."""


class Check(NamedTuple):
    """The result of one check: ok, warning or FAILED, and what to do."""

    area: str
    state: str
    text: str


CHECK_LEVELS = {"ok": logging.INFO, "warning": logging.WARNING, "FAILED": logging.CRITICAL}


def log_check(check: Check) -> None:
    """Log a check."""
    log.log(CHECK_LEVELS[check.state], "check: %s: %s", check.area, check.text)


class StartupChecks:
    """The checks before the bot goes online, and what they have opened for it. Blocks."""

    def __init__(self, settings: Settings, problems: Sequence[str] = ()) -> None:
        """Note the problems of the configuration, if there are any."""
        self.settings = settings
        self.checks = [Check("configuration", "FAILED", problem) for problem in problems]
        self._wrong = {problem.split()[0] for problem in problems}  # settings with a default now
        self.store: Store | None = None
        self.servers = Servers(
            [ComfyClient(server, previews=settings.previews) for server in settings.servers]
        )
        self.info: ObjectInfo | None = None
        self.workflows = Workflows(settings.workflow_path)
        self.catalog = Catalog(self.servers, self.workflows)
        self.workflow = self.workflows.load()

    @property
    def failed(self) -> list[Check]:
        """Return what keeps the bot from starting."""
        return [check for check in self.checks if check.state == "FAILED"]

    @property
    def is_for_owner(self) -> bool:
        """Return whether no start will be better until the owner has mended something."""
        return any(check.area == "workflow" for check in self.failed)

    def run(self, *, only_look: bool = False) -> None:
        """Run every check that does not need Discord. With `only_look` the database is not opened,
        so that a bot can start meanwhile, or work on it. A setting that is wrong has a default,
        about which there is nothing to say."""
        if "DB_PATH" not in self._wrong:
            (self._look_at_database if only_look else self._open_database)()
        if not any(name.startswith("COMFY_") for name in self._wrong - {"COMFY_TIMEOUT_MS"}):
            self._check_comfyui()
        if "WORKFLOW_PATH" not in self._wrong:
            self._check_workflow()

    def close(self) -> None:
        """Close what was opened."""
        if self.store is not None:
            self.store.close()
        self.servers.close()

    def _note(self, area: str, state: str, text: str) -> None:
        self.checks.append(Check(area, state, text))

    def _look_at_database(self) -> None:
        path = self.settings.db_path
        if os.path.exists(path):  # Path.exists() raises where it may not look
            try:
                inspect(path)
                self._database_is_fine("writable")
            except InUse:
                self._database_is_fine("the bot is running")
            except StoreError as error:
                self._note("database", "FAILED", str(error))
            return
        place = next(folder for folder in path.parents if os.path.exists(folder))
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            self._note("database", "ok", f"{path} is made by the first start")
        else:
            text = f"{place} is no writable folder: set DB_PATH elsewhere"
            self._note("database", "FAILED", text)

    def _open_database(self) -> None:
        try:
            self.store = Store(self.settings.db_path)
        except StoreError as error:
            self._note("database", "FAILED", str(error))
            return
        self._database_is_fine(f"version {len(MIGRATIONS)}, writable")

    def _database_is_fine(self, how: str) -> None:
        path = self.settings.db_path
        self._note("database", "ok", f"{path}, {how}")
        free = shutil.disk_usage(path.parent).free
        if free < LOW_DISK_BYTES:
            self._note("database", "warning", f"only {free // 2**20} MiB are free on its disk")

    def _check_comfyui(self) -> None:
        try:
            self._check_servers()
            self.info = info = self._with_retries(self.servers.object_info)
            for name, text in self.servers.narrowing.items():
                self._note("options", "warning", f"only on {name}, so not offered: {text}")
            options: ComfyOptions | Offer
            options = info.options({}) if not self.workflow.ok else self._offered(info)
            counts = len(options.models), len(options.samplers), len(options.schedulers)
            self._note("options", "ok", "{} models, {} samplers, {} schedulers".format(*counts))
        except OptionsMissing as error:
            for problem in error.problems:
                self._note("options", "FAILED", problem)
        except WorkflowError as error:
            self._note("workflow", "FAILED", f"{self.workflows.default}: {error}")
        except ComfyError as error:
            self._note("ComfyUI", "FAILED", unusable_comfyui(self.settings.servers[0], error))

    def _check_servers(self) -> None:
        """Check each server. Raises the first's ComfyError if none can be used."""
        errors: dict[ComfyClient, ComfyError] = {}
        for client in self.servers.clients:
            area, server = self.servers.name(client), client.server
            try:
                version = self._with_retries(client.version)
                self._note(area, "ok", f"{server.base_url}: {version}")
                waiting = len(self._with_retries(client.queue).pending)
                self._note(area, "ok", f"{waiting} prompts wait in its queue")
            except ComfyError as error:
                errors[client] = error
            if server.is_spread:
                text = f"SwarmUI has to be told a backend: set COMFY_HEADERS={BACKEND_HEADER}: 0"
                self._note(area, "warning", text)
        if len(errors) == len(self.servers.clients):
            raise errors[self.servers.clients[0]]
        for client, reason in errors.items():
            text = unusable_comfyui(client.server, reason)
            self._note(self.servers.name(client), "warning", text)

    def _with_retries(self, ask: Callable[[], Answer]) -> Answer:
        """Ask ComfyUI, and again: one reset, or a proxy's 502, is no reason to refuse a start."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                return ask()
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_EVERY)

    def _offered(self, info: ObjectInfo) -> Offer:
        self.catalog.update(info)
        for name, reason in self.catalog.left_out.items():
            self._note("workflow", "warning", f"{name} is left out: {reason}")
        return self.catalog.offers[self.workflows.default]

    def _check_workflow(self) -> None:
        path = self.settings.workflow_path
        if not self.workflow.ok:
            self._note("workflow", "FAILED", f"{self.workflow.reason} (WORKFLOW_PATH is {path})")
            return
        self._note("workflow", "ok", f"{path}, API format, all bound nodes and inputs are there")
        self._check_nodes(self.workflows.default, self.workflow)
        for name in self.workflows.names()[1:]:
            loaded = self.workflows.load(name)
            if loaded.ok:
                if name in self.catalog.offers or not self.catalog.offers:
                    self._note("workflow", "ok", f"{name}: all bound nodes and inputs are there")
                self._check_nodes(name, loaded)
            elif not self.catalog.offers:  # else _offered() has noted it
                self._note("workflow", "warning", f"{name} is left out: {loaded.reason}")

    def _check_nodes(self, name: str, loaded: binder.Workflow) -> None:
        """Warn of what the server lacks of a workflow that it can make all the same."""
        if self.info is not None and name in self.catalog.offers:
            has_key = bool(self.settings.servers[0].api_key)
            for text in lacking(loaded, self.info, has_key=has_key):
                self._note("workflow", "warning", f"{name}: {text}")


def unusable_comfyui(server: Server, error: ComfyError) -> str:
    """Return one line for the owner, with what to do."""
    number = f"_{server.number}" if server.number > 1 else ""
    hint = f"start it, or correct COMFY_BASE_URL{number}"
    return f"ComfyUI cannot be used at {server.base_url}: {hint} ({error})"


async def check_discord(settings: Settings, commands: Collection[str]) -> list[Check]:
    """Run the checks of Discord, over REST alone, so that the bot is not seen online. `commands`
    are the names of those that have to be registered."""
    checks: list[Check] = []
    intents = discord.Intents(guilds=True)
    async with discord.Client(intents=intents, proxy=settings.discord_proxy) as client:
        try:
            await client.login(settings.token)
            checks.append(Check("Discord", "ok", f"the token is valid: {client.user}"))
            checks.append(check_application(settings, client.application_id))
            roles: set[int] = set()
            for channel_id in sorted(settings.channel_ids):
                found, there = await _fetch_and_check_channel(client, channel_id)
                checks += found
                roles |= there
            checks += check_roles(settings, roles)
            guild = discord.Object(settings.guild_id) if settings.guild_id else None
            registered = await app_commands.CommandTree(client).fetch_commands(guild=guild)
            if set(commands) <= {command.name for command in registered}:
                checks.append(Check("Discord", "ok", "the commands are registered"))
            else:
                text = "the commands are not registered yet: the next start does that"
                checks.append(Check("Discord", "warning", text))
        except discord.Forbidden:
            text = f"the bot is not in server {settings.guild_id} (DISCORD_GUILD_ID): invite it"
            checks.append(Check("Discord", "FAILED", text))
        except DISCORD_ERRORS as error:
            checks.append(Check("Discord", "FAILED", discord_failure(error)))
    return checks


def check_application(settings: Settings, actual: int | None) -> Check:
    """Check that the token belongs to the application of DISCORD_CLIENT_ID, if that is set."""
    wanted = settings.client_id
    if wanted in (None, actual):
        return Check("Discord", "ok", f"application id {actual}")
    text = f"DISCORD_CLIENT_ID is {wanted}, but DISCORD_TOKEN belongs to application {actual}"
    return Check("Discord", "FAILED", f"{text}: correct one of the two")


def check_channels(
    place_id: int,
    place: object,
    others: Iterable[discord.abc.GuildChannel],
    me: discord.Member | None = None,
) -> list[Check]:
    """Check that the bot, as a member of that server, can work in a channel of ALLOWED_CHANNEL_IDS,
    or in those of a category; `place` is whatever Discord has under the id, `others` are channels
    of its server."""
    if isinstance(place, discord.Guild):
        text = f"{place_id} in ALLOWED_CHANNEL_IDS is the id of the server {place.name}:"
        return [Check("Discord", "warning", f"{text} right-click the channel > Copy Channel ID")]
    if not isinstance(place, discord.abc.GuildChannel | discord.Thread):
        text = f"the bot does not see channel {place_id}: invite it, or correct"
        return [Check("Discord", "warning", f"{text} ALLOWED_CHANNEL_IDS")]
    if not isinstance(place, discord.CategoryChannel):
        return [_check_channel(place, me or place.guild.me)]
    me = me or place.guild.me
    within = [channel for channel in others if channel.category_id == place_id]
    # One that is hidden from the bot is not meant.
    seen = [channel for channel in within if channel.permissions_for(me).view_channel]
    name = f"category {place_id} (#{place.name})"
    if not seen:
        text = f"{name} has no channels that the bot sees: let it see them, or correct"
        return [Check("Discord", "warning", f"{text} ALLOWED_CHANNEL_IDS")]
    count = "1 channel" if len(seen) == 1 else f"{len(seen)} channels"
    checks = [_check_channel(channel, me) for channel in seen]
    wrong = [check for check in checks if check.state != "ok"]
    return [Check("Discord", "ok", f"{name}: its {count}"), *wrong]


def _check_channel(channel: discord.abc.GuildChannel | discord.Thread, me: discord.Member) -> Check:
    missing = missing_permissions(channel, me)
    if missing:
        text = f"channel {channel.id}: the bot lacks {', '.join(missing)}"
        return Check("Discord", "warning", text)
    return Check("Discord", "ok", f"channel {channel.id} (#{channel.name}): all permissions")


def missing_permissions(
    channel: discord.abc.GuildChannel | discord.Thread, me: discord.Member
) -> list[str]:
    """Return the names of the permissions that the bot, this member, lacks in a channel."""
    granted = channel.permissions_for(me)
    missing = [name for name, on in INVITE_PERMISSIONS if on and not getattr(granted, name)]
    # Discord's own name for what discord.py calls read_messages.
    return [name.replace("read_messages", "view_channel").replace("_", " ") for name in missing]


def check_roles(settings: Settings, known: Collection[int]) -> list[Check]:
    """Warn of each of ALLOWED_ROLE_IDS that is not among the roles of the bot's servers."""
    return [
        Check("Discord", "warning", f"no server has role {role_id}: correct ALLOWED_ROLE_IDS")
        for role_id in sorted(settings.role_ids.difference(known))
    ]


async def _fetch_and_check_channel(
    client: discord.Client, channel_id: int
) -> tuple[list[Check], set[int]]:
    """Return the checks of one channel or category, and the ids of the roles of its server."""
    try:
        found = await client.fetch_channel(channel_id)
        if not isinstance(found, discord.abc.GuildChannel | discord.Thread):
            return check_channels(channel_id, None, ()), set()
        # Again with its server, whose roles say what the bot may do there.
        guild = await client.fetch_guild(found.guild.id)
        channel = await guild.fetch_channel(channel_id)
        assert client.user is not None  # logged in
        me = await guild.fetch_member(client.user.id)
        is_category = isinstance(channel, discord.CategoryChannel)
        others = await guild.fetch_channels() if is_category else ()
        return check_channels(channel_id, channel, others, me), {role.id for role in guild.roles}
    except (discord.NotFound, discord.Forbidden):
        try:
            return check_channels(channel_id, await client.fetch_guild(channel_id), ()), set()
        except (discord.NotFound, discord.Forbidden):
            return check_channels(channel_id, None, ()), set()


def discord_failure(error: Exception) -> str:
    """Return why the connection to Discord ended, in one line with what to do."""
    if isinstance(error, StartupError | StoreError):
        return str(error)
    if is_for_owner(error):
        return "Discord refused DISCORD_TOKEN: copy it again from the Bot page"
    if isinstance(error, discord.HTTPException) and error.status == 429:
        text = "Discord limits the requests from this internet address (HTTP 429)"
        return f"{text}: it ends by itself, sooner if nothing asks meanwhile"
    if isinstance(error, discord.HTTPException) and error.status >= 500:
        return f"Discord has an outage (HTTP {error.status}): see https://discordstatus.com"
    return f"Discord cannot be used: {error}; check the internet connection"


def is_for_owner(error: Exception) -> bool:
    """Return whether no start will be better until the owner has mended something."""
    is_refused = isinstance(error, discord.LoginFailure) or getattr(error, "code", None) == 4004
    return is_refused or isinstance(error, StartupError)


def print_checks(
    settings: Settings,
    problems: Sequence[str],
    notes: Sequence[str],
    commands: Collection[str],
    *,
    offline: bool,
) -> int:
    """Print every check as a line, the problems of the configuration and notes on it first, the
    verdict last. Return the exit code, which is 0 if the bot would start."""
    startup = StartupChecks(settings, problems)
    notes = [*notes, *(unsure_settings(settings) if offline else ())]
    startup.checks += [Check("configuration", "warning", note) for note in notes]
    startup.checks = startup.checks or [Check("configuration", "ok", "complete")]
    startup.run(only_look=True)
    wrong = any(problem.startswith(("DISCORD_TOKEN", "DISCORD_PROXY")) for problem in problems)
    if not wrong and not offline:
        startup.checks += asyncio.run(check_discord(settings, commands))
    startup.close()
    for area, state, text in startup.checks:
        print(f"{state:<8} {area:<14} {redact(text, *settings.secrets)}")
    print(verdict(len(startup.failed), offline=offline))
    return 1 if startup.failed else 0


def unsure_settings(settings: Settings) -> Iterator[str]:
    """Yield a line for each setting that Discord alone could check, and that looks wrong."""
    if not settings.token:
        yield "DISCORD_TOKEN is missing: only --offline goes without"
    if not settings.channel_ids:
        yield "ALLOWED_CHANNEL_IDS is missing: only --offline goes without"
    others = {
        settings.guild_id: "your server (DISCORD_GUILD_ID)",
        settings.client_id: "your application (DISCORD_CLIENT_ID)",
    }
    for channel_id in sorted(settings.channel_ids & others.keys()):
        yield (
            f"{channel_id} in ALLOWED_CHANNEL_IDS is the id of {others[channel_id]}: right-click"
            " the channel itself > Copy Channel ID"
        )


def verdict(failures: int, *, offline: bool) -> str:
    """Return the last line of --check."""
    if failures:
        things = "1 thing" if failures == 1 else f"{failures} things"
        return f"The bot would not start: {things} to mend (FAILED)."
    return "All is well so far, without Discord." if offline else "The bot would start."
