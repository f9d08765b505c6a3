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


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C order": to_c_order,
    "Fortran order": to_fortran_order,
    "negative strides": reverse_strides,
    "every second value": spread_out,
    "read-only": make_read_only,
}
