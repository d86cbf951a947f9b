"""A start that cannot be: another Python, no modules, a code page, a reader that goes away."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from settings import EXIT_CONFIG
from tests.harness.bot import REPOSITORY
from tests.harness.house import House

OLD = [Path.home() / ".pyenv/versions" / name / "bin/python" for name in ("3.8.18", "3.9.18")]


def start_with(python: Path | str, folder: Path, *arguments: str) -> list[str]:
    """Start the program in a folder of its own, and return the lines that refuse it."""
    for name in ("comfygen.py", "settings.py"):
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    ended = subprocess.run(
        [python, "comfygen.py", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == EXIT_CONFIG, ended.stderr
    return ended.stderr.splitlines()


def empty_venv(folder: Path) -> Path:
    venv.create(folder / ".venv", with_pip=False)
    return folder / ".venv/bin/python"


def test_the_first_file_is_read_by_a_python_that_is_too_old() -> None:
    ast.parse((REPOSITORY / "comfygen.py").read_text("utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("python", [path for path in OLD if path.exists()])
def test_a_python_that_is_too_old_says_so(tmp_path: Path, python: Path) -> None:
    problem, step = start_with(python, tmp_path)
    assert problem.startswith("ComfyGen needs Python 3.10 or newer, and this is Python 3.")
    assert step == "Install a newer one, and make a new .venv with it: README.md, section 1."
    empty_venv(tmp_path)
    _, step = start_with(python, tmp_path, "--check")
    assert step == "Start it with: .venv/bin/python comfygen.py --check"


@pytest.mark.skipif(sys.platform == "win32", reason="its folders are called otherwise")
def test_a_python_without_the_modules_says_which_one_to_use(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = empty_venv(elsewhere)
    problem, step = start_with(other, tmp_path)
    assert problem == f"This Python, {other}, has no module discord."
    assert "README.md, section 1" in step
    own = empty_venv(tmp_path)
    _, step = start_with(other, tmp_path)
    assert step == "Start it with: .venv/bin/python comfygen.py"
    _, step = start_with(own, tmp_path)
    assert step == "Install what is missing: .venv/bin/python -m pip install -r requirements.txt"


def test_a_code_page_without_the_letters_of_a_name_ends_nothing(house: House) -> None:
    house.channel.name = "\N{ARTIST PALETTE}\N{BOX DRAWINGS LIGHT VERTICAL}ai-art"
    house.installation.configure(house.settings)
    bot = house.run(ready=False, arguments=("--check",), environment={"PYTHONIOENCODING": "cp1252"})
    assert bot.wait(60) == 0, bot.output
    assert "#\\U0001f3a8\\u2502ai-art" in bot.output


@pytest.mark.skipif(sys.platform == "win32", reason="there the pipe gives another error")
def test_a_reader_that_goes_away_ends_it_quietly(house: House) -> None:
    house.installation.configure(house.settings)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "comfygen.py", "--check", "--offline"]
    with contextlib.closing(os.fdopen(writer)) as out:
        ended = subprocess.run(
            command, cwd=house.installation.folder, stdout=out, stderr=subprocess.PIPE, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_an_env_file_that_notepad_has_named_is_found(house: House) -> None:
    house.installation.configure(house.settings)
    folder = house.installation.folder
    (folder / ".env").rename(folder / ".env.txt")
    bot = house.run(ready=False)
    assert bot.wait() == EXIT_CONFIG
    assert f"looked for in {folder / '.env'}, which does not exist; rename .env.txt" in bot.output
