"""What follows from a prompt along its links: the values that nodes get, their steps and sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from tests.standins.comfyui.nodes import Json
from tests.standins.comfyui.prompts import is_link

# What comes out of a node that computes a value, by class and input.
VALUES = {
    "PrimitiveInt": "value",
    "PrimitiveString": "value",
    "PrimitiveStringMultiline": "value",
    "Seed Generator (Image Saver)": "seed",
}
UNKNOWN_SIDE = 512


def inputs_of(prompt: Json, node_id: str) -> Json:
    """The inputs of a node, those that are linked to a value with that value."""
    inputs = prompt[node_id]["inputs"]
    return {name: _value(prompt, value) for name, value in inputs.items()}


def _value(prompt: Json, value: Any) -> Any:
    if not is_link(value):
        return value
    kind = prompt[value[0]]["class_type"]
    if kind in VALUES:
        return inputs_of(prompt, value[0])[VALUES[kind]]
    if kind == "StringConcatenate":
        inputs = inputs_of(prompt, value[0])
        return str(inputs["delimiter"]).join(str(inputs[f"string_{side}"]) for side in "ab")
    return value


def _number(inputs: Json, name: str, default: float) -> float:
    """The input, or the default where it is missing or linked to what isn't known here."""
    value = inputs.get(name)
    return value if isinstance(value, (int, float)) else default


def steps_of(prompt: Json, node_id: str) -> int:
    """How many steps a sampler node does; 0 for other nodes."""
    inputs = inputs_of(prompt, node_id)
    if is_link(inputs.get("sigmas")):
        inputs = inputs_of(prompt, inputs["sigmas"][0])
        if _number(inputs, "denoise", 1) <= 0:
            return 0
    elif "sampler_name" not in inputs or "steps" not in inputs:
        return 0
    steps = _number(inputs, "steps", 20)
    end = min(_number(inputs, "end_at_step", steps), steps)
    return max(0, int(end - _number(inputs, "start_at_step", 0)))


def source_of(info: dict[str, Any], prompt: Json, node_id: str) -> str | None:
    """The node from which a node takes the picture that it changes, or the latent image."""
    inputs, spec = prompt[node_id]["inputs"], info[prompt[node_id]["class_type"]]["input"]
    for name, config in {**spec["required"], **spec.get("optional", {})}.items():
        if config[0] in ("LATENT", "IMAGE") and is_link(inputs.get(name)):
            return str(inputs[name][0])
    return None


def upstream_of(info: dict[str, Any], prompt: Json, node_id: str) -> list[str]:
    """A node and those that its picture comes from, nearest first."""
    found = [node_id]
    while source := source_of(info, prompt, found[-1]):
        found.append(source)
    return found


def size_of(
    info: dict[str, Any],
    prompt: Json,
    node_id: str,
    loaded: Callable[[str], tuple[int, int]],
) -> tuple[int, int]:
    """Width and height in pixels of the picture, or of what will be one, that leaves a node;
    `loaded` tells it for a node that loads one."""
    inputs, kind = inputs_of(prompt, node_id), prompt[node_id]["class_type"]
    if kind == "LoadImage":
        return loaded(node_id)
    if info[kind]["output"] == ["LATENT"] and "width" in inputs:
        width, height = (_number(inputs, side, UNKNOWN_SIDE) for side in ("width", "height"))
        return int(width) // 8 * 8, int(height) // 8 * 8
    source = source_of(info, prompt, node_id)
    if source is None:
        return UNKNOWN_SIDE, UNKNOWN_SIDE
    width, height = size_of(info, prompt, source, loaded)
    if kind == "VAEEncode":
        return width // 8 * 8, height // 8 * 8
    if kind == "ImageScaleToTotalPixels":
        scale = math.sqrt(_number(inputs, "megapixels", 1) * 2**20 / (width * height))
        return round(width * scale), round(height * scale)
    if kind == "ImageUpscaleWithModel":
        factor = factor_of(str(inputs_of(prompt, inputs["upscale_model"][0])["model_name"]))
        return width * factor, height * factor
    if "scale_by" in inputs:
        scale = _number(inputs, "scale_by", 1)
        return round(width / 8 * scale) * 8, round(height / 8 * scale) * 8
    return width, height


def factor_of(model: str) -> int:
    """How many times larger an upscaler makes a picture, as its name says."""
    found = re.search("([1-8])x|x([1-8])", model, re.IGNORECASE)
    return int(found[1] or found[2]) if found else 4


def batch_size_of(prompt: Json, order: list[str]) -> int:
    """How many pictures these nodes make at once."""
    sizes = [inputs_of(prompt, node_id).get("batch_size") for node_id in order]
    return next((size for size in sizes if isinstance(size, int)), 1)
