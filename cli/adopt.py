"""--adopt: an exported workflow becomes one that /gen drives.

Owns the command: it reads the file, writes the workflow's folder, and prints what was
found, what it is not sure of, and what the server lacks. Needs no connection to Discord.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import binder
from adopt.analysis import USUAL_STEPS, Adoption, analyse_file
from cli import questions
from comfy_client import ComfyClient
from comfyui.errors import ComfyError
from comfyui.object_info import ObjectInfo
from graph import Nodes, Place
from job import JobParams
from jobs.catalog import FILE_NAME, lacking
from settings import Settings

EXIT_UNSURE = 2
NAME_LIMIT = 60  # characters
UNUSUAL = JobParams(  # a job for the check of a new workflow
    model="",
    sampler="",
    scheduler="",
    steps=USUAL_STEPS,
    cfg=0,
    positive_prompt="a red fox",
    user_id="",
    guild_id="",
    channel_id="",
)
WINDOWS_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


class AdoptError(Exception):
    """Why a file is not adopted, and what to do; for the owner."""


def run_adopt(settings: Settings, options: argparse.Namespace) -> int:
    """Run `--adopt FILE`. The exit code is 0 if all was found for sure, 2 if the folder is written
    and something is not sure, 1 if the workflow cannot be driven."""
    info = _ask(settings)
    adoption = analyse_file(options.adopt, info)
    loaded = _checked(adoption, info)
    asks = loaded.ok and not (options.json or options.yes) and questions.has_terminal()
    if asks and adoption.not_sure:
        adoption = questions.ask_all(adoption)
        loaded = _checked(adoption, info)
        print()
    reason = None if loaded.ok else loaded.reason
    if options.json:
        print(_as_json(adoption, reason))
    elif loaded.ok:
        try:
            write(settings, options, adoption, loaded, info)
        except AdoptError as error:
            reason = str(error)
    if reason is not None:
        print(f"refused: {reason}", file=sys.stderr)
        return 1
    return EXIT_UNSURE if adoption.not_sure else 0


def write(
    settings: Settings,
    options: argparse.Namespace,
    adoption: Adoption,
    loaded: binder.Workflow,
    info: ObjectInfo | None,
) -> None:
    """Write the folder and print what is in it. Raises AdoptError if there is one of that name."""
    name = options.name or _name_of(options.adopt)
    if not _is_name(name):
        raise AdoptError(f"{name!r} cannot be the name of a folder: give another with --name")
    folder = settings.workflow_path.parent.parent / name
    try:
        folder.mkdir(parents=True)
        rows = (
            f"  {json.dumps(param)}: {json.dumps(places)}"
            for param, places in adoption.bindings.items()
        )
        text = "{\n" + ",\n".join(rows) + "\n}\n"
        (folder / binder.BINDINGS_FILE).write_text(text, "utf-8")
        # Last: it makes the folder a workflow, which a running bot may read at any moment.
        (folder / FILE_NAME).write_text(_pretty(adoption.workflow), "utf-8")
    except FileExistsError:
        raise AdoptError(
            f"there is a workflow {name} already: give another --name, or remove {folder}"
        ) from None
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)  # else the next try would find it
        raise AdoptError(f"{folder} cannot be written: {error.strerror}") from error
    has_key = bool(settings.servers[0].api_key)
    for line in report(adoption, loaded, info, has_key=has_key):
        print(line)
    print(f"\nWritten to {folder}; try it:")
    image = " --image photo.jpg" if loaded.takes_image else ""
    command = f'{program_command()} --once "a red fox"{image}'
    print(f"  {command} --workflow {quoted(name)} --out pictures")
    print("Then /refresh in Discord, or a start of the bot, offers it to people.")


def report(
    adoption: Adoption, loaded: binder.Workflow, info: ObjectInfo | None, *, has_key: bool
) -> Iterator[str]:
    """Yield a line for each param, and one for each thing that the server lacks."""
    for finding in adoption.findings:
        places = ", ".join(finding.places) or "-"
        yield f"{finding.param:<10} {places}: {finding.why}"
    for note in adoption.notes:
        yield f"changed    {note}"
    for question in _questions(adoption):
        yield f"{question}; look at it in ComfyUI, and correct {binder.BINDINGS_FILE} if need be"
    if info is None:
        yield "ComfyUI does not answer: what it has of this workflow, --check tells later"
        return
    for text in lacking(loaded, info, has_key=has_key):
        yield f"warning    {text}"


def _questions(adoption: Adoption) -> Iterator[str]:
    """Yield a question for each choice between nodes, which may be about several params."""
    for params in questions.groups(adoption):
        each = (", ".join(adoption.not_sure[param]) for param in params)
        yield f"not sure   {', '.join(params)}: it could be {'; '.join(each)}"


def _ask(settings: Settings) -> ObjectInfo | None:
    """Return what the server's node classes accept; None if there is no server."""
    client = ComfyClient(settings.servers[0])
    with closing(client):
        try:
            return client.object_info()
        except ComfyError:
            return None


def _checked(adoption: Adoption, info: ObjectInfo | None) -> binder.LoadResult:
    """Check what was found, as a start of the bot will read it, and as the server's nodes will."""
    if adoption.refused is not None:
        return binder.Invalid(adoption.refused)
    try:
        bindings = binder.parse_bindings(adoption.bindings)
    except ValueError as error:
        return binder.Invalid(str(error))
    loaded = binder.validate(adoption.workflow, bindings)
    reason = _refused_by(loaded, info) if loaded.ok and info is not None else None
    return binder.Invalid(reason) if reason else loaded


def _refused_by(workflow: binder.Workflow, info: ObjectInfo) -> str | None:
    """Return which param of an unusual job the server's nodes refuse: 30 steps, another shape, and
    the largest seed that is drawn. What a person chooses from a list is not checked here."""
    maxima = info.capabilities(binder.SEED_LIMITS).seed_maxima
    for shape in ("wide", "tall"):
        prompt = binder.bind(UNUSUAL, workflow)
        prompt.reseed(2**32 - 1, maxima)
        if prompt.size is not None:
            prompt.resize(binder.in_shape(prompt.size, shape))
        for param in (name for name in workflow.bindings if name not in binder.TEXT_PARAMS):
            for node, name in workflow.bindings[param]:
                class_type, value = prompt.classes[node], prompt.value(Place(node, name))
                takes = info.accepted(class_type, name, value)
                if takes is not None:
                    return (
                        f"{param}: {class_type} {node} takes {takes} as {name}, and a job may write"
                        f" {value}: put another node in its place in ComfyUI, and export it again"
                    )
    return None


def _as_json(adoption: Adoption, refused: str | None) -> str:
    answer = {"bindings": adoption.bindings, "not_sure": adoption.not_sure, "refused": refused}
    return json.dumps(answer, indent=2)


def _name_of(path: Path) -> str:
    """Return a name for the workflow out of its file's; of a file that is called as all are, its
    folder's."""
    stem = re.sub(r"[-_ ]*(workflow)?[-_ ]*(api)?$", "", path.stem, flags=re.IGNORECASE)
    words = re.findall(r"[\w.-]+", stem if stem and stem != "base" else path.resolve().parent.name)
    return "-".join(words)[:NAME_LIMIT].strip(".-") or "workflow"


def _is_name(name: str) -> bool:
    """Return whether every system takes it as the name of a folder, and a person can type it."""
    is_plain = re.fullmatch(r"\w[\w .+()-]*", name) is not None and name.strip(" .") == name
    return is_plain and len(name) <= NAME_LIMIT and not WINDOWS_NAMES.fullmatch(name)


def _pretty(workflow: Nodes) -> str:
    return json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"


def program_command() -> str:
    """Return how the owner has called the program, from the folder they are in."""
    path = Path(sys.executable)
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    # Whoever needs sudo to write there, needs it to read .env.
    sudo = "sudo " if "SUDO_USER" in os.environ else ""
    return f"{sudo}{quoted(str(path))} {quoted(sys.argv[0])}"


def quoted(name: str) -> str:
    return f'"{name}"' if " " in name or "(" in name else name
