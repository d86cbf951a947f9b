"""One prompt on the server, from the workflow it is bound to until its pictures are there.

Owns the order of the steps that write a job into a workflow, and the wait: when the prompt is
submitted (again), how its end is noticed, how long it may take, how long it waits for a ComfyUI
that is away or fails everything, and that it is never run twice. Blocks in the worker's thread.
Asks the store whether the job is cancelled, and notes in it the prompt's id; sets no status.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

import binder
from comfyui.errors import (
    BadAnswer,
    ComfyError,
    NodeFailed,
    PictureGone,
    PictureMissing,
    PictureRefused,
    Rejected,
    Removed,
    TimedOut,
    Unreachable,
)
from comfyui.history import HistoryEntry, ImageRef, images_in
from comfyui.object_info import Capabilities
from comfyui.progress import Progress, ends_prompt
from graph import Nodes
from job import Job, JobStatus
from jobs import lora
from jobs.catalog import Catalog
from jobs.image import InputPicture
from jobs.jobqueue import JobQueue, Lane
from jobs.names import OptionNames
from jobs.pauses import Pauses
from settings import BACKEND_HEADER
from store import Store
from text import PublicError

log = logging.getLogger(__name__)

LATE_SECONDS = 2.0  # within which a submission arrives whose answer was lost
POLL_PAUSES = (0.1, 2.0)  # the shortest and the longest between two polls, in seconds
POLL_SHARE = 0.05  # of the wait so far, between these two: noticing the end never costs more
OUTAGE_PAUSES = (0.2, 5.0)  # the shortest and the longest between two calls of an absent ComfyUI
MOVE_SECONDS = 120.0  # after which another server makes the job of an absent one
HOLD_LOOK = 5.0  # seconds between two looks whether another server is sound meanwhile
AWAY_LIMIT = 86400.0  # seconds that a job waits for an absent ComfyUI
BAD_INPUT = "custom_validation_failed"  # the kind of the fault of a LoadImage without its file
# Seconds that a look may take. Between two looks no more is counted: the machine has slept.
LOOK_LIMIT = 30.0
LOST = (
    "The image server lost this picture again and again, by restarting or because its owner removed"
    " it. Please try again later."
)
UNREADABLE = "ComfyUI cannot read this picture. Send another one, or the same saved as a PNG."


class JobError(PublicError):
    """A job cannot be accepted or made."""


class Cancelled(Exception):
    """The job was cancelled while it ran; its row says so already."""


class Moved(Exception):
    """The job goes back to the queue, as another server can make it; `str()` is the reason."""


class PromptState(Enum):
    """The place of a prompt that has not ended."""

    ABSENT = "ComfyUI does not have it"
    UNCLEAR = "ComfyUI may have it: a call failed, or the bot was restarted"
    PRESENT = "ComfyUI has it, waiting or running"
    MISSED = "ComfyUI had it a moment ago, and has not restarted since"


def build_prompt(
    job: Job, workflow: binder.Workflow, server: Capabilities, loras: OptionNames
) -> Nodes:
    """Return the workflow bound to the job, with each further step that the job asks for. Raises
    JobError for what the server or the workflow does not have any more."""
    text = lora.read(job.positive_prompt, loras)
    if text.problems:
        raise JobError(" ".join(text.problems))
    prompt = binder.bind(replace(job, positive_prompt=text.text), workflow)
    if job.seed is not None:
        prompt.reseed(job.seed, server.seed_maxima)
    size = binder.Size.parse(job.size)
    if job.shape or (size and size != prompt.size):  # else every byte of the file stays
        if prompt.size is None or job.shape not in ("", *binder.SHAPES):
            raise JobError("The workflow does not let its shape be chosen any more. Press Edit.")
        prompt.resize(size or binder.in_shape(prompt.size, job.shape))
    for param, number in (("batch", job.count), ("length", job.length)):
        own = prompt.number(param)
        if own is None and number > 1:
            what = "the number of pictures" if param == "batch" else "its length"
            raise JobError(f"The workflow does not let {what} be chosen any more. Press Edit.")
        if own and number and number != own:
            prompt.write(prompt.bindings[param], number)
    prompt.add_loras(text.loras, server.outputs)
    return prompt.graph


class PromptRun:
    """One job's prompt, from its submission to its pictures.

    `/history` is the truth. A prompt in neither `/history` nor `/queue` is absent: not yet
    submitted, forgotten by a ComfyUI that restarted, or removed by its owner. An id posted twice
    would run twice, so after anything unclear both are asked before posting (docs/comfyui.md).
    """

    MAX_SUBMISSIONS = 3  # should ComfyUI forget it by restarting
    LOOK_SECONDS = 2.0  # how often the wait makes sure that ComfyUI still has it
    MISSED_SECONDS = 1.0  # within which the feed has noticed that ComfyUI restarted
    HURRIED_LOOKS = 40  # the feed reports the end some milliseconds before /history has it
    HURRIED_PAUSE = 0.003

    def __init__(
        self,
        job: Job,
        prompt: Nodes,
        picture: InputPicture | None,
        timeout: float,
        accepted: float,
        *,
        store: Store,
        catalog: Catalog,
        lane: Lane,
        jobs: JobQueue,
        pauses: Pauses,
    ) -> None:
        """Take the job's prompt, the picture that it works on if there is one, the seconds for
        which it may run, and since when it waits (`time.monotonic()`)."""
        self.progress = Progress(job.prompt_id, binder.sampler_steps(prompt))
        self._job_id = job.id
        self._prompt = prompt
        self._picture = picture
        self._timeout = timeout
        self._store = store
        self._client = lane.client
        self._feed = lane.feed
        self._hold = lane.hold
        self._lane = lane
        self._jobs = jobs
        self._pauses = pauses
        self._state = PromptState.UNCLEAR if job.status is JobStatus.RUNNING else PromptState.ABSENT
        self.may_be_on_server = True  # and has to be stopped if the job ends without its pictures
        self._has_lost_picture = False
        self._from_cache = False
        self._submissions = 0
        self._unanswered_since: float | None = None  # a submission whose answer was lost
        self._hurried = 0
        self._present_on = 0  # the feed's connection when ComfyUI was last seen to have it
        self._began = self._looked_at = self._counted_at = time.monotonic()
        self._spent = 0.0  # seconds of its time
        self._pause = 0.0  # the last one
        self._outage = Outage(job.id, accepted, self.progress, lane, jobs, catalog, pauses)
        self._outage.has_prompt = self._state is PromptState.UNCLEAR

    @property
    def prompt_id(self) -> str:
        """Return the id to ask ComfyUI for: the job's own, unless an older server gave another, or
        the picture is made once more. The row has it too, so a restart and the sweeper find it."""
        return self.progress.prompt_id

    def on_event(self, event: str, data: Mapping[str, Any]) -> bool:
        """Follow an event of the feed and return whether to look at once. Any thread."""
        if data.get("prompt_id", self.prompt_id) != self.prompt_id:
            return False
        self.progress.on_event(event, data)
        return ends_prompt(event, data)

    def pictures(self) -> tuple[Sequence[ImageRef], list[bytes | PictureMissing]]:
        """Wait for the pictures and fetch them, at least one. A run from ComfyUI's cache names the
        file of an earlier one; if that is gone, it is made once more under another name
        (docs/comfyui.md)."""
        refs = self._made()
        pictures = self.download(refs)
        gone = [picture for picture in pictures if isinstance(picture, PictureGone)]
        if self._from_cache and gone:
            log.info(
                "job %s: made once more, the cached run's file is gone: %s", self._job_id, gone[0]
            )
            binder.rename_files(self._prompt, f"-{self._job_id[:8]}")
            self._begin_anew()
            refs = self._made()
            pictures = self.download(refs)
        missing = [picture for picture in pictures if isinstance(picture, PictureMissing)]
        if len(missing) == len(pictures):
            raise missing[0]
        for error in missing:
            log.warning("job %s: one picture is missing: %s", self._job_id, error)
        return refs, pictures

    def _made(self) -> Sequence[ImageRef]:
        """Wait for its end, also while a ComfyUI that fails everything is held, and return its
        pictures."""
        while True:
            self._wait_for_hold()
            try:
                refs = self.wait()
            except NodeFailed as error:
                was_held = self._hold.since is not None
                is_tried_again = self._lost_picture(error) or self._hold.failed(error)
                if was_held:
                    self._move_from_hold()
                if not is_tried_again:
                    raise
                log.warning("job %s: failed, and is tried again: %s", self._job_id, error)
                self._begin_anew()
            else:
                self._hold.succeeded()
                return refs

    def _lost_picture(self, error: NodeFailed) -> bool:
        """Return whether it failed where it loads the picture to work on: the server's input folder
        was emptied after the prompt was accepted. Raises PictureRefused the second time."""
        is_lost = self._picture is not None and error.node in self._picture.nodes
        if is_lost and self._has_lost_picture:
            raise PictureRefused(str(error), UNREADABLE)  # no fault of the server's
        self._has_lost_picture |= is_lost
        return is_lost

    def _wait_for_hold(self) -> None:
        while left := self._hold.left:
            if self._is_cancelled():
                raise Cancelled
            self._move_from_hold()
            self.progress.held_until = self._hold.until
            self._pauses.wait_to_retry(min(left, HOLD_LOOK))
        self.progress.held_until = None

    def _move_from_hold(self) -> None:
        """Raise Moved while this server fails everything and another does not."""
        if self._jobs.has_sound_other(self._lane):
            raise Moved("this one fails everything")

    def _begin_anew(self) -> None:
        """Have it made once more: ComfyUI has ended the prompt with the id before."""
        self.progress.restart()
        self._set_id(str(uuid.uuid4()))  # before it is posted, so that a restart finds it
        self._state = PromptState.ABSENT
        self._submissions = 0
        self._spent = 0.0
        self.may_be_on_server = True

    def wait(self) -> Sequence[ImageRef]:
        """Submit it if need be, wait for its end and return its pictures. Raises a ComfyError or
        JobError if there are none, and Cancelled."""
        self._counted_at = time.monotonic()
        while True:
            try:
                if self._is_cancelled():
                    raise Cancelled
                entry = self._look()
                if entry is not None:
                    self.may_be_on_server = False
                    self._outage.recovered()
                    self._from_cache = entry.from_cache
                    return entry.pictures()
                if self._state is PromptState.ABSENT:
                    self._submit()
                if self._state is not PromptState.UNCLEAR:  # else a submission is still awaited
                    self._outage.recovered()
            except (Unreachable, BadAnswer) as error:
                self._state = PromptState.UNCLEAR
                self._outage.wait(error)
                self._counted_at = time.monotonic()
                continue
            left = self._time_left()
            if left <= 0:
                raise TimedOut(f"no result within {self._timeout:g} s")
            self._pause = min(self._next_pause(), left)
            if self._pauses.pause(self._pause):
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
        connection = self._feed.connection
        on_server = self._client.queue()
        if self._state is PromptState.UNCLEAR:
            self._note_own_id(on_server.own_ids.get(self.prompt_id))
        if self.prompt_id in on_server:
            self._set_present(on_server.before(self.prompt_id), connection)
            return None
        # Once more: it may have ended between the two questions.
        entry = self._client.history(self.prompt_id)
        if entry is None and self._state is PromptState.UNCLEAR:
            self._note_own_id(self._client.find_ended(self.prompt_id))
            entry = self._client.history(self.prompt_id)
        return entry or self._missed(now)

    def _note_own_id(self, prompt_id: str | None) -> None:
        """Note the id that an older server gave to a prompt whose answer was lost."""
        if prompt_id is not None and prompt_id != self.prompt_id:
            self._set_id(prompt_id)

    def _set_id(self, prompt_id: str) -> None:
        self.progress.prompt_id = prompt_id
        self._pauses.retry_store(lambda: self._store.submitted(self._job_id, prompt_id))

    def _is_cancelled(self) -> bool:
        job = self._pauses.retry_store(lambda: self._store.get(self._job_id))
        return job is None or job.status is JobStatus.CANCELLED

    def _set_present(self, place: int, connection: int) -> None:
        """Note that it stands in ComfyUI's queue behind so many others, and on which connection of
        the feed that was seen."""
        self._unanswered_since = None
        self._state = PromptState.PRESENT
        self._looked_at = time.monotonic()
        self._present_on = connection
        if place == 0:
            self.progress.set_running()
        else:
            self.progress.before = place

    def _missed(self, now: float) -> HistoryEntry | None:
        """Note that ComfyUI has it no more: it has restarted and forgotten it, unless the feed was
        connected all the while. Then its owner took it out of the queue, or cleared the history
        after its good end: return what the feed has reported of that."""
        since = self._unanswered_since
        if since is not None and now - since < LATE_SECONDS:
            return None  # twice submitted, it would run twice
        has_restarted = not self._present_on or self._feed.connection != self._present_on
        # The feed tells a prompt's end to the client that submitted it: not to us, if that was an
        # earlier run of the bot.
        has_restarted = has_restarted or not self._submissions
        if not has_restarted and self._state is not PromptState.MISSED:
            self._state = PromptState.MISSED
            self._looked_at = now
            return None
        if not has_restarted and now - self._looked_at < self.MISSED_SECONDS:
            return None
        if self.progress.has_succeeded and (images := images_in(self.progress.outputs)):
            log.info("job %s: ComfyUI's history lacks it, the feed had its files", self._job_id)
            return HistoryEntry(images, from_cache=True)  # as they may be of an earlier run
        if not has_restarted and not self.progress.has_succeeded:
            if self._client.server.is_spread:
                log.error(
                    "job %s: SwarmUI gave it to another ComfyUI than it answers for: set"
                    " COMFY_HEADERS=%s: 0",
                    self._job_id,
                    BACKEND_HEADER,
                )
                raise JobError(LOST)
            raise Removed("the prompt was removed from ComfyUI's queue")
        self._state = PromptState.ABSENT
        self.progress.restart()
        return None

    def _submit(self) -> None:
        if self._submissions == self.MAX_SUBMISSIONS:
            raise JobError(LOST)
        self._present_on = 0
        connection = self._feed.connection
        try:
            accepted = self._post()
        except Rejected as error:
            self.may_be_on_server = error.was_queued
            raise
        self._unanswered_since = None
        self._state = PromptState.PRESENT
        self._present_on = connection
        self._submissions += 1
        self._set_id(accepted)
        if self._submissions == 1:
            self._began = self._looked_at = time.monotonic()

    def _post(self) -> str:
        """Upload the picture to work on and submit the prompt; both once more if the server's input
        folder was emptied in between. Return the prompt's id."""
        tries = 1 if self._picture is None else 2
        while True:
            if self._picture is not None:
                self._picture.upload(self._client)
            self._unanswered_since = time.monotonic()
            self._outage.has_prompt = True
            try:
                return self._client.submit(self._prompt, self.prompt_id)
            except Rejected as error:
                tries -= 1
                is_missing = any(fault.kind == BAD_INPUT for fault in error.faults)
                if not tries or error.was_queued or not is_missing:
                    raise

    def _next_pause(self) -> float:
        """Return the seconds until the next poll."""
        if self._hurried:
            self._hurried -= 1
            return self.HURRIED_PAUSE
        shortest, longest = POLL_PAUSES
        waited = time.monotonic() - self._began
        return min(max(POLL_SHARE * waited, shortest), longest)

    def _time_left(self) -> float:
        """Return the seconds that are left of its time. Counted is the time in which it runs;
        waiting behind other people's prompts, or for ComfyUI, is no fault of the job."""
        now = time.monotonic()
        if self.progress.before == 0:
            self._spent += min(now - self._counted_at, self._pause + LOOK_LIMIT)
        self._counted_at = now
        return self._timeout - self._spent

    def download(self, refs: Sequence[ImageRef]) -> list[bytes | PictureMissing]:
        """Fetch the pictures; in place of one that cannot be had, return the reason. Raises
        Cancelled."""
        self._spent = 0.0
        return [self._download(ref) for ref in refs]

    def _download(self, ref: ImageRef) -> bytes | PictureMissing:
        """Fetch one picture, again if ComfyUI is away or the bytes break off. Where ComfyUI answers
        all else, that ends with the time of the job."""
        while not self._is_cancelled():
            try:
                picture = self._client.image(ref)
            except PictureMissing as error:
                return error
            except (Unreachable, BadAnswer) as error:
                began = time.monotonic()
                is_there = self._client.ping()
                if is_there and self._spent >= self._timeout:
                    return PictureMissing(f"{ref}: {error}")
                pause = self._outage.wait(error)
                if is_there:
                    self._spent += min(time.monotonic() - began, pause + LOOK_LIMIT)
            else:
                self._outage.recovered()
                return picture
        raise Cancelled


class Outage:
    """One absence of ComfyUI: one line in the log, a growing pause between the tries, and a refresh
    of the catalog at its end. A proxy or a login page in ComfyUI's place is an absence, too."""

    def __init__(
        self,
        job_id: str,
        accepted: float,
        progress: Progress,
        lane: Lane,
        jobs: JobQueue,
        catalog: Catalog,
        pauses: Pauses,
    ) -> None:
        self.has_prompt = False  # whether ComfyUI may have one of the job
        self._job_id = job_id
        self._accepted = accepted
        self._progress = progress
        self._lane = lane
        self._jobs = jobs
        self._catalog = catalog
        self._pauses = pauses
        self._failures = 0
        self._since = 0.0

    def wait(self, error: ComfyError) -> float:
        """Wait after a failed call, and return for how many seconds. Raises Moved once another
        server is to make the job, Unreachable for one that has waited for a day."""
        now = time.monotonic()
        if not self._failures:
            log.warning("job %s: ComfyUI does not answer, waiting: %s", self._job_id, error)
            away_since = self._lane.client.away_since
            self._since = now if away_since is None else away_since
        if self._jobs.has_sound_other(self._lane) and (
            now - self._since >= MOVE_SECONDS
            # One that answers all else would be given the job again at once.
            or not (self.has_prompt or self._lane.client.ping())
        ):
            raise Moved(f"away for {now - self._since:.0f} s")
        if now - max(self._since, self._accepted) >= AWAY_LIMIT:
            raise Unreachable(
                f"away for {now - self._since:.0f} s: {error}",
                "ComfyUI has not answered for 24 hours, so this picture was given up. Run /gen to"
                " ask for it again.",
            )
        self._progress.away_since = self._since
        shortest, longest = OUTAGE_PAUSES
        pause = min(shortest * 2.0 ** min(self._failures, 9), longest)
        self._failures += 1
        self._pauses.wait_to_retry(pause)
        return pause

    def recovered(self) -> None:
        """Note a call that worked."""
        if self._failures:
            log.info("job %s: ComfyUI answers again", self._job_id)
            self._catalog.refresh_if_older(self._since)
        self._failures, self._progress.away_since = 0, None
