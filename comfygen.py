#!/usr/bin/env python3
"""ComfyGen: /gen in Discord, a picture from the ComfyUI at home.

The front door: configuration, Discord, the worker, start-up and shutdown; the only file that knows
Discord exists. Read from top to bottom it is the way of a job: a draft in a form, Generate, the
worker, the report in the channel.

Two threads share the work. The event loop runs everything of discord.py and must never block: what
waits for a disk or a socket goes through `asyncio.to_thread`. The worker thread runs one job at a
time, talks to ComfyUI and the database, and never touches a discord object: it hands what it has
finished to the loop with `run_coroutine_threadsafe`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import functools
import io
import logging
import os
import queue
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
import discord
import dotenv
from discord import app_commands

import binder
from comfy_client import (
    BadAnswer,
    ComfyClient,
    ComfyError,
    ComfyOptions,
    ImageRef,
    NoPictures,
    ObjectInfo,
    OptionsMissing,
    Progress,
    ProgressFeed,
    TimedOut,
    Unreachable,
    ends_prompt,
)
from store import MIGRATIONS, Job, JobParams, JobStatus, Store, StoreError, unix_ms

log = logging.getLogger("comfygen")

T = TypeVar("T")

HERE = Path(__file__).resolve().parent

# What a person may ask for (architecture.md §3.3), and Discord's limits (design.md).
STEPS_RANGE = (1, 150)
CFG_RANGE = (1.0, 30.0)
SEED_MAX = 2**64 - 1
DEFAULT_BASE_URL = "http://127.0.0.1:8188"
DEFAULT_STEPS = 20
DEFAULT_CFG = 7.0
TEXT_INPUT_LIMIT = 4000
FIELD_LIMIT = 1024
OPTION_LIMIT = 100
MENU_LIMIT = 25
FILES_PER_MESSAGE = 10
REQUEST_LIMIT = 24 * 2**20  # bytes of files in one message; a whole request may have 25 MiB
PROMPT_SHOWN = 200  # characters of the prompt in a result (architecture.md M9)

DAY_MS = 24 * 60 * 60 * 1000
REPORT_WITHIN_MS = DAY_MS  # a job that ended earlier is not reported after a restart
ANNOUNCE_AFTER = 1.0  # seconds that a job runs before the channel is told
EDIT_EVERY = 2.0  # seconds between two edits of the message that shows the progress
BAR_LENGTH = 20
QUEUE_TITLE = "The queue"
QUEUE_SHOWN = 15  # waiting jobs that /queue lists
OWN_SHOWN = 20  # of a person's own jobs, with a button each
BORROWED_THREADS = 4  # for what the event loop may not wait for: the database, files, ComfyUI
DRAFT_LIMIT = 1000  # forms kept in memory; the oldest goes first

# What is tried for a picture that is too big for Discord: as it is, then re-encoded by ComfyUI.
ENCODINGS = ("", "webp;90", "jpeg;80", "jpeg;60")
SUFFIXES = {"webp": ".webp", "jpeg": ".jpg"}

EXIT_INTERRUPTED = 130
INVITE_SCOPES = ("bot", "applications.commands")
INVITE_PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    embed_links=True,
    attach_files=True,
    read_message_history=True,
)

# What a call to Discord raises where Discord is away or refuses.
AWAY = (discord.HTTPException, aiohttp.ClientError, OSError, asyncio.TimeoutError)

RESTARTING = "The bot is restarting. Please try again in a minute."
EXPIRED_FORM = "This form is from before a restart of the bot. Please run /gen again."
TOO_LARGE = (
    "The picture was made, but it is too large for Discord. The bot's owner finds it in ComfyUI's"
    " output folder."
)
OLDER_FORM = "You have opened a newer form since: please use that one, or run /gen again."
SENT_FORM = "This form has been sent already. Run /gen for another picture."


# ---------------------------------------------------------------------------------------------
# Configuration


class StartupError(Exception):
    """The bot cannot start; `str()` says why and what to do."""


class ConfigError(Exception):
    """The configuration is wrong; `problems` has one line for each fault, with what to do.
    `settings` has defaults in place of what is wrong, as far as it could be read at all."""

    def __init__(self, problems: Sequence[str], settings: Settings | None = None) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
        self.settings = settings


@dataclass(frozen=True)
class Settings:
    """The configuration, checked. Times are in seconds, paths absolute."""

    token: str = field(repr=False)
    client_id: int | None
    guild_id: int | None
    channel_ids: frozenset[int]
    comfy_base_url: str
    comfy_headers: Mapping[str, str] = field(repr=False)
    comfy_timeout: float
    db_path: Path
    workflow_path: Path
    log_level: int
    random_seeds: bool
    shutdown_grace: float
    retention_days: int
    default_negative_prompt: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log and no message may show."""
        # A very short value is no secret, and taking it out would garble every line.
        return (self.token, *(value for value in self.comfy_headers.values() if len(value) > 5))


# Python's names and those of pino, which architecture.md's bot used.
LOG_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "critical": logging.CRITICAL,
    "silent": logging.CRITICAL,  # why a start has failed is told in any case
}


class _Reader:
    """Reads one variable after the other and collects what is wrong with them."""

    def __init__(self, environment: Mapping[str, str], *, require: bool) -> None:
        self._environment = environment
        self._require = require
        self.problems: list[str] = []

    def problem(self, name: str, text: str) -> None:
        self.problems.append(f"{name} {text}")

    def text(self, name: str, default: str = "") -> str:
        return self._environment.get(name, "").strip() or default

    def required(self, name: str, how: str) -> str:
        value = self.text(name).strip(", ")
        if not value and self._require:
            self.problem(name, f"is missing: {how}")
        return value

    def snowflakes(self, name: str, value: str) -> frozenset[int]:
        parts = value.replace(",", " ").split()
        wrong = [part for part in parts if not re.fullmatch(r"[0-9]{1,20}", part)]
        if wrong:
            self.problem(
                name,
                f"has {', '.join(map(repr, wrong))}, which is no Discord id: turn on Developer Mode"
                " in Discord, right-click and choose Copy ID (digits only)",
            )
        return frozenset(int(part) for part in parts if part not in wrong)

    def snowflake(self, name: str) -> int | None:
        found = self.snowflakes(name, self.text(name))
        if len(found) > 1:
            self.problem(name, "has several ids: give one, or leave it empty")
        return next(iter(found), None)

    def whole(self, name: str, default: int, high: int, low: int = 0) -> int:
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            self.problem(name, f"is {value!r}: give a whole number from {low} to {high}")
            return default
        return int(value)

    def milliseconds(self, name: str, default: int) -> float:
        """A whole number of milliseconds, as seconds."""
        return self.whole(name, default, DAY_MS, low=1) / 1000

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        value = self.text(name, default).lower()
        if value not in choices:
            self.problem(name, f"is {value!r}: give one of {', '.join(choices)}")
            return default
        return value

    def headers(self, name: str) -> dict[str, str]:
        """`Name: value` pairs, separated by semicolons."""
        headers: dict[str, str] = {}
        for pair in filter(None, map(str.strip, self.text(name).split(";"))):
            key, colon, value = pair.partition(":")
            if not colon or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", key.strip()):
                self.problem(name, "is not of the form `Name: value; Other-Name: value`")
            elif not value.strip().isprintable() or not value.isascii():
                self.problem(name, f"has a value for {key.strip()} that no header can hold")
            headers[key.strip()] = value.strip()
        return headers

    def path(self, name: str, default: str) -> Path:
        # Relative to this file, not to where the program was started: a service starts elsewhere.
        return HERE / Path(self.text(name, default)).expanduser()


def load_settings(environment: Mapping[str, str], *, discord: bool = True) -> Settings:
    """Check the whole configuration (architecture.md §7); raises ConfigError with all faults.
    Without `discord` nothing that only Discord needs is required."""
    read = _Reader(environment, require=discord)
    token = read.required("DISCORD_TOKEN", "copy it from the Bot page of your Discord application")
    if len(token.split()) > 1:
        read.problem("DISCORD_TOKEN", "has spaces in it: paste the token alone")
    channels = read.required(
        "ALLOWED_CHANNEL_IDS", "the ids of the channels for /gen, separated by commas"
    )
    url = read.text("COMFY_BASE_URL", DEFAULT_BASE_URL)
    if not _is_base_url(url):
        read.problem(
            "COMFY_BASE_URL",
            "is not an address: give it as http://host:port or https://host/prefix",
        )
    if read.text("QUEUE_CONCURRENCY", "1") != "1":
        read.problem("QUEUE_CONCURRENCY", "must be 1: there is one GPU, and jobs run one by one")
    negative = read.text("DEFAULT_NEGATIVE_PROMPT")
    if len(negative) > TEXT_INPUT_LIMIT:
        read.problem("DEFAULT_NEGATIVE_PROMPT", f"is longer than {TEXT_INPUT_LIMIT} characters")
    settings = Settings(
        token=token,
        client_id=read.snowflake("DISCORD_CLIENT_ID"),
        guild_id=read.snowflake("DISCORD_GUILD_ID"),
        channel_ids=read.snowflakes("ALLOWED_CHANNEL_IDS", channels),
        comfy_base_url=url if _is_base_url(url) else DEFAULT_BASE_URL,
        comfy_headers=read.headers("COMFY_HEADERS"),
        comfy_timeout=read.milliseconds("COMFY_TIMEOUT_MS", 300_000),
        db_path=read.path("DB_PATH", "data/comfygen.db"),
        workflow_path=read.path("WORKFLOW_PATH", "workflows/multisampler/base.json"),
        log_level=LOG_LEVELS[read.choice("LOG_LEVEL", tuple(LOG_LEVELS), "info")],
        random_seeds=read.choice("SEED_MODE", ("random", "workflow"), "random") == "random",
        shutdown_grace=read.milliseconds("SHUTDOWN_GRACE_MS", 60_000),
        retention_days=read.whole("JOB_RETENTION_DAYS", 0, 36_500),
        default_negative_prompt=negative,
    )
    if read.problems:
        raise ConfigError(read.problems, settings)
    return settings


def read_environment(folder: Path = HERE) -> dict[str, str]:
    """The `.env` file beside this one, overruled by the process's environment."""
    path = folder / ".env"
    try:
        # utf-8-sig: Notepad writes a byte order mark, which would become part of the first name.
        values = dotenv.dotenv_values(path, encoding="utf-8-sig", interpolate=False)
    except UnicodeError as error:
        raise ConfigError([f".env is not UTF-8 text ({error}): save it as UTF-8"]) from error
    except OSError as error:
        text = f".env cannot be read ({error.strerror}): let the user who runs the bot read it"
        raise ConfigError([text]) from error
    return {**{name: value or "" for name, value in values.items()}, **os.environ}


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = not parts.query and not parts.fragment and " " not in url
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port_is_valid and plain


# ---------------------------------------------------------------------------------------------
# Logging


class RedactingFilter(logging.Filter):
    """Keeps secrets out of every record that passes its handler, whoever logged it: the token,
    anything that looks like one, the tokens in Discord's webhook addresses, passwords in URLs."""

    LOOKS_SECRET = re.compile(
        r"\b[\w-]{23,30}\.[\w-]{5,8}\.[\w-]{25,}"  # a bot's token
        r"|\bmfa\.[\w-]{20,}"
        r"|\baW50ZXJhY3Rpb24[\w=+/-]+"  # an interaction's token: base64 of "interaction…"
        r"|/(?:webhooks|interactions)/\d+/[^/\s?'\"]+"
        r"|(?<=://)[^/\s]+(?=@)"
    )

    def __init__(self, *secrets_known: str) -> None:
        super().__init__()
        self._known = [secret for secret in secrets_known if secret]

    def redact(self, text: str) -> str:
        """The text with every secret replaced."""
        for secret in self._known:
            text = text.replace(secret, "[redacted]")
        return self.LOOKS_SECRET.sub("[redacted]", text)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; it always passes."""
        try:
            record.msg = self.redact(record.getMessage())
        except Exception as error:  # a record of someone's with the wrong number of arguments
            record.msg = self.redact(f"{record.msg} ({error})")
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.redact(record.exc_text)
        if record.stack_info:
            record.stack_info = self.redact(record.stack_info)
        return True


class ReconnectFilter(logging.Filter):
    """discord.py logs a whole traceback each time a connection is lost; a line says the same."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; it always passes."""
        if record.name == "discord.client" and record.exc_info and "reconnect" in str(record.msg):
            record.msg, record.args = f"{record.getMessage()} ({record.exc_info[1]!r})", ()
            record.exc_info = record.exc_text = None
        return True


def set_up_logging(settings: Settings) -> None:
    """Everything to stderr, in one form, through the filter."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    handler.addFilter(ReconnectFilter())
    handler.addFilter(RedactingFilter(*settings.secrets))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(settings.log_level)


# ---------------------------------------------------------------------------------------------
# The draft and its form


class UserError(Exception):
    """Raised with a finished, friendly sentence, which is shown to the person as it is."""


class StaleForm(UserError):
    """The controls of a form that is of no use any more."""


class ExpiredForm(StaleForm):
    """A form whose draft is gone, with a restart or with time."""


FORM_FIELDS = ("model", "sampler", "scheduler")


@dataclass
class Draft:
    """What a person has filled in so far; lives in memory, one per person (architecture.md §3.1).
    `key` ties the controls of one form to it. Used on the event loop alone."""

    options: ComfyOptions  # as offered in this form: the menus' values are indexes into it
    model: str | None = None
    sampler: str | None = None
    scheduler: str | None = None
    steps: int = DEFAULT_STEPS
    cfg: float = DEFAULT_CFG
    positive_prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None  # None: a new one for each job
    key: str = field(default_factory=lambda: secrets.token_hex(4))
    pages: dict[str, int] = field(default_factory=dict)
    typed: dict[str, str] = field(default_factory=dict)  # of a refused modal, to be shown again
    sending: bool = False  # Generate was pressed, and is being worked on
    sent: bool = False  # the draft became a job: the form is read-only
    shown_by: discord.Interaction[Any] | None = None  # the last one whose answer is the form

    def offered(self, name: str) -> tuple[str, ...]:
        """The values to choose from for one of FORM_FIELDS."""
        lists = {
            "model": self.options.models,
            "sampler": self.options.samplers,
            "scheduler": self.options.schedulers,
        }
        return lists[name]

    def choose(self, name: str, token: str) -> None:
        """Take the value of a menu: `page:N` turns the page, an index chooses."""
        kind, _, number = token.partition(":")
        if kind == "page":
            self.pages[name] = int(number)
            return
        setattr(self, name, self.offered(name)[int(number)])
        if name == "sampler":  # architecture.md §3.2.4
            self.scheduler = self.options.schedulers[0]

    def take(self, typed: Mapping[str, str]) -> list[str]:
        """Merge the texts of the modal, or say what is wrong with each and keep them as typed."""
        problems: list[str] = []
        steps, cfg = parse_steps(typed.get("steps", "")), parse_cfg(typed.get("cfg", ""))
        positive = typed.get("positive_prompt", "").strip()
        if not positive:
            problems.append("**Prompt** is empty: describe the picture in a few words.")
        if steps is None:
            low, high = STEPS_RANGE
            problems.append(
                f"**Steps** is {_code(typed.get('steps', ''))}:"
                f" give a whole number from {low} to {high}."
            )
        if cfg is None:
            problems.append(
                f"**CFG** is {_code(typed.get('cfg', ''))}: give a number from {CFG_RANGE[0]:g}"
                f" to {CFG_RANGE[1]:g}, for example 7 or 7.5."
            )
        try:
            seed = parse_seed(typed.get("seed", ""))
        except ValueError:
            problems.append(
                f"**Seed** is {_code(typed['seed'])}: give a whole number from 0 to"
                f" {SEED_MAX}, or leave it empty for a random one."
            )
        if steps is None or cfg is None or problems:
            self.typed = dict(typed)
            return problems
        self.steps, self.cfg, self.seed, self.positive_prompt = steps, cfg, seed, positive
        self.negative_prompt = typed.get("negative_prompt", "").strip()
        self.typed = {}
        return []

    def start_from(self, defaults: binder.Defaults) -> None:
        """Start from the workflow file's own values, as far as they are offered and in range."""
        for name in FORM_FIELDS:
            if getattr(defaults, name) in self.offered(name):
                setattr(self, name, getattr(defaults, name))
        self.steps = parse_steps(defaults.steps) or DEFAULT_STEPS
        self.cfg = parse_cfg(defaults.cfg) or DEFAULT_CFG

    def job_params(
        self, user_id: object, guild_id: object, channel_id: object, *, random_seed: bool
    ) -> JobParams:
        """The finished draft as a job; the ids are Discord's."""
        seed = secrets.randbits(64) if random_seed and self.seed is None else self.seed
        return JobParams(
            user_id=str(user_id),
            guild_id=str(guild_id),
            channel_id=str(channel_id),
            model=self.model or "",
            sampler=self.sampler or "",
            scheduler=self.scheduler or "",
            steps=self.steps,
            cfg=self.cfg,
            positive_prompt=self.positive_prompt,
            negative_prompt=self.negative_prompt,
            seed=seed,
        )

    def take_settings(self, source: Draft | JobParams) -> None:
        """Start from settings used before, as far as they are still offered."""
        for name in FORM_FIELDS:
            if getattr(source, name) in self.offered(name):
                setattr(self, name, getattr(source, name))
        self.steps, self.cfg = source.steps, source.cfg
        self.negative_prompt = source.negative_prompt

    def missing(self) -> list[str]:
        """What still has to be filled in before Generate."""
        parts = {
            "a model": self.model,
            "a sampler": self.sampler,
            "a scheduler": self.scheduler,
            "a prompt": self.positive_prompt,
        }
        return [name for name, value in parts.items() if not value]


class Drafts:
    """The newest draft of each person, of the last DRAFT_LIMIT people."""

    def __init__(self) -> None:
        self._by_user: OrderedDict[int, Draft] = OrderedDict()

    def put(self, user_id: int, draft: Draft) -> None:
        """Make this the person's draft; forms over an older one stop working."""
        self._by_user[user_id] = draft
        self._by_user.move_to_end(user_id)
        if len(self._by_user) > DRAFT_LIMIT:
            self._by_user.popitem(last=False)

    def last(self, user_id: int) -> Draft | None:
        """The person's newest draft, whether or not it was sent."""
        return self._by_user.get(user_id)

    def get(self, user_id: int, key: str) -> Draft:
        """The draft behind a form's controls; UserError where they are of no use any more."""
        draft = self._by_user.get(user_id)
        if draft is None:
            raise ExpiredForm(EXPIRED_FORM)
        if draft.key != key:
            raise StaleForm(OLDER_FORM)
        if draft.sent:
            raise StaleForm(SENT_FORM)
        return draft


def parse_steps(text: str) -> int | None:
    """A whole number in STEPS_RANGE in plain ASCII digits, or None."""
    text = text.strip()
    if not re.fullmatch(r"[0-9]{1,4}", text):
        return None
    return int(text) if STEPS_RANGE[0] <= int(text) <= STEPS_RANGE[1] else None


def parse_cfg(text: str) -> float | None:
    """A decimal number in CFG_RANGE in plain ASCII digits, or None."""
    text = text.strip()
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,10})?", text):
        return None
    return float(text) if CFG_RANGE[0] <= float(text) <= CFG_RANGE[1] else None


def parse_seed(text: str) -> int | None:
    """A seed in plain ASCII digits; None for an empty text. ValueError for anything else."""
    text = text.strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) > SEED_MAX:
        raise ValueError(text)
    return int(text)


def display_name(name: str) -> str:
    """A model's file without its folders and its extension."""
    base = re.split(r"[\\/]", name)[-1]
    return (
        re.sub(r"\.(safetensors|ckpt|pth?|bin|sft|gguf)$", "", base, flags=re.IGNORECASE).strip()
        or name
    )


def nearest(name: str, offered: Sequence[str]) -> str:
    """A finished sentence with the offered names that resemble one, or none."""
    shown = {display_name(value).lower(): display_name(value) for value in offered}
    close = difflib.get_close_matches(display_name(name).lower(), list(shown), n=3, cutoff=0.4)
    names = ", ".join(plain(shorten(shown[key], 100)) for key in close)
    return f" The nearest: {names}." if names else ""


def find_model(text: str, models: Sequence[str]) -> str:
    """The model that a person names: as autocomplete gives it, or any part of it. UserError, with
    the nearest names, where there is none."""
    lower = text.lower()
    exact = [model for model in models if text in (model, shorten(model, OPTION_LIMIT))]
    named = [model for model in models if lower in (model.lower(), display_name(model).lower())]
    containing = [model for model in models if lower in model.lower()]
    for found in (exact, named, containing):
        if found:
            return found[0]
    raise UserError(f"There is no model {_code(text)}.{nearest(text, models)}")


def whole(text: str) -> str:
    """The text without halves of emoji, which are valid in JSON and nowhere else."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shorten(text: str, limit: int) -> str:
    """Shortened in the middle: the ends of a name tell more than its middle."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def plain(text: str, limit: int = FIELD_LIMIT) -> str:
    """Text of people or servers for an embed: markdown has no effect, length is bounded."""
    # Not discord.utils.escape_markdown: it takes seconds for a prompt like `[[[…](](](`.
    escaped = re.sub(r"[\\*_~`|\[]", r"\\\g<0>", text[:limit])
    escaped = re.sub(r"^([ \t]*)([-#>])", r"\1\\\2", escaped, flags=re.MULTILINE)
    return escaped if len(escaped) <= limit else escaped[: limit - 1].rstrip("\\") + "…"


def _code(text: str) -> str:
    return f"`{shorten(text.replace('`', chr(39)), 40)}`" if text.strip() else "empty"


def form_embed(draft: Draft) -> discord.Embed:
    """The draft as it stands. At most some 3,500 characters of the 6,000 an embed may have."""
    embed = discord.Embed(title="Your picture", colour=discord.Colour.blurple())
    for name in FORM_FIELDS:
        value = getattr(draft, name)
        shown = display_name(value) if value and name == "model" else value or "not chosen"
        embed.add_field(name=name.capitalize(), value=plain(shorten(shown, 200)))
    embed.add_field(name="Steps", value=str(draft.steps))
    embed.add_field(name="CFG", value=f"{draft.cfg:g}")
    embed.add_field(name="Seed", value="random" if draft.seed is None else str(draft.seed))
    positive = draft.positive_prompt or "not written yet: press Edit Prompts & Settings"
    embed.add_field(name="Prompt", value=plain(positive), inline=False)
    embed.add_field(
        name="Negative prompt", value=plain(draft.negative_prompt or "none"), inline=False
    )
    return embed


def menu_options(
    values: Sequence[str], chosen: str | None, page: int
) -> list[discord.SelectOption]:
    """The entries of a menu. A list that does not fit is paged: Back first, More… last, and the
    chosen value on every page."""

    def option(index: int) -> discord.SelectOption:
        name = display_name(values[index])
        return discord.SelectOption(
            label=shorten(name, OPTION_LIMIT),
            value=f"index:{index}",
            description=shorten(values[index], OPTION_LIMIT) if name != values[index] else None,
            default=values[index] == chosen,
        )

    if len(values) <= MENU_LIMIT:
        return [option(index) for index in range(len(values))]
    size = MENU_LIMIT - 3  # room for Back, the chosen one from another page, and More…
    first, last = page * size, min((page + 1) * size, len(values))
    shown = [option(index) for index in range(first, last)]
    if chosen in values and not first <= values.index(chosen) < last:
        shown.insert(0, option(values.index(chosen)))
    if page > 0:
        back = f"{first - size + 1} to {first} of {len(values)}"
        shown.insert(
            0, discord.SelectOption(label="Back", value=f"page:{page - 1}", description=back)
        )
    if last < len(values):
        more = f"{last + 1} to {min(last + size, len(values))} of {len(values)}"
        shown.append(
            discord.SelectOption(label="More…", value=f"page:{page + 1}", description=more)
        )
    return shown


class FormMenu(
    discord.ui.DynamicItem[discord.ui.Select[Any]],
    template=r"form:(?P<name>model|sampler|scheduler):(?P<key>[0-9a-f]{8})",
):
    """One of the three menus. Found by its custom id alone, so a form from before a restart is
    answered too, and discord.py keeps nothing for it."""

    @classmethod
    def of(cls, draft: Draft, name: str) -> FormMenu:
        """The menu as the draft stands."""
        page = draft.pages.get(name, 0)
        return cls(
            discord.ui.Select(
                custom_id=f"form:{name}:{draft.key}",
                placeholder=name.capitalize(),
                options=menu_options(draft.offered(name), getattr(draft, name), page),
            )
        )

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: Any, match: re.Match[str], /
    ) -> FormMenu:
        return cls(item)

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        bot: ComfyGen = interaction.client
        _, name, key = self.custom_id.split(":")
        await bot.answering(interaction, bot.choose(interaction, name, key, self.item.values[0]))


class FormButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"form:(?P<action>edit|retry|generate):(?P<key>[0-9a-f]{8})",
):
    """A button of the form, or of the answer to a refused modal (`retry`)."""

    STYLES: ClassVar = {
        "edit": ("Edit Prompts & Settings", discord.ButtonStyle.secondary),
        "retry": ("Correct it", discord.ButtonStyle.primary),
        "generate": ("Generate", discord.ButtonStyle.success),
    }

    @classmethod
    def of(cls, draft: Draft, action: str) -> FormButton:
        """The button with this action on the draft."""
        label, style = cls.STYLES[action]
        custom_id = f"form:{action}:{draft.key}"
        return cls(discord.ui.Button(custom_id=custom_id, label=label, style=style))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: Any, match: re.Match[str], /
    ) -> FormButton:
        return cls(item)

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        bot: ComfyGen = interaction.client
        _, action, key = self.custom_id.split(":")
        if action == "generate":
            await bot.answering(interaction, bot.generate(interaction, key))
        else:
            await bot.answering(interaction, bot.show_modal(interaction, action, key))


class Controls(discord.ui.View):
    """Controls that are found by their custom ids alone (`add_dynamic_items`): discord.py has no
    need to remember them, and would keep a timer of 15 minutes for each ephemeral one."""

    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.stop()


class FormView(Controls):
    """The controls of the form (architecture.md §3.1)."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        for name in FORM_FIELDS:
            self.add_item(FormMenu.of(draft, name))
        self.add_item(FormButton.of(draft, "edit"))
        self.add_item(FormButton.of(draft, "generate"))


class RetryView(Controls):
    """The way back into a refused modal."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.add_item(FormButton.of(draft, "retry"))


class PromptModal(discord.ui.Modal):
    """The texts of the draft (architecture.md §3.3); after a refusal, as they were typed.

    Only a description: what is submitted arrives in `ComfyGen.on_interaction`. discord.py would
    forget an open modal at a restart or after its time, and what was typed with it.
    """

    def __init__(self, draft: Draft, origin: str) -> None:
        super().__init__(title="Prompts & Settings", custom_id=f"modal:{origin}:{draft.key}")
        typed = draft.typed
        paragraph, short = discord.TextStyle.paragraph, discord.TextStyle.short
        for name, text, hint, style, limit, required, value in (
            ("positive_prompt", "Prompt", "What the picture shows", paragraph, TEXT_INPUT_LIMIT,
             True, draft.positive_prompt),
            ("negative_prompt", "Negative prompt", "What to keep out of it", paragraph,
             TEXT_INPUT_LIMIT, False, draft.negative_prompt),
            ("steps", "Steps", "A whole number from {} to {}".format(*STEPS_RANGE), short, 20,
             True, str(draft.steps)),
            ("cfg", "CFG", "A number from {:g} to {:g}, for example 7.5".format(*CFG_RANGE), short,
             20, True, f"{draft.cfg:g}"),
            ("seed", "Seed", "The same seed and settings give the same picture; empty: random",
             short, 40, False, "" if draft.seed is None else str(draft.seed)),
        ):  # fmt: skip
            self.add_item(
                discord.ui.Label(
                    text=text,
                    description=hint,
                    component=discord.ui.TextInput(
                        custom_id=name,
                        style=style,
                        default=typed.get(name, value) or None,
                        required=required,
                        max_length=limit,
                    ),
                )
            )
        self.stop()  # keeps discord.py from storing it

    @staticmethod
    def texts(components: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The typed texts by custom id, out of the data of a modal's interaction."""
        texts: dict[str, str] = {}
        for component in components:
            inner = component.get("components") or [component.get("component") or {}]
            for item in inner:
                if "custom_id" in item:
                    texts[item["custom_id"]] = whole(str(item.get("value") or ""))
        return texts


# ---------------------------------------------------------------------------------------------
# The worker


class Stopped(Exception):
    """The worker is to end at once; the job stays as it is and is taken up at the next start."""


class Cancelled(Exception):
    """The job was cancelled while it ran; its row says so already."""


class Worker:
    """Runs the queued jobs, one at a time and oldest first, in one thread.

    The queue holds ids, the rows are the truth. Both callbacks are called in the worker's thread:
    `started` with the id of each job that begins, `ended` with its id and the bytes of its
    pictures when it has reached its end, unless it was cancelled.
    """

    MAX_SUBMISSIONS = 3  # of one job, should ComfyUI forget it by restarting
    LOOK_SECONDS = 2.0  # how often the wait makes sure that ComfyUI still knows the prompt

    def __init__(
        self,
        store: Store,
        client: ComfyClient,
        load_workflow: Callable[[], binder.BindResult],
        *,
        timeout: float,
        started: Callable[[str], None],
        ended: Callable[[str, list[bytes]], None],
    ) -> None:
        self._store = store
        self._client = client
        self._load_workflow = load_workflow
        self._timeout = timeout
        self._on_start = started
        self._on_end = ended
        self._jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._aborted = threading.Event()
        self._wake = threading.Event()
        self._prompt_id = ""  # the one that is waited for
        self._thread = threading.Thread(target=self._loop, name="worker", daemon=True)

    def start(self) -> None:
        """Take up what an earlier run left, oldest first, and start the thread."""
        left = self._store.by_status(JobStatus.RUNNING) + self._store.by_status(JobStatus.QUEUED)
        for job in left:
            self._jobs.put(job.id)
        if left:
            log.info("worker: %d unfinished jobs of an earlier run are taken up", len(left))
        self._thread.start()

    def submit(self, job_id: str) -> None:
        """Put a queued job behind the others."""
        self._jobs.put(job_id)

    def cancel(self, job_id: str) -> bool:
        """Cancel a queued or running job; False where it has ended already. The row decides, so
        of a cancellation and a completion at the same time one wins."""
        cancelled = self._store.cancel(job_id, JobStatus.QUEUED) or self._store.cancel(
            job_id, JobStatus.RUNNING
        )
        if cancelled:
            self.wake()
        return cancelled

    def wake(self, prompt_id: object = None) -> None:
        """Make the wait for ComfyUI look at once; harmless at any time, from any thread. With a
        prompt id only where it is that prompt that is waited for."""
        if prompt_id in (None, self._prompt_id):
            self._wake.set()

    def stop(self) -> None:
        """Take no further job; the current one goes on."""
        self._stopping.set()
        self._jobs.put(None)

    def abort(self) -> None:
        """Leave the current job where it stands, too."""
        self.stop()
        self._aborted.set()
        self.wake()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; False where it did not within the time."""
        if self._thread.ident is not None:  # else it was never started
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while (job_id := self._jobs.get()) is not None and not self._stopping.is_set():
            try:
                self.step(job_id)
            except Stopped:
                log.info("job %s: left where it stands, to be taken up at the next start", job_id)
            except Exception:
                log.exception("job %s: the worker goes on with the next job", job_id)

    def step(self, job_id: str) -> None:
        """Run one job from its row to its end."""
        job = self._durably(lambda: self._store.get(job_id))
        if job is None:
            return
        taken_up = job.status is JobStatus.RUNNING
        if not taken_up and not self._durably(lambda: self._store.start(job_id)):
            return  # cancelled, or run already
        pictures: list[bytes] = []
        try:
            log.info("job %s: %s", job_id, "taken up" if taken_up else "started")
            self._on_start(job_id)
            refs = self._run(job, self._bound(job))
            deadline = time.monotonic() + self._timeout
            pictures = [self._download(job_id, ref, deadline) for ref in refs]
        except Stopped:
            raise
        except Cancelled:
            log.info("job %s: cancelled", job_id)
            return
        except Exception as error:
            sentence = self._sentence(job_id, error)
            ended = self._durably(lambda: self._store.fail(job_id, sentence))
        else:
            names = [str(ref) for ref in refs]
            ended = self._durably(lambda: self._store.complete(job_id, names))
            log.info("job %s: made %d pictures", job_id, len(names))
        if ended:
            self._on_end(job_id, pictures)

    def _bound(self, job: Job) -> binder.Workflow:
        loaded = self._load_workflow()
        result = binder.bind(job, loaded.workflow) if loaded.ok else loaded
        if not result.ok:
            raise UserError(f"The bot's workflow cannot be used: {result.reason}.")
        return result.workflow if job.seed is None else binder.reseed(result.workflow, job.seed)

    def _run(self, job: Job, workflow: binder.Workflow) -> Sequence[ImageRef]:
        """Submit the job where ComfyUI does not have it, and wait for its pictures.

        `/history` is the truth. A prompt in neither `/history` nor `/queue` is unknown: not yet
        submitted, or forgotten by a ComfyUI that restarted. An id posted twice would run twice, so
        after anything unclear both are asked before posting (comfyui.md).
        """
        self._prompt_id = prompt_id = job.comfy_prompt_id or job.id
        self._wake.clear()  # what the feed still had to say about the prompt before
        outage = Outage(job.id)
        known = unclear = job.status is JobStatus.RUNNING
        submissions = hurried = 0
        began = looked_at = time.monotonic()
        deadline = began + self._timeout
        while True:
            try:
                if self._is_cancelled(job.id):
                    self._stop_prompt(prompt_id)
                    raise Cancelled
                # A new job is in neither list yet.
                entry = self._client.history(prompt_id) if known or unclear else None
                if entry is None and (unclear or time.monotonic() - looked_at > self.LOOK_SECONDS):
                    known = prompt_id in self._client.queue()
                    entry = None if known else self._client.history(prompt_id)
                    unclear, looked_at = False, time.monotonic()
                if entry is not None:
                    outage.over()
                    return entry.pictures()
                if not known:
                    if submissions == self.MAX_SUBMISSIONS:
                        raise UserError(
                            "The image server lost this picture again and again, by restarting or"
                            " because its owner removed it. Please try again later."
                        )
                    unclear = True  # until an answer has come
                    self._prompt_id = prompt_id = self._client.submit(workflow, prompt_id)
                    known, unclear = True, False
                    submissions += 1
                    self._durably(lambda: self._store.submitted(job.id, prompt_id))  # noqa: B023
                    if submissions == 1:
                        began = looked_at = time.monotonic()
                        deadline = began + self._timeout
                outage.over()
                waited = time.monotonic() - began
                pause = min(max(0.05 * waited, 0.1), 2.0)
                if hurried:  # the feed hears of the end some milliseconds before /history does
                    hurried, pause = hurried - 1, 0.003
            except (Unreachable, BadAnswer) as error:
                unclear = True
                pause = outage.goes_on(error)
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if self._pause(min(pause, left)):
                hurried = 40
        self._stop_prompt(prompt_id)
        raise outage.error or TimedOut(f"no result within {self._timeout:g} s")

    def _download(self, job_id: str, ref: ImageRef, deadline: float) -> bytes:
        """One picture; fetched again where the server is away or the bytes break off."""
        outage = Outage(job_id)
        while not self._is_cancelled(job_id):
            try:
                return self._client.image(ref)
            except (Unreachable, BadAnswer) as error:
                if time.monotonic() > deadline:
                    raise
                self._pause(outage.goes_on(error))
        raise Cancelled

    def _is_cancelled(self, job_id: str) -> bool:
        job = self._durably(lambda: self._store.get(job_id))
        return job is None or job.status is JobStatus.CANCELLED

    def _stop_prompt(self, prompt_id: str) -> None:
        """Free the GPU; some tries, and no more, because the next job waits."""
        for pause in (0.5, 1.0, 2.0, 0.0):
            try:
                self._client.cancel(prompt_id)
                return
            except Unreachable as error:
                if not pause:
                    log.warning("prompt %s could not be stopped: %s", prompt_id, error)
                self._pause(pause)
            except ComfyError as error:
                log.warning("prompt %s could not be stopped: %s", prompt_id, error)
                return

    def _sentence(self, job_id: str, error: Exception) -> str:
        """What the person reads of an error; the log has the rest."""
        if isinstance(error, ComfyError | UserError):
            log.warning("job %s: failed: %s", job_id, error)
            return error.public if isinstance(error, ComfyError) else str(error)
        log.error("job %s: failed", job_id, exc_info=error)
        return "Something went wrong inside the bot. Please try again, or tell its owner."

    def _durably(self, change: Callable[[], T]) -> T:
        """A call of the store, repeated while the database is locked or the disk full."""
        level = logging.ERROR
        while True:
            try:
                return change()
            except StoreError as error:
                log.log(level, "waiting for the database: %s", error)
                level = logging.DEBUG  # once is enough
                self._pause(2.0)

    def _pause(self, seconds: float) -> bool:
        """Wait; True where somebody ended the wait early."""
        woken = self._wake.wait(seconds)
        self._wake.clear()
        if self._aborted.is_set():
            raise Stopped
        return woken


class Outage:
    """One absence of ComfyUI: one line in the log, and a growing pause between the tries. A proxy
    or a login page in its place is an absence, too."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._failures = 0
        self.error: ComfyError | None = None

    def goes_on(self, error: ComfyError) -> float:
        """Note a failed call; the seconds to wait before the next."""
        if self.error is None:
            log.warning("job %s: ComfyUI does not answer, waiting: %s", self._job_id, error)
        self.error = error
        self._failures += 1
        return float(min(0.1 * 2**self._failures, 5.0))

    def over(self) -> None:
        """Note a call that worked."""
        if self.error is not None:
            log.info("job %s: ComfyUI answers again", self._job_id)
        self.error, self._failures = None, 0


# ---------------------------------------------------------------------------------------------
# The report


def result_embed(job: Job) -> discord.Embed:
    """The settings of a finished job (architecture.md M9)."""
    prompt = plain(shorten_end(job.positive_prompt, PROMPT_SHOWN))
    embed = discord.Embed(description=prompt, colour=discord.Colour.green())
    for name, value in (
        ("Model", plain(shorten(display_name(job.model), 200))),
        ("Sampler", plain(job.sampler)),
        ("Scheduler", plain(job.scheduler)),
        ("Steps", str(job.steps)),
        ("CFG", f"{job.cfg:g}"),
    ):
        embed.add_field(name=name, value=value)
    if job.seed is not None:
        embed.add_field(name="Seed", value=str(job.seed))
    return embed.set_footer(text=job_mark(job.id))


def failure_embed(job: Job) -> discord.Embed:
    """Why there is no picture, and for which prompt."""
    embed = discord.Embed(
        title="No picture this time",
        description=plain(job.error_message or "Nobody knows why.", 2000),
        colour=discord.Colour.red(),
    )
    prompt = plain(shorten_end(job.positive_prompt, PROMPT_SHOWN))
    embed.add_field(name="Prompt", value=prompt, inline=False)
    return embed.set_footer(text=job_mark(job.id))


def job_mark(job_id: str) -> str:
    """How a message shows which job it is about, to people and to `ComfyGen._posted_marks`."""
    return f"job {job_id[:8]}"


def shorten_end(text: str, limit: int) -> str:
    """Cut at the end, with an ellipsis within the limit."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True)
class Picture:
    """A picture as it is uploaded; `encoding` is the one of ENCODINGS that it came with."""

    mark: str  # its file name without the suffix, which tells it in a channel's history
    data: bytes
    suffix: str
    encoding: str = ""


@dataclass(frozen=True)
class ReportPart:
    """One message of a report: the arguments of `send()`, and the marks by which it is found in a
    channel's history."""

    marks: tuple[str, ...]
    message: Mapping[str, Any]


def report_parts(
    job: Job, pictures: Sequence[Picture], *, head: bool, note: str = ""
) -> Iterator[ReportPart]:
    """The report of a finished job: one message, and more where the pictures are too many for it.
    Without `head` only the pictures, after the first message. Pings only the person who asked."""
    if any(picture.encoding for picture in pictures):
        note += "\nToo big for Discord as it was made, so it is shown compressed."
    for batch in batches([len(picture.data) for picture in pictures]):
        chosen = pictures[batch]
        marks = [picture.mark for picture in chosen]
        message: dict[str, Any] = {
            "files": [
                discord.File(io.BytesIO(picture.data), filename=picture.mark + picture.suffix)
                for picture in chosen
            ],
            "nonce": nonce(job.id, marks[0].partition("-")[2] if marks else 0),
        }
        if head and batch.start == 0:
            marks.append(job_mark(job.id))
            message["content"] = f"<@{job.user_id}>{note}"
            message["view"] = JobView(job.id, "again", "edit", "delete")
            message["embed"] = result_embed(job) if pictures else failure_embed(job)
            message["allowed_mentions"] = discord.AllowedMentions(
                users=[discord.Object(int(job.user_id))]
            )
        try:
            if marks:
                yield ReportPart(tuple(marks), message)
        finally:  # discord.py's File is a cycle, which would hold the bytes for a while
            for file in message["files"]:
                file.fp.close()


def batches(sizes: Sequence[int]) -> Iterator[slice]:
    """The pictures of each message: at most ten, and no more bytes than a request may have."""
    first = total = 0
    for number, size in enumerate(sizes):
        if number > first and (number - first == FILES_PER_MESSAGE or total + size > REQUEST_LIMIT):
            yield slice(first, number)
            first, total = number, 0
        total += size
    yield slice(first, len(sizes))


def nonce(job_id: str, part: object) -> str:
    """Discord drops a second message with the same nonce. It may have 25 characters: of the id's
    32 digits as many as fit."""
    return f"{job_id.replace('-', '')[:20]}-{part}"


def running_embed(job: Job, progress: Progress) -> discord.Embed:
    """A job that is being made. The time is Discord's own, which counts without an edit."""
    lines = [f"started <t:{(job.started_at or 0) // 1000}:R>"]
    if progress.seen:
        filled = round(progress.fraction * BAR_LENGTH)
        bar = "█" * filled + "░" * (BAR_LENGTH - filled)
        passes = f"pass {progress.current_pass} of {progress.passes}"
        lines.insert(0, f"`{bar}` {progress.fraction:.0%}, {passes}")
    prompt = plain(shorten_end(job.positive_prompt, PROMPT_SHOWN))
    embed = discord.Embed(description=prompt, colour=discord.Colour.blurple())
    return embed.add_field(name="Progress", value="\n".join(lines))


def progress_of(workflow_path: Path, job: JobParams, prompt_id: str) -> Progress:
    """The progress of a prompt, over the sampler nodes of the workflow as bound to the job."""
    loaded = load_workflow(workflow_path)
    bound = binder.bind(job, loaded.workflow) if loaded.ok else loaded
    return Progress(prompt_id, binder.sampler_steps(bound.workflow) if bound.ok else {})


def passes(error: Exception) -> bool:
    """Whether the same attempt may work later: Discord, ComfyUI or the database is away."""
    if isinstance(error, discord.HTTPException):
        return error.status == 429 or error.status >= 500
    away = (StoreError, Unreachable, BadAnswer, discord.RateLimited, aiohttp.ClientError, OSError)
    return isinstance(error, (*away, asyncio.TimeoutError))


def duration(seconds: float) -> str:
    """A time in the words of an estimate: `40 s`, `3 min`, `2 h`."""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{round(seconds / 3600)} h"


class JobButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"job:(?P<action>cancel|again|edit|delete):(?P<job_id>[0-9a-f-]{36})",
):
    """A button about one job. It carries the job's id and reads the row on each press, so it works
    for ever, also after a restart."""

    STYLES: ClassVar = {
        "cancel": ("Cancel", discord.ButtonStyle.danger),
        "again": ("Again", discord.ButtonStyle.primary),
        "edit": ("Edit", discord.ButtonStyle.secondary),
        "delete": ("Delete", discord.ButtonStyle.secondary),
    }

    @classmethod
    def of(cls, job_id: str, action: str, which: str = "") -> JobButton:
        """The button with this action on the job; `which` tells it from others like it."""
        label, style = cls.STYLES[action]
        custom_id = f"job:{action}:{job_id}"
        return cls(discord.ui.Button(custom_id=custom_id, label=label + which, style=style))

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: Any, match: re.Match[str], /
    ) -> JobButton:
        return cls(item)

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        bot: ComfyGen = interaction.client
        _, action, job_id = self.custom_id.split(":")
        press = {"cancel": bot.cancel, "again": bot.again, "edit": bot.edit, "delete": bot.delete}
        await bot.answering(interaction, press[action](interaction, job_id))


class Queued(NamedTuple):
    """A job that was accepted: its place in the queue, and the seconds until it is done, as far as
    anybody can tell."""

    job_id: str
    position: int
    seconds: float | None


@dataclass
class Announcement:
    """The task that keeps the message of a running job, and what ends it."""

    ended: asyncio.Event
    task: asyncio.Task[None]


class JobView(Controls):
    """Buttons about one job."""

    def __init__(self, job_id: str, *actions: str) -> None:
        super().__init__()
        for action in actions:
            self.add_item(JobButton.of(job_id, action))


# ---------------------------------------------------------------------------------------------
# The bot


@app_commands.command(name="gen", description="Make a picture on this server's own GPU")
@app_commands.describe(
    prompt="What the picture shows",
    model="Type any part of a model's name",
    seed="The same seed and settings give the same picture",
)
async def gen(
    interaction: discord.Interaction[Any],
    prompt: app_commands.Range[str, 1, TEXT_INPUT_LIMIT] | None = None,
    model: str | None = None,
    seed: str | None = None,
) -> None:
    """/gen (architecture.md §3.1); with options the form opens filled in."""
    bot: ComfyGen = interaction.client
    await bot.answering(
        interaction, bot.open_form(interaction, whole(prompt or ""), model or "", seed or "")
    )


@gen.autocomplete("model")
async def complete_model(
    interaction: discord.Interaction[Any], current: str
) -> list[app_commands.Choice[str]]:
    """The models with this text anywhere in their path, whatever its case."""
    bot: ComfyGen = interaction.client
    found = [model for model in bot.options.models if current.lower() in model.lower()]
    names = dict.fromkeys(shorten(model, OPTION_LIMIT) for model in found)
    return [app_commands.Choice(name=name, value=name) for name in list(names)[:MENU_LIMIT]]


@app_commands.command(name="queue", description="What is being made, who waits, and your own jobs")
async def show_queue(interaction: discord.Interaction[Any]) -> None:
    """/queue, for the caller's eyes alone."""
    bot: ComfyGen = interaction.client
    await bot.answering(interaction, bot.show_queue(interaction))


@app_commands.command(name="refresh", description="Read ComfyUI's models and samplers again")
@app_commands.default_permissions(manage_guild=True)
async def refresh(interaction: discord.Interaction[Any]) -> None:
    """/refresh, for members who may manage the server."""
    bot: ComfyGen = interaction.client
    await bot.answering(interaction, bot.refresh(interaction))


COMMANDS: tuple[app_commands.Command[Any, ..., Any], ...] = (gen, show_queue, refresh)

# discord.py warns twice at each start that it cannot speak; this bot never will.
discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False


class ComfyGen(discord.Client):
    """Discord's side of the program; lives on the event loop."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        client: ComfyClient,
        options: ComfyOptions,
        defaults: binder.Defaults,
    ) -> None:
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
        )
        self.settings = settings
        self.store = store
        self.comfy = client
        self.options = options
        self.defaults = defaults
        self.drafts = Drafts()
        self.stopping = False
        self.worker = Worker(
            store,
            client,
            functools.partial(load_workflow, settings.workflow_path),
            timeout=settings.comfy_timeout,
            started=lambda job_id: self._hand_over(self._announce_soon(job_id)),
            ended=lambda job_id, pictures: self._hand_over(self._deliver_soon(job_id, pictures)),
        )
        self._accepting = threading.Lock()
        self._posting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()  # what a shutdown waits for
        self._announcements: dict[str, Announcement] = {}  # of the job that runs, by its id
        self._progress: Progress | None = None  # of the job that runs, as far as the feed tells
        self._background: list[asyncio.Task[None]] = []
        self.tree = app_commands.CommandTree(self)
        for command in COMMANDS:
            self.tree.add_command(command)
        self.add_dynamic_items(FormMenu, FormButton, JobButton)

    # Connecting

    async def setup_hook(self) -> None:
        """Once, after the login and before the gateway (discord.py)."""
        wanted, actual = self.settings.client_id, self.application_id
        if wanted is not None and wanted != actual:
            raise StartupError(
                f"DISCORD_CLIENT_ID is {wanted}, but DISCORD_TOKEN belongs to application {actual}:"
                " correct one of the two"
            )
        assert actual is not None  # known once logged in
        log.info(
            "invite link: %s",
            discord.utils.oauth_url(actual, permissions=INVITE_PERMISSIONS, scopes=INVITE_SCOPES),
        )
        await self._register_commands()
        await self._report_what_is_left()
        await asyncio.to_thread(self.worker.start)
        feed = ProgressFeed(self.comfy, self.on_feed_event)
        self._background = [
            asyncio.create_task(self._keep_house()),
            asyncio.create_task(feed.run()),
        ]

    async def _report_what_is_left(self) -> None:
        """Jobs that ended in an earlier run and were not reported then."""
        for job in await asyncio.to_thread(self.store.undelivered):
            await self._deliver_soon(job.id, recovered=True)

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
            channel = self.get_channel(channel_id)
            if not isinstance(channel, discord.abc.GuildChannel | discord.Thread):
                log.warning("the bot does not see channel %d of ALLOWED_CHANNEL_IDS", channel_id)
                continue
            missing = missing_permissions(channel.permissions_for(channel.guild.me))
            if missing:
                log.warning("channel %d: the bot lacks %s", channel_id, missing)

    # Answering

    async def answering(
        self, interaction: discord.Interaction[Any], work: Coroutine[Any, Any, None]
    ) -> None:
        """Run a handler, and turn what it raises into an answer for the person."""
        try:
            await work
        except Exception as error:
            try:
                await self._answer_error(interaction, error)
            except AWAY as failure:
                log.warning("an answer did not reach Discord: %s", failure)

    async def _answer_error(self, interaction: discord.Interaction[Any], error: Exception) -> None:
        sentence = "Something went wrong inside the bot. Please try again, or tell its owner."
        if isinstance(error, StaleForm):
            await interaction.response.edit_message(content=str(error), view=None)
            return
        if isinstance(error, UserError):
            sentence = str(error)
        elif isinstance(error, ComfyError | StoreError):
            log.error("%s", error)
            sentence = error.public
        elif isinstance(error, AWAY):
            log.warning("Discord did not take an answer: %s", error)
        else:
            log.error("a handler failed", exc_info=error)
        try:
            if not interaction.response.is_done():
                await interaction.response.send_message(sentence, ephemeral=True)
                return
        except discord.HTTPException as failure:
            if failure.code != 40060:  # acknowledged already: only the answer was lost
                raise
        await interaction.followup.send(sentence, ephemeral=True)

    async def on_interaction(self, interaction: discord.Interaction[Any]) -> None:
        """Submitted modals; discord.py dispatches commands and components by itself."""
        if interaction.type is discord.InteractionType.modal_submit:
            data: Any = interaction.data
            await self.answering(
                interaction, self.take_modal(interaction, data["custom_id"], data["components"])
            )

    # The form

    async def open_form(
        self, interaction: discord.Interaction[Any], prompt: str, model: str, seed: str
    ) -> None:
        """/gen: an ephemeral form over a new draft, with the command's options in it."""
        self._check_place(interaction)
        try:
            chosen_seed = parse_seed(seed)
        except ValueError:
            raise UserError(
                f"The seed {_code(seed)} is not a whole number from 0 to {SEED_MAX}."
            ) from None
        chosen_model = find_model(model, self.options.models) if model else None
        draft = self._new_draft(interaction)
        for name, given in (("positive_prompt", prompt), ("seed", seed)):
            if given:
                draft.typed.pop(name, None)
        draft.positive_prompt = prompt.strip() or draft.positive_prompt
        draft.model = chosen_model or draft.model
        draft.seed = chosen_seed if seed else draft.seed
        draft.shown_by = interaction
        await interaction.response.send_message(
            embed=form_embed(draft), view=FormView(draft), ephemeral=True
        )

    async def choose(
        self, interaction: discord.Interaction[Any], name: str, key: str, token: str
    ) -> None:
        """A menu: merge the choice, show the form again."""
        draft = self.drafts.get(interaction.user.id, key)
        draft.choose(name, token)
        await self._show_form(interaction, draft)

    async def show_modal(
        self, interaction: discord.Interaction[Any], origin: str, key: str
    ) -> None:
        """The button `edit` of the form, or `retry` of the answer to a refused modal."""
        draft = self.drafts.get(interaction.user.id, key)
        await interaction.response.send_modal(PromptModal(draft, origin))

    async def take_modal(
        self,
        interaction: discord.Interaction[Any],
        custom_id: str,
        components: Sequence[Mapping[str, Any]],
    ) -> None:
        """A submitted modal: merge its texts and show the form again, or say what is wrong."""
        _, origin, key = custom_id.split(":")
        typed = PromptModal.texts(components)
        try:
            draft = self.drafts.get(interaction.user.id, key)
        except ExpiredForm:
            self._check_place(interaction)
            draft = self._new_draft(interaction)
            problems = draft.take(typed)
            note = "The bot was restarted, so this form is new; what you typed is in it."
            await self._show_form(interaction, draft, "\n".join([note, *problems]))
            return
        except StaleForm as stale:
            text = shorten_end(typed.get("positive_prompt", ""), TEXT_INPUT_LIMIT)
            await interaction.response.send_message(
                f"{stale} This is what you typed:",
                embed=discord.Embed(description=plain(text, 4096) or None),
                ephemeral=True,
            )
            return
        problems = draft.take(typed)
        if not problems and origin == "edit":
            await self._show_form(interaction, draft)
        elif not problems:
            await self._show_form_behind(interaction, draft)
        elif origin == "edit":
            await interaction.response.send_message(
                "\n".join(problems), view=RetryView(draft), ephemeral=True
            )
        else:
            await interaction.response.edit_message(
                content="\n".join(problems), view=RetryView(draft)
            )

    async def generate(self, interaction: discord.Interaction[Any], key: str) -> None:
        """Generate (architecture.md §3.4): the draft becomes a job."""
        draft = self.drafts.get(interaction.user.id, key)
        self._check_place(interaction)
        params = self._job_params(interaction, draft)
        if draft.sending:  # a second press; the first one answers, whichever way it ends
            await interaction.response.defer()
            return
        draft.sending = True  # before the first await
        try:
            await interaction.response.defer()
            queued = await asyncio.to_thread(self._accept, params)
            draft.sent = True
        finally:
            draft.sending = False
        await self._say_queued(interaction, queued)
        await interaction.edit_original_response(content=None, embed=form_embed(draft), view=None)

    async def _say_queued(self, interaction: discord.Interaction[Any], queued: Queued) -> None:
        about = f" (about {duration(queued.seconds)})" if queued.seconds is not None else ""
        text = f"Queued! You are position **{queued.position}** in the queue{about}."
        for left in (1, 0):
            try:
                view = JobView(queued.job_id, "cancel")
                await interaction.followup.send(text, view=view, ephemeral=True)
                return
            except AWAY as error:
                # The job is safe: an error's "try again" would double it.
                log.warning("job %s: its Queued! did not arrive: %s", queued.job_id, error)
                if not left or isinstance(error, discord.HTTPException):
                    return

    def _estimate(self, position: int) -> float | None:
        """Seconds until the job at this position is done, from the median of the last runs."""
        typical = self.store.typical_ms()
        if typical is None:
            return None
        left = position * typical
        for job in self.store.by_status(JobStatus.RUNNING):
            left += max(0, typical - (unix_ms() - (job.started_at or 0)))
        return left / 1000

    def _accept(self, params: JobParams) -> Queued:
        """Dry run, row, queue. Blocks: runs in a borrowed thread."""
        workflow = load_workflow(self.settings.workflow_path)
        if not workflow.ok:
            log.error("the workflow cannot be used: %s", workflow.reason)
            raise UserError(
                f"The bot's workflow cannot be used: {workflow.reason}."
                " Nothing was queued; please tell the bot's owner."
            )
        with self._accepting:  # the order of the rows is the order of the queue
            job_id = self.store.insert(params)
            position, seconds = 1, None
            try:
                position = self.store.position(job_id) or 1
                seconds = self._estimate(position)
            except StoreError as error:  # the row is there: the job must run, and be "Queued!"
                log.error("%s", error)
            finally:
                self.worker.submit(job_id)
            queued = Queued(job_id, position, seconds)
        log.info("job %s: queued at position %d", job_id, position)
        return queued

    def _job_params(self, interaction: discord.Interaction[Any], draft: Draft) -> JobParams:
        missing = draft.missing()
        if missing:
            raise UserError(f"Still missing: {', '.join(missing)}. Fill it in and press Generate.")
        return self._checked_params(
            draft.job_params(
                interaction.user.id,
                interaction.guild_id,
                interaction.channel_id,
                random_seed=self.settings.random_seeds,
            )
        )

    def _checked_params(self, params: JobParams) -> JobParams:
        """Refuse what ComfyUI does not offer any more (after /refresh, or from an old job)."""
        now = Draft(self.options)
        for name in FORM_FIELDS:
            value = getattr(params, name)
            if value not in now.offered(name):
                raise UserError(
                    f"The {name} {_code(display_name(value))} is not offered any more."
                    f"{nearest(value, now.offered(name))} Choose another with /gen."
                )
        return params

    def _new_draft(self, interaction: discord.Interaction[Any]) -> Draft:
        """A draft with the person's last settings, or those of the workflow file, as far as the
        server offers them. What was typed into a form that was never sent is kept, too."""
        draft = Draft(self.options, negative_prompt=self.settings.default_negative_prompt)
        draft.start_from(self.defaults)
        last = self.drafts.last(interaction.user.id)
        if last is not None:
            draft.take_settings(last)
            if not last.sent:
                draft.positive_prompt, draft.seed = last.positive_prompt, last.seed
                draft.typed = dict(last.typed)
        self.drafts.put(interaction.user.id, draft)
        return draft

    async def _show_form(
        self, interaction: discord.Interaction[Any], draft: Draft, note: str | None = None
    ) -> None:
        """Turn the message that the interaction came from into the form as it now stands."""
        draft.shown_by = interaction
        await interaction.response.edit_message(
            content=note, embed=form_embed(draft), view=FormView(draft)
        )

    async def _show_form_behind(self, interaction: discord.Interaction[Any], draft: Draft) -> None:
        """After a corrected modal: update the form, and take the complaint away."""
        await interaction.response.defer()
        form: dict[str, Any] = {"embed": form_embed(draft), "view": FormView(draft)}
        try:
            assert draft.shown_by is not None
            await draft.shown_by.edit_original_response(**form)
        except discord.HTTPException:
            # That token's 15 minutes are over: the complaint becomes the form.
            draft.shown_by = interaction
            await interaction.edit_original_response(content=None, **form)
        else:
            await interaction.delete_original_response()

    def _check_place(self, interaction: discord.Interaction[Any]) -> None:
        """Only in an allowed channel or a thread of one, and not while shutting down."""
        if self.stopping:
            raise UserError(RESTARTING)
        if interaction.guild_id is None:
            raise UserError("/gen works in a server's channel, not in direct messages.")
        parent_id = getattr(interaction.channel, "parent_id", None)
        if self.settings.channel_ids.isdisjoint({interaction.channel_id, parent_id}):
            here = [
                f"<#{channel_id}>"
                for channel_id in sorted(self.settings.channel_ids)
                if getattr(self.get_channel(channel_id), "guild", None) == interaction.guild
            ]
            where = f"Please use {', '.join(here[:5])}." if here else "Please ask the bot's owner."
            raise UserError(f"/gen is not available in this channel. {where}")

    # The queue and the lists

    async def show_queue(self, interaction: discord.Interaction[Any]) -> None:
        """/queue: what runs, who waits, and the caller's own jobs with Cancel."""
        self._check_place(interaction)
        await interaction.response.defer(ephemeral=True)
        embed, view = await self._queue_message(interaction.user.id)
        await interaction.followup.send(embed=embed, view=view, ephemeral=True)

    async def _queue_message(self, user_id: int) -> tuple[discord.Embed, discord.ui.View]:
        running = await asyncio.to_thread(self.store.by_status, JobStatus.RUNNING)
        queued = await asyncio.to_thread(self.store.by_status, JobStatus.QUEUED)
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
        if queued and (estimate := await asyncio.to_thread(self._estimate, len(queued))):
            embed.set_footer(text=f"all done in about {duration(estimate)}")
        view = Controls()
        places = [(" the one now", job) for job in running]
        places += [(f" number {number}", job) for number, job in enumerate(queued, 1)]
        own = [place for place in places if place[1].user_id == str(user_id)]
        for which, job in own[:OWN_SHOWN]:
            prompt = plain(shorten_end(job.positive_prompt, 100))
            embed.add_field(name=f"Yours:{which}", value=prompt, inline=False)
            view.add_item(JobButton.of(job.id, "cancel", which))
        return embed, view

    async def refresh(self, interaction: discord.Interaction[Any]) -> None:
        """/refresh: read the option lists again, without a restart."""
        if interaction.guild_id is None or not interaction.permissions.manage_guild:
            raise UserError("Only members who may manage the server can do that.")
        await interaction.response.defer(ephemeral=True)
        before = self.options
        self.options = await asyncio.to_thread(self._fetch_options)
        new = len(set(self.options.models) - set(before.models))
        gone = len(set(before.models) - set(self.options.models))
        await interaction.followup.send(
            f"The lists are fresh: {len(self.options.models)} models ({new} new, {gone} gone),"
            f" {len(self.options.samplers)} samplers, {len(self.options.schedulers)} schedulers.",
            ephemeral=True,
        )

    def _fetch_options(self) -> ComfyOptions:
        workflow = load_workflow(self.settings.workflow_path)
        return self.comfy.fetch_options(
            binder.bound_classes(workflow.workflow) if workflow.ok else {}
        )

    # A job that is running or done

    async def again(self, interaction: discord.Interaction[Any], job_id: str) -> None:
        """The Again button: the same settings with a new seed, for whoever presses it."""
        self._check_place(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        job = await asyncio.to_thread(self._job, job_id)
        params = replace(
            job,
            user_id=str(interaction.user.id),
            guild_id=str(interaction.guild_id),
            channel_id=str(interaction.channel_id),
            seed=secrets.randbits(64),
        )
        queued = await asyncio.to_thread(self._accept, self._checked_params(params))
        await self._say_queued(interaction, queued)

    async def edit(self, interaction: discord.Interaction[Any], job_id: str) -> None:
        """The Edit button: the form filled from that job, for whoever presses it."""
        self._check_place(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        job = await asyncio.to_thread(self._job, job_id)
        draft = self._new_draft(interaction)
        draft.take_settings(job)
        draft.typed = {}
        draft.positive_prompt, draft.seed = job.positive_prompt, job.seed
        draft.shown_by = interaction
        await interaction.edit_original_response(embed=form_embed(draft), view=FormView(draft))

    async def delete(self, interaction: discord.Interaction[Any], job_id: str) -> None:
        """The Delete button: every message of the result goes."""
        await interaction.response.defer()
        job = await asyncio.to_thread(self._job, job_id)
        self._check_may_change(interaction, job)
        message = interaction.message
        if message is not None and len(job.output_images) > 1:
            async for later in message.channel.history(after=message, limit=20):
                names = [attachment.filename for attachment in later.attachments]
                if later.author == self.user and any(n.startswith(job_id[:8]) for n in names):
                    with contextlib.suppress(discord.NotFound):
                        await later.delete()
        with contextlib.suppress(discord.NotFound):  # a second press, or a moderator
            await interaction.delete_original_response()
        log.info("job %s: its result was deleted by user %d", job_id, interaction.user.id)

    def _job(self, job_id: str) -> Job:
        job = self.store.get(job_id)
        if job is None:
            raise UserError("This job is so old that the bot does not know it any more.")
        return job

    async def cancel(self, interaction: discord.Interaction[Any], job_id: str) -> None:
        """The Cancel button of a queued or running job."""
        await interaction.response.defer()
        job = await asyncio.to_thread(self._job, job_id)
        self._check_may_change(interaction, job)
        if not await asyncio.to_thread(self.worker.cancel, job_id):
            raise UserError("Too late: this job has ended already.")
        log.info("job %s: cancelled by user %d", job_id, interaction.user.id)
        await self._deliver_soon(job_id)
        message = interaction.message
        if message is None or not message.flags.ephemeral:
            return
        if any(embed.title == QUEUE_TITLE for embed in message.embeds):
            queue_embed, view = await self._queue_message(interaction.user.id)
            await interaction.edit_original_response(
                content="Cancelled.", embed=queue_embed, view=view
            )
        else:
            await interaction.edit_original_response(content="Cancelled.", view=None)

    def _check_may_change(self, interaction: discord.Interaction[Any], job: Job) -> None:
        is_owner = job.user_id == str(interaction.user.id)
        if not is_owner and not interaction.permissions.manage_messages:
            raise UserError("Only the person who asked for it and moderators can do that.")

    def _hand_over(self, work: Coroutine[Any, Any, None]) -> None:
        """From the worker's thread to the event loop. The worker never waits for Discord: the GPU
        has the next job while the pictures upload."""
        try:
            asyncio.run_coroutine_threadsafe(work, self.loop)
        except (RuntimeError, AttributeError):  # the loop has closed, or discord.py forgot it
            work.close()
            log.warning("Discord is gone already; what is left is reported at the next start")

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _announce_soon(self, job_id: str) -> None:
        ended = asyncio.Event()
        task = self._start_task(self._announce(job_id, ended))
        self._announcements[job_id] = Announcement(ended, task)

    async def _announce(self, job_id: str, ended: asyncio.Event) -> None:
        """The one message in the channel while a job runs (Job.discord_message_id): posted when it
        has run for a second, and edited when there is progress to show."""
        try:
            job = await asyncio.to_thread(self._job, job_id)
            self._progress = progress = await asyncio.to_thread(
                progress_of, self.settings.workflow_path, job, job.comfy_prompt_id or job.id
            )
            ran = (unix_ms() - (job.started_at or 0)) / 1000
            if await self._wait(ended, max(0.0, ANNOUNCE_AFTER - ran)):
                return  # a quick job needs no message
            job = await asyncio.to_thread(self._job, job_id)
            if job.status is not JobStatus.RUNNING:
                return
            progress.prompt_id = job.comfy_prompt_id or job.id  # older servers give their own
            shown = running_embed(job, progress)
            channel = self.get_partial_messageable(int(job.channel_id))
            message: discord.Message | discord.PartialMessage
            if job.discord_message_id is None:
                send = functools.partial(
                    channel.send,
                    f"Generating for <@{job.user_id}>",
                    embed=shown,
                    view=JobView(job_id, "cancel"),
                    nonce=nonce(job_id, "run"),
                )
                try:
                    message = await send()
                except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
                    message = await send()  # perhaps only its answer was lost: the nonce finds it
                await asyncio.to_thread(self.store.announced, job_id, str(message.id))
            else:
                message = channel.get_partial_message(int(job.discord_message_id))
            while not await self._wait(ended, EDIT_EVERY):
                embed = running_embed(job, progress)
                if embed != shown:
                    try:
                        await message.edit(embed=embed)
                        shown = embed
                    except Exception as error:
                        if not passes(error):
                            raise
                        log.debug("job %s: its progress was not shown: %s", job_id, error)
        except (*AWAY, StoreError, UserError) as error:
            log.warning("job %s: its progress cannot be shown: %s", job_id, error)

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> bool:
        """Wait for the event; False where the time is over first."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)
        return event.is_set()

    def on_feed_event(self, event: str, data: Mapping[str, Any]) -> None:
        """What ComfyUI's WebSocket tells about our prompts."""
        if ends_prompt(event, data):
            self.worker.wake(data.get("prompt_id"))
        progress = self._progress
        if progress is not None and data.get("prompt_id", progress.prompt_id) == progress.prompt_id:
            progress.take(event, data)

    async def _deliver_soon(
        self, job_id: str, pictures: Sequence[bytes] = (), *, recovered: bool = False
    ) -> None:
        announcement = self._announcements.pop(job_id, None)
        if announcement is not None:
            announcement.ended.set()
        self._start_task(self._deliver(job_id, pictures, announcement, recovered))

    async def _deliver(
        self,
        job_id: str,
        pictures: Sequence[bytes],
        announcement: Announcement | None,
        recovered: bool,
    ) -> None:
        """Report a job that has ended, however long it takes; one job at a time. What an earlier
        try, or an earlier run, may have posted is looked for before each further try."""
        if self._posting.locked() or not self.is_ready():
            pictures = ()  # it has to wait: fetched again then, not held until then
        await self.wait_until_ready()
        pause, fresh = 1.0, not recovered
        while True:
            try:
                async with self._posting:
                    if announcement is not None:  # its message has to go with the report
                        await asyncio.wait([announcement.task])
                    await self._report(job_id, pictures, fresh=fresh)
                return
            except Exception as error:
                if not passes(error):
                    log.error("job %s: cannot be reported", job_id, exc_info=error)
                    return
                level = logging.WARNING if pause == 1.0 else logging.DEBUG
                log.log(level, "job %s: not reported yet, trying again: %s", job_id, error)
            pictures, fresh = (), False
            await asyncio.sleep(pause)
            pause = min(2 * pause, 60.0)

    async def _report(self, job_id: str, pictures: Sequence[bytes], *, fresh: bool) -> None:
        """One try at the report."""
        job = await asyncio.to_thread(self.store.get, job_id)
        if job is None or job.delivered_at is not None:
            return
        if unix_ms() - (job.completed_at or 0) > REPORT_WITHIN_MS:
            log.warning("job %s: ended more than 24 h ago, not reported any more", job.id)
        elif job.status is not JobStatus.CANCELLED:
            await self._post(job, pictures, fresh=fresh)
        await self._close_announcement(job)
        await asyncio.to_thread(self.store.delivered, job_id)
        log.info("job %s: closed as %s", job_id, job.status.value)

    async def _post(self, job: Job, originals: Sequence[bytes], *, fresh: bool) -> None:
        """Into the channel; where that is closed to the bot, to the person alone."""
        channel = self.get_partial_messageable(int(job.channel_id))
        guild = self.get_guild(int(job.guild_id))
        limit = guild.filesize_limit if guild else discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        try:
            posted = set() if fresh else await self._posted_marks(channel, job)
            await self._send(channel, job, originals, limit, posted)
            return
        except discord.HTTPException as error:
            if error.status not in (400, 403, 404):  # 400: an archived thread, for one
                raise
            log.warning("job %s: its channel is closed to the bot: %s", job.id, error)
        note = f" The bot may not post in <#{job.channel_id}>, so here it is."
        limit = discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        try:
            person = await self.create_dm(discord.Object(int(job.user_id)))
            posted = set() if fresh else await self._posted_marks(person, job)
            await self._send(person, job, originals, limit, posted, note)
        except discord.HTTPException as error:
            if error.status not in (400, 403, 404):
                raise
            log.error("job %s: cannot be reported to anybody: %s", job.id, error)

    async def _send(
        self,
        place: discord.abc.Messageable,
        job: Job,
        originals: Sequence[bytes],
        limit: int,
        posted: Collection[str],
        note: str = "",
    ) -> None:
        """The parts of the report that are not posted yet. What Discord finds too large all the
        same is sent again, smaller."""
        done = set(posted)
        for encoding in ENCODINGS:
            pictures = await asyncio.to_thread(self._pictures, job, originals, encoding, limit)
            if job.output_images and not pictures:
                job = replace(job, error_message=NoPictures.gone)
            left = [picture for picture in pictures if picture.mark not in done]
            try:
                head = job_mark(job.id) not in done
                for part in report_parts(job, left, head=head, note=note):
                    await place.send(**part.message)
                    done.update(part.marks)
                return
            except discord.HTTPException as error:
                if error.status != 413:
                    raise
                log.info("job %s: Discord finds it too large: %s", job.id, error)
        job = replace(job, error_message=TOO_LARGE)
        for part in report_parts(job, [], head=True, note=note):
            await place.send(**part.message)

    def _pictures(
        self, job: Job, originals: Sequence[bytes], encoding: str, limit: int
    ) -> list[Picture]:
        """The job's pictures with this encoding, or the first after it that is within the limit
        (bytes). Without those that the server has no more. Blocks."""
        pictures = []
        for number, name in enumerate(job.output_images):
            ref = ImageRef.parse(name)
            for step in ENCODINGS[ENCODINGS.index(encoding) :]:
                try:
                    original = originals and not step
                    data = originals[number] if original else self.comfy.image(ref, step)
                except NoPictures as error:
                    log.error("job %s: %s", job.id, error)
                    break
                if len(data) <= limit or step == ENCODINGS[-1]:
                    suffix = SUFFIXES[step.partition(";")[0]] if step else Path(ref.filename).suffix
                    pictures.append(Picture(f"{job.id[:8]}-{number + 1}", data, suffix, step))
                    break
        return pictures

    async def _posted_marks(self, channel: discord.abc.Messageable, job: Job) -> set[str]:
        """The marks of our own messages since the job ended. Discord forgets a nonce after some
        minutes; this finds what was posted before a longer absence."""
        marks: set[str] = set()
        # Discord's clock decides, and this machine's may be ahead of it.
        since = datetime.fromtimestamp((job.completed_at or 0) / 1000, timezone.utc)
        since -= timedelta(hours=1)
        try:
            async for message in channel.history(after=since, limit=2000, oldest_first=True):
                if message.author == self.user:
                    marks.update(Path(file.filename).stem for file in message.attachments)
                    if job.discord_message_id != str(message.id):
                        marks.update(embed.footer.text or "" for embed in message.embeds)
        except (discord.Forbidden, discord.NotFound):
            log.debug("job %s: the channel's history is closed to the bot", job.id)
        return marks

    async def _close_announcement(self, job: Job) -> None:
        """The "Generating…" message goes with the result; of a cancelled job it says so."""
        if job.discord_message_id is None:
            return
        channel = self.get_partial_messageable(int(job.channel_id))
        message = channel.get_partial_message(int(job.discord_message_id))
        try:
            if job.status is JobStatus.CANCELLED:
                await message.edit(
                    content=f"Cancelled: the picture for <@{job.user_id}>", view=None
                )
            else:
                await message.delete()
        except (discord.Forbidden, discord.NotFound) as error:
            log.debug("job %s: its message is gone already: %s", job.id, error)

    # The end

    async def shut_down(self) -> None:
        """Finish and report the current job, within the grace; queued ones stay queued."""
        self.stopping = True
        grace = self.settings.shutdown_grace
        deadline = self.loop.time() + grace
        log.info("shutting down: the current job has %g s; a second signal ends at once", grace)
        # A thread that hangs in a socket would keep the process alive for minutes after this.
        last_resort = threading.Timer(grace + 5.0, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()
        self.worker.stop()
        if not await asyncio.to_thread(self.worker.join, grace):
            log.warning("the current job is not finished; it is taken up at the next start")
            self.worker.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, deadline - self.loop.time()))

    def stop_tasks(self) -> None:
        """Drop what is still going on; the next start takes it up."""
        self.worker.abort()
        for task in (*self._background, *self._tasks):
            task.cancel()


# ---------------------------------------------------------------------------------------------
# Start-up


class Check(NamedTuple):
    """One line of the checks: ok, warning or FAILED, and what to do."""

    area: str
    state: str
    text: str


CHECK_LEVELS = {"ok": logging.INFO, "warning": logging.WARNING, "FAILED": logging.CRITICAL}
LITTLE_DISK = 2**30  # bytes


class Inspection:
    """The checks before going online (architecture.md M10), and what they opened on the way.
    Blocks."""

    def __init__(self, settings: Settings, *, create: bool = True) -> None:
        """Without `create` a database that is not there yet is not made."""
        self.settings = settings
        self._create = create
        self.checks: list[Check] = []
        self.store: Store | None = None
        self.client = ComfyClient(settings.comfy_base_url, settings.comfy_headers)
        self.options: ComfyOptions | None = None
        self.workflow = load_workflow(settings.workflow_path)

    @property
    def passed(self) -> bool:
        """Whether the bot would start."""
        return all(check.state != "FAILED" for check in self.checks)

    def run(self) -> None:
        """Every check that needs no Discord, in order."""
        self._database()
        info = self._comfyui()
        self._workflow(info)

    def close(self) -> None:
        """Let go of what was opened."""
        if self.store is not None:
            self.store.close()
        self.client.close()

    def _note(self, area: str, state: str, text: str) -> None:
        self.checks.append(Check(area, state, text))

    def _database(self) -> None:
        path = self.settings.db_path
        if not self._create and not path.exists():
            place = next(folder for folder in path.parents if folder.exists())
            if os.access(place, os.W_OK):
                self._note("database", "ok", f"{path} is made by the first start")
            else:
                self._note("database", "FAILED", f"{place} is not writable: set DB_PATH elsewhere")
            return
        try:
            self.store = Store(path)
        except StoreError as error:
            self._note("database", "FAILED", str(error))
            return
        self._note("database", "ok", f"{path}, version {len(MIGRATIONS)}, writable")
        free = shutil.disk_usage(path.parent).free
        if free < LITTLE_DISK:
            self._note("database", "warning", f"only {free // 2**20} MiB are free on its disk")

    def _comfyui(self) -> ObjectInfo | None:
        info = None
        try:
            self._note("ComfyUI", "ok", self.client.version())
            waiting = len(self.client.queue().pending)
            self._note("ComfyUI", "ok", f"{waiting} prompts wait in its queue")
            info = self.client.object_info()
            workflow = self.workflow
            bound_classes = binder.bound_classes(workflow.workflow) if workflow.ok else {}
            self.options = options = info.options(bound_classes)
            counts = len(options.models), len(options.samplers), len(options.schedulers)
            self._note("options", "ok", "{} models, {} samplers, {} schedulers".format(*counts))
        except OptionsMissing as error:
            for problem in error.problems:
                self._note("options", "FAILED", problem)
        except ComfyError as error:
            self._note("ComfyUI", "FAILED", unusable_comfyui(self.settings, error))
        return info

    def _workflow(self, info: ObjectInfo | None) -> None:
        path = self.settings.workflow_path
        if not self.workflow.ok:
            self._note("workflow", "FAILED", f"{self.workflow.reason} (WORKFLOW_PATH is {path})")
            return
        self._note("workflow", "ok", f"{path}, API format, all bound nodes and inputs are there")
        if info is None:
            return
        for node, class_type in binder.classes(self.workflow.workflow).items():
            if class_type not in info:
                close = info.nearest(class_type)
                hint = f" (did you mean {close!r}?)." if close else "."
                text = f"ComfyUI does not know class {class_type!r} of node {node}{hint}"
                self._note(
                    "workflow",
                    "warning",
                    f"{text} Every job will be refused until its pack"
                    " is installed and ComfyUI restarted",
                )
        for text_input in binder.texts(self.workflow.workflow):
            offered = info.choices(text_input.class_type, text_input.name)
            if offered is None or text_input.value in offered:
                continue
            where = f"node {text_input.node}, {text_input.name}: {text_input.value!r}"
            if text_input.replaced:
                why = "only the form's first choice is missing, every job writes its own"
            else:
                why = "ComfyUI will refuse every job: choose another in the file"
            self._note("workflow", "warning", f"{where} is not offered by ComfyUI; {why}")


def unusable_comfyui(settings: Settings, error: ComfyError) -> str:
    """One line for the owner, with what to do."""
    hint = "start it, or correct COMFY_BASE_URL"
    return f"ComfyUI cannot be used at {settings.comfy_base_url}: {hint} ({error})"


def prepare(settings: Settings) -> ComfyGen | None:
    """The bot, after the checks; None where one has failed. Each is a line in the log."""
    inspection = Inspection(settings)
    inspection.run()
    for check in inspection.checks:
        log.log(CHECK_LEVELS[check.state], "check: %s: %s", check.area, check.text)
    store, options, workflow = inspection.store, inspection.options, inspection.workflow
    if inspection.passed and store is not None and options is not None and workflow.ok:
        defaults = binder.defaults(workflow.workflow)
        return ComfyGen(settings, store, inspection.client, options, defaults)
    inspection.close()
    return None


async def inspect_discord(settings: Settings) -> list[Check]:
    """The checks of what needs Discord, over REST alone: nobody sees the bot go online."""
    checks: list[Check] = []
    async with discord.Client(intents=discord.Intents(guilds=True)) as client:
        try:
            await client.login(settings.token)
            checks.append(Check("Discord", "ok", f"the token is valid: {client.user}"))
            wanted, actual = settings.client_id, client.application_id
            if wanted in (None, actual):
                checks.append(Check("Discord", "ok", f"application id {actual}"))
            else:
                text = f"DISCORD_CLIENT_ID is {wanted}, the token belongs to {actual}"
                checks.append(Check("Discord", "FAILED", f"{text}: correct one of the two"))
            for channel_id in sorted(settings.channel_ids):
                checks.append(await _inspect_channel(client, channel_id))
            guild = discord.Object(settings.guild_id) if settings.guild_id else None
            registered = await app_commands.CommandTree(client).fetch_commands(guild=guild)
            if {command.name for command in COMMANDS} <= {command.name for command in registered}:
                checks.append(Check("Discord", "ok", "the commands are registered"))
            else:
                text = "the commands are not registered yet: the next start does that"
                checks.append(Check("Discord", "warning", text))
        except discord.Forbidden:
            text = f"the bot is not in server {settings.guild_id} (DISCORD_GUILD_ID): invite it"
            checks.append(Check("Discord", "FAILED", text))
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            checks.append(Check("Discord", "FAILED", explanation(error)))
    return checks


async def _inspect_channel(client: discord.Client, channel_id: int) -> Check:
    unseen = f"the bot does not see channel {channel_id}: invite it, or correct ALLOWED_CHANNEL_IDS"
    try:
        found = await client.fetch_channel(channel_id)
        if not isinstance(found, discord.abc.GuildChannel | discord.Thread):
            return Check("Discord", "warning", unseen)
        # Again with its server, whose roles say what the bot may do there.
        guild = await client.fetch_guild(found.guild.id)
        channel = await guild.fetch_channel(channel_id)
        assert client.user is not None  # logged in
        me = await guild.fetch_member(client.user.id)
    except (discord.NotFound, discord.Forbidden):
        return Check("Discord", "warning", unseen)
    missing = missing_permissions(channel.permissions_for(me))
    if missing:
        return Check("Discord", "warning", f"channel {channel_id}: the bot lacks {missing}")
    return Check("Discord", "ok", f"channel {channel_id} (#{channel.name}): all permissions")


def missing_permissions(granted: discord.Permissions) -> str:
    """Those of the invite link that are missing, by name, separated by commas."""
    wanted = [name for name, on in INVITE_PERMISSIONS if on]
    return ", ".join(name.replace("_", " ") for name in wanted if not getattr(granted, name))


def check(settings: Settings, problems: Sequence[str], *, offline: bool) -> int:
    """`--check`: every check as a line on stdout, the faults of the configuration first; the exit
    code is 0 where the bot would start."""
    inspection = Inspection(settings, create=False)
    inspection.checks = [Check("configuration", "FAILED", problem) for problem in problems]
    inspection.checks = inspection.checks or [Check("configuration", "ok", "complete")]
    inspection.run()
    if settings.token and not offline:
        inspection.checks += asyncio.run(inspect_discord(settings))
    inspection.close()
    redact = RedactingFilter(*settings.secrets).redact
    for area, state, text in inspection.checks:
        print(f"{state:<8} {area:<14} {redact(text)}")
    return 0 if inspection.passed else 1


def load_workflow(path: Path) -> binder.BindResult:
    """The workflow file as it is now, validated: an owner may edit it while the bot runs."""
    loaded = binder.load(path)
    return binder.validate(loaded.workflow) if loaded.ok else loaded


async def once(settings: Settings, arguments: argparse.Namespace) -> int:
    """`--once`: one job through store, binder, client and worker, without Discord and in a database
    of its own; the pictures are saved in a folder. The exit code is 0 where they are."""
    loaded = load_workflow(settings.workflow_path)
    if not loaded.ok:
        raise UserError(f"{loaded.reason} ({settings.workflow_path})")
    arguments.out.mkdir(parents=True, exist_ok=True)
    client = ComfyClient(settings.comfy_base_url, settings.comfy_headers)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, closing(client):
        bound_classes = binder.bound_classes(loaded.workflow)
        options = await asyncio.to_thread(client.fetch_options, bound_classes)
        params = once_params(settings, arguments, options, binder.defaults(loaded.workflow))
        seed = "of the file" if params.seed is None else params.seed
        numbers = f"{params.steps} steps, CFG {params.cfg:g}, seed {seed}"
        print(f"{params.model}, {params.sampler}, {params.scheduler}, {numbers}")
        with closing(Store(Path(folder) / "once.db")) as store:
            job, pictures = await run_once(settings, client, store, params)
    if not pictures:
        raise UserError(job.error_message or "There is no picture.")
    for number, (name, data) in enumerate(zip(job.output_images, pictures, strict=True), start=1):
        filename = ImageRef.parse(name).filename
        path = arguments.out / (filename if len(pictures) == 1 else f"{number:02}-{filename}")
        path.write_bytes(data)
        print(path)
    return 0


async def run_once(
    settings: Settings, client: ComfyClient, store: Store, params: JobParams
) -> tuple[Job, list[bytes]]:
    """One step of a worker, with a line of progress meanwhile."""
    pictures: list[bytes] = []
    worker = Worker(
        store,
        client,
        functools.partial(load_workflow, settings.workflow_path),
        timeout=settings.comfy_timeout,
        started=lambda job_id: None,
        ended=lambda job_id, made: pictures.extend(made),
    )
    job_id = store.insert(params)
    progress = progress_of(settings.workflow_path, params, job_id)

    def on_event(event: str, data: Mapping[str, Any]) -> None:
        progress.take(event, data)
        if ends_prompt(event, data):
            worker.wake(data.get("prompt_id"))

    feed = asyncio.create_task(ProgressFeed(client, on_event).run())
    # No task: Ctrl+C cancels those on Python 3.10, and this has to end before the store closes.
    work = asyncio.get_running_loop().run_in_executor(None, worker.step, job_id)
    try:
        while not work.done():
            line = f"{progress.fraction:5.0%}  pass {progress.current_pass} of {progress.passes}"
            print(f"\r{line}", end="", flush=True)
            await asyncio.wait({work}, timeout=0.5)
    finally:
        print()
        feed.cancel()
        worker.cancel(job_id)  # after Ctrl+C the GPU is free again; later it changes nothing
        await work
    job = store.get(job_id)
    assert job is not None
    return job, pictures


def once_params(
    settings: Settings,
    arguments: argparse.Namespace,
    options: ComfyOptions,
    defaults: binder.Defaults,
) -> JobParams:
    """The job of `--once`: what the arguments say, else what the workflow file says."""
    draft = Draft(options)
    draft.start_from(defaults)
    problems = draft.take(
        {
            "positive_prompt": arguments.once,
            "negative_prompt": arguments.negative or settings.default_negative_prompt,
            "steps": arguments.steps or str(draft.steps),
            "cfg": arguments.cfg or f"{draft.cfg:g}",
            "seed": arguments.seed or "",
        }
    )
    if arguments.model:
        draft.model = find_model(arguments.model, options.models)
    for name in ("sampler", "scheduler"):
        wanted = getattr(arguments, name)
        if wanted and wanted not in draft.offered(name):
            problems.append(f"There is no {name} {wanted}.{nearest(wanted, draft.offered(name))}")
        setattr(draft, name, wanted or getattr(draft, name))
    if not problems and draft.missing():
        problems.append(f"Still missing: {', '.join(draft.missing())}.")
    if problems:
        raise UserError("\n".join(problems))
    return draft.job_params("0", "0", "0", random_seed=settings.random_seeds)


async def serve(bot: ComfyGen, token: str) -> int:
    """Run the bot until a signal or an error ends it; the exit code."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(BORROWED_THREADS, "borrowed"))
    stop = asyncio.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            # Nothing is lost: what is unfinished stands in the database.
            log.warning("second signal: ended at once")
            os._exit(EXIT_INTERRUPTED)
        loop.call_soon_threadsafe(stop.set)

    # Not loop.add_signal_handler, which Windows does not have.
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    async with bot:
        connection = asyncio.create_task(bot.start(token))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({connection, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await bot.shut_down()
            connection.cancel()
        stopped.cancel()
        bot.stop_tasks()
        (outcome,) = await asyncio.gather(connection, return_exceptions=True)
    known = (StartupError, StoreError, discord.DiscordException, aiohttp.ClientError, OSError)
    # discord.py trips over its own feet where the gateway refuses the very first connection.
    if isinstance(outcome, known) or (isinstance(outcome, AttributeError) and bot.ws is None):
        log.critical("%s", explanation(outcome))
    elif isinstance(outcome, Exception):
        log.critical("the bot ended by an error of its own", exc_info=outcome)
    return 0 if stop.is_set() else 1


def explanation(error: Exception) -> str:
    """What ended the connection to Discord, in one line with what to do."""
    if isinstance(error, StartupError | StoreError):
        return str(error)
    if isinstance(error, discord.LoginFailure) or getattr(error, "code", None) == 4004:
        return "Discord refused DISCORD_TOKEN: copy it again from the Bot page"
    return f"Discord cannot be used: {error}; check the internet connection"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="comfygen.py",
        description="A Discord bot whose /gen makes pictures with the ComfyUI at home.",
        epilog="It is configured by the environment and a .env file beside it: see README.md.",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="check everything a start needs")
    mode.add_argument("--once", metavar="PROMPT", help="make one picture without Discord")
    parser.add_argument("--offline", action="store_true", help="with --check: leave Discord out")
    once = parser.add_argument_group("with --once (default: as the workflow file says)")
    once.add_argument("--model", help="any part of a model's name")
    once.add_argument("--steps", help="{} to {}".format(*STEPS_RANGE))
    once.add_argument("--cfg", help="{:g} to {:g}".format(*CFG_RANGE))
    once.add_argument("--sampler")
    once.add_argument("--scheduler")
    once.add_argument("--negative", metavar="PROMPT", help="what to keep out of the picture")
    once.add_argument("--seed", help="0 to 2**64 - 1")
    once.add_argument("--out", metavar="DIR", type=Path, help="where to save it (default: here)")
    parsed = parser.parse_args(arguments)
    if parsed.offline and not parsed.check:
        parser.error("--offline goes with --check")
    names = ("model", "steps", "cfg", "sampler", "scheduler", "negative", "seed", "out")
    if parsed.once is None and any(getattr(parsed, name) is not None for name in names):
        parser.error("options for one picture go with --once")
    parsed.out = parsed.out or Path()
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """`python comfygen.py`; the exit code."""
    options = parse_arguments(arguments)
    problems: Sequence[str] = ()
    try:
        settings = load_settings(read_environment(), discord=options.once is None)
    except ConfigError as error:
        problems = error.problems
        if error.settings is None or not options.check:
            for problem in problems:
                print(f"configuration: {RedactingFilter().redact(problem)}", file=sys.stderr)
            return 1
        settings = error.settings
    if options.check or options.once is not None:
        settings = replace(settings, log_level=max(settings.log_level, logging.ERROR))
    set_up_logging(settings)
    try:
        if options.check:
            return check(settings, problems, offline=options.offline)
        if options.once is not None:
            return asyncio.run(once(settings, options))
        return run(settings)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Unreachable as error:
        print(unusable_comfyui(settings, error), file=sys.stderr)
    except (UserError, ComfyError, StoreError, OSError) as error:
        print(re.sub(r"\\(.)|\*\*|`", lambda match: match[1] or "", str(error)), file=sys.stderr)
    return 1


def run(settings: Settings) -> int:
    """The bot, from its checks to its end; the exit code."""
    # People click while the worker unpacks a large picture: the loop then waits a tenth as long.
    sys.setswitchinterval(0.0005)
    bot = prepare(settings)
    if bot is None:
        return 1
    try:
        return asyncio.run(serve(bot, settings.token))
    finally:
        bot.store.close()
        bot.comfy.close()


if __name__ == "__main__":
    sys.exit(main())
