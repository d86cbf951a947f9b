"""The questions of `--adopt`, asked in a terminal: where the owner decides.

Owns what may be answered; what is not sure, and why, adopt/ says.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace

from adopt.analysis import Adoption
from adopt.finding import Finding
from graph import Nodes, Place
from text import truncate

VALUE_SHOWN = 60  # characters
Answer = dict[str, tuple[str, ...]]  # the places of each param that a question is about


def has_terminal() -> bool:
    """Return whether somebody can read a question and answer it."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def groups(adoption: Adoption) -> list[list[str]]:
    """Return the params of each question: the choice between nodes may be about several."""
    by_nodes: dict[tuple[str, ...], list[str]] = {}
    for param, candidates in adoption.not_sure.items():
        nodes = dict.fromkeys(Place.parse(place).node for place in candidates)
        by_nodes.setdefault((*nodes,) if len(nodes) > 1 else (param,), []).append(param)
    return list(by_nodes.values())


def ask_all(adoption: Adoption) -> Adoption:
    """Ask what is not sure, and return what is known then."""
    for params in groups(adoption):
        guess = {f.param: f.places for f in adoption.findings if f.param in params}
        answers = [guess, *_others(adoption, guess)]
        adoption = _with(adoption, _ask(adoption, answers) if len(answers) > 1 else guess)
    return adoption


def _others(adoption: Adoption, guess: Answer) -> Iterator[Answer]:
    """Yield what may be chosen instead of the guess, last nothing at all."""
    taken = {e for param, places in adoption.bindings.items() if param not in guess for e in places}
    free = {
        param: [e for e in adoption.not_sure[param] if e not in taken and _holds(adoption, e)]
        for param in guess
    }
    ids = dict.fromkeys(
        Place.parse(e).node if len(free) > 1 else e for e in itertools.chain(*free.values())
    )
    for id_ in ids:
        answer = {p: tuple(e for e in free[p] if id_ in (e, Place.parse(e).node)) for p in guess}
        if not all({*places} <= {*guess[param]} for param, places in answer.items()):
            yield answer
    if any(guess.values()) and "positive" not in guess:
        yield dict.fromkeys(guess, ())


def _ask(adoption: Adoption, answers: list[Answer]) -> Answer:
    """Show the answers by number, and return the one that is chosen; Enter takes the first."""
    for finding in (f for f in adoption.findings if f.param in answers[0]):
        print(f"\n{finding.param}: {finding.why}", end="")
    print(f"\nWhich is it for {', '.join(answers[0])}?")
    for number, answer in enumerate(answers, start=1):
        places = [e for places in answer.values() for e in places]
        said = "; ".join(_in_words(adoption.workflow, e) for e in places) or "none of them"
        print(f"  {number}  {said}")
    while True:
        text = _typed("Number, or Enter for 1: ") or "1"
        if text.isascii() and text.isdecimal() and 0 < int(text) <= len(answers):
            return answers[int(text) - 1]
        print(f"  Please type a number from 1 to {len(answers)}.")


def _typed(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        return ""


def _with(adoption: Adoption, answer: Answer) -> Adoption:
    """Return what is known with an answer; what follows a param does not hold its places, too."""
    chosen = {e for places in answer.values() for e in places}
    findings = []
    for finding in adoption.findings:
        places = answer.get(finding.param)
        if places is not None:
            finding = Finding(finding.param, places, "as you chose")
        elif not chosen.isdisjoint(finding.places):
            finding = replace(finding, places=tuple(e for e in finding.places if e not in chosen))
        findings.append(finding)
    return replace(adoption, findings=tuple(findings))


def _holds(adoption: Adoption, place: str) -> bool:
    """Return whether a job can write to a place: a value of its own stands there."""
    node, name = Place.parse(place)
    value = adoption.workflow[node]["inputs"].get(name)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _in_words(workflow: Nodes, place: str) -> str:
    node, name = Place.parse(place)
    value = json.dumps(workflow[node]["inputs"].get(name), ensure_ascii=False)
    return f"{name} of {workflow[node]['class_type']} {node}: {truncate(value, VALUE_SHOWN)}"
