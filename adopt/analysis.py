"""Infer the bindings of an exported workflow: the analysis behind `--adopt`.

Owns where each param of a job goes in a workflow that was not prepared for the bot, and how sure
that is. Pure, but for `analyse_file()`; nothing is ever modified.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import binder
from adopt import passes, refusals, tracing
from adopt.graph import Graph, Node, build, unwrap
from adopt.passes import (
    LATENT,
    NotAdoptable,
    Pass,
)
from adopt.refusals import listed
from adopt.texts import Part, Texts, Want
from adopt.tracing import NAMES, Traced
from binder import PARAMS
from comfyui.object_info import ObjectInfo
from graph import Nodes, Place

PRESET = re.compile(r"(^|_)(ratio|preset|resolution|dimensions?)(_|$)|^size$", re.I)
CUSTOM = re.compile(r"custom|manual|none|自定义|^$", re.I)  # a preset that leaves it to the numbers
TURNS = re.compile(r"swap|landscape|portrait|orient|flip|rotat", re.I)
OFF = re.compile(r"^(off|false|no|none|never|disabled?|0)?$", re.I)
STAGES = ("start_at_step", "end_at_step")

BARE_PLACEHOLDER = re.compile(r":\s*(%\w+%|\{\{?\s*\w+\s*\}?\}|\$\{?\w+\}?|<\w+>)\s*[,}\]\n]")
EXPORT = "use Workflow > Export (API) in ComfyUI and give me that file"
PAGE_FORMAT = (
    "this is the format of ComfyUI's page, not the API format: open it in ComfyUI and use"
    " Workflow > Export (API)"
)


@dataclass(frozen=True)
class Finding:
    """The `places` of a param, each "<node id>.<input>", and `why`, a line for the owner. If they
    are not sure, `candidates` are what it could be."""

    param: str
    places: tuple[str, ...]
    why: str
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adoption:
    """The bare nodes of a workflow and a finding for each of PARAMS in order, or `refused`: why the
    workflow cannot be driven, and what to do."""

    workflow: Nodes
    findings: tuple[Finding, ...]
    refused: str | None = None

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
        graph = build(workflow)
        return Adoption(
            workflow, _Analysis(graph, passes.find_passes(graph, info), info).findings()
        )
    except NotAdoptable as refused:
        return _refusal(workflow, str(refused))


def analyse_file(path: Path, info: ObjectInfo | None = None) -> Adoption:
    """Analyse a file; one that cannot be read or is not JSON is refused."""
    try:
        document = binder.read_json(path, f"the file {path.name}")
    except ValueError as error:
        is_template = _is_template(path)
        template = f"{path.name} is another program's template and no JSON yet"
        return _refusal({}, f"{template if is_template else error}: {EXPORT}")
    return analyse(document, info)


def _is_template(path: Path) -> bool:
    """Return whether a file has placeholders where JSON has values."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return False
    return bool(BARE_PLACEHOLDER.search(text))


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

    def findings(self) -> tuple[Finding, ...]:
        refusals.refuse_edited(self._graph, self._base)
        refusals.refuse_asked(self._passes.alive)
        found = [self._model(), self._positive()]
        found.append(self._negative(found[1]))
        found += [self._of_all("sampler"), self._of_all("scheduler"), self._steps(), self._cfg()]
        found.append(self._of_base("seed"))
        found += [self._size("width"), self._size("height"), self._batch()]
        found.append(Finding("image", (), "pictures in the file stay as they are"))
        written = {place for f in found for place in (*f.places, *f.candidates)}
        refusals.refuse_placeholders(self._graph, self._passes.alive, written)
        return tuple(map(partial(_shared, found), found))

    # The params.

    def _model(self) -> Finding:
        traced = self._of_bases(self._model_of)
        if not traced.places:
            return self._finding("model", traced, "no model in it to choose")
        beside = [
            e for p in self._passes.bases for e in tracing.models_beside(self._graph, p.node.id)
        ]
        traced = _or_else(traced, beside)
        why = f"the model that {self._base} samples with"
        files = {self._graph.value(place) for place in traced.places}
        later = _together(map(self._model_of, self._passes.later)).places
        same = tuple(e for e in later if self._graph.value(e) in files and e not in traced.places)
        if same:
            every = (*traced.places, *same)
            why += f"; {self._in_words(same)} load it once more"
            return self._finding("model", Traced(every, every), why)
        others = [e for e in later if not self._is_refiner(e) and e not in traced.places]
        if others:
            why += f"; {self._in_words(others)} goes on with it"
            traced = _or_else(traced, others)
        return self._finding("model", traced, why)

    def _model_of(self, p: Pass) -> Traced:
        place = tracing.model_input(self._graph, p.node.id)
        if place is not None:
            traced = tracing.model(self._graph, place)
            return traced if traced.places else Traced((), traced.candidates or (place,))
        own = tracing.find_input(self._graph, p.node.id, "model")
        if own is None:
            return Traced()
        traced = tracing.literal(self._graph, own, "string", NAMES["model"])
        # A type names a model, or the way it is built: the file does not say which.
        return Traced(traced.places, traced.places) if own.name == "model_type" else traced

    def _is_refiner(self, place: Place) -> bool:
        return "refiner" in str(self._graph.value(place)).lower()

    def _positive(self) -> Finding:
        texts = self._texts()
        finding = self._text(texts, "positive")
        if not finding.places or finding.candidates:
            refusals.refuse_described(self._graph, texts)
        if not finding.places:
            raise NotAdoptable(
                "no text of it reaches the sampler, so there is nowhere to write a prompt: put a"
                " text into a CLIPTextEncode node and export it again"
            )
        return finding

    def _negative(self, positive: Finding) -> Finding:
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
        stages = self._stages()
        for later in self._passes.later:
            part = self._part(texts, later, want)
            if part is None or set(part.places) <= found.keys():
                continue
            text = part.text.strip()
            if later in stages or (text and text in said):
                found.update(dict.fromkeys(part.places))
                if text not in said:
                    doubts.update(found)
            elif found and text and any(map(LATENT.match, later.node.links)):
                doubts.update(dict.fromkeys((*found, *part.places)))
        if not found:
            return Finding(want, (), f"{self._base} takes no text as {want}")
        why = f"{self._in_words(found)}, which {self._base} takes as {want}"
        if doubts:
            why += "; which of the texts is to be replaced is not certain"
        return self._finding(want, Traced(tuple(found), tuple(doubts)), why)

    def _part(self, texts: Texts, p: Pass, want: Want) -> Part | None:
        place = tracing.find_input(self._graph, p.node.id, want)
        return texts.behind(place, want) if place is not None else None

    def _of_all(self, param: str) -> Finding:
        """Find a param that goes to every pass: the sampler, the scheduler."""
        every = (*self._passes.bases, *self._passes.later)
        traced = _together(self._literal(p, param) for p in every)
        whom = ": every sampling node" if len(every) > 1 else self._users(traced)
        why = f"{self._in_words(traced.places)}{whom}" if traced.places else f"no {param} in it"
        return self._finding(param, traced, why)

    def _of_base(self, param: str) -> Finding:
        """Find a param that goes to the base pass alone; in doubt if a later stage has its own."""
        traced = self._of_bases(lambda p: self._literal(p, param))
        shared = self._stages() if param == "steps" else ()
        late = [p for p in self._passes.later if p not in shared and self._goes_on(p)]
        traced = _or_else(traced, _together(self._literal(p, param) for p in late).places)
        if not traced.places:
            return self._finding(param, traced, f"no {param} of {self._base} to set")
        first = ": the first pass" if self._passes.later else ""
        why = f"{self._in_words(traced.places)}{self._users(traced)}{first}"
        return self._finding(param, traced, why)

    def _of_bases(self, trace: Callable[[Pass], Traced]) -> Traced:
        """Trace a param of the base pass; in doubt if pictures made side by side differ in it, or
        another pass might be meant."""
        traced = _together(map(trace, self._passes.bases))
        if len(self._passes.bases) > 1 and len(traced.places) > 1:
            traced = Traced(traced.places, traced.places)
        return _or_else(traced, _together(map(trace, self._passes.rivals)).places)

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
        if not finding.places:
            return finding
        split = self._split()
        if split is not None:
            why = f"{finding.why}, but {self._in_words([split])} stays as it is"
            return Finding("steps", finding.places, why, finding.candidates or finding.places)
        stages = self._stages()
        if len(stages) == 1:
            return finding
        traced = _together(self._literal(p, "steps") for p in stages)
        names = listed(str(p.node) for p in stages)
        why = f"{names} share the steps: their start and end steps are scaled with them"
        linked = [name for p in stages for name in p.node.links if name in STAGES]
        if linked:
            why = (
                f"{names} share the steps, but take {listed(dict.fromkeys(linked))} from elsewhere"
            )
            return self._finding("steps", Traced(traced.places, traced.places), why)
        return self._finding("steps", traced, why)

    def _split(self) -> Place | None:
        """Return a number of steps that a schedule is cut at, apart from the steps themselves."""
        return next(filter(None, (_cut(self._graph, p) for p in self._passes.every)), None)

    def _goes_on(self, p: Pass) -> bool:
        """Return whether a later pass begins late: it may well go on with what the base pass
        began."""
        return bool(_step(self._graph, p, "start_at_step") or _cut(self._graph, p))

    def _stages(self) -> list[Pass]:
        """Return the base pass, and those that go on with its steps from where it ends."""
        chain, step = [self._passes.base], partial(_step, self._graph)
        for later in self._passes.later:
            last = chain[-1]
            begins, ends = step(later, "start_at_step"), step(last, "end_at_step")
            steps, same = step(last, "steps"), step(later, "steps")
            if not begins or ends is None or steps != same or last.node.id not in later.before:
                continue
            if begins == ends or (steps is not None and ends < steps):
                chain.append(later)
        return chain

    def _cfg(self) -> Finding:
        finding = self._of_base("cfg")
        distilled = self._guidance()
        if not finding.places and not finding.candidates:
            why = f"{self._in_words(distilled.places)}: there is no real cfg"
            return self._finding("cfg", distilled, why if distilled.places else finding.why)
        guidance = next(iter(distilled.places), None)
        if guidance is None or str(guidance) in finding.places:
            return finding
        if not finding.places:
            return Finding("cfg", (), finding.why, (*finding.candidates, str(guidance)))
        place = self._in_words([guidance])
        cfg = Place(*finding.places[0].split(".", 1))
        if self._graph.value(cfg) == 1:
            why = f"{place}, because {self._in_words([cfg])} is 1, which turns cfg off"
            return self._finding("cfg", Traced((guidance,), (guidance, cfg)), why)
        why = f"{self._in_words([cfg])}; there is {place} too"
        return self._finding("cfg", Traced((cfg,), (cfg, guidance)), why)

    def _guidance(self) -> Traced:
        """Find the guidance that is distilled into the model, on the way of the positive."""
        for node in tracing.conditioned(self._graph, self._base.id):
            if "guidance" in {*node.links, *node.values}:
                place = Place(node.id, "guidance")
                return tracing.trace_param(self._graph, node.id, "cfg", "number", place)
        return Traced()

    def _size(self, param: str) -> Finding:
        traced = self._of_bases(lambda p: self._of_source(p, param))
        nodes = [self._graph.nodes[place.node] for place in traced.places]
        preset = next(filter(None, map(_preset, nodes)), None)
        if preset is not None:
            why = f"{self._in_words([preset])} sets the size by a choice from a list"
            return self._finding(param, Traced((), traced.places), why)
        if not traced.places:
            why = f"nothing holds the {param} alone" if traced.candidates else f"no {param} to set"
            return self._finding(param, traced, why)
        if any(map(_is_turned, nodes)):
            why = f"{self._in_words(traced.places)}, which may turn the picture on its side"
            return self._finding(param, Traced(traced.places, traced.places), why)
        through = ", after a calculation" if traced.candidates == traced.places else ""
        why = f"{self._in_words(traced.places)}: the picture starts from it{through}"
        return self._finding(param, traced, why)

    def _batch(self) -> Finding:
        traced = self._of_bases(lambda p: self._of_source(p, "batch"))
        times = [place for p in self._passes.bases for place in _batches(p)]
        if times:
            traced = Traced(traced.places, (*traced.places, *times))
        places = self._in_words(traced.places)
        why = f"{places}: so many pictures at once" if traced.places else "no batch size to set"
        return self._finding("batch", traced, why)

    def _of_source(self, p: Pass, param: str) -> Traced:
        """Find a param whose value stands where the empty picture is made."""
        traced = [self._of_node(node, param) for node in p.sources]
        traced = [found for found in traced if found.places or found.candidates]
        if traced:
            others = _together(traced[1:])
            return _or_else(traced[0], (*others.places, *others.candidates))
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

    def _finding(self, param: str, traced: Traced, why: str) -> Finding:
        places, candidates = map(str, traced.places), map(str, traced.candidates)
        return Finding(param, tuple(places), why, tuple(candidates))

    def _users(self, traced: Traced) -> str:
        """Say who uses what stands in other nodes."""
        own = all(place.node == self._base.id for place in traced.places)
        return "" if own else f", which {self._base} uses"

    def _in_words(self, places: Iterable[Place]) -> str:
        return listed(f"{place.name} of {self._graph.nodes[place.node]}" for place in places)


def _shared(every: Iterable[Finding], finding: Finding) -> Finding:
    """Return a finding, in doubt if another param has a place of it too: only one of them can be
    set."""
    others = {place for other in every if other is not finding for place in other.places}
    if finding.candidates or not others & {*finding.places}:
        return finding
    why = f"{finding.why}; something else comes from there too"
    return Finding(finding.param, finding.places, why, finding.places)


def _cut(graph: Graph, p: Pass) -> Place | None:
    """Return the number of steps that the schedule of a pass is cut at."""
    for node in tracing.along(graph, p.node.id, lambda _, n: n.startswith("sigmas")):
        if isinstance(node.values.get("step"), int) and node.values["step"]:
            return Place(node.id, "step")
    return None


def _step(graph: Graph, p: Pass, name: str) -> float | None:
    """Return the number behind an input that counts steps."""
    names = (*NAMES["steps"],) if name == "steps" else (name, "value")
    place = tracing.find_input(graph, p.node.id, "steps") if name == "steps" else None
    traced = tracing.literal(graph, place or Place(p.node.id, name), "number", names)
    value = graph.value(traced.places[0]) if traced.places else None
    return value if isinstance(value, int | float) else None


def _preset(node: Node) -> Place | None:
    """Return the input that chooses the size in a node instead of the numbers beside it."""
    for name, value in node.values.items():
        is_preset = PRESET.search(name) and not TURNS.search(name)
        if isinstance(value, str) and is_preset and not CUSTOM.search(value):
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


def _together(found: Iterable[Traced]) -> Traced:
    every = list(found)
    places = dict.fromkeys(place for traced in every for place in traced.places)
    doubts = dict.fromkeys(place for traced in every for place in traced.candidates)
    return Traced(tuple(places), tuple(doubts))


def _or_else(traced: Traced, others: Iterable[Place]) -> Traced:
    """Return what is found, in doubt if it could be others as well."""
    new = [place for place in others if place not in traced.places]
    every = dict.fromkeys((*traced.places, *traced.candidates, *new))
    return Traced(traced.places, tuple(every)) if new else traced
