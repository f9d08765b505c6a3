"""A fused block with a convolution: its output is processed while a block is in the cache.

The convolution writes its results one block of images at a time to a `Target`, and reads cotangents
one block at a time from a `Source`. They call the passes of `fused_block.py`:

* forward, with a BatchNorm: a block's moments are computed at once; when all are known, a second
  pass normalises. Without BatchNorm the block is finished at once, and y is never stored.
* backward: one pass for the two sums, in which ȳ is not stored; the convolution then reads
  scale · ȳ + k y + c, computed for each block on the fly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibn.autograd.dispatch import mode
from minibn.fast.cpu import conv, im2col, memory
from minibn.fast.cpu.fused_block import FusedBlockPasses
from minibn.fast.cpu.rows import Moments, merge_moments
from minibn.fast.cpu.tiling import Plan, Target
from minibn.fast.kernel import Kernel
from minibn.fast.precision import current as precision


class MomentsTarget(Target):
    """Writes to an array, and computes the moments of each block."""

    def __init__(self, y: np.ndarray, passes: FusedBlockPasses) -> None:
        super().__init__(y)
        self.passes = passes
        self.moments: dict[int, Moments] = {}

    def close(self, images: slice, block: np.ndarray) -> None:
        self.moments[images.start] = self.passes.rows.moments(block)


class FusedTarget(Target):
    """Applies the forward pass of the fused block to each block, and writes to its result."""

    def __init__(self, passes: FusedBlockPasses, s: Any, m: Any) -> None:
        self.passes, self.noise = passes, (s, m)

    def open(self, images: slice) -> np.ndarray:
        p = self.passes
        if not p.op.pool:
            return p.out[images]
        return memory.scratch((images.stop - images.start, *p.shape[1:]), p.dtype)

    def close(self, images: slice, block: np.ndarray) -> None:
        self.passes.forward(images, block, *self.noise)


class FusedConvBlockKernel(Kernel):
    """fused_block behind a convolution: a BatchNorm, a bias or nothing; noise, ReLU, pooling."""

    plan: Plan | None = None  # of Winograd's convolution, or None for columns
    y: np.ndarray | None = None  # the convolution's result, if a BatchNorm follows it

    @classmethod
    def fits(cls, op: Any, x: Any, w: Any, *affine: Any) -> bool:
        return (
            # Rounded convolutions run as a separate kernel.
            (precision() == "fp32" or x.dtype != np.float32)
            and im2col.Im2colConv2d.fits(op.conv, x, w)
            and FusedBlockPasses.fit(op, op.conv.y_shape, x.dtype, affine)
            and (op.eps is not None or len(affine) < 2)
        )

    @classmethod
    def pays(cls, op: Any, x: Any, w: Any, *affine: Any) -> bool:
        return math.prod(op.conv.y_shape) >= 1 << 14  # below it, calls cost more than passes

    def forward(self, x, w, *affine):
        op = self.op
        self.passes = p = FusedBlockPasses(op, op.conv.y_shape, x.dtype, any(self.needs_input_grad))
        tiles = conv.WinogradConv2d
        if tiles.fits(op.conv, x, w) and (tiles.pays(op.conv, x, w) or mode() == "always"):
            self.plan = Plan(op.conv, x.dtype)
        s, m = p.draw()
        if op.eps is None:
            p.set_affine(affine)
            self._convolve(x, w, FusedTarget(p, s, m))
        else:
            target = MomentsTarget(memory.empty(p.shape, x.dtype), p)
            self._convolve(x, w, target)
            y = target.array
            p.set_affine(affine, merge_moments(part for _, part in sorted(target.moments.items())))
            p.rows.map_blocks(lambda images: p.forward(images, y[images], s, m))
            self.y = y if any(self.needs_input_grad) else None
        self.s = s if self.keep else None
        return p.out

    def _convolve(self, x: np.ndarray, w: np.ndarray, y: Target) -> None:
        if self.plan is None:
            im2col.convolve(self.op.conv, x, w, y)
        else:
            self.saved = conv.convolve(self.plan, x, w, y, self.keep and self.needs_input_grad[1])

    def vjp(self, g, out, x, w, *affine):
        p, y, count = self.passes, self.y, len(affine)
        g = np.ascontiguousarray(g)
        s = p.draw()[0] if self.s is None else self.s
        sums: dict[int, list[np.ndarray]] = {}  # by a block's first image

        def cotangent(images: slice) -> np.ndarray:
            y_bar = memory.scratch((images.stop - images.start, *p.shape[1:]), p.dtype)
            p.cotangent(g, out, images, s, y_bar)
            return y_bar

        if y is not None:  # the sums come first

            def first(images: slice) -> list[np.ndarray]:
                return p.sums(cotangent(images), y[images], count)

            total = p.from_output(g, out, affine) or p.total(p.rows.map_blocks(first))
            finish = p.input_grad(total)

            def source(images: slice) -> np.ndarray:
                y_bar = cotangent(images)
                finish(y_bar, y[images])
                return y_bar
        else:

            def source(images: slice) -> np.ndarray:
                y_bar = cotangent(images)
                sums[images.start] = p.sums(y_bar, None, count)
                return y_bar

        wants_x, wants_w = self.needs_input_grad[:2]
        given = x if wants_w else None, w if wants_x else None
        if not (wants_x or wants_w):
            grads: tuple[Any, Any] = None, None
            if y is None:
                p.rows.map_blocks(source)
        elif self.plan is None:
            grads = im2col.gradients(self.op.conv, source, *given)
        else:
            grads = conv.gradients(self.plan, source, *given, self.saved)
        if y is None:
            total = p.total([part for _, part in sorted(sums.items())])
        return *grads, *(t.astype(x.dtype) for t in total)
