"""Jobs and forms held against what ComfyUI offers now, and the sentences about what is gone.

Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from binder import OPTION_PARAMS
from job import PictureParams
from jobs import lora
from jobs.catalog import Offer
from jobs.names import nearest
from jobs.typed import FormError, parse_count, parse_length
from settings import Settings
from text import (
    OPTION_LIMIT,
    collecting,
    display_name,
    escape,
    quote,
    shorten_middle,
    without_extension,
)

NO_IMAGE = "The workflow needs a picture to work on now. Press Edit."
TAKES_NONE = "The workflow does not work on a picture any more."
NO_SHAPE = "The shape cannot be chosen with this workflow any more."
NO_COUNT = "The number of pictures cannot be chosen with this workflow any more."
# Of those fields of a picture that have another name.
PARAM_NAMES = {"positive_prompt": "positive", "negative_prompt": "negative", "count": "batch"}
UNBOUND: dict[str, Any] = dict.fromkeys((*OPTION_PARAMS, *PARAM_NAMES, "image"), "")
UNBOUND |= {"steps": 0, "cfg": 0.0, "seed": None, "count": 0, "length": 0}

Params = TypeVar("Params", bound=PictureParams)


def without_unbound(params: Params, bound: Collection[str]) -> Params:
    """Return a job or picture without the params that its workflow has no place for."""
    names = [name for name in UNBOUND if PARAM_NAMES.get(name, name) not in bound]
    changes: dict[str, Any] = {name: UNBOUND[name] for name in names}
    return replace(params, **changes)


def check_offered(
    params: Params, offers: Mapping[str, Offer], settings: Settings
) -> tuple[Params, list[str]]:
    """Return the job as ComfyUI can make it now, and a sentence for each model that has moved since
    (before a refresh, or in an old job). Raises FormError for what is not offered any more. Params
    that only the workflow of now has keep the values of its file."""
    workflow = params.workflow or next(iter(offers))
    if workflow not in offers:
        raise FormError(f"The workflow {quote(workflow)} is not offered any more.")
    offer = offers[workflow]
    notes: list[str | None] = []
    gone: list[str | None] = []
    changes: dict[str, Any] = {}
    for name in offer.fields:
        if value := getattr(params, name):
            changes[name] = found = offer.find(name, value)
            notes.append(moved_note(value, found) if found else None)
            gone.append(None if found else not_offered(name, value, offer, instead=""))
    named, wrong = lora.resolve(params.positive_prompt, params.negative_prompt, offer.loras)
    changes["positive_prompt"] = named
    notes += lora.changes(params.positive_prompt, named)
    gone.append(too_many_steps(params.steps, settings.max_steps))
    allowed, wrong_numbers = numbers_now(params, offer, settings)
    changes |= allowed
    gone += [*wrong, *wrong_numbers]
    gone.append(NO_IMAGE if offer.takes_image and not params.image else None)
    gone.append(TAKES_NONE if params.image and not offer.takes_image else None)
    gone.append(NO_SHAPE if params.shape and offer.size is None else None)
    if any(gone):
        raise FormError("\n".join(filter(None, gone)))
    changes["size"] = params.size if offer.size else None
    changes["strength"] = params.strength if offer.strength is not None else 0.0
    return without_unbound(replace(params, **changes), offer.params), list(filter(None, notes))


def numbers_now(
    picture: PictureParams, offer: Offer, settings: Settings
) -> tuple[dict[str, int], list[str]]:
    """Return the number of pictures and the length that a picture may have now, and a sentence for
    each that cannot be had any more."""
    numbers: dict[str, int] = {}
    problems: list[str] = []
    with collecting(problems):
        if picture.count > 1 and offer.count is None:
            raise FormError(NO_COUNT)
        if picture.count > max(settings.max_count, offer.count or 0):
            parse_count(str(picture.count), settings.max_count)
        numbers["count"] = picture.count
    with collecting(problems):
        if picture.length and offer.length:
            numbers["length"] = parse_length(str(picture.length), offer.length)
    return numbers, problems


def moved_note(before: str, now: str) -> str | None:
    """Return a sentence about a model that has moved; None if it has not."""
    if before == now:
        return None
    was, now = (
        escape(shorten_middle(without_extension(path), OPTION_LIMIT)) for path in (before, now)
    )
    return f"The model {was} has moved to {now}."


def not_offered(name: str, value: str, offer: Offer, instead: str) -> str:
    """Return a sentence about a value of one of OPTION_PARAMS that is not offered any more;
    `instead` is the current value."""
    offered = offer.offered(name)
    gone = f"The {name} {quote(display_name(value))} is not offered any more"
    if instead in offered:
        return f"{gone}: {quote(display_name(instead))} stands in the form instead."
    return f"{gone}.{nearest(value, offered)} Choose another in the form."


def too_many_steps(steps: int, most: int) -> str | None:
    """Return a sentence if an earlier job has more steps than the owner allows now."""
    return f"At most {most} steps are allowed now; these were {steps}." if steps > most else None
