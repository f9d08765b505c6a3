"""Strategies of memory layouts: those of `memory_layouts.py`, and strides of zero."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn.testing.memory_layouts import LAYOUTS
from minibn.testing.strategies.operands import Shape, arrays, draw_if_strategy, longer_shapes
from minibn.testing.strategies.values import TEXTURES, Domain, real


def with_zero_strides(x: np.ndarray) -> np.ndarray:
    """Strides of 0 along every axis along which x is constant; read-only, as NumPy makes them."""
    for axis in range(x.ndim):
        first = x[(slice(None),) * axis + (slice(0, 1),)]
        if x.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, x.shape), x):
            x = np.broadcast_to(first, x.shape)
    return x


def layouts(x: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    """x itself, laid out differently in memory: C and Fortran order, negative strides, a slice of
    step 2, read-only, and strides of 0 where x is constant along an axis.

    A function's result must not depend on it, nor its gradient: `arrays().flatmap(layouts)` is a
    strategy for `gradient_test`, whose check passes the layout on to f and its vjp. Shrinks to C
    order.

    >>> x = np.arange(6.0).reshape(2, 3)
    >>> same = layouts(x)  # every example equals x
    """
    ways = list(LAYOUTS.values())
    if 0 in with_zero_strides(x).strides and math.prod(x.shape) > 1:
        ways.append(with_zero_strides)
    return st.sampled_from(ways).map(lambda way: way(x))


@st.composite
def zero_stride_arrays(
    draw: Any,
    shape: Shape | st.SearchStrategy[Shape] = longer_shapes,
    domain: Domain = real,
    textures: Sequence[str] = TEXTURES,
) -> np.ndarray:
    """Arrays with a stride of 0 along at least one axis, as np.broadcast_to makes them.

    shape, domain, textures: as for `arrays`. The shape needs an axis of two values or more. Writing
    to one entry would change several, so NumPy makes such arrays read-only. Shrinks to one axis of
    two equal integers.

    >>> x = zero_stride_arrays((4, 3))
    """
    drawn = draw_if_strategy(draw, shape)
    long = [axis for axis, n in enumerate(drawn) if n > 1]
    chosen = draw(st.integers(1, 2 ** len(long) - 1))  # a bit for each of them
    repeats = [axis for i, axis in enumerate(long) if chosen >> i & 1]
    one = tuple(1 if axis in repeats else n for axis, n in enumerate(drawn))
    return np.broadcast_to(draw(arrays(one, domain, textures)), drawn)
