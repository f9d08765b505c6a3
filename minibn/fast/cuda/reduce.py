"""Sums over all axes but the last, such as a bias's gradient.

The definition is a product with ones, which is fast on a CPU. On a GPU it would use cuBLAS, which
CuPy does not allow during a capture, and whose order of summation is unspecified. CuPy's reduction
has neither problem.
"""

from __future__ import annotations

from typing import Any

from minibn.fast.cuda.program import REALS
from minibn.fast.kernel import Kernel


class ColumnSum(Kernel):
    """z = Σ x over the leading axes.    x̄ = z̄, broadcast"""

    @classmethod
    def fits(cls, op: Any, x: Any) -> bool:
        return x.dtype in REALS and x.ndim > 1 and op.axes == tuple(range(x.ndim - 1))

    def forward(self, x):
        return x.sum(axis=self.op.axes, keepdims=self.op.keepdims)
