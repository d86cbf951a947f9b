"""The positive and the negative prompt of the base passes, and of those that go on with them.

Owns which passes share a prompt; which text of one is the person's is found by texts.py. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from adopt import refusals, tracing
from adopt.finding import Finding, found_at, in_words
from adopt.graph import Graph
from adopt.later import stages
from adopt.passes import LATENT, MEDIA_LINK, NotAdoptable, Pass, Passes
from adopt.texts import Part, Texts, Want
from adopt.tracing import Traced
from comfyui.object_info import ObjectInfo
from graph import Place

GOES_ON = re.compile(f"{LATENT.pattern}|{MEDIA_LINK.pattern}", re.I)


class Prompts:
    """The texts in one graph that a person writes."""

    def __init__(self, graph: Graph, passes: Passes, info: ObjectInfo | None) -> None:
        self._graph = graph
        self._passes = passes
        self._base = passes.base.node
        self._info = info

    def positive(self, image: Finding) -> Finding:
        """Find the person's text. Raises NotAdoptable if there is none, nor a picture to give."""
        texts = self._texts()
        finding = self._text(texts, "positive")
        if image.places:
            return finding
        if not finding.places or finding.candidates:
            refusals.refuse_described(self._graph, texts)
        if not finding.places:
            raise NotAdoptable(
                "no text of it reaches the sampler, so there is nowhere to write a prompt: put a"
                " text into a CLIPTextEncode node and export it again"
            )
        return finding

    def negative(self, positive: Finding) -> Finding:
        """Find the text of what shall not be in the picture, if there is one."""
        finding = self._text(self._texts(), "negative")
        if not finding.places and not finding.candidates:
            why = f"{finding.why} that could be found"
            unread = [str(place) for p in self._passes.bases for place in self._unread(p)]
            return Finding("negative", (), why if unread else finding.why, tuple(unread))
        if set(finding.places) <= set(positive.places):
            return Finding("negative", (), f"{self._base} takes no text as negative")
        return finding

    def _unread(self, p: Pass) -> Iterator[Place]:
        """Yield the negative of a pass, if it comes from somewhere and nothing has made it
        empty."""
        place = tracing.find_input(self._graph, p.node.id, "negative")
        link = self._graph.nodes[place.node].links.get(place.name) if place else None
        if place is None or link is None:
            return
        behind = tracing.along(
            self._graph, link.node, lambda _, n: bool(tracing.CONDITIONING.search(n))
        )
        nodes = (self._graph.nodes[link.node], *behind)
        if not any(tracing.ZEROED.search(node.class_type) for node in nodes):
            yield place

    def _texts(self) -> Texts:
        return Texts(self._graph, self._info, dead=Texts(self._graph, self._info))

    def _text(self, texts: Texts, want: Want) -> Finding:
        found: dict[Place, None] = {}
        doubts: dict[Place, None] = {}
        said = set()
        for part in (self._part(texts, p, want) for p in self._passes.bases):
            if part is not None:
                found.update(dict.fromkeys(part.places))
                doubts.update(dict.fromkeys(part.candidates))
                said.add(part.text.strip())
        if len(said) > 1:
            doubts.update(found)
        chain = stages(self._graph, self._passes)
        for later in self._passes.later:
            part = self._part(texts, later, want)
            if part is None or set(part.places) <= found.keys():
                continue
            if want == "negative" and not found:
                continue  # the base pass has made it empty
            text = part.text.strip()
            if later in chain or (text and text in said):
                found.update(dict.fromkeys(part.places))
                if text not in said:
                    doubts.update(found)
            elif found and text and any(map(GOES_ON.match, later.node.links)):
                doubts.update(dict.fromkeys((*found, *part.places)))
        if not found:
            return Finding(want, (), f"{self._base} takes no text as {want}")
        why = f"{in_words(self._graph, found)}, which {self._base} takes as {want}"
        if doubts:
            why += "; which of the texts is to be replaced is not certain"
        return found_at(want, Traced(tuple(found), tuple(doubts)), why)

    def _part(self, texts: Texts, p: Pass, want: Want) -> Part | None:
        place = tracing.find_input(self._graph, p.node.id, want)
        return texts.behind(place, want) if place is not None else None
