"""Arrays of any library as NumPy's, and NumPy's as an array of that library.

A library is found by the class of an object, and never imported: who has a tensor of PyTorch has
PyTorch. What comes back has the type, the device and the memory layout of the object that was
given, and the dtype of the NumPy array: a float32 tensor is also needed in float64.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from minibn.backend import to_numpy

DIFFERENTIATED = "float64, float32, float16, complex128 and complex64"


def library_of(x: Any) -> str:
    """The package of the class of `x`, or of the class that it derives from: "torch", "jaxlib".

    >>> library_of(np.zeros(3)), library_of(1.0), library_of("text")
    ('numpy', 'builtins', 'builtins')
    """
    packages = [cls.__module__.partition(".")[0] for cls in type(x).__mro__]
    known = [p for p in packages if p in ("numpy", "torch", "jax", "jaxlib", "cupy", "pandas")]
    return known[0] if known else packages[0]


def is_array(x: Any) -> bool:
    """Whether `x` is an array of some library, or a NumPy scalar."""
    if isinstance(x, type):
        return False
    return isinstance(x, (np.ndarray, np.generic)) or (
        hasattr(x, "__array__") or hasattr(x, "__dlpack__")
    )


def is_tensor(x: Any) -> bool:
    """Whether `x` is an array that comes back as an array of its own library: no NumPy array."""
    return is_array(x) and library_of(x) != "numpy"


def as_numpy(x: Any) -> np.ndarray:
    """The values of an array or a number as a NumPy array, without a copy where that can be.

    Raises TypeError for values that NumPy has no dtype for (bfloat16) or no layout (sparse).
    """
    name = library_of(x)
    try:
        if name == "torch":
            x = x.detach().resolve_conj().resolve_neg().cpu()
            return np.asarray(x.numpy())
        if name in ("cupy", "minibn"):
            return np.asarray(to_numpy(x))
        if name == "pandas":
            return np.asarray(x.to_numpy())
        found = np.asarray(x)
        if found.dtype == object and hasattr(x, "__dlpack__"):  # it has no __array__
            return np.from_dlpack(x)
    except (TypeError, RuntimeError, ValueError, BufferError) as error:
        raise TypeError(
            f"{type(x).__module__}.{type(x).__qualname__} can't be read as a NumPy array: {error} "
            f"(convert it first: .float(), .to_dense())"
        ) from error
    return found


def like(array: np.ndarray, x: Any, layout: bool = True) -> Any:
    """The values of `array` as an object of the kind of `x`: its class, device and, with `layout`,
    its strides. Memory is shared with `array` where the library can do it.

    Kinds that can't be made give the NumPy array itself.
    """
    name = library_of(x)
    if name == "torch":
        return _like_torch(array, x, layout)
    if name in ("jax", "jaxlib"):
        jax = sys.modules["jax"]
        return jax.device_put(jax.numpy.asarray(array), _device_of_jax(x))
    if name == "cupy":
        with x.device:
            return sys.modules["cupy"].asarray(array)
    if name == "pandas":
        axes = {"index": x.index}
        axes |= {"name": x.name} if x.ndim == 1 else {"columns": x.columns}
        return type(x)(array, **axes)
    if isinstance(x, np.generic):
        return array[()]
    if type(x) in (float, complex):
        return array.item()
    if name not in ("numpy", "builtins", "minibn") and hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().asarray(array, device=x.device)
    return array


def _like_torch(array: np.ndarray, x: Any, layout: bool) -> Any:
    torch = sys.modules["torch"]
    shape = array.shape
    repeated = [s == 0 and n > 1 for s, n in zip(array.strides, shape, strict=True)]
    if any(repeated):
        array = np.array(array[tuple(slice(1) if r else slice(None) for r in repeated)])
    if any(s < 0 for s in array.strides) or not array.flags.writeable or not array.dtype.isnative:
        array = np.array(array, array.dtype.newbyteorder("="), order="C")  # torch has no such
    t = torch.from_numpy(array).to(x.device).expand(shape)
    if layout and t.stride() != x.stride():
        if not _can_be_written(x):
            t = t.contiguous()
        else:
            strided = torch.empty_strided(x.shape, x.stride(), dtype=t.dtype, device=t.device)
            t = strided.copy_(t)
    if layout and x.requires_grad:
        t.requires_grad_()
    return t


def _can_be_written(x: Any) -> bool:
    """Whether every element of a tensor has a place of its own: not after `expand`."""
    reach = 1
    for stride, size in sorted((s, n) for s, n in zip(x.stride(), x.shape, strict=True) if n > 1):
        if stride < reach:
            return False
        reach = stride * size
    return True


def _device_of_jax(x: Any) -> Any:
    devices = x.devices() if hasattr(x, "devices") else set()
    return next(iter(devices)) if len(devices) == 1 else None


def room_for(arrays: Sequence[np.ndarray], objects: Sequence[Any]) -> AbstractContextManager[Any]:
    """Inside, objects of the kinds of `objects` can have the values of `arrays`: JAX computes in 64
    bits only where it is asked to, and the oracles need them."""
    wide = any(x.dtype in (np.float64, np.complex128) for x in arrays)
    if not wide or all(library_of(x) not in ("jax", "jaxlib") for x in objects):
        return nullcontext()
    jax = sys.modules["jax"]
    if jax.config.jax_enable_x64:
        return nullcontext()
    new = getattr(jax, "enable_x64", None)
    return new(True) if new is not None else jax.experimental.enable_x64()
