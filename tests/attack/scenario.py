"""One scenario of the attack: a house, its people, what goes wrong there, and what must not be.

People order, cancel, look and delete, moderators block words and cancel what others ordered, and
the owner changes workflows, while ComfyUI, Discord, the network and the process fail.
"""

from __future__ import annotations

import contextlib
import functools
import random
import re
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.end_to_end.common import results
from tests.end_to_end.three_workflows import FLUX, FLUX_BINDINGS, STYLED, STYLED_BINDINGS
from tests.harness.bot import Bot
from tests.harness.house import House
from tests.harness.labels import AGAIN, CANCEL, DELETE, GENERATE
from tests.harness.steps import ask_for, labels, queued
from tests.standins.comfyui.nodes import LORAS
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.people import Person, Reply
from tests.standins.discord.schema import MANAGE_GUILD, MANAGE_MESSAGES, MEMBER_PERMISSIONS

COMFYUI_ROUTES = (
    *("POST /prompt", "GET /history", "GET /queue", "GET /view", "POST /queue"),
    *("GET /object_info", "WS /ws", "*"),
)
COMFYUI_FAULTS = ("reset", "502", "503", "429", "lost answer", "half json", "login page", "hang")
DISCORD_ROUTES = (
    ("POST", r"/channels/\d+/messages$"),
    ("PATCH", r"/channels/\d+/messages/\d+$"),
    ("DELETE", r"/channels/\d+/messages/\d+$"),
    ("GET", r"/channels/\d+/messages$"),
    ("POST", r"/interactions/"),
    ("POST", r"/webhooks/"),
    ("PATCH", r"/webhooks/"),
    ("POST", r"/users/@me/channels$"),
)
DISCORD_FAULTS: tuple[str | int, ...] = (502, 503, "reset", "lost answer", "rate limit", "hang")
RECOVERY = 120.0  # seconds within which everything is told once the faults are over
AWAY = 24.0  # seconds: longer than COMFY_TIMEOUT_MS, of which one job needs a small part
TIMEOUT = 20.0  # seconds
CLOCKS = (-49.0, -3.0, 0.0, 3.0, 49.0)  # hours by which this machine's clock may be wrong
REFUSALS = ((400, 20009), (403, 20009), (400, 200000))  # of what is in a message
BAD_PICTURES = ("403", "404", "svg", "too large")
SOON = 3.0  # seconds within which somebody waits for an answer before they give up

WORKFLOWS = {"flux": (FLUX, FLUX_BINDINGS), "styled": (STYLED, STYLED_BINDINGS)}
SHAPES = ("square", "portrait", "landscape", "wide", "tall")
WORDS = ("otter", "red fox", "ba*", "\u72d0", "\U0001f98a")
PROMPTS = (
    "an otter",
    "a red\u200b fox, (asleep:1.2)",
    "a badger",
    "\u72d0\U0001f98a",
    "@everyone <@1> [a](b",
)
REFUSED = ("Discord refused", "AutoMod")
MODERATED = "A moderator cancelled this picture"
# With what a job may fail here, by what was done to it.
EXPECTED = {
    "models": ("is not offered", "ComfyUI refuses the"),
    "loras": (
        "There is no LoRA",
        "fits several LoRAs",
        "There are no LoRAs",
        "is not offered",
        "ComfyUI refuses the",
        "does not accept the bot's workflow",
    ),  # the last: for one of the workflow's own
    "workflows": ("workflow cannot be used", "does not let its shape be chosen"),
    "failures": ("broken", "out of memory", "memory", "ComfyUI", "picture failed in"),
    "pictures": ("image server", "no picture", "larger than"),
}


class Scenario:
    """One house, its people, and what goes wrong."""

    def __init__(self, house: House, dice: random.Random, second: ComfyUIStandIn) -> None:
        self.house = house
        self.second = second  # in half of the scenarios the bot has it, too
        self.dice = dice
        self.replies: list[Reply] = []
        self.story: list[str] = []
        self.presses = 0
        self.restarts = 0  # of ComfyUI
        self.foreign: list[str] = []
        self.cleared = 0  # histories
        self.is_refused = False  # a message, for its content
        self.excuses: set[str] = set()  # keys of EXPECTED

    @property
    def bot(self) -> Bot:
        return self.house.bots[-1]

    def play(self) -> None:
        """From the first result to the last fault."""
        house, dice = self.house, self.dice
        self.furnish()
        house.set_clock(0)
        house.start()
        self.people = [house.discord.person(f"p{number}") for number in range(3)]
        may = MEMBER_PERMISSIONS | MANAGE_MESSAGES | MANAGE_GUILD
        self.boss = house.discord.person("boss", permissions=may)
        ask_for(self.people[0], house.channel, "a badger")
        self.presses += 1
        self.result = house.discord.wait_for_message(
            house.channel, lambda m: bool(m["attachments"]), 30
        )
        self.models = house.comfyui.models
        house.comfyui.seconds_per_step = dice.choice((0.0, 0.01, 0.04))
        self.order()
        actions = self.actions()
        for _ in range(dice.randint(8, 20)):
            dice.choice(actions)()
            self.wait(dice.choice((0.0, 0.05, 0.3, 1.2)))

    def furnish(self) -> None:
        """What the owner has set, and what kind of ComfyUI it is."""
        house, dice = self.house, self.dice
        for name, (workflow, bindings) in WORKFLOWS.items():
            house.installation.add_workflow(name, workflow, bindings)
        house.comfyui.picture_size = None
        house.comfyui.jobs_api = dice.random() < 0.5
        house.comfyui.interrupt_ignores_body = dice.random() < 0.3
        house.comfyui.preview_method = dice.choice(("none", "auto"))
        owner = house.discord.person("owner")
        owner.accepts_dms = dice.random() < 0.5
        house.settings |= {
            "ALERT_USER_ID": str(owner.id),
            "MAX_WAITING_PER_PERSON": dice.choice(("0", "2", "10")),
            "KEEP_METADATA": dice.choice(("on", "off")),
            "PREVIEWS": dice.choice(("on", "on", "off")),
            "COMFY_TIMEOUT_MS": str(int(1000 * TIMEOUT)),
        }
        if dice.random() < 0.5:
            self.note("two servers")
            house.settings |= {"COMFY_BASE_URL_2": self.second.url}
            self.second.picture_size = None

    def actions(self) -> list[Callable[[], None]]:
        """What happens, as often as it stands here."""
        actions: list[Callable[[], None]] = [self.order] * 4 + [self.fill_in_form] * 4
        actions += [self.tap_twice] * 2 + [self.cancel] * 2 + [self.moderate] * 2
        actions += [self.comfyui_fault] * 3 + [self.discord_fault] * 4
        actions += [self.kill] * 2 + [self.stop, self.restart_comfyui, self.comfyui_away]
        actions += [self.drop_gateway, self.foreign_prompt, self.block, self.look_at_mine]
        actions += [self.broken_frames, self.expire, self.delete, self.change_models]
        actions += [self.jump_clock] * 2 + [self.refuse_content] * 2 + [self.clear_history] * 2
        actions += [self.spoil_picture, self.fail_everything]
        if "COMFY_BASE_URL_2" in self.house.settings:
            actions += [self.second_fault] * 3 + [self.second_away] * 2 + [self.second_fails]
        actions += [self.comfyui_long_away] * (self.dice.random() < 0.4)  # it takes its time
        return [*actions, self.change_loras, self.change_workflow, self.fail_prompt]

    def wait(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def note(self, text: str) -> None:
        self.story.append(text)

    # People

    def order(self) -> None:
        self.note("order")
        self.presses += 1
        self.again(self.dice.choice(self.people))

    def again(self, person: Person) -> None:
        with contextlib.suppress(AssertionError):  # no bot is there, or the message is gone
            self.replies.append(person.press(self.result, AGAIN))

    def tap_twice(self) -> None:
        self.note("double tap")
        person = self.dice.choice(self.people)
        self.presses += 1
        for _ in range(2):
            self.again(person)

    def fill_in_form(self) -> None:
        person, dice = self.dice.choice(self.people), self.dice
        options = {"prompt": dice.choice(PROMPTS), "workflow": dice.choice(("", *WORKFLOWS))}
        options |= {"shape": dice.choice(SHAPES)} if dice.random() < 0.5 else {}
        options |= {"lora": dice.choice(LORAS)} if dice.random() < 0.5 else {}
        self.note(f"form {options}")
        with contextlib.suppress(AssertionError):
            form = person.slash("gen", self.house.channel, **options).wait(SOON)
            assert form.message is not None
            self.presses += 1
            self.replies.append(person.press(form.message, GENERATE))

    def cancel(self) -> None:
        buttons = [m for m in self.house.channel.messages if "job:cancel:" in str(m["components"])]
        for reply in self.replies:
            buttons += [m for m in reply.followups if "job:cancel:" in str(m["components"])]
        if buttons:
            message = self.dice.choice(buttons)
            self.note("cancel")
            for person in self.people:  # whoever asked for it
                with contextlib.suppress(AssertionError):
                    self.replies.append(person.press(message, CANCEL))

    def expire(self) -> None:
        """Somebody has dismissed an answer, or 15 minutes are over."""
        if self.replies:
            self.note("an answer expires")
            self.dice.choice(self.replies).expire()

    def look_at_mine(self) -> None:
        person = self.dice.choice(self.people)
        self.note("/mine")
        with contextlib.suppress(AssertionError):
            page = person.slash("mine", self.house.channel).wait(SOON).wait_message(bool, SOON)
            with contextlib.suppress(AssertionError):
                person.press(page, "Older").wait(SOON)
            self.replies.append(person.press(page, self.dice.choice(("Again 1", "Edit 2"))))
            self.presses += 1

    def delete(self) -> None:
        results = [m for m in self.house.channel.messages if "job:delete:" in str(m["components"])]
        others = [message for message in results if message["id"] != self.result["id"]]
        if others:
            self.note("delete")
            with contextlib.suppress(AssertionError):
                asked = self.boss.press(self.dice.choice(others), DELETE).wait(SOON)
                self.boss.press(asked.wait_message(bool, SOON), DELETE)

    # Moderators

    def moderate(self) -> None:
        self.note("/queue, and a moderator cancels")
        with contextlib.suppress(AssertionError):
            shown = self.boss.slash("queue", self.house.channel).wait(SOON)
            message = shown.wait_message(bool, SOON)
            menus = [part for row in message["components"] for part in row["components"]]
            menus = [part for part in menus if part["type"] == 3]
            for menu in menus:
                value = self.dice.choice(menu["options"])["value"]
                self.boss.select(message, menu["placeholder"], value)

    def block(self) -> None:
        what, word = self.dice.choice(("add", "remove")), self.dice.choice(WORDS)
        self.note(f"/blocked {what} {word}")
        with contextlib.suppress(AssertionError):
            self.boss.slash(f"blocked {what}", self.house.channel, term=word)

    # ComfyUI and its owner

    def change_models(self) -> None:
        self.note("other models")
        self.excuses.add("models")
        kept = [model for model in self.models if self.dice.random() < 0.7]
        self.house.comfyui.models = [*kept, f"new/{self.models[0]}"]
        if self.dice.random() < 0.5:
            with contextlib.suppress(AssertionError):
                self.boss.slash("refresh", self.house.channel)

    def change_loras(self) -> None:
        self.note("other LoRAs")
        self.excuses.add("loras")
        self.house.comfyui.loras = [name for name in LORAS if self.dice.random() < 0.7]

    def change_workflow(self) -> None:
        name = self.dice.choice([*WORKFLOWS])
        workflow, bindings = WORKFLOWS[name]
        params = self.dice.sample([*bindings], 2)
        changed = {param: [] if param in params else places for param, places in bindings.items()}
        if self.dice.random() < 0.3:
            changed["seed"] = ["nowhere.seed"]
        self.note(f"{name} has other bindings: {changed}")
        self.excuses |= {"workflows", "loras"}  # a workflow without a model takes no LoRA
        self.house.installation.add_workflow(name, workflow, changed)

    def fail_prompt(self) -> None:
        self.note("a prompt fails")
        self.excuses.add("failures")
        self.house.comfyui.fail_next("RuntimeError", "CUDA error: an illegal memory access")

    def broken_frames(self) -> None:
        self.note("broken frames")
        dice, feed = self.dice, self.house.comfyui._feed
        frames = [dice.randbytes(dice.choice((0, 1, 7, 8, 50, 5000))) for _ in range(20)]
        frames += [
            struct.pack(">II", kind, dice.getrandbits(32)) + b"\xff\xd8\xff" for kind in (1, 4)
        ]
        events: list[tuple[str, Any]] = [("preview", frame) for frame in frames]
        values: list[Any] = [10**400, float("nan"), -1, None, [], "9"]
        for value in values:
            step = {"node": "239", "value": value, "max": value}
            data = {**step, "nodes": {"239": {**step, "state": "running"}}}
            names = ("progress", "progress_state", "status", "execution_cached")
            events += [(event, data) for event in names]
        for event, sent in events:
            self.house.comfyui._in_loop(functools.partial(feed.send, event, sent))

    def fail_everything(self) -> None:
        self.note("the GPU is in an error state")
        self.excuses.add("failures")
        self.house.comfyui.error_state = ("RuntimeError", "CUDA error: unspecified launch failure")
        if self.dice.random() < 0.5:
            self.wait(1.5)
            self.restart_comfyui()

    def clear_history(self) -> None:
        self.note("ComfyUI's history is cleared")
        self.cleared += 1
        self.house.comfyui.histories_cleared += 1
        self.house.comfyui.tells_executed = self.dice.random() < 0.5

    def spoil_picture(self) -> None:
        kind, place = self.dice.choice(BAD_PICTURES), self.dice.randint(0, 1)
        self.note(f"two pictures, number {place + 1} is bad: {kind}")
        self.excuses.add("pictures")
        self.house.comfyui.pictures_per_prompt = self.dice.choice((2, 2, 1))
        self.house.comfyui.bad_pictures = {place: kind}

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

    def refuse_content(self) -> None:
        status, code = self.dice.choice(REFUSALS)
        person, channel = self.dice.choice(self.people), self.house.channel
        place, name = self.dice.choice(((channel.id, "channel"), (person._dm.id, "DM")))
        self.note(f"Discord refuses the content of pictures in the {name}: {status} {code}")
        self.is_refused = True
        path, times = rf"/channels/{place}/messages$", self.dice.randint(1, 3)
        self.house.discord.fault("POST", path, status, times, code=code, with_files=True)

    def jump_clock(self) -> None:
        hours = self.dice.choice(CLOCKS)
        self.note(f"the clock is wrong by {hours:g} hours")
        self.house.set_clock(hours)

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

    def second_fault(self) -> None:
        route, kind = self.dice.choice(COMFYUI_ROUTES), self.dice.choice(COMFYUI_FAULTS)
        self.note(f"second ComfyUI: {route} {kind}")
        self.second.fault(route, kind, self.dice.randint(1, 3), seconds=1)

    def second_away(self) -> None:
        self.note("the second ComfyUI goes away")
        self.restarts += 1
        self.second.go_down()
        self.wait(self.dice.choice((0.2, 1.5, 4.0)))
        if self.dice.random() < 0.5:
            self.second.restart()
        self.second.come_up()

    def second_fails(self) -> None:
        self.note("the second ComfyUI fails everything")
        self.excuses.add("failures")
        self.second.error_state = ("RuntimeError", "CUDA error: unspecified launch failure")

    def comfyui_long_away(self) -> None:
        """For longer than a job may take."""
        self.note("ComfyUI goes away for long")
        self.restarts += 1
        self.house.comfyui.go_down()
        self.wait(AWAY)
        if self.dice.random() < 0.5:
            self.house.comfyui.restart()
        self.house.comfyui.come_up()

    def drop_gateway(self) -> None:
        self.note("gateway lost")
        self.house.discord.drop_gateway(resumable=self.dice.random() < 0.5)

    def foreign_prompt(self) -> None:
        self.note("somebody else's prompt")
        self.foreign.append(self.house.comfyui.submit_foreign())

    def recover(self) -> None:
        """No more faults: wait until everything is told and ComfyUI has nothing left."""
        comfyui = self.house.comfyui
        comfyui.clear_faults()
        comfyui.bad_pictures, comfyui.histories_cleared = {}, 0
        if comfyui.error_state:
            self.restart_comfyui()
        self.second.clear_faults()
        if self.second.error_state:
            self.restarts += 1
            self.second.restart()
        self.house.discord.clear_faults()
        end = time.monotonic() + RECOVERY
        open_rows = (
            "SELECT (SELECT count(*) FROM jobs WHERE delivered_at IS NULL OR on_server)"
            " + (SELECT count(*) FROM left_prompts)"
        )
        while time.monotonic() < end:
            if self.bot.process.poll() is not None:  # as systemd would
                self.house.run(ready=False)
            busy = any(server.running or server.pending for server in (comfyui, self.second))
            if not busy and self.house.installation.rows(open_rows) == [(0,)]:
                return
            self.wait(0.1)

    def still_works(self) -> Iterator[str]:
        """What does not, once the owner has put everything back: as sentences."""
        self.house.comfyui.models, self.house.comfyui.loras = self.models, LORAS
        self.house.comfyui._failures.clear()
        for name, (workflow, bindings) in WORKFLOWS.items():
            self.house.installation.add_workflow(name, workflow, bindings)
        person = self.house.discord.person("newcomer")
        try:
            self.bot.wait_for_line("connected as")  # it may have been started just now
            self.house.comfyui.wait_for(lambda c: bool(c.listeners))
            answer = self.boss.slash("refresh", self.house.channel).wait()
            answer.wait_message(lambda m: "Lists refreshed" in m["content"])
            person.slash("queue", self.house.channel).wait().wait_message()
            for name in ("multisampler", *WORKFLOWS):
                self.order_with(person, name)
            mine = person.slash("mine", self.house.channel).wait().wait_message()
            pictures = len(results(self.house, person))
            if pictures != 3 or "1 to 3 of 3" not in str(mine["embeds"]):
                yield f"of three workflows {pictures} work, and /mine shows {mine['embeds']}"
        except AssertionError as error:
            yield f"afterwards it does not work: {error}"

    def order_with(self, person: Person, workflow: str) -> None:
        """A picture with a shape and a LoRA, from /gen to the end of the job."""
        options = {"prompt": "a hare", "shape": "wide", "lora": LORAS[0], "workflow": workflow}
        form = person.slash("gen", self.house.channel, **options).wait()
        assert form.message is not None
        person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
        self.presses += 1
        queued(person, form)
        self.house.settle()

    def faults(self) -> Iterator[str]:
        """What must not be, as sentences."""
        columns = "id, status, error_message, delivered_at, on_server, report_message_ids"
        rows = self.house.installation.rows(f"SELECT {columns} FROM jobs")
        posted_messages = self.posted_messages()
        created = Counter(mark for m in posted_messages for mark in marks(m))
        refused = [m["id"] for m in posted_messages if any(t in m["content"] for t in REFUSED)]
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
        for job_id, status, error, delivered, on_server, ids in rows:
            heads = created[f"job:delete:{job_id}"]
            is_refused = self.is_refused and any(name in str(ids) for name in refused)
            heads = heads or int(is_refused)  # in a message without buttons
            expected = 0 if status == "cancelled" and not error else 1
            if status not in ("completed", "failed", "cancelled") or not delivered:
                yield f"job {job_id} is {status}, delivered {delivered}"
            elif heads != expected:
                yield f"job {job_id} is {status} and was told {heads} times"
            pictures = [created[f"{job_id[:8]}-{number}"] for number in (1, 2)]
            is_shown = any(pictures) if "pictures" in self.excuses else pictures[0]
            if max(pictures) > 1 or (status == "completed" and not (is_shown or is_refused)):
                yield f"job {job_id}: its pictures were posted {pictures} times"
            if status == "failed" and not self.is_excused(error):
                yield f"job {job_id} failed: {error}"
            if status == "cancelled" and error and not error.startswith(MODERATED):
                yield f"job {job_id} was taken for removed by the owner"
            if alive[f"job:cancel:{job_id}"]:
                yield f"job {job_id}: its Generating message was left"
            if created[f"job:cancel:{job_id}"] > 1:
                yield f"job {job_id}: {created[f'job:cancel:{job_id}']} Generating messages"
            if on_server:
                yield f"job {job_id}: its prompt may be left in ComfyUI"
        comfyui = self.house.comfyui
        second = self.second
        left = {comfyui.running, *comfyui.pending, second.running, *second.pending}
        left -= {None, *self.foreign}
        if left:
            yield f"prompts left in ComfyUI: {left}"
        posted = Counter(prompt_id for prompt_id, _ in (*comfyui.posted, *second.posted))
        for prompt_id, count in posted.items():
            if count > 1 + self.restarts + self.cleared:
                yield f"prompt {prompt_id} was posted {count} times"
        output = "\n".join(bot.output for bot in self.house.bots)
        if "Traceback" in output:
            yield "a traceback in the log"
        yield from (f"Discord complains: {text}" for text in self.house.discord.violations)

    def posted_messages(self) -> list[dict[str, Any]]:
        """All that was ever posted in the channel and to people, as it was first."""
        places = [self.house.channel, *(person._dm for person in self.people)]
        entries = [entry for place in places for entry in place.history]
        return [entry["message"] for entry in entries if entry["event"] == "create"]

    def is_excused(self, error: str) -> bool:
        """Whether something was done for which a job may fail so."""
        excuses = [text for key in self.excuses for text in EXPECTED[key]]
        excuses += ["again and again"] if self.restarts + self.cleared > 2 else []
        return any(text in error for text in excuses)


def marks(message: dict[str, Any]) -> Iterator[str]:
    """The custom ids of a message's buttons, and its files without their suffix."""
    for row in message["components"]:
        yield from (str(component.get("custom_id")) for component in row["components"])
    yield from (Path(file["filename"]).stem for file in message["attachments"])
