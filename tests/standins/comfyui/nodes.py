"""The nodes that are installed in the stand-in's ComfyUI, as GET /object_info declares them."""

from __future__ import annotations

import json
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
    ("Seed Generator (Image Saver)", _SEED, "INT"),
]
UNIQUE_ID = ("Checkpoint Loader Simple Mikey", "KSampler (Efficient)", "KSampler Adv. (Efficient)")


def installed_nodes() -> dict[str, Any]:
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
