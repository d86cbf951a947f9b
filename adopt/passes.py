"""The sampling passes of a workflow, in their order, and what the picture starts from.

Owns what makes a node a saving, a sampling or a picture-loading one, and the refusals that follow
from it: nothing saved, nothing sampled, nothing that Discord can show. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from adopt import switches, tracing
from adopt.graph import Graph, Node, build
from adopt.tracing import NAMES, PIPE
from binder import FILE_NAME_INPUT
from comfyui.object_info import ObjectInfo
from graph import Link, Nodes, Place

LATENT = re.compile(r"^(latents?|samples?|base_latent|optional_latent|stage_\w)(_\w+)?$", re.I)
PICTURE = re.compile(
    r"^(image\w*|input_image|base_image|pixels|img|pictures?|destination|source|background"
    r"|foreground)(_?\d+)?$",
    re.I,
)
NOT_PICTURE = re.compile(
    r"model|clip|vae|positive|negative|cond|mask|control|style|upscale|sam|detector|hook|lora|text"
    r"|prompt|width|height|size|seed|noise|sigmas|guider|sampler|steps|cfg|scale|factor|reference",
    re.I,
)
SIZE = re.compile(r"width|resolution|aspect|ratio|dimension|megapixel", re.I)
PROMPT_INPUTS = frozenset(
    {"prompt", "positive", "positive_prompt", "prompt_text", "primary_prompt"}
)
SAMPLING_INPUTS = frozenset({"sampler_name", "sampler", "guider", "sigmas"})
FILE_INPUTS = re.compile(
    r"^(file_?name\w*|save_prefix|prefix|(output_?|save_?)?(path|folder|dir|directory))$", re.I
)
SAVES = re.compile(r"save|output|export|write|upload", re.I)  # of a class, as those below
SAVES_NOWHERE = re.compile(r"preview|compar|websocket|display|show", re.I)
PREVIEWS = re.compile(r"preview|websocket", re.I)
ELSEWHERE = re.compile(  # programs that a saving node gives its picture to
    r"krita|photoshop|blender|gimp|canvas|touch ?designer|discord|telegram|webhook|clipboard", re.I
)
FIRST_FRAME = re.compile(r"^((start|first|init)_(image|frame)|image)$", re.I)
SAVE_IMAGE = "SaveImage"
PICTURE_FILE = re.compile(r"\.(png|jpe?g|webp|bmp|gif|tiff?)(\s*\[\w+\])?$", re.I)
LOADS_PICTURE = re.compile(r"load\w*\s?(image|latent)|image\w*\s?load|image\s?from", re.I)
ASKS_PICTURE = re.compile(r"(external|base64|input_?)\w*image|image\w*base64", re.I)
MOTION = re.compile(r"animatediff|\bade_|(?<!e)motion", re.I)
VIDEO = re.compile(r"video|vhs_|webm|gif|animat|mp4|frame.?rate|\bfps\b", re.I)
MEDIA_LINK = re.compile(r"^(video|audio|frames)$", re.I)
MEDIA_FILE = re.compile(r"\.(mp4|mov|mkv|webm|avi|gif|mp3|wav|flac|ogg|m4a)(\s*\[\w+\])?$", re.I)
LOADS_MEDIA = re.compile(r"load_?\s?(video|audio)(?!.*(model|vae|encoder))", re.I)
MODEL_3D = re.compile(r"(?<![a-z])3d|glb\b|(save|export)\w*mesh|splat|\bstl\b", re.I)


class NotAdoptable(Exception):
    """Why a workflow cannot be driven, and what to do: a sentence for the owner."""


@dataclass(frozen=True)
class Pass:
    """A sampling node: `latents` are the nodes that its picture material comes through, `before`
    the sampling nodes whose result it works on, and `sources` where the material begins."""

    node: Node
    latents: tuple[Node, ...]
    before: tuple[str, ...]
    sources: tuple[Node, ...]


@dataclass(frozen=True)
class Passes:
    """The passes that lead to a saved picture; `bases` are those that others build on: one, unless
    several pictures are made side by side. `alive` are all nodes that reach an output, `rivals`
    passes that make a picture out of nothing too, a part of the saved one. `is_video` says whether
    what they make is saved as a video, `way` has the nodes that the saved picture comes through.
    Without a sampler, there is no pass: a picture is worked on otherwise."""

    alive: tuple[Node, ...]
    every: tuple[Pass, ...]
    bases: tuple[Pass, ...]
    rivals: tuple[Pass, ...] = ()
    is_video: bool = False
    way: frozenset[str] = frozenset()

    @property
    def base(self) -> Pass:
        return self.bases[0]

    @property
    def later(self) -> tuple[Pass, ...]:
        return tuple(p for p in self.every if p not in self.bases)


def find_passes(graph: Graph, savers: list[str]) -> Passes:
    """Return the passes of a workflow. Raises NotAdoptable if it saves or samples nothing, or
    starts from what a person must give."""
    if not savers:
        raise NotAdoptable(_unsaved(graph))
    alive = tuple(graph.nodes[node] for node in _behind_pictures(graph, savers))
    sampling = [node for node in alive if is_sampling(node)] or list(_generators(graph, alive))
    way = _way(graph, savers)
    if not sampling:
        loaded = any(loads_picture(graph.nodes[node]) for node in way)
        if any(map(_loads_media, alive)) or not loaded:
            raise NotAdoptable(_nothing_samples(alive))
        return Passes(alive, (), (), way=way)
    every = tuple(_pass(graph, node) for node in sampling)
    bases = _bases(graph, every, way)
    is_video = any(_saves_video(graph.nodes[saver]) for saver in savers)
    passes = Passes(alive, every, bases, _rivals(every, bases, way), is_video, way)
    _refuse_played(graph, passes)
    if not is_video:
        _refuse_frames(graph, passes)
    return passes


def with_saved_previews(workflow: Nodes, info: ObjectInfo | None) -> tuple[Nodes, tuple[str, ...]]:
    """Return a workflow that saves: one that only previews its pictures gets a SaveImage in the
    place of its last preview. With it goes a line on each change, for the owner."""
    graph = build(workflow)
    nodes = graph.nodes.values()
    if any(saves(node, info) or _makes_3d(graph, node) for node in nodes):
        return workflow, ()
    taken = {node.id: _shown(node) for node in nodes if PREVIEWS.search(node.class_type)}
    shown = {id_: link for id_, link in taken.items() if link is not None}
    sources = dict.fromkeys(link.node for link in shown.values())
    links = [link.node for source in sources for link in graph.nodes[source].links.values()]
    before = graph.upstream(links)
    last = [source for source in sources if source not in before]
    sampled = {source for source in last if any(map(is_sampling, _behind(graph, source)))}
    saved = dict(workflow)
    notes = []
    for node in (node for node in nodes if not shown and "image_output" in node.values):
        saved[node.id] = {**workflow[node.id], "inputs": {**node.inputs, "image_output": "Save"}}
        notes.append(f"image_output of {node} is now Save: it kept no picture")
    for node in (graph.nodes[id_] for id_, link in shown.items() if link.node in sampled):
        inputs = {"images": [*shown[node.id]], FILE_NAME_INPUT: "ComfyGen"}
        saved[node.id] = {**workflow[node.id], "class_type": SAVE_IMAGE, "inputs": inputs}
        notes.append(f"{SAVE_IMAGE} now stands in the place of {node}, which keeps no picture")
    return saved, tuple(notes)


def _behind(graph: Graph, node: str) -> Iterator[Node]:
    return map(graph.nodes.__getitem__, graph.upstream([node]))


def _shown(node: Node) -> Link | None:
    """Return where the picture comes from that a node takes."""
    return next((link for name, link in node.links.items() if PICTURE.match(name)), None)


def is_sampling(node: Node) -> bool:
    """Return whether a node samples: it takes the settings for it, and something to sample from."""
    names = {*node.links, *node.values}
    picture = any(PICTURE.match(name) for name in node.links)
    if picture and any(FILE_INPUTS.match(name) for name in names):
        return False  # a saving node that writes these settings into the file
    counted = names & {*NAMES["steps"]} and names & {*NAMES["seed"], *NAMES["cfg"]}
    given = picture or any(_gives(name) for name in node.links)
    return bool(
        (names & SAMPLING_INPUTS and given) or (counted and (given or names & PROMPT_INPUTS))
    )


def loads_picture(node: Node) -> bool:
    """Return whether a node brings a picture from a file."""
    by_class = bool(LOADS_PICTURE.search(node.class_type) or ASKS_PICTURE.search(node.class_type))
    if node.links and not by_class:
        return False
    return by_class or any(PICTURE_FILE.search(str(value)) for value in node.values.values())


def _gives(name: str) -> bool:
    """Return whether a link of this name gives a sampling node something to work on."""
    patterns = (LATENT.match, PIPE.search, tracing.CONDITIONING.search)
    return name == "guider" or any(matches(name) for matches in patterns)


def savers_of(graph: Graph, info: ObjectInfo | None) -> list[str]:
    """Return the nodes that save what the bot can fetch and Discord can show."""
    nodes = graph.nodes.values()
    return [node.id for node in nodes if saves(node, info) and not _makes_3d(graph, node)]


def _unsaved(graph: Graph) -> str:
    """Say why there is nothing to fetch, and what to do."""
    nodes = graph.nodes.values()
    solid = next((node for node in nodes if _makes_3d(graph, node)), None)
    if solid is not None:
        return (
            f"{solid} makes a 3D model, which Discord cannot show: export a workflow that ends in"
            " SaveImage"
        )
    sent = next((n for n in nodes if ELSEWHERE.search(n.class_type) and _takes_result(n)), None)
    if sent is not None:
        return (
            f"{sent} hands the picture to another program, where the bot cannot fetch it: put a"
            " SaveImage node in its place, and export it again"
        )
    return (
        "it saves no picture: put a SaveImage node at its end (a preview is not kept, and what goes"
        " out by WebSocket is not in ComfyUI's history), and export it again"
    )


def _behind_pictures(graph: Graph, savers: list[str]) -> dict[str, None]:
    """Return the saving nodes and what their pictures depend on, without what only names the
    files."""
    starts = dict.fromkeys(savers)
    for node in (graph.nodes[saver] for saver in savers):
        pictures = [link.node for name, link in node.links.items() if PICTURE.match(name)]
        starts |= dict.fromkeys(pictures or [link.node for link in node.links.values()])
    return dict.fromkeys(savers) | graph.upstream(node for node in starts if node not in savers)


def _makes_3d(graph: Graph, node: Node) -> bool:
    names = " ".join((node.class_type, *node.links, *node.values)).replace("_", " ")
    return not graph.users.get(node.id) and bool(MODEL_3D.search(names))


def _saves_video(node: Node) -> bool:
    names = (node.class_type, *node.links, *node.values)
    return any(VIDEO.search(name.replace("_", " ")) for name in names)


def saves(node: Node, info: ObjectInfo | None) -> bool:
    if re.search("save", str(node.values.get("image_output")), re.I):
        return True  # a sampling node that saves what it makes
    if not _takes_result(node) or ELSEWHERE.search(node.class_type):
        return False
    if info is not None and node.class_type in info and not info.puts_out(node.class_type):
        return False
    if any(FILE_INPUTS.match(name) for name in (*node.values, *node.links)):
        return True
    return bool(SAVES.search(node.class_type)) and not SAVES_NOWHERE.search(node.class_type)


def _takes_result(node: Node) -> bool:
    return any(PICTURE.match(name) or MEDIA_LINK.match(name) for name in node.links)


def _generators(graph: Graph, alive: tuple[Node, ...]) -> Iterator[Node]:
    """Yield the nodes that make a picture out of a text in a way that their inputs do not show."""
    for node in alive:
        takers = (graph.nodes[user.node] for user in graph.users.get(node.id, ()))
        used = any(map(_takes_result, takers))
        fed = any(PICTURE.match(name) for name in node.links)
        if used and not fed and PROMPT_INPUTS & {*node.links, *node.values}:
            yield node


def _nothing_samples(alive: tuple[Node, ...]) -> str:
    played = next(filter(_loads_media, alive), None)
    if played is not None:
        return _needs_media(played)
    return "nothing in it samples a picture out of a text: export a text-to-image workflow"


def _pass(graph: Graph, node: Node) -> Pass:
    latents, before, sources = material(graph, [node])
    return Pass(node, tuple(latents[1:]), tuple(before), tuple(sources))


def material(graph: Graph, starts: list[Node]) -> tuple[list[Node], list[str], list[Node]]:
    """Return the nodes that the picture material of some comes through, nearest first, the
    sampling nodes where it ends before, and the nodes where it begins."""
    found = {node.id: node for node in starts}
    before: list[str] = []
    sources: list[Node] = []
    waiting = [*starts]
    for current in waiting:
        ways = feeds(graph, current)
        if not ways:
            sources.append(current)
        for name in ways:
            inner = graph.nodes[current.links[name].node]
            if inner.id in found:
                continue
            found[inner.id] = inner
            if is_sampling(inner):
                before.append(inner.id)
            else:
                waiting.append(inner)
    return list(found.values()), before, sources


def feeds(graph: Graph, node: Node) -> list[str]:
    """Return the inputs that a node takes its picture from, as latents or pixels."""
    ways = switches.active_inputs(graph, node)
    if ways:
        return [name for name in ways if name in node.links]
    if _makes_frames(node):  # of a video, after a first one that was sampled perhaps
        frames = [name for name in node.links if FIRST_FRAME.match(name)]
        return [name for name in frames if _is_sampled(graph, node.links[name].node)]
    latents = [name for name in node.links if LATENT.match(name)]
    pictures = [name for name in node.links if PICTURE.match(name)]
    if latents or pictures:
        return latents or pictures
    if any(SIZE.search(name) for name in (*node.values, *node.links)):
        return [name for name in node.links if name == "input"]
    pipes = [name for name in node.links if PIPE.search(name)]
    return pipes or [name for name in node.links if not NOT_PICTURE.search(name)]


def _bases(graph: Graph, every: tuple[Pass, ...], way: frozenset[str]) -> tuple[Pass, ...]:
    """Return the passes on the way of the saved picture that start from an empty one and from no
    other pass."""
    first = [p for p in every if p.sources and not p.before]
    if not first:
        raise NotAdoptable("its sampling nodes feed each other in a circle: export it again")
    first = [p for p in first if p.node.id in way] or first
    empty = [p for p in first if any(map(is_empty, p.sources))]
    fed = [p for p in first if not any(map(loads_picture, p.sources))]
    first = empty or fed or first
    ids = {p.node.id for p in first}
    alone = [p for p in first if not graph.upstream([p.node.id]).keys() & (ids - {p.node.id})]
    return tuple(alone or first)


def _is_sampled(graph: Graph, node: str) -> bool:
    """Return whether a picture comes from a sampling node."""
    if not graph.sampled:
        waiting = [id_ for id_, inner in graph.nodes.items() if is_sampling(inner)]
        graph.sampled.update(("", *waiting))
        for current in waiting:
            new = {user.node for user in graph.users.get(current, ())} - graph.sampled
            waiting += new
            graph.sampled.update(new)
    return node in graph.sampled


def animates(p: Pass) -> bool:
    """Return whether a pass makes a video, after a first frame perhaps."""
    return any(map(_makes_frames, p.latents))


def _makes_frames(node: Node) -> bool:
    """Return whether a node makes the empty frames of a video, after a first one perhaps."""
    sized = any(SIZE.search(name) for name in (*node.values, *node.links))
    return sized and bool(tracing.named(node, NAMES["length"])) and not is_sampling(node)


def _way(graph: Graph, savers: list[str]) -> frozenset[str]:
    """Return the nodes that a saved picture comes through, as pixels, as latents, or as latents
    that another pass takes with its conditioning."""
    waiting = list(savers)
    found = set(waiting)
    for current in waiting:
        node = graph.nodes[current]
        names = feeds(graph, node)
        inner = [node.links[name].node for name in names]
        if is_sampling(node):
            inner += _conditioning_latents(graph, node)
        waiting += (new := [n for n in dict.fromkeys(inner) if n not in found])
        found.update(new)
    return frozenset(found)


def _conditioning_latents(graph: Graph, node: Node) -> Iterator[str]:
    """Yield the nodes that the conditioning of a sampling node takes as latents."""
    for inner in tracing.along(graph, node.id, lambda _, name: _carries_conditioning(name)):
        yield from (link.node for name, link in inner.links.items() if LATENT.match(name))


def _carries_conditioning(name: str) -> bool:
    return name == "guider" or bool(tracing.CONDITIONING.search(name))


def _rivals(
    every: tuple[Pass, ...], bases: tuple[Pass, ...], way: frozenset[str]
) -> tuple[Pass, ...]:
    """Return the other passes on the way of the saved picture that start from an empty one of their
    own."""
    shared = {source.id for base in bases for source in base.sources}
    others = [p for p in every if p not in bases and p.node.id in way and not p.before]
    others = [p for p in others if any(map(is_empty, p.sources))]
    return tuple(p for p in others if not shared.issuperset(source.id for source in p.sources))


def is_empty(node: Node) -> bool:
    """Return whether a node makes the empty picture that a text-to-image workflow starts from."""
    sized = any(SIZE.search(name) for name in (*node.values, *node.links))
    return sized and not loads_picture(node)


def _refuse_played(graph: Graph, passes: Passes) -> None:
    behind = (graph.nodes[node] for node in graph.upstream([passes.base.node.id]))
    played = next(filter(_loads_media, behind), None)
    if played is not None:
        raise NotAdoptable(_needs_media(played))


def _loads_media(node: Node) -> bool:
    """Return whether a node brings a video or a sound from a file."""
    by_file = any(MEDIA_FILE.search(str(value)) for value in node.values.values())
    return bool(LOADS_MEDIA.search(node.class_type)) or (by_file and not node.links)


def _needs_media(node: Node) -> str:
    return (
        f"it works on the video or the sound of {node}, which would have to come from the person,"
        " and people can give a picture only: export a workflow that needs none"
    )


def _refuse_frames(graph: Graph, passes: Passes) -> None:
    moving = next((node for node in passes.base.sources if _frames(graph, node) > 1), None)
    moving = moving or next(motion(graph, passes.base), None)
    if moving is not None:
        raise NotAdoptable(
            f"{moving} makes the frames of a video, and each would be saved as a picture of its"
            " own: let it end in SaveWEBM or SaveVideo, and export it again"
        )


def motion(graph: Graph, p: Pass) -> Iterator[Node]:
    """Yield the nodes that let a pass for still pictures make the frames of a video."""
    behind = (graph.nodes[node] for node in graph.upstream([p.node.id]))
    return (node for node in behind if MOTION.search(node.class_type))


def _frames(graph: Graph, node: Node) -> int:
    for name in tracing.named(node, NAMES["length"]):
        traced = tracing.literal(graph, Place(node.id, name), "number", (name, "value"))
        return int(tracing.number(graph, traced.places[0])) if traced.places else 2
    return 1
