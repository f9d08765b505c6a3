"""The errors that minibn raises. A message names the argument, its value, the rule, the fix."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def did_you_mean(name: object, known: Iterable[str], most: int = 1) -> str:
    """The end of an error message about an unknown name: the nearest known names, or all of them.

    >>> did_you_mean("nunpy", ("numpy", "cupy"))
    "Did you mean 'numpy'?"
    >>> did_you_mean("x", ("numpy", "cupy"))
    'There are numpy, cupy.'
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=most, cutoff=0.6 if most == 1 else 0.4)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return f"There are {', '.join(known)}."


# Keywords of PyTorch, or of NumPy, and minibn's.
KEYWORDS = {
    "dim": "axis", "dims": "axis", "keepdim": "keepdims", "ddof": "correction",
    "unbiased": "correction", "a_min": "min", "a_max": "max",
}  # fmt: skip


def with_own_keywords(function: F) -> F:
    """Decorator: where the function has `axis=`, a call with `dim=` raises a TypeError that names
    `axis=`; and so on for the other `KEYWORDS`.

    >>> @with_own_keywords
    ... def total(x, axis=None): ...
    >>> total(3, dim=0)
    Traceback (most recent call last):
    TypeError: total: the keyword is axis=, not dim=.
    """
    own = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in own and KEYWORDS.get(name) in own:
                raise TypeError(
                    f"{function.__name__}: the keyword is {KEYWORDS[name]}=, not {name}=."
                )
        return function(*arguments, **keywords)

    return checked  # type: ignore[return-value]  # the same signature


class ShapeError(ValueError):
    """Arrays whose shapes do not fit the operation."""


class GraphError(RuntimeError):
    """No backward pass is possible: the graph was released, changed in place, or never recorded."""


class AnomalyError(ArithmeticError):
    """`detect_anomaly` found a NaN, an infinity, or a saved array that was overwritten."""


class BackendMismatch(TypeError):
    """One operation got arrays of two backends."""


class BackendUnavailable(RuntimeError):
    """The chosen backend can't run here."""


class DataError(ValueError):
    """A data set or a checkpoint that is missing, damaged or not what it claims to be."""


class CaptureError(RuntimeError):
    """A step can't be captured as a CUDA graph."""


class EditedDefinition(UserWarning):
    """A definition was edited after its kernel was verified, so the definition runs instead."""
