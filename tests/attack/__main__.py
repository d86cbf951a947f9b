"""`python -m tests.attack`: random faults, kills and restarts, and then: was every job told once?

Each scenario starts both stand-ins and the unmodified bot, lets some people order and cancel
pictures while ComfyUI, Discord, the network and the process fail in random combinations, then lets
everything recover, and looks: no job lost, none doubled, no "Generating…" message left, no prompt
left in ComfyUI. A scenario is made from the seed and its number alone, and both are printed; the
moments at which things happen are the machine's, so it may take a few runs to see one again.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.harness.bot import Bot
from tests.harness.forks import POSSIBLE, ForkServer
from tests.harness.house import House
from tests.harness.steps import ask_for
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.people import Reply
from tests.standins.discord.server import DiscordStandIn

COMFYUI_ROUTES = ("POST /prompt", "GET /history", "GET /queue", "GET /view", "POST /queue", "*")
COMFYUI_FAULTS = ("reset", "502", "503", "429", "lost answer", "half json", "login page", "hang")
DISCORD_ROUTES = (
    ("POST", r"/channels/\d+/messages$"),
    ("PATCH", r"/channels/\d+/messages/\d+$"),
    ("DELETE", r"/channels/\d+/messages/\d+$"),
    ("GET", r"/channels/\d+/messages$"),
    ("POST", r"/interactions/"),
    ("POST", r"/webhooks/"),
)
DISCORD_FAULTS: tuple[str | int, ...] = (502, 503, "reset", "lost answer", "rate limit", "hang")
RECOVERY = 120.0  # seconds within which everything is told once the faults are over


class Scenario:
    """One house, its people, and what goes wrong."""

    def __init__(self, house: House, dice: random.Random) -> None:
        self.house = house
        self.dice = dice
        self.replies: list[Reply] = []
        self.story: list[str] = []
        self.presses = 0
        self.restarts = 0  # of ComfyUI
        self.foreign: list[str] = []

    @property
    def bot(self) -> Bot:
        return self.house.bots[-1]

    def play(self) -> None:
        """From the first result to the last fault."""
        house, dice = self.house, self.dice
        house.comfyui.jobs_api = dice.random() < 0.5
        house.comfyui.interrupt_ignores_body = dice.random() < 0.3
        house.start()
        self.people = [house.discord.person(f"p{number}") for number in range(3)]
        ask_for(self.people[0], house.channel, "the first")
        self.presses += 1
        self.result = house.discord.wait_for_message(
            house.channel, lambda m: bool(m["attachments"]), 30
        )
        house.comfyui.seconds_per_step = dice.choice((0.0, 0.01, 0.04))
        actions: list[Callable[[], None]] = [self.order] * 5 + [self.cancel] * 2
        actions += [self.comfyui_fault] * 3 + [self.discord_fault] * 4
        actions += [self.kill] * 2 + [self.stop, self.restart_comfyui, self.comfyui_away]
        actions += [self.drop_gateway, self.foreign_prompt]
        self.order()
        for _ in range(dice.randint(5, 14)):
            dice.choice(actions)()
            self.wait(dice.choice((0.0, 0.05, 0.3, 1.2)))

    def wait(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def note(self, text: str) -> None:
        self.story.append(text)

    def order(self) -> None:
        self.note("order")
        person = self.dice.choice(self.people)
        self.presses += 1
        with contextlib.suppress(AssertionError):  # no bot is there, or the message is gone
            self.replies.append(person.press(self.result, "Again"))

    def cancel(self) -> None:
        buttons = [m for m in self.house.channel.messages if "job:cancel:" in str(m["components"])]
        for reply in self.replies:
            buttons += [m for m in reply.followups if "job:cancel:" in str(m["components"])]
        if buttons:
            message = self.dice.choice(buttons)
            self.note("cancel")
            for person in self.people:  # whoever asked for it
                with contextlib.suppress(AssertionError):
                    self.replies.append(person.press(message, "Cancel"))

    def comfyui_fault(self) -> None:
        route, kind = self.dice.choice(COMFYUI_ROUTES), self.dice.choice(COMFYUI_FAULTS)
        self.note(f"ComfyUI {route} {kind}")
        seconds = self.dice.choice((0.5, 2.0)) if kind == "hang" else 0.0
        self.house.comfyui.fault(route, kind, self.dice.randint(1, 4), seconds=seconds)

    def discord_fault(self) -> None:
        (method, path), kind = self.dice.choice(DISCORD_ROUTES), self.dice.choice(DISCORD_FAULTS)
        self.note(f"Discord {method} {path} {kind}")
        seconds = self.dice.choice((0.3, 3.0))
        self.house.discord.fault(method, path, kind, self.dice.randint(1, 4), seconds=seconds)

    def kill(self) -> None:
        self.note("kill -9")
        self.bot.kill()
        self.wait(self.dice.choice((0.0, 0.5)))
        self.house.run(ready=False)
        self.wait(self.dice.choice((0.0, 0.5)))

    def stop(self) -> None:
        self.note("SIGTERM")
        self.bot.signal(15)
        self.wait(0.3)
        self.kill()

    def restart_comfyui(self) -> None:
        self.note("ComfyUI restarts")
        self.restarts += 1
        self.house.comfyui.restart()

    def comfyui_away(self) -> None:
        self.note("ComfyUI goes away")
        self.restarts += 1
        self.house.comfyui.go_down()
        self.wait(self.dice.choice((0.2, 1.5)))
        self.house.comfyui.come_up()

    def drop_gateway(self) -> None:
        self.note("gateway lost")
        self.house.discord.drop_gateway(resumable=self.dice.random() < 0.5)

    def foreign_prompt(self) -> None:
        self.note("somebody else's prompt")
        self.foreign.append(self.house.comfyui.submit_foreign())

    def recover(self) -> None:
        """No more faults: wait until everything is told and ComfyUI has nothing left."""
        self.house.comfyui.clear_faults()
        self.house.discord.clear_faults()
        end = time.monotonic() + RECOVERY
        open_rows = "SELECT count(*) FROM jobs WHERE delivered_at IS NULL OR on_server"
        while time.monotonic() < end:
            if self.bot.process.poll() is not None:  # as systemd would
                self.house.run(ready=False)
            busy = self.house.comfyui.running or self.house.comfyui.pending
            if not busy and self.house.installation.rows(open_rows) == [(0,)]:
                return
            self.wait(0.1)

    def faults(self) -> Iterator[str]:
        """What must not be, as sentences."""
        columns = "id, status, error_message, delivered_at, on_server"
        rows = self.house.installation.rows(f"SELECT {columns} FROM jobs")
        created: Counter[str] = Counter()
        for entry in self.house.channel.history:
            if entry["event"] == "create":
                created.update(marks(entry["message"]))
        alive = Counter(mark for m in self.house.channel.messages for mark in marks(m))
        if len(rows) > self.presses:
            yield f"{self.presses} orders became {len(rows)} jobs"
        promised = {
            match
            for reply in self.replies
            for message in reply.followups
            for match in re.findall(r"job:cancel:([0-9a-f-]{36})", str(message["components"]))
        }
        for missing in promised - {row[0] for row in rows}:
            yield f"job {missing} was queued and is lost"
        for job_id, status, error, delivered, on_server in rows:
            heads = created[f"job:again:{job_id}"]
            expected = 0 if status == "cancelled" and not error else 1
            if status not in ("completed", "failed", "cancelled") or not delivered:
                yield f"job {job_id} is {status}, delivered {delivered}"
            elif heads != expected:
                yield f"job {job_id} is {status} and was told {heads} times"
            if status == "completed" and created[f"{job_id[:8]}-1"] != 1:
                yield f"job {job_id}: its picture was posted {created[f'{job_id[:8]}-1']} times"
            if status == "failed" and not (self.restarts > 2 and "again and again" in error):
                yield f"job {job_id} failed: {error}"
            if status == "cancelled" and error:
                yield f"job {job_id} was taken for removed by the owner"
            if alive[f"job:cancel:{job_id}"]:
                yield f"job {job_id}: its Generating message was left"
            if created[f"job:cancel:{job_id}"] > 1:
                yield f"job {job_id}: {created[f'job:cancel:{job_id}']} Generating messages"
            if on_server:
                yield f"job {job_id}: its prompt may be left in ComfyUI"
        comfyui = self.house.comfyui
        left = {comfyui.running, *comfyui.pending} - {None, *self.foreign}
        if left:
            yield f"prompts left in ComfyUI: {left}"
        posted = Counter(prompt_id for prompt_id, _ in comfyui.posted)
        for prompt_id, count in posted.items():
            if count > 1 + self.restarts:
                yield f"prompt {prompt_id} was posted {count} times"
        output = "\n".join(bot.output for bot in self.house.bots)
        if "Traceback" in output:
            yield "a traceback in the log"
        yield from (f"Discord complains: {text}" for text in self.house.discord.violations)


def marks(message: dict[str, Any]) -> Iterator[str]:
    """The custom ids of a message's buttons, and its files without their suffix."""
    for row in message["components"]:
        yield from (str(component.get("custom_id")) for component in row["components"])
    yield from (Path(file["filename"]).stem for file in message["attachments"])


def attack(seed: int, number: int, forks: ForkServer | None) -> list[str]:
    """One scenario; what was wrong after it, with its story and the log."""
    dice = random.Random(f"{seed}:{number}")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        DiscordStandIn() as discord,
        ComfyUIStandIn() as comfyui,
    ):
        discord.rate_limits = False
        house = House(Path(folder) / "comfygen", discord, comfyui, forks)
        scenario = Scenario(house, dice)
        try:
            scenario.play()
            scenario.recover()
            wrong = list(scenario.faults())
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
