"""Work in parts, on the cores of this machine.

NumPy lets go of the interpreter's lock inside its loops and matrix products, so that threads run
in parallel as long as each call is long: about 100,000 elements. `parallel` gives every thread one
part; who does which part, and in which order the results are added, depends on the number of
threads only, so that a run repeats bit for bit at a fixed number.

Matrix products inside a part use one BLAS thread each: two levels of threads on the same cores
wait for each other.
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
_part: Setting[int | None] = Setting("part", None)  # the part that is being done here


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
    """How many threads kernels use: `limited` to, or MINIBN_NUM_THREADS, or all cores there are."""
    if _part.get() is not None:  # a part does not divide its work again
        return 1
    return _limit.get() or _parse(os.environ.get(SETTING))


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Inside, kernels use so many threads, and so does BLAS; afterwards as before."""
    if threads < 1:
        raise ValueError(f"limited: threads={threads} must be 1 or more.")
    with _limit.override(threads), _blas().limit(limits=threads, user_api="blas"):
        yield


class _Worker:
    """A thread that sleeps on a lock until it gets a part to do: it wakes in 10 µs.

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
        """(result, error) of the part, once it is done, whatever happens: its arrays must not go
        before it does."""
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
_working = threading.Lock()  # held by the thread whose parts the workers do


def _forget_workers() -> None:
    global _working
    _workers.clear()
    _working = threading.Lock()


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_forget_workers)


class _AsTheyAre:
    """In threadpoolctl's place where it is not installed: BLAS keeps the threads that it has."""

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
    """Inside, every BLAS uses one thread; afterwards as many as before.

    The setting is the whole process's. Of calls that overlap (by several threads of the program)
    the first sees to it alone: each putting back what it found would leave what the first had set.
    """
    if _part.get() is not None or _limit.get() == 1 or not _one.acquire(blocking=False):
        yield  # seen to already
        return
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        _one.release()


def parallel(part: Callable[[int], Any], threads: int | None = None) -> list[Any]:
    """[part(0), ..., part(threads - 1)], each in a thread of its own, one of them this one.

    NumPy's error settings and other context variables hold in every part. The first exception is
    raised when all parts have ended. While another thread of the program has the workers, the parts
    are done here one after another, with the same results.
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
    """Part i of n things cut into `threads` runs of nearly equal length.

    >>> [share(5, i, 2) for i in range(2)]
    [slice(0, 2, None), slice(2, 5, None)]
    """
    return slice(n * i // threads, n * (i + 1) // threads)


def in_shares(work: Callable[[slice], Any], n: int, least: int = 1) -> list[Any]:
    """`work(slice)` for shares of n things, one a thread, of at least `least` things each."""
    threads = max(1, min(count(), n // max(least, 1)))
    return parallel(lambda i: work(share(n, i, threads)), threads)


def blocks(things: int | slice, size: int) -> Iterator[slice]:
    """So many things, or those of a share, in order, `size` at a time.

    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    start, stop = (0, things) if isinstance(things, int) else (things.start, things.stop)
    return (slice(first, min(first + size, stop)) for first in range(start, stop, size))
