"""Commands that print on any terminal: of any encoding, into a closed stream, into `head`."""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

READER_GONE = 141  # the exit code that a shell reports for a program whose output nobody reads
UNWRITABLE = 2
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def prints_anywhere(main: Callable[P, R]) -> Callable[P, R | int]:
    """A decorator of a command's `main`: what it prints never ends it with a traceback.

    A character that the encoding of standard output or error lacks (σ in ascii) is printed as its
    escape (\\\\u03c3); what is printed into a stream that was closed at the start is dropped. If
    nobody reads the output any more, as after `| head`, the command ends with READER_GONE; if it
    can't be written, as to a file on a full disk, with one line and UNWRITABLE.
    """

    @functools.wraps(main)
    def command(*arguments: P.args, **options: P.kwargs) -> R | int:
        open_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            escape_unprintable(stream)
        result: R | int = 0
        try:
            try:
                result = main(*arguments, **options)
            except SystemExit:  # after --help
                _flush()
                raise
            _flush()
            return result
        except BrokenPipeError:
            code = READER_GONE
        except OSError as error:
            if error.errno not in FULL or error.filename is not None:  # not of a stream
                raise
            code = UNWRITABLE
            if result != UNWRITABLE:  # else main reported it
                with contextlib.suppress(OSError):
                    text = f"the output can't be written: {error.strerror or error}"
                    print(text, file=sys.stderr, flush=True)
        for stream in (sys.stdout, sys.stderr):
            drop_unwritable(stream)
        return code

    return command


def open_closed_streams() -> None:
    """Open standard streams that were closed at the start (`2>&-`) on the null device: else they
    are None, and the next file that is opened, a checkpoint perhaps, takes their place for children
    and C libraries."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  to the end


def escape_unprintable(stream: Any) -> None:
    """Let a stream print the escape of a character that its encoding lacks."""
    encoding, errors = getattr(stream, "encoding", None), getattr(stream, "errors", None)
    if not encoding or not hasattr(stream, "reconfigure"):
        return
    lacks_some = not codecs.lookup(encoding).name.startswith("utf")
    if errors == "strict" or (errors == "surrogateescape" and lacks_some):
        stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def drop_unwritable(stream: Any) -> None:
    """Point a stream that can't be written at the null device, so that its last flush succeeds."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
