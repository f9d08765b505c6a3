"""Parallel parts on threads.

NumPy releases the interpreter's lock inside its loops and matrix products, so threads run in
parallel if each call is long: about 100,000 elements. `parallel` gives every thread one part; the
parts and the order in which their results are added depend on the number of threads only, so that
results repeat bit for bit at a fixed number.

Matrix products inside a part use one BLAS thread: nested threads on the same cores would wait for
each other.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from minibn.setting import Setting

SETTING = "MINIBN_NUM_THREADS"
_limit: Setting[int] = Setting("threads", 0)
_part: Setting[int | None] = Setting("part", None)  # the part that this thread runs


@functools.lru_cache(maxsize=8)
def _parse(setting: str | None) -> int:
    if not setting:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if not setting.isdecimal() or int(setting) < 1:
        raise ValueError(
            f"{SETTING}={setting!r} must be a number of threads, 1 or more. Unset it for all cores."
        )
    return int(setting)


def count() -> int:
    """Number of threads for kernels: by `limit_threads`, MINIBN_NUM_THREADS, or all cores."""
    if _part.get() is not None:  # a part does not divide its work again
        return 1
    return _limit.get() or _parse(os.environ.get(SETTING))


@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Context manager: the number of threads of kernels and of BLAS."""
    if threads < 1:
        raise ValueError(f"limit_threads: threads={threads} must be 1 or more.")
    with _limit.override(threads), _blas().limit(limits=threads, user_api="blas"):
        yield


class _Worker:
    """A thread that waits on a lock until it gets a part; it wakes in 10 µs.

    An executor's threads, with their queue and futures, take 80 µs more, 120 times a training step.
    """

    def __init__(self) -> None:
        self._go, self._done = threading.Lock(), threading.Lock()
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        self._go.acquire()
        self._done.acquire()
        threading.Thread(target=self._loop, name="minibn", daemon=True).start()

    def _loop(self) -> None:
        while True:
            self._go.acquire()
            try:
                self._outcome = self._part(), None
            except BaseException as error:
                self._outcome = None, error
            del self._part  # and the arrays it holds
            self._done.release()

    def start(self, part: Callable[[], Any]) -> None:
        self._part = part
        self._go.release()

    def outcome(self) -> tuple[Any, BaseException | None]:
        """(result, error) of the part. Waits until it has ended, also after a KeyboardInterrupt,
        since it still uses its arrays."""
        interrupted = None
        while True:
            try:
                self._done.acquire()
                break
            except KeyboardInterrupt as raised:
                interrupted = raised
        (result, error), self._outcome = self._outcome, (None, None)
        return result, error or interrupted


_workers: list[_Worker] = []
_working = threading.Lock()  # held by the thread whose parts the workers run


def _forget_workers() -> None:
    global _working
    _workers.clear()
    _working = threading.Lock()


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_forget_workers)


class _AsTheyAre:
    """In the place of threadpoolctl if it is not installed: BLAS keeps its number of threads."""

    def limit(self, **_: Any) -> AbstractContextManager[None]:
        return nullcontext()


@functools.cache
def _blas() -> Any:
    try:
        import threadpoolctl
    except ModuleNotFoundError:
        return _AsTheyAre()
    return threadpoolctl.ThreadpoolController()


_one = threading.Lock()  # held by the call that has set BLAS to one thread


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Context manager: every BLAS uses one thread; restored afterwards.

    The setting is global to the process. Of overlapping calls by several threads only the first
    sets and restores it; if each restored what it found, one thread would remain set.
    """
    if _part.get() is not None or _limit.get() == 1 or not _one.acquire(blocking=False):
        yield  # set already
        return
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        _one.release()


def parallel(part: Callable[[int], Any], threads: int | None = None) -> list[Any]:
    """[part(0), ..., part(threads - 1)], each in its own thread, the first in the calling one.

    NumPy's error settings and other context variables are copied to every part. The first exception
    is raised when all parts have ended. While another thread of the program uses the workers, the
    parts run here one after another, with the same results.
    """
    threads = count() if threads is None else threads
    with one_blas_thread():
        if threads == 1:
            return [part(0)]
        if not _working.acquire(blocking=False):
            return [_inside_a_part(part, i) for i in range(threads)]
        try:
            while len(_workers) < threads - 1:
                _workers.append(_Worker())
            return _shared_out(part, _workers[: threads - 1])
        finally:
            _working.release()


def _inside_a_part(part: Callable[[int], Any], i: int) -> Any:
    with _part.override(i):
        return part(i)


def _shared_out(part: Callable[[int], Any], workers: list[_Worker]) -> list[Any]:
    for i, worker in enumerate(workers, start=1):
        context = contextvars.copy_context()
        worker.start(functools.partial(context.run, _inside_a_part, part, i))
    try:
        first: tuple[Any, BaseException | None] = _inside_a_part(part, 0), None
    except BaseException as error:
        first = None, error
    outcomes = [first, *(worker.outcome() for worker in workers)]
    for _, failure in outcomes:
        if failure is not None:
            raise failure
    return [result for result, _ in outcomes]


def share(n: int, i: int, threads: int) -> slice:
    """Part i of n items, divided into `threads` slices of nearly equal length.

    >>> [share(5, i, 2) for i in range(2)]
    [slice(0, 2, None), slice(2, 5, None)]
    """
    return slice(n * i // threads, n * (i + 1) // threads)


def map_shares(work: Callable[[slice], Any], n: int, least: int = 1) -> list[Any]:
    """`work(slice)` for shares of n items, one per thread, of at least `least` items each."""
    threads = max(1, min(count(), n // max(least, 1)))
    return parallel(lambda i: work(share(n, i, threads)), threads)


def blocks(things: int | slice, size: int) -> Iterator[slice]:
    """Slices of `size` items over a number of items, or over a slice, in order.

    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    start, stop = (0, things) if isinstance(things, int) else (things.start, things.stop)
    return (slice(first, min(first + size, stop)) for first in range(start, stop, size))
