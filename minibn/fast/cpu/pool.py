"""Max-pooling with windows that tile the image (stride = size, no padding), 2 x 2 or any other.

The pixels at position (k, m) of every window form a corner of x, the strided view x[:, k::s, m::s]
of y's shape. Forward is the maximum of the corners, first over the rows of each window, then over
its columns, so that the first half of the work runs over whole rows of the image.

    y = max_{k,m} corner(k, m)

Backward gives ȳ to the first corner that equals y, in row-major order; the last corner gets the
rest:

    left = ȳ;   for each corner:   x̄(corner) = left · [corner = y],   left = left - x̄(corner)

The product and the difference are those of the bits read as integers, times 0 or 1 and minus itself
or 0: exact for every value, also for an infinite one, and as fast as with floats. A masked copy
(`np.copyto(where=)`, `np.where`) takes three times as long.

Measured for (128, 32, 32, 64) in float32 on two cores: forward 3.3 ms, backward 11, where the
definition takes 58 and 62. Only x is saved: 3 of those 11 ms recompute y.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minibn.fast.cpu import memory, threads
from minibn.fast.cpu.rows import select
from minibn.fast.kernel import Kernel

BLOCK = 1 << 18  # numbers in a block of images: 1 MB in float32


def largest(parts: list[np.ndarray], out: np.ndarray) -> None:
    """out = the elementwise maximum of the parts; NaN if one is NaN."""
    first, *others = parts
    if not others:
        np.copyto(out, first)
    for other in others:
        first = np.maximum(first, other, out=out)


class Tiles:
    """One thread's images, a block at a time, with scratch for one block."""

    def __init__(self, x: np.ndarray, size: tuple[int, int], images: slice) -> None:
        (_, H, W, C), (sh, sw) = x.shape, size
        Ho, Wo = H // sh, W // sw
        self.images, self.rows, self.columns = images, sh, sw
        self.covered = (slice(sh * Ho), slice(sw * Wo))
        self.size = max(1, min(images.stop - images.start, BLOCK // (H * W * C)))
        self.down = np.empty((self.size, Ho, sw * Wo, C), x.dtype)
        self.y = np.empty((self.size, Ho, Wo, C), x.dtype)

    def __iter__(self) -> Iterator[slice]:
        return threads.blocks(self.images, self.size)

    def pool(self, x: np.ndarray, y: np.ndarray) -> None:
        """y = the largest value of each window of a block x."""
        x, down = x[:, *self.covered], self.down[: len(x)]
        largest([x[:, k :: self.rows] for k in range(self.rows)], down)  # (n, Ho, sw·Wo, C)
        largest([down[:, :, m :: self.columns] for m in range(self.columns)], y)

    def corners(self, x: np.ndarray) -> list[np.ndarray]:
        """The corners of a block, in row-major order: views (n, Ho, Wo, C)."""
        x = x[:, *self.covered]
        return [
            x[:, k :: self.rows, m :: self.columns]
            for k in range(self.rows)
            for m in range(self.columns)
        ]


class TiledMaxPool2d(Kernel):
    """y = the largest value of each window.    x̄: ȳ, at the first of its window's largest values"""

    @classmethod
    def fits(cls, op: Any, x: Any) -> bool:
        return (
            op.size == op.stride
            and not any(op.padding)
            and x.dtype in (np.float32, np.float64)
            and x.size > 0
        )

    @classmethod
    def pays(cls, op: Any, x: Any) -> bool:
        return x.size >= 1 << 15

    def forward(self, x):
        (N, H, W, C), (sh, sw) = x.shape, self.op.size
        y = memory.empty((N, H // sh, W // sw, C), x.dtype)

        def work(images: slice) -> None:
            tiles = Tiles(x, self.op.size, images)
            for block in tiles:
                tiles.pool(x[block], y[block])

        threads.map_shares(work, N)
        return y

    def vjp(self, g, out, x):
        (N, H, W, _), (sh, sw) = x.shape, self.op.size
        x_grad = memory.empty(x.shape, x.dtype)
        x_grad[:, H // sh * sh :] = 0  # pixels in no window
        x_grad[:, :, W // sw * sw :] = 0
        bits = np.dtype(f"u{x.itemsize}")

        def work(images: slice) -> None:
            tiles = Tiles(x, self.op.size, images)
            some_left, some_taken = np.empty(tiles.y.shape, bits), np.empty(tiles.y.shape, bits)
            some_wins = np.empty(tiles.y.shape, bool)
            for block in tiles:
                n = block.stop - block.start
                y, left, taken, wins = (a[:n] for a in (tiles.y, some_left, some_taken, some_wins))
                tiles.pool(x[block], y)
                has_nan = np.isnan(y).any()
                np.copyto(left.view(x.dtype), g[block])
                *corners, _ = tiles.corners(x[block])
                *grads, last_grad = tiles.corners(x_grad[block])
                for corner, corner_grad in zip(corners, grads, strict=True):
                    np.equal(corner, y, out=wins)
                    if has_nan:  # the first NaN wins
                        wins |= np.isnan(corner)
                    np.copyto(taken, wins)
                    np.multiply(left, taken, out=taken)
                    np.copyto(corner_grad, taken.view(x.dtype))
                    np.subtract(left, taken, out=left)
                np.copyto(last_grad, left.view(x.dtype))

        threads.map_shares(work, N)
        return x_grad


def corners(x: np.ndarray, size: int) -> list[np.ndarray]:
    """For each position in a window, row by row: its pixel in every window. Views."""
    return [x[:, k::size, m::size] for k in range(size) for m in range(size)]


# For `fused_block.py`: ReLU, then 2×2 pooling; the position of each maximum is saved in a byte.
NOTHING = 4  # the position where the ReLU is 0


def pool_and_relu(y: np.ndarray, out: np.ndarray, source: np.ndarray | None) -> None:
    """out = max(0, largest of each 2×2 window of y); source = its position, the first of ties.

    y (b, H, W, C), out and source (b, H/2, W/2, C). The position is counted: it increases by one
    while no pixel so far, row by row, was the largest.
    """
    a, b, c, d = corners(y, 2)
    np.maximum(a, b, out=out)
    np.maximum(out, c, out=out)
    np.maximum(out, d, out=out)
    if source is not None:
        none_yet, less = np.empty(out.shape, bool), np.empty(out.shape, bool)
        np.not_equal(a, out, out=none_yet)
        np.copyto(source, none_yet)
        for corner in (b, c):
            np.not_equal(corner, out, out=less)
            np.logical_and(none_yet, less, out=none_yet)
            np.add(source, none_yet.view(np.uint8), out=source)
        closed = np.logical_not(np.greater(out, 0, out=less), out=less)  # also for NaN, as in relu
        np.maximum(source, closed.view(np.uint8) * np.uint8(NOTHING), out=source)
    np.maximum(out, 0, out=out)


def unpool(g: np.ndarray, source: np.ndarray, y_bar: np.ndarray) -> None:
    """Each g at the position of its window's maximum, zeros elsewhere. Shapes as above."""
    here = np.empty(source.shape, bool)
    for place, corner in enumerate(corners(y_bar, 2)):
        np.equal(source, np.uint8(place), out=here)
        select(g, here, corner)
