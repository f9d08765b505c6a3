"""Strategies of indices: for x[...], and flat positions for gathering."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn.testing.strategies.operands import Shape, full_shapes, seeds, textures
from minibn.testing.strategies.point import Point
from minibn.testing.strategies.values import real

KINDS = ("basic", "repeated", "mask", "first", "last", "two")


@st.composite
def basic_indices(draw: Any, shape: Shape) -> tuple[Any, ...]:
    """Slices with steps of either sign, integers from either end, None, and an Ellipsis.

    shape: of the array. Shrinks to the empty tuple, which gives the whole array.

    >>> views = basic_indices((4, 3))
    """

    def part(n: int) -> Any:
        if draw(st.booleans()):
            return draw(st.integers(-n, n - 1))
        ends = st.none() | st.integers(-n, n)
        return slice(draw(ends), draw(ends), draw(st.sampled_from([None, 2, -1, -2])))

    front = draw(st.integers(0, len(shape)))
    back = draw(st.integers(0, len(shape) - front))  # counted from the last axis, after an Ellipsis
    before = [part(n) for n in shape[:front]]
    after = [part(n) for n in shape[len(shape) - back :]]
    parts = [*before, ..., *after] if back or draw(st.booleans()) else before
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return tuple(parts)


@st.composite
def index_problems(draw: Any, kinds: tuple[str, ...] = KINDS) -> Point:
    """Points of x[index], f(x, index=...): an array and an index of it.

    kinds, the simplest first: "basic" (slices, integers, None, Ellipsis: NumPy gives a view),
    "repeated" (an array of integers from either end, many of them twice: gradients add up),
    "mask" (booleans over one axis or more), "first" and "last" (integers with an Ellipsis behind
    or before), "two" (integers, a reversed slice and None). No axis of x is empty; the result
    may be. Shrinks to the whole of one value.

    >>> added_up = index_problems(("repeated",))
    """
    kind = draw(st.sampled_from(kinds))
    shape = draw(full_shapes)
    rng = np.random.default_rng(seed := draw(seeds))
    x = real(rng, shape, draw(textures))
    n = shape[0]
    index: Any
    if kind == "basic":
        index = draw(basic_indices(shape))
    elif kind == "repeated":
        places = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
        index = rng.integers(-n, n, places)
    elif kind == "mask":
        index = rng.random(shape[: draw(st.integers(1, len(shape)))]) < 0.6
    elif kind == "first":
        index = (rng.integers(-n, n, 5), ..., None)
    elif kind == "last":
        index = (..., rng.integers(-shape[-1], shape[-1], (2, 2)))
    else:
        index = (rng.integers(0, n, 3), slice(None, None, -1), None)[: max(1, len(shape))]
    flat = frozenset() if np.size(x[index]) else frozenset({0})
    return Point((x,), {"index": index}, seed, flat)


@st.composite
def gather_problems(draw: Any, unique: bool | None = None) -> Point:
    """Points of x.flat[index], f(x, index=..., unique=...): an array of flat positions.

    unique: whether no position occurs twice (None: either). Shrinks to the first value of one.

    >>> permuted = gather_problems(unique=True)
    """
    shape = draw(full_shapes)
    repeats = draw(st.booleans()) if unique is None else not unique
    # No more positions than values, or some would have to occur twice.
    where = draw(full_shapes) if repeats else tuple(draw(st.integers(1, n)) for n in shape)
    rng = np.random.default_rng(seed := draw(seeds))
    x = real(rng, shape, draw(textures))
    size, count = math.prod(shape), math.prod(where)
    index = rng.integers(0, size, count) if repeats else rng.permutation(size)[:count]
    return Point((x,), {"index": index.reshape(where), "unique": not repeats}, seed)
