"""The worker: the background thread that makes the jobs of one server, one by one.

Owns the way of a job from its row to its pictures. Reports to its listener; neither reads nor
writes Discord. Its public methods are for any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import binder
from comfyui.errors import PictureMissing, Removed
from comfyui.images import Image, kind_of
from comfyui.progress import Preview, Progress
from graph import Nodes
from job import Job, JobStatus
from jobs.catalog import UNUSABLE, Catalog
from jobs.failure import UNEXPECTED, failure_message
from jobs.image import InputPicture
from jobs.jobqueue import Entry, JobQueue, Lane
from jobs.offered import NO_IMAGE, TAKES_NONE
from jobs.pauses import ErrorListener, Pauses, Stopped
from jobs.run import Cancelled, JobError, Moved, PromptRun, build_prompt
from jobs.sweeper import Sweeper
from settings import Settings
from store import Store
from text import PublicError

log = logging.getLogger(__name__)


NOT_KEPT = "The picture that this was made from is no longer kept: send it once more."


class WorkflowUnusable(JobError):
    """The workflow file is broken: no job can be made until its owner corrects it."""


class Listener(ErrorListener, Protocol):
    """Gets what the worker reports, in the worker's thread."""

    def job_started(self, job_id: str, progress: Progress) -> None:
        """Take note of a job that begins; its progress goes on changing."""

    def job_ended(self, job_id: str, pictures: Sequence[bytes | PictureMissing] = ()) -> None:
        """Take note of a job in a final state, and of its pictures: each its bytes or why it cannot
        be had. Not called for one that was cancelled."""


class Worker:
    """Runs the jobs of one server, one at a time, in one thread."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        lane: Lane,
        jobs: JobQueue,
        catalog: Catalog,
        listener: Listener,
        sweeper: Sweeper,
    ) -> None:
        self.lane = lane
        self.sweeper = sweeper
        self._settings = settings
        self._store = store
        self._client = lane.client
        self._jobs = jobs
        self._catalog = catalog
        self._listener = listener
        self._pauses = Pauses(listener)
        self._run: PromptRun | None = None  # the prompt that is waited for
        self._thread = threading.Thread(target=self._loop, name="worker", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        self.sweeper.start()

    async def follow(self) -> None:
        """Listen to the server's feed until cancelled."""
        await self.lane.feed.run(self)

    def wake(self) -> None:
        """Look at once whether the job at work is cancelled."""
        self._pauses.wake()
        self.sweeper.wake()  # after a restart the job may not have been resumed yet

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
        self.lane.hold.restarted()
        self._pauses.wake()

    def stop(self) -> None:
        """End with the current job, or at once if it waits for a ComfyUI that is away or fails
        everything."""
        self._pauses.stop()
        self.sweeper.stop()
        if self._thread.ident is None:
            self._jobs.leave(self.lane)

    def abort(self) -> None:
        """Leave the current job where it stands."""
        self._pauses.abort()

    def _loop(self) -> None:
        while (entry := self._jobs.take(self.lane)) is not None:
            try:
                if self._run_to_end(entry):
                    self._jobs.put_back(entry)
            except Stopped:
                log.info("job %s: left where it stands, to be resumed at the next start", entry[1])
            except Exception:
                log.exception("job %s: its row could not be ended", entry.job_id)
        self._jobs.leave(self.lane)

    def _run_to_end(self, entry: Entry) -> bool:
        """Run one job as `run_job()` does, and fail it whatever happens on its way."""
        job_id = entry.job_id
        try:
            return self.run_job(job_id, entry.accepted)
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
            return False

    def run_job(self, job_id: str, accepted: float | None = None) -> bool:
        """Run one job from its row to its end; `accepted`: since when it waits, if not from now.
        Return whether it is back in the queue instead, for another server."""
        job = self._pauses.retry_store(lambda: self._store.get(job_id))
        if job is None:
            return False
        is_resumed = job.status is JobStatus.RUNNING
        key = self._client.server.key
        if not is_resumed and not self._pauses.retry_store(lambda: self._store.start(job_id, key)):
            return False  # cancelled, or run already
        log.info("job %s: %s", job_id, "resumed" if is_resumed else "started")
        is_moved = False
        pictures: list[bytes | PictureMissing] = []
        run = None
        try:
            self.sweeper.in_work = job_id
            self.lane.hold.next_job()
            self._run = run = self._prompt_run(job, accepted)
            self._listener.job_started(job_id, run.progress)
            refs, pictures = run.pictures()
        except Stopped:
            raise
        except Cancelled:
            log.info("job %s: cancelled", job_id)
            ended = False
        except Moved as error:
            log.warning("job %s: goes to another server: %s", job_id, error)
            ended = False
            is_moved = self._pauses.retry_store(lambda: self._store.put_back(job_id))
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
        return is_moved

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
        workflow = load_usable(self._catalog, job.workflow)
        prompt = build_prompt(job, workflow, self._catalog.server, self._catalog.loras)
        self._pauses.forget()  # what the feed still had to say about the prompt before
        return PromptRun(
            job,
            prompt,
            self._picture(job, workflow, prompt),
            self._settings.comfy_timeout,
            time.monotonic() if accepted is None else accepted,
            store=self._store,
            catalog=self._catalog,
            lane=self.lane,
            jobs=self._jobs,
            pauses=self._pauses,
        )

    def _picture(self, job: Job, workflow: binder.Workflow, graph: Nodes) -> InputPicture | None:
        """Return the picture that a job works on, if its workflow takes one, for its prompt."""
        if not workflow.takes_image:
            if job.image:
                raise JobError(f"{TAKES_NONE} Press Edit.")
            return None
        image = self._pauses.retry_store(lambda: kept_picture(self._store, job.image))
        prompt = binder.Prompt(graph, workflow.bindings)
        most, server = self._settings.max_megapixels, self._catalog.server
        return InputPicture(job, image, prompt, most, server)


def kept_picture(store: Store, name: str) -> Image:
    """Return the picture with this hash. Raises JobError if it is not kept."""
    data = store.picture(name)
    image = NOT_KEPT if data is None else kind_of(data)
    if isinstance(image, str):
        raise JobError(image if name else NO_IMAGE)
    return image


def load_usable(catalog: Catalog, name: str, more: str = "") -> binder.Workflow:
    """Return the workflow with this name as it is now. Raises WorkflowUnusable, with more to say,
    if no job can be made with it."""
    loaded = catalog.workflows.load(name)
    if not loaded.ok:
        log.error("the workflow %s cannot be used: %s", name or "(default)", loaded.reason)
        sentence = f"The bot's workflow {UNUSABLE}"
        if name and name not in catalog.workflows.names():  # no words of a parser
            sentence = f"The bot's workflow cannot be used: {loaded.reason}."
        raise WorkflowUnusable(loaded.reason, sentence + more)
    return loaded
