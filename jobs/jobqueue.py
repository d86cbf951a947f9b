"""The queue of jobs in memory: whichever server is free takes the oldest.

Owns the ids of the jobs that wait, and which server may take one. The rows are the truth. Any
thread.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from comfy_client import ComfyClient, ProgressFeed
from jobs.hold import Hold

LOOK_SECONDS = 1.0  # between two looks of a server that may not take a job now


class Entry(NamedTuple):
    """A job that waits: its place in the order, and since when this process has it
    (`time.monotonic()`)."""

    number: int
    job_id: str
    accepted: float


class Lane:
    """One server as the queue sees it: its client and feed, and whether it fails everything."""

    def __init__(self, client: ComfyClient) -> None:
        self.client = client
        self.feed = ProgressFeed(client)
        self.hold = Hold()
        self.own: deque[Entry] = deque()  # jobs that it has since an earlier run of the bot

    @property
    def may_try(self) -> bool:
        """Return whether it may be given a job, be it to see whether it fails again."""
        return self.client.away_since is None and not self.hold.left

    @property
    def is_sound(self) -> bool:
        """Return whether it answers and does not fail everything."""
        return self.client.away_since is None and self.hold.since is None


class JobQueue:
    """The jobs that wait, oldest first, for all servers."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.stopping = False  # whether no further job is begun
        self.finished: Future[None] = Future()  # done when every server has ended its last job
        self.active = list(lanes)  # whose threads have not ended
        self._lanes = tuple(lanes)
        self._waiting: list[Entry] = []  # a heap
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def add(self, job_id: str, lane: Lane | None = None) -> None:
        """Add a job behind all others; with a `lane`, for that server alone."""
        entry = Entry(next(self._numbers), job_id, time.monotonic())
        if lane is None:
            self.put_back(entry)
        else:
            lane.own.append(entry)

    def put_back(self, entry: Entry) -> None:
        """Put a job where it was in the order."""
        with self._changed:
            heapq.heappush(self._waiting, entry)
            self._changed.notify_all()

    def take(self, lane: Lane) -> Entry | None:
        """Wait for a job that this server is to make, and return it; None once no job is begun any
        more."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.stopping or lane.own or self._waiting)
                if self.stopping:
                    return None
                if lane.own:
                    return lane.own.popleft()
            if len(self._lanes) > 1:  # the next job is not begun where it would have to wait
                lane.client.ping()
            with self._changed:
                if self.stopping:
                    return None
                if self._waiting and self._may_take(lane):
                    return heapq.heappop(self._waiting)
                if self._waiting:
                    self._changed.wait(LOOK_SECONDS)

    def has_sound_other(self, lane: Lane) -> bool:
        """Return whether another server could make a job of this one's."""
        return any(other.is_sound for other in self._lanes if other is not lane)

    def _may_take(self, lane: Lane) -> bool:
        """Return whether a server may take the next job: with none that is better off, it waits
        where it is."""
        return lane.may_try or not any(other.may_try for other in self._lanes)

    def stop(self) -> None:
        """Hand out no further job."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()

    def leave(self, lane: Lane) -> None:
        """Note that the thread of a server has ended, or never began."""
        with self._changed:
            if lane in self.active:
                self.active.remove(lane)
            if not self.active and not self.finished.done():
                self.finished.set_result(None)
