"""The prompt of a job: its workflow with everything written into it that the job asks for.

Owns the order of the steps after `binder.bind()`: seeds, shape, LoRAs. Pure functions, called in
the worker's thread.
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


def prepared(job: Job, workflow: binder.Workflow, server: Capabilities) -> binder.Nodes:
    """Return the workflow bound to the job, with each further step that the job asks for. Raises
    JobError for what the server or the workflow does not have any more."""
    text = lora.read(job.positive_prompt, server.loras)
    if text.problems:
        raise JobError(" ".join(text.problems))
    prompt = binder.bind(replace(job, positive_prompt=text.text), workflow)
    if job.seed is not None:
        prompt.reseed(job.seed, server.seed_maxima)
    if job.shape:
        if prompt.size is None or job.shape not in binder.SHAPES:
            raise JobError("The workflow does not let its shape be chosen any more. Press Edit.")
        prompt.resize(binder.in_shape(prompt.size, job.shape))
    prompt.add_loras(text.loras, server.outputs)
    return prompt.graph
