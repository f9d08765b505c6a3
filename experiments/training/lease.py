"""One process at a time writes to a run, also where the system has no locks.

A lease is the file RUN/.lease, which names its holder. The holder renews it while it trains, and
looks before every save whether it is still its own: after a pause of more than TIMEOUT seconds (a
stopped process, a laptop that slept) another process may have taken the run over. Then the first
writes nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from experiments.training.command_line import UsageError
from minibn import checkpoint

NAME = ".lease"
TIMEOUT = 600.0  # seconds without a renewal after which another process may take the run over


class Lease:
    """The right to write to a run, from `Lease.take` to `release`."""

    def __init__(self, run: Path) -> None:
        self.path = run / NAME
        self._me = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "token": secrets.token_hex(8),
        }
        self._renewed = 0.0

    @classmethod
    def take(cls, run: Path, *, locked: bool) -> Lease:
        """Take the lease of a run. locked: whether this process holds the lock of its study.

        Raises UsageError if another process holds it.
        """
        require_free(run, locked=locked)
        lease = cls(run)
        checkpoint.write_text(lease.path, json.dumps(lease._me) + "\n")
        lease._renewed = time.monotonic()
        return lease

    def check(self) -> None:
        """Raise UsageError if another process took the run over."""
        if _holder(self.path) != self._me:
            raise UsageError(
                f"{self.path.parent} was taken over by {_description(self.path)} while this one "
                "paused, so it wrote nothing more. Wait for the other, then continue with --resume."
            )

    def renew(self) -> None:
        """Now and then, say that the holder lives. Raises UsageError as `check` does."""
        if time.monotonic() - self._renewed > TIMEOUT / 10:
            self.check()
            os.utime(self.path)
            self._renewed = time.monotonic()

    def release(self) -> None:
        """Give it up, if it is still ours."""
        if _holder(self.path) == self._me:
            with contextlib.suppress(OSError):
                self.path.unlink()


def require_free(run: Path, *, locked: bool) -> None:
    """Raise UsageError if another process holds the lease of a run: one that lives, as far as can
    be known, and has renewed it within TIMEOUT.

    locked: whether this process holds the lock of the study. Then no other of this machine does.
    """
    path = run / NAME
    holder = _holder(path)
    if holder is None:
        return
    here = holder.get("host", socket.gethostname()) == socket.gethostname()
    if here and (locked or not _lives(holder.get("pid"))):
        return
    if (left := TIMEOUT - _age(path)) > 0:
        raise UsageError(
            f"{run} is being trained by {_description(path)}. Wait for it, or end it and wait for "
            f"{left:.0f} seconds, or delete {path} if it lives no more."
        )


def _holder(path: Path) -> dict[str, Any] | None:
    """Who holds the lease; None without one, {} if the file is damaged."""
    try:
        checkpoint.require_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and {"pid", "host"} <= content.keys() else {}


def _description(path: Path) -> str:
    holder = _holder(path)
    return f"process {holder['pid']} on {holder['host']}" if holder else "another process"


def _lives(pid: Any) -> bool:
    """Whether this machine has such a process."""
    if type(pid) is not int or pid <= 0 or not hasattr(os, "getpgid"):
        return True  # who knows
    try:
        os.getpgid(pid)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's, or no such number can be
        return True
    return True


def _age(path: Path) -> float:
    """Seconds since the lease was renewed, by the clock of the file system."""
    probe = path.with_name(f".{os.getpid()}{secrets.token_hex(4)}.part")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return TIMEOUT  # it was released
    finally:
        probe.unlink(missing_ok=True)
