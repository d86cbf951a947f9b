"""A stand-in for a ComfyUI server: the same routes, answers and events, no GPU; and faults.

An aiohttp server (the real one is one too) in a thread of its own on 127.0.0.1, used by the
end-to-end tests and by the demo. It validates, queues, "runs", caches and interrupts prompts as
ComfyUI 0.3.64 does, draws a real PNG for each, and misbehaves on request in the ways in which
networks, reverse proxies and owners who restart their server do.

Public methods may be called from any thread. Callbacks given to `before()` and `after()` run in
the server's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import random
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from aiohttp import web

from tests.standins.comfyui.execution import Execution
from tests.standins.comfyui.faults import (
    CUTS,
    LOGIN_PAGE,
    PAGES,
    Fault,
    Recorded,
    bad_picture,
    body_of,
    cut,
    gone,
    half,
    page,
    spoilt,
)
from tests.standins.comfyui.nodes import OWNERS_DISK, Json, lists_of, simple_workflow
from tests.standins.comfyui.pictures import draw_preview
from tests.standins.comfyui.prompts import error_entry, validate_prompt
from tests.standins.comfyui.uploads import store

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ComfyUIStandIn(Execution):
    """A ComfyUI server for tests. `with ComfyUIStandIn() as comfy:` or start() and stop().

    Set at any time: `object_info` (what is installed), `seconds_per_step`, `history_delay` (between
    the event execution_success and the history), `picture_size` (None: the size that the prompt
    asks for), `picture_bytes` (PNGs are padded to it), `pictures_per_prompt` (None: batch_size),
    `saved_as` (where a node that saves names its files in its outputs, and their suffix),
    `progress_state` (False: an older server's feed, without feature flags), `newest`
    (missing_node_type; prompt ids must be canonical UUIDs; a prompt may choose its previews),
    `jobs_api` (POST /api/jobs/{id}/cancel exists), `interrupt_ignores_body` (an older server's),
    `preview_method` (as with --preview-method: "auto", "latent2rgb" or "taesd" shows the running
    picture, "none" doesn't), `preview_format` ("JPEG", as from ComfyUI's own samplers, or "PNG"),
    `models`, `loras`, other lists with offer(), `broken_models` (files that no loader can read).
    `error_state`, (exception type, message): each prompt fails with it, as with a GPU that is lost
    until restart(). `bad_pictures`, by their place in a prompt, from 0: how /view spoils those that
    are made from now on, "403", "404", "svg" or "too large". `histories_cleared`: so many prompts
    end well on the feed and are then in no history; with `tells_executed` False the feed does not
    name their files. `moved_to`: a base address to which GET /view, without /api, is redirected.
    `certificate`: speak TLS.

    A preview is sent after each step of a sampler, where they are on: by the prompt's
    extra_data.preview_method on the newest servers, else by `preview_method`. The samplers of the
    Efficiency Nodes follow their own input `preview_method` instead, whatever the prompt asks for.

    To look at: `requests`; `posted`, (prompt id, workflow) of each accepted POST /prompt;
    `preview_methods` and `api_keys`, what each of these had; `feature_flags`;
    `uploads`, the files in the input folder by their paths in it;
    `executed`, the ids of prompts that began to run in order of their start (those answered from
    the cache are not in it); `finished`, the ids whose history was written, whatever the outcome;
    `interrupted`; `history`, `pending`, `running`, `held`, `listeners`, `pictures`.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        prefix: str = "",
        required_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.port = port
        self.prefix = prefix
        self.required_headers = dict(required_headers or {})
        self.jobs_api = False
        self.interrupt_ignores_body = False
        self.moved_to = ""
        self.certificate: ssl.SSLContext | None = None

        self.requests: list[Recorded] = []
        self.posted: list[tuple[str, Json]] = []
        self.preview_methods: list[str | None] = []
        self.api_keys: list[str | None] = []

        self._cleared = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._number = 0
        self._faults: list[Fault] = []
        self._callbacks: list[tuple[str, str, Callable[[Recorded], None]]] = []
        self._listening = False

    # --- how it runs ---

    def start(self) -> ComfyUIStandIn:
        """Listen, in a new thread; returns when connections are accepted. Once only."""
        started: Future[None] = Future()

        def run() -> None:
            loop = asyncio.SelectorEventLoop()
            try:
                loop.run_until_complete(self._serve(started))
            except BaseException as exc:
                if started.done():
                    raise
                started.set_exception(exc)  # such as a port in use
            finally:
                loop.close()

        self._thread = threading.Thread(target=run, name="comfyui-stand-in", daemon=True)
        self._thread.start()
        started.result(20)
        return self

    def stop(self) -> None:
        """Close everything and end the thread; may be called twice."""
        if self._thread and self._thread.is_alive():
            self._in_loop(self._stopping.set)
            self._thread.join(20)
            assert not self._thread.is_alive(), "the stand-in did not stop"
        self._thread = None

    def __enter__(self) -> ComfyUIStandIn:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base address, prefix included; it stays the same over go_down() and restart()."""
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://127.0.0.1:{self.port}{self.prefix}"

    @property
    def models(self) -> list[str]:
        """The checkpoints that every loader class offers."""
        return self.offered("ckpt_name")

    @models.setter
    def models(self, names: list[str]) -> None:
        self.offer("ckpt_name", names)

    @property
    def loras(self) -> list[str]:
        """The LoRAs that every loader class offers."""
        return self.offered("lora_name")

    @loras.setter
    def loras(self, names: list[str]) -> None:
        self.offer("lora_name", names)

    def offered(self, name: str) -> list[str]:
        """The options of the input `name` in the first class that has it."""
        return list(next(lists_of(self.object_info, name)))

    def offer(self, name: str, values: list[str]) -> None:
        """From now on the input `name` offers these, in every class that has it."""
        for options in lists_of(self.object_info, name):
            options[:] = values

    @property
    def pictures(self) -> dict[str, bytes]:
        """Filename → the very bytes that /view serves, the last ones (output and temp)."""
        return {filename: data for (_, _, filename), data in list(self._files.items())}

    @property
    def running(self) -> str | None:
        """The id of the prompt that runs."""
        run = self._run
        return run.prompt_id if run else None

    @property
    def pending(self) -> list[str]:
        """The ids of the waiting prompts, the next one first."""
        return [item[1] for item in self._pending]

    @property
    def held(self) -> str | None:
        """The id of the prompt that has done its steps and waits for release()."""
        return self._held or None

    @property
    def listeners(self) -> list[str]:
        """The client ids of the open WebSockets."""
        return self._feed.listeners

    @property
    def feature_flags(self) -> dict[str, Json]:
        """Client id → the feature flags that its last socket sent as its first message."""
        return dict(self._feed.asked)

    def hold(self) -> None:
        """From now on each prompt waits after its last step until release()."""
        self._holding, self._permits = True, 0

    def release(self, count: int | None = None) -> None:
        """Let `count` held prompts (this one and later ones) finish; without it stop holding."""

        def let_go() -> None:
            self._holding = self._holding and count is not None
            self._permits += count or 0
            self._wakeup.set()

        self._in_loop(let_go)

    def fail_next(self, exception_type: str, message: str, node_id: str | None = None) -> None:
        """Make the next prompt end in execution_error at the node (default: its first sampler).

        Without it, a prompt fails as on a real server over `broken_models`, and over a text with a
        bare `embedding:` or with brackets that are too deep.
        """
        self._failures.append((exception_type, message, node_id))

    def submit_foreign(self, workflow: Json | None = None) -> str:
        """Queue a prompt of the owner's own page (default: a new one each time); its id."""
        prompt = workflow or simple_workflow(self.models[0], seed=random.getrandbits(60))
        prompt = copy.deepcopy(prompt)
        error, outputs, _ = self._validated({"prompt": prompt})
        if error:
            raise ValueError(error)
        prompt_id = str(uuid.uuid4())
        extra = {"client_id": "the-owners-page"}
        self._in_loop(lambda: self._put(self._number, prompt_id, prompt, extra, outputs))
        return prompt_id

    def wait_for(self, predicate: Callable[[ComfyUIStandIn], bool], seconds: float = 20.0) -> None:
        """Return when the predicate holds; AssertionError with the recent requests after a time.

        Asked again when something happens here, and each 0.1 s for what happens elsewhere.
        """
        end = time.monotonic() + seconds
        while True:
            with self._changed:
                seen = self._changes
            if predicate(self):
                return
            left = end - time.monotonic()
            if left <= 0:
                break
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._changes != seen, min(left, 0.1))  # type: ignore[misc]
        recent = "\n".join(
            f"  {r.method} {r.path} {r.query or ''} -> {r.status}" for r in self.requests[-15:]
        )
        raise AssertionError(
            f"not within {seconds} s; running {self.running}, pending {self.pending}, "
            f"finished {self.finished[-5:]}; the last requests:\n{recent}"
        )

    def forget_file(self, name: str) -> None:
        """As when the owner deletes a picture: history and cache still name it."""

        def delete() -> None:
            for key in [key for key in self._files if key[2] == name]:
                del self._files[key]

        self._in_loop(delete)

    def empty_input(self) -> None:
        """As when the owner empties ComfyUI's input folder."""
        self._in_loop(self.uploads.clear)

    def take_out(self, prompt_id: str) -> None:
        """As when the owner removes a waiting prompt in ComfyUI's page."""
        self._in_loop(lambda: self._dequeue(prompt_id))

    # --- faults ---

    def fault(self, route: str, kind: str, times: int | None = 1, *, seconds: float = 0) -> None:
        """Spoil the next `times` requests (None: all until clear_faults()) that match `route`.

        `route` is "GET /history" (also /history/{id} and under /api), "WS /ws", …, or "*".
        Not processed: "reset" (connection aborted), "502", "503", "429" (Retry-After: `seconds` or
        1), "403", "404", "500", "login page" (200), "redirect" (302 to it), "hang" (no answer for
        `seconds`, or until clear_faults(); only then processed, even if the client has gone).
        Processed: "lost answer" (then aborted), "half json" and "truncate" (half of the body, then
        closed), "bad json" (200 with half of the body as if it were all).
        """
        assert kind in {*PAGES, *CUTS, "reset", "hang", "bad json"}, kind
        self._faults.append(Fault(route, kind, times, seconds))

    def clear_faults(self) -> None:
        """Forget all faults; hanging requests are answered."""

        def clear() -> None:
            self._faults.clear()
            self._cleared.set()
            self._cleared = asyncio.Event()

        self._in_loop(clear)

    def before(self, route: str, callback: Callable[[Recorded], None]) -> None:
        """Call once, in the server's thread, before the next matching request is processed."""
        self._callbacks.append(("before", route, callback))

    def after(self, route: str, callback: Callable[[Recorded], None]) -> None:
        """Call once, in the server's thread, after processing and before the answer is sent."""
        self._callbacks.append(("after", route, callback))

    def go_down(self) -> None:
        """Close all connections and refuse new ones; what is queued goes on and is kept."""
        self._in_loop(self._close)

    def come_up(self) -> None:
        """Listen again at the same port."""
        self._in_loop(self._listen)

    def restart(self) -> None:
        """As when the owner restarts ComfyUI: queue, history, cache and temp pictures are gone."""
        self.go_down()
        self._in_loop(self._forget)
        self.come_up()

    # --- the thread and its connections ---

    def _in_loop(self, action: Callable[[], T]) -> T:
        """Do it in the server's thread, where all state is changed, and wait for it."""
        if self._thread is None or threading.current_thread() is self._thread:
            return action()

        async def call() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(20)

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worker = self._spawn(self._work())
        self._spawn(self._feed.publish())
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        assert runner.server
        self._server = runner.server
        try:
            self._bind()
            self._listen()
            started.set_result(None)
            await self._stopping.wait()
            self._close()
        finally:
            self._socket.close()
            await runner.cleanup()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._front], client_max_size=100 * 1024 * 1024)
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/system_stats", self._system_stats),
            ("GET", "/object_info", self._object_info),
            ("GET", "/object_info/{class}", self._object_info),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("GET", "/history", self._get_history),
            ("GET", "/history/{id}", self._get_history),
            ("GET", "/view", self._view),
            ("POST", "/upload/image", self._upload),
            ("POST", "/interrupt", self._post_interrupt),
            ("GET", "/ws", self._websocket),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, self.prefix + path, handler)
            app.router.add_route(method, f"{self.prefix}/api{path}", handler)
        app.router.add_route("POST", f"{self.prefix}/api/jobs/{{id}}/cancel", self._cancel_job)
        app.router.add_route("GET", f"{self.prefix}/login", self._login)
        return app

    def _bind(self) -> None:
        """Take the port. As long as it isn't listened on, it is refused and nobody else gets it."""
        self._socket = socket.socket()
        if os.name == "posix":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._socket.setblocking(False)
            self._socket.listen(100)
            self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            self._spawn(self._connect(connection, self._socket))

    async def _connect(self, connection: socket.socket, listener: socket.socket) -> None:
        transport, _ = await self._loop.connect_accepted_socket(
            self._server, connection, ssl=self.certificate
        )
        if listener is not self._socket:  # down since, so not among the connections then
            transport.abort()

    def _close(self) -> None:
        if not self._listening:
            return
        self._listening = False
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._bind()
        for connection in self._server.connections:
            if connection.transport:
                connection.transport.abort()
        for task in self._in_flight:
            task.cancel()
        self._feed.forget()
        self._happened()

    def _forget(self) -> None:
        self._worker.cancel()
        self._run, self._held = None, ""
        self._number = 0
        self._pending.clear()
        self.history.clear()
        self._cache.clear()
        self.error_state = None
        for key in [key for key in self._files if key[0] == "temp"]:
            del self._files[key]
        self._worker = self._spawn(self._work())
        self._happened()

    # --- every request ---

    @web.middleware
    async def _front(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task
        self._in_flight.add(task)
        method = "WS" if request.path.endswith("/ws") else request.method
        body = None
        if request.can_read_body and request.content_type != "multipart/form-data":
            with contextlib.suppress(ValueError, ConnectionError):
                body = await request.json()
        path = request.path.removeprefix(self.prefix)
        recorded = Recorded(method, path, dict(request.query), body, dict(request.headers))
        self.requests.append(recorded)
        self._happened()
        try:
            response = await self._answer(request, handler, recorded)
            if not gone(request):
                recorded.status = response.status
            return response
        except web.HTTPException as exc:  # no such route, or not for this method
            recorded.status = exc.status
            raise
        finally:
            self._in_flight.discard(task)
            self._happened()

    async def _answer(
        self, request: web.Request, handler: Handler, recorded: Recorded
    ) -> web.StreamResponse:
        if gone(request):  # the server went down before it was looked at
            return web.Response()
        if any(request.headers.get(name) != v for name, v in self.required_headers.items()):
            return page(401, "Authorization Required", **{"WWW-Authenticate": "Basic"})
        fault = self._next_fault(recorded)
        kind = fault.kind if fault else ""
        if kind == "reset":
            return cut(request, reset=True)
        if fault and kind in PAGES:
            return spoilt(fault, self.prefix)
        if fault and kind == "hang":
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._cleared.wait(), fault.seconds or None)
        await self._call_back("before", recorded)
        if recorded.method == "WS" and gone(request):  # gave up while it hung
            return web.Response()
        if recorded.method == "WS" and kind in CUTS:
            await web.WebSocketResponse().prepare(request)
            return cut(request)
        response = await handler(request)
        await self._call_back("after", recorded)
        if kind == "lost answer":
            return cut(request)
        if kind == "bad json":
            body = body_of(response)
            return web.Response(body=body[: len(body) // 2], content_type=response.content_type)
        return await half(request, response) if kind in CUTS else response

    def _next_fault(self, recorded: Recorded) -> Fault | None:
        for fault in self._faults:
            if recorded.matches(fault.route):
                if fault.left is not None:
                    fault.left -= 1
                    if not fault.left:
                        self._faults.remove(fault)
                return fault
        return None

    async def _call_back(self, when: str, recorded: Recorded) -> None:
        for entry in list(self._callbacks):
            if entry[0] == when and recorded.matches(entry[1]):
                self._callbacks.remove(entry)
                entry[2](recorded)
                await asyncio.sleep(0)  # if it took the server down, this request ends here

    # --- the routes ---

    async def _login(self, request: web.Request) -> web.Response:
        return web.Response(text=LOGIN_PAGE, content_type="text/html")

    async def _system_stats(self, request: web.Request) -> web.Response:
        system = {"os": "posix", "ram_total": 67_331_813_376, "ram_free": 41_203_523_584}
        system |= {"comfyui_version": "0.38.1" if self.newest else "0.3.64"}
        system |= {"python_version": "3.12.3 (main) [GCC 13.3.0]", "pytorch_version": "2.8.0+cu128"}
        system |= {"embedded_python": False, "argv": [f"{OWNERS_DISK}/main.py", "--listen"]}
        device = {"name": "cuda:0 NVIDIA GeForce RTX 4090", "type": "cuda", "index": 0}
        device |= {"vram_total": 25_282_281_472, "vram_free": 23_538_434_048}
        device |= {"torch_vram_total": 0, "torch_vram_free": 0}
        return web.json_response({"system": system, "devices": [device]})

    async def _object_info(self, request: web.Request) -> web.Response:
        if name := request.match_info.get("class"):
            return web.json_response(
                {name: self.object_info[name]} if name in self.object_info else {}
            )
        return web.json_response(self.object_info)

    async def _post_prompt(self, request: web.Request) -> web.Response:
        data = await request.json()
        error, outputs, node_errors = self._validated(data)
        if error:
            return web.json_response({"error": error, "node_errors": node_errors}, status=400)
        prompt_id = str(data.get("prompt_id") or uuid.uuid4())
        extra = dict(data.get("extra_data", {}))
        self.api_keys.append(extra.pop("api_key_comfy_org", None))  # kept out of the history
        extra = {**extra, "create_time": int(time.time() * 1000)}
        if "client_id" in data:
            extra["client_id"] = data["client_id"]
        number = data.get("number", -self._number if data.get("front") else self._number)
        self.posted.append((prompt_id, (await request.json())["prompt"]))  # before conversions
        self.preview_methods.append(extra.get("preview_method"))
        self._put(number, prompt_id, data["prompt"], extra, outputs)
        answer = {"prompt_id": prompt_id, "number": number, "node_errors": node_errors}
        return web.json_response(answer)

    def _validated(self, data: Json) -> tuple[Json | None, list[str], Json]:
        if "prompt" not in data:
            return error_entry("no_prompt", "No prompt provided", "No prompt provided"), [], {}
        prompt_id = data.get("prompt_id")
        if self.newest and prompt_id is not None:
            try:
                canonical = str(uuid.UUID(prompt_id)) == prompt_id
            except (ValueError, AttributeError):
                canonical = False
            if not canonical:
                details = "prompt_id must be a UUID string in canonical lowercase hyphenated form"
                message = "prompt_id must be a valid UUID"
                return error_entry("invalid_prompt_id", message, details), [], {}
        return validate_prompt(self.object_info, data["prompt"], self.newest, self._is_image)

    def _is_image(self, name: str) -> bool:
        return self._file(name) is not None

    def _put(
        self, number: float, prompt_id: str, prompt: Json, extra: Json, outputs: list[str]
    ) -> None:
        self._number += 1
        self._pending.append((number, prompt_id, prompt, extra, outputs))
        self._pending.sort(key=lambda item: item[0])
        self._queue_filled.set()
        self._queue_updated()

    async def _get_queue(self, request: web.Request) -> web.Response:
        running = [self._run.item] if self._run else []
        return web.json_response({"queue_running": running, "queue_pending": self._pending})

    async def _post_queue(self, request: web.Request) -> web.Response:
        data = await request.json()
        if data.get("clear"):
            self._pending.clear()
        for prompt_id in data.get("delete", []):
            self._dequeue(prompt_id)
        self._queue_updated()
        return web.Response()

    def _dequeue(self, prompt_id: str) -> bool:
        for item in self._pending:
            if item[1] == prompt_id:
                self._pending.remove(item)
                self._queue_updated()
                return True
        return False

    async def _get_history(self, request: web.Request) -> web.Response:
        if "id" in request.match_info:
            prompt_id = request.match_info["id"]
            found = {prompt_id: self.history[prompt_id]} if prompt_id in self.history else {}
            return web.json_response(found)
        entries = list(self.history.items())
        if "max_items" in request.query:
            entries = entries[-int(request.query["max_items"]) :]
        return web.json_response(dict(entries))

    async def _post_interrupt(self, request: web.Request) -> web.Response:
        data: Json = {}
        with contextlib.suppress(ValueError):
            data = await request.json()
        wanted = "" if self.interrupt_ignores_body else data.get("prompt_id")
        if not wanted or wanted == self.running:
            self._interrupt()
        return web.Response()

    async def _cancel_job(self, request: web.Request) -> web.Response:
        if not self.jobs_api:
            raise web.HTTPNotFound
        prompt_id = request.match_info["id"]
        running = prompt_id == self.running
        if running:
            self._interrupt()
        return web.json_response({"cancelled": running or self._dequeue(prompt_id)})

    def _interrupt(self) -> None:
        self._interrupting = True
        self._wakeup.set()

    async def _view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if self.moved_to and not request.path.startswith(f"{self.prefix}/api/"):
            location = f"{self.moved_to}/view?{request.query_string}"
            return page(302, "Found", Location=location)
        filename, subfolder = query.get("filename"), query.get("subfolder", "")
        kind = query.get("type", "output")
        if filename is None:
            return web.Response(status=404)
        if not filename or filename[0] == "/" or ".." in filename:
            return web.Response(status=400)
        if kind not in ("output", "temp", "input") or ".." in subfolder:
            return web.Response(status=403 if ".." in subfolder else 400)
        name = f"{subfolder}/{filename}".removeprefix("/")
        picture = self._file(f"{name} [{kind}]")
        if picture is None:
            return web.Response(status=404)
        if bad := self._bad_files.get((kind, subfolder, filename)):
            return await bad_picture(request, bad)
        image_format = "png"
        if "preview" in query:
            image_format, *_, quality = [*query["preview"].split(";"), ""][:2]
            image_format = image_format if image_format in ("webp", "jpeg") else "webp"
            picture = draw_preview(picture, image_format, int(quality) if quality.isdigit() else 90)
        headers = {"Content-Disposition": f'filename="{filename}"'}
        return web.Response(body=picture, content_type=f"image/{image_format}", headers=headers)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image = form.get("image")
        if not isinstance(image, web.FileField):
            return web.Response(status=400)
        answer = store(self.uploads, image.filename, image.file.read(), form)
        if answer is None:
            return web.Response(status=400)
        return web.json_response(answer)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        sid = request.query.get("clientId") or uuid.uuid4().hex
        greetings: list[tuple[str, Json]] = [
            ("status", {"status": self._queue_info(), "sid": sid}),
        ]
        if self._run and self._run.client_id == sid and self._run.node_id:
            greetings.append(("executing", {"node": self._run.node_id}))
        return await self._feed.serve(request, sid, greetings, negotiates=self.progress_state)
