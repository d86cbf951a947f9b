"""The nodes that are installed in the stand-in's ComfyUI, as GET /object_info declares them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

OWNERS_DISK = "/home/owner/ComfyUI"  # stands in every traceback; no user may ever read it
TRACEBACK = [
    f'  File "{OWNERS_DISK}/execution.py", line 496, in execute\n    await get_output_data(',
    f'  File "{OWNERS_DISK}/comfy/utils.py", line 61, in load_torch_file\n    safe_open(',
]

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
_LORA_NAMES = """
    Flux/flux-RealismLora.safetensors | Illustrious/characters/fox girl (v3).safetensors |
    Illustrious/style/watercolor_illu_v2.safetensors | Pony/style/retro anime v1.1.safetensors |
    SD15/lcm-lora-sdv1-5.safetensors | SD15/more_details.safetensors |
    SDXL/add-detail-xl.safetensors | SDXL/characters/fox girl (v3).safetensors |
    SDXL/style/inkSketch_v2.safetensors | SDXL/style/old and archived/2024, posters/\
inkSketch_v1_epoch-000012.safetensors | pixel-art-xl.safetensors"""
_CLIP_TYPES = """
    stable_diffusion stable_cascade sd3 stable_audio mochi ltxv pixart cosmos lumina2 wan hidream
    chroma ace omnigen2 qwen_image hunyuan_image"""
SAMPLERS = _SAMPLER_NAMES.split()
SCHEDULERS = _SCHEDULER_NAMES.split()
MODELS = [name.strip() for name in _MODEL_NAMES.split("|")]
LORAS = [name.strip() for name in _LORA_NAMES.split("|")]
UNETS = [
    "Flux/flux1-dev.safetensors",
    "Flux/flux1-schnell-fp8.safetensors",
    "qwen_image_fp8_e4m3fn.safetensors",
    "z_image_turbo_bf16.safetensors",
]
CLIPS = [
    "clip_g.safetensors",
    "clip_l.safetensors",
    "qwen_2.5_vl_7b_fp8_scaled.safetensors",
    "t5xxl_fp16.safetensors",
    "t5xxl_fp8_e4m3fn.safetensors",
]
VAES = ["ae.safetensors", "qwen_image_vae.safetensors", "sdxl_vae.safetensors", "pixel_space"]
_AYS = ["AYS SDXL", "AYS SD1", "AYS SVD"]
OPTIONS = {
    "@models": MODELS,
    "@loras": LORAS,
    "@unets": UNETS,
    "@clips": CLIPS,
    "@vaes": VAES,
    "@images": ["example.png"],
    "@upscalers": ["4x-UltraSharp.pth", "RealESRGAN_x2plus.pth"],
    "@scaling": ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"],
    "@weights": ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"],
    "@clip_types": _CLIP_TYPES.split(),
    "@dual_types": ["sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image"],
    "@device": ["default", "cpu"],
    "@samplers": SAMPLERS,
    "@schedulers": SCHEDULERS,
    "@efficient": [*SCHEDULERS, "AYS SD1", "AYS SDXL", "AYS SVD", "GITS"],
    "@detailer": [*SCHEDULERS, *_AYS, "GITS[coeff=1.2]", "LTXV[default]", "OSS FLUX", "OSS Wan"],
    "@crop": ["disabled", "center"],
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


@dataclass(frozen=True)
class Node:
    """A class as one line of text declares it.

    `inputs` are divided by " | ": name, type (@ is a list of options), for numbers default, least
    and most, and marks. "?" before the name marks an optional one; "multiline" and "control" are as
    in /object_info. `outputs` are types, each with =NAME where its name is another. `marks`: "V3"
    declares in the newer shape, "output" is a node whose result is kept.
    """

    name: str
    inputs: str
    outputs: str
    category: str
    display_name: str = ""
    marks: str = ""


_SEED = f"seed INT 0 0 {0xFFFFFFFFFFFFFFFF} control"
_STEPS = "steps INT 20 1 10000 | cfg FLOAT 7.0 0.0 100.0 | sampler_name @samplers"
_CONDITIONED = "positive CONDITIONING | negative CONDITIONING"
_RANGE = "start_at_step INT 0 0 10000 | end_at_step INT 10000 0 10000"
_EFFICIENT_OUTPUTS = "MODEL CONDITIONING=CONDITIONING+ CONDITIONING=CONDITIONING- LATENT VAE IMAGE"
_TEXT = "STRING multiline dynamicPrompts"
_CUSTOM = "sampling/custom_sampling"
_FLUX = "advanced/conditioning/flux"


def _size(side: int) -> str:
    return f"width INT {side} 16 16384 | height INT {side} 16 16384 | batch_size INT 1 1 4096"


def _sides(*names: str) -> str:
    return " | ".join(f"{name} INT {0 if 'crop' in name else 1024} 0 16384" for name in names)


LOADERS = [
    Node(
        "Checkpoint Loader Simple Mikey",
        "ckpt_name @models",
        "MODEL CLIP VAE STRING=ckpt_name STRING=hash",
        "Mikey/Loaders",
    ),
    Node(
        "CheckpointLoaderSimple",
        "ckpt_name @models",
        "MODEL CLIP VAE",
        "loaders",
        "Load Checkpoint",
        "V3",
    ),
    Node(
        "UNETLoader",
        "unet_name @unets | weight_dtype @weights",
        "MODEL",
        "advanced/loaders",
        "Load Diffusion Model",
    ),
    Node(
        "CLIPLoader",
        "clip_name @clips | type @clip_types | ?device @device",
        "CLIP",
        "advanced/loaders",
        "Load CLIP",
    ),
    Node(
        "DualCLIPLoader",
        "clip_name1 @clips | clip_name2 @clips | type @dual_types | ?device @device",
        "CLIP",
        "advanced/loaders",
    ),
    Node("VAELoader", "vae_name @vaes", "VAE", "loaders", "Load VAE"),
    Node(
        "LoraLoader",
        "model MODEL | clip CLIP | lora_name @loras | strength_model FLOAT 1.0 -100.0 100.0 | "
        "strength_clip FLOAT 1.0 -100.0 100.0",
        "MODEL CLIP",
        "loaders",
        "Load LoRA",
    ),
    Node(
        "LoraLoaderModelOnly",
        "model MODEL | lora_name @loras | strength_model FLOAT 1.0 -100.0 100.0",
        "MODEL",
        "loaders",
    ),
    Node("LoadImage", "image @images upload", "IMAGE MASK", "image", "Load Image"),
    Node(
        "UpscaleModelLoader",
        "model_name @upscalers",
        "UPSCALE_MODEL",
        "loaders",
        "Load Upscale Model",
        "V3",
    ),
    Node(
        "UltralyticsDetectorProvider",
        "model_name @yolo",
        "BBOX_DETECTOR SEGM_DETECTOR",
        "ImpactPack",
    ),
]
CONDITIONERS = [
    Node(
        "CLIPTextEncode",
        f"text {_TEXT} | clip CLIP",
        "CONDITIONING",
        "conditioning",
        "CLIP Text Encode (Prompt)",
    ),
    Node(
        "CLIPTextEncodeFlux",
        f"clip CLIP | clip_l {_TEXT} | t5xxl {_TEXT} | guidance FLOAT 3.5 0.0 100.0",
        "CONDITIONING",
        _FLUX,
        marks="V3",
    ),
    Node(
        "CLIPTextEncodeSDXL",
        f"clip CLIP | {_sides('width', 'height', 'crop_w', 'crop_h')} | "
        f"{_sides('target_width', 'target_height')} | text_g {_TEXT} | text_l {_TEXT}",
        "CONDITIONING",
        "advanced/conditioning",
        marks="V3",
    ),
    Node(
        "ConditioningZeroOut",
        "conditioning CONDITIONING",
        "CONDITIONING",
        "advanced/conditioning",
    ),
    Node(
        "FluxGuidance",
        "conditioning CONDITIONING | guidance FLOAT 3.5 0.0 100.0",
        "CONDITIONING",
        _FLUX,
        marks="V3",
    ),
]
LATENTS = [
    Node("EmptyLatentImage", _size(512), "LATENT", "latent", "Empty Latent Image"),
    Node("EmptySD3LatentImage", _size(1024), "LATENT", "latent/sd3", marks="V3"),
    Node(
        "LatentUpscaleBy",
        "samples LATENT | upscale_method @upscale | scale_by FLOAT 1.5 0.01 8.0",
        "LATENT",
        "latent",
        "Upscale Latent By",
        "V3",
    ),
    Node(
        "LatentUpscale",
        "samples LATENT | upscale_method @upscale | width INT 512 0 16384"
        " | height INT 512 0 16384 | crop @crop",
        "LATENT",
        "latent",
        "Upscale Latent",
    ),
    Node("VAEDecode", "samples LATENT | vae VAE", "IMAGE", "latent", "VAE Decode"),
    Node(
        "ImageUpscaleWithModel",
        "upscale_model UPSCALE_MODEL | image IMAGE",
        "IMAGE",
        "image/upscaling",
        "Upscale Image (using Model)",
        "V3",
    ),
    Node(
        "ImageScaleToTotalPixels",
        "image IMAGE | upscale_method @scaling | megapixels FLOAT 1.0 0.01 16.0 | "
        "resolution_steps INT 1 1 256",
        "IMAGE",
        "image/upscaling",
        "Scale Image to Total Pixels",
        "V3",
    ),
    Node("VAEEncode", "pixels IMAGE | vae VAE", "LATENT", "latent", "VAE Encode"),
    Node(
        "SaveImage",
        "images IMAGE | filename_prefix STRING",
        "",
        "image",
        "Save Image",
        "output",
    ),
    Node("PreviewImage", "images IMAGE", "", "image", "Preview Image", "output"),
    Node(
        "EmptyHunyuanLatentVideo",
        f"{_size(848)} | length INT 25 1 16384",
        "LATENT",
        "latent/video",
        marks="V3",
    ),
    Node(
        "SaveWEBM",
        "images IMAGE | filename_prefix STRING | fps FLOAT 24.0 0.01 1000.0",
        "",
        "image/video",
        marks="V3 output",
    ),
]
SAMPLING = [
    Node(
        "KSampler",
        f"model MODEL | {_SEED} | {_STEPS} | scheduler @schedulers | {_CONDITIONED} | "
        "latent_image LATENT | denoise FLOAT 1.0 0.0 1.0",
        "LATENT",
        "sampling",
        "KSampler",
        "V3",
    ),
    Node(
        "KSamplerAdvanced",
        f"model MODEL | add_noise @on | noise_{_SEED} | {_STEPS} | scheduler @schedulers | "
        f"{_CONDITIONED} | latent_image LATENT | {_RANGE} | return_with_leftover_noise @off",
        "LATENT",
        "sampling",
        "KSampler (Advanced)",
    ),
    Node(
        "SamplerCustomAdvanced",
        "noise NOISE | guider GUIDER | sampler SAMPLER | sigmas SIGMAS | latent_image LATENT",
        "LATENT=output LATENT=denoised_output",
        _CUSTOM,
        marks="V3",
    ),
    Node("KSamplerSelect", "sampler_name @samplers", "SAMPLER", f"{_CUSTOM}/samplers", marks="V3"),
    Node(
        "BasicScheduler",
        "model MODEL | scheduler @schedulers | steps INT 20 1 10000 | denoise FLOAT 1.0 0.0 1.0",
        "SIGMAS",
        f"{_CUSTOM}/schedulers",
        marks="V3",
    ),
    Node("RandomNoise", f"noise_{_SEED}", "NOISE", f"{_CUSTOM}/noise", marks="V3"),
    Node(
        "BasicGuider",
        "model MODEL | conditioning CONDITIONING",
        "GUIDER",
        f"{_CUSTOM}/guiders",
        marks="V3",
    ),
    Node(
        "CFGGuider",
        f"model MODEL | {_CONDITIONED} | cfg FLOAT 8.0 0.0 100.0",
        "GUIDER",
        f"{_CUSTOM}/guiders",
        marks="V3",
    ),
    Node(
        "KSampler (Efficient)",
        f"model MODEL | {_SEED} | {_STEPS} | scheduler @efficient | {_CONDITIONED} | "
        "latent_image LATENT | denoise FLOAT 1.0 0.0 1.0 | preview_method @preview | "
        "vae_decode @decode | ?optional_vae VAE | ?script SCRIPT",
        _EFFICIENT_OUTPUTS,
        "Efficiency Nodes/Sampling",
        marks="output",
    ),
    Node(
        "KSampler Adv. (Efficient)",
        f"model MODEL | add_noise @on | noise_{_SEED} | {_STEPS} | scheduler @efficient | "
        f"{_CONDITIONED} | latent_image LATENT | {_RANGE} | return_with_leftover_noise @off | "
        "preview_method @preview | vae_decode @decode_adv | ?optional_vae VAE | ?script SCRIPT",
        _EFFICIENT_OUTPUTS,
        "Efficiency Nodes/Sampling",
        marks="output",
    ),
    Node(
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
        "bbox_detector BBOX_DETECTOR | wildcard STRING multiline | cycle INT 1 1 10 | "
        "?sam_model_opt SAM_MODEL | ?segm_detector_opt SEGM_DETECTOR | ?inpaint_model BOOLEAN | "
        "?noise_mask_feather INT 20 0 100",
        "IMAGE IMAGE IMAGE MASK DETAILER_PIPE IMAGE",
        "ImpactPack/Detailer",
    ),
]
MOST = 0x7FFFFFFFFFFFFFFF
PRIMITIVE = "utils/primitive"
VALUES = [
    Node("PrimitiveInt", f"value INT 0 {-MOST} {MOST} control", "INT", PRIMITIVE, "Int", "V3"),
    Node("PrimitiveString", "value STRING", "STRING", PRIMITIVE, "String", "V3"),
    Node(
        "PrimitiveStringMultiline",
        "value STRING multiline",
        "STRING",
        PRIMITIVE,
        "String (Multiline)",
        "V3",
    ),
    Node(
        "StringConcatenate",
        "string_a STRING multiline | string_b STRING multiline | delimiter STRING",
        "STRING",
        "utils/string",
        "Concatenate",
        "V3",
    ),
    Node("Seed Generator (Image Saver)", _SEED, "INT", "ImageSaver/utils"),
]
NODES = [*LOADERS, *CONDITIONERS, *LATENTS, *SAMPLING, *VALUES]
PACKS = {
    "Mikey": "custom_nodes.mikeynodes",
    "Efficiency Nodes": "custom_nodes.efficiency-nodes-comfyui",
    "ImpactPack": "custom_nodes.comfyui-impact-pack",
    "ImageSaver": "custom_nodes.comfy-image-saver",
}
UNIQUE_ID = ("Checkpoint Loader Simple Mikey", "KSampler (Efficient)", "KSampler Adv. (Efficient)")


def installed_nodes() -> dict[str, Any]:
    """NODES in the shape of GET /object_info."""
    return {node.name: _declared(node) for node in NODES}


def _declared(node: Node) -> Json:
    marks, outputs = node.marks.split(), node.outputs.split()
    spec: Json = {"required": {}}
    for text in node.inputs.split(" | "):
        name, kind, *rest = text.split()
        group = spec.setdefault("optional" if name.startswith("?") else "required", {})
        group[name.lstrip("?")] = _config(name.lstrip("?"), kind, rest, "V3" in marks)
    if "output" in marks:
        spec["hidden"] = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
    if node.name in UNIQUE_ID:
        spec.setdefault("hidden", {})["my_unique_id"] = "UNIQUE_ID"
    return {
        "input": spec,
        "input_order": {group: list(keys) for group, keys in spec.items()},
        "output": [output.split("=")[0] for output in outputs],
        "output_is_list": [False for _ in outputs],
        "output_name": [output.split("=")[-1] for output in outputs],
        "name": node.name,
        "display_name": node.display_name or node.name,
        "description": "",
        "python_module": PACKS.get(node.category.split("/")[0], "nodes"),
        "category": node.category,
        "output_node": "output" in marks,
    }


def _config(name: str, kind: str, rest: list[str], is_v3: bool) -> list[Any]:
    """The type of an input, and what is said about it."""
    if kind in OPTIONS:
        if is_v3:
            return ["COMBO", {"multiselect": False, "options": list(OPTIONS[kind])}]
        uploads = {"image_upload": True} if "upload" in rest else {}
        return [list(OPTIONS[kind]), {"tooltip": f"The {name} to use.", **uploads}]
    numbers, marks = [word for word in rest if not word.isalpha()], [w for w in rest if w.isalpha()]
    limits = [json.loads(number) for number in numbers]
    about: Json = dict(zip(("default", "min", "max"), limits, strict=False))
    about |= {{"control": "control_after_generate"}.get(mark, mark): True for mark in marks}
    return [kind, about] if about or is_v3 else [kind]


def lists_of(info: dict[str, Any], name: str) -> Iterator[list[str]]:
    """The options of an input in all classes that have it, in either shape, to read and change."""
    for node in info.values():
        for group in ("required", "optional"):
            config = node["input"].get(group, {}).get(name)
            if config and config[0] == "COMBO":
                yield config[1]["options"]
            elif config and isinstance(config[0], list):
                yield config[0]


def in_newer_shape(info: dict[str, Any]) -> dict[str, Any]:
    """The same classes with all their options as the V3 schema declares them."""
    info = json.loads(json.dumps(info))
    for node in info.values():
        for group in node["input"].values():
            for config in group.values():
                if isinstance(config[0], list):
                    config[:] = ["COMBO", {"multiselect": False, "options": config[0]}]
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


def flux_workflow(
    unet: str = UNETS[0], seed: int = 1, steps: int = 4, size: tuple[int, int] = (1024, 1024)
) -> Json:
    """A workflow of many nodes: model, CLIP and VAE from files of their own, guidance instead of
    CFG, no negative prompt, the text and the width in primitive nodes."""
    clips = {"clip_name1": CLIPS[1], "clip_name2": CLIPS[3], "type": "flux"}
    latent = {"width": ["40", 0], "height": size[1], "batch_size": 1}
    schedule = {"model": ["12", 0], "scheduler": "simple", "steps": steps, "denoise": 1.0}
    sampling = {"noise": ["25", 0], "guider": ["22", 0], "sampler": ["16", 0]}
    sampling |= {"sigmas": ["17", 0], "latent_image": ["27", 0]}
    nodes: list[tuple[str, str, Json]] = [
        ("12", "UNETLoader", {"unet_name": unet, "weight_dtype": "default"}),
        ("11", "DualCLIPLoader", clips),
        ("10", "VAELoader", {"vae_name": VAES[0]}),
        ("41", "PrimitiveStringMultiline", {"value": "a landscape"}),
        ("40", "PrimitiveInt", {"value": size[0]}),
        ("6", "CLIPTextEncode", {"text": ["41", 0], "clip": ["11", 0]}),
        ("26", "FluxGuidance", {"conditioning": ["6", 0], "guidance": 3.5}),
        ("22", "BasicGuider", {"model": ["12", 0], "conditioning": ["26", 0]}),
        ("16", "KSamplerSelect", {"sampler_name": "euler"}),
        ("17", "BasicScheduler", schedule),
        ("25", "RandomNoise", {"noise_seed": seed}),
        ("27", "EmptySD3LatentImage", latent),
        ("13", "SamplerCustomAdvanced", sampling),
        ("8", "VAEDecode", {"samples": ["13", 0], "vae": ["10", 0]}),
        ("9", "SaveImage", {"images": ["8", 0], "filename_prefix": "ComfyUI"}),
    ]
    return {node_id: {"class_type": name, "inputs": inputs} for node_id, name, inputs in nodes}
