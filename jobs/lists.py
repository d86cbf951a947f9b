"""When ComfyUI's lists are read again, asked for or not: one read at a time, in a thread.

Owns the moment, not the reading: what is offered, object_info.py and workflows.py know. Called from
any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from comfyui.errors import ComfyError
from jobs.catalog import WorkflowError

log = logging.getLogger(__name__)

T = TypeVar("T")  # what is read

LISTS_AGE = 600.0  # seconds after which a /gen has ComfyUI's lists read again


class Lists(Generic[T]):
    """ComfyUI's lists, read again one read at a time: what the newest has read is what holds."""

    def __init__(self, read: Callable[[], T], threads: ThreadPoolExecutor) -> None:
        """`read` reads them and blocks; they are fresh now."""
        self._read = read
        self._threads = threads
        self._reading = threading.Lock()
        self._planned = threading.Lock()  # held from the plan of a read to its end
        self._failed = False
        self._read_at = time.monotonic()  # when the newest read began

    def read(self) -> T:
        """Read them now. Blocks; raises what the reading raises."""
        with self._reading:
            began = time.monotonic()
            offered = self._read()
            self._read_at, self._failed = began, False
            return offered

    def try_to_read(self) -> T | None:
        """Read them now; None if that fails. Blocks."""
        try:
            return self.read()
        except (ComfyError, WorkflowError) as error:
            if not self._failed:
                log.warning("ComfyUI's lists cannot be read again: %s", error)
            self._failed = True
            return None

    def read_if_older(self, moment: float) -> None:
        """Read them in the background, unless they are newer than `moment` (`time.monotonic()`), or
        that is under way. Any thread; returns at once."""
        if self._read_at > moment or not self._planned.acquire(blocking=False):
            return
        try:
            self._threads.submit(self._read_as_planned)
        except RuntimeError:  # the bot ends
            self._planned.release()

    def _read_as_planned(self) -> None:
        try:
            self.try_to_read()
        except Exception:  # nobody waits for it
            log.exception("ComfyUI's lists cannot be read again")
        finally:
            self._planned.release()
