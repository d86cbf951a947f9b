"""LoRAs in a prompt: the tags `<lora:name:0.8>`, as people know them from elsewhere.

Owns the syntax of a tag, and turns the tags of a prompt into LoRAs that ComfyUI lists, or into
sentences about what is wrong with them. Pure functions; writes into no workflow.
"""

from __future__ import annotations

import re
from functools import reduce
from typing import NamedTuple

from binder import Lora
from jobs.names import OptionNames, find_named
from text import UserError, collecting, quote

LORAS_LIMIT = 5  # in one prompt
STRENGTHS = (-2.0, 2.0)
TAG = re.compile(r"<\s*lora\s*:([^<>]*)>", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:[.,][0-9]{0,6})?|[.,][0-9]{1,6})")
GAP = " \t,"  # what separates a tag from its neighbors


class Tagged(NamedTuple):
    """A parsed prompt: the text for the encoder, its LoRAs in order, and a sentence for each tag
    that makes no sense."""

    text: str
    loras: tuple[Lora, ...]
    problems: tuple[str, ...]


def read(prompt: str, offered: OptionNames) -> Tagged:
    """Parse the tags of a prompt; `offered` are the LoRAs that ComfyUI lists. A prompt without tags
    comes back as it is; a LoRA that is named twice is used twice."""
    tags = TAG.findall(prompt)
    if not tags:
        return Tagged(prompt, (), ())
    text = text_of(prompt)
    if not offered:
        return Tagged(text, (), (f"There are no LoRAs here: take {quote(_tag(tags[0]))} out.",))
    if len(tags) > LORAS_LIMIT:
        return Tagged(text, (), (f"At most {LORAS_LIMIT} LoRAs, please: there are {len(tags)}.",))
    loras: list[Lora] = []
    found: list[str] = []
    for tag in tags:
        with collecting(found):
            loras.append(_parse(tag, offered))
    return Tagged(text, tuple(loras), tuple(dict.fromkeys(found)))


def problems(positive: str, negative: str, offered: OptionNames) -> list[str]:
    """Return a sentence for each tag in a job's two prompts that makes no sense."""
    found = list(read(positive, offered).problems)
    if tag := TAG.search(negative):
        where = "does nothing in the negative prompt: move it to the prompt, or take it out."
        found.append(f"{quote(tag[0])} {where}")
    return found


def text_of(prompt: str) -> str:
    """Return a prompt without its tags, and without the commas and spaces around them."""
    texts = TAG.split(prompt)[::2]
    return reduce(_joined, texts).strip() if len(texts) > 1 else prompt


def with_tag(prompt: str, name: str, offered: OptionNames) -> str:
    """Add a tag for the LoRA that a person names to the end of a prompt, unless it has one. Raises
    UserError if there is no such LoRA."""
    if not offered:
        raise UserError("There are no LoRAs here.")
    found = find_named("LoRA", name, offered)
    if any(lora.name == found for lora in read(prompt, offered).loras):
        return prompt
    shown = re.sub("[<>]", " ", offered.shown(found))
    return f"{prompt} {_tag(f'{shown}:1')}".strip()


def _joined(before: str, after: str) -> str:
    """Join the texts before and after a tag, as if it had never been there."""
    left, right = before.rstrip(GAP), after.lstrip(GAP)
    gap = before[len(left) :] + after[: len(after) - len(right)]
    if not left or not right or left[-1] in "([{\n" or right[0] in ".;:!?)]}":
        return left + right
    return left + ("," if "," in gap else "") + (" " if gap.strip(",") else "") + right


def _parse(tag: str, offered: OptionNames) -> Lora:
    """Return the LoRA that a tag means. Raises UserError."""
    name, strength = _parted(tag, offered)
    if not name:
        raise UserError(f"A tag has no name in it: write it like {quote(_tag('name:0.8'))}.")
    found = find_named("LoRA", name, offered)
    low, high = STRENGTHS
    value = float(strength.replace(",", ".")) if NUMBER.fullmatch(strength) else None
    if value is None or not low <= value <= high:
        example = quote(_tag(f"{name}:0.8"))
        raise UserError(
            f"The strength of the LoRA {quote(name)} is {quote(strength)}: give a number from"
            f" {low:g} to {high:g}, as in {example}."
        )
    return Lora(found, value)


def _parted(tag: str, offered: OptionNames) -> tuple[str, str]:
    """Split a tag into name and strength. A name may have colons of its own."""
    start, _, end = map(str.strip, tag.rpartition(":"))
    name, strength = (start, end) if NUMBER.fullmatch(end) else (tag.strip(), "")
    if ":" not in name or ":" not in (offered.find(name) or ""):
        name, _, strength = map(str.strip, tag.partition(":"))
    return name, strength or "1"


def _tag(content: str) -> str:
    return f"<lora:{content}>"
