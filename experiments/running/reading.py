"""What the programs share that read studies and train nothing: how they end, where they write."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.running.command_line import UsageError, report
from minibn.errors import BackendUnavailable, DataError

Arguments = Sequence[str] | None


def program(name: str) -> Callable[[Callable[[Arguments], None]], Callable[..., int]]:
    """A decorator that makes a `main` return its exit code: 0, or 2 after one line that says what
    is wrong (memory that isn't there as well), or 130 when it was stopped by Ctrl-C."""

    def decorate(work: Callable[[Arguments], None]) -> Callable[..., int]:
        @functools.wraps(work)
        def main(arguments: Arguments = None) -> int:
            try:
                work(arguments)
            except (UsageError, DataError, BackendUnavailable, OSError) as error:
                return report(name, error)
            except MemoryError as error:
                asked = f": {error}" if str(error) else ""
                return report(name, MemoryError(f"Memory is exhausted{asked}. Ask for less."))
            except KeyboardInterrupt:
                print("\nStopped.", flush=True)
                return 130
            return 0

        return main

    return decorate


def check_out(out: str | None) -> None:
    """Raise UsageError, before any work is done, if --out names what can't be a folder."""
    if out is None:
        return
    for path in (Path(out), *Path(out).parents):
        if path.exists() and not path.is_dir():
            where = "is" if path == Path(out) else f"lies in {path}, which is"
            raise UsageError(f"--out {out} {where} a file, not a folder. Choose another.")
