"""Which workflows there are, which can be used, and what a form over each of them offers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import binder
from comfyui.object_info import ObjectInfo, OptionsMissing
from jobs.catalog import Catalog, WorkflowError, Workflows, offer
from jobs.names import NamesByList
from tests.standins.comfyui.nodes import LORAS, installed_nodes

SHIPPED = json.loads(
    (Path(__file__).resolve().parents[3] / "workflows/multisampler/base.json").read_text()
)
UPSCALE: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
FLUX: dict[str, Any] = {
    "37": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux.sft", "weight_dtype": "x"}},
    "6": {"class_type": "Text", "inputs": {"text": "a fox"}},
    "16": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "17": {"class_type": "BasicScheduler", "inputs": {"scheduler": "simple", "steps": 8}},
}
FLUX_BINDINGS = {
    "model": ["37.unet_name"],
    "positive": ["6.text"],
    "sampler": ["16.sampler_name"],
    "scheduler": ["17.scheduler"],
    "steps": ["17.steps"],
}


def choices(**inputs: list[str]) -> dict[str, Any]:
    return {"input": {"required": {name: [values] for name, values in inputs.items()}}}


INFO = ObjectInfo(
    {
        **installed_nodes(),
        "UNETLoader": {
            **choices(unet_name=["flux.sft", "other.sft"], weight_dtype=["x"]),
            "output": ["MODEL"],
        },
        "Text": {"input": {"required": {"text": ["STRING", {}]}}},
        "KSamplerSelect": choices(sampler_name=["euler", "heun"]),
        "BasicScheduler": choices(scheduler=["simple", "beta"]),
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the default workflow, which is the shipped one."""
    return put(tmp_path / "workflows" / "main", SHIPPED)


def put(folder: Path, workflow: object, bindings: object = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "base.json").write_text(json.dumps(workflow))
    if bindings is not None:
        (folder / "bindings.json").write_text(json.dumps(bindings))
    return folder


def workflows_of(folder: Path) -> Workflows:
    return Workflows(folder / "base.json")


def test_the_folders_beside_the_defaults_are_workflows_too_and_the_default_comes_first(
    folder: Path,
) -> None:
    put(folder.parent / "flux", FLUX, FLUX_BINDINGS)
    put(folder.parent / "zoo", FLUX, FLUX_BINDINGS)
    (folder.parent / "empty").mkdir()
    assert workflows_of(folder).names() == ["main", "flux", "zoo"]


def test_a_workflow_is_read_anew_each_time(folder: Path) -> None:
    found = workflows_of(folder)
    assert not found.load("flux").ok
    put(folder.parent / "flux", FLUX, FLUX_BINDINGS)
    loaded = found.load("flux")
    assert loaded.ok
    assert loaded.bindings["model"] == (("37", "unet_name"),)
    assert found.load() == found.load("main") == binder.Workflow.locked(SHIPPED)


@pytest.mark.parametrize("name", ["..", "../main", "/etc", "main/../flux", "a\0b"])
def test_a_name_never_leads_out_of_the_folder(folder: Path, name: str) -> None:
    assert not workflows_of(folder).load(name).ok


def test_a_param_offers_what_all_of_its_inputs_accept(folder: Path) -> None:
    put(folder.parent / "flux", FLUX, FLUX_BINDINGS)
    offers, left_out = workflows_of(folder).offers(INFO, NamesByList({}))
    assert left_out == {}
    flux = offers["flux"]
    assert flux.models.values == ("flux.sft", "other.sft")
    assert (flux.samplers.values, flux.schedulers.values) == (("euler", "heun"), ("simple", "beta"))
    assert offers["flux"].params == {"model", "positive", "sampler", "scheduler", "steps"}
    assert offers["main"].params >= {"negative", "cfg", "seed"}
    assert offers["flux"].defaults == ("flux.sft", "euler", "simple", "8", None, None)


def test_a_list_is_found_through_the_link_from_a_node_that_holds_the_name(folder: Path) -> None:
    graph = {**FLUX, "16": {**FLUX["16"], "inputs": {"sampler_name": ["20", 0]}}}
    graph["20"] = {"class_type": "Text", "inputs": {"text": "euler"}}
    bindings = {**FLUX_BINDINGS, "sampler": ["20.text"]}
    put(folder.parent / "flux", graph, bindings)
    offers, _ = workflows_of(folder).offers(INFO, NamesByList({}))
    assert offers["flux"].samplers.values == ("euler", "heun")


def test_a_param_without_a_list_has_no_control(folder: Path) -> None:
    put(folder.parent / "flux", FLUX, {**FLUX_BINDINGS, "model": ["6.text"]})
    offers, _ = workflows_of(folder).offers(INFO, NamesByList({}))
    assert "model" not in offers["flux"].params


@pytest.mark.parametrize(
    ("graph", "bindings", "reason"),
    [
        ({**FLUX, "99": {"class_type": "Nope", "inputs": {}}}, FLUX_BINDINGS, "not know Nope"),
        (FLUX, {**FLUX_BINDINGS, "cfg": ["17.cfg"]}, "node 17 of the workflow has no value"),
        (FLUX, {**FLUX_BINDINGS, "size": []}, "'size', which is none of"),
        (FLUX, {**FLUX_BINDINGS, "model": ["37.weight_dtype", "37.unet_name"]}, "no model is"),
        ([], None, "not a JSON object"),
        (FLUX, None, "no node 152"),
    ],
)
def test_one_that_cannot_be_used_is_left_out_with_its_reason_and_the_others_work(
    folder: Path, graph: object, bindings: object, reason: str
) -> None:
    put(folder.parent / "broken", graph, bindings)
    offers, left_out = workflows_of(folder).offers(INFO, NamesByList({}))
    assert list(offers) == ["main"]
    assert reason in left_out["broken"]


def test_loras_and_a_shape_are_offered_where_there_is_a_model_and_a_size(folder: Path) -> None:
    sized = {**FLUX, "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 16}}}
    put(folder.parent / "flux", FLUX, FLUX_BINDINGS)
    put(folder.parent / "none", FLUX, {**FLUX_BINDINGS, "model": []})
    put(folder.parent / "odd", FLUX, {**FLUX_BINDINGS, "model": ["16.sampler_name"]})
    put(
        folder.parent / "sized",
        sized,
        {**FLUX_BINDINGS, "width": ["5.width"], "height": ["5.height"]},
    )
    offers, left_out = workflows_of(folder).offers(INFO, NamesByList({}))
    assert left_out == {}
    sizes = {name: offer.size for name, offer in offers.items() if offer.size}
    assert sizes == {"main": (1024, 1024), "sized": (8, 16)}
    loras = {name: offer.loras.values for name, offer in offers.items()}
    assert loras == dict.fromkeys(("main", "flux", "sized"), tuple(LORAS)) | {"none": (), "odd": ()}


def test_without_a_usable_default_there_is_no_offer(folder: Path) -> None:
    (folder / "base.json").write_text("{}")
    with pytest.raises(WorkflowError, match="no node 152") as refused:
        workflows_of(folder).offers(INFO, NamesByList({}))
    assert refused.value.user_message == (
        "The workflow cannot be used right now. Please tell the bot's owner, who finds the reason"
        " in the log."
    )


def test_the_locked_workflow_keeps_the_chains_of_the_document(folder: Path) -> None:
    loaded = workflows_of(folder).load()
    options = INFO.options(binder.Workflow.locked(SHIPPED).bound_classes())
    made = offer(loaded, INFO, NamesByList({}))
    lists = made.models.values, made.samplers.values, made.schedulers.values
    assert lists == (options.models, options.samplers, options.schedulers)
    with pytest.raises(OptionsMissing):
        offer(loaded, ObjectInfo({}), NamesByList({}))


def test_equal_lists_share_their_names_between_workflows_and_with_those_before_a_refresh(
    folder: Path,
) -> None:
    put(folder.parent / "flux", FLUX, FLUX_BINDINGS)
    put(folder.parent / "zoo", FLUX, FLUX_BINDINGS)
    client: Any = None
    catalog = Catalog(client, workflows_of(folder))
    catalog.update(INFO)
    before = dict(catalog.offers)
    assert before["flux"].models is before["zoo"].models
    assert before["main"].loras is before["flux"].loras is catalog.loras
    names = catalog.names
    assert names.values == ("main", "flux", "zoo")
    (folder.parent / "zoo" / "base.json").unlink()
    more = {**INFO._classes, "KSamplerSelect": choices(sampler_name=["euler"])}
    catalog.update(ObjectInfo(more))
    flux = catalog.offers["flux"]
    assert (flux.models, flux.schedulers) == (before["flux"].models, before["flux"].schedulers)
    assert flux.samplers.values == ("euler",)
    assert catalog.names.values == ("main", "flux")
    catalog.update(INFO)
    catalog.update(INFO)
    lists = [names for each in catalog.offers.values() for names in vars(each).values()]
    assert set(catalog._lists.values()) <= {*lists, catalog.loras, catalog.names}  # none is kept


def test_a_default_that_takes_a_picture_is_no_first_try(folder: Path) -> None:
    upscales = put(folder.parent.parent / "others" / "upscale", UPSCALE, {"image": ["1.image"]})
    with pytest.raises(WorkflowError, match="upscale cannot be used: it needs a person's picture"):
        workflows_of(upscales).first_usable(INFO)
