"""Start Python programs by forking one process that has the third-party modules loaded already.

`python fork_server.py FD`: at that socket come orders, each a JSON object with a program and its
arguments, folder and changes to the environment, and with it the file descriptor that its output
goes to. The answer is its process id, and once it has ended that again with its exit code; two
numbers both times, NOT_YET for an exit code at first. Run by forks.py.

A child is to be as good as `python PROGRAM ARGUMENTS`. So this process never imports a module of
the product, has no threads, no event loop and no open files but its own, which a child closes
first: a lock of a killed child's is nobody else's. A child does not run inside of the loop here
but after it, at the end of this file, and ends as any Python program does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import struct
import sys
import types
from pathlib import Path
from typing import Any

# Third-party, and of the standard library what they leave out. These cost the most of a start.
PRELOADED = ("discord", "discord.app_commands", "aiohttp", "dotenv", "requests", "sqlite3", "yarl")
REPORT = struct.Struct("ii")
NOT_YET = 1 << 30  # which is no exit code

Order = dict[str, Any]


class Server:
    """The children that still run, and the sockets of the process that forks them."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._children: set[int] = set()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def serve(self) -> Order | None:
        """None once nobody sends orders any more; in a child: its order."""
        # Ctrl+C goes to everyone at the terminal. It's for the children; this ends with pytest.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._orders, self._woken], [], [])
            if self._woken in ready:
                self._reap()
            if self._orders in ready:
                text, files, _, _ = socket.recv_fds(self._orders, 1 << 20, 1)
                if not text:
                    for child in self._children:
                        os.kill(child, signal.SIGKILL)
                    return None
                if self._fork(*files):
                    return Order(json.loads(text))

    def _fork(self, output: int) -> bool:
        """Whether this is the child."""
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            for end in (self._orders, self._woken, self._waker):
                end.close()
            return True
        os.close(output)
        self._children.add(child)
        self._report(child, NOT_YET)
        return False

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(1 << 16)
        for child in list(self._children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                self._children.remove(child)
                self._report(child, os.waitstatus_to_exitcode(status))

    def _report(self, child: int, code: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # the orders end as well, then
            self._orders.send(REPORT.pack(child, code))


def become(order: Order) -> None:
    """Do what `python PROGRAM ARGUMENTS` does."""
    os.chdir(order["folder"])
    for name in order["unset"]:
        del os.environ[name]
    os.environ.update(order["set"])
    # Anew, as Python does at a start: those of the server remember what they were opened on.
    unbuffered = open(1, "wb", buffering=0, closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(unbuffered, encoding="utf-8", write_through=True)
    program = Path(order["program"])
    sys.argv = [str(program), *order["arguments"]]
    sys.path[0] = str(program.parent)
    module = types.ModuleType("__main__")
    module.__file__ = str(program)
    sys.modules["__main__"] = module
    exec(compile(program.read_bytes(), str(program), "exec"), vars(module))


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # else each child would copy all of that memory when it ends, to tidy it up
    order = Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if order is not None:
        become(order)


if __name__ == "__main__":
    main()
