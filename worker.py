"""The worker: the one background thread, which makes the jobs one by one.

Owns the in-memory queue of job ids, the way of a job from its row to its pictures, the wait for a
prompt, and what people read when it goes wrong. Talks to ComfyUI and to the store, knows neither
Discord nor forms: what has begun and what has ended goes up through two callbacks, which are called
in the worker's thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import binder
from comfy_client import (
    BadAnswer,
    ComfyClient,
    ComfyError,
    HistoryEntry,
    ImageRef,
    Progress,
    TimedOut,
    Unreachable,
    ends_prompt,
)
from settings import redact
from store import Job, JobParams, JobStatus, Store, StoreError, unix_ms

log = logging.getLogger(__name__)

T = TypeVar("T")

UNEXPECTED = "Something went wrong inside the bot. Please try again, or tell its owner."


class JobError(Exception):
    """Why a job cannot be accepted or made; `public` is the finished sentence for people."""

    @property
    def public(self) -> str:
        """The sentence."""
        return str(self)


class Stopped(Exception):
    """The worker is to end at once; the job stays as it is and is taken up at the next start."""


class Cancelled(Exception):
    """The job was cancelled while it ran; its row says so already."""


class Queued(NamedTuple):
    """A job that was accepted: its place in the queue, and the seconds until it is done, as far as
    anybody can tell."""

    job_id: str
    position: int
    seconds: float | None


def public_sentence(error: Exception) -> str:
    """What people read of an error of any layer. Only a layer's own errors have a sentence for
    them; of everything else, the log has the detail."""
    public = getattr(error, "public", None)
    return redact(public) if isinstance(public, str) else UNEXPECTED


def load_workflow(path: Path) -> binder.BindResult:
    """The workflow file as it is now, validated: an owner may edit it while the bot runs."""
    loaded = binder.load(path)
    return binder.validate(loaded.workflow) if loaded.ok else loaded


class Worker:
    """Runs the queued jobs, one at a time and oldest first, in one thread.

    The queue holds ids, the rows are the truth. `started` is called with the id of each job that
    begins and its progress, which goes on changing; `ended` with the id and the bytes of the
    pictures of each job that has reached its end, unless it was cancelled.
    """

    class _Mode(IntEnum):
        WORKING = 0
        FINISHING = 1  # no further job; the current one goes on
        LEAVING = 2  # the current one is left where it stands

    def __init__(
        self,
        store: Store,
        client: ComfyClient,
        load_workflow: Callable[[], binder.BindResult],
        *,
        timeout: float,
        started: Callable[[str, Progress], None],
        ended: Callable[[str, list[bytes]], None],
    ) -> None:
        """`load_workflow` gives the workflow as it is now; `timeout` is of one job, in seconds."""
        self._store = store
        self._client = client
        self._load_workflow = load_workflow
        self._timeout = timeout
        self._on_start = started
        self._on_end = ended
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

    def accept(self, params: JobParams) -> Queued:
        """A new job: a dry run of the workflow, the row, the queue. Any thread; blocks. Raises
        JobError if the workflow cannot be used, StoreError if there is no row then."""
        workflow = self._load_workflow()
        if not workflow.ok:
            log.error("the workflow cannot be used: %s", workflow.reason)
            raise JobError(
                f"The bot's workflow cannot be used: {workflow.reason}."
                " Nothing was queued; please tell the bot's owner."
            )
        with self._accepting:  # the order of the rows is the order of the queue
            job_id = self._store.insert(params)
            position, seconds = 1, None
            try:
                position = self._store.position(job_id) or 1
                seconds = self.estimate(position)
            except StoreError as error:  # the row is there: the job must run, and be "Queued!"
                log.error("%s", error)
            finally:
                self.submit(job_id)
        log.info("job %s: queued at position %d", job_id, position)
        return Queued(job_id, position, seconds)

    def estimate(self, position: int) -> float | None:
        """Seconds until the job at this position is done, from the median of the last runs; None
        before the first. Blocks."""
        typical = self._store.typical_ms()
        if typical is None:
            return None
        left = position * typical
        for job in self._store.by_status(JobStatus.RUNNING):
            left += max(0, typical - (unix_ms() - (job.started_at or 0)))
        return left / 1000

    def submit(self, job_id: str) -> None:
        """Put a queued job behind the others."""
        self._jobs.put(job_id)

    def cancel(self, job_id: str) -> bool:
        """Cancel a queued or running job; False if it has ended already. The row decides, so of a
        cancellation and a completion at the same time one wins."""
        cancelled = self._store.cancel(job_id, JobStatus.QUEUED) or self._store.cancel(
            job_id, JobStatus.RUNNING
        )
        if cancelled:
            self._wake.set()
        return cancelled

    def hear(self, event: str, data: Mapping[str, Any]) -> None:
        """What ComfyUI's feed tells about our prompts; any thread."""
        run = self._run
        if run is not None and run.hear(event, data):
            self._wake.set()

    def stop(self) -> None:
        """Take no further job; the current one goes on."""
        self._mode = max(self._mode, self._Mode.FINISHING)
        self._jobs.put(None)

    def abort(self) -> None:
        """Leave the current job where it stands, too."""
        self._mode = self._Mode.LEAVING
        self._jobs.put(None)
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
            except Exception:
                log.exception("job %s: the worker goes on with the next job", job_id)

    def step(self, job_id: str) -> None:
        """Run one job from its row to its end."""
        job = self._durably(lambda: self._store.get(job_id))
        if job is None:
            return
        taken_up = job.status is JobStatus.RUNNING
        if not taken_up and not self._durably(lambda: self._store.start(job_id)):
            return  # cancelled, or run already
        log.info("job %s: %s", job_id, "taken up" if taken_up else "started")
        pictures: list[bytes] = []
        try:
            run = self._prepared(job)
            self._on_start(job_id, run.progress)
            refs = run.wait()
            pictures = run.download(refs)
        except Stopped:
            raise
        except Cancelled:
            log.info("job %s: cancelled", job_id)
            return
        except Exception as error:
            if hasattr(error, "public"):
                log.warning("job %s: failed: %s", job_id, error)
            else:
                log.error("job %s: failed", job_id, exc_info=error)
            sentence = public_sentence(error)
            ended = self._durably(lambda: self._store.fail(job_id, sentence))
        else:
            names = [str(ref) for ref in refs]
            ended = self._durably(lambda: self._store.complete(job_id, names))
            log.info("job %s: made %d pictures", job_id, len(names))
        finally:
            self._run = None
        if ended:
            self._on_end(job_id, pictures)

    def _prepared(self, job: Job) -> PromptRun:
        """The job bound to the workflow file, ready to be submitted."""
        loaded = self._load_workflow()
        result = binder.bind(job, loaded.workflow) if loaded.ok else loaded
        if not result.ok:
            raise JobError(f"The bot's workflow cannot be used: {result.reason}.")
        workflow = result.workflow
        self._wake.clear()  # what the feed still had to say about the prompt before
        self._run = PromptRun(
            self._client,
            job,
            workflow if job.seed is None else binder.reseed(workflow, job.seed),
            timeout=self._timeout,
            is_cancelled=lambda: self._is_cancelled(job.id),
            submitted=lambda id_: self._durably(lambda: self._store.submitted(job.id, id_)),
            pause=self._pause,
        )
        return self._run

    def _is_cancelled(self, job_id: str) -> bool:
        job = self._durably(lambda: self._store.get(job_id))
        return job is None or job.status is JobStatus.CANCELLED

    def _durably(self, change: Callable[[], T]) -> T:
        """A call of the store, repeated while the database is locked or the disk full."""
        level = logging.ERROR
        while True:
            try:
                return change()
            except StoreError as error:
                log.log(level, "waiting for the database: %s", error)
                level = logging.DEBUG  # once is enough
                self._pause(2.0)

    def _pause(self, seconds: float) -> bool:
        """Wait; True if somebody ended the wait early."""
        woken = self._wake.wait(seconds)
        self._wake.clear()
        if self._mode is self._Mode.LEAVING:
            raise Stopped
        return woken


class PromptState(Enum):
    """What is known about a prompt that has not ended."""

    ABSENT = "ComfyUI does not have it"
    UNCLEAR = "ComfyUI may have it: a call failed, or the bot was restarted"
    PRESENT = "ComfyUI has it, waiting or running"


class PromptRun:
    """One job's prompt, from its submission to its pictures.

    `/history` is the truth. A prompt in neither `/history` nor `/queue` is absent: not yet
    submitted, or forgotten by a ComfyUI that restarted. An id posted twice would run twice, so
    after anything unclear both are asked before posting (comfyui.md).
    """

    MAX_SUBMISSIONS = 3  # should ComfyUI forget it by restarting
    LOOK_SECONDS = 2.0  # how often the wait makes sure that ComfyUI still has it
    HURRIED_LOOKS = 40  # the feed hears of the end some milliseconds before /history does
    HURRIED_PAUSE = 0.003

    def __init__(
        self,
        client: ComfyClient,
        job: Job,
        workflow: binder.Workflow,
        *,
        timeout: float,
        is_cancelled: Callable[[], bool],
        submitted: Callable[[str], object],
        pause: Callable[[float], bool],
    ) -> None:
        """`submitted` is told the id under which ComfyUI took the prompt; `pause` waits so many
        seconds, and says whether there is a reason to look at once."""
        self.progress = Progress(job.prompt_id, binder.sampler_steps(workflow))
        self._client = client
        self._job_id = job.id
        self._workflow = workflow
        self._timeout = timeout
        self._is_cancelled = is_cancelled
        self._submitted = submitted
        self._pause = pause
        self._state = PromptState.UNCLEAR if job.status is JobStatus.RUNNING else PromptState.ABSENT
        self._submissions = 0
        self._hurried = 0
        self._began = self._looked_at = time.monotonic()
        self._outage = Outage(job.id)

    @property
    def prompt_id(self) -> str:
        """The id that ComfyUI knows it by."""
        return self.progress.prompt_id

    def hear(self, event: str, data: Mapping[str, Any]) -> bool:
        """Take an event of the feed; True if it is a reason to look at once. Any thread."""
        if data.get("prompt_id", self.prompt_id) != self.prompt_id:
            return False
        self.progress.take(event, data)
        return ends_prompt(event, data)

    def wait(self) -> Sequence[ImageRef]:
        """Submit it if need be, and wait for its end. Raises a ComfyError or JobError if there are
        no pictures, and Cancelled; what is over its time or cancelled is stopped on the server."""
        while True:
            try:
                if self._is_cancelled():
                    self.stop()
                    raise Cancelled
                entry = self._look()
                if entry is not None:
                    self._outage.over()
                    return entry.pictures()
                if self._state is PromptState.ABSENT:
                    self._submit()
                self._outage.over()
                pause = self._next_pause()
            except (Unreachable, BadAnswer) as error:
                self._state = PromptState.UNCLEAR
                pause = self._outage.goes_on(error)
            left = self._began + self._timeout - time.monotonic()
            if left <= 0:
                self.stop()
                raise self._outage.error or TimedOut(f"no result within {self._timeout:g} s")
            if self._pause(min(pause, left)):
                self._hurried = self.HURRIED_LOOKS

    def _look(self) -> HistoryEntry | None:
        """Ask ComfyUI for the result, and now and then whether it still has the prompt."""
        if self._state is PromptState.ABSENT:
            return None  # a new job is in neither list yet
        entry = self._client.history(self.prompt_id)
        sure = self._state is PromptState.PRESENT
        if entry is not None or (sure and time.monotonic() - self._looked_at <= self.LOOK_SECONDS):
            return entry
        present = self.prompt_id in self._client.queue()
        # Once more: it may have ended between the two questions.
        entry = None if present else self._client.history(self.prompt_id)
        self._state = PromptState.PRESENT if present else PromptState.ABSENT
        self._looked_at = time.monotonic()
        return entry

    def _submit(self) -> None:
        if self._submissions == self.MAX_SUBMISSIONS:
            raise JobError(
                "The image server lost this picture again and again, by restarting or because its"
                " owner removed it. Please try again later."
            )
        self.progress.prompt_id = self._client.submit(self._workflow, self.prompt_id)
        self._state = PromptState.PRESENT
        self._submissions += 1
        self._submitted(self.prompt_id)
        if self._submissions == 1:
            self._began = self._looked_at = time.monotonic()

    def _next_pause(self) -> float:
        """So that noticing the end never costs more than 5 % of the wait."""
        if self._hurried:
            self._hurried -= 1
            return self.HURRIED_PAUSE
        return min(max(0.05 * (time.monotonic() - self._began), 0.1), 2.0)

    def stop(self) -> None:
        """Free the GPU; some tries, and no more, because the next job waits."""
        for pause in (0.5, 1.0, 2.0, 0.0):
            try:
                self._client.cancel(self.prompt_id)
                return
            except Unreachable as error:
                if not pause:
                    log.warning("prompt %s could not be stopped: %s", self.prompt_id, error)
                self._pause(pause)
            except ComfyError as error:
                log.warning("prompt %s could not be stopped: %s", self.prompt_id, error)
                return

    def download(self, refs: Sequence[ImageRef]) -> list[bytes]:
        """The pictures; Cancelled if they are not wanted any more."""
        deadline = time.monotonic() + self._timeout
        return [self._download(ref, deadline) for ref in refs]

    def _download(self, ref: ImageRef, deadline: float) -> bytes:
        """One picture; fetched again if the server is away or the bytes break off."""
        outage = Outage(self._job_id)
        while not self._is_cancelled():
            try:
                return self._client.image(ref)
            except (Unreachable, BadAnswer) as error:
                if time.monotonic() > deadline:
                    raise
                self._pause(outage.goes_on(error))
        raise Cancelled


class Outage:
    """One absence of ComfyUI: one line in the log, and a growing pause between the tries. A proxy
    or a login page in its place is an absence, too."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._failures = 0
        self.error: ComfyError | None = None

    def goes_on(self, error: ComfyError) -> float:
        """Note a failed call; the seconds to wait before the next."""
        if self.error is None:
            log.warning("job %s: ComfyUI does not answer, waiting: %s", self._job_id, error)
        self.error = error
        self._failures += 1
        return float(min(0.1 * 2**self._failures, 5.0))

    def over(self) -> None:
        """Note a call that worked."""
        if self.error is not None:
            log.info("job %s: ComfyUI answers again", self._job_id)
        self.error, self._failures = None, 0
