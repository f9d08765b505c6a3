"""How an activation (..., C) is divided among threads, for passes per channel.

A block of 256 threads loops over its rows (pixels), each thread over the same channels: four of
them if C is a multiple of 4, by one load of 16 bytes. Each block stores its partial sums, and a
second, small launch adds these in a fixed order. So results are deterministic, which they would not
be with atomic additions. See rows.cuh.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from minibn.backend import backend_of
from minibn.fast.cuda.program import LARGEST, address

THREADS = 256  # of a block; also in rows.cuh
BLOCKS = 2048  # at most: several per multiprocessor of a large GPU
SUMMING = 512  # the same for passes with partial sums, which have to be added
MOST = LARGEST - 2 * THREADS  # values: positions are counted one step beyond the end


class Grid(NamedTuple):
    """Blocks (along the rows, along the channels), and the number of rows or windows of one."""

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
        """The grid for `count` rows (or windows); if summing, with at least four per thread."""
        step = THREADS // self.groups * (4 if summing else 1)
        most = max(1, (SUMMING if summing else BLOCKS) // self.tiles)
        chunk = step * -(-count // (step * most))
        return Grid((-(-count // chunk), self.tiles), chunk)


def reduction_grid(C: int, partials: int) -> tuple[int, tuple[int, int]]:
    """Blocks and threads that add the partial sums of C channels (`totals` in rows.cuh)."""
    return -(-C // 32), (32, 8 if partials <= 64 else 32)


def align(x: Any) -> Any:
    """`x`, or a copy of it that is contiguous and aligned to 16 bytes."""
    x = backend_of(x).xp.ascontiguousarray(x)
    return x.copy() if address(x) % 16 else x
