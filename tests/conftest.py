"""Fixtures: the two stand-ins, installations, and bots that never outlive their test."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.forks import POSSIBLE, ForkServer
from tests.harness.house import House
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.server import DiscordStandIn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
WORKERS = 6  # more than most machines have cores for: the tests wait more than they work

# A shell starts a background job with these ignored, and the bots would inherit it.
for name in ("SIGINT", "SIGQUIT", "SIGTERM"):
    if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests: one, with --pdb and -s, if a file is named."""
    return 0 if any(".py" in argument for argument in config.args) else WORKERS


@pytest.fixture
def comfyui() -> Iterator[ComfyUIStandIn]:
    with ComfyUIStandIn() as server:
        yield server


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer | None]:
    """What starts the bots quickly, where that can be done."""
    if not POSSIBLE:
        yield None
        return
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def house(tmp_path: Path, comfyui: ComfyUIStandIn, forks: ForkServer | None) -> Iterator[House]:
    """A house of one test's own."""
    with DiscordStandIn() as discord:
        house = House(tmp_path / "comfygen", discord, comfyui, forks)
        yield house
        house.check()
