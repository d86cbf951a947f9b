"""The WebSockets of the stand-in: who listens, and what is sent to whom in which order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web

from tests.standins.comfyui.nodes import Json

PREVIEW, PREVIEW_WITH_METADATA = 1, 4  # types of binary events
FORMATS = {"JPEG": (1, "image/jpeg"), "PNG": (2, "image/png")}
# What a server answers to a client's feature flags.
SERVER_FLAGS = {"supports_preview_metadata": True, "max_upload_size": 104_857_600}


class Feed:
    """One socket per client id. To be used in the server's thread only.

    `asked` are the feature flags of each client id, as its last socket sent them.
    """

    def __init__(self, happened: Callable[[], None]) -> None:
        self.asked: dict[str, Json] = {}
        self._happened = happened
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._flags: dict[str, Json] = {}
        self._messages: asyncio.Queue[tuple[str, Json | bytes, str | None]] = asyncio.Queue()

    @property
    def listeners(self) -> list[str]:
        """The client ids of the open sockets."""
        return list(self._sockets)

    async def serve(
        self,
        request: web.Request,
        sid: str,
        greetings: list[tuple[str, Json]],
        *,
        negotiates: bool,
    ) -> web.WebSocketResponse:
        """Greet a client and listen to it; `negotiates`: the server knows feature flags.

        The `pop` at the end is ComfyUI's: it silences a second socket of the same id.
        """
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        self._sockets[sid], self._flags[sid] = websocket, {}
        self._happened()
        try:
            for event, data in greetings:
                self.send(event, data, sid)
            first = True
            async for message in websocket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    if first and negotiates:
                        self._negotiate(sid, message.data)
                    first = False
        finally:
            self._sockets.pop(sid, None)
            self._flags.pop(sid, None)
            self._happened()
        return websocket

    def _negotiate(self, sid: str, text: str) -> None:
        with contextlib.suppress(ValueError, AttributeError):
            message = json.loads(text)
            if message.get("type") == "feature_flags":
                self._flags[sid] = self.asked[sid] = message.get("data", {})
                self.send("feature_flags", SERVER_FLAGS, sid)
                self._happened()

    def send(self, event: str, data: Json | bytes, sid: str | None = None) -> None:
        """Queue an event for one client, or for all."""
        if sid in self._sockets or (sid is None and self._sockets):
            self._messages.put_nowait((event, data, sid))

    def send_preview(self, image_format: str, picture: bytes, ids: Json, sid: str) -> None:
        """Queue a picture of the running node, with its ids if the client has asked for them."""
        number, mime_type = FORMATS[image_format]
        if self._flags.get(sid, {}).get("supports_preview_metadata") is True:
            metadata = json.dumps({**ids, "image_type": mime_type}).encode()
            head = struct.pack(">II", PREVIEW_WITH_METADATA, len(metadata)) + metadata
        else:
            head = struct.pack(">II", PREVIEW, number)
        self.send("preview", head + picture, sid)

    async def publish(self) -> None:
        """Send what is queued, until cancelled."""
        while True:
            event, data, sid = await self._messages.get()
            for websocket in [ws for key, ws in self._sockets.items() if sid in (None, key)]:
                with contextlib.suppress(ConnectionError):
                    await _send(websocket, event, data)

    def forget(self) -> None:
        """All connections are gone."""
        self._sockets.clear()
        self._flags.clear()


async def _send(websocket: web.WebSocketResponse, event: str, data: Any) -> None:
    if isinstance(data, bytes):
        await websocket.send_bytes(data)
    else:
        await websocket.send_json({"type": event, "data": data})
