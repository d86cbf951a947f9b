"""Run an unmodified comfygen.py against a stand-in for Discord.

`python launch.py PATH_TO_COMFYGEN [arguments]`: points discord.py's two addresses at the stand-in,
and then does what `python comfygen.py` does. DISCORD_API and DISCORD_GATEWAY hold the addresses.
KILL_AT, for the crash tests, names a point between two statements at which the process kills
itself: `before:Class.method` or `after:Class.method` of one of the modules below comfygen.
BREAK_AT names such a point (a property will do): the first call there raises an error of no kind
that the program expects.
CLOCK_FILE names a file with the seconds by which the clock of this machine is wrong, read each time
that the program asks for the time of day.
PAUSE_AT and PAUSE_PORT, for the tests of a locked database, name another such point and a port of
this machine: the first call there connects to it, and goes on when that connection is closed.
LOOP_STALL_FILE, for the bench, names a file that gets a line for each time the event loop was late;
READY_AFTER, for the same, is how many seconds discord.py waits for more servers after the last.
COMFY_PLACE, for the tests of --setup, is where it looks for ComfyUI, in place of its two ports.
LISTS_AGE, for the tests of it, is after how many seconds a /gen has ComfyUI's lists read again.
With SHORT_WAITS the program's own waits for what has failed are a fraction of what they are.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import importlib
import os
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

MODULES = {"Store": "store", "ComfyClient": "comfy_client"}
TICK = 0.005  # seconds between two looks at the loop
LATE = 0.001  # less is the resolution of its clock

# Seconds, by module and name. What people see (a message after 1 s, an edit every 2 s) stays, but
# for the time that an answer takes to follow the queue.
SHORT_WAITS: dict[str, dict[str, Any]] = {
    "bot.alerts": {"CHECK_EVERY": 0.1, "AWAY_SECONDS": 0.2},
    "comfy_client": {"READ_SECONDS": 3.0, "FEED_PAUSES": (0.05, 0.5)},
    "cli.checks": {"RETRY_SECONDS": 1.0, "RETRY_EVERY": 0.1, "LOGIN_PAUSES": (0.1, 0.5)},
    "cli.setup": {
        "LOOK_SECONDS": 0.05,
        "PLACES": (os.environ.get("COMFY_PLACE", "http://127.0.0.1:9"),),
    },
    "bot.reporter": {"RETRY_PAUSES": (0.05, 0.5), "HANGING_SECONDS": 1.0},
    "bot.supervise": {"RESTART_PAUSE": 0.1},
    "bot.running": {"HANGING_SECONDS": 1.0, "ROUND_EVERY": 0.1},
    "store": {"BUSY_SECONDS": 0.3},
    "jobs.pauses": {"DATABASE_PAUSE": 0.2},
    "jobs.hold": {"HOLD_PAUSES": (5.0, 20.0)},
    "jobs.jobqueue": {"LOOK_SECONDS": 0.1},
    "jobs.run": {
        "MOVE_SECONDS": 1.0,
        "LOOK_LIMIT": 1.0,
        "LATE_SECONDS": 0.3,
        "OUTAGE_PAUSES": (0.02, 0.5),
        "PromptRun.LOOK_SECONDS": 0.5,
    },
    "jobs.sweeper": {"Sweeper.AGAIN_SECONDS": 0.5},
}
GATEWAY_PAUSE = 0.05  # of what discord.py waits before it connects again: up to 2 s at first


def call_at(point: str, act: Callable[[], object]) -> None:
    """Wrap the named method so that `act` is called right before or right after each call."""
    moment, _, name = point.partition(":")
    class_name, _, method_name = name.partition(".")
    owner = getattr(importlib.import_module(MODULES[class_name]), class_name)
    found = vars(owner)[method_name]
    method = found.fget if isinstance(found, property) else found

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            act()
        result = method(*args, **kwargs)
        if moment == "after":
            act()
        return result

    setattr(owner, method_name, property(wrapped) if method is not found else wrapped)


def kill_at(point: str) -> None:
    """The process dies there, as in a power cut."""
    call_at(point, lambda: os.kill(os.getpid(), signal.SIGKILL))


def break_at(point: str) -> None:
    """The first call there fails, as by a mistake in the program."""
    errors = [RuntimeError(f"broken {point}")]

    def fail() -> None:
        if errors:
            raise errors.pop()

    call_at(point, fail)


def shift_clock(path: str) -> None:
    """The time of day is wrong by so many seconds, monotonic time is not."""
    true, true_ns, file, plain = time.time, time.time_ns, Path(path), datetime.datetime

    def offset() -> float:
        return float(file.read_text("ascii"))

    class AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, plain)

    class Shifted(plain, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: true() + offset()
    time.time_ns = lambda: true_ns() + int(offset() * 10**9)
    datetime.datetime = Shifted  # type: ignore[misc]


def pause_at(point: str, port: int) -> None:
    """The first thread that comes there tells the test, and waits for it."""
    ports = [port]

    def pause() -> None:
        if ports:
            with socket.create_connection(("127.0.0.1", ports.pop()), 20) as connection:
                connection.recv(1)

    call_at(point, pause)


def shorten_waits() -> None:
    """Set SHORT_WAITS, each in place of a constant of the same name."""
    for module_name, values in SHORT_WAITS.items():
        module = importlib.import_module(module_name)
        for name, value in values.items():
            *classes, attribute = name.split(".")
            owner: Any = functools.reduce(getattr, classes, module)
            assert hasattr(owner, attribute), f"{module_name}.py has no {name} any more"
            setattr(owner, attribute, value)
    import discord
    from discord.backoff import ExponentialBackoff

    async def at_once(client: discord.Client, shard: int | None, *, initial: bool = False) -> None:
        """discord.py pauses 5 s before a new session after a lost one."""

    discord.Client.before_identify_hook = at_once  # type: ignore[method-assign]

    delay = ExponentialBackoff.delay
    ExponentialBackoff.delay = lambda own: delay(own) * GATEWAY_PAUSE  # type: ignore[assignment]


def watch_loop(path: str) -> None:
    """Look at the event loop every TICK, once there is one, and write down when it was LATE:
    monotonic time and lateness, in seconds."""
    import discord

    original = discord.Client._async_setup_hook

    async def hooked(client: discord.Client) -> None:
        await original(client)
        loop = asyncio.get_running_loop()
        file = open(path, "a", encoding="ascii", buffering=1)  # noqa: ASYNC230, SIM115

        def tick(due: float) -> None:
            now = loop.time()
            if now - due > LATE:
                file.write(f"{now} {now - due}\n")
            loop.call_at(now + TICK, tick, now + TICK)

        tick(loop.time())

    discord.Client._async_setup_hook = hooked  # type: ignore[assignment, method-assign]


def point_to_stand_in() -> None:
    """Give discord.py the stand-in's addresses."""
    import discord
    import discord.gateway
    import yarl

    discord.http.Route.BASE = os.environ["DISCORD_API"]
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["DISCORD_GATEWAY"])
    # discord.py is ready when no server has come for this time, of which it sees no end itself.
    discord.state.ConnectionState.guild_ready_timeout = property(  # type: ignore[assignment]
        time_for_guilds, lambda state, value: None
    )


def time_for_guilds(state: Any) -> float:
    """How long to wait for another server: long for those that READY has named, and after the last
    one READY_AFTER."""
    guilds = getattr(state, "_guilds", {})  # it asks this before it has them
    missing = any(guild.unavailable for guild in guilds.values())
    return 2.0 if missing else float(os.environ.get("READY_AFTER", "0.01"))


def main() -> None:
    program = Path(sys.argv[1]).resolve()
    # Before discord.py is imported, as Python does it: the imports then use that memory again.
    if os.environ.get("SHORT_WAITS"):  # but what was compiled before will do here
        code = SourceFileLoader("__main__", str(program)).get_code("__main__")
    else:
        code = compile(program.read_bytes(), str(program), "exec")
    point_to_stand_in()
    if path := os.environ.get("CLOCK_FILE"):
        shift_clock(path)  # before the program's modules are imported
    sys.argv = sys.argv[1:]
    sys.path[0] = str(program.parent)
    if os.environ.get("SHORT_WAITS"):
        shorten_waits()
    if age := os.environ.get("LISTS_AGE"):
        vars(importlib.import_module("bot.gen"))["LISTS_AGE"] = float(age)
    if point := os.environ.get("KILL_AT"):
        kill_at(point)
    if point := os.environ.get("BREAK_AT"):
        break_at(point)
    if point := os.environ.get("PAUSE_AT"):
        pause_at(point, int(os.environ["PAUSE_PORT"]))
    if path := os.environ.get("LOOP_STALL_FILE"):
        watch_loop(path)
    module = types.ModuleType("__main__")
    module.__file__ = str(program)
    sys.modules["__main__"] = module
    exec(code, vars(module))


main()
