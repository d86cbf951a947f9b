"""`python -m tests.demo`: one person, /gen, and the picture; without Discord and without a GPU.

Starts both stand-ins and the unmodified bot, plays a person through the form, prints what that
person sees as a conversation, and saves the picture. The exit code is 0 only if it arrived.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bot import Bot, Installation, settings_for
from tests.comfyui_standin import ComfyUIStandIn
from tests.discord_standin import DiscordStandIn, Person
from tests.steps import chosen, fields, menu, open_form

OUTPUT = Path("demo-output")
PROMPT = "a red fox asleep in fresh snow, morning light"


class Conversation:
    """Prints a chat as it happens."""

    def note(self, text: str) -> None:
        """Something that happens outside of the chat."""
        print(f"\n--- {text}")

    def does(self, person: Person, text: str) -> None:
        """What a person does."""
        print(f"\n{person.name} {text}")

    def says(self, message: dict[str, Any], *, alone_to: Person | None = None) -> None:
        """A message of the bot as it now stands."""
        whom = f" (only {alone_to.name} sees this)" if alone_to else ""
        print(f"\nComfyGen{whom}:")
        for line in self._lines(message):
            print(f"    {line}")

    def opens(self, modal: dict[str, Any]) -> None:
        """A modal on the person's screen."""
        print(f"\n    +-- {modal['title']} " + "-" * 40)
        for label in modal["components"]:
            value = label["component"].get("value") or ""
            print(f"    | {label['label']:<16} [{value}]  ({label['description']})")
        print("    +" + "-" * 62)

    def _lines(self, message: dict[str, Any]) -> Iterator[str]:
        names = {user["id"]: user["username"] for user in message["mentions"]}
        content = re.sub(r"<@(\d+)>", lambda m: f"@{names[m[1]]}", message["content"])
        yield from map(plain, filter(None, content.splitlines()))
        for embed in message["embeds"]:
            parts = [embed.get("title"), embed.get("description")]
            parts += [f"{f['name'] + ':':<17}{f['value']}" for f in embed.get("fields", [])]
            for part in filter(None, parts):
                yield f"| {plain(part)}"
        for row in message["components"]:
            yield "  ".join(control(component) for component in row["components"])
        for attachment in message["attachments"]:
            yield f"[picture {attachment['filename']}, {attachment['size']:,} bytes]"


def plain(text: str) -> str:
    """Discord's markdown as it reads on the screen."""
    return re.sub(r"\\(.)|\*\*|`", lambda match: match[1] or "", text)


def control(component: dict[str, Any]) -> str:
    """A button or a menu in text."""
    if "options" not in component:
        return f"[ {component['label']} ]"
    shown = next((o["label"] for o in component["options"] if o.get("default")), None)
    return f"[ {component['placeholder']}: {shown or 'choose'}  v ]"


def play(discord: DiscordStandIn, comfyui: ComfyUIStandIn, bot: Bot, chat: Conversation) -> Path:
    """The scene; returns where the picture was saved."""
    channel = next(channel for channel in discord.guild.channels if channel.name == "pictures")
    mira = discord.person("mira")
    chat.does(mira, "types /gen in #pictures")
    form = open_form(mira, channel)
    assert form.message is not None
    chat.says(form.message, alone_to=mira)

    model = menu(form.message, "Model")["options"][3]["label"]
    chat.does(mira, f"chooses the model {model}, the sampler euler and the scheduler karras")
    mira.select(form.message, "Model", model).wait()
    mira.select(form.message, "Sampler", "euler").wait()
    mira.select(form.message, "Scheduler", "karras").wait()
    assert chosen(form.message, "Sampler") == ["euler"]

    chat.does(mira, "presses Edit Prompts & Settings")
    modal = mira.press(form.message, "Edit Prompts & Settings").wait().modal
    assert modal is not None
    chat.opens(modal)
    chat.does(mira, "types a prompt, and 25.5 steps")
    refused = mira.submit(modal, positive_prompt=PROMPT, steps="25.5").wait()
    assert refused.message is not None
    chat.says(refused.message, alone_to=mira)
    chat.does(mira, "presses Correct it; the prompt is still there")
    modal = mira.press(refused.message, "Correct it").wait().modal
    assert modal is not None
    chat.opens(modal)
    chat.does(mira, "makes it 25 steps")
    mira.submit(modal, steps="25").wait()
    form.wait_message(lambda message: fields(message)["Steps"] == "25")
    chat.says(form.message, alone_to=mira)

    chat.does(mira, "presses Generate")
    answer = mira.press(form.message, "Generate").wait()
    chat.says(answer.wait_message(lambda message: "Queued" in message["content"]), alone_to=mira)
    chat.note("the GPU at home is at work")
    message = discord.wait_for_message(channel, lambda m: bool(m["attachments"]))
    chat.says(message)
    (attachment,) = message["attachments"]
    picture = discord.attachment_bytes(attachment)
    assert picture in comfyui.pictures.values(), "this is not the picture that ComfyUI made"
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / str(attachment["filename"])
    path.write_bytes(picture)
    return path


def main() -> int:
    """The exit code: 0 where the picture arrived and Discord had nothing to complain of."""
    with contextlib.ExitStack() as stack:
        discord = stack.enter_context(DiscordStandIn())
        comfyui = stack.enter_context(ComfyUIStandIn())
        comfyui.seconds_per_step = 0.02
        channel = discord.guild.add_channel("pictures")
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        installation = Installation(Path(folder) / "comfygen")
        installation.configure(settings_for(discord, comfyui, channel.id))
        chat = Conversation()
        chat.note("two stand-ins are started, for Discord and for ComfyUI, and the bot itself")
        bot = Bot(installation, discord)
        stack.callback(bot.stop)
        try:
            bot.wait_for_line("connected as")
            path = play(discord, comfyui, bot, chat)
        except AssertionError as error:
            print(f"\nThe demo failed: {error}\n\nThe bot's log:\n{bot.output}", file=sys.stderr)
            return 1
        if discord.violations:
            print("\nDiscord would have refused:", *discord.violations, sep="\n", file=sys.stderr)
            return 1
    print(f"\nThe picture arrived, to the byte. It is saved as {path.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
