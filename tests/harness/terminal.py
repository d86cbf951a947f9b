"""A person at a terminal: a real pseudo-terminal, and the program that asks in it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading

from tests.harness.bot import REPOSITORY, SETTINGS, Installation
from tests.standins.discord.server import DiscordStandIn

# As a shell: the terminal is its own, so that Ctrl+C is a signal, and it outlives the program:
# the kernel may drop what a terminal has not shown when its session ends.
SHELL = """
import fcntl, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, lambda *_: None)
code = subprocess.call([sys.executable, *sys.argv[1:]])
print(f"[exit {code}]", flush=True)
while True:
    signal.pause()
"""
EXIT = re.compile(r"\[exit (-?\d+)\]")


class Terminal:
    """comfygen.py with these arguments, in a terminal of its own."""

    def __init__(
        self, installation: Installation, discord: DiscordStandIn, *arguments: str, **more: str
    ) -> None:
        self._mine, its = pty.openpty()
        launcher = str(REPOSITORY / "tests/harness/launch.py")
        program = str(installation.folder / "comfygen.py")
        environment = {
            **{name: value for name, value in os.environ.items() if name not in SETTINGS},
            "DISCORD_API": discord.api_url,
            "DISCORD_GATEWAY": discord.gateway_url,
            "SHORT_WAITS": "1",
            "PYTHONIOENCODING": "utf-8",
            **more,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHELL, launcher, program, *arguments],
            stdin=its,
            stdout=its,
            stderr=its,
            cwd=installation.folder,
            env=environment,
            start_new_session=True,
        )
        os.close(its)
        self.screen = ""
        self._read_up_to = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(OSError):  # how Linux tells the end of a terminal
            while chunk := os.read(self._mine, 4096):
                data += chunk
                with self._changed:
                    self.screen = data.decode("utf-8", "replace").replace("\r\n", "\n")
                    self._changed.notify_all()

    def wait_for(self, text: str, seconds: float = 30.0) -> str:
        """Wait for a text that was not waited for before, and return what stands up to its end."""

        def place() -> int:
            return self.screen.find(text, self._read_up_to)

        with self._changed:
            self._changed.wait_for(lambda: place() >= 0 or not self._reader.is_alive(), seconds)
            assert place() >= 0, f"no {text!r} after {self._read_up_to} in:\n{self.screen}"
            before, self._read_up_to = self._read_up_to, place() + len(text)
            return self.screen[before : self._read_up_to]

    def answer(self, question: str, text: str = "") -> str:
        """Type an answer and Enter, once the question is there, and return what stood before."""
        seen = self.wait_for(question)
        self.wait_for(": ")
        self.type(text + "\n")
        return seen

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._mine, text.encode())

    def interrupt(self) -> int:
        """Press Ctrl+C, and return the exit code. Python does not notice a signal that comes just
        before it begins to read: people press again."""
        while True:
            self.type("\x03")
            with contextlib.suppress(TimeoutError):
                return self.wait(5)

    def wait(self, seconds: float = 30.0) -> int:
        """Return the exit code, once the program has ended."""
        with self._changed:
            found = self._changed.wait_for(lambda: EXIT.search(self.screen), seconds)
        if not found:
            raise TimeoutError(self.screen)
        return int(found[1])

    def close(self) -> None:
        """End the program, if it still runs, and the terminal."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self._reader.join(30)
        os.close(self._mine)
