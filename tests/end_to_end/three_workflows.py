"""Three kinds of workflow, for tests of what is written into each: the shipped one, one that loads
model and CLIP apart, and one with LoRA loaders of its own. A fourth has no size to choose."""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.harness.bot import REPOSITORY
from tests.harness.house import House
from tests.standins.comfyui.nodes import LORAS, flux_workflow, simple_workflow
from tests.standins.discord.people import Person

SHIPPED = json.loads((REPOSITORY / "workflows/multisampler/base.json").read_text("utf-8"))
SHIPPED_BINDINGS = {  # architecture.md §5, and the base pass's seed
    "positive": ["268.text"],
    "negative": ["4.text"],
    "seed": ["239.seed"],
    "width": ["5.width"],
    "height": ["5.height"],
}
FLUX = flux_workflow(steps=3, size=(1024, 768))
FLUX_BINDINGS = {
    "model": ["12.unet_name"],
    "positive": ["41.value"],
    "seed": ["25.noise_seed"],
    "width": ["40.value"],
    "height": ["27.height"],
}
STYLED_BINDINGS = {
    "model": ["4.ckpt_name"],
    "positive": ["6.text"],
    "negative": ["7.text"],
    "seed": ["3.seed"],
    "width": ["5.width"],
    "height": ["5.height"],
}


def _styled() -> dict[str, Any]:
    """Two LoRAs of its own, one after the other, and VAE and CLIP past them."""
    workflow = simple_workflow(steps=3)
    strengths = {"strength_model": 0.6, "strength_clip": 0.6}
    first = {"model": ["4", 0], "clip": ["4", 1], "lora_name": LORAS[0], **strengths}
    second = {"model": ["lora-1", 0], "clip": ["lora-1", 1], "lora_name": LORAS[1], **strengths}
    workflow["lora-1"] = {"class_type": "LoraLoader", "inputs": first}
    workflow["20"] = {"class_type": "LoraLoader", "inputs": second}
    workflow["3"]["inputs"]["model"] = ["20", 0]
    workflow["6"]["inputs"]["clip"] = ["20", 1]
    return workflow


STYLED = _styled()
OWN_NEGATIVES = {"styled": STYLED["7"]["inputs"]["text"]}  # what each workflow's form starts with
BY_NAME = {
    "multisampler": (SHIPPED, SHIPPED_BINDINGS),
    "flux": (FLUX, FLUX_BINDINGS),
    "styled": (STYLED, STYLED_BINDINGS),
}


def furnish_with_three(house: House) -> None:
    """Put them in, and have ComfyUI make pictures of the size that a prompt says."""
    house.installation.add_workflow("flux", FLUX, FLUX_BINDINGS)
    house.installation.add_workflow("styled", STYLED, STYLED_BINDINGS)
    without = {**FLUX_BINDINGS, "width": [], "height": []}
    house.installation.add_workflow("sizeless", FLUX, without)
    house.comfyui.picture_size = None


def written(name: str, **values: Any) -> dict[str, Any]:
    """A workflow with these values in the places of their params; the shipped one's other seeds
    keep their distances."""
    bindings = BY_NAME[name][1]
    workflow: dict[str, Any] = copy.deepcopy(BY_NAME[name][0])
    if name == "multisampler":
        for node, distance in (("249", 1), ("52", 2), ("118", 3)):
            workflow[node]["inputs"]["seed"] = values["seed"] + distance
    for param, value in values.items():
        for place in bindings.get(param, []):
            node, _, field = place.partition(".")
            workflow[node]["inputs"][field] = value
    return workflow


def failure_of(house: House, person: Person) -> dict[str, Any]:
    """The message about a person's job that has no picture."""
    return house.discord.wait_for_message(
        house.channel, lambda m: m["content"] == f"<@{person.id}>" and not m["attachments"]
    )
