"""The fixed numbers beside a bound one that have to follow it: sizes behind the base pass, and
second counts of its steps. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import partial

from adopt import tracing
from adopt.graph import Graph, Node
from adopt.passes import LATENT, Pass, Passes
from adopt.tracing import NAMES
from binder import PASS_LIMITS
from graph import Place

KEEPS = re.compile(r"(keep|lock|maintain|preserve)\w*[ _]?(proportion|aspect|ratio)", re.I)
TILE = re.compile(r"tile", re.I)
MAKES_MASK = re.compile(r"mask|empty ?image", re.I)
STEP_COUNT = re.compile(
    r"^(step|steps?_to_run|(start|begin|end|last|stop|switch|split|refiner?)(_at)?_steps?"
    r"|steps?_(start|begin|end|last|stop|split|switch))$",
    re.I,
)
SAME_SHAPE = 0.03  # by so much may a later size differ from the shape of the first

Sides = tuple[Place, Place]  # where a width and its height stand


def later_sizes(graph: Graph, passes: Passes, base: Sides) -> Iterator[tuple[Sides, bool]]:
    """Yield the fixed sizes behind the base pass, and whether each has the shape of that of the
    base, so that it can follow it."""
    wide, high = (tracing.number(graph, place) for place in base)
    for node in _behind(graph, passes):
        for name in node.inputs:
            sides = _sides(graph, node, name)
            if sides is None or {*sides} & {*base} or _keeps_proportion(node):
                continue
            width, height = (tracing.number(graph, place) for place in sides)
            differs = abs(width * high - height * wide) > SAME_SHAPE * width * high
            differs = differs and not MAKES_MASK.search(node.class_type)  # of a part, perhaps
            if min(width, height) > 0 and not (differs and TILE.search(name)):
                yield sides, not differs


def later_steps(graph: Graph, passes: Passes, bound: Collection[Place]) -> Iterator[Place]:
    """Yield the numbers that count the `bound` steps once more: where a pass or its schedule begins
    or ends. A bound pass's own limits are left out: `binder.bind()` scales them."""
    for p in passes.every:
        counted = tracing.trace_param(graph, p.node.id, "steps", "number").places
        if not counted or not {*counted} <= {*bound}:
            continue
        schedule = tracing.along(graph, p.node.id, lambda _, name: name.startswith("sigmas"))
        holders = [graph.nodes[place.node] for place in counted]
        for node in dict.fromkeys((p.node.id, *(n.id for n in (*schedule, *holders)))):
            yield from _counts(graph, graph.nodes[node], tracing.number(graph, counted[0]))


def is_own_master(graph: Graph, passes: Passes, p: Pass) -> bool:
    """Return whether a later pass may count as much as the base pass: it begins late, and so
    may well go on with what that began, or it begins anew, from full noise."""
    if _step(graph, p, "start_at_step") or _cut(graph, p):
        return True
    starts = _step(graph, p, "denoise") == 1
    starts = starts or (
        p.node.values.get("add_noise") == "enable" and "start_at_step" in p.node.values
    )
    return starts and any(map(LATENT.match, p.node.links)) and passes.base.node.id in p.before


def stages(graph: Graph, passes: Passes) -> list[Pass]:
    """Return the base pass, and those that go on with its steps from where it ends."""
    chain, step = [passes.base], partial(_step, graph)
    for later in passes.later:
        last = chain[-1]
        begins = step(later, "start_at_step") if last.node.id in later.before else None
        ends = step(last, "end_at_step") if begins else None
        steps = step(last, "steps")
        if not begins or ends is None or steps != step(later, "steps"):
            continue
        if begins == ends or (steps is not None and ends < steps):
            chain.append(later)
    return chain


def _cut(graph: Graph, p: Pass) -> Place | None:
    """Return the number of steps that the schedule of a pass is cut at."""
    for node in tracing.along(graph, p.node.id, lambda _, n: n.startswith("sigmas")):
        if isinstance(node.values.get("step"), int) and node.values["step"]:
            return Place(node.id, "step")
    return None


def _step(graph: Graph, p: Pass, name: str) -> float | None:
    """Return the number behind an input that counts steps."""
    names = (*NAMES["steps"],) if name == "steps" else (name, "value")
    place = tracing.find_input(graph, p.node.id, "steps") if name == "steps" else None
    traced = tracing.literal(graph, place or Place(p.node.id, name), "number", names)
    return tracing.number(graph, traced.places[0]) if traced.places else None


def _counts(graph: Graph, node: Node, most: float) -> Iterator[Place]:
    for name in filter(STEP_COUNT.match, node.inputs):
        if name in PASS_LIMITS and name in node.values and "steps" in node.inputs:
            continue
        traced = tracing.literal(graph, Place(node.id, name), "number", (name, "value"))
        for place in () if traced.candidates else traced.places:
            if 0 < tracing.number(graph, place) <= most:
                yield place


def _behind(graph: Graph, passes: Passes) -> Iterator[Node]:
    """Yield the nodes that work on what the base passes made, and those that make masks for
    them."""
    bases = {p.node.id for p in passes.bases}
    alive = {node.id for node in passes.alive}
    later: dict[str, None] = {}
    waiting = [*bases]
    for current in waiting:
        users = {user.node for user in graph.users.get(current, {})} - bases
        waiting += (new := [user for user in users if user in alive and user not in later])
        later.update(dict.fromkeys(new))
    for node in (graph.nodes[inner] for inner in graph.upstream(later)):
        is_mask = not node.links and MAKES_MASK.search(node.class_type)
        if node.id in later or (is_mask and node not in passes.base.sources):
            yield node


def _sides(graph: Graph, node: Node, name: str) -> Sides | None:
    """Return where the numbers of a width and of the height beside it stand, if that is sure."""
    names = (name, re.sub("(?i)width", "height", name))
    if names[0] == names[1] or names[1] not in node.inputs:
        return None
    traced = [
        tracing.literal(graph, Place(node.id, side), "number", (side, "value")) for side in names
    ]
    if any(len(side.places) != 1 or side.candidates for side in traced):
        return None
    return traced[0].places[0], traced[1].places[0]


def _keeps_proportion(node: Node) -> bool:
    """Return whether a node fits a picture into its size without changing its shape."""
    for name, value in node.values.items():
        is_kept = value is True or value == "resize"
        if (KEEPS.search(name) and is_kept) or (isinstance(value, str) and KEEPS.search(value)):
            return True
    return False
