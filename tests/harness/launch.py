"""Run an unmodified comfygen.py against a stand-in for Discord.

`python launch.py PATH_TO_COMFYGEN [arguments]`: points discord.py's two addresses at the stand-in,
and then does what `python comfygen.py` does. DISCORD_API and DISCORD_GATEWAY hold the addresses.
KILL_AT, for the crash tests, names a point between two statements at which the process kills
itself: `before:Class.method` or `after:Class.method` of one of the modules below comfygen.
LOOP_STALL_FILE, for the bench, names a file that gets a line for each time the event loop was late;
READY_AFTER, for the same, is how many seconds discord.py waits for more servers after the last.
With SHORT_WAITS the program's own waits for what has failed are a fraction of what they are.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

KILLABLE = {"Store": "store", "ComfyClient": "comfy_client"}
TICK = 0.005  # seconds between two looks at the loop
LATE = 0.001  # less is the resolution of its clock

# Seconds, by module and name. What people see (a message after 1 s, an edit every 2 s) stays.
SHORT_WAITS: dict[str, dict[str, Any]] = {
    "comfy_client": {"READ_SECONDS": 3.0, "FEED_PAUSES": (0.05, 0.5)},
    "report": {"RETRY_PAUSES": (0.05, 0.5)},
    "store": {"BUSY_SECONDS": 1.0},
}


def kill_at(point: str) -> None:
    """Wrap the named method so that the process dies right before or right after its call."""
    moment, _, name = point.partition(":")
    class_name, _, method_name = name.partition(".")
    owner = getattr(importlib.import_module(KILLABLE[class_name]), class_name)
    method = getattr(owner, method_name)

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method_name, wrapped)


def shorten_waits() -> None:
    """Set SHORT_WAITS, each in place of a constant of the same name."""
    for module_name, values in SHORT_WAITS.items():
        module = importlib.import_module(module_name)
        for name, value in values.items():
            assert hasattr(module, name), f"{module_name}.py has no {name} any more"
            setattr(module, name, value)


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
    code = compile(program.read_bytes(), str(program), "exec")
    point_to_stand_in()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(program.parent)
    if os.environ.get("SHORT_WAITS"):
        shorten_waits()
    if point := os.environ.get("KILL_AT"):
        kill_at(point)
    if path := os.environ.get("LOOP_STALL_FILE"):
        watch_loop(path)
    module = types.ModuleType("__main__")
    module.__file__ = str(program)
    sys.modules["__main__"] = module
    exec(code, vars(module))


main()
