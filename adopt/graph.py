"""A workflow as a graph: its nodes, the links between them by slot, and what a node depends on.

Pure: reads the API format, modifies nothing, and knows no param of a job and no class of node.
Takes any JSON: what is not a node is not in the graph, and a link to nowhere leads nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from binder import Nodes

NESTED = 4  # so deep may a workflow be wrapped: {"input": {"workflow": {"prompt": {…}}}}


class Link(NamedTuple):
    """Where an input's value comes from: the output `slot` of a node."""

    node: str
    slot: int


class Entry(NamedTuple):
    """One input of one node."""

    node: str
    name: str

    def __str__(self) -> str:
        return f"{self.node}.{self.name}"


class Use(NamedTuple):
    """One link, seen from the node whose output it takes."""

    node: str  # the node that takes it
    name: str  # the input of that node
    slot: int


@dataclass(frozen=True)
class Node:
    """A node: `links` are its inputs that come from a node that exists, `values` its literals."""

    id: str
    class_type: str
    title: str
    inputs: Mapping[str, Any]
    links: Mapping[str, Link]
    values: Mapping[str, str | int | float | bool]

    def __str__(self) -> str:
        return f"{self.class_type} {self.id}"


@dataclass(frozen=True)
class Graph:
    """The nodes of a workflow by id, and who takes what from whom."""

    nodes: Mapping[str, Node]
    uses: Mapping[str, tuple[Use, ...]] = field(default_factory=dict)

    def value(self, entry: Entry) -> str | int | float | bool | None:
        """The literal that stands at an entry, if one does."""
        node = self.nodes.get(entry.node)
        return node.values.get(entry.name) if node else None

    def upstream(
        self, starts: Iterable[str], past: re.Pattern[str] | None = None
    ) -> dict[str, None]:
        """The nodes of `starts` and all they depend on, nearest first; what comes in by inputs
        whose names `past` matches does not count."""
        found = dict.fromkeys(node for node in starts if node in self.nodes)
        waiting = list(found)
        for node in waiting:  # grows as it goes
            for name, link in self.nodes[node].links.items():
                if link.node not in found and not (past and past.match(name)):
                    found[link.node] = None
                    waiting.append(link.node)
        return found


def unwrap(document: object) -> Nodes:
    """The bare nodes in a document: without what wraps them, and without the keys beside them.
    Empty if there are none."""
    layer = [document]
    for _ in range(NESTED):
        for candidate in layer:
            nodes = _bare(candidate)
            if nodes:
                return nodes
        layer = [inner for outer in layer for inner in _inner(outer)]
    return {}


def build(workflow: Nodes) -> Graph:
    """The graph of bare nodes."""
    nodes: dict[str, Node] = {}
    uses: dict[str, list[Use]] = {}
    for node, entry in workflow.items():
        inputs = entry["inputs"]
        links = {name: link for name, link in _links(inputs) if link.node in workflow}
        values = {
            name: value for name, value in inputs.items() if isinstance(value, str | int | float)
        }
        meta = entry.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        nodes[node] = Node(
            node,
            entry["class_type"],
            title if isinstance(title, str) else "",
            inputs,
            links,
            values,
        )
        for name, link in links.items():
            uses.setdefault(link.node, []).append(Use(node, name, link.slot))
    return Graph(nodes, {node: tuple(taken) for node, taken in uses.items()})


def _bare(document: object) -> Nodes:
    if not isinstance(document, dict):
        return {}
    return {str(key): value for key, value in document.items() if _is_node(value)}


def _is_node(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("class_type"), str)
        and isinstance(value.get("inputs"), dict)
    )


def _inner(document: object) -> Iterator[object]:
    if isinstance(document, dict):
        yield from (value for value in document.values() if isinstance(value, dict))


def _links(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Link]]:
    for name, value in inputs.items():
        if is_link(value):
            yield name, Link(str(value[0]), int(value[1]))


def is_link(value: object) -> bool:
    """Whether an input's value has the form of a link, wherever it leads."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str | int)
        and isinstance(value[1], int | float)
        and not isinstance(value[1], bool)
        and abs(value[1]) < 1e6
    )
