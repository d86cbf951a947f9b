"""The prompt of a job: each step that it asks for, and not a byte for those that it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

import binder
from comfyui.object_info import ObjectInfo
from graph import SEED_INPUTS
from jobs.names import OptionNames
from jobs.run import JobError, build_prompt
from tests.factories import a_job
from tests.harness.bot import REPOSITORY
from tests.standins.comfyui.nodes import LORAS, flux_workflow, installed_nodes

SHIPPED = json.loads((REPOSITORY / "workflows/multisampler/base.json").read_text("utf-8"))
SERVER = ObjectInfo(installed_nodes()).capabilities(SEED_INPUTS)
NAMES = OptionNames(SERVER.loras)
LOCKED = binder.Workflow.locked(SHIPPED)
FLUX = binder.Workflow(
    flux_workflow(size=(1024, 768)),
    binder.parse_bindings(
        {
            "model": ["12.unet_name"],
            "positive": ["41.value"],
            "seed": ["25.noise_seed"],
            "width": ["40.value"],
            "height": ["27.height"],
        }
    ),
)
INK = "SDXL/style/inkSketch_v2.safetensors"


def differing(before: Any, after: Any) -> dict[str, Any]:
    """What stands in the second workflow otherwise than in the first, by node and input."""
    return {
        f"{node}.{name}": value
        for node, entry in after.items()
        for name, value in entry["inputs"].items()
        if before.get(node, {"inputs": {}})["inputs"].get(name, ...) != value
    }


@pytest.mark.parametrize("loaded", [LOCKED, FLUX])
@pytest.mark.parametrize("prompt", ["a fox", " a fox ,, (<3) <lora> "])
def test_a_job_without_shape_and_loras_is_bound_and_seeded_and_nothing_else(
    loaded: binder.Workflow, prompt: str
) -> None:
    asked = a_job(positive_prompt=prompt)
    expected = binder.bind(asked, loaded)
    expected.reseed(42, SERVER.seed_maxima)
    assert json.dumps(build_prompt(asked, loaded, SERVER, NAMES)) == json.dumps(expected.graph)


@pytest.mark.parametrize(
    ("loaded", "changes"),
    [
        (LOCKED, {"5.width": 832, "5.height": 1216}),
        (FLUX, {"40.value": 704, "27.height": 1088}),
    ],
)
def test_a_shape_changes_the_size_alone(loaded: binder.Workflow, changes: dict[str, int]) -> None:
    before = build_prompt(a_job(), loaded, SERVER, NAMES)
    after = build_prompt(a_job(shape="portrait"), loaded, SERVER, NAMES)
    assert differing(before, after) == changes


def test_a_tag_becomes_a_node_and_is_not_in_the_text() -> None:
    before = build_prompt(a_job(positive_prompt="a fox, in snow"), LOCKED, SERVER, NAMES)
    tagged = a_job(positive_prompt="a fox, <lora:inkSketch_v2:0,8>, in snow")
    assert differing(before, build_prompt(tagged, LOCKED, SERVER, NAMES)) == {
        "lora-1.model": ["152", 0],
        "lora-1.clip": ["152", 1],
        "lora-1.lora_name": INK,
        "lora-1.strength_model": 0.8,
        "lora-1.strength_clip": 0.8,
        **{f"{node}.clip": ["lora-1", 1] for node in ("268", "4")},
        **{f"{node}.model": ["lora-1", 0] for node in ("239", "249", "52", "118")},
    }


@pytest.mark.parametrize("loaded", [LOCKED, FLUX])
def test_loras_add_no_pass_and_no_step_to_the_progress(loaded: binder.Workflow) -> None:
    plain, tagged = (
        build_prompt(a_job(positive_prompt=prompt), loaded, SERVER, NAMES)
        for prompt in ("a fox", "a fox <lora:inkSketch_v2> <lora:add-detail>")
    )
    passes = list(binder.sampler_steps(plain).items())
    assert list(binder.sampler_steps(tagged).items()) == passes
    assert len(tagged) == len(plain) + 2


def test_what_went_since_is_said_in_a_sentence() -> None:
    tagged = a_job(positive_prompt="a fox <lora:inkSketch_v2:0.8>")
    others = OptionNames([name for name in LORAS if name != INK])
    with pytest.raises(JobError) as gone:
        build_prompt(tagged, LOCKED, SERVER, others)
    assert gone.value.user_message.startswith("There is no LoRA `inkSketch_v2`. The nearest: ink")
    without_size = binder.Workflow(FLUX.graph, {**FLUX.bindings, "width": ()})
    for asked, loaded in ((a_job(shape="wide"), without_size), (a_job(shape="oval"), LOCKED)):
        with pytest.raises(JobError, match=r"its shape be chosen any more\. Press Edit"):
            build_prompt(asked, loaded, SERVER, NAMES)
