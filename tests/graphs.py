"""Small workflows of our own for the tests of the analysis, and how its answers are read."""

from __future__ import annotations

from typing import Any

from adopt.analysis import Adoption, analyse

Nodes = dict[str, dict[str, Any]]


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    """A node; an input given as "id@slot" is a link."""
    linked = {name: _link(value) for name, value in inputs.items()}
    return {
        "class_type": class_type,
        "inputs": linked,
        **({"_meta": {"title": title}} if title else {}),
    }


def _link(value: Any) -> Any:
    if isinstance(value, str) and "@" in value:
        source, slot = value.split("@")
        return [source, int(slot)]
    return value


def plain(**changed: dict[str, Any] | None) -> Nodes:
    """A plain text-to-image workflow, by names: those of `changed` replaced, added or taken out."""
    nodes: dict[str, dict[str, Any] | None] = {
        "loader": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "empty": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "pos": node("CLIPTextEncode", text="a red fox in the snow", clip="loader@1"),
        "neg": node("CLIPTextEncode", text="blurry", clip="loader@1"),
        "sampler": sampler(),
        "decode": node("VAEDecode", samples="sampler@0", vae="loader@2"),
        "save": node("SaveImage", images="decode@0", filename_prefix="fox"),
    }
    nodes.update(changed)
    return {name: entry for name, entry in nodes.items() if entry is not None}


def sampler(class_type: str = "KSampler", **changed: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "model": "loader@0",
        "positive": "pos@0",
        "negative": "neg@0",
        "latent_image": "empty@0",
        "seed": 5,
        "steps": 20,
        "cfg": 7.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1,
    }
    inputs.update(changed)
    return node(class_type, **{name: value for name, value in inputs.items() if value is not None})


def custom(**changed: dict[str, Any] | None) -> Nodes:
    """The workflow that Flux is used with: everything in a node of its own."""
    nodes: dict[str, dict[str, Any] | None] = {
        "loader": None,
        "neg": None,
        "unet": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="default"),
        "clips": node("DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="l.safetensors"),
        "pos": node("CLIPTextEncode", text="a red fox in the snow", clip="clips@0"),
        "guidance": node("FluxGuidance", guidance=3.5, conditioning="pos@0"),
        "guider": node("BasicGuider", model="shift@0", conditioning="guidance@0"),
        "shift": node("ModelSamplingFlux", model="unet@0", max_shift=1.15, width=1024, height=1024),
        "noise": node("RandomNoise", noise_seed=9),
        "select": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model="shift@0", scheduler="simple", steps=25, denoise=1),
        "sampler": node(
            "SamplerCustomAdvanced",
            noise="noise@0",
            guider="guider@0",
            sampler="select@0",
            sigmas="sigmas@0",
            latent_image="empty@0",
        ),
    }
    nodes.update(changed)
    return plain(**nodes)


def entries(adoption: Adoption, *params: str) -> dict[str, list[str]]:
    assert adoption.refused is None, adoption.refused
    return {param: adoption.bindings[param] for param in params}


def found(document: object, param: str) -> list[str]:
    """What is found for a param, and for sure."""
    adoption = analyse(document)
    assert adoption.refused is None, adoption.refused
    assert param not in adoption.not_sure, adoption.not_sure
    return adoption.bindings[param]


def doubted(document: object, param: str) -> list[str]:
    adoption = analyse(document)
    assert adoption.refused is None, adoption.refused
    return adoption.not_sure.get(param, [])


def refused(document: object) -> str:
    reason = analyse(document).refused
    assert reason is not None, analyse(document).bindings
    return reason


PLAIN = {
    "model": ["loader.ckpt_name"],
    "positive": ["pos.text"],
    "negative": ["neg.text"],
    "sampler": ["sampler.sampler_name"],
    "scheduler": ["sampler.scheduler"],
    "steps": ["sampler.steps"],
    "cfg": ["sampler.cfg"],
    "seed": ["sampler.seed"],
    "width": ["empty.width"],
    "height": ["empty.height"],
    "batch": ["empty.batch_size"],
    "length": [],
    "image": [],
}


def two_stages(**changed: dict[str, Any] | None) -> Nodes:
    first = {"seed": None, "noise_seed": 5, "steps": 25, "start_at_step": 0, "end_at_step": 20}
    second = {**first, "start_at_step": 20, "end_at_step": 10000, "latent_image": "sampler@0"}
    return plain(
        **{
            "sampler": sampler("KSamplerAdvanced", **first),
            "second": sampler("KSamplerAdvanced", **second, positive="pos2@0", model="refiner@0"),
            "refiner": node("CheckpointLoaderSimple", ckpt_name="refiner.safetensors"),
            "pos2": node("CLIPTextEncode", text="a red fox in the snow", clip="refiner@1"),
            "decode": node("VAEDecode", samples="second@0", vae="loader@2"),
            **changed,
        }
    )


def from_picture() -> Nodes:
    return plain(
        empty=node("VAEEncode", pixels="scale@0", vae="loader@2"),
        scale=node("ImageScale", image="mine@0", width=512, height=512, crop="disabled"),
        mine=node("LoadImage", image="example.png"),
    )


def ending(class_type: str, **inputs: Any) -> Nodes:
    return plain(save=node(class_type, images="decode@0", **inputs))
