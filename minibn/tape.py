"""The tape: how ops are recorded, and how gradients walk back.

An op is a class with a `forward` on arrays and a `vjp` (vector-Jacobian product): given the
cotangent ḡ of its output it returns the cotangent of each input. `apply` runs an op and, if an
input wants a gradient, leaves a Node. Nodes point to the nodes of their inputs and hold the arrays
that the vjp reads, never Tensors of the graph: there are no cycles, and the graph dies with its
output.

The walk needs no recursion and no sorting by dependencies: nodes are numbered as they are made, so
descending numbers are an order in which every node comes after all of its consumers.

`vjp` is written once, with functions and operators that take arrays and Tensors alike. The walk
hands it arrays; under `create_graph=True` it hands it Tensors, and the gradient is itself
recorded.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minibn import anomaly
from minibn.backend import array_module, backend_of
from minibn.errors import GraphError, ShapeError
from minibn.tensor import Array, Tensor, Version


class Op:
    """One operation: its settings (given to `__init__`), its value and its derivative.

    needs         positions of the inputs whose values `vjp` reads (None: all). The others are
                  freed, and reach `vjp` as an `Absent`: shape and dtype without values.
    needs_output  whether `vjp` reads the output.
    broadcasts    inputs broadcast against each other; the tape sums their gradients back.
    view          the output may share memory with input 0 (and so shares its version).
    wants         set by the tape before `vjp`: which inputs want a gradient.
    """

    needs: tuple[int, ...] | None = None
    needs_output = False
    broadcasts = False
    view = False
    wants: tuple[bool, ...] = ()

    def forward(self, *inputs: Array) -> Array:
        raise NotImplementedError

    def vjp(self, g: Any, out: Any, *inputs: Any) -> Any:
        """The cotangent of each input, by position (of the only input, if there is one)."""
        raise NotImplementedError


class Absent:
    """What an input that the op does not need leaves behind: its shape and dtype."""

    __slots__ = ("dtype", "ndim", "shape", "size")

    def __init__(self, x: Any) -> None:
        self.shape, self.dtype, self.ndim, self.size = x.shape, x.dtype, x.ndim, x.size


class Node:
    """One op that was run: where its inputs came from, and what its vjp reads."""

    __slots__ = ("inputs", "op", "order", "output", "parents", "seen", "where")
    _count = itertools.count()

    def __init__(self, op: Op, inputs: Sequence[Any], values: Sequence[Any]) -> None:
        self.order = next(Node._count)
        self.op = op
        self.parents = tuple(
            (x.node or x) if isinstance(x, Tensor) and x.requires_grad else None for x in inputs
        )
        needs = range(len(inputs)) if op.needs is None else op.needs
        self.inputs: tuple[Any, ...] = tuple(
            value if i in needs or not hasattr(value, "dtype") else Absent(value)
            for i, value in enumerate(values)
        )
        self.output: Any = None
        # The versions at which the saved arrays were seen; None for what is not saved.
        self.seen: list[tuple[Version, int] | None] = [
            (x.version, x.version.count) if isinstance(x, Tensor) and i in needs else None
            for i, x in enumerate(inputs)
        ]
        self.where = ""

    def keep_output(self, out: Tensor) -> None:
        self.output = out.data if self.op.needs_output else Absent(out.data)
        self.seen.append((out.version, out.version.count) if self.op.needs_output else None)

    @property
    def released(self) -> bool:
        return self.output is None

    def release(self) -> None:
        self.inputs, self.output, self.parents = (), None, ()

    def recall(self, recorded: bool) -> tuple[Any, ...]:
        """(output, *inputs) for the vjp: arrays, or Tensors still tied to the graph."""
        name = type(self.op).__name__
        for position, seen in enumerate(self.seen):
            if seen is not None and seen[0].count != seen[1]:
                what = "its output" if position == len(self.inputs) else f"its input {position}"
                raise GraphError(
                    f"backward through {name} needs {what} as it was in the forward pass, but it "
                    "was changed in place since. Call backward before the optimizer's step or "
                    "assign(), or run the forward pass again."
                )
        if anomaly.active():
            anomaly.check_saved(self)
        if not recorded:
            return self.output, *self.inputs
        out = self.output
        if not isinstance(out, Absent):
            out = _tied(self, out, self.seen[-1])
        return out, *(
            x if parent is None or isinstance(x, Absent) else _tied(parent, x, seen)
            for parent, x, seen in zip(self.parents, self.inputs, self.seen, strict=False)
        )


def _tied(source: Node | Tensor, data: Array, seen: Any) -> Tensor:
    """A saved array as the Tensor that it was: the leaf itself, or the result of its node."""
    return source if isinstance(source, Tensor) else Tensor.made_by(source, data, seen[0])


class _Recording(threading.local):
    on = True


_recording = _Recording()


@contextmanager
def _recording_set(on: bool):
    before, _recording.on = _recording.on, on
    try:
        yield
    finally:
        _recording.on = before


def no_grad():
    """Inside, nothing is recorded. Also a decorator. Independent of train/eval mode.

    >>> w = Tensor([2.0], requires_grad=True)
    >>> with no_grad():
    ...     (w * w).requires_grad
    False
    """
    return _recording_set(False)


def value(x: Any) -> Any:
    """The array of a Tensor; an array or a number as it is. NumPy scalars become Python's, so
    that they adopt the dtype of the arrays they meet."""
    if isinstance(x, Tensor):
        return x.data
    return x.item() if isinstance(x, np.generic) else x


def apply(op: Op, *inputs: Any) -> Any:
    """Run `op`. Arrays in, array out. A Tensor in, a Tensor out, recorded if it wants a gradient.
    Raises BackendMismatch if the inputs live on two backends."""
    values = [value(x) for x in inputs]
    if len(values) > 1:
        array_module(*values)
    elif isinstance(inputs[0], np.generic):  # alone it has no other dtype to adopt
        values = [np.asarray(inputs[0])]
    array = op.forward(*values)
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if anomaly.active():
        anomaly.check_forward(op, values, array)
    if not tensors:
        return array
    version = tensors[0].version if op.view else None
    if not (_recording.on and any(x.requires_grad for x in tensors)):
        return Tensor.made_by(None, array, version)
    node = Node(op, inputs, values)
    out = Tensor.made_by(node, array, version)
    node.keep_output(out)
    if anomaly.active():
        anomaly.remember(node)
    return out


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum `g` over the axes along which `shape` was broadcast: the adjoint of broadcasting.

    >>> unbroadcast(np.ones((4, 2, 3)), (2, 1)).tolist()
    [[12.0], [12.0]]
    """
    if g.shape == shape:
        return g
    from minibn.ops import sum as sum_

    lead = g.ndim - len(shape)
    if lead < 0:
        raise ShapeError(f"unbroadcast: a gradient of shape {g.shape} for an input of {shape}.")
    axes = tuple(range(lead)) + tuple(
        lead + i for i, n in enumerate(shape) if n == 1 and g.shape[lead + i] != 1
    )
    return sum_(g, axis=axes).reshape(shape)


def _fit(g: Any, x: Any, op: Op, position: int) -> Any:
    """The gradient `g` as the input `x` needs it: an array of its shape, and of its dtype unless
    complex."""
    if op.broadcasts:
        g = unbroadcast(g, x.shape)
    if isinstance(g, np.generic):  # NumPy gives scalars where CuPy gives 0-d arrays
        g = np.asarray(g)
    if g.shape != x.shape:
        raise ShapeError(
            f"{type(op).__name__}.vjp returned a gradient of shape {g.shape} for input {position} "
            f"of shape {x.shape}. Is an axis missing, or should the op set broadcasts = True?"
        )
    if g.dtype != x.dtype and g.dtype.kind != "c":
        g = g.astype(x.dtype)
    return g


def _ancestors(node: Node) -> list[Node]:
    """The node and all behind it, in the order in which they were made."""
    seen, stack = {node}, [node]
    while stack:
        for parent in stack.pop().parents:
            if isinstance(parent, Node) and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=lambda n: n.order)


def _walk(
    output: Tensor, cotangent: Any, targets: set | None, create_graph: bool, retain_graph: bool
) -> dict[Node | Tensor, Any]:
    """Pull `cotangent` back from `output`. Returns the gradient of each target that is reached
    (of each leaf, if `targets` is None)."""
    start: Node | Tensor = output.node or output
    found: dict[Node | Tensor, Any] = {}
    pending: dict[Node | Tensor, Any] = {start: cotangent}
    nodes = _ancestors(start) if isinstance(start, Node) else []
    if targets is not None:  # leave out what leads to no target
        active: set[Node | Tensor] = set(targets)
        for node in nodes:
            if any(parent in active for parent in node.parents):
                active.add(node)
        nodes = [node for node in nodes if node in active]
    while nodes:
        node = nodes.pop()
        g = pending.pop(node, None)
        if g is None:
            continue
        if targets is not None and node in targets:
            found[node] = g
            if not any(parent in active for parent in node.parents):
                continue
        if node.released:
            raise GraphError(
                f"backward through {type(node.op).__name__}: this part of the graph was released "
                "by an earlier backward. Add the losses and call backward once, pass "
                "retain_graph=True the first time, or run the forward pass again."
            )
        op = node.op
        op.wants = tuple(
            parent is not None and (targets is None or parent in active) for parent in node.parents
        )
        out, *inputs = node.recall(create_graph)
        grads = op.vjp(g, out, *inputs)
        grads = grads if isinstance(grads, tuple) else (grads,)
        if len(grads) != len(inputs):
            raise GraphError(
                f"{type(op).__name__}.vjp returned {len(grads)} gradients for {len(inputs)} inputs."
            )
        if anomaly.active():
            anomaly.check_backward(node, g, grads)
        for i, (parent, x, gx) in enumerate(zip(node.parents, inputs, grads, strict=True)):
            if parent is not None and op.wants[i] and gx is not None:
                gx = _fit(gx, x, op, i)
                pending[parent] = _fit(pending[parent] + gx, x, op, i) if parent in pending else gx
        if not retain_graph:
            node.release()
    found.update((leaf, g) for leaf, g in pending.items() if targets is None or leaf in targets)
    return found


def _cotangent(output: Tensor, cotangent: Any, what: str) -> Any:
    """Check the cotangent, or make the 1 of a scalar."""
    if not output.requires_grad:
        raise GraphError(
            f"{what}: the output depends on nothing that requires a gradient. Was it computed "
            "under no_grad(), detached, or from Tensors without requires_grad=True?"
        )
    if cotangent is None:
        if output.size != 1:
            raise ShapeError(
                f"{what}: an output of shape {output.shape} needs a cotangent of that shape; only "
                "a scalar has a natural one. Reduce it with .sum() or .mean(), or pass one."
            )
        return array_module(output.data).ones_like(output.data)
    if not hasattr(value(cotangent), "shape") or isinstance(cotangent, np.generic):
        cotangent = backend_of(output.data).asarray(cotangent, dtype=output.dtype)
    array_module(output.data, value(cotangent))
    if cotangent.shape != output.shape:
        raise ShapeError(
            f"{what}: the cotangent has shape {cotangent.shape}, the output {output.shape}. "
            "They must be equal: the cotangent is not broadcast."
        )
    if cotangent.dtype != output.dtype and cotangent.dtype.kind != "c":
        cotangent = cotangent.astype(output.dtype)
    return cotangent


def backward(
    output: Tensor, cotangent: Any = None, *, retain_graph: bool = False, create_graph: bool = False
) -> None:
    """Add the gradient of ⟨output, cotangent⟩ to `.grad` of every leaf that requires one.

    The graph is released on the way unless `retain_graph` (or `create_graph`) is set. `.grad` is
    written only when the whole walk has succeeded.
    Raises GraphError for a released graph, a Tensor changed since, an output without gradient;
    ShapeError for a cotangent that does not fit.
    """
    g = _start(output, cotangent, "backward", create_graph)
    with _recording_set(create_graph):
        found = _walk(output, g, None, create_graph, retain_graph or create_graph)
        owned = {id(_owner(value(g)))}
        for leaf, found_g in found.items():
            assert isinstance(leaf, Tensor)  # without targets only leaves are left
            leaf_g = _own(found_g, owned)
            leaf.grad = leaf_g if leaf.grad is None else leaf.grad + leaf_g


def _start(output: Tensor, cotangent: Any, what: str, create_graph: bool) -> Any:
    g = _cotangent(output, cotangent, what)
    if create_graph:
        return g if isinstance(g, Tensor) else Tensor.made_by(None, g)
    return value(g)


def _owner(array: Array) -> Array:
    """The array that owns the memory of a view."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _own(g: Any, owned: set[int]) -> Tensor:
    """The gradient as a Tensor: itself, or a copy where its memory is a view (or may be one) or
    belongs to another gradient. A recorded one stays recorded."""
    array = value(g)
    if getattr(array, "base", array) is not None or id(array) in owned:
        g = g * 1 if isinstance(g, Tensor) else array.copy()
    owned.add(id(value(g)))
    return g if isinstance(g, Tensor) else Tensor.made_by(None, g)


def grad(
    output: Tensor,
    inputs: Tensor | Sequence[Tensor],
    cotangent: Any = None,
    create_graph: bool = False,
    *,
    retain_graph: bool | None = None,
    unused: str = "raise",
) -> Any:
    """The gradient of ⟨output, cotangent⟩ with respect to `inputs` (leaves or results of ops).

    Returns one Tensor for one input, a tuple for a sequence; `.grad` is left alone. With
    `create_graph=True` the gradients can be differentiated again. An input that the output does
    not depend on raises GraphError, or gives zeros with `unused="zeros"`.

    >>> x = Tensor([3.0], requires_grad=True)
    >>> slope = grad((x**3).sum(), x, create_graph=True)
    >>> grad(slope, x)
    Tensor([18.])
    """
    single = isinstance(inputs, Tensor)
    wanted: list[Tensor] = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if unused not in ("raise", "zeros"):
        raise ValueError(f"grad: unused={unused!r} is neither 'raise' nor 'zeros'.")
    for i, x in enumerate(wanted):
        if not isinstance(x, Tensor) or not x.requires_grad:
            raise GraphError(f"grad: input {i} is not a Tensor that requires a gradient.")
    found: dict = {}
    owned: set[int] = set()
    results = []
    with _recording_set(create_graph):
        if output.requires_grad or unused == "raise":
            g = _start(output, cotangent, "grad", create_graph)
            owned.add(id(_owner(value(g))))
            retain = create_graph if retain_graph is None else retain_graph
            found = _walk(output, g, {x.node or x for x in wanted}, create_graph, retain)
        for i, x in enumerate(wanted):
            g = found.get(x.node or x)
            if g is None:
                if unused == "raise":
                    raise GraphError(
                        f"grad: the output does not depend on input {i} (shape {x.shape}). "
                        "Pass unused='zeros' if that is expected."
                    )
                g = array_module(x.data).zeros_like(x.data)
            results.append(_own(g, owned))
    return results[0] if single else tuple(results)


def jacobian(f: Callable[[Tensor], Tensor], x: Any) -> Tensor:
    """All first derivatives of f at x: shape f(x).shape + x.shape. One backward pass per output.

    >>> jacobian(lambda x: x * x, Tensor([1.0, 2.0])).numpy().tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    leaf = Tensor(value(x), requires_grad=True)
    with _recording_set(True):
        y = f(leaf)
    xp = array_module(leaf.data)
    rows = xp.zeros((y.size, *leaf.shape), dtype=leaf.dtype)
    if y.requires_grad:
        for i in range(y.size):
            one_hot = xp.zeros(y.size, dtype=y.dtype)
            one_hot[i] = 1
            row = grad(y, leaf, one_hot.reshape(y.shape), retain_graph=True, unused="zeros")
            rows[i] = row.data
    return Tensor(rows.reshape(y.shape + leaf.shape))


def hvp(f: Callable[[], Tensor], params: Sequence[Tensor], v: Iterable[Any]) -> tuple[Tensor, ...]:
    """The Hessian of the scalar f() with respect to `params`, times `v` (one array or Tensor per
    parameter, of its shape): the gradient of ⟨∇f, v⟩, without ever forming the Hessian.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> hvp(lambda: (x**3).sum(), [x], [np.array([1.0, 1.0])])
    (Tensor([ 6., 12.]),)
    """
    params, v = list(params), [value(direction) for direction in v]
    if [p.shape for p in params] != [getattr(d, "shape", ()) for d in v]:
        raise ShapeError("hvp: v needs one array per parameter, of the parameter's shape.")
    with _recording_set(True):
        loss = f()
    if loss.size != 1:
        raise ShapeError(f"hvp: f() has shape {loss.shape}; it must be a scalar.")
    slopes = grad(loss, params, create_graph=True, unused="zeros")
    with _recording_set(True):
        total = sum((g * d).sum() for g, d in zip(slopes, v, strict=True))
    return grad(total, params, unused="zeros")
