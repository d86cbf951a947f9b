"""Workflows that cannot be driven, beside those that passes.py refuses.

Owns how it shows that a person would have to give a picture, or another program a value. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from adopt import passes, tracing
from adopt.finding import listed
from adopt.graph import Graph, Node
from adopt.passes import (
    ASKS_PICTURE,
    FILE_INPUTS,
    LATENT,
    LOADS_PICTURE,
    PICTURE,
    NotAdoptable,
    loads_picture,
)
from adopt.texts import Texts
from adopt.tracing import NAMES
from graph import Place

SHOWN = re.compile(r"^(?!.*(vision|mask|proj)).*(image|picture|pixels|photo)", re.I)
EDITS = re.compile(r"edit|reference|kontext|instruct", re.I)
SOUGHT = re.compile(r"^(find|search|pattern|regex|old|placeholder)", re.I)
COUNTED = ("steps", "cfg", "seed", "width", "height", "batch", "length")
NUMBER_INPUTS = frozenset({"denoise", *(name for param in COUNTED for name in NAMES[param])})


def refuse_described(graph: Graph, texts: Texts) -> None:
    """Refuse a prompt that is the description of a picture."""
    for node in texts.described:
        behind = (graph.nodes[inner] for inner in graph.upstream([node.id]))
        given = next(filter(loads_picture, behind), None)
        if given is not None:
            raise NotAdoptable(
                f"its prompt is what {node} says of the picture of {given}, which would have to"
                " come from the person: export a text-to-image workflow"
            )


def refuse_edited(graph: Graph, base: Node) -> None:
    """Refuse a prompt that says how to edit a loaded picture."""
    for node in tracing.conditioned(graph, base.id):
        # A picture beside a text in an encoder is what is to be edited, if it is taken as latents.
        encodes = "vae" in node.links or "edit" in node.class_type.lower()
        encodes = encodes and any(tracing.CLIP_LINK.match(name) for name in node.links)
        shown = [n for n in node.links if SHOWN.search(n)]
        encodes = encodes or bool(EDITS.search(node.class_type))
        refers = [n for n in node.links if LATENT.match(n) or n == "pixels"]
        inputs = (shown if encodes else []) + refers
        for inner in graph.upstream(node.links[name].node for name in inputs):
            if loads_picture(graph.nodes[inner]):
                raise NotAdoptable(
                    f"it edits the picture of {graph.nodes[inner]}, which would have to"
                    " come from the person: export a text-to-image workflow"
                )


def refuse_asked(alive: Iterable[Node]) -> None:
    """Refuse what another program would have to put a picture into."""
    for node in alive:
        values = [value for name, value in node.values.items() if PICTURE.match(name)]
        open_ones = any(map(_is_open, values))
        asks = bool(ASKS_PICTURE.search(node.class_type))
        if asks or (open_ones and LOADS_PICTURE.search(node.class_type)):
            raise NotAdoptable(
                f"{node} needs a picture from the person: export a workflow that needs none, or"
                " one with a fixed picture"
            )


def refuse_placeholders(graph: Graph, alive: Iterable[Node], texts: Collection[str]) -> None:
    """Refuse a template of another program; the places in `texts` are the person's to write."""
    left = []
    for node in alive:
        if not graph.users.get(node.id) and not passes.is_sampling(node):
            continue  # what a saving node makes of it is its own affair
        for name, value in node.values.items():
            if FILE_INPUTS.match(name) or SOUGHT.match(name) or str(Place(node.id, name)) in texts:
                continue
            is_odd = name in NUMBER_INPUTS and isinstance(value, str) and value.isupper()
            if is_odd or tracing.is_placeholder(value):
                left.append(f"{value} in {name} of {node}")
    if left:
        raise NotAdoptable(
            f"it is another program's template: it has the marks {listed(left[:3])}; put values in"
            " their place in ComfyUI, and use Workflow > Export (API) there"
        )


def _is_open(value: object) -> bool:
    """Return whether the value of a picture-loading node names no picture yet."""
    return (
        tracing.is_placeholder(value)
        or value == ""
        or (str(value).isupper() and "." not in str(value))
    )
