"""Tensor: an array, its gradient, and the node of the op that made it.

`data` is the array (NumPy, CuPy or the strict double), `grad` the accumulated gradient of a leaf,
`requires_grad` whether gradients are computed for it. The rest of a Tensor is in its base classes:
operators in `tensor_operators.py`, methods in `tensor_methods.py`, what Python's and NumPy's
functions call in `python_protocol.py` and `numpy_protocol.py`. The mathematics is in `minibn.ops`,
the backward pass in `minibn.autograd.backward`.

Comparisons give plain arrays: they are constants of differentiation. Writing into `.data` is
allowed but unchecked (`detect_anomaly` checks it); `assign` is checked.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from minibn.autograd.array_attributes import Array
from minibn.autograd.numpy_protocol import NumpyProtocol
from minibn.autograd.python_protocol import PythonProtocol
from minibn.autograd.tensor_methods import TensorMethods
from minibn.autograd.tensor_operators import TensorOperators
from minibn.backend import array_module, backend_of, get_backend, to_numpy
from minibn.backend.array_types import is_foreign
from minibn.errors import GraphError, ShapeError, check_flag

# `minibn.autograd.backward`, above this module in the import order: it sets itself here.
backward_module: Any = None


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


class Tensor(TensorOperators, TensorMethods, PythonProtocol, NumpyProtocol):
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

    @classmethod
    def from_op(cls, node: Any, data: Array, version: Version | None = None) -> Tensor:
        """The Tensor that an op returns; node: None if it is not recorded."""
        self = object.__new__(Tensor)
        if isinstance(data, np.generic):  # NumPy gives scalars where CuPy gives 0-d arrays
            data = np.asarray(data)  # host: NumPy's scalar
        self._set(data, node is not None, node, version or Version())
        return self

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

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    def __repr__(self) -> str:
        text = repr(to_numpy(self.data)).removeprefix("array(").removesuffix(")")
        made = f", made by {type(self.node.op).__name__}" if self.node else ""
        wants = ", requires_grad=True" if self.requires_grad and not self.node else ""
        return f"{type(self).__name__}({text}{wants}{made})"

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def detach(self) -> Tensor:
        """The same array as a new leaf that requires no gradient (memory and version shared)."""
        return Tensor.from_op(None, self.data, self.version)

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

    # -- comparisons are plain arrays
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
