"""Norm or bias, noise, ReLU and max-pooling as CUDA kernels: few passes, and only x is saved.

**Forward.** One pass over x for the moments, a second for the result (`fused_block.cu`):

    z = (x - mean) · scale + shift,   out = pool(max(0, s z + m))

**Backward.** With ȳ = s g through ReLU and pooling (as in
`minibn.fast.cpu.fused_block`, where the formulas are derived):

    beta̅ = Σ ȳ,   gamma̅ = Σ ȳ x̂,   x̄ = scale · ȳ + slope · (x - mean) + offset

The sums need all of ȳ, and x̄ needs the sums: two passes. Neither reads `out` or saved positions of
the maxima: both follow from x, which is read anyway. Noise is drawn in the kernel, and again in the
backward pass, if it is a `NoiseDraws` and its pairs are in the two halves of the batch; other noise
is passed as arrays. To avoid a third draw, with noise the first backward pass writes ȳ to the
memory of x̄, and the second reads it from there.

Bytes moved per value of x, in float32; in brackets with pooling:

                     forward             backward
    norm             4 + 8   (4 + 5)     8 + 12   (5 + 9)
    norm, noise      4 + 8   (4 + 5)     12 + 12  (9 + 12)
    bias or none     8       (5)         12       (9)

Sums are in x's dtype over the rows of one thread (a thousand at most for VGG at batch 8,192), then
in double, of differences from one value of the channel, so that a large mean causes no
cancellation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import Backend, backend_of
from minibn.fast.cuda.draws import unit_parameters, words
from minibn.fast.cuda.program import REALS, Program
from minibn.fast.cuda.rows import MOST, THREADS, Grid, Rows, align, reduction_grid
from minibn.fast.fused_ops import FusedBlock
from minibn.fast.kernel import Kernel
from minibn.random import NoiseDraws

PASSES, MOMENTS = Program("fused_block"), Program("moments")
NONE, ARRAYS, DRAWN = 0, 1, 2  # values of NOISE in fused_block.cu
PIVOT, SCALE, SHIFT = 1, 2, 4  # the bits of `has` there


def _settings(op: Any) -> tuple[Any, bool, int]:
    """noise, relu and pool: `ops.batch_norm` is a fused block with a norm only."""
    return (op.noise, op.relu, op.pool) if isinstance(op, FusedBlock) else (None, False, 0)


class FusedBlockKernel(Kernel):
    """A fused block, or `ops.batch_norm`: see above. It saves only vectors over channels."""

    vectors: tuple[Any, Any, Any]  # pivot, scale, shift: (C,) or None
    stats: Any = None  # of a norm (2, C), in double: see `finish_moments` in moments.cu

    @classmethod
    def fits(cls, op: Any, x: Any, *affine: Any) -> bool:
        """x is (..., C) of one float dtype, not empty, and each vector (C,) of the same; what is
        pooled is images with even sides, 2x2."""
        _, _, pool = _settings(op)
        return (
            x.ndim >= 2
            and 0 < x.size <= MOST
            and x.dtype in REALS
            and all(a.dtype == x.dtype and a.shape == x.shape[-1:] for a in affine)
            and pool in (0, 2)
            and (not pool or (x.ndim == 4 and x.shape[1] % 2 == x.shape[2] % 2 == 0))
        )

    def _plan(self, x: Any) -> None:
        """What follows from the op's settings and the shape of x."""
        self.noise, self.relu, pool = _settings(self.op)
        self.backend: Backend = backend_of(x)
        self.shape, self.dtype, self.rows = x.shape, x.dtype, Rows(x.shape)
        self.out_shape, self.units, self.Wo = x.shape, self.rows.R, 1
        if pool:
            N, H, W, C = x.shape
            self.out_shape, self.units, self.Wo = (N, H // 2, W // 2, C), self.rows.R // 4, W // 2
        self.kind = NONE if self.noise is None else ARRAYS
        in_halves = self.rows.V == 4 and self.units // self.Wo % 2 == 0
        if isinstance(self.noise, NoiseDraws) and in_halves:
            self.kind = DRAWN
            self.unit_parameters = unit_parameters(self.backend, self.noise, x.shape[-1], x.dtype)
        self.count = self.units // 2 if self.kind == DRAWN else self.units
        self.macros: dict[str, Any] = {"REAL": REALS[x.dtype], "V": self.rows.V}
        self.pass_macros = {"POOL": int(bool(pool)), "NOISE": self.kind}

    def _empty(self, *shape: int, dtype: Any = None) -> Any:
        return self.backend.xp.empty(shape, dtype or self.dtype)

    # -- forward

    def forward(self, x, *affine):
        x, vectors = align(x), [align(a) for a in affine]
        self._plan(x)
        if self.op.eps is None:  # x · scale + shift, by (scale, shift), (shift,) or nothing
            self.vectors = (None, None, None, *vectors)[-3:]
        else:
            self._normalise(x, *vectors)
        out = self._empty(*self.out_shape)
        self._pass("forward", self.rows.grid(self.count), x, out)
        return out

    def _normalise(self, x: Any, gamma: Any, beta: Any) -> None:
        """Find the vectors of gamma x̂ + beta. Sets the op's mean and var, of the batch."""
        op, rows, C = self.op, self.rows, self.rows.C
        partial, grid = self._partial(rows.R)
        MOMENTS.launch(
            "moments", grid.blocks, THREADS, x, partial, rows.R, C, rows.groups, grid.chunk,
            **self.macros,
        )  # fmt: skip
        op.mean, op.var, scale, shift = (self._empty(C) for _ in range(4))
        self.vectors, self.stats = (op.mean, scale, shift), self._empty(2, C, dtype=np.float64)
        self._add(
            "finish_moments", partial, rows.R, x, gamma, beta, float(op.eps),
            op.mean, op.var, scale, shift, self.stats,
        )  # fmt: skip

    # -- backward

    def vjp(self, g, out, x, *affine):
        g, x, wants_x = align(g), align(x), self.needs_input_grad[0]
        C, normed = self.rows.C, self.stats is not None
        partial, grid = self._partial(self.count)
        x_bar = self._empty(*self.shape) if wants_x else None
        begun = wants_x and (self.kind != NONE or not normed)
        if begun:
            self._pass("cotangent", grid, x, g, partial, x_bar, int(not normed))
        else:
            self._pass("sums", grid, x, g, partial)
        if not affine:
            return (x_bar,)
        scale_bar, shift_bar, slope, offset = (self._empty(C) for _ in range(4))
        if not normed:
            self._add("affine_grad", partial, scale_bar, shift_bar)
            return x_bar, *(scale_bar, shift_bar)[-len(affine) :]
        self._add(
            "norm_grad", partial, self.rows.R, self.vectors[1], self.stats,
            scale_bar, shift_bar, slope, offset,
        )  # fmt: skip
        if begun:
            self._pass("finish", self.rows.grid(self.rows.R), x, slope, offset, x_bar)
        elif wants_x:
            self._pass("input_grad", self.rows.grid(self.count), x, g, slope, offset, x_bar)
        return x_bar, scale_bar, shift_bar

    # -- launches

    def _partial(self, count: int) -> tuple[Any, Grid]:
        """The array for two partial sums per channel and block, and the grid over `count` units."""
        grid = self.rows.grid(count, summing=True)
        return self._empty(grid.blocks[0], 2, self.rows.C, dtype=np.float64), grid

    def _add(self, function: str, partial: Any, *rest: Any) -> None:
        """Launch a kernel of moments.cu that adds the partial sums of all blocks."""
        P, _, C = partial.shape
        blocks, threads = reduction_grid(C, P)
        MOMENTS.launch(function, blocks, threads, partial, P, C, *rest, **self.macros)

    def _pass(self, function: str, grid: Grid, x: Any, *rest: Any) -> None:
        """Launch a kernel of fused_block.cu: `finish` over rows without noise, others over
        units."""
        kind, count, Wo, macros = self.kind, self.count, self.Wo, self.pass_macros
        if function == "finish":
            kind, count, Wo, macros = NONE, self.rows.R, 1, {"POOL": 0, "NOISE": NONE}
        bits = zip((PIVOT, SCALE, SHIFT), self.vectors, strict=True)
        has = sum(bit for bit, v in bits if v is not None)
        vectors = (x if v is None else v for v in self.vectors)  # an absent vector is not read
        PASSES.launch(
            function, grid.blocks, THREADS, x, *vectors, has, *self._noise(kind, x),
            int(self.relu), count, Wo, self.rows.C, self.rows.groups, grid.chunk, *rest,
            **self.macros, **macros,
        )  # fmt: skip

    def _noise(self, kind: int, x: Any) -> tuple[Any, ...]:
        """s, m, range, spread, and the counter."""
        if kind == NONE:
            return x, x, 0.0, 0.0, *words(self.backend, 0, 0)
        if kind == DRAWN:
            noise, (low, sigma) = self.noise, self.unit_parameters
            counter = words(self.backend, noise.key, noise.step << 128)
            return sigma, low, float(2 * noise.r_mu), float(noise.spread), *counter
        s, m = (align(a.astype(self.dtype, copy=False)) for a in self.noise(x))
        return s, m, 0.0, 0.0, *words(self.backend, 0, 0)
