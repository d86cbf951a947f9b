"""The worker: the background thread that makes the jobs one by one.

Owns the in-memory queue of job ids, and the way of a job from its row to its pictures. Reports to
its listener; neither reads nor writes Discord. Its public methods are for any thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import binder
from comfy_client import ComfyClient, ProgressFeed
from comfyui.errors import PictureMissing, Removed
from comfyui.images import Image, kind_of
from comfyui.progress import Preview, Progress
from graph import Nodes
from job import Job, JobParams, JobStatus
from jobs.catalog import UNUSABLE, Catalog
from jobs.failure import UNEXPECTED, failure_message
from jobs.hold import Hold
from jobs.image import InputPicture
from jobs.offered import NO_IMAGE
from jobs.pauses import ErrorListener, Pauses, Stopped
from jobs.run import Cancelled, JobError, PromptRun, build_prompt
from jobs.sweeper import Sweeper
from settings import Settings
from store import Store, StoreError
from text import PublicError, duration

log = logging.getLogger(__name__)


NOT_KEPT = "The picture that this was made from is no longer kept: send it once more."


class WorkflowUnusable(JobError):
    """The workflow file is broken: no job can be made until its owner corrects it."""


class Queued(NamedTuple):
    """A job that was accepted: its place in the queue, and an estimate of the seconds until it is
    done, None before there is one."""

    job_id: str
    position: int
    seconds: float | None


class Listener(ErrorListener, Protocol):
    """Gets what the worker reports, in the worker's thread."""

    def job_started(self, job_id: str, progress: Progress) -> None:
        """Take note of a job that begins; its progress goes on changing."""

    def job_ended(self, job_id: str, pictures: Sequence[bytes | PictureMissing] = ()) -> None:
        """Take note of a job in a final state, and of its pictures: each its bytes or why it cannot
        be had. Not called for one that was cancelled."""


class Worker:
    """Runs the queued jobs, one at a time and oldest first, in one thread.

    The queue holds ids, the rows are the truth.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        client: ComfyClient,
        catalog: Catalog,
        feed: ProgressFeed,
        listener: Listener,
    ) -> None:
        self._settings = settings
        self._store = store
        self._client = client
        self._catalog = catalog
        self._feed = feed
        self._listener = listener
        self.sweeper = Sweeper(store, client)
        self.hold = Hold()
        self.stopping = False  # whether no further job is begun
        self.finished: Future[None] = Future()  # done when the thread has ended
        # Ids, and since when this process has them (`time.monotonic()`).
        self._jobs: queue.SimpleQueue[tuple[str, float] | None] = queue.SimpleQueue()
        self._pauses = Pauses(listener)
        self._run: PromptRun | None = None  # the prompt that is waited for
        self._accepting = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="worker", daemon=True)

    def start(self) -> None:
        """Queue what an earlier run left, oldest first, and start the thread."""
        left = self._store.by_status(JobStatus.RUNNING) + self._store.by_status(JobStatus.QUEUED)
        for job in left:
            self._jobs.put((job.id, time.monotonic()))
        if left:
            log.info("worker: %d unfinished jobs of an earlier run are taken up", len(left))
        self._thread.start()
        self.sweeper.start()

    def accept(self, params: JobParams) -> Queued:
        """Add a job once its workflow file is checked and its row is written. Blocks. Raises
        JobError if the job cannot be accepted, StoreError if the row could not be written."""
        try:
            workflow = self._usable(params.workflow, " Nothing was queued.")
        except WorkflowUnusable as error:
            self._listener.on_error(error)
            raise
        if workflow.takes_image:
            self._kept(params.image)
        with self._accepting:  # the order of the rows is the order of the queue
            self._check_share(params.user_id)
            job_id = self._store.insert(params)
            position, seconds = 1, None
            try:
                position = self._store.position(job_id) or 1
                seconds = self._store.estimate(position)
            except StoreError as error:  # the row is there: the job must run, and be "Queued!"
                log.error("%s", error)
            finally:
                self._jobs.put((job_id, time.monotonic()))
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
        seconds = self._store.estimate(place)
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
            return False
        self._pauses.wake()
        self.sweeper.wake()  # after a restart the worker may not have resumed it yet
        return True

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Pass an event of ComfyUI's feed to the prompt that is waited for."""
        if event == "status":  # the server's first word on each connection
            self.sweeper.server_is_there()
        run = self._run
        if run is not None and run.on_event(event, data):
            self._pauses.wake()

    def on_preview(self, preview: Preview) -> None:
        """Show a preview of the prompt at work."""
        run = self._run
        if run is not None:
            run.progress.show(preview)

    def on_reconnect(self, since: float) -> None:
        """Refresh the catalog and try what is held: ComfyUI may have restarted, perhaps with other
        models."""
        self._catalog.refresh_if_older(since)
        self.hold.restarted()
        self._pauses.wake()

    def stop(self) -> None:
        """Begin no further job; the current one goes on, unless it waits for a ComfyUI that is away
        or fails everything."""
        self.stopping = True
        self._pauses.stop()
        self._jobs.put(None)
        self.sweeper.stop()
        if self._thread.ident is None and not self.finished.done():
            self.finished.set_result(None)  # it was never started

    def abort(self) -> None:
        """Leave the current job where it stands, too."""
        self.stop()
        self._pauses.abort()

    def _loop(self) -> None:
        while (queued := self._jobs.get()) is not None and not self.stopping:
            job_id, accepted = queued
            try:
                self._run_to_end(job_id, accepted)
            except Stopped:
                log.info("job %s: left where it stands, to be resumed at the next start", job_id)
            except Exception:
                log.exception("job %s: its row could not be ended", job_id)
        if not self.finished.done():
            self.finished.set_result(None)

    def _run_to_end(self, job_id: str, accepted: float) -> None:
        """Run one job, and fail it whatever happens on its way."""
        try:
            self.run_job(job_id, accepted)
        except Stopped:
            raise
        except Exception as error:
            log.exception("job %s: the worker goes on with the next job", job_id)
            self._listener.on_error(error)
            if self._pauses.retry_store(
                lambda: self._store.fail(job_id, UNEXPECTED, on_server=True)
            ):
                self._listener.job_ended(job_id)
                self.sweeper.wake()

    def run_job(self, job_id: str, accepted: float | None = None) -> None:
        """Run one job from its row to its end; `accepted`: since when it waits, if not from now."""
        job = self._pauses.retry_store(lambda: self._store.get(job_id))
        if job is None:
            return
        is_resumed = job.status is JobStatus.RUNNING
        if not is_resumed and not self._pauses.retry_store(lambda: self._store.start(job_id)):
            return  # cancelled, or run already
        log.info("job %s: %s", job_id, "resumed" if is_resumed else "started")
        pictures: list[bytes | PictureMissing] = []
        run = None
        try:
            self.sweeper.in_work = job_id
            self.hold.next_job()
            self._run = run = self._prompt_run(job, accepted)
            self._listener.job_started(job_id, run.progress)
            refs, pictures = run.pictures()
        except Stopped:
            raise
        except Cancelled:
            log.info("job %s: cancelled", job_id)
            ended = False
        except Removed as error:
            log.warning("job %s: cancelled: %s", job_id, error)
            ended = self._pauses.retry_store(
                lambda: self._store.cancel(job_id, JobStatus.RUNNING, Removed.user_message)
            )
        except Exception as error:
            ended = self._failed(job, error, on_server=run.may_be_on_server if run else is_resumed)
        else:
            names = [str(ref) for ref in refs]
            ended = self._pauses.retry_store(lambda: self._store.complete(job_id, names))
            log.info("job %s: made %d pictures", job_id, len(names))
        finally:
            self._run = self.sweeper.in_work = None
        # Not ended here: it was cancelled, at whatever moment, and its row still says on_server.
        if ended:
            self._listener.job_ended(job_id, pictures)
        if not ended or (run.may_be_on_server if run else is_resumed):
            self.sweeper.wake()

    def _failed(self, job: Job, error: Exception, *, on_server: bool) -> bool:
        """Log an error, end its job with a sentence for the person, and return whether it had not
        ended already."""
        if isinstance(error, PublicError):
            log.warning("job %s: failed: %s", job.id, error)
        else:
            log.error("job %s: failed", job.id, exc_info=error)
        self._listener.on_error(error)
        message = failure_message(error, job, self._catalog)
        return self._pauses.retry_store(
            lambda: self._store.fail(job.id, message, on_server=on_server)
        )

    def _prompt_run(self, job: Job, accepted: float | None) -> PromptRun:
        """Bind the job to its workflow file, ready to be submitted."""
        workflow = self._usable(job.workflow)
        prompt = build_prompt(job, workflow, self._catalog.server, self._catalog.loras)
        self._pauses.forget()  # what the feed still had to say about the prompt before
        return PromptRun(
            job,
            prompt,
            self._picture(job, workflow, prompt),
            self._settings.comfy_timeout,
            time.monotonic() if accepted is None else accepted,
            store=self._store,
            client=self._client,
            catalog=self._catalog,
            feed=self._feed,
            hold=self.hold,
            pauses=self._pauses,
        )

    def _picture(self, job: Job, workflow: binder.Workflow, graph: Nodes) -> InputPicture | None:
        """Return the picture that a job works on, if its workflow takes one, for its prompt."""
        if not workflow.takes_image:
            return None
        image = self._pauses.retry_store(lambda: self._kept(job.image))
        prompt = binder.Prompt(graph, workflow.bindings)
        most, server = self._settings.max_megapixels, self._catalog.server
        return InputPicture(job, image, prompt, most, server)

    def _kept(self, name: str) -> Image:
        """Return the picture with this hash. Raises JobError if it is not kept."""
        data = self._store.picture(name)
        image = NOT_KEPT if data is None else kind_of(data)
        if isinstance(image, str):
            raise JobError(image if name else NO_IMAGE)
        return image

    def _usable(self, name: str, more: str = "") -> binder.Workflow:
        """Return the workflow with this name as it is now. Raises WorkflowUnusable, with more to
        say, if no job can be made with it."""
        loaded = self._catalog.workflows.load(name)
        if not loaded.ok:
            log.error("the workflow %s cannot be used: %s", name or "(default)", loaded.reason)
            sentence = f"The bot's workflow {UNUSABLE}"
            if name and name not in self._catalog.workflows.names():  # no words of a parser
                sentence = f"The bot's workflow cannot be used: {loaded.reason}."
            raise WorkflowUnusable(loaded.reason, sentence + more)
        return loaded
