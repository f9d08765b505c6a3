"""The methods of Tensor that are ops: x.reshape(2, 3), x.sum(axis=0), x.exp().

Names are NumPy's, and PyTorch's beside them. The mathematics is in `minibn.ops`. The result is a
plain Tensor, also of a subclass such as Parameter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

from minibn.autograd.array_attributes import Array, ArrayAttributes
from minibn.errors import ShapeError, check_integer, did_you_mean, with_own_keywords

ops: Any = None  # `minibn.ops`, above this module in the import order: it sets itself here

# What to use in the place of PyTorch's attributes.
INSTEAD = {
    "add_": "x.assign(x.data + y)", "bool": "x.data != 0", "copy_": "x.assign(values)",
    "cpu": "x.numpy()", "cuda": "minibn.use('cupy') before it is made",
    "device": "minibn.array_module(x)", "double": "x.astype(np.float64)",
    "expand": "ops.broadcast_to(x, shape)", "fill_": "x.assign(value)",
    "float": "x.astype(np.float32)", "grad_fn": "x.node", "half": "x.astype(np.float16)",
    "int": "x.data.astype(int)", "long": "x.data.astype(np.int64)",
    "masked_fill": "ops.where(mask, value, x)", "requires_grad_": "x.requires_grad = True",
    "retain_grad": "minibn.grad(y, x)", "swapaxes": "x.transpose(axes)", "to": "x.astype(dtype)",
    "type": "x.astype(dtype)", "zero_": "x.assign(0)",
}  # fmt: skip


class TensorMethods(ArrayAttributes):
    """Ops as methods, and the advice for a method that does not exist."""

    __slots__ = ()

    @staticmethod
    def op_name(name: str) -> str:
        """The function of `minibn.ops` for one of NumPy's; "" if there is none."""
        name = {"absolute": "abs", "amax": "max", "amin": "min"}.get(name, name)
        return name if name in ops.__all__ else ""

    # -- shapes and reductions, named as in NumPy
    def reshape(self, *shape: Any) -> Self:
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Self:
        return ops.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    @property
    def T(self) -> Self:
        return ops.transpose(self)

    def astype(self, dtype: Any) -> Self:
        return ops.cast(self, dtype)

    def permute(self, *axes: Any) -> Self:
        """The same as `transpose`: PyTorch's name."""
        return self.transpose(*axes)

    def t(self) -> Self:
        return ops.transpose(self)

    def view(self, *shape: Any) -> Self:
        """The same as `reshape`: PyTorch's name."""
        return self.reshape(*shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Self:
        """The axes from start_dim to end_dim (inclusive) as one. Raises IndexError for others."""
        shape = self.shape or (1,)
        first, last = (
            range(len(shape))[check_integer(dim, f"flatten: {name}")]
            for name, dim in (("start_dim", start_dim), ("end_dim", end_dim))
        )
        inner = shape[first : last + 1]
        return self.reshape((*shape[:first], math.prod(inner), *shape[max(first, last + 1) :]))

    @with_own_keywords
    def squeeze(self, axis: Any = None) -> Self:
        """Without the axes of length 1; with `axis` (an integer or a tuple) without those. Raises
        ShapeError if they have another length, IndexError if they don't exist."""
        if axis is None:
            return self.reshape(tuple(n for n in self.shape if n != 1))
        given = axis if isinstance(axis, (tuple, list)) else (axis,)
        axes = {range(self.ndim)[check_integer(a, "squeeze: axis")] for a in given}
        if any(self.shape[a] != 1 for a in axes):
            raise ShapeError(f"squeeze: axis {axis} of shape {self.shape} is not of length 1.")
        return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in axes))

    @with_own_keywords
    def unsqueeze(self, axis: int) -> Self:
        """With a new axis of length 1 at this position. Raises IndexError for another one."""
        at = range(self.ndim + 1)[check_integer(axis, "unsqueeze: axis")]
        return self.reshape((*self.shape[:at], 1, *self.shape[at:]))

    def copy(self) -> Self:
        """A copy with memory of its own, through which gradients flow: PyTorch's clone()."""
        return ops.cast(self, self.dtype)

    def clone(self) -> Self:
        return self.copy()

    @with_own_keywords
    def sum(self, axis: Any = None, keepdims: bool = False) -> Self:
        return ops.sum(self, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def mean(self, axis: Any = None, keepdims: bool = False) -> Self:
        return ops.mean(self, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def var(self, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Self:
        return ops.var(self, axis, keepdims, correction)

    @with_own_keywords
    def std(self, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Self:
        return ops.std(self, axis, keepdims, correction)

    @with_own_keywords
    def max(self, axis: Any = None, keepdims: bool = False) -> Self:
        return ops.max(self, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def min(self, axis: Any = None, keepdims: bool = False) -> Self:
        return ops.min(self, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def norm(self, p: float = 2, axis: Any = None, keepdims: bool = False) -> Self:
        return ops.norm(self, p, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def argmax(self, axis: int | None = None) -> Array:
        """The index of the largest value, the first of several, as a plain array."""
        axis = axis if axis is None else range(self.ndim)[check_integer(axis, "argmax: axis")]
        return self.data.argmax(axis=axis)

    @with_own_keywords
    def argmin(self, axis: int | None = None) -> Array:
        """The index of the smallest value, the first of several, as a plain array."""
        axis = axis if axis is None else range(self.ndim)[check_integer(axis, "argmin: axis")]
        return self.data.argmin(axis=axis)

    # -- elementwise
    def exp(self) -> Self:
        return ops.exp(self)

    def log(self) -> Self:
        return ops.log(self)

    def sqrt(self) -> Self:
        return ops.sqrt(self)

    def abs(self) -> Self:
        return ops.abs(self)

    def pow(self, exponent: Any) -> Self:
        return ops.power(self, exponent)

    def tanh(self) -> Self:
        return ops.tanh(self)

    def sigmoid(self) -> Self:
        return ops.sigmoid(self)

    def relu(self) -> Self:
        return ops.relu(self)

    @with_own_keywords
    def softmax(self, axis: int = -1) -> Self:
        return ops.softmax(self, axis=axis)

    @with_own_keywords
    def log_softmax(self, axis: int = -1) -> Self:
        return ops.log_softmax(self, axis=axis)

    @with_own_keywords
    def clip(self, min: Any = None, max: Any = None) -> Self:
        return ops.clip(self, min, max)

    @with_own_keywords
    def clamp(self, min: Any = None, max: Any = None) -> Self:
        return ops.clip(self, min, max)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Called for an attribute that does not exist: the error says what to use instead."""
            if name.startswith("_"):
                raise AttributeError(name)
            remedy = INSTEAD.get(name, f"ops.{name}(x, ...)" if name in ops.__all__ else "")
            known = [own for own in dir(type(self)) if not own.startswith("_")]
            hint = f"Use {remedy}." if remedy else did_you_mean(name, known)
            raise AttributeError(f"a Tensor has no attribute {name!r}. {hint}")
