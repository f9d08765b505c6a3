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
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    if not setting.isdecimal() or len(setting) > 4 or int(setting) < 1:
        raise ValueError(
            f"{SETTING}={setting!r:.40} must be a number of threads, 1 to 9999. Unset it for all "
            "cores."
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
    before = [(library, library.num_threads) for library in _blas()]
    try:
        for library in _blas():
            library.set_num_threads(threads)
        with _limit.override(threads):
            yield
    finally:
        for library, n in before:
            library.set_num_threads(n)


class _Task:
    """One part of a call. Whoever calls `run` first runs it: a worker, or the calling thread."""

    __slots__ = ("_begun", "_ended", "_part", "error", "result")

    def __init__(self, part: Callable[[], Any]) -> None:
        self._part = part
        self._begun, self._ended = threading.Lock(), threading.Lock()
        self._ended.acquire()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the part, unless it was begun or cancelled."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            self.result = self._part()
        except BaseException as error:
            self.error = error  # raised in the calling thread
        del self._part  # and the arrays it holds
        self._ended.release()

    def cancel(self) -> None:
        """If it was not begun, it never will be."""
        if self._begun.acquire(blocking=False):
            self._ended.release()

    def wait(self, timeout: float = -1) -> None:
        """Wait until it has ended. An exception of a signal handler ends the waiting."""
        if self._ended.acquire(timeout=timeout):
            self._ended.release()

    def take(self) -> Any:
        """The result, which the task no longer holds: a worker may not have seen it yet."""
        result, self.result = self.result, None
        return result


# Workers are threads that take tasks from a queue, forever; one wakes in 10 µs. (An executor's
# futures take 80 µs more, 120 times a training step.) They have no other state, so there is none
# that an interrupted call could leave wrong.
_tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
_workers: list[threading.Thread] = []


def _work(tasks: queue.SimpleQueue[_Task]) -> None:
    while True:
        tasks.get().run()


def _start_workers(n: int) -> None:
    """Start workers until there are n, or no thread can be started (as in a browser)."""
    while len(_workers) < n:
        worker = threading.Thread(target=_work, args=(_tasks,), name="minibn", daemon=True)
        try:
            worker.start()
        except RuntimeError:
            return
        _workers.append(worker)


GRACE = 0.2  # seconds that an interrupted call waits for parts that other threads run


def parallel(part: Callable[[int], Any], threads: int | None = None) -> list[Any]:
    """[part(0), ..., part(threads - 1)], each in its own thread, the first in the calling one.

    NumPy's error settings and other context variables are copied to every part. A part that no
    other thread has begun when the first has ended runs here, with the same result; so all of them
    do if no thread can be started, or inside of a part. The first exception is raised when all
    parts have ended.

    An interrupt (KeyboardInterrupt, SystemExit, or what a signal handler raises while this thread
    waits) cancels the parts that were not begun, and is raised at once: when those that other
    threads run have ended, or after GRACE. A part that runs longer keeps its own arrays, and its
    result is dropped.
    """
    threads = count() if threads is None else threads
    with one_blas_thread():
        if threads == 1:
            return [part(0)]
        if _part.get() is not None:
            return [_inside_a_part(part, i) for i in range(threads)]
        tasks = [
            _Task(functools.partial(contextvars.copy_context().run, _inside_a_part, part, i))
            for i in range(threads)
        ]
        try:
            _start_workers(threads - 1)
            for task in tasks[1:]:
                _tasks.put(task)
            for task in (tasks[0], *reversed(tasks)):  # the last is the last that a worker takes
                task.run()
                if task.error is not None and not isinstance(task.error, Exception):
                    raise task.error
            for task in tasks:
                task.wait()
        except BaseException:  # an interrupt: errors of parts are raised below
            _abandon(tasks)
            raise
    try:
        for task in tasks:
            if task.error is not None:
                raise task.error
        return [task.take() for task in tasks]
    finally:
        del task, tasks  # an error's traceback would hold them, and they the error


def _inside_a_part(part: Callable[[int], Any], i: int) -> Any:
    with _part.override(i):
        return part(i)


def _abandon(tasks: Sequence[_Task]) -> None:
    for task in tasks:
        task.cancel()
    until = time.monotonic() + GRACE
    for task in tasks:
        task.wait(max(0.0, until - time.monotonic()))


# -- BLAS


@functools.cache
def _blas() -> Any:
    """The libraries of BLAS, with `num_threads` and `set_num_threads`; none without threadpoolctl:
    then they keep their number of threads."""
    try:
        import threadpoolctl
    except ModuleNotFoundError:
        return ()
    found = threadpoolctl.ThreadpoolController().lib_controllers
    return tuple(library for library in found if library.user_api == "blas")


class _Claim:
    """Held by the call that has set BLAS to one thread. It is gone if that call was interrupted,
    even where an interrupt kept it from restoring anything."""


def _unclaimed() -> _Claim | None:
    return None


_claim: Callable[[], _Claim | None] = _unclaimed  # or a weak reference to the claim
_claiming = threading.Lock()
_before: list[tuple[Any, int]] = []  # (library, number of threads to restore)


def _claim_blas() -> _Claim | None:
    """A claim; None if another call has one."""
    global _claim
    with _claiming:
        if _claim() is not None:
            return None
        claim = _Claim()
        _claim = weakref.ref(claim)
        return claim


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Context manager: every BLAS uses one thread; restored afterwards.

    The setting is global to the process. Of overlapping calls by several threads only the first
    sets and restores it; if each restored what it found, one thread would remain set.
    """
    if _part.get() is not None or _limit.get() == 1:
        yield  # set already
        return
    claim = _claim_blas()
    if claim is None:
        yield
        return
    try:
        if not _before:  # else they are those of a call that was interrupted
            _before[:] = [(library, library.num_threads) for library in _blas()]
        for library, _ in _before:
            library.set_num_threads(1)
        yield
    finally:
        for library, before in _before:
            library.set_num_threads(before)
        _before.clear()


# -- a fork


def _after_fork() -> None:
    """A child has none of its parent's threads, and its locks may be held by one of them."""
    global _tasks, _claim, _claiming
    _tasks = queue.SimpleQueue()
    _workers.clear()
    _claim, _claiming = _unclaimed, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_blas, after_in_child=_after_fork)  # imports nothing in a child


# -- shares and blocks


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
