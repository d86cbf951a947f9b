"""One prompt on the server, from the workflow it is bound to until its pictures are there.

Owns the order of the steps that write a job into a workflow, and the wait: when the prompt is
submitted (again), how its end is noticed, how long it may take, and that it is never run twice.
Blocks in the worker's thread. Asks the store whether the job is cancelled, and notes in it the
prompt's id; sets no status.
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
from comfy_client import ComfyClient, HistoryEntry, ImageRef, ProgressFeed
from comfyui.errors import (
    BadAnswer,
    ComfyError,
    NoPictures,
    Rejected,
    Removed,
    TimedOut,
    Unreachable,
)
from comfyui.object_info import Capabilities
from comfyui.progress import Progress, ends_prompt
from jobs import lora
from jobs.catalog import Catalog
from jobs.names import OptionNames
from jobs.pauses import Pauses
from store import Job, JobStatus, Store
from text import PublicError

log = logging.getLogger(__name__)

LATE_SECONDS = 2.0  # within which a submission arrives whose answer was lost
POLL_PAUSES = (0.1, 2.0)  # the shortest and the longest between two polls, in seconds
POLL_SHARE = 0.05  # of the wait so far, between these two: noticing the end never costs more
OUTAGE_PAUSES = (0.2, 5.0)  # the shortest and the longest between two calls of an absent ComfyUI


class JobError(PublicError):
    """A job cannot be accepted or made."""


class Cancelled(Exception):
    """The job was cancelled while it ran; its row says so already."""


class PromptState(Enum):
    """The place of a prompt that has not ended."""

    ABSENT = "ComfyUI does not have it"
    UNCLEAR = "ComfyUI may have it: a call failed, or the bot was restarted"
    PRESENT = "ComfyUI has it, waiting or running"
    MISSED = "ComfyUI had it a moment ago, and has not restarted since"


def build_prompt(
    job: Job, workflow: binder.Workflow, server: Capabilities, loras: OptionNames
) -> binder.Nodes:
    """Return the workflow bound to the job, with each further step that the job asks for. Raises
    JobError for what the server or the workflow does not have any more."""
    text = lora.read(job.positive_prompt, loras)
    if text.problems:
        raise JobError(" ".join(text.problems))
    prompt = binder.bind(replace(job, positive_prompt=text.text), workflow)
    if job.seed is not None:
        prompt.reseed(job.seed, server.seed_maxima)
    if job.shape:
        if prompt.size is None or job.shape not in binder.SHAPES:
            raise JobError("The workflow does not let its shape be chosen any more. Press Edit.")
        prompt.resize(binder.in_shape(prompt.size, job.shape))
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
        prompt: binder.Nodes,
        timeout: float,
        *,
        store: Store,
        client: ComfyClient,
        catalog: Catalog,
        feed: ProgressFeed,
        pauses: Pauses,
    ) -> None:
        """Take the job's prompt, and the seconds for which it may run."""
        self.progress = Progress(job.prompt_id, binder.sampler_steps(prompt))
        self._job_id = job.id
        self._prompt = prompt
        self._timeout = timeout
        self._store = store
        self._client = client
        self._feed = feed
        self._pauses = pauses
        self._state = PromptState.UNCLEAR if job.status is JobStatus.RUNNING else PromptState.ABSENT
        self.may_be_on_server = True  # and has to be stopped if the job ends without its pictures
        self._from_cache = False
        self._submissions = 0
        self._unanswered_since: float | None = None  # a submission whose answer was lost
        self._hurried = 0
        self._present_on = 0  # the feed's connection when ComfyUI was last seen to have it
        self._began = self._looked_at = self._counted_at = time.monotonic()
        self._spent = 0.0  # seconds of its time
        self._outage = Outage(job.id, catalog)

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

    def pictures(self) -> tuple[Sequence[ImageRef], list[bytes]]:
        """Wait for the pictures and fetch them. A run from ComfyUI's cache names the file of an
        earlier one; if that is gone, it is made once more under another name (docs/comfyui.md)."""
        refs = self.wait()
        try:
            return refs, self.download(refs)
        except NoPictures as error:
            if not self._from_cache:
                raise
            log.info(
                "job %s: made once more, the cached run's file is gone: %s", self._job_id, error
            )
        binder.rename_files(self._prompt, f"-{self._job_id[:8]}")
        self.progress.restart()
        self._set_id(str(uuid.uuid4()))  # before it is posted, so that a restart finds it
        self._state = PromptState.ABSENT
        self.may_be_on_server = True
        refs = self.wait()
        return refs, self.download(refs)

    def wait(self) -> Sequence[ImageRef]:
        """Submit it if need be, wait for its end and return its pictures. Raises a ComfyError or
        JobError if there are none, and Cancelled."""
        while True:
            try:
                if self._is_cancelled():
                    raise Cancelled
                entry = self._look()
                if entry is not None:
                    self.may_be_on_server = self.progress.is_away = False
                    self._outage.recovered()
                    self._from_cache = entry.from_cache
                    return entry.pictures()
                if self._state is PromptState.ABSENT:
                    self._submit()
                if self._state is not PromptState.UNCLEAR:  # else a submission is still awaited
                    self._outage.recovered()
                pause = self._next_pause()
            except (Unreachable, BadAnswer) as error:
                self._state = PromptState.UNCLEAR
                pause = self._outage.failed(error)
            self.progress.is_away = self._outage.error is not None
            left = self._time_left()
            if left <= 0:
                raise self._outage.error or TimedOut(f"no result within {self._timeout:g} s")
            if self._pauses.pause(min(pause, left)):
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
        if entry is None:
            self._missed(now)
        return entry

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

    def _missed(self, now: float) -> None:
        """Note that ComfyUI has it no more: it has restarted and forgotten it, unless the feed was
        connected all the while. Then its owner took it out of the queue."""
        since = self._unanswered_since
        if since is not None and now - since < LATE_SECONDS:
            return  # twice submitted, it would run twice
        if not self._present_on or self._feed.connection != self._present_on:
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
        connection = self._feed.connection
        self._unanswered_since = time.monotonic()
        try:
            accepted = self._client.submit(self._prompt, self.prompt_id)
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

    def _next_pause(self) -> float:
        """Return the seconds until the next poll."""
        if self._hurried:
            self._hurried -= 1
            return self.HURRIED_PAUSE
        shortest, longest = POLL_PAUSES
        waited = time.monotonic() - self._began
        return min(max(POLL_SHARE * waited, shortest), longest)

    def _time_left(self) -> float:
        """Return the seconds that are left of its time. Counted is the time in which it runs or
        ComfyUI is away; waiting behind other people's prompts is no fault of the job."""
        now = time.monotonic()
        if self.progress.before == 0 or self._outage.error is not None:
            self._spent += now - self._counted_at
        self._counted_at = now
        return self._timeout - self._spent

    def download(self, refs: Sequence[ImageRef]) -> list[bytes]:
        """Fetch the pictures. Raises Cancelled."""
        deadline = time.monotonic() + self._timeout
        return [self._download(ref, deadline) for ref in refs]

    def _download(self, ref: ImageRef, deadline: float) -> bytes:
        """Fetch one picture, again if ComfyUI is away or the bytes break off."""
        outage = Outage(self._job_id)
        while not self._is_cancelled():
            try:
                return self._client.image(ref)
            except (Unreachable, BadAnswer) as error:
                if time.monotonic() > deadline:
                    raise
                self._pauses.pause(outage.failed(error))
        raise Cancelled


class Outage:
    """One absence of ComfyUI: one line in the log, a growing pause between the tries, and a refresh
    of the catalog at its end. A proxy or a login page in ComfyUI's place is an absence, too."""

    def __init__(self, job_id: str, catalog: Catalog | None = None) -> None:
        self._job_id = job_id
        self._catalog = catalog
        self._failures = 0
        self._since = 0.0
        self.error: ComfyError | None = None

    def failed(self, error: ComfyError) -> float:
        """Note a failed call and return the seconds to wait before the next."""
        if self.error is None:
            log.warning("job %s: ComfyUI does not answer, waiting: %s", self._job_id, error)
            self._since = time.monotonic()
        self.error = error
        self._failures += 1
        shortest, longest = OUTAGE_PAUSES
        return min(shortest * 2.0 ** min(self._failures - 1, 9), longest)

    def recovered(self) -> None:
        """Note a call that worked."""
        if self.error is not None:
            log.info("job %s: ComfyUI answers again", self._job_id)
            if self._catalog is not None:
                self._catalog.refresh_if_older(self._since)
        self.error, self._failures = None, 0
