"""Strategies of operands: shapes, values, broadcasting, axes, cotangents.

Hypothesis draws the structure, a seed and a texture; the values come from the seed. So a large
array costs little more than a small one, all of its values differ, and an example shrinks to a
small shape of small integers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn.testing.strategies.point import Point
from minibn.testing.strategies.values import TEXTURES, Domain, real

Shape = tuple[int, ...]

seeds = st.integers(0, 2**32 - 1)
"""Seeds of generators; shrinks to 0."""

textures = st.sampled_from(TEXTURES)
"""A name from `TEXTURES`; shrinks to the simplest."""

SIDES = (9, 9, 9, 4, 2, 2)  # of 5 axes, 4 have 2 values at most: arrays stay small


@st.composite
def sides(draw: Any, axes: int, least: int = 1, most: int = SIDES[0]) -> Shape:
    """The lengths of `axes` axes: one of them up to `most`, the others up to `SIDES[axes]`."""
    long = draw(st.integers(0, axes - 1)) if axes else 0
    others = max(least, min(most, SIDES[min(axes, 5)]))
    return tuple(draw(st.integers(least, most if i == long else others)) for i in range(axes))


full_shapes = st.integers(1, 5).flatmap(sides)
"""One to five axes, one of them up to nine long: 144 values at most."""

longer_shapes = full_shapes.map(lambda shape: (*shape[:-1], shape[-1] + 1))
"""As `full_shapes`, but the last axis has two values or more."""

shapes = st.integers(0, 5).flatmap(sides) | st.lists(st.integers(0, 3), min_size=1, max_size=2).map(
    tuple
)
"""Up to five axes: also none (a scalar array, 0-d), also of length zero."""


def draw_if_strategy(draw: Callable[..., Any], value: Any) -> Any:
    """A strategy's example, or the value itself."""
    return draw(value) if isinstance(value, st.SearchStrategy) else value


@st.composite
def arrays(
    draw: Any,
    shape: Shape | st.SearchStrategy[Shape] = shapes,
    domain: Domain = real,
    textures: Sequence[str] = TEXTURES,
) -> np.ndarray:
    """float64 arrays of a shape (or a strategy of shapes), with values in a domain.

    domain: real, positive, nonzero, within(limit), gap_separated(gap), with_ties, or a function of
    your own, (rng, shape, texture) -> array. textures: names from `values.py`, the simplest first.
    Shrinks to an empty or scalar array of integers drawn from the seed 0.

    >>> from hypothesis import find
    >>> find(arrays((2, 2)), lambda x: (x < 0).any()).tolist()
    [[2.0, 1.0], [0.0, -2.0]]
    """
    seed = draw(seeds)
    drawn = draw_if_strategy(draw, shape)
    return np.asarray(domain(np.random.default_rng(seed), drawn, draw(st.sampled_from(textures))))


@st.composite
def points(
    draw: Any,
    shape: Shape | st.SearchStrategy[Shape] = shapes,
    domain: Domain = real,
    textures: Sequence[str] = TEXTURES,
    **settings: Any,
) -> Point:
    """`arrays` with the seed of a check: the points of a function of one array.

    shape, domain, textures: as for `arrays`. settings: of the call, each a value or a strategy.

    Shrinks as `arrays` do.

    >>> from minibn.testing.strategies import nonzero
    >>> soft = points(domain=nonzero, beta=st.sampled_from([0.5, 1.0]))  # f(x, beta=...)
    """
    seed = draw(seeds)
    x = domain(
        np.random.default_rng(seed), draw_if_strategy(draw, shape), draw(st.sampled_from(textures))
    )
    return Point((x,), {k: draw_if_strategy(draw, v) for k, v in settings.items()}, seed)


@st.composite
def broadcast_shapes(
    draw: Any, k: int = 2, max_dims: int = 5, min_side: int = 0, max_side: int = 9
) -> tuple[Shape, ...]:
    """k shapes that broadcast together: axes of length one, and missing ones, in any of them.

    Each has `max_dims` axes at most. One axis is up to `max_side` long, the others less: of five
    axes, two at most. Shrinks to k scalars, then to k equal shapes.

    >>> operands = broadcast_shapes(3, min_side=1)  # none empty
    """
    whole = draw(sides(draw(st.integers(0, max_dims)), min_side, max_side))
    drawn = []
    for _ in range(k):
        missing = draw(st.integers(0, len(whole)))
        ones = draw(st.integers(0, 2 ** len(whole) - 1))  # a bit for each axis
        drawn.append(tuple(1 if ones >> i & 1 else n for i, n in enumerate(whole))[missing:])
    return tuple(drawn)


@st.composite
def broadcast_problems(
    draw: Any,
    k: int = 2,
    domains: Sequence[Domain] | None = None,
    textures: Sequence[str] = TEXTURES,
    **sizes: int,
) -> Point:
    """k arrays that broadcast together, with 0-d and empty ones; a domain for each of them.

    textures: of which each array is one. sizes: max_dims, min_side and max_side, as for
    `broadcast_shapes`.

    Shrinks to scalar arrays of integers.

    >>> from minibn.testing.strategies import nonzero
    >>> quotients = broadcast_problems(2, domains=(real, nonzero))
    """
    drawn = draw(broadcast_shapes(k, **sizes))
    rng = np.random.default_rng(seed := draw(seeds))
    inputs = tuple(
        domain(rng, shape, draw(st.sampled_from(textures)))
        for domain, shape in zip(domains or (real,) * k, drawn, strict=True)
    )
    empty = 0 in np.broadcast_shapes(*drawn)
    return Point(inputs, {}, seed, frozenset(range(k)) if empty else frozenset())


@st.composite
def axes_of(draw: Any, ndim: int) -> int | tuple[int, ...] | None:
    """An `axis` argument for `ndim` ≥ 1 axes: None, an integer or a tuple, counted from either
    end, and the empty tuple. Shrinks to None.

    >>> sums = points((2, 3), axis=axes_of(2), keepdims=st.booleans())  # f(x, axis=, keepdims=)
    """
    kind = draw(st.sampled_from(["all", "one", "some"]))
    if kind == "all":
        return None
    if kind == "one":
        return draw(st.integers(-ndim, ndim - 1))
    some = draw(st.lists(st.integers(0, ndim - 1), unique=True, max_size=ndim))
    back = draw(st.integers(0, 2**ndim - 1))  # a bit for each axis
    return tuple(a - ndim * (back >> a & 1) for a in some)


@st.composite
def cotangents(draw: Any, shape: Shape) -> np.ndarray:
    """Normal numbers of this shape, of which none is 0 and no two are equal.

    Never ones: the sum of a normalised layer is constant, so a backward that returns zeros passes.
    Never positive only: such directions are all close to ones. Shrinks to the seed 0 only, since
    zeros or ties in a cotangent hide mistakes.

    >>> g = cotangents((2, 3))
    """
    return np.asarray(np.random.default_rng((draw(seeds), 1)).standard_normal(shape))
