"""comfygen.py: signals that end the event loop, and failed clicks that are alerts for the owner.
What people see of the bot is in tests/end_to_end/."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import comfygen
from settings import EXIT_CONFIG, EXIT_INTERRUPTED
from store import StoreError

REPOSITORY = Path(__file__).resolve().parents[2]
SIGNALS = 200
# select() goes through all its files before it waits. With many that takes a while, in which Python
# looks for no signals: most of them arrive in that gap, not only one in some thousands.
IDLE_LOOP = """
import asyncio, os, resource, selectors, sys
sys.path.insert(0, sys.argv[1])
import comfygen

class Stop:
    def is_set(self):
        return False

    def set(self):
        os.write(1, b".")

async def main():
    loop = asyncio.get_running_loop()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, most))
    reader, writer = os.pipe()
    for _ in range(800):
        loop.add_reader(os.dup(reader), print)
    comfygen.set_signal_handlers(loop, Stop())
    os.write(1, b".")
    await asyncio.Event().wait()

asyncio.SelectorEventLoop(selectors.SelectSelector()).run_until_complete(main())
"""


@pytest.fixture
def idle_loop() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process whose loop has nothing to do, and writes a byte for each signal."""
    command = [sys.executable, "-c", IDLE_LOOP, str(REPOSITORY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        yield process
        process.kill()


def answered(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Return whether the byte of one signal comes within this time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return bool(ready) and process.stdout.read(1) == b"."


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to another")
def test_no_signal_is_lost_that_comes_when_the_loop_is_about_to_wait(
    idle_loop: subprocess.Popen[bytes],
) -> None:
    assert answered(idle_loop, 20)  # it is there
    for number in range(SIGNALS):  # each is sent while the one before has just been answered
        idle_loop.send_signal(signal.SIGTERM)
        assert answered(idle_loop, 5), f"signal {number} was not noticed"


class SwallowingBot:
    """A bot whose connection ignores its first cancellation."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def start(self, token: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def shut_down(self) -> None: ...

    def stop_tasks(self) -> None: ...


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to another")
def test_a_connection_that_swallows_its_cancellation_is_cancelled_again() -> None:
    """Before Python 3.12, wait_for() does so if the gateway refuses at that very moment."""
    bot: Any = SwallowingBot()
    assert asyncio.run(asyncio.wait_for(comfygen.serve(bot, "token"), 10)) == 0


def test_a_click_that_the_database_refuses_is_an_alert() -> None:
    answers: list[str] = []
    troubles: list[Exception] = []

    async def send_message(sentence: str, *, ephemeral: bool) -> None:
        answers.append(sentence)

    reporter = SimpleNamespace(on_error=troubles.append)
    bot: Any = SimpleNamespace(is_closed=lambda: False, reporter=reporter)
    response = SimpleNamespace(is_done=lambda: False, send_message=send_message)
    interaction: Any = SimpleNamespace(response=response)
    error = StoreError("database or disk is full")
    asyncio.run(comfygen.ComfyGen.answer_error(bot, interaction, error))
    assert (answers, troubles) == ([StoreError.user_message], [error])


def test_no_service_manager_starts_again_what_only_the_owner_can_mend() -> None:
    pm2 = (REPOSITORY / "ecosystem.config.cjs").read_text("utf-8")
    assert f"stop_exit_codes: [{EXIT_CONFIG}, {EXIT_INTERRUPTED}]" in pm2
    unit = (REPOSITORY / "comfygen.service").read_text("utf-8")
    assert f"RestartPreventExitStatus={EXIT_CONFIG}\n" in unit
    program = (REPOSITORY / "comfygen.py").read_text("utf-8")
    assert f"sys.exit({EXIT_CONFIG})" in program  # before anything can be imported
