"""Errors of ComfyUI, with a sentence for people and a detail for the log.

Owns the tree of errors of everything that asks ComfyUI, and turns the server's refusals and
failures into them (docs/comfyui.md). Does no I/O. The server's own words may hold paths and
addresses, so they go to the log alone: people read names of nodes and inputs, classes of
exceptions, numbers, and values that a job or its workflow has written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from text import PublicError, truncate

DETAIL_LENGTH = 200  # of a server's own words in the log
CLASS_NAME = re.compile(r"[^\W\d_][\w ()+|&'-]{0,79}")  # of a node, as people read it
# Python's naming of its exceptions; whatever else a server puts there is not shown.
EXCEPTION = re.compile(r"[A-Za-z]{0,50}(?:Error|Exception|Exit|Interrupt|Warning)")

A_NODE = "a node"  # one whose class is not shown
NOT_IN_LIST = "value_not_in_list"  # the kind of a fault, in the words of POST /prompt


class ComfyError(PublicError):
    """Base of the errors of ComfyUI."""

    user_message = "Something went wrong on the image server. Please try again."


class Unreachable(ComfyError):
    """Connection refused, reset, timed out, 429 or 5xx: the same call may work later, and this
    one may have been carried out all the same."""

    user_message = (
        "The image server cannot be reached right now. Please try again in a few minutes."
    )


class BadAnswer(ComfyError):
    """Whatever answers is not a ComfyUI: a login page, a redirect, another program."""

    user_message = (
        "The image server gave an answer that makes no sense. Please tell the bot's owner."
    )


class Rejected(ComfyError):
    """The server did not accept the workflow; the detail names node, input and value.
    `was_queued`: it took a part of it, which may be at work. `faults`: its reasons."""

    was_queued = False
    faults: tuple[Fault, ...] = ()
    user_message = (
        "ComfyUI does not accept the bot's workflow. Please tell the bot's owner, who finds the"
        " reason in the log."
    )


class PictureRefused(ComfyError):
    """The server does not take a person's picture, because of its size, say."""

    user_message = (
        "The image server does not take this picture. Send a smaller one, or tell the bot's owner."
    )


class NodeFailed(ComfyError):
    """A node raised an exception while the prompt ran. `node` is its id in the workflow, and
    `node_class` its class as the sentence names it."""

    node = ""
    node_class = ""
    kind = "an error without a name"  # the class of the exception, fit for people


class OutOfMemory(NodeFailed):
    """The GPU's memory did not suffice."""

    user_message = (
        "The model is too big for the GPU at these settings. Choose a smaller model: steps, CFG,"
        " sampler and prompt make no difference. If none is small enough, tell the bot's owner."
    )


class BrokenModel(NodeFailed):
    """A file of weights cannot be read; which one, only the workflow says."""

    user_message = (
        "The file of a model is broken, so ComfyUI cannot load it. Choose another model, or tell"
        " the bot's owner."
    )
    of_a_lora = (
        "The file of a LoRA is broken, so ComfyUI cannot load it. Use another in the prompt, or"
        " tell the bot's owner."
    )


class UnreadablePrompt(NodeFailed):
    """The node that encodes the text gave up over it (docs/comfyui.md)."""

    user_message = (
        "ComfyUI could not read this prompt: look for unbalanced brackets or an incomplete"
        " `embedding:`, in the negative prompt as well. If there is neither, tell the bot's owner."
    )


class Interrupted(ComfyError):
    """The prompt was stopped on the server."""

    user_message = "The picture was stopped on the image server. Run /gen to ask for it again."


class NoPictures(ComfyError):
    """The prompt succeeded without a picture."""

    user_message = "The image server finished without a picture. Please tell the bot's owner."


class PictureMissing(NoPictures):
    """A picture was made and cannot be had; asking again is of no use. `reason` follows "1 of 2
    pictures is missing:" in a message."""

    reason = "the image server does not hand it out"
    advice = "Please tell the bot's owner."

    def __init__(self, detail: str, noun: str = "picture", reason: str = "") -> None:
        self.reason = reason or self.reason
        super().__init__(detail, f"The {noun} was made, but {self.reason}. {self.advice}")


class PictureGone(PictureMissing):
    """The file is not on the server any more."""

    reason = "it is no longer on the image server"
    advice = "Run /gen again."


class PictureUnusable(PictureMissing):
    """The file is no picture or video that can be posted."""

    reason = "it is no picture that the bot can post"
    advice = "The bot's owner finds it in ComfyUI's output folder."


class PictureTooLarge(PictureMissing):
    """The file is larger than the bot reads."""

    reason = "it is larger than 100 MB"
    advice = "The bot's owner finds it in ComfyUI's output folder."


class NoPreview(ComfyError):
    """The server cannot re-encode a file: a video, or a picture too large for the format."""

    user_message = "The picture could not be made smaller on the image server."


class Removed(ComfyError):
    """The prompt was taken out of the server's queue by its owner."""

    user_message = (
        "The owner of the image server removed this picture from ComfyUI's queue."
        " Run /gen to ask for it again."
    )


class TimedOut(ComfyError):
    """A prompt ran longer than the owner allows."""

    user_message = "The picture took too long and was stopped. Try fewer steps or a smaller model."


class Fault(NamedTuple):
    """One reason of a refusal, in the server's words."""

    where: str  # node and class, for the log
    kind: str
    message: str
    name: str  # of the input, if it is about one
    value: str
    node: str = ""  # its id

    def __str__(self) -> str:
        about = f", input {self.name}" if self.name else ""
        value = f" ('{truncate(self.value, 80)}')" if self.value else ""
        return first_line(f"{self.where}{about}: {self.message}{value}")


def rejection(answer: Mapping[str, Any]) -> Rejected:
    """Return the error in an answer: in both shapes of a 400, and in a 200 with node_errors."""
    faults = tuple(_faults(answer))
    rejected = Rejected("; ".join(map(str, faults)))
    rejected.faults = faults
    return rejected


def _faults(answer: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield every fault, at least one."""
    node_errors = answer.get("node_errors")
    found = False
    for node, entry in (node_errors if isinstance(node_errors, dict) else {}).items():
        entry = entry if isinstance(entry, dict) else {}
        for fault in dicts(entry.get("errors")):
            found = True
            yield _fault(str(node), str(entry.get("class_type", "unknown")), fault)
    error = answer.get("error")
    if not found and isinstance(error, dict):
        message = f"{error.get('message', '')} {error.get('details', '')}"
        yield Fault("the workflow", str(error.get("type")), message, "", "")
    elif not found:
        yield Fault("the workflow", "", str(error or "no reason given"), "", "")


def _fault(node: str, class_type: str, fault: Mapping[str, Any]) -> Fault:
    extra = fault.get("extra_info")
    extra = extra if isinstance(extra, dict) else {}
    details = str(fault.get("details", ""))
    in_words = re.match(r"[^:]*: (?:'(.*?)' not in |'([^']*)'|(\S+))", details)  # older servers
    value = next(filter(None, in_words.groups()), "") if in_words else ""
    name = str(extra.get("input_name") or details.partition(":")[0])
    return Fault(
        f"node {node} ({class_type})",
        str(fault.get("type")),
        str(fault.get("message", "not accepted")),
        name,
        str(extra.get("received_value", value)),
        node,
    )


def failure(status: object) -> ComfyError | None:
    """Return the error in a history entry's status; None for a success."""
    if not isinstance(status, dict):
        return None  # servers before 2024 wrote no status, and no entry for a failure
    messages = status.get("messages")
    for message in messages if isinstance(messages, list) else ():
        event, data = message if isinstance(message, list) and len(message) == 2 else ("", None)
        data = data if isinstance(data, dict) else {}
        if event == "execution_interrupted":
            return Interrupted(f"interrupted in node {data.get('node_id')}")
        if event == "execution_error":
            failed = _node_failure(data)
            failed.node = str(data.get("node_id"))
            return failed
    if status.get("status_str") == "error" or status.get("completed") is False:
        return NodeFailed(
            f"status {status.get('status_str')} without a reason",
            "The picture failed on the image server. Try other settings.",
        )
    return None


BROKEN_FILE = re.compile(  # how loaders complain of a file that is cut off, or is a web page, say
    r"deserializing header|header ?too ?(?:large|small)|MetadataIncompleteBuffer"
    r"|PytorchStreamReader|central directory|invalid load key|Unsupported operand"
    r"|pickle data was truncated|Ran out of input|unexpected EOF|\bcorrupt",
    re.IGNORECASE,
)


BROKEN_GPU = re.compile(  # nothing works again until ComfyUI, or the machine, is restarted
    r"(?:CUDA|HIP|cuDNN|NVML|NCCL) (?:driver |runtime )?error|CU(?:BLAS|DNN)_STATUS"
    r"|device-side assert|launch failure|illegal memory access|NVIDIA driver|device lost",
    re.IGNORECASE,
)


def _node_failure(data: Mapping[str, Any]) -> NodeFailed:
    # `traceback` and `current_inputs` stay unread: the one is long, the other holds whole prompts.
    kind = str(data.get("exception_type", "error"))
    message = str(data.get("exception_message", ""))[:2000]
    words = first_line(message)
    detail = f"node {data.get('node_id')} ({data.get('node_type')}): {kind}: {words}"
    name = kind.rpartition(".")[2]
    if name == "OutOfMemoryError" or "out of memory" in words.lower():
        return OutOfMemory(detail)
    if name in ("SafetensorError", "BadZipFile") or BROKEN_FILE.search(message):
        is_lora = str(data.get("node_type")).startswith("LoraLoader")
        return BrokenModel(detail, BrokenModel.of_a_lora if is_lora else None)
    if name in ("RecursionError", "IndexError") and _encodes_text(data):
        return UnreadablePrompt(detail)
    # The name of its class, unless it could be a path, an address or a sentence.
    node = str(data.get("node_type"))
    node = node if CLASS_NAME.fullmatch(node) else A_NODE
    reason = f": {name}" if EXCEPTION.fullmatch(name) else ""
    if name == "AcceleratorError" or BROKEN_GPU.search(message):
        failed = NodeFailed(
            detail,
            f"ComfyUI failed in {node}{reason}. It probably needs a restart: please tell the bot's"
            " owner.",
        )
    else:
        failed = NodeFailed(
            detail,
            f"The picture failed in {node}{reason}. Try another model or other settings; if it"
            " goes on, tell the bot's owner, who finds the reason in the log.",
        )
    failed.node_class = node
    failed.kind = reason.removeprefix(": ") or NodeFailed.kind
    return failed


def _encodes_text(data: Mapping[str, Any]) -> bool:
    """Return whether the node that failed encodes a prompt."""
    node_type = re.sub(r"[\W_]", "", str(data.get("node_type"))).lower()
    inputs = data.get("current_inputs")
    return "textencode" in node_type or (isinstance(inputs, dict) and "text" in inputs)


def first_line(text: object) -> str:
    """Return the first line of a server's words for the log, bounded, in characters that no
    terminal obeys."""
    line = next(iter(str(text)[:2000].strip().splitlines()), "")
    return truncate("".join(c if c.isprintable() else " " for c in line).strip(), DETAIL_LENGTH)


def dicts(items: object) -> Iterable[dict[str, Any]]:
    """Return the objects in what should be a list of them."""
    return (item for item in (items if isinstance(items, list) else []) if isinstance(item, dict))
