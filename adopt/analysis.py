"""Infer the bindings of an exported workflow: the analysis behind `--adopt`.

Owns where each param of a job goes in a workflow that was not prepared for the bot, and how sure
that is. Pure, but for `analyse_file()`; nothing is ever modified.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adopt import passes, refusals, tracing
from adopt.finding import Finding, found_at, in_words, listed, or_else, together
from adopt.graph import Graph, Node, build, unwrap
from adopt.later import is_own_master, later_sizes, later_steps, stages
from adopt.passes import (
    LATENT,
    NotAdoptable,
    Pass,
)
from adopt.pictures import find_image
from adopt.prompts import Prompts
from adopt.tracing import NAMES, Traced
from binder import PARAMS
from comfyui.object_info import ObjectInfo
from graph import Nodes, Place
from text import read_json

PRESET = re.compile(r"(^|_)(ratio|resolution|dimensions?)(_|$)|^size$", re.I)
SIZE_PRESET = re.compile(r"\d\s*[x*:/]\s*\d|square|portrait|landscape|\bwide|\btall|aspect", re.I)
CUSTOM = re.compile(r"custom|manual|none|自定义|^$", re.I)  # a preset that leaves it to the numbers
TURNS = re.compile(r"swap|landscape|portrait|orient|flip|rotat", re.I)
OFF = re.compile(r"^(off|false|no|none|never|disabled?|0)?$", re.I)
SOMETHING_ELSE = re.compile(
    r"^(min|max)|_(min|max)$|divi[ds]|megapixel|factor|scale|denoise|steps|cfg|batch|index|strength"
    r"|print|refiner",
    re.I,
)
BARE_PLACEHOLDER = re.compile(
    r":\s*((?!true|false|null|NaN|-?Infinity)[A-Za-z]\w*|%\w+%|\{\{?\s*\w+\s*\}?\}|\$\{?\w+\}?|<\w+>|__\w+__|#\w+#|@\w+@)\s*[,}\]\n]"
)
FEW_STEPS = re.compile(r"turbo\s*scheduler", re.I)
USUAL_STEPS = 30  # of a person who likes them; a node that takes fewer keeps its own
EXPORT = "use Workflow > Export (API) in ComfyUI and give me that file"
PAGE_FORMAT = (
    "this is the format of ComfyUI's page, not the API format: open it in ComfyUI and use"
    " Workflow > Export (API)"
)


@dataclass(frozen=True)
class Adoption:
    """The bare nodes of a workflow and a finding for each of PARAMS in order, or `refused`: why the
    workflow cannot be driven, and what to do. Findings for FOLLOWERS may come after them; `notes`
    are what was changed in the workflow, for the owner."""

    workflow: Nodes
    findings: tuple[Finding, ...]
    refused: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def bindings(self) -> dict[str, list[str]]:
        return {finding.param: list(finding.places) for finding in self.findings}

    @property
    def not_sure(self) -> dict[str, list[str]]:
        return {f.param: list(f.candidates) for f in self.findings if f.candidates}


def analyse(document: object, info: ObjectInfo | None = None) -> Adoption:
    """Find the bindings in a document that came out of ComfyUI. Takes any JSON; `info` makes it
    surer. Raises nothing."""
    workflow = unwrap(document)
    try:
        if not workflow:
            raise NotAdoptable(_no_nodes(document))
        workflow, notes = passes.with_saved_previews(workflow, info)
        graph = build(workflow)
        savers = passes.savers_of(graph, info)
        if not savers:
            refusals.refuse_placeholders(graph.nodes.values(), ())
        found = passes.find_passes(graph, savers)
        image = find_image(graph, found, info)
        if found.bases:
            findings = _Analysis(graph, found, info).findings(image)
        else:
            refusals.refuse_placeholders(found.alive, image.places)
            others = (Finding(param, (), "nothing samples in it") for param in PARAMS[:-1])
            findings = (*others, image)
        return Adoption(workflow, findings, notes=notes)
    except NotAdoptable as refused:
        return _refusal(workflow, str(refused))


def analyse_file(path: Path, info: ObjectInfo | None = None) -> Adoption:
    """Analyse a file; one that cannot be read or is not JSON is refused."""
    try:
        document = read_json(path, f"the file {path.name}")
    except ValueError as error:
        marks = _bare_marks(path)
        template = f"{path.name} is another program's template and no JSON yet: it has {marks}"
        return _refusal({}, f"{template if marks else error}: {EXPORT}")
    return analyse(document, info)


def _bare_marks(path: Path) -> str:
    """Return the placeholders that a file has where JSON has values, as a part of a sentence."""
    try:
        found = BARE_PLACEHOLDER.findall(path.read_text("utf-8", "replace"))
    except OSError:
        return ""
    return listed(list(dict.fromkeys(found))[:3]) if found else ""


def _refusal(workflow: Nodes, reason: str) -> Adoption:
    return Adoption(workflow, tuple(Finding(param, (), "") for param in PARAMS), reason)


def _no_nodes(document: object) -> str:
    layers = [document]
    for _ in range(3):
        for layer in layers:
            if isinstance(layer, dict) and isinstance(layer.get("nodes"), list):
                return PAGE_FORMAT
        layers = [v for layer in layers if isinstance(layer, dict) for v in layer.values()]
    return f"there is no node in it: {EXPORT}"


class _Analysis:
    """The findings in one graph. Every method that looks for a param may raise NotAdoptable."""

    def __init__(self, graph: Graph, found: passes.Passes, info: ObjectInfo | None) -> None:
        self._graph = graph
        self._passes = found
        self._base = found.base.node
        self._info = info

    def findings(self, image: Finding) -> tuple[Finding, ...]:
        prompts = Prompts(self._graph, self._passes, self._info)
        found = [self._model(), prompts.positive(image)]
        found.append(prompts.negative(found[1]))
        found += [self._of_all("sampler"), self._of_all("scheduler"), self._steps(), self._cfg()]
        found.append(self._of_base("seed"))
        found += [
            self._size("width", image),
            self._size("height", image),
            self._batch(),
            self._length(),
        ]
        found.append(image)
        given = (image, *found[1:3])
        texts = {place for f in given for place in (*f.places, *f.candidates)}
        refusals.refuse_placeholders(self._passes.alive, texts)
        found[2] = self._without_unheeded(*found[:3:2])
        found = [_plausible(finding) for finding in _each_alone(found)]
        width, height = PARAMS.index("width"), PARAMS.index("height")
        found[width : height + 1], later = self._later_sizes(found[width], found[height])
        return (*found, *later, *self._later_steps(found[PARAMS.index("steps")]))

    # The params.

    def _model(self) -> Finding:
        traced = self._of_bases(lambda p: _model_of(self._graph, p))
        if not traced.places:
            return found_at("model", traced, "no model in it to choose")
        beside = [
            e for p in self._passes.bases for e in tracing.models_beside(self._graph, p.node.id)
        ]
        traced = or_else(traced, beside)
        why = f"the model that {self._base} samples with"
        files = {self._graph.value(place) for place in traced.places}
        shown = [p for p in self._passes.later if self._base.id in p.before]
        shown = [p for p in shown if not passes.animates(p) or passes.animates(self._passes.base)]
        later = together(_model_of(self._graph, p) for p in shown).places
        same = tuple(e for e in later if self._graph.value(e) in files and e not in traced.places)
        if same:
            every = (*traced.places, *same)
            why += f"; {in_words(self._graph, same)} load it once more"
            return found_at("model", Traced(every, every), why)
        others = [e for e in later if not _is_refiner(self._graph, e) and e not in traced.places]
        if others and traced.places and _are_one_model(self._graph, (*traced.places, *others)):
            return Finding(
                "model", (), f"{in_words(self._graph, (*traced.places, *others))} are one"
            )
        if others:
            why += f"; {in_words(self._graph, others)} goes on with it"
            traced = or_else(traced, others)
        return found_at("model", traced, why)

    def _is_clear(self, p: Pass) -> bool:
        """Return whether a later pass has settings of its own: it refines, or animates."""
        is_video = passes.animates(p) and not passes.animates(self._passes.base)
        return is_video or any(
            _is_refiner(self._graph, e) for e in _model_of(self._graph, p).places
        )

    def _of_all(self, param: str) -> Finding:
        """Find a param that goes to every pass: the sampler, the scheduler."""
        every = (*self._passes.bases, *self._passes.later)
        traced = together(self._literal(p, param) for p in every)
        whom = ": every sampling node" if len(every) > 1 else self._users(traced)
        places = in_words(self._graph, traced.places)
        return found_at(param, traced, f"{places}{whom}" if traced.places else f"no {param} in it")

    def _of_base(self, param: str) -> Finding:
        """Find a param that goes to the base pass alone; in doubt if a later stage has its own."""
        traced = self._of_bases(lambda p: self._literal(p, param))
        shared = stages(self._graph, self._passes) if param in ("steps", "cfg") else []
        if param == "cfg" and traced.places and not traced.candidates:
            own = self._graph.value(traced.places[0])
            same = [e for p in shared for e in self._literal(p, param).places]
            same = [e for e in same if self._graph.value(e) == own]
            traced = together((traced, Traced(tuple(same))))
        late = [p for p in self._passes.later if p not in shared and not self._is_clear(p)]
        late = [p for p in late if is_own_master(self._graph, self._passes, p)]
        if param == "seed":  # a pass that adds no noise takes no heed of it
            late = [p for p in late if p.node.values.get("add_noise") != "disable"]
        traced = or_else(traced, together(self._literal(p, param) for p in late).places)
        if not traced.places:
            return found_at(param, traced, f"no {param} of {self._base} to set")
        first = ": the first pass" if self._passes.later else ""
        why = f"{in_words(self._graph, traced.places)}{self._users(traced)}{first}"
        return found_at(param, traced, why)

    def _of_bases(self, trace: Callable[[Pass], Traced]) -> Traced:
        """Trace a param of the base pass; in doubt if pictures made side by side differ in it, or
        another pass might be meant."""
        traced = together(map(trace, self._passes.bases))
        if len(self._passes.bases) > 1 and len(traced.places) > 1:
            traced = Traced(traced.places, traced.places)
        return or_else(traced, together(map(trace, self._passes.rivals)).places)

    def _literal(self, p: Pass, param: str) -> Traced:
        kind: tracing.Kind = "string" if param in ("sampler", "scheduler") else "number"
        traced = tracing.trace_param(self._graph, p.node.id, param, kind)
        overruled = param in ("scheduler", "steps") and "sigmas" in p.node.links
        if not overruled or not tracing.named(p.node, NAMES[param]):
            return traced
        inner = tracing.trace_param(self._graph, p.node.links["sigmas"].node, param, kind)
        return Traced(inner.places or traced.places, (*inner.places, *traced.places))

    def _steps(self) -> Finding:
        finding = self._of_base("steps")
        few = next(filter(None, map(self._too_few, finding.places)), None)
        if few:
            return Finding("steps", (), f"{few}: they stay as in the file")
        if not finding.places:
            return finding
        chain = stages(self._graph, self._passes)
        if len(chain) == 1:
            return finding
        traced = together(self._literal(p, "steps") for p in chain)
        names = listed(str(p.node) for p in chain)
        why = f"{names} share the steps: their start and end steps are scaled with them"
        return found_at("steps", traced, why)

    def _too_few(self, place: str) -> str | None:
        """Return that a node takes fewer steps than people choose, if it does."""
        node, name = Place.parse(place)
        class_type = self._graph.nodes[node].class_type
        if self._info is None or class_type not in self._info:
            return f"{class_type} {node} takes few" if FEW_STEPS.search(class_type) else None
        takes = self._info.accepted(class_type, name, USUAL_STEPS)
        return f"{class_type} {node} takes {takes}" if takes else None

    def _later_steps(self, steps: Finding) -> Iterator[Finding]:
        """Yield what counts the steps once more, and is scaled with them."""
        bound = [Place.parse(place) for place in steps.places]
        found = dict.fromkeys(later_steps(self._graph, self._passes, bound))
        places = [place for place in found if place not in bound]
        if places:
            why = f"{in_words(self._graph, places)}: in proportion to the steps"
            yield found_at("later_steps", Traced(tuple(places)), why)

    def _cfg(self) -> Finding:
        finding = self._of_base("cfg")
        distilled = self._guidance()
        if not finding.places and not finding.candidates:
            why = f"{in_words(self._graph, distilled.places)}: there is no real cfg"
            return found_at("cfg", distilled, why if distilled.places else finding.why)
        guidance = next(iter(distilled.places), None)
        if guidance is None or str(guidance) in finding.places:
            return finding
        if not finding.places:
            return Finding("cfg", (), finding.why, (*finding.candidates, str(guidance)))
        place = in_words(self._graph, [guidance])
        cfg = Place(*finding.places[0].split(".", 1))
        if tracing.number(self._graph, cfg) == 1:
            why = f"{place}, because {in_words(self._graph, [cfg])} is 1, which turns cfg off"
            return found_at("cfg", Traced((guidance,)), why)
        why = f"{in_words(self._graph, [cfg])}; there is {place} too"
        return found_at("cfg", Traced((cfg,), (cfg, guidance)), why)

    def _without_unheeded(self, model: Finding, negative: Finding) -> Finding:
        """Return no negative if the base pass takes no heed of it: Flux with a cfg of 1."""
        cfg = self._of_bases(lambda p: self._literal(p, "cfg")).places
        if not cfg or any(tracing.number(self._graph, place) != 1 for place in cfg):
            return negative
        behind = (self._graph.nodes[node] for node in self._graph.upstream([self._base.id]))
        names = [self._graph.value(Place.parse(place)) for place in model.places]
        names += [node.values.get("type") for node in behind]  # of a loader of text encoders
        if not self._guidance().places and "flux" not in str(names).lower():
            return negative
        why = f"{self._base} takes no heed of it: {in_words(self._graph, cfg)} is 1"
        return Finding("negative", (), why)

    def _guidance(self) -> Traced:
        """Find the guidance that is distilled into the model, on the way of the positive."""
        for node in tracing.conditioned(self._graph, self._base.id):
            if "guidance" in {*node.links, *node.values}:
                place = Place(node.id, "guidance")
                return tracing.trace_param(self._graph, node.id, "cfg", "number", place)
        return Traced()

    def _is_given(self) -> bool:
        """Return whether the base pass begins with a picture, whose size it keeps."""
        return all(map(passes.loads_picture, self._passes.base.sources))

    def _size(self, param: str, image: Finding) -> Finding:
        if self._is_given():
            return Finding(param, (), "the size is that of the picture")
        traced = self._of_bases(lambda p: self._of_source(p, param))
        nodes = [self._graph.nodes[place.node] for place in traced.places]
        preset = next(filter(None, map(_preset, nodes)), None)
        if preset is not None:
            why = f"{in_words(self._graph, [preset])} sets the size by a choice from a list"
            return found_at(param, Traced(), why)
        if not traced.places and image.places:
            return Finding(param, (), "the size is that of the picture")
        if not traced.places:
            why = f"nothing holds the {param} alone" if traced.candidates else f"no {param} to set"
            return found_at(param, traced, why)
        if any(map(_is_turned, nodes)):
            why = f"{in_words(self._graph, traced.places)}, which may turn the picture on its side"
            return found_at(param, Traced(traced.places, traced.places), why)
        through = ", after a calculation" if traced.candidates == traced.places else ""
        why = f"{in_words(self._graph, traced.places)}: the picture starts from it{through}"
        return found_at(param, traced, why)

    def _later_sizes(self, width: Finding, height: Finding) -> tuple[list[Finding], list[Finding]]:
        """Return width and height, in doubt if a later size cannot follow, and the sizes that
        do."""
        bases = [Place.parse(f.places[0]) for f in (width, height) if f.places]
        if len(bases) < 2:
            return [width, height], []
        found = dict(later_sizes(self._graph, self._passes, (bases[0], bases[1])))
        sides, followers = [], []
        for index, own in enumerate((width, height)):
            odd = [sizes[index] for sizes, follows in found.items() if not follows]
            places = tuple(
                dict.fromkeys(sizes[index] for sizes, follows in found.items() if follows)
            )
            why = f"{own.why}; {in_words(self._graph, odd)} is of another shape" if odd else own.why
            doubts = dict.fromkeys((*own.candidates, *(own.places if odd else ()), *map(str, odd)))
            sides.append(Finding(own.param, own.places, why, tuple(doubts)))
            if places:
                why = f"{in_words(self._graph, places)}: in proportion to the {own.param}"
                followers.append(found_at(f"later_{own.param}", Traced(places), why))
        return sides, followers

    def _length(self) -> Finding:
        """Find the number of frames of a video."""
        if not self._passes.is_video:
            return Finding("length", (), "no video")
        moves = next(passes.motion(self._graph, self._passes.base), None)
        traced = self._of_bases(lambda p: self._of_source(p, "batch" if moves else "length"))
        frames = self._graph.value(traced.places[0]) if traced.places else None
        others = [self._graph.value(place) for place in traced.candidates]
        calculated = traced.candidates == traced.places
        if frames is None or calculated or any(other != frames for other in others):
            return Finding("length", (), "no single number of frames: it stays as in the file")
        twins = [place for place in self._counts_frames() if self._graph.value(place) == frames]
        every = tuple(dict.fromkeys((*traced.places, *twins)))
        return found_at("length", Traced(every), f"{in_words(self._graph, every)}: so many frames")

    def _counts_frames(self) -> Iterator[Place]:
        """Yield the numbers that count frames beside the picture's: those of its sound, say."""
        for id_ in self._graph.upstream([self._base.id]):
            node = self._graph.nodes[id_]
            names = tracing.named(node, NAMES["length"])
            yield from (Place(id_, name) for name in names if name in node.values)

    def _batch(self) -> Finding:
        if self._passes.is_video or self._is_given():
            return Finding("batch", (), "one is made at a time")
        traced = self._of_bases(lambda p: self._of_source(p, "batch"))
        times = [place for p in self._passes.bases for place in _batches(p)]
        if times:
            traced = Traced(traced.places, (*traced.places, *times))
        places = in_words(self._graph, traced.places)
        why = f"{places}: so many pictures at once" if traced.places else "no batch size to set"
        return found_at("batch", traced, why)

    def _of_source(self, p: Pass, param: str) -> Traced:
        """Find a param whose value stands where the empty picture is made."""
        traced = [self._of_node(node, param) for node in p.sources]
        traced = [found for found in traced if found.places or found.candidates]
        if traced:
            others = together(traced[1:])
            return or_else(traced[0], (*others.places, *others.candidates))
        own = self._of_node(p.node, param)
        if own.places or own.candidates:
            return own
        return tracing.trace_param(self._graph, p.node.id, param, "number")

    def _of_node(self, node: Node, param: str) -> Traced:
        name = next(iter(tracing.named(node, NAMES[param])), None)
        if name is None:
            return Traced()
        return tracing.trace_param(self._graph, node.id, param, "number", Place(node.id, name))

    # What is said of it.

    def _users(self, traced: Traced) -> str:
        """Say who uses what stands in other nodes."""
        own = all(place.node == self._base.id for place in traced.places)
        return "" if own else f", which {self._base} uses"


def _model_of(graph: Graph, p: Pass) -> Traced:
    """Find the model of one pass."""
    place = tracing.model_input(graph, p.node.id)
    if place is not None:
        traced = tracing.model(graph, place)
        return traced if traced.places else Traced((), traced.candidates or (place,))
    own = tracing.find_input(graph, p.node.id, "model")
    if own is None:
        return tracing.model_behind(graph, p.node.id)
    traced = tracing.literal(graph, own, "string", NAMES["model"])
    # A type names a model, or the way it is built: the file does not say which.
    return Traced(traced.places, traced.places) if own.name == "model_type" else traced


def _are_one_model(graph: Graph, places: Iterable[Place]) -> bool:
    """Return whether a model comes in two files: one for much noise, one for little."""
    names = [str(graph.value(place)).lower() for place in places]
    return any("high" in name for name in names) and any("low" in name for name in names)


def _is_refiner(graph: Graph, place: Place) -> bool:
    return "refiner" in str(graph.value(place)).lower()


def _each_alone(found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings, each without the places that one before it has: an input can be set for
    one param alone."""
    taken: dict[str, str] = {}
    for finding in found:
        clash = [place for place in finding.places if place in taken]
        if clash:
            others = listed(dict.fromkeys(taken[place] for place in clash))
            left = tuple(place for place in finding.places if place not in taken)
            why = f"{finding.why}; left to {others}, which comes from there too"
            finding = Finding(finding.param, left, why, finding.candidates if left else ())
        taken |= dict.fromkeys(finding.places, finding.param)
        yield finding


def _plausible(finding: Finding) -> Finding:
    """Return a finding without a question whose answers all hold something else by their names."""
    names = [Place.parse(place).name for place in finding.candidates]
    own = NAMES.get(finding.param, ())
    if finding.places or any(name in own or not SOMETHING_ELSE.search(name) for name in names):
        return finding
    return Finding(finding.param, (), finding.why)


def _preset(node: Node) -> Place | None:
    """Return the input that chooses the size in a node instead of the numbers beside it."""
    for name, value in node.values.items():
        if not isinstance(value, str) or TURNS.search(name) or CUSTOM.search(value):
            continue
        if PRESET.search(name) or ("preset" in name.lower() and SIZE_PRESET.search(value)):
            return Place(node.id, name)
    return None


def _is_turned(node: Node) -> bool:
    """Return whether the node of a size may swap width and height."""
    turns = [value for name, value in node.values.items() if TURNS.search(name)]
    return any(v is True or (isinstance(v, str) and not OFF.search(v)) for v in turns)


def _batches(p: Pass) -> Iterator[Place]:
    """Yield the numbers that multiply a batch, or cut it, on its way into a pass."""
    for node in p.latents:
        if not any(map(LATENT.match, node.links)):
            continue
        names = ("length",) if "batch_index" in node.values else ("amount", "repeats", "multiply")
        yield from (Place(node.id, name) for name in names if name in node.values)
