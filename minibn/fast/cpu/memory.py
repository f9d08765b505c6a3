"""A memory pool for large arrays.

New memory is slow: its page faults cost as much as the pass that fills it (measured: a 32 MB copy
takes 4.0 ms into new memory, 2.6 ms into reused). NumPy returns the memory of every large array to
the system. The buffers of `empty` return to a pool when the last view of the array is freed, and
are reused for arrays of about their size, as in CuPy's memory pool. Buffers that were not reused
for a while are returned to the system; under `kernels("lean")`, for every new buffer as many bytes
at once.

Arrays begin on a cache line (64 bytes), so that no vector load straddles two.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import mmap
import os
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np

from minibn.autograd.dispatch import mode

SMALL = 1 << 20  # bytes: below it, malloc reuses memory itself
LINE = 64  # bytes of a cache line
PATIENCE = 1200  # calls after which an unused buffer is returned to the system


class _Lease:
    """The base of a pool array: NumPy keeps it alive as long as any view of the array."""

    __slots__ = ("__array_interface__", "__weakref__", "buffer")
    is_pool_buffer = True  # so an array with this base is not a view of another array

    def __init__(self, buffer: np.ndarray, interface: dict[str, Any]) -> None:
        self.buffer, self.__array_interface__ = buffer, interface
        end = _End(self, _returned.append)
        end.buffer = buffer
        _ends[id(end)] = end


class _End(weakref.ref):  # type: ignore[type-arg]  # of a _Lease
    """Appended to `_returned` when the last view is freed. That is no `__del__`, which Python would
    call, anywhere: a Ctrl-C that arrives in one is printed and forgotten."""

    __slots__ = ("buffer",)
    buffer: np.ndarray


_ends: dict[int, _End] = {}  # keeps them alive, by id
_returned: deque[_End] = deque()
_free: list[tuple[int, int, np.ndarray]] = []  # (bytes, when it came back, the buffer), by size
_calls = _swept = 0  # calls, and how many there were when _free was last gone through
_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may hold it while this one forks
    os.register_at_fork(after_in_child=_new_lock)


def _take(size: int, most: int) -> np.ndarray:
    """A buffer of at least `size` bytes: the smallest free one of at most `most`, or a new one."""
    global _calls, _swept
    with _lock:
        while _returned:
            buffer = _next_returned()
            if buffer is not None:
                _calls += 1  # so that no two entries are alike, and buffers are never compared
                bisect.insort(_free, (buffer.nbytes, _calls, buffer))
        _calls += 1
        if _calls >= _swept + 64:
            _swept = _calls
            _free[:] = [entry for entry in _free if entry[1] > _calls - PATIENCE]
        place = bisect.bisect_left(_free, (size,))
        if place < len(_free) and _free[place][0] <= most:
            return _free.pop(place)[2]
        if mode() == "lean":
            _give_back(size)
    return _new(size)


def _next_returned() -> np.ndarray | None:
    """The next buffer that came back. A Ctrl-C may arrive between any two of these lines, and of
    `_Lease`'s: a buffer is lent twice never, and else at most returned to the system."""
    end = _returned[0]
    _ends.pop(id(end), None)
    _returned.popleft()
    return getattr(end, "buffer", None)


def _new(size: int) -> np.ndarray:
    """New memory from the system by mmap, since malloc may not return freed memory."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
    try:
        memory = mmap.mmap(-1, size, **private)
    except OSError:
        raise MemoryError(
            f"no memory for an array of {size:,} bytes. Use a smaller batch."
        ) from None
    if hasattr(mmap, "MADV_HUGEPAGE"):  # as NumPy does: a page fault in 2 MB instead of in 4 KB
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _give_back(size: int) -> None:
    """Free the oldest buffers of the pool, `size` bytes or more.

    (A step of VGG-16 takes an eighth longer, and half of its memory is free between steps.)
    """
    for entry in sorted(_free, key=lambda entry: entry[1]):
        if size <= 0:
            return
        _free.remove(entry)
        size -= entry[0]


def empty(shape: tuple[int, ...], dtype: Any, waste: float = 0.25) -> np.ndarray:
    """An uninitialized array, as `np.empty`; a large one from the memory pool.

    waste: by which share of the array's size the buffer may be larger.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    size += LINE
    buffer = _take(size, int(size * (1 + waste)))
    start = -buffer.ctypes.data % LINE + buffer.ctypes.data
    interface = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (start, False)}
    return np.asarray(_Lease(buffer, interface))


def scratch(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """`empty` for temporary arrays: the buffer may be up to four times as large."""
    return empty(shape, dtype, waste=3)


def release() -> None:
    """Return all free buffers of the pool to the system."""
    with _lock:
        while _returned:
            _next_returned()
        _free.clear()


def free_bytes() -> int:
    """Bytes of the free buffers of the pool."""
    back = [getattr(end, "buffer", None) for end in list(_returned)]
    return sum(n for n, _, _ in _free) + sum(b.nbytes for b in back if b is not None)
