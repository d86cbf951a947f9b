"""The values that a person types, parsed, or refused with a finished sentence.

Pure; any thread.
"""

from __future__ import annotations

import math
import re

from binder import SEED_MAX
from jobs import lora
from settings import MOST_STEPS
from text import UserError, quote

STEPS_RANGE = (1, MOST_STEPS)
CFG_RANGE = (1.0, 30.0)
SHORTEST, LONGEST = 0.3, 1.5  # of a video, as parts of the length in its workflow


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


def length_range(own: int) -> tuple[int, int, int]:
    """Return the fewest and the most frames that a person may choose, and in which steps, for a
    video that has so many in the workflow's file: most models want a multiple of 4 or 8, and 1."""
    step = next(step for step in (8, 4, 1) if own % step == 1 % step)
    low, high = math.ceil(own * SHORTEST), math.floor(own * LONGEST)
    return low + (own - low) % step, high - (high - own) % step, step


def parse_length(text: str, own: int) -> int:
    """Return a whole number of frames in the range for a workflow's own number, the nearest that
    its steps allow."""
    (low, high, step), number = length_range(own), text.strip()
    if not re.fullmatch(r"\+?[0-9]{1,6}", number) or not low <= int(number) <= high:
        raise FormError(
            f"**Length** is {quote(text)}: give a whole number of frames from {low} to {high}; this"
            f" workflow's own is {own}."
        )
    return low + round((int(number) - low) / step) * step


def parse_count(text: str, most: int) -> int:
    """Return a whole number of pictures from 1 to `most`."""
    number = text.strip()
    if not re.fullmatch(r"[0-9]{1,3}", number) or not 1 <= int(number) <= most:
        pictures = "1 picture" if most == 1 else f"1 to {most} pictures"
        raise FormError(
            f"{quote(text)} pictures cannot be made at a time: there may be {pictures}."
        )
    return int(number)


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
