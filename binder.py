"""The workflow file and the locked binding: the only file that knows node ids.

Pure functions: nothing here does I/O except `load()`, and no argument is ever modified. Called from
the thread pool, before a job is accepted, and from the worker's thread, which makes it.
The rules are architecture.md §5; what a real workflow looks like is comfyui.md.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from store import JobParams

Workflow = dict[str, Any]  # ComfyUI's API format: {node id: {"class_type": str, "inputs": {...}}}

CHECKPOINT = "152"
POSITIVE = "268"
NEGATIVE = "4"
BASE_PASS = "239"
SAMPLERS = (BASE_PASS, "249", "52", "118")

# What must be there, in the order it is asked for (architecture.md §5.1).
REQUIRED: dict[str, tuple[str, ...]] = {
    CHECKPOINT: ("ckpt_name",),
    POSITIVE: ("text",),
    NEGATIVE: ("text",),
    **dict.fromkeys(SAMPLERS, ("sampler_name", "scheduler")),
    BASE_PASS: ("sampler_name", "scheduler", "steps", "cfg"),
}

# The inputs whose values come from a list that the server offers.
OPTION_INPUTS = ("ckpt_name", "sampler_name", "scheduler")

ASSUMED_STEPS = 20  # of a sampler whose steps come from another node, for its share of the progress
SEED_INPUTS = ("seed", "noise_seed")
SEED_MAX = 2**64 - 1  # of the nodes that take the most
FILE_NAME_INPUT = "filename_prefix"


@dataclass(frozen=True)
class Valid:
    """A workflow that may go on to the next step."""

    workflow: Workflow
    ok: Literal[True] = True


@dataclass(frozen=True)
class Invalid:
    """Why a workflow cannot be used: a sentence fit for a Discord user."""

    reason: str
    ok: Literal[False] = False


BindResult = Valid | Invalid


class Defaults(NamedTuple):
    """The workflow file's own values of what a job writes, as text."""

    model: str
    sampler: str
    scheduler: str
    steps: str
    cfg: str


class FileText(NamedTuple):
    """A text in the workflow file; `replaced` if every job writes another in its place."""

    node: str
    class_type: str
    name: str
    value: str
    replaced: bool


def load(path: Path) -> BindResult:
    """Read a workflow file. The reason names the file by its name alone."""
    try:
        text = path.read_text("utf-8-sig")
        workflow = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except FileNotFoundError:
        return Invalid(f"the workflow file {path.name} does not exist")
    except OSError as error:
        return Invalid(f"the workflow file {path.name} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return Invalid(f"the workflow file {path.name} is not JSON: {error}")
    return Valid(workflow)


def validate(workflow: object) -> BindResult:
    """The contract of architecture.md §5.1, in its order; the reason names the first failure."""
    if not isinstance(workflow, dict):
        return Invalid("the workflow is not a JSON object")
    if isinstance(workflow.get("nodes"), list):
        return Invalid(
            "the workflow is in the format of ComfyUI's page, not in the API format: open it in"
            " ComfyUI and use Workflow > Export (API)"
        )
    for node in REQUIRED:
        if node not in workflow:
            return Invalid(f"the workflow has no node {node}")
    for node in REQUIRED:
        if not isinstance(_inputs(workflow, node), dict):
            return Invalid(f"node {node} of the workflow has no inputs")
    for node, fields in REQUIRED.items():
        for field in fields:
            value = _inputs(workflow, node).get(field)
            if isinstance(value, list):
                return Invalid(
                    f"input {field} of node {node} of the workflow is connected to another node;"
                    " it must hold a value of its own"
                )
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                return Invalid(f"node {node} of the workflow has no value for its input {field}")
    return Valid(workflow)


def bind(job: JobParams, workflow: object) -> BindResult:
    """A deep copy of the workflow with the job written into it: exactly the fields of the table in
    architecture.md §5 and no other. Steps and cfg go to the base pass alone."""
    result = validate(workflow)
    if not result.ok:
        return result
    bound = copy.deepcopy(result.workflow)
    bound[CHECKPOINT]["inputs"]["ckpt_name"] = job.model
    bound[POSITIVE]["inputs"]["text"] = job.positive_prompt
    bound[NEGATIVE]["inputs"]["text"] = job.negative_prompt
    for node in SAMPLERS:
        bound[node]["inputs"]["sampler_name"] = job.sampler
        bound[node]["inputs"]["scheduler"] = job.scheduler
    bound[BASE_PASS]["inputs"]["steps"] = job.steps
    bound[BASE_PASS]["inputs"]["cfg"] = job.cfg
    return Valid(bound)


def reseed(
    workflow: Workflow, seed: int, maxima: Mapping[tuple[str, str], int] | None = None
) -> Workflow:
    """A deep copy with new seeds, so that ComfyUI does not answer from its cache (design.md).

    The base pass gets `seed` (0 to SEED_MAX) itself. Every other literal seed keeps its distance
    to the base pass's: so what was equal in the file stays equal, and what differed differs, as
    far as the server's `maxima`, by class and input, leave room.
    """
    seeded = copy.deepcopy(workflow)
    base = _base_seed(workflow)
    for node, name in _literal_seeds(workflow):
        value = seed
        if base is not None and (node, name) != base:
            class_type = str(workflow[node].get("class_type"))
            most = min((maxima or {}).get((class_type, name), SEED_MAX), SEED_MAX)
            distance = workflow[node]["inputs"][name] - workflow[base[0]]["inputs"][base[1]]
            value = (seed + distance) % (most + 1)
        seeded[node]["inputs"][name] = value
    return seeded


def with_new_file_names(workflow: Workflow, ending: str) -> Workflow:
    """A deep copy whose saving nodes begin their file names otherwise: they run again, and the
    rest comes from ComfyUI's cache (comfyui.md)."""
    renamed = copy.deepcopy(workflow)
    for node in renamed:
        inputs = _inputs(renamed, node)
        if isinstance(inputs, dict) and isinstance(inputs.get(FILE_NAME_INPUT), str):
            inputs[FILE_NAME_INPUT] += ending
    return renamed


def defaults(workflow: Workflow) -> Defaults:
    """The values of a valid workflow file that a person may choose instead of."""
    base = _inputs(workflow, BASE_PASS)
    return Defaults(
        model=str(_inputs(workflow, CHECKPOINT)["ckpt_name"]),
        sampler=str(base["sampler_name"]),
        scheduler=str(base["scheduler"]),
        steps=str(base["steps"]),
        cfg=str(base["cfg"]),
    )


def sampler_steps(workflow: Workflow) -> dict[str, int]:
    """The steps of every sampler node, by node id, in the order in which they run."""
    order: dict[str, None] = {}

    def visit(node: str, path: frozenset[str]) -> None:
        inputs = _inputs(workflow, node) if node in workflow and node not in path else None
        for value in inputs.values() if isinstance(inputs, dict) and node not in order else ():
            if isinstance(value, list) and value and isinstance(value[0], str):
                visit(value[0], path | {node})
        order.setdefault(node)

    for node in workflow:
        visit(node, frozenset())
    steps: dict[str, int] = {}
    for node in order:
        inputs = _inputs(workflow, node) if node in workflow else None
        if isinstance(inputs, dict) and "steps" in inputs and "sampler_name" in inputs:
            own = inputs["steps"]
            steps[node] = own if isinstance(own, int) and own > 0 else ASSUMED_STEPS
    return steps


def bound_classes(workflow: Workflow) -> dict[str, set[str]]:
    """The node classes that a job is written to, each with those of its inputs that take a value
    from a list: {"KSampler (Efficient)": {"sampler_name", "scheduler"}, …}."""
    classes: dict[str, set[str]] = {}
    for node, fields in REQUIRED.items():
        options = set(fields).intersection(OPTION_INPUTS)
        class_type = workflow[node].get("class_type")
        if options and isinstance(class_type, str):
            classes.setdefault(class_type, set()).update(options)
    return classes


def texts(workflow: Workflow) -> Iterator[FileText]:
    """Every text that stands in the workflow file as the value of an input."""
    for node, entry in workflow.items():
        inputs = _inputs(workflow, node)
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            if isinstance(value, str):
                written = name in OPTION_INPUTS and name in REQUIRED.get(node, ())
                yield FileText(node, str(entry.get("class_type")), name, value, written)


def classes(workflow: Workflow) -> dict[str, str]:
    """The class of every node, by node id."""
    nodes = {node: entry for node, entry in workflow.items() if isinstance(entry, dict)}
    return {node: str(entry.get("class_type")) for node, entry in nodes.items()}


def _inputs(workflow: Workflow, node: str) -> Any:
    """The inputs of a node, or None if it has none or is no node."""
    entry = workflow[node]
    return entry.get("inputs") if isinstance(entry, dict) else None


def _literal_seeds(workflow: Workflow) -> Iterator[tuple[str, str]]:
    """Node and input of every seed that stands in the file as a number."""
    for node in workflow:
        inputs = _inputs(workflow, node)
        for name in SEED_INPUTS:
            if isinstance(inputs, dict) and type(inputs.get(name)) is int:
                yield node, name


def _base_seed(workflow: Workflow) -> tuple[str, str] | None:
    """Node and input of the number that the base pass runs with: its own, or of the node it is
    linked to; else the first there is."""
    node = BASE_PASS
    for _ in workflow:  # no chain of links is longer than the workflow
        inputs = _inputs(workflow, node)
        inputs = inputs if isinstance(inputs, dict) else {}
        name = next((name for name in SEED_INPUTS if name in inputs), "")
        value = inputs.get(name)
        if type(value) is int:
            return node, name
        node = str(value[0]) if isinstance(value, list) and value else ""
        if node not in workflow:
            break
    return next(_literal_seeds(workflow), None)


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a number that ComfyUI takes")
