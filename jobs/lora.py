"""LoRAs in a prompt: the tags `<lora:name:0.8>`, as people know them from elsewhere.

Owns what a tag looks like, and turns the tags of a prompt into LoRAs that the server lists, or into
sentences about what is wrong with them. Pure functions. How a LoRA gets into a workflow, binder.py
knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

from binder import Lora
from jobs.names import names_of, nearest
from text import quote

LORAS_LIMIT = 5  # in one prompt
STRENGTHS = (-2.0, 2.0)
TAG = re.compile(r"<\s*lora\s*:([^<>]*)>", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:[.,][0-9]{0,6})?|[.,][0-9]{1,6})")
GAP = " \t,"  # what stands between a tag and its neighbours


class Tagged(NamedTuple):
    """A prompt taken apart: the text for the encoder, its LoRAs in order, and a sentence for each
    tag that makes no sense."""

    text: str
    loras: tuple[Lora, ...]
    problems: tuple[str, ...]


def read(prompt: str, offered: Sequence[str]) -> Tagged:
    """Take the tags out of a prompt; `offered` are the LoRAs as the server lists them. A prompt
    without tags comes back as it is; a LoRA that is named twice is used twice."""
    tags = TAG.findall(prompt)
    if not tags:
        return Tagged(prompt, (), ())
    text = text_of(prompt)
    if not offered:
        return Tagged(text, (), (f"There are no LoRAs here: take {quote(_tag(tags[0]))} out.",))
    if len(tags) > LORAS_LIMIT:
        return Tagged(text, (), (f"At most {LORAS_LIMIT} LoRAs, please: there are {len(tags)}.",))
    found = [_lora(tag, offered) for tag in tags]
    loras = tuple(lora for lora in found if isinstance(lora, Lora))
    problems = dict.fromkeys(lora for lora in found if isinstance(lora, str))
    return Tagged(text, loras, tuple(problems))


def problems(positive: str, negative: str, offered: Sequence[str]) -> list[str]:
    """A sentence for each tag in a job's two prompts that makes no sense."""
    found = list(read(positive, offered).problems)
    if tag := TAG.search(negative):
        where = "does nothing in the negative prompt: move it to the prompt, or take it out."
        found.append(f"{quote(tag[0])} {where}")
    return found


def text_of(prompt: str) -> str:
    """A prompt without its tags, and without the commas and spaces that stood there for them."""
    texts = TAG.split(prompt)[::2]
    return reduce(_joined, texts).strip() if len(texts) > 1 else prompt


def with_tag(prompt: str, name: str, offered: Sequence[str]) -> str:
    """The prompt with a tag for one of the offered LoRAs at its end, unless it has one."""
    if any(lora.name == name for lora in read(prompt, offered).loras):
        return prompt
    shown = re.sub("[<>]", " ", names_of(offered).shown(name))
    return f"{prompt} {_tag(f'{shown}:1')}".strip()


def _joined(before: str, after: str) -> str:
    """What stood before and after a tag, as if it had never been there."""
    left, right = before.rstrip(GAP), after.lstrip(GAP)
    gap = before[len(left) :] + after[: len(after) - len(right)]
    if not left or not right or left[-1] in "([{\n" or right[0] in ".;:!?)]}":
        return left + right
    return left + ("," if "," in gap else "") + (" " if gap.strip(",") else "") + right


def _lora(tag: str, offered: Sequence[str]) -> Lora | str:
    """The LoRA that a tag means, or what is wrong with it."""
    name, strength = _parted(tag, offered)
    if not name:
        return f"A tag has no name in it: write it like {quote(_tag('name:0.8'))}."
    found = names_of(offered).find(name)
    if found is None:
        return f"There is no LoRA {quote(name)}.{nearest(name, offered)}"
    low, high = STRENGTHS
    value = float(strength.replace(",", ".")) if NUMBER.fullmatch(strength) else None
    if value is None or not low <= value <= high:
        example = quote(_tag(f"{name}:0.8"))
        return (
            f"The strength of the LoRA {quote(name)} is {quote(strength)}: give a number from"
            f" {low:g} to {high:g}, as in {example}."
        )
    return Lora(found, value)


def _parted(tag: str, offered: Sequence[str]) -> tuple[str, str]:
    """The name and the strength in a tag. A name may have colons of its own."""
    start, _, end = map(str.strip, tag.rpartition(":"))
    name, strength = (start, end) if NUMBER.fullmatch(end) else (tag.strip(), "")
    if ":" not in name or ":" not in (names_of(offered).find(name) or ""):
        name, _, strength = map(str.strip, tag.partition(":"))
    return name, strength or "1"


def _tag(content: str) -> str:
    return f"<lora:{content}>"
