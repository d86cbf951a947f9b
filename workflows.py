"""The workflows of the owner: which there are, and what a form over each of them offers.

Owns the folder of folders, `workflows/NAME/base.json`, and tells a workflow that can be used from
one that cannot. Reads files and what the server's node classes accept; asks the server nothing.
Where something is written in a graph, only binder.py knows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import binder
from object_info import ComfyOptions, ObjectInfo, OptionsMissing

log = logging.getLogger(__name__)

FILE_NAME = "base.json"


class WorkflowError(Exception):
    """A workflow cannot be used; `str()` is the reason, for the owner."""

    @property
    def public(self) -> str:
        """A finished sentence for people."""
        return f"The workflow cannot be used: {self}. Please tell the bot's owner."


@dataclass(frozen=True)
class Offer:
    """What a person may choose from with one workflow, what stands in its file, and the roles that
    have a control. `size` is of the file's pictures, None if it cannot be chosen; `loras` are empty
    where there is no model to use them with."""

    options: ComfyOptions
    defaults: binder.Defaults
    roles: frozenset[str]
    size: binder.Size | None = None
    loras: tuple[str, ...] = ()


class Workflows:
    """The default workflow, and those in the folders beside its folder. They are called by the
    names of their folders; an empty name is the default, also of jobs from before there were
    others."""

    def __init__(self, default_path: Path) -> None:
        """`default_path` is WORKFLOW_PATH."""
        self._default_path = default_path
        self.default = default_path.parent.name

    def names(self) -> list[str]:
        """All there are now, usable or not, the default first."""
        return [self.default, *(name for name in self._beside() if name.isprintable())]

    def _beside(self) -> list[str]:
        """The folders with a workflow beside the default's, without hidden ones."""
        try:
            found = list(self._default_path.parent.parent.glob(f"*/{FILE_NAME}"))
        except OSError as error:
            log.warning("the folders beside the workflow's cannot be read: %s", error)
            found = []
        names = sorted(path.parent.name for path in found)
        return [name for name in names if name != self.default and not name.startswith(".")]

    def path(self, name: str) -> Path:
        """The file of one of `names()`."""
        if name in ("", self.default):
            return self._default_path
        return self._default_path.parent.parent / name / FILE_NAME

    def load(self, name: str = "") -> binder.BindResult:
        """The file of a workflow as it is now, validated: an owner may edit it while the bot
        runs."""
        # It comes out of a database or from Discord, and may not lead out of the folder.
        if name and name not in self.names():
            return binder.Invalid(f"there is no workflow {name} any more")
        loaded = binder.load(self.path(name))
        return binder.validate(loaded.workflow, loaded.bindings) if loaded.ok else loaded

    def offers(self, info: ObjectInfo) -> tuple[dict[str, Offer], dict[str, str]]:
        """What each usable workflow offers on this server, the default first, and why each of the
        others is left out. WorkflowError or OptionsMissing if the default cannot be used."""
        found: dict[str, Offer] = {}
        unshown = [ascii(name) for name in self._beside() if not name.isprintable()]
        left_out = dict.fromkeys(unshown, "its name cannot be shown: rename the folder")
        for name in self.names():
            try:
                loaded = self.load(name)
                if name != self.default:  # of a locked default, a start only warns of that
                    check_classes(loaded, info)
                found[name] = offer(loaded, info)
            except (WorkflowError, OptionsMissing) as error:
                if name == self.default:
                    raise
                left_out[name] = str(error)
        return found, left_out


def offer(loaded: binder.BindResult, info: ObjectInfo) -> Offer:
    """What one workflow offers on this server. WorkflowError if it cannot be used, OptionsMissing
    if it offers nothing to choose from."""
    if not loaded.ok:
        raise WorkflowError(loaded.reason)
    workflow, bindings = loaded.workflow, loaded.bindings
    roles = binder.roles(bindings)
    if bindings is binder.LOCKED:
        options = info.options(binder.bound_classes(workflow))
    else:
        options = info.options_of(binder.list_inputs(workflow, bindings))
        roles -= {role for role in binder.OPTION_ROLES if not getattr(options, f"{role}s")}
        check_classes(loaded, info)
    server = info.capabilities(binder.SEED_INPUTS)
    loras = server.loras if binder.model_nodes(workflow, server.outputs, bindings) else ()
    size = binder.size_of(workflow, bindings)
    return Offer(options, binder.defaults(workflow, bindings), roles, size, loras)


def check_classes(loaded: binder.BindResult, info: ObjectInfo) -> None:
    """WorkflowError if the server lacks a node class of a workflow: it would refuse every job."""
    names = binder.classes(loaded.workflow).values() if loaded.ok else ()
    missing = sorted({name for name in names if name not in info})
    if missing:
        raise WorkflowError(f"ComfyUI does not know {', '.join(missing)}")
