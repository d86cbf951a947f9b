"""The command --once: one picture without Discord.

Owns the job of the command line and its way through store, client and worker, in a database of its
own; saves the pictures in a folder.
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
from dataclasses import replace
from pathlib import Path

import binder
from binder import OPTION_PARAMS, SEED_MAX
from cli.checks import unusable_comfyui
from comfy_client import ComfyClient
from comfyui.errors import ComfyError, PictureMissing, TimedOut, Unreachable
from comfyui.history import ImageRef
from comfyui.images import kind_of
from comfyui.progress import Progress
from job import Job, JobParams, PictureParams
from jobs.catalog import Catalog, Offer, WorkflowError, Workflows, offer
from jobs.draft import STRENGTHS, Draft
from jobs.names import NamesByList, OptionNames, find_named, nearest
from jobs.servers import Servers
from jobs.typed import CFG_RANGE, STEPS_RANGE, FormError
from jobs.workers import Workers
from settings import Server, Settings, redact
from store import Store
from text import UserError, collecting, escape

STOP_SECONDS = 10.0  # for freeing the GPU after Ctrl+C
PROGRESS_EVERY = 0.5  # seconds between two updates of the progress
NAMES_SHOWN = 5  # of a list to choose from


class OnceError(Exception):
    """There is no picture; `str()` is the reason, for the owner."""


def add_options(parser: argparse.ArgumentParser) -> list[str]:
    """Add the options of one picture to the command line, and return their names."""
    group = parser.add_argument_group("with --once (default: as the workflow file says)")
    options = [
        group.add_argument("--workflow", help="any part of a workflow's name"),
        group.add_argument("--model", help="words of a model's name: the best match is taken"),
        group.add_argument("--image", metavar="FILE", type=Path, help="the picture to work on"),
        group.add_argument("--strength", help=", ".join(STRENGTHS)),
        group.add_argument("--shape", help=", ".join(binder.SHAPES)),
        group.add_argument("--steps", help="{} to {}".format(*STEPS_RANGE)),
        group.add_argument("--cfg", help="{:g} to {:g}".format(*CFG_RANGE)),
        group.add_argument("--sampler"),
        group.add_argument("--scheduler"),
        group.add_argument("--negative", metavar="PROMPT", help="what to keep out of the picture"),
        group.add_argument("--count", help="how many pictures"),
        group.add_argument("--length", help="of a video, in frames"),
        group.add_argument("--seed", help=f"0 to {SEED_MAX}"),
        group.add_argument("--server", metavar="N", help="2: the one at COMFY_BASE_URL_2"),
        group.add_argument(
            "--out", metavar="DIR", type=Path, help="where to save it (default: here)"
        ),
    ]
    return [option.dest for option in options]


def run_once(settings: Settings, options: argparse.Namespace) -> int:
    """Make one picture as the command line says, and return the exit code."""
    try:
        return asyncio.run(make_one_picture(settings, options))
    except Unreachable as error:
        text = unusable_comfyui(chosen_servers(settings, options)[0], error)
    except UserError as error:  # a sentence with Discord's markdown
        text = re.sub(r"\\(.)|\*\*|`", lambda match: match[1] or "", str(error))
    except (OnceError, WorkflowError, ComfyError) as error:
        text = str(error)
    print(redact(for_owner(text), *settings.secrets), file=sys.stderr)
    return 1


def for_owner(text: str) -> str:
    """Return a text for people without the advice to turn to the bot's owner, who reads it here."""
    advice = (
        r"(?: Please| If[^.,]*,|(?P<end>,? or|[:;] please|; if[^.,]*,)) tell the bot's owner[^.]*\."
    )
    text = re.sub(advice, lambda match: "." if match["end"] else "", text)
    return text.replace("The bot's owner finds it", "It is")


async def make_one_picture(settings: Settings, arguments: argparse.Namespace) -> int:
    """Make the pictures of one job, save them, and return the exit code 0. Raises OnceError, or the
    errors of the layers below."""
    workflows = Workflows(settings.workflow_path)
    workflow = workflow_named(workflows, arguments.workflow)
    loaded = workflows.load(workflow)
    if not loaded.ok:
        raise OnceError(f"{loaded.reason} ({workflows.path(workflow)})")
    check_folder(arguments.out)
    image = read_image(arguments.image)
    servers = chosen_servers(settings, arguments)
    client = await asyncio.to_thread(first_that_answers, [ComfyClient(s) for s in servers])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, closing(client):
        info = await asyncio.to_thread(client.object_info)
        lists = NamesByList({})
        params = once_params(settings, arguments, workflow, offer(loaded, info, lists))
        print(summary(params), flush=True)
        catalog = Catalog(Servers([client]), workflows, can_refresh=False)
        catalog.update_server(info, lists)
        with closing(Store(Path(folder) / "once.db")) as store:
            if image:
                params = replace(params, image=store.keep_picture(image))
            job, report = await run_job(settings, client, catalog, store, params)
    if not report.pictures:
        detail = f" ({report.error})" if report.error else ""
        raise OnceError(explanation(job, settings.comfy_timeout) + detail)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, (name, data) in enumerate(
        zip(job.output_images, report.pictures, strict=True), start=1
    ):
        if isinstance(data, PictureMissing):
            print(f"{name} is missing: {data.reason}.", file=sys.stderr)
            continue
        filename = Path(ImageRef.parse(name).filename).name
        if len(report.pictures) > 1:
            filename = f"{number:02}-{filename}"
        print(save(arguments.out, filename, data))
    return 0


def chosen_servers(settings: Settings, arguments: argparse.Namespace) -> Sequence[Server]:
    """Return the server that --server names, else all. Raises OnceError if there is no such."""
    if arguments.server is None:
        return settings.servers
    found = [server for server in settings.servers if str(server.number) == arguments.server]
    if not found:
        numbers = ", ".join(str(server.number) for server in settings.servers)
        raise OnceError(f"--server: .env has no server {arguments.server}. There are: {numbers}.")
    return found


def first_that_answers(clients: Sequence[ComfyClient]) -> ComfyClient:
    """Return the first server that answers, or the first of all. With one, it is not asked."""
    if len(clients) == 1:
        return clients[0]
    return next((client for client in clients if client.ping()), clients[0])


def workflow_named(workflows: Workflows, text: str | None) -> str:
    """Return the workflow that the owner names. Raises OnceError if there is none."""
    names = workflows.names()
    found = OptionNames(names).find(text) if text else workflows.default
    if found is None:
        raise OnceError(f"There is no workflow {text}. There are: {', '.join(names)}.")
    return found


def summary(params: PictureParams) -> str:
    """Return a line about the settings, as far as the workflow has them."""
    seed = "of the file" if params.seed is None else params.seed
    parts = (
        params.model,
        params.sampler,
        params.scheduler,
        params.shape,
        f"strength {params.strength:g}" if params.strength else "",
        f"{params.steps} steps" if params.steps else "",
        f"CFG {params.cfg:g}" if params.cfg else "",
        f"seed {seed}",
    )
    return ", ".join(filter(None, parts))


def read_image(path: Path | None) -> bytes:
    """Return the picture in a file; empty without one. Raises OnceError if it cannot be used."""
    if path is None:
        return b""
    try:
        image = kind_of(path.read_bytes())
    except OSError as error:
        raise OnceError(f"--image: {path} cannot be read: {error.strerror}.") from error
    if isinstance(image, str):
        raise OnceError(f"--image: {path}: {image}")
    return image.data


def check_folder(folder: Path) -> None:
    """Raise OnceError, before the GPU works, if no picture can be saved there. Makes no folder."""
    place = next(there for there in (folder, *folder.parents) if os.path.exists(there))
    if not place.is_dir():
        raise OnceError(f"--out: {place} is a file, not a folder. Name a folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        where = f"nothing can be written to {place.resolve()}"
        raise OnceError(f"{where}. Name another folder: --out FOLDER")


def save(folder: Path, filename: str, data: bytes) -> Path:
    """Write a new file, with a number in its name if the name is taken, and return its path."""
    path, number = folder / filename, 1
    while True:
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            file.write(data)
            return path
        number += 1
        path = folder / f"{Path(filename).stem}-{number}{Path(filename).suffix}"


def explanation(job: Job, timeout: float) -> str:
    """Return why a job has no picture, for the owner; `timeout` is of one job, in seconds."""
    reason = job.error_message or "There is no picture."
    if reason == TimedOut.user_message:
        reason += f" COMFY_TIMEOUT_MS allows it {timeout * 1000:.0f} ms: set it higher."
    return reason


class Report:
    """The worker's reports about the one job."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.pictures: Sequence[bytes | PictureMissing] = ()
        self.error: Exception | None = None  # the last one

    def job_started(self, job_id: str, progress: Progress) -> None:
        """Keep its progress."""
        self.progress = progress

    def job_ended(self, job_id: str, pictures: Sequence[bytes | PictureMissing] = ()) -> None:
        """Keep its pictures."""
        self.pictures = pictures

    def on_error(self, error: Exception) -> None:
        """Keep the reason of a failure."""
        self.error = error


async def run_job(
    settings: Settings, client: ComfyClient, catalog: Catalog, store: Store, params: JobParams
) -> tuple[Job, Report]:
    """Run one step of a worker, and show its progress meanwhile."""
    report = Report()
    shown = ""
    workers = Workers(settings, store, Servers([client]), catalog, report)
    (worker,) = workers.each
    job_id = store.insert(params)
    listening = asyncio.create_task(worker.follow())
    # Not a task: Python 3.10 cancels tasks at Ctrl+C, and this must end before the store closes.
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, worker.run_job, job_id)
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=PROGRESS_EVERY)
            if report.progress is not None:
                shown = show_progress(report.progress, shown)
    finally:
        if sys.stdout.isatty():
            print()
        listening.cancel()
        workers.cancel(job_id)  # frees the GPU after Ctrl+C, and does nothing after the end
        await work
        await loop.run_in_executor(None, worker.sweeper.finish, STOP_SECONDS)
    job = store.get(job_id)
    assert job is not None
    return job, report


def show_progress(progress: Progress, shown: str) -> str:
    """Print the progress of a job and return the line: in place on a terminal, elsewhere as a new
    line unless it is the one `shown` last."""
    line = f"{progress.fraction:5.0%}"
    if progress.passes:
        line += f"  pass {progress.current_pass} of {progress.passes}"
    if sys.stdout.isatty():
        print(f"\r{line}", end="", flush=True)
    elif line != shown:
        print(line, flush=True)
    return line


def once_params(
    settings: Settings, arguments: argparse.Namespace, workflow: str, offer: Offer
) -> JobParams:
    """Return the job of --once: what the arguments say, else what the workflow file says."""
    draft = Draft.from_file(workflow, offer, settings)
    texts = {**draft.texts(), "positive_prompt": arguments.once}
    if arguments.negative is not None:
        texts["negative_prompt"] = arguments.negative
    typed = {name: getattr(arguments, name) for name in ("steps", "cfg", "seed", "length")}
    problems = draft.apply_typed({**texts, **{name: text for name, text in typed.items() if text}})
    chosen = {name: getattr(arguments, name) for name in OPTION_PARAMS}
    for name, wanted in {**typed, "negative": arguments.negative, **chosen}.items():
        if wanted and name not in offer.params:
            problems.append(f"The workflow {escape(workflow)} has no {name} to set.")
    for name in offer.fields:
        wanted = chosen[name]
        if wanted and name == "model":
            draft.change(model=find_named("model", wanted, offer.models))
        elif wanted and not draft.set_if_offered(name, wanted):
            near = nearest(wanted, offer.offered(name))
            problems.append(f"There is no {name} {wanted}.{near}")
        elif not getattr(draft.picture, name):
            with collecting(problems):
                choose_only(draft, name, getattr(offer.defaults, name))
    with collecting(problems):
        draft.set_shape(arguments.shape or "")
    with collecting(problems):
        draft.set_count(arguments.count or "")
    with collecting(problems):
        draft.set_strength(arguments.strength or "")
    if offer.takes_image and arguments.image is None:
        problems.append("The workflow needs a picture to work on: --image FILE")
    if arguments.image is not None and not offer.takes_image:
        problems.append(f"The workflow {escape(workflow)} takes no picture.")
    if problems:
        raise FormError("\n".join(problems))
    return draft.job_params("0", "0", "0")


def choose_only(draft: Draft, name: str, missing: str) -> None:
    """Choose the only value there is for one of OPTION_PARAMS, since ComfyUI does not offer that of
    the workflow file. Raises FormError if there are several."""
    offered = draft.offer.offered(name)
    names = [offered.shown(value) for value in offered.values[:NAMES_SHOWN]]
    why = f"ComfyUI does not have the workflow file's {name}, {missing}"
    if len(offered) == 1:
        draft.set_if_offered(name, offered.values[0])
        print(f"{why}. Used instead is its only one, {names[0]}.")
        return
    more = f" and {len(offered) - NAMES_SHOWN} more" if len(offered) > NAMES_SHOWN else ""
    raise FormError(escape(f"{why}. Choose one with --{name}: {', '.join(names)}{more}."))
