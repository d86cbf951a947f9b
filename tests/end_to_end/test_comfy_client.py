"""A ComfyUI behind a prefix and a key, as the owner sets it up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.forks import ForkServer
from tests.harness.house import House
from tests.harness.steps import ask_for, text_of
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.server import DiscordStandIn

KEY = "s3cr3t-key-of-the-proxy"


@pytest.fixture
def house_behind_a_proxy(tmp_path: Path, forks: ForkServer | None) -> Iterator[House]:
    with (
        DiscordStandIn() as discord,
        ComfyUIStandIn(prefix="/comfy/direct", required_headers={"X-Api-Key": KEY}) as comfyui,
    ):
        house = House(tmp_path / "comfygen", discord, comfyui, forks)
        yield house
        house.check()


def test_the_whole_flow_works_behind_a_prefix_and_a_required_header(
    house_behind_a_proxy: House,
) -> None:
    house = house_behind_a_proxy
    house.comfyui.seconds_per_step = 0.04
    bot = house.start(COMFY_HEADERS=f"X-Api-Key: {KEY}; X-Other: 1", LOG_LEVEL="debug")
    person = house.discord.person()
    ask_for(person, house.channel, "behind a proxy")
    house.discord.wait_for_message(house.channel, lambda m: "%" in text_of(m))  # the WebSocket too
    house.discord.wait_for_message(house.channel, lambda m: bool(m["attachments"]))
    bot.stop()
    assert KEY not in bot.output


def test_without_the_header_the_start_is_refused(house_behind_a_proxy: House) -> None:
    bot = house_behind_a_proxy.start(ready=False)
    assert bot.wait() == 1
    assert "COMFY_BASE_URL" in bot.output
