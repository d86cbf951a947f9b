"""Run an unmodified comfygen.py against a stand-in for Discord.

`python launch.py PATH_TO_COMFYGEN [arguments]`: points discord.py's two addresses at the stand-in,
and then does what `python comfygen.py` does. DISCORD_API and DISCORD_GATEWAY hold the addresses.
KILL_AT, for the crash tests, names a point between two statements at which the process kills
itself: `before:Class.method` or `after:Class.method` of one of the modules below comfygen.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import discord
import discord.gateway
import discord.http
import yarl

KILLABLE = {"Store": "store", "ComfyClient": "comfy_client"}


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


def main() -> None:
    discord.http.Route.BASE = os.environ["DISCORD_API"]
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["DISCORD_GATEWAY"])
    # discord.py waits 2 s for more servers after the last one; the stand-in sends all at once.
    discord.Client.__init__ = functools.partialmethod(  # type: ignore[method-assign]
        discord.Client.__init__, guild_ready_timeout=0.2
    )
    program = Path(sys.argv[1]).resolve()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(program.parent)
    if point := os.environ.get("KILL_AT"):
        kill_at(point)
    runpy.run_path(str(program), run_name="__main__")


main()
