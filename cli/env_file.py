"""The `.env` file that --setup writes: every value of the one before, private, in one step."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path

KEPT = ".env.before-setup"


def quoted_value(value: str) -> str:
    """Return a value as it stands in `.env`: in quotes, if it would be read as another."""
    if not re.search(r"[\r\n]|\s#|^['\"#]", value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def env_text(template: str, values: Mapping[str, str]) -> str:
    """Return the template with the values filled in, and those that it does not have below."""
    left = dict(values)
    lines = []
    for line in template.splitlines():
        name, is_setting, _ = line.partition("=")
        has_value = is_setting and name in left
        lines.append(f"{name}={quoted_value(left.pop(name))}" if has_value else line)
    lines += [f"{name}={quoted_value(value)}" for name, value in left.items()]
    return "\n".join(lines) + "\n"


def write_env(folder: Path, values: Mapping[str, str]) -> Path | None:
    """Replace `.env` by a new one, for its owner alone to read, and return where the one before is
    kept. Raises OSError, and leaves `.env` as it was."""
    example = folder / ".env.example"
    template = example.read_text("utf-8") if example.exists() else ""
    path = (folder / ".env").resolve()
    kept = None
    if path.exists():
        kept = free_path(folder)
        write_private(kept, path.read_bytes())
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    write_private(new, env_text(template, values).encode("utf-8"))
    if kept and hasattr(os, "chown"):  # root has written it, say, for the service's user
        with contextlib.suppress(OSError):
            os.chown(new, path.stat().st_uid, path.stat().st_gid)
    new.replace(path)
    return kept


def free_path(folder: Path) -> Path:
    """Return where the `.env` before is kept: beside it, numbered if there is one already."""
    names = itertools.chain([KEPT], (f"{KEPT}-{number}" for number in itertools.count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read, from its first byte on."""
    try:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
