"""One test's house: the two stand-ins, an installation between them, and its bots."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.harness.bot import Bot, Installation, settings_for
from tests.harness.forks import ForkServer
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.people import Channel
from tests.standins.discord.server import DiscordStandIn


class House:
    """Both stand-ins, one installation between them, and the bots started from it: with `forks`
    quickly, else as an owner does."""

    def __init__(
        self,
        folder: Path,
        discord: DiscordStandIn,
        comfyui: ComfyUIStandIn,
        forks: ForkServer | None = None,
    ) -> None:
        self.discord = discord
        self.comfyui = comfyui
        self.channel: Channel = discord.guild.add_channel("pictures")
        self.installation = Installation(folder)
        self.settings = settings_for(discord, comfyui, self.channel.id)
        self.spare: list[Channel] = []
        self.bots: list[Bot] = []
        self._forks = forks
        self._clock = folder.with_name("clock")
        self._breaks = False

    def start(self, *, ready: bool = True, offline: bool = False, **changes: str) -> Bot:
        """A bot with these changes to its settings, connected if `ready`."""
        self.installation.configure({**self.settings, **changes})
        return self.run(ready=ready, offline=offline)

    def run(
        self,
        *,
        ready: bool = True,
        offline: bool = False,
        environment: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> Bot:
        """A bot with the settings as they stand in the installation."""
        given = {"SHORT_WAITS": "1", **(environment or {})}
        if self._clock.exists():
            given["CLOCK_FILE"] = str(self._clock)
        self._breaks |= "BREAK_AT" in given
        bot = Bot(
            self.installation,
            None if offline else self.discord,
            environment=given,
            arguments=arguments,
            forks=self._forks,
        )
        self.bots.append(bot)
        if ready:
            bot.wait_for_line("connected as")
        return bot

    def set_clock(self, hours: float) -> None:
        """From now on the clock of the bot's machine is wrong by so many hours: of the bots that
        are started after the first call, and of those at once."""
        new = self._clock.with_suffix(".new")
        new.write_text(str(hours * 3600), "ascii")
        new.replace(self._clock)

    def settle(self, seconds: float = 20.0) -> None:
        """Wait until every job has been reported."""
        deadline = time.monotonic() + seconds
        query = "SELECT count(*) FROM jobs WHERE delivered_at IS NULL"
        while self.installation.rows(query) != [(0,)]:
            assert time.monotonic() < deadline, "some jobs were never reported"
            threading.Event().wait(0.02)

    def check(self) -> None:
        """What must hold after every test, whatever it was about."""
        for bot in self.bots:
            if bot.process.poll() is None:
                bot.kill()
        output = "\n".join(bot.output for bot in self.bots)
        assert self.discord.violations == []
        assert self._breaks or "Traceback" not in output, output
        assert self.discord.token not in output
