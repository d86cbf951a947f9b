"""A workflow as a graph: its nodes, the places of their values, and the links between them.

Reads ComfyUI's API format and writes nothing. What is not a node has no inputs, and a link may lead
nowhere: the files are people's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# ComfyUI's API format: {node id: {"class_type": str, "inputs": {...}}}.
Nodes = dict[str, Any]

ASSUMED_STEPS = 20  # of a sampler whose steps come from another node, for its share of the progress
SEED_INPUTS = ("seed", "noise_seed")
SLOTS_MAX = 1_000_000  # no node has so many outputs, and a float above it may be infinite


class Place(NamedTuple):
    """An input of a node."""

    node: str
    name: str

    def __str__(self) -> str:
        return f"{self.node}.{self.name}"

    @classmethod
    def parse(cls, text: object) -> Place:
        """Reverse `str()`: the id ends at the first dot, and may hold colons. Raises ValueError for
        anything else."""
        node, dot, name = str(text).partition(".")
        if not isinstance(text, str) or not node or not dot or not name:
            raise ValueError(f'{text!r} is not of the form "<node id>.<input>"')
        return cls(node, name)


class Link(NamedTuple):
    """The value of an input that comes from another node: from the output `slot` of `node`."""

    node: str
    slot: int

    @classmethod
    def parse(cls, value: object) -> Link | None:
        """Return the link that an input holds, wherever it leads; None if it holds none."""
        if not isinstance(value, list) or len(value) != 2:
            return None
        node, slot = value
        is_number = isinstance(slot, int | float) and not isinstance(slot, bool)
        if not isinstance(node, str | int) or not is_number or not abs(slot) < SLOTS_MAX:
            return None
        return cls(str(node), int(slot))


def inputs_of(graph: Nodes, node: str) -> dict[str, Any]:
    """Return the inputs of a node, empty if it has none or is no node."""
    entry = graph.get(node)
    inputs = entry.get("inputs") if isinstance(entry, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def class_of(graph: Nodes, node: str) -> str:
    return str(graph[node].get("class_type"))


def users_of(graph: Nodes, source: str) -> dict[Place, int]:
    """Return the inputs that are linked to a node, with the slot that each takes."""
    users: dict[Place, int] = {}
    for node in graph:
        for name, value in inputs_of(graph, node).items():
            link = Link.parse(value)
            if link is not None and link.node == source:
                users[Place(node, name)] = link.slot
    return users


def chain(graph: Nodes, node: str, names: Sequence[str]) -> Iterator[str]:
    """Yield a node and those upstream of it, each by the first of these inputs that there is."""
    for _ in graph:  # no chain of links is longer than the graph, unless it is a circle
        yield node
        inputs = inputs_of(graph, node)
        link = Link.parse(next((inputs[name] for name in names if name in inputs), None))
        if link is None:
            return
        node = link.node


def source_of(graph: Nodes, node: str, *names: str) -> Place | None:
    """Return where the value of the first of these inputs stands: in the node itself, or upstream
    in the node that has such an input, or nothing but a number."""
    *_, last = chain(graph, node, names)
    inputs = inputs_of(graph, last)
    name = next((name for name in names if name in inputs), None)
    if name is None:
        numbers = [name for name, value in inputs.items() if type(value) is int]
        return Place(last, numbers[0]) if len(numbers) == 1 else None
    return None if isinstance(inputs[name], list) else Place(last, name)


def literal_seeds(graph: Nodes) -> Iterator[Place]:
    """Yield the place of every seed that stands in the graph as a number."""
    for node in graph:
        inputs = inputs_of(graph, node)
        yield from (Place(node, name) for name in SEED_INPUTS if type(inputs.get(name)) is int)


def is_sampler(graph: Nodes, node: str) -> bool:
    """Return whether the node reports sampling steps: it has all settings of its own, or takes the
    sigmas of another node."""
    names = inputs_of(graph, node).keys()
    return names >= {"steps", "sampler_name"} or names >= {"sigmas", "latent_image"}


def steps_of(graph: Nodes, node: str) -> int:
    """Return how many steps a sampler node does."""
    place = source_of(graph, node, "steps", "sigmas")
    steps = graph[place.node]["inputs"][place.name] if place else None
    return steps if isinstance(steps, int) and steps > 0 else ASSUMED_STEPS
