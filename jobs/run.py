"""One prompt on the server, from the workflow it is bound to until its pictures are there.

Owns the order of the steps that write a job into a workflow, and the wait: when the prompt is
submitted (again), how its end is noticed, how long it may take, and that it is never run twice.
Blocks in the worker's thread; without the store and Discord, which it reaches through callbacks.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

import binder
from comfy_client import ComfyClient, HistoryEntry, ImageRef
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
from jobs.names import OptionNames
from store import Job, JobStatus
from text import PublicError

log = logging.getLogger(__name__)

LATE_SECONDS = 2.0  # within which a submission arrives whose answer was lost
POLL_PAUSES = (0.1, 2.0)  # seconds between two looks for the end of a prompt, and what share
POLL_SHARE = 0.05  # of the wait so far a pause is
OUTAGE_PAUSES = (0.2, 5.0)  # seconds between two calls of a ComfyUI that is away: growing


class JobError(PublicError):
    """Why a job cannot be accepted or made."""


class Cancelled(Exception):
    """The job was cancelled while it ran; its row says so already."""


class PromptState(Enum):
    """What is known about a prompt that has not ended."""

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
    HURRIED_LOOKS = 40  # the feed hears of the end some milliseconds before /history does
    HURRIED_PAUSE = 0.003

    def __init__(
        self,
        client: ComfyClient,
        job: Job,
        workflow: binder.Nodes,
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
        binder.rename_files(self._workflow, f"-{self._job_id[:8]}")
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
            self.progress.set_running()
        else:
            self.progress.before = place

    def _missed(self, now: float) -> None:
        """ComfyUI has it no more. It has restarted and forgotten it, unless the feed was connected
        all the while: then its owner took it out of the queue."""
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
        except Rejected as error:
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
