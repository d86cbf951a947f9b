"""Background tasks that no unexpected error ends for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

RESTART_PAUSE = 10.0  # seconds before a task that has failed starts again


async def supervise(work: Callable[[], Awaitable[None]]) -> None:
    """Run a background task to its end, from the start again whenever it fails."""
    while True:
        try:
            await work()
            return
        except Exception:
            log.exception("background task failed; it starts again")
        await asyncio.sleep(RESTART_PAUSE)
