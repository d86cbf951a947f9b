"""A job: what a person asks for, and what its row holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class JobStatus(str, Enum):
    """The states of a job; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class PictureParams:
    """A person's wishes. `seed` is 0 to 2**64 - 1, or None for the seeds of the workflow file.
    `workflow` is the name of its folder, empty for the default; `shape` is one of binder.SHAPES,
    empty for that of the file. `size` is what the form has shown, as `832x1216`; None in a draft,
    and in old jobs. `count` is of pictures, `length` in frames; 0 as in the file. `image` is the
    hash under which the store keeps the picture to work on, and `strength` how much of it is made
    anew, 0 for that of the file. What the workflow has no place for is empty, or 0."""

    model: str
    sampler: str
    scheduler: str
    steps: int
    cfg: float
    positive_prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    workflow: str = ""
    shape: str = ""
    size: str | None = None
    count: int = 0
    length: int = 0
    image: str = ""
    strength: float = 0.0


@dataclass(frozen=True, kw_only=True)
class JobParams(PictureParams):
    """A picture that a person asks for, and where. Ids are Discord snowflakes as text."""

    user_id: str
    guild_id: str
    channel_id: str
    interaction_id: str | None = None  # of the press or command: Discord's clock at that moment


@dataclass(frozen=True, kw_only=True)
class Job(JobParams):
    """One row. Times are Unix milliseconds; `output_images` are names that comfy_client reads.

    `discord_message_id` is of the running message: None if none was begun, empty while a post has
    begun and its id is not known. `on_server`: ComfyUI may have a prompt of it that has not ended.
    `server` is the key of the ComfyUI that has its prompt or pictures; empty in old jobs, of the
    first. `report_tried_at`: when the last try to report it began; `report_message_ids`: the
    messages it was reported with; `report_channel_id`: where these are, None if that was not noted.
    """

    id: str
    status: JobStatus
    discord_message_id: str | None
    comfy_prompt_id: str | None
    output_images: tuple[str, ...]
    error_message: str | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    delivered_at: int | None
    on_server: bool = False
    report_tried_at: int | None = None
    report_message_ids: tuple[str, ...] = ()
    report_channel_id: str | None = None
    server: str = ""

    @property
    def prompt_id(self) -> str:
        """Return the id of its newest prompt in ComfyUI: the job's own, unless noted otherwise."""
        return self.comfy_prompt_id or self.id
