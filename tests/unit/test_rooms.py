"""The rooms, in the order in which they may import each other."""

from __future__ import annotations

import ast

from tests.harness.bot import REPOSITORY, ROOMS

# A room imports itself and what stands on lower floors; neighbours on one floor do not meet.
FLOORS = {"text": 0, "settings": 0, "graph": 0, "job": 0, "lock": 0, "store": 1, "binder": 2}
FLOORS |= {
    "comfyui": 3,
    "comfy_client": 4,
    "adopt": 4,
    "jobs": 5,
    "bot": 6,
    "cli": 7,
    "comfygen": 8,
}
ALONE = {
    "discord": {"comfygen", "bot", "cli/checks", "cli/setup"},
    "requests": {"comfy_client"},
    "sqlite3": {"store"},
}


def imports() -> list[tuple[str, str, str]]:
    """Return the file, the room and what it imports, for each import of the product."""
    files = [
        *REPOSITORY.glob("*.py"),
        *(f for room in ROOMS for f in (REPOSITORY / room).glob("*")),
    ]
    found = []
    for file in (file for file in files if file.suffix == ".py"):
        path = file.relative_to(REPOSITORY).with_suffix("")
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [(path.as_posix(), path.parts[0], name.split(".")[0]) for name in names]
    return found


def test_nothing_imports_upwards() -> None:
    ours = [(file, room, name) for file, room, name in imports() if name in FLOORS]
    assert len(ours) > 100
    assert [
        f"{file} imports {name}"
        for file, room, name in ours
        if room != name and FLOORS[name] >= FLOORS[room]
    ] == []


def test_discord_requests_and_sqlite3_are_each_imported_where_they_belong() -> None:
    outside = [
        f"{file} imports {name}"
        for file, room, name in imports()
        if name in ALONE and not ALONE[name] & {file, room}
    ]
    assert outside == []


def test_every_room_is_known() -> None:
    rooms = {room for _, room, _ in imports()}
    assert rooms == FLOORS.keys()
