"""The library of an array, found from its class, without importing a library.

Every object is classified as a backend's array, as TENSOR, or as NEUTRAL (numbers, NumPy scalars,
None), which every library combines with its own arrays. After array-api-compat.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

TENSOR, NEUTRAL = "tensor", "neutral"
ARRAY_CLASSES = {
    "numpy": ("numpy", "ndarray"),
    "strict": ("minibn.backend.strict", "StrictArray"),
    "cupy": ("cupy", "ndarray"),
}

# The library of every class seen so far.
LIBRARIES: dict[type, str] = {np.ndarray: "numpy"}


def library_of(x: Any) -> str:
    """The library of `x`, by its class; cached.

    Raises TypeError for what is neither an array of a backend, nor a Tensor, nor a number.
    """
    cls = type(x)
    found = LIBRARIES.get(cls)
    if found is None:
        found = LIBRARIES[cls] = _classify(cls)
    return found


# Subclasses of ndarray whose operators compute something else.
_REMEDIES = {
    "MaskedArray": "Use x.filled(value), or select: x[~x.mask].",
    "matrix": "Use numpy.asarray(x).",
}


def _base_of(cls: type) -> str:
    """The class of NumPy's that an array's class derives from, by name."""
    return next((c.__name__ for c in cls.__mro__ if c.__module__.startswith("numpy")), "")


def backend_name(x: Any) -> str:
    """The backend to which an array, or a Tensor's data, belongs; numbers are NumPy's."""
    name = library_of(x.data if library_of(x) == TENSOR else x)
    return "numpy" if name == NEUTRAL else name


def _classify(cls: type) -> str:
    if getattr(cls, "__minibn_tensor__", False):
        return TENSOR
    if cls is type(None) or issubclass(cls, (bool, int, float, complex, np.generic)):
        return NEUTRAL
    if issubclass(cls, np.ndarray) and (remedy := _REMEDIES.get(_base_of(cls))):
        raise TypeError(f"{cls.__module__}.{cls.__qualname__} is not computed on. {remedy}")
    for name, (module, attribute) in ARRAY_CLASSES.items():
        loaded = sys.modules.get(module)  # if x is its array, the library is loaded
        if loaded is not None and issubclass(cls, getattr(loaded, attribute)):
            return name
    raise TypeError(
        f"{cls.__module__}.{cls.__qualname__} is no array of {', '.join(ARRAY_CLASSES)}. "
        "Make one: minibn.Tensor(x), or minibn.backend.get_backend().asarray(x)"
    )


def is_foreign(x: Any) -> bool:
    """Whether `x` is the array of another library (PyTorch, JAX, pandas, ...): it has `__array__`
    or `__dlpack__`, and is neither an array of a backend, nor a Tensor, nor a number. Raises
    TypeError for a subclass of NumPy's array that is refused."""
    try:
        library_of(x)
    except TypeError:
        if isinstance(x, np.ndarray):
            raise
        return hasattr(x, "__array__") or hasattr(x, "__dlpack__")
    return False


def copy_of_foreign(x: Any) -> np.ndarray:
    """The array of another library as a NumPy array on the host, with memory of its own.

    Raises TypeError that says what to do if that library refuses (memory of a device, a gradient
    that is required, a dtype that NumPy does not have)."""
    try:
        return np.array(np.asarray(x) if hasattr(x, "__array__") else np.from_dlpack(x))
    except (TypeError, RuntimeError, ValueError, BufferError) as error:
        cls = type(x)
        raise TypeError(
            f"{cls.__module__}.{cls.__qualname__} can't be converted: {error} Convert it there, "
            "for PyTorch with x.detach().cpu().float()."
        ) from error
