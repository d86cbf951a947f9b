"""--once: one picture without Discord.

Owns the job of the command line and its way through store, client and worker, in a database of its
own; the pictures are saved in a folder. Needs no connection to Discord.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import binder
from binder import SEED_MAX
from cli.checks import unusable_comfyui
from comfy_client import ComfyClient, ImageRef, ProgressFeed
from comfyui.errors import ComfyError, TimedOut, Unreachable
from comfyui.progress import Progress
from jobs.catalog import Catalog, Offer, WorkflowError, Workflows, offer
from jobs.draft import CFG_RANGE, FORM_FIELDS, STEPS_RANGE, Draft, FormError, blank
from jobs.names import find_model, names_of, nearest
from jobs.worker import Worker
from settings import Settings, redact
from store import Job, JobParams, Store
from text import UserError, escape

STOP_SECONDS = 10.0  # for freeing the GPU after Ctrl+C
PROGRESS_EVERY = 0.5  # seconds between two looks at the progress
NAMES_SHOWN = 5  # of a list to choose from


class OnceError(Exception):
    """Why there is no picture; `str()` is for the owner."""


def add_options(parser: argparse.ArgumentParser) -> list[str]:
    """Add the options of one picture to the command line; their names."""
    group = parser.add_argument_group("with --once (default: as the workflow file says)")
    options = [
        group.add_argument("--workflow", help="any part of a workflow's name"),
        group.add_argument("--model", help="words of a model's name: the best match is taken"),
        group.add_argument("--shape", help=", ".join(binder.SHAPES)),
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
    except (FormError, UserError) as error:  # a sentence with Discord's markdown
        text = re.sub(r"\\(.)|\*\*|`", lambda match: match[1] or "", str(error))
    except (OnceError, WorkflowError, ComfyError) as error:
        text = str(error)
    print(redact(text, *settings.secrets), file=sys.stderr)
    return 1


async def make_one_picture(settings: Settings, arguments: argparse.Namespace) -> int:
    """One job with these arguments; the exit code is 0 if its pictures are saved. Raises OnceError,
    or what the layers below raise."""
    workflows = Workflows(settings.workflow_path)
    workflow = workflow_named(workflows, arguments.workflow)
    loaded = workflows.load(workflow)
    if not loaded.ok:
        raise OnceError(f"{loaded.reason} ({workflows.path(workflow)})")
    check_folder(arguments.out)
    client = ComfyClient(settings.comfy_base_url, settings.comfy_headers)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, closing(client):
        info = await asyncio.to_thread(client.object_info)
        params = once_params(settings, arguments, workflow, offer(loaded, info))
        print(summary(params), flush=True)
        catalog = Catalog(client, workflows, can_refresh=False)
        catalog.server = info.capabilities(binder.SEED_INPUTS)
        with closing(Store(Path(folder) / "once.db")) as store:
            job, report = await run_job(settings, client, catalog, store, params)
    if not report.pictures:
        detail = f" ({report.error})" if report.error else ""
        raise OnceError(explanation(job, settings.comfy_timeout) + detail)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, (name, data) in enumerate(
        zip(job.output_images, report.pictures, strict=True), start=1
    ):
        filename = Path(ImageRef.parse(name).filename).name
        if len(report.pictures) > 1:
            filename = f"{number:02}-{filename}"
        print(save(arguments.out, filename, data))
    return 0


def workflow_named(workflows: Workflows, text: str | None) -> str:
    """The workflow that the owner names; OnceError if there is none."""
    names = workflows.names()
    found = names_of(names).find(text) if text else workflows.default
    if found is None:
        raise OnceError(f"There is no workflow {text}. There are: {', '.join(names)}.")
    return found


def summary(params: JobParams) -> str:
    """What is made, as far as the workflow has it."""
    seed = "of the file" if params.seed is None else params.seed
    parts = (
        params.model,
        params.sampler,
        params.scheduler,
        params.shape,
        f"{params.steps} steps" if params.steps else "",
        f"CFG {params.cfg:g}" if params.cfg else "",
        f"seed {seed}",
    )
    return ", ".join(filter(None, parts))


def check_folder(folder: Path) -> None:
    """OnceError, before the GPU has worked, if no picture can be saved there. Makes no folder."""
    place = next(there for there in (folder, *folder.parents) if there.exists())
    if not place.is_dir():
        raise OnceError(f"--out: {place} is a file, not a folder. Name a folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OnceError(f"--out: nothing can be written to {place}. Name another folder.")


def save(folder: Path, filename: str, data: bytes) -> Path:
    """Write a new file, with a number in its name if there is one of that name; its path."""
    path, number = folder / filename, 1
    while True:
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            file.write(data)
            return path
        number += 1
        path = folder / f"{Path(filename).stem}-{number}{Path(filename).suffix}"


def explanation(job: Job, timeout: float) -> str:
    """Why a job has no picture, for the owner; `timeout` is of one job, in seconds."""
    reason = job.error_message or "There is no picture."
    if reason == TimedOut.user_message:
        reason += f" COMFY_TIMEOUT_MS allows it {timeout * 1000:.0f} ms: set it higher."
    return reason


class Report:
    """What the worker reports of the one job."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.pictures: Sequence[bytes] = ()
        self.error: Exception | None = None  # the last one

    def job_started(self, job_id: str, progress: Progress) -> None:
        """Keep its progress."""
        self.progress = progress

    def job_ended(self, job_id: str, pictures: Sequence[bytes] = ()) -> None:
        """Keep its pictures."""
        self.pictures = pictures

    def on_error(self, error: Exception) -> None:
        """Keep the reason of a failure."""
        self.error = error


async def run_job(
    settings: Settings, client: ComfyClient, catalog: Catalog, store: Store, params: JobParams
) -> tuple[Job, Report]:
    """Run one step of a worker, with a line of progress meanwhile."""
    report = Report()
    shown = ""
    feed = ProgressFeed(client)
    worker = Worker(settings, store, client, catalog, feed, report)
    job_id = store.insert(params)
    listening = asyncio.create_task(feed.run(worker))
    # No task: Ctrl+C cancels those on Python 3.10, and this has to end before the store closes.
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, worker.step, job_id)
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=PROGRESS_EVERY)
            if report.progress is not None:
                shown = show_progress(report.progress, shown)
    finally:
        if sys.stdout.isatty():
            print()
        listening.cancel()
        worker.cancel(job_id)  # after Ctrl+C the GPU is free again; later it changes nothing
        await work
        await loop.run_in_executor(None, worker.sweeper.finish, STOP_SECONDS)
    job = store.get(job_id)
    assert job is not None
    return job, report


def show_progress(progress: Progress, shown: str) -> str:
    """Show how far a job is: in place on a terminal, elsewhere in a new line where that is not what
    is `shown` already. What is shown now."""
    line = f"{progress.fraction:5.0%}  pass {progress.current_pass} of {progress.passes}"
    if sys.stdout.isatty():
        print(f"\r{line}", end="", flush=True)
    elif line != shown:
        print(line, flush=True)
    return line


def once_params(
    settings: Settings, arguments: argparse.Namespace, workflow: str, offer: Offer
) -> JobParams:
    """The job of `--once`: what the arguments say, else what the workflow file says."""
    draft = blank(workflow, offer, settings.max_steps)
    texts = {
        **draft.texts(),
        "positive_prompt": arguments.once,
        "negative_prompt": arguments.negative or settings.default_negative_prompt,
    }
    asked = {"steps": arguments.steps, "cfg": arguments.cfg, "seed": arguments.seed}
    problems = draft.take({**texts, **{name: text for name, text in asked.items() if text}})
    for name, wanted in (*asked.items(), ("negative", arguments.negative)):
        if wanted and name not in draft.params:
            problems.append(f"The workflow {escape(workflow)} has no {name} to set.")
    for name in FORM_FIELDS:
        wanted = getattr(arguments, name)
        if name not in draft.fields:
            if wanted:
                problems.append(f"The workflow {escape(workflow)} has no {name} to set.")
        elif wanted and name == "model":
            draft.model = find_model(wanted, draft.options.models)
        elif wanted and not draft.adopt(name, wanted):
            problems.append(f"There is no {name} {wanted}.{nearest(wanted, draft.offered(name))}")
        elif not getattr(draft, name):
            problems += choose_only(draft, name, getattr(offer.defaults, name))
    draft.adopt_shape(arguments.shape or "", problems)
    if problems:
        raise FormError("\n".join(problems))
    return draft.job_params("0", "0", "0", random_seeds=settings.random_seeds)


def choose_only(draft: Draft, name: str, missing: str) -> list[str]:
    """In place of the workflow file's value for one of FORM_FIELDS, which ComfyUI does not offer,
    take the only one there is; what to do if there are several."""
    offered = draft.offered(name)
    names = [names_of(offered).shown(value) for value in offered[:NAMES_SHOWN]]
    why = f"ComfyUI does not have the workflow file's {name}, {missing}"
    if len(offered) == 1:
        draft.adopt(name, offered[0])
        print(f"{why}. Used instead is its only one, {names[0]}.")
        return []
    more = f" and {len(offered) - NAMES_SHOWN} more" if len(offered) > NAMES_SHOWN else ""
    return [escape(f"{why}. Choose one with --{name}: {', '.join(names)}{more}.")]
