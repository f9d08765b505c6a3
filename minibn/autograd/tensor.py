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

from typing import Any

import numpy as np

from minibn.autograd.array_attributes import Array
from minibn.autograd.numpy_protocol import NumpyProtocol
from minibn.autograd.python_protocol import PythonProtocol
from minibn.autograd.tensor_methods import TensorMethods
from minibn.autograd.tensor_operators import TensorOperators
from minibn.backend import array_module, get_backend, to_numpy
from minibn.backend.array_types import is_foreign
from minibn.errors import GraphError

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

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad", "version")
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
        if requires_grad and data.dtype.kind not in "fc":
            raise TypeError(
                f"Tensor: data of dtype {data.dtype} can't require a gradient. "
                "Use floating-point data, or requires_grad=False."
            )
        self._set(data, requires_grad, None, Version())

    def _set(self, data: Array, requires_grad: bool, node: Any, version: Version) -> None:
        self.data = data
        self.grad: Tensor | None = None
        self.requires_grad = requires_grad
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
    copied_slots: tuple[str, ...] = ("data", "grad", "requires_grad", "version")

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
        """Copy `values` (same shape) into this Tensor's memory. Leaves only."""
        if self.node is not None:
            raise TypeError("assign: only a leaf can be assigned to. Use .detach() first.")
        values = values.data if isinstance(values, Tensor) else values
        shape = getattr(values, "shape", ())
        if shape not in ((), self.shape):
            raise ValueError(f"assign: values have shape {shape}, the Tensor {self.shape}.")
        self.data[...] = values
        self.bump_version()
        return self

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
    def __eq__(self, other: Any) -> Array:  # type: ignore[override]  # elementwise, as arrays do
        return self.data == value(other)

    def __ne__(self, other: Any) -> Array:  # type: ignore[override]  # elementwise, as arrays do
        return self.data != value(other)

    def __lt__(self, other: Any) -> Array:
        return self.data < value(other)

    def __le__(self, other: Any) -> Array:
        return self.data <= value(other)

    def __gt__(self, other: Any) -> Array:
        return self.data > value(other)

    def __ge__(self, other: Any) -> Array:
        return self.data >= value(other)
