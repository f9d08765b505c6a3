"""The errors that minibn raises. A message names the argument, its value, the rule, the fix."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping
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
    "unbiased": "correction", "a_min": "min", "a_max": "max", "kernel_size": "size",
    "in_features": "inputs", "out_features": "outputs", "in_channels": "channels",
    "out_channels": "filters", "num_features": "channels", "num_channels": "channels",
    "num_groups": "groups", "normalized_shape": "shape", "learning_rate": "lr",
    "num_classes": "classes",
}  # fmt: skip


def first_line(error: BaseException) -> str:
    """The first line of the error's message that has text, or else its class."""
    lines = [line.strip(" =*-") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)[:200].rstrip(".")


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
    who = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        for name in keywords:
            if name not in own and KEYWORDS.get(name) in own:
                raise TypeError(f"{who}: the keyword is {KEYWORDS[name]}=, not {name}=.")
        return function(*arguments, **keywords)

    return checked  # type: ignore[return-value]  # the same signature


def _short(x: Any) -> str:
    """At most 80 characters of the repr, in one line."""
    return f"{' '.join(repr(x).split()):.80}"


def check_real(x: Any, what: str) -> float:
    """A setting as Python's float, which adopts the dtype of the arrays that it is combined with.

    x: a number, or an array of any library without axes. Raises TypeError for anything else.

    >>> check_real("0.1", "SGD: lr")
    Traceback (most recent call last):
    TypeError: SGD: lr='0.1' must be a real number.
    """
    number = x.item() if getattr(x, "ndim", None) == 0 and hasattr(x, "item") else x
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise TypeError(f"{what}={_short(x)} must be a real number.")
    return float(number)


def check_integer(x: Any, what: str, least: float = -math.inf) -> int:
    """A setting as Python's int. Raises TypeError for what is no integer (2.0 and True are none),
    ValueError for one that is less than `least`."""
    try:
        number = operator.index(x)
    except TypeError:
        number = None
    if number is None or isinstance(x, bool):
        raise TypeError(f"{what}={_short(x)} must be an integer.")
    if number < least:
        raise ValueError(f"{what}={x!r} must be {least} or more.")
    return number


def check_flag(x: Any, what: str) -> bool:
    """A setting that is True or False, or NumPy's. Raises TypeError: a string or a number in its
    place is an argument in the wrong place."""
    if not isinstance(x, bool) and type(x).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{what}={_short(x)} must be True or False.")
    return bool(x)


def missing_attribute(
    module: str, known: Iterable[str], instead: Mapping[str, str]
) -> Callable[[str], Any]:
    """The `__getattr__` of a module: raises AttributeError that says what to use.

    instead: names of other libraries -> what has their place here.
    """

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}.")
        remedy = f"Use {instead[name]}." if name in instead else did_you_mean(name, known, most=3)
        raise AttributeError(f"module {module!r} has no attribute {name!r}. {remedy}")

    return missing


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
