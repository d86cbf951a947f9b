"""A forked program is as good as a fresh one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.harness.bot import PROGRAM, start
from tests.harness.forks import POSSIBLE, ForkedProcess, ForkServer

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="programs aren't forked here")

# All that a program can see of the process it runs in, but for what is different each time.
SELF_PORTRAIT = """
import gc, json, os, random, signal, sys, threading
import discord
handlers = {s.name: repr(signal.getsignal(s)).split(" at ")[0] for s in signal.valid_signals()
            if isinstance(s, signal.Signals)}
blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
wakeup = signal.set_wakeup_fd(-1)
files = [n for n in range(256) if os.path.exists(f"/proc/self/fd/{n}") and n != 3]
streams = [[s.encoding, s.errors, s.line_buffering, s.write_through, s.fileno(), s.isatty()]
           for s in (sys.stdout, sys.stderr)]
facts = [sys.argv, sys.path, os.getcwd(), dict(os.environ), handlers, blocked, wakeup, files]
facts += [streams, os.getpgid(0), os.getsid(0), threading.active_count(), sys.flags.optimize]
facts += [os.path.exists("/proc/self/task") and len(os.listdir("/proc/self/task")), os.umask(0)]
facts += [__name__, __file__, sys.modules["__main__"].__dict__ is globals(), gc.get_threshold()]
facts += [sorted({"tests", "fork_server", *PRODUCT} & set(sys.modules))]
print(json.dumps({"facts": facts, "random": random.random()}))
""".replace("PRODUCT", repr([file.stem for file in PROGRAM]))
ENDS = {
    "pass": 0,
    "raise SystemExit(3)": 3,
    "raise SystemExit('said on stderr')": 1,
    "1 / 0": 1,
    "raise KeyboardInterrupt": -signal.SIGINT,
    "import os; os._exit(130)": 130,
    "import os; os.abort()": -signal.SIGABRT,
    "import os; os.kill(os.getpid(), 9)": -9,
    "import atexit; atexit.register(print, 'at the end'); print('first')": 0,
    "import sys; print('out'); print('err', file=sys.stderr); sys.stdout.write('no end')": 0,
    "import threading; threading.Timer(0.1, print, ['a thread']).start()": 0,
}


def run(
    folder: Path, source: str, forks: ForkServer | None, **environment: str
) -> tuple[subprocess.Popen[str] | ForkedProcess, str]:
    """The process, once it has ended, and what it printed."""
    (folder / "program.py").write_text(source, "utf-8")
    changes = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **environment}
    command = [str(folder / "program.py"), "one", "two words"]
    process = start(command, {**os.environ, **changes}, folder, forks)
    assert process.stdout
    with process.stdout as stdout:
        text = stdout.read()
    process.wait(20)
    return process, text


def test_it_finds_everything_as_a_fresh_one_does(tmp_path: Path, forks: ForkServer) -> None:
    portraits: list[dict[str, Any]] = []
    for server in (None, forks, forks):
        process, text = run(tmp_path, SELF_PORTRAIT, server, KILL_AT="nowhere")
        assert isinstance(process, ForkedProcess) == (server is not None)
        portraits.append(json.loads(text))
    fresh, first, second = portraits
    assert first["facts"] == second["facts"] == fresh["facts"]
    assert len({portrait["random"] for portrait in portraits}) == 3


@pytest.mark.parametrize("source", ENDS)
def test_it_ends_as_a_fresh_one_does(source: str, tmp_path: Path, forks: ForkServer) -> None:
    fresh, text = run(tmp_path, source, None)
    forked, forked_text = run(tmp_path, source, forks)
    assert fresh.returncode == forked.returncode == forked.poll() == ENDS[source]
    # A traceback also names the places where the program was called, which are others.
    assert forked_text.splitlines()[-1:] == text.splitlines()[-1:]
    assert ("Traceback" in text) == ("Traceback" in forked_text)


def test_a_signal_reaches_it_and_nobody_else_holds_its_files(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, forks: ForkServer
) -> None:
    lock = "import sqlite3; c = sqlite3.connect(sys.argv[0] + '.db'); c.execute('BEGIN EXCLUSIVE')"
    source = f"import sys, time; {lock}; print('locked'); time.sleep(60)"
    program = tmp_path / "program.py"
    program.write_text(source, "utf-8")
    changes = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = start([str(program)], {**os.environ, **changes}, tmp_path, forks)
        assert process.stdout
        with process.stdout as stdout:
            assert stdout.readline() == "locked\n"  # the second time only if the lock is free
            run(tmp_path_factory.mktemp("other"), "pass", forks)  # another child, forked meanwhile
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.send_signal(number)
            assert process.wait(20) == -number
            assert stdout.read() == ""


def test_an_environment_that_python_reads_at_its_start_is_not_for_forks(
    tmp_path: Path, forks: ForkServer
) -> None:
    process, text = run(
        tmp_path, "import sys; print(sys.flags.optimize)", forks, PYTHONOPTIMIZE="2"
    )
    assert isinstance(process, subprocess.Popen)
    assert text == "2\n"
