"""The least a discord.py bot can be: what `tests.bench` holds comfygen.py against.

Connects with the same intents and registers the same commands. `/gen` answers with a form of the
same size, which shows what is chosen in it. `/queue` fetches PICTURE_URL and posts it, PICTURES
times. With SEND_FILE set the client sends that file SEND_TIMES times to SEND_CHANNEL as soon as it
is connected, and prints the monotonic time before each.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import discord
from discord import app_commands

PAUSE = 0.2  # seconds between two files
MENUS = ("Model", "Sampler", "Scheduler", "Shape")
VALUES = ["euler", *(f"value {number}" for number in range(24))]  # as many as a menu can hold


class Menu(discord.ui.Select["Form"]):
    """One menu of a form."""

    def __init__(self, name: str) -> None:
        options = [discord.SelectOption(label=value) for value in VALUES]
        super().__init__(placeholder=name, options=options)

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Show the choice in the menu and in the embed."""
        assert self.view is not None
        for option in self.options:
            option.default = option.value == self.values[0]
        self.view.chosen[str(self.placeholder)] = self.values[0]
        await interaction.response.edit_message(embed=self.view.embed(), view=self.view)


class Form(discord.ui.View):
    """Four menus and two buttons, as in the bot's form."""

    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.chosen = dict.fromkeys(MENUS, VALUES[0])
        for name in MENUS:
            self.add_item(Menu(name))
        for label in ("Edit Prompts & Settings", "Generate"):
            self.add_item(discord.ui.Button(label=label))

    def embed(self) -> discord.Embed:
        """Return what is chosen."""
        embed = discord.Embed(title="Your picture", description="Only the prompt is required.")
        embed.add_field(name="Prompt", value="not written yet", inline=False)
        embed.add_field(name="Negative prompt", value="none", inline=False)
        for name, value in self.chosen.items():
            embed.add_field(name=name, value=value)
        for name in ("Steps", "CFG", "Seed"):
            embed.add_field(name=name, value="20")
        return embed


@app_commands.command(description="Make a picture on this server's own GPU")
@app_commands.describe(prompt="What the picture shows", model="A model's name", seed="A seed")
async def gen(
    interaction: discord.Interaction[Any],
    prompt: app_commands.Range[str, 1, 4000] | None = None,
    model: str | None = None,
    seed: str | None = None,
) -> None:
    """Answer with a form."""
    form = Form()
    await interaction.response.send_message(embed=form.embed(), view=form, ephemeral=True)


@gen.autocomplete("model")
async def complete(
    interaction: discord.Interaction[Any], current: str
) -> list[app_commands.Choice[str]]:
    """Offer no choices."""
    return []


@app_commands.command(description="What is being made, who waits, and your own jobs")
async def queue(interaction: discord.Interaction[Any]) -> None:
    """Fetch the pictures and post them into the channel, one after another."""
    await interaction.response.send_message("Queued!", ephemeral=True)
    assert isinstance(interaction.channel, discord.TextChannel)
    async with aiohttp.ClientSession() as session:
        for _ in range(int(os.environ["PICTURES"])):
            async with session.get(os.environ["PICTURE_URL"]) as response:
                picture = io.BytesIO(await response.read())
            await interaction.channel.send(file=discord.File(picture, filename="picture.png"))


@app_commands.command(description="Read ComfyUI's models and samplers again")
@app_commands.default_permissions(manage_guild=True)
async def refresh(interaction: discord.Interaction[Any]) -> None:
    """Do nothing."""


class BareBot(discord.Client):
    """A client that connects, registers its commands, and sends SEND_FILE if it is set."""

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
