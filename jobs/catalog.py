"""The workflows of the owner: which there are, and what a form over each of them offers.

Owns the folder of folders, `workflows/NAME/base.json`, and tells a workflow that can be used from
one that cannot. Reads files and what the server's node classes accept; asks the server nothing.
Where something is written in a graph, only binder.py knows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import binder
from comfyui.object_info import ComfyOptions, ObjectInfo, OptionsMissing
from text import PublicError

log = logging.getLogger(__name__)

FILE_NAME = "base.json"
# Node packs by what stands in the names of their classes.
PACKS = {
    "(Efficient)": "Efficiency Nodes",
    "Efficient Loader": "Efficiency Nodes",
    "Eff. Loader": "Efficiency Nodes",
    "Mikey": "Mikey Nodes",
    "FaceDetailer": "ComfyUI Impact Pack",
    "Impact": "ComfyUI Impact Pack",
    "UltralyticsDetector": "ComfyUI Impact Subpack",
    "GGUF": "ComfyUI-GGUF",
    "rgthree": "rgthree-comfy",
    "easy ": "ComfyUI-Easy-Use",
    "ttN ": "ComfyUI_tinyterraNodes",
    "CR ": "ComfyUI Comfyroll Custom Nodes",
    "KJ": "ComfyUI-KJNodes",
    "pysssss": "ComfyUI-Custom-Scripts",
    "(Image Saver)": "ComfyUI Image Saver",
    "Image Saver": "ComfyUI Image Saver",
    "IPAdapter": "ComfyUI_IPAdapter_plus",
    "LayerUtility": "ComfyUI_LayerStyle",
    "UltimateSDUpscale": "ComfyUI_UltimateSDUpscale",
    "VHS_": "ComfyUI-VideoHelperSuite",
    "Nunchaku": "ComfyUI-nunchaku",
    "DynamicThresholding": "sd-dynamic-thresholding",
    "ControlNetPreprocessor": "comfyui_controlnet_aux",
    "Preprocessor": "comfyui_controlnet_aux",
    "SDXLPromptStyler": "sdxl_prompt_styler",
    "LoRA Stacker": "Efficiency Nodes",
    "Text Multiline": "WAS Node Suite",
    "Text Concatenate": "WAS Node Suite",
    "DF_": "Derfuu_ComfyUI_ModdedNodes",
    "ADE_": "ComfyUI-AnimateDiff-Evolved",
    "BNK_": "ComfyUI_ADV_CLIP_emb",
}


class WorkflowError(PublicError):
    """A workflow cannot be used; `str()` is the reason, for the owner."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason, f"The workflow cannot be used: {reason}. Please tell the bot's owner."
        )


@dataclass(frozen=True)
class Offer:
    """What a person may choose from with one workflow, what stands in its file, and the params that
    have a control. `size` is of the file's pictures, None if it cannot be chosen; `loras` are empty
    where there is no model to use them with."""

    options: ComfyOptions
    defaults: binder.Defaults
    params: frozenset[str]
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
    params = binder.bound_params(bindings)
    if bindings is binder.LOCKED:
        options = info.options(binder.bound_classes(workflow))
    else:
        options = info.options_of(binder.list_inputs(workflow, bindings))
        params -= {param for param in binder.OPTION_PARAMS if not getattr(options, f"{param}s")}
        check_classes(loaded, info)
    server = info.capabilities(binder.SEED_INPUTS)
    loras = server.loras if binder.model_nodes(workflow, server.outputs, bindings) else ()
    size = binder.size_of(workflow, bindings)
    return Offer(options, binder.defaults(workflow, bindings), params, size, loras)


def check_classes(loaded: binder.BindResult, info: ObjectInfo) -> None:
    """WorkflowError if the server lacks a node class of a workflow: it would refuse every job."""
    names = binder.classes(loaded.workflow).values() if loaded.ok else ()
    missing = sorted({name for name in names if name not in info})
    if missing:
        raise WorkflowError(f"ComfyUI does not know {', '.join(missing)}")


def lacking(loaded: binder.Valid, info: ObjectInfo) -> Iterator[str]:
    """What a server does not have of a workflow: a line each, with what to do."""
    for node, class_type in binder.classes(loaded.workflow).items():
        if class_type not in info:
            close = info.nearest(class_type)
            pack = pack_of(class_type)
            hint = f" (did you mean {close!r}?)." if close else "."
            hint = f" (probably of the pack {pack})." if pack else hint
            yield (
                f"ComfyUI does not know class {class_type!r} of node {node}{hint} Every job will"
                " be refused until its pack is installed and ComfyUI restarted"
            )
    for text in binder.texts(loaded.workflow, loaded.bindings):
        offered = info.choices(text.class_type, text.name)
        if offered is None or text.value in offered:
            continue
        if text.replaced:
            why = "only the form's first choice is missing, every job writes its own"
        else:
            why = "ComfyUI will refuse every job: choose another in the file"
        where = f"node {text.node}, {text.name}: {text.value!r}"
        yield f"{where} is not offered by ComfyUI; {why}"


def pack_of(class_type: str) -> str | None:
    """The node pack that a class is likely of, by the way its author names things."""
    return next((pack for mark, pack in PACKS.items() if mark in class_type), None)
