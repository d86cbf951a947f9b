"""The workers: one for each server, on one queue.

Accepts and cancels jobs for all of them, and starts and stops them. Any thread.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import NamedTuple

from job import JobParams, JobStatus
from jobs.catalog import Catalog
from jobs.jobqueue import JobQueue, Lane
from jobs.run import JobError
from jobs.servers import Servers
from jobs.sweeper import Sweeper
from jobs.worker import Listener, Worker, WorkflowUnusable, kept_picture, load_usable
from settings import Settings
from store import Store, StoreError
from text import duration

log = logging.getLogger(__name__)


class Queued(NamedTuple):
    """A job that was accepted: its place in the queue, and an estimate of the seconds until it is
    done, None before there is one."""

    job_id: str
    position: int
    seconds: float | None


class Workers:
    """All workers, and the order in which they get the jobs."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        servers: Servers,
        catalog: Catalog,
        listener: Listener,
    ) -> None:
        self._settings = settings
        self._store = store
        self._servers = servers
        self._catalog = catalog
        self._listener = listener
        lanes = [Lane(client) for client in servers.clients]
        self._jobs = JobQueue(lanes)
        self.lanes = lanes
        self.each = []
        for lane in lanes:
            keys, is_only = servers.keys(lane.client), len(lanes) == 1
            sweeper = Sweeper(store, lane.client, keys, is_only=is_only)
            self.each.append(Worker(settings, store, lane, self._jobs, catalog, listener, sweeper))
        self._accepting = threading.Lock()

    @property
    def stopping(self) -> bool:
        """Return whether no further job is begun."""
        return self._jobs.stopping

    @property
    def finished(self) -> Future[None]:
        """Return the future that is done when the last job has ended after `stop()`."""
        return self._jobs.finished

    @property
    def are_stuck(self) -> bool:
        """Return whether all that are at work wait for a ComfyUI that is away."""
        return all(lane.client.away_since is not None for lane in self._jobs.active)

    def start(self) -> None:
        """Queue what an earlier run left, oldest first, and start the threads. A job that runs
        stays with its server, unless .env does not have that any more."""
        left = self._store.by_status(JobStatus.RUNNING)
        lanes = {worker.lane.client: worker.lane for worker in self.each}
        for job in left:
            if client := self._servers.find(job.server):
                # The only server has another address now, or is the only one that is left.
                if job.server not in ("", client.server.key):
                    self._store.take_up(job.id, client.server.key)
                self._jobs.add(job.id, lanes[client])
            else:
                log.warning("job %s: its server is gone from .env, so it is made anew", job.id)
                self._store.put_back(job.id)
        queued = self._store.by_status(JobStatus.QUEUED)
        for job in queued:
            self._jobs.add(job.id)
        if left or queued:
            count = len({job.id for job in (*left, *queued)})
            log.info("worker: %d unfinished jobs of an earlier run are taken up", count)
        for worker in self.each:
            worker.start()

    def accept(self, params: JobParams) -> Queued:
        """Add a job once its workflow file is checked and its row is written. Blocks. Raises
        JobError if the job cannot be accepted, StoreError if the row could not be written."""
        try:
            workflow = load_usable(self._catalog, params.workflow, " Nothing was queued.")
        except WorkflowUnusable as error:
            self._listener.on_error(error)
            raise
        if workflow.takes_image:
            kept_picture(self._store, params.image)
        with self._accepting:  # the order of the rows is the order of the queue
            self._check_share(params.user_id)
            job_id = self._store.insert(params)
            position, seconds = 1, None
            try:
                position = self._store.position(job_id) or 1
                seconds = self._store.estimate(position, self._servers.answering)
            except StoreError as error:  # the row is there: the job must run, and be "Queued!"
                log.error("%s", error)
            finally:
                self._jobs.add(job_id)
        log.info("job %s: queued at position %d", job_id, position)
        return Queued(job_id, position, seconds)

    def _check_share(self, user_id: str) -> None:
        """Raise JobError for a person who has as many jobs waiting as one may have."""
        waiting = self._store.waiting(user_id) if self._settings.max_waiting else 0
        if not self._settings.max_waiting or waiting < self._settings.max_waiting:
            return
        queued = [job.user_id for job in self._store.by_status(JobStatus.QUEUED)]
        is_running = any(job.user_id == user_id for job in self._store.by_status(JobStatus.RUNNING))
        place = 0 if is_running or user_id not in queued else queued.index(user_id) + 1
        seconds = self._store.estimate(place, self._servers.answering)
        when = "in a minute" if seconds is None else f"in about {duration(seconds)}"
        pictures = "1 picture" if waiting == 1 else f"{waiting} pictures"
        raise JobError(
            f"You have {pictures} waiting, and one person may have {self._settings.max_waiting}."
            f" Try again {when}, when the next of yours is done. Nothing was lost."
        )

    def cancel(self, job_id: str, message: str | None = None) -> bool:
        """Cancel a queued or running job and return whether it had not ended already; `message` is
        for the person who asked, if it is not their own doing. The row decides, so of a
        cancellation and a completion at the same time one wins."""
        if self._store.cancel(job_id, JobStatus.QUEUED, message):
            return True
        if not self._store.cancel(job_id, JobStatus.RUNNING, message):
            # It may have gone back to the queue in between, for another server.
            return self._store.cancel(job_id, JobStatus.QUEUED, message)
        for worker in self.each:
            worker.wake()
        return True

    def stop(self) -> None:
        """Begin no further job; the current ones go on, unless they wait for a ComfyUI that is away
        or fails everything."""
        self._jobs.stop()
        for worker in self.each:
            worker.stop()

    def abort(self) -> None:
        """Leave the current jobs where they stand, too."""
        self.stop()
        for worker in self.each:
            worker.abort()
