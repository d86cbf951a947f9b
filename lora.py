"""LoRAs in a prompt: the tags `<lora:name:0.8>`, as people know them from elsewhere.

Owns what a tag looks like, and turns the tags of a prompt into LoRAs that the server lists, or into
sentences about what is wrong with them. Pure functions. How a LoRA gets into a workflow, binder.py
knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from binder import Lora
from names import names_of, nearest, quoted

LORAS_LIMIT = 5  # in one prompt
STRENGTHS = (-2.0, 2.0)
TAG = re.compile(r"[ \t]*<lora:([^<>]*)>", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:[.,][0-9]{0,6})?|[.,][0-9]{1,6})")


class Tagged(NamedTuple):
    """A prompt taken apart: the text for the encoder, its LoRAs in order, and a sentence for each
    tag that makes no sense."""

    text: str
    loras: tuple[Lora, ...]
    problems: tuple[str, ...]


def read(prompt: str, offered: Sequence[str]) -> Tagged:
    """Take the tags out of a prompt; `offered` are the LoRAs as the server lists them. A prompt
    without tags comes back as it is."""
    tags = TAG.findall(prompt)
    if not tags:
        return Tagged(prompt, (), ())
    text = TAG.sub("", prompt).strip()
    if not offered:
        return Tagged(text, (), (f"There are no LoRAs here: take {quoted(_tag(tags[0]))} out.",))
    if len(tags) > LORAS_LIMIT:
        return Tagged(text, (), (f"At most {LORAS_LIMIT} LoRAs, please: there are {len(tags)}.",))
    found = [_lora(tag, offered) for tag in tags]
    loras = tuple(lora for lora in found if isinstance(lora, Lora))
    return Tagged(text, loras, tuple(lora for lora in found if isinstance(lora, str)))


def text_of(prompt: str) -> str:
    """A prompt without its tags."""
    return TAG.sub("", prompt).strip() if TAG.search(prompt) else prompt


def with_tag(prompt: str, name: str, offered: Sequence[str]) -> str:
    """The prompt with a tag for one of the offered LoRAs at its end."""
    return f"{prompt} {_tag(names_of(offered).shown(name))}".strip()


def _lora(tag: str, offered: Sequence[str]) -> Lora | str:
    """The LoRA that a tag means, or what is wrong with it."""
    name, _, strength = tag.partition(":")
    found = names_of(offered).find(name)
    if found is None:
        return f"There is no LoRA {quoted(name)}.{nearest(name, offered)}"
    strength = strength.strip() or "1"
    low, high = STRENGTHS
    value = float(strength.replace(",", ".")) if NUMBER.fullmatch(strength) else None
    if value is None or not low <= value <= high:
        example = quoted(_tag(f"{name.strip()}:0.8"))
        return (
            f"The strength of the LoRA {quoted(name)} is {quoted(strength)}: give a number from"
            f" {low:g} to {high:g}, as in {example}."
        )
    return Lora(found, value)


def _tag(content: str) -> str:
    return f"<lora:{content}>"
