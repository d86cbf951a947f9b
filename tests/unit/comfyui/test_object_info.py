"""What a server says of the defaults of its classes, and how it scales pictures."""

from __future__ import annotations

import time
from typing import Any

import pytest

from comfyui.object_info import ObjectInfo, parse_classes

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


INFO = ObjectInfo(
    {
        "Node": {
            "input": {
                "required": {
                    "steps": ["INT", {"min": 1, "max": 20}],
                    "cfg": ["FLOAT", {"min": 0.5}],
                    "count": [[1, 2, 4], {}],
                    "size": ["COMBO", {"options": ["512", "1024"]}],
                    "text": ["STRING", {"multiline": True}],
                    "bare": ["INT"],
                    "odd": ["INT", {"max": "many"}],
                }
            }
        },
        "Broken": {"input": None},
    }
)


@pytest.mark.parametrize(
    ("field", "value", "takes"),
    [
        ("steps", 30, "at most 20"),
        ("steps", "30", "at most 20"),
        ("steps", 0, "at least 1"),
        ("steps", "many", "a number"),
        ("cfg", 0, "at least 0.5"),
        ("count", 3, "one of 1, 2, 4"),
        ("size", "832", "one of 512, 1024"),
    ],
)
def test_a_value_that_is_refused_comes_with_what_is_taken(
    field: str, value: object, takes: str
) -> None:
    assert (INFO.accepted("Node", field, value) or "").startswith(takes)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 20), ("steps", "7"), ("cfg", 7.5), ("count", 4), ("size", "512"), ("text", 30),
     ("bare", 2**64 - 1), ("odd", 5), ("unknown", 1)],
)  # fmt: skip
def test_what_is_accepted_or_not_known_is_no_refusal(field: str, value: object) -> None:
    assert INFO.accepted("Node", field, value) is None
    for name in ("Broken", "Unknown"):
        assert INFO.accepted(name, field, value) is None


def test_a_name_without_end_is_read_at_once() -> None:
    began = time.process_time()
    assert parse_classes(b'{"' + b"a" * 10_000_000 + b'": {}}')
    assert time.process_time() - began < 2


def test_numbers_that_no_json_has_are_left_out() -> None:
    spec = b'["INT", {"default": NaN, "max": Infinity}]'
    content = b'{"ImageScale": {"input": {"required": {"width": %b}}}}' % spec
    info = ObjectInfo(parse_classes(content))
    assert info.defaults("ImageScale") == {"width": None}
    assert info.accepted("ImageScale", "width", 5) is None


def test_a_file_whose_name_is_no_text_is_not_offered() -> None:
    # On Linux Python writes a byte of a name that is not UTF-8 as a lone surrogate.
    info = ObjectInfo(
        parse_classes(rb'{"A": {"input": {"required": {"x": [["b\udcff.ckpt", "fox.ckpt"]]}}}}')
    )
    assert info.choices("A", "x") == ("fox.ckpt",)
