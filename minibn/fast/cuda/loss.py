"""Softmax cross-entropy: one warp per row of logits; the softmax is saved for the gradient.

    y = mean_n( log Z_n - a_n[label_n] ),   a = x - max x,   Z = Σ exp a
    x̄ = ȳ/N · (exp(a)/Z - onehot(label))

Three launches: rows, their mean, and the gradient. Logits are few, so the cost is that of launches.
A label outside of 0..K-1 makes the loss NaN (`ops.softmax_cross_entropy` raises for it, except
while a graph is captured).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import backend_of
from minibn.fast.cuda.program import LARGEST, REALS, Program
from minibn.fast.kernel import Kernel

PROGRAM = Program("loss")
THREADS = 256
ROWS = 8  # of logits in a block; also in loss.cu


class WarpCrossEntropy(Kernel):
    """y = mean_n( logsumexp(x_n) - x_n[label_n] ).    x̄ = ȳ · (softmax(x) - onehot(label)) / N"""

    softmax: Any = None

    @classmethod
    def fits(cls, op: Any, x: Any) -> bool:
        return x.dtype in REALS and 0 < x.size <= LARGEST - THREADS

    def forward(self, x):
        xp, (N, _) = backend_of(x).xp, x.shape
        self.labels = xp.ascontiguousarray(self.op.labels.astype(np.int64, copy=False))
        losses, loss = xp.empty(N, x.dtype), xp.empty((), x.dtype)
        self.softmax = self._rows(x, losses, keep=self.keep)
        PROGRAM.launch("mean", 1, THREADS, losses, loss, N, REAL=REALS[x.dtype])
        return loss

    def _rows(self, x: Any, losses: Any, keep: bool) -> Any:
        """Write the losses of the rows. Returns the softmax (N, K) if `keep`."""
        xp, (N, K) = backend_of(x).xp, x.shape
        x = xp.ascontiguousarray(x)
        softmax = xp.empty(x.shape, x.dtype) if keep else None
        PROGRAM.launch(
            "rows", -(-N // ROWS), THREADS, x, self.labels, losses,
            losses if softmax is None else softmax, int(keep), N, K, REAL=REALS[x.dtype],
        )  # fmt: skip
        return softmax

    def vjp(self, g, out, x):
        xp, (N, K) = backend_of(x).xp, x.shape
        softmax = self.softmax
        if softmax is None:
            softmax = self._rows(x, xp.empty(N, x.dtype), keep=True)
        x_bar = xp.empty(x.shape, x.dtype)
        blocks = -(-N * K // THREADS)
        PROGRAM.launch(
            "grad", blocks, THREADS, softmax, self.labels, g, x_bar, N, K, REAL=REALS[x.dtype]
        )
        return x_bar
