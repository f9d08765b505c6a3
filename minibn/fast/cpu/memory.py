"""Large arrays whose memory is used again.

Fresh memory is slow: the system hands out pages of zeros, one fault each, which costs as much as
the pass that fills them (measured: a 32 MB copy takes 4.0 ms into fresh memory, 2.6 ms into used).
NumPy gives every large array back to the system. `empty` keeps it instead: when the last view of an
array has died, its buffer waits for the next array of about its size, as in CuPy's memory pool.
Buffers that nobody took for a while are given back; with `kernels("lean")` at once as many as are
newly taken.

Arrays begin on a cache line (64 bytes), so that no vector load straddles two.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import mmap
import os
import threading
from collections import deque
from typing import Any

import numpy as np

from minibn.autograd.dispatch import mode

SMALL = 1 << 20  # bytes: below it, malloc has the memory at hand
LINE = 64  # bytes of a cache line
PATIENCE = 1200  # a buffer is given back that so many buffers came and went beside


class _Lease:
    """The owner of an array's memory: NumPy keeps it alive as long as any view of the array."""

    __slots__ = ("__array_interface__", "buffer")
    is_pool_buffer = True  # to one array: what has this as its base is no view of another array

    def __init__(self, buffer: np.ndarray, interface: dict[str, Any]) -> None:
        self.buffer, self.__array_interface__ = buffer, interface

    def __del__(self) -> None:
        _returned.append(self.buffer)  # atomic: this may run anywhere, even inside `empty`


_returned: deque[np.ndarray] = deque()
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
            buffer = _returned.popleft()
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


def _new(size: int) -> np.ndarray:
    """Fresh memory straight from the system: what malloc gets back it may keep."""
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
    """Free what waits longest, as much as is about to be taken: none of it was of use here.

    (A step of VGG-16 takes an eighth longer so, and half of its memory is free between steps.)
    """
    for entry in sorted(_free, key=lambda entry: entry[1]):
        if size <= 0:
            return
        _free.remove(entry)
        size -= entry[0]


def empty(shape: tuple[int, ...], dtype: Any, waste: float = 0.25) -> np.ndarray:
    """An array of this shape with any values in it, as `np.empty`; large ones from used memory.

    waste: what share of its size the buffer may have beyond it.
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
    """`empty` for what is given back soon: it may take a buffer of up to four times its size."""
    return empty(shape, dtype, waste=3)


def release() -> None:
    """Give all memory that waits for its next use back to the system."""
    with _lock:
        _returned.clear()
        _free.clear()


def waiting() -> int:
    """How many bytes wait for their next use."""
    return sum(n for n, _, _ in _free) + sum(buffer.nbytes for buffer in list(_returned))
