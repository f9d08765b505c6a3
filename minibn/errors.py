"""The errors that minibn raises. A message names the argument, its value, the rule, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str], most: int = 1) -> str:
    """The end of a message about an unknown name: the nearest known ones, or all of them.

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


class ShapeError(ValueError):
    """Arrays whose shapes do not fit the operation."""


class GraphError(RuntimeError):
    """The recorded graph can't be walked: released, changed since, or not there at all."""


class AnomalyError(ArithmeticError):
    """`detect_anomaly` saw the first NaN or infinity, or a saved array that was overwritten."""


class BackendMismatch(TypeError):
    """Arrays of two backends met in one operation."""


class BackendUnavailable(RuntimeError):
    """The backend that was asked for can't run here."""


class DataError(ValueError):
    """A data set or a checkpoint that is missing, damaged or not what it claims to be."""


class CaptureError(RuntimeError):
    """A step can't be captured as a CUDA graph, or not any more."""


class EditedDefinition(UserWarning):
    """A definition was edited after its kernel was verified: the definition runs in its place."""
