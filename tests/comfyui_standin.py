"""A stand-in for a ComfyUI server: the same routes, answers and events, no GPU; and faults.

An aiohttp server (the real one is one too) in a thread of its own on 127.0.0.1, used by the
end-to-end tests and by the demo. It validates, queues, "runs", caches and interrupts prompts as
ComfyUI 0.3.64 does, draws a real PNG for each, and misbehaves on request in the ways in which
networks, reverse proxies and owners who restart their server do.

Public methods may be called from any thread. Callbacks given to `before()` and `after()` run in
the server's thread.
"""

from __future__ import annotations

import asyncio
import colorsys
import contextlib
import copy
import hashlib
import json
import math
import os
import random
import socket
import string
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")
Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Item = tuple[float, str, Json, Json, list[str]]  # number, prompt id, prompt, extra data, outputs

PICTURES_KEPT = 200
OWNERS_DISK = "/home/owner/ComfyUI"  # stands in every traceback; no user may ever read it
TRACEBACK = [
    f'  File "{OWNERS_DISK}/execution.py", line 496, in execute\n    await get_output_data(',
    f'  File "{OWNERS_DISK}/comfy/utils.py", line 61, in load_torch_file\n    safe_open(',
]
OUT_OF_MEMORY_TIPS = (
    "This error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large "
    "number."
)

# What a real server with the Mikey, Efficiency and Impact nodes lists.
_SAMPLER_NAMES = """
    euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 dpm_2 dpm_2_ancestral lms
    dpm_fast dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu
    dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu
    dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm ipndm ipndm_v deis res_multistep res_multistep_cfg_pp
    res_multistep_ancestral res_multistep_ancestral_cfg_pp gradient_estimation
    gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver sa_solver_pece ddim uni_pc
    uni_pc_bh2"""
_SCHEDULER_NAMES = (
    "simple sgm_uniform karras exponential ddim_uniform beta normal linear_quadratic kl_optimal"
)
_MODEL_NAMES = """
    Flux/flux1-dev-fp8.safetensors | Illustrious/illustriousXL_v01.safetensors |
    Illustrious/merges/2025-08 (test)/novaAnimeXL_ilV100 + hassaku blend 0.35.safetensors |
    Illustrious/waiIllustrious_v140.safetensors | NoobAI/NoobAI-XL-v1.1.safetensors |
    NoobAI/noobaiXLNAIXL_vPred10Version.safetensors |
    Pony/autismmixSDXL_autismmixConfetti.safetensors |
    Pony/ponyDiffusionV6XL_v6StartWithThisOne.safetensors |
    Pony/ponyRealism_V22MainVAE.safetensors | SD15/DreamShaper_8_pruned.safetensors |
    SD15/anything-v5.0.safetensors | SD15/deliberate_v2.safetensors |
    SD15/photon_v1.safetensors | SD15/realisticVisionV60B1_v51VAE.safetensors |
    SD15/v1-5-pruned-emaonly-fp16.safetensors | SDXL/animagineXL40_v40Opt.safetensors |
    SDXL/copaxTimelessxlSDXL1_v12.safetensors | SDXL/dreamshaperXL_lightningDPMSDE.safetensors |
    SDXL/juggernautXL_ragnarokBy.safetensors | SDXL/juggernautXL_v9Rdphoto2Lightning.safetensors |
    SDXL/old and archived checkpoints/2024, still used for the posters, please do not delete/\
realvisxlV50_v50LightningBakedvae.safetensors |
    SDXL/realvisxlV50_v50LightningBakedvae.safetensors |
    SDXL/refiner/sd_xl_refiner_1.0.safetensors |
    SDXL/sd_xl_base_1.0.safetensors | SDXL/turbo/sd_xl_turbo_1.0_fp16.safetensors |
    SDXL/zavychromaxl_v100.safetensors | dreamshaper_8.safetensors | meinamix_v12Final.safetensors |
    sd_xl_base_1.0.safetensors | sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors |
    v2-1_768-ema-pruned.ckpt"""
SAMPLERS = _SAMPLER_NAMES.split()
SCHEDULERS = _SCHEDULER_NAMES.split()
MODELS = [name.strip() for name in _MODEL_NAMES.split("|")]
_AYS = ["AYS SDXL", "AYS SD1", "AYS SVD"]
OPTIONS = {
    "@models": MODELS,
    "@samplers": SAMPLERS,
    "@schedulers": SCHEDULERS,
    "@efficient": [*SCHEDULERS, "AYS SD1", "AYS SDXL", "AYS SVD", "GITS"],
    "@detailer": [*SCHEDULERS, *_AYS, "GITS[coeff=1.2]", "LTXV[default]", "OSS FLUX", "OSS Wan"],
    "@upscale": ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"],
    "@preview": ["auto", "latent2rgb", "taesd", "vae_decoded_only", "none"],
    "@decode": ["true", "true (tiled)", "false"],
    "@decode_adv": ["true", "true (tiled)", "false", "output only", "output only (tiled)"],
    "@on": ["enable", "disable"],
    "@off": ["disable", "enable"],
    "@hint": ["center-1", "horizontal-2", "vertical-2", "rect-4", "mask-area", "none"],
    "@negative": ["False", "Small", "Outter"],
    "@yolo": ["bbox/face_yolov8m.pt", "segm/person_yolov8m-seg.pt"],
}
# A class: name, its inputs, its outputs. An input: name, type (@ is a list of options), and for
# numbers default, least, most. "?" marks an optional input; "V3" and "output node" mark the class.
_SEED = f"seed INT 0 0 {0xFFFFFFFFFFFFFFFF}"
_STEPS = "steps INT 20 1 10000 | cfg FLOAT 7.0 0.0 100.0 | sampler_name @samplers"
_CONDITIONED = "positive CONDITIONING | negative CONDITIONING"
_EFFICIENT_OUTPUTS = "MODEL CONDITIONING CONDITIONING LATENT VAE IMAGE"
NODES = [
    ("Checkpoint Loader Simple Mikey", "ckpt_name @models", "MODEL CLIP VAE STRING STRING"),
    ("CheckpointLoaderSimple V3", "ckpt_name @models", "MODEL CLIP VAE"),
    ("CLIPTextEncode", "text STRING | clip CLIP", "CONDITIONING"),
    (
        "EmptyLatentImage",
        "width INT 512 16 16384 | height INT 512 16 16384 | batch_size INT 1 1 4096",
        "LATENT",
    ),
    (
        "LatentUpscaleBy V3",
        "samples LATENT | upscale_method @upscale | scale_by FLOAT 1.5 0.01 8.0",
        "LATENT",
    ),
    (
        "KSampler V3",
        f"model MODEL | {_SEED} | {_STEPS} | scheduler @schedulers | {_CONDITIONED} | "
        "latent_image LATENT | denoise FLOAT 1.0 0.0 1.0",
        "LATENT",
    ),
    (
        "KSampler (Efficient) output node",
        f"model MODEL | {_SEED} | {_STEPS} | scheduler @efficient | {_CONDITIONED} | "
        "latent_image LATENT | denoise FLOAT 1.0 0.0 1.0 | preview_method @preview | "
        "vae_decode @decode | ?optional_vae VAE | ?script SCRIPT",
        _EFFICIENT_OUTPUTS,
    ),
    (
        "KSampler Adv. (Efficient) output node",
        f"model MODEL | add_noise @on | noise_{_SEED} | {_STEPS} | scheduler @efficient | "
        f"{_CONDITIONED} | latent_image LATENT | start_at_step INT 0 0 10000 | "
        "end_at_step INT 10000 0 10000 | return_with_leftover_noise @off | "
        "preview_method @preview | vae_decode @decode_adv | ?optional_vae VAE | ?script SCRIPT",
        _EFFICIENT_OUTPUTS,
    ),
    (
        "FaceDetailer",
        "image IMAGE | model MODEL | clip CLIP | vae VAE | guide_size FLOAT 512 64 16384 | "
        f"guide_size_for BOOLEAN | max_size FLOAT 1024 64 16384 | {_SEED} | {_STEPS} | "
        f"scheduler @detailer | {_CONDITIONED} | denoise FLOAT 0.5 0.0001 1.0 | "
        "feather INT 5 0 100 | noise_mask BOOLEAN | force_inpaint BOOLEAN | "
        "bbox_threshold FLOAT 0.5 0.0 1.0 | bbox_dilation INT 10 -512 512 | "
        "bbox_crop_factor FLOAT 3.0 1.0 10 | sam_detection_hint @hint | "
        "sam_dilation INT 0 -512 512 | sam_threshold FLOAT 0.93 0.0 1.0 | "
        "sam_bbox_expansion INT 0 0 1000 | sam_mask_hint_threshold FLOAT 0.7 0.0 1.0 | "
        "sam_mask_hint_use_negative @negative | drop_size INT 10 1 16384 | "
        "bbox_detector BBOX_DETECTOR | wildcard STRING | cycle INT 1 1 10 | "
        "?sam_model_opt SAM_MODEL | ?segm_detector_opt SEGM_DETECTOR | ?inpaint_model BOOLEAN | "
        "?noise_mask_feather INT 20 0 100",
        "IMAGE IMAGE IMAGE MASK DETAILER_PIPE IMAGE",
    ),
    ("UltralyticsDetectorProvider", "model_name @yolo", "BBOX_DETECTOR SEGM_DETECTOR"),
    ("VAEDecode", "samples LATENT | vae VAE", "IMAGE"),
    ("SaveImage output node", "images IMAGE | filename_prefix STRING", ""),
    ("PreviewImage output node", "images IMAGE", ""),
    ("Seed Generator (Image Saver)", _SEED, "INT"),
]
UNIQUE_ID = ("Checkpoint Loader Simple Mikey", "KSampler (Efficient)", "KSampler Adv. (Efficient)")
# Kinds of faults: answers given without processing the request, and processed but cut off.
PAGES = {
    "404": "404: Not Found",
    "429": "Too Many Requests",
    "500": "500 Internal Server Error\n\nServer got itself in trouble",
    "502": "Bad Gateway",
    "503": "Service Temporarily Unavailable",
    "login page": "",
    "redirect": "",
}
CUTS = ("lost answer", "half json", "truncate")
PREVIEW_FRAME = struct.pack(">II", 1, 1) + b"\xff\xd8\xff\xe0\x00\x10JFIF\0" + bytes(64)  # a JPEG
LOGIN_PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"


def _object_info() -> dict[str, Any]:
    """NODES in the shape of GET /object_info."""
    info = {}
    for title, inputs, outputs in NODES:
        name = title.removesuffix(" V3").removesuffix(" output node")
        hidden = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        if name in UNIQUE_ID:
            hidden["my_unique_id"] = "UNIQUE_ID"
        spec: Json = {"required": {}, "optional": {}, "hidden": hidden}
        for text in inputs.split(" | "):
            key, kind, *numbers = text.split()
            group = "optional" if key.startswith("?") else "required"
            config: list[Any] = [kind]
            if kind in OPTIONS and title.endswith(" V3"):
                config = ["COMBO", {"multiselect": False, "options": list(OPTIONS[kind])}]
            elif kind in OPTIONS:
                config = [list(OPTIONS[kind]), {"tooltip": f"The {key} to use."}]
            elif numbers:
                limits = [json.loads(number) for number in numbers]
                config.append(dict(zip(("default", "min", "max"), limits, strict=True)))
            spec[group][key.lstrip("?")] = config
        info[name] = {
            "input": spec,
            "input_order": {group: list(keys) for group, keys in spec.items()},
            "output": outputs.split(),
            "output_is_list": [False for _ in outputs.split()],
            "output_name": outputs.split(),
            "name": name,
            "display_name": name,
            "description": "",
            "python_module": "nodes",
            "category": "image",
            "output_node": title.endswith(" output node"),
        }
    return info


def simple_workflow(checkpoint: str = MODELS[0], seed: int = 1, steps: int = 4) -> Json:
    """The text-to-image workflow that ComfyUI's own page opens with, in the API format."""
    size = {"width": 512, "height": 512, "batch_size": 1}
    sampling = {"seed": seed, "steps": steps, "cfg": 8, "sampler_name": "euler", "denoise": 1}
    sampling |= {"scheduler": "normal", "model": ["4", 0], "latent_image": ["5", 0]}
    sampling |= {"positive": ["6", 0], "negative": ["7", 0]}
    nodes: list[tuple[str, str, Json]] = [
        ("4", "CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        ("5", "EmptyLatentImage", size),
        ("6", "CLIPTextEncode", {"text": "a landscape", "clip": ["4", 1]}),
        ("7", "CLIPTextEncode", {"text": "text, watermark", "clip": ["4", 1]}),
        ("3", "KSampler", sampling),
        ("8", "VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}),
        ("9", "SaveImage", {"images": ["8", 0], "filename_prefix": "ComfyUI"}),
    ]
    return {node_id: {"class_type": name, "inputs": inputs} for node_id, name, inputs in nodes}


# --- the graph ------------------------------------------------------------------------------------


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _execution_order(prompt: Json, outputs: list[str]) -> list[str]:
    """The nodes that the outputs need, each after those it depends on."""
    order: dict[str, None] = {}

    def visit(node_id: str) -> None:
        if node_id not in order:
            for value in prompt[node_id]["inputs"].values():
                if _is_link(value):
                    visit(value[0])
            order[node_id] = None

    for node_id in outputs:
        visit(node_id)
    return list(order)


def _signatures(prompt: Json, order: list[str]) -> dict[str, str]:
    """What each node's result depends on: its class and inputs and those of all its ancestors."""
    signatures: dict[str, str] = {}
    for node_id in order:
        node = prompt[node_id]
        inputs = {
            name: [signatures[value[0]], value[1]] if _is_link(value) else value
            for name, value in node["inputs"].items()
        }
        own_id = node_id if node["class_type"] in UNIQUE_ID else None
        text = json.dumps([node["class_type"], own_id, inputs], sort_keys=True)
        signatures[node_id] = hashlib.sha256(text.encode()).hexdigest()
    return signatures


def _error(kind: str, message: str, details: str, **extra_info: Any) -> Json:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def _exception(kind: str, message: str, exc: Exception, **extra_info: Any) -> Json:
    name = type(exc).__name__
    return _error(kind, message, str(exc), **extra_info, exception_type=name, traceback=TRACEBACK)


def validate_prompt(
    info: dict[str, Any], prompt: Json, newest: bool
) -> tuple[Json | None, list[str], Json]:
    """Validate as execution.py does: (error or None, outputs that will run, node_errors)."""
    outputs = []
    for node_id, node in prompt.items():
        if "class_type" not in node or node["class_type"] not in info:
            return _unknown_class(node_id, node, newest), [], {}
        if info[node["class_type"]]["output_node"]:
            outputs.append(node_id)
    if not outputs:
        return _error("prompt_no_outputs", "Prompt has no outputs", ""), [], {}

    validated: dict[str, tuple[bool, list[Json]]] = {}
    good: list[str] = []
    details: list[str] = []
    node_errors: Json = {}
    for output in outputs:
        try:
            valid, reasons = _validate_inputs(info, prompt, output, validated)
        except Exception as exc:
            message = "Exception when validating node"
            reasons = [_exception("exception_during_validation", message, exc)]
            valid, _ = validated[output] = (False, reasons)
        if valid:
            good.append(output)
            continue
        details += [f"{reason['message']}: {reason['details']}" for reason in reasons]
        for node_id, (fine, errors) in validated.items():
            if not fine and errors:
                entry = {"errors": errors, "dependent_outputs": []}
                entry["class_type"] = prompt[node_id]["class_type"]
                node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if good:
        return None, good, node_errors
    message = "Prompt outputs failed validation"
    error = _error("prompt_outputs_failed_validation", message, "\n".join(details))
    return error, [], node_errors


def _unknown_class(node_id: str, node: Json, newest: bool) -> Json:
    details = f"Node ID '#{node_id}'"
    if newest:
        name = node.get("class_type")
        title = node.get("_meta", {}).get("title", name)
        message = f"Node '{title}' not found. The custom node may not be installed."
        extra = {"node_id": node_id, "class_type": name, "node_title": title}
        return _error("missing_node_type", message, details, **extra)
    message = "Cannot execute because a node is missing the class_type property."
    if "class_type" in node:
        message = f"Cannot execute because node {node['class_type']} does not exist."
    return _error("invalid_prompt", message, details)


def _validate_inputs(
    info: dict[str, Any], prompt: Json, node_id: str, validated: dict[str, tuple[bool, list[Json]]]
) -> tuple[bool, list[Json]]:
    """Validate a node after its ancestors; literal values are converted in place, as in ComfyUI."""
    if node_id in validated:
        return validated[node_id]
    node = prompt[node_id]
    inputs, spec = node["inputs"], info[node["class_type"]]["input"]
    required = spec.get("required", {})
    errors: list[Json] = []
    valid = True
    for name, config in {**required, **spec.get("optional", {})}.items():
        if name not in inputs:
            if name in required:
                message = "Required input is missing"
                errors.append(_error("required_input_missing", message, name, input_name=name))
            continue
        value = inputs[name]
        if not isinstance(value, list):
            inputs[name], error = _literal(name, config, value)
        elif error := _bad_link(info, prompt, name, config, value):
            pass
        else:
            try:
                valid = _validate_inputs(info, prompt, value[0], validated)[0] and valid
            except Exception as exc:
                message = "Exception when validating inner node"
                kind = "exception_during_inner_validation"
                reason = _exception(kind, message, exc, input_name=name, linked_node=value)
                validated[value[0]] = (False, [reason])
                valid = False
        if error:
            errors.append(error)
    validated[node_id] = (valid and not errors, errors)
    return validated[node_id]


def _bad_link(
    info: dict[str, Any], prompt: Json, name: str, config: list[Any], link: list[Any]
) -> Json | None:
    extra = {"input_name": name, "input_config": config}
    if len(link) != 2:
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        return _error("bad_linked_input", message, name, **extra, received_value=link)
    received = info[prompt[link[0]]["class_type"]]["output"][link[1]]
    wanted = "COMBO" if isinstance(config[0], list) else config[0]
    if received == wanted or "*" in (received, wanted):
        return None
    message = "Return type mismatch between linked nodes"
    details = f"{name}, received_type({received}) mismatch input_type({wanted})"
    extra |= {"received_type": received, "linked_node": link}
    return _error("return_type_mismatch", message, details, **extra)


def _literal(name: str, config: list[Any], value: Any) -> tuple[Any, Json | None]:
    """The value as the node's type, and what is wrong with it."""
    kind, limits = config[0], config[1] if len(config) > 1 else {}
    extra = {"input_name": name, "input_config": config, "received_value": value}
    converters: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str}
    try:
        if isinstance(kind, str):
            value = {**converters, "BOOLEAN": bool}.get(kind, lambda same: same)(value)
    except Exception as exc:
        message = f"Failed to convert an input value to a {kind} value"
        extra["exception_message"] = str(exc)
        return value, _error("invalid_input_type", message, f"{name}, {value}, {exc}", **extra)
    if "min" in limits and value < limits["min"]:
        message = f"Value {value} smaller than min of {limits['min']}"
        return value, _error("value_smaller_than_min", message, name, **extra)
    if "max" in limits and value > limits["max"]:
        message = f"Value {value} bigger than max of {limits['max']}"
        return value, _error("value_bigger_than_max", message, name, **extra)
    options = limits.get("options", []) if kind == "COMBO" else kind
    if isinstance(options, list) and value not in options:
        listed = str(options)
        if len(options) > 20:
            listed, extra["input_config"] = f"(list of length {len(options)})", None
        details = f"{name}: {value!r} not in {listed}"
        return value, _error("value_not_in_list", "Value not in list", details, **extra)
    return value, None


# --- pictures -------------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", check)))


def _shades(hue: float, light: float, hue_end: float, light_end: float, count: int) -> bytes:
    colours = bytearray()
    for step in range(count):
        part = step / max(1, count - 1)
        mixed = hue + (hue_end - hue) * part, light + (light_end - light) * part
        colours += bytes(int(255 * c) for c in colorsys.hls_to_rgb(mixed[0] % 1, mixed[1], 0.55))
    return bytes(colours)


def draw_png(seed: bytes, size: tuple[int, int], texts: Mapping[str, str], pad_to: int) -> bytes:
    """A small landscape that depends on the seed alone, with text chunks as ComfyUI writes them.

    Drawn as whole columns (sky, a sun with a halo, three ranges of hills) of palette indexes: that
    is what pure Python does in a few milliseconds.
    """
    width, height = size
    digest = hashlib.sha256(seed).digest()
    dice = [byte / 255 for byte in digest]
    hue, noon = dice[0], dice[1]
    palette = _shades(hue, 0.25 + 0.4 * noon, hue + 0.15 - 0.3 * dice[2], 0.85, 100)
    palette += _shades(hue + 0.1, 0.93, hue + 0.05, 0.86, 12) + _shades(hue, 0.84, hue, 0.9, 12)
    for layer in range(3):
        shade = 0.5 - 0.14 * layer
        palette += _shades(hue + dice[3] * 0.4 - 0.05 * layer, shade, hue + dice[3], shade / 2, 44)

    def strip(first: int, count: int) -> bytes:
        return bytes(first + y * count // height for y in range(height))

    sky, sun, halo = strip(0, 100), strip(100, 12), strip(112, 12)
    ranges = [
        (
            strip(124 + 44 * layer, 44),
            height * (0.52 + 0.15 * layer + 0.05 * dice[5 + layer]),
            height * (0.10 - 0.02 * layer),
            (2 + layer + 3 * dice[8 + layer]) / width,
            7 * dice[11 + layer],
        )
        for layer in range(3)
    ]
    sun_x, sun_y = int(width * (0.15 + 0.7 * dice[14])), int(height * (0.15 + 0.3 * dice[15]))
    radius = int(height * (0.06 + 0.08 * dice[16]))
    columns = []
    for x in range(width):
        column = sky
        for disc, reach in ((halo, radius * 2), (sun, radius)):
            half = math.isqrt(max(0, reach * reach - (x - sun_x) ** 2))
            top, bottom = max(0, sun_y - half), min(height, sun_y + half)
            column = column[:top] + disc[top:bottom] + column[bottom:]
        for hill, middle, swing, pace, start in ranges:
            wave = math.sin(pace * x + start) + 0.4 * math.sin(2.7 * pace * x + 2 * start)
            crest = min(height, max(0, int(middle - swing * wave)))
            column = column[:crest] + hill[crest:]
        columns.append(column)
    pixels = b"".join(columns)
    rows = b"".join(b"\0" + pixels[y::height] for y in range(height))
    parts = [
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        *(_chunk(b"tEXt", f"{key}\0{text}".encode("latin-1")) for key, text in texts.items()),
        _chunk(b"PLTE", palette),
        _chunk(b"IDAT", zlib.compress(rows, 4)),
        _chunk(b"IEND", b""),
    ]
    missing = pad_to - sum(map(len, parts)) - 12
    if missing > 0:
        parts.insert(-2, _chunk(b"paDd", bytes(missing)))
    return b"".join(parts)


def _preview(picture: bytes, image_format: str, quality: int) -> bytes:
    """What stands for the re-encoded picture: the right first bytes, smaller with the quality."""
    size = max(128, len(picture) * quality // (430 if image_format == "webp" else 300))
    start = b"\xff\xd8\xff\xe0\x00\x10JFIF\0"
    if image_format == "webp":
        start = b"RIFF" + struct.pack("<I", size - 8) + b"WEBPVP8 "
    noise = hashlib.sha256(picture).digest()
    return (start + noise * (size // len(noise) + 1))[:size]


# --- the server -----------------------------------------------------------------------------------


@dataclass
class Recorded:
    """A request as it arrived: `path` without the stand-in's prefix, `method` "WS" for /ws.

    `status` is 0 while, and if, it got no answer.
    """

    method: str
    path: str
    query: dict[str, str]
    json: Any
    status: int = 0

    def matches(self, route: str) -> bool:
        """Whether `route` ("GET /history", "WS /ws", "*") names this request."""
        if route == "*":
            return True
        method, path = route.split(" ", 1)
        own = self.path.removeprefix("/api")
        return method == self.method and (own == path or own.startswith(path + "/"))


@dataclass
class _Fault:
    route: str
    kind: str
    left: int | None
    seconds: float


@dataclass
class _Run:
    """The prompt in execution."""

    item: Item
    prompt_id: str
    prompt: Json
    client_id: str | None
    order: list[str]
    signatures: dict[str, str]
    messages: list[list[Any]] = field(default_factory=list)
    progress: Json = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    outputs: Json = field(default_factory=dict)
    meta: Json = field(default_factory=dict)
    node_id: str = ""


class _Interrupted(Exception):
    pass


class _NodeFailed(Exception):
    """With the exception type and the message that it stands for."""


def _page(status: int, title: str, **headers: str) -> web.Response:
    """An answer of the reverse proxy in front of ComfyUI."""
    text = (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} "
        f"{title}</h1></center>\r\n<hr><center>nginx/1.24.0</center>\r\n</body>\r\n</html>\r\n"
    )
    headers = {"Server": "nginx/1.24.0", **headers}
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _cut(request: web.Request, *, reset: bool = False) -> web.Response:
    """Close the connection under the request; nobody sees the answer that is returned."""
    if transport := request.transport:
        if reset:  # with RST instead of FIN
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            peer = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


async def _half(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send the head of the answer and half of its body, then close."""
    body = _body(response)
    cut = web.StreamResponse(headers={"Content-Type": response.content_type})
    cut.content_length = len(body)
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    if request.transport:
        request.transport.close()
    return cut


def _body(response: web.StreamResponse) -> bytes:
    body = response.body if isinstance(response, web.Response) else b""
    return body if isinstance(body, bytes) else b""


class ComfyUIStandIn:
    """A ComfyUI server for tests. `with ComfyUIStandIn() as comfy:` or start() and stop().

    Set at any time: `object_info` (what is installed), `seconds_per_step`, `history_delay` (between
    the event execution_success and the history), `picture_size`, `picture_bytes` (PNGs are padded
    to it), `pictures_per_prompt` (None: batch_size), `progress_state` (False: an older server's
    feed), `newest` (missing_node_type; prompt ids must be canonical UUIDs), `jobs_api` (POST
    /api/jobs/{id}/cancel exists), `interrupt_ignores_body` (an older server's).

    To look at: `requests`; `posted`, (prompt id, workflow) of each accepted POST /prompt;
    `executed`, the ids of prompts that began to run in order of their start (those answered from
    the cache are not in it); `finished`, the ids whose history was written, whatever the outcome;
    `interrupted`; `history`, `pending`, `running`, `held`, `pictures`.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        prefix: str = "",
        required_headers: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.prefix = prefix
        self.required_headers = dict(required_headers or {})
        self.object_info = _object_info()
        self.seconds_per_step = 0.0
        self.history_delay = 0.001
        self.picture_size = (192, 192)
        self.picture_bytes = 0
        self.pictures_per_prompt: int | None = None
        self.progress_state = True
        self.newest = False
        self.jobs_api = False
        self.interrupt_ignores_body = False

        self.requests: list[Recorded] = []
        self.posted: list[tuple[str, Json]] = []
        self.executed: list[str] = []
        self.finished: list[str] = []
        self.interrupted: list[str] = []
        self.history: dict[str, Json] = {}

        self._wakeup, self._queue_filled = asyncio.Event(), asyncio.Event()
        self._cleared = asyncio.Event()
        self._changed = threading.Condition()
        self._changes = 0
        self._thread: threading.Thread | None = None
        self._number = 0
        self._pending: list[Item] = []
        self._run: _Run | None = None
        self._cache: dict[str, Json | None] = {}  # signature of a node → what it put into history
        self._files: dict[tuple[str, str, str], bytes] = {}  # (type, subfolder, filename) → bytes
        self._counters: dict[str, int] = {}
        self._failures: list[tuple[str, str, str | None]] = []
        self._faults: list[_Fault] = []
        self._callbacks: list[tuple[str, str, Callable[[Recorded], None]]] = []
        self._interrupting = self._holding = False
        self._permits = 0
        self._held = ""
        self._listening = False

    # --- how it runs ---

    def start(self) -> ComfyUIStandIn:
        """Listen, in a new thread; returns when connections are accepted. Once only."""
        started: Future[None] = Future()

        def run() -> None:
            loop = asyncio.SelectorEventLoop()
            try:
                loop.run_until_complete(self._serve(started))
            except BaseException as exc:
                if started.done():
                    raise
                started.set_exception(exc)  # such as a port in use
            finally:
                loop.close()

        self._thread = threading.Thread(target=run, name="comfyui-stand-in", daemon=True)
        self._thread.start()
        started.result(20)
        return self

    def stop(self) -> None:
        """Close everything and end the thread; may be called twice."""
        if self._thread and self._thread.is_alive():
            self._in_loop(self._stopping.set)
            self._thread.join(20)
            assert not self._thread.is_alive(), "the stand-in did not stop"
        self._thread = None

    def __enter__(self) -> ComfyUIStandIn:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base address, prefix included; it stays the same over go_down() and restart()."""
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    @property
    def models(self) -> list[str]:
        """The checkpoints that every loader class offers."""
        return list(self._ckpt_names()[0])

    @models.setter
    def models(self, names: list[str]) -> None:
        for options in self._ckpt_names():
            options[:] = names

    def _ckpt_names(self) -> list[list[str]]:
        configs = [node["input"]["required"].get("ckpt_name") for node in self.object_info.values()]
        return [c[1]["options"] if c[0] == "COMBO" else c[0] for c in configs if c]

    @property
    def pictures(self) -> dict[str, bytes]:
        """Filename → the very bytes that /view serves, the last ones (output and temp)."""
        return {filename: data for (_, _, filename), data in list(self._files.items())}

    @property
    def running(self) -> str | None:
        """The id of the prompt that runs."""
        run = self._run
        return run.prompt_id if run else None

    @property
    def pending(self) -> list[str]:
        """The ids of the waiting prompts, the next one first."""
        return [item[1] for item in self._pending]

    @property
    def held(self) -> str | None:
        """The id of the prompt that has done its steps and waits for release()."""
        return self._held or None

    def hold(self) -> None:
        """From now on each prompt waits after its last step until release()."""
        self._holding, self._permits = True, 0

    def release(self, count: int | None = None) -> None:
        """Let `count` held prompts (this one and later ones) finish; without it stop holding."""

        def let_go() -> None:
            self._holding = self._holding and count is not None
            self._permits += count or 0
            self._wakeup.set()

        self._in_loop(let_go)

    def fail_next(self, exception_type: str, message: str, node_id: str | None = None) -> None:
        """Make the next prompt end in execution_error at the node (default: its first sampler)."""
        self._failures.append((exception_type, message, node_id))

    def submit_foreign(self, workflow: Json | None = None) -> str:
        """Queue a prompt of the owner's own page (default: a new one each time); its id."""
        prompt = workflow or simple_workflow(self.models[0], seed=random.getrandbits(60))
        prompt = copy.deepcopy(prompt)
        error, outputs, _ = validate_prompt(self.object_info, prompt, self.newest)
        if error:
            raise ValueError(error)
        prompt_id = str(uuid.uuid4())
        extra = {"client_id": "the-owners-page"}
        self._in_loop(lambda: self._put(self._number, prompt_id, prompt, extra, outputs))
        return prompt_id

    def wait_for(self, predicate: Callable[[ComfyUIStandIn], bool], seconds: float = 20.0) -> None:
        """Return when the predicate holds; AssertionError with the recent requests after a time.

        Asked again when something happens here, and each 0.1 s for what happens elsewhere.
        """
        end = time.monotonic() + seconds
        while True:
            with self._changed:
                seen = self._changes
            if predicate(self):
                return
            left = end - time.monotonic()
            if left <= 0:
                break
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._changes != seen, min(left, 0.1))  # type: ignore[misc]
        recent = "\n".join(
            f"  {r.method} {r.path} {r.query or ''} -> {r.status}" for r in self.requests[-15:]
        )
        raise AssertionError(
            f"not within {seconds} s; running {self.running}, pending {self.pending}, "
            f"finished {self.finished[-5:]}; the last requests:\n{recent}"
        )

    # --- faults ---

    def fault(self, route: str, kind: str, times: int | None = 1, *, seconds: float = 0) -> None:
        """Spoil the next `times` requests (None: all until clear_faults()) that match `route`.

        `route` is "GET /history" (also /history/{id} and under /api), "WS /ws", …, or "*".
        Not processed: "reset" (connection aborted), "502", "503", "429" (Retry-After: `seconds` or
        1), "404", "500", "login page" (200), "redirect" (302 to it), "hang" (no answer for
        `seconds`, or until clear_faults(); only then processed, even if the client has gone).
        Processed: "lost answer" (then aborted), "half json" and "truncate" (half of the body, then
        closed), "bad json" (200 with half of the body as if it were all).
        """
        assert kind in {*PAGES, *CUTS, "reset", "hang", "bad json"}, kind
        self._faults.append(_Fault(route, kind, times, seconds))

    def clear_faults(self) -> None:
        """Forget all faults; hanging requests are answered."""

        def clear() -> None:
            self._faults.clear()
            self._cleared.set()
            self._cleared = asyncio.Event()

        self._in_loop(clear)

    def before(self, route: str, callback: Callable[[Recorded], None]) -> None:
        """Call once, in the server's thread, before the next matching request is processed."""
        self._callbacks.append(("before", route, callback))

    def after(self, route: str, callback: Callable[[Recorded], None]) -> None:
        """Call once, in the server's thread, after processing and before the answer is sent."""
        self._callbacks.append(("after", route, callback))

    def go_down(self) -> None:
        """Close all connections and refuse new ones; what is queued goes on and is kept."""
        self._in_loop(self._close)

    def come_up(self) -> None:
        """Listen again at the same port."""
        self._in_loop(self._listen)

    def restart(self) -> None:
        """As when the owner restarts ComfyUI: queue, history, cache and temp pictures are gone."""
        self.go_down()
        self._in_loop(self._forget)
        self.come_up()

    # --- the thread and its connections ---

    def _in_loop(self, action: Callable[[], T]) -> T:
        """Do it in the server's thread, where all state is changed, and wait for it."""
        if self._thread is None or threading.current_thread() is self._thread:
            return action()

        async def call() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(20)

    def _happened(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._messages: asyncio.Queue[tuple[str, Json | bytes, str | None]] = asyncio.Queue()
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worker = self._spawn(self._work())
        self._spawn(self._publish())
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        assert runner.server
        self._server = runner.server
        try:
            self._bind()
            self._listen()
            started.set_result(None)
            await self._stopping.wait()
            self._close()
        finally:
            self._socket.close()
            await runner.cleanup()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._front], client_max_size=100 * 1024 * 1024)
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/system_stats", self._system_stats),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{name}", self._object_info),
            ("GET", "/prompt", self._get_prompt),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("GET", "/history", self._get_history),
            ("GET", "/history/{id}", self._get_history),
            ("GET", "/view", self._view),
            ("POST", "/interrupt", self._post_interrupt),
            ("GET", "/ws", self._websocket),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, self.prefix + path, handler)
            app.router.add_route(method, f"{self.prefix}/api{path}", handler)
        app.router.add_route("POST", f"{self.prefix}/api/jobs/{{id}}/cancel", self._cancel_job)
        app.router.add_route("GET", f"{self.prefix}/login", self._login)
        return app

    def _bind(self) -> None:
        """Take the port. As long as it isn't listened on, it is refused and nobody else gets it."""
        self._socket = socket.socket()
        if os.name == "posix":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._socket.setblocking(False)
            self._socket.listen(100)
            self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            self._spawn(self._connect(connection, self._socket))

    async def _connect(self, connection: socket.socket, listener: socket.socket) -> None:
        transport, _ = await self._loop.connect_accepted_socket(self._server, connection)
        if listener is not self._socket:  # down since, so not among the connections then
            transport.abort()

    def _close(self) -> None:
        if not self._listening:
            return
        self._listening = False
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._bind()
        for connection in self._server.connections:
            if connection.transport:
                connection.transport.abort()
        for task in self._in_flight:
            task.cancel()
        self._sockets.clear()
        self._happened()

    def _forget(self) -> None:
        self._worker.cancel()
        self._run, self._held = None, ""
        self._number = 0
        self._pending.clear()
        self.history.clear()
        self._cache.clear()
        for key in [key for key in self._files if key[0] == "temp"]:
            del self._files[key]
        self._worker = self._spawn(self._work())
        self._happened()

    # --- every request ---

    @web.middleware
    async def _front(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task
        self._in_flight.add(task)
        method = "WS" if request.path.endswith("/ws") else request.method
        body = None
        if request.can_read_body:
            with contextlib.suppress(ValueError, ConnectionError):
                body = await request.json()
        path = request.path.removeprefix(self.prefix)
        recorded = Recorded(method, path, dict(request.query), body)
        self.requests.append(recorded)
        self._happened()
        try:
            response = await self._answer(request, handler, recorded)
            if not _gone(request):
                recorded.status = response.status
            return response
        except web.HTTPException as exc:  # no such route, or not for this method
            recorded.status = exc.status
            raise
        finally:
            self._in_flight.discard(task)
            self._happened()

    async def _answer(
        self, request: web.Request, handler: Handler, recorded: Recorded
    ) -> web.StreamResponse:
        if _gone(request):  # the server went down before it was looked at
            return web.Response()
        if any(request.headers.get(name) != v for name, v in self.required_headers.items()):
            return _page(401, "Authorization Required", **{"WWW-Authenticate": "Basic"})
        fault = self._next_fault(recorded)
        kind = fault.kind if fault else ""
        if kind == "reset":
            return _cut(request, reset=True)
        if fault and kind in PAGES:
            return self._spoilt(fault)
        if fault and kind == "hang":
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._cleared.wait(), fault.seconds or None)
        await self._call_back("before", recorded)
        if recorded.method == "WS" and _gone(request):  # gave up while it hung
            return web.Response()
        if recorded.method == "WS" and kind in CUTS:
            await web.WebSocketResponse().prepare(request)
            return _cut(request)
        response = await handler(request)
        await self._call_back("after", recorded)
        if kind == "lost answer":
            return _cut(request)
        if kind == "bad json":
            body = _body(response)
            return web.Response(body=body[: len(body) // 2], content_type=response.content_type)
        return await _half(request, response) if kind in CUTS else response

    def _spoilt(self, fault: _Fault) -> web.Response:
        if fault.kind == "login page":
            return web.Response(text=LOGIN_PAGE, content_type="text/html")
        if fault.kind == "redirect":
            return _page(302, "Found", Location=f"{self.prefix}/login")
        title = PAGES[fault.kind]
        if fault.kind in ("404", "500"):  # ComfyUI's own, the others are the proxy's
            return web.Response(status=int(fault.kind), text=title)
        retry = {"Retry-After": str(int(fault.seconds) or 1)} if fault.kind == "429" else {}
        return _page(int(fault.kind), title, **retry)

    def _next_fault(self, recorded: Recorded) -> _Fault | None:
        for fault in self._faults:
            if recorded.matches(fault.route):
                if fault.left is not None:
                    fault.left -= 1
                    if not fault.left:
                        self._faults.remove(fault)
                return fault
        return None

    async def _call_back(self, when: str, recorded: Recorded) -> None:
        for entry in list(self._callbacks):
            if entry[0] == when and recorded.matches(entry[1]):
                self._callbacks.remove(entry)
                entry[2](recorded)
                await asyncio.sleep(0)  # if it took the server down, this request ends here

    # --- the routes ---

    async def _login(self, request: web.Request) -> web.Response:
        return web.Response(text=LOGIN_PAGE, content_type="text/html")

    async def _system_stats(self, request: web.Request) -> web.Response:
        system = {"os": "posix", "ram_total": 67_331_813_376, "ram_free": 41_203_523_584}
        system |= {"comfyui_version": "0.38.1" if self.newest else "0.3.64"}
        system |= {"python_version": "3.12.3 (main) [GCC 13.3.0]", "pytorch_version": "2.8.0+cu128"}
        system |= {"embedded_python": False, "argv": [f"{OWNERS_DISK}/main.py", "--listen"]}
        device = {"name": "cuda:0 NVIDIA GeForce RTX 4090", "type": "cuda", "index": 0}
        device |= {"vram_total": 25_282_281_472, "vram_free": 23_538_434_048}
        device |= {"torch_vram_total": 0, "torch_vram_free": 0}
        return web.json_response({"system": system, "devices": [device]})

    async def _object_info(self, request: web.Request) -> web.Response:
        info = self.object_info
        if "name" in request.match_info:
            info = {name: info[name] for name in info if name == request.match_info["name"]}
        return web.json_response(info)

    def _queue_info(self) -> Json:
        return {"exec_info": {"queue_remaining": len(self._pending) + bool(self._run)}}

    async def _get_prompt(self, request: web.Request) -> web.Response:
        return web.json_response(self._queue_info())

    async def _post_prompt(self, request: web.Request) -> web.Response:
        data = await request.json()
        error, outputs, node_errors = self._validated(data)
        if error:
            return web.json_response({"error": error, "node_errors": node_errors}, status=400)
        prompt_id = str(data.get("prompt_id") or uuid.uuid4())
        extra = {**data.get("extra_data", {}), "create_time": int(time.time() * 1000)}
        if "client_id" in data:
            extra["client_id"] = data["client_id"]
        number = data.get("number", -self._number if data.get("front") else self._number)
        self.posted.append((prompt_id, (await request.json())["prompt"]))  # before conversions
        self._put(number, prompt_id, data["prompt"], extra, outputs)
        answer = {"prompt_id": prompt_id, "number": number, "node_errors": node_errors}
        return web.json_response(answer)

    def _validated(self, data: Json) -> tuple[Json | None, list[str], Json]:
        if "prompt" not in data:
            return _error("no_prompt", "No prompt provided", "No prompt provided"), [], {}
        prompt_id = data.get("prompt_id")
        if self.newest and prompt_id is not None:
            try:
                canonical = str(uuid.UUID(prompt_id)) == prompt_id
            except (ValueError, AttributeError):
                canonical = False
            if not canonical:
                details = "prompt_id must be a UUID string in canonical lowercase hyphenated form"
                message = "prompt_id must be a valid UUID"
                return _error("invalid_prompt_id", message, details), [], {}
        return validate_prompt(self.object_info, data["prompt"], self.newest)

    def _put(
        self, number: float, prompt_id: str, prompt: Json, extra: Json, outputs: list[str]
    ) -> None:
        self._number += 1
        self._pending.append((number, prompt_id, prompt, extra, outputs))
        self._pending.sort(key=lambda item: item[0])
        self._queue_filled.set()
        self._queue_updated()

    async def _get_queue(self, request: web.Request) -> web.Response:
        running = [self._run.item] if self._run else []
        return web.json_response({"queue_running": running, "queue_pending": self._pending})

    async def _post_queue(self, request: web.Request) -> web.Response:
        data = await request.json()
        if data.get("clear"):
            self._pending.clear()
        for prompt_id in data.get("delete", []):
            self._dequeue(prompt_id)
        self._queue_updated()
        return web.Response()

    def _dequeue(self, prompt_id: str) -> bool:
        for item in self._pending:
            if item[1] == prompt_id:
                self._pending.remove(item)
                self._queue_updated()
                return True
        return False

    async def _get_history(self, request: web.Request) -> web.Response:
        if "id" in request.match_info:
            prompt_id = request.match_info["id"]
            found = {prompt_id: self.history[prompt_id]} if prompt_id in self.history else {}
            return web.json_response(found)
        entries = list(self.history.items())
        if "max_items" in request.query:
            entries = entries[-int(request.query["max_items"]) :]
        return web.json_response(dict(entries))

    async def _post_interrupt(self, request: web.Request) -> web.Response:
        data: Json = {}
        with contextlib.suppress(ValueError):
            data = await request.json()
        wanted = "" if self.interrupt_ignores_body else data.get("prompt_id")
        if not wanted or wanted == self.running:
            self._interrupt()
        return web.Response()

    async def _cancel_job(self, request: web.Request) -> web.Response:
        if not self.jobs_api:
            raise web.HTTPNotFound
        prompt_id = request.match_info["id"]
        running = prompt_id == self.running
        if running:
            self._interrupt()
        return web.json_response({"cancelled": running or self._dequeue(prompt_id)})

    def _interrupt(self) -> None:
        self._interrupting = True
        self._wakeup.set()

    async def _view(self, request: web.Request) -> web.Response:
        query = request.query
        filename, subfolder = query.get("filename"), query.get("subfolder", "")
        kind = query.get("type", "output")
        if filename is None:
            return web.Response(status=404)
        if not filename or filename[0] == "/" or ".." in filename:
            return web.Response(status=400)
        if kind not in ("output", "temp", "input") or ".." in subfolder:
            return web.Response(status=403 if ".." in subfolder else 400)
        picture = self._files.get((kind, subfolder, filename))
        if picture is None:
            return web.Response(status=404)
        image_format = "png"
        if "preview" in query:
            image_format, *_, quality = [*query["preview"].split(";"), ""][:2]
            image_format = image_format if image_format in ("webp", "jpeg") else "webp"
            picture = _preview(picture, image_format, int(quality) if quality.isdigit() else 90)
        headers = {"Content-Disposition": f'filename="{filename}"'}
        return web.Response(body=picture, content_type=f"image/{image_format}", headers=headers)

    # --- the websocket ---

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One socket per client id. The `pop` at the end is ComfyUI's: it silences a second one."""
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self._sockets[sid] = websocket
        self._happened()
        try:
            self._send("status", {"status": self._queue_info(), "sid": sid}, sid)
            if self._run and self._run.client_id == sid and self._run.node_id:
                self._send("executing", {"node": self._run.node_id}, sid)
            async for _ in websocket:
                pass
        finally:
            self._sockets.pop(sid, None)
            self._happened()
        return websocket

    def _send(self, event: str, data: Json | bytes, sid: str | None = None) -> None:
        """Queue an event for one client, or for all."""
        if sid in self._sockets or (sid is None and self._sockets):
            self._messages.put_nowait((event, data, sid))

    async def _publish(self) -> None:
        while True:
            event, data, sid = await self._messages.get()
            for websocket in [ws for key, ws in self._sockets.items() if sid in (None, key)]:
                with contextlib.suppress(ConnectionError):
                    if isinstance(data, bytes):
                        await websocket.send_bytes(data)
                    else:
                        await websocket.send_json({"type": event, "data": data})

    def _queue_updated(self) -> None:
        self._send("status", {"status": self._queue_info()})
        self._happened()

    def _say(self, run: _Run, event: str, *, broadcast: bool = False, **data: Any) -> None:
        """A message of the prompt's status: kept for the history and sent to its client."""
        data = {"prompt_id": run.prompt_id, **data, "timestamp": int(time.time() * 1000)}
        run.messages.append([event, data])
        if run.client_id is not None or broadcast:
            self._send(event, data, run.client_id)

    def _progress(
        self, run: _Run, node_id: str, value: float, most: float, state: str = "running"
    ) -> None:
        ids = {"node_id": node_id, "display_node_id": node_id, "real_node_id": node_id}
        ids |= {"prompt_id": run.prompt_id}
        run.progress[node_id] = {"value": value, "max": most, "state": state, **ids}
        run.progress[node_id]["parent_node_id"] = None
        if self.progress_state:
            data = {"prompt_id": run.prompt_id, "nodes": dict(run.progress)}
            self._send("progress_state", data, run.client_id)
        self._happened()

    # --- execution ---

    async def _work(self) -> None:
        while True:
            while not self._pending:
                self._queue_filled.clear()
                await self._queue_filled.wait()
            item = self._pending.pop(0)
            _, prompt_id, prompt, extra, outputs = item
            order = _execution_order(prompt, outputs)
            signatures = _signatures(prompt, order)
            run = _Run(item, prompt_id, prompt, extra.get("client_id"), order, signatures)
            self._run = run
            self._interrupting = False
            self._queue_updated()
            success = await self._execute(run)
            await asyncio.sleep(self.history_delay)
            status = {"status_str": "success" if success else "error", "completed": success}
            self.history[run.prompt_id] = {
                "prompt": item,
                "outputs": run.outputs,
                "status": {**status, "messages": run.messages},
                "meta": run.meta,
            }
            self._run = None
            self.finished.append(run.prompt_id)
            self._queue_updated()
            if run.client_id is not None:
                end = {"node": None, "prompt_id": run.prompt_id}
                self._send("executing", end, run.client_id)

    async def _execute(self, run: _Run) -> bool:
        """Run the nodes of a prompt that aren't cached; True if it succeeded."""
        self._say(run, "execution_start")
        kept = set(run.signatures.values())
        self._cache = {key: ui for key, ui in self._cache.items() if key in kept}
        failure = self._failures.pop(0) if self._failures else None
        last = self._failing_node(run, failure[2]) if failure else run.order[-1]
        if failure:
            self._cache.pop(run.signatures[last], None)
        cached = [node_id for node_id in run.order if run.signatures[node_id] in self._cache]
        self._say(run, "execution_cached", nodes=cached)
        if len(cached) < len(run.order):
            self.executed.append(run.prompt_id)
        try:
            for node_id in run.order:
                run.node_id = node_id
                if node_id not in cached:
                    await self._run_steps(run, node_id)
                if node_id == last:
                    await self._wait_while_held(run)
                    if failure:
                        raise _NodeFailed(*failure[:2])
                if node_id not in cached:
                    self._cache[run.signatures[node_id]] = self._result(run, node_id)
                    run.executed.append(node_id)
                self._finish_node(run, node_id, self._cache[run.signatures[node_id]])
            self._say(run, "execution_success")
            return True
        except _Interrupted:
            self.interrupted.append(run.prompt_id)
            self._say(run, "execution_interrupted", broadcast=True, **self._where(run))
        except Exception as exc:
            trouble = exc.args if isinstance(exc, _NodeFailed) else (type(exc).__name__, str(exc))
            self._say(run, "execution_error", **self._where(run), **self._trouble(run, *trouble))
        finally:
            self._held = run.node_id = ""
        return False

    def _failing_node(self, run: _Run, wanted: str | None) -> str:
        samplers = [node_id for node_id in run.order if self._steps(run.prompt[node_id])]
        return wanted if wanted in run.order else [*samplers, run.order[-1]][0]

    def _where(self, run: _Run) -> Json:
        kind = run.prompt[run.node_id]["class_type"]
        return {"node_id": run.node_id, "node_type": kind, "executed": list(run.executed)}

    def _trouble(self, run: _Run, exception_type: str, message: str) -> Json:
        tips = OUT_OF_MEMORY_TIPS if "OutOfMemory" in exception_type else ""
        inputs: Json = {
            name: [f"<torch.Tensor object at 0x{id(value):x}>" if _is_link(value) else value]
            for name, value in run.prompt[run.node_id]["inputs"].items()
        }
        return {
            "exception_message": f"{message}\n{tips}",
            "exception_type": exception_type,
            "traceback": TRACEBACK,
            "current_inputs": {**inputs, "prompt": [str(run.prompt)]},
            "current_outputs": list(run.executed),
        }

    def _steps(self, node: Json) -> int:
        """How many steps a sampler node does; 0 for other nodes."""
        if "sampler_name" not in node["inputs"]:
            return 0
        numbers = {name: v for name, v in node["inputs"].items() if isinstance(v, int)}
        steps = numbers.get("steps", 20)
        return max(
            0, min(numbers.get("end_at_step", steps), steps) - numbers.get("start_at_step", 0)
        )

    async def _run_steps(self, run: _Run, node_id: str) -> None:
        self._progress(run, node_id, 0.0, 1.0)
        if run.client_id is not None:
            data = {"node": node_id, "display_node": node_id, "prompt_id": run.prompt_id}
            self._send("executing", data, run.client_id)
        await self._pause()
        steps = self._steps(run.prompt[node_id])
        for step in range(1, steps + 1):
            await self._pause(self.seconds_per_step)
            self._progress(run, node_id, step, steps)
            value = {"value": step, "max": steps, "prompt_id": run.prompt_id, "node": node_id}
            self._send("progress", value, run.client_id)
            self._send("preview", PREVIEW_FRAME, run.client_id)

    async def _wait_while_held(self, run: _Run) -> None:
        if not self._holding:
            return
        self._held = run.prompt_id
        self._happened()
        await self._pause(None, lambda: not self._holding or self._permits > 0)
        self._permits = max(0, self._permits - 1)

    async def _pause(
        self, seconds: float | None = 0, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Let others run, wait for `seconds` or `until`; an interrupt ends the prompt here."""
        await asyncio.sleep(0)
        while seconds != 0 and not (self._interrupting or until()):
            self._wakeup.clear()
            try:
                await asyncio.wait_for(self._wakeup.wait(), seconds)
            except asyncio.TimeoutError:
                break
        if self._interrupting:
            raise _Interrupted

    def _finish_node(self, run: _Run, node_id: str, ui: Json | None) -> None:
        if ui is not None:
            run.outputs[node_id] = ui
            run.meta[node_id] = {"node_id": node_id, "display_node": node_id}
            run.meta[node_id] |= {"parent_node": None, "real_node_id": node_id}
            if run.client_id is not None:
                data = {"node": node_id, "display_node": node_id, "output": ui}
                self._send("executed", {**data, "prompt_id": run.prompt_id}, run.client_id)
        most = run.progress.get(node_id, {}).get("max", 1)
        self._progress(run, node_id, most, most, "finished")

    # --- what the nodes put out ---

    def _result(self, run: _Run, node_id: str) -> Json | None:
        """The node's part of `outputs` in the history; None if it has none."""
        inputs, name = run.prompt[node_id]["inputs"], run.prompt[node_id]["class_type"]
        if name == "SaveImage":
            prefix = inputs["filename_prefix"]
            return {"images": self._save(run, "output", inputs["images"][0], prefix)}
        if name == "PreviewImage":
            return {"images": self._save(run, "temp", inputs["images"][0])}
        if "(Efficient)" not in name:
            return None
        decoded, method = self._decodes(inputs), inputs["preview_method"]
        if method == "none" or (method == "vae_decoded_only" and not decoded):
            return {"images": []}
        return {"images": self._save(run, "temp", node_id)} if decoded else None

    def _decodes(self, inputs: Json) -> bool:
        return "true" in inputs["vae_decode"] and "optional_vae" in inputs

    def _save(self, run: _Run, kind: str, source: str, prefix: str = "") -> list[Json]:
        """Draw the pictures that come out of the node `source`, and put them on the "disk"."""
        if kind == "temp":
            prefix = "ComfyUI_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))
        subfolder, _, stem = prefix.rpartition("/")
        size, count = self.picture_size, self._batch_size(run.prompt, source)
        node = run.prompt[source]
        if "(Efficient)" in node["class_type"] and not self._decodes(node["inputs"]):
            size, count = (1, 1), 1  # its empty image
        if self.pictures_per_prompt is not None:
            count = self.pictures_per_prompt
        infos = run.item[3].get("extra_pnginfo", {})
        texts = {key: json.dumps(info) for key, info in {"prompt": run.prompt, **infos}.items()}
        images = []
        for index in range(count):
            number = self._counters[prefix] = self._counters.get(prefix, 0) + 1
            filename = f"{stem}_{number:05}_.png"
            seed = f"{run.signatures[source]} {index}".encode()
            picture = draw_png(seed, size, texts, self.picture_bytes)
            self._files[kind, subfolder, filename] = picture
            images.append({"filename": filename, "subfolder": subfolder, "type": kind})
        for key in list(self._files)[:-PICTURES_KEPT]:
            del self._files[key]
        return images

    def _batch_size(self, prompt: Json, node_id: str) -> int:
        nodes = [prompt[ancestor]["inputs"] for ancestor in _execution_order(prompt, [node_id])]
        return next((n["batch_size"] for n in nodes if isinstance(n.get("batch_size"), int)), 1)
