"""The process of a solution: loads it, and answers requests until its input ends.

`python -m minibn.testing.grading.student_process SOLUTION MEGABYTES SECONDS`. Requests arrive on
standard input, answers leave on standard output; the solution gets neither: it reads nothing, and
what it prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

from minibn.testing.grading import calls, wire
from minibn.testing.grading.solution_file import LoadError, describe, load

TASKS = 256  # threads and processes that a solution's user may start beside those that run


def limit(megabytes: int, seconds: int) -> None:
    """Bounds of the operating system, where it has them: memory, CPU seconds, processes, files."""
    try:
        import resource
    except ImportError:  # Windows
        return

    def set_limit(name: str, value: int) -> None:
        which = getattr(resource, name, None)
        if which is not None:
            with contextlib.suppress(ValueError, OSError):  # a lower one holds already
                resource.setrlimit(which, (value, value))

    set_limit("RLIMIT_AS", megabytes * 2**20)
    set_limit("RLIMIT_CPU", seconds)
    set_limit("RLIMIT_CORE", 0)
    set_limit("RLIMIT_FSIZE", 64 * 2**20)
    with contextlib.suppress(OSError):  # it is the whole user that is counted
        running = sum(1 for _ in Path("/proc").glob("[0-9]*/task/*"))
        set_limit("RLIMIT_NPROC", running + TASKS)


def stand_in() -> types.ModuleType:
    """`from minitorch import Function` works where minitorch is not installed."""
    module = types.ModuleType("minitorch")
    vars(module).update(Function=type("Function", (), {}), Context=calls.Context)
    return module


def main(solution: str, megabytes: str, seconds: str) -> None:
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)

    def send(message: Any) -> None:
        answers.write(wire.pack(message))
        answers.flush()

    path = Path(solution)
    sys.path.insert(0, str(path.parent))
    sys.argv = [solution]
    limit(int(megabytes), int(seconds))
    if importlib.util.find_spec("minitorch") is None:
        sys.modules["minitorch"] = stand_in()
    try:
        names = load(path)
        send({"names": calls.kinds(names)})
    except LoadError as error:
        send({"error": str(error)})
        return
    while True:
        try:
            request = wire.read(requests)
        except EOFError:
            return
        try:
            send(calls.answer(names, request))
        except MemoryError:
            send({"error": f"MemoryError: more than {megabytes} MB"})
        except (Exception, SystemExit) as error:
            send({"error": describe(error, path.parent)})


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # without waiting for threads that a solution started
