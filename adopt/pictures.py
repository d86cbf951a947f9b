"""The pictures that a workflow loads: which of them a person gives with a job. Pure.

Owns what makes a loaded picture one that is worked on, where others are styles or poses that stay
in the file, and the refusal of what a person cannot give: a mask, a picture as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from adopt import switches, tracing
from adopt.finding import Finding, found_at, in_words
from adopt.graph import Graph, Node
from adopt.passes import (
    ASKS_PICTURE,
    LATENT,
    LOADS_PICTURE,
    PICTURE,
    NotAdoptable,
    Pass,
    Passes,
    feeds,
    is_empty,
    loads_picture,
    material,
)
from adopt.tracing import Traced
from comfyui.object_info import ObjectInfo
from graph import Place

SHOWN = re.compile(
    r"^(?!.*(vision|mask|proj)).*(image|picture|pixels|photo)|(start|first|end|last)_frame", re.I
)
EDITS = re.compile(r"edit|reference|kontext|instruct", re.I)
MASK = re.compile(r"mask", re.I)
NO_FILE = re.compile(
    r"base64|b64|url|path|mask", re.I
)  # of a class that takes no file of ComfyUI's
LOAD_IMAGE = "put a LoadImage node in its place, and export it again"


def find_image(graph: Graph, passes: Passes, info: ObjectInfo | None) -> Finding:
    """Find the picture that a person gives, if they give one. Raises NotAdoptable if the workflow
    needs one that the bot cannot put there."""
    nodes = {n.id: n for p in passes.bases for n in _worked_on(graph, p)}
    if not passes.bases:
        nodes = {n.id: n for n in passes.alive if n.id in passes.way and loads_picture(n)}
    _refuse_masked(graph, passes)
    given = [_file_input(node, info) or _no_file(node) for node in nodes.values()]
    if given:
        why = f"{in_words(graph, given[:1])}: the picture that it works on"
        return found_at("image", Traced((*given[:1],), tuple(given if given[1:] else ())), why)
    _refuse_brought(graph, passes)
    reached = [node for node in _reached(graph, passes.way) if loads_picture(node)]
    loaded = {node.id: _file_input(node, info) for node in reached}
    beside = [place for place in loaded.values() if place is not None]
    opened = [place for place in beside if _is_open(graph.value(place))]
    for node in (node for node in reached if _asks(node) and not loaded[node.id]):
        raise NotAdoptable(f"{node} needs a picture from the person: {LOAD_IMAGE}")
    if opened:
        why = f"{in_words(graph, opened)}: the file leaves it open"
        return found_at("image", Traced((*opened[:1],), tuple(opened if opened[1:] else ())), why)
    if len(beside) == 1:
        why = f"{in_words(graph, beside)} may be the person's, or stay as in the file"
        return found_at("image", Traced((), (*beside,)), why)
    return Finding("image", (), "pictures in the file stay as they are" if beside else "no picture")


def _reached(graph: Graph, starts: Iterable[str]) -> list[Node]:
    """Return the nodes that some depend on, but for what a switch keeps back."""
    found = {id_: graph.nodes[id_] for id_ in starts}
    waiting = list(found.values())
    for node in waiting:
        ways = switches.active_inputs(graph, node) or node.links
        inner = [graph.nodes[node.links[name].node] for name in ways if name in node.links]
        new = {n.id: n for n in inner if n.id not in found}
        waiting += new.values()
        found |= new
    return waiting


def _worked_on(graph: Graph, p: Pass) -> Iterator[Node]:
    """Yield the loaded pictures that a pass begins with, is shown as frames, or refers to."""
    if not any(map(is_empty, p.sources)):
        yield from filter(loads_picture, p.sources)
    starts = [(node, _shown(graph, node)) for node in (p.node, *p.latents)]
    edits = [(node, _edited(node)) for node in tracing.conditioned(graph, p.node.id)]
    for node, names in (*starts[::-1], *edits[::-1]):  # the first picture is the farthest
        for name in names:
            _, _, sources = material(graph, [graph.nodes[node.links[name].node]])
            yield from filter(loads_picture, sources)


def _shown(graph: Graph, node: Node) -> list[str]:
    """Return the inputs at which a node takes pictures beside what it goes on with."""
    own = feeds(graph, node)
    return [name for name in node.links if SHOWN.search(name) and name not in own]


def _edited(node: Node) -> list[str]:
    """Return the inputs at which a node on the way of the prompt takes what is to be edited."""
    # A picture beside a text in an encoder is what is to be edited, if it is taken as latents.
    encodes = "vae" in node.links or "edit" in node.class_type.lower()
    encodes = encodes and any(tracing.CLIP_LINK.match(name) for name in node.links)
    is_frame = bool(tracing.named(node, tracing.NAMES["length"]))
    shown = encodes or is_frame or bool(EDITS.search(node.class_type))
    names = [name for name in node.links if shown and SHOWN.search(name)]
    return names + [name for name in node.links if LATENT.match(name) or name == "pixels"]


def _refuse_masked(graph: Graph, passes: Passes) -> None:
    """Refuse to repaint a part of a picture that a loaded mask marks."""
    for p in passes.bases:
        for node in (p.node, *p.latents, *tracing.conditioned(graph, p.node.id)):
            masks = [link for name, link in node.links.items() if MASK.search(name)]
            behind = [graph.nodes[inner] for inner in graph.upstream(link.node for link in masks)]
            links = [*masks, *(link for inner in behind for link in inner.links.values())]
            for link in links:
                loader = graph.nodes[link.node]
                is_mask = link.slot > 0 or MASK.search(loader.class_type)
                if is_mask and loads_picture(loader):
                    raise NotAdoptable(
                        f"{node} repaints what the mask of {loader} marks, and people can give a"
                        " picture, but no mask: export a workflow without one"
                    )


def _refuse_brought(graph: Graph, passes: Passes) -> None:
    """Refuse a picture that is encoded without any node that could have made or loaded it."""
    for p in passes.bases[:1]:
        behind = graph.upstream(node.id for node in p.sources)
        encoded = any("vae" in n.links and any(map(PICTURE.match, n.links)) for n in p.latents)
        if encoded and not any(is_empty(graph.nodes[node]) for node in behind):
            _no_file(p.sources[0])


def _no_file(node: Node) -> Place:
    raise NotAdoptable(
        f"it works on the picture of {node}, which the bot cannot put there: {LOAD_IMAGE}"
    )


def _file_input(node: Node, info: ObjectInfo | None) -> Place | None:
    """Return the input of a node that names the file of its picture, as uploads are named."""
    for name, value in node.values.items():
        known = info is not None and node.class_type in info
        is_file = info.takes_upload(node.class_type, name) if info and known else name == "image"
        if is_file and isinstance(value, str) and not NO_FILE.search(node.class_type):
            return Place(node.id, name)
    return None


def _asks(node: Node) -> bool:
    """Return whether another program would have to put a picture into a node."""
    if ASKS_PICTURE.search(node.class_type):
        return True
    values = [value for name, value in node.values.items() if PICTURE.match(name)]
    return any(map(_is_open, values)) and bool(LOADS_PICTURE.search(node.class_type))


def _is_open(value: object) -> bool:
    """Return whether the value of a picture-loading node names no picture yet."""
    return (
        tracing.is_placeholder(value)
        or value == ""
        or (str(value).isupper() and "." not in str(value))
    )
