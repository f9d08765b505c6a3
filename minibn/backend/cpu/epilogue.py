"""BatchNorm, noise, ReLU and max-pooling in passes over blocks that stay in the cache, on threads.

An activation of VGG's first layers is 32 MB; a pass over it costs its way through the memory, and
the separate ops make a dozen. Here are four: the moments, the forward map, the cotangent with its
two sums, and the gradient.

**Forward.** Normalising is affine in x once the moments are known:

    y = x · scale + shift,   scale = gamma / √(var + eps),   shift = beta - mean · scale

The moments of blocks are joined by the formula of Chan, Golub & LeVeque 1983, so that neither many
values nor a large mean costs digits: with n_b values, mean_b and M2_b = Σ (x - mean_b)² per block,

    mean = Σ n_b mean_b / M,   M · var = Σ M2_b + Σ n_b (mean_b - mean)²

**Backward.** With ȳ the cotangent before ReLU and pooling (0 where they let nothing through):

    beta̅ = Σ ȳ,   gamma̅ = Σ ȳ x̂,   x̄ = scale · (ȳ - (beta̅ + x̂ gamma̅) / M) = scale · ȳ + k x + c

with k and c per channel, since x̂ is affine in x. So ȳ and its sums come first; they need all
blocks, therefore x̄ is a second pass.

Nothing is kept but one byte for each pooled value, which says where it came from, and the noise's
factors (they are drawn again instead if memory must be saved).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.backend.cpu import memory
from minibn.backend.cpu.threads import blocks, in_shares
from minibn.backend.kernels import Kernel

BLOCK = 1 << 18  # elements a call works on: 1 MB in float32, what a core's cache holds
ROW = 1 << 14  # elements of a tiled vector: shorter inner loops cost more than their arithmetic
NOTHING = 4  # where a pooled value came from if the ReLU let nothing through


class Rows:
    """How an activation (N, ..., C) is cut: blocks of images, and rows with several pixels each."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.N, self.C = shape[0], shape[-1]
        self.pixels = math.prod(shape[1:-1])
        self.images = max(1, BLOCK // (self.pixels * self.C))
        # A row holds `repeat` pixels: a divisor of a block's pixels, also of the last block's.
        pixels = math.gcd(self.images * self.pixels, self.N % self.images * self.pixels)
        most = max(1, ROW // self.C)
        self.repeat = next(r for r in range(min(most, pixels), 0, -1) if pixels % r == 0)

    def tiled(self, v: np.ndarray, dtype: Any) -> np.ndarray:
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
        return np.ones(len(values), x.dtype) @ values

    def each(self, work: Callable[[slice], Any]) -> list[Any]:
        """`work(images)` for every block, on threads; its results in the blocks' order."""
        every = list(blocks(self.N, self.images))
        parts = in_shares(lambda some: [work(b) for b in every[some]], len(every))
        return [result for part in parts for result in part]


def moments(rows: Rows, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel, (C,) in float64, of a contiguous x (N, ..., C)."""

    def of_block(images: slice) -> tuple[int, np.ndarray, np.ndarray]:
        block = x[images]
        n = block.size // rows.C
        mean = rows.sum(block) / n
        centred = memory.scratch(block.shape, x.dtype)
        np.subtract(rows.rows(block), rows.tiled(mean, x.dtype), out=rows.rows(centred))
        rest = rows.sum(centred) / n  # what rounding left in the mean
        squares = rows.dot(centred, centred) - n * rest * rest
        return n, mean + rest.astype(np.float64), squares.astype(np.float64)

    counts, means, squares = zip(*rows.each(of_block), strict=True)
    n, centres = np.array(counts, np.float64)[:, None], np.array(means)
    M = n.sum()
    mean = (n * centres).sum(0) / M
    return mean, (np.sum(squares, axis=0) + (n * (centres - mean) ** 2).sum(0)) / M


def corners(x: np.ndarray, size: int) -> list[np.ndarray]:
    """For each place in a window, row by row: the pixels that lie there. Views."""
    return [x[:, k::size, m::size] for k in range(size) for m in range(size)]


class FusedEpilogue(Kernel):
    """ops.epilogue: see above. Pooling by 2, behind a ReLU, of images with even sides."""

    scale: Any  # (C,) or None
    mean: Any  # of the batch, with inv_std, or None
    inv_std: Any

    @classmethod
    def fits(cls, op: Any, x: Any, *affine: Any) -> bool:
        pools = not op.pool or (
            op.pool == 2 and op.relu and x.ndim == 4 and x.shape[1] % 2 == x.shape[2] % 2 == 0
        )
        return (
            pools
            and x.ndim >= 2
            and x.size > 0
            and x.dtype in (np.float32, np.float64)
            and all(a.dtype == x.dtype and a.shape == x.shape[-1:] for a in affine)
        )

    @classmethod
    def pays(cls, op: Any, x: Any, *affine: Any) -> bool:
        return x.size >= 1 << 16

    def forward(self, x, *affine):
        op, dtype = self.op, x.dtype
        x = np.ascontiguousarray(x)
        self.rows = rows = Rows(x.shape)
        scale, shift = self._settle(x, *affine)
        shape = (len(x), x.shape[1] // 2, x.shape[2] // 2, x.shape[3]) if op.pool else x.shape
        out = memory.empty(shape, dtype)
        self.source = np.empty(shape, np.uint8) if op.pool and any(self.wants) else None
        s: Any = None
        if op.noise is not None:
            s, m = op.noise(x)
        self.s = s if self.keep else None
        zeros = np.zeros(rows.repeat * rows.C, dtype)  # twice as fast as the number 0

        def of_block(images: slice) -> None:
            block = rows.rows(x[images])
            y = memory.scratch(x[images].shape, dtype) if op.pool else out[images]
            z = rows.rows(y)
            if scale is not None:
                block = np.multiply(block, scale, out=z)
            if shift is not None:
                block = np.add(block, shift, out=z)
            if s is not None:
                block = np.multiply(block, rows.rows(s[images]), out=z)
                block = np.add(block, rows.rows(m[images]), out=z)
            if block is not z:
                np.copyto(z, block)
            if op.pool:
                source = None if self.source is None else self.source[images]
                pool_and_relu(y, out[images], source)
            elif op.relu:
                np.maximum(z, zeros, out=z)

        rows.each(of_block)
        return out

    def _settle(self, x: np.ndarray, *affine: np.ndarray) -> tuple[Any, Any]:
        """scale and shift, tiled, or None. Keeps them, and the moments, for the vjp."""
        rows, shift = self.rows, affine[-1] if affine else None
        self.scale = affine[0] if len(affine) == 2 else None
        self.mean = self.inv_std = None
        if self.op.eps is not None:
            gamma, beta = (v.astype(np.float64) for v in affine)
            self.mean, var = moments(rows, x)
            self.inv_std = 1 / np.sqrt(var + self.op.eps)
            self.scale = gamma * self.inv_std
            shift = beta - self.mean * self.scale
            self.op.mean, self.op.var = self.mean.astype(x.dtype), var.astype(x.dtype)
        scale, shift = (None if v is None else rows.tiled(v, x.dtype) for v in (self.scale, shift))
        return scale, shift

    def vjp(self, g, out, x, *affine):
        op, rows, dtype = self.op, self.rows, x.dtype
        if g.dtype != dtype:
            return self.by_definition(g, out, x, *affine)
        x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
        dx = memory.empty(x.shape, dtype)
        s = op.noise(x)[0] if op.noise and self.s is None else self.s
        centre = None if self.mean is None else rows.tiled(self.mean, dtype)

        def cotangent(images: slice) -> list[np.ndarray]:
            """ȳ of a block, into dx, and its sums: Σ ȳ x (or Σ ȳ (x - mean)) and Σ ȳ."""
            y_bar = dx[images]
            self._let_through(g[images], out[images], images, y_bar)
            if s is not None:
                np.multiply(rows.rows(y_bar), rows.rows(s[images]), out=rows.rows(y_bar))
            sums = [rows.sum(y_bar)] if affine else []
            if len(affine) == 2:
                factor = x[images]
                if centre is not None:
                    factor = memory.scratch(factor.shape, dtype)
                    np.subtract(rows.rows(x[images]), centre, out=rows.rows(factor))
                sums.insert(0, rows.dot(y_bar, factor))
            return sums

        sums = rows.each(cotangent)
        total = [np.sum(np.array(part, np.float64), axis=0) for part in zip(*sums, strict=True)]
        if self.inv_std is not None:
            total[0] *= self.inv_std
        if self.wants[0] and self.scale is not None:
            self._input_grad(x, dx, total)
        return (dx if self.wants[0] else None), *(t.astype(dtype) for t in total)

    def _let_through(self, g: Any, out: Any, images: slice, y_bar: Any) -> None:
        """ȳ of a block, before the noise: g where the ReLU and the pooling let it through."""
        if self.source is not None:
            unpool(g, self.source[images], y_bar)
        elif self.op.relu:
            np.multiply(g, np.greater(out, 0), out=y_bar)
        else:
            np.copyto(y_bar, g)

    def _input_grad(self, x: np.ndarray, dx: np.ndarray, total: list[np.ndarray]) -> None:
        """dx, which holds ȳ, becomes scale · ȳ + k x + c (k and c belong to the moments)."""
        rows, dtype = self.rows, x.dtype
        scale = rows.tiled(self.scale, dtype)
        slope: Any = None
        offset: Any = None
        if self.inv_std is not None:
            M = x.size // rows.C
            k = -self.scale * self.inv_std * total[0] / M
            slope = rows.tiled(k, dtype)
            offset = rows.tiled(-self.scale * total[1] / M - k * self.mean, dtype)

        def of_block(images: slice) -> None:
            y_bar = rows.rows(dx[images])
            np.multiply(y_bar, scale, out=y_bar)
            if slope is not None:
                t = memory.scratch(y_bar.shape, dtype)
                np.multiply(rows.rows(x[images]), slope, out=t)
                np.add(t, offset, out=t)
                np.add(y_bar, t, out=y_bar)

        rows.each(of_block)


def pool_and_relu(y: np.ndarray, out: np.ndarray, source: np.ndarray | None) -> None:
    """out = the largest of each 2×2 window of y, or 0; source = its place, the first of equals.

    y (b, H, W, C), out and source (b, H/2, W/2, C). The place is counted: it goes up by one as long
    as no pixel so far, row by row, was the largest.
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
    """Each g at the place that its value came from, zeros elsewhere. Shapes as above."""
    here = np.empty(source.shape, bool)
    for place, corner in enumerate(corners(y_bar, 2)):
        np.equal(source, np.uint8(place), out=here)
        np.multiply(g, here, out=corner)
