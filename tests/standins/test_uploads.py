"""The stand-in takes pictures, loads, scales and enlarges them as docs/comfyui.md says."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import requests

from tests.standins.comfyui.nodes import simple_workflow
from tests.standins.comfyui.pictures import decoded, draw_png
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.comfyui.uploads import load
from tests.standins.test_comfyui import finish, get, post

PNG = draw_png(b"a fox", (64, 97), {}, 0)
FRAME = b"!\xf9\x04\0\0\0\0\0,\0\0\0\0\5\0\3\0\0\2\2D\1\0"
GIF = b"GIF89a" + struct.pack("<HHBBB", 5, 3, 0x80, 0, 0) + bytes(6) + FRAME * 3 + b";"
Answer = tuple[int, Any]


def upload(comfyui: ComfyUIStandIn, data: bytes, name: str = "a.png", **form: str) -> Answer:
    url, files = comfyui.url + "/upload/image", {"image": (name, data)}
    answer = requests.post(url, files=files, data=form, timeout=5)
    return answer.status_code, answer.json() if answer.ok else None


def ran(comfyui: ComfyUIStandIn, image: str = "a.png", **nodes: Any) -> list[bytes]:
    """The pictures that come out of a loaded picture, by way of these nodes in their order."""
    workflow = simple_workflow()
    del workflow["5"], workflow["3"], workflow["8"]
    workflow |= {"load": {"class_type": "LoadImage", "inputs": {"image": image}}}
    last = "load"
    for node, (class_type, inputs) in nodes.items():
        linked = {name: [last, 0] if value is None else value for name, value in inputs.items()}
        workflow[node] = {"class_type": class_type, "inputs": linked}
        last = node
    workflow["9"]["inputs"]["images"] = [last, 0]
    entry = finish(comfyui, f"{len(comfyui.finished)}", workflow)
    return [get(comfyui, "/view", **i).content for i in entry["outputs"]["9"]["images"]]


def restyle(denoise: float) -> dict[str, Any]:
    sampling = {**simple_workflow()["3"]["inputs"], "latent_image": None, "denoise": denoise}
    return {
        "encode": ("VAEEncode", {"pixels": None, "vae": ["4", 2]}),
        "sample": ("KSampler", sampling),
        "decode": ("VAEDecode", {"samples": None, "vae": ["4", 2]}),
    }


def scaled(megapixels: float) -> dict[str, Any]:
    inputs = {"image": None, "upscale_method": "lanczos", "megapixels": megapixels}
    return {"scale": ("ImageScaleToTotalPixels", {**inputs, "resolution_steps": 1})}


def test_the_same_bytes_keep_their_name_and_others_get_a_number(comfyui: ComfyUIStandIn) -> None:
    def names(data: bytes, **form: str) -> Any:
        return upload(comfyui, data, "in.png", subfolder="sub", **form)[1]["name"]

    assert [names(b"1"), names(b"1"), names(b"2"), names(b"3"), names(b"2")] == [
        "in.png",
        "in.png",
        "in (1).png",
        "in (2).png",
        "in (1).png",
    ]
    assert names(b"4", overwrite="true") == "in.png"
    assert comfyui.uploads["sub/in.png"] == b"4"
    expected = {"name": "b.png", "subfolder": "sub", "type": "input"}
    assert upload(comfyui, b"x", "b.png", subfolder="sub", type="input") == (200, expected)


@pytest.mark.parametrize(
    ("name", "subfolder"), [("a.png", "../.."), ("../../a.png", ""), ("../a.png", "")]
)
def test_a_path_out_of_the_folder_is_refused(
    comfyui: ComfyUIStandIn, name: str, subfolder: str
) -> None:
    assert upload(comfyui, PNG, name, subfolder=subfolder) == (400, None)
    assert list(comfyui.uploads) == ["example.png"]


def test_anything_is_taken_and_what_is_no_picture_fails_when_it_is_loaded(
    comfyui: ComfyUIStandIn,
) -> None:
    assert upload(comfyui, b"<html>", "a.png")[0] == 200
    workflow = simple_workflow()
    workflow["50"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    workflow["9"]["inputs"]["images"] = ["50", 0]
    status = finish(comfyui, "x", workflow)["status"]
    assert status["messages"][-1][1]["exception_type"] == "PIL.UnidentifiedImageError"


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("sub/a.png", True),
        ("sub/a.png [input]", True),
        ("a.png", False),
        ("sub/b.png", False),
    ],
)
def test_a_picture_that_is_not_there_is_refused(
    comfyui: ComfyUIStandIn, name: str, fine: bool
) -> None:
    upload(comfyui, PNG, subfolder="sub")
    workflow = simple_workflow()
    workflow["50"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    workflow["9"]["inputs"]["images"] = ["50", 0]
    answer = post(comfyui, "x", workflow)
    assert answer.status_code == (200 if fine else 400)
    if not fine:
        error = answer.json()["node_errors"]["50"]["errors"][0]
        assert error["type"] == "custom_validation_failed"
        assert error["details"] == f"image - Invalid image file: {name}"
    comfyui.empty_input()
    assert post(comfyui, "y", workflow).status_code == 400


def test_a_file_that_goes_while_its_prompt_waits_fails_the_prompt(comfyui: ComfyUIStandIn) -> None:
    upload(comfyui, PNG)
    comfyui.hold()
    post(comfyui, "first", simple_workflow())
    comfyui.wait_for(lambda c: c.held == "first")
    workflow = simple_workflow()
    workflow["50"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    workflow["9"]["inputs"]["images"] = ["50", 0]
    post(comfyui, "x", workflow)
    comfyui.empty_input()
    comfyui.release()
    comfyui.wait_for(lambda c: "x" in c.finished)
    message = comfyui.history["x"]["status"]["messages"][-1][1]
    assert message["exception_type"] == "FileNotFoundError"


def test_a_loaded_picture_comes_out_as_it_went_in_until_its_bytes_change(
    comfyui: ComfyUIStandIn,
) -> None:
    upload(comfyui, PNG)
    (first,) = ran(comfyui)
    assert decoded(first) == decoded(PNG)
    other = draw_png(b"a bear", (64, 97), {}, 0)
    upload(comfyui, other, overwrite="true")
    assert decoded(ran(comfyui)[0]) == decoded(other)


def test_pixels_show_how_strongly_a_picture_is_changed(comfyui: ComfyUIStandIn) -> None:
    upload(comfyui, PNG)
    palettes = []
    for denoise in (0, 0.3, 0.6, 1.0):
        made = decoded(ran(comfyui, **restyle(denoise))[0])
        assert made is not None
        assert made.size == (64, 96)  # cut to multiples of 8
        palettes.append(made.palette)
    same = decoded(PNG)
    assert same is not None
    differences = [sum(abs(a - b) for a, b in zip(p, same.palette, strict=True)) for p in palettes]
    assert differences[0] == 0
    assert sorted(set(differences)) == differences


@pytest.mark.parametrize(
    ("model", "factor"), [("4x-UltraSharp.pth", 4), ("RealESRGAN_x2plus.pth", 2)]
)
def test_an_upscaler_enlarges_by_the_factor_of_its_model(
    comfyui: ComfyUIStandIn, model: str, factor: int
) -> None:
    upload(comfyui, PNG)
    workflow = simple_workflow()
    inputs = {"upscale_model": ["model", 0], "image": ["load", 0]}
    workflow |= {
        "load": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "model": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": model}},
        "up": {"class_type": "ImageUpscaleWithModel", "inputs": inputs},
    }
    workflow["9"]["inputs"]["images"] = ["up", 0]
    (image,) = finish(comfyui, "x", workflow)["outputs"]["9"]["images"]
    made = decoded(get(comfyui, "/view", **image).content)
    assert made is not None
    assert made.size == (64 * factor, 97 * factor)


@pytest.mark.parametrize("megapixels", [0.01, 0.25])
def test_scaling_enlarges_and_makes_smaller(comfyui: ComfyUIStandIn, megapixels: float) -> None:
    upload(comfyui, draw_png(b"a fox", (200, 300), {}, 0))
    width, height = load(ran(comfyui, **scaled(megapixels))[0]).size
    assert width * height == pytest.approx(megapixels * 2**20, rel=0.02)
    assert width / height == pytest.approx(2 / 3, rel=0.03)


def test_the_frames_of_a_gif_are_a_batch(comfyui: ComfyUIStandIn) -> None:
    upload(comfyui, GIF, "a.gif")
    assert len(ran(comfyui, "a.gif")) == 3


def test_the_example_of_every_comfyui_is_there(comfyui: ComfyUIStandIn) -> None:
    assert load(ran(comfyui, "example.png")[0]).size == (64, 96)
