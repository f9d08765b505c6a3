"""Problems of the l_p norms, of norms of each example by itself, and of standardised filters.

As for BatchNorm, the norm is near eps, where eps matters, or far above it. l1 has a kink where a
value in the norm is 0, l∞ where two of the largest are equal in size: problems are away from both,
and `tied_lp` draws points on them.
"""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import nn, ops
from minibn.testing.problem import Problem
from minibn.testing.strategies import Point, gap_separated, nonzero, positive, real, seeds
from suite.registry.case import Tied, here

LEADS = ((3,), (5,), (2, 2), (2, 1, 3), (2, 2, 2))
REDUCTIONS = ("norm_of_mean", "mean_of_norm")


# -- l_p norms over the batch


def smooth(rng: np.random.Generator, M: int, center_first: bool) -> np.ndarray:
    """M values with no kink of either norm near: none is 0 and no two are of equal size; if they
    are centred first, so are their distances from the mean."""
    if not center_first:
        return gap_separated(0.2)(rng, (M,), "normal")
    while True:
        x = np.clip(rng.standard_normal(M), -3, 3)
        sizes = np.sort(np.abs(x - x.mean()))
        if sizes[0] > 0.1 and sizes[-1] - sizes[-2] > 0.1:
            return x + rng.normal()


@st.composite
def lp_points(draw: Any, p: float, eps: tuple[float, ...] = (1e-1, 1e-3)) -> Point:
    """Points of lp_batch_norm(x, gamma, beta, p=..., eps=..., center_first=..., reduce=...)."""
    lead, C = draw(st.sampled_from(LEADS)), draw(st.integers(1, 3))
    e, center_first = draw(st.sampled_from(eps)), draw(st.booleans())
    reduce = draw(st.sampled_from(REDUCTIONS))
    rng, M = np.random.default_rng(seed := draw(seeds)), math.prod(lead)
    near = (e ** (1 / p) if p < math.inf else e) * 10 ** rng.uniform(-0.5, 1, C)
    size = np.where(rng.random(C) < 0.5, near, 10 ** rng.uniform(-0.5, 1, C))
    x = np.stack([smooth(rng, M, center_first) for _ in range(C)], -1) * size
    settings = {"p": p, "eps": e, "center_first": center_first, "reduce": reduce}
    return Point((x.reshape(*lead, C), nonzero(rng, (C,)), real(rng, (C,))), settings, seed)


def lp_problems(p: float) -> st.SearchStrategy[Problem]:
    return lp_points(p).map(lambda point: point.problem(ops.lp_batch_norm))


def lp_inference(
    x: Any, gamma: Any, beta: Any, p: float, eps: float, center_first: bool, reduce: str
) -> Any:
    rng = np.random.default_rng(x.shape[-1])
    mean, norm = real(rng, x.shape[-1:]), positive(rng, x.shape[-1:])
    return ops.lp_batch_norm_inference(x, gamma, beta, here(x, mean), here(x, norm), p=p, eps=eps)


def lp_inferences() -> st.SearchStrategy[Problem]:
    return st.one_of([lp_points(p) for p in (1, 2, math.inf)]).map(
        lambda point: point.problem(lp_inference)
    )


def lp_layer(point: Point) -> nn.LpBatchNorm:
    return nn.LpBatchNorm(point.inputs[0].shape[-1], **point.settings)


def lp_slope(
    g: np.ndarray,
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    p: float,
    eps: float,
    center_first: bool,
    reduce: str,
) -> tuple[np.ndarray, ...]:
    """The documented gradient of l1 and l∞: sign(0) = 0, and the largest share equally."""
    axes, M = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
    centred = x - x.mean(axes)
    z = centred if center_first else x
    w = 1.0 if p == math.inf and reduce == "norm_of_mean" else 1 / M
    largest = np.abs(z) == np.abs(z).max(axes)
    s = w * (np.abs(z).sum(axes) if p == 1 else np.abs(z).max(axes)) + eps
    d = w * np.sign(z) * (1 if p == 1 else largest / largest.sum(axes))
    if center_first:
        d = d - d.mean(axes)
    g_gamma = (g * centred).sum(axes) / s
    return (g - g.mean(axes) - d * g_gamma) * (gamma / s), g_gamma, g.sum(axes)


@st.composite
def tied_lp(draw: Any, p: float) -> Tied:
    """Whole numbers in pairs of both signs and at least one 0: a mean of exactly 0, so that they
    are tied and zero whether they are centred or not."""
    lead, C = draw(st.sampled_from(LEADS)), draw(st.integers(1, 3))
    rng, M = np.random.default_rng(seed := draw(seeds)), math.prod(lead)
    pairs = rng.integers(1, 4, ((M - 1) // 2, C)).astype(float)
    x = np.concatenate([pairs, -pairs, np.zeros((M - 2 * len(pairs), C))])
    settings = {
        "p": p,
        "eps": 0.1,
        "center_first": draw(st.booleans()),
        "reduce": draw(st.sampled_from(REDUCTIONS)),
    }
    x = rng.permuted(x, axis=0).reshape(*lead, C)
    point = Point((x, nonzero(rng, (C,)), real(rng, (C,))), settings, seed)
    return Tied(point.problem(ops.lp_batch_norm), point.bind(lp_slope))


# -- norms of each example


def spread_out(
    rng: np.random.Generator, shape: tuple[int, ...], axes: tuple[int, ...], eps: float
) -> np.ndarray:
    """Normal numbers whose mean and spread differ for each place off the axes, as in
    `norm_problems`: the variance near eps or ordinary."""
    each = tuple(1 if a in axes else n for a, n in enumerate(shape))
    near, ordinary = eps * 10 ** rng.uniform(-1, 1, each), 10 ** rng.uniform(-1, 2, each)
    spread = np.sqrt(np.where(rng.random(each) < 0.5, near, ordinary))
    return (rng.standard_normal(shape) + rng.standard_normal(each)) * spread


EPS = (1e-1, 1e-3, 1e-5)


def affine(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return nonzero(rng, shape), real(rng, shape)


@st.composite
def layer_norm_points(draw: Any) -> Point:
    """Of layer_norm and rms_norm: over channels, a whole example, or the axes that are given."""
    shape = draw(st.sampled_from([(2, 3), (1, 5), (2, 2, 3), (3, 1, 2, 2), (2, 2, 1, 3)]))
    k = len(shape)
    choices: list[Any] = ["example"]
    if shape[-1] > 2:
        choices += [None, -1]
    if k == 4:
        choices += [(1, 2, 3)]
    axes = draw(st.sampled_from(choices))
    many = axes == "example" and k > 2 and draw(st.booleans())  # a gamma for each feature
    reduced = range(1, k) if axes in ("example", (1, 2, 3)) else (k - 1,)
    e, rng = draw(st.sampled_from(EPS)), np.random.default_rng(seed := draw(seeds))
    x = spread_out(rng, shape, tuple(reduced), e)
    vectors = affine(rng, shape[1:] if many else shape[-1:])
    return Point((x, *vectors), {"axes": axes, "eps": e}, seed)


@st.composite
def group_norm_points(draw: Any) -> Point:
    groups, each = draw(st.sampled_from([(1, 3), (2, 2), (3, 1), (2, 3)]))
    pixels = draw(st.sampled_from([(), (3,), (1, 2), (2, 2)] if each > 2 else [(3,), (2, 2)]))
    split = (draw(st.integers(1, 3)), *pixels, groups, each)
    e, rng = draw(st.sampled_from(EPS)), np.random.default_rng(seed := draw(seeds))
    x = spread_out(rng, split, (*range(1, len(split) - 2), len(split) - 1), e)
    vectors = affine(rng, (C := groups * each,))
    return Point((x.reshape(*split[:-2], C), *vectors), {"groups": groups, "eps": e}, seed)


@st.composite
def instance_norm_points(draw: Any) -> Point:
    shape = draw(st.sampled_from([(1, 3, 1), (2, 4, 2), (3, 2, 2, 2), (2, 1, 3, 3)]))
    e, rng = draw(st.sampled_from(EPS)), np.random.default_rng(seed := draw(seeds))
    x = spread_out(rng, shape, tuple(range(1, len(shape) - 1)), e)
    return Point((x, *affine(rng, shape[-1:])), {"eps": e}, seed)


@st.composite
def filter_points(draw: Any) -> Point:
    """Of weight_standardisation(w, gamma, eps=...)."""
    shape = draw(st.sampled_from([(3, 1), (4, 2), (1, 2, 2, 3), (2, 2, 1, 2), (3, 1, 2, 1)]))
    e, rng = draw(st.sampled_from(EPS)), np.random.default_rng(seed := draw(seeds))
    w = spread_out(rng, shape, tuple(range(len(shape) - 1)), e)
    return Point((w, nonzero(rng, shape[-1:])), {"eps": e}, seed)


def without_beta(point: Point) -> Point:
    return Point(point.inputs[:2], point.settings, point.seed)


def problems(op: Any, points: st.SearchStrategy[Point]) -> st.SearchStrategy[Problem]:
    return points.map(lambda point: point.problem(op))
