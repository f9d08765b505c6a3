"""Laws of linear and homogeneous ops, whose derivative follows from the op itself."""

from __future__ import annotations

from minibn.backend import Backend
from minibn.ops.elementwise import Abs
from minibn.ops.reduce import Sum
from minibn.testing.laws.agreement import agree, pull, value
from minibn.testing.laws.vjp import product
from minibn.testing.problem import Problem
from suite.laws.faults import Fault, add_faults, scaled
from suite.laws.row_law import law, points_of
from suite.registry import CASES

LINEAR = tuple(name for name, case in CASES.items() if case.linear)
HOMOGENEOUS = tuple(name for name, case in CASES.items() if case.homogeneous)


@law(
    "linearity and homogeneity",
    "In the inputs in which an op is linear it is adjoint to its vjp, at any x: "
    "⟨c, f(x) - f(0)⟩ = ⟨vjp(c), x⟩.",
    over=LINEAR,
    draw=lambda case: points_of(case).map(lambda problem: (case, problem)),
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


add_faults(
    adjoint=Fault("sum", patch=(Sum, "vjp", scaled(Sum.vjp))),
    euler=Fault("abs", patch=(Abs, "vjp", lambda self, g, out, x: g)),
)
