"""Workflows that cannot be driven, beside those of passes.py and pictures.py.

Owns how it shows that another program would have to put in a value. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from adopt import passes, tracing
from adopt.finding import listed
from adopt.graph import Graph, Node
from adopt.passes import FILE_INPUTS, NotAdoptable, loads_picture
from adopt.texts import Texts
from adopt.tracing import NAMES
from graph import Place

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


def refuse_placeholders(alive: Iterable[Node], texts: Collection[str]) -> None:
    """Refuse a template of another program; the places in `texts` are the person's to write."""
    left = []
    for node in alive:
        if passes.saves(node, None) and not passes.is_sampling(node):
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
