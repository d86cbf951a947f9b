"""LoRAs in a prompt: the tags `<lora:name:0.8>`, as people know them from elsewhere.

Owns the syntax of a tag, and turns the tags of a prompt into LoRAs that ComfyUI lists, or into
sentences about what is wrong with them. Pure functions; writes into no workflow.
"""

from __future__ import annotations

import re
from functools import reduce
from typing import NamedTuple

from binder import Lora
from jobs.names import OptionNames, find_only
from settings import PROMPT_LIMIT
from text import UserError, collecting, quote

LORAS_LIMIT = 5  # in one prompt
STRENGTHS = (-2.0, 2.0)
TAG = re.compile(r"<\s*lora\s*:([^<>]*)>", re.IGNORECASE)
# What was meant as a tag and is none; `(Lora:1.2)` is a name with a weight.
SLIP = re.compile(
    r"(?:[<\uff1c]|&lt;)\s*(?:lora(?![^\W_])|(?:lyco|hypernet)\s*[:\uff1a])[^\s<>\uff1c\uff1e,&]*"
    r"(?:[^<>\uff1c\uff1e,\n]{0,80}?(?:[>\uff1e]|&gt;))?"
    r"|[(\[{]?(?<![^\W_])lora[:\uff1a](?![\d.]+[)\]}])\S[^<>\uff1c\uff1e,\n]{0,80}?"
    r"(?:[>\uff1e]|&gt;|[:\uff1a]\s*[+-]?[.,]?\d[\d.,]*[)\]}>\uff1e]?)",
    re.IGNORECASE,
)
COLON = re.compile("[:\uff1a]")
WIDE_COLON = re.compile(r"\uff1a(?=\s*[+-]?[0-9.,]+\s*$)")  # before a strength
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:[.,][0-9]{0,6})?|[.,][0-9]{1,6})")
GAP = " \t,"  # what separates a tag from its neighbors


class Tagged(NamedTuple):
    """A parsed prompt: the text for the encoder, its LoRAs in order, a sentence for each tag that
    makes no sense, and, if there is none, the prompt with the full names of its LoRAs."""

    text: str
    loras: tuple[Lora, ...]
    problems: tuple[str, ...]
    prompt: str


def read(prompt: str, offered: OptionNames) -> Tagged:
    """Parse the tags of a prompt; `offered` are the LoRAs that ComfyUI lists. A prompt without tags
    comes back as it is; a LoRA that is named twice is used twice."""
    tags = list(TAG.finditer(prompt))
    text = text_of(prompt)
    if tags and not offered:
        return Tagged(
            text, (), (f"There are no LoRAs here: take {quote(tags[0][0])} out.",), prompt
        )
    if len(tags) > LORAS_LIMIT:
        sentence = f"At most {LORAS_LIMIT} LoRAs, please: there are {len(tags)}."
        return Tagged(text, (), (sentence,), prompt)
    loras: list[Lora] = []
    named: list[str] = []
    found: list[str] = []
    for tag in tags:
        with collecting(found):
            lora, name = _parse(tag[1], offered)
            loras.append(lora)
            named.append(_renamed(tag, name, offered.full_name(lora.name)))
    if not found:
        prompt = TAG.sub(lambda _: named.pop(0), prompt)
    return Tagged(text, tuple(loras), tuple(dict.fromkeys(found)), prompt)


def resolve(positive: str, negative: str, offered: OptionNames) -> tuple[str, list[str]]:
    """Return a job's prompt with the full names of its LoRAs, and a sentence for each tag in the
    two prompts that makes no sense."""
    tagged = read(positive, offered)
    problems = list(tagged.problems)
    for slip in dict.fromkeys(map(str.strip, SLIP.findall(TAG.sub(" ", positive)))):
        like = quote(_tag("name:0.8"))
        problems.append(
            f"{quote(slip)} would be painted as text: only LoRA tags like {like} work here."
        )
    if tag := TAG.search(negative) or SLIP.search(negative):
        where = "does nothing in the negative prompt: move it to the prompt, or take it out."
        problems.append(f"{quote(tag[0])} {where}")
    if (excess := len(tagged.prompt) - PROMPT_LIMIT) > 0:
        sentence = "The prompt has no room for the full names of its LoRAs: shorten it by"
        problems.append(f"{sentence} {excess} characters.")
        return positive, problems
    return tagged.prompt, problems


def changes(before: str, after: str) -> list[str]:
    """Return a sentence for each tag of a prompt that has another name after `resolve()`."""
    tags = zip(TAG.finditer(before), TAG.finditer(after), strict=True)
    return [f"{quote(was[0])} is now {quote(now[0])}." for was, now in tags if was[0] != now[0]]


def text_of(prompt: str) -> str:
    """Return a prompt without its tags, and without the commas and spaces around them."""
    texts = TAG.split(prompt)[::2]
    return reduce(_joined, texts).strip() if len(texts) > 1 else prompt


def with_tag(prompt: str, name: str, offered: OptionNames) -> str:
    """Add a tag for the LoRA that a person names to the end of a prompt, unless it has one. Raises
    UserError if there is no such LoRA."""
    if not offered:
        raise UserError("There are no LoRAs here.")
    found = find_only("LoRA", name, offered, name)
    if any(lora.name == found for lora in read(prompt, offered).loras):
        return prompt
    return f"{prompt} {_tag(f'{offered.full_name(found)}:1')}".strip()


def _joined(before: str, after: str) -> str:
    """Join the texts before and after a tag, as if it had never been there."""
    left, right = before.rstrip(GAP), after.lstrip(GAP)
    gap = before[len(left) :] + after[: len(after) - len(right)]
    if not left or not right or left[-1] in "([{\n" or right[0] in ".;:!?)]}":
        return left + right
    return left + ("," if "," in gap else "") + (" " if gap.strip(",") else "") + right


def _parse(tag: str, offered: OptionNames) -> tuple[Lora, str]:
    """Return the LoRA that a tag means, and its name in the tag. Raises UserError."""
    name, strength = _parted(tag, offered)
    if not name:
        raise UserError(f"A tag has no name in it: write it like {quote(_tag('name:0.8'))}.")
    found = find_only("LoRA", name, offered, _tag(name))
    low, high = STRENGTHS
    value = float(strength.replace(",", ".")) if NUMBER.fullmatch(strength) else None
    if value is None or not low <= value <= high:
        example = quote(_tag(f"{name}:0.8"))
        raise UserError(
            f"The strength of the LoRA {quote(name)} is {quote(strength)}: give a number from"
            f" {low:g} to {high:g}, as in {example}."
        )
    return Lora(found, value), name


def _renamed(tag: re.Match[str], name: str, full_name: str) -> str:
    """Return a tag with the full name of its LoRA; all else in it stays as it was typed."""
    before, _, rest = tag[0].partition(":")
    start = len(before) + 1 + len(rest) - len(rest.lstrip())
    rest = tag[0][start + len(name) :]
    if COLON.search(full_name) and not re.search("[0-9]", rest):
        rest = ":1" + rest.lstrip(": ")  # else the end of the name might be read as a strength
    return f"{tag[0][:start]}{full_name}{rest}"


def _parted(tag: str, offered: OptionNames) -> tuple[str, str]:
    """Split a tag into name and strength. A name may have colons of its own."""
    tag = WIDE_COLON.sub(":", tag).strip().removesuffix(":")
    start, _, end = map(str.strip, tag.rpartition(":"))
    name, strength = (start, end) if NUMBER.fullmatch(end) else (tag.strip(), "")
    if ":" not in name or ":" not in (offered.find(name) or ""):
        name, _, strength = map(str.strip, tag.partition(":"))
    return name, strength or "1"


def _tag(content: str) -> str:
    return f"<lora:{content}>"
