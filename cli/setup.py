"""The command --setup: the way from nothing to a `.env` with which the bot starts.

Owns the questions in the terminal and their order, and what goes into `.env`, which is written at
the end alone. Discord is asked over REST, so that the bot is not seen online.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import logging
import os
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import discord

from bot.messages import DISCORD_ERRORS
from cli.adopt import program_command
from cli.checks import INVITE_PERMISSIONS, INVITE_SCOPES, discord_failure, missing_permissions
from cli.dialog import Back, Dialog
from cli.env_file import write_env
from cli.once import add_options, run_once
from comfy_client import ComfyClient
from comfyui.errors import ComfyError
from jobs.catalog import Offer, WorkflowError, Workflows
from settings import (
    EXIT_INTERRUPTED,
    HERE,
    ConfigError,
    Settings,
    load_settings,
    plain_value,
    read_environment,
    read_file,
    redact,
    set_up_logging,
)

Answer = TypeVar("Answer")

PLACES = ("http://127.0.0.1:8188", "http://127.0.0.1:8000")  # ComfyUI's, and the Desktop app's
LOOK_SECONDS = 5.0  # between two looks whether the bot is in a server
MODELS_SHOWN = 20
NO_TERMINAL = (
    "--setup asks questions, so it needs a terminal: run it in one (on Windows in PowerShell), or"
    " fill in .env yourself, as README says."
)
BEGINNING = """\
This asks what the bot needs to know, and writes it into .env at the end. Enter takes what stands in
[brackets], b and Enter goes back to the question before, Ctrl+C ends it and writes nothing."""
APPLICATION = """
The bot needs an application of yours at Discord:
  1. Open https://discord.com/developers/applications, press New Application, and give it a name.
  2. On its page Bot, press Reset Token, and copy the token. It is the bot's password."""


class Setup(Dialog):
    """The values of the `.env` that there is, and the answers so far."""

    def __init__(self, before: Mapping[str, str]) -> None:
        self.before = before
        self.answers: dict[str, str] = {}
        self.application: discord.AppInfo
        self.servers: dict[int, str] = {}  # the names of those that the bot is in, by id
        self.has_comfyui = False

    def run(self) -> None:
        """Ask everything; a step that needs no answer is passed by, also on the way back."""
        steps = (self.token, self.invite, self.channels, self.comfyui, self.picture, self.alerts)
        number, asked = 0, list[int]()
        while number < len(steps) + 1:
            self.has_asked = False
            try:
                self.patiently(self.finish if number == len(steps) else steps[number])
            except Back:
                if not asked:
                    print("  This is the first question.")
                number = asked.pop() if asked else 0
            else:
                asked += [number] * self.has_asked
                number += 1

    def patiently(self, step: Callable[[], None]) -> None:
        """Take a step, and again as long as Discord is out of reach."""
        while True:
            try:
                return step()
            except DISCORD_ERRORS as error:
                print(f"  {redact(discord_failure(error), self.value('DISCORD_TOKEN'))}")
            text = self.ask("Enter tries again; or give a proxy, if Discord is behind one, as URL")
            if text and self.accepts("DISCORD_PROXY", text):
                self.answers["DISCORD_PROXY"] = text

    def accepts(self, name: str, value: str) -> bool:
        """Return whether a setting can have this value, and say so if it cannot."""
        try:
            self.settings(**{name: value})
        except ConfigError as error:
            print(f"  That {error.problems[0].removeprefix(name).strip()}.")
            return False
        return True

    def value(self, name: str) -> str:
        """Return the answer, or else what `.env` has."""
        return self.answers.get(name, self.before.get(name, ""))

    def settings(self, **tried: str) -> Settings:
        """Return the settings as they would be now. Raises ConfigError if `tried` is wrong."""
        try:
            environment = {**read_environment(), **self.answers, **tried}
            return load_settings(environment, for_discord=False)
        except ConfigError as error:
            problems = [text for text in error.problems if text.split()[0] in tried]
            if problems or error.settings is None:
                raise ConfigError(problems or error.problems) from error
            return error.settings  # the rest is told at the end

    def on_discord(self, work: Callable[[discord.Client], Awaitable[Answer]]) -> Answer:
        """Run something with a client that is logged in. Raises DISCORD_ERRORS."""

        async def session() -> Answer:
            intents, proxy = discord.Intents(guilds=True), self.settings().discord_proxy
            async with discord.Client(intents=intents, proxy=proxy) as client:
                await client.login(self.value("DISCORD_TOKEN"))
                assert client.application is not None  # logged in
                self.application = client.application
                return await work(client)

        return asyncio.run(session())

    # The steps

    def token(self) -> None:
        """Ask for the token until Discord accepts one."""
        print(APPLICATION)
        while True:
            self.read_token()
            try:
                self.servers = self.on_discord(fetch_servers)
                break
            except discord.LoginFailure:
                print("  Discord refuses this token: press Reset Token, and copy the new one.")
                self.answers["DISCORD_TOKEN"] = ""
        print(f"  Discord knows it: {self.application.name}.")
        self.answers["DISCORD_CLIENT_ID"] = str(self.application.id)

    def read_token(self) -> None:
        """Ask for the token until it can be one."""
        known = "keep the one given" if self.value("DISCORD_TOKEN") else ""
        while True:
            text = self.ask("Token (it is not shown)", known, getpass.getpass)
            if known and text == known:
                return
            text = re.sub(r"^bot\s+", "", text.strip("\"' "), flags=re.IGNORECASE)
            if "\x16" in text:
                print("  Ctrl+V does not paste here: paste with a right-click.")
            elif self.accepts("DISCORD_TOKEN", text or "-"):
                self.answers["DISCORD_TOKEN"] = text
                return

    def invite(self) -> None:
        """Wait until the bot is in a server."""
        permissions, scopes = INVITE_PERMISSIONS, INVITE_SCOPES
        link = discord.utils.oauth_url(self.application.id, permissions=permissions, scopes=scopes)
        print(f"\nInvite the bot to your server (that takes Manage Server there):\n  {link}")
        if self.application.bot_require_code_grant:
            print("  First turn Requires OAuth2 Code Grant off, on the page Bot.")
        while not self.servers:
            self.wait_for_server()
        self.pause(f"The bot is in {', '.join(self.servers.values())}; Enter goes on")
        self.servers = self.on_discord(fetch_servers)

    def wait_for_server(self) -> None:
        """Look for the bot's servers until the person presses Enter, and once more then."""
        left = threading.Event()
        threading.Thread(target=self.look_on, args=(left,), daemon=True).start()
        try:
            self.pause("Waiting for the bot to be in a server; Enter looks at once")
        finally:
            left.set()
        self.servers = self.on_discord(fetch_servers)
        if not self.servers:
            print("  The bot is in no server yet: open the link, and choose yours.")

    def look_on(self, left: threading.Event) -> None:
        """Say so when the bot has come to a server while the person reads a question."""
        while not left.wait(LOOK_SECONDS):
            with contextlib.suppress(*DISCORD_ERRORS):
                servers = self.on_discord(fetch_servers)
                if servers and not left.is_set():
                    print(f"\n  The bot has come to {', '.join(servers.values())}. Press Enter.")
                    return

    def channels(self) -> None:
        """Ask for the server, if there are several, and for the channels of `/gen`."""
        if not self.servers:  # the bot was thrown out meanwhile
            raise Back
        ids, names = list(self.servers), list(self.servers.values())
        known = self.value("DISCORD_GUILD_ID")
        place = ids.index(int(known)) if known in map(str, ids) else 0
        if len(ids) > 1:
            print("\nThe server of the bot:")
            place = self.choose("Its number", names, place)
        self.answers["DISCORD_GUILD_ID"] = str(ids[place])
        while not (chosen := self.chosen_channels(ids[place], names[place])):
            pass
        self.answers["ALLOWED_CHANNEL_IDS"] = chosen

    def chosen_channels(self, guild_id: int, name: str) -> str:
        """Return the ids of the channels that the person chooses, none to show them once more."""
        seen, unseen = self.on_discord(lambda client: fetch_channels(client, guild_id))
        if unseen:
            print(f"\nThe bot does not see {', '.join(f'#{channel.name}' for channel in unseen)}.")
            print("To let it: Edit Channel > Permissions > add the bot's role.")
        if not seen:
            self.pause("The bot sees no text channel here; Enter looks again")
            return ""
        print(f"\nThe channels of {name} in which people may use /gen:")
        names = [f"#{c.name}" + (f"  (lacks {', '.join(m)})" if m else "") for c, m in seen]
        known = self.value("ALLOWED_CHANNEL_IDS")
        ids = set(re.findall(r"\d+", known))
        defaults = [n for n, (c, _) in enumerate(seen) if {str(c.id), str(c.category_id)} & ids]
        places = self.choose_some("Their numbers, as 1,3", names, defaults or [0])
        chosen = [seen[place] for place in places]
        if not self.is_content_with(chosen):
            return ""
        # As it was: it may name categories, and channels elsewhere.
        return known if places == defaults else ",".join(str(c.id) for c, _ in chosen)

    def is_content_with(self, chosen: list[tuple[discord.TextChannel, list[str]]]) -> bool:
        """Return whether the bot lacks no permission there, or the person goes on all the same."""
        for channel, missing in chosen:
            if missing:
                print(f"  In #{channel.name} the bot needs {', '.join(missing)}:")
                print("  allow it to the bot's role in Edit Channel > Permissions.")
        if not any(missing for _, missing in chosen):
            return True
        return self.pause("Enter looks again, s goes on as it is", "s") == "s"

    def comfyui(self) -> None:
        """Look for ComfyUI on this machine, and ask for its address."""
        print("\nLooking for ComfyUI ...")
        known = self.value("COMFY_BASE_URL")
        found = next((place for place in (known, *PLACES) if place and self.finds(place)), "")
        if not found:
            print(f"It does not answer at {' or '.join(PLACES)}: start it, or say where it is.")
        address = found or known or PLACES[0]
        while (text := self.ask("ComfyUI's address (s: go on without it)", address)).lower() != "s":
            if self.accepts("COMFY_BASE_URL", full_address(text)):
                address = full_address(text)
                if self.finds(address, is_told=True):
                    break
        self.has_comfyui = text.lower() != "s"
        self.answers["COMFY_BASE_URL"] = address

    def finds(self, address: str, is_told: bool = False) -> bool:
        """Return whether a ComfyUI answers there, and say so, or with `is_told` why it does not."""
        settings = self.settings()
        try:
            with closing(ComfyClient(replace(settings.servers[0], base_url=address))) as client:
                print(f"  At {address} is ComfyUI {client.version()}.")
                return True
        except ComfyError as error:
            if is_told:
                print(f"  No ComfyUI answers at {address}: {redact(str(error), *settings.secrets)}")
                print("  Start it (with --listen on another machine), or give its address.")
            return False

    def picture(self) -> None:
        """Make one picture, unless the person goes on without."""
        question = "\nMake a picture, to see that it works? (s: go on without)"
        while self.has_comfyui and self.confirm(question, "s"):
            if self.make_picture():
                return
            question = "Try again, when that is mended? (s: go on without)"

    def make_picture(self) -> bool:
        """Make one with the first workflow that works there, and return whether that worked."""
        settings = self.settings()
        workflows = Workflows(settings.workflow_path)
        try:
            with closing(ComfyClient(settings.servers[0])) as client:
                name, offered = workflows.first_usable(client.object_info())
        except (ComfyError, WorkflowError) as error:
            print(f"  {redact(str(error), *settings.secrets)}")
            return False
        if name != workflows.default:
            print(f"  The default workflow will be {name}.")
            path = workflows.path(name)
            is_ours = path.is_relative_to(HERE)
            self.answers["WORKFLOW_PATH"] = (path.relative_to(HERE) if is_ours else path).as_posix()
        options = once_options(once="a red fox", workflow=name, model=self.model_of(offered))
        print(f"  {options.once}, with the workflow {name}; it will be in this file:")
        return run_once(settings, options) == 0

    def model_of(self, offered: Offer) -> str | None:
        """Return the model that the person chooses, if ComfyUI does not have the workflow's."""
        names, default = offered.models, offered.defaults.model or ""
        if "model" not in offered.params or offered.find("model", default):
            return None
        models = names.values[:MODELS_SHOWN]
        return models[self.choose("The model's number", list(map(names.shown, models)))]

    def alerts(self) -> None:
        """Ask whether the owner wants the bot's alerts."""
        team, owner = self.application.team, self.application.owner
        wanted = self.value("ALERT_USER_ID") or str(team.owner_id if team else owner.id)
        name = owner.display_name if wanted == str(owner.id) else wanted
        print("\nThe bot can send you a message when ComfyUI is away or the disk is full.")
        self.answers["ALERT_USER_ID"] = wanted if self.confirm(f"Shall it, to {name}?") else ""

    def finish(self) -> None:
        """Write `.env`, and say how to start."""
        print()
        for name, value in self.answers.items():
            print(f"  {name}={'(not shown)' if name == 'DISCORD_TOKEN' else redact(value)}")
        kept = self.write()
        print(f"Written: {HERE / '.env'}" + (f"; what it was is in {kept}" if kept else ""))
        self.tell_what_is_left()
        print(f"\nTo look at everything once more:\n  {program_command()} --check")
        print(f'To start the bot, which works when it says "connected as":\n  {program_command()}')

    def write(self) -> Path | None:
        """Write `.env` once the person agrees, and return where the one before is kept."""
        while True:
            self.pause("Enter writes this into .env")
            try:
                return write_env(HERE, {**self.before, **self.answers})
            except OSError as error:
                print(f"  {error.filename or HERE} cannot be written: {error.strerror}.")

    def tell_what_is_left(self) -> None:
        """Say what keeps the bot from starting as it was asked for here."""
        for name, value in self.answers.items():
            if plain_value(os.environ.get(name, value)) != value:
                print(f"The environment has another {name}, and wins: take it out there.")
        if not self.has_comfyui:
            print("Start ComfyUI before the bot, which starts only if ComfyUI answers.")
        try:
            load_settings({**self.before, **self.answers})
        except ConfigError as error:
            print(redact("\n".join(f"Correct in .env: {problem}" for problem in error.problems)))


def full_address(text: str) -> str:
    """Return an address with the scheme and the port that a person leaves out."""
    if "://" in text:
        return text
    has_port = re.search(r":\d+(/|$)", text) or "/" in text
    return f"http://{text}" if has_port else f"http://{text}:8188"


async def fetch_servers(client: discord.Client) -> dict[int, str]:
    """Return the names of the servers that the bot is in, by id."""
    return {guild.id: guild.name async for guild in client.fetch_guilds(limit=None)}


async def fetch_channels(
    client: discord.Client, guild_id: int
) -> tuple[list[tuple[discord.TextChannel, list[str]]], list[discord.TextChannel]]:
    """Return a server's text channels with the permissions that the bot lacks there, and those that
    it does not see."""
    guild = await client.fetch_guild(guild_id)
    assert client.user is not None  # logged in
    me = await guild.fetch_member(client.user.id)
    channels = [c for c in await guild.fetch_channels() if isinstance(c, discord.TextChannel)]
    channels.sort(key=lambda channel: (channel.position, channel.id))
    seen = [(c, missing_permissions(c, me)) for c in channels if c.permissions_for(me).view_channel]
    return seen, [c for c in channels if not c.permissions_for(me).view_channel]


def once_options(**given: str | None) -> argparse.Namespace:
    """Return the command line of a --once with these options."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    parsed = parser.parse_args(["--out", str(HERE / "pictures")])
    vars(parsed).update(given)
    return parsed


def run_setup() -> int:
    """Ask everything, write `.env`, and return the exit code."""
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        print(NO_TERMINAL, file=sys.stderr)
        return 1
    try:
        setup = Setup(read_file())
        if not os.access(HERE, os.W_OK):
            raise ConfigError([f"{HERE} cannot be written to: run this as its owner"])
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 1
    set_up_logging(replace(setup.settings(), log_level=logging.ERROR))
    print(BEGINNING)
    try:
        setup.run()
    except (KeyboardInterrupt, EOFError):
        print("\nStopped: nothing was written.")
        return EXIT_INTERRUPTED
    return 0
