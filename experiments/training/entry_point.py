"""How a program ends: its exit code, and one line for an error."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.training.command_line import UsageError, report
from experiments.training.signals import say_last
from minibn.console import prints_anywhere
from minibn.errors import BackendUnavailable, DataError

Arguments = Sequence[str] | None


def program(
    name: str,
    *,
    stopped: str = "Stopped.",
    remedy: str = "Ask for less.",
    errors: tuple[type[Exception], ...] = (),
) -> Callable[[Callable[[Arguments], int | None]], Callable[..., int]]:
    """A decorator that makes a `main` return its exit code: its own or 0; 2 after one line that
    says what is wrong; 130 when it was stopped by Ctrl-C.

    stopped: what is printed then. remedy: the advice if memory is exhausted. errors: exceptions
    that are reported in one line, beside those for bad input, bad files and missing backends.
    """

    reported: tuple[type[Exception], ...] = (
        UsageError,
        DataError,
        BackendUnavailable,
        OSError,
        *errors,
    )

    def decorate(work: Callable[[Arguments], int | None]) -> Callable[..., int]:
        @prints_anywhere
        @functools.wraps(work)
        def main(arguments: Arguments = None) -> int:
            try:
                return work(arguments) or 0
            except BrokenPipeError:  # nobody reads what is printed: `prints_anywhere` ends it
                raise
            except reported as error:
                if isinstance(error, OSError) and error.filename is not None:
                    what = f"{error.strerror} ({error.filename}). Fix that, or use another folder."
                    return report(name, OSError(what))
                return report(name, error)
            except MemoryError as error:
                asked = f": {error}" if str(error) else ""
                return report(name, MemoryError(f"Memory is exhausted{asked}. {remedy}"))
            except KeyboardInterrupt:
                say_last(f"\n{stopped}")
                return 130

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
