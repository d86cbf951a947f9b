"""Sentences for people about why a job failed.

Explains what ComfyUI does not accept by the job, its workflow and the catalog. Called in the
worker's thread; writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from binder import LoadResult
from comfyui.errors import (
    A_NODE,
    NOT_IN_LIST,
    BrokenModel,
    Fault,
    NodeFailed,
    Rejected,
)
from job import Job
from jobs import lora
from jobs.catalog import Catalog
from jobs.names import OptionNames
from jobs.run import JobError
from settings import redact
from text import PublicError, display_name, quote

UNEXPECTED = "Something went wrong inside the bot. Please try again, or tell its owner."

LORA = "LoRA"
CHOICES = ("model", "sampler", "scheduler", LORA)  # what a person chooses from a list
TYPED_NUMBERS = {"seed": "seed", "steps": "number of steps", "cfg": "CFG"}
INPUT_NAME = re.compile(r"[a-z][a-z_]{0,39}")
NUMBER = r"[-+]?\d{1,20}(?:\.\d{1,20})?(?:e[-+]?\d{1,3})?(?![\w.])"  # no address
OUT_OF_RANGE = re.compile(f"Value {NUMBER} (?:bigger than max|smaller than min) of {NUMBER}")


def user_message_of(error: Exception) -> str:
    """Return what people read of an error of any layer: only a PublicError has words for them; of
    everything else, the log has the detail."""
    return redact(error.user_message) if isinstance(error, PublicError) else UNEXPECTED


def failure_message(error: Exception, job: Job, catalog: Catalog) -> str:
    """Return what people read of the error that a job ended with. Where ComfyUI does not accept a
    choice, or the job does not fit its workflow any more, the catalog is refreshed first, so that
    the sentence is true and the next form is. May block."""
    workflow = catalog.workflows.load(job.workflow)
    loaders = {place.node for place in workflow.bindings["model"]} if workflow.ok else ()
    if isinstance(error, BrokenModel) and error.node in loaders:
        return (
            f"The file of the model {quote(display_name(job.model))} is broken, so ComfyUI cannot"
            " load it. Choose another model, or tell the bot's owner."
        )
    if isinstance(error, Rejected) and error.faults:
        return redact(_rejection_message(error.faults, workflow, job, catalog))
    if isinstance(error, JobError):
        catalog.try_refresh()
    if isinstance(error, NodeFailed) and error.node_class:
        classes = workflow.classes.values() if workflow.ok else ()
        if error.node_class not in classes:
            return error.user_message.replace(f"in {error.node_class}", f"in {A_NODE}", 1)
    return user_message_of(error)


def _rejection_message(
    faults: Sequence[Fault], workflow: LoadResult, job: Job, catalog: Catalog
) -> str:
    """Explain faults of the prompt."""
    params = workflow.params_by_place if workflow.ok else {}
    written = {text.value for text in workflow.texts()} if workflow.ok else set()
    written |= {job.model, job.sampler, job.scheduler}
    chosen: dict[str, str] = {}
    for fault in faults:
        # A LoRA has no place in the file: its node is made for the prompt.
        likely = LORA if fault.name == "lora_name" else ""
        param = params.get((fault.node, fault.name), likely)
        if fault.kind != NOT_IN_LIST or param not in CHOICES:
            return _fault_message(fault, param, written)
        chosen[param] = fault.value
    is_fresh = catalog.try_refresh()
    if not all(_is_asked_for(job, param, value) for param, value in chosen.items()):
        return Rejected.user_message  # a value of the workflow file's own
    names = " and the ".join(f"{param} {quote(display_name(v))}" for param, v in chosen.items())
    verb = "are" if len(chosen) > 1 else "is"
    gone = f"The {names} {verb} not offered by ComfyUI any more."
    if not is_fresh:
        return f"{gone} Please choose another."
    offer = catalog.offer(job.workflow)
    if any(value in getattr(offer, f"{param}s", ()) for param, value in chosen.items()):
        return f"ComfyUI refuses the {names}. Choose another, or tell the bot's owner."
    return f"{gone} The list has been refreshed: press Edit."


def _is_asked_for(job: Job, param: str, value: str) -> bool:
    """Return whether the person has asked for a value that ComfyUI refused."""
    if param == LORA:
        return bool(lora.read(job.positive_prompt, OptionNames((value,))).loras)
    return bool(getattr(job, param) == value)


def _fault_message(fault: Fault, param: str, written: Collection[str]) -> str:
    """Explain one fault without its node, with what of the reason may help the person. A value is
    shown only if the job or its workflow has `written` it."""
    if fault.kind == NOT_IN_LIST and fault.value in written:
        is_name = INPUT_NAME.fullmatch(fault.name)
        name = fault.name.removesuffix("_name").replace("_", " ") if is_name else "value"
        value = quote(display_name(fault.value))
        return f"ComfyUI does not offer the {name} {value}. Please tell the bot's owner."
    if param in TYPED_NUMBERS and fault.kind.startswith("value_"):
        limit = OUT_OF_RANGE.search(fault.message)
        reason = f": {limit[0]}" if limit else ""
        return f"ComfyUI does not accept the {TYPED_NUMBERS[param]}{reason}. Please give another."
    if fault.kind == "missing_node_type" or "does not exist" in fault.message:
        return (
            "ComfyUI lacks a node that the bot's workflow needs. Please tell the bot's owner,"
            " who finds its name in the log."
        )
    return Rejected.user_message
