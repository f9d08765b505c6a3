"""2x2 max-pooling outside of fused blocks: one pass forward, one backward; only x is saved.

The backward pass recomputes the positions of the maxima. Per value of x in float32, forward moves 5
bytes and backward 9. Of ties the first in row-major order is the maximum; a NaN is the largest.
"""

from __future__ import annotations

from typing import Any

from minibn.backend import backend_of
from minibn.fast.cuda.program import REALS, Program
from minibn.fast.cuda.rows import MOST, THREADS, Rows, align
from minibn.fast.kernel import Kernel

PROGRAM = Program("pool")


class WindowMaxPool2d(Kernel):
    """y = the largest value of each window.    x̄: ȳ, at the first of its window's largest values"""

    @classmethod
    def fits(cls, op: Any, x: Any) -> bool:
        return (
            op.size == op.stride == (2, 2)
            and not any(op.padding)
            and x.dtype in REALS
            and 0 < x.size <= MOST
        )

    def forward(self, x):
        N, H, W, C = x.shape
        y = backend_of(x).xp.empty((N, H // 2, W // 2, C), x.dtype)
        self._launch("pool", y.size, x.shape, align(x), y)
        return y

    def vjp(self, g, out, x):
        N, H, W, C = x.shape
        x_bar = backend_of(x).xp.empty(x.shape, x.dtype)
        cells = N * -(-H // 2) * -(-W // 2)
        self._launch("unpool", cells * C, x.shape, align(x), align(g), x_bar)
        return x_bar

    @staticmethod
    def _launch(function: str, values: int, shape: tuple[int, ...], *arrays: Any) -> None:
        V, n = Rows(shape).V, values // Rows(shape).V
        PROGRAM.launch(
            function, -(-n // THREADS), THREADS, *arrays, *shape[1:], n,
            REAL=REALS[arrays[0].dtype], V=V,
        )  # fmt: skip
