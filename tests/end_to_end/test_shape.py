"""The shape of a picture, from the form to the file that ComfyUI makes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.common import refresh, result_of
from tests.end_to_end.three_workflows import (
    FLUX,
    FLUX_BINDINGS,
    OWN_NEGATIVES,
    failure_of,
    furnish_with_three,
    written,
)
from tests.harness.house import House
from tests.harness.labels import AGAIN, EDIT
from tests.harness.steps import chosen, fields, generate, labels, queued, text_of
from tests.standins.discord.people import Person, Reply

SEED = {"seed": "7"}


@pytest.fixture(scope="module")
def furnish() -> Callable[[House], None]:
    return furnish_with_three


def size_in(house: House, message: dict[str, Any]) -> tuple[int, int]:
    """Of the picture in a message."""
    (attachment,) = message["attachments"]
    width, height = struct.unpack(">II", house.discord.attachment_bytes(attachment)[16:24])
    return width, height


def gen(house: House, person: Person, **options: str) -> tuple[Reply, dict[str, Any]]:
    """/gen, and the form as it opens."""
    reply = person.slash("gen", house.channel, **options).wait()
    assert reply.message is not None
    return reply, reply.message


@pytest.mark.parametrize(
    ("workflow", "shapes", "portrait", "scale"),
    [
        (
            "multisampler",
            ["1024 x 1024", "1024 x 1024", "832 x 1216", "1216 x 832", "1344 x 768", "768 x 1344"],
            (832, 1216),
            1.5,
        ),
        (
            "flux",
            ["1024 x 768", "896 x 896", "704 x 1088", "1088 x 704", "1152 x 640", "640 x 1152"],
            (704, 1088),
            1,
        ),
        (
            "styled",
            ["512 x 512", "512 x 512", "448 x 640", "640 x 448", "704 x 384", "384 x 704"],
            (448, 640),
            1,
        ),
    ],
)
def test_a_shape_is_chosen_kept_and_made(
    shared: House, workflow: str, shapes: list[str], portrait: tuple[int, int], scale: float
) -> None:
    person = shared.discord.person()
    form, message = gen(shared, person, prompt="a fox", workflow=workflow, **SEED)
    names = ["As in the workflow", "Square", "Portrait", "Landscape", "Wide", "Tall"]
    expected = [f"{name} ({size})" for name, size in zip(names, shapes, strict=True)]
    expected[0] = expected[0].replace("As", "as")  # it is chosen: "Shape: as in the workflow"
    assert labels(message, "Shape") == expected
    person.select(message, "Shape", expected[2]).wait()
    shown = f"portrait ({shapes[2]})"
    assert chosen(message, "Shape") == [shown]
    assert fields(message)["Shape"] == shown
    queued(person, form)

    result = result_of(shared, person)
    assert fields(result)["Shape"] == shown
    assert size_in(shared, result) == tuple(int(side * scale) for side in portrait)
    values = {"positive": "a fox", "negative": OWN_NEGATIVES.get(workflow, ""), "seed": 7}
    width, height = portrait
    sized = written(workflow, **values, width=width, height=height)
    assert json.dumps(shared.comfyui.posted[-1][1]) == json.dumps(sized)

    person.press(result, AGAIN).wait_shown(lambda m: "Queued!" in m["content"])
    assert fields(result_of(shared, person, 2))["Shape"] == shown
    edited = person.press(result, EDIT)
    assert fields(edited.wait_message(lambda m: bool(m["embeds"])))["Shape"] == shown
    assert edited.message is not None
    person.select(edited.message, "Shape", expected[0].replace("as", "As")).wait()
    queued(person, edited)
    as_in_file = result_of(shared, person, 3)
    assert "Shape" not in fields(as_in_file)
    assert json.dumps(shared.comfyui.posted[-1][1]) == json.dumps(written(workflow, **values))


def test_gen_takes_a_shape_and_the_next_form_remembers_it(shared: House) -> None:
    person = shared.discord.person()
    form, message = gen(shared, person, prompt="a fox", shape="wide", **SEED)
    assert chosen(message, "Shape") == ["wide (1344 x 768)"]
    queued(person, form)
    assert size_in(shared, result_of(shared, person)) == (2016, 1152)
    _, message = gen(shared, person)
    assert fields(message)["Shape"] == "wide (1344 x 768)"
    _, message = gen(shared, person, shape="as in the workflow")
    assert fields(message)["Shape"] == "as in the workflow (1024 x 1024)"


def test_a_workflow_without_a_size_has_no_menu_and_gen_says_so(shared: House) -> None:
    person = shared.discord.person()
    form, message = gen(shared, person, prompt="a fox", workflow="sizeless", shape="tall", **SEED)
    assert message["content"] == "The shape cannot be chosen with this workflow."
    assert "Shape" not in fields(message)
    with pytest.raises(AssertionError, match="no menu 'Shape'"):
        labels(message, "Shape")
    queued(person, form)
    result = result_of(shared, person)
    assert "Shape" not in fields(result)
    assert size_in(shared, result) == (1024, 768)


def test_a_size_that_went_is_said_at_generate_in_the_failure_and_by_again(shared: House) -> None:
    person, other = shared.discord.person(), shared.discord.person()
    without = {**FLUX_BINDINGS, "width": []}
    line = "The shape cannot be chosen with this workflow any more."
    asked = {"prompt": "a fox", "workflow": "flux", "shape": "tall"}
    first, _ = gen(shared, person, **asked)
    open_form, message = gen(shared, other, **{**asked, "prompt": "a hare"})
    shared.comfyui.hold()
    queued(person, gen(shared, person, prompt="in the way", workflow="styled")[0])
    shared.comfyui.wait_for(lambda comfyui: bool(comfyui.running))
    queued(person, first)
    shared.installation.add_workflow("flux", FLUX, without)
    try:
        shared.comfyui.release()
        failure = failure_of(shared, person)
        said = failure["embeds"][0]["description"]
        assert said == "The workflow does not let its shape be chosen any more. Press Edit."
        generate(other, open_form)
        assert message["content"] == line
        assert fields(message)["Prompt"] == "a hare"
        edited = person.press(failure, EDIT)
        edited.wait_message(lambda m: m["content"] == line)
        queued(other, open_form)  # now without a shape
        result_of(shared, other)
    finally:
        shared.installation.add_workflow("flux", FLUX, FLUX_BINDINGS)
        refresh(shared)
    assert "a fox" in text_of(failure)
