"""What several modules of the end-to-end tests do and look up."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.harness.bot import Bot
from tests.harness.house import House
from tests.harness.labels import EDIT_PROMPTS, GENERATE
from tests.harness.steps import fill_in, generate, labels, open_form, text_of
from tests.standins.discord.people import Modal, Person, Reply

MANAGE_GUILD = 1 << 5
POST_MESSAGE = r"/channels/\d+/messages$"
SOON = 20.0  # seconds, of a stop that has a grace of three times as many
LONG_GRACE = {"SHUTDOWN_GRACE_MS": "60000"}


def run(house: House, *arguments: str, offline: bool = False, **changes: str) -> Bot:
    """The program with these arguments, run to its end."""
    house.installation.configure({**house.settings, **changes})
    bot = house.run(ready=False, offline=offline, arguments=arguments)
    bot.wait(60)
    return bot


def seconds_to_stop(bot: Bot) -> float:
    """How long a stop with exit code 0 takes."""
    began = time.monotonic()
    assert bot.stop() == 0
    return time.monotonic() - began


def result_of(house: House, person: Person, number: int = 1) -> dict[str, Any]:
    """A person's result in the channel, once it is there."""

    def mine() -> list[dict[str, Any]]:
        start = f"<@{person.id}>"
        return [m for m in house.channel.messages if m["content"].startswith(start)]

    house.discord.wait_for(lambda _: len(mine()) >= number)
    return mine()[number - 1]


def jobs_of(house: House, person: Person) -> int:
    """How many rows a person has."""
    query = "SELECT count(*) FROM jobs WHERE discord_user_id = ?"
    return int(house.installation.rows(query, str(person.id))[0][0])


def results(house: House, person: Person) -> list[dict[str, Any]]:
    """The results a person has in the channel."""
    mention = f"<@{person.id}>"
    return [
        message
        for message in house.channel.messages
        if message["content"] == mention and message["attachments"]
    ]


def press_generate(house: House, person: Person, prompt: str = "a fox") -> None:
    """Up to the press of Generate, without waiting for its answer."""
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt=prompt)
    person.press(form.message, GENERATE)


def expect_exactly_one_result(house: House, person: Person) -> None:
    """Once all is done, the channel has that and nothing else."""
    house.discord.wait_for(lambda d: bool(results(house, person)))
    house.settle()
    (message,) = results(house, person)
    (attachment,) = message["attachments"]
    assert house.discord.attachment_bytes(attachment) in house.comfyui.pictures.values()
    assert [m for m in house.channel.messages if m is not message] == []


def refresh(house: House) -> None:
    """/refresh, up to its answer."""
    permissions = house.discord.person().permissions | MANAGE_GUILD
    owner = house.discord.person("owner", permissions=permissions)
    answer = owner.slash("refresh", house.channel).wait()
    answer.wait_message(lambda message: "Lists refreshed" in message["content"])


@contextlib.contextmanager
def models_of_comfyui(house: House, models: list[str]) -> Iterator[None]:
    """ComfyUI offers these models; the bot does not know yet. Later all is as it was."""
    before = house.comfyui.models
    house.comfyui.models = models
    try:
        yield
    finally:
        house.settle()
        house.comfyui.models = before
        refresh(house)


def until(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    """Ask again and again, until it is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it never was"


def offers(house: House, person: Person, name: str) -> bool:
    """Whether the bot offers a model of this name."""
    return bool(person.autocomplete("gen", house.channel, "model", name))


def opened_modal(person: Person, form: Reply, label: str = EDIT_PROMPTS) -> Modal:
    """The modal behind a button of a form, or of a complaint."""
    assert form.message is not None
    modal = person.press(form.message, label).wait().modal
    assert modal is not None
    return modal


def typed_in(modal: Modal) -> dict[str, Any]:
    """What stands in a modal."""
    inputs = [label["component"] for label in modal["components"]]
    return {given["custom_id"]: given.get("value") for given in inputs}


def plain(message: dict[str, Any]) -> str:
    """What people read of a message, without its escapes."""
    return text_of(message).replace("\\", "")


def pause(seconds: float) -> None:
    """Let so much time pass."""
    threading.Event().wait(seconds)


def order(house: House, person: Person, prompt: str = "a fox") -> Reply:
    """From /gen to the press of Generate and its answer."""
    form = open_form(person, house.channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt=prompt)
    return generate(person, form)


def statuses(house: House) -> list[str]:
    """Of all jobs, in their order."""
    return [row[0] for row in house.installation.rows("SELECT status FROM jobs ORDER BY rowid")]


def expect_a_soon_end(bot: Bot) -> None:
    """SIGTERM ends it long before the grace is over."""
    began = time.monotonic()
    bot.signal(signal.SIGTERM)
    try:
        assert bot.wait(SOON) == 0
    except subprocess.TimeoutExpired:
        bot.kill()
    assert time.monotonic() - began < SOON, "the stop waits for what only tries again"
