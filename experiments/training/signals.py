"""Ctrl-C, SIGTERM and a terminal that hangs up: the first request saves, the second ends."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from minibn.console import drop_unwritable

STOP = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
             if hasattr(signal, name))  # fmt: skip
PATIENCE = 5.0  # seconds in which the program may end by itself after the second request


def _handle(handler: Any, signals: Iterable[Any]) -> dict[Any, Any]:
    """Handle these signals, and return the handlers before. `nohup` stays in force."""
    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        for s in signals:
            if s == signal.SIGINT or signal.getsignal(s) is not signal.SIG_IGN:
                before[s] = signal.signal(s, handler)
    return before


@contextmanager
def interrupts() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""
    before = _handle(signal.default_int_handler, set(STOP) - {signal.SIGINT})
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect the signals of STOP, so that the step is finished; a second one interrupts at once.

    The second always ends the program. Python raises KeyboardInterrupt only between instructions of
    the main thread, takes two signals for one until then, and drops an exception that meets a
    destructor. So a thread counts the signals as the system delivers them; if the main thread has
    not left the block PATIENCE seconds after the second, it ends the process with code 130.
    """
    asked: list[int] = []

    def note(signum: int, frame: Any) -> None:
        asked.append(signum)
        if len(asked) == 2:
            raise KeyboardInterrupt

    before = _handle(note, STOP)
    if not before:
        yield asked
        return
    left = threading.Event()
    try:
        with _watched(left, asked):
            yield asked
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def _watched(left: threading.Event, asked: list[int]) -> Iterator[None]:
    """A block in which `_watch` sees the signals."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=_watch, args=(reader, left, asked), daemon=True).start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        left.set()
        os.close(writer)  # which ends the watcher


def _watch(reader: int, left: threading.Event, asked: list[int]) -> None:
    """After the second signal, see that the block is left. Until then the pipe stays open: Python
    would complain of each further signal."""
    count = 0
    with os.fdopen(reader, "rb", buffering=0) as signals:
        while count < 2:
            if not (byte := signals.read(1)):
                return
            count += byte[0] in STOP
        end = time.monotonic() + PATIENCE
        while not left.wait(0.1):
            if len(asked) == 1:
                _thread.interrupt_main()  # Python took the two for one
            if time.monotonic() > end:
                with contextlib.suppress(OSError):
                    os.write(2, b"\nStopped, up to the last checkpoint.\n")
                os._exit(130)


def say_last(text: str) -> None:
    """Print the last words of a program that was stopped, if the terminal is still there."""
    try:
        print(text, flush=True)
    except OSError:  # else it would be tried again, and fail, when Python ends
        drop_unwritable(sys.stdout)
