"""Discord's REST API as a server: requests, their answers, rate limits, and faults on demand.

What a request means is none of this module's business: server.py registers that with route().
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.standins.discord.schema import (
    ERRORS,
    MIB,
    USUAL_CODES,
    Form,
    Json,
)

Answer = tuple[int, Any]  # HTTP status and body; None is no body


class DiscordError(Exception):
    """An error answer. `violation` says that the bot broke a rule, not that the world changed."""

    def __init__(self, status: int, code: int, message: str, *, violation: bool = False) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.violation = violation
        self.headers: dict[str, str] = {}
        self.body: Json = {"message": message, "code": code}


@dataclass
class RestCall:
    """One REST request as it arrived. `status` is None until it was answered (or aborted)."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    files: dict[str, bytes]
    time: float
    status: int | None = None
    fault: str | None = None
    _uploads: dict[int, tuple[str, bytes]] = field(default_factory=dict, repr=False)
    _urls: list[str] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        state = f"fault: {self.fault}" if self.fault else self.status or "not answered"
        return f"{self.method} {self.path} -> {state}"


@dataclass(eq=False)
class Fault:
    """What happens to requests that fit: a fault, or (kind before, after) a callback."""

    method: str
    pattern: str
    kind: str | int
    times: int | None = 1
    seconds: float = 0.0
    code: int | None = None
    with_files: bool = False
    callback: Callable[[], object] | None = None


BANNED_PAGE = """<!doctype html>
<html lang="en"><head><title>Access denied | discord.com used Cloudflare</title></head>
<body><h1>Error 1015</h1><h2>You are being rate limited</h2>
<p>The owner of this website (discord.com) has banned you temporarily.</p></body></html>
"""
LIMITED = re.compile(r"(/channels/\d+(?=/messages)|/webhooks/\d+/[^/]+)(?:/messages(?:/[^/]+)?)?")
ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = []


def route(methods: str, path: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    def register(handler: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.append((methods, re.compile(path), handler))
        return handler

    return register


class RestServer:
    """The API's HTTP side. Owns the requests as they arrived, the uploads' bytes, the faults, the
    windows of the rate limits, and the Condition that guards everything in the stand-in."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.rate_limits = True
        self.violations: list[str] = []
        self.requests: list[RestCall] = []
        self.rate_limited = 0
        self.used_up: list[str] = []
        self._changed = threading.Condition(threading.RLock())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hang_over = asyncio.Event()
        self._faults: list[Fault] = []
        self._windows: dict[str, tuple[float, int]] = {}
        self._bytes: dict[str, bytes] = {}  # uploads by url
        self._heavy: deque[RestCall] = deque()

    # ---------------------------------------------------------------------------------- faults

    def fault(
        self,
        method: str,
        path_pattern: str,
        kind: str | int,
        times: int | None = 1,
        *,
        seconds: float = 0.0,
        code: int | None = None,
        with_files: bool = False,
    ) -> None:
        """The next `times` requests (None: all) with this method ("*": any) and a path in which
        the regular expression is found, like "/channels/12/messages", go wrong; those alone that
        upload something if `with_files`.

        `kind`: an HTTP status, with Discord's error `code` (default 403 50013, 404 10003, 413
        40005, else 0); "reset": aborted, not applied; "lost answer": applied, then aborted;
        "rate limit": 429 for `seconds`; "banned": 429 with Cloudflare's page about its error 1015,
        for `seconds` if there are any; "hang": no answer for `seconds`, then it is applied as
        usual; with 0 until stop(), and it is not applied.
        """
        kinds = ("reset", "lost answer", "rate limit", "banned", "hang")
        assert isinstance(kind, int) or kind in kinds, f"{kind!r} is none of {kinds}"
        self._faults.append(Fault(method, path_pattern, kind, times, seconds, code, with_files))

    def clear_faults(self) -> None:
        """Nothing goes wrong any more; a request that hangs goes on hanging for its time."""
        with self._changed:
            self._faults.clear()

    def before(self, method: str, path_pattern: str, callback: Callable[[], object]) -> None:
        """Calls back once, in the server's thread, when such a request has arrived; it is applied
        afterwards, whether the bot still lives or not."""
        self._faults.append(Fault(method, path_pattern, "before", callback=callback))

    def after(self, method: str, path_pattern: str, callback: Callable[[], object]) -> None:
        """Calls back once, in the server's thread, when such a request was applied, before it is
        answered."""
        self._faults.append(Fault(method, path_pattern, "after", callback=callback))

    # -------------------------------------------------------------------------------- requests

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        call, unreadable = await self._read(request)
        with self._changed:
            self.requests.append(call)
            fault = self._take_fault(call)
            self._changed.notify_all()
        self._call_back("before", call)
        if fault and fault.kind != "lost answer":
            answer = await self._misbehave(request, call, fault)
            if answer:
                return answer
        with self._changed:
            answer = self._respond(request, call, unreadable)
            self._remember(call)
            self._changed.notify_all()
        self._call_back("after", call)
        if fault and fault.kind == "lost answer":
            _abort(request)
        return answer

    async def _read(self, request: web.Request) -> tuple[RestCall, DiscordError | None]:
        body: Any = None
        unreadable = None
        uploads: dict[int, tuple[str, bytes]] = {}
        try:
            if request.content_type == "multipart/form-data":
                form = await request.post()
                payload = form.get("payload_json", "{}")
                body = None if isinstance(payload, web.FileField) else json.loads(payload)
                for key, part in form.items():
                    number = re.fullmatch(r"files\[(\d+)\]", key)
                    if number and isinstance(part, web.FileField):
                        uploads[int(number[1])] = (part.filename, part.file.read())
            elif request.can_read_body:
                body = json.loads(await request.text())
        except ValueError:
            message = "The request body contains invalid JSON."
            unreadable = DiscordError(400, 50109, message, violation=True)
        arguments = (request.method, request.match_info["path"], dict(request.query))
        call = RestCall(*arguments, body, dict(uploads.values()), time.monotonic())
        call._uploads = uploads
        return call, unreadable

    def _respond(
        self, request: web.Request, call: RestCall, unreadable: DiscordError | None
    ) -> web.Response:
        """Applies a request, and makes its answer."""
        headers: dict[str, str] = {}
        try:
            by_token = call.path.startswith(("/interactions/", "/webhooks/"))
            if not by_token and request.headers.get("Authorization") != f"Bot {self.token}":
                raise DiscordError(401, 0, "401: Unauthorized")
            headers = self._rate_limit(call)
            if unreadable:
                raise unreadable
            for methods, pattern, handler in ROUTES:
                match = pattern.fullmatch(call.path)
                if match and call.method in methods.split():
                    return self._answer_call(call, *handler(self, call, *match.groups()), headers)
            raise DiscordError(404, 0, "404: Not Found", violation=True)
        except DiscordError as refusal:
            if refusal.violation:
                self.violations.append(f"{call.method} {call.path}: {refusal}")
            return self._answer_call(
                call, refusal.status, refusal.body, {**headers, **refusal.headers}
            )
        except Exception:
            self.violations.append(f"the stand-in broke at {call}:\n{traceback.format_exc()}")
            return self._answer_call(call, 500, {"message": "stand-in", "code": 0}, headers)

    def _answer_call(
        self, call: RestCall, status: int, body: Any, headers: dict[str, str]
    ) -> web.Response:
        call.status = status
        self.rate_limited += status == 429
        # discord.py takes a 429 without Via for a ban, and compares the content type literally.
        headers = {"Via": "1.1 google", **headers}
        if body is None:
            return web.Response(status=status, headers=headers)
        headers["Content-Type"] = "application/json"
        return web.Response(status=status, headers=headers, body=json.dumps(body).encode())

    def _judge(self, call: RestCall, form: Form) -> None:
        """Notes the keys that Discord ignores; refuses the request when there are errors."""
        self.violations += [f"{call.method} {call.path}: unknown {key}" for key in form.unknown]
        form.unknown.clear()
        if form.errors:
            raise self._invalid(form)

    def _invalid(self, form: Form, *, violation: bool = True) -> DiscordError:
        message = "Invalid Form Body " + "; ".join(form.flat)
        refusal = DiscordError(400, 50035, message, violation=violation)
        refusal.body = {"message": "Invalid Form Body", "code": 50035, "errors": form.errors}
        return refusal

    def _rate_limit(self, call: RestCall) -> dict[str, str]:
        """Five new messages and five edits in five seconds, for each channel, and for each
        interaction's token."""
        match = LIMITED.fullmatch(call.path)
        if not match or call.method not in ("POST", "PATCH") or not self.rate_limits:
            return {}
        bucket = _bucket(call)
        key, now = f"{call.method} {match[1]}", time.monotonic()
        start, used = self._windows.get(key, (now, 0))
        if now - start >= 5:
            start, used = now, 0
        if used >= 5:
            raise _rate_limited(bucket, start + 5 - now)
        self._windows[key] = (start, used + 1)
        if used == 4:
            self.used_up.append(key)
        return _limit_headers(bucket, 4 - used, start + 5 - now)

    def _take(self, call: RestCall, wanted: Callable[[Fault], bool]) -> Fault | None:
        for fault in self._faults:
            fits = fault.method in (call.method, "*") and re.search(fault.pattern, call.path)
            if fits and (call.files or not fault.with_files) and wanted(fault):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                return fault
        return None

    def _take_fault(self, call: RestCall) -> Fault | None:
        fault = self._take(call, lambda fault: fault.callback is None)
        call.fault = str(fault.kind) if fault else None
        return fault

    def _call_back(self, when: str, call: RestCall) -> None:
        while hook := self._take(call, lambda fault: fault.kind == when):
            assert hook.callback
            hook.callback()

    async def _misbehave(
        self, request: web.Request, call: RestCall, fault: Fault
    ) -> web.Response | None:
        """The answer of a request that isn't applied; None when it goes on as usual."""
        if fault.kind == "hang":
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hang_over.wait(), fault.seconds or None)
            if not self._hang_over.is_set():
                return None
        with self._changed:
            self._remember(call)
            self._changed.notify_all()
            if fault.kind in ("reset", "hang"):
                _abort(request)
                return web.Response(status=500)
            if fault.kind == "rate limit":
                refusal = _rate_limited(_bucket(call), fault.seconds)
                return self._answer_call(call, 429, refusal.body, refusal.headers)
            if fault.kind == "banned":
                return self._ban(call, fault.seconds)
            status = int(fault.kind)
            code = USUAL_CODES.get(status, 0) if fault.code is None else fault.code
            body = {"message": ERRORS.get(code, f"{status}: Error"), "code": code}
            return self._answer_call(call, status, body, {})

    def _ban(self, call: RestCall, seconds: float) -> web.Response:
        call.status = 429
        headers = {"Server": "cloudflare", "Content-Type": "text/html; charset=UTF-8"}
        headers |= {"Retry-After": str(int(seconds))} if seconds else {}
        return web.Response(status=429, headers=headers, text=BANNED_PAGE)

    def _remember(self, call: RestCall) -> None:
        """Forgets the bytes of old uploads, but their hash."""
        call._uploads = {}
        if call.files:
            self._heavy.append(call)
        while len(self._heavy) > 100 or sum(map(_weight, self._heavy)) > 200 * MIB:
            old = self._heavy.popleft()
            for url in old._urls:
                self._bytes.pop(url, None)
            for name, content in old.files.items():
                digest = hashlib.sha256(content).hexdigest()
                old.files[name] = f"sha256={digest} size={len(content)}".encode()


def _weight(call: RestCall) -> int:
    return sum(map(len, call.files.values()))


def _abort(request: web.Request) -> None:
    """Resets the connection, so that the bot gets no answer."""
    if request.transport:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        connection = request.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()


def _bucket(call: RestCall) -> str:
    route = re.sub(r"\d{17,}|[\w-]{40,}", "id", f"{call.method} {call.path}")
    return hashlib.sha256(route.encode()).hexdigest()[:32]


def _limit_headers(bucket: str, remaining: int, reset_after: float) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": "5",
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": f"{time.time() + reset_after:.3f}",
        "X-RateLimit-Reset-After": f"{reset_after:.3f}",
        "X-RateLimit-Bucket": bucket,
    }


def _rate_limited(bucket: str, seconds: float) -> DiscordError:
    refusal = DiscordError(429, 0, "You are being rate limited.")
    refusal.body = {"message": "You are being rate limited.", "retry_after": seconds}
    refusal.body["global"] = False
    refusal.headers = {**_limit_headers(bucket, 0, seconds), "X-RateLimit-Scope": "user"}
    refusal.headers["Retry-After"] = str(int(seconds) + 1)
    return refusal
