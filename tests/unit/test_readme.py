"""README names everything there is."""

from __future__ import annotations

import re

from bot.commands import COMMANDS
from settings import load_settings
from tests.harness.bot import PROGRAM, REPOSITORY, ROOMS, SETTINGS

README = (REPOSITORY / "README.md").read_text("utf-8")
FIRST_CELLS = [line.split(" | ")[0] for line in README.splitlines() if line.startswith("| `")]
NAMED = {name for cell in FIRST_CELLS for name in re.findall(r"`([^`]+)`", cell)}


def test_readme_has_a_line_for_every_setting_command_and_file() -> None:
    commands = {f"/{command.name}" for command in COMMANDS}
    named = {name.split()[0] for name in NAMED}
    assert SETTINGS - named == set()
    assert commands - named == set()
    assert {path.name for path in PROGRAM} - named == set()
    assert {f"{room}/" for room in ROOMS} - named == set()


def test_the_defaults_that_readme_names_are_those_of_the_program() -> None:
    lines = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", README, re.MULTILINE)
    required = {"DISCORD_TOKEN": "x", "ALLOWED_CHANNEL_IDS": "1"}
    assert len(lines) >= 10
    assert load_settings({**required, **dict(lines)}) == load_settings(required)
