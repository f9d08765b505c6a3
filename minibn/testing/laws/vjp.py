"""Laws of every vjp: algebra, aliasing, broadcasting, second order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minibn import grad
from minibn.backend import Backend, to_numpy
from minibn.testing.laws.agreement import agree, leaves_of, pull, value
from minibn.testing.laws.base import law
from minibn.testing.problem import Problem
from minibn.testing.tensors import check_problem

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


@law(
    "aliasing",
    "A Tensor that is two inputs of an op gets the sum of both gradients.",
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


# -- broadcasting


@law("broadcasting", "A gradient has the shape of its input.")
def the_shape_of_the_input(problem: Problem, backend: Backend) -> None:
    leaves = leaves_of(problem.inputs, backend)
    gradients = grad(
        problem.f(*leaves), leaves, backend.asarray(problem.cotangent()), unused="zeros"
    )
    for i, (g, x) in enumerate(zip(gradients, problem.inputs, strict=True)):
        assert g.shape == x.shape, f"input {i} of shape {x.shape} gets a gradient of {g.shape}"


# -- second order


def product(a: Any, b: Any) -> tuple[float, float]:
    """⟨a, b⟩, and the size of its terms."""
    terms = a * b
    return float(terms.sum()), float(np.abs(terms).sum())


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
        hessian_products = grad(total, leaves, retain_graph=True, unused="zeros")
        products = [product(to_numpy(h), d) for h, d in zip(hessian_products, back, strict=True)]
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
