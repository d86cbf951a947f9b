"""What a person does in Discord, as steps for the end-to-end tests and the demo."""

from __future__ import annotations

from typing import Any

from tests.harness.labels import DELETE, EDIT_PROMPTS, GENERATE
from tests.standins.discord.people import Channel, Person, Reply

Message = dict[str, Any]


def open_form(person: Person, channel: Channel) -> Reply:
    """/gen, up to the form."""
    reply = person.slash("gen", channel).wait()
    assert reply.message is not None
    return reply


def menu(message: Message, placeholder: str) -> dict[str, Any]:
    """A select menu of a message."""
    for row in message["components"]:
        for component in row["components"]:
            if component.get("placeholder") == placeholder:
                return dict(component)
    raise AssertionError(f"no menu {placeholder!r} in {message['components']}")


def labels(message: Message, placeholder: str) -> list[str]:
    """What a menu shows, in order; the chosen entry without the menu's name before it."""
    options = menu(message, placeholder)["options"]
    return [option["label"].removeprefix(f"{placeholder}: ") for option in options]


def chosen(message: Message, placeholder: str) -> list[str]:
    """What a menu shows as chosen, without the menu's name before it."""
    options = menu(message, placeholder)["options"]
    names = labels(message, placeholder)
    return [name for name, o in zip(names, options, strict=True) if o.get("default")]


def fields(message: Message) -> dict[str, str]:
    """The fields of a message's first embed."""
    return {field["name"]: field["value"] for field in message["embeds"][0].get("fields", [])}


def fill_in(person: Person, form: Reply, **texts: str) -> Reply:
    """Edit Prompts & Settings, type, submit; the answer to the submitted modal."""
    assert form.message is not None
    opened = person.press(form.message, EDIT_PROMPTS).wait()
    assert opened.modal is not None
    return person.submit(opened.modal, **texts).wait()


def generate(person: Person, form: Reply) -> Reply:
    """Press Generate; returns once the bot has said more than "wait"."""
    assert form.message is not None
    return person.press(form.message, GENERATE).wait()


def queued(person: Person, form: Reply) -> Message:
    """Press Generate; the "Queued!" message."""
    return generate(person, form).wait_shown(lambda message: "Queued!" in message["content"])


def ask_for(person: Person, channel: Channel, prompt: str, **texts: str) -> Message:
    """The whole way from /gen to "Queued!"."""
    form = open_form(person, channel)
    assert form.message is not None
    person.select(form.message, "Model", labels(form.message, "Model")[0]).wait()
    fill_in(person, form, positive_prompt=prompt, **texts)
    return queued(person, form)


def ask_to_delete(person: Person, result: Message) -> Message:
    """Press Delete; the question that comes before anything is deleted."""
    reply = person.press(result, DELETE).wait()
    return reply.wait_message(lambda message: "for everybody?" in message["content"])


def delete(person: Person, result: Message) -> Reply:
    """Press Delete, and Delete once more under the question; the answer to that."""
    return person.press(ask_to_delete(person, result), DELETE).wait()


def text_of(message: Message) -> str:
    """Everything a person can read in a message."""
    parts = [message["content"]]
    for embed in message["embeds"]:
        parts += [embed.get("title", ""), embed.get("description", "")]
        parts += [f"{field['name']}: {field['value']}" for field in embed.get("fields", [])]
    return "\n".join(part for part in parts if part)
