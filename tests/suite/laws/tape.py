"""Laws of the tape itself, with no particular op in it."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from minibn import Tensor, grad
from minibn.autograd import backward, tape
from minibn.backend import Backend, to_numpy
from minibn.ops.arithmetic import Add, Subtract
from minibn.testing.laws.agreement import agree, identical
from minibn.testing.strategies import seeds
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import law

THE_TAPE = ("the tape",)


@law(
    "aliasing",
    "x - x and x / x have gradient 0; x @ x has c xᵀ + xᵀ c.",
    over=THE_TAPE,
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


@law(
    "graph",
    "A graph of depth 10,000 is walked, walked under create_graph, and deleted.",
    over=THE_TAPE,
    draw=seeds,
    examples=1,
)
def depth_is_no_limit(seed: int, backend: Backend) -> None:
    start = np.random.default_rng(seed).standard_normal(2)
    x, c = Tensor(backend.asarray(start), requires_grad=True), backend.asarray(np.ones(2))
    y = x
    for _ in range(5_000):
        y = -(y + 1.0)
    for create_graph in (True, False):
        slope = grad(y, x, c, create_graph=create_graph)
        identical(slope.numpy(), np.ones(2), f"the gradient, create_graph={create_graph}")
    del y, slope


@law(
    "graph",
    "A ladder of n diamonds has 2ⁿ paths and is walked in n steps.",
    over=THE_TAPE,
    draw=st.integers(1, 60),
)
def ladders_are_walked_once(n: int, backend: Backend) -> None:
    x = Tensor(backend.asarray(np.ones(1)), requires_grad=True)
    y = x
    for _ in range(n):
        y = y + y
    identical(grad(y, x).numpy(), np.full(1, 2.0**n), f"{n} diamonds")


# -- faults


def recursive_ancestors(node):
    ancestors = {node.order: node}
    for parent in node.parents:
        if isinstance(parent, tape.Node):
            ancestors |= {n.order: n for n in recursive_ancestors(parent)}
    return [ancestors[order] for order in sorted(ancestors)]


add_faults(
    of_x_with_itself=Fault("the tape", patch=(Subtract, "vjp", lambda self, g, out, x, y: (g, g))),
    depth_is_no_limit=Fault("the tape", patch=(backward, "_ancestors", recursive_ancestors)),
    ladders_are_walked_once=Fault(
        "the tape", patch=(Add, "vjp", lambda self, g, out, x, y: (g, None))
    ),
)
