"""`python -m tests.demo`: some people, /gen, and their pictures; without Discord or a GPU.

Starts both stand-ins and the unmodified bot, plays people through the form and the queue, and
prints what they see as a conversation. It is also written as a web page in Discord's looks, beside
the first picture. The exit code is 0 only if that arrived to the byte and Discord had no complaint.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit("ComfyGen needs Python 3.10 or newer: README.md, section 1.")

import contextlib
import copy
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bot.queue import OTHERS_MENU
from tests.demo.page import Changed, Deed, Dialog, Event, Note, Said, page, pieces
from tests.harness.bot import Bot, Installation, settings_for
from tests.harness.labels import AGAIN, CORRECT_IT, DELETE, EDIT_PROMPTS, GENERATE, USE
from tests.harness.steps import ask_to_delete, chosen, fields, labels, open_form, text_of
from tests.standins.comfyui.nodes import flux_workflow
from tests.standins.comfyui.pictures import draw_png
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.people import Channel, File, Person, Reply
from tests.standins.discord.schema import (
    LOADING,
    MANAGE_GUILD,
    MANAGE_MESSAGES,
    MEMBER_PERMISSIONS,
)
from tests.standins.discord.server import DiscordStandIn

OUTPUT = Path("demo-output")
TOPIC = (
    "A demo: the bot is real, Discord and ComfyUI are stand-ins. So are the pictures:"
    " drawn hills, not made by a model"
)
MODEL = "waiIllustrious_v140"
PROMPT = "a red fox asleep in fresh snow, morning light"
PROMPTS = ("a lighthouse & the *last* ship home <3", "paper lanterns over a night market")
LORA = "ink"  # a part of its name
UNWANTED, WANTED = "a banner that says FREE COINS", "a chest of gold coins on the sea bed"
TERM = "free coin*"
WORKFLOW, FLUX_PROMPT = "flux", "a paper boat on a pond, soft rain"
RESTYLED = "the same harbor, painted in oil"
MODERATOR = MEMBER_PERMISSIONS | MANAGE_GUILD | MANAGE_MESSAGES


class Conversation:
    """The chat as it happens: each event is printed, and kept for the page."""

    def __init__(self, discord: DiscordStandIn) -> None:
        self.events: list[Event] = []
        self._discord = discord
        self._names: dict[str, str] = {}

    def joined_by(self, name: str, permissions: int = MEMBER_PERMISSIONS) -> Person:
        """A new person."""
        person = self._discord.person(name, permissions=permissions)
        self._names[str(person.id)] = name
        return person

    def note(self, text: str) -> None:
        """Something that happens outside of the chat."""
        self._add(Note(text))

    def does(self, person: Person, text: str) -> None:
        """What a person does."""
        self._add(Deed(person.name, text))

    def says(self, message: dict[str, Any], *, alone_to: Person | None = None) -> None:
        """A message of the bot as it now stands."""
        self._add(self._said(copy.deepcopy(message), alone_to, time.time()))

    def changes(self, message: dict[str, Any], *, alone_to: Person | None = None) -> None:
        """How a message of the bot has changed by itself, if it has."""
        began = time.time() - time.monotonic()
        states = [
            self._said(state["message"], alone_to, began + state["time"])
            for state in self._discord.states(message)
            if state["event"] != "delete" and not state["message"]["flags"] & LOADING
        ]
        if len(states) > 1:
            self._add(Changed(states))

    def _said(self, message: dict[str, Any], alone_to: Person | None, at: float) -> Said:
        read = self._discord.attachment_bytes
        pictures = {file["id"]: read(file) for file in message["attachments"]}
        for embed in message["embeds"]:
            shown = [embed[key] for key in ("image", "thumbnail") if key in embed]
            pictures |= {picture["url"]: read(picture) for picture in shown}
        return Said(message, alone_to.name if alone_to else None, self._names, pictures, at)

    def shows(self, modal: dict[str, Any], **typed: str) -> None:
        """A modal on the person's screen, with what was typed into it."""
        self._add(Dialog(modal, typed))

    def _add(self, event: Event) -> None:
        self.events.append(event)
        print("", *lines(event), sep="\n", flush=True)


def lines(event: Event) -> Iterator[str]:
    """An event in text."""
    if isinstance(event, Note):
        yield f"--- {event.text}"
    elif isinstance(event, Deed):
        yield plain(pieces(f"{event.who} {event.text}"))
    elif isinstance(event, Said):
        yield f"ComfyGen{only(event)}:"
        yield from (f"    {line}" for line in message_lines(event))
    elif isinstance(event, Changed):
        for when, said in event.moments():
            yield f"ComfyGen{only(said)}, {when}:"
            yield from (f"    {line}" for line in message_lines(said))
    else:
        yield f"    +-- {event.modal['title']} " + "-" * 40
        for label, _, value in event.inputs():
            yield f"    | {label['label']:<16} [{value}]  ({label['description']})"
        yield "    +" + "-" * 62


def only(said: Said) -> str:
    """Who sees a message, where not all do."""
    return f" (only {said.alone_to} sees this)" if said.alone_to else ""


def message_lines(said: Said) -> Iterator[str]:
    """A message in text."""
    message = said.message
    yield from plain(said.pieces(message["content"])).splitlines()
    for embed in message["embeds"]:
        parts = [embed.get("title"), embed.get("description")]
        for field in embed.get("fields", []):
            value = field["value"].replace("\n", "\n" + " " * 17)
            parts.append(f"{field['name'] + ':':<17}{value}")
        parts.append(embed.get("footer", {}).get("text"))
        for part in filter(None, parts):
            yield from (f"| {line}" for line in plain(said.pieces(part)).splitlines())
        for picture in (embed[key] for key in ("image", "thumbnail") if key in embed):
            yield f"| [picture{described(picture)}]"
    for row in message["components"]:
        yield "  ".join(control(component) for component in row["components"])
    for attachment in message["attachments"]:
        name, size = attachment["filename"], attachment["size"]
        yield f"[picture {name}, {size:,} bytes{described(attachment)}]"


def described(picture: dict[str, Any]) -> str:
    """What a screen reader says of a picture."""
    return f", ALT: {picture['description']}" if picture.get("description") else ""


def plain(parts: Iterator[tuple[str, str]]) -> str:
    """Marked-up text as it reads on the screen."""
    return "".join(text for _, text in parts)


def buttons(message: dict[str, Any]) -> list[str]:
    """Return the labels of a message's buttons."""
    return [c["label"] for row in message["components"] for c in row["components"] if "label" in c]


def control(component: dict[str, Any]) -> str:
    """A button or a menu in text."""
    if "options" not in component:
        return f"[ {component['label']} ]"
    shown = next((o["label"] for o in component["options"] if o.get("default")), None)
    return f"[ {shown or component['placeholder']}  v ]"


class Play:
    """The scenes, in order."""

    def __init__(
        self,
        installation: Installation,
        discord: DiscordStandIn,
        comfyui: ComfyUIStandIn,
        channel: Channel,
    ) -> None:
        self.installation = installation
        self.discord = discord
        self.comfyui = comfyui
        self.channel = channel
        self.chat = Conversation(discord)
        self.results: list[dict[str, Any]] = []
        self.people: dict[str, Person] = {}

    def fill_in_the_form(self, mira: Person) -> dict[str, Any]:
        """/gen, the menus, the modal refused once; returns the form, filled in."""
        chat = self.chat
        chat.does(mira, "types `/gen` in #pictures")
        form = open_form(mira, self.channel)
        assert form.message is not None
        chat.says(form.message, alone_to=mira)
        chat.does(mira, f"chooses the model `{MODEL}`, the sampler `euler`, the scheduler `karras`")
        mira.select(form.message, "Model", MODEL).wait()
        mira.select(form.message, "Sampler", "euler").wait()
        mira.select(form.message, "Scheduler", "karras").wait()
        assert chosen(form.message, "Sampler") == ["euler"]

        chat.does(mira, "presses **Edit Prompts & Settings**, types a prompt, and 25.5 steps")
        modal = mira.press(form.message, EDIT_PROMPTS).wait().modal
        typed = {"positive_prompt": PROMPT, "negative_prompt": "blurry, text", "steps": "25.5"}
        assert modal is not None
        chat.shows(modal, **typed)
        refused = mira.submit(modal, **typed).wait()
        assert refused.message is not None
        chat.says(refused.message, alone_to=mira)
        chat.does(mira, "presses **Correct it**: what was typed is still there")
        modal = mira.press(refused.message, CORRECT_IT).wait().modal
        assert modal is not None
        chat.shows(modal)
        chat.does(mira, "makes it 25 steps: the form is up to date, the complaint is gone")
        mira.submit(modal, steps="25").wait()
        filled = form.wait_message(lambda message: fields(message)["Steps"] == "25")
        chat.says(filled, alone_to=mira)
        return filled

    def make_the_first_picture(self, mira: Person, form: dict[str, Any]) -> None:
        """Generate, the progress at three moments, the result."""
        chat = self.chat
        self.comfyui.seconds_per_step = 0.095  # 55 steps in four passes
        self.comfyui.hold()
        self.generate(mira, form)
        chat.note("the GPU at home is at work; this message changes by itself")
        running = self.discord.wait_for_message(
            self.channel, lambda m: "Generating" in m["content"]
        )
        self.discord.wait_for(lambda d: len(d.states(running)) >= 3)
        self.comfyui.release()
        self.discord.wait_for(lambda d: d.states(running)[-1]["event"] == "delete")
        chat.changes(running)
        chat.note("the picture is there, and takes the place of that message")
        self.show_the_next_result()

    def fill_the_queue(self, mira: Person, kim: Person) -> None:
        """While one picture is made, more are asked for."""
        chat, (first,) = self.chat, self.results
        noor, ada, lee = map(chat.joined_by, ("noor", "ada", "lee"))
        self.people = {"noor": noor, "lee": lee}
        self.comfyui.seconds_per_step = 0.0
        self.comfyui.hold()
        chat.note("others like it")
        for person, when in ((noor, ""), (mira, ", too, while noor's is being made")):
            chat.does(person, f"presses **Again** under the picture{when}")
            reply = person.press(first, AGAIN).wait()
            chat.says(reply.wait_shown(lambda m: "Queued!" in m["content"]), alone_to=person)
            self.comfyui.wait_for(lambda comfyui: len(comfyui.posted) == 2)  # noor's is at work
        self.generate(ada, self.portrait_with_a_lora(ada))
        queued = self.generate(lee, self.corrected_mistake(lee))
        self.look_at_the_queue(lee)
        self.moderate(kim, chat.joined_by("zed"))
        self.comfyui.seconds_per_step = 0.06  # slow enough for lee's countdown to be seen
        self.comfyui.release()
        chat.note("one after the other")
        for _ in range(5):
            self.show_the_next_result()
        self.discord.wait_for(
            lambda discord: "Done" in discord.states(queued)[-1]["message"]["content"], 15.0
        )
        chat.note("meanwhile lee's answer counted down by itself")
        chat.changes(queued, alone_to=lee)

    def adopt_a_second_workflow(self, mira: Person, kim: Person) -> None:
        """Adopt it as the owner does, and make a picture with it."""
        chat, export = self.chat, self.installation.folder / "flux.json"
        export.write_text(json.dumps(flux_workflow(steps=20)), "utf-8")
        arguments = ("--adopt", str(export), "--name", WORKFLOW)
        adoption = Bot(self.installation, self.discord, arguments=arguments)
        assert adoption.wait() == 0, adoption.output
        chat.note("the bot's owner adopts a second workflow: comfygen.py --adopt flux.json")
        chat.does(kim, "types `/refresh`, so that the bot offers it without a restart")
        reply = kim.slash("refresh", self.channel).wait()
        chat.says(reply.wait_message(lambda m: "4 workflows" in m["content"]), alone_to=kim)
        chat.does(mira, f"types `/gen workflow:{WORKFLOW} prompt:{FLUX_PROMPT}`")
        options = {"workflow": WORKFLOW, "prompt": FLUX_PROMPT}
        form = mira.slash("gen", self.channel, **options).wait()
        assert form.message is not None
        assert fields(form.message)["Workflow"] == WORKFLOW
        chat.says(form.message, alone_to=mira)
        self.generate(mira, form.message)
        self.show_the_next_result()

    def work_on_pictures(self) -> None:
        """A result is enlarged, and a person's photo restyled."""
        chat = self.chat
        noor, lee = self.people["noor"], self.people["lee"]
        chat.note("a picture in the channel can be worked on: two workflows for that come along")
        chat.does(noor, f"presses **{USE}** under the boat, and chooses the workflow `upscale`")
        form = noor.press(self.results[-1], USE)
        noor.select(self.shown(form), "Workflow", "upscale").wait()
        chat.says(self.shown(form), alone_to=noor)
        self.generate(noor, self.shown(form))
        self.show_the_next_result()
        photo = File("harbor.png", draw_png(b"harbor", (2016, 1512), {}, 0))
        chat.does(lee, "posts a photo, and chooses **Apps > Use this picture** on it")
        form = lee.use_app("Use this picture", lee.post(self.channel, "our harbor", photo))
        chat.says(self.shown(form), alone_to=lee)
        model = next(name for name in labels(self.shown(form), "Model") if "wai" in name)
        chat.does(lee, "chooses workflow, model and strength, and types what it becomes")
        lee.select(self.shown(form), "Workflow", "edit").wait()
        lee.select(self.shown(form), "Model", model).wait()
        lee.select(self.shown(form), "Strength", "Strong (0.7)").wait()
        modal = lee.press(self.shown(form), EDIT_PROMPTS).wait().modal
        assert modal is not None
        lee.submit(modal, positive_prompt=RESTYLED).wait()
        chat.says(self.shown(form), alone_to=lee)
        self.generate(lee, self.shown(form))
        self.show_the_next_result()
        assert fields(self.results[-1])["Strength"] == "strong (0.7)"

    @staticmethod
    def shown(form: Reply) -> dict[str, Any]:
        """A form over a picture, as it stands now."""
        return form.wait_message(lambda message: bool(message["embeds"]))

    def tidy_up(self, mira: Person) -> None:
        """Delete a picture, and look at what is left with /mine."""
        chat, mention = self.chat, f"<@{mira.id}>"
        unloved = [result for result in self.results if result["content"] == mention][1]
        chat.does(mira, "presses **Delete** under her second picture of the fox")
        question = ask_to_delete(mira, unloved)
        chat.says(question, alone_to=mira)
        chat.does(mira, "presses **Delete** once more")
        reply = mira.press(question, DELETE).wait()
        chat.says(reply.wait_message(lambda m: m["content"] == "Deleted."), alone_to=mira)
        assert self.discord.states(unloved)[-1]["event"] == "delete"
        chat.note("that picture is gone from the channel, for everybody")
        chat.does(mira, "types `/mine`: the deleted picture has no message any more")
        reply = mira.slash("mine", self.channel).wait()
        chat.says(reply.wait_message(lambda m: bool(m["embeds"])), alone_to=mira)

    def corrected_mistake(self, lee: Person) -> dict[str, Any]:
        """/gen with a model that is not there, and the form in which it is chosen then."""
        wrong = "waiIlustrius"
        self.chat.does(lee, f"types `/gen prompt:{PROMPTS[1]} model:{wrong}`")
        form = lee.slash("gen", self.channel, prompt=PROMPTS[1], model=wrong).wait()
        assert form.message is not None
        assert "There is no model" in form.message["content"]
        self.chat.says(form.message, alone_to=lee)
        self.chat.does(lee, "takes the right one from the menu: nothing has to be typed again")
        right = next(name for name in labels(form.message, "Model") if "wai" in name)
        lee.select(form.message, "Model", right).wait()
        assert fields(form.message)["Prompt"] == PROMPTS[1]
        self.chat.says(form.message, alone_to=lee)
        return form.message

    def portrait_with_a_lora(self, ada: Person) -> dict[str, Any]:
        """/gen with both, and the form that comes of it."""
        options = {"prompt": PROMPTS[0], "shape": "portrait"}
        choice = ada.autocomplete("gen", self.channel, "lora", LORA)[0]
        typed = f"/gen prompt:{PROMPTS[0]} shape:portrait lora:{LORA}"
        self.chat.does(ada, f"types `{typed}`, and takes {choice['name']} from the list")
        form = ada.slash("gen", self.channel, **options, lora=choice["value"]).wait()
        assert form.message is not None
        assert fields(form.message)["Shape"].startswith("portrait")
        self.chat.says(form.message, alone_to=ada)
        return form.message

    def moderate(self, kim: Person, zed: Person) -> None:
        """A moderator's evening: a stranger's job is cancelled, a word is blocked."""
        chat = self.chat
        chat.note("somebody asks for what nobody wants here, and a moderator looks in")
        chat.does(zed, f"types `/gen prompt:{UNWANTED}`")
        form = zed.slash("gen", self.channel, prompt=UNWANTED).wait()
        assert form.message is not None
        self.generate(zed, form.message)
        queue = self.look_at_the_queue(kim)
        chat.does(kim, "chooses zed's job in the menu: it is cancelled, and the list up to date")
        reply = kim.select(queue, OTHERS_MENU, "Number 4").wait()
        cancelled = reply.wait_message(lambda m: m["content"] == "Cancelled.")
        chat.says(cancelled, alone_to=kim)
        chat.says(
            self.discord.wait_for_message(self.channel, lambda m: "A moderator" in text_of(m))
        )
        chat.does(kim, f"types `/blocked add term:{TERM}`")
        reply = kim.slash("blocked add", self.channel, term=TERM).wait()
        chat.says(reply.wait_message(lambda m: "Added" in m["content"]), alone_to=kim)
        self.correct_the_prompt(zed)
        self.look_at_the_queue(kim)

    def correct_the_prompt(self, zed: Person) -> None:
        """The same prompt once more: it is refused, and what was typed is kept."""
        chat = self.chat
        chat.does(zed, f"types `/gen prompt:{UNWANTED}` once more, and presses **Generate**")
        form = zed.slash("gen", self.channel, prompt=UNWANTED).wait()
        assert form.message is not None
        reply = zed.press(form.message, GENERATE).wait()
        refusal = reply.wait_message(lambda m: "do not allow" in m["content"])
        chat.says(refusal, alone_to=zed)
        chat.does(zed, "presses **Correct it**, and types another prompt")
        modal = zed.press(refusal, CORRECT_IT).wait().modal
        assert modal is not None
        chat.shows(modal, positive_prompt=WANTED)
        zed.submit(modal, positive_prompt=WANTED).wait()
        self.generate(zed, form.wait_message(lambda m: fields(m)["Prompt"] == WANTED))

    def look_at_the_queue(self, person: Person) -> dict[str, Any]:
        """/queue, and its answer."""
        time.sleep(1.2)  # people take their time: without it, all that the page shows began "now"
        self.chat.does(person, "types `/queue`")
        reply = person.slash("queue", self.channel).wait()
        queue = reply.wait_message(lambda m: bool(m["embeds"]))
        self.chat.says(queue, alone_to=person)
        return queue

    def generate(self, person: Person, form: dict[str, Any]) -> dict[str, Any]:
        """The button of a form that is filled in; its answer."""
        self.chat.does(person, "presses **Generate**")
        reply = person.press(form, GENERATE).wait()
        queued = reply.wait_shown(lambda message: "Queued!" in message["content"])
        self.chat.says(queued, alone_to=person)
        return queued

    def show_the_next_result(self) -> None:
        """The next message with a picture that appears in the channel."""
        seen = [message["id"] for message in self.results]
        message = self.discord.wait_for_message(
            self.channel, lambda m: AGAIN in buttons(m) and m["id"] not in seen
        )
        self.results.append(message)
        self.chat.says(message)

    def save(self) -> tuple[Path, Path]:
        """Write the first picture and the page; their paths."""
        (attachment,) = self.results[0]["attachments"]
        picture = self.discord.attachment_bytes(attachment)
        assert picture in self.comfyui.pictures.values(), "this is not the picture ComfyUI made"
        OUTPUT.mkdir(exist_ok=True)
        path, conversation = OUTPUT / str(attachment["filename"]), OUTPUT / "conversation.html"
        path.write_bytes(picture)
        text = page(self.chat.events, self.channel.name, TOPIC)
        conversation.write_text(text, encoding="utf-8", newline="\n")
        return path.resolve(), conversation.resolve()


def main() -> int:
    """The exit code: 0 where the picture arrived and Discord had nothing to complain of."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a Windows pipe may lack the bar's characters
    with contextlib.ExitStack() as stack:
        discord = stack.enter_context(DiscordStandIn())
        comfyui = stack.enter_context(ComfyUIStandIn())
        comfyui.picture_size = None
        channel = discord.guild.add_channel("pictures")
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        installation = Installation(Path(folder) / "comfygen")
        installation.add_shipped()
        installation.configure(settings_for(discord, comfyui, channel.id))
        play = Play(installation, discord, comfyui, channel)
        play.chat.note(
            "the stand-ins for Discord and ComfyUI (which draws hills, whatever the prompt says)"
            " are started, and the bot itself"
        )
        bot = Bot(installation, discord)
        stack.callback(bot.stop)
        try:
            bot.wait_for_line("connected as")
            mira, kim = play.chat.joined_by("mira"), play.chat.joined_by("kim", MODERATOR)
            play.make_the_first_picture(mira, play.fill_in_the_form(mira))
            play.fill_the_queue(mira, kim)
            play.adopt_a_second_workflow(mira, kim)
            play.work_on_pictures()
            play.tidy_up(mira)
            path, conversation = play.save()
        except AssertionError as error:
            print(f"\nThe demo failed: {error}\n\nThe bot's log:\n{bot.output}", file=sys.stderr)
            return 1
        if discord.violations:
            print("\nDiscord would have refused:", *discord.violations, sep="\n", file=sys.stderr)
            return 1
    print(f"\nThe picture arrived, to the byte. It is saved as {path}")
    print(f"The conversation, to look at in a browser: {conversation}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
