"""The worker: the background thread that makes the jobs one by one, and the sweeper beside it.

Owns the in-memory queue of job ids, the way of a job from its row to its pictures, the wait for a
prompt, its end if nobody wants it any more, and what people read when it goes wrong. Talks to
ComfyUI and to the store, knows neither Discord nor forms: what has begun, what has ended, and what
it notices of ComfyUI itself goes up through callbacks, which are called in the worker's thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeVar

import binder
from comfy_client import ComfyClient, ProgressFeed
from comfyui.errors import BrokenModel, NotOffered, Rejected, Removed, refusal_of_job
from comfyui.progress import Preview, Progress
from jobs import lora
from jobs.catalog import Catalog
from jobs.names import OptionNames
from jobs.run import Cancelled, JobError, PromptRun, build_prompt
from jobs.sweeper import Sweeper
from settings import Settings, redact
from store import Job, JobParams, JobStatus, Store, StoreError
from text import PublicError, display_name, duration, quote

log = logging.getLogger(__name__)

T = TypeVar("T")

DATABASE_PAUSE = 2.0  # seconds between two tries of a statement that must be made

UNEXPECTED = "Something went wrong inside the bot. Please try again, or tell its owner."


class WorkflowUnusable(JobError):
    """The workflow file is broken: no job can be made until its owner corrects it."""


class Stopped(Exception):
    """The worker is to end at once; the job stays as it is and is taken up at the next start."""


class Queued(NamedTuple):
    """A job that was accepted: its place in the queue, and the seconds until it is done, as far as
    anybody can tell."""

    job_id: str
    position: int
    seconds: float | None


def user_message_of(error: Exception) -> str:
    """What people read of an error of any layer. Only a layer's own errors have a sentence for
    them; of everything else, the log has the detail."""
    return redact(error.user_message) if isinstance(error, PublicError) else UNEXPECTED


def failure_message(
    error: Exception,
    job: Job,
    catalog: Catalog,
    model_nodes: Collection[str] = (),
) -> str:
    """What people read of the error that a job ended with. Where ComfyUI does not take a value, or
    a workflow's file is not what it was, the lists are read again first, so that the sentence is
    true and the next form is. `model_nodes` load the job's model. May block."""
    if isinstance(error, BrokenModel) and error.node in model_nodes:
        return (
            f"The file of the model {quote(display_name(job.model))} is broken, so ComfyUI cannot"
            " load it. Choose another model, or tell the bot's owner."
        )
    if not isinstance(error, NotOffered | JobError):
        return user_message_of(error)
    is_fresh = catalog.try_refresh()
    if not isinstance(error, NotOffered):
        return user_message_of(error)
    if not all(_is_wanted(job, name, value) for name, value in error.values.items()):
        return Rejected.user_message  # a value of the workflow file's own
    if not is_fresh:
        return error.user_message
    offer = catalog.offer(job.workflow)
    if any(value in getattr(offer, f"{name}s", ()) for name, value in error.values.items()):
        return f"ComfyUI refuses the {error.what}. Choose another, or tell the bot's owner."
    return f"{error.sentence}. The list has been refreshed: press Edit."


def _is_wanted(job: Job, name: str, value: str) -> bool:
    """Whether somebody has asked for a value that ComfyUI refused."""
    if name == "LoRA":
        return bool(lora.read(job.positive_prompt, OptionNames((value,))).loras)
    return bool(getattr(job, name) == value)


class Listener(Protocol):
    """Takes what the worker reports; called in the worker's thread, but for `on_error()`."""

    def job_started(self, job_id: str, progress: Progress) -> None:
        """Take note of a job that begins; its progress goes on changing."""

    def job_ended(self, job_id: str, pictures: Sequence[bytes] = ()) -> None:
        """Take note of a job in a final state and the bytes of its pictures; not called for one
        that was cancelled."""

    def on_error(self, error: Exception) -> None:
        """Take note of what jobs and statements fail by; any thread."""


class Worker:
    """Runs the queued jobs, one at a time and oldest first, in one thread.

    The queue holds ids, the rows are the truth.
    """

    class _Mode(IntEnum):
        WORKING = 0
        FINISHING = 1  # no further job; the current one goes on
        LEAVING = 2  # the current one is left where it stands

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
        self.finished: Future[None] = Future()  # done when the thread has ended
        self._jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._mode = self._Mode.WORKING
        self._wake = threading.Event()
        self._run: PromptRun | None = None  # the prompt that is waited for
        self._accepting = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="worker", daemon=True)

    @property
    def stopping(self) -> bool:
        """Whether no further job is begun."""
        return self._mode > self._Mode.WORKING

    def start(self) -> None:
        """Take up what an earlier run left, oldest first, and start the thread."""
        left = self._store.by_status(JobStatus.RUNNING) + self._store.by_status(JobStatus.QUEUED)
        for job in left:
            self._jobs.put(job.id)
        if left:
            log.info("worker: %d unfinished jobs of an earlier run are taken up", len(left))
        self._thread.start()
        self.sweeper.start()

    def accept(self, params: JobParams) -> Queued:
        """A new job: a look at the workflow file, the row, the queue. Any thread; blocks. Raises
        JobError if the workflow cannot be used, StoreError if the row could not be written."""
        try:
            self._usable(params.workflow, " Nothing was queued; please tell the bot's owner.")
        except WorkflowUnusable as error:
            self._listener.on_error(error)
            raise
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
                self.submit(job_id)
        log.info("job %s: queued at position %d", job_id, position)
        return Queued(job_id, position, seconds)

    def _check_share(self, user_id: str) -> None:
        """JobError for a person who has as many jobs waiting as one may have."""
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

    def submit(self, job_id: str) -> None:
        """Put a queued job behind the others."""
        self._jobs.put(job_id)

    def cancel(self, job_id: str, message: str | None = None) -> bool:
        """Cancel a queued or running job, with a sentence for the person who asked if it is not
        their own doing; False if it has ended already. The row decides, so of a cancellation and a
        completion at the same time one wins."""
        if self._store.cancel(job_id, JobStatus.QUEUED, message):
            return True
        if not self._store.cancel(job_id, JobStatus.RUNNING, message):
            return False
        self._wake.set()
        self.sweeper.wake()  # the worker may not have taken it up yet, after a restart
        return True

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Take what ComfyUI's feed says of our prompts; any thread."""
        if event == "status":  # the server's first word on each connection
            self.sweeper.server_is_there()
        run = self._run
        if run is not None and run.on_event(event, data):
            self._wake.set()

    def on_preview(self, preview: Preview) -> None:
        """Take a picture of the prompt at work; any thread."""
        run = self._run
        if run is not None:
            run.progress.show(preview)

    def on_reconnect(self, since: float) -> None:
        """Refresh the catalog: ComfyUI may have restarted with other models."""
        self._catalog.refresh_if_older(since)

    def stop(self) -> None:
        """Take no further job; the current one goes on."""
        self._mode = max(self._mode, self._Mode.FINISHING)
        self._jobs.put(None)
        self.sweeper.stop()
        if self._thread.ident is None and not self.finished.done():
            self.finished.set_result(None)  # it was never started

    def abort(self) -> None:
        """Leave the current job where it stands, too."""
        self.stop()
        self._mode = self._Mode.LEAVING
        self._wake.set()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; False if it did not within the time."""
        if self._thread.ident is not None:  # else it was never started
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while (job_id := self._jobs.get()) is not None and not self.stopping:
            try:
                self.step(job_id)
            except Stopped:
                log.info("job %s: left where it stands, to be taken up at the next start", job_id)
            except Exception as error:
                log.exception("job %s: the worker goes on with the next job", job_id)
                self._listener.on_error(error)
        if not self.finished.done():
            self.finished.set_result(None)

    def step(self, job_id: str) -> None:
        """Run one job from its row to its end."""
        job = self._retry_store(lambda: self._store.get(job_id))
        if job is None:
            return
        taken_up = job.status is JobStatus.RUNNING
        if not taken_up and not self._retry_store(lambda: self._store.start(job_id)):
            return  # cancelled, or run already
        log.info("job %s: %s", job_id, "taken up" if taken_up else "started")
        pictures: list[bytes] = []
        run = None
        try:
            self.sweeper.in_work = job_id
            self._run = run = self._prepared(job)
            self._listener.job_started(job_id, run.progress)
            refs, pictures = run.pictures()
        except Stopped:
            raise
        except Cancelled:
            log.info("job %s: cancelled", job_id)
            ended = False
        except Removed as error:
            log.warning("job %s: cancelled: %s", job_id, error)
            ended = self._retry_store(
                lambda: self._store.cancel(job_id, JobStatus.RUNNING, Removed.user_message)
            )
        except Exception as error:
            ended = self._failed(job, error, on_server=run.may_be_on_server if run else taken_up)
        else:
            names = [str(ref) for ref in refs]
            ended = self._retry_store(lambda: self._store.complete(job_id, names))
            log.info("job %s: made %d pictures", job_id, len(names))
        finally:
            self._run = self.sweeper.in_work = None
        # Not ended here: it was cancelled, at whatever moment, and its row still says on_server.
        if ended:
            self._listener.job_ended(job_id, pictures)
        if not ended or (run.may_be_on_server if run else taken_up):
            self.sweeper.sweep()

    def _failed(self, job: Job, error: Exception, *, on_server: bool) -> bool:
        if isinstance(error, PublicError):
            log.warning("job %s: failed: %s", job.id, error)
        else:
            log.error("job %s: failed", job.id, exc_info=error)
        self._listener.on_error(error)
        loaded = self._catalog.workflows.load(job.workflow)
        model_nodes = {place.node for place in loaded.bindings["model"]} if loaded.ok else ()
        if isinstance(error, Rejected) and loaded.ok:
            error = refusal_of_job(error, loaded.params_by_place)
        sentence = failure_message(error, job, self._catalog, model_nodes)
        return self._retry_store(lambda: self._store.fail(job.id, sentence, on_server=on_server))

    def _prepared(self, job: Job) -> PromptRun:
        """The job bound to the workflow file, ready to be submitted."""
        loaded = self._usable(job.workflow)
        workflow = build_prompt(job, loaded, self._catalog.server, self._catalog.loras)
        self._wake.clear()  # what the feed still had to say about the prompt before
        return PromptRun(
            self._client,
            job,
            workflow,
            timeout=self._settings.comfy_timeout,
            connection=lambda: self._feed.connection,
            returned=self._catalog.refresh_if_older,
            is_cancelled=lambda: self._is_cancelled(job.id),
            submitted=lambda id_: self._retry_store(lambda: self._store.submitted(job.id, id_)),
            pause=self._pause,
        )

    def _usable(self, name: str, more: str = "") -> binder.Workflow:
        """The workflow with this name as it is now; WorkflowUnusable, with more to say, if no job
        can be made with it."""
        loaded = self._catalog.workflows.load(name)
        if not loaded.ok:
            log.error("the workflow %s cannot be used: %s", name or "(default)", loaded.reason)
            raise WorkflowUnusable(f"The bot's workflow cannot be used: {loaded.reason}.{more}")
        return loaded

    def _is_cancelled(self, job_id: str) -> bool:
        job = self._retry_store(lambda: self._store.get(job_id))
        return job is None or job.status is JobStatus.CANCELLED

    def _retry_store(self, change: Callable[[], T]) -> T:
        """A call of the store, repeated until it works: a job does not fail because the database
        is locked or the disk full."""
        tries = 0
        while True:
            try:
                return change()
            except StoreError as error:
                level = logging.DEBUG if tries % 30 else logging.ERROR  # about once a minute
                log.log(level, "waiting for the database: %s", error)
                self._listener.on_error(error)
                tries += 1
                self._pause(DATABASE_PAUSE)

    def _pause(self, seconds: float) -> bool:
        """Wait; True if somebody ended the wait early. Raises Stopped if the worker is to end at
        once."""
        woken = self._mode is self._Mode.LEAVING or self._wake.wait(seconds)
        self._wake.clear()
        if self._mode is self._Mode.LEAVING:
            raise Stopped
        return woken
