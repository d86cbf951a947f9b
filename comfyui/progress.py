"""The progress of a prompt, as the events and pictures of ComfyUI's WebSocket report it.

Owns what these messages mean (docs/comfyui.md), of servers with and without `progress_state`. Does
no I/O and trusts no number. Written on the event loop and by the thread that waits for the prompt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

END_EVENTS = ("execution_success", "execution_error", "execution_interrupted")
STEPS_LIMIT = 10**9  # more steps than any node does
PREVIEW, PREVIEW_WITH_METADATA = 1, 4  # the feed's binary messages, by their first four bytes
PREVIEW_LIMIT = 2**20  # bytes; a real one has some 50 kB
METADATA_LIMIT = 2**16
PREVIEW_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n": ".png"}  # by the first bytes


class Preview(NamedTuple):
    """A picture of a prompt at work; without the id it is of the one that runs now."""

    data: bytes
    suffix: str  # ".jpg" or ".png"
    prompt_id: str | None

    @classmethod
    def parse(cls, message: bytes) -> Preview | None:
        """Parse a binary message of the feed; None if there is nothing in it to show."""
        kind, size = (int.from_bytes(message[at : at + 4], "big") for at in (0, 4))
        prompt_id, start = None, 8
        if kind == PREVIEW_WITH_METADATA and size <= METADATA_LIMIT:
            start += size
            prompt_id = _preview_id(message[8:start])
        elif kind != PREVIEW:
            return None
        if len(message) - start > PREVIEW_LIMIT:
            return None
        for magic, suffix in PREVIEW_SUFFIXES.items():
            if message.startswith(magic, start):
                return cls(message[start:], suffix, prompt_id)
        return None


class Progress:
    """The progress of one prompt over all its sampler nodes, and what it waits for before.

    `steps` maps the ids of the sampler nodes onto their steps, in the order they run. The fraction
    never goes back, but for `restart()`.
    """

    def __init__(self, prompt_id: str, steps: Mapping[str, int]) -> None:
        self.prompt_id = prompt_id
        self._steps = dict(steps)
        self.restart()

    def restart(self) -> None:
        """Begin anew: ComfyUI has not run any of it."""
        self._done = dict.fromkeys(self._steps, 0.0)  # 0 to 1 for each node
        self.has_started = False  # the feed has reported that it runs
        self.has_progress = False  # the feed has reported a step of a sampler node
        self.has_succeeded = False  # the feed has reported its good end
        self.outputs: dict[str, Any] = {}  # of its nodes, as far as the feed has reported them
        self.away_since: float | None = None  # since when ComfyUI does not answer (monotonic time)
        self.held_until: float | None = None  # when it is tried, as ComfyUI fails all (monotonic)
        self.before: int | None = None  # how many prompts run or wait before it, once known
        self.ran_since: float | None = None  # Unix time, once it runs
        self.step = (0, 0)  # of the node at work: the step and how many there are
        self.round = 1  # a node may do all its steps several times, once for each face, say
        self._node = ""  # the one at work
        self.preview: Preview | None = None  # the newest

    def set_running(self) -> None:
        """Note that ComfyUI runs it now."""
        self.before = 0
        if self.ran_since is None:
            self.ran_since = time.time()  # shown to people alone, never compared

    @property
    def fraction(self) -> float:
        """Return the share that is done, from 0 to 1."""
        total = sum(self._steps.values())
        return sum(self._done[node] * steps for node, steps in self._steps.items()) / (total or 1)

    @property
    def current_pass(self) -> int:
        """Return the number of the pass at work, from 1."""
        begun = [number for number, done in enumerate(self._done.values(), start=1) if done > 0]
        return max(begun, default=1)

    @property
    def passes(self) -> int:
        """Return how many sampler nodes there are."""
        return len(self._steps)

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Merge an event of the feed, of a server with or without `progress_state`."""
        if event in ("execution_start", "progress", "progress_state", "executed"):
            self.set_running()
            self.has_started = True
        if event == "progress":
            self._reach(data.get("node"), data.get("value"), data.get("max"))
        elif event == "progress_state" and isinstance(data.get("nodes"), dict):
            for node, state in data["nodes"].items():
                if isinstance(state, dict) and state.get("state") != "pending":
                    at_work = state.get("state") == "running"
                    self._reach(node, state.get("value"), state.get("max"), at_work=at_work)
        elif event == "executed":
            self.outputs[str(data.get("node"))] = data.get("output")
            self._reach(data.get("node"), 1, 1, at_work=False)
        elif event == "execution_success":
            self.has_succeeded = True
        elif event == "execution_cached" and isinstance(data.get("nodes"), list):
            for node in data["nodes"]:
                self._reach(node, 1, 1, at_work=False)

    def show(self, preview: Preview) -> None:
        """Keep a preview if it is of this prompt, in place of the one before."""
        runs_now = preview.prompt_id is None and self.before == 0
        if runs_now or preview.prompt_id == self.prompt_id:
            self.preview = preview

    def _reach(self, node: object, value: object, maximum: object, *, at_work: bool = True) -> None:
        if not isinstance(node, str) or node not in self._done:
            return
        if not isinstance(value, int | float) or not isinstance(maximum, int | float):
            return
        # Python's JSON also has NaN, infinity, and numbers too large for any arithmetic.
        if not (abs(value) < STEPS_LIMIT and abs(maximum) < STEPS_LIMIT):
            return
        if value <= 0:  # a node that has begun and done no step
            return
        if at_work:
            self._step_reached(node, int(value), int(maximum))
        done = min(value / maximum, 1.0) if maximum > 0 else 0.0
        self._done[node] = max(self._done[node], done)
        # A node runs only after those before it: what the feed missed of them is counted as done.
        for earlier in self._done if done > 0 else ():
            if earlier == node:
                break
            self._done[earlier] = 1.0
        self.has_progress = True

    def _step_reached(self, node: str, value: int, maximum: int) -> None:
        if node != self._node:
            self._node, self.round = node, 1
        elif value < self.step[0]:
            self.round += 1
        self.step = (value, maximum)


def ends_prompt(event: str, data: Mapping[str, Any]) -> bool:
    """Return whether an event of the feed says that a prompt has ended, well or not."""
    return event in END_EVENTS or (event == "executing" and data.get("node") is None)


def _preview_id(metadata: bytes) -> str:
    """Return the id of the prompt that a preview is of; empty if none can be read."""
    try:
        prompt_id = json.loads(metadata)["prompt_id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return prompt_id if isinstance(prompt_id, str) else ""
