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
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from enum import Enum, IntEnum
from typing import Any, NamedTuple, TypeVar

import binder
from comfy_client import ComfyClient, HistoryEntry, ImageRef, Progress, ends_prompt
from comfy_errors import (
    BadAnswer,
    BrokenModel,
    ComfyError,
    NoPictures,
    NotOffered,
    Refused,
    Removed,
    TimedOut,
    Unreachable,
    refusal_of_job,
)
from names import display_name, quoted
from object_info import ComfyOptions
from settings import redact
from store import Job, JobParams, JobStatus, Store, StoreError, unix_ms

log = logging.getLogger(__name__)

T = TypeVar("T")

LATE_SECONDS = 2.0  # within which a submission arrives whose answer was lost
POLL_PAUSES = (0.1, 2.0)  # seconds between two looks for the end of a prompt, and what share
POLL_SHARE = 0.05  # of the wait so far a pause is
OUTAGE_PAUSES = (0.2, 5.0)  # seconds between two calls of a ComfyUI that is away: growing
DATABASE_PAUSE = 2.0  # seconds between two tries of a statement that must be made

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


def sentence_for(
    error: Exception,
    job: Job,
    read_lists: Callable[[str], ComfyOptions | None],
    model_nodes: Collection[str] = (),
) -> str:
    """What people read of the error that a job ended with. Where ComfyUI does not take a value, its
    lists are read again first, so that the sentence is true. `model_nodes` load the job's model.
    May block."""
    if isinstance(error, BrokenModel) and error.node in model_nodes:
        return (
            f"The file of the model {quoted(display_name(job.model))} is broken, so ComfyUI cannot"
            " load it. Choose another model, or tell the bot's owner."
        )
    if not isinstance(error, NotOffered):
        return public_sentence(error)
    options = read_lists(job.workflow)
    if any(getattr(job, name) != value for name, value in error.values.items()):
        return Refused.public  # a value of the workflow file's own
    if options is None:
        return error.public
    if any(value in getattr(options, f"{name}s") for name, value in error.values.items()):
        return f"ComfyUI refuses the {error.what}. Choose another, or tell the bot's owner."
    return f"{error.sentence}; the list is fresh now: press Edit."


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
        load_workflow: Callable[[str], binder.BindResult],
        *,
        timeout: float,
        started: Callable[[str, Progress], None],
        ended: Callable[[str, list[bytes]], None],
        connection: Callable[[], int] = lambda: 0,
        read_lists: Callable[[str], ComfyOptions | None] = lambda name: None,
        returned: Callable[[float], None] = lambda since: None,
    ) -> None:
        """`load_workflow` gives the workflow with a name as it is now, validated; `timeout` is of
        one job, in seconds; `connection` is `ProgressFeed.connection`. `read_lists` reads again
        what ComfyUI offers with a workflow, and blocks (None: it could not); `returned` is told
        that ComfyUI answers again, and since when (`time.monotonic()`) it did not."""
        self._store = store
        self._client = client
        self._load_workflow = load_workflow
        self._timeout = timeout
        self._on_start = started
        self._on_end = ended
        self._connection = connection
        self._read_lists = read_lists
        self._on_return = returned
        self.seed_maxima: Mapping[tuple[str, str], int] = {}  # as `binder.reseed` takes them
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
        workflow = self._load_workflow(params.workflow)
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

    def hear(self, event: str, data: Mapping[str, Any]) -> None:
        """What ComfyUI's feed tells about our prompts; any thread."""
        if event == "status":  # the server's first word on each connection
            self.sweeper.server_is_there()
        run = self._run
        if run is not None and run.hear(event, data):
            self._wake.set()

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
            except Exception:
                log.exception("job %s: the worker goes on with the next job", job_id)
        if not self.finished.done():
            self.finished.set_result(None)

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
        run = None
        try:
            self.sweeper.in_work = job_id
            self._run = run = self._prepared(job)
            self._on_start(job_id, run.progress)
            refs, pictures = run.pictures()
        except Stopped:
            raise
        except Cancelled:
            log.info("job %s: cancelled", job_id)
            ended = False
        except Removed as error:
            log.warning("job %s: cancelled: %s", job_id, error)
            ended = self._durably(
                lambda: self._store.cancel(job_id, JobStatus.RUNNING, Removed.public)
            )
        except Exception as error:
            ended = self._failed(job, error, on_server=run.may_be_on_server if run else taken_up)
        else:
            names = [str(ref) for ref in refs]
            ended = self._durably(lambda: self._store.complete(job_id, names))
            log.info("job %s: made %d pictures", job_id, len(names))
        finally:
            self._run = self.sweeper.in_work = None
        # Not ended here: it was cancelled, at whatever moment, and its row still says on_server.
        if ended:
            self._on_end(job_id, pictures)
        if not ended or (run.may_be_on_server if run else taken_up):
            self.sweeper.sweep()

    def _failed(self, job: Job, error: Exception, *, on_server: bool) -> bool:
        if hasattr(error, "public"):
            log.warning("job %s: failed: %s", job.id, error)
        else:
            log.error("job %s: failed", job.id, exc_info=error)
        loaded = self._load_workflow(job.workflow)
        model_nodes = {place.node for place in loaded.bindings["model"]} if loaded.ok else ()
        if isinstance(error, Refused) and loaded.ok:
            error = refusal_of_job(error, binder.roles_by_place(loaded.bindings))
        sentence = sentence_for(error, job, self._read_lists, model_nodes)
        return self._durably(lambda: self._store.fail(job.id, sentence, on_server=on_server))

    def _prepared(self, job: Job) -> PromptRun:
        """The job bound to the workflow file, ready to be submitted."""
        loaded = self._load_workflow(job.workflow)
        if not loaded.ok:
            raise JobError(f"The bot's workflow cannot be used: {loaded.reason}.")
        result = binder.bind(job, loaded.workflow, loaded.bindings)
        if not result.ok:
            raise JobError(f"The bot's workflow cannot be used: {result.reason}.")
        workflow, bindings = result.workflow, result.bindings
        if bindings is not binder.LOCKED:
            workflow = binder.rescale_passes(workflow, loaded.workflow, bindings)
        if job.seed is not None:
            workflow = binder.reseed(workflow, job.seed, self.seed_maxima, bindings)
        self._wake.clear()  # what the feed still had to say about the prompt before
        return PromptRun(
            self._client,
            job,
            workflow,
            timeout=self._timeout,
            connection=self._connection,
            returned=self._on_return,
            is_cancelled=lambda: self._is_cancelled(job.id),
            submitted=lambda id_: self._durably(lambda: self._store.submitted(job.id, id_)),
            pause=self._pause,
        )

    def _is_cancelled(self, job_id: str) -> bool:
        job = self._durably(lambda: self._store.get(job_id))
        return job is None or job.status is JobStatus.CANCELLED

    def _durably(self, change: Callable[[], T]) -> T:
        """A call of the store, repeated until it works: a job does not fail because the database
        is locked or the disk full."""
        tries = 0
        while True:
            try:
                return change()
            except StoreError as error:
                level = logging.DEBUG if tries % 30 else logging.ERROR  # about once a minute
                log.log(level, "waiting for the database: %s", error)
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


class PromptState(Enum):
    """What is known about a prompt that has not ended."""

    ABSENT = "ComfyUI does not have it"
    UNCLEAR = "ComfyUI may have it: a call failed, or the bot was restarted"
    PRESENT = "ComfyUI has it, waiting or running"
    MISSED = "ComfyUI had it a moment ago, and has not restarted since"


class PromptRun:
    """One job's prompt, from its submission to its pictures.

    `/history` is the truth. A prompt in neither `/history` nor `/queue` is absent: not yet
    submitted, forgotten by a ComfyUI that restarted, or removed by its owner. An id posted twice
    would run twice, so after anything unclear both are asked before posting (comfyui.md).
    """

    MAX_SUBMISSIONS = 3  # should ComfyUI forget it by restarting
    LOOK_SECONDS = 2.0  # how often the wait makes sure that ComfyUI still has it
    MISSED_SECONDS = 1.0  # within which the feed has noticed that ComfyUI restarted
    HURRIED_LOOKS = 40  # the feed hears of the end some milliseconds before /history does
    HURRIED_PAUSE = 0.003

    def __init__(
        self,
        client: ComfyClient,
        job: Job,
        workflow: binder.Workflow,
        *,
        timeout: float,
        connection: Callable[[], int],
        returned: Callable[[float], None],
        is_cancelled: Callable[[], bool],
        submitted: Callable[[str], object],
        pause: Callable[[float], bool],
    ) -> None:
        """`submitted` is told the id under which ComfyUI has the prompt; `pause` waits so many
        seconds, and says whether there is a reason to look at once."""
        self.progress = Progress(job.prompt_id, binder.sampler_steps(workflow))
        self._client = client
        self._job_id = job.id
        self._workflow = workflow
        self._timeout = timeout
        self._connection = connection
        self._is_cancelled = is_cancelled
        self._submitted = submitted
        self._pause = pause
        self._state = PromptState.UNCLEAR if job.status is JobStatus.RUNNING else PromptState.ABSENT
        self.may_be_on_server = True  # and has to be stopped if nobody wants it any more
        self._from_cache = False
        self._submissions = 0
        self._unanswered_since: float | None = None  # a submission whose answer was lost
        self._hurried = 0
        self._present_on = 0  # the feed's connection when ComfyUI was last seen to have it
        self._began = self._looked_at = self._counted_at = time.monotonic()
        self._spent = 0.0  # seconds of its time
        self._outage = Outage(job.id, returned)

    @property
    def prompt_id(self) -> str:
        """The id to ask ComfyUI for: the job's own, unless an older server gave another, or the
        picture is made once more. It is that of the row, so a restart and the sweeper find it."""
        return self.progress.prompt_id

    def hear(self, event: str, data: Mapping[str, Any]) -> bool:
        """Take an event of the feed; True if it is a reason to look at once. Any thread."""
        if data.get("prompt_id", self.prompt_id) != self.prompt_id:
            return False
        self.progress.take(event, data)
        return ends_prompt(event, data)

    def pictures(self) -> tuple[Sequence[ImageRef], list[bytes]]:
        """Wait for the pictures and fetch them. A run from ComfyUI's cache names the file of an
        earlier one; if that is gone, it is made once more under another name (comfyui.md)."""
        refs = self.wait()
        try:
            return refs, self.download(refs)
        except NoPictures as error:
            if not self._from_cache:
                raise
            log.info(
                "job %s: made once more, the cached run's file is gone: %s", self._job_id, error
            )
        self._workflow = binder.with_new_file_names(self._workflow, f"-{self._job_id[:8]}")
        self.progress.restart()
        self.progress.prompt_id = str(uuid.uuid4())
        self._submitted(self.prompt_id)  # before it is posted, so that a restart finds it
        self._state = PromptState.ABSENT
        self.may_be_on_server = True
        refs = self.wait()
        return refs, self.download(refs)

    def wait(self) -> Sequence[ImageRef]:
        """Submit it if need be, and wait for its end. Raises a ComfyError or JobError if there are
        no pictures, and Cancelled."""
        while True:
            try:
                if self._is_cancelled():
                    raise Cancelled
                entry = self._look()
                if entry is not None:
                    self.may_be_on_server = self.progress.is_away = False
                    self._outage.over()
                    self._from_cache = entry.from_cache
                    return entry.pictures()
                if self._state is PromptState.ABSENT:
                    self._submit()
                if self._state is not PromptState.UNCLEAR:  # else a submission is still awaited
                    self._outage.over()
                pause = self._next_pause()
            except (Unreachable, BadAnswer) as error:
                self._state = PromptState.UNCLEAR
                pause = self._outage.goes_on(error)
            self.progress.is_away = self._outage.error is not None
            left = self._time_left()
            if left <= 0:
                raise self._outage.error or TimedOut(f"no result within {self._timeout:g} s")
            if self._pause(min(pause, left)):
                self._hurried = self.HURRIED_LOOKS

    def _look(self) -> HistoryEntry | None:
        """Ask ComfyUI for the result, and now and then whether it still has the prompt."""
        if self._state is PromptState.ABSENT:
            return None  # a new job is in neither list yet
        entry = self._client.history(self.prompt_id)
        is_sure = self._state is PromptState.PRESENT
        now = time.monotonic()
        if entry is not None or (is_sure and now - self._looked_at <= self.LOOK_SECONDS):
            return entry
        connection = self._connection()
        on_server = self._client.queue()
        if self._state is PromptState.UNCLEAR:
            self._take_id(on_server.own_ids.get(self.prompt_id))
        if self.prompt_id in on_server:
            self._seen_at(on_server.before(self.prompt_id), connection)
            return None
        # Once more: it may have ended between the two questions.
        entry = self._client.history(self.prompt_id)
        if entry is None and self._state is PromptState.UNCLEAR:
            self._take_id(self._client.find_ended(self.prompt_id))
            entry = self._client.history(self.prompt_id)
        if entry is None:
            self._missed(now)
        return entry

    def _take_id(self, prompt_id: str | None) -> None:
        """Note the id that an older server gave to a prompt whose answer was lost."""
        if prompt_id is not None and prompt_id != self.prompt_id:
            self.progress.prompt_id = prompt_id
            self._submitted(prompt_id)

    def _seen_at(self, place: int, connection: int) -> None:
        """It stands in ComfyUI's queue, behind so many others, on this connection of the feed."""
        self._unanswered_since = None
        self._state = PromptState.PRESENT
        self._looked_at = time.monotonic()
        self._present_on = connection
        if place == 0:
            self.progress.runs()
        else:
            self.progress.before = place

    def _missed(self, now: float) -> None:
        """ComfyUI has it no more. It has restarted and forgotten it, unless the feed was connected
        all the while: then somebody took it out of the queue."""
        since = self._unanswered_since
        if since is not None and now - since < LATE_SECONDS:
            return  # twice submitted, it would run twice
        if not self._present_on or self._connection() != self._present_on:
            self._state = PromptState.ABSENT
            self.progress.restart()
        elif self._state is not PromptState.MISSED:
            self._state = PromptState.MISSED
            self._looked_at = now
        elif now - self._looked_at >= self.MISSED_SECONDS:
            raise Removed("the prompt was removed from ComfyUI's queue")

    def _submit(self) -> None:
        if self._submissions == self.MAX_SUBMISSIONS:
            raise JobError(
                "The image server lost this picture again and again, by restarting or because its"
                " owner removed it. Please try again later."
            )
        self._present_on = 0
        connection = self._connection()
        self._unanswered_since = time.monotonic()
        try:
            accepted = self._client.submit(self._workflow, self.prompt_id)
        except Refused as error:
            self.may_be_on_server = error.was_queued
            raise
        self._unanswered_since = None
        self.progress.prompt_id = accepted
        self._state = PromptState.PRESENT
        self._present_on = connection
        self._submissions += 1
        self._submitted(accepted)
        if self._submissions == 1:
            self._began = self._looked_at = time.monotonic()

    def _next_pause(self) -> float:
        """So that noticing the end never costs more than POLL_SHARE of the wait."""
        if self._hurried:
            self._hurried -= 1
            return self.HURRIED_PAUSE
        shortest, longest = POLL_PAUSES
        waited = time.monotonic() - self._began
        return min(max(POLL_SHARE * waited, shortest), longest)

    def _time_left(self) -> float:
        """The seconds that are left of its time. Counted is the time in which it runs or ComfyUI
        is away; waiting behind other people's prompts is no fault of the job."""
        now = time.monotonic()
        if self.progress.before == 0 or self._outage.error is not None:
            self._spent += now - self._counted_at
        self._counted_at = now
        return self._timeout - self._spent

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


class Sweeper:
    """Takes out of ComfyUI's queue what nobody wants any more: the prompts of jobs that were
    cancelled or timed out, also before a restart of the bot. Repeats it in a thread of its own
    until it is done, however long ComfyUI is away or a node ignores it. The rows say what is left
    to do, so nothing is forgotten."""

    PAUSES = (0.5, 30.0)  # the shortest and the longest, in seconds
    AGAIN_SECONDS = 5.0  # for so long, a submission whose answer was lost may still arrive

    def __init__(self, store: Store, client: ComfyClient) -> None:
        self._store = store
        self._client = client
        self.in_work: str | None = None  # the job whose prompt the worker may be about to submit
        self._absent_since: dict[str, float] = {}  # by the id of the job
        self._sweeping = threading.Lock()
        self._wake = threading.Event()
        self._is_stopping = False
        self._failed = False
        self._thread = threading.Thread(target=self._loop, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start the thread, with what an earlier run left."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something to do; any thread."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; what is left is done after the next start."""
        self._is_stopping = True
        self._wake.set()

    def sweep(self) -> None:
        """There is something to do: one try now, in the caller's thread, and the rest later."""
        self._try()
        self._wake.set()

    def finish(self, seconds: float) -> None:
        """Go on in the caller's thread until ComfyUI has none of them, at most so long."""
        deadline = time.monotonic() + seconds
        while self._try() and time.monotonic() < deadline:
            self._wake.clear()  # sweep() has set it, and no thread of its own takes it back
            self._wake.wait(self.PAUSES[0])

    def server_is_there(self) -> None:
        """A reason to try at once what has failed before; any thread."""
        if self._failed:
            self._wake.set()

    def step(self) -> int | None:
        """Look once at all that is unwanted. How many of them ComfyUI still had; None if nothing
        is left to be looked at. Raises ComfyError and StoreError."""
        with self._sweeping:
            unwanted = self._store.unwanted()
            if not unwanted:
                self._absent_since.clear()
                return None
            on_server = self._client.queue()
            present = 0
            for job_id, asked_id in unwanted:
                prompt_id = on_server.own_ids.get(asked_id, asked_id)
                if prompt_id in on_server:
                    present += 1
                    self._absent_since.pop(job_id, None)
                    self._client.cancel(prompt_id)
                    log.info("job %s: ComfyUI is told to stop its prompt", job_id)
                elif job_id != self.in_work:
                    since = self._absent_since.setdefault(job_id, time.monotonic())
                    if time.monotonic() - since >= self.AGAIN_SECONDS:
                        self._store.off_server(job_id)
            return present

    def _try(self) -> int | None:
        try:
            present = self.step()
        except (ComfyError, StoreError) as error:
            if not self._failed:
                log.warning("prompts that are not wanted cannot be stopped yet: %s", error)
            self._failed = True
            return 1  # there may be some
        self._failed = False
        return present

    def _loop(self) -> None:
        pause: float | None = 0.0
        shortest, longest = self.PAUSES
        while not self._is_stopping:
            present = self._try()
            if present is None:
                pause = None
            elif present == 0:
                pause = self.AGAIN_SECONDS
            else:
                pause = min(max(2 * (pause or 0.0), shortest), longest)
            if self._wake.wait(pause):
                pause = 0.0
                self._wake.clear()
                if not self._failed:  # sweep() has just tried, and a stop takes effect in a moment
                    self._wake.wait(shortest)


class Outage:
    """One absence of ComfyUI: one line in the log, and a growing pause between the tries. A proxy
    or a login page in its place is an absence, too."""

    def __init__(self, job_id: str, returned: Callable[[float], None] = lambda since: None) -> None:
        """`returned` is told when it is over, and when it began (`time.monotonic()`)."""
        self._job_id = job_id
        self._returned = returned
        self._failures = 0
        self._since = 0.0
        self.error: ComfyError | None = None

    def goes_on(self, error: ComfyError) -> float:
        """Note a failed call; the seconds to wait before the next."""
        if self.error is None:
            log.warning("job %s: ComfyUI does not answer, waiting: %s", self._job_id, error)
            self._since = time.monotonic()
        self.error = error
        self._failures += 1
        shortest, longest = OUTAGE_PAUSES
        return min(shortest * 2.0 ** min(self._failures - 1, 9), longest)

    def over(self) -> None:
        """Note a call that worked."""
        if self.error is not None:
            log.info("job %s: ComfyUI answers again", self._job_id)
            self._returned(self._since)
        self.error, self._failures = None, 0
