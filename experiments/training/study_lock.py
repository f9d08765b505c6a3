"""One process at a time trains a study: two would write every line twice.

The lock is the system's (flock) on STUDY/.lock, and ends with the process, however that ends. The
file holds the process's id. Readers do not lock. Windows and some network file systems have no
such locks: there, each run's lease keeps others away (see `lease`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from experiments.training.command_line import UsageError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock_study(study: Path, busy: str = "is being trained") -> Iterator[TextIO | None]:
    """Hold the lock within the block. Yields the locked file, or None where there are no locks.

    Raises UsageError if another process holds it. busy: what it does there, for the message.
    """
    path = study / ".lock"
    file = open_lock(path, busy)
    try:
        yield file
    finally:
        if file is not None:
            with file, contextlib.suppress(OSError):
                path.unlink()  # while it is ours


def open_lock(path: Path, busy: str = "is being trained") -> TextIO | None:
    """The file, locked; None where there are no locks. Raises UsageError if another holds it."""
    if fcntl is None:
        return None
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink == 0:
            raise BlockingIOError  # its holder ended and removed it after we had opened it
        with contextlib.suppress(OSError):  # a full disk: it is locked all the same
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        return file
    except BlockingIOError:
        with file:
            file.seek(0)
            pid = file.read().strip()
        holder = f"process {pid}" if pid else "another process"
        raise UsageError(f"{path.parent} {busy} by {holder}. Wait for it, or end it.") from None
    except OSError:
        with file, contextlib.suppress(OSError):
            path.unlink()
        return None
    except BaseException:  # a Ctrl-C: not locked while its traceback is kept
        file.close()
        raise
