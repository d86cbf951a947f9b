"""Fixtures: a house with one running bot that the tests of a module share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.harness.forks import ForkServer
from tests.harness.house import House
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.server import DiscordStandIn


@pytest.fixture(scope="module")
def furnish() -> Callable[[House], None]:
    """What a module puts into its house before the bot starts: nothing, if it does not say."""
    return lambda house: None


@pytest.fixture(scope="module")
def running_house(
    tmp_path_factory: pytest.TempPathFactory,
    forks: ForkServer | None,
    furnish: Callable[[House], None],
) -> Iterator[House]:
    """A house with a running bot, and a spare channel for each test of a module."""
    with DiscordStandIn() as discord, ComfyUIStandIn() as comfyui:
        house = House(tmp_path_factory.mktemp("house") / "comfygen", discord, comfyui, forks)
        # A channel for each test: Discord allows five messages in five seconds in one.
        house.spare = [discord.guild.add_channel(f"pictures-{number}") for number in range(99)]
        furnish(house)
        ids = (house.channel.id, *(channel.id for channel in house.spare))
        house.start(ALLOWED_CHANNEL_IDS=",".join(map(str, ids)))
        yield house
        house.check()


@pytest.fixture
def shared(running_house: House) -> Iterator[House]:
    """The house that the tests of a module share: each has a channel of its own there, brings its
    own people, and finds the bot idle, its feed connected, and ComfyUI as it was at first."""
    running_house.channel = running_house.spare.pop()
    yield running_house
    comfyui = running_house.comfyui
    comfyui.release()
    comfyui.clear_faults()
    comfyui.seconds_per_step = 0.0
    comfyui.picture_bytes = 0
    comfyui.pictures_per_prompt = None
    comfyui.saved_as = ("images", ".png")
    comfyui.progress_state = True
    running_house.settle()
    comfyui.wait_for(lambda c: bool(c.listeners))  # the feed, if the test has cut it
