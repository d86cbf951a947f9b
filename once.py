"""--once: one picture without Discord.

Owns the job of the command line and its way through store, client and worker, in a database of its
own; the pictures are saved in a folder. Needs no connection to Discord.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import binder
import object_info
from binder import SEED_MAX
from checks import unusable_comfyui
from comfy_client import ComfyClient, ImageRef, Progress, ProgressFeed
from comfy_errors import ComfyError, Unreachable
from form import Draft, FormError
from modal import CFG_RANGE, STEPS_RANGE
from names import UnknownName, find_model, nearest
from object_info import ComfyOptions
from settings import Settings, redact
from store import Job, JobParams, Store
from worker import Worker
from workflows import Workflows, offer

STOP_SECONDS = 10.0  # for freeing the GPU after Ctrl+C
PROGRESS_EVERY = 0.5  # seconds between two lines of progress


class OnceError(Exception):
    """Why there is no picture; `str()` is for the owner."""


def add_options(parser: argparse.ArgumentParser) -> list[str]:
    """Add the options of one picture to the command line; their names."""
    group = parser.add_argument_group("with --once (default: as the workflow file says)")
    options = [
        group.add_argument("--model", help="any part of a model's name"),
        group.add_argument("--steps", help="{} to {}".format(*STEPS_RANGE)),
        group.add_argument("--cfg", help="{:g} to {:g}".format(*CFG_RANGE)),
        group.add_argument("--sampler"),
        group.add_argument("--scheduler"),
        group.add_argument("--negative", metavar="PROMPT", help="what to keep out of the picture"),
        group.add_argument("--seed", help=f"0 to {SEED_MAX}"),
        group.add_argument(
            "--out", metavar="DIR", type=Path, help="where to save it (default: here)"
        ),
    ]
    return [option.dest for option in options]


def run_once(settings: Settings, options: argparse.Namespace) -> int:
    """One picture, from the command line's options to its file; the exit code."""
    try:
        return asyncio.run(make_one_picture(settings, options))
    except Unreachable as error:
        text = unusable_comfyui(settings, error)
    except (FormError, UnknownName) as error:  # a sentence with Discord's markdown
        text = re.sub(r"\\(.)|\*\*|`", lambda match: match[1] or "", str(error))
    except (OnceError, ComfyError) as error:
        text = str(error)
    print(redact(text, *settings.secrets), file=sys.stderr)
    return 1


async def make_one_picture(settings: Settings, arguments: argparse.Namespace) -> int:
    """One job with these arguments; the exit code is 0 if its pictures are saved. Raises OnceError,
    or what the layers below raise."""
    workflows = Workflows(settings.workflow_path)
    loaded = workflows.load()
    if not loaded.ok:
        raise OnceError(f"{loaded.reason} ({settings.workflow_path})")
    arguments.out.mkdir(parents=True, exist_ok=True)
    client = ComfyClient(settings.comfy_base_url, settings.comfy_headers)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, closing(client):
        info = await asyncio.to_thread(object_info.fetch, client)
        options = offer(loaded, info).options
        params = once_params(settings, arguments, options, binder.defaults(loaded.workflow))
        seed = "of the file" if params.seed is None else params.seed
        numbers = f"{params.steps} steps, CFG {params.cfg:g}, seed {seed}"
        print(f"{params.model}, {params.sampler}, {params.scheduler}, {numbers}")
        with closing(Store(Path(folder) / "once.db")) as store:
            maxima = info.maxima(binder.SEED_INPUTS)
            job, pictures = await run_job(settings, client, store, params, maxima)
    if not pictures:
        raise OnceError(job.error_message or "There is no picture.")
    for number, (name, data) in enumerate(zip(job.output_images, pictures, strict=True), start=1):
        filename = ImageRef.parse(name).filename
        path = arguments.out / (filename if len(pictures) == 1 else f"{number:02}-{filename}")
        path.write_bytes(data)
        print(path)
    return 0


async def run_job(
    settings: Settings,
    client: ComfyClient,
    store: Store,
    params: JobParams,
    seed_maxima: Mapping[tuple[str, str], int],
) -> tuple[Job, list[bytes]]:
    """One step of a worker, with a line of progress meanwhile."""
    pictures: list[bytes] = []
    begun: list[Progress] = []  # of the job, once it has begun
    worker = Worker(
        store,
        client,
        Workflows(settings.workflow_path).load,
        timeout=settings.comfy_timeout,
        started=lambda job_id, progress: begun.append(progress),
        ended=lambda job_id, made: pictures.extend(made),
    )
    worker.seed_maxima = seed_maxima
    job_id = store.insert(params)
    feed = asyncio.create_task(ProgressFeed(client, worker.hear).run())
    # No task: Ctrl+C cancels those on Python 3.10, and this has to end before the store closes.
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, worker.step, job_id)
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=PROGRESS_EVERY)
            for progress in begun:
                passes = f"pass {progress.current_pass} of {progress.passes}"
                print(f"\r{progress.fraction:5.0%}  {passes}", end="", flush=True)
    finally:
        print()
        feed.cancel()
        worker.cancel(job_id)  # after Ctrl+C the GPU is free again; later it changes nothing
        await work
        await loop.run_in_executor(None, worker.sweeper.finish, STOP_SECONDS)
    job = store.get(job_id)
    assert job is not None
    return job, pictures


def once_params(
    settings: Settings,
    arguments: argparse.Namespace,
    options: ComfyOptions,
    defaults: binder.Defaults,
) -> JobParams:
    """The job of `--once`: what the arguments say, else what the workflow file says."""
    draft = Draft(options)
    draft.start_from(defaults)
    problems = draft.take(
        {
            "positive_prompt": arguments.once,
            "negative_prompt": arguments.negative or settings.default_negative_prompt,
            "steps": arguments.steps or str(draft.steps),
            "cfg": arguments.cfg or f"{draft.cfg:g}",
            "seed": arguments.seed or "",
        }
    )
    if arguments.model:
        draft.model = find_model(arguments.model, options.models)
    for name in ("sampler", "scheduler"):
        wanted = getattr(arguments, name)
        if wanted and not draft.adopt(name, wanted):
            problems.append(f"There is no {name} {wanted}.{nearest(wanted, draft.offered(name))}")
    if not problems and draft.missing():
        problems.append(f"Still missing: {', '.join(draft.missing())}.")
    if problems:
        raise FormError("\n".join(problems))
    return draft.job_params("0", "0", "0", random_seeds=settings.random_seeds)
