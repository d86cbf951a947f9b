"""README names every setting and command, docs/development.md every file."""

from __future__ import annotations

import re

from discord.app_commands import ContextMenu

from bot.commands import COMMANDS
from settings import load_settings
from tests.harness.bot import PROGRAM, REPOSITORY, ROOMS, SETTINGS

README = (REPOSITORY / "README.md").read_text("utf-8")
DEVELOPMENT = (REPOSITORY / "docs/development.md").read_text("utf-8")


def named_in(page: str) -> set[str]:
    """Return what stands in code marks in the first cells of the page's tables."""
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_readme_has_a_line_for_every_setting_and_command() -> None:
    named = {name.split()[0] for name in named_in(README)}
    assert SETTINGS - named == set()
    menus = {command.name for command in COMMANDS if isinstance(command, ContextMenu)}
    assert {f"/{command.name}" for command in COMMANDS if command.name not in menus} <= named
    assert {name for name in menus if f"**{name}**" in README} == menus


def test_the_development_page_has_a_line_for_every_file_and_room() -> None:
    named = named_in(DEVELOPMENT)
    assert {path.name for path in PROGRAM} - named == set()
    assert {f"{room}/" for room in ROOMS} - named == set()


def test_the_defaults_that_readme_names_are_those_of_the_program() -> None:
    lines = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", README, re.MULTILINE)
    required = {"DISCORD_TOKEN": "a.b.c", "ALLOWED_CHANNEL_IDS": "1"}
    assert len(lines) >= 10
    assert load_settings({**required, **dict(lines)}) == load_settings(required)
