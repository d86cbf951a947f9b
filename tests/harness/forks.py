"""Processes forked from one that has discord.py loaded: most of a bot's start is importing that."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from tests.harness.fork_server import NOT_YET, REPORT

SCRIPT = Path(__file__).with_name("fork_server.py")
# macOS can fork too, but its system libraries do not survive it.
POSSIBLE = hasattr(os, "fork") and sys.platform != "darwin"
# What Python and the C library read once, at a program's start, which a forked one has behind it.
AT_START = ("PYTHON", "LANG", "LC_", "TZ", "LD_", "MALLOC_", "OPENSSL_", "SSL_", "AIOHTTP_")


class ForkedProcess:
    """A process that the fork server started, with as much of a subprocess.Popen as a Bot needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.stdout: TextIO | None = None
        self.returncode: int | None = None
        self._ended = threading.Event()

    def end(self, code: int) -> None:
        """Note that it has ended: with this exit code, or by the signal of this number, negated."""
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; subprocess.TimeoutExpired if it hasn't in time."""
        self._ended.wait(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            # It may have ended just now; its id isn't another process's that soon.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The client's side. Owns the server's process and the socket to it, and a thread that reads
    what is reported there. The server ends with the socket, and so do all children left."""

    def __init__(self) -> None:
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        self._socket, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._server = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(there.fileno())],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
            )
        self._starting = threading.Lock()
        self._started: queue.SimpleQueue[ForkedProcess | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, name="forks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the server."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._server.wait(10)
        self._socket.close()

    def start(
        self, command: Sequence[str], folder: str, environment: Mapping[str, str]
    ) -> ForkedProcess | None:
        """What `subprocess.Popen(["python", *command], ...)` starts, with stdout and stderr in one
        pipe. None: only that can, for this environment."""
        own = self._environment
        changed = {k: v for k, v in environment.items() if own.get(k) != v}
        missing = [k for k in own if k not in environment]
        if any(name.startswith(AT_START) for name in (*changed, *missing)):
            return None
        order = {"program": command[0], "arguments": command[1:], "folder": folder}
        text = json.dumps({**order, "set": changed, "unset": missing}).encode()
        output, inlet = os.pipe()
        with self._starting:
            socket.send_fds(self._socket, [text], [inlet])
            os.close(inlet)
            process = self._started.get(timeout=20)
        assert process, "the fork server has died"
        process.stdout = open(output, encoding="utf-8")  # noqa: SIM115
        return process

    def _listen(self) -> None:
        running: dict[int, ForkedProcess] = {}
        while report := self._socket.recv(REPORT.size):
            process_id, code = REPORT.unpack(report)
            if code == NOT_YET:
                running[process_id] = ForkedProcess(process_id)
                self._started.put(running[process_id])
            else:
                running.pop(process_id).end(code)
        self._started.put(None)
