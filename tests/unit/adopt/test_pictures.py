"""pictures.py through analysis.py: which loaded picture a person gives, and which stays."""

from __future__ import annotations

import pytest

from adopt.analysis import analyse
from binder import PARAMS
from comfyui.object_info import ObjectInfo
from tests.graphs import PLAIN, Nodes, doubted, found, from_picture, node, plain, refused, sampler

MINE = node("LoadImage", image="example.png")
STYLE = {
    "sampler": sampler(model="style@0"),
    "style": node("IPAdapter", model="loader@0", image="fixed@0", weight=1.0),
    "fixed": node("LoadImage", image="style.png"),
}
ENCODED = node("VAEEncode", pixels="mine@0", vae="loader@2")
SIZE_LESS: dict[str, list[str]] = {"width": [], "height": [], "batch": []}
UPSCALER = {
    "mine": MINE,
    "up": node("ImageUpscaleWithModel", image="mine@0", upscale_model="m@0"),
    "m": node("UpscaleModelLoader", model_name="4x.pth"),
    "save": node("SaveImage", images="up@0", filename_prefix="x"),
}


def first_frame(class_type: str, **inputs: object) -> Nodes:
    sizes = {"width": 832, "height": 480, "length": 81, "batch_size": 1}
    video = node(class_type, positive="pos@0", negative="neg@0", **sizes, **inputs)
    return plain(
        sampler=sampler(positive="video@0", negative="video@1", latent_image="video@2"),
        empty=None,
        video=video,
        mine=MINE,
        save=node("SaveWEBM", images="decode@0", filename_prefix="x", fps=16.0),
    )


def test_a_picture_that_becomes_the_latent_is_the_persons_and_has_its_own_size() -> None:
    expected = {**PLAIN, **SIZE_LESS, "image": ["mine.image"]}
    assert analyse(from_picture()).bindings == expected
    assert analyse(from_picture()).not_sure == {}


def test_without_a_sampler_the_picture_alone_is_bound() -> None:
    adoption = analyse(UPSCALER)
    assert adoption.bindings == {param: [] for param in PARAMS} | {"image": ["mine.image"]}
    assert (adoption.refused, adoption.not_sure) == (None, {})


@pytest.mark.parametrize(
    "nodes",
    [
        plain(
            pos=node("TextEncodeQwenImageEdit", prompt="make it red", clip="loader@1",
                     vae="loader@2", image="mine@0"),
            mine=MINE,
        ),
        plain(
            sampler=sampler(positive="ref@0"),
            ref=node("ReferenceLatent", conditioning="pos@0", latent="encode@0"),
            encode=ENCODED,
            mine=MINE,
        ),
        plain(
            sampler=sampler(positive="ref@0", negative="ref@1"),
            ref=node("InstructPixToPixConditioning", positive="pos@0", negative="neg@0",
                     vae="loader@2", pixels="mine@0"),
            mine=MINE,
        ),
    ],
    ids=["Qwen", "Kontext", "InstructPixToPix"],
)  # fmt: skip
def test_a_picture_that_the_prompt_edits_is_the_persons(nodes: Nodes) -> None:
    assert found(nodes, "image") == ["mine.image"]


def test_the_first_frame_of_a_video_is_the_persons_and_its_size_stays_free() -> None:
    for nodes in (
        first_frame("WanImageToVideo", vae="loader@2", start_image="mine@0"),
        first_frame("LTXVImgToVideo", vae="loader@2", image="mine@0", strength=1.0),
    ):
        assert found(nodes, "image") == ["mine.image"]
        assert found(nodes, "width") == ["video.width"]
        assert found(nodes, "length") == ["video.length"]


def test_a_picture_put_into_the_latent_of_a_video_is_the_persons() -> None:
    nodes = plain(
        sampler=sampler(latent_image="put@0"),
        put=node("LTXVImgToVideoInplace", latent="empty@0", image="fit@0", vae="loader@2"),
        fit=node("ResizeImageMaskNode", input="mine@0", **{"resize_type.width": 640}),
        mine=MINE,
    )
    assert found(nodes, "image") == ["mine.image"]


def test_a_style_beside_a_picture_to_work_on_stays_in_the_file() -> None:
    nodes = from_picture() | {**STYLE, "sampler": sampler(model="style@0")}
    assert found(nodes, "image") == ["mine.image"]


def test_a_style_alone_is_not_sure_and_several_stay() -> None:
    nodes = plain(**STYLE)
    assert analyse(nodes).bindings["image"] == []
    assert doubted(nodes, "image") == ["fixed.image"]
    nodes["style"]["inputs"]["model"] = ["pose", 0]
    nodes |= {"pose": node("IPAdapter", model="loader@0", image="other@0", weight=0.5)}
    nodes |= {"other": node("LoadImage", image="pose.png")}
    assert found(nodes, "image") == []


def test_of_two_pictures_to_work_on_the_first_is_bound_and_the_owner_reads_of_the_other() -> None:
    nodes = plain(
        pos=node("TextEncodeQwenImageEditPlus", prompt="both on a sofa", clip="loader@1",
                 vae="loader@2", image1="mine@0", image2="other@0"),
        mine=MINE,
        other=node("LoadImage", image="cat.png"),
    )  # fmt: skip
    assert analyse(nodes).bindings["image"] == ["mine.image"]
    assert doubted(nodes, "image") == ["mine.image", "other.image"]


def test_references_one_behind_another_are_in_their_order() -> None:
    nodes = plain(
        sampler=sampler(positive="second@0"),
        second=node("ReferenceLatent", conditioning="first@0", latent="encode2@0"),
        first=node("ReferenceLatent", conditioning="pos@0", latent="encode@0"),
        encode=ENCODED,
        encode2=node("VAEEncode", pixels="other@0", vae="loader@2"),
        mine=MINE,
        other=node("LoadImage", image="cat.png"),
    )
    assert analyse(nodes).bindings["image"] == ["mine.image"]


@pytest.mark.parametrize("mark", ["%image%", "", "INPUT_IMAGE"])
def test_a_picture_that_the_file_leaves_open_is_the_persons(mark: str) -> None:
    nodes = plain(**{**STYLE, "fixed": node("LoadImage", image=mark)})
    assert found(nodes, "image") == ["fixed.image"]


@pytest.mark.parametrize("mask", ["mine@1", "mask@0", "grown@0"])
def test_a_mask_that_a_person_would_have_to_paint_is_refused(mask: str) -> None:
    nodes = plain(
        empty=node("VAEEncodeForInpaint", pixels="mine@0", vae="loader@2", mask=mask),
        grown=node("GrowMask", mask="mine@1", expand=6),
        mask=node("LoadImageMask", image="mask.png", channel="alpha"),
        mine=MINE,
    )
    assert "people can give a picture, but no mask" in refused(nodes)


def test_a_mask_that_is_found_in_the_picture_is_none_to_paint() -> None:
    nodes = plain(
        empty=node("VAEEncodeForInpaint", pixels="pad@0", vae="loader@2", mask="pad@1"),
        pad=node("ImagePadForOutpaint", image="mine@0", left=64, top=0, right=64, bottom=0),
        mine=MINE,
    )
    assert found(nodes, "image") == ["mine.image"]


def test_an_input_that_the_server_marks_as_an_upload_takes_the_picture() -> None:
    upload = [["a.png"], {"image_upload": True}]
    info = ObjectInfo({"Photo Image": {"input": {"required": {"photo": upload}}}})
    nodes = from_picture() | {"mine": node("Photo Image", photo="a.png")}
    assert analyse(nodes, info).bindings["image"] == ["mine.photo"]
    assert "put a LoadImage node in its place" in str(analyse(nodes).refused)


@pytest.mark.parametrize("class_type", ["ETN_LoadImageBase64", "VHS_LoadImagePath"])
def test_a_picture_as_text_or_by_its_path_is_refused(class_type: str) -> None:
    nodes = from_picture() | {"mine": node(class_type, image="C:/me.png")}
    assert "put a LoadImage node in its place" in refused(nodes)
