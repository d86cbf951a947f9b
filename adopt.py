"""What somebody's exported workflow takes, and where: the analysis behind `--adopt`.

Owns what each role of a job is in a workflow that nobody has prepared, how sure that is, and which
workflows cannot be driven at all. Pure, but for `analyse_file()`; nothing is ever modified.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import binder
import tracing
from binder import Workflow
from graph import Entry, Graph, Node, build, is_link, unwrap
from object_info import ObjectInfo
from tracing import NAMES, PIPE, Part, Texts, Traced, Want

ROLES = (
    "model",
    "positive",
    "negative",
    "sampler",
    "scheduler",
    "steps",
    "cfg",
    "seed",
    "width",
    "height",
    "batch",
)

# What the field calls the inputs that make a node what it is.
LATENT = re.compile(r"^(latents?|samples?|base_latent|optional_latent|stage_\w)(_\w+)?$", re.I)
PICTURE = re.compile(r"^(images?|pixels|img|pictures?|destination|source|background|base_image|"
                     r"input_image|foreground|image_?\w*)(_?\d+)?$", re.I)  # fmt: skip
NOT_PICTURE = re.compile(
    r"model|clip|vae|positive|negative|cond|mask|control|style|upscale|sam|detector|hook|lora|text"
    r"|prompt|width|height|size|seed|noise|sigmas|guider|sampler|steps|cfg|scale|factor|reference",
    re.I,
)
SIZE = re.compile(r"width|resolution|aspect|ratio|dimension|megapixel", re.I)
FILE_NAME = re.compile(
    r"^(file_?name\w*|save_prefix|prefix|(output_?|save_?)?(path|folder|dir|directory))$", re.I
)
SAVES = re.compile(r"save|output|export|write|upload", re.I)
SAVES_NOWHERE = re.compile(r"preview|compar|websocket|display|show", re.I)
PICTURE_FILE = re.compile(r"\.(png|jpe?g|webp|bmp|gif|tiff?)(\s*\[\w+\])?$", re.I)
LOADS_PICTURE = re.compile(r"load\w*\s?image|image\w*\s?load|image\s?from|load\s?image", re.I)
MEDIA = {
    "a video": re.compile(r"video|vhs_|webm|gif|animat|mp4|frame_rate|\bfps\b", re.I),
    "sound": re.compile(r"audio|mp3|flac|\bwav\b|speech|tts|music", re.I),
    "a 3D model": re.compile(r"(?<![a-z])3d|glb|mesh|gaussian|splat|\bstl\b", re.I),
}
FRAMES = ("length", "num_frames", "frames", "video_frames", "frame_count")
MOTION = re.compile(r"animatediff|ade_|motion", re.I)
CUSTOM = re.compile(r"custom|manual|none|自定义|^$", re.I)
PRESET = re.compile(r"(^|_)(ratio|preset|resolution|dimensions?)(_|$)|^size$", re.I)
NUMBERS = {"denoise", *(n for r in ("steps", "seed", "width", "height", "batch") for n in NAMES[r])}

PAGE_FORMAT = (
    "this is the format of ComfyUI's page, not the API format: open it in ComfyUI and use"
    " Workflow > Export (API)"
)


@dataclass(frozen=True)
class Finding:
    """Where a role's value goes: `entries`, each "<node id>.<input>", and `why`, a line for the
    owner. `candidates` if it is not sure: what it could be."""

    role: str
    entries: tuple[str, ...]
    why: str
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adoption:
    """The bare nodes of a workflow, and a finding for each of ROLES in order; or `refused`: why
    the workflow cannot be driven, and what to do."""

    workflow: Workflow
    findings: tuple[Finding, ...]
    refused: str | None = None

    @property
    def bindings(self) -> dict[str, list[str]]:
        return {finding.role: list(finding.entries) for finding in self.findings}

    @property
    def not_sure(self) -> dict[str, list[str]]:
        return {f.role: list(f.candidates) for f in self.findings if f.candidates}


class Refused(Exception):
    """Why a workflow cannot be driven, and what to do: a sentence for the owner."""


def analyse(document: object, info: ObjectInfo | None = None) -> Adoption:
    """What can be driven in a document that came out of ComfyUI. Takes any JSON; `info` makes it
    surer. Raises nothing."""
    nodes = unwrap(document)
    try:
        if not nodes:
            raise Refused(_no_nodes(document))
        findings = _Analysis(build(nodes), info).findings()
    except Refused as refused:
        return Adoption(nodes, tuple(Finding(role, (), "") for role in ROLES), str(refused))
    return Adoption(nodes, findings)


def analyse_file(path: Path, info: ObjectInfo | None = None) -> Adoption:
    """As `analyse()`, of a file; a file that cannot be read or is not JSON is refused."""
    loaded = binder.load(path)
    if loaded.ok:
        return analyse(loaded.workflow, info)
    reason = f"{loaded.reason}: use Workflow > Export (API) in ComfyUI and give me that file"
    return Adoption({}, tuple(Finding(role, (), "") for role in ROLES), reason)


def _no_nodes(document: object) -> str:
    layers = [document]
    for _ in range(3):
        for layer in layers:
            if isinstance(layer, dict) and isinstance(layer.get("nodes"), list):
                return PAGE_FORMAT
        layers = [v for layer in layers if isinstance(layer, dict) for v in layer.values()]
    return "there is no node in it: use Workflow > Export (API) in ComfyUI and give me that file"


@dataclass(frozen=True)
class Pass:
    """A sampling node: `latents` are the nodes that its picture material comes through, `before`
    the sampling nodes whose result it works on, and `sources` where the material begins."""

    node: Node
    latents: tuple[Node, ...] = ()
    before: tuple[str, ...] = ()
    sources: tuple[Node, ...] = ()


@dataclass
class _Analysis:
    """The findings in one graph."""

    graph: Graph
    info: ObjectInfo | None = None
    alive: dict[str, None] = field(default_factory=dict)
    passes: list[Pass] = field(default_factory=list)
    bases: list[Pass] = field(default_factory=list)

    def findings(self) -> tuple[Finding, ...]:
        savers = self._savers()
        self.alive = self.graph.upstream(savers)
        self.passes = [self._pass(self.graph.nodes[n]) for n in self.alive if self._samples(n)]
        if not self.passes:
            self.passes = [self._pass(node) for node in self._generators()]
        if not self.passes:
            raise Refused(self._no_sampler())
        self.bases = self._find_bases()
        self._refuse_pictures()
        found = [self._model(), self._positive()]
        found.append(self._negative(found[1]))
        found += [self._of_all("sampler"), self._of_all("scheduler"), self._steps(), self._cfg()]
        found += [self._seed(), *map(self._size, ("width", "height")), self._batch()]
        self._refuse_placeholders(found)
        return tuple(found)

    # What reaches an output.

    def _savers(self) -> list[str]:
        """The nodes that save a picture. Raises Refused if nothing does, or something else."""
        nodes = self.graph.nodes.values()
        media = {n.id: kind for n in nodes if not self.graph.uses.get(n.id) for kind in _media(n)}
        savers = [node.id for node in nodes if node.id not in media and self._saves(node)]
        for node, kind in media.items():
            behind = self.graph.upstream([node])
            if not savers or any(self._samples(n) for n in behind):
                raise Refused(
                    f"{self.graph.nodes[node]} makes {kind}, and people are shown still pictures"
                    " only: export a workflow that ends in SaveImage"
                )
        if not savers:
            raise Refused(
                "it saves no picture: put a SaveImage node at its end (a preview is not kept, and"
                " what goes out by WebSocket is not in ComfyUI's history), and export it again"
            )
        return savers

    def _saves(self, node: Node) -> bool:
        stored = str(node.values.get("image_output", ""))
        if re.search("save", stored, re.I):
            return True
        if not any(PICTURE.match(name) for name in node.links):
            return False
        if SAVES_NOWHERE.search(node.class_type):
            return False
        named = any(FILE_NAME.match(name) for name in (*node.values, *node.links))
        return named or bool(SAVES.search(node.class_type))

    def _samples(self, node_id: str) -> bool:
        """Whether a node samples: it takes how to, and what from."""
        node = self.graph.nodes[node_id]
        names = {*node.links, *node.values}
        picture = any(PICTURE.match(name) for name in node.links)
        if picture and any(FILE_NAME.match(name) for name in names):
            return False  # a saving node, told what to write into the file
        how = names & {"sampler_name", "sampler", "guider", "sigmas"}
        counted = names.intersection(NAMES["steps"]) and names.intersection(
            (*NAMES["seed"], *NAMES["cfg"])
        )
        given = picture or any(
            LATENT.match(name) or PIPE.search(name) or tracing.CONDITIONING.search(name)
            or name == "guider"
            for name in node.links
        )  # fmt: skip
        said = names & {"prompt", "positive", "positive_prompt", "prompt_text"}
        return bool((how and given) or (counted and (given or said)))

    def _generators(self) -> Iterator[Node]:
        """The nodes on the way of the picture that make it out of a text alone."""
        for node_id in self.alive:
            node = self.graph.nodes[node_id]
            names = {*node.links, *node.values}
            said = names & {"prompt", "positive", "positive_prompt", "prompt_text"}
            used = any(PICTURE.match(use.name) for use in self.graph.uses.get(node_id, ()))
            if said and used and not any(PICTURE.match(name) for name in node.links):
                yield node

    def _pass(self, node: Node) -> Pass:
        latents: dict[str, Node] = {}
        before: list[str] = []
        sources: list[Node] = []
        waiting = [node]
        for current in waiting:
            feeds = self._feeds(current)
            if not feeds and current is not node:
                sources.append(current)
            for name in feeds:
                inner = self.graph.nodes[current.links[name].node]
                if inner.id in latents or inner.id == node.id:
                    continue
                latents[inner.id] = inner
                if self._samples(inner.id):
                    before.append(inner.id)
                else:
                    waiting.append(inner)
        if not self._feeds(node):
            sources.append(node)
        return Pass(node, tuple(latents.values()), tuple(before), tuple(sources))

    def _feeds(self, node: Node) -> list[str]:
        """The inputs that a node takes its picture from, as latents or pixels."""
        chosen = tracing.switched(self.graph, node)
        if chosen:
            return [chosen]
        latents = [name for name in node.links if LATENT.match(name)]
        pictures = [name for name in node.links if PICTURE.match(name)]
        if latents or pictures:
            return latents or pictures
        if any(SIZE.search(name) for name in (*node.values, *node.links)):
            return []
        pipes = [name for name in node.links if PIPE.search(name)]
        return pipes or [name for name in node.links if not NOT_PICTURE.search(name)]

    def _find_bases(self) -> list[Pass]:
        """The passes that others build on: the first of each chain, one if possible."""
        first = [p for p in self.passes if not p.before and p.sources]
        if not first:
            raise Refused("its sampling nodes feed each other in a circle: export it again")
        empty = [p for p in first if any(map(_is_empty, p.sources))]
        fed = [p for p in first if p.sources and not any(map(_is_picture, p.sources))]
        first = empty or fed or first
        ids = {p.node.id for p in first}
        alone = [
            p for p in first if not (ids - {p.node.id}) & self.graph.upstream([p.node.id]).keys()
        ]
        return alone or first

    @property
    def base(self) -> Pass:
        return self.bases[0]

    # The roles.

    def _model(self) -> Finding:
        found: dict[Entry, None] = {}
        doubts: dict[Entry, None] = {}
        for base in self.bases:
            traced = self._model_of(base)
            found.update(dict.fromkeys(traced.entries))
            doubts.update(dict.fromkeys(traced.candidates))
        if len(found) > 1:
            doubts.update(found)
        why = f"the model that {self.base.node} samples with" if found else "no model to choose"
        return _finding("model", found, why, doubts)

    def _model_of(self, base: Pass) -> Traced:
        entry = _model_input(self.graph, base.node.id)
        if entry is None:
            own = tracing.find(self.graph, base.node.id, "model")
            if own is None:
                return Traced()
            return tracing.literal(self.graph, own, "string", (*NAMES["model"], "value"))
        if entry.name in self.graph.nodes[entry.node].values:
            return tracing.literal(self.graph, entry, "string", NAMES["model"])
        return tracing.model(self.graph, entry)

    def _positive(self) -> Finding:
        texts = Texts(self.graph, self.info)
        finding = self._text(texts, "positive")
        if not finding.entries or finding.candidates:
            self._refuse_described(texts)
        if not finding.entries:
            if finding.candidates:
                return finding
            raise Refused(
                "no text of it reaches the sampler, so there is nowhere to write a prompt: put a"
                " text into a CLIPTextEncode node and export it again"
            )
        return finding

    def _negative(self, positive: Finding) -> Finding:
        finding = self._text(Texts(self.graph, self.info), "negative")
        if set(finding.entries) <= set(positive.entries):
            why = f"{self.base.node} takes no text as negative"
            return Finding("negative", (), why)
        return finding

    def _text(self, texts: Texts, want: Want) -> Finding:
        parts = [(p, self._part(texts, p, want)) for p in self.bases]
        found: dict[Entry, None] = {}
        doubts: dict[Entry, None] = {}
        for _, part in parts:
            if part is not None:
                found.update(dict.fromkeys(part.entries))
                doubts.update(dict.fromkeys(part.candidates))
        said = {part.text.strip() for _, part in parts if part is not None}
        if len(said) > 1:
            doubts.update(found)
        stages = self._stages()
        for later in (p for p in self.passes if p not in self.bases):
            part = self._part(texts, later, want)
            if part is None or set(part.entries) <= found.keys():
                continue
            same = part.text.strip() in said and part.text.strip()
            if later in stages or same:
                found.update(dict.fromkeys(part.entries))
            elif found and part.text.strip() and any(map(LATENT.match, later.node.links)):
                doubts.update(dict.fromkeys((*found, *part.entries)))
        if not found:
            return Finding(want, (), f"{self.base.node} takes no {want} text")
        places = _listed(self._place(entry) for entry in found)
        return _finding(want, found, f"{places}, which {self.base.node} takes as {want}", doubts)

    def _part(self, texts: Texts, p: Pass, want: Want) -> Part | None:
        entry = tracing.find(self.graph, p.node.id, want)
        return texts.behind(entry, want) if entry is not None else None

    def _place(self, entry: Entry) -> str:
        return f"{entry.name} of {self.graph.nodes[entry.node]}"

    def _of_all(self, role: str) -> Finding:
        """A role that goes to every pass: the sampler, the scheduler."""
        found: dict[Entry, None] = {}
        doubts: dict[Entry, None] = {}
        for p in (*self.bases, *(p for p in self.passes if p not in self.bases)):
            traced = self._literal(p, role)
            found.update(dict.fromkeys(traced.entries))
            doubts.update(dict.fromkeys(traced.candidates))
        places = _listed(self._place(entry) for entry in found)
        why = f"{places}: every sampling node" if found else f"no {role} to choose"
        return _finding(role, found, why, doubts)

    def _literal(self, p: Pass, role: str) -> Traced:
        entry = tracing.find(self.graph, p.node.id, role)
        kind: tracing.Kind = "string" if role in ("sampler", "scheduler") else "number"
        if entry is None:
            return Traced()
        return tracing.literal(self.graph, entry, kind, NAMES[role])

    def _of_base(self, role: str) -> Finding:
        """A role that goes to the base pass alone."""
        found: dict[Entry, None] = {}
        doubts: dict[Entry, None] = {}
        for base in self.bases:
            traced = self._literal(base, role)
            found.update(dict.fromkeys(traced.entries))
            doubts.update(dict.fromkeys(traced.candidates))
        if len(found) > 1:
            doubts.update(found)
        if not found:
            return _finding(role, found, f"no {role} of {self.base.node} to set", doubts)
        places = _listed(self._place(entry) for entry in found)
        alone = ", the first pass" if len(self.passes) > 1 else ""
        return _finding(role, found, f"{places}: {self.base.node} uses it{alone}", doubts)

    def _steps(self) -> Finding:
        finding = self._of_base("steps")
        chain = self._stages()
        if not finding.entries:
            return finding
        split = self._split()
        if split is not None:
            why = f"{finding.why}, but {split} stays where it is"
            return _finding("steps", finding.entries, why, finding.candidates or finding.entries)
        if len(chain) == 1:
            return finding
        found = dict.fromkeys(e for p in chain for e in self._literal(p, "steps").entries)
        stages = _listed(str(p.node) for p in chain)
        why = f"{stages} share the steps: their start and end steps are scaled with them"
        return _finding("steps", found, why, ())

    def _split(self) -> Entry | None:
        """A number of steps that a schedule is cut at, apart from the steps themselves."""
        for p in self.passes:
            for node in tracing.along(
                self.graph, p.node.id, lambda name: name.startswith("sigmas"), lambda node: False
            ):
                if isinstance(node.values.get("step"), int) and node.values["step"]:
                    return Entry(node.id, "step")
        return None

    def _stages(self) -> list[Pass]:
        """The passes of a chain that shares its steps out by start and end steps."""
        chain = [self.base]
        for later in self.passes:
            last = chain[-1]
            begins = self._step(later, "start_at_step")
            ends = self._step(last, "end_at_step")
            steps = [self._step(p, "steps") for p in (last, later)]
            whole = isinstance(ends, int) and isinstance(steps[0], int) and ends >= steps[0]
            if begins in (None, 0) or ends is None or steps[0] != steps[1]:
                continue
            if last.node.id in later.before and (begins == ends or not whole):
                chain.append(later)
        return chain

    def _step(self, p: Pass, name: str) -> object:
        """The number behind an input that counts steps."""
        if name == "steps":
            entries = self._literal(p, "steps").entries
        else:
            entry = Entry(p.node.id, name)
            entries = tracing.literal(self.graph, entry, "number", (name, "value")).entries
        return self.graph.value(entries[0]) if entries else None

    def _cfg(self) -> Finding:
        finding = self._of_base("cfg")
        guidance = self._guidance()
        if guidance is None or str(guidance) in finding.entries:
            return finding
        if not finding.entries:
            return _finding("cfg", [guidance], f"{self._place(guidance)}: there is no real cfg", ())
        cfg = Entry(*finding.entries[0].split(".", 1))
        if self.graph.value(cfg) == 1:
            why = f"{self._place(guidance)}, because {self._place(cfg)} is 1, which turns cfg off"
            return _finding("cfg", [guidance], why, [guidance, cfg])
        why = f"{self._place(cfg)}; there is {self._place(guidance)} too"
        return _finding("cfg", [cfg], why, [cfg, guidance])

    def _guidance(self) -> Entry | None:
        """The guidance that is distilled into the model, on the way of the positive."""
        start = tracing.find(self.graph, self.base.node.id, "positive")
        if start is None or start.name not in self.graph.nodes[start.node].links:
            return None
        first = self.graph.nodes[start.node].links[start.name].node
        for node in (first, *(n.id for n in self._conditioned(first))):
            if "guidance" in {*self.graph.nodes[node].links, *self.graph.nodes[node].values}:
                entry = Entry(node, "guidance")
                traced = tracing.literal(self.graph, entry, "number", NAMES["cfg"])
                return next(iter(traced.entries), None)
        return None

    def _conditioned(self, start: str) -> Iterator[Node]:
        def follow(name: str) -> bool:
            return bool(tracing.CONDITIONING.search(name)) and not tracing.NEGATIVE.search(name)

        return tracing.along(self.graph, start, follow, lambda node: False)

    def _seed(self) -> Finding:
        return self._of_base("seed")

    def _size(self, role: str) -> Finding:
        found: dict[Entry, None] = {}
        doubts: dict[Entry, None] = {}
        for base in self.bases:
            traced = self._of_source(base, role)
            found.update(dict.fromkeys(traced.entries))
            doubts.update(dict.fromkeys(traced.candidates))
        if len(found) > 1:
            doubts.update(found)
        preset = next(filter(None, (self._preset(entry) for entry in found)), None)
        if preset:
            why = f"{self._place(preset)} sets the size by a choice from a list"
            return _finding(role, (), why, found)
        places = _listed(self._place(entry) for entry in found)
        why = f"{places}: the empty picture starts from it" if found else f"no {role} to set"
        return _finding(role, found, why, doubts)

    def _preset(self, entry: Entry) -> Entry | None:
        """What chooses the size in a node instead of the numbers beside it."""
        node = self.graph.nodes[entry.node]
        if entry.name.endswith("_override"):
            return None
        for name, value in node.values.items():
            if isinstance(value, str) and PRESET.search(name) and not CUSTOM.search(value):
                return Entry(node.id, name)
        return None

    def _of_source(self, base: Pass, role: str) -> Traced:
        """A role whose value stands where the empty latent is made."""
        for node in (*base.sources, base.node, *base.latents):
            for name in NAMES[role]:
                if name in node.values or name in node.links:
                    if any(LATENT.match(n) or PICTURE.match(n) for n in node.links):
                        if node is not base.node or role != "batch":
                            continue
                    return tracing.literal(self.graph, Entry(node.id, name), "number", NAMES[role])
        entry = tracing.find(self.graph, base.node.id, role)
        if entry is None:
            return Traced()
        return tracing.literal(self.graph, entry, "number", NAMES[role])

    def _batch(self) -> Finding:
        found: dict[Entry, None] = {}
        doubts: dict[Entry, None] = {}
        for base in self.bases:
            traced = self._of_source(base, "batch")
            found.update(dict.fromkeys(traced.entries))
            doubts.update(dict.fromkeys(traced.candidates))
        if len(found) > 1:
            doubts.update(found)
        places = _listed(self._place(entry) for entry in found)
        why = f"{places}: so many pictures at once" if found else "no batch size to set"
        return _finding("batch", found, why, doubts)

    # What cannot be driven.

    def _no_sampler(self) -> str:
        if any(_is_picture(self.graph.nodes[node]) for node in self.alive):
            return (
                "it works on a picture that somebody must give, and makes none out of a text:"
                " export a text-to-image workflow"
            )
        return "nothing in it samples a picture out of a text: export a text-to-image workflow"

    def _refuse_pictures(self) -> None:
        given = [node for node in self.base.sources if _is_picture(node)]
        if given and not any(map(_is_empty, self.base.sources)):
            raise Refused(
                f"{self.base.node} starts from the picture of {given[0]}, which would have to come"
                " from the person: export a text-to-image workflow, one that starts from an empty"
                " latent"
            )
        edited = self._edited()
        if edited is not None:
            raise Refused(
                f"it edits the picture of {edited}, which would have to come from the person:"
                " export a text-to-image workflow"
            )
        moving = next((n for n in self.base.sources if _frames(n, self.graph) > 1), None)
        if moving is None:
            models = self.graph.upstream(
                link.node for name, link in self.base.node.links.items() if "model" in name
            )
            nodes = (self.graph.nodes[node] for node in models)
            moving = next((n for n in nodes if MOTION.search(n.class_type)), None)
        if moving is not None:
            raise Refused(
                f"{moving} makes the frames of a video, and people are shown still pictures only:"
                " export a workflow for still pictures"
            )
        for node_id in self.alive:
            node = self.graph.nodes[node_id]
            for name, value in node.values.items():
                asked = tracing.is_placeholder(value) or value == ""
                if PICTURE.match(name) and asked and LOADS_PICTURE.search(node.class_type):
                    raise Refused(
                        f"{node} needs a picture from the person: export a workflow that needs"
                        " none, or one with a fixed picture"
                    )

    def _refuse_described(self, texts: Texts) -> None:
        for node in texts.described:
            for behind in self.graph.upstream([node.id]):
                if _is_picture(self.graph.nodes[behind]):
                    raise Refused(
                        f"its prompt is what {node} says of the picture of"
                        f" {self.graph.nodes[behind]}, which would have to come from the person:"
                        " export a text-to-image workflow"
                    )

    def _edited(self) -> Node | None:
        """The loaded picture that the prompt speaks about, if there is one."""
        start = tracing.find(self.graph, self.base.node.id, "positive")
        link = self.graph.nodes[start.node].links.get(start.name) if start else None
        if link is None:
            return None
        for node in (self.graph.nodes[link.node], *self._conditioned(link.node)):
            reads = [n for n in node.links if PICTURE.match(n) and "vision" not in n]
            encodes = any(tracing.CLIP_LINK.match(name) for name in node.links)
            refers = [n for n in node.links if LATENT.match(n) or n == "pixels"]
            inputs = (reads if encodes else []) + refers
            behind = self.graph.upstream(node.links[name].node for name in inputs)
            for inner in behind:
                if _is_picture(self.graph.nodes[inner]):
                    return self.graph.nodes[inner]
        return None

    def _refuse_placeholders(self, found: Iterable[Finding]) -> None:
        written = {entry for finding in found for entry in finding.entries}
        written |= {entry for finding in found for entry in finding.candidates}
        left = []
        for node_id in self.alive:
            node = self.graph.nodes[node_id]
            for name, value in node.values.items():
                if FILE_NAME.match(name) or str(Entry(node_id, name)) in written:
                    continue
                odd = name in NUMBERS and isinstance(value, str) and not _is_number(value)
                if odd or tracing.is_placeholder(value):
                    left.append(f"{value} in {name} of {node}")
        if left:
            raise Refused(
                f"it is another program's template: {_listed(left[:3])} would stay as it is; export"
                " the workflow from ComfyUI itself, with Workflow > Export (API)"
            )


def _finding(
    role: str, found: Iterable[Entry], why: str, doubts: Iterable[Entry]
) -> Finding:
    return Finding(role, tuple(map(str, found)), why, tuple(map(str, doubts)))


def _model_input(graph: Graph, start: str) -> Entry | None:
    """The input that a sampling node takes its model from: its own, its guider's, its pipe's."""
    waiting, seen = [start], {start}
    for current in waiting:
        node = graph.nodes[current]
        named = [n for n in ("model", "base_model", "unet") if n in node.links]
        named += [n for n in node.links if re.search(r"(?<!scale_)(?<!style_)model$", n)]
        if named:
            return Entry(current, named[0])
        carriers = [n for n in node.links if PIPE.search(n) or n == "guider"]
        for link in (node.links[name] for name in carriers):
            if link.node not in seen:
                seen.add(link.node)
                waiting.append(link.node)
    return None


def _media(node: Node) -> Iterator[str]:
    """What else than a picture a node puts out."""
    names = " ".join(re.sub(r"_", " ", name) for name in (*node.links, *node.values))
    for kind, pattern in MEDIA.items():
        if pattern.search(node.class_type) or pattern.search(names):
            yield kind
            return


def _is_picture(node: Node) -> bool:
    """Whether a node brings a picture from a file."""
    if node.links and not LOADS_PICTURE.search(node.class_type):
        return False
    files = any(isinstance(v, str) and PICTURE_FILE.search(v) for v in node.values.values())
    return files or bool(LOADS_PICTURE.search(node.class_type))


def _is_empty(node: Node) -> bool:
    """Whether a node makes the empty picture that a text-to-image workflow starts from."""
    return not _is_picture(node) and any(
        SIZE.search(name) for name in (*node.values, *node.links)
    )


def _frames(node: Node, graph: Graph) -> int:
    for name in FRAMES:
        if name in node.links or name in node.values:
            traced = tracing.literal(graph, Entry(node.id, name), "number", (name, "value"))
            value = graph.value(traced.entries[0]) if traced.entries else None
            return value if isinstance(value, int) else 2
    return 1


def _is_number(value: str) -> bool:
    return bool(re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", value))


def _listed(places: Iterable[str]) -> str:
    """A list in a sentence."""
    *first, last = list(places) or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last
