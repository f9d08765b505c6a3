"""What the functions of `minibn.ops` say where an input is no array."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from minibn.backend.array_types import NEUTRAL, is_foreign, library_of

F = TypeVar("F", bound=Callable[..., Any])


def explain_inputs(function: F) -> F:
    """Decorator: a list, a number, text or another library's array in the place of an array raises
    a TypeError that says what to do, where it would be "'list' object has no attribute 'ndim'".

    It looks at the inputs only once the function has failed.
    """

    @functools.wraps(function)
    def explained(*inputs: Any, **settings: Any) -> Any:
        try:
            return function(*inputs, **settings)
        except (AttributeError, TypeError) as error:
            culprit = getattr(error, "obj", NOTHING)
            several = function.__name__ in ("concatenate", "stack")
            if reason := _no_array([*inputs, *settings.values()], culprit, several):
                raise TypeError(f"{function.__name__}: {reason}") from error
            raise

    return explained  # type: ignore[return-value]  # the same signature


NOTHING = object()


def _no_array(inputs: list[Any], culprit: Any, several: bool) -> str:
    """Why one of the inputs can't be computed on; "" if all of them can. culprit: the object that
    lacks an attribute, if that is what went wrong; several: the first input is a list of arrays."""
    first = inputs[:1]
    if several and first and isinstance(first[0], (list, tuple)):
        first, inputs = list(first[0]), inputs[1:]
    for x in (*first, *inputs):
        dtype = getattr(x, "dtype", None)
        if getattr(dtype, "kind", "f") not in "fciub":
            return f"an array of {dtype} is not computed on. Use x.astype(float)."
        is_first = any(x is y for y in first)
        if is_first or (is_foreign(x) and not isinstance(x, type)):
            try:
                known = library_of(x)
            except TypeError as error:
                return str(error)
            is_first = is_first and known == NEUTRAL and culprit is NOTHING
        is_scalar = isinstance(x, np.generic) and type(culprit) in (int, float, complex)
        if x is culprit or is_first or is_scalar:
            return f"an input is a {type(x).__name__}, not an array. Use minibn.Tensor(x)."
    return ""
