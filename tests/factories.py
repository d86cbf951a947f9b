"""Makers of what many tests need, each with plain values and changes of the test's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from binder import PARAMS, Defaults, Size
from job import Job, JobParams, JobStatus
from jobs.catalog import Catalog, Offer, Workflows
from jobs.names import OptionNames
from settings import Settings, load_settings

JOB_ID = "01234567-89ab-cdef-0123-456789abcdef"
USER, GUILD, CHANNEL, ELSEWHERE = 1, 2, 3, 4

NOTHING = Defaults(None, None, None, None, None, None)


def settings(**changes: Any) -> Settings:
    """Return the settings of an owner who has only set what is required."""
    required = {"DISCORD_TOKEN": "a.b.c", "ALLOWED_CHANNEL_IDS": "1"}
    return replace(load_settings(required), **changes)


def an_offer(
    models: Sequence[str] = (),
    samplers: Sequence[str] = (),
    schedulers: Sequence[str] = (),
    *,
    loras: Sequence[str] = (),
    defaults: Defaults = NOTHING,
    params: frozenset[str] = frozenset(PARAMS) - {"image", "length"},
    size: Size | None = None,
    **image: Any,
) -> Offer:
    """Return the offer of a workflow that has a place for everything but a size and a picture."""
    lists = OptionNames(models), OptionNames(samplers), OptionNames(schedulers), OptionNames(loras)
    return Offer(*lists, defaults, params, size, **image)


def a_catalog(offers: Mapping[str, Offer], client: Any = None) -> Catalog:
    """Return a catalog of these offers, the first of them the default; without a client it is
    never refreshed."""
    default = next(iter(offers), "main")
    catalog = Catalog(
        client, Workflows(Path(default) / "base.json"), can_refresh=client is not None
    )
    catalog.offers, catalog.names = offers, OptionNames(tuple(offers))
    return catalog


def params(**changes: Any) -> JobParams:
    """Return what a person has asked for."""
    values: dict[str, Any] = {
        "user_id": str(USER),
        "guild_id": str(GUILD),
        "channel_id": str(CHANNEL),
        "model": "SDXL/base_1.0.safetensors",
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "steps": 20,
        "cfg": 7.0,
        "positive_prompt": "a *red* fox",
        "seed": 42,
    }
    return JobParams(**{**values, **changes})


def a_job(**changes: Any) -> Job:
    """Return a completed job with one picture that has not been reported."""
    values: dict[str, Any] = {
        **vars(params()),
        "id": JOB_ID,
        "status": JobStatus.COMPLETED,
        "discord_message_id": None,
        "comfy_prompt_id": None,
        "output_images": ("a.png",),
        "error_message": None,
        "created_at": 1,
        "started_at": 1_700_000_000_999,
        "completed_at": 3,
        "delivered_at": None,
    }
    return Job(**{**values, **changes})
