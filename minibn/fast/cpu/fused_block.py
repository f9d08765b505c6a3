"""BatchNorm, noise, ReLU and max-pooling in passes over blocks that stay in the cache, on threads.

An activation of VGG's first layers is 32 MB, so a pass over it is bound by memory bandwidth. The
separate ops make a dozen passes; here are four: the moments, the forward map, the cotangent with
its two sums, and the gradient. (After a convolution only two of them are separate passes: see
`fused_conv_block.py`.)

**Forward.** Normalising is affine in x once the moments are known:

    y = x · scale + shift,   scale = gamma / √(var + eps),   shift = beta - mean · scale

If a mean is large beside the deviations, it is subtracted from x first: x · scale would cancel.

**Backward.** With ȳ the cotangent before ReLU and pooling (0 where their derivative is 0):

    beta̅ = Σ ȳ,   gamma̅ = Σ ȳ x̂,   x̄ = scale · (ȳ - (beta̅ + x̂ gamma̅) / M) = scale · ȳ + k x + c

with k and c per channel, since x̂ is affine in x. So ȳ and its sums come first; they need all
blocks, therefore x̄ is a second pass.

Saved for the backward pass are one byte per pooled value, its position in the window, and the
noise's factors (drawn again in "lean" mode).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.fast.cpu import memory
from minibn.fast.cpu.pool import pool_and_relu, unpool
from minibn.fast.cpu.rows import Rows, moments, select, sum_blocks
from minibn.fast.kernel import Kernel

FAR = 32  # standard deviations: a mean beyond is subtracted first


class FusedBlockPasses:
    """The passes of one fused block over its input y (N, ..., C), one block of images at a time.

    op: the settings; out: the result; source: for each pooled value its position in the window.
    """

    mean: Any = None  # of the batch, with inv_std: (C,) in float64
    inv_std: Any = None
    scale: Any = None  # (C,)
    pivot: Any = None  # (C,), subtracted from y first
    tiles: tuple[Any, Any] = (None, None)  # scale and shift, repeated along a row

    def __init__(self, op: Any, shape: tuple[int, ...], dtype: Any, wanted: bool) -> None:
        self.op, self.shape, self.dtype = op, shape, dtype
        self.rows = Rows(shape)
        if op.pool:
            shape = (shape[0], shape[1] // 2, shape[2] // 2, shape[3])
        self.out = memory.empty(shape, dtype)
        self.source = memory.empty(shape, np.uint8) if op.pool and wanted else None
        self.zeros = np.zeros(self.rows.repeat * self.rows.C, dtype)  # twice as fast as 0

    @staticmethod
    def fit(op: Any, shape: tuple[int, ...], dtype: Any, affine: tuple[Any, ...]) -> bool:
        """Pooling by 2, behind a ReLU, of images with even sides; one float dtype."""
        pools = not op.pool or (
            op.pool == 2 and op.relu and len(shape) == 4 and shape[1] % 2 == shape[2] % 2 == 0
        )
        return (
            pools
            and len(shape) >= 2
            and math.prod(shape) > 0
            and dtype in (np.float32, np.float64)
            and all(a.dtype == dtype and a.shape == shape[-1:] for a in affine)
        )

    def draw(self) -> Any:
        """The noise (s, m), or (None, None)."""
        if self.op.noise is None:
            return None, None
        return self.op.noise(np.broadcast_to(np.zeros((), self.dtype), self.shape))

    def set_affine(self, affine: tuple[np.ndarray, ...], moments: Any = None) -> None:
        """Fix scale and shift: those of `affine`, or of a BatchNorm with these moments."""
        shift = affine[-1] if affine else None
        self.scale = affine[0] if len(affine) == 2 else None
        if moments is not None:
            gamma, beta = (v.astype(np.float64) for v in affine)
            self.mean, var = moments
            self.inv_std = 1 / np.sqrt(var + self.op.eps)
            self.scale = gamma * self.inv_std
            self.centre = self.mean.astype(self.dtype)  # rounded
            self.rest = self.mean - self.centre
            self.around = self.mean  # without the pivot
            far = self.mean**2 > FAR**2 * (var + self.op.eps)
            if far.any():
                self.pivot = np.where(far, self.centre, 0)
                self.around = np.where(far, self.rest, self.mean)
            shift = beta - self.around * self.scale
            self.op.mean, self.op.var = self.mean.astype(self.dtype), var.astype(self.dtype)
        scale = self._tile(self.scale)
        self.tiles = scale, self._tile(shift)

    def _tile(self, v: Any) -> Any:
        return None if v is None else self.rows.tile(v, self.dtype)

    def forward(self, images: slice, y: np.ndarray, s: Any, m: Any) -> None:
        """`out` of some images, from their y (which may lie in `out` already)."""
        (scale, shift), rows = self.tiles, self.rows
        block = rows.rows(y)
        goal = memory.scratch(y.shape, self.dtype) if self.op.pool else self.out[images]
        z = rows.rows(goal)
        if self.pivot is not None:
            rows.subtract(y, self.pivot, goal)
            block = z
        if scale is not None:
            block = np.multiply(block, scale, out=z)
        if shift is not None:
            block = np.add(block, shift, out=z)
        if s is not None:
            block = np.multiply(block, rows.rows(s[images]), out=z)
            block = np.add(block, rows.rows(m[images]), out=z)
        if self.op.pool:
            source = None if self.source is None else self.source[images]
            pool_and_relu(block.reshape(y.shape), self.out[images], source)
        elif self.op.relu:
            np.maximum(block, self.zeros, out=z)
        elif block is not z:
            np.copyto(z, block)

    def cotangent(self, g: np.ndarray, out: Any, images: slice, s: Any, y_bar: np.ndarray) -> None:
        """ȳ of some images: g through pooling, ReLU and noise."""
        if self.source is not None:
            unpool(g[images], self.source[images], y_bar)
        elif self.op.relu:
            select(g[images], np.greater(out[images], 0), y_bar)
        else:
            np.copyto(y_bar, g[images])
        if s is not None:
            np.multiply(y_bar, s[images], out=y_bar)

    def sums(self, y_bar: np.ndarray, y: Any, count: int) -> list[np.ndarray]:
        """For `count` vectors: Σ ȳ y (of a BatchNorm Σ ȳ (y - mean)), Σ ȳ of a block."""
        sums = [self.rows.sum(y_bar)] if count else []
        if count == 2:
            if self.mean is not None:
                centred = memory.scratch(y.shape, self.dtype)
                self.rows.subtract(y, self.centre, centred)
                y = centred
            sums.insert(0, self.rows.dot(y_bar, y))
        return sums

    def total(self, sums: list[list[np.ndarray]]) -> list[np.ndarray]:
        """The gradients of the vectors, in float64, from the sums of all blocks."""
        total = sum_blocks(sums)
        if self.inv_std is not None:
            total[0] = (total[0] - self.rest * total[1]) * self.inv_std
        return total

    def from_output(self, g: np.ndarray, out: np.ndarray, affine: Any) -> list[np.ndarray] | None:
        """The gradients of gamma and beta without y, which is larger than a pooled output.

        Where the ReLU is open, out = gamma x̂ + beta; where it is not, ȳ = 0 and out = 0. So

            beta̅ = Σ ȳ,   gamma̅ = Σ ȳ x̂ = (Σ g out - beta beta̅) / gamma

        None if this is not so (there is noise, or no ReLU), or would lose digits.
        """
        gamma, beta = (v.astype(np.float64) for v in affine)
        variance = gamma**2 * self.op.var * self.inv_std**2  # of gamma x̂
        if self.op.noise or not self.op.relu or (beta**2 >= 64 * variance).any():
            return None
        rows = Rows(out.shape)

        def of_block(images: slice) -> list[np.ndarray]:
            part = memory.scratch(g[images].shape, self.dtype)
            select(g[images], np.greater(out[images], 0), part)
            return [rows.dot(part, out[images]), rows.sum(part)]

        product, d_beta = sum_blocks(rows.map_blocks(of_block))
        return [(product - beta * d_beta) / gamma, d_beta]

    def input_grad(self, total: list[np.ndarray]) -> Callable[[np.ndarray, Any], None]:
        """A function of a block (ȳ, y) that replaces ȳ by scale · ȳ + k y + c, in place."""
        rows, scale = self.rows, self.tiles[0]
        slope: Any = None
        offset: Any = None
        if self.inv_std is not None:
            M = math.prod(self.shape[:-1])
            k = -self.scale * self.inv_std * total[0] / M
            slope, offset = self._tile(k), self._tile(-self.scale * total[1] / M - k * self.around)

        def of_block(y_bar: np.ndarray, y: Any) -> None:
            if scale is None:
                return
            flat = rows.rows(y_bar)
            np.multiply(flat, scale, out=flat)
            if slope is not None:
                t = memory.scratch(flat.shape, self.dtype)
                if self.pivot is not None:
                    rows.subtract(y, self.pivot, t.reshape(y.shape))
                np.multiply(rows.rows(y) if self.pivot is None else t, slope, out=t)
                np.add(t, offset, out=t)
                np.add(flat, t, out=flat)

        return of_block


class FusedBlockKernel(Kernel):
    """fused_block of an array: see above."""

    @classmethod
    def fits(cls, op: Any, x: Any, *affine: Any) -> bool:
        return FusedBlockPasses.fit(op, x.shape, x.dtype, affine)

    @classmethod
    def pays(cls, op: Any, x: Any, *affine: Any) -> bool:
        return x.size >= 1 << 14  # below it, calls cost more than passes

    def forward(self, x, *affine):
        x = np.ascontiguousarray(x)
        self.passes = p = FusedBlockPasses(self.op, x.shape, x.dtype, any(self.needs_input_grad))
        found = None
        if self.op.eps is not None:
            found = moments(p.rows, x)
        p.set_affine(affine, found)
        s, m = p.draw()
        p.rows.map_blocks(lambda b: p.forward(b, x[b], s, m))
        self.s = s if self.keep else None
        return p.out

    def vjp(self, g, out, x, *affine):
        p = self.passes
        x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
        dx = memory.empty(x.shape, x.dtype)
        s = p.draw()[0] if self.s is None else self.s

        def first(images: slice) -> list[np.ndarray]:
            p.cotangent(g, out, images, s, dx[images])
            return p.sums(dx[images], x[images], len(affine))

        total = p.total(p.rows.map_blocks(first))
        if self.needs_input_grad[0] and p.scale is not None:
            finish = p.input_grad(total)
            p.rows.map_blocks(lambda b: finish(dx[b], x[b]))
        return (dx if self.needs_input_grad[0] else None), *(t.astype(x.dtype) for t in total)
