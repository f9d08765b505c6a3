"""The backward pass over the tape: backward, grad, and built on them jacobian and hvp.

It needs no recursion and no topological sort: nodes are numbered as they are made, so in descending
order every node comes after all of its consumers. Cotangents are accumulated in a table that is
local to the pass, so a pass that fails leaves no trace. Un-broadcasting and casting a gradient to
its input's dtype are done here, once, for every op.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minibn.autograd import observers, tensor
from minibn.autograd.tape import Node, Op, grad_enabled, unbroadcast
from minibn.autograd.tensor import Array, Tensor, value
from minibn.backend import array_module, backend_of
from minibn.backend.array_types import is_foreign
from minibn.errors import GraphError, ShapeError


def _fit(g: Any, x: Any, op: Op, position: int) -> Any:
    """The gradient `g` summed to the shape of the input `x`; cast to its dtype unless complex."""
    if op.broadcasts:
        g = unbroadcast(g, x.shape)
    if isinstance(g, np.generic):  # NumPy gives scalars where CuPy gives 0-d arrays
        g = np.asarray(g)  # host: one of NumPy's scalars
    if g.shape != x.shape:
        raise ShapeError(
            f"{type(op).__name__}.vjp returned a gradient of shape {g.shape} for input {position} "
            f"of shape {x.shape}. Is an axis missing, or should the op set broadcasts = True?"
        )
    if g.dtype != x.dtype and g.dtype.kind != "c":
        g = g.astype(x.dtype)
    return g


def _ancestors(node: Node) -> list[Node]:
    """The node and all its ancestors, in the order in which they were made."""
    seen, stack = {node}, [node]
    while stack:
        for parent in stack.pop().parents:
            if isinstance(parent, Node) and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=lambda n: n.order)


@np.errstate(under="ignore")  # host: as in the forward pass
def _backpropagate(
    output: Tensor, cotangent: Any, targets: set | None, create_graph: bool, retain_graph: bool
) -> dict[Node | Tensor, Any]:
    """Pull `cotangent` back from `output`. Returns the gradient of each target (of each leaf, if
    `targets` is None) on which the output depends."""
    start: Node | Tensor = output.node or output
    found: dict[Node | Tensor, Any] = {}
    pending: dict[Node | Tensor, Any] = {start: cotangent}
    nodes = _ancestors(start) if isinstance(start, Node) else []
    if targets is not None:  # skip nodes that depend on no target
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
        if node.is_released:
            raise GraphError(
                f"backward through {type(node.op).__name__}: this part of the graph was released "
                "by an earlier backward. Add the losses and call backward once, pass "
                "retain_graph=True the first time, or run the forward pass again."
            )
        op = node.op
        # A kernel takes arrays of the output's dtype. For other cotangents (a complex one of a real
        # graph) and for Tensors the definition runs.
        fits = node.kernel is not None and not create_graph and g.dtype == node.output.dtype
        run = node.kernel if fits else op
        run.needs_input_grad = tuple(
            parent is not None and (targets is None or parent in active) for parent in node.parents
        )
        out, *inputs = node.saved_tensors(create_graph)
        vjp = observers.wrap(run.vjp, op, run, node) if observers.current() else run.vjp
        grads = vjp(g, out, *inputs)
        grads = grads if isinstance(grads, tuple) else (grads,)
        if len(grads) != len(inputs):
            raise GraphError(
                f"{type(op).__name__}.vjp returned {len(grads)} gradients for {len(inputs)} inputs."
            )
        for i, (parent, x, gx) in enumerate(zip(node.parents, inputs, grads, strict=True)):
            if parent is not None and run.needs_input_grad[i] and gx is not None:
                gx = _fit(gx, x, op, i)
                pending[parent] = _fit(pending[parent] + gx, x, op, i) if parent in pending else gx
        if not retain_graph:
            node.release()
    found.update((leaf, g) for leaf, g in pending.items() if targets is None or leaf in targets)
    return found


def _cotangent(output: Tensor, cotangent: Any, what: str) -> Any:
    """Check the cotangent, or make the 1 of a scalar."""
    if not isinstance(output, Tensor):
        raise GraphError(f"{what}: the output is a {type(output).__name__}, not a Tensor.")
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
    kind = getattr(getattr(value(cotangent), "dtype", None), "kind", "")
    if kind not in ("f", "c") or isinstance(cotangent, np.generic) or is_foreign(cotangent):
        cotangent = value(cotangent)
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
    written only when the whole pass has succeeded.
    Raises GraphError for a released graph, a saved tensor changed in place, or an output that does
    not require a gradient; ShapeError for a cotangent of another shape.
    """
    g = _start(output, cotangent, "backward", create_graph)
    with grad_enabled.override(create_graph):
        found = _backpropagate(output, g, None, create_graph, retain_graph or create_graph)
        owned = {id(_owner(value(g)))}
        for leaf, found_g in found.items():
            assert isinstance(leaf, Tensor)  # without targets, all of them are leaves
            leaf_g = _own(found_g, owned)
            leaf.grad = leaf_g if leaf.grad is None else leaf.grad + leaf_g


def _start(output: Tensor, cotangent: Any, what: str, create_graph: bool) -> Any:
    g = _cotangent(output, cotangent, what)
    if create_graph:
        return g if isinstance(g, Tensor) else Tensor.from_op(None, g)
    return value(g)


def _is_whole(array: Array) -> bool:
    """Whether the array is not a view: it owns its memory, or a buffer of the memory pool
    (`fast/cpu/memory.py`)."""
    base = getattr(array, "base", array)
    return base is None or hasattr(base, "is_pool_buffer")


def _owner(array: Array) -> Array:
    """The array that owns the memory of a view."""
    while hasattr(array, "base") and not _is_whole(array):
        array = array.base
    return array


def _own(g: Any, owned: set[int]) -> Tensor:
    """The gradient as a Tensor with memory of its own: copied where it is a view (or may be one) or
    shares memory with another gradient. A recorded gradient stays recorded."""
    array = value(g)
    if not _is_whole(array) or id(array) in owned:
        g = g * 1 if isinstance(g, Tensor) else array.copy()
    owned.add(id(value(g)))
    return g if isinstance(g, Tensor) else Tensor.from_op(None, g)


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

    Returns one Tensor for one input, a tuple for a sequence; `.grad` is not written. With
    `create_graph=True` the gradients can be differentiated again. An input that the output does
    not depend on raises GraphError, or gives zeros with `unused="zeros"`.

    >>> x = Tensor([3.0], requires_grad=True)
    >>> slope = grad((x**3).sum(), x, create_graph=True)
    >>> grad(slope, x)
    Tensor([18.])
    """
    single = isinstance(inputs, Tensor)
    if not single and not isinstance(inputs, Iterable):
        raise TypeError(f"grad: inputs is {inputs!r:.80}; it is a Tensor, or a list of Tensors.")
    wanted: list[Tensor] = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if unused not in ("raise", "zeros"):
        raise ValueError(f"grad: unused={unused!r} is neither 'raise' nor 'zeros'.")
    for i, x in enumerate(wanted):
        if not isinstance(x, Tensor) or not x.requires_grad:
            raise GraphError(f"grad: input {i} is not a Tensor that requires a gradient.")
    found: dict = {}
    owned: set[int] = set()
    results = []
    with grad_enabled.override(create_graph):
        if unused == "raise" or not isinstance(output, Tensor) or output.requires_grad:
            g = _start(output, cotangent, "grad", create_graph)
            owned.add(id(_owner(value(g))))
            retain = create_graph if retain_graph is None else retain_graph
            found = _backpropagate(output, g, {x.node or x for x in wanted}, create_graph, retain)
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


def pull_back(f: Callable, inputs: Sequence[Any], g: Any, needs: Sequence[bool]) -> tuple:
    """The vjp of an op that is a composition f of other ops: f is run again and recorded.

    inputs, g: the arguments of the vjp, arrays or Tensors. Returns a gradient of the same kind for
    each input that needs one (None for the others).
    """
    recorded = any(isinstance(x, Tensor) for x in (g, *inputs))
    with grad_enabled.override(True):
        # A separate node for each input: one Tensor may be passed twice.
        own = [
            x.reshape(x.shape)
            if isinstance(x, Tensor) and x.requires_grad
            else Tensor(value(x), requires_grad=wanted)
            for x, wanted in zip(inputs, needs, strict=True)
        ]
        y = f(*own)
        wanted = [x for x, w in zip(own, needs, strict=True) if w]
        grads = iter(grad(y, wanted, g, create_graph=recorded, unused="zeros"))
        found = (next(grads) if wanted else None for wanted in needs)
        return tuple(x if x is None or recorded else x.data for x in found)


def _result(y: Any, what: str) -> Tensor:
    if not isinstance(y, Tensor):
        raise GraphError(f"{what}: f returns a {type(y).__name__}. It must return a Tensor.")
    return y


def jacobian(f: Callable[[Tensor], Tensor], x: Any) -> Tensor:
    """All first derivatives of f at x: shape f(x).shape + x.shape. One backward pass per output.

    >>> jacobian(lambda x: x * x, Tensor([1.0, 2.0])).numpy().tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    leaf = Tensor(value(x), requires_grad=True)
    with grad_enabled.override(True):
        y = _result(f(leaf), "jacobian")
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
    if isinstance(params, Tensor):
        raise TypeError("hvp: params is a list of Tensors, and v of as many arrays. Use [params].")
    params, v = list(params), [value(direction) for direction in v]
    if [p.shape for p in params] != [getattr(d, "shape", ()) for d in v]:
        raise ShapeError("hvp: v needs one array per parameter, of the parameter's shape.")
    with grad_enabled.override(True):
        loss = _result(f(), "hvp")
    if loss.size != 1:
        raise ShapeError(f"hvp: f() has shape {loss.shape}; it must be a scalar.")
    slopes = grad(loss, params, create_graph=True, unused="zeros")
    with grad_enabled.override(True):
        total = sum((g * d).sum() for g, d in zip(slopes, v, strict=True))
    return grad(total, params, unused="zeros")


tensor.backward_module = sys.modules[__name__]  # what Tensor.backward calls
