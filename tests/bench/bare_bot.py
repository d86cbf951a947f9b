"""The least a discord.py bot can be: what `tests.bench` holds comfygen.py against.

Connects with the same intents and registers the same commands, which do nothing here. With
SEND_FILE set it then sends that file SEND_TIMES times to SEND_CHANNEL, and prints the monotonic
time before each.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from pathlib import Path
from typing import Any

import discord
from discord import app_commands

PAUSE = 0.2  # seconds between two files


@app_commands.command(description="Make a picture on this server's own GPU")
@app_commands.describe(prompt="What the picture shows", model="A model's name", seed="A seed")
async def gen(
    interaction: discord.Interaction[Any],
    prompt: app_commands.Range[str, 1, 4000] | None = None,
    model: str | None = None,
    seed: str | None = None,
) -> None:
    """Nothing."""


@gen.autocomplete("model")
async def complete(
    interaction: discord.Interaction[Any], current: str
) -> list[app_commands.Choice[str]]:
    """No choices."""
    return []


@app_commands.command(description="What is being made, who waits, and your own jobs")
async def queue(interaction: discord.Interaction[Any]) -> None:
    """Nothing."""


@app_commands.command(description="Read ComfyUI's models and samplers again")
@app_commands.default_permissions(manage_guild=True)
async def refresh(interaction: discord.Interaction[Any]) -> None:
    """Nothing."""


class BareBot(discord.Client):
    """Connects, and sends a file where it is told to."""

    def __init__(self) -> None:
        super().__init__(intents=discord.Intents(guilds=True))
        self.tree = app_commands.CommandTree(self)
        commands: list[app_commands.Command[Any, ..., Any]] = [gen, queue, refresh]
        for command in commands:
            self.tree.add_command(command)

    async def setup_hook(self) -> None:
        await self.tree.sync()

    async def on_ready(self) -> None:
        print("connected as", self.user)
        path = os.environ.get("SEND_FILE")
        if path is None:
            return
        channel = self.get_partial_messageable(int(os.environ["SEND_CHANNEL"]))
        picture = await asyncio.to_thread(Path(path).read_bytes)
        for _ in range(int(os.environ["SEND_TIMES"])):
            await asyncio.sleep(PAUSE)
            print("sends", time.monotonic())
            await channel.send(file=discord.File(io.BytesIO(picture), filename="picture.png"))
        print("sent all")


if __name__ == "__main__":
    BareBot().run(os.environ["DISCORD_TOKEN"])
