"""Workflows that take a picture: where it goes, what its strength is, and how it is scaled."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

import binder
from binder import Prompt, Size, Workflow
from graph import Place
from tests.factories import params
from tests.graphs import custom, from_picture, node, plain, sampler

FROM_PICTURE = {"positive": ["pos.text"], "negative": ["neg.text"], "image": ["mine.image"]}
UPSCALER: Any = {
    "load": node("LoadImage", image="example.png"),
    "file": node("UpscaleModelLoader", model_name="a 2x.pth"),
    "up": node("ImageUpscaleWithModel", upscale_model="file@0", image="load@0"),
    "save": node("SaveImage", images="up@0", filename_prefix="up"),
}
SCALING = {"upscale_method": "lanczos", "megapixels": 1.0, "resolution_steps": 1}


def workflow(graph: Any, **bindings: list[str]) -> Workflow:
    result = binder.validate(copy.deepcopy(graph), binder.parse_bindings(bindings))
    assert result.ok, result
    return result


def strength(graph: Any, *, image: str = "mine.image") -> list[str]:
    return list(map(str, workflow(graph, positive=["pos.text"], image=[image]).strength))


def prompt(loaded: Workflow) -> Prompt:
    return binder.bind(params(positive_prompt="a fox"), loaded)


def test_a_workflow_that_takes_a_picture_needs_no_prompt_where_none_is_bound() -> None:
    upscaler = workflow(UPSCALER, image=["load.image"])
    assert (upscaler.takes_image, upscaler.needs_prompt) == (True, False)
    assert upscaler.params == {"image"}
    restyle = workflow(from_picture(), **FROM_PICTURE)
    assert (restyle.takes_image, restyle.needs_prompt) == (True, True)
    text_only = workflow(plain(), positive=["pos.text"])
    assert (text_only.takes_image, text_only.needs_prompt) == (False, True)
    with pytest.raises(ValueError, match="does not say where the prompt goes"):
        binder.parse_bindings({"model": ["file.model_name"]})


def test_a_picture_is_bound_to_a_name() -> None:
    bindings = binder.parse_bindings({**FROM_PICTURE, "image": ["sampler.steps"]})
    result = binder.validate(from_picture(), bindings)
    assert not result.ok
    assert result.reason == "image is bound to input steps of node sampler, which holds no text"


def test_the_strength_is_the_denoise_of_the_sampler_whose_latent_is_the_picture() -> None:
    loaded = workflow(from_picture(), **FROM_PICTURE)
    assert loaded.strength == (Place("sampler", "denoise"),)
    assert strength(from_picture()) == ["sampler.denoise"]


def second_pass() -> Any:
    again = sampler(latent_image="bigger@0", denoise=0.4)
    return {
        **from_picture(),
        "bigger": node("LatentUpscaleBy", samples="sampler@0", scale_by=1.5),
        "second": again,
        "decode": node("VAEDecode", samples="second@0", vae="loader@2"),
    }


def with_sigmas() -> Any:
    picture = {name: from_picture()[name] for name in ("empty", "scale", "mine")}
    picture["empty"]["inputs"]["vae"] = ["clips", 0]
    return custom(**picture)


def through_pixels() -> Any:
    """The first pass's picture is encoded anew for the second."""
    return {
        **second_pass(),
        "bigger": node("VAEEncode", pixels="larger@0", vae="loader@2"),
        "larger": node("ImageScaleBy", image="between@0", scale_by=1.5),
        "between": node("VAEDecode", samples="sampler@0", vae="loader@2"),
    }


def control() -> Any:
    """The picture guides the sampler, and the latent is empty."""
    return plain(
        pos2=node("ControlNetApply", conditioning="pos@0", image="mine@0", strength=0.8),
        sampler=sampler(positive="pos2@0"),
        mine=node("LoadImage", image="pose.png"),
    )


def two_pictures() -> Any:
    return {**from_picture(), "other": node("LoadImage", image="style.png")}


def linked() -> Any:
    number = node("PrimitiveInt", value=1)
    return {**from_picture(), "sampler": sampler(denoise="number@0"), "number": number}


@pytest.mark.parametrize(
    ("graph", "places"),
    [
        (second_pass(), ["sampler.denoise"]),
        (through_pixels(), ["sampler.denoise"]),
        (with_sigmas(), ["sigmas.denoise"]),
        (control(), []),
        (linked(), []),
        ({**from_picture(), "sampler": sampler(denoise=None)}, []),
        ({**from_picture(), "sampler": sampler(denoise="1")}, []),
    ],
    ids=["second pass", "through pixels", "with sigmas", "control", "linked", "without", "a text"],
)
def test_only_what_works_on_the_picture_itself_has_a_strength(
    graph: Any, places: list[str]
) -> None:
    assert strength(graph) == places


def test_another_picture_of_the_file_has_no_strength() -> None:
    assert strength(two_pictures(), image="other.image") == []
    assert strength(plain(mine=node("LoadImage", image="x.png"))) == []
    assert workflow(plain(), positive=["pos.text"]).strength == ()


def test_links_in_a_circle_have_no_strength() -> None:
    graph = {**from_picture(), "scale": node("ImageScale", image="scale@0")}
    assert strength(graph) == []


def test_a_picture_has_its_own_size_and_one_beside_an_empty_latent_the_files() -> None:
    sides = {"width": ["scale.width"], "height": ["scale.height"]}
    assert workflow(from_picture(), **FROM_PICTURE, **sides).size is None
    sides = {"width": ["empty.width"], "height": ["empty.height"]}
    assert workflow(control(), **FROM_PICTURE, **sides).size == Size(512, 768)
    assert workflow(UPSCALER, image=["load.image"]).size is None


def test_the_picture_and_its_strength_are_written_and_nothing_else() -> None:
    loaded = workflow(from_picture(), **FROM_PICTURE)
    expected = prompt(loaded).graph
    written = prompt(loaded)
    written.use_image("comfygen/a.png", 0.3)
    expected["mine"]["inputs"]["image"] = "comfygen/a.png"
    expected["sampler"]["inputs"]["denoise"] = 0.3
    assert written.graph == expected
    assert loaded.graph == from_picture()


def test_without_a_strength_that_of_the_file_stays() -> None:
    written = prompt(workflow(from_picture(), **FROM_PICTURE))
    written.use_image("comfygen/a.png", 0)
    assert written.graph["sampler"]["inputs"]["denoise"] == 1


def test_a_large_picture_is_scaled_before_whoever_uses_it_but_its_mask_is_not() -> None:
    graph = {**UPSCALER, "also": node("SaveImage", images="load@0", filename_prefix="x")}
    graph["mask"] = node("MaskPreview", mask="load@1")
    written = prompt(workflow(graph, image=["load.image"]))
    written.use_image("comfygen/a.png", 0)
    written.scale_image(2, SCALING)
    scaler = written.graph.pop("picture-1")
    assert scaler == {
        "class_type": "ImageScaleToTotalPixels",
        "inputs": {**SCALING, "image": ["load", 0], "megapixels": 1.9},
    }
    assert written.graph["up"]["inputs"]["image"] == ["picture-1", 0]
    assert written.graph["also"]["inputs"]["images"] == ["picture-1", 0]
    assert written.graph["mask"]["inputs"]["mask"] == ["load", 1]
    assert written.graph["load"]["inputs"] == {"image": "comfygen/a.png"}


@pytest.mark.parametrize("megapixels", [0.05, 0.5, 1, 2, 4, 15.9])
def test_comfyuis_megapixels_are_larger_and_the_result_has_at_most_those_asked_for(
    megapixels: float,
) -> None:
    written = prompt(workflow(UPSCALER, image=["load.image"]))
    written.scale_image(megapixels, SCALING)
    pixels = written.graph["picture-1"]["inputs"]["megapixels"] * 2**20
    assert 0.7 * megapixels * 10**6 < pixels <= megapixels * 10**6


def test_the_new_node_has_an_id_of_its_own() -> None:
    graph = {**UPSCALER, "picture-1": node("SaveImage", images="load@0", filename_prefix="x")}
    written = prompt(workflow(graph, image=["load.image"]))
    written.scale_image(2, SCALING)
    assert written.graph["picture-1"]["inputs"]["images"] == ["picture-2", 0]


def test_a_job_without_a_picture_is_written_as_before() -> None:
    plain_one = workflow(plain(), positive=["pos.text"], negative=["neg.text"])
    assert json.dumps(prompt(plain_one).graph) == json.dumps(
        plain(
            pos=node("CLIPTextEncode", text="a fox", clip="loader@1"),
            neg=node("CLIPTextEncode", text="", clip="loader@1"),
        )
    )


def test_the_picture_in_the_file_is_an_example_that_no_server_needs() -> None:
    texts = [text.value for text in workflow(two_pictures(), **FROM_PICTURE).texts()]
    assert "example.png" not in texts
    assert "style.png" in texts
