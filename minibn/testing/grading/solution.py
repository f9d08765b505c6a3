"""A solution that can be called: in a process of its own, within limits, or in this one.

The verdict is computed in the grader's process from the arrays that arrive. A solution that prints
results, ends the program or replaces functions of minibn changes nothing but its own arrays.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import minibn
from minibn.testing.grading import calls, wire
from minibn.testing.grading.solution_file import describe

PRINTED = 4000  # characters of what a solution prints that are reported
START = 20.0  # seconds that Python and its libraries have to start, at least


class StudentError(Exception):
    """An error of the solution's own, in one line with its place."""


class Stopped(StudentError):
    """The solution took too long, or its process ended."""


class CannotRun(StudentError):
    """The solution can't be loaded."""


class Printed:
    """The beginning of what was printed, whatever its length."""

    def __init__(self) -> None:
        self.text, self.dropped = "", 0

    def add(self, text: str) -> None:
        room = PRINTED - len(self.text)
        self.text += text[:room]
        self.dropped += len(text[room:])

    def __str__(self) -> str:
        rest = f"\n... and {self.dropped} characters more" if self.dropped else ""
        return self.text + rest


class SolutionProcess:
    """The file `path`, run in a process of its own with a memory limit.

    time_limit   seconds that the solution may use in all; `part_limit`: between two calls of
                 `begin_part`. The time that the grader itself takes is not counted
    """

    def __init__(
        self, path: Path, time_limit: float = 60, part_limit: float = 10, megabytes: int = 4096
    ) -> None:
        self.path, self.megabytes = path.resolve(), megabytes
        self.time_limit, self.part_limit = time_limit, part_limit
        self.left, self.left_in_part = time_limit, part_limit
        self.printed = Printed()
        self.process: subprocess.Popen[bytes] | None = None
        self.why_stopped = ""

    def __enter__(self) -> SolutionProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def begin_part(self) -> None:
        self.left_in_part, self.why_stopped = self.part_limit, ""

    def names(self) -> dict[str, str]:
        """name -> kind of what the solution defines. Raises CannotRun."""
        try:
            return self._start()
        except Stopped as error:
            raise CannotRun(str(error)) from None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Raises StudentError; after Stopped every call does so until the next part."""
        if self.why_stopped:
            raise Stopped(self.why_stopped)
        if self.process is None or self.process.poll() is not None:
            self._start()
        assert self.process is not None and self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: the answer says so
            self.process.stdin.write(wire.pack(request))
            self.process.stdin.flush()
        answer = self._receive(min(self.left, self.left_in_part))
        if "error" in answer:
            raise StudentError(answer["error"])
        return answer

    def _start(self) -> dict[str, str]:
        self.kill()
        if self.left <= 0:
            self._stop(f"the time limit of {self.time_limit:g} s in all is used up")
        here = str(Path(minibn.__file__).parent.parent)
        path = os.pathsep.join(x for x in (here, os.environ.get("PYTHONPATH", "")) if x)
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "minibn.testing.grading.student_process",
                str(self.path), str(self.megabytes), str(int(self.time_limit + START) + 1),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.path.parent, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **threads},
        )  # fmt: skip
        self._answers: queue.Queue[Any] = queue.Queue()
        self._readers = [
            threading.Thread(target=target, args=(self.process, self._answers), daemon=True)
            for target in (self._read_answers, self._read_printed)
        ]
        for reader in self._readers:
            reader.start()
        answer = self._receive(max(self.left, START))
        if "error" in answer:
            raise CannotRun(answer["error"])
        return dict(answer["names"])

    def _read_answers(self, process: subprocess.Popen[bytes], answers: queue.Queue[Any]) -> None:
        try:
            while True:
                answers.put(wire.read(process.stdout))  # type: ignore[arg-type]  # a pipe
        except (EOFError, OSError, ValueError) as error:
            answers.put(error)

    def _read_printed(self, process: subprocess.Popen[bytes], _: queue.Queue[Any]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(process.stderr.fileno(), 65536):  # type: ignore[union-attr]
                self.printed.add(data.decode("utf-8", "replace"))

    def _receive(self, seconds: float) -> dict[str, Any]:
        start = time.monotonic()
        try:
            answer = self._answers.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            whole = self.left <= self.left_in_part
            limit = self.time_limit if whole else self.part_limit
            self._stop(
                f"it was stopped after {limit:g} s{' in all' if whole else ''}: an endless loop?"
            )
        finally:
            used = time.monotonic() - start
            self.left -= used
            self.left_in_part -= used
        if isinstance(answer, wire.BadMessage):
            self._stop(f"it wrote into the grader's channel ({answer})")
        if isinstance(answer, dict) and (
            "error" in answer or "steps" in answer or "names" in answer
        ):
            return answer
        process = self.process
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        self._stop(f"its process ended ({_how_it_ended(process.returncode)})")
        raise AssertionError  # for the type checker: _stop raises

    def _stop(self, why: str) -> None:
        self.kill()
        self.why_stopped = why
        raise Stopped(why)

    def kill(self) -> None:
        """End the process and those that it started."""
        process, self.process = self.process, None
        if process is None:
            return
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # its session: also of one that ended
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]  # a pipe
        for reader, pipe in zip(self._readers, (process.stdout, process.stderr), strict=True):
            reader.join(1)
            if not reader.is_alive():  # else a process that left the session holds the pipe
                pipe.close()  # type: ignore[union-attr]


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "it closed its output"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


class Namespace:
    """Functions that exist already, of a notebook for instance: called here, without limits."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.namespace = names
        self.printed = Printed()
        self.why_stopped = ""

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin_part(self) -> None:
        pass

    def names(self) -> dict[str, str]:
        return calls.kinds(self.namespace)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._captured():
            try:
                answer = calls.answer(self.namespace, wire.copy(request))
                return wire.copy(answer)
            except (Exception, SystemExit) as error:
                raise StudentError(describe(error)) from None

    @contextlib.contextmanager
    def _captured(self) -> Iterator[None]:
        printed = self.printed

        class Writer(io.TextIOBase):
            def write(self, text: str) -> int:
                printed.add(text)
                return len(text)

        states = (contextlib.redirect_stdout(Writer()), contextlib.redirect_stderr(Writer()))  # type: ignore[type-var]
        with states[0], states[1]:
            yield
