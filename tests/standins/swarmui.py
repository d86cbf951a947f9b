"""A stand-in for SwarmUI before several ComfyUIs: `/ComfyBackendDirect`, and its backend header.

Passes requests and sockets on. With X-Swarm-Backend-ID to that backend; without it POST /prompt
goes to the least busy, and all else to the first, as SwarmUI does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import Any

import aiohttp
from aiohttp import web

from settings import BACKEND_HEADER
from tests.standins.comfyui.server import ComfyUIStandIn

PREFIX = "/ComfyBackendDirect"
HOP_HEADERS = {"content-length", "content-encoding", "transfer-encoding", "connection"}


class SwarmUIStandIn:
    """A SwarmUI on 127.0.0.1. `with SwarmUIStandIn(first, second) as swarm:`"""

    def __init__(self, *backends: ComfyUIStandIn) -> None:
        self.backends = backends
        self.url = ""
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> SwarmUIStandIn:
        self._thread.start()
        self._started.result(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(20)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**27)
        app.router.add_route("*", PREFIX + "/{path:.*}", self._pass_on)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}{PREFIX}"
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            self._started.set_result(None)
            await self._stopping.wait()
            await runner.cleanup()

    def _backend(self, request: web.Request) -> ComfyUIStandIn:
        if (wanted := request.headers.get(BACKEND_HEADER)) is not None:
            return self.backends[int(wanted)]
        if request.method == "POST" and request.path.endswith("/prompt"):
            return min(self.backends, key=lambda b: len(b.pending) + bool(b.running))
        return self.backends[0]

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.removeprefix(PREFIX)
        url = self._backend(request).url + path
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request, url)
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        data = await request.read()
        async with self._session.request(request.method, url, data=data, headers=headers) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_HEADERS}
            return web.Response(body=await answer.read(), status=answer.status, headers=kept)

    async def _socket(self, request: web.Request, url: str) -> web.WebSocketResponse:
        ours = web.WebSocketResponse()
        await ours.prepare(request)
        async with self._session.ws_connect(url, max_msg_size=0) as theirs:
            back = asyncio.create_task(_copy(ours, theirs))
            await _copy(theirs, ours)
            back.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await back
        await ours.close()
        return ours


async def _copy(source: Any, target: Any) -> None:
    with contextlib.suppress(ConnectionError):
        async for message in source:
            if message.type is aiohttp.WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await target.send_bytes(message.data)
