"""The database as a file: the lock that keeps a second copy of the bot off, and its identity."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class AlreadyLocked(OSError):
    """Another process holds the lock."""


def lock(path: Path) -> BinaryIO:
    """Open the file, also in a new folder, and lock it until it is closed. Raises AlreadyLocked, or
    another OSError on a file system without locks, say. The operating system releases the lock when
    the process dies, so no stale lock is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "ab")  # noqa: SIM115
    try:
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise AlreadyLocked(error.errno, "locked") from error
        raise
    return file


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
