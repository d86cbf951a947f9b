"""A person's picture on its way into a prompt: scaled down where it is large, and uploaded.

Writes into the graph of one prompt by its binder.Prompt. Called in the worker's thread.
"""

from __future__ import annotations

import binder
from comfy_client import ComfyClient
from comfyui.errors import BadAnswer, PictureRefused, Unreachable
from comfyui.images import Image
from comfyui.object_info import Capabilities
from job import Job

UPLOAD_TRIES = 6  # at a server that answers all else, before the picture is refused


class InputPicture:
    """The picture of one job, and the prompt that loads it."""

    def __init__(
        self, job: Job, image: Image, prompt: binder.Prompt, most: float, server: Capabilities
    ) -> None:
        """Have a picture of more than `most` megapixels scaled down by the server; 0: none is."""
        self._image = image
        self._prompt = prompt
        self._strength = job.strength
        self.nodes = {place.node for place in prompt.bindings["image"]}
        self._name = f"{job.image[:20]}{image.suffix}"
        self._failures = 0
        if is_large(image, most) and server.scaling is not None:
            prompt.scale_image(most, server.scaling)

    def upload(self, client: ComfyClient) -> None:
        """Put it on the server, and write the name that it has there into the prompt."""
        try:
            name = client.upload(self._image.data, self._name)
        except (Unreachable, BadAnswer) as error:
            self._failures += client.ping()  # if not, ComfyUI is away, and the job waits for it
            if self._failures < UPLOAD_TRIES:
                raise
            raise PictureRefused(str(error)) from error
        self._prompt.use_image(name, self._strength)


def is_large(image: Image, most: float) -> bool:
    """Return whether a picture has more than so many megapixels; 0 is no limit."""
    return 0 < most * 10**6 < image.width * image.height


def made_from(image: Image, most: float) -> str:
    """Return the size of the picture that a job works on, and what it is scaled down to."""
    scaled = f", scaled down to {most:g} megapixels" if is_large(image, most) else ""
    return f"{image.width} x {image.height}{scaled}"
