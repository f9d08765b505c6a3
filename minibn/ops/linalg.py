"""Matrix products."""

from __future__ import annotations

import math

from minibn.autograd.tape import Op, apply
from minibn.errors import ShapeError
from minibn.ops.arithmetic import multiply
from minibn.ops.precision import in_float32
from minibn.ops.reduce import sum
from minibn.ops.shape import reshape


def swap(x):
    """The last two axes exchanged."""
    return x.transpose((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


class MatMul(Op):
    """Z = X Y on the last two axes, the others broadcast.    X̄ = Z̄ Yᵀ,   Ȳ = Xᵀ Z̄"""

    broadcasts = True

    def forward(self, x, y):
        return x @ y

    def vjp(self, g, out, x, y):
        gx = g @ swap(y) if self.needs_input_grad[0] else None
        if not self.needs_input_grad[1]:
            return gx, None
        if y.ndim == 2:  # one product over all leading axes, not a sum of a stack
            rows = math.prod(x.shape[:-1])
            x, g = reshape(x, (rows, x.shape[-1])), reshape(g, (rows, g.shape[-1]))
        return gx, swap(x) @ g


@in_float32
def matmul(x, y):
    """The matrix product. x (..., M, K), y (..., K, N) -> (..., M, N); vectors as in NumPy.

    Raises ShapeError if K differs or the leading axes don't broadcast.
    """
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError("matmul: a scalar has no matrix product. Use *.")
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ShapeError(
            f"matmul: x {x.shape} has {x.shape[-1]} columns, y {y.shape} has "
            f"{y.shape[-2 if y.ndim > 1 else 0]} rows. Is one of them transposed?"
        )
    if x.ndim == 1 and y.ndim == 1:
        return sum(multiply(x, y))
    if x.ndim == 1:
        z = matmul(reshape(x, (1, -1)), y)
        return reshape(z, z.shape[:-2] + z.shape[-1:])
    if y.ndim == 1:
        z = matmul(x, reshape(y, (-1, 1)))
        return reshape(z, z.shape[:-1])
    return apply(MatMul(), x, y)
