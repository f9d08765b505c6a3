"""Laws of softmax and its relatives, and of the l_p norms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import ops
from minibn.backend import Backend
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.testing.laws.agreement import agree, pull, value
from minibn.testing.strategies import seeds
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import law

# -- softmax


@st.composite
def logits(draw: Any) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """(x (N, K), labels (N,), a generator for what else the check needs)"""
    N, K = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(seeds))
    return rng.standard_normal((N, K)) * rng.choice([1.0, 10.0]), rng.integers(0, K, N), rng


SOFTMAXES = {
    "softmax": lambda labels: ops.softmax,
    "log_softmax": lambda labels: ops.log_softmax,
    "softmax_cross_entropy": lambda labels: lambda x: ops.softmax_cross_entropy(x, labels),
}


def about_softmax(sentence: str, *over: str, **settings: Any) -> Any:
    return law(
        "softmax and cross-entropy",
        sentence,
        over=over or tuple(SOFTMAXES),
        draw=logits(),
        subject=SOFTMAXES.__getitem__,
        **settings,
    )


@about_softmax("A shift of all logits of a row changes neither value nor gradient.")
def shifts_change_nothing(op: Any, drawn: Any, backend: Backend) -> None:
    x, labels, rng = drawn
    f, shift = op(labels), rng.integers(-40, 41, (len(x), 1))
    y = value(f, (x,), backend)
    agree(value(f, (x + shift,), backend), y, "the value", scale=1)
    g = rng.standard_normal(y.shape)
    (here,), (there,) = (pull(f, (at,), g, backend) for at in (x, x + shift))
    agree(there, here, "the gradient", scale=np.abs(g).max())


@about_softmax("The gradient sums to zero over each row of logits.")
def rows_of_gradients_sum_to_zero(op: Any, drawn: Any, backend: Backend) -> None:
    x, labels, rng = drawn
    f = op(labels)
    g = rng.standard_normal(value(f, (x,), backend).shape)
    (g_x,) = pull(f, (x,), g, backend)
    agree(g_x.sum(1), np.zeros(len(x)), "Σ x̄", digits=14, scale=np.abs(g).sum() + 1)


@about_softmax("The gradient of cross-entropy is (softmax - one-hot) / N.", "softmax_cross_entropy")
def the_difference_to_one_hot(op: Any, drawn: Any, backend: Backend) -> None:
    x, labels, _ = drawn
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    hot = np.arange(x.shape[1]) == labels[:, None]
    (g_x,) = pull(op(labels), (x,), np.array(-2.5), backend)
    agree(g_x, -2.5 * (p - hot) / len(x), "the gradient", scale=1 / len(x))
    likelihood = x - x.max(1, keepdims=True)
    likelihood -= np.log(np.exp(likelihood).sum(1, keepdims=True))
    expected = -likelihood[np.arange(len(x)), labels].mean()
    agree(value(op(labels), (x,), backend), expected, "the value", scale=1)


@about_softmax(
    "Value and gradient are finite at logits of ±10⁴, and those of the limit.",
    "softmax",
    "softmax_cross_entropy",
)
def finite_at_huge_logits(op: Any, drawn: Any, backend: Backend) -> None:
    like, labels, rng = drawn
    x = rng.choice([-1e4, 0.0, 1e4], like.shape)
    f = op(labels)
    with np.errstate(all="ignore"):  # the asserts below report what is not finite
        y = value(f, (x,), backend)
        g = rng.standard_normal(y.shape)
        (g_x,) = pull(f, (x,), g, backend)
    assert np.isfinite(y).all(), "the value is not finite"
    assert np.isfinite(g_x).all(), "the gradient is not finite"
    top = x == x.max(1, keepdims=True)
    p = top / top.sum(1, keepdims=True)  # exp(-10⁴) is 0
    lost = x.max(1) - x[np.arange(len(x)), labels] + np.log(top.sum(1))
    agree(y, p if y.ndim else lost.mean(), "the value", scale=1e-3)
    hot = np.arange(x.shape[1]) == labels[:, None]
    limit = p * (g - (g * p).sum(-1, keepdims=True)) if y.ndim else g * (p - hot) / len(x)
    agree(g_x, limit, "the gradient", scale=1)


@law(
    "softmax and cross-entropy",
    "logsumexp(x + s) = logsumexp(x) + s, and its gradient is softmax, which sums to 1.",
    over=("logsumexp",),
    draw=logits(),
    subject=lambda name: getattr(ops, name),
)
def logsumexp_moves_along(op: Any, drawn: Any, backend: Backend) -> None:
    x, _, rng = drawn
    shift = rng.integers(-40, 41, (len(x), 1))

    def f(x: Any) -> Any:
        return op(x, axis=1)

    y = value(f, (x,), backend)
    agree(value(f, (x + shift,), backend), y + shift[:, 0], "the value", scale=50)
    (g_x,) = pull(f, (x,), np.ones(len(x)), backend)
    agree(g_x, value(ops.softmax, (x,), backend), "the gradient", scale=1)
    agree(g_x.sum(1), np.ones(len(x)), "Σ x̄")


# -- norms

ORDERS = {"norm": 2.0, "norm, p=1": 1.0, "norm, p=inf": math.inf}


@st.composite
def vectors(draw: Any) -> tuple[np.ndarray, np.random.Generator]:
    """(rows of at most six numbers without zeros and ties of their sizes, a generator)"""
    rng = np.random.default_rng(draw(seeds))
    N, K = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    sizes = rng.permuted(np.tile(np.arange(K) + 1.0, (N, 1)), axis=1) + rng.uniform(-0.2, 0.2)
    return sizes * rng.choice([-1.0, 1.0], (N, K)), rng


def of_order(case: str) -> Any:
    p = ORDERS[case]
    return p, lambda x: ops.norm(x, p, axis=1)


def about_norms(sentence: str, **settings: Any) -> Any:
    return law(
        "l_p norms", sentence, over=tuple(ORDERS), draw=vectors(), subject=of_order, **settings
    )


@about_norms("‖a·x‖ = |a|·‖x‖, so ⟨x̄, x⟩ = ‖x‖ for g = 1, whatever p is.")
def norms_scale(of: Any, drawn: Any, backend: Backend) -> None:
    (_, f), (x, _) = of, drawn
    y = value(f, (x,), backend)
    agree(value(f, (-3 * x,), backend), 3 * y, "‖-3x‖")
    (g_x,) = pull(f, (x,), np.ones(len(x)), backend)
    agree((g_x * x).sum(1), y, "⟨x̄, x⟩")


@about_norms("The gradient of the l_p norm has l_q norm 1, where 1/p + 1/q = 1.")
def gradients_have_dual_norm_one(of: Any, drawn: Any, backend: Backend) -> None:
    (p, f), (x, _) = of, drawn
    (g_x,) = pull(f, (x,), np.ones(len(x)), backend)
    q = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[p]
    agree(np.linalg.norm(g_x, q, axis=1), np.ones(len(x)), f"the l_{q:g} norm of the gradient")


@law(
    "l_p norms",
    "As p grows, (Σ |x|^p)^(1/p) falls to the l∞ norm, which is max |x|, and so do gradients.",
    over=("norm, p=inf",),
    draw=vectors(),
    subject=of_order,
)
def the_limit_is_the_maximum(of: Any, drawn: Any, backend: Backend) -> None:
    (_, f), (x, rng) = of, drawn
    y, g = value(f, (x,), backend), rng.standard_normal(len(x))
    agree(y, np.abs(x).max(1), "l∞ against max |x|", digits=15)
    (actual,) = pull(f, (x,), g, backend)
    errors = []
    for p in (2, 8, 32, 256):  # sizes differ by a sixth at least: (5/6)^256 is 5e-21

        def l_p(x: Any, p: int = p) -> Any:
            return ops.power(ops.sum(ops.power(ops.abs(x), p), 1), 1 / p)

        (slope,) = pull(l_p, (x,), g, backend)
        errors.append((np.abs(value(l_p, (x,), backend) - y).max(), np.abs(slope - actual).max()))
    assert all(later[0] <= sooner[0] + 1e-12 for sooner, later in itertools.pairwise(errors))
    agree(errors[-1][1] / max(np.abs(g).max(), 1e-3), 0, "gradients at p = 256", scale=1)


@law(
    "l_p norms",
    "‖x‖∞ ≤ ‖x‖₂ ≤ ‖x‖₁ ≤ √n ‖x‖₂ ≤ n ‖x‖∞.",
    over=("norm",),
    draw=vectors(),
    subject=lambda case: ops.norm,
)
def norms_are_ordered(op: Any, drawn: Any, backend: Backend) -> None:
    x, n = drawn[0], drawn[0].shape[1]
    one, two, top = (
        value(lambda x, p=p: op(x, p, axis=1), (x,), backend) for p in (1, 2, math.inf)
    )
    chain = [top, two, one, math.sqrt(n) * two, n * top]
    for smaller, larger in itertools.pairwise(chain):
        assert (smaller <= larger * (1 + 1e-14)).all(), f"{smaller} > {larger}"


# -- faults


def softmax_alone(self, g, out, x):
    return ops.softmax(x) * (g * (1 / len(x)))


def sum_for_mean(self, g, out, x):
    return (ops.softmax(x) - ops.one_hot(self.labels, x.shape[1], x.dtype)) * g


def without_the_largest(x):
    return ops.exp(x) / ops.exp(x).sum()


add_faults(
    shifts_change_nothing=Fault("softmax", lambda labels: ops.tanh),
    finite_at_huge_logits=Fault("softmax", lambda labels: without_the_largest),
    logsumexp_moves_along=Fault("logsumexp", ops.sum),
    norms_scale=Fault("norm", (2.0, lambda x: ops.sum(x * x, 1))),
    gradients_have_dual_norm_one=Fault("norm", (2.0, lambda x: 2 * ops.norm(x, axis=1))),
    the_limit_is_the_maximum=Fault("norm, p=inf", (np.inf, lambda x: ops.norm(x, axis=1))),
    norms_are_ordered=Fault("norm", lambda x, p, axis: ops.norm(x, {1: np.inf}.get(p, 1), axis)),
    rows_of_gradients_sum_to_zero=Fault(
        "softmax_cross_entropy", patch=(SoftmaxCrossEntropy, "vjp", softmax_alone)
    ),
    the_difference_to_one_hot=Fault(
        "softmax_cross_entropy", patch=(SoftmaxCrossEntropy, "vjp", sum_for_mean)
    ),
)
