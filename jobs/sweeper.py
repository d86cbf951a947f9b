"""The sweeper: cancels abandoned prompts on the server, retrying until it works.

Owns a thread, and asks ComfyUI and the store. The rows say what is abandoned, so nothing is
forgotten over a restart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from comfy_client import ComfyClient
from comfyui.errors import ComfyError
from store import Store, StoreError

log = logging.getLogger(__name__)


class Sweeper:
    """Cancels the prompts of jobs that were cancelled or timed out, also before a restart of the
    bot, however long ComfyUI is away or a node ignores it."""

    PAUSES = (0.5, 30.0)  # the shortest and the longest, in seconds
    AGAIN_SECONDS = 5.0  # for so long, a submission whose answer was lost may still arrive

    def __init__(
        self, store: Store, client: ComfyClient, keys: Sequence[str], *, is_only: bool
    ) -> None:
        """`keys` are those in the rows of the client's jobs; the only server has them all."""
        self._store = store
        self._client = client
        self._keys = keys
        self._is_only = is_only
        self.in_work: str | None = None  # the job whose prompt the worker may be about to submit
        self._absent_since: dict[str, float] = {}  # by the id of the prompt
        self._wake = threading.Event()
        self._is_stopping = False
        self._failed = False
        self._thread = threading.Thread(target=self._loop, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start the thread, with what an earlier run left."""
        self._thread.start()

    def wake(self) -> None:
        """Look for something to do soon; any thread."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; what is left is done after the next start."""
        self._is_stopping = True
        self._wake.set()

    def finish(self, seconds: float) -> None:
        """Go on in the caller's thread until ComfyUI has none of them, for so long at most."""
        deadline = time.monotonic() + seconds
        while self._try() and time.monotonic() < deadline:
            self._wake.clear()  # wake() has set it, and no thread of its own takes it back
            self._wake.wait(self.PAUSES[0])

    def server_is_there(self) -> None:
        """Try at once what has failed before; any thread."""
        if self._failed:
            self._wake.set()

    def step(self) -> int | None:
        """Cancel once all that is unwanted, and return how many of them ComfyUI still had; None if
        there is nothing left to check. Raises ComfyError and StoreError."""
        unwanted = self._store.unwanted(self._keys, self._is_only)
        if not unwanted:
            self._absent_since.clear()
            return None
        on_server = self._client.queue()
        present = 0
        for job_id, asked_id in unwanted:
            prompt_id = on_server.own_ids.get(asked_id, asked_id)
            if prompt_id in on_server:
                present += 1
                self._absent_since.pop(asked_id, None)
                self._client.cancel(prompt_id)
                log.info("job %s: its prompt is cancelled in ComfyUI", job_id)
            elif job_id != self.in_work:
                since = self._absent_since.setdefault(asked_id, time.monotonic())
                if time.monotonic() - since >= self.AGAIN_SECONDS:
                    self._store.off_server(job_id, asked_id)
        return present

    def _try(self) -> int | None:
        """Do a `step()`, and return 1 if it fails."""
        try:
            present = self.step()
        except (ComfyError, StoreError) as error:
            if not self._failed:
                log.warning("abandoned prompts cannot be cancelled yet: %s", error)
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
                if present and not self._failed:  # a stop takes effect in a moment
                    self._wake.wait(shortest)
