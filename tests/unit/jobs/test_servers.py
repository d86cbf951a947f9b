"""What several servers offer together."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from comfyui.errors import Unreachable
from comfyui.object_info import ObjectInfo
from jobs.servers import Servers
from settings import Server


class Client:
    """A server with these node classes, that may be away; counts how often its lists were read."""

    def __init__(self, number: int, *classes: str) -> None:
        self.server = Server(f"http://127.0.0.1:{number}", number=number)
        self.classes = classes
        self.away_since: float | None = None
        self.is_there = True
        self.read = 0

    def version(self) -> str:
        if not self.is_there:
            raise Unreachable("it hangs")
        self.away_since = None
        return "1"

    def object_info(self) -> ObjectInfo:
        self.read += 1
        return ObjectInfo({name: {} for name in self.classes})


def test_lists_of_a_server_that_is_away_are_not_waited_for_and_are_read_once_it_answers() -> None:
    first, second = Client(1, "A", "B"), Client(2, "A")
    servers = Servers(cast(Any, [first, second]))
    second.away_since, second.is_there = time.monotonic(), False
    assert "B" in servers.object_info()
    assert (first.read, second.read) == (1, 0)  # hanging, it would take minutes
    second.is_there = True
    assert "B" not in servers.object_info()
    first.is_there = second.is_there = False
    first.away_since = second.away_since = time.monotonic()
    with pytest.raises(Unreachable):
        servers.object_info()
