"""Laws of pooling: `op(x, size, stride)`, x (N, H, W, C); max-pooling also takes a padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import ops
from minibn.backend import Backend
from minibn.ops.pool import AvgPool2dAdjoint
from minibn.testing.laws.agreement import agree, identical, pull, value
from minibn.testing.strategies import Point, pool_problems
from suite import loops
from suite.laws.faults import Fault, add_faults, scaled
from suite.laws.row_law import law


def named(name: str) -> Any:
    return getattr(ops, name)


def points(case: str) -> st.SearchStrategy[Point]:
    """Pooling windows with and without ties, padded where the op takes it."""
    if case == "global_avg_pool2d":
        return pool_problems(padding=False).map(lambda p: Point(p.inputs, {}, p.seed))
    return pool_problems(ties=None, padding=case == "max_pool2d")


def about_pooling(sentence: str, *over: str, **settings: Any) -> Any:
    return law("pooling", sentence, over=over, draw=points, subject=named, **settings)


def cotangent_of(point: Point, shape: Any) -> np.ndarray:
    return np.random.default_rng((point.seed, 1)).standard_normal(shape)


@about_pooling(
    "Max-pooling equals loops; a window's cotangent goes to the first of its largest values.",
    "max_pool2d",
)
def max_pool_equals_loops(op: Any, point: Point, backend: Backend) -> None:
    (x,), f = point.inputs, point.bind(op)
    y, expected = loops.max_pool(x, lambda shape: cotangent_of(point, shape), **point.settings)
    identical(value(f, (x,), backend), y, "the value")
    (actual,) = pull(f, (x,), g := cotangent_of(point, y.shape), backend)
    agree(actual, expected, "the gradient", scale=np.abs(g).sum())


@about_pooling("Average pooling equals loops, in value and gradient.", "avg_pool2d")
def avg_pool_equals_loops(op: Any, point: Point, backend: Backend) -> None:
    (x,), f = point.inputs, point.bind(op)
    y, expected = loops.avg_pool(x, lambda shape: cotangent_of(point, shape), **point.settings)
    agree(value(f, (x,), backend), y, "the value", scale=np.abs(x).max())
    (actual,) = pull(f, (x,), g := cotangent_of(point, y.shape), backend)
    agree(actual, expected, "the gradient", scale=np.abs(g).sum())


@about_pooling(
    "The gradient's mass is conserved in each channel of each image: Σ x̄ = Σ g.",
    "avg_pool2d", "global_avg_pool2d", "max_pool2d",
)  # fmt: skip
def gradient_mass_is_conserved(op: Any, point: Point, backend: Backend) -> None:
    f, (x,) = point.bind(op), point.inputs
    N, C = x.shape[0], x.shape[3]
    g = cotangent_of(point, value(f, (x,), backend).shape)
    (g_x,) = pull(f, (x,), g, backend)
    came = g.reshape(N, -1, C)
    agree(g_x.sum((1, 2)), came.sum(1), "Σ x̄", scale=np.abs(came).sum(1))


@about_pooling(
    "Max-pooling never returns padding: each value is the image's, even if all are negative.",
    "max_pool2d",
)
def padding_is_never_returned(op: Any, point: Point, backend: Backend) -> None:
    f, (x,) = point.bind(op), point.inputs
    for x_low in (x - np.abs(x).max() - 1, np.full(x.shape, -1e30), np.full(x.shape, -np.inf)):
        y = value(f, (x_low,), backend)
        assert np.isin(y, x_low).all(), f"{y.max()} is not a value of the image"
        g = np.abs(cotangent_of(point, y.shape))
        (g_x,) = pull(f, (x_low,), g, backend)
        agree(g_x.sum(), g.sum(), "the gradient that the image gets of all-negative windows")


@about_pooling(
    "The average, and the maximum, of a constant image is that constant.",
    "avg_pool2d", "global_avg_pool2d", "max_pool2d",
)  # fmt: skip
def constants_stay_constant(op: Any, point: Point, backend: Backend) -> None:
    constant = 1.7 + point.seed % 5
    y = value(point.bind(op), (np.full(point.inputs[0].shape, -constant),), backend)
    agree(y, np.full(y.shape, -constant), "the value", digits=14)


@about_pooling("Max-pooling commutes with increasing functions: x ↦ x³ + 2x.", "max_pool2d")
def commutes_with_increasing_functions(op: Any, point: Point, backend: Backend) -> None:
    def rising(x: np.ndarray) -> np.ndarray:
        return x * x * x + 2 * x

    f, (x,) = point.bind(op), point.inputs
    identical(value(f, (rising(x),), backend), rising(value(f, (x,), backend)), "the value")


# -- faults


def slightly_large(x, **settings):
    return ops.avg_pool2d(x, **settings) * 1.01


def average(x, size, stride, padding):
    return ops.avg_pool2d(x, size, stride)


def padded_with_zeros(x, padding, size):
    (ph, pw) = padding
    x = ops.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    return x, x


adjoint = AvgPool2dAdjoint, "forward", scaled(AvgPool2dAdjoint.forward)

add_faults(
    constants_stay_constant=Fault("avg_pool2d", slightly_large),
    commutes_with_increasing_functions=Fault("max_pool2d", average),
    avg_pool_equals_loops=Fault("avg_pool2d", patch=adjoint),
    gradient_mass_is_conserved=Fault("avg_pool2d", patch=adjoint),
    max_pool_equals_loops=Fault("max_pool2d", patch=(ops.pool, "reversed", list)),  # the last tie
    padding_is_never_returned=Fault(
        "max_pool2d", patch=(ops.pool, "_pad_for_max", padded_with_zeros)
    ),
)
