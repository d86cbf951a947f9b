"""A workflow file and its bindings: where in the graph each param of a job goes.

Owns the locked table, the check of a file, and everything that is written into a graph. Only
`load()` does I/O, and only a `Prompt` is ever modified. Called from the thread pool and from the
worker's thread. What a real workflow looks like is in docs/comfyui.md.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from graph import (
    SEED_INPUTS,
    Link,
    Nodes,
    Place,
    chain,
    class_of,
    inputs_of,
    is_sampler,
    literal_seeds,
    source_of,
    steps_of,
    users_of,
)
from job import JobParams
from text import as_number, read_json

# What may be bound in a workflow, in the order in which it is looked at.
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
    "length",
    "image",
)
OPTION_PARAMS = ("model", "sampler", "scheduler")  # their values come from a list of the server's
PROMPT_PARAMS = ("positive", "negative")
TEXT_PARAMS = (*PROMPT_PARAMS, *OPTION_PARAMS, "image")
FOLLOWERS = ("later_steps", "later_width", "later_height")  # bound too: in proportion to the param
BINDINGS_FILE = "bindings.json"  # beside the workflow file; without it LOCKED holds


Bindings = Mapping[str, tuple[Place, ...]]  # of every param the places it is written to


def _bindings(**entries: str) -> Bindings:
    return {param: tuple(map(Place.parse, entries.get(param, "").split())) for param in PARAMS}


BASE_PASS = "239"
LOCKED: Bindings = _bindings(
    model="152.ckpt_name",
    positive="268.text",
    negative="4.text",
    sampler="239.sampler_name 249.sampler_name 52.sampler_name 118.sampler_name",
    scheduler="239.scheduler 249.scheduler 52.scheduler 118.scheduler",
    steps="239.steps",
    cfg="239.cfg",
)

PASS_LIMITS = ("start_at_step", "end_at_step")  # of a pass in a chain that shares its steps
SEED_MAX = 2**64 - 1  # of the nodes that take the most
SEED_LIMITS = (*SEED_INPUTS, "value", "int", "rand_seed", "seed_value")  # whose maxima bound a seed
LATENT_INPUTS = ("latent_image", "samples", "latent", "latents")
PIXEL_INPUTS = ("pixels", "image", "images")
SCALER = "ImageScaleToTotalPixels"
SIZE_STEP = 64  # pixels: what every model takes
LATER_SIZE_STEP = 8  # pixels: what a latent is a multiple of
SIZE_MAX = 16384  # pixels: what ComfyUI takes at most
SHAPES = {  # width to height, near to what SDXL was trained with
    "square": (1, 1),
    "portrait": (13, 19),
    "landscape": (19, 13),
    "wide": (16, 9),
    "tall": (9, 16),
}
FILE_NAME_INPUT = "filename_prefix"


class Defaults(NamedTuple):
    """The workflow file's own values of what a job writes, as text; None where the workflow has no
    such thing."""

    model: str | None
    sampler: str | None
    scheduler: str | None
    steps: str | None
    cfg: str | None
    negative: str | None


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"

    @classmethod
    def parse(cls, text: str | None) -> Size | None:
        """Reverse `str()`, also without its spaces; return None for anything else."""
        sides = re.fullmatch("([0-9]{1,5}) ?x ?([0-9]{1,5})", text or "")
        return cls(int(sides[1]), int(sides[2])) if sides else None


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


@dataclass(frozen=True)
class Invalid:
    """Why a workflow cannot be used: a sentence fit for a Discord user."""

    reason: str
    ok: ClassVar[Literal[False]] = False


@dataclass(frozen=True)
class Workflow:
    """A workflow that jobs can be written into, and the places of each of their params.

    `is_locked` if there is no bindings.json: then only the params of LOCKED are its contract, and
    what the menus offer is found by the chains of object_info.py.
    """

    graph: Nodes
    bindings: Bindings
    is_locked: bool = False
    ok: ClassVar[Literal[True]] = True

    @classmethod
    def locked(cls, graph: Nodes) -> Workflow:
        """Return the locked workflow over these nodes, with the places of its seed, size and
        number of pictures as far as it has them: LOCKED leaves them to the file."""
        return cls(
            graph, {**LOCKED, "seed": _base_seed(graph), **_base_latent(graph)}, is_locked=True
        )

    @property
    def params(self) -> frozenset[str]:
        """Return the params that have a place; a locked workflow always takes a seed, and changes
        every seed that stands in it."""
        bound = frozenset(param for param in PARAMS if self.bindings[param])
        return bound | {"seed"} if self.is_locked else bound

    @property
    def params_by_place(self) -> dict[tuple[str, str], str]:
        """Return the param that is written into each bound input, by node and name."""
        return {(*place,): param for param, places in self.bindings.items() for place in places}

    @property
    def defaults(self) -> Defaults:
        """Return the values of the file that a person may choose others for. The negative prompt of
        a locked workflow's file is an example, as its prompt is."""
        places = (self.bindings[param][:1] for param in Defaults._fields)
        found = Defaults(*(str(self.value(*first)) if first else None for first in places))
        return found._replace(negative=None) if self.is_locked else found

    @property
    def size(self) -> Size | None:
        """Return the size of the pictures before they are enlarged; None if no numbers say so, or
        if it is that of a person's picture."""
        places = (*self.bindings["width"][:1], *self.bindings["height"][:1])
        values = [self.value(place) for place in places]
        are_pixels = all(type(value) is int and 0 < value <= SIZE_MAX for value in values)
        return Size(*values) if len(set(places)) == 2 and are_pixels and not self.strength else None

    @property
    def takes_image(self) -> bool:
        """Return whether a person gives the picture to work on."""
        return bool(self.bindings["image"])

    @property
    def needs_prompt(self) -> bool:
        """Return whether a job has a prompt; an upscaler's has none."""
        return bool(self.bindings["positive"])

    @property
    def strength(self) -> tuple[Place, ...]:
        """Return the places that say how much of a person's picture is made anew: the denoise of
        the samplers that begin with it."""
        places = (
            source_of(self.graph, node, "denoise", "sigmas")
            for node in self.graph
            if is_sampler(self.graph, node) and self._begins_with_image(node)
        )
        found = dict.fromkeys(place for place in places if place and place.name == "denoise")
        return tuple(place for place in found if type(self.value(place)) in (int, float))

    def _begins_with_image(self, sampler: str) -> bool:
        """Return whether the latent of a sampler is a person's picture, and not what another
        sampler has made of it."""
        images = {place.node for place in self.bindings["image"]}
        _, *upstream = chain(self.graph, sampler, (*LATENT_INPUTS, *PIXEL_INPUTS))
        before = itertools.takewhile(lambda node: not is_sampler(self.graph, node), upstream)
        return not images.isdisjoint(before)

    def number(self, param: str) -> int | None:
        """Return the whole number that the file has for a param; None if it has none."""
        value = as_number(self.value(self.bindings[param][0])) if self.bindings[param] else 0
        return int(value) if value and value >= 1 and value == int(value) else None

    @property
    def classes(self) -> dict[str, str]:
        """Return the class of every node, by node id."""
        nodes = {node: entry for node, entry in self.graph.items() if isinstance(entry, dict)}
        return {node: str(entry.get("class_type")) for node, entry in nodes.items()}

    def bound_classes(self) -> dict[str, set[str]]:
        """Return the node classes that a job is written to, each with those of its inputs that take
        a value from a list: {"KSampler (Efficient)": {"sampler_name", "scheduler"}, …}."""
        classes: dict[str, set[str]] = {}
        for node, name in itertools.chain(*map(self.bindings.__getitem__, OPTION_PARAMS)):
            class_type = self.graph[node].get("class_type")
            if isinstance(class_type, str):
                classes.setdefault(class_type, set()).add(name)
        return classes

    def list_inputs(self) -> dict[str, list[tuple[str, str]]]:
        """Return, for each of OPTION_PARAMS, the inputs that say what may be chosen, as (class,
        input): the bound ones, and those that take their value through a link."""
        found: dict[str, list[tuple[str, str]]] = {}
        for param in OPTION_PARAMS:
            inputs = dict.fromkeys(self.bindings[param])
            for place in self.bindings[param]:
                inputs.update(dict.fromkeys(users_of(self.graph, place.node)))
            found[param] = [(class_of(self.graph, node), name) for node, name in inputs]
        return found

    def value(self, place: Place) -> Any:
        """Return what an input holds, which is there."""
        return self.graph[place.node]["inputs"][place.name]

    def texts(self) -> Iterator[FileText]:
        """Yield every text that stands in the file as the value of an input, but the picture in
        whose place every job writes its own."""
        written_to = {place for param in OPTION_PARAMS for place in self.bindings[param]}
        for node in self.graph:
            for name, value in inputs_of(self.graph, node).items():
                if isinstance(value, str) and (node, name) not in self.bindings["image"]:
                    written = (node, name) in written_to
                    yield FileText(node, class_of(self.graph, node), name, value, written)

    def model_slots(self, outputs: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
        """Return the nodes that LoRAs follow, with the slots of their model and CLIP: those with
        the bound name, or, of a node that only holds a name, those that take it. `outputs` has the
        output types of the server's classes; of one that is not in it, its users show them."""
        found: dict[str, dict[str, int]] = {}
        for node, _ in self.bindings["model"]:
            is_loader = bool(_model_slots(self.graph, node, outputs))
            for loader in [node] if is_loader else [u.node for u in users_of(self.graph, node)]:
                found[loader] = _model_slots(self.graph, loader, outputs)
        return {node: slots for node, slots in found.items() if slots}


LoadResult = Workflow | Invalid


class Prompt(Workflow):
    """A copy of a workflow for one job. Each step writes into its graph; none is undone."""

    def write(self, places: Sequence[Place], value: object) -> None:
        """Write a value into each of these inputs: as text where a number is kept as text."""
        for node, name in places:
            inputs = self.graph[node]["inputs"]
            as_text = isinstance(inputs.get(name), str) and isinstance(value, int | float)
            inputs[name] = str(value) if as_text else value

    def scale_followers(self, param: str, value: int, step: int = 1) -> None:
        """Write what follows a param, before that itself is written: in the proportion that it has
        in the file, as a multiple of `step`."""
        before = as_number(self.value(self.bindings[param][0])) if self.bindings[param] else 0
        for place in self.bindings.get(f"later_{param}", ()) if before else ():
            scaled = as_number(self.value(place)) * value / before / step
            self.write([place], max(1, round(scaled)) * step)

    def rescale_passes(self, before: Workflow, steps: int) -> None:
        """Let the passes of a chain begin and end at the same share of `steps` as in the file: they
        share their steps, and say so by start_at_step and end_at_step."""
        for node in self.graph:
            inputs, place = inputs_of(self.graph, node), source_of(before.graph, node, "steps")
            if place not in self.bindings["steps"] or place is None:
                continue
            all_steps = as_number(before.value(place))
            for name in PASS_LIMITS:
                limit = inputs.get(name)
                if type(limit) is int and 0 < limit <= all_steps:  # beyond them: to the end
                    inputs[name] = round(limit * steps / all_steps)

    def reseed(self, seed: int, maxima: Mapping[tuple[str, str], int]) -> None:
        """Write new seeds, so that ComfyUI does not answer from its cache.

        The bound places get `seed` (0 to SEED_MAX) itself. Every other literal seed keeps its
        distance to it: so what was equal in the file stays equal, and what differed differs, as far
        as the server's `maxima`, by class and input, leave room.
        """
        params = self.params_by_place
        literal = [e for e in literal_seeds(self.graph) if params.get(e, "seed") == "seed"]
        bases = self.bindings["seed"] or tuple(literal[:1])
        base = as_number(self.value(bases[0])) if bases else 0
        distances = {place: self.value(place) - base for place in literal}
        for place, distance in {**distances, **dict.fromkeys(bases, 0)}.items():
            self.write([place], (seed + distance) % (self._seed_limit(place, maxima) + 1))

    def _seed_limit(self, place: Place, maxima: Mapping[tuple[str, str], int]) -> int:
        """Return the largest seed that a place and the inputs it is handed on to accept."""
        users = (user for user in users_of(self.graph, place.node) if user.name in SEED_INPUTS)
        inputs = [(class_of(self.graph, node), name) for node, name in (place, *users)]
        return min(SEED_MAX, *(maxima.get(known, SEED_MAX) for known in inputs))

    def resize(self, size: Size) -> None:
        """Write the size of the pictures, of a workflow that has one, and what follows it."""
        for param, pixels in zip(("width", "height"), size, strict=True):
            self.scale_followers(param, pixels, LATER_SIZE_STEP)
            self.write(self.bindings[param], pixels)

    def use_image(self, name: str, strength: float) -> None:
        """Write the name that the server gave to a person's picture, and how strongly it is
        changed; 0 is as in the file."""
        self.write(self.bindings["image"], name)
        if strength > 0:
            self.write(self.strength, strength)

    def scale_image(self, megapixels: float, inputs: Mapping[str, Any]) -> None:
        """Scale a person's picture to so many megapixels before anything uses it; `inputs` are the
        defaults of the server's SCALER."""
        # A megapixel of ComfyUI has 2**20 pixels; rounded down, so that the limit holds.
        most = max(1, math.floor(megapixels * 10**8 / 2**20)) / 100
        for node, _ in self.bindings["image"]:
            users, new = users_of(self.graph, node), _free_id(self.graph, "picture")
            scaling = {**inputs, "image": [node, 0], "megapixels": most}
            self.graph[new] = {"class_type": SCALER, "inputs": scaling}
            self.write([user for user, slot in users.items() if slot == 0], [new, 0])

    def add_loras(self, loras: Sequence[Lora], outputs: Mapping[str, Sequence[str]]) -> None:
        """Put LoRA loaders, in this order, between the model's node and whoever uses what it gives.
        `outputs` is as for `model_slots()`."""
        for node, slots in (self.model_slots(outputs) if loras else {}).items():
            users = users_of(self.graph, node)
            links = {name: Link(node, slot) for name, slot in slots.items()}
            taken = {link: name for name, link in links.items()}
            for lora in loras:
                new = _free_id(self.graph, "lora")
                self.graph[new] = _lora_loader(lora, links)
                links = {name: Link(new, slot) for slot, name in enumerate(links)}
            for user, slot in users.items():
                if (node, slot) in taken:
                    self.write([user], [*links[taken[Link(node, slot)]]])


def load(path: Path) -> LoadResult:
    """Read a workflow file and the bindings beside it, and check them. The reason names the files
    by their names alone."""
    try:
        graph = read_json(path, f"the workflow file {path.name}")
        beside = path.with_name(BINDINGS_FILE)
        bindings = parse_bindings(read_json(beside, BINDINGS_FILE)) if beside.exists() else LOCKED
    except ValueError as error:
        return Invalid(str(error))
    return validate(graph, bindings)


def parse_bindings(document: object) -> Bindings:
    """Parse the content of a bindings.json, `{param: ["<node id>.<input>", …], …}`; a param that is
    not named has no places. Raises ValueError with a reason for the owner."""
    if not isinstance(document, dict):
        raise ValueError(f"{BINDINGS_FILE} is not a JSON object")
    for param in document:
        if param not in (*PARAMS, *FOLLOWERS):
            raise ValueError(f"{BINDINGS_FILE} has {param!r}, which is none of {', '.join(PARAMS)}")
    bindings: dict[str, tuple[Place, ...]] = {}
    for param in (*PARAMS, *FOLLOWERS):
        entries = document.get(param, [])
        if not isinstance(entries, list):
            raise ValueError(f"{param} in {BINDINGS_FILE} is not a list")
        try:
            bindings[param] = tuple(map(Place.parse, entries))
        except ValueError as error:
            raise ValueError(f"{param} in {BINDINGS_FILE}: {error}") from error
    if not bindings["positive"] and not bindings["image"]:
        raise ValueError(f"{BINDINGS_FILE} does not say where the prompt goes: positive is empty")
    return bindings


def validate(graph: object, bindings: Bindings = LOCKED) -> LoadResult:
    """Check that every bound input is there and holds a value of its own: first all nodes, then
    their inputs, then the values. The reason names the first failure."""
    if not isinstance(graph, dict):
        return Invalid("the workflow is not a JSON object")
    if isinstance(graph.get("nodes"), list):
        return Invalid(
            "the workflow is in the format of ComfyUI's page, not in the API format: open it in"
            " ComfyUI and use Workflow > Export (API)"
        )
    if reason := _lacking(graph, bindings):
        return Invalid(reason)
    if bindings is LOCKED:
        return Workflow.locked(graph)
    reason = _wrong_kind(graph, bindings)
    return Invalid(reason) if reason else Workflow(graph, bindings)


def _lacking(graph: Nodes, bindings: Bindings) -> str | None:
    """Return why a bound input cannot be written to: it is not there, or is connected."""
    required: dict[str, list[str]] = {}
    for node, name in itertools.chain(*bindings.values()):
        required.setdefault(node, []).append(name)
    for node in required:
        if node not in graph:
            how = f" and no {BINDINGS_FILE}: adopt it with --adopt" if bindings is LOCKED else ""
            return f"the workflow has no node {node}{how}"
    for node in required:
        if not isinstance(graph[node], dict) or not isinstance(graph[node].get("inputs"), dict):
            return f"node {node} of the workflow has no inputs"
    for node, name in ((node, name) for node, names in required.items() for name in names):
        value = graph[node]["inputs"].get(name)
        if isinstance(value, list):
            return (
                f"input {name} of node {node} of the workflow is connected to another node;"
                " it must hold a value of its own"
            )
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            return f"node {node} of the workflow has no value for its input {name}"
    return None


def _wrong_kind(graph: Nodes, bindings: Bindings) -> str | None:
    """Return why a bound input cannot take what its param writes: a text for a number, say."""
    for param, places in bindings.items():
        for node, name in places:
            value = graph[node]["inputs"][name]
            is_text = isinstance(value, str)
            if not (is_text if param in TEXT_PARAMS else as_number(value) is not None):
                kind = "text" if param in TEXT_PARAMS else "number"
                return f"{param} is bound to input {name} of node {node}, which holds no {kind}"
    return None


def bind(job: JobParams, workflow: Workflow) -> Prompt:
    """Copy the workflow and write the job into it: exactly the bound fields, and in a chain of
    passes that shares its steps where each begins and ends. What the job does not say, being older
    than the bindings, stays as in the file."""
    prompt = Prompt(copy.deepcopy(workflow.graph), workflow.bindings, workflow.is_locked)
    values = {"positive": job.positive_prompt, "negative": job.negative_prompt}
    values |= {name: getattr(job, name) for name in (*OPTION_PARAMS, "steps", "cfg")}
    if job.steps:
        prompt.scale_followers("steps", job.steps)
    for param, value in values.items():
        if value or param in PROMPT_PARAMS:
            prompt.write(workflow.bindings[param], value)
    if job.steps and not workflow.is_locked:  # of the locked one, the table is all that changes
        prompt.rescale_passes(workflow, job.steps)
    return prompt


def in_shape(size: Size, shape: str) -> Size:
    """Return the size of one of SHAPES with about as many pixels, in multiples of 64."""
    wide, high = SHAPES[shape]
    scale = math.sqrt(size.width * size.height / (wide * high)) / SIZE_STEP
    return Size(*(max(1, round(side * scale)) * SIZE_STEP for side in (wide, high)))


def rename_files(graph: Nodes, ending: str) -> None:
    """Let the saving nodes of a prompt begin their file names otherwise: they run again, and the
    rest comes from ComfyUI's cache (docs/comfyui.md)."""
    for inputs in (inputs_of(graph, node) for node in graph):
        if isinstance(inputs.get(FILE_NAME_INPUT), str):
            inputs[FILE_NAME_INPUT] += ending


def sampler_steps(graph: Nodes) -> dict[str, int]:
    """Return the steps of every sampler node, by node id, in the order in which they run."""
    order: dict[str, None] = {}

    def visit(node: str, path: frozenset[str]) -> None:
        if node not in graph or node in path or node in order:
            return
        for link in filter(None, map(Link.parse, inputs_of(graph, node).values())):
            visit(link.node, path | {node})
        order.setdefault(node)

    for node in graph:
        visit(node, frozenset())
    return {node: steps_of(graph, node) for node in order if is_sampler(graph, node)}


# Reading a graph


def _base_seed(graph: Nodes) -> tuple[Place, ...]:
    """Return the place of the number that the locked workflow's base pass runs with: its own, or
    that of the node it is linked to."""
    *_, last = chain(graph, BASE_PASS, SEED_INPUTS)
    return tuple(place for place in literal_seeds(graph) if place.node == last)[:1]


def _base_latent(graph: Nodes) -> dict[str, tuple[Place, ...]]:
    """Return the places of width, height and number of pictures in the node that the latent of the
    locked workflow's base pass comes from."""
    names = {"width": "width", "height": "height", "batch": "batch_size"}
    for node in chain(graph, BASE_PASS, LATENT_INPUTS):
        if node != BASE_PASS and inputs_of(graph, node).keys() >= {"width", "height"}:
            found = {param: source_of(graph, node, name) for param, name in names.items()}
            return {param: (place,) for param, place in found.items() if place is not None}
    return {}


# LoRAs


def _model_slots(graph: Nodes, node: str, outputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the slots at which a node gives out its model, and its CLIP if it has one; empty if it
    gives no model."""
    types = outputs.get(class_of(graph, node))
    if types is None:
        given = {user.name: slot for user, slot in users_of(graph, node).items()}
    else:
        names = {"MODEL": "model", "CLIP": "clip"}
        given = {name: types.index(kind) for kind, name in names.items() if kind in types}
    return {name: given[name] for name in ("model", "clip") if name in given and "model" in given}


def _lora_loader(lora: Lora, links: Mapping[str, Link]) -> dict[str, Any]:
    """Return a node of core ComfyUI, the one without CLIP where there is none."""
    inputs: dict[str, Any] = {name: [*link] for name, link in links.items()}
    inputs |= {"lora_name": lora.name, "strength_model": lora.strength}
    if "clip" not in links:
        return {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    return {"class_type": "LoraLoader", "inputs": {**inputs, "strength_clip": lora.strength}}


def _free_id(graph: Nodes, stem: str) -> str:
    return next(new for n in itertools.count(1) if (new := f"{stem}-{n}") not in graph)
