"""The texts of a workflow: which of them is the person's to write.

Owns what the field calls the inputs that take texts, and how likely a text is the prompt. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from adopt import switches
from adopt.graph import Graph, Node
from adopt.tracing import (
    CLIP_LINK,
    CONDITIONING,
    NEGATIVE,
    PICTURE_LINK,
    PIPE,
    TRACED_NODES,
    ZEROED,
    is_placeholder,
)
from comfyui.object_info import ObjectInfo
from graph import Link, Place

Want = Literal["positive", "negative"]
TEXT_READ = 20_000  # characters of a text that are looked at
CLOSE = 4.0  # texts whose likelihoods differ by less are candidates together
TEXT = re.compile(
    r"(^|_|\b)(texts?|strings?|prompts?|part|positive|negative|t5\w*|clip_[lgh]|llama\w*|caption|tags|wildcards?"
    r"|value|populated)(\d*)($|_|\b)",
    re.I,
)
ENCODER_TEXT = re.compile(r"_[gl]\d?$|^t5|^clip_[lgh]$|^llama", re.I)
NO_TEXT = re.compile(
    r"^ban_|exclude|delim|separat|mode|method|parser|normali[sz]ation|interpret|format|style|system|template"
    r"|preset|select|control_after|seed|_name$|_path$|file|device|dtype|type$|lora|wt$|weight"
    r"|language|code|expression|console|regex|add_text|log_|speak|output|choose|resolution|ratio",
    re.I,
)
NO_STRING = re.compile(r"clip|model|vae|image|mask|latent|samples", re.I)
DISPLAY = re.compile(r"show|display|preview|debug|inspect", re.I)
POSITIVE = re.compile(r"(^|_|\b)pos(itive)?(\d*)($|_|\b)", re.I)
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
class Part:
    """A text that could be the person's: its places, its words, and how likely it is theirs."""

    places: tuple[Place, ...]
    text: str
    likely: float
    candidates: tuple[Place, ...] = ()


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
            return [Part(p.places, p.text, p.likely) for p in both]
        is_encoder = encodes or all(ENCODER_TEXT.search(name) for name in names)
        if is_encoder and len(names) > 1 and not self._conditions(node):
            return _in_each(map(likeliest, each))
        linked = [
            p for name, parts in zip(names, each, strict=True) for p in parts if name in node.links
        ]
        if not encodes and any(part.text.strip(" ,.") for part in linked):
            fixed = (name in node.values for name in names)
            each = [_fixed(p) if f else p for f, p in zip(fixed, each, strict=True)]
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
            found.append(Part(places, part.text, part.likely, part.candidates))
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


def _fixed(parts: list[Part]) -> list[Part]:
    """Return the texts of a joining node beside one of another node: they are its fixed part."""
    return [Part(p.places, p.text, p.likely - 5, p.candidates) for p in parts]


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
        doubts |= places  # the author keeps a text of its own for each
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
    text = text[:TEXT_READ]
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
