"""The modal of a form: its text inputs, their hints, and what was typed given back.

Owns no draft. Runs on the event loop.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import discord

from bot.controls import ControlId
from jobs.draft import AS_IN_FILE, NUMBER_LIMIT, SEED_LIMIT, Draft, numbers_of
from jobs.typed import CFG_RANGE, STEPS_RANGE, length_range
from settings import PROMPT_LIMIT
from text import FIELD_LIMIT, drop_lone_surrogates, escape

USUAL_STEPS = (20, 30)
USUAL_CFG = (4, 8)


class ModalInput(NamedTuple):
    """A text input of the modal. `hint` stands below its label, completed by `hint_of()`; `example`
    stands in it while it is empty; `limit` is in characters."""

    label: str
    hint: str
    example: str
    limit: int
    is_required: bool


INPUTS: Mapping[str, ModalInput] = {
    "positive_prompt": ModalInput(
        "Prompt",
        "What the picture shows: who or what, where, in which light or style",
        "a red fox asleep in fresh snow, morning light",
        PROMPT_LIMIT,
        True,
    ),
    "negative_prompt": ModalInput(
        "Negative prompt",
        "What to keep out of it, in plain words; may be empty",
        "blurry, text, watermark",
        PROMPT_LIMIT,
        False,
    ),
    "steps": ModalInput(
        "Steps",
        "A whole number from {} to {}. {}: finer and slower",
        "for example 25",
        NUMBER_LIMIT,
        True,
    ),
    "cfg": ModalInput(
        "CFG",
        "A number from {:g} to {:g}. {}; higher: closer to the prompt",
        "for example 7.5",
        NUMBER_LIMIT,
        True,
    ),
    "seed": ModalInput(
        "Seed",
        "Empty: {}. The same seed and settings: the same picture",
        "{}",
        SEED_LIMIT,
        False,
    ),
    "length": ModalInput(
        "Length",
        "Frames, from {} to {}; this workflow's own is {}. More take longer",
        "for example 49",
        NUMBER_LIMIT,
        True,
    ),
}


class PromptModal(discord.ui.Modal):
    """The modal with the inputs that have a text, by the names of INPUTS.

    It is only a description: the submitted texts arrive at the bot's router, because discord.py
    would forget an open modal, and the texts with it, at a restart or after its time.
    """

    def __init__(self, draft: Draft, origin: str) -> None:
        """Show the draft's texts; `origin` is the button that opens it: `edit`, `length`, whose
        text is alone in a modal, since there may be five, or `retry`."""
        control_id = ControlId("modal", origin, f"{draft.key}.{draft.fingerprint()}")
        super().__init__(title="Prompts & Settings", custom_id=str(control_id))
        styles, texts = discord.TextStyle, draft.texts()
        is_refused = origin == "retry" and [*draft.typed][-1:] == ["length"]  # what came last
        is_length = "length" in texts and (origin == "length" or is_refused)
        for name, given in INPUTS.items():
            if name not in texts or is_length is not (name == "length"):
                continue
            self.add_item(
                discord.ui.Label(
                    text=given.label,
                    description=hint_of(name, draft),
                    component=discord.ui.TextInput(
                        custom_id=name,
                        style=styles.paragraph if given.limit == PROMPT_LIMIT else styles.short,
                        placeholder=given.example.format(empty_seed(draft)),
                        default=texts[name] or None,
                        required=given.is_required,
                        max_length=given.limit,
                    ),
                )
            )
        self.stop()  # keeps discord.py from storing it

    @staticmethod
    def texts(components: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return the typed texts by custom id, from the data of a modal's interaction."""
        texts: dict[str, str] = {}
        for component in components:
            inner = component.get("components") or [component.get("component") or {}]
            for item in inner:
                if "custom_id" in item:
                    texts[item["custom_id"]] = drop_lone_surrogates(str(item.get("value") or ""))
        return texts


def hint_of(name: str, draft: Draft) -> str:
    """Return the hint below the label of one of INPUTS, with the usual values of most workflows, or
    this workflow's own where they are unusual."""
    hint, own = INPUTS[name].hint, numbers_of(draft.offer.defaults)
    if name == "seed":
        is_random = draft.settings.random_seeds
        return hint.format("random, a new picture each time" if is_random else AS_IN_FILE)
    if name == "cfg":
        return hint.format(*CFG_RANGE, usual(own.get(name), USUAL_CFG))
    if name == "length" and draft.offer.length:
        low, high, _ = length_range(draft.offer.length)
        return hint.format(low, high, draft.offer.length)
    if name != "steps":
        return hint
    about = usual(own.get(name), USUAL_STEPS)
    most = draft.settings.max_steps
    more = f"{about}; more" if most >= max(USUAL_STEPS[1], own.get(name) or 0) else "More"
    return hint.format(STEPS_RANGE[0], most, more)


def empty_seed(draft: Draft) -> str:
    """Return what an empty seed means."""
    return "random" if draft.settings.random_seeds else AS_IN_FILE


def usual(own: float | None, of_most: tuple[int, int]) -> str:
    """Return which values make good pictures: those of most workflows or this workflow's own."""
    low, high = of_most
    if own is None or low <= own <= high:
        return f"{low} to {high} is usual"
    return f"This workflow's own is {own:g}"


def given_back(typed: Mapping[str, str]) -> dict[str, Any]:
    """Return typed texts as arguments of a reply: an embed, or a file where one is too long."""
    texts = [
        (given.label, typed[name]) for name, given in INPUTS.items() if typed.get(name, "").strip()
    ]
    embed = discord.Embed(description="This is what you typed:")
    for label, text in texts:
        embed.add_field(name=label, value=escape(text, 3 * PROMPT_LIMIT), inline=False)
    if all(len(field.value or "") <= FIELD_LIMIT for field in embed.fields):
        return {"embed": embed}
    whole = "\n\n".join(f"{label}:\n{text}" for label, text in texts)
    return {"file": discord.File(io.BytesIO(whole.encode()), "what-you-typed.txt")}
