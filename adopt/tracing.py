"""Trace an input upstream to the literal that feeds it.

Owns what the field calls its inputs (`steps`, `noise_seed`, `text_g`, …) and how nodes hand values
on: primitives, pipes, switches, joined texts. Pure; decides nothing about a workflow as a whole.
Class names count only where neither the links nor the inputs' names say enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adopt import switches
from adopt.graph import Graph, Node
from binder import Link, Place
from comfyui.object_info import ObjectInfo

Kind = Literal["number", "string"]
Want = Literal["positive", "negative"]

TRACED_NODES = 100  # so many nodes are followed one behind another
CLOSE = 4.0  # texts whose likelihoods differ by less cannot be told apart

# The names of the inputs that take each thing, the most telling first.
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
# Links that carry the things of a job in one bundle, and those that carry one of them.
PIPE = re.compile(r"pipe|context$|ctx|tuple|^bus$|settings|param|embeds|^args$", re.I)
CARRIERS = {
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

CONDITIONING = re.compile(r"(^|_)(cond\w*|positive|negative)($|_|\d)", re.I)
TEXT = re.compile(
    r"(^|_|\b)(texts?|strings?|prompts?|part|positive|negative|t5\w*|clip_[lgh]|llama\w*|caption|tags|wildcards?"
    r"|value|populated)(\d*)($|_|\b)",
    re.I,
)
ENCODER_TEXT = re.compile(r"_[gl]\d?$|^t5|^clip_[lgh]$|^llama", re.I)
NO_TEXT = re.compile(
    r"^ban_|exclude|delim|separat|mode|method|parser|normali[sz]ation|interpret|format|style|system|template"
    r"|preset|select|control_after|seed|_name$|_path$|file|device|dtype|type$|lora|wt$|weight"
    r"|language|regex|add_text|log_|speak|output|choose|resolution|ratio",
    re.I,
)
NO_STRING = re.compile(r"clip|model|vae|image|mask|latent|samples", re.I)
CLIP_LINK = re.compile(r"^(clip|text_encoder|t5|te)\d?$", re.I)
PICTURE_LINK = re.compile(r"^(image|images|pixels|img|picture|photo|video|frames)_?\d*$", re.I)
DISPLAY = re.compile(r"show|display|preview|debug|inspect", re.I)
ZEROED = re.compile(r"zero\s*_?out", re.I)
POSITIVE = re.compile(r"(^|_|\b)pos(itive)?(\d*)($|_|\b)", re.I)
NEGATIVE = re.compile(r"(^|_|\b)(neg(ative)?|uncond)(\d*)($|_|\b)", re.I)

PLACEHOLDER = re.compile(
    r"\s*(%[^%\s]+%|\{\{?\s*[^{}|:]+?\s*\}?\}|\$\{?[^{}\s]+\}?|<[A-Z][A-Z_]+>|\[\[\w+\]\]"
    r"|<{1,2}\w*(prompt|text|seed|steps|image|model)\w*>{1,2}|\[[A-Z][A-Z_]+\]"
    r"|__[A-Z][A-Z_0-9]*__|#\w+#|@\w+@|[A-Z_]*PLACEHOLDER[A-Z_]*|[A-Z_]+_(PROMPT|TEXT|HERE))\s*"
)
CALCULATES = re.compile(r"^(expr|formula|equation|operat)", re.I)
FLAG = re.compile(r"is_?float(\w*)", re.I)  # whether the one or the other number of a node counts
PERSONAL = re.compile(
    r"\b(user|your|main|subject|prompt|positive|negative|input|scene|description|character)s?\b",
    re.I,
)
FIXED = re.compile(
    r"\b(styles?|prefix|suffix|quality|triggers?|loras?|system|template|instructions?|extra|append"
    r"|prepend|embeddings?|default|fixed|common|constant|static|always|permanent|global)\b",
    re.I,
)
INSTRUCTS = re.compile(
    r"^\W*(you are|you're|your (sole |only )?task|act as|role:)|system.?prompt|<.?im_start"
    r"|prompt engineer|^\W*rewrite the",
    re.I,
)
PRAISE = re.compile(
    r"masterpiece|best quality|high(est)? quality|highly detailed|high detail|ultra|[48]k\b|uhd"
    r"|hdr|sharp focus|photorealis|realistic|award|cinematic|score_\d|absurdres|very aesthetic"
    r"|professional|intricate|newest|highres",
    re.I,
)


@dataclass(frozen=True)
class Traced:
    """The literals that something comes from; `candidates` if that is not sure."""

    places: tuple[Place, ...] = ()
    candidates: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Part:
    """A text that could be the person's: its places, its words, and how likely it is theirs."""

    places: tuple[Place, ...]
    text: str
    likely: float
    candidates: tuple[Place, ...] = ()


def is_placeholder(value: object) -> bool:
    """Return whether a value is another program's placeholder, and nothing else."""
    return isinstance(value, str) and bool(PLACEHOLDER.fullmatch(value))


def fits(value: object, kind: Kind) -> bool:
    """Return whether a literal is of a kind; a placeholder stands for whatever is to be written
    there."""
    if kind == "string":
        return isinstance(value, str)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number or is_placeholder(value)


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
    for _ in range(TRACED_NODES):
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
            return literal(graph, own, "string", (*NAMES["model"], "value")), merged
        odd = [name for name in NAMES["model"] if isinstance(node.inputs.get(name), dict)]
        if odd and not patched:
            return Traced((), (Place(node.id, odd[0]),)), merged
        patched = patched or (list(node.links) if len(node.links) == 1 else [])
        if not patched:
            return _file_in(node), merged
        merged += [Place(node.id, name) for name in patched[1:]]
        place = Place(node.id, patched[0])
    return Traced((place,)) if fits(graph.value(place), "string") else Traced(), merged


def _file_in(node: Node) -> Traced:
    """Return the model file that a loader names under an unknown name."""
    files = [name for name, value in node.values.items() if MODEL_FILE.search(str(value))]
    files = [name for name in files if not re.search("vae|lora|clip", name, re.I)]
    found = tuple(Place(node.id, name) for name in files)
    return Traced(found[:1], found if len(found) > 1 else ())


class Texts:
    """The texts upstream of conditioning and strings."""

    def __init__(self, graph: Graph, info: ObjectInfo | None, dead: Texts | None = None) -> None:
        self._graph = graph
        self._info = info
        self._known: dict[tuple[Link, Want], list[Part]] = {}  # what has been followed already
        self._dead = dead  # follows what a switch does not let through
        self.described: list[Node] = []  # nodes on the way that put a picture into words

    def behind(self, place: Place, want: Want) -> Part | None:
        """Return the person's text behind an input; None if there is none to write."""
        return likeliest(self._input(place, want, 0))

    def _input(self, place: Place, want: Want, depth: int) -> list[Part]:
        node = self._graph.nodes[place.node]
        value = node.values.get(place.name)
        if isinstance(value, str):
            return [Part((place,), value, _likelihood(node, place.name, value))]
        link = node.links.get(place.name)
        if link is None or depth > TRACED_NODES:
            return []
        if (link, want) not in self._known:
            self._known[link, want] = []  # what a circle leads back to has no text of its own
            parts = self._output(link, want, depth + 1)
            self._known[link, want] = _distinct(parts)
        hint = _hint(place.name)
        parts = self._known[link, want]
        return [Part(p.places, p.text, p.likely + hint, p.candidates) for p in parts]

    def _output(self, link: Link, want: Want, depth: int) -> list[Part]:
        """Return the texts in what a node gives out at a slot."""
        node = self._graph.nodes[link.node]
        if ZEROED.search(node.class_type):
            return []
        want = self._by_slot(node, link.slot, want)
        ways = switches.active_inputs(self._graph, node)
        if ways:
            parts = [p for name in ways for p in self._input(Place(node.id, name), want, depth)]
            return _either(parts) if len(ways) > 1 else self._twins(node, ways[0], parts, want)
        encodes = any(CLIP_LINK.match(name) for name in node.links)
        if not encodes and not self._conditions(node) and self._reads_picture(node):
            self.described.append(node)
            return []
        names = self._text_inputs(node, want, link.slot)
        if not names:
            return self._unnamed(node, want, depth)
        each = [self._input(Place(node.id, name), want, depth) for name in names]
        if set(names) == {"wildcard_text", "populated_text"}:
            # which of them counts depends on the node's mode, so the prompt goes into both
            both = _in_each(map(likeliest, each))
            return [Part(p.places, p.text, p.likely, p.places) for p in both]
        is_encoder = encodes or all(ENCODER_TEXT.search(name) for name in names)
        if is_encoder and len(names) > 1 and not self._conditions(node):
            return _in_each(map(likeliest, each))
        parts = [part for parts in each for part in parts]
        return _replacement(node, parts) if _replaces(node) else parts

    def _twins(self, node: Node, chosen: str, live: list[Part], want: Want) -> list[Part]:
        """Return what comes through a switch; where its other side says the same, the prompt goes
        there too."""
        if self._dead is None:
            return live
        names = [n for n in (*node.links, *node.values) if n.lower() not in switches.SETTINGS]
        others = [Place(node.id, name) for name in names if name != chosen]
        dead = [p for place in others for p in self._dead._input(place, want, 0)]
        found = []
        for part in live:
            same = [p for p in dead if p.text == part.text and p.text.strip()]
            places = tuple(dict.fromkeys(place for p in (part, *same) for place in p.places))
            is_twin = len(places) > len(part.places)
            doubts = places if is_twin else part.candidates
            found.append(Part(places, part.text, part.likely, doubts))
        return found

    def _by_slot(self, node: Node, slot: int, want: Want) -> Want:
        """Return which of the two a slot of a node gives, if it has both: the lower is the
        positive."""
        names = (*node.links, *node.values)
        both = any(POSITIVE.search(n) for n in names) and any(NEGATIVE.search(n) for n in names)
        if not both:
            return want
        if self._info is not None:
            outputs = self._info.output_types(node.class_type)
            kind = outputs[slot] if 0 <= slot < len(outputs) else None
            same = [index for index, output in enumerate(outputs) if output == kind]
            if len(same) == 2:
                return "positive" if slot == same[0] else "negative"
        users = self._graph.users.get(node.id, {}).items()
        lowest = min((s for user, s in users if NEGATIVE.search(user.name)), default=slot)
        highest = max((s for user, s in users if POSITIVE.search(user.name)), default=slot)
        if lowest >= highest:
            return want
        return "negative" if want == "positive" else "positive"

    def _conditions(self, node: Node) -> bool:
        return any(CONDITIONING.search(name) for name in node.links)

    def _reads_picture(self, node: Node) -> bool:
        return any(PICTURE_LINK.match(name) for name in node.links)

    def _text_inputs(self, node: Node, want: Want, slot: int) -> list[str]:
        """Return the inputs of a node that its text comes from, of the wanted kind."""
        conditioning = [n for n in node.links if CONDITIONING.search(n)]
        texts = [n for n in node.links if TEXT.search(n) and not NO_TEXT.search(n)]
        texts = [n for n in texts if not CLIP_LINK.match(n)]
        shows = bool(node.links) and bool(DISPLAY.search(node.class_type))
        if not shows:
            texts += [n for n, v in node.values.items() if self._is_text(node, n, v)]
        if _replaces(node):
            texts += [name for name in ("replace",) if name in (*node.links, *node.values)]
        names = list(dict.fromkeys([*conditioning, *texts]))
        pipes = [name for name in node.links if PIPE.search(name)]
        names = _of_kind(names, want, bool(pipes))
        if "text" in names:
            names = [n for n in names if not ENCODER_TEXT.search(n) or node.values.get(n) != ""]
        names = [name for name in names if name in conditioning] or names
        names = names or pipes
        says = not shows and any(map(_is_said, node.values.items()))
        if not names and len(node.links) == 1 and not says:
            names = [name for name in node.links if not NO_STRING.search(name)]
        if not node.links and slot < len(names) and self._several_slots(node):
            return [names[slot]]
        return names

    def _unnamed(self, node: Node, want: Want, depth: int) -> list[Part]:
        """Return the texts of a node whose inputs have unknown names, all of them in doubt."""
        names = [name for name in (*node.links, *node.values) if not NO_TEXT.search(name)]
        names = [name for name in names if not NO_STRING.search(name)]
        return _in_doubt(
            [p for name in names for p in self._input(Place(node.id, name), want, depth)]
        )

    def _several_slots(self, node: Node) -> bool:
        return len({*self._graph.users.get(node.id, {}).values()}) > 1

    def _is_text(self, node: Node, name: str, value: Any) -> bool:
        if not isinstance(value, str) or NO_TEXT.search(name):
            return False
        if self._info is None or node.class_type not in self._info:
            return bool(TEXT.search(name))
        is_named = TEXT.search(name) and self._info.choices(node.class_type, name) is None
        return bool(is_named) or self._info.is_long_text(node.class_type, name)


def _is_said(item: tuple[str, object]) -> bool:
    """Return whether a value is a text of several words, under whatever name."""
    name, value = item
    return isinstance(value, str) and " " in value.strip() and not NO_TEXT.search(name)


def _of_kind(names: list[str], want: Want, has_pipe: bool) -> list[str]:
    """Return those of the names that are of one kind; names that say neither count if none says it,
    and what has a pipe leaves to it what it has not itself."""
    wanted, other = (POSITIVE, NEGATIVE) if want == "positive" else (NEGATIVE, POSITIVE)
    telling = [name for name in names if wanted.search(name)]
    if telling:
        return telling
    if any(other.search(name) for name in names):
        plain = [name for name in names if not other.search(name)]
        return plain if plain or len(names) > 1 or has_pipe else names
    return names


def _in_doubt(parts: list[Part]) -> list[Part]:
    """Return the texts, each with all of them as candidates."""
    every = tuple(dict.fromkeys(place for part in parts for place in part.places))
    return [Part(p.places, p.text, p.likely, every) for p in parts]


def _either(parts: list[Part]) -> list[Part]:
    return _in_doubt(parts) if len({part.places for part in parts}) > 1 else parts


def _in_each(chosen: Iterable[Part | None]) -> list[Part]:
    """Return one text for all inputs of an encoder: the prompt goes into each."""
    parts = [part for part in chosen if part is not None]
    if not parts:
        return []
    places = dict.fromkeys(place for part in parts for place in part.places)
    doubts = dict.fromkeys(place for part in parts for place in part.candidates)
    if len({place.node for place in places}) > 1 and len({part.text.strip() for part in parts}) > 1:
        doubts |= places  # somebody keeps a text of its own for each
    longest = max(parts, key=lambda part: len(part.text))
    return [Part(tuple(places), longest.text, longest.likely, tuple(doubts))]


def _replaces(node: Node) -> bool:
    return "replace" in {*node.values, *node.links} and "find" in {*node.values, *node.links}


def _replacement(node: Node, parts: list[Part]) -> list[Part]:
    """Return, for a node that puts one text into another, the one that is put in, if its place is
    there."""
    place, text = node.values.get("find"), node.values.get("string", node.values.get("text"))
    if not (isinstance(place, str) and isinstance(text, str) and place and place in text):
        return parts
    around = Place(node.id, "string" if "string" in node.values else "text")
    return [part for part in parts if around not in part.places] or parts


def _likelihood(node: Node, name: str, text: str) -> float:
    """Return how likely a text is the person's, by where it stands and how it reads."""
    likely = _hint(name) + _hint(_own_title(node))
    likely += 0 if any(map(CLIP_LINK.match, node.links)) else 1  # a node for the text alone
    likely += 2 * (len([v for v in node.values.values() if isinstance(v, str)]) == 1)
    if is_placeholder(text) or re.search(r"\{\{?\w+\}?\}|%\w+%|placeholder", text):
        likely += 9
    words = [word for word in re.split(r"[\s,]+", text) if word]
    praise = sum(len(found.group().split()) for found in PRAISE.finditer(text))
    if words:
        likely -= 5 * min(1.0, praise / len(words))
    likely -= 6 * bool(INSTRUCTS.search(text))
    if len(words) < 2 and not _is_kept_free(node, text):
        likely -= 2
    return likely + min(len(words), 40) / 40


def _own_title(node: Node) -> str:
    """Return the title that the author gave a node; empty if it has that of its class."""
    plain = re.sub(r"\(.*?\)|[^a-z]", "", node.title.lower())
    return "" if plain == re.sub(r"[^a-z]", "", node.class_type.lower()) else node.title


def _is_kept_free(node: Node, text: str) -> bool:
    """Return whether an empty text is kept for the prompt, by the title that the author gave it."""
    return not text.strip() and _hint(_own_title(node)) > 0


def _hint(name: str) -> float:
    plain = re.sub(r"[_\d]+", " ", name)
    return 1.5 * bool(PERSONAL.search(plain)) - 4.5 * bool(FIXED.search(plain))


def _distinct(parts: Iterable[Part]) -> list[Part]:
    """Return the likeliest of the parts that stand in the same places."""
    found: dict[tuple[Place, ...], Part] = {}
    for part in parts:
        known = found.get(part.places)
        if known is None or known.likely < part.likely:
            found[part.places] = part
    return list(found.values())


def likeliest(parts: Iterable[Part]) -> Part | None:
    """Return the likeliest of several texts, with the others as candidates if they are as
    likely."""
    ranked = sorted(_distinct(parts), key=lambda part: -part.likely)
    if not ranked:
        return None
    best = ranked[0]
    close = [part for part in ranked if part.likely > best.likely - CLOSE]
    if best.text.strip(" ,."):
        close = [p for p in close if p.text.strip(" ,.") or p.likely > best.likely - 1]
    if len(close) < 2:
        return best
    doubts = dict.fromkeys(place for part in close for place in part.places)
    return Part(best.places, best.text, best.likely, tuple(doubts))


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
