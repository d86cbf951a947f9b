"""The hold of the queue while ComfyUI fails every picture, as with a GPU in an error state.

Owns which failures are the server's own fault, whether the queue holds, and when the next job is
tried. Waits for nothing itself. Written by the worker's thread; `restarted()` is for any thread.
"""

from __future__ import annotations

import logging
import time

from comfyui.errors import NodeFailed

log = logging.getLogger(__name__)

FAILURES = 3  # of different jobs in a row, and the queue holds
PROBES = 3  # tries of one job during a hold, before it fails like any other
HOLD_PAUSES = (60.0, 120.0, 240.0, 480.0, 960.0)  # seconds before each try; the last one repeats


class Hold:
    """Counts the server's failures in a row. From the third on one job is tried after each pause,
    until one succeeds."""

    def __init__(self) -> None:
        self.since: float | None = None  # `time.monotonic()`; None: the queue does not hold
        self.kind = ""  # of the error that began it
        self.until = 0.0  # when the next job is tried
        self._failures = 0
        self._pauses = 0  # of this hold
        self._probes = 0  # of the job that is tried

    @property
    def left(self) -> float:
        """Return the seconds until a job may be submitted, 0 if it may be now."""
        return 0.0 if self.since is None else max(0.0, self.until - time.monotonic())

    def failed(self, error: Exception) -> bool:
        """Note the failure of a job, and return whether that job is to be tried again. Errors of
        its own (memory, a broken file, its prompt) say nothing about the server."""
        if type(error) is not NodeFailed:
            return False
        if self.since is None:
            self._failures += 1
            if self._failures >= FAILURES:
                self.since, self.kind = time.monotonic(), error.kind
                log.error("ComfyUI has failed %d jobs in a row: the queue holds", FAILURES)
                self._pause()
            return False
        self._pause()
        self._probes = (self._probes + 1) % PROBES
        return self._probes > 0

    def succeeded(self) -> None:
        """End the hold, as ComfyUI has made a picture."""
        if self.since is not None:
            log.info("ComfyUI makes pictures again: the queue goes on")
        self.since = None
        self._failures = self._pauses = self._probes = 0

    def next_job(self) -> None:
        """Count the tries anew, as another job begins."""
        self._probes = 0

    def restarted(self) -> None:
        """End the pause: ComfyUI may have restarted, which mends most of it."""
        self.until = 0.0

    def _pause(self) -> None:
        seconds = HOLD_PAUSES[min(self._pauses, len(HOLD_PAUSES) - 1)]
        self._pauses += 1
        self.until = time.monotonic() + seconds
        log.warning("the next job is tried in %g s", seconds)
