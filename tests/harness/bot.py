"""The bot as its owner runs it: an installation in a folder of its own, and its process."""

from __future__ import annotations

import atexit
import compileall
import contextlib
import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness.forks import ForkedProcess, ForkServer
from tests.standins.comfyui.server import ComfyUIStandIn
from tests.standins.discord.server import DiscordStandIn

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("cli", "bot", "jobs", "adopt", "comfyui")
PROGRAM = sorted(REPOSITORY.glob("*.py"))
SHIPPED_WORKFLOW = "workflows/multisampler"  # beside it stand those that the owner has adopted
SETTINGS = {
    line.partition("=")[0].lstrip("# ")
    for line in (REPOSITORY / ".env.example").read_text("utf-8").splitlines()
    if "=" in line
}


@functools.cache
def compiled_program() -> Path:
    """A copy of the program with its compiled modules, as after an owner's first start."""
    folder = Path(tempfile.mkdtemp(prefix="comfygen-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file in PROGRAM:
        shutil.copy2(file, folder)
    for room in ROOMS:
        shutil.copytree(REPOSITORY / room, folder / room)
    compileall.compile_dir(folder, quiet=1)
    return folder


class Installation:
    """A folder with a copy of the program and a `.env`, like an owner's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(compiled_program(), folder, dirs_exist_ok=True)
        shutil.copytree(REPOSITORY / SHIPPED_WORKFLOW, folder / SHIPPED_WORKFLOW)
        self.workflow = folder / SHIPPED_WORKFLOW / "base.json"
        self.database = folder / "data/comfygen.db"

    def add_shipped(self) -> None:
        """Put the other workflows that come with the program beside the default one."""
        for name in ("edit", "upscale"):
            shutil.copytree(REPOSITORY / "workflows" / name, self.folder / "workflows" / name)

    def add_workflow(
        self, name: str, workflow: object, bindings: Mapping[str, list[str]] | None = None
    ) -> Path:
        """Put a workflow beside the default one, or change one; its folder."""
        folder = self.folder / "workflows" / name
        folder.mkdir(exist_ok=True)
        (folder / "base.json").write_text(json.dumps(workflow), "utf-8")
        if bindings is not None:
            (folder / "bindings.json").write_text(json.dumps(bindings), "utf-8")
        return folder

    def configure(self, values: Mapping[str, str]) -> None:
        """Write the `.env` file."""
        lines = (f"{name}={value}\n" for name, value in values.items())
        (self.folder / ".env").write_text("".join(lines), "utf-8")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Look into the database, as an owner with the sqlite3 shell would."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=20)) as connection:
            return connection.execute(query, values).fetchall()

    def change(self, statement: str, *values: object) -> None:
        """Change the database behind the bot's back."""
        connection = sqlite3.connect(self.database, timeout=20)
        with contextlib.closing(connection), connection:  # the latter commits
            connection.execute(statement, values)


class Bot:
    """One process of the unmodified comfygen.py; its log is collected while it runs.

    With `forks` its start is quicker, and all else the same."""

    def __init__(
        self,
        installation: Installation,
        discord: DiscordStandIn | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        forks: ForkServer | None = None,
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if k not in SETTINGS}
        # Without a stand-in nothing listens there: Discord is out of reach.
        nowhere = {"DISCORD_API": "http://127.0.0.1:9", "DISCORD_GATEWAY": "ws://127.0.0.1:9"}
        there = (
            {"DISCORD_API": discord.api_url, "DISCORD_GATEWAY": discord.gateway_url}
            if discord
            else nowhere
        )
        self.process = start(
            [
                str(REPOSITORY / "tests/harness/launch.py"),
                str(installation.folder / "comfygen.py"),
                *arguments,
            ],
            {
                **inherited,
                **there,
                "PYTHONUNBUFFERED": "1",
                "PYTHONIOENCODING": "utf-8",
                **(environment or {}),
            },
            installation.folder.parent,  # not where the program is: services start elsewhere
            forks,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, text: str, seconds: float = 20.0) -> str:
        """The first line of output with this text in it, once it is there."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or not self._reader.is_alive(), seconds)
            line = found()
        assert line is not None, f"no line with {text!r} in:\n{self.output}"
        return line

    def wait(self, seconds: float = 20.0) -> int:
        """The exit code, once the process has ended."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.wait()

    def stop(self) -> int:
        """End it as `systemctl stop` does; the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()


def start(
    command: list[str], environment: Mapping[str, str], folder: Path, forks: ForkServer | None
) -> subprocess.Popen[str] | ForkedProcess:
    """Start Python with this command line in a folder."""
    if forks and (forked := forks.start(command, str(folder), environment)):
        return forked
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def settings_for(
    discord: DiscordStandIn, comfyui: ComfyUIStandIn, *channel_ids: int
) -> dict[str, str]:
    """The `.env` of a bot between the two stand-ins."""
    return {
        "DISCORD_TOKEN": discord.token,
        "ALLOWED_CHANNEL_IDS": ",".join(map(str, channel_ids)),
        "COMFY_BASE_URL": comfyui.url,
    }
