"""The locked table, bindings of other workflows, seeds, sizes and LoRAs."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import binder
from graph import SEED_INPUTS, Nodes
from job import JobParams
from jobs.draft import new_seed
from tests.standins.comfyui.nodes import flux_workflow

SHIPPED = Path(__file__).resolve().parents[2] / "workflows/multisampler/base.json"
SAMPLERS = ("239", "249", "52", "118")
REFINING = ("249", "52", "118")
FIELDS = [("152", "ckpt_name"), ("268", "text"), ("4", "text")]
FIELDS += [("239", "sampler_name"), ("239", "scheduler"), ("239", "steps"), ("239", "cfg")]
FIELDS += [(node, field) for node in REFINING for field in ("sampler_name", "scheduler")]
NODES = list(dict(FIELDS))  # in the order in which they are checked

JOB = JobParams(
    user_id="1",
    guild_id="2",
    channel_id="3",
    model="SDXL\\a folder\\naïve.safetensors",
    sampler="a sampler",
    scheduler="a scheduler",
    steps=33,
    cfg=4.25,
    positive_prompt='a "quoted"\nfox 🦊',
    negative_prompt="a blurry fox",
)
# The locked table, filled in from JOB.
WRITTEN: dict[tuple[str, str], object] = {
    ("152", "ckpt_name"): JOB.model,
    ("268", "text"): JOB.positive_prompt,
    ("4", "text"): JOB.negative_prompt,
    **{(node, "sampler_name"): JOB.sampler for node in SAMPLERS},
    **{(node, "scheduler"): JOB.scheduler for node in SAMPLERS},
    ("239", "steps"): JOB.steps,
    ("239", "cfg"): JOB.cfg,
}

# As a real server declares the nodes: inputs, with the type of those that are links;
# outputs. A "?" marks an optional input.
DECLARED = {
    "Checkpoint Loader Simple Mikey": ("ckpt_name", "MODEL CLIP VAE name hash"),
    "CLIPTextEncode": ("text clip:CLIP", "CONDITIONING"),
    "EmptyLatentImage": ("width height batch_size", "LATENT"),
    "LatentUpscaleBy": ("samples:LATENT upscale_method scale_by", "LATENT"),
    "KSampler (Efficient)": (
        "model:MODEL seed steps cfg sampler_name scheduler denoise preview_method vae_decode"
        " positive:CONDITIONING negative:CONDITIONING latent_image:LATENT optional_vae?:VAE",
        "MODEL CONDITIONING CONDITIONING LATENT VAE IMAGE",
    ),
    "SaveImage": ("images:IMAGE filename_prefix", ""),
}

# The base pass's seed is 1001; in the deployed one it is 1003, which 52 has too.
SEED = 0xFEED_FACE_CAFE_BEEF


def shipped() -> Any:
    return json.loads(SHIPPED.read_text("utf-8"))


def deployed() -> Any:
    """Like the owner's own: two FaceDetailers, and the base pass's seed comes from a node."""
    workflow = shipped()
    workflow["52"]["class_type"] = workflow["118"]["class_type"] = "FaceDetailer"
    workflow["239"]["inputs"]["seed"] = ["301", 0]
    workflow["301"] = {"class_type": "Seed Generator (Image Saver)", "inputs": {"seed": 1003}}
    return workflow


both_workflows = pytest.mark.parametrize("make", [shipped, deployed])
Make = Callable[[], Any]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    if not isinstance(value, (dict, list)) or not value:
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, child in items for k, v in leaves(child, (*path, key)).items()}


def difference(before: Any, after: Any) -> dict[tuple[str, str], Any]:
    """What has another value or type: {(node, input): new value}. All of it must be inputs."""
    old, new = leaves(before), leaves(after)
    assert old.keys() == new.keys()
    changed = {k: v for k, v in new.items() if (type(v), v) != (type(old[k]), old[k])}
    assert all(len(path) == 3 and path[1] == "inputs" for path in changed)
    return {(path[0], path[2]): v for path, v in changed.items()}


def containers(value: Any) -> Iterator[int]:
    if isinstance(value, (dict, list)):
        yield id(value)
        for child in value.values() if isinstance(value, dict) else value:
            yield from containers(child)


def reason(workflow: object) -> str:
    result = binder.validate(workflow)
    assert not result.ok
    return result.reason


def bound(workflow: object) -> Any:
    result = binder.validate(workflow)
    assert result.ok, result
    return binder.bind(JOB, result).graph


def prompt(workflow: Any, bindings: Any = None) -> binder.Prompt:
    """A copy of a workflow, to be changed: the locked one, or one with bindings of its own."""
    graph = copy.deepcopy(workflow)
    if bindings is None:
        return binder.Prompt.locked(graph)
    return binder.Prompt(graph, binder.parse_bindings(bindings))


Maxima = Mapping[tuple[str, str], int]


def reseeded(workflow: Any, seed: int, maxima: Maxima | None = None, bindings: Any = None) -> Any:
    changed = prompt(workflow, bindings)
    changed.reseed(seed, maxima or {})
    return changed.graph


def resized(workflow: Any, size: binder.Size, bindings: Any = None) -> Any:
    changed = prompt(workflow, bindings)
    changed.resize(size)
    return changed.graph


def with_loras(workflow: Any, loras: Any, outputs: Any, bindings: Any = None) -> Any:
    changed = prompt(workflow, bindings)
    changed.add_loras(loras, outputs)
    return changed.graph


# The shipped file


def test_the_shipped_workflow_is_valid() -> None:
    assert binder.load(SHIPPED).ok


def test_the_shipped_workflow_is_made_of_nodes_as_a_real_server_declares_them() -> None:
    workflow = shipped()
    for node, entry in workflow.items():
        declared = [i.partition(":") for i in DECLARED[entry["class_type"]][0].split()]
        types = {name.rstrip("?"): link for name, _, link in declared}
        required = {name for name, _, _ in declared if not name.endswith("?")}
        assert required <= entry["inputs"].keys() <= types.keys(), node
        for name, value in entry["inputs"].items():
            assert isinstance(value, list) == bool(types[name]), (node, name)
            if types[name]:
                outputs = DECLARED[workflow[value[0]]["class_type"]][1].split()
                assert outputs[value[1]] == types[name], (node, name)


def test_the_shipped_workflow_has_the_locked_nodes_in_a_chain_of_four_passes() -> None:
    workflow = shipped()
    classes = {node: entry["class_type"] for node, entry in workflow.items()}
    assert classes["152"] == "Checkpoint Loader Simple Mikey"
    assert classes["268"] == classes["4"] == "CLIPTextEncode"
    assert {n for n in classes if classes[n] == "KSampler (Efficient)"} == set(SAMPLERS)
    (save,) = (node for node in classes if classes[node] == "SaveImage")
    node, _ = workflow[save]["inputs"]["images"]
    assert workflow[node]["inputs"]["vae_decode"] == "true"  # else the picture is empty, and
    assert "optional_vae" in workflow[node]["inputs"]  # this is what it needs for that
    chain = [node]
    while classes[node] != "EmptyLatentImage":
        inputs = workflow[node]["inputs"]
        node = (inputs.get("latent_image") or inputs["samples"])[0]
        chain.insert(0, node)
    assert tuple(n for n in chain if n in SAMPLERS) == SAMPLERS
    assert "LatentUpscaleBy" in {classes[n] for n in chain}


def test_each_pass_of_the_shipped_workflow_has_steps_cfg_and_denoise_of_its_own() -> None:
    inputs = [shipped()[node]["inputs"] for node in SAMPLERS]
    assert all(1 <= i["steps"] <= 150 and 1 <= i["cfg"] <= 30 for i in inputs)
    assert inputs[0]["denoise"] == 1
    assert all(0 < i["denoise"] < 1 for i in inputs[1:])
    assert len({(i["steps"], i["cfg"], i["denoise"]) for i in inputs}) == 4


# validate


@pytest.mark.parametrize("workflow", [None, [], "{}", 3, True, [{"152": {}}]])
def test_a_workflow_must_be_an_object(workflow: object) -> None:
    assert "object" in reason(workflow)


@pytest.mark.parametrize("node", NODES)
def test_a_missing_node_is_named(node: str) -> None:
    workflow = shipped()
    del workflow[node]
    assert re.findall(r"\d+", reason(workflow)) == [node]


NO_INPUTS = [None, [], "inputs", 5, {}, {"inputs": None}, {"inputs": []}, {"inputs": "text"}]


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("entry", NO_INPUTS)
def test_a_node_without_an_inputs_object_is_named(node: str, entry: object) -> None:
    text = reason({**shipped(), node: entry})
    assert re.findall(r"\d+", text) == [node]
    assert "inputs" in text


@pytest.mark.parametrize(("node", "field"), FIELDS)
@pytest.mark.parametrize("value", ["missing", None, True, False, ["5", 0], [], {}])
def test_a_field_without_a_string_or_number_is_named(node: str, field: str, value: object) -> None:
    workflow = shipped()
    workflow[node]["inputs"][field] = value
    if value == "missing":
        del workflow[node]["inputs"][field]
    text = reason(workflow)
    assert re.findall(r"\d+", text) == [node]
    assert re.search(rf"\b{field}\b", text)
    assert ("connected" in text) == isinstance(value, list)


@both_workflows
@pytest.mark.parametrize("value", ["", "x", 0, -1, 2.5])
def test_any_string_or_number_will_do_for_a_field(make: Make, value: object) -> None:
    workflow = make()
    for node, field in FIELDS:
        workflow[node]["inputs"][field] = value
    assert binder.validate(workflow) == binder.Workflow.locked(workflow)


def test_the_first_failure_in_the_order_of_the_contract_is_reported() -> None:
    """First all nodes, then all inputs, then all fields, each in the order of §5.1."""

    def broken(*checks: tuple[str, ...]) -> Any:
        workflow = shipped()
        for kind, node, *field in reversed(checks):
            if kind == "node":
                del workflow[node]
            elif kind == "inputs":
                workflow[node]["inputs"] = None
            else:
                del workflow[node]["inputs"][field[0]]
        return workflow

    checks: list[tuple[str, ...]] = [("node", node) for node in NODES]
    checks += [("inputs", node) for node in NODES]
    checks += [("field", *field) for field in FIELDS]
    for first, second in combinations(checks, 2):
        if first[0] == "node" or first[:2] != second[:2]:  # a node's fields have no order
            assert reason(broken(first, second)) == reason(broken(first)), (first, second)


def test_the_format_of_comfyuis_page_is_recognised() -> None:
    text = reason({"last_node_id": 9, "nodes": [{"id": 152}], "links": [], "version": 0.4})
    assert "API" in text


# load


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    workflow = {**shipped(), "title": "naïve 🦊"}
    (tmp_path / "flow.json").write_text(json.dumps(workflow, ensure_ascii=False), encoding)
    assert binder.load(tmp_path / "flow.json") == binder.Workflow.locked(workflow)


NOT_JSON = [b"", b"{", b"{'a': 1}", b'{"a": 1} x', b'"\xff"', b"[" * 200_000]
NOT_JSON += [b"[NaN]", b"[Infinity]", b"[-Infinity]"]


@pytest.mark.parametrize("content", NOT_JSON, ids=lambda content: repr(content[:16]))
def test_what_is_not_json_is_refused_without_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "flow.json").write_bytes(content)
    result = binder.load(tmp_path / "flow.json")
    assert not result.ok
    assert "flow.json is not JSON" in result.reason
    assert str(tmp_path) not in result.reason


def test_a_missing_file_and_a_directory_are_refused_without_their_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, what in (("nowhere.json", "does not exist"), ("folder", "cannot be read")):
        result = binder.load(tmp_path / name)
        assert not result.ok
        assert f"{name} {what}" in result.reason
        assert str(tmp_path) not in result.reason


# bind


@both_workflows
def test_bind_writes_the_locked_table_and_nothing_else(make: Make) -> None:
    assert difference(make(), bound(make())) == WRITTEN


def test_steps_and_cfg_are_written_to_the_base_pass_alone() -> None:
    workflow = shipped()
    for node in REFINING:
        del workflow[node]["inputs"]["steps"], workflow[node]["inputs"]["cfg"]
    result = bound(workflow)
    assert [n for n in result if {"steps", "cfg"} & result[n]["inputs"].keys()] == ["239"]
    assert (result["239"]["inputs"]["steps"], result["239"]["inputs"]["cfg"]) == (33, 4.25)


@both_workflows
def test_what_is_bound_shares_nothing_with_the_input(make: Make) -> None:
    workflow = make()
    result = bound(workflow)
    assert workflow == make()
    assert not set(containers(workflow)) & set(containers(result))


@pytest.mark.parametrize("workflow", [None, [], {}, {"nodes": []}, {"152": None}])
def test_an_invalid_workflow_cannot_be_bound(workflow: object) -> None:
    assert isinstance(binder.validate(workflow), binder.Invalid)


def test_what_is_no_node_at_the_top_of_the_file_is_left_alone() -> None:
    workflow = {**shipped(), "version": 0.4, "_comment": "seed", "groups": [], "nothing": None}
    assert difference(workflow, bound(workflow)) == WRITTEN
    assert {field for _, field in difference(workflow, reseeded(workflow, SEED))} == {"seed"}


# reseed


def graph(**seeds: object) -> Any:
    """A workflow of nodes that have nothing but seeds; `base` is the base pass."""
    return {"239" if n == "base" else n: {"inputs": {"seed": v}} for n, v in seeds.items()}


@both_workflows
@pytest.mark.parametrize("seed", [0, 1, SEED, 2**63, 2**64 - 2, 2**64 - 1])
def test_every_literal_seed_changes_and_nothing_else(make: Make, seed: int) -> None:
    before, after = leaves(make()), leaves(reseeded(make(), seed))
    seeds = {path for path, v in before.items() if path[-1] == "seed" and type(v) is int}
    changed = difference(make(), reseeded(make(), seed))
    assert {(node, "inputs", field) for node, field in changed} == seeds
    assert all(type(value) is int and 0 <= value < 2**64 for value in changed.values())
    for one, other in combinations(seeds, 2):
        assert (before[one] == before[other]) == (after[one] == after[other])


@both_workflows
def test_the_same_seed_gives_the_same_workflow_and_another_changes_every_seed(make: Make) -> None:
    once = reseeded(make(), SEED)
    assert reseeded(make(), SEED) == once
    assert len(difference(once, reseeded(make(), SEED + 1))) == 4


def test_the_base_pass_gets_the_seed_itself_also_through_a_link() -> None:
    assert reseeded(shipped(), SEED)["239"]["inputs"]["seed"] == SEED
    result = reseeded(deployed(), SEED)
    assert result["239"]["inputs"]["seed"] == ["301", 0]
    assert result["301"]["inputs"]["seed"] == result["52"]["inputs"]["seed"] == SEED


def test_the_seed_is_found_through_several_links_and_as_noise_seed() -> None:
    workflow = graph(n1=7, base=["n2", 0], n2=["n3", 1])
    result = reseeded({**workflow, "n3": {"inputs": {"noise_seed": 5}}}, SEED)
    assert result["n3"]["inputs"] == {"noise_seed": SEED}
    assert result["n1"]["inputs"]["seed"] not in (7, SEED)


@pytest.mark.parametrize("field", ["seed", "noise_seed"])
@pytest.mark.parametrize("value", [["n1", 0], [], True, False, "12", 1.5, None, {"seed": 1}])
def test_what_is_not_a_literal_integer_is_no_seed(field: str, value: object) -> None:
    workflow = {**graph(n1=4, base=3), "n2": {"inputs": {field: value, "seeds": 8, "steps": 3}}}
    changed = difference(workflow, reseeded(workflow, SEED))
    assert changed.keys() == {("239", "seed"), ("n1", "seed")}


def test_seeds_wrap_at_64_bits_and_stay_apart() -> None:
    workflow = graph(base=10, below=0, above=11, highest=2**64 - 1, same=10)
    values = [n["inputs"]["seed"] for n in reseeded(workflow, 2**64 - 1).values()]
    assert all(0 <= value < 2**64 for value in values)
    assert values[0] == values[4] == 2**64 - 1
    assert len(set(values)) == 4


def of_classes(workflow: Any, **classes: str) -> Any:
    """The same nodes with these classes."""
    return {n: {**e, "class_type": classes.get(f"n{n}", "Any")} for n, e in workflow.items()}


@pytest.mark.parametrize("most", [2**64 - 1, 2**53, 2**50, 2**32 - 1, 1000, 1, 0])
@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, 2**53 + 1, SEED, 2**64 - 1])
def test_every_seed_stays_within_what_its_class_takes(most: int, seed: int) -> None:
    maxima = {("FaceDetailer", "seed"): most, ("Seed Generator (Image Saver)", "seed"): most}
    workflow = deployed()
    workflow["118"]["inputs"]["seed"] = workflow["301"]["inputs"]["seed"] - 7  # below the base's
    result = reseeded(workflow, seed, maxima)
    assert result["301"]["inputs"]["seed"] == seed % (most + 1)  # by which the base pass runs
    for node in ("52", "118"):
        assert 0 <= result[node]["inputs"]["seed"] <= most
    free = reseeded(workflow, seed)
    assert result["249"] == free["249"]  # its class has no limit here
    for node in ("52", "118"):
        if free[node]["inputs"]["seed"] <= most and seed >= 7:
            assert result[node] == free[node]


def test_a_limit_is_of_one_class_and_of_one_of_its_inputs() -> None:
    workflow = graph(base=0, other=0, another=0)
    workflow["another"]["inputs"]["noise_seed"] = 0
    workflow = of_classes(workflow, nother="Small", nanother="Small")
    result = reseeded(workflow, 1005, {("Small", "noise_seed"): 999, ("Any", "seed"): 9})
    values = {f"{n} {k}": v for n, e in result.items() for k, v in e["inputs"].items()}
    assert values == {
        "239 seed": 5,
        "other seed": 1005,
        "another seed": 1005,
        "another noise_seed": 5,
    }


def test_seeds_with_the_same_limit_stay_apart_and_what_was_equal_stays_equal() -> None:
    workflow = of_classes(graph(base=3, a=3, b=4, c=4, d=5), na="S", nb="S", nc="S", nd="S")
    result = reseeded(workflow, 2**63 + 999, {("S", "seed"): 999})
    a, b, c, d = (result[node]["inputs"]["seed"] for node in "abcd")
    assert b == c
    assert len({a, b, d}) == 3


@both_workflows
@pytest.mark.parametrize("seed", [0, SEED, 2**64 - 1])
def test_without_limits_a_workflow_is_what_it_always_was(make: Make, seed: int) -> None:
    """Byte for byte, so that a seed gives the picture that it gave before."""
    wide = {(c, s): 2**64 - 1 for c in prompt(make()).classes.values() for s in SEED_INPUTS}
    wider = dict.fromkeys(wide, 2**70)
    plain = make()
    base = plain["301" if make is deployed else "239"]["inputs"]["seed"]
    for node in (*SAMPLERS, "301") if make is deployed else SAMPLERS:
        value = plain[node]["inputs"]["seed"]
        if isinstance(value, int):
            plain[node]["inputs"]["seed"] = (seed + value - base) % 2**64
    expected = json.dumps(plain)
    for maxima in (None, {}, {("Unheard", "seed"): 5}, wide, wider):
        assert json.dumps(reseeded(make(), seed, maxima)) == expected


def test_a_random_seed_is_short_enough_for_every_node_and_for_javascript(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len({new_seed() for _ in range(100)}) > 90
    monkeypatch.setattr(secrets, "randbelow", lambda limit: limit - 1)
    assert new_seed() == 2**32 - 1


# rename_files


def test_only_the_names_that_saving_nodes_begin_with_change() -> None:
    workflow = {**shipped(), "version": 0.4, "nothing": {"inputs": None}}
    workflow["900"] = {"class_type": "Any", "inputs": {"filename_prefix": ["5", 0]}}
    names = {
        (node, "filename_prefix"): f"{entry['inputs']['filename_prefix']}-12345678"
        for node, entry in shipped().items()
        if "filename_prefix" in entry["inputs"]
    }
    assert names
    renamed = copy.deepcopy(workflow)
    binder.rename_files(renamed, "-12345678")
    assert difference(workflow, renamed) == names


CYCLE = {"base": ["n1", 0], "n1": ["n2", 0], "n2": ["n1", 0]}
ASTRAY = [CYCLE, *({"base": link} for link in (["239", 0], [239, 0], ["nowhere", 0], []))]


@pytest.mark.parametrize("seeds", ASTRAY, ids=str)
def test_links_that_lead_nowhere_end_and_literal_seeds_still_change(seeds: Any) -> None:
    workflow, result = graph(**seeds, other=5, another=6), list[Any]()
    run = threading.Thread(target=lambda: result.append(reseeded(workflow, SEED)), daemon=True)
    run.start()
    run.join(10)
    assert result, "reseed() does not end"
    assert difference(workflow, result[0]).keys() == {("other", "seed"), ("another", "seed")}


def test_a_workflow_without_seeds_stays_as_it_is() -> None:
    workflow = {"239": {"inputs": {"steps": 3}}, "7": {}}
    assert reseeded(workflow, SEED) == workflow


# What the form needs


def test_the_defaults_are_what_the_file_holds_where_a_job_would_be_written() -> None:
    workflow = shipped()
    workflow["152"]["inputs"]["ckpt_name"] = "x/y.ckpt"
    workflow["239"]["inputs"].update(sampler_name="euler", scheduler="beta", steps=31, cfg=6.5)
    assert prompt(workflow).defaults == ("x/y.ckpt", "euler", "beta", "31", "6.5", None)


def test_the_classes_that_a_job_is_written_to_are_told_with_their_lists() -> None:
    lists = {"sampler_name", "scheduler"}
    classes = {"Checkpoint Loader Simple Mikey": {"ckpt_name"}, "KSampler (Efficient)": lists}
    assert prompt(shipped()).bound_classes() == classes
    workflow = deployed()
    del workflow["249"]["class_type"]
    assert prompt(workflow).bound_classes() == {**classes, "FaceDetailer": lists}


# Workflows with bindings of their own

CHAIN: Any = {
    "m": {"class_type": "UNETLoader", "inputs": {"unet_name": "a.sft"}},
    "1:2": {"class_type": "PrimitiveString", "inputs": {"value": "a fox"}},
    "s": {"class_type": "PrimitiveInt", "inputs": {"value": 20}},
    "r": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
    "a": {
        "class_type": "KSamplerAdvanced",
        "inputs": {
            "steps": ["s", 0],
            "start_at_step": 0,
            "end_at_step": 15,
            "noise_seed": ["r", 0],
        },
    },
    "b": {
        "class_type": "KSamplerAdvanced",
        "inputs": {"steps": 20, "start_at_step": 15, "end_at_step": 10000, "noise_seed": 9},
    },
}
CHAIN_BINDINGS: Any = {
    "model": ["m.unet_name"],
    "positive": ["1:2.value"],
    "steps": ["s.value", "b.steps"],
    "seed": ["r.value"],
}


def chained(**changes: Any) -> Nodes:
    result = binder.validate(CHAIN, binder.parse_bindings(CHAIN_BINDINGS))
    assert result.ok
    return binder.bind(dataclasses.replace(JOB, **changes), result).graph


def test_bindings_are_written_and_nothing_else() -> None:
    bound = chained(steps=20, model="b.sft", positive_prompt="a bear")
    expected = copy.deepcopy(CHAIN)
    expected["m"]["inputs"]["unet_name"] = "b.sft"
    expected["1:2"]["inputs"]["value"] = "a bear"
    assert bound == expected


@pytest.mark.parametrize(("steps", "boundary"), [(40, 30), (10, 8), (20, 15), (1, 1), (150, 112)])
def test_the_passes_of_a_chain_share_other_steps_as_they_shared_the_files(
    steps: int, boundary: int
) -> None:
    bound = chained(steps=steps)
    assert (bound["s"]["inputs"]["value"], bound["b"]["inputs"]["steps"]) == (steps, steps)
    assert bound["a"]["inputs"]["start_at_step"] == 0
    assert bound["a"]["inputs"]["end_at_step"] == bound["b"]["inputs"]["start_at_step"] == boundary
    assert bound["b"]["inputs"]["end_at_step"] == 10000


def test_a_bound_seed_is_as_typed_and_the_others_keep_their_distance_to_it() -> None:
    seeded = reseeded(CHAIN, 100, {}, CHAIN_BINDINGS)
    assert (seeded["r"]["inputs"]["value"], seeded["b"]["inputs"]["noise_seed"]) == (100, 102)


def test_the_steps_of_a_sampler_are_found_along_its_links() -> None:
    graph = {
        "17": {"inputs": {"steps": 8, "scheduler": "simple"}},
        "13": {"inputs": {"sigmas": ["17", 0], "latent_image": ["5", 0], "noise": ["25", 0]}},
        "20": {"inputs": {"steps": ["s", 0], "sampler_name": "euler", "latent_image": ["13", 0]}},
        "s": {"inputs": {"value": 30}},
    }
    assert binder.sampler_steps(graph) == {"13": 8, "20": 30}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positive": []}, "does not say where the prompt goes"),
        ({"positive": ["268"]}, "positive in bindings.json: '268' is not of the form"),
        ({"positive": [".text"]}, "not of the form"),
        ({"positive": ["1:2."]}, "not of the form"),
        ({"positive": [7]}, "not of the form"),
        ({"positive": "1:2.value"}, "positive in bindings.json is not a list"),
        ({"sizes": []}, "'sizes', which is none of model, positive"),
    ],
)
def test_bindings_that_make_no_sense_are_refused_with_what_is_wrong(
    changes: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        binder.parse_bindings({**CHAIN_BINDINGS, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": ["x.unet_name"]}, "the workflow has no node x"),
        ({"cfg": ["b.cfg"]}, "node b of the workflow has no value for its input cfg"),
        ({"steps": ["a.steps"]}, "input steps of node a of the workflow is connected"),
        (
            {"negative": ["b.steps"]},
            "negative is bound to input steps of node b",
        ),
        (
            {"steps": ["m.unet_name"]},
            "steps is bound to input unet_name of node m",
        ),
    ],
)
def test_a_place_that_is_not_there_or_of_another_kind_is_named(changes: Any, reason: str) -> None:
    bindings = binder.parse_bindings({**CHAIN_BINDINGS, **changes})
    result = binder.validate(CHAIN, bindings)
    assert not result.ok
    assert reason in result.reason


def test_bindings_are_read_from_beside_the_workflow(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text(json.dumps(CHAIN))
    assert not binder.load(tmp_path / "base.json").ok  # without bindings, the locked table holds
    (tmp_path / "bindings.json").write_text(json.dumps(CHAIN_BINDINGS))
    bindings = binder.parse_bindings(CHAIN_BINDINGS)
    assert binder.load(tmp_path / "base.json") == binder.Workflow(CHAIN, bindings)
    (tmp_path / "bindings.json").write_text("{")
    result = binder.load(tmp_path / "base.json")
    assert not result.ok
    assert "bindings.json is not JSON" in result.reason
    assert str(tmp_path) not in result.reason


# Sizes and LoRAs


def flux() -> Any:
    return flux_workflow(size=(1024, 768))


FLUX_BINDINGS: Any = {
    "model": ["12.unet_name"],
    "positive": ["41.value"],
    "width": ["40.value"],
    "height": ["27.height"],
}


def test_the_locked_workflows_size_is_where_its_base_passes_latent_comes_from() -> None:
    workflow = shipped()
    latent = next(n for n, e in workflow.items() if e["class_type"] == "EmptyLatentImage")
    inputs = workflow[latent]["inputs"]
    assert prompt(workflow).size == (inputs["width"], inputs["height"])
    sized = resized(workflow, binder.Size(832, 1216))
    assert difference(workflow, sized) == {(latent, "width"): 832, (latent, "height"): 1216}


def test_the_size_is_found_behind_what_stands_between_and_in_a_node_of_its_own() -> None:
    workflow = shipped()
    latent = workflow["239"]["inputs"]["latent_image"]
    workflow["a"] = {"class_type": "Batch", "inputs": {"samples": latent, "amount": 1}}
    workflow["239"]["inputs"]["latent_image"] = ["a", 0]
    workflow["b"] = {"class_type": "PrimitiveInt", "inputs": {"value": 640}}
    workflow[latent[0]]["inputs"]["width"] = ["b", 0]
    sized = resized(workflow, binder.Size(64, 128))
    assert difference(workflow, sized) == {("b", "value"): 64, (latent[0], "height"): 128}


@pytest.mark.parametrize("latent", [None, ["nowhere", 0], [], "x", ["239", 0], ["152", 0]])
def test_a_workflow_that_says_no_size_has_none(latent: Any) -> None:
    workflow = shipped()
    workflow["239"]["inputs"]["latent_image"] = latent
    assert prompt(workflow).size is None
    assert prompt(flux(), {**FLUX_BINDINGS, "height": []}).size is None


@pytest.mark.parametrize("width", [0, -64, 1024.0, "1024", 10**400])
def test_what_no_picture_can_measure_is_no_size(width: Any) -> None:
    workflow = shipped()
    workflow["5"]["inputs"]["width"] = width
    assert prompt(workflow).size is None


def test_one_number_for_both_sides_is_no_size() -> None:
    workflow = shipped()
    workflow["b"] = {"class_type": "PrimitiveInt", "inputs": {"value": 640}}
    workflow["5"]["inputs"] |= {"width": ["b", 0], "height": ["b", 0]}
    assert prompt(workflow).size is None
    assert prompt(flux(), {**FLUX_BINDINGS, "height": ["40.value"]}).size is None


def test_bound_sizes_are_written_where_they_are_bound() -> None:
    assert prompt(flux(), FLUX_BINDINGS).size == (1024, 768)
    sized = resized(flux(), binder.Size(512, 576), FLUX_BINDINGS)
    assert difference(flux(), sized) == {("40", "value"): 512, ("27", "height"): 576}


@pytest.mark.parametrize("size", [(1024, 1024), (512, 512), (832, 1216), (640, 448), (3000, 100)])
def test_a_shape_has_about_as_many_pixels_in_multiples_of_64(size: Any) -> None:
    area = size[0] * size[1]
    for shape, (wide, high) in binder.SHAPES.items():
        new = binder.in_shape(binder.Size(*size), shape)
        assert (new.width % 64, new.height % 64) == (0, 0)
        assert 0.8 * area < new.width * new.height < 1.2 * area
        assert (new.width > new.height) == (wide > high)
    assert binder.in_shape(binder.Size(1024, 1024), "portrait") == (832, 1216)


LORAS = [binder.Lora("style/ink.safetensors", 0.8), binder.Lora("fox.safetensors", -1.0)]
OUTPUTS = {"Checkpoint Loader Simple Mikey": ("MODEL", "CLIP", "VAE", "STRING", "STRING")}


def users(workflow: Any, node: str) -> set[tuple[str, str, int]]:
    return {
        (user, name, value[1])
        for user, entry in workflow.items()
        for name, value in entry["inputs"].items()
        if isinstance(value, list) and value[0] == node
    }


def test_loras_stand_between_the_model_and_whoever_uses_it_in_their_order() -> None:
    workflow = shipped()
    changed = with_loras(workflow, LORAS, OUTPUTS)
    first, second = changed["lora-1"], changed["lora-2"]
    assert first["class_type"] == second["class_type"] == "LoraLoader"
    assert first["inputs"] == {
        "model": ["152", 0],
        "clip": ["152", 1],
        "lora_name": "style/ink.safetensors",
        "strength_model": 0.8,
        "strength_clip": 0.8,
    }
    assert second["inputs"]["model"] == ["lora-1", 0]
    assert second["inputs"]["clip"] == ["lora-1", 1]
    before = users(workflow, "152")
    assert users(changed, "lora-2") == {use for use in before if use[2] < 2}
    assert {use for use in users(changed, "152") if use[0] != "lora-1"} == {
        use for use in before if use[2] >= 2
    }


@pytest.mark.parametrize("outputs", [OUTPUTS, {}])
def test_what_the_server_does_not_tell_of_a_class_its_users_do(outputs: Any) -> None:
    changed = with_loras(shipped(), LORAS, outputs)
    assert changed == with_loras(shipped(), LORAS, OUTPUTS)


def test_a_model_without_clip_gets_loras_for_the_model_alone() -> None:
    changed = with_loras(flux(), LORAS[:1], {"UNETLoader": ("MODEL",)}, FLUX_BINDINGS)
    assert changed["lora-1"] == {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {
            "model": ["12", 0],
            "lora_name": "style/ink.safetensors",
            "strength_model": 0.8,
        },
    }
    assert users(changed, "lora-1") == users(flux(), "12")
    assert users(changed, "12") == {("lora-1", "model", 0)}


def test_a_workflow_with_loras_of_its_own_keeps_them_behind_the_new_ones() -> None:
    workflow = shipped()
    own = {"model": ["152", 0], "clip": ["152", 1], "lora_name": "own", "strength_model": 1}
    workflow["lora-1"] = {"class_type": "LoraLoader", "inputs": own}
    workflow["239"]["inputs"]["model"] = ["lora-1", 0]
    changed = with_loras(workflow, LORAS, OUTPUTS)
    assert changed["lora-1"]["inputs"]["model"] == ["lora-3", 0]
    assert changed["lora-1"]["inputs"]["lora_name"] == "own"
    assert changed["239"]["inputs"]["model"] == ["lora-1", 0]
    assert changed["lora-2"]["inputs"]["model"] == ["152", 0]


def test_a_model_whose_name_stands_in_a_node_of_its_own_is_found() -> None:
    workflow = flux()
    workflow["50"] = {"class_type": "PrimitiveString", "inputs": {"value": "a.sft"}}
    workflow["12"]["inputs"]["unet_name"] = ["50", 0]
    bindings = {**FLUX_BINDINGS, "model": ["50.value"]}
    changed = with_loras(workflow, LORAS[:1], {"PrimitiveString": ("STRING",)}, bindings)
    assert changed["lora-1"]["inputs"]["model"] == ["12", 0]


@pytest.mark.parametrize("make", [shipped, deployed])
def test_without_loras_nothing_changes(make: Make) -> None:
    assert with_loras(make(), [], OUTPUTS) == make()


@pytest.mark.parametrize("value", ["none", "1e999", "[1]", None, ["4", 0]])
def test_a_number_of_pictures_that_is_none_is_no_error(value: object, tmp_path: Path) -> None:
    graph = json.loads(SHIPPED.read_text("utf-8"))
    loaded = binder.load(SHIPPED)
    assert isinstance(loaded, binder.Workflow)
    ((node, name),) = loaded.bindings["batch"]
    graph[node]["inputs"][name] = value
    path = tmp_path / "base.json"
    path.write_text(json.dumps(graph), "utf-8")
    changed = binder.load(path)
    assert isinstance(changed, binder.Workflow)
    assert changed.number("batch") is None
