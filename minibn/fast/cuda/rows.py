"""How an activation (..., C) is shared out over threads, for passes that work channel by channel.

A block of 256 threads takes some rows (pixels) after another, each thread always the same channels:
four of them where C is a multiple of 4, which one load of 16 bytes brings. What each block adds up
goes to memory, and a second, small launch adds that, always in the same order: results do not
depend on the device or on chance, as they would with atomic additions. See rows.cuh.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from minibn.backend import backend_of
from minibn.fast.cuda.program import LARGEST

THREADS = 256  # of a block; also in rows.cuh
BLOCKS = 2048  # at most: some for each multiprocessor of a large GPU, however many it holds
SUMMING = 512  # the same where each block leaves sums, which somebody has to add
MOST = LARGEST - 2 * THREADS  # values: positions are counted one step beyond the end


class Grid(NamedTuple):
    """Blocks (along the rows, along the channels), and how many rows or windows one takes."""

    blocks: tuple[int, int]
    chunk: int


class Rows:
    """An activation of this shape: R rows of C channels, V of them to a thread."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.C = shape[-1]
        self.R = math.prod(shape[:-1])
        self.V = 4 if self.C % 4 == 0 else 1
        self.groups = min(self.C // self.V, THREADS)  # of channels, in a block
        self.tiles = -(-(self.C // self.V) // self.groups)

    def grid(self, count: int, summing: bool = False) -> Grid:
        """The grid for `count` rows (or windows). Summing, a thread takes at least four."""
        step = THREADS // self.groups * (4 if summing else 1)
        most = max(1, (SUMMING if summing else BLOCKS) // self.tiles)
        chunk = step * -(-count // (step * most))
        return Grid((-(-count // chunk), self.tiles), chunk)


def reduction_grid(C: int, partials: int) -> tuple[int, tuple[int, int]]:
    """Blocks and threads that add the partial sums of C channels (`totals` in rows.cuh)."""
    return -(-C // 32), (32, 8 if partials <= 64 else 32)


def align(x: Any) -> Any:
    """`x` or a copy of it: contiguous, and where 16 bytes can be loaded at once."""
    x = backend_of(x).xp.ascontiguousarray(x)
    address = x._host.ctypes.data if hasattr(x, "_host") else x.data.ptr
    return x.copy() if address % 16 else x
