"""Problems of `fused_block`: convolution, norm or bias, noise, ReLU and pooling, or some of them.

They are drawn backwards: first the ReLU's input, whose values differ from 0 and from each other (or
are tied, on purpose); x follows by inverting the noise and the affine map. A norm can be inverted,
too: for x = a·u + b with any a and b

    gamma · x̂ + beta = u   where   gamma = √(a² var(u) + eps) / a,   beta = mean(u)

So can a convolution that keeps the images' shape: its matrix is square, and x a solution.
"""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import ops
from minibn.fast.fused_ops import fused_block
from minibn.testing.problem import Problem
from minibn.testing.strategies import (
    Point,
    gap_separated,
    nonzero,
    real,
    seeds,
    textures,
    with_ties,
)
from suite.registry.case import Case, Rng, Tied, here
from suite.registry.ties import max_pool_slope

AFFINE = ("nothing", "shift", "scale and shift", "norm")
POOLED = ((1, 2, 2), (1, 4, 2), (2, 2, 4), (1, 3, 5))
FLAT = ((3,), (2, 3), (2, 2, 2))
apart = gap_separated(0.25)


def call_fused_block(
    x: Any, *rest: Any, convolved: bool = False, noise: Any = None, **settings: Any
) -> Any:
    """`fused_block`; noise: the arrays (s, m), or None. Convolved, the filters come next to x."""
    draw = None if noise is None else lambda x: (here(x, noise[0]), here(x, noise[1]))
    if not convolved:
        return fused_block(x, *rest, noise=draw, **settings)
    w, *affine = rest
    padding = w.shape[0] // 2
    return fused_block(x, *affine, filters=w, padding=padding, noise=draw, **settings)


def undo(z: np.ndarray, rng: np.random.Generator, kind: str, noise: Any, eps: float) -> Any:
    """(x, *affine) for which z is the ReLU's input."""
    u = z if noise is None else (z - noise[1]) / noise[0]
    C = z.shape[-1:]
    if kind == "nothing":
        return (u,)
    shift = real(rng, C)
    if kind == "shift":
        return u - shift, shift
    if kind == "scale and shift":
        scale = nonzero(rng, C)
        return (u - shift) / scale, scale, shift
    rows = u.reshape(-1, *C)
    a = rng.choice([-1.0, 1.0], C) * 10 ** rng.uniform(-0.5, 0.5, C)
    return a * u + real(rng, C), np.sqrt(a * a * rows.var(0) + eps) / a, rows.mean(0)


def deconvolve(y: np.ndarray, rng: np.random.Generator, side: int) -> tuple[Any, Any]:
    """(x, w) for which y (N, H, W, C) = conv2d(x, w, padding=side // 2).

    w (side, side, C, C) is close enough to the identity convolution to be inverted.
    """
    C = y.shape[3]
    w = rng.uniform(-1, 1, (side, side, C, C))
    w /= 2 * np.abs(w).sum()
    w[side // 2, side // 2] += np.eye(C)
    ones = np.eye(y[0].size).reshape(-1, *y.shape[1:])  # images of a single 1
    matrix = ops.conv2d(ones, w, padding=side // 2).reshape(len(ones), -1)
    return np.linalg.solve(matrix.T, y.reshape(len(y), -1).T).T.reshape(y.shape), w


@st.composite
def fused_block_points(draw: Any) -> Point:
    """Points of `call_fused_block`, away from every kink."""
    kind, relu = draw(st.sampled_from(AFFINE)), draw(st.booleans())
    pool = draw(st.sampled_from((0, 0, 2, 2, 3)))
    lead = draw(st.sampled_from(FLAT if not pool else POOLED if pool == 2 else ((1, 3, 4),)))
    shape = (*lead, draw(st.integers(1, 2)))
    rng = np.random.default_rng(seed := draw(seeds))
    z = apart(rng, shape, draw(textures))
    noise = (nonzero(rng, shape), real(rng, shape)) if draw(st.booleans()) else None
    eps = draw(st.sampled_from((1e-1, 1e-5))) if kind == "norm" else None
    inputs = undo(z, rng, kind, noise, eps or 0)
    settings = {"eps": eps, "noise": noise, "relu": relu, "pool": pool}
    if settings.setdefault("convolved", len(lead) == 3 and draw(st.booleans())):
        alone = kind == "norm" and shape[-1] == 1  # a filter of one weight, whose scale cancels
        side = 3 if alone else draw(st.sampled_from((3, 1)))
        inputs = *deconvolve(inputs[0], rng, side), *inputs[1:]
    shut = relu and not call_fused_block(*inputs, **settings).any()
    return Point(inputs, settings, seed, frozenset(range(len(inputs)) if shut else ()))


def fused_block_problems() -> st.SearchStrategy[Problem]:
    return fused_block_points().map(lambda point: point.problem(call_fused_block))


def slopes(g: np.ndarray, x: np.ndarray, *affine: np.ndarray, noise: Any, pool: int) -> Any:
    """The documented gradient, for a shift or a scale and a shift before a ReLU."""
    *scale, shift = affine or (np.zeros(x.shape[-1]),)
    s, m = (1.0, 0.0) if noise is None else noise
    z = (x * scale[0] if scale else x) + shift
    z = z * s + m
    if pool:
        (g,) = max_pool_slope(g, np.maximum(z, 0), (pool, pool), (pool, pool), (0, 0))
    g = g * (z > 0) * s
    over = tuple(range(x.ndim - 1))
    gradients = [g * scale[0], (g * x).sum(over)] if scale else [g]
    return (*gradients, g.sum(over)) if affine else tuple(gradients)


@st.composite
def tied_fused_blocks(draw: Any) -> Tied:
    """Zeros at the ReLU and ties in the windows, exact in binary: a norm would round them away."""
    pool = draw(st.sampled_from((0, 2)))
    shape = (*draw(st.sampled_from(POOLED[:3] if pool else FLAT)), draw(st.integers(1, 2)))
    rng = np.random.default_rng(seed := draw(seeds))
    z, C = with_ties(rng, shape, "integers"), shape[-1:]
    noise = None
    if draw(st.booleans()):
        noise = rng.choice([-1.0, 0.5, 2.0], shape), rng.integers(-1, 2, shape).astype(float)
    scale, shift = rng.choice([-1.0, 0.5, 2.0], C), rng.integers(-2, 3, C).astype(float)
    u = z if noise is None else (z - noise[1]) / noise[0]
    kind = draw(st.sampled_from(AFFINE[:3]))
    inputs = {
        "nothing": (u,),
        "shift": (u - shift, shift),
        "scale and shift": ((u - shift) / scale, scale, shift),
    }[kind]
    point = Point(inputs, {"noise": noise, "pool": pool}, seed)
    problem = Point(inputs, {**point.settings, "relu": True}, seed).problem(call_fused_block)
    return Tied(problem, point.bind(slopes))


def bias_relu_pool(rng: Rng):
    """Bias, ReLU and pooling, as after a convolution in a network without norms."""
    return (
        lambda x, b: fused_block(x, b, relu=True, pool=2),
        (rng.standard_normal((2, 4, 4, 3)), rng.standard_normal(3)),
    )


ROW = Case(
    fused_block_problems(),
    plain=bias_relu_pool,
    digits=3,
    half_digits=None,
    kinks=tied_fused_blocks(),
    convention="behind a ReLU the first of tied pixels gets the gradient, none if all are 0",
)
