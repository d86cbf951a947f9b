"""The values that a person types, parsed, or refused with a finished sentence.

Pure; any thread.
"""

from __future__ import annotations

import re

from binder import SEED_MAX
from jobs import lora
from settings import MOST_STEPS
from text import UserError, quote

STEPS_RANGE = (1, MOST_STEPS)
CFG_RANGE = (1.0, 30.0)


class FormError(UserError):
    """Refusal of something that was filled in."""


def check_prompt(text: str) -> None:
    """Raise FormError for a prompt that has no more in it than LoRA tags."""
    if not lora.text_of(text):
        raise FormError("**Prompt** is empty: describe the picture in a few words.")


def parse_steps(text: str, most: int) -> int:
    """Return a whole number from 1 to `most` in plain ASCII digits."""
    low, number = STEPS_RANGE[0], text.strip()
    if not re.fullmatch(r"\+?[0-9]{1,4}", number) or not low <= int(number) <= most:
        raise FormError(f"**Steps** is {quote(text)}: give a whole number from {low} to {most}.")
    return int(number)


def parse_cfg(text: str) -> float:
    """Return a decimal number in CFG_RANGE in plain ASCII digits, with a point or a comma."""
    low, high = CFG_RANGE
    number = text.strip().replace(",", ".")
    pattern = r"\+?[0-9]{1,4}(\.[0-9]{1,10})?"
    if not re.fullmatch(pattern, number) or not low <= float(number) <= high:
        raise FormError(
            f"**CFG** is {quote(text)}: give a number from {low:g} to {high:g},"
            " for example 7 or 7.5."
        )
    return float(number)


def parse_seed(text: str) -> int | None:
    """Return a seed in plain ASCII digits; None for an empty text."""
    number = text.strip()
    if not number:
        return None
    if not re.fullmatch(r"\+?[0-9]{1,20}", number) or int(number) > SEED_MAX:
        raise FormError(
            f"**Seed** is {quote(text)}: give a whole number from 0 to {SEED_MAX}, or leave it"
            " empty for a random one."
        )
    return int(number)
