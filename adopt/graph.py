"""A workflow as a graph: its nodes, the links between them by slot, and what a node depends on.

Pure: reads the API format, and depends on no param of a job and no class of node. Takes any JSON:
what is not a node is not in the graph, and a link to nowhere is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graph import Link, Nodes, Place

NESTED = 4  # so deep may a workflow be wrapped: {"input": {"workflow": {"prompt": {…}}}}


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
    """The nodes of a workflow by id, and for each the inputs that are linked to it, with the slot
    that each takes."""

    nodes: Mapping[str, Node]
    users: Mapping[str, Mapping[Place, int]]
    ways: dict[str, tuple[str, ...]] = field(default_factory=dict)  # known by switches.py
    sampled: set[str] = field(default_factory=set)  # what depends on a sampler, known by passes.py

    def value(self, place: Place) -> str | int | float | bool | None:
        """Return the literal that stands at a place, if one does."""
        node = self.nodes.get(place.node)
        return node.values.get(place.name) if node else None

    def upstream(self, starts: Iterable[str]) -> dict[str, None]:
        """Return the nodes of `starts` and all they depend on, nearest first."""
        found = dict.fromkeys(node for node in starts if node in self.nodes)
        waiting = list(found)
        for node in waiting:  # grows as it goes
            for link in self.nodes[node].links.values():
                if link.node not in found:
                    found[link.node] = None
                    waiting.append(link.node)
        return found


def unwrap(document: object) -> Nodes:
    """Return the bare nodes in a document, without what wraps them and without the keys beside
    them; empty if there are none."""
    layer = [document]
    for _ in range(NESTED):
        for candidate in layer:
            nodes = _bare(candidate)
            if nodes:
                return nodes
        layer = [inner for outer in layer for inner in _inner(outer)]
    return {}


def build(workflow: Nodes) -> Graph:
    """Return the graph of bare nodes."""
    nodes = {id_: _node(id_, entry, workflow) for id_, entry in workflow.items()}
    users: dict[str, dict[Place, int]] = {}
    for node in nodes.values():
        for name, link in node.links.items():
            users.setdefault(link.node, {})[Place(node.id, name)] = link.slot
    return Graph(nodes, users)


def _node(id_: str, entry: Mapping[str, Any], workflow: Nodes) -> Node:
    inputs, meta = entry["inputs"], entry.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    links = {name: Link.parse(value) for name, value in inputs.items()}
    return Node(
        id_,
        entry["class_type"],
        title if isinstance(title, str) else "",
        inputs,
        {name: link for name, link in links.items() if link and link.node in workflow},
        {name: value for name, value in inputs.items() if isinstance(value, str | int | float)},
    )


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
