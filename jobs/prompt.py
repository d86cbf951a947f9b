"""The prompt of a job: its workflow with everything written into it that the job asks for.

Owns the order of the steps after `binder.bind()`: seeds, shape, LoRAs. Pure functions, called in
the worker's thread. What is written where, binder.py knows.
"""

from __future__ import annotations

from dataclasses import replace

import binder
from comfyui.object_info import Capabilities
from jobs import lora
from store import Job
from text import PublicError


class JobError(PublicError):
    """Why a job cannot be accepted or made."""


def prepared(job: Job, loaded: binder.Valid, server: Capabilities) -> binder.Workflow:
    """The workflow bound to the job, and then each step that the job asks for. JobError for what
    the server or the workflow does not have any more."""
    prompt = lora.read(job.positive_prompt, server.loras)
    if prompt.problems:
        raise JobError(" ".join(prompt.problems))
    bindings = loaded.bindings
    result = binder.bind(replace(job, positive_prompt=prompt.text), loaded.workflow, bindings)
    if not result.ok:
        raise JobError(f"The bot's workflow cannot be used: {result.reason}.")
    workflow = result.workflow
    if bindings is not binder.LOCKED:
        workflow = binder.rescale_passes(workflow, loaded.workflow, bindings)
    if job.seed is not None:
        workflow = binder.reseed(workflow, job.seed, server.seed_maxima, bindings)
    if job.shape:
        size = binder.size_of(workflow, bindings)
        if size is None or job.shape not in binder.SHAPES:
            raise JobError("The workflow does not let its shape be chosen any more. Press Edit.")
        workflow = binder.with_size(workflow, binder.in_shape(size, job.shape), bindings)
    return binder.with_loras(workflow, prompt.loras, server.outputs, bindings)
