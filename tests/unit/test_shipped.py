"""The workflows that come with the program: what they offer, and what ComfyUI makes with them."""

from __future__ import annotations

import copy
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import binder
from comfy_client import ComfyClient
from comfyui.images import Image, kind_of
from comfyui.object_info import ObjectInfo
from jobs.catalog import Workflows
from jobs.names import NamesByList
from settings import Server
from tests.factories import params
from tests.standins.comfyui.nodes import MODELS, installed_nodes
from tests.standins.comfyui.pictures import draw_png
from tests.standins.comfyui.server import ComfyUIStandIn

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
WORKFLOWS = Workflows(FOLDER / "multisampler" / "base.json")
PHOTO = draw_png(b"a photo", (400, 240), {}, 0)


def offered(info: dict[str, Any]) -> tuple[Any, Any]:
    return WORKFLOWS.offers(ObjectInfo(info), NamesByList({}))


@pytest.fixture
def client(comfyui: ComfyUIStandIn) -> Iterator[ComfyClient]:
    with closing(ComfyClient(Server(comfyui.url))) as client:
        yield client


def made(
    comfyui: ComfyUIStandIn,
    client: ComfyClient,
    name: str,
    *,
    strength: float = 0,
    megapixels: float = 0,
    **job: Any,
) -> Image:
    """The picture that a job makes out of PHOTO, as the worker will post it."""
    loaded = WORKFLOWS.load(name)
    assert loaded.ok
    prompt = binder.bind(params(**job), loaded)
    prompt.use_image(client.upload(PHOTO, "a.png"), strength)
    if megapixels:
        scaling = client.object_info().capabilities(()).scaling
        assert scaling is not None
        prompt.scale_image(megapixels, scaling)
    prompt_id = str(uuid.uuid4())
    client.submit(prompt.graph, prompt_id)
    comfyui.wait_for(lambda c: prompt_id in c.finished)
    entry = client.history(prompt_id)
    assert entry is not None
    assert entry.error is None
    (image,) = entry.images
    picture = kind_of(client.image(image))
    assert isinstance(picture, Image)
    return picture


def test_upscaling_and_editing_are_offered_beside_the_default() -> None:
    offers, left_out = offered(installed_nodes())
    assert (list(offers), left_out) == (["multisampler", "edit", "upscale"], {})
    assert offers["upscale"].params == {"model", "image"}
    assert offers["upscale"].models.values == ("4x-UltraSharp.pth", "RealESRGAN_x2plus.pth")
    sampling = {"model", "sampler", "scheduler", "steps", "cfg", "seed"}
    assert offers["edit"].params == {"positive", "negative", "image", *sampling}
    assert (offers["edit"].size, offers["upscale"].size) == (None, None)
    assert (bool(offers["edit"].loras), bool(offers["upscale"].loras)) == (True, False)


def test_without_an_upscale_model_there_is_no_upscaling_and_the_rest_goes_on() -> None:
    info = copy.deepcopy(installed_nodes())
    info["UpscaleModelLoader"]["input"]["required"]["model_name"][1]["options"] = []
    offers, left_out = offered(info)
    assert list(offers) == ["multisampler", "edit"]
    assert left_out == {"upscale": "ComfyUI has no model for UpscaleModelLoader"}


def test_without_the_classes_there_is_neither() -> None:
    info = {name: node for name, node in installed_nodes().items() if name != "LoadImage"}
    offers, left_out = offered(info)
    assert list(offers) == ["multisampler"]
    assert left_out.keys() == {"edit", "upscale"}
    assert all("ComfyUI does not know LoadImage" in reason for reason in left_out.values())


def test_git_keeps_the_shipped_workflows_and_ignores_all_others(tmp_path: Path) -> None:
    shutil.copy(FOLDER.parent / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    names = ["multisampler", "edit", "upscale", "mine"]
    asked = ["git", "check-ignore", *(f"workflows/{name}/base.json" for name in names)]
    ignored = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == ["workflows/mine/base.json"]


@pytest.mark.parametrize(
    ("model", "factor"), [("4x-UltraSharp.pth", 4), ("RealESRGAN_x2plus.pth", 2)]
)
def test_a_picture_is_enlarged_by_the_chosen_model(
    comfyui: ComfyUIStandIn, client: ComfyClient, model: str, factor: int
) -> None:
    picture = made(comfyui, client, "upscale", model=model)
    assert picture[1:] == (".png", 400 * factor, 240 * factor)


def test_a_large_picture_is_scaled_down_before_it_is_enlarged(
    comfyui: ComfyUIStandIn, client: ComfyClient
) -> None:
    _, _, width, height = made(
        comfyui, client, "upscale", model="RealESRGAN_x2plus.pth", megapixels=0.05
    )
    assert 0.8 * 0.05 < width * height / 10**6 / 4 < 0.05
    assert width / height == pytest.approx(400 / 240, rel=0.02)


def test_a_picture_is_edited_with_each_strength_and_keeps_its_size(
    comfyui: ComfyUIStandIn, client: ComfyClient
) -> None:
    wanted = {"model": MODELS[0], "sampler": "euler", "scheduler": "karras"}
    pictures = [
        made(comfyui, client, "edit", strength=strength, **wanted)
        for strength in (0, 0.3, 0.5, 0.7, 1.0)
    ]
    assert {picture[1:] for picture in pictures} == {(".png", 400, 240)}
    assert len({picture.data for picture in pictures}) == 5
    denoise = [prompt["6"]["inputs"]["denoise"] for _, prompt in comfyui.posted]
    assert denoise == [0.6, 0.3, 0.5, 0.7, 1.0]
