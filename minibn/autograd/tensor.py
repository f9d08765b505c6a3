"""Tensor: an array, its gradient, and the node of the op that made it.

`data` is the array (NumPy, CuPy or the strict double), `grad` the accumulated gradient of a leaf,
`requires_grad` whether gradients are computed for it. Every operator is one line and one op; the
mathematics is in `minibn.ops`, the backward pass in `minibn.autograd.backward`.

Comparisons give plain arrays: they are constants of differentiation. Writing into `.data` is
allowed but unchecked (`detect_anomaly` checks it); `assign` is checked.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from minibn.autograd.numpy_protocol import NumpyProtocol
from minibn.backend import array_module, backend_of, get_backend, to_numpy
from minibn.backend.array_types import is_foreign
from minibn.errors import (
    GraphError,
    ShapeError,
    check_flag,
    check_integer,
    did_you_mean,
    with_own_keywords,
)

Array = Any  # an array of any backend: NumPy, CuPy or the strict double

# Modules above this one in the import order. Each sets itself here when it is imported.
ops: Any = None  # `minibn.ops`: an operator of Tensor is an op
backward_module: Any = None  # `minibn.autograd.backward`

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


class Version:
    """Counts in-place updates of the memory of a Tensor and its views."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def value(x: Any) -> Any:
    """The array of a Tensor; other values unchanged. NumPy scalars become Python's, which adopt the
    dtype of the arrays that they are combined with."""
    if isinstance(x, Tensor):
        return x.data
    return x.item() if isinstance(x, np.generic) else x


class Tensor(NumpyProtocol):
    """An array with a gradient.

    data: an array of any backend (shared, not copied), or a list, a number or an array of another
    library (an array of the current backend is made). Only real and complex floating-point data can
    require a gradient: TypeError.

    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> w.grad
    Tensor([2., 4.])
    """

    __slots__ = ("__weakref__", "_grad", "_requires_grad", "data", "node", "version")
    __hash__ = object.__hash__

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor):
            raise TypeError("Tensor: data is a Tensor already. Use .detach() for a fresh leaf.")
        if not hasattr(data, "dtype") or isinstance(data, np.generic) or is_foreign(data):
            data = get_backend().asarray(data)  # host: a list, a number or a NumPy scalar
        if type(data) is not np.ndarray:
            array_module(data)  # raises for what is no array
            data = np.asarray(data) if isinstance(data, np.ndarray) else data  # host: a subclass
        if data.dtype.kind not in "fciub":
            raise TypeError(f"Tensor: data of dtype {data.dtype} is not numeric.")
        self._set(data, False, None, Version())
        self.requires_grad = requires_grad

    def _set(self, data: Array, requires_grad: bool, node: Any, version: Version) -> None:
        self.data = data
        self._grad: Tensor | None = None
        self._requires_grad = requires_grad
        self.node = node
        self.version = version

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are computed for it. Can be set for leaves of floating point."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        wanted = check_flag(wanted, "Tensor: requires_grad")
        if self.node is not None and not wanted:
            raise GraphError("requires_grad=False is for leaves. Use .detach() for a result.")
        if wanted and not self._is_floating():
            raise TypeError(
                f"Tensor: data of dtype {self.dtype} can't require a gradient. "
                "Use floating-point data, or requires_grad=False."
            )
        self._requires_grad = wanted

    def _is_floating(self) -> bool:
        return self.dtype.kind in "fc"

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient, or None. Raises TypeError and ShapeError if it is set to what
        is no Tensor of this one's shape."""
        return self._grad

    @grad.setter
    def grad(self, g: Tensor | None) -> None:
        if g is not None and not isinstance(g, Tensor):
            raise TypeError(f"grad is a Tensor or None, not {type(g).__name__}. Use Tensor(array).")
        if g is not None and g.shape != self.shape:
            raise ShapeError(f"grad has shape {g.shape}, its Tensor {self.shape}: they are equal.")
        self._grad = g

    @classmethod
    def from_op(cls, node: Any, data: Array, version: Version | None = None) -> Tensor:
        """The Tensor that an op returns; node: None if it is not recorded."""
        self = object.__new__(Tensor)
        if isinstance(data, np.generic):  # NumPy gives scalars where CuPy gives 0-d arrays
            data = np.asarray(data)  # host: NumPy's scalar
        self._set(data, node is not None, node, version or Version())
        return self

    # -- attributes of the array
    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError(f"{self!r} has no axis, so no length and no elements. Use .item().")
        return len(self.data)

    def __repr__(self) -> str:
        text = repr(to_numpy(self.data)).removeprefix("array(").removesuffix(")")
        made = f", made by {type(self.node.op).__name__}" if self.node else ""
        wants = ", requires_grad=True" if self.requires_grad and not self.node else ""
        return f"{type(self).__name__}({text}{wants}{made})"

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # -- detached from the graph, and on the host
    def detach(self) -> Tensor:
        """The same array as a new leaf that requires no gradient (memory and version shared)."""
        return Tensor.from_op(None, self.data, self.version)

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the same memory on NumPy, a transfer on a GPU."""
        return to_numpy(self.data)

    def item(self) -> float:
        """The value of a Tensor with one element as a Python number (a transfer on a GPU)."""
        return self.data.item()

    def tolist(self) -> Any:
        """The values as (nested lists of) Python numbers (a transfer on a GPU)."""
        return self.numpy().tolist()

    def _number(self, what: str) -> Any:
        if self.size != 1:
            raise TypeError(
                f"{what} needs a Tensor with one value, this one has shape {self.shape}. Reduce "
                "it, as with .sum(), .max() or (x > 0).all(), or take .numpy()."
            )
        return self.item()

    def __bool__(self) -> bool:
        return bool(self._number("the truth value (of if, and, not)"))

    def __float__(self) -> float:
        return float(self._number("float()"))

    def __int__(self) -> int:
        return int(self._number("int()"))

    def __complex__(self) -> complex:
        return complex(self._number("complex()"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"an index is an integer; this Tensor is of {self.dtype}.")
        return int(self._number("an index"))

    def __format__(self, spec: str) -> str:
        """A Tensor without axes is formatted as its number, as in f"{loss:.3f}"."""
        if self.ndim and spec:
            raise TypeError(
                f"a Tensor of shape {self.shape} can't be formatted with {spec!r}: only one "
                "without axes, as a loss. Take .item() of an element, or .numpy()."
            )
        return repr(self) if self.ndim else format(self.item(), spec)

    # -- copies and pickles
    copied_slots: tuple[str, ...] = ("data", "_grad", "_requires_grad", "version")

    def __getstate__(self) -> dict[str, Any]:
        """What copy.copy, copy.deepcopy and pickle take: a leaf's. Raises GraphError for others."""
        if self.node is not None:
            raise GraphError(
                "only leaves can be copied or pickled, and this Tensor was made by "
                f"{type(self.node.op).__name__}. Take .detach(), or in the graph .copy()."
            )
        own = getattr(self, "__dict__", {})  # of a subclass
        return {name: getattr(self, name) for name in self.copied_slots} | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.node = None
        for name, part in state.items():
            setattr(self, name, part)

    # -- in-place updates
    def bump_version(self) -> None:
        """Mark `.data` as changed in place: a backward pass that needs the old values then raises
        GraphError."""
        self.version.count += 1

    def assign(self, values: Any) -> Tensor:
        """Copy `values` (same shape, or one number) into this Tensor's memory. Leaves only.

        Raises ShapeError for another shape, TypeError for another kind of numbers.
        """
        if self.node is not None:
            raise TypeError("assign: only a leaf can be assigned to. Use .detach() first.")
        values = self._values_to_write(values, "assign")
        if values.shape not in ((), self.shape):
            raise ShapeError(f"assign: values have shape {values.shape}, the Tensor {self.shape}.")
        self.data[...] = values
        self.bump_version()
        return self

    def _values_to_write(self, values: Any, who: str) -> Array:
        """The values as an array of this Tensor's backend, of a kind that fits its dtype."""
        backend, values = backend_of(self.data), value(values)
        is_array = hasattr(values, "dtype")
        values = backend.asarray(values)
        dtype = self.dtype if is_array else np.result_type(self.dtype, values.dtype.type(0).item())
        if not np.can_cast(values.dtype if is_array else dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"{who}: values of dtype {values.dtype} don't fit into a Tensor of {self.dtype}. "
                "Use .astype first."
            )
        return values

    def __setitem__(self, index: Any, values: Any) -> None:
        """Write into elements, in place; as `+=` only where no op is recorded."""
        tensors = [x for x in (self, values) if isinstance(x, Tensor)]
        if backward_module.grad_enabled.get() and any(x.requires_grad for x in tensors):
            raise TypeError(
                "Tensor[...] = values: where a gradient is required, elements can't be changed in "
                "place while ops are recorded. Do it inside `with minibn.no_grad():`, or make a "
                "new Tensor: ops.where(mask, values, x)."
            )
        index = tuple(map(value, index)) if isinstance(index, tuple) else value(index)
        values = self._values_to_write(values, "Tensor[...] = values")
        try:
            self.data[index] = values
        except ValueError as error:
            raise ShapeError(f"Tensor[...] = values of shape {values.shape}: {error}.") from error
        self.bump_version()

    def _update(self, op: Any, other: Any, symbol: str) -> Tensor:
        """self = op(self, other), in place where no gradient is recorded, as in PyTorch; of a graph
        a new Tensor, to which Python binds the name."""
        result = op(self, other)
        if result.node is not None:
            if self.is_leaf and self.requires_grad:
                raise TypeError(
                    f"Tensor {symbol}: a leaf that requires a gradient can't be changed in place "
                    "while ops are recorded. Do it inside `with minibn.no_grad():`, or write "
                    f"x = x {symbol[:-1]} y for a new Tensor."
                )
            return result
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"Tensor {symbol}: the result is {result.dtype}, this Tensor {self.dtype}. Write "
                f"x = x {symbol[:-1]} y, or use .astype first."
            )
        if result.shape != self.shape:
            raise ShapeError(
                f"Tensor {symbol}: the result has shape {result.shape}, this Tensor {self.shape}. "
                f"Write x = x {symbol[:-1]} y for a new Tensor."
            )
        self.data[...] = result.data
        self.bump_version()
        return self

    def __iadd__(self, other: Any) -> Tensor:
        return self._update(ops.add, other, "+=")

    def __isub__(self, other: Any) -> Tensor:
        return self._update(ops.subtract, other, "-=")

    def __imul__(self, other: Any) -> Tensor:
        return self._update(ops.multiply, other, "*=")

    def __itruediv__(self, other: Any) -> Tensor:
        return self._update(ops.divide, other, "/=")

    def __ipow__(self, other: Any) -> Tensor:
        return self._update(ops.power, other, "**=")

    def __imatmul__(self, other: Any) -> Tensor:
        return self._update(ops.matmul, other, "@=")

    @staticmethod
    def op_name(name: str) -> str:
        """The function of `minibn.ops` for one of NumPy's; "" if there is none."""
        name = {"absolute": "abs", "amax": "max", "amin": "min"}.get(name, name)
        return name if name in ops.__all__ else ""

    # -- gradients
    def backward(
        self, cotangent: Any = None, *, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add d(self)/d(leaf) · cotangent to `.grad` of every leaf that this Tensor depends on.

        cotangent: same shape as self; needed unless self is a scalar. See `backward.py`.
        """
        backward_module.backward(
            self, cotangent, retain_graph=retain_graph, create_graph=create_graph
        )

    # -- operators: arithmetic
    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.divide(other, self)

    def __pow__(self, exponent: Any) -> Tensor:
        return ops.power(self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return ops.power(base, self)

    def __pos__(self) -> Tensor:
        return self

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    # -- operators: comparisons are plain arrays
    def _compare(self, compare: Any, other: Any) -> Array:
        other = value(other)
        if is_foreign(other) or not isinstance(other, (str, list, tuple)):
            array_module(self.data, other)
        try:
            return compare(self.data, other)
        except ValueError as error:
            raise ShapeError(f"a comparison: {error}. Use .reshape, or a number.") from error
        except TypeError:
            raise TypeError(f"a Tensor can't be compared with {other!r:.80}.") from None

    def __eq__(self, other: Any) -> Array:  # type: ignore[override]  # elementwise, as arrays do
        return self._compare(operator.eq, other)

    def __ne__(self, other: Any) -> Array:  # type: ignore[override]  # elementwise, as arrays do
        return self._compare(operator.ne, other)

    def __lt__(self, other: Any) -> Array:
        return self._compare(operator.lt, other)

    def __le__(self, other: Any) -> Array:
        return self._compare(operator.le, other)

    def __gt__(self, other: Any) -> Array:
        return self._compare(operator.gt, other)

    def __ge__(self, other: Any) -> Array:
        return self._compare(operator.ge, other)

    # -- shapes and reductions, named as in NumPy
    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def reshape(self, *shape: Any) -> Tensor:
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        return ops.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    @property
    def T(self) -> Tensor:
        return ops.transpose(self)

    def astype(self, dtype: Any) -> Tensor:
        return ops.cast(self, dtype)

    def permute(self, *axes: Any) -> Tensor:
        """The same as `transpose`: PyTorch's name."""
        return self.transpose(*axes)

    def t(self) -> Tensor:
        return ops.transpose(self)

    def view(self, *shape: Any) -> Tensor:
        """The same as `reshape`: PyTorch's name."""
        return self.reshape(*shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from start_dim to end_dim (inclusive) as one. Raises IndexError for others."""
        shape = self.shape or (1,)
        first, last = (
            range(len(shape))[check_integer(dim, f"flatten: {name}")]
            for name, dim in (("start_dim", start_dim), ("end_dim", end_dim))
        )
        inner = shape[first : last + 1]
        return self.reshape((*shape[:first], math.prod(inner), *shape[max(first, last + 1) :]))

    @with_own_keywords
    def squeeze(self, axis: Any = None) -> Tensor:
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
    def unsqueeze(self, axis: int) -> Tensor:
        """With a new axis of length 1 at this position. Raises IndexError for another one."""
        at = range(self.ndim + 1)[check_integer(axis, "unsqueeze: axis")]
        return self.reshape((*self.shape[:at], 1, *self.shape[at:]))

    def copy(self) -> Tensor:
        """A copy with memory of its own, through which gradients flow: PyTorch's clone()."""
        return ops.cast(self, self.dtype)

    def clone(self) -> Tensor:
        return self.copy()

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return self.size

    @with_own_keywords
    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def var(self, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Tensor:
        return ops.var(self, axis, keepdims, correction)

    @with_own_keywords
    def std(self, axis: Any = None, keepdims: bool = False, correction: int = 0) -> Tensor:
        return ops.std(self, axis, keepdims, correction)

    @with_own_keywords
    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.min(self, axis=axis, keepdims=keepdims)

    @with_own_keywords
    def norm(self, p: float = 2, axis: Any = None, keepdims: bool = False) -> Tensor:
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
    def exp(self) -> Tensor:
        return ops.exp(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def sqrt(self) -> Tensor:
        return ops.sqrt(self)

    def abs(self) -> Tensor:
        return ops.abs(self)

    def pow(self, exponent: Any) -> Tensor:
        return ops.power(self, exponent)

    def tanh(self) -> Tensor:
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        return ops.sigmoid(self)

    def relu(self) -> Tensor:
        return ops.relu(self)

    @with_own_keywords
    def softmax(self, axis: int = -1) -> Tensor:
        return ops.softmax(self, axis=axis)

    @with_own_keywords
    def log_softmax(self, axis: int = -1) -> Tensor:
        return ops.log_softmax(self, axis=axis)

    @with_own_keywords
    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        return ops.clip(self, min, max)

    @with_own_keywords
    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        return ops.clip(self, min, max)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Called for an attribute that does not exist: the error says what to use instead."""
            if name.startswith("_"):
                raise AttributeError(name)
            remedy = INSTEAD.get(name, f"ops.{name}(x, ...)" if name in ops.__all__ else "")
            known = [own for own in dir(Tensor) if not own.startswith("_")]
            hint = f"Use {remedy}." if remedy else did_you_mean(name, known)
            raise AttributeError(f"a Tensor has no attribute {name!r}. {hint}")
