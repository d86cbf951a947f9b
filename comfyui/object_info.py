"""The option lists and limits in a server's `/object_info`.

Owns the chains of classes in which the lists are looked for, and the shapes in which ComfyUI
declares inputs (docs/comfyui.md). Does no I/O. Knows no workflow and no node id.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from binder import SCALER
from comfyui.errors import ComfyError

log = logging.getLogger(__name__)

# Each class stands in LOADERS and EFFICIENT_SAMPLERS with both of its spellings.
MIKEY_LOADER = ("CheckpointLoaderSimpleMikey", "Checkpoint Loader Simple Mikey")
LOADERS = (*MIKEY_LOADER, "CheckpointLoaderSimple")
ANY_LOADER = "CheckpointLoader"
EFFICIENT_SAMPLERS = (
    "KSamplerAdvancedEfficient",
    "KSampler Adv. (Efficient)",
    "KSamplerEfficient",
    "KSampler (Efficient)",
)
PLAIN_SAMPLER = "KSampler"
SCALING_METHOD = "lanczos"  # keeps the most detail


KEPT = ("input", "output", "output_node")  # of what a server says of a class
PIECE = 2**17  # characters of a list that are read at a time
DECODER = json.JSONDecoder(parse_constant=lambda _: None)  # NaN and infinity
NAME = re.compile(r'\s*(?=")')
NO_TEXT = re.compile("[\ud800-\udfff]")  # neither Discord nor the database takes these
COLON = re.compile(r"\s*:\s*")
MARK = re.compile(r"\s*([,}])")
EMPTY = re.compile(r"\{\s*\}\s*")


class OptionsMissing(ComfyError):
    """The server offers no model, sampler or scheduler to choose from. `problems` has one line
    for each, for the owner."""

    def __init__(self, problems: Collection[str]) -> None:
        super().__init__(
            "; ".join(problems),
            "The image server offers nothing to choose from. Please tell the bot's owner.",
        )
        self.problems = tuple(problems)


@dataclass(frozen=True)
class ComfyOptions:
    """The lists that a person may choose from, verbatim and in the server's order."""

    models: tuple[str, ...]
    samplers: tuple[str, ...]
    schedulers: tuple[str, ...]


@dataclass(frozen=True)
class Capabilities:
    """The facts of a server that a job depends on: the largest seeds by class and input, the
    outputs of the classes that load a model, the LoRAs, verbatim, and what `scale_image()` of a
    prompt writes; None if the server cannot scale pictures."""

    seed_maxima: Mapping[tuple[str, str], int]
    outputs: Mapping[str, tuple[str, ...]]
    loras: tuple[str, ...]
    scaling: Mapping[str, Any] | None = None


class ObjectInfo:
    """The node classes of a server, `{class: {"input": {"required": {name: spec}}}}`."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self._classes = classes

    def __contains__(self, class_type: object) -> bool:
        return class_type in self._classes

    def within(self, others: Sequence[ObjectInfo]) -> ObjectInfo:
        """Return the classes that the others have, too, each with the values that all accept."""
        lists: dict[tuple[str, ...], list[str]] = {}
        classes: dict[str, Any] = {}
        for class_type, declared in self._classes.items():
            if all(class_type in other for other in others):
                specs = [functools.partial(other._spec, class_type) for other in others]
                classes[class_type] = _narrowed(declared, specs, lists)
        return ObjectInfo(classes)

    def beyond(self, common: ObjectInfo) -> list[str]:
        """Return the classes and the values of lists that a narrower one does not have."""
        found = dict.fromkeys(name for name in self._classes if name not in common)
        for class_type in self._classes.keys() - found.keys():
            for name, spec in _specs(self._classes[class_type]):
                kept = _listed(common._spec(class_type, name)) or ()
                found |= dict.fromkeys(str(v) for v in _listed(spec) or () if v not in kept)
        return sorted(found)

    def wants_key(self, class_type: str) -> bool:
        """Return whether a class runs at a paid service of comfy.org (a partner node)."""
        declared = self._classes.get(class_type)
        inputs = declared.get("input") if isinstance(declared, dict) else None
        hidden = inputs.get("hidden") if isinstance(inputs, dict) else None
        return isinstance(hidden, dict) and "api_key_comfy_org" in hidden

    def nearest(self, class_type: str) -> str | None:
        """Return the known class whose name resembles this one most."""
        import difflib  # no start needs it

        close = difflib.get_close_matches(class_type, list(self._classes), n=1)
        return close[0] if close else None

    def choices(self, class_type: str, field: str) -> tuple[str, ...] | None:
        """Return the list that an input of a class takes its value from, in either shape; None if
        the class is unknown or the input is free."""
        values = _listed(self._spec(class_type, field))
        if values is None:
            return None
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        return tuple(text for text in texts if text.isascii() or not NO_TEXT.search(text))

    def accepted(self, class_type: str, field: str, value: object) -> str | None:
        """Return what an input of a class takes, if it refuses a value: "at most 10"."""
        spec = self._spec(class_type, field)
        listed = _listed(spec)
        if listed is not None:
            return None if value in listed else f"one of {', '.join(map(str, listed[:5]))} …"
        if not spec or spec[0] not in ("INT", "FLOAT"):
            return None
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except ValueError:
            return "a number"
        limits = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
        least, most = (limits.get(name) for name in ("min", "max"))
        if isinstance(most, int | float) and number > most:
            return f"at most {most}"
        return f"at least {least}" if isinstance(least, int | float) and number < least else None

    def output_types(self, class_type: str) -> tuple[str, ...]:
        """Return the types of the outputs of a class, by slot; empty if the class is unknown."""
        try:
            outputs = self._classes[class_type]["output"]
        except (LookupError, TypeError):
            return ()
        return tuple(map(str, outputs)) if isinstance(outputs, list) else ()

    def is_long_text(self, class_type: str, field: str) -> bool:
        """Return whether an input of a class is declared as a text of several lines."""
        spec = self._spec(class_type, field)
        return len(spec) > 1 and spec[0] == "STRING" and _is_multiline(spec[1])

    def takes_upload(self, class_type: str, field: str) -> bool:
        """Return whether an input of a class names a picture that was uploaded."""
        spec = self._spec(class_type, field)
        return len(spec) > 1 and isinstance(spec[1], dict) and spec[1].get("image_upload") is True

    def puts_out(self, class_type: str) -> bool:
        """Return whether nodes of a class are outputs: what reaches none of those is never run."""
        declared = self._classes.get(class_type)
        return isinstance(declared, dict) and declared.get("output_node") is True

    def maxima(self, fields: Collection[str]) -> dict[tuple[str, str], int]:
        """Return the largest value of each whole-number input of these names, by class and
        input."""
        found: dict[tuple[str, str], int] = {}
        for class_type in self._classes:
            for name in fields:
                spec = self._spec(class_type, name)
                is_number = len(spec) > 1 and spec[0] == "INT" and isinstance(spec[1], dict)
                most = spec[1].get("max") if is_number else None
                if type(most) is int and most >= 0:
                    found[class_type, name] = most
        return found

    def capabilities(self, seed_inputs: Collection[str]) -> Capabilities:
        """Return what jobs depend on; `seed_inputs` are the names of inputs that hold a seed."""
        outputs = {name: self.output_types(name) for name in self._classes}
        models = {name: types for name, types in outputs.items() if "MODEL" in types}
        loras = self.choices("LoraLoader", "lora_name") or ()
        return Capabilities(self.maxima(seed_inputs), models, loras, self._scaling())

    def defaults(self, class_type: str) -> dict[str, Any]:
        """Return the required inputs of a class that have a default, of a list its first value."""
        try:
            names = list(self._classes[class_type]["input"]["required"])
        except (LookupError, TypeError):
            return {}
        found: dict[str, Any] = {}
        for name in names:
            spec, values = self._spec(class_type, name), self.choices(class_type, name)
            about = {"default": values[0]} if values else {}
            about |= spec[-1] if spec and isinstance(spec[-1], dict) else {}
            found |= {name: about["default"]} if "default" in about else {}
        return found

    def _scaling(self) -> dict[str, Any] | None:
        methods = self.choices(SCALER, "upscale_method") or ()
        method = {"upscale_method": SCALING_METHOD} if SCALING_METHOD in methods else {}
        return {**self.defaults(SCALER), **method} if SCALER in self else None

    def options(self, bound_classes: Mapping[str, Collection[str]]) -> ComfyOptions:
        """Return the lists found by the chains, and of them only what the class of every bound node
        accepts too. `bound_classes` maps the class of a node that jobs are written to onto those of
        its inputs that take a value from a list. Raises OptionsMissing, which names what was looked
        for and what to install."""
        problems: list[str] = []
        loader = self._first(LOADERS) or self._first(
            name for name in self._classes if ANY_LOADER in name.replace(" ", "")
        )
        if loader is None:
            problems.append(
                f"no checkpoint loader found: looked for {', '.join(LOADERS)} and any class with"
                f" {ANY_LOADER} in its name; install the Mikey Nodes in ComfyUI and restart it"
            )
        sampler = self._first((*EFFICIENT_SAMPLERS, PLAIN_SAMPLER))
        if sampler is None:
            problems.append(
                f"no sampler found: looked for {', '.join(EFFICIENT_SAMPLERS)} and {PLAIN_SAMPLER};"
                " install the Efficiency Nodes in ComfyUI and restart it"
            )
        elif sampler == PLAIN_SAMPLER:
            log.warning(
                "the Efficiency Nodes are not installed in ComfyUI: offering the lists of plain"
                " KSampler; the workflow may behave differently"
            )
        for class_type in bound_classes.keys() - self._classes.keys():
            log.warning("ComfyUI does not know the node class %r of the workflow", class_type)
        lists: dict[str, tuple[str, ...]] = {}
        owners = {"ckpt_name": loader, "sampler_name": sampler, "scheduler": sampler}
        for name, owner in owners.items():
            if owner is not None:
                lists[name] = self._accepted(owner, name, bound_classes)
                if not lists[name]:
                    problems.append(self._nothing_left(name, owner, bound_classes))
        if problems:
            raise OptionsMissing(problems)
        return ComfyOptions(lists["ckpt_name"], lists["sampler_name"], lists["scheduler"])

    def options_of(self, inputs: Mapping[str, Collection[tuple[str, str]]]) -> ComfyOptions:
        """Return the lists of a workflow with bindings of its own: for `model`, `sampler` and
        `scheduler` what all of these inputs, (class, input), accept. Empty where none of them has a
        list. Raises OptionsMissing where a list is empty, or nothing is accepted by all."""
        lists, problems = [], []
        for param in ("model", "sampler", "scheduler"):
            choices = [self.choices(class_type, name) for class_type, name in inputs[param]]
            known = [values for values in choices if values is not None]
            taken = set(known[0]).intersection(*known[1:]) if known else set()
            lists.append(tuple(value for value in known[0] if value in taken) if known else ())
            if () in choices:
                empty = list(inputs[param])[choices.index(())][0]
                problems.append(f"ComfyUI has no {param} for {empty}")
            elif known and not taken:
                classes = dict.fromkeys(class_type for class_type, _ in inputs[param])
                problems.append(f"no {param} is accepted by all of {', '.join(classes)}")
        if problems:
            raise OptionsMissing(problems)
        return ComfyOptions(*lists)

    def _spec(self, class_type: str, field: str) -> Sequence[Any]:
        """Return what a class says of an input: its type or list, and more; empty if it has no
        such."""
        try:
            inputs = self._classes[class_type]["input"]
            spec = {**inputs.get("optional", {}), **inputs.get("required", {})}[field]
        except (LookupError, TypeError, AttributeError):
            return ()
        return spec if isinstance(spec, list) else ()

    def _first(self, names: Iterable[str]) -> str | None:
        return next((name for name in names if name in self._classes), None)

    def _accepted(
        self, owner: str, field: str, bound: Mapping[str, Collection[str]]
    ) -> tuple[str, ...]:
        """Return what `owner` lists for an input and every bound class with that input takes, in
        order."""
        values = dict.fromkeys(self.choices(owner, field) or ())
        for class_type, fields in bound.items():
            allowed = self.choices(class_type, field) if field in fields else None
            if allowed is not None:
                taken = set(allowed)
                values = {value: None for value in values if value in taken}
        return tuple(values)

    def _nothing_left(self, field: str, owner: str, bound: Mapping[str, Collection[str]]) -> str:
        if field == "ckpt_name" and not self.choices(owner, field):
            return f"{owner} lists no model: put one into ComfyUI's models/checkpoints folder"
        classes = sorted(name for name, fields in bound.items() if field in fields)
        return f"no {field} is accepted by all of {', '.join(dict.fromkeys([owner, *classes]))}"


def parse_classes(content: bytes) -> dict[str, Any]:
    """Parse the answer of `/object_info`, and keep of each class what is used here. Raises
    ValueError if it is no JSON object.

    One class at a time, and equal lists once: those of a large install, the same names of files
    again and again, would take ten times its bytes, and hold up every other thread meanwhile."""
    lists: dict[tuple[str, ...], list[str]] = {}
    return {name: _reduced(declared, lists) for name, declared in _members(content)}


def _members(content: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the members of a JSON object. Raises ValueError."""
    reader = io.TextIOWrapper(io.BytesIO(content), "utf-8")
    text, at = reader.read(PIECE).lstrip(), 1
    if not text.startswith("{"):
        raise ValueError("not a JSON object")
    if EMPTY.fullmatch(text):
        return
    while True:
        try:
            name, value, end, mark = _member(text, at)
        except ValueError:
            # Perhaps cut off: on with at least as much again, so that the time stays linear.
            more = reader.read(max(PIECE, len(text) - at))
            if not more:
                raise
            text, at = text[at:] + more, 0
        else:
            yield name, value
            if mark == "}":
                return
            at = end


def _member(text: str, at: int) -> tuple[str, Any, int, str]:
    """Return a member of a JSON object that starts at `at`: its name, its value, its end, and the
    mark after it. Raises ValueError if there is not all of it."""
    start = NAME.match(text, at)
    if start is None:
        raise ValueError("a name is missing")
    name, end = DECODER.raw_decode(text, start.end())
    colon = COLON.match(text, end)
    if colon is None:
        raise ValueError("a colon is missing")
    value, end = DECODER.raw_decode(text, colon.end())
    after = MARK.match(text, end)
    if after is None:
        raise ValueError("a comma is missing")
    return name, value, after.end(), after[1]


def _reduced(declared: Any, lists: dict[tuple[str, ...], list[str]]) -> Any:
    """Return what is used of a class; lists that are equal to one of `lists` become that one."""
    if not isinstance(declared, dict):
        return declared
    for _, spec in _specs(declared):
        spec[0] = _shared(spec[0], lists)
        if isinstance(options := spec[-1], dict):
            options.pop("tooltip", None)
            if "options" in options:
                options["options"] = _shared(options["options"], lists)
    return {name: declared[name] for name in KEPT if name in declared}


def _specs(declared: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield each input of a class, and how it is declared."""
    inputs = declared.get("input") if isinstance(declared, dict) else None
    for group in inputs.values() if isinstance(inputs, dict) else ():
        for name, spec in group.items() if isinstance(group, dict) else ():
            if isinstance(spec, list) and spec:
                yield name, spec


def _narrowed(
    declared: Any,
    others: Sequence[Callable[[str], Sequence[Any]]],
    lists: dict[tuple[str, ...], list[str]],
) -> Any:
    """Return a copy of a class whose lists have only the values that those of the others have."""
    declared = copy.deepcopy(declared)
    for name, spec in _specs(declared):
        listed = [values for other in others if (values := _listed(other(name))) is not None]
        values = _listed(spec)
        if values is None:
            continue
        kept = _shared(
            [value for value in values if all(value in other for other in listed)], lists
        )
        if spec[0] == "COMBO":
            spec[1]["options"] = kept
        else:
            spec[0] = kept
    return declared


def _shared(values: Any, lists: dict[tuple[str, ...], list[str]]) -> Any:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return values
    return lists.setdefault(tuple(values), values)


def _listed(spec: Sequence[Any]) -> list[Any] | None:
    """Return the list that an input takes its value from; None if it is free."""
    try:
        values = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
    except (LookupError, TypeError):
        return None
    return values if isinstance(values, list) else None


def _is_multiline(declared: object) -> bool:
    return isinstance(declared, dict) and declared.get("multiline") is True
