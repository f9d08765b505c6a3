"""How an activation is split for passes over it, and its moments per channel.

A pass goes over blocks of images that stay in the cache. A row of a block has several pixels, for
long inner loops; vectors over channels are repeated along it.

The moments of blocks are merged by the formula of Chan, Golub & LeVeque 1983, which is accurate for
many values and for a large mean: with n_b values, mean_b and M2_b = Σ (x - mean_b)² per block,

    mean = Σ n_b mean_b / M,   M · var = Σ M2_b + Σ n_b (mean_b - mean)²
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minibn.fast.cpu import memory
from minibn.fast.cpu.threads import blocks, map_shares

BLOCK = 1 << 18  # elements a call works on: 1 MB in float32, what a core's cache holds
ROW = 1 << 14  # elements of a tiled vector: shorter inner loops cost more than their arithmetic


class Rows:
    """The blocks and rows of an activation (N, ..., C): blocks of images, rows of several
    pixels."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.N, self.C = shape[0], shape[-1]
        self._ones: dict[tuple[int, Any], np.ndarray] = {}
        pixels = math.prod(shape[1:-1])
        self.images = max(1, BLOCK // (pixels * self.C))
        # A row holds `repeat` pixels of an image, as many as divide it.
        most = max(1, min(ROW // self.C, pixels))
        self.repeat = next(r for r in range(most, 0, -1) if pixels % r == 0)

    def tile(self, v: np.ndarray, dtype: Any) -> np.ndarray:
        """A vector over channels, repeated for each pixel of a row."""
        return np.tile(v.astype(dtype), self.repeat)

    def rows(self, x: np.ndarray) -> np.ndarray:
        """A block (b, ..., C) as (rows, repeat·C), a view."""
        return x.reshape(-1, self.repeat * self.C)

    def dot(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Σ x y over the values of each channel of two blocks: (C,)."""
        some = self.repeat
        while some * self.C > 1024 and some % 2 == 0:  # the length at which einsum is fastest
            some //= 2
        x, y = x.reshape(-1, some * self.C), y.reshape(-1, some * self.C)
        return np.einsum("rc,rc->c", x, y).reshape(some, self.C).sum(0)

    def sum(self, x: np.ndarray) -> np.ndarray:
        """Σ x over the values of each channel of a block: (C,). A product with ones is fastest."""
        values = x.reshape(-1, self.C)
        if (len(values), x.dtype) not in self._ones:
            self._ones[len(values), x.dtype] = np.ones(len(values), x.dtype)
        return self._ones[len(values), x.dtype] @ values

    def map_blocks(self, work: Callable[[slice], Any]) -> list[Any]:
        """`work(images)` for every block, on threads; its results in the blocks' order."""
        every = list(blocks(self.N, self.images))
        parts = map_shares(lambda some: [work(b) for b in every[some]], len(every))
        return [result for part in parts for result in part]

    def subtract(self, x: np.ndarray, v: np.ndarray, out: np.ndarray) -> None:
        """x - v of a block and a vector over channels."""
        np.subtract(self.rows(x), self.tile(v, x.dtype), out=self.rows(out))

    def moments(self, block: np.ndarray) -> Moments:
        """Of one block, around its own mean."""
        n, wide = block.size // self.C, np.float64
        mean = self.sum(block) / n
        centred = memory.scratch(block.shape, block.dtype)
        self.subtract(block, mean, centred)
        rest = self.sum(centred) / n  # the rounding error of the mean
        squares = self.dot(centred, centred)
        centre = mean.astype(wide)
        far = is_far(n * rest.astype(wide) ** 2, squares)
        if far.any():
            first = block.reshape(-1, self.C)[0]
            self.subtract(block, first, centred)  # exact for equal values
            mean = self.sum(centred) / n
            self.subtract(centred, mean, centred)
            rest = np.where(far, self.sum(centred) / n, rest)
            squares = np.where(far, self.dot(centred, centred), squares)
            centre = np.where(far, first.astype(wide) + mean, centre)
        squares = np.maximum(squares - n * rest * rest, 0)
        return n, centre + rest.astype(wide), squares.astype(wide)


def is_far(rest: np.ndarray, squares: np.ndarray, share: float = 1e-3) -> np.ndarray:
    """Where the error of a mean, squared, is more than a share of the squares around it."""
    return (rest > share * squares) | np.isinf(squares)


def select(g: np.ndarray, mask: np.ndarray, out: np.ndarray) -> None:
    """out = g where the boolean mask is set, else 0, also where g is infinite or NaN.

    The bits of g and -1 or 0: two thirds of the time of g · mask, a twelfth of a masked copy's.
    """
    bits = np.dtype(f"i{g.itemsize}")
    np.bitwise_and(g.view(bits), np.negative(mask.view(np.int8)), out=out.view(bits))


# Of some values per channel: how many, their mean, and Σ (x - mean)²: (C,) each, in float64.
Moments = tuple[int, np.ndarray, np.ndarray]


def merge_moments(parts: Iterable[Moments]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of all values, (C,) in float64."""
    counts, means, squares = zip(*parts, strict=True)
    n, centres = np.array(counts, np.float64)[:, None], np.array(means)
    M = n.sum()
    mean = (n * centres).sum(0) / M
    return mean, (np.sum(squares, axis=0) + (n * (centres - mean) ** 2).sum(0)) / M


def moments(rows: Rows, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel of a contiguous x (N, ..., C): (C,) in float64."""
    return merge_moments(rows.map_blocks(lambda images: rows.moments(x[images])))


def sum_blocks(sums: list[list[np.ndarray]]) -> list[np.ndarray]:
    """The sums of all blocks, in float64."""
    return [np.sum(np.array(part, np.float64), axis=0) for part in zip(*sums, strict=True)]
