"""Pauses of the worker's thread, which a cancellation or the end of the bot cuts short.

Owns the wait between two tries of anything, and the retry of what the store must do. Only the
worker's thread waits here; any thread wakes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from store import StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")

DATABASE_PAUSE = 2.0  # seconds between two tries of a statement that must be made


class Stopped(Exception):
    """The worker is to end at once; the job stays as it is and is resumed at the next start."""


class ErrorListener(Protocol):
    """Gets the errors that may be for the owner."""

    def on_error(self, error: Exception) -> None:
        """Take note of what jobs and statements fail by; any thread."""


class Pauses:
    """The pauses of one worker."""

    def __init__(self, listener: ErrorListener) -> None:
        self._listener = listener
        self._wake = threading.Event()
        self._is_stopping = self._is_aborted = False

    def wake(self) -> None:
        """End the present pause, or else the next; any thread."""
        self._wake.set()

    def forget(self) -> None:
        """Drop a reason to wake that was about an earlier prompt."""
        self._wake.clear()

    def stop(self) -> None:
        """Let a wait for another try raise Stopped; the current job may be finished. Any thread."""
        self._is_stopping = True
        self._wake.set()

    def abort(self) -> None:
        """Let this pause and all later ones raise Stopped; any thread."""
        self._is_aborted = True
        self._wake.set()

    def pause(self, seconds: float) -> bool:
        """Wait and return whether the wait was ended early. Raises Stopped after `abort()`."""
        is_woken = self._is_aborted or self._wake.wait(seconds)
        self._wake.clear()
        if self._is_aborted:
            raise Stopped
        return is_woken

    def wait_to_retry(self, seconds: float) -> None:
        """Wait before another try of what has failed. Raises Stopped after `stop()`, too: the next
        start tries it."""
        if not self._is_stopping:
            self.pause(seconds)
        if self._is_stopping:
            raise Stopped

    def retry_store(self, change: Callable[[], T]) -> T:
        """Call the store until it works and return its answer: a job does not fail because the
        database is locked or the disk full."""
        tries = 0
        while True:
            try:
                return change()
            except StoreError as error:
                level = logging.DEBUG if tries % 30 else logging.ERROR  # about once a minute
                log.log(level, "waiting for the database: %s", error)
                self._listener.on_error(error)
                tries += 1
                self.wait_to_retry(DATABASE_PAUSE)
