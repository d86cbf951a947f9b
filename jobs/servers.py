"""The servers: every ComfyUI that makes pictures, in the order of .env.

Says which of them a job belongs to, and what all of them offer; for all that asks "ComfyUI"
they are one. With one server, everything is that one's. Any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from comfy_client import ComfyClient
from comfyui.errors import ComfyError
from comfyui.object_info import ObjectInfo

log = logging.getLogger(__name__)

NAMES_SHOWN = 10  # of what only one server has


class Servers:
    """The clients of all servers, at least one."""

    def __init__(self, clients: Sequence[ComfyClient]) -> None:
        self.clients = tuple(clients)
        self._infos: dict[str, ObjectInfo] = {}  # of several, the last answer, by key
        self.narrowing: dict[str, str] = {}  # what is left out of the offers, by name

    @property
    def away_since(self) -> float | None:
        """Return since when no server answers (`time.monotonic()`); None while one does."""
        times = [c.away_since for c in self.clients if c.away_since is not None]
        return max(times) if len(times) == len(self.clients) else None

    @property
    def answering(self) -> int:
        """Return how many servers answer; 1 if none does."""
        return max(1, sum(client.away_since is None for client in self.clients))

    def name(self, client: ComfyClient) -> str:
        """Return what the log calls a server."""
        return f"ComfyUI {client.server.number}" if len(self.clients) > 1 else "ComfyUI"

    def number(self, key: str) -> int | None:
        """Return the number of the server that a job belongs to; None if there is only one."""
        client = self.find(key) if len(self.clients) > 1 else None
        return client.server.number if client else None

    def find(self, key: str) -> ComfyClient | None:
        """Return the server that a job belongs to; None if .env does not have it any more."""
        if not key or len(self.clients) == 1:
            return self.clients[0]
        return next((client for client in self.clients if client.server.key == key), None)

    def keys(self, client: ComfyClient) -> Sequence[str]:
        """Return the keys in the rows of a server's jobs."""
        return (client.server.key, "") if client is self.clients[0] else (client.server.key,)

    def object_info(self) -> ObjectInfo:
        """Return what every server offers that has answered since the start. Blocks; raises the
        ComfyError of the first if none answers now."""
        if len(self.clients) == 1:
            return self.clients[0].object_info()
        errors = []
        for client in self.clients:
            try:
                if client.away_since is not None:
                    client.version()  # one that hangs is given minutes for its lists
                self._infos[client.server.key] = client.object_info()
            except ComfyError as error:
                errors.append(error)
        if len(errors) == len(self.clients):
            raise errors[0]
        first, *others = self._infos.values()
        common = first.within(others)
        self._note_narrowing(common)
        return common

    def _note_narrowing(self, common: ObjectInfo) -> None:
        """Log what one server has and another lacks, once."""
        before, self.narrowing = self.narrowing, {}
        for client in self.clients:
            info = self._infos.get(client.server.key)
            names = info.beyond(common) if info else []
            if names:
                more = len(names) - NAMES_SHOWN
                shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
                self.narrowing[self.name(client)] = shown
        for name, text in self.narrowing.items():
            if before.get(name) != text:
                log.warning("not offered, as it is only on %s: %s", name, text)

    def close(self) -> None:
        """Close the connections."""
        for client in self.clients:
            client.close()
