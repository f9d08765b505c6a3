"""A sitting: parts one after another, each a process of its own with a limit to its time.

A part writes its results as soon as they are known, and its outcome is in gpu_check.json as soon as
it ends: a sitting that is cut off loses at most the running part. The same command in the same
folder goes on with the parts that are not done. A part that fails, hangs or crashes the device's
context does not stop the others. A part that outlives its sitting (after `kill -9`) still holds the
folder's lock: no other measurement starts beside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from experiments.output import markdown_table
from experiments.training.json_files import read_json, write_json
from experiments.training.loop import clock
from experiments.training.study_lock import lock_study
from minibn import checkpoint
from minibn.errors import DataError

ROOT = Path(__file__).parent.parent.parent
SITTING = 25  # minutes for which the parts' seconds are meant
GRACE = 20  # seconds in which a part that is asked to stop may save
SMALL = 15 << 20  # bytes of files that are packed: the archive stays below 16 MiB
PACKED = {".json", ".jsonl", ".log", ".md", ".txt", ".xml"}


@dataclass(frozen=True)
class Part:
    """One part.

    seconds: its limit in a sitting of 25 minutes, in proportion in others. least: with less time
    left it is skipped. command: None if it cannot run; `instead` then says why. line: its result in
    one line, from its files. goes_on: it stops cleanly, and continues the next time.
    """

    name: str
    about: str
    seconds: float
    least: float
    command: list[str] | None
    line: Callable[[], str]
    instead: str = ""
    goes_on: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a part ended. status: done; goes on (it used all its time and continues the next time);
    failed, out of time, interrupted or skipped."""

    name: str
    about: str
    status: str
    line: str
    seconds: float = 0.0
    command: str = ""


class Sitting:
    """Outcomes in a folder."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        folder.mkdir(parents=True, exist_ok=True)
        before = read_json(self.path, parts=dict) if self.path.exists() else {"parts": {}}
        try:
            self.outcomes = {name: Outcome(**o) for name, o in before["parts"].items()}
        except TypeError:
            raise DataError(
                f"{self.path} is damaged: its parts have other keys. Restore it, or start a new "
                "--out."
            ) from None
        self._lock: TextIO | None = None

    @property
    def path(self) -> Path:
        return self.folder / "gpu_check.json"

    def status(self, part: Part) -> str:
        return self.outcomes[part.name].status if part.name in self.outcomes else ""

    def run(self, parts: Sequence[Part], minutes: float) -> None:
        """Run the parts within so many minutes. Raises KeyboardInterrupt, with all outcomes
        written, and UsageError if another sitting, or a part that outlived one, has the folder."""
        with lock_study(self.folder, "is being filled") as self._lock:
            self._run(parts, minutes)

    def _run(self, parts: Sequence[Part], minutes: float) -> None:
        scale = minutes / SITTING
        end = time.monotonic() + 60 * minutes
        for part in parts:
            left = end - time.monotonic()
            if part.command is None:
                self._note(Outcome(part.name, part.about, "skipped", part.instead))
            elif left < part.least * min(scale, 1.0):
                reason = f"{max(left, 0):.0f} s were left, it needs {part.least:.0f}"
                self._note(Outcome(part.name, part.about, "skipped", reason))
            else:
                self._note(self._run_part(part, min(left, part.seconds * scale)))

    def _run_part(self, part: Part, limit: float) -> Outcome:
        assert part.command is not None
        print(f"{part.name}: {part.about}, at most {clock(limit)} ...", flush=True)
        began = time.monotonic()
        log = self.folder / f"{part.name}.log"
        with log.open("w", encoding="utf-8") as out:
            code = run(part.command, out, limit, self._lock)
        seconds = time.monotonic() - began
        late = "goes on" if part.goes_on else "out of time"
        status = {0: "done", None: late, 130: "interrupted"}.get(code, "failed")
        try:
            line = part.line()
        except Exception as error:  # half-written files may raise any
            line = "" if status != "done" else f"its files can't be read: {error}"
            status = "failed" if status == "done" else status
        if status == "failed":
            line = "; ".join(filter(None, (line, last_line(log))))
        command = " ".join(part.command)
        return Outcome(part.name, part.about, status, line, round(seconds, 1), command)

    def _note(self, outcome: Outcome) -> None:
        self.outcomes[outcome.name] = outcome
        self.write()
        print(f"{outcome.name}: {outcome.status}. {outcome.line}", flush=True)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt

    def write(self) -> None:
        """gpu_check.json and summary.md, as they stand."""
        parts = {name: asdict(outcome) for name, outcome in self.outcomes.items()}
        write_json(self.path, {**self.about, "parts": parts})
        checkpoint.write_text(self.folder / "summary.md", self.summary() + "\n")

    def summary(self) -> str:
        rows = [[o.name, o.status, clock(o.seconds), o.line] for o in self.outcomes.values()]
        return markdown_table(["part", "", "time", "what it found"], rows, align=True)

    def pack(self) -> Path:
        """One archive of the small files, the smallest first, as many as fit."""
        found = [path for path in self.folder.rglob("*") if path.suffix in PACKED]
        archive, room, left_out = self.folder / "gpu_check.tar.gz", SMALL, []
        with (
            checkpoint.atomic_write(archive) as file,
            tarfile.open(fileobj=file, mode="w:gz") as tar,
        ):
            for path in sorted(found, key=lambda path: (path.stat().st_size, path)):
                room -= path.stat().st_size
                if room >= 0:
                    tar.add(path, path.relative_to(self.folder))
                else:
                    left_out.append(str(path.relative_to(self.folder)))
        if left_out:
            print(f"Too large for {archive.name}: {', '.join(sorted(left_out))}")
        return archive


def run(command: Sequence[str], log: Any, limit: float, lock: TextIO | None = None) -> int | None:
    """The exit code of a command; None if it was stopped after `limit` seconds, by SIGINT and then
    by SIGKILL. Ctrl-C stops it, too: code 130. lock: a file that the command keeps open."""
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, process_group=0,
        pass_fds=() if lock is None else (lock.fileno(),),
    )  # fmt: skip
    if lock is not None:
        with contextlib.suppress(OSError):  # a full disk
            lock.truncate(0)
            lock.write(f"{os.getpid()}, or its part {process.pid}")
            lock.flush()
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    except KeyboardInterrupt:
        return 130
    finally:
        for sign in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)


def last_line(log: Path) -> str:
    """The last line of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no output"
