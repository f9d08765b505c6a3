"""The precision of numbers: `cast`, and the float32 in which float16 is summed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply


class Cast(Op):
    """z = x in another precision.    x̄ = z̄ in x's"""

    keeps_integers = True
    needs = ()

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def forward(self, x):
        return x.astype(self.dtype)

    def vjp(self, g, out, x):
        return g.astype(x.dtype)


def cast(x, dtype):
    """x in another floating-point dtype; its gradient has x's dtype. Integers and booleans are
    constants of differentiation."""
    if np.dtype(dtype).kind not in "fc" and hasattr(x, "detach"):
        x = x.detach()
    return apply(Cast(dtype), x)


def _is_half(x: Any) -> bool:
    return getattr(x, "dtype", None) == np.float16


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a function with sums: it computes on float16 inputs in float32, so that no sum
    overflows where the result does not. Results are float16 again (moments stay float32)."""

    @functools.wraps(function)
    def wrapper(x, *others, **settings):
        if not _is_half(x):
            return function(x, *others, **settings)
        wide = [cast(y, np.float32) if _is_half(y) else y for y in (x, *others)]
        result = function(*wide, **settings)
        if isinstance(result, tuple):
            return cast(result[0], np.float16), *result[1:]
        return cast(result, np.float16) if result.dtype == np.float32 else result

    return wrapper
