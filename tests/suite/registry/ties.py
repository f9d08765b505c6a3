"""Problems on the kinks, and the documented gradients there.

These are implemented here a second time, on NumPy arrays, without the ops.
"""

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import ops
from minibn.testing.problem import Problem
from minibn.testing.strategies import (
    axes_of,
    broadcast_problems,
    full_shapes,
    nonzero,
    points,
    pool_problems,
    seeds,
    shapes,
    with_ties,
)
from suite.registry.case import Tied

l1 = partial(ops.norm, p=1)
l_infinity = partial(ops.norm, p=math.inf)

Ties = st.SearchStrategy[Tied]
SMALL = ("integers", "normal")
FEW_AXES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)  # short ones seldom tie


def relu_slope(g: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (g * (x > 0),)


def abs_slope(g: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (g * np.sign(x),)


def at_zero(op: Any, slope: Any) -> Ties:
    """One value at least is 0, the kink."""
    return points(shapes, with_ties, SMALL).map(lambda point: Tied(point.problem(op), slope))


def summed_to(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """g summed over the axes along which `shape` was broadcast."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def maximum_slopes(g: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    to_x = np.where(x > y, 1.0, np.where(x == y, 0.5, 0.0))
    return summed_to(g * to_x, x.shape), summed_to(g * (1 - to_x), y.shape)


@st.composite
def equal_maxima(draw: Any) -> Tied:
    """x and y of the same few values, and equal at one place at least."""
    point = draw(broadcast_problems(2, (with_ties, with_ties), ("integers",)))
    x, y = point.inputs
    if x.size and y.size:
        x.flat[0] = y.flat[0]
    return Tied(Problem(ops.maximum, (x, y), point.seed), maximum_slopes)


# -- reductions


def shared(at_top: np.ndarray, axis: Any) -> np.ndarray:
    """The share of each value in its maximum: equal among those that reach it."""
    return at_top / at_top.sum(axis=axis, keepdims=True)


def opened(g: np.ndarray, x: np.ndarray, axis: Any) -> np.ndarray:
    """The cotangent of a reduction over `axis`, with the reduced axes kept as 1."""
    return np.reshape(g, np.sum(x, axis=axis, keepdims=True).shape)


def max_slope(g: np.ndarray, x: np.ndarray, axis: Any) -> tuple[np.ndarray, ...]:
    return (opened(g, x, axis) * shared(x == x.max(axis=axis, keepdims=True), axis),)


@st.composite
def equal_largest(draw: Any) -> Tied:
    shape = draw(FEW_AXES)
    axis = draw(axes_of(len(shape)))
    point = draw(points(shape, with_ties, SMALL, axis=axis, keepdims=st.booleans()))
    return Tied(point.problem(ops.max), partial(max_slope, axis=axis))


def min_slope(g: np.ndarray, x: np.ndarray, axis: Any) -> tuple[np.ndarray, ...]:
    return max_slope(g, -x, axis)


def tied_below(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    return -with_ties(rng, shape, texture)


@st.composite
def equal_smallest(draw: Any) -> Tied:
    shape = draw(FEW_AXES)
    axis = draw(axes_of(len(shape)))
    point = draw(points(shape, tied_below, SMALL, axis=axis, keepdims=st.booleans()))
    return Tied(point.problem(ops.min), partial(min_slope, axis=axis))


def clip_slope(g: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (g * ((x >= 0) & (x <= 1)),)


def on_a_bound() -> Ties:
    return at_zero(partial(ops.clip, min=0, max=1), clip_slope)


def norm_slope(g: np.ndarray, x: np.ndarray, p: float, axis: Any) -> tuple[np.ndarray, ...]:
    size = np.abs(x)
    if p == 1:
        slope = np.sign(x)
    elif p == 2:
        length = np.sqrt((x * x).sum(axis=axis, keepdims=True))
        slope = x / np.where(length == 0, 1, length)
    else:
        slope = np.sign(x) * shared(size == size.max(axis=axis, keepdims=True), axis)
    return (opened(g, x, axis) * slope,)


@st.composite
def norms_at_zero(draw: Any, p: float) -> Tied:
    """At least one of the norms is that of zeros. Elsewhere absolute values may be equal (l∞), and
    some of them 0 (l1)."""
    shape = draw(full_shapes)
    axis, keepdims = draw(axes_of(len(shape))), draw(st.booleans())
    rng = np.random.default_rng(seed := draw(seeds))
    x = (
        nonzero(rng, shape, "normal")
        if p == 2
        else with_ties(rng, shape, draw(st.sampled_from(SMALL)))
    )
    x = x * rng.choice([-1.0, 1.0], shape)
    zeros = rng.random(np.sum(x, axis=axis, keepdims=True).shape) < 0.3
    zeros.flat[draw(st.integers(0, zeros.size - 1))] = True
    f = partial(ops.norm, p=p, axis=axis, keepdims=keepdims)
    return Tied(Problem(f, (x * ~zeros,), seed), partial(norm_slope, p=p, axis=axis))


# -- pooling


def max_pool_slope(
    g: np.ndarray, x: np.ndarray, size: Any, stride: Any, padding: Any
) -> tuple[np.ndarray, ...]:
    """Window by window, to the first of its largest pixels in row-major order; never to padding."""
    around = [(0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)]
    padded = np.pad(x, around, constant_values=-np.inf)
    slope = np.zeros_like(padded)
    N, Ho, Wo, C = g.shape
    for n, i, j, c in itertools.product(range(N), range(Ho), range(Wo), range(C)):
        top, left = i * stride[0], j * stride[1]
        window = padded[n, top : top + size[0], left : left + size[1], c]
        k, m = divmod(int(np.argmax(window)), window.shape[1])
        slope[n, top + k, left + m, c] += g[n, i, j, c]
    H, W = x.shape[1:3]
    return (slope[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W],)


def equal_pixels() -> Ties:
    return pool_problems(ties=True).map(
        lambda point: Tied(point.problem(ops.max_pool2d), point.bind(max_pool_slope))
    )
