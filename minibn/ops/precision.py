"""The precision of numbers: `cast`, the float32 in which float16 is summed, and what integers
become."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply, check_operands, dtype_for_integers, is_plain
from minibn.autograd.tensor import value


class Cast(Op):
    """z = x in another precision.    x̄ = z̄ in x's"""

    integers = "kept"
    needs = ()

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def forward(self, x):
        return x.astype(self.dtype)

    def vjp(self, g, out, x):
        return g.astype(x.dtype)


def cast(x, dtype):
    """x in another floating-point dtype; its gradient has x's dtype. Integers and booleans are
    constants of differentiation. Raises TypeError for a dtype that is none of numbers."""
    dtype = numeric_dtype(dtype, "cast")
    if dtype.kind not in "fc" and hasattr(x, "detach"):
        x = x.detach()
    return apply(Cast(dtype), x)


def numeric_dtype(dtype: Any, who: str) -> np.dtype:
    """The dtype of NumPy's. Raises TypeError for None (which NumPy reads as float64), for what is
    no dtype of NumPy's, and for one of text or objects."""
    try:
        found = None if dtype is None else np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind not in "fciub":
        raise TypeError(
            f"{who}: dtype {dtype!r} is no dtype of numbers. Use one of NumPy's, such as "
            "numpy.float32."
        )
    return found


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


def to_floating_point(*arrays: Any) -> Sequence[Any]:
    """The arrays, None among them as it is; integers cast to the dtype of the others, and to
    float64 if all are integers. For what composes ops; `apply` does so for an op. Raises as it."""
    if all(x is None or is_plain(value(x)) for x in arrays):
        return arrays
    check_operands([value(x) for x in arrays])
    arrays = tuple(np.asarray(x) if isinstance(x, np.ndarray) else x for x in arrays)  # host: it is
    dtype = dtype_for_integers([x.dtype for x in arrays if x is not None])
    return [
        x if x is None or dtype is None or x.dtype.kind in "fc" else cast(x, dtype) for x in arrays
    ]
