"""What follows a bound number, what only previews, and inputs that two params share."""

from __future__ import annotations

from typing import Any

import pytest

import binder
from adopt.analysis import analyse
from tests.factories import params
from tests.graphs import PLAIN, Nodes, custom, doubted, found, node, plain, sampler


def enlarged(**scale: Any) -> Nodes:
    """A second pass over a latent that is enlarged to fixed numbers."""
    inputs = {"width": 1024, "height": 1536, "crop": "disabled", "samples": "sampler@0", **scale}
    return plain(
        scale=node("LatentUpscale", **inputs),
        second=sampler(latent_image="scale@0", denoise=0.5, seed=6, steps=14),
        decode=node("VAEDecode", samples="second@0", vae="loader@2"),
    )


def prompt(nodes: Nodes, **job: Any) -> binder.Prompt:
    """The nodes as adopted, bound to a job."""
    loaded = binder.validate(nodes, binder.parse_bindings(analyse(nodes).bindings))
    assert loaded.ok, loaded
    return binder.bind(params(**job), loaded)


def test_a_size_behind_the_base_pass_follows_the_shape_in_proportion() -> None:
    nodes = enlarged()
    assert found(nodes, "later_width") == ["scale.width"]
    assert found(nodes, "later_height") == ["scale.height"]
    changed = prompt(nodes)
    changed.resize(binder.Size(768, 512))
    later = changed.graph["scale"]["inputs"]
    assert (later["width"], later["height"]) == (1536, 1024)


@pytest.mark.parametrize(
    "scale",
    [
        {"class_type": "ImageScale", "image": "decode@0", "width": 1024, "height": 1536},
        {"class_type": "ImageResize+", "image": "decode@0", "width": "wide@0", "height": 1536},
        {"class_type": "CropIt", "pixels": "decode@0", "target_width": 256, "target_height": 384},
        {"class_type": "Upscaler", "image": "decode@0", "tile_width": 512, "tile_height": 768},
    ],
)
def test_any_node_with_two_sides_behind_the_base_pass_follows(scale: dict[str, Any]) -> None:
    nodes = plain(
        scale=node(**scale),
        wide=node("PrimitiveInt", value=1024),
        save=node("SaveImage", images="scale@0", filename_prefix="fox"),
    )
    assert len(found(nodes, "later_width")) == len(found(nodes, "later_height")) == 1


def test_a_mask_of_the_size_of_a_later_picture_follows() -> None:
    nodes = plain(
        mask=node("SolidMask", value=1.0, width=512, height=768),
        paste=node(
            "ImageCompositeMasked", destination="decode@0", source="decode@0", mask="mask@0"
        ),
        save=node("SaveImage", images="paste@0", filename_prefix="fox"),
    )
    assert found(nodes, "later_width") == ["mask.width"]


def test_a_later_size_of_another_shape_leaves_the_size_in_doubt() -> None:
    nodes = enlarged(height=1024)
    assert doubted(nodes, "width") == ["empty.width", "scale.width"]
    assert doubted(nodes, "height") == ["empty.height", "scale.height"]
    assert "later_width" not in analyse(nodes).bindings


@pytest.mark.parametrize(
    "scale", [{"height": 0}, {"keep_proportion": True, "height": 99}, {"method": "keep proportion"}]
)
def test_what_keeps_the_shape_by_itself_stays_as_it_is(scale: dict[str, Any]) -> None:
    assert analyse(enlarged(**scale)).bindings == PLAIN | {
        "sampler": ["sampler.sampler_name", "second.sampler_name"],
        "scheduler": ["sampler.scheduler", "second.scheduler"],
    }


@pytest.mark.parametrize(
    "name", ["steps_to_run", "end_step", "last_step", "step_split", "stop_at_step"]
)
def test_a_second_count_of_steps_follows_the_first(name: str) -> None:
    if name == "step_split":
        name = "split_step"
    nodes = plain(sampler=sampler("ClownsharKSampler_Beta", **{name: 10}))
    assert found(nodes, "later_steps") == [f"sampler.{name}"]
    assert prompt(nodes, steps=30).graph["sampler"]["inputs"][name] == 15


@pytest.mark.parametrize("count", [-1, 0, 10000])
def test_a_count_that_means_all_steps_stays_as_it_is(count: int) -> None:
    assert analyse(plain(sampler=sampler(steps_to_run=count))).bindings == PLAIN


def test_the_steps_of_a_schedule_that_is_cut_are_scaled_together() -> None:
    nodes = custom(cut=node("SplitSigmas", sigmas="sigmas@0", step=5))
    nodes["sampler"]["inputs"]["sigmas"] = ["cut", 0]
    graph = prompt(nodes, steps=50).graph
    assert (graph["sigmas"]["inputs"]["steps"], graph["cut"]["inputs"]["step"]) == (50, 10)


def test_numbers_that_are_kept_as_text_are_written_as_text() -> None:
    nodes = plain(sampler=sampler(steps="24", cfg="3.2", seed="7", steps_to_run="12"))
    changed = prompt(nodes, steps=30, cfg=5.5)
    changed.reseed(2**32 - 1, {})
    written = changed.graph["sampler"]["inputs"]
    assert (written["steps"], written["cfg"], written["steps_to_run"]) == ("30", "5.5", "15")
    assert written["seed"] == "4294967295"


def test_an_input_is_left_to_the_first_of_two_params() -> None:
    nodes = plain(
        sampler=sampler(seed="count@0", steps="count@0"), count=node("Seed", "Steps", seed=12)
    )
    assert found(nodes, "steps") == ["count.seed"]
    assert found(nodes, "seed") == []
    changed = prompt(nodes, steps=30)
    changed.reseed(5, {})
    assert changed.graph["count"]["inputs"] == {"seed": 30}


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {}), ({"latent_image": "empty@0"}, {"seed": None, "noise_seed": 6, "denoise": None,
                                             "add_noise": "enable", "start_at_step": 0})],
)  # fmt: skip
def test_a_later_pass_from_full_noise_leaves_steps_cfg_and_seed_in_doubt(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    nodes = plain(
        sampler=sampler(**first),
        second=sampler(**{"latent_image": "sampler@0", "seed": 6, **second}),
        decode2=node("VAEDecode", samples="second@0", vae="loader@2"),
        save2=node("SaveImage", images="decode2@0", filename_prefix="two"),
    )
    assert doubted(nodes, "steps") == ["sampler.steps", "second.steps"]
    assert len(doubted(nodes, "cfg")) == len(doubted(nodes, "seed")) == 2
    nodes["second"] = sampler(latent_image="sampler@0", denoise=0.5)
    assert doubted(nodes, "steps") == []


@pytest.mark.parametrize("class_type", ["PreviewImage", "SaveImageWebsocket", "Image Preview"])
def test_a_preview_becomes_a_saving_node_and_the_owner_reads_so(class_type: str) -> None:
    nodes = plain(
        first=node("PreviewImage", images="decode@0"),
        larger=node("ImageScaleBy", image="decode@0", scale_by=2.0),
        save=node(class_type, images="larger@0"),
    )
    adoption = analyse(nodes)
    assert adoption.bindings == PLAIN
    assert adoption.workflow["save"] == node(
        "SaveImage", images="larger@0", filename_prefix="ComfyGen"
    )
    assert adoption.workflow["first"] == nodes["first"]
    (note,) = adoption.notes
    assert note == f"SaveImage now stands in the place of {class_type} save, which keeps no picture"
    assert nodes["save"]["class_type"] == class_type


def test_a_preview_beside_a_saving_node_stays() -> None:
    nodes = plain(shown=node("PreviewImage", images="decode@0"))
    assert analyse(nodes).workflow == nodes
    assert analyse(nodes).notes == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("weights_variant", "2.0 large"), ("repo_id", "some/model"), ("version", "turbo"),
     ("file", "paint.safetensors")],
)  # fmt: skip
def test_a_model_under_another_name_is_what_its_loader_loads(name: str, value: str) -> None:
    nodes = {
        "loader": node("PaintPipelineLoader", **{name: value}, dtype="bf16", device="cuda"),
        "make": node("PaintGenerate", pipeline="loader@0", prompt="a fox", width=960, height=640,
                     quality_preset="Balanced 24", num_steps=24, guidance_scale=4.5, seed=3),
        "save": node("SaveImage", images="make@0", filename_prefix="fox"),
    }  # fmt: skip
    assert found(nodes, "model") == [f"loader.{name}"]
    assert found(nodes, "width") == ["make.width"]
    nodes["make"]["inputs"]["size_preset"] = "960 x 640"
    assert analyse(nodes).bindings["width"] == []


@pytest.mark.parametrize(
    "holder",
    [
        {"class_type": "PrimitiveString", "value": "a.safetensors"},
        {"class_type": "String Literal", "string": "a.safetensors"},
        {"class_type": "Checkpoint Selector", "ckpt_name": "a.safetensors"},
        {"class_type": "Text", "text": "a.safetensors"},
        {"class_type": "PickModel", "name": "a.safetensors", "note": "the good one"},
    ],
)
def test_a_model_name_in_a_node_of_its_own_is_no_question(holder: dict[str, Any]) -> None:
    loader = node("CheckpointLoaderSimple", ckpt_name="name@0")
    assert len(found(plain(loader=loader, name=node(**holder)), "model")) == 1


@pytest.mark.parametrize("model", ["flux1-schnell.safetensors", "FLUX/dev.gguf"])
def test_flux_with_a_cfg_of_1_shows_no_negative_prompt(model: str) -> None:
    nodes = plain(loader=node("CheckpointLoaderSimple", ckpt_name=model), sampler=sampler(cfg=1))
    assert found(nodes, "negative") == []
    nodes["sampler"]["inputs"]["cfg"] = 3.5
    assert found(nodes, "negative") == ["neg.text"]
    nodes["loader"]["inputs"]["ckpt_name"] = "sdxl-lightning.safetensors"
    nodes["empty"] = node("FluxResolutionNode", width=512, height=512, batch_size=1)
    nodes["sampler"]["inputs"]["cfg"] = 1
    assert found(nodes, "negative") == ["neg.text"]


def test_numbers_that_lead_to_each_other_in_circles_end() -> None:
    count = 400
    nodes = {
        f"n{i}": node("Math", **{side: f"n{(i * 7 + shift) % count}@0" for side, shift in
                                 (("a", 1), ("b", 2), ("value", 3), ("width", 5))})
        for i in range(count)
    }  # fmt: skip
    adoption = analyse(plain(sampler=sampler(steps="n0@0", seed="n1@0"), **nodes))
    assert adoption.bindings["steps"] == adoption.bindings["seed"] == []
