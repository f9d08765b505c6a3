"""The operators of Tensor: each is one line and one op.

In place (`x += y`) they write into the Tensor's memory where no gradient is recorded, as in
PyTorch. The result is a plain Tensor, also of a subclass such as Parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from minibn.autograd.array_attributes import ArrayAttributes
from minibn.errors import ShapeError

ops: Any = None  # `minibn.ops`, above this module in the import order: it sets itself here


class TensorOperators(ArrayAttributes):
    """x + y, x @ y, x[i], x += y, ..."""

    __slots__ = ()

    def __add__(self, other: Any) -> Self:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Self:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Self:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Self:
        return ops.subtract(other, self)

    def __mul__(self, other: Any) -> Self:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Self:
        return ops.multiply(other, self)

    def __truediv__(self, other: Any) -> Self:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return ops.divide(other, self)

    def __pow__(self, exponent: Any) -> Self:
        return ops.power(self, exponent)

    def __rpow__(self, base: Any) -> Self:
        return ops.power(base, self)

    def __pos__(self) -> Self:
        return self

    def __neg__(self) -> Self:
        return ops.negative(self)

    def __abs__(self) -> Self:
        return ops.abs(self)

    def __matmul__(self, other: Any) -> Self:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return ops.matmul(other, self)

    def __getitem__(self, index: Any) -> Self:
        return ops.getitem(self, index)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError(f"{self!r} has no axis, so no length and no elements. Use .item().")
        return len(self.data)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    # -- in place
    def __iadd__(self, other: Any) -> Self:
        return update(self, ops.add, other, "+=")

    def __isub__(self, other: Any) -> Self:
        return update(self, ops.subtract, other, "-=")

    def __imul__(self, other: Any) -> Self:
        return update(self, ops.multiply, other, "*=")

    def __itruediv__(self, other: Any) -> Self:
        return update(self, ops.divide, other, "/=")

    def __ipow__(self, other: Any) -> Self:
        return update(self, ops.power, other, "**=")

    def __imatmul__(self, other: Any) -> Self:
        return update(self, ops.matmul, other, "@=")


def update(x: Any, op: Any, other: Any, symbol: str) -> Any:
    """x = op(x, other), in place where no gradient is recorded, as in PyTorch; of a graph
    a new Tensor, to which Python binds the name."""
    result = op(x, other)
    if result.node is not None:
        if x.is_leaf and x.requires_grad:
            raise TypeError(
                f"Tensor {symbol}: a leaf that requires a gradient can't be changed in place "
                "while ops are recorded. Do it inside `with minibn.no_grad():`, or write "
                f"x = x {symbol[:-1]} y for a new Tensor."
            )
        return result
    if not np.can_cast(result.dtype, x.dtype, "same_kind"):
        raise TypeError(
            f"Tensor {symbol}: the result is {result.dtype}, this Tensor {x.dtype}. Write "
            f"x = x {symbol[:-1]} y, or use .astype first."
        )
    if result.shape != x.shape:
        raise ShapeError(
            f"Tensor {symbol}: the result has shape {result.shape}, this Tensor {x.shape}. "
            f"Write x = x {symbol[:-1]} y for a new Tensor."
        )
    x.data[...] = result.data
    x.bump_version()
    return x
