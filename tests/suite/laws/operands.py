"""Laws of the operands of elementwise ops and products: broadcasting, empty arrays, scalars."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minibn import Tensor, grad, ops
from minibn.autograd import backward, tape
from minibn.backend import Backend
from minibn.ops.elementwise import Exp
from minibn.ops.shape import unbroadcast
from minibn.testing.laws.agreement import agree, pull
from minibn.testing.problem import Problem
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import law, points_of
from suite.registry import CASES

TWO_OPERANDS = tuple(name for name, case in CASES.items() if case.operands == 2)


def named_points(case: str) -> st.SearchStrategy[tuple[str, Problem]]:
    return points_of(case).map(lambda problem: (case, problem))


BROADCASTING = (*TWO_OPERANDS, "matmul")


def leading(case: str, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes to which each input is broadcast."""
    if case != "matmul":
        return [np.broadcast_shapes(*shapes)] * 2
    if min(map(len, shapes)) < 2:
        return shapes
    lead = np.broadcast_shapes(*(shape[:-2] for shape in shapes))
    return [lead + shape[-2:] for shape in shapes]


@law(
    "broadcasting",
    "The gradient is that of the same op after an explicit broadcast_to.",
    over=BROADCASTING,
    draw=named_points,
    examples=25,  # some broadcast nothing
)
def as_after_broadcast_to(drawn: tuple[str, Problem], backend: Backend) -> None:
    case, problem = drawn
    shapes = leading(case, [x.shape for x in problem.inputs])

    def explicit(*inputs: Any) -> Any:
        return problem.f(*map(ops.broadcast_to, inputs, shapes))

    c = problem.cotangent()
    expected = pull(explicit, problem.inputs, c, backend)
    sizes = pull(explicit, problem.inputs, np.abs(c), backend)
    actual = pull(problem.f, problem.inputs, c, backend)
    for i, (a, b, size) in enumerate(zip(actual, expected, sizes, strict=True)):
        scale = max(np.abs(b).max(initial=0), np.abs(size).max(initial=0))
        agree(a, b, f"the gradient, input {i}", scale=scale)


ELEMENTWISE = tuple(name for name, case in CASES.items() if case.operands)


@st.composite
def small_shapes(draw: Any, case: str) -> Problem:
    """The op at shapes without axes and with axes of length 0, all positive and apart."""
    problem = draw(points_of(case))
    k = len(problem.inputs)
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=k, min_side=0, max_dims=2))
    rng = np.random.default_rng(problem.seed)
    inputs = [i + rng.uniform(0.6, 1.4, shape) for i, shape in enumerate(shapes.input_shapes)]
    return Problem(problem.f, tuple(inputs), problem.seed)


@law(
    "broadcasting",
    "Inputs without axes, or with none but empty ones, get gradients of their shape.",
    over=ELEMENTWISE,
    draw=small_shapes,
    examples=12,
)
def small_shapes_keep_theirs(problem: Problem, backend: Backend) -> None:
    actual = pull(problem.f, problem.inputs, problem.cotangent(), backend)
    for i, (g, x) in enumerate(zip(actual, problem.inputs, strict=True)):
        assert g.shape == x.shape, f"input {i} of shape {x.shape} gets a gradient of {g.shape}"


@law(
    "dtype",
    "Python numbers and NumPy scalars adopt the dtype of the array that they meet.",
    over=TWO_OPERANDS,
    examples=4,
)
def scalars_are_weak(problem: Problem, backend: Backend) -> None:
    x = np.abs(problem.inputs[0]).astype(np.float32) + 1
    for scalar in (2, 2.5, np.float64(2.5), np.int64(2)):
        for place in range(2):
            leaf = Tensor(backend.asarray(x), requires_grad=True)
            y = problem.f(leaf, scalar) if place else problem.f(scalar, leaf)
            kinds = y.dtype, grad(y, leaf, backend.asarray(np.ones_like(x))).dtype
            what = f"float32 beside {type(scalar).__name__} gives"
            assert kinds == (np.float32, np.float32), f"{what} {kinds[0]}, gradient {kinds[1]}"


# -- faults


def halved_if_broadcast(g, shape):
    return unbroadcast(g, shape) * (0.5 if g.shape != shape else 1)


def data_of_tensors(x):
    return x.data if isinstance(x, Tensor) else x


add_faults(
    as_after_broadcast_to=Fault("add", patch=(backward, "unbroadcast", halved_if_broadcast)),
    small_shapes_keep_theirs=Fault(
        "exp", patch=(Exp, "vjp", lambda self, g, out, x: g.reshape(-1))
    ),
    scalars_are_weak=Fault("add", patch=(tape, "value", data_of_tensors)),
)
