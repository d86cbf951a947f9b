"""Trace an input upstream to the literal that feeds it.

Owns what the field calls its inputs (`steps`, `noise_seed`, `text_g`, …) and how nodes hand values
on: primitives, pipes, switches, joined texts. Pure; decides nothing about a workflow as a whole.
Class names count only where neither the links nor the inputs' names say enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from adopt import switches
from adopt.graph import Graph, Node
from graph import Link, Place

Kind = Literal["number", "string"]

TRACED_NODES = 100  # so many nodes are followed one behind another
TRACED_INPUTS = 200  # so many inputs are looked at for one value: the file may be a trap
MARK_LENGTH = 200  # characters: no placeholder is longer

# The names of the inputs that take each param, the most specific first.
NAMES: dict[str, tuple[str, ...]] = {
    "sampler": ("sampler_name", "sampler"),
    "scheduler": ("scheduler", "scheduler_name"),
    "steps": (
        "steps",
        "num_inference_steps",
        "num_steps",
        "inference_steps",
        "sampling_steps",
        "steps_total",
        "override_steps",
    ),
    "cfg": (
        "cfg",
        "cfg_scale",
        "guidance_scale",
        "true_gs",
        "guidance",
        "cfg_conds",
        "override_cfg",
    ),
    "seed": ("seed", "noise_seed", "rand_seed", "seed_value", "seed_num"),
    "width": ("width", "empty_latent_width", "image_width", "latent_width", "width_override"),
    "height": ("height", "empty_latent_height", "image_height", "latent_height", "height_override"),
    "batch": ("batch_size", "num_images", "num_images_per_prompt", "batch", "batch_count"),
    "length": (
        "length",
        "num_frames",
        "frames",
        "video_frames",
        "frame_count",
        "frames_number",
        "max_frames",
    ),
    "positive": (
        "positive",
        "base_positive",
        "conditioning",
        "cond",
        "cond1",
        "positive_prompt",
        "positive_conditioning",
        "text_positive",
        "prompt",
        "text",
        "prompt_text",
        "primary_prompt",
    ),
    "negative": (
        "negative",
        "base_negative",
        "neg_conditioning",
        "negative_conditioning",
        "uncond",
        "negative_prompt",
        "text_negative",
        "neg_prompt",
    ),
    "model": (
        "ckpt_name",
        "unet_name",
        "base_ckpt_name",
        "gguf_name",
        "checkpoint",
        "checkpoint_name",
        "diffusion_model",
        "model_name",
        "model_path",
        "model",
        "model_type",
    ),
}
PIPE = re.compile(r"pipe|context$|ctx|tuple|^bus$|settings|param|embeds|^args$", re.I)
CARRIERS = {  # the links that carry one param, where PIPE carries several
    "seed": re.compile(r"^noise$"),
    "sampler": re.compile(r"^sampler$"),
    "scheduler": re.compile(r"^sigmas"),
    "steps": re.compile(r"^sigmas"),
    "cfg": re.compile(r"^guider$"),
    "positive": re.compile(r"^guider$"),
    "negative": re.compile(r"^guider$"),
    "model": re.compile(r"^guider$"),
}
NOTHING = re.compile(r"(?!)")
MODEL_LINK = re.compile(
    r"^(base_|input_|opt_|optional_)?(model|unet|diffusion_model)(_?[a-z0-9])?$", re.I
)
OTHER_MODEL = re.compile(
    r"^(model|unet)_?([a-z]|\d|neg\w*|uncond\w*|low\w*|high\w*)$"
    r"|^(neg\w*|uncond\w*|low\w*|high\w*)_(model|unet)$",
    re.I,
)
PLAIN_MODEL = re.compile(r"(?<!scale_)(?<!style_)model$", re.I)
MODEL_FILE = re.compile(r"\.(safetensors|ckpt|sft|gguf|pth?|bin)$", re.I)
MODEL_NAME = re.compile(r"model|checkpoint|ckpt|weights|variant|repo|version|pretrained", re.I)
NO_MODEL = re.compile(r"vae|lora|clip|type|device|precision|quant|attention|offload", re.I)

CONDITIONING = re.compile(r"(^|_)(cond\w*|positive|negative)($|_|\d)", re.I)
CLIP_LINK = re.compile(r"^(clip|text_encoder|t5|te)\d?$", re.I)
PICTURE_LINK = re.compile(r"^(image|images|pixels|img|picture|photo|video|frames)_?\d*$", re.I)
ZEROED = re.compile(r"zero\s*_?out", re.I)
NEGATIVE = re.compile(r"(^|_|\b)(neg(ative)?|uncond)(\d*)($|_|\b)", re.I)

PLACEHOLDER = re.compile(
    r"\s*(%[^%\s]+%|\{\{?[^{}|:]+\}?\}|\$\{?[^{}\s]+\}?|<[A-Z][A-Z_]+>|\[\[\w+\]\]"
    r"|<{1,2}\w*(prompt|text|seed|steps|image|model)\w*>{1,2}|\[[A-Z][A-Z_]+\]"
    r"|__[A-Z][A-Z_0-9]*__|#\w+#|@\w+@|[A-Z_]*(PLACEHOLDER|REPLACE)[A-Z_]*|[A-Z_]+_(PROMPT|TEXT|HERE))\s*"
)
BRIDGE = re.compile(r"\$[\w:.-]+-\d+")  # what a node writes of itself: the id of a picture it shows
NUMERAL = re.compile(r"\s*-?\d+(\.\d+)?\s*")
CALCULATES = re.compile(r"^(expr|formula|equation|operat)", re.I)
FLAG = re.compile(r"is_?float(\w*)", re.I)  # whether the one or the other number of a node counts


@dataclass(frozen=True)
class Traced:
    """The literals that something comes from; `candidates` if that is not sure."""

    places: tuple[Place, ...] = ()
    candidates: tuple[Place, ...] = ()


def is_placeholder(value: object) -> bool:
    """Return whether a value is another program's placeholder, and nothing else."""
    is_mark = isinstance(value, str) and PLACEHOLDER.fullmatch(value[: MARK_LENGTH + 1])
    return bool(is_mark) and not BRIDGE.fullmatch(str(value))


def fits(value: object, kind: Kind) -> bool:
    """Return whether a literal is of a kind: a number may be kept as text, and a placeholder stands
    for whatever is to be written there."""
    if kind == "string":
        return isinstance(value, str)
    if isinstance(value, str):
        return bool(NUMERAL.fullmatch(value)) or is_placeholder(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(graph: Graph, place: Place) -> float:
    """Return the number that stands at a place; nothing is 0."""
    value = graph.value(place)
    return float(value) if fits(value, "number") and not is_placeholder(value) else 0.0  # type: ignore[arg-type]


def named(node: Node, names: Iterable[str]) -> list[str]:
    """Return the inputs of a node that have one of these names, in capital letters or not."""
    own = {name.lower(): name for name in (*node.links, *node.values)}
    return [own[name] for name in names if name in own]


def find_input(graph: Graph, start: str, param: str) -> Place | None:
    """Return the input that takes a param, nearest to a sampling node: its own, or one of the nodes
    that it takes its pipe, guider, sigmas … from."""
    carrier = CARRIERS.get(param)
    waiting, seen = [start], {start}
    for current in waiting:
        node = graph.nodes[current]
        for name in named(node, NAMES[param]):
            is_carrier = carrier is not None and carrier.search(name)
            if name in node.values or (name in node.links and not is_carrier):
                return Place(current, name)
        for name, link in node.links.items():
            carries = PIPE.search(name) or (carrier is not None and carrier.search(name))
            if carries and link.node not in seen:
                seen.add(link.node)
                waiting.append(link.node)
    return None


def trace_param(
    graph: Graph, start: str, param: str, kind: Kind, given: Place | None = None
) -> Traced:
    """Trace a param of a sampling node to its literal, upstream of `given` or of what
    `find_input()` says. In doubt if a node has several inputs for it, or if there is one and
    nothing feeds it."""
    place = given or find_input(graph, start, param)
    if place is None:
        own = graph.nodes[start].inputs
        odd = [n for n in NAMES[param] if n in own and not CARRIERS.get(param, NOTHING).search(n)]
        return Traced((), tuple(Place(start, name) for name in odd[:1]))
    traced = literal(graph, place, kind, NAMES[param])
    if not traced.places and not traced.candidates:
        return Traced((), (place,))
    node = graph.nodes[place.node]
    others = [n for n in named(node, NAMES[param]) if n != place.name and n in node.values]
    others = [n for n in others if fits(node.values[n], kind)]
    if others and not traced.candidates:
        return Traced(traced.places, (*traced.places, *(Place(node.id, n) for n in others)))
    return traced


def literal(
    graph: Graph,
    place: Place,
    kind: Kind,
    names: Collection[str],
    seen: set[Place] | None = None,
) -> Traced:
    """Trace an input upstream to its literal. `names` are what nodes on the way call such a value,
    `seen` the inputs that have been traced already."""
    seen = set() if seen is None else seen
    calculated = False
    while len(seen) < TRACED_INPUTS:
        seen.add(place)
        node = graph.nodes[place.node]
        if place.name in node.values:
            is_sure = not calculated and not any(map(CALCULATES.search, node.values))
            return _standing(node, place, kind, is_sure=is_sure, names=names)
        if place.name not in node.links:
            return Traced()
        link = node.links[place.name]
        inside = graph.nodes[link.node]
        inner = [e for e in _handed_on(graph, link, kind, names) if e not in seen]
        if len(inner) != 1:
            every = [literal(graph, e, kind, names, seen) for e in inner]
            return _one_of(every, is_either=bool(switches.active_inputs(graph, inside)))
        place = inner[0]
        measured = PICTURE_LINK.match(place.name) is not None
        made = place.name not in names and (measured or _calculates(inside))
        calculated = calculated or (kind == "number" and made)
    return Traced()


def _standing(
    node: Node, place: Place, kind: Kind, *, is_sure: bool, names: Collection[str]
) -> Traced:
    """Return what is found at a literal; not sure if the value is changed on its way from there."""
    value = node.values[place.name]
    if not fits(value, kind):
        is_written = kind == "number" and isinstance(value, str)
        return Traced((place,) if is_written else (), (place,))
    if is_sure:
        return Traced((place,))
    is_primitive = len(node.values) == 1 or place.name.lower() in names
    return Traced((place,) if is_primitive else (), (place,))


def _one_of(every: Sequence[Traced], *, is_either: bool) -> Traced:
    """Return what is found behind several inputs, if it cannot be seen which one counts, or how."""
    found = [place for traced in every for place in (*traced.places, *traced.candidates)]
    first = next((traced.places for traced in every if traced.places), ())
    return Traced(first if is_either else (), tuple(dict.fromkeys(found)))


def _calculates(node: Node) -> bool:
    """Return whether a node makes another number out of the one it takes: it has a text for it."""
    texts = [name for name, value in node.values.items() if isinstance(value, str) and value]
    if not node.links or any(map(PIPE.search, node.links)):
        return False
    return any(not re.search("control_after|mode$", name) for name in texts)


def _handed_on(graph: Graph, link: Link, kind: Kind, names: Collection[str]) -> list[Place]:
    """Return the inputs of a node that the value it hands on at a slot may come from."""
    node = graph.nodes[link.node]
    for name in named(node, names):
        if name in node.links or fits(node.values.get(name), kind):
            return [Place(node.id, name)]
    ways = switches.active_inputs(graph, node) or tuple(filter(PIPE.search, node.links))
    if ways:
        return [Place(node.id, name) for name in ways]
    own = [name for name, value in node.values.items() if fits(value, kind)]
    own = [name for name in own if "control_after" not in name and name != "unique_id"]
    if node.links:
        # with numbers of its own beside what it is handed, it may well calculate
        return [Place(node.id, name) for name in (*node.links, *own)]
    telling = [
        name for name in own if name.lower() in ("value", "int", "float", "number", "string")
    ]
    return [Place(node.id, name) for name in telling[:1] or _counting(node, link.slot, own)]


def _counting(node: Node, slot: int, numbers: list[str]) -> list[str]:
    """Return which number of a node counts at a slot, if flags beside them say so: `Xi`, `Xf` and
    `isfloatX` at the first, `Yi`, `Yf` and `isfloatY` at the next."""
    flags = {found[1]: node.values[found[0]] for found in map(FLAG.fullmatch, node.values) if found}
    sides = [stem + ("f" if flags[stem] else "i") for stem in sorted(flags)]
    if slot < len(sides) and sides[slot] in numbers:
        return [sides[slot]]
    return [name for name in numbers if not FLAG.fullmatch(name)]


def model_input(graph: Graph, start: str) -> Place | None:
    """Return the link that a sampling node takes its model from: its own, its guider's, its
    pipe's."""
    waiting, seen = [start], {start}
    for current in waiting:
        node = graph.nodes[current]
        models = [name for name in ("model", "base_model", "unet") if name in node.links]
        models += [name for name in node.links if PLAIN_MODEL.search(name)]
        if models:
            return Place(current, models[0])
        carriers = [name for name in node.links if PIPE.search(name) or name == "guider"]
        for link in (node.links[name] for name in carriers):
            if link.node not in seen:
                seen.add(link.node)
                waiting.append(link.node)
    return None


def model(graph: Graph, start: Place, depth: int = 4) -> Traced:
    """Trace a model to the file name in its loader, through whatever patches it and `depth`
    switches whose setting cannot be seen; in doubt if other models are merged into it."""
    traced, merged = _loaded(graph, start, depth)
    found = dict.fromkeys(traced.places)
    for other in merged:
        found.update(dict.fromkeys(_loaded(graph, other, 0)[0].places))
    return Traced(traced.places, tuple(found)) if len(found) > 1 else traced


def models_beside(graph: Graph, start: str) -> list[Place]:
    """Return the file names of the other models that a sampling node, or its guider, samples
    with."""
    found: dict[Place, None] = {}
    for node in (graph.nodes[start], *along(graph, start, lambda _, name: name == "guider")):
        others = [name for name in node.links if OTHER_MODEL.match(name)]
        for traced in (model(graph, Place(node.id, name)) for name in others):
            found.update(dict.fromkeys(traced.places))
    return list(found)


def _loaded(graph: Graph, place: Place, depth: int) -> tuple[Traced, list[Place]]:
    """Return the file name behind a model's link, and the links of what is merged into it on the
    way."""
    merged: list[Place] = []
    for _ in range(TRACED_NODES):
        link = graph.nodes[place.node].links.get(place.name)
        if link is None:
            break
        node = graph.nodes[link.node]
        ways = switches.active_inputs(graph, node)
        if len(ways) > 1:
            every = [model(graph, Place(node.id, name), depth - 1) for name in ways if depth]
            return _one_of(every, is_either=True), merged
        patched = list(ways) or [name for name in node.links if MODEL_LINK.match(name)]
        own = None if patched else find_input(graph, node.id, "model")
        if own is not None:
            return _model_name(graph, own), merged
        odd = [name for name in NAMES["model"] if isinstance(node.inputs.get(name), dict)]
        if odd and not patched:
            return Traced((), (Place(node.id, odd[0]),)), merged
        patched = patched or (list(node.links) if len(node.links) == 1 else [])
        if not patched:
            return _file_in(node), merged
        merged += [Place(node.id, name) for name in patched[1:]]
        place = Place(node.id, patched[0])
    return Traced((place,)) if fits(graph.value(place), "string") else Traced(), merged


def _model_name(graph: Graph, place: Place) -> Traced:
    """Trace a model's name to its literal: of several texts, to the one that names a file."""
    traced = literal(graph, place, "string", (*NAMES["model"], "value"))
    files = [e for e in traced.candidates if MODEL_FILE.search(str(graph.value(e)))]
    return Traced((files[0],)) if len(files) == 1 else traced


def _file_in(node: Node) -> Traced:
    """Return the model that a loader names under an unknown name: its file, or else what is called
    like a model."""
    texts = {name: str(value) for name, value in node.values.items() if fits(value, "string")}
    texts = {name: text for name, text in texts.items() if text and not NO_MODEL.search(name)}
    named = [name for name in texts if MODEL_NAME.search(name)]
    names = [name for name, text in texts.items() if MODEL_FILE.search(text)] or named
    found = tuple(Place(node.id, name) for name in names)
    return Traced(found[:1], found if len(found) > 1 else ())


def model_behind(graph: Graph, start: str) -> Traced:
    """Trace the model of a sampling node that takes no model, but all that belongs to it."""
    behind = along(graph, start, lambda _, name: bool(PIPE.search(name)))
    loaders = (_file_in(node) for node in behind if not node.links)
    return next((traced for traced in loaders if traced.places), Traced())


def along(graph: Graph, start: str, follow: Callable[[Node, str], bool]) -> Iterator[Node]:
    """Yield the nodes upstream of `start` over the inputs of a node that `follow` takes, nearest
    first."""
    waiting, seen = [start], {start}
    for current in waiting:
        node = graph.nodes[current]
        if current != start:
            yield node
        for name, link in node.links.items():
            if follow(node, name) and link.node not in seen:
                seen.add(link.node)
                waiting.append(link.node)


def conditioned(graph: Graph, start: str) -> Iterator[Node]:
    """Yield the nodes that the positive of a sampling node comes through, encoded."""
    place = find_input(graph, start, "positive")
    link = graph.nodes[place.node].links.get(place.name) if place else None
    if link is not None:
        yield graph.nodes[link.node]
        yield from along(graph, link.node, lambda node, name: _conditions(graph, node, name))


def _conditions(graph: Graph, node: Node, name: str) -> bool:
    """Return whether the positive comes through an input of a node."""
    ways = switches.active_inputs(graph, node)
    return name in ways if ways else bool(CONDITIONING.search(name) and not NEGATIVE.search(name))
