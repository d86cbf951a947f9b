"""A workflow file and its bindings: where in the graph each thing of a job goes.

Pure functions: nothing here does I/O except `load()` and `read_json()`, and no argument is ever
modified. Called from the thread pool, before a job is accepted, and from the worker's thread, which
makes it. The locked table is architecture.md §5; what a real workflow looks like is comfyui.md.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from store import JobParams

Workflow = dict[str, Any]  # ComfyUI's API format: {node id: {"class_type": str, "inputs": {...}}}

# What of a job is written into a workflow, in the order in which it is looked at.
PARAMS = (
    "model",
    "positive",
    "negative",
    "sampler",
    "scheduler",
    "steps",
    "cfg",
    "seed",
    "width",
    "height",
    "batch",
)
OPTION_PARAMS = ("model", "sampler", "scheduler")  # their values come from a list of the server's
PROMPT_PARAMS = ("positive", "negative")
TEXT_PARAMS = (*PROMPT_PARAMS, *OPTION_PARAMS)
BINDINGS_FILE = "bindings.json"  # beside the workflow file; without it LOCKED holds


class Place(NamedTuple):
    """An input of a node, where something of a job is written."""

    node: str
    name: str

    def __str__(self) -> str:
        return f"{self.node}.{self.name}"

    @classmethod
    def parse(cls, text: object) -> Place:
        """The reverse of `str()`: the id ends at the first dot, and may hold colons. ValueError
        for anything else."""
        node, dot, name = str(text).partition(".")
        if not isinstance(text, str) or not node or not dot or not name:
            raise ValueError(f'{text!r} is not of the form "<node id>.<input>"')
        return cls(node, name)


Bindings = Mapping[str, tuple[Place, ...]]  # of every param the places it is written to


def _bindings(**entries: str) -> Bindings:
    return {param: tuple(map(Place.parse, entries.get(param, "").split())) for param in PARAMS}


BASE_PASS = "239"
LOCKED: Bindings = _bindings(  # architecture.md §5
    model="152.ckpt_name",
    positive="268.text",
    negative="4.text",
    sampler="239.sampler_name 249.sampler_name 52.sampler_name 118.sampler_name",
    scheduler="239.scheduler 249.scheduler 52.scheduler 118.scheduler",
    steps="239.steps",
    cfg="239.cfg",
)

PASS_LIMITS = ("start_at_step", "end_at_step")  # of a pass in a chain that shares its steps
ASSUMED_STEPS = 20  # of a sampler whose steps come from another node, for its share of the progress
SEED_INPUTS = ("seed", "noise_seed")
SEED_MAX = 2**64 - 1  # of the nodes that take the most
LATENT_INPUTS = ("latent_image", "samples", "latent", "latents")
SIZE_STEP = 64  # pixels: what every model takes
SIZE_MAX = 16384  # pixels: what ComfyUI takes at most
SHAPES = {  # width to height, near to what SDXL was trained with
    "square": (1, 1),
    "portrait": (13, 19),
    "landscape": (19, 13),
    "wide": (16, 9),
    "tall": (9, 16),
}
FILE_NAME_INPUT = "filename_prefix"


@dataclass(frozen=True)
class Valid:
    """A workflow that may go on to the next step, and where a job goes in it."""

    workflow: Workflow
    bindings: Bindings = field(default_factory=lambda: LOCKED)
    ok: Literal[True] = True


@dataclass(frozen=True)
class Invalid:
    """Why a workflow cannot be used: a sentence fit for a Discord user."""

    reason: str
    ok: Literal[False] = False


BindResult = Valid | Invalid


class Defaults(NamedTuple):
    """The workflow file's own values of what a job writes, as text; None where the workflow has no
    such thing."""

    model: str | None
    sampler: str | None
    scheduler: str | None
    steps: str | None
    cfg: str | None


class Size(NamedTuple):
    """Of a picture, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


class Lora(NamedTuple):
    """A LoRA to be used: its name as the server lists it, and how strongly, 1 as it was trained."""

    name: str
    strength: float


class FileText(NamedTuple):
    """A text in the workflow file; `replaced` if every job writes another in its place."""

    node: str
    class_type: str
    name: str
    value: str
    replaced: bool


def load(path: Path) -> BindResult:
    """Read a workflow file and the bindings beside it. The reason names the files by their names
    alone."""
    try:
        workflow = read_json(path, f"the workflow file {path.name}")
        beside = path.with_name(BINDINGS_FILE)
        bindings = parse_bindings(read_json(beside, BINDINGS_FILE)) if beside.exists() else LOCKED
    except ValueError as error:
        return Invalid(str(error))
    return Valid(workflow, bindings)


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file; ValueError with a reason that begins with `what`."""
    try:
        text = path.read_text("utf-8-sig")
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except FileNotFoundError:
        raise ValueError(f"{what} does not exist") from None
    except OSError as error:
        raise ValueError(f"{what} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from error


def parse_bindings(document: object) -> Bindings:
    """The content of a bindings.json, `{param: ["<node id>.<input>", …], …}`; a param that is not
    named is empty. ValueError with a reason for the owner."""
    if not isinstance(document, dict):
        raise ValueError(f"{BINDINGS_FILE} is not a JSON object")
    for param in document:
        if param not in PARAMS:
            raise ValueError(f"{BINDINGS_FILE} has {param!r}, which is none of {', '.join(PARAMS)}")
    bindings: dict[str, tuple[Place, ...]] = {}
    for param in PARAMS:
        entries = document.get(param, [])
        if not isinstance(entries, list):
            raise ValueError(f"{param} in {BINDINGS_FILE} is not a list")
        try:
            bindings[param] = tuple(map(Place.parse, entries))
        except ValueError as error:
            raise ValueError(f"{param} in {BINDINGS_FILE}: {error}") from error
    if not bindings["positive"]:
        raise ValueError(f"{BINDINGS_FILE} does not say where the prompt goes: positive is empty")
    return bindings


def validate(workflow: object, bindings: Bindings = LOCKED) -> BindResult:
    """The contract of architecture.md §5.1, in its order; the reason names the first failure."""
    if not isinstance(workflow, dict):
        return Invalid("the workflow is not a JSON object")
    if isinstance(workflow.get("nodes"), list):
        return Invalid(
            "the workflow is in the format of ComfyUI's page, not in the API format: open it in"
            " ComfyUI and use Workflow > Export (API)"
        )
    required = _required(bindings)
    for node in required:
        if node not in workflow:
            return Invalid(f"the workflow has no node {node}")
    for node in required:
        if not isinstance(_inputs(workflow, node), dict):
            return Invalid(f"node {node} of the workflow has no inputs")
    for node, names in required.items():
        for name in names:
            value = _inputs(workflow, node).get(name)
            if isinstance(value, list):
                return Invalid(
                    f"input {name} of node {node} of the workflow is connected to another node;"
                    " it must hold a value of its own"
                )
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                return Invalid(f"node {node} of the workflow has no value for its input {name}")
    if bindings is not LOCKED and (reason := _wrong_kind(workflow, bindings)):
        return Invalid(reason)
    return Valid(workflow, bindings)


def _required(bindings: Bindings) -> dict[str, list[str]]:
    """The inputs that must be there by their node, in the order they are asked for."""
    required: dict[str, list[str]] = {}
    for places in bindings.values():
        for node, name in places:
            required.setdefault(node, []).append(name)
    return required


def _wrong_kind(workflow: Workflow, bindings: Bindings) -> str | None:
    """Why a bound input cannot take what its param writes: a text for a number, say."""
    for param, places in bindings.items():
        for node, name in places:
            if isinstance(_inputs(workflow, node)[name], str) != (param in TEXT_PARAMS):
                kind = "text" if param in TEXT_PARAMS else "number"
                return f"{param} is bound to input {name} of node {node}, which holds no {kind}"
    return None


def bind(job: JobParams, workflow: object, bindings: Bindings = LOCKED) -> BindResult:
    """A deep copy of the workflow with the job written into it: exactly the fields of the bindings
    and no other (architecture.md §5). Steps and cfg go to the base pass alone. What the job does
    not say, being older than the bindings, stays as in the file."""
    result = validate(workflow, bindings)
    if not result.ok:
        return result
    bound = copy.deepcopy(result.workflow)
    values = {
        "model": job.model,
        "positive": job.positive_prompt,
        "negative": job.negative_prompt,
        "sampler": job.sampler,
        "scheduler": job.scheduler,
        "steps": job.steps,
        "cfg": job.cfg,
    }
    for param, value in values.items():
        for node, name in bindings[param] if value or param in PROMPT_PARAMS else ():
            bound[node]["inputs"][name] = value
    return Valid(bound, bindings)


def rescale_passes(bound: Workflow, workflow: Workflow, bindings: Bindings) -> Workflow:
    """A deep copy of what was bound whose passes begin and end at the same share of their steps as
    in the file: a chain of passes shares its steps, and says so by start_at_step and
    end_at_step."""
    scaled = copy.deepcopy(bound)
    places = set(bindings["steps"])
    for node in scaled:
        inputs = _inputs(scaled, node)
        place = _source(workflow, node, "steps") if isinstance(inputs, dict) else None
        if place not in places or place is None:
            continue
        before, now = (_inputs(graph, place.node)[place.name] for graph in (workflow, bound))
        for name in PASS_LIMITS:
            limit = inputs.get(name)
            if type(limit) is int and 0 < limit <= before:  # beyond the last step: to the end
                inputs[name] = round(limit * now / before)
    return scaled


def reseed(
    workflow: Workflow,
    seed: int,
    maxima: Mapping[tuple[str, str], int] | None = None,
    bindings: Bindings = LOCKED,
) -> Workflow:
    """A deep copy with new seeds, so that ComfyUI does not answer from its cache (design.md).

    The base pass gets `seed` (0 to SEED_MAX) itself: in the bound places, or where the locked
    workflow has it. Every other literal seed keeps its distance to the base pass's: so what was
    equal in the file stays equal, and what differed differs, as far as the server's `maxima`, by
    class and input, leave room.
    """
    seeded = copy.deepcopy(workflow)
    bases = bindings["seed"] or tuple(filter(None, [_base_seed(workflow)]))
    for node, name in dict.fromkeys([*bases, *_literal_seeds(workflow)]):
        value = seed
        if (node, name) not in bases:
            class_type = str(workflow[node].get("class_type"))
            most = min((maxima or {}).get((class_type, name), SEED_MAX), SEED_MAX)
            base = bases[0]
            distance = workflow[node]["inputs"][name] - workflow[base.node]["inputs"][base.name]
            value = (seed + distance) % (most + 1)
        seeded[node]["inputs"][name] = value
    return seeded


def size_of(workflow: Workflow, bindings: Bindings = LOCKED) -> Size | None:
    """The size of the file's pictures before they are enlarged; None if no number says so."""
    places = _size_places(workflow, bindings)
    values = [_inputs(workflow, place.node)[place.name] for place in places]
    are_pixels = all(type(value) is int and 0 < value <= SIZE_MAX for value in values)
    if len(set(places)) != 2 or not are_pixels:
        return None
    return Size(*values)


def in_shape(size: Size, shape: str) -> Size:
    """A size of one of SHAPES with about as many pixels, in multiples of 64."""
    wide, high = SHAPES[shape]
    scale = math.sqrt(size.width * size.height / (wide * high)) / SIZE_STEP
    return Size(*(max(1, round(side * scale)) * SIZE_STEP for side in (wide, high)))


def with_size(workflow: Workflow, size: Size, bindings: Bindings = LOCKED) -> Workflow:
    """A deep copy that makes pictures of this size, of a workflow that `size_of` knows."""
    sized = copy.deepcopy(workflow)
    wide, high = _size_places(workflow, bindings)
    places = {
        **dict.fromkeys((wide, *bindings["width"]), size.width),
        **dict.fromkeys((high, *bindings["height"]), size.height),
    }
    for (node, name), value in places.items():
        sized[node]["inputs"][name] = value
    return sized


def with_loras(
    workflow: Workflow,
    loras: Sequence[Lora],
    outputs: Mapping[str, Sequence[str]],
    bindings: Bindings = LOCKED,
) -> Workflow:
    """A deep copy with LoRA loaders, in this order, between the model's node and whoever uses what
    it gives. `outputs` has the output types of the server's classes; of one that is not in it, its
    users tell."""
    changed = copy.deepcopy(workflow)
    for node in model_nodes(workflow, outputs, bindings) if loras else ():
        model, clip = _model_slots(workflow, node, outputs)
        links = {"model": [node, model], **({"clip": [node, clip]} if clip is not None else {})}
        before = {(node, model): 0, **({(node, clip): 1} if clip is not None else {})}
        users = [user for user in _users(changed, node) if _link(changed, user) in before]
        for lora in loras:
            new = _free_id(changed)
            changed[new] = _lora_loader(lora, links)
            links = {name: [new, slot] for slot, name in enumerate(links)}
        for user in users:
            changed[user.node]["inputs"][user.name] = [new, before[_link(changed, user)]]
    return changed


def _lora_loader(lora: Lora, links: Mapping[str, list[Any]]) -> dict[str, Any]:
    """A node of core ComfyUI (comfyui.md); the one without CLIP where there is none."""
    inputs = {**links, "lora_name": lora.name, "strength_model": lora.strength}
    if "clip" not in links:
        return {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    return {"class_type": "LoraLoader", "inputs": {**inputs, "strength_clip": lora.strength}}


def model_nodes(
    workflow: Workflow, outputs: Mapping[str, Sequence[str]], bindings: Bindings = LOCKED
) -> list[str]:
    """The nodes that load the models, and are followed by LoRAs: those with the names, or, of a
    node that only holds a name, those that take it. `outputs` is as for `with_loras()`."""
    found: dict[str, None] = {}
    for place in bindings["model"]:
        loaders = [place.node, *(user.node for user in _users(workflow, place.node))]
        giving = [node for node in loaders if _gives_model(workflow, node, outputs)]
        found.update(dict.fromkeys(giving[:1] if giving[:1] == [place.node] else giving))
    return list(found)


def _gives_model(workflow: Workflow, node: str, outputs: Mapping[str, Sequence[str]]) -> bool:
    types = outputs.get(str(workflow[node].get("class_type")))
    if types is not None:
        return "MODEL" in types
    return any(user.name == "model" for user in _users(workflow, node))


def _model_slots(
    workflow: Workflow, node: str, outputs: Mapping[str, Sequence[str]]
) -> tuple[int, int | None]:
    """Which outputs of a node are the model and the CLIP, if it has one."""
    types = outputs.get(str(workflow[node].get("class_type")))
    if types is not None:
        return types.index("MODEL"), types.index("CLIP") if "CLIP" in types else None
    slots = {user.name: _link(workflow, user)[1] for user in _users(workflow, node)}
    return slots["model"], slots.get("clip")


def _free_id(workflow: Workflow) -> str:
    numbers = itertools.count(1)
    return next(new for new in (f"lora-{n}" for n in numbers) if new not in workflow)


def with_new_file_names(workflow: Workflow, ending: str) -> Workflow:
    """A deep copy whose saving nodes begin their file names otherwise: they run again, and the
    rest comes from ComfyUI's cache (comfyui.md)."""
    renamed = copy.deepcopy(workflow)
    for node in renamed:
        inputs = _inputs(renamed, node)
        if isinstance(inputs, dict) and isinstance(inputs.get(FILE_NAME_INPUT), str):
            inputs[FILE_NAME_INPUT] += ending
    return renamed


def bound_params(bindings: Bindings) -> frozenset[str]:
    """What of a job has a place in the workflow. The seeds of the locked one are no part of its
    table, and have theirs all the same."""
    bound = frozenset(param for param in PARAMS if bindings[param])
    return bound | {"seed"} if bindings is LOCKED else bound


def params_by_place(bindings: Bindings) -> dict[tuple[str, str], str]:
    """What of a job is written into which input, by node and name."""
    return {(*place,): param for param, places in bindings.items() for place in places}


def defaults(workflow: Workflow, bindings: Bindings = LOCKED) -> Defaults:
    """The values of a valid workflow file that a person may choose instead of."""

    def value(param: str) -> str | None:
        places = bindings[param]
        return str(_inputs(workflow, places[0].node)[places[0].name]) if places else None

    return Defaults(*map(value, Defaults._fields))


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
    samplers = [node for node in order if _is_sampler(workflow, node)]
    return {node: _steps_of(workflow, node) for node in samplers}


def bound_classes(workflow: Workflow, bindings: Bindings = LOCKED) -> dict[str, set[str]]:
    """The node classes that a job is written to, each with those of its inputs that take a value
    from a list: {"KSampler (Efficient)": {"sampler_name", "scheduler"}, …}."""
    classes: dict[str, set[str]] = {}
    for param in OPTION_PARAMS:
        for node, name in bindings[param]:
            class_type = workflow[node].get("class_type")
            if isinstance(class_type, str):
                classes.setdefault(class_type, set()).add(name)
    return classes


def list_inputs(workflow: Workflow, bindings: Bindings) -> dict[str, list[tuple[str, str]]]:
    """Of each of OPTION_PARAMS the inputs that say what may be chosen, as (class, input): the bound
    ones, and those that take their value through a link."""
    found: dict[str, list[tuple[str, str]]] = {}
    for param in OPTION_PARAMS:
        inputs = dict.fromkeys(bindings[param])
        for place in bindings[param]:
            inputs.update(dict.fromkeys(_users(workflow, place.node)))
        found[param] = [(str(workflow[node].get("class_type")), name) for node, name in inputs]
    return found


def texts(workflow: Workflow, bindings: Bindings = LOCKED) -> Iterator[FileText]:
    """Every text that stands in the workflow file as the value of an input."""
    written_to = {place for param in OPTION_PARAMS for place in bindings[param]}
    for node, entry in workflow.items():
        inputs = _inputs(workflow, node)
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            if isinstance(value, str):
                written = (node, name) in written_to
                yield FileText(node, str(entry.get("class_type")), name, value, written)


def classes(workflow: Workflow) -> dict[str, str]:
    """The class of every node, by node id."""
    nodes = {node: entry for node, entry in workflow.items() if isinstance(entry, dict)}
    return {node: str(entry.get("class_type")) for node, entry in nodes.items()}


def _inputs(workflow: Workflow, node: str) -> Any:
    """The inputs of a node, or None if it has none or is no node."""
    entry = workflow[node]
    return entry.get("inputs") if isinstance(entry, dict) else None


def _is_sampler(workflow: Workflow, node: str) -> bool:
    """Whether a node does steps, and so tells of them: with all settings of its own, or with the
    sigmas of another node."""
    inputs = _inputs(workflow, node) if node in workflow else None
    names = inputs.keys() if isinstance(inputs, dict) else set()
    return {"steps", "sampler_name"} <= names or {"sigmas", "latent_image"} <= names


def _steps_of(workflow: Workflow, node: str) -> int:
    """How many steps a sampler node does."""
    place = _source(workflow, node, "steps", "sigmas")
    steps = _inputs(workflow, place.node)[place.name] if place else None
    return steps if isinstance(steps, int) and steps > 0 else ASSUMED_STEPS


def _link(workflow: Workflow, place: Place) -> tuple[str, int]:
    """Where the link in an input leads: a node and one of its outputs."""
    node, slot = _inputs(workflow, place.node)[place.name]
    return str(node), int(slot)


def _size_places(workflow: Workflow, bindings: Bindings) -> tuple[Place, ...]:
    """Where width and height stand: as bound, or in the node that the latent of the locked
    workflow's base pass comes from."""
    if bindings is not LOCKED:
        return tuple(places[0] for places in (bindings["width"], bindings["height"]) if places)
    node = BASE_PASS
    for _ in workflow:  # no chain of links is longer than the workflow
        inputs = _inputs(workflow, node) if node in workflow else None
        inputs = inputs if isinstance(inputs, dict) else {}
        if node != BASE_PASS and {"width", "height"} <= inputs.keys():
            found = (_source(workflow, node, "width"), _source(workflow, node, "height"))
            return tuple(place for place in found if place is not None)
        link = next((inputs[name] for name in LATENT_INPUTS if name in inputs), None)
        node = str(link[0]) if isinstance(link, list) and link else ""
    return ()


def _users(workflow: Workflow, source: str) -> Iterator[Place]:
    """The inputs that are linked to a node."""
    for node in workflow:
        inputs = _inputs(workflow, node)
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            is_link = isinstance(value, list) and len(value) == 2 and type(value[1]) is int
            if is_link and str(value[0]) == source:
                yield Place(node, name)


def _source(workflow: Workflow, node: str, *names: str) -> Place | None:
    """Where the value of the first of these inputs stands: in the node itself, or along its links
    in the node that has such an input, or a number."""
    for _ in workflow:  # no chain of links is longer than the workflow
        inputs = _inputs(workflow, node) if node in workflow else None
        inputs = inputs if isinstance(inputs, dict) else {}
        name = next((name for name in names if name in inputs), "")
        if not name:  # of a node that only holds a number
            numbers = [name for name, value in inputs.items() if type(value) is int]
            return Place(node, numbers[0]) if len(numbers) == 1 else None
        value = inputs[name]
        if not isinstance(value, list):
            return Place(node, name)
        node = str(value[0]) if value else ""
    return None


def _literal_seeds(workflow: Workflow) -> Iterator[Place]:
    """Every seed that stands in the file as a number."""
    for node in workflow:
        inputs = _inputs(workflow, node)
        for name in SEED_INPUTS:
            if isinstance(inputs, dict) and type(inputs.get(name)) is int:
                yield Place(node, name)


def _base_seed(workflow: Workflow) -> Place | None:
    """The number that the base pass of the locked workflow runs with: its own, or of the node it
    is linked to; else the first there is."""
    node = BASE_PASS
    for _ in workflow:  # no chain of links is longer than the workflow
        inputs = _inputs(workflow, node) if node in workflow else None
        inputs = inputs if isinstance(inputs, dict) else {}
        name = next((name for name in SEED_INPUTS if name in inputs), "")
        value = inputs.get(name)
        if type(value) is int:
            return Place(node, name)
        node = str(value[0]) if isinstance(value, list) and value else ""
    return next(_literal_seeds(workflow), None)


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a number that ComfyUI takes")
