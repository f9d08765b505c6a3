"""Strategies of memory layouts: the same values, elsewhere and in another order.

What a function returns must not depend on how its inputs lie in memory, and it must write into none
of them. The functions of LAYOUTS are there for loops over all of them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minibn.testing.strategies.operands import Shape, arrays, given_or_drawn, longer_shapes
from minibn.testing.strategies.values import TEXTURES, Domain, real


def in_order(x: np.ndarray) -> np.ndarray:
    return x.copy(order="C")


def fortran(x: np.ndarray) -> np.ndarray:
    return x.copy(order="F")


def backwards(x: np.ndarray) -> np.ndarray:
    """Negative strides along every axis."""
    flip: Any = (..., *[slice(None, None, -1)] * x.ndim)
    return x[flip].copy()[flip]


def every_second(x: np.ndarray) -> np.ndarray:
    """A slice of step 2 along the last axis of something larger, with NaN in between."""
    if x.ndim == 0:
        return x.copy()
    spread = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan)
    spread[..., ::2] = x
    return spread[..., ::2]


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def repeated(x: np.ndarray) -> np.ndarray:
    """Strides of 0 along every axis along which x is constant; read-only, as NumPy has it."""
    for axis in range(x.ndim):
        first = x[(slice(None),) * axis + (slice(0, 1),)]
        if x.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, x.shape), x):
            x = np.broadcast_to(first, x.shape)
    return x


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C order": in_order,
    "Fortran order": fortran,
    "negative strides": backwards,
    "every second value": every_second,
    "read-only": read_only,
}


def layouts(x: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    """x itself, laid out differently in memory: C and Fortran order, negative strides, a slice of
    step 2, read-only, and strides of 0 where x is constant along an axis.

    What a function returns must not depend on it. Shrinks to C order.

    >>> x = np.arange(6.0).reshape(2, 3)
    >>> same = layouts(x)  # every example equals x
    """
    ways = list(LAYOUTS.values())
    if 0 in repeated(x).strides and math.prod(x.shape) > 1:
        ways.append(repeated)
    return st.sampled_from(ways).map(lambda way: way(x))


@st.composite
def zero_stride_arrays(
    draw: Any,
    shape: Shape | st.SearchStrategy[Shape] = longer_shapes,
    domain: Domain = real,
    textures: Sequence[str] = TEXTURES,
) -> np.ndarray:
    """Arrays with a stride of 0 along at least one axis, as np.broadcast_to makes them.

    The shape needs an axis of two values or more. Who writes into such an array writes many values
    at once, so NumPy makes it read-only. Shrinks to one axis of two equal integers.

    >>> x = zero_stride_arrays((4, 3))
    """
    drawn = given_or_drawn(draw, shape)
    long = [axis for axis, n in enumerate(drawn) if n > 1]
    chosen = draw(st.integers(1, 2 ** len(long) - 1))  # a bit for each of them
    repeats = [axis for i, axis in enumerate(long) if chosen >> i & 1]
    one = tuple(1 if axis in repeats else n for axis, n in enumerate(drawn))
    return np.broadcast_to(draw(arrays(one, domain, textures)), drawn)
