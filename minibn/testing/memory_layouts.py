"""The same values in other memory layouts.

A function's result must not depend on its inputs' memory layout, and it must write into none of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def to_c_order(x: np.ndarray) -> np.ndarray:
    return x.copy(order="C")


def to_fortran_order(x: np.ndarray) -> np.ndarray:
    return x.copy(order="F")


def reverse_strides(x: np.ndarray) -> np.ndarray:
    """Negative strides along every axis."""
    flip: Any = (..., *[slice(None, None, -1)] * x.ndim)
    return x[flip].copy()[flip]


def spread_out(x: np.ndarray) -> np.ndarray:
    """A slice of step 2 along the last axis of something larger, with NaN in between."""
    if x.ndim == 0:
        return x.copy()
    spread = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan)
    spread[..., ::2] = x
    return spread[..., ::2]


def make_read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def layout_of(x: np.ndarray) -> str:
    """The name of x's layout: "C" if that is one of several it has.

    >>> x = np.ones((2, 3))
    >>> [layout_of(y) for y in (x, x.T, x[::-1], x[:, ::2], np.broadcast_to(x, (4, 2, 3)))]
    ['C', 'Fortran', 'reversed', 'gapped', 'broadcast']
    """
    strides = [s for s, n in zip(x.strides, x.shape, strict=True) if n > 1]
    if x.flags.c_contiguous or not x.size:
        return "C"
    if 0 in strides:
        return "broadcast"
    if any(s < 0 for s in strides):
        return "reversed"
    if x.flags.f_contiguous:
        return "Fortran"
    extent = x.itemsize + sum(s * (n - 1) for s, n in zip(x.strides, x.shape, strict=True))
    return "gapped" if extent > x.nbytes else "of other order"


def laid_out_as(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`values`, of x's shape and any dtype, in memory as x is: the order and direction of its axes,
    its gaps (filled with NaN) and strides of 0, and read-only if x is."""
    if not x.size:
        return values
    unit = values.itemsize / x.itemsize
    strides = [int(s * unit) if n > 1 else 0 for s, n in zip(x.strides, x.shape, strict=True)]
    if any(s % values.itemsize for s in strides):  # a field of records, say
        return values
    ends = [s * (n - 1) for s, n in zip(strides, x.shape, strict=True)]
    first = -sum(min(end, 0) for end in ends)
    memory = np.full((first + sum(max(end, 0) for end in ends)) // values.itemsize + 1, np.nan)
    out = np.ndarray(x.shape, values.dtype, memory.astype(values.dtype).data, first, strides)
    out[...] = values
    out.flags.writeable = x.flags.writeable
    return out


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C order": to_c_order,
    "Fortran order": to_fortran_order,
    "negative strides": reverse_strides,
    "every second value": spread_out,
    "read-only": make_read_only,
}
"""Name -> a function that gives an array's values in another memory layout."""
