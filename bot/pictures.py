"""The pictures of a result: fetch them from ComfyUI, make them fit into Discord, strip metadata.

Runs in a thread, since it blocks, but for pictures that are at hand and fit. Does not post.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from comfyui.errors import NoPreview, PictureGone, PictureMissing
from comfyui.history import ImageRef
from comfyui.metadata import MetadataStays, without_metadata
from job import Job
from jobs.servers import Servers

log = logging.getLogger(__name__)

# What is tried for a picture that is too big for Discord: as it is, then re-encoded by ComfyUI.
ENCODINGS = ("", "webp;90", "jpeg;80", "jpeg;60")
SUFFIXES = {"webp": ".webp", "jpeg": ".jpg"}
TOO_BIG = "Too big for Discord as it was made"
HAS_METADATA = "Its metadata cannot be removed as it was made"


class PictureTooLargeForDiscord(PictureMissing):
    """The file fits into no message, however ComfyUI encodes it."""

    reason = "it is too large for Discord"
    advice = "The bot's owner finds it in ComfyUI's output folder."


class MetadataNotRemovable(PictureMissing):
    """The owner wants no metadata posted, and the picture has it in every form."""

    reason = "its metadata cannot be removed"
    advice = "The bot's owner finds it in ComfyUI's output folder."


Original: TypeAlias = bytes | PictureMissing  # a picture as it was made, or why it is missing


@dataclass(frozen=True)
class Picture:
    """A picture as it is uploaded; `encoding` is the one of ENCODINGS that it came with."""

    stem: str  # its file name without the suffix, by which it is found in a channel's history
    data: bytes
    suffix: str
    encoding: str = ""
    cause: str = TOO_BIG  # why it is encoded anew


class Pictures:
    """The way of a job's pictures from ComfyUI to a message."""

    def __init__(self, comfy: Servers, threads: ThreadPoolExecutor, *, keep_metadata: bool) -> None:
        """`threads` are for calls that wait for ComfyUI. Without `keep_metadata` the texts in the
        files are stripped."""
        self._comfy = comfy
        self._threads = threads
        self._keep_metadata = keep_metadata

    async def get(
        self, job: Job, originals: Sequence[Original], encoding: str, limit: int
    ) -> tuple[list[Picture], list[PictureMissing]]:
        """Return the job's pictures with this encoding, or the first after it that is within the
        limit (bytes), and why each of the others cannot be had. `originals` saves fetching them."""
        find = functools.partial(self._get, job, originals, encoding, limit)
        threads: ThreadPoolExecutor | None = self._threads
        sizes = [len(original) for original in originals if isinstance(original, bytes)]
        if originals and not encoding and max(sizes, default=0) <= limit:
            if self._keep_metadata:
                return find()
            threads = None  # the event loop's own, which do not hang on ComfyUI
        return await asyncio.get_running_loop().run_in_executor(threads, find)

    def _get(
        self, job: Job, originals: Sequence[Original], encoding: str, limit: int
    ) -> tuple[list[Picture], list[PictureMissing]]:
        pictures, missing = [], []
        for number, name in enumerate(job.output_images):
            stem = f"{job.id[:8]}-{number + 1}"
            original = originals[number] if originals else None
            try:
                if isinstance(original, PictureMissing):
                    raise original
                ref = ImageRef.parse(name)
                pictures.append(self._picture(job, ref, stem, original, encoding, limit))
            except PictureMissing as error:
                log.error("job %s: %s", job.id, error)
                missing.append(error)
        return pictures, missing

    def _picture(
        self,
        job: Job,
        ref: ImageRef,
        stem: str,
        original: bytes | None,
        encoding: str,
        limit: int,
    ) -> Picture:
        """Return one picture within the limit. Raises PictureMissing if there is no way."""
        suffix, cause, size = Path(ref.filename).suffix, TOO_BIG, 0
        for step in ENCODINGS[ENCODINGS.index(encoding) :]:
            if step and ref.noun != "picture":  # ComfyUI re-encodes still pictures alone
                break
            try:
                data = self._fetch(job, ref, step) if step or original is None else original
            except NoPreview as error:  # the next format may take what this one does not
                log.info("%s", error)
                continue
            if not self._keep_metadata:
                try:
                    data = without_metadata(data)
                except MetadataStays as error:
                    log.info("%s: its metadata cannot be removed: it is %s", ref, error)
                    cause = HAS_METADATA
                    continue
            if len(data) <= limit:
                suffix = SUFFIXES[step.partition(";")[0]] if step else suffix
                return Picture(stem, data, suffix, step, cause)
            cause, size = TOO_BIG, len(data)
        if cause == HAS_METADATA:
            raise MetadataNotRemovable(f"{ref} has metadata that cannot be removed", ref.noun)
        reason = ""
        if ref.noun != "picture":  # there is no smaller form
            has, most = f"{size / 2**20:.1f}", f"{limit / 2**20:.0f}"
            reason = f"it has {has} MB, more than the {most} MB that Discord takes here"
        detail = f"{ref} is larger than {limit} bytes in every form"
        raise PictureTooLargeForDiscord(detail, ref.noun, reason)

    def _fetch(self, job: Job, ref: ImageRef, step: str) -> bytes:
        """Return a file from the server that has made it."""
        client = self._comfy.find(job.server)
        # With one server `find()` names that one, whose file of this name is of another job.
        if client is None or job.server not in ("", client.server.key):
            raise PictureGone(f"{ref}: its server is gone from .env")
        return client.image(ref, step)
