"""Laws of normalisation by l_p norms over the batch, and of its layer.

An op under test is `op(x, gamma, beta, *, p, eps, center_first, reduce)`; n is a channel's norm,
s = (n^p + eps)^(1/p), which is n + eps for p = ∞.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import apply, nn, ops
from minibn.backend import Backend, to_numpy
from minibn.ops.lp_normalization import LpBatchNorm
from minibn.testing.laws.agreement import agree, each, pull, value
from minibn.testing.strategies import Point, norm_problems
from suite.laws.batch_norm import cotangent, equal_to_second_order
from suite.laws.faults import Fault, add_faults
from suite.laws.row_law import law
from suite.registry import norms

ORDERS = {
    "lp_batch_norm, p=1": 1,
    "lp_batch_norm, p=2": 2,
    "lp_batch_norm, p=inf": math.inf,
}


def named(case: str) -> Any:
    return getattr(ops, case.partition(",")[0])


def about_lp(sentence: str, over: Any = tuple(ORDERS), **settings: Any) -> Any:
    def drawn(case: str) -> Any:
        return norms.lp_points(ORDERS[case])

    settings = {"draw": drawn, "subject": named} | settings
    return law("l_p batch norms", sentence, over=over, **settings)


def composed(
    x: Any, gamma: Any, beta: Any, *, p: float, eps: float, center_first: bool, reduce: str
) -> Any:
    """The definition, of `ops.norm` and other primitive ops."""
    axes, M = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
    centred = x - ops.mean(x, axes)
    divisor = M if reduce == "mean_of_norm" else M ** (1 / p)  # M^0 = 1 for p = ∞
    n = ops.norm(centred if center_first else x, p, axes) * (1 / divisor)
    s = n + eps if p == math.inf else ops.power(ops.power(n, p) + eps, 1 / p)
    return gamma * (centred / s) + beta


@about_lp("It equals its definition of primitive ops, in value and two derivatives.")
def lp_equals_composed(op: Any, point: Point, backend: Backend) -> None:
    equal_to_second_order(point.bind(op), point.bind(composed), point, backend)


@about_lp("f(a·x; a^p·eps) = f(x; eps), with a·eps for p = ∞, and x̄ shrinks by a.")
def lp_scale_cancels(op: Any, point: Point, backend: Backend) -> None:
    (x, gamma, beta), g, p = point.inputs, cotangent(point), point.settings["p"]
    a = 2.0 ** int(np.random.default_rng((point.seed, 2)).integers(-4, 5))
    eps = point.settings["eps"] * (a if p == math.inf else a**p)
    moved = (a * x, gamma, beta)
    scaled = Point(moved, {**point.settings, "eps": eps}).bind(op)
    y = value(point.bind(op), point.inputs, backend)
    agree(value(scaled, moved, backend), y, "f(a·x)", digits=10)
    there = pull(scaled, moved, g, backend)
    here = pull(point.bind(op), point.inputs, g, backend)
    each([a * there[0], *there[1:]], here, "the gradient", digits=10)


@about_lp("Centred first, a shift of a channel cancels; otherwise it counts in the norm.")
def lp_shift_cancels_if_centred_first(op: Any, point: Point, backend: Backend) -> None:
    x, gamma, beta = point.inputs
    up = np.abs(x).max(tuple(range(x.ndim - 1))) * 4
    for center_first in (True, False):
        f = Point(point.inputs, {**point.settings, "center_first": center_first}).bind(op)
        here, there = (value(f, (z, gamma, beta), backend) for z in (x, x + up))
        if center_first:
            agree(there, here, "f(x + b)", digits=9.5)
        else:
            inside = np.abs(there - beta) < np.abs(here - beta) * 0.99
            assert (inside | (np.abs(here - beta) < 1e-9)).all(), "f(x + b) is not nearer to beta"


@about_lp("Of values that are centred first, l2 is batch norm.", over=("lp_batch_norm, p=2",))
def centred_l2_is_batch_norm(op: Any, point: Point, backend: Backend) -> None:
    eps, g = point.settings["eps"], cotangent(point)
    settings = {**point.settings, "center_first": True, "reduce": "norm_of_mean"}
    ours = Point(point.inputs, settings).bind(op)

    def batch_norm(*inputs: Any) -> Any:
        return ops.batch_norm(*inputs, eps=eps)

    y = value(batch_norm, point.inputs, backend)
    agree(value(ours, point.inputs, backend), y, "the value", digits=10)
    expected = pull(batch_norm, point.inputs, g, backend)
    each(pull(ours, point.inputs, g, backend), expected, "the gradient", digits=9)


@law(
    "l_p batch norms",
    "mean |x| ≤ √(mean x²) ≤ max |x|: with eps = 0, l∞ gives the smallest values and l1 the "
    "largest; mean_of_norm gives M^(1 - 1/p) times as much as norm_of_mean.",
    over=("lp_batch_norm, p=1",),
    draw=norms.lp_points(1),
    subject=named,
)
def lp_values_are_ordered(op: Any, point: Point, backend: Backend) -> None:
    x, *rest = point.inputs
    M, first = math.prod(x.shape[:-1]), point.settings["center_first"]
    affine = (np.ones_like(rest[0]), np.zeros_like(rest[0]))

    def sizes(p: float, reduce: str) -> np.ndarray:
        settings = {"p": p, "eps": 0.0, "center_first": first, "reduce": reduce}
        return np.abs(value(lambda *v: op(*v, **settings), (x, *affine), backend))

    ordered = [sizes(p, "norm_of_mean") for p in (math.inf, 2, 1)]
    for smaller, larger in itertools.pairwise(ordered):
        assert (smaller <= larger * (1 + 1e-12) + 1e-12).all(), f"{smaller} > {larger}"
    for p, size in zip((math.inf, 2, 1), ordered, strict=True):
        agree(sizes(p, "mean_of_norm"), size * M ** (1 - 1 / p), f"mean_of_norm, p={p}", digits=9)


@law(
    "l_p batch norms",
    "With the batch's own mean and norm, the inference form gives the value of training.",
    over=("lp_batch_norm_inference",),
    draw=st.sampled_from(list(ORDERS.values())).flatmap(norms.lp_points),
    subject=named,
)
def lp_inference_by_the_batchs_statistics(op: Any, point: Point, backend: Backend) -> None:
    inputs = [backend.asarray(v) for v in point.inputs]
    y, mean, norm = ops.lp_batch_norm(*inputs, return_moments=True, **point.settings)
    fixed = op(*inputs, mean, norm, p=point.settings["p"], eps=point.settings["eps"])
    agree(to_numpy(fixed), to_numpy(y), "the value", digits=9.5)


# -- the layer


@st.composite
def batches(draw: Any) -> tuple[Point, dict[str, Any], list[np.ndarray]]:
    """(gamma, beta and eps; p, momentum and variant; batches of different sizes)"""
    point = draw(norm_problems(variance="ordinary"))
    settings = {
        "p": draw(st.sampled_from(list(ORDERS.values()))),
        "momentum": draw(st.sampled_from([0.1, 0.5, 1.0, 0.0, None])),
        "center_first": draw(st.booleans()),
        "reduce": draw(st.sampled_from(norms.REDUCTIONS)),
    }
    rng, C = np.random.default_rng((point.seed, 1)), point.inputs[0].shape[-1]
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    return point, settings, [k + (k + 1) * rng.standard_normal((n, C)) for k, n in enumerate(sizes)]


@law(
    "l_p batch norms",
    "After k batches the running mean and norm are the closed form of the batches' own: weights "
    "m·(1-m)^(k-i), or 1/k without a momentum; evaluation divides by them, and writes nothing.",
    over=("nn.LpBatchNorm",),
    draw=batches(),
    subject=lambda name: nn.LpBatchNorm,
)
def lp_running_statistics(cls: Any, drawn: Any, backend: Backend) -> None:
    point, settings, xs = drawn
    (_, gamma, beta), m, p, k = point.inputs, settings["momentum"], settings["p"], len(xs)
    eps = point.settings["eps"]
    norm = cls(len(gamma), eps=eps, **settings).initialize(0, dtype=np.float64)
    norm.gamma.place(gamma)
    norm.beta.place(beta)
    for x in xs:
        norm(backend.asarray(x))
    means = np.array([x.mean(0) for x in xs])
    of = [x - x.mean(0) if settings["center_first"] else x for x in xs]
    whole = settings["reduce"] == "mean_of_norm"
    sizes = np.array([np.linalg.norm(z, p, axis=0) / len(z) ** (1 if whole else 1 / p) for z in of])
    weights = np.array([1 / k if m is None else m * (1 - m) ** (k - 1 - i) for i in range(k)])
    first = 0.0 if m is None else (1 - m) ** k  # what is left of the initial 0 and 1
    mean, n = weights @ means, weights @ sizes + first
    agree(to_numpy(norm.running_mean.data), mean, "the running mean", scale=np.abs(means).max())
    agree(to_numpy(norm.running_norm.data), n, "the running norm")
    before = norm.eval().state_dict()
    s = np.sqrt(n * n + eps) if p == 2 else n + eps
    y = to_numpy(norm(backend.asarray(xs[-1])))
    reach = np.abs(gamma / s) * (np.abs(xs[-1]).max() + np.abs(mean)) + np.abs(beta)
    agree(y, (xs[-1] - mean) / s * gamma + beta, "evaluation", digits=10, scale=reach)
    for name, array in norm.state_dict().items():
        assert np.array_equal(array, before[name]), f"evaluation wrote {name}"


# -- faults


class ConstantNorm(LpBatchNorm):
    def slope(self, z, s):
        return z * 0


def constant_norm(x, gamma, beta, *, p, eps, center_first, reduce):
    return apply(ConstantNorm(p, eps, center_first, reduce), x, gamma, beta)


def deaf_to_eps(op):
    return lambda *inputs, **settings: op(*inputs, **{**settings, "eps": 1e-2})


def never_centred_first(*inputs, **settings):
    return ops.lp_batch_norm(*inputs, **{**settings, "center_first": False})


def one_for_infinity(*inputs, p, **settings):
    other = {1: math.inf, math.inf: 1}.get(p, p)
    return ops.lp_batch_norm(*inputs, p=other, **settings)


class Doubled(nn.LpBatchNorm):
    def update_running_statistics(self, mean, norm):
        super().update_running_statistics(mean, norm * 2)


add_faults(
    lp_equals_composed=Fault("lp_batch_norm, p=inf", constant_norm),
    lp_scale_cancels=Fault("lp_batch_norm, p=1", deaf_to_eps(ops.lp_batch_norm)),
    lp_shift_cancels_if_centred_first=Fault("lp_batch_norm, p=1", never_centred_first),
    centred_l2_is_batch_norm=Fault("lp_batch_norm, p=2", never_centred_first),
    lp_values_are_ordered=Fault("lp_batch_norm, p=1", one_for_infinity),
    lp_inference_by_the_batchs_statistics=Fault(
        "lp_batch_norm_inference", deaf_to_eps(ops.lp_batch_norm_inference)
    ),
    lp_running_statistics=Fault("nn.LpBatchNorm", Doubled),
)
