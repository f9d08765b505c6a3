"""Laws of every vjp: algebra, aliasing, broadcasting, linearity and homogeneity, second order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minibn import Tensor, grad, ops
from minibn.backend import Backend, to_numpy
from minibn.testing.laws.law import law, points_of
from minibn.testing.laws.tools import agree, leaves_of, pull, value
from minibn.testing.problem import Problem
from minibn.testing.registry import CASES
from minibn.testing.tensors import check_problem

seeds = st.integers(0, 2**32 - 1)

# -- algebra


@law("algebra of the vjp", "The vjp is linear in the cotangent.")
def linear_in_the_cotangent(problem: Problem, backend: Backend) -> None:
    c = problem.cotangent()
    d = np.cos(np.arange(c.size)).reshape(c.shape) + 0.5
    of_c, of_d, of_both = (pull(problem.f, problem.inputs, g, backend) for g in (c, d, 3 * d - c))
    for i, (a, b, both) in enumerate(zip(of_c, of_d, of_both, strict=True)):
        scale = (np.abs(3 * b) + np.abs(a)).max(initial=0)
        agree(both, 3 * b - a, f"the gradient for 3d - c, input {i}", scale=scale)


@law("algebra of the vjp", "The vjp of a zero cotangent is exactly zero.")
def zero_at_the_zero_cotangent(problem: Problem, backend: Backend) -> None:
    for i, g in enumerate(pull(problem.f, problem.inputs, 0 * problem.cotangent(), backend)):
        assert not g.any(), f"input {i} gets {np.abs(g).max()!r} from a cotangent of zeros"


@law("algebra of the vjp", "Where the value is finite, the gradient is finite.")
def finite_where_the_value_is(problem: Problem, backend: Backend) -> None:
    if not np.isfinite(value(problem.f, problem.inputs, backend)).all():
        return
    for i, g in enumerate(pull(problem.f, problem.inputs, problem.cotangent(), backend)):
        wrong = ~np.isfinite(g)
        assert not wrong.any(), f"{wrong.sum()} entries of the gradient of input {i} are not finite"


# -- aliasing

TWO_ALIKE = (
    "add", "divide", "maximum", "mse", "multiply", "power, of two variables", "subtract",
)  # fmt: skip


def with_places_alike(case: str) -> st.SearchStrategy[Problem]:
    """The op's problems; where inputs broadcast, with the first one's shape in every place."""

    def alike(problem: Problem) -> Problem:
        return Problem(problem.f, problem.inputs[:1] * len(problem.inputs), problem.seed)

    return points_of(case).map(alike) if case in TWO_ALIKE else points_of(case)


@law(
    "aliasing",
    "A Tensor that stands in two places of an op gets the sum of the gradients of both.",
    draw=with_places_alike,
)
def both_places_add_up(problem: Problem, backend: Backend) -> None:
    f, c = problem.f, problem.cotangent()
    for i, j in itertools.combinations(range(len(problem.inputs)), 2):
        inputs = list(problem.inputs)
        if inputs[i].shape != inputs[j].shape:
            continue
        inputs[j] = inputs[i]
        apart, leaves = pull(f, inputs, c, backend), leaves_of(inputs, backend)
        leaves[j] = leaves[i]
        together = to_numpy(grad(f(*leaves), leaves[i], backend.asarray(c), unused="zeros"))
        scale = (np.abs(apart[i]) + np.abs(apart[j])).max(initial=0)
        agree(together, apart[i] + apart[j], f"one Tensor as inputs {i} and {j}", scale=scale)


@law(
    "aliasing",
    "x - x and x / x have gradient 0; x @ x has c xᵀ + xᵀ c.",
    over=("the tape",),
    draw=st.tuples(st.integers(1, 4), seeds),
)
def of_x_with_itself(drawn: tuple[int, int], backend: Backend) -> None:
    n, seed = drawn
    rng = np.random.default_rng(seed)
    values, c = rng.standard_normal((2, n, n)) + 0.1
    x, g = Tensor(backend.asarray(values), requires_grad=True), backend.asarray(c)
    for name, y in (("x - x", x - x), ("x / x", x / x)):
        scale = np.abs(c).max() / np.abs(values).min()
        agree(to_numpy(grad(y, x, g)), 0 * c, name, digits=13, scale=scale)
    agree(to_numpy(grad(x @ x, x, g)), c @ values.T + values.T @ c, "x @ x")


# -- broadcasting


def named_points(case: str) -> st.SearchStrategy[tuple[str, Problem]]:
    return points_of(case).map(lambda problem: (case, problem))


BROADCASTING = (
    "add", "divide", "matmul", "maximum", "multiply", "power, of two variables", "subtract",
)  # fmt: skip


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
    found = pull(problem.f, problem.inputs, c, backend)
    for i, (a, b, size) in enumerate(zip(found, expected, sizes, strict=True)):
        scale = max(np.abs(b).max(initial=0), np.abs(size).max(initial=0))
        agree(a, b, f"the gradient, input {i}", scale=scale)


ELEMENTWISE = (
    "abs", "add", "divide", "exp", "log", "maximum", "multiply", "negative",
    "power, of two variables", "sigmoid", "sqrt", "subtract", "tanh",
)  # fmt: skip


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
    found = pull(problem.f, problem.inputs, problem.cotangent(), backend)
    for i, (g, x) in enumerate(zip(found, problem.inputs, strict=True)):
        assert g.shape == x.shape, f"input {i} of shape {x.shape} gets a gradient of {g.shape}"


@law("broadcasting", "A gradient has the shape of its input.")
def the_shape_of_the_input(problem: Problem, backend: Backend) -> None:
    leaves = leaves_of(problem.inputs, backend)
    found = grad(problem.f(*leaves), leaves, backend.asarray(problem.cotangent()), unused="zeros")
    for i, (g, x) in enumerate(zip(found, problem.inputs, strict=True)):
        assert g.shape == x.shape, f"input {i} of shape {x.shape} gets a gradient of {g.shape}"


# -- linearity and homogeneity: the op itself says what its derivative is

LINEAR = tuple(name for name, case in CASES.items() if case.linear)
HOMOGENEOUS = (
    "abs", "max", "max_pool2d", "maximum", "norm", "norm, p=1", "norm, p=inf", "relu",
)  # fmt: skip


def product(a: Any, b: Any) -> tuple[float, float]:
    """⟨a, b⟩, and the size of its terms."""
    terms = a * b
    return float(terms.sum()), float(np.abs(terms).sum())


@law(
    "linearity and homogeneity",
    "In the inputs in which an op is linear it is adjoint to its vjp, at any x: "
    "⟨c, f(x) - f(0)⟩ = ⟨vjp(c), x⟩.",
    over=LINEAR,
    draw=named_points,
)
def adjoint(drawn: tuple[str, Problem], backend: Backend) -> None:
    case, problem = drawn
    c, rng = problem.cotangent(), problem.rng()
    slopes = pull(problem.f, problem.inputs, c, backend)
    for group in CASES[case].linear_in(problem):
        elsewhere = [
            rng.standard_normal(x.shape) if i in group else x for i, x in enumerate(problem.inputs)
        ]
        at_zero = [0 * x if i in group else x for i, x in enumerate(problem.inputs)]
        there, origin = (value(problem.f, at, backend) for at in (elsewhere, at_zero))
        (ahead, scale), (_, constant) = product(c, there - origin), product(c, origin)
        products = [product(slopes[i], elsewhere[i]) for i in group]
        back, size = (sum(parts) for parts in zip(*products, strict=True))
        agree(back, ahead, f"⟨vjp(c), x⟩ of inputs {group}", scale=scale + constant + size)


@law(
    "linearity and homogeneity",
    "Where f(a·x) = a·f(x) for a > 0, Euler's relation holds: ⟨c, f(x)⟩ = ⟨vjp(c), x⟩ at x.",
    over=HOMOGENEOUS,
)
def euler(problem: Problem, backend: Backend) -> None:
    f, x, c = problem.f, problem.inputs, problem.cotangent()
    y = value(f, x, backend)
    agree(value(f, [4 * a for a in x], backend), 4 * y, "f(4x)")
    ahead, scale = product(c, y)
    back = sum(product(g, a)[0] for g, a in zip(pull(f, x, c, backend), x, strict=True))
    agree(back, ahead, "⟨vjp(c), x⟩", scale=scale)


# -- second order


@law("second order", "The Hessian of ⟨c, f(x)⟩, in x and c, is symmetric: ⟨u, Hv⟩ = ⟨v, Hu⟩.")
def hessian_symmetry(problem: Problem, backend: Backend) -> None:
    rng, points = problem.rng(), (*problem.inputs, problem.cotangent())
    u, v = ([rng.standard_normal(x.shape) for x in points] for _ in range(2))
    leaves = leaves_of(points, backend)
    loss = (problem.f(*leaves[:-1]) * leaves[-1]).sum()
    slopes = grad(loss, leaves, create_graph=True, unused="zeros")
    sides = []
    for ahead, back in ((u, v), (v, u)):
        along = [(g * backend.asarray(d)).sum() for g, d in zip(slopes, ahead, strict=True)]
        total = sum(along[1:], start=along[0])
        found = grad(total, leaves, retain_graph=True, unused="zeros")
        products = [product(to_numpy(h), d) for h, d in zip(found, back, strict=True)]
        sides.append((sum(p for p, _ in products), sum(s for _, s in products)))
    (one, scale), (other, _) = sides
    agree(one, other, "⟨v, Hu⟩ against ⟨u, Hv⟩", digits=9, scale=scale)


@law(
    "second order",
    "Hessian-vector products are the complex step of the gradient, and with them the remainder "
    "φ(h) - φ(0) - h φ' - h²/2 φ'' is of third order.",
    examples=4,
)
def the_derivative_of_the_gradient(problem: Problem, backend: Backend) -> None:
    check_problem(problem, backend, order=2, diagnose=False)
