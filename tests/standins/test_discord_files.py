"""Files of people in the stand-in for Discord: with messages, their menus and modals, as the real
discord.py reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.standins.discord.people import File
from tests.standins.discord.server import DiscordStandIn

BOT = """
import os, discord, yarl
discord.http.Route.BASE = os.environ["API_URL"]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["GATEWAY_URL"])
client = discord.Client(intents=discord.Intents.default())
tree = discord.app_commands.CommandTree(client)

class Window(discord.ui.Modal, title="A file"):
    file = discord.ui.Label(text="File", component=discord.ui.FileUpload(custom_id="file"))
    async def on_submit(self, interaction):
        (file,) = self.file.component.values
        text = (await file.read()).decode()
        await interaction.response.send_message(f"{file.filename}: {text}", ephemeral=True)

@tree.context_menu(name="Read this")
async def read(interaction, message: discord.Message):
    texts = [(await file.read()).decode() for file in message.attachments]
    if not texts:
        return await interaction.response.send_modal(Window())
    await interaction.response.send_message(", ".join(texts), ephemeral=True)

@client.event
async def setup_hook():
    await tree.sync()

client.run(os.environ["TOKEN"], log_handler=None)
"""


@pytest.fixture(scope="module")
def discord() -> Iterator[DiscordStandIn]:
    with DiscordStandIn() as standin:
        urls = {"API_URL": standin.api_url, "GATEWAY_URL": standin.gateway_url}
        environment = {**os.environ, **urls, "TOKEN": standin.token}
        bot = subprocess.Popen([sys.executable, "-c", BOT], env=environment)
        try:
            standin.wait_for(lambda s: s.connected, what="the bot")
            yield standin
        finally:
            bot.kill()
            bot.wait()


def test_a_messages_menu_reads_the_files_of_a_message(discord: DiscordStandIn) -> None:
    mira, channel = discord.person(), discord.guild.add_channel()
    message = mira.post(channel, "two", File("a.txt", b"owl"), File("b.txt", b"hare"))
    assert mira.use_app("Read this", message).wait().texts == ["owl, hare"]
    for command in discord.commands[None]:
        assert (command["type"], command["description"]) == (3, "")
    with pytest.raises(AssertionError, match="isn't offered"):
        mira.slash("Read this", channel)
    assert discord.violations == []


def test_a_modal_takes_as_many_files_as_it_asks_for(discord: DiscordStandIn) -> None:
    mira, channel = discord.person(), discord.guild.add_channel()
    modal = mira.use_app("Read this", mira.post(channel, "none")).wait().modal
    assert modal is not None
    for files in ((), (File("a.txt", b"owl"), File("b.txt", b"hare"))):
        with pytest.raises(AssertionError, match="so many files are not taken"):
            mira.submit(modal, *files)
    assert mira.submit(modal, File("a.txt", b"owl")).wait().texts == ["a.txt: owl"]
    assert discord.violations == []
