"""`python -m tests.attack`: random faults, kills and restarts, and then: was every job told once?

Each scenario starts both stand-ins and the unmodified bot, lets some people order and cancel
pictures while ComfyUI, Discord, the network and the process fail in random combinations, then lets
everything recover, and looks: no job lost, none doubled, no "Generating…" message left, no prompt
left in ComfyUI. A scenario is made from the seed and its number alone, and both are printed; the
moments at which things happen are the machine's, so it may take a few runs to see one again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.attack.scenario import Scenario
from tests.harness.forks import POSSIBLE, ForkServer
from tests.harness.house import House
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.server import DiscordStandIn


def attack(seed: int, number: int, forks: ForkServer | None) -> list[str]:
    """One scenario; what was wrong after it, with its story and the log."""
    dice = random.Random(f"{seed}:{number}")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        DiscordStandIn() as discord,
        ComfyUIStandIn() as comfyui,
        ComfyUIStandIn() as second,
    ):
        discord.rate_limits = False
        house = House(Path(folder) / "comfygen", discord, comfyui, forks)
        scenario = Scenario(house, dice, second)
        try:
            scenario.play()
            scenario.recover()
            wrong = [*scenario.still_works(), *scenario.faults()]
        finally:
            for bot in house.bots:
                if bot.process.poll() is None:
                    bot.kill()
        if wrong:
            log = [f"--- bot {n}\n{bot.output}" for n, bot in enumerate(house.bots, 1)]
            wrong += ["story: " + "; ".join(scenario.story), *log]
        return wrong


def main() -> int:
    """The exit code: 0 if nothing was wrong in any scenario."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", type=int, help="the number of one scenario")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    forks = ForkServer() if POSSIBLE else None
    end = time.monotonic() + 60 * options.minutes
    number = failed = 0
    while time.monotonic() < end:
        wrong = attack(options.seed, number if options.only is None else options.only, forks)
        if wrong:
            failed += 1
            print(f"scenario {options.seed}:{number}", *wrong, sep="\n  ", flush=True)
        number += 1
        if options.only is not None:
            break
    if forks is not None:
        forks.close()
    print(f"seed {options.seed}: {number} scenarios, {failed} went wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
