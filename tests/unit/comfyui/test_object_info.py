"""What a server says of the defaults of its classes, and how it scales pictures."""

from __future__ import annotations

from typing import Any

import pytest

from comfyui.object_info import ObjectInfo

METHODS = ["nearest-exact", "area", "lanczos"]
MEGAPIXELS = ["FLOAT", {"default": 1.0, "min": 0.01, "max": 16.0}]


def scaler(**required: Any) -> ObjectInfo:
    return ObjectInfo({"ImageScaleToTotalPixels": {"input": {"required": required}}})


def test_the_required_inputs_of_a_class_have_their_defaults_and_lists_their_first() -> None:
    info = scaler(
        image=["IMAGE"],
        upscale_method=[METHODS, {"tooltip": "x"}],
        newer=["COMBO", {"options": METHODS}],
        said=["COMBO", {"options": METHODS, "default": "area"}],
        megapixels=MEGAPIXELS,
        empty=[[], {}],
        zero=["INT", {"default": 0}],
    )
    assert info.defaults("ImageScaleToTotalPixels") == {
        "upscale_method": "nearest-exact",
        "newer": "nearest-exact",
        "said": "area",
        "megapixels": 1.0,
        "zero": 0,
    }


@pytest.mark.parametrize("entry", [None, {}, {"input": None}, {"input": {"required": 7}}])
def test_a_class_that_is_not_declared_as_such_has_no_defaults(entry: Any) -> None:
    assert ObjectInfo({"A": entry}).defaults("A") == {}
    assert ObjectInfo({}).defaults("A") == {}


def test_pictures_are_scaled_by_the_best_method_and_with_what_a_newer_server_requires() -> None:
    newer = ["INT", {"default": 1}]
    info = scaler(
        image=["IMAGE"], upscale_method=[METHODS], megapixels=MEGAPIXELS, resolution_steps=newer
    )
    written = {"upscale_method": "lanczos", "megapixels": 1.0, "resolution_steps": 1}
    assert info.capabilities(()).scaling == written
    assert scaler(upscale_method=[["area"]]).capabilities(()).scaling == {"upscale_method": "area"}


def test_a_server_without_the_class_scales_nothing() -> None:
    assert ObjectInfo({"SaveImage": {}}).capabilities(()).scaling is None
