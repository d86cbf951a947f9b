"""A param's places in a workflow, and the words in which the owner reads of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adopt.graph import Graph
from adopt.tracing import Traced
from graph import Place


@dataclass(frozen=True)
class Finding:
    """The `places` of a param, each "<node id>.<input>", and `why`, a line for the owner. If they
    are not sure, `candidates` are what it could be."""

    param: str
    places: tuple[str, ...]
    why: str
    candidates: tuple[str, ...] = ()


def found_at(param: str, traced: Traced, why: str) -> Finding:
    """Return the finding of what was traced."""
    return Finding(param, tuple(map(str, traced.places)), why, tuple(map(str, traced.candidates)))


def in_words(graph: Graph, places: Iterable[Place]) -> str:
    """Return places as a part of a sentence."""
    return listed(f"{place.name} of {graph.nodes[place.node]}" for place in places)


def listed(places: Iterable[str]) -> str:
    """Return a list as a part of a sentence."""
    *first, last = list(places) or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last


def together(found: Iterable[Traced]) -> Traced:
    """Return all that was found as one."""
    every = list(found)
    places = dict.fromkeys(place for traced in every for place in traced.places)
    doubts = dict.fromkeys(place for traced in every for place in traced.candidates)
    return Traced(tuple(places), tuple(doubts))


def or_else(traced: Traced, others: Iterable[Place]) -> Traced:
    """Return what is found, in doubt if it could be others as well."""
    new = [place for place in others if place not in traced.places]
    every = dict.fromkeys((*traced.places, *traced.candidates, *new))
    return Traced(traced.places, tuple(every)) if new else traced
