"""The configuration and the log: reads `Settings` from the environment, and redacts secrets.

Owns the names, defaults and limits of all variables, the format of the log, and what counts as a
secret. Imports nothing of ours. Used once, before anything else starts; only `redact()` is called
later, from any thread.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import logging
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import dotenv

HERE = Path(__file__).resolve().parent  # where the program is: relative paths start here

DEFAULT_BASE_URL = "http://127.0.0.1:8188"
PROXY_EXAMPLE = "http://host:port or http://user:password@host:port"
MOST_STEPS = 150  # of a job
MOST_PICTURES = 10  # of a job: what one message of Discord holds
MOST_SERVERS = 8
BACKEND_HEADER = "X-Swarm-Backend-ID"  # names one of the ComfyUIs behind a SwarmUI
WORKFLOWS = "workflows"  # the folder whose folders have a workflow each
EXIT_INTERRUPTED = 130  # the exit code after Ctrl+C
EXIT_CONFIG = 78  # the exit code for what only the owner can mend: no restart helps
PROMPT_LIMIT = 4000  # characters: what one text field of Discord holds
ACKNOWLEDGED_ALREADY = 40060  # Discord's code
DAY_MS = 24 * 60 * 60 * 1000

NAMES = (
    "DISCORD_TOKEN",
    "ALLOWED_CHANNEL_IDS",
    "ALLOWED_ROLE_IDS",
    "DISCORD_CLIENT_ID",
    "DISCORD_GUILD_ID",
    "COMFY_BASE_URL",
    "COMFY_HEADERS",
    "COMFY_BASE_URL_2",  # and so up to MOST_SERVERS
    "COMFY_HEADERS_2",
    "COMFY_API_KEY",
    "COMFY_CA_FILE",
    "COMFY_PROXY",
    "DISCORD_PROXY",
    "COMFY_TIMEOUT_MS",
    "QUEUE_CONCURRENCY",
    "DB_PATH",
    "WORKFLOW_PATH",
    "SEED_MODE",
    "PREVIEWS",
    "DEFAULT_NEGATIVE_PROMPT",
    "MAX_STEPS",
    "MAX_COUNT",
    "MAX_WAITING_PER_PERSON",
    "KEEP_METADATA",
    "SHUTDOWN_GRACE_MS",
    "ALERT_USER_ID",
    "LOG_LEVEL",
    "JOB_RETENTION_DAYS",
    "IMAGE_RETENTION_DAYS",
    "MAX_IMAGE_MEGAPIXELS",
)

LOG_LEVELS = {  # Python's names, and those of other loggers
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "critical": logging.CRITICAL,
    "silent": logging.CRITICAL,  # why a start has failed is logged in any case
}


class ConfigError(Exception):
    """The configuration is wrong; `problems` has one line for each fault, with what to do.
    `settings` has defaults in place of what is wrong, as far as it could be read at all."""

    def __init__(self, problems: Sequence[str], settings: Settings | None = None) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
        self.settings = settings


@dataclass(frozen=True)
class Server:
    """The address of a ComfyUI, http(s)://host[:port][/prefix], and how it is reached.

    `number` is that of its settings, 1 for those without one.
    `headers` go with every request, `api_key`, of comfy.org, with every prompt; without a `proxy`,
    that of the system stands before public addresses; `ca_file` has the certificates to trust."""

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_key: str = field(default="", repr=False)
    proxy: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    number: int = 1

    @property
    def backend(self) -> str | None:
        """Return the id of the ComfyUI behind a SwarmUI that is asked for; None if none is."""
        names = {name.lower(): value for name, value in self.headers.items()}
        return names.get(BACKEND_HEADER.lower())

    @property
    def is_spread(self) -> bool:
        """Return whether this is a SwarmUI that chooses a ComfyUI anew for every call."""
        path = urlsplit(self.base_url).path.rstrip("/")
        return path.endswith("/ComfyBackendDirect") and self.backend is None

    @property
    def key(self) -> str:
        """Return the identity that the rows of jobs have: it outlives another order in .env, and
        has no secret in it."""
        text = f"{self.base_url.rstrip('/')}\n{self.backend or ''}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def host(self) -> str:
        """Return where it is, for the owner."""
        backend = "" if self.backend is None else f", backend {self.backend}"
        return urlsplit(self.base_url).netloc.rpartition("@")[2] + backend


@dataclass(frozen=True)
class Settings:
    """The configuration, checked. Times are in seconds, paths absolute."""

    token: str = field(repr=False)
    client_id: int | None
    guild_id: int | None
    channel_ids: frozenset[int]
    discord_proxy: str | None = field(repr=False)
    servers: tuple[Server, ...]  # at least one
    comfy_timeout: float
    db_path: Path
    workflow_path: Path
    log_level: int
    random_seeds: bool
    previews: bool
    shutdown_grace: float
    retention_days: int
    default_negative_prompt: str
    max_waiting: int  # jobs of one person that wait or run at a time; 0: no limit
    max_steps: int
    max_count: int  # of pictures in one job
    role_ids: frozenset[int]  # who may use the bot; empty: everyone
    alert_user_id: int | None
    keep_metadata: bool
    image_retention_days: int  # 0: for as long as a job names it
    max_megapixels: float  # of a person's picture, before it is scaled down; 0: as it is

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what no log and no message may show."""
        headers = [value for server in self.servers for value in server.headers.values()]
        values = (self.token, self.servers[0].api_key, *headers)
        # A very short value is no secret, and taking it out would garble every line.
        return tuple(value for value in values if len(value) > 5)


class EnvironmentReader:
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

    def integer(self, name: str, default: int, high: int, low: int = 0) -> int:
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            self.problem(name, f"is {value!r}: give a whole number from {low} to {high}")
            return default
        return int(value)

    def decimal(self, name: str, default: float, high: int) -> float:
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", value) or float(value) > high:
            self.problem(name, f"is {value!r}: give a number from 0 to {high}, as 1.5")
            return default
        return float(value)

    def milliseconds(self, name: str, default: int) -> float:
        """Read a whole number of milliseconds, and return seconds."""
        return self.integer(name, default, DAY_MS, low=1) / 1000

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        value = self.text(name, default).lower()
        if value not in choices:
            self.problem(name, f"is {value!r}: give one of {', '.join(choices)}")
            return default
        return value

    def servers(self) -> tuple[Server, ...]:
        """Read the servers: the first, and those that have a number. Gaps are allowed."""
        first = Server(
            base_url=self.base_url("COMFY_BASE_URL", DEFAULT_BASE_URL),
            headers=self.headers("COMFY_HEADERS"),
            api_key=self.text("COMFY_API_KEY"),
            proxy=self.address("COMFY_PROXY", "", PROXY_EXAMPLE) or None,
            ca_file=self.certificates("COMFY_CA_FILE"),
        )
        found = {first.key: first}
        for number in range(2, MOST_SERVERS + 1):
            name, headers = f"COMFY_BASE_URL_{number}", f"COMFY_HEADERS_{number}"
            if not self.text(name):
                if self.text(headers):
                    self.problem(headers, f"is set without {name}: give the address as well")
                continue
            server = replace(
                first,
                base_url=self.base_url(name, ""),
                headers=self.headers(headers),
                number=number,
            )
            if server.key in found:
                self.problem(
                    name,
                    "is an address that another one has: remove one of the two, or name a backend"
                    f" of SwarmUI in each COMFY_HEADERS ({BACKEND_HEADER}: 0)",
                )
            found.setdefault(server.key, server)
        return tuple(found.values())

    def base_url(self, name: str, default: str) -> str:
        """Read the address of a ComfyUI."""
        return self.address(name, default, "http://host:port or https://host/prefix")

    def headers(self, name: str) -> dict[str, str]:
        """Read `Name: value` pairs, separated by semicolons."""
        headers: dict[str, str] = {}
        for pair in filter(None, map(str.strip, self.text(name).split(";"))):
            key, colon, value = pair.partition(":")
            if not colon or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", key.strip()):
                self.problem(name, "is not of the form `Name: value; Other-Name: value`")
            elif not value.strip().isprintable() or not value.isascii():
                self.problem(name, f"has a value for {key.strip()} that no header can hold")
            headers[key.strip()] = value.strip()
        return headers

    def address(self, name: str, default: str, example: str) -> str:
        """Read an http(s) address without a query, and return it with its scheme in lower case."""
        value = self.text(name, default)
        if value and not _is_base_url(value):
            self.problem(name, f"is not an address: give it as {example}")
            value = default
        scheme, colon, rest = value.partition(":")
        return f"{scheme.lower()}{colon}{rest}"

    def certificates(self, name: str) -> Path | None:
        """Read the path of a file with certificates, in PEM format."""
        if not self.text(name):
            return None
        path = self.path(name, "")
        try:
            ssl.create_default_context(cafile=path)
        except (ssl.SSLError, ValueError):
            reason = "no certificate in it"
        except OSError as error:
            reason = str(error.strerror)
        else:
            return path
        self.problem(name, f"cannot be used ({reason}): give a file of PEM certificates")
        return None

    def workflow(self, name: str, default: str) -> Path:
        """Read the path of a workflow. The folders beside its own are searched for others, and
        --adopt writes there, so these have to be a folder for workflows alone."""
        path = self.path(name, default)
        if Path(os.path.normpath(path)).parent.parent.name.casefold() == WORKFLOWS:
            return path
        self.problem(
            name,
            f"is {path}: put the file into a folder of its own in a folder {WORKFLOWS}, as in"
            f" {default}",
        )
        return self.path("", default)

    def path(self, name: str, default: str) -> Path:
        # Relative to this file, not to where the program was started: a service starts elsewhere.
        return HERE / Path(self.text(name, default)).expanduser()


def load_settings(environment: Mapping[str, str], *, for_discord: bool = True) -> Settings:
    """Check and return the whole configuration. Raises ConfigError with all faults.
    With `for_discord` off, nothing that only Discord needs is required."""
    read = EnvironmentReader(environment, require=for_discord)
    token = read.required("DISCORD_TOKEN", "copy it from the Bot page of your Discord application")
    if problem := token_problem(token):
        read.problem("DISCORD_TOKEN", problem)
    channels = read.required(
        "ALLOWED_CHANNEL_IDS", "the ids of the channels for /gen, separated by commas"
    )
    if read.text("QUEUE_CONCURRENCY", "1") != "1":
        read.problem("QUEUE_CONCURRENCY", "must be 1: each ComfyUI makes one job at a time")
    negative = read.text("DEFAULT_NEGATIVE_PROMPT")
    if len(negative) > PROMPT_LIMIT:
        read.problem("DEFAULT_NEGATIVE_PROMPT", f"is longer than {PROMPT_LIMIT} characters")
    settings = Settings(
        token=token,
        client_id=read.snowflake("DISCORD_CLIENT_ID"),
        guild_id=read.snowflake("DISCORD_GUILD_ID"),
        channel_ids=read.snowflakes("ALLOWED_CHANNEL_IDS", channels),
        discord_proxy=read.address("DISCORD_PROXY", "", PROXY_EXAMPLE) or None,
        servers=read.servers(),
        comfy_timeout=read.milliseconds("COMFY_TIMEOUT_MS", 300_000),
        db_path=read.path("DB_PATH", "data/comfygen.db"),
        workflow_path=read.workflow("WORKFLOW_PATH", f"{WORKFLOWS}/multisampler/base.json"),
        log_level=LOG_LEVELS[read.choice("LOG_LEVEL", tuple(LOG_LEVELS), "info")],
        random_seeds=read.choice("SEED_MODE", ("random", "workflow"), "random") == "random",
        previews=read.choice("PREVIEWS", ("on", "off"), "on") == "on",
        shutdown_grace=read.milliseconds("SHUTDOWN_GRACE_MS", 60_000),
        retention_days=read.integer("JOB_RETENTION_DAYS", 0, 36_500),
        default_negative_prompt=negative,
        max_waiting=read.integer("MAX_WAITING_PER_PERSON", 10, 1_000),
        max_steps=read.integer("MAX_STEPS", MOST_STEPS, MOST_STEPS, low=1),
        max_count=read.integer("MAX_COUNT", 4, MOST_PICTURES, low=1),
        role_ids=read.snowflakes("ALLOWED_ROLE_IDS", read.text("ALLOWED_ROLE_IDS")),
        alert_user_id=read.snowflake("ALERT_USER_ID"),
        keep_metadata=read.choice("KEEP_METADATA", ("on", "off"), "on") == "on",
        image_retention_days=read.integer("IMAGE_RETENTION_DAYS", 30, 36_500),
        max_megapixels=read.decimal("MAX_IMAGE_MEGAPIXELS", 2.0, 64),
    )
    if read.problems:
        raise ConfigError(read.problems, settings)
    return settings


def token_problem(token: str) -> str:
    """Return why a text cannot be a bot's token, and what to do; empty if it can be one."""
    kinds = {
        r"\s*|\S*\.\S*\.\S*": "",
        r".*\s.*": "has spaces in it: paste the token alone",
        r"\d{15,20}": "is the id of an application, a person or a server, and no token",
        r"[0-9a-fA-F]{64}": "is the public key of an application, and no token",
        r"[\w-]{32}": "is a client secret (of the OAuth2 page), and no token",
        r".*": "is no token, as a token has two dots in it",
    }
    problem = next(text for form, text in kinds.items() if re.fullmatch(form, token, re.DOTALL))
    hint = ": copy it from the Bot page of your application (Reset Token)" if problem else ""
    return problem + hint * ("paste" not in problem)


def plain_value(value: str) -> str:
    """Return the value of a variable without the quotes around it and a comment behind it, as it is
    read in `.env`: systemd, pm2 and Docker hand them over with the value."""
    if quoted := re.fullmatch(r"""(['"])(.*?)\1(\s+#.*)?""", value, re.DOTALL):
        return quoted[2]
    return re.sub(r"(^|\s+)#.*", "", value, flags=re.DOTALL)


def read_environment(folder: Path = HERE) -> dict[str, str]:
    """Read the `.env` file beside this one, and the process's environment, which overrules it."""
    environment = {name: plain_value(value) for name, value in os.environ.items()}
    return {**read_file(folder), **environment}


def read_file(folder: Path = HERE) -> dict[str, str]:
    """Read the `.env` file in a folder; empty if there is none."""
    path = folder / ".env"
    try:
        # utf-8-sig: Notepad writes a byte order mark, which would become part of the first name.
        text = path.read_text("utf-8-sig") if path.exists() else ""
    except UnicodeError as error:
        raise ConfigError([f".env is not UTF-8 text ({error}): save it as UTF-8"]) from error
    except OSError as error:
        reason = f".env cannot be read ({error.strerror}): let the user who runs the bot read it"
        raise ConfigError([reason]) from error
    # Only behind a value does the parser see that a comment is one.
    text = re.sub(r"^([ \t]*\w+[ \t]*=)[ \t]*#.*", r"\1", text, flags=re.MULTILINE)
    values = dotenv.dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value or "" for name, value in values.items()}


def about_file(problems: Sequence[str], folder: Path = HERE) -> list[str]:
    """Return a line for each name in `.env` that is no setting, and, if the problems have a setting
    that is missing, one about the file."""
    is_missing = any(" is missing: " in problem for problem in problems)
    return [*_unknown_names(folder), *([_what_is_there(folder)] if is_missing else [])]


def _what_is_there(folder: Path) -> str:
    path = folder / ".env"
    found = sorted(p.name for p in folder.glob("*env*") if p.is_file() and p.name != ".env.example")
    if not path.is_file():
        makes = ": --setup makes it (README.md, section 2)"
        other = next((f"; rename {name} to .env" for name in found), makes)
        return f"looked for in {path}, which does not exist{other}"
    given = [name for name, value in read_file(folder).items() if value and _is_name(name)]
    names = ", ".join(given) or "nothing: a line is NAME=value"
    return f"looked for in {path}, which gives a value to {names}"


def _unknown_names(folder: Path) -> list[str]:
    lines = []
    for name in filter(_is_name, read_file(folder)):
        if re.sub(f"_[3-{MOST_SERVERS}]$", "_2", name) not in NAMES:
            near = difflib.get_close_matches(name.upper(), NAMES, 1, 0.5)
            hint = f": did you mean {near[0]}?" if near else ""
            lines.append(f"{name} in .env is no setting of the bot{hint}")
    return lines


def _is_name(text: str) -> bool:
    """Return whether a text is the name of a variable, and no value that stands alone."""
    return re.fullmatch(r"[A-Za-z]\w{0,40}", text, re.ASCII) is not None


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        return False
    only_a_place = not parts.query and not parts.fragment and " " not in url
    is_http = parts.scheme in ("http", "https")
    return is_http and bool(parts.hostname) and port_is_valid and only_a_place


WEB_PAGE = re.compile(r"<(?:!doctype html|html)\b.*?(?:</html>|\Z)", re.I | re.S)
LOOKS_SECRET = re.compile(
    r"[\w-]{18,40}\.[\w-]{5,8}\.[\w-]{20,}"  # a bot's token
    r"|\bmfa\.[\w-]{20,}"
    r"|\bcomfyui-[0-9a-f]{20,}"  # a key of comfy.org
    r"|\baW50ZXJhY3Rpb24[\w=+/-]+"  # an interaction's token: base64 of "interaction…"
    r"|/(?:webhooks|interactions)/\d+/[^/\s?'\"]+"
    r"|(?<=://)[^/\s]+(?=@)",
    re.ASCII,
)


def redact(text: str, *known: str) -> str:
    """Replace the known secrets and whatever looks like one: a bot's token, the tokens in Discord's
    webhook addresses, passwords in URLs. A web page, as a proxy answers, is left out."""
    text = WEB_PAGE.sub("(a web page)", text)
    for secret in filter(None, known):
        text = text.replace(secret, "[redacted]")
    return LOOKS_SECRET.sub("[redacted]", text)


class RedactingFilter(logging.Filter):
    """Keeps secrets out of every record that passes its handler, whoever logged it."""

    def __init__(self, *secrets_known: str) -> None:
        super().__init__()
        self._known = secrets_known

    def redact(self, text: str) -> str:
        """Replace every secret."""
        return redact(text, *self._known)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; it always passes."""
        try:
            record.msg = self.redact(record.getMessage())
        except Exception as error:  # a record with the wrong number of arguments
            record.msg = self.redact(f"{record.msg} ({error})")
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.redact(record.exc_text)
        if record.stack_info:
            record.stack_info = self.redact(record.stack_info)
        return True


class OneLineFilter(logging.Filter):
    """Shortens to a line what discord.py logs with a traceback each time a connection is lost, and
    for each letter whose autocomplete is too late; leaves out those that another copy of the bot
    has answered, as its owner hears of that otherwise."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place, and return whether it is logged."""
        error = record.exc_info[1] if record.exc_info else None
        is_lost = record.name == "discord.client" and "reconnect" in str(record.msg)
        is_late = "autocomplete" in str(record.msg) and hasattr(error, "status")
        if is_late and getattr(error, "code", None) == ACKNOWLEDGED_ALREADY:
            return False
        if error is not None and (is_lost or is_late):
            record.msg, record.args = f"{record.getMessage()} ({error!r})", ()
            record.exc_info = record.exc_text = None
        return True


def set_up_logging(settings: Settings) -> None:
    """Log everything to stderr, in one format, through the filters."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    handler.addFilter(OneLineFilter())
    handler.addFilter(RedactingFilter(*settings.secrets))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(settings.log_level)
