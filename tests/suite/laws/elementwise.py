"""Laws of single elementwise ops."""

from __future__ import annotations

import numpy as np

from minibn import ops
from minibn.backend import Backend
from minibn.ops import elementwise as ew
from minibn.testing.laws.agreement import agree, pull, value
from minibn.testing.problem import Problem
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import law


@law(
    "elementwise",
    "sigmoid(x) + sigmoid(-x) = 1, so that both have the same derivative.",
    over=("sigmoid",),
)
def sigmoid_is_symmetric(problem: Problem, backend: Backend) -> None:
    (x,), c = problem.inputs, problem.cotangent()
    both = [value(ops.sigmoid, (at,), backend) for at in (x, -x)]
    agree(sum(both), np.ones_like(x), "sigmoid(x) + sigmoid(-x)")
    left, right = (pull(ops.sigmoid, (at,), c, backend)[0] for at in (x, -x))
    agree(left, right, "the derivative at x and at -x", scale=np.abs(c).max(initial=0))


@law(
    "elementwise",
    "softplus(x) - softplus(-x) = x, so that both slopes add up to 1.",
    over=("softplus",),
)
def softplus_and_its_mirror_image(problem: Problem, backend: Backend) -> None:
    (x,), c = problem.inputs, problem.cotangent()
    y, mirrored = (value(ops.softplus, (at,), backend) for at in (x, -x))
    agree(y - mirrored, x, "softplus(x) - softplus(-x)", scale=1 + np.abs(x).max(initial=0))
    slope, other = (pull(ops.softplus, (at,), c, backend)[0] for at in (x, -x))
    agree(slope + other, c, "the slopes at x and -x")


add_faults(
    softplus_and_its_mirror_image=Fault(
        "softplus", patch=(ew.Softplus, "vjp", lambda self, g, out, x: g)
    ),
    sigmoid_is_symmetric=Fault(
        "sigmoid", patch=(ew.Sigmoid, "vjp", lambda self, g, out, x: g * out * out)
    ),
)
