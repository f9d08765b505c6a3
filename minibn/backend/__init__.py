"""The array libraries: which one an array belongs to, and on which one new arrays are made.

Inside an op the backend is *inferred*: `xp = array_module(x)` looks at the array's class and never
imports a library. Where new arrays are made it is *chosen*: `use("cupy")`. Where libraries differ
(scatter, synchronization, transfers to the host), `Backend` in `backends` has a method.
Inference after array-api-compat, choice by name after Chainer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.backend.array_types import (
    LIBRARIES,
    NEUTRAL,
    TENSOR,
    copy_of_foreign,
    is_foreign,
    library_of,
)
from minibn.backend.backends import Backend, NumpyBackend, StrictBackend
from minibn.backend.cupy_backend import CupyBackend, why_unavailable
from minibn.errors import BackendMismatch, BackendUnavailable
from minibn.setting import Choice, SettingScope

__all__ = [
    "Backend",
    "array_module",
    "available",
    "backend_of",
    "get_backend",
    "to_numpy",
    "use",
]


_BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": NumpyBackend,
    "strict": StrictBackend,
    "cupy": CupyBackend,
}
_INSTANCES: dict[str, Backend] = {}
_backend = Choice("backend", _BACKENDS, default="numpy")


def array_module(*arrays: Any) -> Any:
    """The namespace (`numpy`, `cupy`, or the strict double) that the arrays or Tensors belong to.

    Python numbers, NumPy scalars and None are ignored: every library combines them with its own
    arrays. Without an array it is `numpy`. Raises BackendMismatch for arrays of two libraries.

    >>> array_module(np.ones(3), 2.0).__name__
    'numpy'
    """
    for x in arrays:
        if type(x) is not np.ndarray:
            return backend_of(*arrays).xp
    return np


def backend_of(*arrays: Any) -> Backend:
    """The `Backend` that the arrays or Tensors belong to; see `array_module`."""
    found, position = "", 0
    for i, x in enumerate(arrays):
        whose = LIBRARIES.get(type(x)) or library_of(x)
        if whose == TENSOR:
            whose = LIBRARIES.get(type(x.data)) or library_of(x.data)
        if whose in (NEUTRAL, found):
            continue
        if found:
            raise BackendMismatch(
                f"argument {position} is an array of {found}, argument {i} of {whose} "
                f"(shape {x.shape}): arrays of two backends do not mix. Move one: "
                f"get_backend({found!r}).asarray(to_numpy(x))"
            )
        found, position = whose, i
    return _instance(found or "numpy")


def get_backend(name: str | None = None) -> Backend:
    """The backend of that name; without a name the one on which new arrays are made.

    Raises ValueError for an unknown name, BackendUnavailable if it can't run here.
    """
    name = _backend.get() if name is None else name
    _backend.check(name)
    if name == "cupy" and (reason := why_unavailable()) is not None:
        raise BackendUnavailable(reason)
    return _instance(name)


def use(name: str) -> Use:
    """From here on new arrays are made on this backend; in a `with` statement until its end.

    It holds for the current thread or asyncio task only: a new thread begins with numpy.
    Raises ValueError for an unknown name, BackendUnavailable if it can't run here.

    >>> with use("strict"):
    ...     get_backend().name
    'strict'
    >>> get_backend().name
    'numpy'
    """
    _backend.check(name)
    get_backend(name)
    return Use(_backend, name)


class Use(SettingScope):
    """Returned by `use`, which has chosen already; leaving a `with` block undoes it."""

    def __enter__(self) -> Backend:
        super().__enter__()
        return _instance(self.value)


def to_numpy(x: Any) -> np.ndarray:
    """An array of any backend or of another library, a Tensor, or a number as a NumPy array on the
    host.

    Waits for the device; the strict double counts it.
    """
    return copy_of_foreign(x) if is_foreign(x) else backend_of(x).to_numpy(x)


def available() -> tuple[str, ...]:
    """The names of the backends that can run here. Tries CuPy if it is installed."""
    return tuple(name for name in _BACKENDS if name != "cupy" or why_unavailable() is None)


def _instance(name: str) -> Backend:
    backend = _INSTANCES.get(name)
    if backend is None:
        backend = _INSTANCES.setdefault(name, _BACKENDS[name]())
    return backend
