"""A sitting: parts one after another, each a process of its own with a limit to its time.

A part writes its results as soon as they are known, and its outcome is in gpu_check.json as soon as
it ends: a sitting that is cut off loses at most the running part. The same command in the same
folder goes on with the parts that are not done. A part that fails, hangs or crashes the device's
context does not stop the others. If it can compute in several ways, it is run again in the next of
WAYS, with what the failed one left renamed, and the parts after it begin in that way; one that was
too late is tried again in its own way first, with warm caches. A part that outlives its sitting
(after `kill -9`) still holds the folder's lock: no other measurement starts beside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from experiments.training.json_files import read_json, write_json
from experiments.training.loop import clock
from experiments.training.study_lock import lock_study
from minibn import checkpoint
from minibn.errors import DataError

ROOT = Path(__file__).parent.parent.parent
SITTING = 540  # seconds for which the parts' limits are meant; a shorter one scales them down
PATIENCE = 10  # times as long may everything take in a rehearsal, on a CPU
LEAST = 2  # seconds without which a part is not begun
GRACE = 20  # seconds in which a part that is asked to stop may save
SMALL = 15 << 20  # bytes that the packed files may take: the archive stays below 16 MiB
PARTLY = 4  # the exit code of a part of whose checks some failed, but none that later parts need
PACKED = {".json", ".jsonl", ".log", ".md", ".txt"}

# How a GPU may compute, the fastest first: a captured graph of the step, one launch after another,
# the definitions in minibn.ops instead of our kernels.
WAYS = ("graph", "launches", "reference")


@dataclass(frozen=True)
class Part:
    """One part.

    seconds: its limit; None: all the time that the parts after it leave. command: of the process
    that runs it in one of WAYS; None if it cannot run; `instead` then says why. line: its result in
    one line, from its files; raises WrongResult if these show a failure. in_ways: whether a failure
    is tried again in the next way. partial: what it has when its time is over counts as its result.
    goes_on: it stops cleanly then, and continues the next time.
    """

    name: str
    about: str
    seconds: float | None
    command: Callable[[str], list[str]] | None
    line: Callable[[], str]
    instead: str = ""
    in_ways: bool = False
    partial: bool = False
    goes_on: bool = False


class WrongResult(Exception):
    """A part's files show a failure: its result in one line."""


RIGHT = ("done", "cut off", "goes on")
STATUSES = (*RIGHT, "partly", "failed", "out of time", "interrupted", "skipped")


@dataclass(frozen=True)
class Outcome:
    """How a part ended. status, one of STATUSES: done; cut off (it used all its time: what it has
    is its result); goes on (the same, and it continues the next time); partly (it has results, but
    not all are there, or right); failed, out of time, interrupted or skipped. failed_ways: the ways
    that failed before this one, each with the reason."""

    name: str
    about: str
    status: str
    line: str
    seconds: float = 0.0
    command: str = ""
    way: str = ""
    failed_ways: tuple[str, ...] = ()

    @classmethod
    def read(cls, record: dict[str, Any]) -> Outcome:
        """From the file. Raises TypeError or ValueError if it is damaged."""
        found = cls(**{**record, "failed_ways": tuple(record["failed_ways"])})
        texts = (found.name, found.about, found.line, found.command, *found.failed_ways)
        if not all(isinstance(text, str) for text in texts) or found.seconds < 0:
            raise TypeError("a text or the time is none")
        if found.status not in STATUSES or found.way not in ("", *WAYS):
            raise ValueError("no status, or no way")
        return found

    @property
    def is_right(self) -> bool:
        return self.status in RIGHT and not self.failed_ways


class Sitting:
    """Outcomes in a folder. environment: variables for the parts' processes."""

    def __init__(
        self, folder: Path, about: dict[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.about, self.environment = folder, about, dict(environment or {})
        folder.mkdir(parents=True, exist_ok=True)
        before = read_json(self.path, parts=dict) if self.path.exists() else {"parts": {}}
        try:
            self.outcomes = {name: Outcome.read(o) for name, o in before["parts"].items()}
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(
                f"{self.path} is damaged: its parts are no outcomes ({error}). Restore it, or "
                "start a new --out."
            ) from None
        self.way, self.holds_the_way = WAYS[0], False
        self._lock: TextIO | None = None

    @property
    def path(self) -> Path:
        return self.folder / "gpu_check.json"

    def status(self, part: Part) -> str:
        return self.outcomes[part.name].status if part.name in self.outcomes else ""

    def last_way(self, first: str, again: Sequence[str]) -> str:
        """The way in which the parts before ended, without those that run `again`; else `first`."""
        before = [o.way for o in self.outcomes.values() if o.way and o.name not in again]
        return max([first, *before], key=WAYS.index)

    def run(
        self, parts: Sequence[Part], seconds: float, way: str = WAYS[0], patience: int = 1
    ) -> None:
        """Run the parts within so many seconds, beginning in this way. patience: a factor on the
        time, and on all limits. Raises KeyboardInterrupt, with all outcomes written, and UsageError
        if another sitting, or a part that outlived one, has the folder."""
        self.way = way
        with lock_study(self.folder, "is being filled") as self._lock:
            share = min(1.0, seconds / SITTING) * patience
            end = time.monotonic() + seconds * patience
            for i, part in enumerate(parts):
                left = end - time.monotonic()
                later = share * sum(each.seconds or 0.0 for each in parts[i + 1 :])
                limit = left - later if part.seconds is None else min(left, share * part.seconds)
                if part.command is None:
                    self._note(Outcome(part.name, part.about, "skipped", part.instead))
                elif limit < LEAST:
                    reason = f"{max(limit, 0):.0f} s were left for it"
                    self._note(Outcome(part.name, part.about, "skipped", reason))
                else:
                    last = end if part.seconds else time.monotonic() + limit
                    self._note(self._run_in_ways(part, limit, last))

    def _run_in_ways(self, part: Part, limit: float, last: float) -> Outcome:
        """Run a part, after a failure in the next way, until `last`. Every try of a part with
        seconds of its own gets them all."""
        failed: list[str] = []
        first, was_late = self.way, False
        self._put_aside(part, "before")
        while True:
            outcome = self._run_once(part, limit, tuple(failed))
            ways = WAYS[WAYS.index(self.way) :] if part.in_ways and not self.holds_the_way else ()
            left = last - time.monotonic()
            if outcome.status not in ("failed", "out of time"):
                return outcome
            if outcome.status == "failed" or was_late:
                ways = ways[1:]
            was_late = outcome.status == "out of time" and not was_late
            if not ways or left < LEAST:  # whatever it was, it was not the way
                self.way = first
                return outcome
            failed.append(f"{self.way}: {outcome.status}, {outcome.line}")
            print(f"{part.name}: {failed[-1]}\n  again: {ways[0]}", flush=True)
            self._put_aside(part, self.way)
            self.way, limit = ways[0], min(limit, left)

    def _put_aside(self, part: Part, name: str) -> None:
        """Rename what an earlier try wrote, which would pass for this one's result."""
        for ending in (".json", ".log"):
            path = self.folder / (part.name + ending)
            if path.exists():
                path.replace(self.folder / f"{part.name}.{name}{ending}")

    def _run_once(self, part: Part, limit: float, failed: tuple[str, ...]) -> Outcome:
        assert part.command is not None
        command = part.command(self.way)
        print(f"{part.name}: {part.about}, at most {clock(limit)} ...", flush=True)
        began = time.monotonic()
        log = self.folder / f"{part.name}.log"
        with log.open("w", encoding="utf-8") as out:
            code = run(command, out, limit, self._lock, self.environment)
        seconds = time.monotonic() - began
        late = "goes on" if part.goes_on else "cut off" if part.partial else "out of time"
        status = {0: "done", None: late, 130: "interrupted", PARTLY: "partly"}.get(code, "failed")
        try:
            line = part.line()
            if status == "failed" and part.partial:  # it has results: another way has no more
                status = "partly"
        except WrongResult as error:
            line, status = str(error), "partly"
        except Exception as error:  # half-written files may raise any
            line = "" if status != "done" else f"its files can't be read: {error}"
            status = "failed" if status in ("done", "cut off") else status
        if status in ("failed", "partly") and code != PARTLY:
            line = "; ".join(filter(None, (line, last_line(log))))
        way = self.way if part.in_ways else ""
        return Outcome(
            part.name, part.about, status, line, round(seconds, 1), " ".join(command), way, failed
        )

    def _note(self, outcome: Outcome) -> None:
        self.outcomes[outcome.name] = outcome
        self.write()
        with contextlib.suppress(OSError):  # a full disk; at the end it is reported
            self.pack()  # now: the machine may be taken away
        print(f"{outcome.name}: {outcome.status}. {outcome.line}", flush=True)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt

    def write(self) -> None:
        """gpu_check.json and summary.md, as they stand."""
        parts = {name: asdict(outcome) for name, outcome in self.outcomes.items()}
        write_json(self.path, {**self.about, "parts": parts})
        checkpoint.write_text(self.folder / "summary.md", self.summary() + "\n")

    def summary(self) -> str:
        lines = []
        for o in self.outcomes.values():
            how = ", ".join(filter(None, (o.status, o.way, clock(o.seconds))))
            lines.append(f"- **{o.name}** ({how}): {o.line}")
            lines += [f"    - before, {each}" for each in o.failed_ways]
        return "\n".join(lines)

    def pack(self) -> Path:
        """One archive of the small files, the smallest first, as many as fit when compressed."""
        found = [path for path in self.folder.rglob("*") if path.suffix in PACKED]
        archive, room, left_out = self.folder / "gpu_check.tar.gz", SMALL, []
        sizes = {path: len(zlib.compress(path.read_bytes())) for path in found}
        with (
            checkpoint.atomic_write(archive) as file,
            tarfile.open(fileobj=file, mode="w:gz") as tar,
        ):
            for path in sorted(found, key=lambda path: (sizes[path], path)):
                room -= sizes[path] + 1024  # a header, padding
                if room >= 0:
                    tar.add(path, path.relative_to(self.folder))
                else:
                    left_out.append(str(path.relative_to(self.folder)))
        if left_out:
            print(f"Too large for {archive.name}: {', '.join(sorted(left_out))}")
        return archive


def run(
    command: Sequence[str],
    log: Any,
    limit: float,
    lock: TextIO | None = None,
    environment: Mapping[str, str] | None = None,
) -> int | None:
    """The exit code of a command; None if it was stopped after `limit` seconds, by SIGINT and then
    by SIGKILL. Ctrl-C stops it, too: code 130. lock: a file that the command keeps open."""
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, process_group=0,
        pass_fds=() if lock is None else (lock.fileno(),),
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    try:
        if lock is not None:
            with contextlib.suppress(OSError):  # a full disk
                lock.truncate(0)
                lock.write(f"{os.getpid()}, or its part {process.pid}")
                lock.flush()
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    except KeyboardInterrupt:
        return 130
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    """End a process and all that it started: by SIGINT, so that it may save; after GRACE seconds,
    or another Ctrl-C, by SIGKILL."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired, KeyboardInterrupt):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError):  # its children, if it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    """The last line of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no output"
