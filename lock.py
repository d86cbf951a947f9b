"""A lock between processes.

The operating system drops it when the process dies, so no stale lock is left behind. No I/O but of
the file that is locked.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def hold(path: Path) -> BinaryIO:
    """Lock a file until what is returned is closed. Raises BlockingIOError if another process has
    the lock, and any other OSError if the file cannot be opened or locked."""
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            file.seek(0)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError as error:  # EACCES or EDEADLK, whatever the cause
                raise BlockingIOError(*error.args) from error
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
