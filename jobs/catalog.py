"""The catalog: the workflows, and what ComfyUI offers now for each of them.

Reads the folder of folders, `workflows/NAME/base.json`, and ComfyUI's lists; writes nothing. Forms,
messages and the worker share one `Catalog`, from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import binder
from comfyui.errors import ComfyError
from comfyui.object_info import Capabilities, ObjectInfo, OptionsMissing
from jobs.names import NamesByList, OptionNames, moved_model
from jobs.servers import Servers
from text import PublicError

log = logging.getLogger(__name__)

FILE_NAME = "base.json"
# The packs of the shipped workflow, by a part of their classes' names.
PACKS = {"(Efficient)": "Efficiency Nodes", "Mikey": "Mikey Nodes"}
UNUSABLE = "cannot be used right now. Please tell the bot's owner, who finds the reason in the log."
LISTS_AGE = 600.0  # seconds after which /gen starts a refresh


class WorkflowError(PublicError):
    """A workflow cannot be used; `str()` is the reason, for the owner."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, f"The workflow {UNUSABLE}")


@dataclass(frozen=True)
class Offer:
    """The choices of one workflow, the values of its file, and the params that have a control.
    `size`, `strength`, `count` (of pictures) and `length` (of a video, in frames) are of the file,
    None where they cannot be chosen; `loras` are empty where there is no model to use them with.
    `takes_image`: a person gives the picture to work on."""

    models: OptionNames
    samplers: OptionNames
    schedulers: OptionNames
    loras: OptionNames
    defaults: binder.Defaults
    params: frozenset[str]
    size: binder.Size | None = None
    count: int | None = None
    length: int | None = None
    takes_image: bool = False
    needs_prompt: bool = True
    strength: float | None = None

    @property
    def fields(self) -> list[str]:
        """Return those of OPTION_PARAMS that the workflow has."""
        return [name for name in binder.OPTION_PARAMS if name in self.params]

    def offered(self, name: str) -> OptionNames:
        """Return the values to choose from for one of OPTION_PARAMS."""
        names: OptionNames = getattr(self, f"{name}s")
        return names

    def find(self, name: str, value: str) -> str | None:
        """Return a value for one of OPTION_PARAMS as it is offered now, also a model that has moved
        to another folder; None if it is not offered."""
        if value in self.offered(name):
            return value
        return moved_model(value, self.models) if name == "model" else None


class Workflows:
    """The default workflow, and those in the folders beside its folder. A workflow has the name of
    its folder; an empty name is the default, as in jobs from before there were others."""

    def __init__(self, default_path: Path) -> None:
        """Use the workflow at `default_path`, which is WORKFLOW_PATH, as the default."""
        self._default_path = default_path
        self.default = default_path.parent.name

    def names(self) -> list[str]:
        """Return the names of all workflows, usable or not, the default first."""
        return [self.default, *(name for name in self._beside() if name.isprintable())]

    def _beside(self) -> list[str]:
        """Return the folders with a workflow beside the default's, without hidden ones."""
        try:
            found = list(self._default_path.parent.parent.glob(f"*/{FILE_NAME}"))
        except OSError as error:
            log.warning("the folders beside the workflow's cannot be read: %s", error)
            found = []
        names = sorted(path.parent.name for path in found)
        return [name for name in names if name != self.default and not name.startswith(".")]

    def path(self, name: str) -> Path:
        """Return the file of one of `names()`."""
        if name in ("", self.default):
            return self._default_path
        return self._default_path.parent.parent / name / FILE_NAME

    def load(self, name: str = "") -> binder.LoadResult:
        """Read and validate the file of a workflow; its owner may edit it while the bot runs."""
        # A name out of the database or from Discord may not lead out of the folder.
        if name and name not in self.names():
            return binder.Invalid(f"there is no workflow {name} any more")
        return binder.load(self.path(name))

    def offers(
        self, info: ObjectInfo, names: NamesByList
    ) -> tuple[dict[str, Offer], dict[str, str]]:
        """Return the offer of each usable workflow, the default first, and why each of the others
        is left out. Raises WorkflowError or OptionsMissing if the default cannot be used."""
        found: dict[str, Offer] = {}
        unshown = [ascii(name) for name in self._beside() if not name.isprintable()]
        left_out = dict.fromkeys(unshown, "its name cannot be shown: rename the folder")
        for name in self.names():
            try:
                loaded = self.load(name)
                if name != self.default:  # a start only warns of that in a locked default
                    check_classes(loaded, info)
                found[name] = offer(loaded, info, names)
            except (WorkflowError, OptionsMissing) as error:
                if name == self.default:
                    raise
                left_out[name] = str(error)
        return found, left_out

    def first_usable(self, info: ObjectInfo) -> tuple[str, Offer]:
        """Return the first workflow that this server can run without a person's picture, and its
        offer. Raises WorkflowError with what the default one lacks, if there is none."""
        reasons = []
        for name in self.names():
            try:
                check_classes(loaded := self.load(name), info)
                if loaded.ok and loaded.takes_image:
                    raise WorkflowError("it needs a person's picture to work on")
                return name, offer(loaded, info, NamesByList({}))
            except (WorkflowError, OptionsMissing) as error:
                reasons.append(f"the workflow {name} cannot be used: {error}")
        raise WorkflowError(reasons[0])


class Catalog:
    """The offers of ComfyUI for each workflow, as of the last refresh. Safe to share between
    threads; one refresh runs at a time."""

    def __init__(self, client: Servers, workflows: Workflows, *, can_refresh: bool = True) -> None:
        """Start empty. Without `can_refresh` only `update()` and `update_server()` change it."""
        self.workflows = workflows
        self.offers: Mapping[str, Offer] = {}  # of the usable workflows, the default first
        self.names = OptionNames(())  # of the usable workflows
        self.left_out: Mapping[str, str] = {}  # why each of the others cannot be used
        self.server = Capabilities({}, {}, ())
        self.loras = OptionNames(())  # of the server
        self._lists = NamesByList({})  # the names of every list in use
        self._client = client
        self._can_refresh = can_refresh
        self._refreshing = threading.Lock()
        self._planned = threading.Lock()  # held from the plan of a refresh to its end
        self._has_failed = False
        self._refreshed_at = time.monotonic()  # when the newest refresh began

    @property
    def default(self) -> str:
        """Return the name of the default workflow."""
        return self.workflows.default

    def offer(self, workflow: str) -> Offer:
        """Return the offer of a workflow, or that of the default if it is gone."""
        return self.offers.get(workflow) or self.offers[self.default]

    def update(self, info: ObjectInfo) -> None:
        """Replace everything by what these node classes accept. Blocks for some milliseconds;
        raises WorkflowError or OptionsMissing if the default workflow cannot be used."""
        lists = NamesByList(self._lists)
        self.update_server(info, lists)
        offers, left_out = self.workflows.offers(info, lists)
        self.names = lists[tuple(offers)]
        self.offers, self.left_out, self._lists = offers, left_out, lists

    def update_server(self, info: ObjectInfo, lists: NamesByList) -> None:
        """Replace what holds for all workflows: seed limits, model loaders and LoRAs."""
        self.server = info.capabilities(binder.SEED_LIMITS)
        self.loras = lists[self.server.loras]

    def refresh(self) -> Mapping[str, Offer]:
        """Ask ComfyUI again and return the new offers. Blocks; raises ComfyError or
        WorkflowError."""
        with self._refreshing:
            began, before = time.monotonic(), self.left_out
            self.update(self._client.object_info())
            for name, reason in self.left_out.items():
                if before.get(name) != reason:
                    log.warning("the workflow %s is left out: %s", name, reason)
            self._refreshed_at, self._has_failed = began, False
            return self.offers

    def try_refresh(self) -> bool:
        """Refresh and return whether that worked. Blocks."""
        if not self._can_refresh:
            return False
        try:
            self.refresh()
        except (ComfyError, WorkflowError) as error:
            if not self._has_failed:
                log.warning("ComfyUI's lists cannot be read again: %s", error)
            self._has_failed = True
            return False
        return True

    def reread(self, workflow: str) -> None:
        """Take over what a workflow's file says now; ComfyUI's lists for it follow in the
        background. Reads the file; does not wait for ComfyUI."""
        loaded, known = self.workflows.load(workflow), self.offers.get(workflow)
        if not loaded.ok or known is None:
            return  # accepting the job says what is wrong
        params = loaded.params - (set(binder.OPTION_PARAMS) - known.params)
        offer = replace(known, params=params, **of_file(loaded))
        if offer != known:
            self.offers = {**self.offers, workflow: offer}
            self.refresh_if_older(time.monotonic())

    def refresh_if_older(self, moment: float) -> None:
        """Refresh in the background, unless the offers are newer than `moment`
        (`time.monotonic()`) or a refresh is planned already. Returns at once."""
        is_new = not self._can_refresh or self._refreshed_at > moment
        if is_new or not self._planned.acquire(blocking=False):
            return
        threading.Thread(target=self._refresh_as_planned, name="catalog", daemon=True).start()

    def _refresh_as_planned(self) -> None:
        try:
            self.try_refresh()
        except Exception:  # else it would end unseen in the thread
            log.exception("ComfyUI's lists cannot be read again")
        finally:
            self._planned.release()


def offer(loaded: binder.LoadResult, info: ObjectInfo, names: NamesByList) -> Offer:
    """Return what one workflow offers on this server. Raises WorkflowError if it cannot be used,
    and OptionsMissing if it offers nothing to choose from."""
    if not loaded.ok:
        raise WorkflowError(loaded.reason)
    params = loaded.params
    if loaded.is_locked:
        options = info.options(loaded.bound_classes())
    else:
        options = info.options_of(loaded.list_inputs())
        params -= {param for param in binder.OPTION_PARAMS if not getattr(options, f"{param}s")}
        check_classes(loaded, info)
    server = info.capabilities(binder.SEED_LIMITS)
    loras = server.loras if loaded.model_slots(server.outputs) else ()
    lists = names[options.models], names[options.samplers], names[options.schedulers], names[loras]
    return Offer(*lists, params=params, **of_file(loaded))


def of_file(loaded: binder.Workflow) -> dict[str, Any]:
    """Return those fields of an offer that the workflow's file alone decides."""
    names = ("defaults", "size", "takes_image", "needs_prompt")
    return {
        **{name: getattr(loaded, name) for name in names},
        "count": loaded.number("batch"),
        "length": loaded.number("length"),
        "strength": float(loaded.value(loaded.strength[0])) if loaded.strength else None,
    }


def check_classes(loaded: binder.LoadResult, info: ObjectInfo) -> None:
    """Raise WorkflowError if the server lacks a node class: it would refuse every job."""
    names = loaded.classes.values() if loaded.ok else ()
    missing = sorted({name for name in names if name not in info})
    if missing:
        named = ", ".join(name + _hint(name, info) for name in missing)
        raise WorkflowError(f"ComfyUI does not know {named}: install what is missing there")


def lacking(loaded: binder.Workflow, info: ObjectInfo, *, has_key: bool) -> Iterator[str]:
    """Yield a line, with what to do, for each thing in a workflow that a server does not have;
    `has_key`: prompts carry a key for partner nodes."""
    unknown: dict[str, list[str]] = {}
    for node, class_type in loaded.classes.items():
        if info.wants_key(class_type) and not has_key:
            yield (
                f"node {node} ({class_type}) runs at a paid service of comfy.org: set COMFY_API_KEY"
                " in .env to a key from platform.comfy.org"
            )
        if class_type not in info:
            unknown.setdefault(class_type, []).append(node)
    for class_type, nodes in unknown.items():
        yield (
            f"ComfyUI does not know class {class_type!r} of node {', '.join(nodes)}"
            f"{_hint(class_type, info)}. Every job will be refused until its pack is installed and"
            " ComfyUI restarted"
        )
    for text in loaded.texts():
        offered = info.choices(text.class_type, text.name)
        if offered is not None and text.value not in offered and not text.replaced:
            yield (
                f"node {text.node}, {text.name}: {text.value!r} is not offered by ComfyUI, which"
                " will refuse every job: choose another in the file"
            )


def _hint(class_type: str, info: ObjectInfo) -> str:
    """Return where a class that the server lacks may come from; empty if there is no telling."""
    if pack := pack_of(class_type):
        return f" (probably of the pack {pack})"
    close = info.nearest(class_type)
    return f" (did you mean {close!r}?)" if close else ""


def pack_of(class_type: str) -> str | None:
    """Return the node pack that a class is probably part of, by its author's naming."""
    return next((pack for mark, pack in PACKS.items() if mark in class_type), None)
