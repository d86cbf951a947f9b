"""Requests as they arrive at the stand-in, and the ways in which their answers are spoilt."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

# Kinds of faults: answers given without processing the request, and processed but cut off.
PAGES = {
    "403": "Forbidden",
    "404": "404: Not Found",
    "429": "Too Many Requests",
    "500": "500 Internal Server Error\n\nServer got itself in trouble",
    "502": "Bad Gateway",
    "503": "Service Temporarily Unavailable",
    "login page": "",
    "redirect": "",
}
CUTS = ("lost answer", "half json", "truncate")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
TOO_LARGE = 101  # MiB
LOGIN_PAGE = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"


@dataclass
class Recorded:
    """A request as it arrived: `path` without the stand-in's prefix, `method` "WS" for /ws.

    `status` is 0 while, and if, it got no answer.
    """

    method: str
    path: str
    query: dict[str, str]
    json: Any
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0

    def matches(self, route: str) -> bool:
        """Whether `route` ("GET /history", "WS /ws", "*") names this request."""
        if route == "*":
            return True
        method, path = route.split(" ", 1)
        own = self.path.removeprefix("/api")
        return method == self.method and (own == path or own.startswith(path + "/"))


@dataclass
class Fault:
    """What goes wrong with the next `left` requests of a route (None: with all)."""

    route: str
    kind: str
    left: int | None
    seconds: float


def page(status: int, title: str, **headers: str) -> web.Response:
    """An answer of the reverse proxy in front of ComfyUI."""
    text = (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} "
        f"{title}</h1></center>\r\n<hr><center>nginx/1.24.0</center>\r\n</body>\r\n</html>\r\n"
    )
    headers = {"Server": "nginx/1.24.0", **headers}
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def gone(request: web.Request) -> bool:
    """Whether nobody waits for the answer any more."""
    return request.transport is None or request.transport.is_closing()


def cut(request: web.Request, *, reset: bool = False) -> web.Response:
    """Close the connection under the request; nobody sees the answer that is returned."""
    if transport := request.transport:
        if reset:  # with RST instead of FIN
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            peer = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


async def half(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send the head of the answer and half of its body, then close."""
    body = body_of(response)
    cut = web.StreamResponse(headers={"Content-Type": response.content_type})
    cut.content_length = len(body)
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    if request.transport:
        request.transport.close()
    return cut


async def bad_picture(request: web.Request, kind: str) -> web.StreamResponse:
    """The answer to GET /view for a file with which something is wrong, each time."""
    if kind == "svg":
        return web.Response(body=SVG, content_type="image/svg+xml")
    if kind != "too large":
        return web.Response(status=int(kind))
    response = web.StreamResponse(headers={"Content-Type": "image/png"})
    response.content_length = TOO_LARGE * 2**20
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # it is not wanted to its end
        for start in [b"\x89PNG\r\n\x1a\n", *[b""] * (TOO_LARGE - 1)]:
            await response.write(start.ljust(2**20, b"\0"))
    return response


def body_of(response: web.StreamResponse) -> bytes:
    """The body of an answer that isn't a stream."""
    body = response.body if isinstance(response, web.Response) else b""
    return body if isinstance(body, bytes) else b""


def spoilt(fault: Fault, prefix: str) -> web.Response:
    """The answer to a request that isn't processed; `prefix` is the path's, for the redirect."""
    if fault.kind == "login page":
        return web.Response(text=LOGIN_PAGE, content_type="text/html")
    if fault.kind == "redirect":
        return page(302, "Found", Location=f"{prefix}/login")
    title = PAGES[fault.kind]
    if fault.kind in ("404", "500"):  # ComfyUI's own, the others are the proxy's
        return web.Response(status=int(fault.kind), text=title)
    retry = {"Retry-After": str(int(fault.seconds) or 1)} if fault.kind == "429" else {}
    return page(int(fault.kind), title, **retry)
