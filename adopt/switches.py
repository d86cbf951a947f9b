"""Resolve switch nodes: which input is active.

Pure. A switch is recognized by the names of its inputs, hardly ever by its class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from adopt.graph import Graph, Node

HANDED_ON = 20  # so many nodes may hand a setting on
SIDE_SETTINGS = ("switch", "boolean", "condition", "cond", "bool")
NUMBER_SETTINGS = ("select", "selected_index", "index", "choice", "input")
SETTINGS = frozenset((*SIDE_SETTINGS, *NUMBER_SETTINGS))
TRUE = re.compile(r"true|^yes|^on$|^tt_", re.I)
FALSE = re.compile(r"false|^no|^off$|^ff_", re.I)
FIRST, SECOND = re.compile(r"_a$", re.I), re.compile(r"_b$", re.I)
NUMBERED = re.compile(r"[a-z_ ]+?_?0*(\d+)", re.I)
ONE_KIND = re.compile(
    r"(any|ctx|input|value|text|string|model|image|latent|conditioning)_?0*\d+", re.I
)
NEGATES = re.compile(r"(?<![a-z])not(?![a-z])|Not(?=[A-Z])|negate|invert")


def active_inputs(graph: Graph, node: Node) -> tuple[str, ...]:
    """Return the inputs that a switch may let through: one, or all of them if its setting is not
    known; none if the node is no switch."""
    if node.id not in graph.ways:
        graph.ways[node.id] = _active_inputs(graph, node)
    return graph.ways[node.id]


def _active_inputs(graph: Graph, node: Node) -> tuple[str, ...]:
    inputs = [name for name in (*node.links, *node.values) if name.lower() not in SETTINGS]
    settings = [name for name in (*node.links, *node.values) if name.lower() in SETTINGS]
    if not any(name in node.links for name in inputs):
        return ()
    for name in settings:
        chosen = _chosen(name.lower(), _value(graph, node, name), inputs)
        if chosen is not None:
            return (chosen,)
    linked = [name for name in inputs if name in node.links]
    if not settings and _takes_first(node, linked):
        return (min(linked, key=_number),)
    return tuple(linked) if _branches(node, settings, linked) else ()


def _chosen(setting: str, value: object, inputs: list[str]) -> str | None:
    if isinstance(value, str) and value in inputs:
        return value
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if not isinstance(value, bool | int):
        return None
    if setting in SIDE_SETTINGS and value in (False, True):
        for sides in ((FALSE, TRUE), (SECOND, FIRST)):
            if all(any(map(side.search, inputs)) for side in sides) or sides[0] is FALSE:
                chosen = next(filter(sides[bool(value)].search, inputs), None)
                if chosen is not None:
                    return chosen
    if isinstance(value, bool):
        return None
    numbered = [name for name in inputs if NUMBERED.fullmatch(name)]
    if setting == "index" and 0 not in map(_number, numbered):
        return None  # it may count from none or from one
    return next((name for name in numbered if _number(name) == value), None)


def _value(graph: Graph, node: Node, name: str) -> object:
    """Return what an input is set to, there or in the nodes that hand it on; None if that cannot be
    seen."""
    negated = False
    for _ in range(HANDED_ON):
        link = node.links.get(name)
        if link is None:
            value = node.values.get(name)
            return not value if negated and value is not None else value
        node = graph.nodes[link.node]
        inputs = [n for n in (*node.links, *node.values) if "control_after" not in n]
        if len(inputs) != 1:
            return None
        name = inputs[0]
        negated = negated != bool(NEGATES.search(node.class_type))
    return None


def _takes_first(node: Node, linked: list[str]) -> bool:
    """Return whether a node takes the first of its inputs that there is."""
    is_any = "switch" in node.class_type.lower() and not node.values
    return is_any and all(map(ONE_KIND.fullmatch, linked))


def _branches(node: Node, settings: Iterable[str], linked: list[str]) -> bool:
    if len(linked) < 2:
        return False
    sides = any(map(TRUE.search, linked)) and any(map(FALSE.search, linked))
    numbered = len([name for name in linked if NUMBERED.fullmatch(name)]) > 1
    by_number = numbered and any(name.lower() in NUMBER_SETTINGS[:-1] for name in settings)
    return sides or by_number or "switch" in node.class_type.lower()


def _number(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found.group()) if found else 0
