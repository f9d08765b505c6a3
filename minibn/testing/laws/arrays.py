"""Laws about arrays: purity, memory layouts, dtypes, determinism."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minibn import Tensor, grad
from minibn.autograd.tape import Node
from minibn.backend import Backend
from minibn.testing.laws.agreement import agree, each, identical, leaves_of, pull, value
from minibn.testing.laws.base import law
from minibn.testing.memory_layouts import LAYOUTS
from minibn.testing.problem import Problem

# -- purity


def saved_by(y: Tensor) -> list[np.ndarray]:
    """Every array that the graph of y saves for its vjps."""
    arrays: list[np.ndarray] = []
    visited: set[Node] = set()
    waiting: list[Any] = [y.node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Node) and node not in visited:
            visited.add(node)
            waiting += node.parents
            arrays += [a for a in (node.output, *node.inputs) if isinstance(a, np.ndarray)]
    return arrays


@law(
    "purity",
    "Neither pass modifies an input, the cotangent, the value, or an array saved in between.",
    devices=False,
)
def nothing_is_modified(problem: Problem, backend: Backend) -> None:
    inputs, c = [x.copy() for x in problem.inputs], problem.cotangent()
    leaves = leaves_of(inputs, backend)
    y = problem.f(*leaves)
    watched = {f"input {i}": x for i, x in enumerate(inputs)}
    watched |= {"the cotangent": c, "the value": y.data}
    watched |= {f"saved array {i}": x for i, x in enumerate(saved_by(y))}
    before = {name: x.copy() for name, x in watched.items()}
    for i, (x, given) in enumerate(zip(inputs, problem.inputs, strict=True)):
        identical(x, given, f"input {i} after the forward pass")
    y.backward(c, retain_graph=True)
    for name, x in watched.items():
        identical(x, before[name], f"{name} after the backward pass")


@law(
    "purity",
    "A gradient is writable and shares no memory with an input, the cotangent, the value or "
    "another gradient.",
    devices=False,
)
def nothing_is_shared(problem: Problem, backend: Backend) -> None:
    c, leaves = problem.cotangent(), leaves_of([x.copy() for x in problem.inputs], backend)
    y = problem.f(*leaves)
    y.backward(c)
    outside = {"the cotangent": c, "the value": y.data}
    outside |= {f"input {i}": leaf.data for i, leaf in enumerate(leaves)}
    for i, leaf in enumerate(leaves):
        if leaf.grad is None:
            continue
        assert leaf.grad.data.flags.writeable, f"the gradient of input {i} is read-only"
        for name, other in outside.items():
            assert not np.shares_memory(leaf.grad.data, other), (
                f"the gradient of input {i} shares memory with {name}"
            )
        outside[f"the gradient of input {i}"] = leaf.grad.data


# -- memory layouts


@law(
    "memory layout",
    "Fortran order, negative strides, gaps and read-only memory change nothing but the last bits.",
    devices=False,
)
def memory_layout_changes_nothing(problem: Problem, backend: Backend) -> None:
    c = problem.cotangent()
    y = value(problem.f, problem.inputs, backend)
    expected = pull(problem.f, problem.inputs, c, backend)
    for name, layout in LAYOUTS.items():
        inputs = [layout(x) for x in problem.inputs]
        agree(value(problem.f, inputs, backend), y, f"the value, {name}")
        each(pull(problem.f, inputs, layout(c), backend), expected, f"the gradient, {name}")


@law("memory layout", "A stride of zero changes nothing but the last bits.", devices=False)
def zero_strides_change_nothing(problem: Problem, backend: Backend) -> None:
    inputs = [np.broadcast_to(x.reshape(-1)[:1].sum() + 1.5, x.shape) for x in problem.inputs]
    c = np.broadcast_to(0.75, problem.cotangent().shape)
    with np.errstate(all="ignore"):  # all values are equal: outside the domain of some ops
        actual = pull(problem.f, inputs, c, backend)
        expected = pull(problem.f, [x.copy() for x in inputs], c.copy(), backend)
    scale = max(np.nanmax(np.abs(e), initial=1) for e in expected)
    each(actual, expected, "the gradient", scale=scale)


# -- dtypes


def dtypes(problem: Problem, kinds: list[Any], backend: Backend) -> tuple[Any, list[Any]]:
    """The dtype of the value and those of the gradients, with inputs of these dtypes."""
    with np.errstate(all="ignore"):  # only dtypes matter
        inputs = [x.astype(kind) for x, kind in zip(problem.inputs, kinds, strict=True)]
        leaves = leaves_of(inputs, backend)
        y = problem.f(*leaves)
        gradients = grad(y, leaves, backend.asarray(problem.cotangent(), y.dtype), unused="zeros")
    return y.dtype, [g.dtype for g in gradients]


def mixtures(k: int) -> Iterator[list[Any]]:
    """All inputs of one precision; then each in turn of another than the rest."""
    for kind in (np.float16, np.float32):
        yield [kind] * k
    for odd in range(k if k > 1 else 0):
        yield [np.float32 if i == odd else np.float64 for i in range(k)]


@law("dtype", "The value has the promoted dtype of the inputs, each gradient that of its input.")
def dtype_in_is_dtype_out(problem: Problem, backend: Backend) -> None:
    for kinds in mixtures(len(problem.inputs)):
        out, kinds_out = dtypes(problem, kinds, backend)
        names = ", ".join(np.dtype(kind).name for kind in kinds)
        assert out == np.result_type(*kinds), f"the value of {names} is {out}"
        assert kinds_out == kinds, f"the gradients of {names} are {', '.join(map(str, kinds_out))}"


# -- determinism


@law("determinism", "Two runs give the same bits, in value and gradient.", examples=4)
def the_same_bits_twice(problem: Problem, backend: Backend) -> None:
    c = problem.cotangent()
    runs = [
        [value(problem.f, problem.inputs, backend), *pull(problem.f, problem.inputs, c, backend)]
        for _ in range(2)
    ]
    for i, (first, second) in enumerate(zip(*runs, strict=True)):
        identical(second, first, f"the second run, {f'gradient {i - 1}' if i else 'value'}")
