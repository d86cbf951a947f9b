"""The window in which a person types: its five texts, and how they come back.

Owns what each text is called, how it is explained and how long it may be (architecture.md §3.3).
What a text means, and which form it belongs to, form.py knows. Runs on the event loop.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import discord

from jobs.draft import CFG_RANGE, NUMBER_LIMIT, SEED_LIMIT, STEPS_RANGE
from settings import PROMPT_LIMIT
from text import FIELD_LIMIT, drop_lone_surrogates, escape

USUAL_STEPS = (20, 30)
USUAL_CFG = (4, 8)


class ModalInput(NamedTuple):
    """One of the five. `hint` stands below its label (of the steps: as `steps_hint` has it),
    `example` in it while it is empty; `limit` is in characters."""

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
        "Empty: random, a new picture each time. The same seed and settings: the same picture",
        "random",
        SEED_LIMIT,
        False,
    ),
}


class PromptModal(discord.ui.Modal):
    """The window, with texts in it by the names of INPUTS; it asks for these alone.

    Only a description: what is submitted arrives at the bot's router. discord.py would
    forget an open modal at a restart or after its time, and what was typed with it.
    """

    def __init__(
        self,
        custom_id: str,
        texts: Mapping[str, str],
        most_steps: int = STEPS_RANGE[1],
        own: Mapping[str, float] | None = None,
    ) -> None:
        """`most_steps` is what the owner allows; `own` are the numbers of the workflow's file, by
        the names of INPUTS."""
        super().__init__(title="Prompts & Settings", custom_id=custom_id)
        styles = discord.TextStyle
        for name, given in INPUTS.items():
            if name not in texts:
                continue
            self.add_item(
                discord.ui.Label(
                    text=given.label,
                    description=hint_of(name, most_steps, own or {}),
                    component=discord.ui.TextInput(
                        custom_id=name,
                        style=styles.paragraph if given.limit == PROMPT_LIMIT else styles.short,
                        placeholder=given.example,
                        default=texts[name] or None,
                        required=given.is_required,
                        max_length=given.limit,
                    ),
                )
            )
        self.stop()  # keeps discord.py from storing it

    @staticmethod
    def texts(components: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """The typed texts by custom id, out of the data of a modal's interaction."""
        texts: dict[str, str] = {}
        for component in components:
            inner = component.get("components") or [component.get("component") or {}]
            for item in inner:
                if "custom_id" in item:
                    texts[item["custom_id"]] = drop_lone_surrogates(str(item.get("value") or ""))
        return texts


def hint_of(name: str, most_steps: int, own: Mapping[str, float]) -> str:
    """What stands below the label of one of INPUTS. What is usual is that of most workflows, unless
    the file of this one says otherwise."""
    hint = INPUTS[name].hint
    if name == "cfg":
        return hint.format(*CFG_RANGE, usual(own.get(name), USUAL_CFG))
    if name != "steps":
        return hint
    about = usual(own.get(name), USUAL_STEPS)
    more = f"{about}; more" if most_steps >= USUAL_STEPS[1] else "More"
    return hint.format(STEPS_RANGE[0], most_steps, more)


def usual(own: float | None, most: tuple[int, int]) -> str:
    """Which values make good pictures."""
    low, high = most
    if own is None or low <= own <= high:
        return f"{low} to {high} is usual"
    return f"This workflow's own is {own:g}"


def given_back(typed: Mapping[str, str]) -> dict[str, Any]:
    """What was typed, as arguments of an answer: an embed, or a file where a text is too long."""
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
