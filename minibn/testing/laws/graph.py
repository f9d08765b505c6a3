"""Laws of the graph around any op, and of the backends on which it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn import Op, Tensor, apply, grad, no_grad
from minibn.backend import Backend, get_backend, to_numpy
from minibn.errors import BackendMismatch, GraphError
from minibn.testing.laws.agreement import agree, each, identical, leaves_of, pull, value
from minibn.testing.laws.base import law
from minibn.testing.problem import Problem


def gradients(y: Tensor, leaves: list[Tensor], c: Any, **settings: Any) -> list[np.ndarray]:
    return [to_numpy(g) for g in grad(y, leaves, c, unused="zeros", **settings)]


@law("graph", "Arrays, Tensors, and Tensors under no_grad give the same bits.")
def the_value_is_the_same(problem: Problem, backend: Backend) -> None:
    arrays = [backend.asarray(x) for x in problem.inputs]
    leaves = leaves_of(problem.inputs, backend)
    plain, recorded = problem.f(*arrays), problem.f(*leaves)
    with no_grad():
        quiet = problem.f(*leaves)
    assert not isinstance(plain, Tensor), "arrays in give a Tensor out"
    assert recorded.requires_grad, "inputs with requires_grad give a value without"
    assert quiet.is_leaf, "under no_grad the value is recorded"
    assert type(quiet.data) is type(arrays[0]), f"a Tensor holds a {type(quiet.data).__name__}"
    for name, actual in (("recorded", recorded), ("under no_grad", quiet)):
        identical(actual.numpy(), to_numpy(plain), name)


@law("graph", "A value that is used k times gets the sum of the k cotangents.")
def fan_out_adds_up(problem: Problem, backend: Backend) -> None:
    rng, c = problem.rng(), problem.cotangent()
    once = pull(problem.f, problem.inputs, c, backend)
    k = int(rng.integers(2, 6))
    weights = rng.integers(-3, 4, k).tolist()

    def used(*inputs: Any) -> Any:
        y = problem.f(*inputs)
        uses = [y * w for w in weights]
        return sum(uses[1:], start=uses[0])

    for i, (g, e) in enumerate(zip(pull(used, problem.inputs, c, backend), once, strict=True)):
        scale = np.abs(e).max(initial=0) * sum(map(abs, weights))
        agree(g, sum(weights) * e, f"{k} uses, input {i}", scale=scale)


@law("graph", "A diamond adds the gradients of its two sides: f(x) · 2 + f(x) · f(x).")
def diamonds_add_up(problem: Problem, backend: Backend) -> None:
    c, y = problem.cotangent(), value(problem.f, problem.inputs, backend)

    def diamond(*inputs: Any) -> Any:
        y = problem.f(*inputs)
        return y * 2 + y * y

    with np.errstate(all="ignore"):
        expected = pull(problem.f, problem.inputs, c * (2 + 2 * y), backend)
        sides = [pull(problem.f, problem.inputs, g, backend) for g in (c * 2, 2 * c * y)]
        actual = pull(diamond, problem.inputs, c, backend)
    for i, (g, e, *parts) in enumerate(zip(actual, expected, *sides, strict=True)):
        agree(g, e, f"input {i}", scale=sum(np.abs(p).max(initial=0) for p in parts))


@law("graph", "Results that are not used change nothing.")
def unused_results_change_nothing(problem: Problem, backend: Backend) -> None:
    c = problem.cotangent()

    def wasteful(*inputs: Any) -> Any:
        y = problem.f(*inputs)
        problem.f(*inputs), y * 3, [x * 2 for x in inputs]
        return y

    actual = pull(wasteful, problem.inputs, c, backend)
    for i, (g, e) in enumerate(
        zip(actual, pull(problem.f, problem.inputs, c, backend), strict=True)
    ):
        identical(g, e, f"input {i}")


@law("graph", "Nothing flows back through detach().")
def detached_inputs_get_nothing(problem: Problem, backend: Backend) -> None:
    leaves = leaves_of(problem.inputs, backend)
    expected = pull(problem.f, problem.inputs, problem.cotangent(), backend)
    for i in range(len(leaves)):
        cut = [x.detach() if k == i else x for k, x in enumerate(leaves)]
        y, c = problem.f(*cut), backend.asarray(problem.cotangent())
        actual = gradients(y, leaves, c) if y.requires_grad else [0 * leaves[i].numpy()] * len(cut)
        assert not actual[i].any(), f"input {i} is detached and gets a gradient"
        if y.requires_grad:
            others = [e if k != i else 0 * e for k, e in enumerate(expected)]
            each(actual, others, f"with input {i} detached")


@law(
    "graph", "A second backward pass on a released graph raises; on a retained one it is the same."
)
def a_second_walk(problem: Problem, backend: Backend) -> None:
    leaves, c = leaves_of(problem.inputs, backend), backend.asarray(problem.cotangent())
    y = problem.f(*leaves)
    if y.is_leaf:  # the function returns its input
        return
    first = gradients(y, leaves, c, retain_graph=True)
    for i, (g, e) in enumerate(zip(gradients(y, leaves, c), first, strict=True)):
        identical(g, e, f"the second backward pass, input {i}")
    try:
        y.backward(c)
    except GraphError:
        return
    raise AssertionError("a third backward pass, after the graph was released, raises nothing")


class Failing(Op):
    """The identity, which raises in its forward or its vjp."""

    def __init__(self, where: str) -> None:
        self.where = where

    def forward(self, x):
        if self.where == "forward":
            raise ZeroDivisionError
        return x * 1

    def vjp(self, g, out, x):
        raise ZeroDivisionError


@law("graph", "An exception in a forward or a backward pass leaves no trace.")
def exceptions_leave_no_trace(problem: Problem, backend: Backend) -> None:
    leaves, c = leaves_of(problem.inputs, backend), backend.asarray(problem.cotangent())
    problem.f(*leaves).backward(c)
    before = [leaf.grad for leaf in leaves]
    copies = [None if g is None else g.numpy().copy() for g in before]
    for where in ("forward", "vjp"):
        try:
            y = problem.f(*(apply(Failing(where), x) for x in leaves))
            y.backward(c)
        except ZeroDivisionError:
            pass
        for i, leaf in enumerate(leaves):
            assert leaf.grad is before[i], f"a failed {where} pass wrote to the .grad of input {i}"
            if leaf.grad is not None:
                identical(leaf.grad.numpy(), copies[i], f".grad of input {i} after {where} failed")
    again = pull(problem.f, problem.inputs, problem.cotangent(), backend)
    for i, (g, e) in enumerate(zip(again, copies, strict=True)):
        identical(g, 0 * g if e is None else e, f"input {i}, computed afterwards")


# -- backends


@law("backends", "Every backend agrees with NumPy, in value and gradient.", examples=4)
def as_on_numpy(problem: Problem, backend: Backend) -> None:
    numpy, c = get_backend("numpy"), problem.cotangent()
    for there in [get_backend("strict")] if backend is numpy else [backend]:
        y = value(problem.f, problem.inputs, numpy)
        agree(value(problem.f, problem.inputs, there), y, f"the value on {there.name}")
        each(
            pull(problem.f, problem.inputs, c, there),
            pull(problem.f, problem.inputs, c, numpy),
            f"the gradient on {there.name}",
        )


@law(
    "backends",
    "Arrays of two backends in one op raise BackendMismatch.",
    devices=False,
    examples=4,
)
def backends_do_not_mix(problem: Problem, backend: Backend) -> None:
    other = get_backend("strict")
    for i in range(len(problem.inputs) if len(problem.inputs) > 1 else 0):
        mixed = [
            Tensor((other if k == i else backend).asarray(x), requires_grad=True)
            for k, x in enumerate(problem.inputs)
        ]
        try:
            problem.f(*mixed)
        except BackendMismatch:
            continue
        raise AssertionError(f"input {i} on {other.name}, the others on {backend.name}: accepted")
