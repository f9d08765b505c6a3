"""The tape: how ops are recorded. The backward pass is in `backward.py`.

An op is a class with a `forward` on arrays and a `vjp` (vector-Jacobian product): given the
cotangent ḡ of its output it returns the cotangent of each input. `apply` runs an op and, if an
input requires a gradient, records a Node. Nodes refer to the nodes of their inputs and hold the
saved arrays that the vjp reads, never Tensors of the graph: so there are no reference cycles, and
the graph is freed with its output.

`vjp` is written once, with functions and operators that take arrays and Tensors alike. It is called
with arrays; under `create_graph=True` with Tensors, so that the gradient is itself recorded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibn.autograd import observers, tensor_operators
from minibn.autograd.dispatch import find_kernel
from minibn.autograd.tensor import Array, Tensor, Version, value
from minibn.backend import array_module
from minibn.errors import GraphError, ShapeError
from minibn.setting import Setting, SettingScope


class Op:
    """One operation: its settings (given to `__init__`), its value and its derivative.

    needs             positions of the inputs whose values `vjp` reads (None: all). The others are
                      not saved: `vjp` gets an `Absent`, which has their shape and dtype only.
    needs_output      whether `vjp` reads the output.
    broadcasts        inputs broadcast against each other; `backward` sums their gradients back.
    integers          how integers are taken, since bytes would wrap: "float64", "int64" by sums and
                      products, which are exact then, or "kept" where they are only moved. (Beside
                      floating-point inputs every op takes integers in the dtype of these.)
    view              the output may share memory with input 0 (and so shares its version).
    needs_input_grad  set before `vjp` is called: for each input, whether it needs a gradient.
    """

    needs: tuple[int, ...] | None = None
    needs_output = False
    broadcasts = False
    integers = "float64"
    view = False
    needs_input_grad: tuple[bool, ...] = ()

    def forward(self, *inputs: Array) -> Array:
        raise NotImplementedError

    def vjp(self, g: Any, out: Any, *inputs: Any) -> Any:
        """The cotangent of each input, by position (of the only input, if there is one)."""
        raise NotImplementedError


class Absent:
    """In the place of an array that is not saved: its shape and dtype."""

    __slots__ = ("dtype", "ndim", "shape", "size")

    def __init__(self, x: Any) -> None:
        self.shape, self.dtype, self.ndim, self.size = x.shape, x.dtype, x.ndim, x.size


class Node:
    """A recorded op: the nodes of its inputs, and the arrays saved for its vjp."""

    __slots__ = ("inputs", "kernel", "op", "order", "output", "parents", "saved_versions")
    _count = itertools.count()

    def __init__(self, op: Op, inputs: Sequence[Any], values: Sequence[Any]) -> None:
        self.order = next(Node._count)
        self.op = op
        self.kernel: Any = None  # that ran in the op's place, with the arrays it saved
        self.parents = tuple(
            (x.node or x) if isinstance(x, Tensor) and x._requires_grad else None for x in inputs
        )
        needs = range(len(inputs)) if op.needs is None else op.needs
        self.inputs: tuple[Any, ...] = tuple(
            value if i in needs or not hasattr(value, "dtype") else Absent(value)
            for i, value in enumerate(values)
        )
        self.output: Any = None
        # The versions of the saved arrays in the forward pass; None for what is not saved.
        self.saved_versions: list[tuple[Version, int] | None] = [
            (x.version, x.version.count) if isinstance(x, Tensor) and i in needs else None
            for i, x in enumerate(inputs)
        ]

    def save_output(self, out: Tensor) -> None:
        self.output = out.data if self.op.needs_output else Absent(out.data)
        version = (out.version, out.version.count) if self.op.needs_output else None
        self.saved_versions.append(version)

    @property
    def is_released(self) -> bool:
        return self.output is None

    def release(self) -> None:
        """Free the saved arrays, also those among the op's settings (masks, indices). The parents
        and the op's class stay, so that a second backward pass can raise an error with its name."""
        self.inputs, self.output, self.kernel = (), None, None
        self.op = object.__new__(type(self.op))

    def saved_tensors(self, recorded: bool) -> tuple[Any, ...]:
        """(output, *inputs) for the vjp: arrays, or if `recorded` Tensors of the graph. Raises
        GraphError if one was changed in place since the forward pass."""
        name = type(self.op).__name__
        for position, seen in enumerate(self.saved_versions):
            if seen is not None and seen[0].count != seen[1]:
                what = "its output" if position == len(self.inputs) else f"its input {position}"
                raise GraphError(
                    f"backward through {name} needs {what} as it was in the forward pass, but it "
                    "was changed in place since. Call backward before the optimizer's step or "
                    "assign(), or run the forward pass again."
                )
        if not recorded:
            return self.output, *self.inputs
        out = self.output
        if not isinstance(out, Absent):
            out = _tied(self, out, self.saved_versions[-1])
        return out, *(
            x if parent is None or isinstance(x, Absent) else _tied(parent, x, seen)
            for parent, x, seen in zip(self.parents, self.inputs, self.saved_versions, strict=False)
        )


def _tied(source: Node | Tensor, data: Array, seen: Any) -> Tensor:
    """The Tensor of a saved array: the leaf itself, or a result of the node `source`."""
    return source if isinstance(source, Tensor) else Tensor.from_op(source, data, seen[0])


grad_enabled: Setting[bool] = Setting("grad_enabled", True)


def set_grad_enabled(mode: bool) -> SettingScope:
    """From here on ops are recorded, or not. In a `with` statement until its end, also after an
    exception. As PyTorch's."""
    return SettingScope(grad_enabled, bool(mode))


def no_grad(function: Any = None) -> Any:
    """Context manager and decorator (with or without parentheses): no op is recorded. Independent
    of train/eval mode.

    >>> w = Tensor([2.0], requires_grad=True)
    >>> with no_grad():
    ...     (w * w).requires_grad
    False
    """
    block = grad_enabled.override(False)
    return block if function is None else block(function)


def apply(op: Op, *inputs: Any) -> Any:
    """Run `op`. Arrays in, array out. A Tensor in, a Tensor out, recorded if one of the inputs
    requires a gradient. Raises BackendMismatch if the inputs live on two backends, TypeError for
    what is no array."""
    values = [value(x) for x in inputs]
    if len(values) == 1 and isinstance(inputs[0], np.generic):  # no array gives its dtype
        values = [np.asarray(inputs[0])]  # host: NumPy's scalar
    for x in values:
        if type(x) not in _NUMBERS and not is_plain(x):
            values = _as_operands(values, op.integers)
            break
    needs = needs_gradient(inputs)
    return run_by(find_kernel(op, values, needs) or op, op, inputs, values, needs)


_NUMBERS = (float, int)


def is_plain(x: Any) -> bool:
    """Whether x is an array of NumPy's own class and of floating point: nothing is to be done."""
    return type(x) is np.ndarray and x.dtype.kind in "fc"


def _as_operands(values: list[Any], integers: str) -> list[Any]:
    """The inputs of an op: arrays of one backend, as plain arrays, and integers as `Op.integers`
    says."""
    check_operands(values)
    if any(x is None for x in values):
        raise TypeError("an input is None, not an array or a number.")
    if integers != "kept":  # the exponential of NumPy's True is a float16
        values = [int(x) if isinstance(x, bool) else x for x in values]
    values = [np.asarray(x) if isinstance(x, np.ndarray) else x for x in values]  # host: NumPy's
    dtype = dtype_for_integers([x.dtype for x in values if hasattr(x, "dtype")], integers)
    if dtype is None:
        return values
    return [
        x.astype(dtype) if hasattr(x, "dtype") and x.dtype.kind not in "fc" else x for x in values
    ]


def check_operands(values: Sequence[Any]) -> None:
    """Raise BackendMismatch for arrays of two backends, TypeError for what is no array of numbers.
    `apply` does so; a function that looks at its inputs' values before it, too."""
    array_module(*values)
    for x in values:
        dtype = getattr(x, "dtype", None)
        if dtype is not None and dtype.kind not in "fciub":
            raise TypeError(f"an array of {dtype} is not computed on. Use x.astype(float).")


def dtype_for_integers(dtypes: Sequence[Any], integers: str = "float64") -> Any:
    """The dtype in which integers among inputs of these dtypes are taken, None for their own.
    integers: as in `Op`, if no input is of floating point."""
    floats = [dtype for dtype in dtypes if dtype.kind in "fc"]
    if floats:
        return np.result_type(*floats) if len(floats) < len(dtypes) else None
    if integers == "kept":
        return None
    return np.dtype(np.float64 if np.dtype(np.uint64) in dtypes else integers)


def needs_gradient(inputs: Sequence[Any]) -> tuple[bool, ...]:
    """For each input of an op, whether it needs a gradient."""
    on = grad_enabled.get()
    return tuple([on and isinstance(x, Tensor) and x._requires_grad for x in inputs])


def run_by(
    run: Any, op: Op, inputs: Sequence[Any], values: Sequence[Any], needs: tuple[bool, ...]
) -> Any:
    """`apply` with `run`, the op itself or a kernel in its place. values: of the inputs."""
    call = observers.wrap(run.forward, op, run) if observers.current() else run.forward
    try:
        array = call(*values)
    except FloatingPointError as error:  # under np.seterr(under="raise")
        if "underflow" not in str(error):
            raise
        with np.errstate(under="ignore"):  # host: 10⁻⁵⁰ in float32 is 0, which is no error
            array = call(*values)
    except ValueError as error:
        if not op.broadcasts or "broadcast" not in str(error):
            raise
        shapes = " and ".join(str(tuple(x.shape)) for x in values if hasattr(x, "shape"))
        raise ShapeError(
            f"{type(op).__name__}: shapes {shapes} can't be broadcast together. From the last axis "
            "on, two lengths are equal or one of them is 1: use x[:, None] or .reshape."
        ) from error
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if not tensors:
        return array
    version = tensors[0].version if op.view else None
    if True not in needs:
        return Tensor.from_op(None, array, version)
    node = Node(op, inputs, values)
    node.kernel = None if run is op else run
    out = Tensor.from_op(node, array, version)
    node.save_output(out)
    for observer in observers.current():
        observer.on_record(node)
    return out


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum `g` over the axes along which `shape` was broadcast. The adjoint of broadcasting.

    >>> unbroadcast(np.ones((4, 2, 3)), (2, 1)).tolist()
    [[12.0], [12.0]]
    """
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    if lead < 0 or any(n not in (1, g.shape[lead + i]) for i, n in enumerate(shape)):
        raise ShapeError(
            f"unbroadcast: a gradient of shape {g.shape} for an input of shape {shape}, which does "
            "not broadcast to it. Does the vjp return its gradients by position, and untransposed?"
        )
    axes = tuple(range(lead)) + tuple(
        lead + i for i, n in enumerate(shape) if n == 1 and g.shape[lead + i] != 1
    )
    return tensor_operators.ops.sum(g, axis=axes).reshape(shape)
