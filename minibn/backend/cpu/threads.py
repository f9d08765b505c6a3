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
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

SETTING = "MINIBN_NUM_THREADS"
_limit: contextvars.ContextVar[int] = contextvars.ContextVar("minibn_threads", default=0)
_inside = threading.local()  # .part is set in a thread that is doing a part already


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
    if hasattr(_inside, "part"):  # a part does not divide its work again
        return 1
    return _limit.get() or _parse(os.environ.get(SETTING))


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Inside, kernels use so many threads, and so does BLAS; afterwards as before."""
    if threads < 1:
        raise ValueError(f"limited: threads={threads} must be 1 or more.")
    token = _limit.set(threads)
    try:
        with _blas().limit(limits=threads, user_api="blas"):
            yield
    finally:
        _limit.reset(token)


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # brings logging with it: not at start-up

    return ThreadPoolExecutor(workers, thread_name_prefix="minibn")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


@functools.cache
def _blas() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, every BLAS uses one thread; afterwards as many as before."""
    if hasattr(_inside, "part") or _limit.get() == 1:  # seen to already
        yield
        return
    with _blas().limit(limits=1, user_api="blas"):
        yield


def parallel(part: Callable[[int], Any], threads: int | None = None) -> list[Any]:
    """[part(0), ..., part(threads - 1)], each in a thread of its own, one of them this one.

    NumPy's error settings and other context variables hold in every part. The first exception is
    raised when all parts have ended.
    """
    threads = count() if threads is None else threads
    if threads == 1:
        with one_blas_thread():
            return [part(0)]

    def run(i: int) -> Any:
        _inside.part = i
        try:
            return part(i)
        finally:
            del _inside.part

    with one_blas_thread():
        others = [
            _pool(threads - 1).submit(contextvars.copy_context().run, run, i)
            for i in range(1, threads)
        ]
        try:
            first = run(0)
        finally:
            for other in others:
                other.exception()  # waits: no part outlives the call
        return [first, *(other.result() for other in others)]


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
