"""What can go wrong at ComfyUI, and how people and the owner read of it.

Owns the tree of errors of everything that asks ComfyUI, and turns the server's refusals and
failures into them (comfyui.md). Asks the server for nothing: no HTTP here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from names import shortened

DETAIL_LENGTH = 200  # of a server's own words, as shown to people


class ComfyError(Exception):
    """Base of what can go wrong. `public` is a finished sentence for people, free of paths, URLs
    and secrets; `str()` is the detail for the log."""

    public = "Something went wrong on the image server. Please try again."

    def __init__(self, detail: str, public: str | None = None) -> None:
        super().__init__(detail)
        if public is not None:
            self.public = public


class Unreachable(ComfyError):
    """Refused, reset, timed out, 429 or 5xx: the same call may work later, and this one may have
    been carried out all the same."""

    public = "The image server cannot be reached right now. Please try again in a few minutes."


class BadAnswer(ComfyError):
    """Whatever answers is not a ComfyUI: a login page, a redirect, another program."""

    public = "The image server gave an answer that makes no sense. Please tell the bot's owner."


class Refused(ComfyError):
    """The server did not accept the workflow; the public sentence names node, input and value.
    `was_queued`: it took a part of it, which may be at work."""

    was_queued = False


class NodeFailed(ComfyError):
    """A node raised an exception while the prompt ran."""


class OutOfMemory(NodeFailed):
    """The GPU's memory did not suffice."""

    public = (
        "The model is too big for the GPU at these settings. Try another model or fewer details."
    )


class Interrupted(ComfyError):
    """The prompt was stopped on the server."""

    public = "The picture was stopped on the image server. Run /gen to ask for it again."


class NoPictures(ComfyError):
    """The prompt succeeded without a picture, or its pictures are gone from the server."""

    public = "The image server finished without a picture. Please tell the bot's owner."
    gone = "The picture was made, but it is no longer on the image server. Run /gen again."


class NoPreview(ComfyError):
    """The server cannot re-encode a file: a video, or a picture too large for the format."""

    public = "The picture could not be made smaller on the image server."


class Removed(ComfyError):
    """The prompt was taken out of the server's queue by somebody else."""

    public = (
        "The owner of the image server removed this picture from ComfyUI's queue."
        " Run /gen to ask for it again."
    )


class TimedOut(ComfyError):
    """A prompt ran longer than the owner allows."""

    public = "The picture took too long and was stopped. Try fewer steps or a smaller model."


def refusal(answer: Mapping[str, Any]) -> Refused:
    """Both shapes of a 400, and a 200 with node_errors, as one sentence (comfyui.md)."""
    faults: list[str] = []
    node_errors = answer.get("node_errors")
    for node, entry in (node_errors if isinstance(node_errors, dict) else {}).items():
        entry = entry if isinstance(entry, dict) else {}
        for fault in dicts(entry.get("errors")):
            where = f"node {node} ({entry.get('class_type', 'unknown')})"
            faults.append(clean(f"{where}, {_fault(fault)}"))
    error = answer.get("error")
    if not faults and isinstance(error, dict):
        faults.append(clean(f"{error.get('message', '')} {error.get('details', '')}"))
    elif not faults:
        faults.append(clean(error or "no reason given"))
    return Refused(
        "; ".join(faults),
        f"The image server refused this job: {shortened('; '.join(faults[:3]), 600)}."
        " Choose other values with /gen, or tell the bot's owner.",
    )


def _fault(fault: Mapping[str, Any]) -> str:
    """`input ckpt_name: Value not in list ('nope.ckpt')`."""
    extra = fault.get("extra_info")
    extra = extra if isinstance(extra, dict) else {}
    details = str(fault.get("details", ""))
    name = extra.get("input_name") or details.partition(":")[0]
    text = f"input {name}: {fault.get('message', 'not accepted')}"
    if "received_value" in extra:
        return f"{text} ('{shortened(str(extra['received_value']), 80)}')"
    quoted = re.match(r"[^:]*: ('[^']*'|\S+)", details)
    return f"{text} ({shortened(quoted[1], 80)})" if quoted else text


def failure(status: object) -> ComfyError | None:
    """What a history entry's status says went wrong; None for a success."""
    if not isinstance(status, dict):
        return None  # servers before 2024 wrote no status, and no entry for a failure
    messages = status.get("messages")
    for message in messages if isinstance(messages, list) else ():
        event, data = message if isinstance(message, list) and len(message) == 2 else ("", None)
        data = data if isinstance(data, dict) else {}
        if event == "execution_interrupted":
            return Interrupted(f"interrupted in node {data.get('node_id')}")
        if event == "execution_error":
            return _node_failure(data)
    if status.get("status_str") == "error" or status.get("completed") is False:
        return NodeFailed(
            f"status {status.get('status_str')} without a reason",
            "The picture failed on the image server. Try other settings.",
        )
    return None


def _node_failure(data: Mapping[str, Any]) -> NodeFailed:
    # Never `traceback` (the owner's paths) nor `current_inputs` (whole prompts, other people's).
    kind = str(data.get("exception_type", "error"))
    words = clean(data.get("exception_message", ""))
    detail = f"node {data.get('node_id')} ({data.get('node_type')}): {kind}: {words}"
    if kind.endswith("OutOfMemoryError") or "out of memory" in words.lower():
        return OutOfMemory(detail)
    node = clean(data.get("node_type", "a node"))
    return NodeFailed(
        detail,
        f"The picture failed in {node}: {clean(kind.rpartition('.')[2])}: {words}."
        " Try another model or other settings; if it goes on, tell the bot's owner.",
    )


# Where a path or an address begins. It may hold spaces and quotes, so nobody can say where it ends.
PLACE = re.compile(
    r"[a-z][a-z0-9+.-]*://"  # an address
    r"|(?<![a-z0-9])[a-z]:[\\/]|\\\\"  # C:\ or \\server
    r"|~[\w.-]*[\\/]|(?<![a-z0-9_.)\]])/{1,3}[^\s/]"  # ~owner/ or /home, and not and/or
    r"|%\w+%[\\/]|\bhost='|\b\d{1,3}(?:\.\d{1,3}){3}\b|\blocalhost:",
    re.IGNORECASE | re.ASCII,
)
# The keys of services that nodes use. What of the bot's own is secret, settings.py knows.
SECRET = re.compile(r"\bbearer\s+\S+|\beyJ[\w.-]{9,}|\b(?:hf|sk|ghp)[_-][\w-]{8,}", re.IGNORECASE)
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def clean(text: object) -> str:
    """The first line of a server's words for people: up to the first path or address, without
    tokens and long lists."""
    line = next(iter(str(text)[:2000].strip().splitlines()), "")
    line = TERMINAL_CODES.sub("", line)
    place = PLACE.search(line)
    if place:
        line = line[: place.start()].rstrip(" '\"(") + " …"
    line = re.sub(r"\[[^\]]{40,}\]?", "[…]", SECRET.sub("…", line))
    return shortened(line.strip(), DETAIL_LENGTH)


def dicts(items: object) -> Iterable[dict[str, Any]]:
    return (item for item in (items if isinstance(items, list) else []) if isinstance(item, dict))
