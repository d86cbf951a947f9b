"""A stand-in for a web proxy, as of a company or a school: it passes requests on, and remembers to
where; or it answers 502 to all, as one that does not find a home network."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from types import TracebackType
from urllib.parse import urlsplit

HEAD_END = b"\r\n\r\n"


class ProxyStandIn(socketserver.ThreadingTCPServer):
    """A proxy on 127.0.0.1. `with ProxyStandIn() as proxy:`; `asked` has each host:port."""

    daemon_threads = True

    def __init__(self, *, is_lost: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.is_lost = is_lost
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> ProxyStandIn:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()
        self._thread.join(20)
        self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    server: ProxyStandIn
    request: socket.socket

    def handle(self) -> None:
        head = b""
        while HEAD_END not in head:
            received = self.request.recv(2**16)
            if not received:
                return
            head += received
        method, target = head.split(b" ", 2)[:2]
        is_tunnel = method == b"CONNECT"
        place = target.decode() if is_tunnel else urlsplit(target.decode()).netloc
        self.server.asked.append(place)
        if self.server.is_lost:
            answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close"
            self.request.sendall(answer + HEAD_END)
            return
        host, _, port = place.rpartition(":")
        with socket.create_connection((host, int(port)), 20) as upstream:
            if is_tunnel:
                self.request.sendall(b"HTTP/1.1 200 Connection established" + HEAD_END)
            else:
                upstream.sendall(head)
            back = threading.Thread(target=_pass_on, args=(upstream, self.request), daemon=True)
            back.start()
            _pass_on(self.request, upstream)
            back.join(20)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
