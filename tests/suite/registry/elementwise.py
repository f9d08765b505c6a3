"""Rows and problems of elementwise ops, each where its op is smooth."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn import ops
from minibn.testing.problem import Problem
from minibn.testing.strategies import (
    TEXTURES,
    Domain,
    broadcast_problems,
    broadcast_shapes,
    full_shapes,
    gap_separated,
    nonzero,
    points,
    positive,
    real,
    seeds,
    shapes,
    textures,
)
from suite.registry import plain
from suite.registry.case import Case, here

Problems = st.SearchStrategy[Problem]


def unary_problems(
    f: Callable[..., Any], domain: Domain = real, textures: Any = TEXTURES
) -> Problems:
    return points(shapes, domain, textures).map(lambda point: point.problem(f))


def unary(
    f: Callable[..., Any], domain: Domain = real, textures: Any = TEXTURES, **settings: Any
) -> Case:
    """The row of an elementwise op of one operand. settings: the other fields of `Case`."""
    by_hand = plain.normal(f, (3, 4), domain=plain.above_zero if domain is positive else None)
    return Case(
        unary_problems(f, domain, textures), **{"plain": by_hand, "operands": 1, **settings}
    )


def binary(
    f: Callable[..., Any],
    first: Domain = real,
    second: Domain = real,
    textures: Any = TEXTURES,
    **settings: Any,
) -> Case:
    """The row of an elementwise op of two operands, which broadcast."""
    problems = broadcast_problems(2, (first, second), textures)
    by_hand = plain.normal(f, (3, 4), (3, 4))
    drawn = problems.map(lambda point: point.problem(f))
    return Case(drawn, **{"plain": by_hand, "operands": 2, **settings})


def not_one(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    """Positive, and with a logarithm that is not zero."""
    return positive(rng, shape, texture) + 0.1


def flat_where_none(*masks: np.ndarray) -> frozenset[int]:
    """The inputs whose mask is False everywhere: none of their values reaches the output."""
    return frozenset(i for i, mask in enumerate(masks) if not mask.any())


def relus() -> Problems:
    def above_somewhere(problem: Problem) -> Problem:
        flat = flat_where_none(problem.inputs[0] > 0)
        return Problem(ops.relu, problem.inputs, problem.seed, flat)

    return unary_problems(ops.relu, gap_separated()).map(above_somewhere)


@st.composite
def maxima(draw: Any) -> Problem:
    """Values that differ by 0.1 at least, within x, within y and between them."""
    point = draw(broadcast_problems(2, (gap_separated(), gap_separated()), ("normal",)))
    x, y = point.inputs
    y = y + 0.125
    return Problem(ops.maximum, (x, y), point.seed, flat_where_none(x > y, y > x))


@st.composite
def clips(draw: Any) -> Problem:
    """Both bounds, or one, which no value of x comes near."""
    (x,), seed = (point := draw(points(shapes))).inputs, point.seed
    low, high = draw(st.sampled_from([(-0.5, 0.5), (None, 0.25), (-0.25, None), (0.5, -0.5)]))
    for bound in (low, high):
        if bound is not None:
            x = np.where(abs(x - bound) < 0.05, x + 0.1, x)
    inside = (x > (-np.inf if low is None else low)) & (x < (np.inf if high is None else high))
    return Problem(partial(ops.clip, min=low, max=high), (x,), seed, flat_where_none(inside))


@st.composite
def clips_to_variables(draw: Any) -> Problem:
    """x and its upper bound, which get a gradient each."""
    x, y = (problem := draw(maxima())).inputs
    return Problem(
        lambda x, y: ops.clip(x, max=y), (x, y), problem.seed, flat_where_none(x < y, x > y)
    )


@st.composite
def choices(draw: Any) -> Problem:
    mask_shape, *both = draw(broadcast_shapes(3))
    rng = np.random.default_rng(seed := draw(seeds))
    mask = rng.random(mask_shape) < 0.5
    x, y = (real(rng, shape, draw(textures)) for shape in both)
    everywhere = np.broadcast_shapes(mask_shape, *both)
    first = np.broadcast_to(mask, everywhere)

    def f(x: Any, y: Any) -> Any:
        return ops.where(here(x, mask), x, y)

    return Problem(f, (x, y), seed, flat_where_none(first, ~first))


@st.composite
def powers(draw: Any) -> Problem:
    p = draw(st.sampled_from([1, 2, 3, 0, -1, -2, 0.5, -1.5, 2.0]))
    point = draw(points(shapes, nonzero if p == int(p) else positive, exponent=p))
    problem = point.problem(ops.power)
    return Problem(problem.f, problem.inputs, problem.seed, frozenset({0} if p == 0 else ()))


@st.composite
def whole_powers(draw: Any) -> Problem:
    """An array of whole exponents, one axis more than x has."""
    point = draw(points(shapes, nonzero))
    (x,) = point.inputs
    p = np.random.default_rng(point.seed).integers(-2, 4, (2, *x.shape))
    return Problem(lambda x: ops.power(x, here(x, p)), (x,), point.seed, flat_where_none(p != 0))


@st.composite
def dropouts(draw: Any) -> Problem:
    rng = np.random.default_rng(seed := draw(seeds))
    x, p = real(rng, draw(full_shapes), draw(textures)), draw(st.sampled_from([0.0, 0.3, 0.75]))
    draws = rng.random(x.shape)
    flat = flat_where_none(draws >= p)
    return Problem(lambda x: ops.dropout(x, p, here(x, draws)), (x,), seed, flat)
