"""The only place that knows NumPy from CuPy: whose array this is, and where new ones are born.

Inside an op the backend is *inferred*: `xp = array_module(x)` looks at the array's class and never
imports a library to find out. At the edge it is *chosen*: `use("cupy")` names the backend on which
new arrays are born. Differences that are real (scatter, synchronising, moving to the host) are
methods of the `Backend` object. Inference after array-api-compat, names at the edge after Chainer.
"""

from __future__ import annotations

import contextvars
import difflib
import math
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from minibn.backend.philox import philox
from minibn.errors import BackendMismatch, BackendUnavailable, ShapeError

if TYPE_CHECKING:
    from minibn.backend.kernels import Kernel

__all__ = [
    "Backend",
    "array_module",
    "available",
    "backend_of",
    "get_backend",
    "to_numpy",
    "use",
]


class Backend:
    """An array library: its namespace `xp`, and what differs between libraries beyond names."""

    name: str

    @property
    def xp(self) -> Any:
        """The namespace to call: `xp.zeros`, `xp.float32`, ..."""
        raise NotImplementedError

    @property
    def kernels(self) -> Mapping[type, Sequence[type[Kernel]]]:
        """The kernels that stand in for ops here, by the op's class: see `backend.kernels`."""
        return {}

    @property
    def memory_exhausted(self) -> tuple[type[Exception], ...]:
        """What this backend raises when memory runs out, for an `except` clause."""
        return (MemoryError,)

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """`x` as an array here: a host array, list or scalar is moved, an array of here passes.

        Raises BackendMismatch for an array of another device: bring it to the host first.
        """
        if getattr(x, "__minibn_tensor__", False):
            raise TypeError("asarray: x is a Tensor, whose graph would be lost: pass x.data")
        owner = "" if isinstance(x, (list, tuple)) else _family(x)
        if owner == self.name:
            x = x if dtype is None else x.astype(dtype, copy=False)
        elif owner in ("", _NEUTRAL, "numpy"):
            x = self._from_host(np.asarray(x, dtype))
        else:
            raise BackendMismatch(
                f"asarray: x is an array of {owner}, this is {self.name}. "
                "Bring it to the host first: asarray(to_numpy(x))"
            )
        if x.dtype.kind in "OSU":
            raise TypeError(f"asarray: x has dtype {x.dtype}, which is no number")
        return x

    def to_numpy(self, x: Any) -> np.ndarray:
        """`x` as a NumPy array on the host; waits for the device. NumPy's own arrays pass."""
        owner = backend_of(x)
        if owner is not self:
            raise BackendMismatch(
                f"to_numpy: x is an array of {owner.name}, this is {self.name}. "
                "minibn.backend.to_numpy(x) takes either"
            )
        return self._to_host(x.data if _family(x) == _TENSOR else x)

    def scatter_add(self, out_shape: tuple[int, ...], index: Any, values: Any) -> Any:
        """Zeros of `out_shape` with `values` added at flat positions; repeated ones accumulate.

        index (any shape, integers), values (the same shape) -> out_shape, dtype of `values`
        Law: the adjoint of `x.reshape(-1)[index]`. Raises ShapeError if the shapes differ.
        """
        out, index, values = self._scatter_arguments(out_shape, index, values)
        self._add_at(out, index, values)
        return out.reshape(out_shape)

    def scatter_assign(self, out_shape: tuple[int, ...], index: Any, values: Any) -> Any:
        """`scatter_add` for an index without repeated positions, which needs no atomic adds."""
        out, index, values = self._scatter_arguments(out_shape, index, values)
        out[index] = values
        return out.reshape(out_shape)

    def philox(self, key: int, counter: int, count: int) -> Any:
        """`count` raw integers of Philox4x64-10, the same on every backend."""
        return philox(self.xp, key, counter, count)

    def draws(self, key: int, counter: int, count: int, dtype: Any, **what: Any) -> Any:
        """What `minibn.random` draws, bit for bit, by a faster way; None if there is none here."""
        return None

    def piecewise(self, update: Callable[..., None], *arrays: Any) -> None:
        """update(*arrays), which changes arrays of one shape in place and treats each element
        alike; perhaps a piece of them at a time."""
        update(*arrays)

    def synchronize(self) -> None:
        """Wait until everything asked for is computed. Needed around a clock, nowhere else."""

    def describe(self) -> dict[str, str | int]:
        """The device by name and size, for a run's config: plain strings and numbers."""
        return {"backend": self.name, "device": _cpu_model(), "cores": _cpu_cores()}

    def _from_host(self, x: np.ndarray) -> Any:
        return x

    def _to_host(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def _scatter_arguments(
        self, out_shape: tuple[int, ...], index: Any, values: Any
    ) -> tuple[Any, Any, Any]:
        if index.shape != values.shape:
            raise ShapeError(
                f"scatter: index has shape {index.shape}, values {values.shape}: "
                "each value needs one flat position. Broadcast the values first"
            )
        xp = array_module(index, values)
        out = xp.zeros(math.prod(out_shape), dtype=values.dtype)
        return out, index.reshape(-1), values.reshape(-1)

    def _add_at(self, out: Any, index: Any, values: Any) -> None:
        self.xp.add.at(out, index, values)

    def __repr__(self) -> str:
        return f"<minibn backend {self.name}>"


class NumpyBackend(Backend):
    """Arrays in host memory."""

    name = "numpy"

    @property
    def xp(self) -> Any:
        return np

    @property
    def kernels(self) -> Mapping[type, Sequence[type[Kernel]]]:
        from minibn.backend.cpu.table import KERNELS  # at the first op: they know the ops

        return KERNELS

    def philox(self, key: int, counter: int, count: int) -> Any:
        return np.random.Philox(key=key, counter=counter).random_raw(count)

    def draws(self, key: int, counter: int, count: int, dtype: Any, **what: Any) -> Any:
        from minibn.backend.cpu.draws import draw  # at the first noise: they know the threads

        return draw(key, counter, count, dtype, **what)

    def piecewise(self, update: Callable[..., None], *arrays: Any) -> None:
        from minibn.backend.cpu.elementwise import piecewise

        piecewise(update, *arrays)


class DeviceBackend(Backend):
    """What CuPy's arrays need that NumPy's do not."""

    def _add_at(self, out: Any, index: Any, values: Any) -> None:
        if values.dtype.kind == "c":  # atomics add real numbers: two columns, one index
            part = values.real.dtype
            out = out.view(part).reshape(-1, 2)
            values = self.xp.ascontiguousarray(values).view(part).reshape(-1, 2)
        self.xp.add.at(out, index, values)


class StrictBackend(DeviceBackend):
    """NumPy arrays wrapped so that they are at least as strict as CuPy's: see `strict.py`."""

    name = "strict"

    def __init__(self) -> None:
        from minibn.backend import strict

        self._strict = strict

    @property
    def xp(self) -> Any:
        return self._strict.xp

    def _from_host(self, x: np.ndarray) -> Any:
        return self._strict.StrictArray(x.copy())  # as a device would: no memory is shared

    def _to_host(self, x: Any) -> np.ndarray:
        return self._strict.to_numpy(x)


def _cupy_backend() -> Backend:
    from minibn.backend.cupy_backend import CupyBackend

    return CupyBackend()


def _cupy_trouble() -> str | None:
    from minibn.backend.cupy_backend import trouble

    return trouble()


_BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": NumpyBackend,
    "strict": StrictBackend,
    "cupy": _cupy_backend,
}
_ARRAY_CLASSES = {
    "numpy": ("numpy", "ndarray"),
    "strict": ("minibn.backend.strict", "StrictArray"),
    "cupy": ("cupy", "ndarray"),
}
_TENSOR, _NEUTRAL = "tensor", "neutral"

# The family of every class seen so far: the name of a backend, "tensor", or "neutral".
_FAMILIES: dict[type, str] = {np.ndarray: "numpy"}
_INSTANCES: dict[str, Backend] = {}
_current: contextvars.ContextVar[str] = contextvars.ContextVar("minibn_backend", default="numpy")


def array_module(*arrays: Any) -> Any:
    """The namespace (`numpy`, `cupy`, or the strict double) that the arrays or Tensors belong to.

    Python numbers, NumPy scalars and None decide nothing: every library takes them beside its
    own arrays. Without an array it is `numpy`. Raises BackendMismatch if two libraries meet.

    >>> array_module(np.ones(3), 2.0).__name__
    'numpy'
    """
    for x in arrays:
        if type(x) is not np.ndarray:
            return backend_of(*arrays).xp
    return np


def backend_of(*arrays: Any) -> Backend:
    """The `Backend` that the arrays or Tensors belong to. As `array_module` decides."""
    found, position = "", 0
    for i, x in enumerate(arrays):
        family = _FAMILIES.get(type(x)) or _family(x)
        if family == _TENSOR:
            family = _family(x.data)
        if family in (_NEUTRAL, found):
            continue
        if found:
            raise BackendMismatch(
                f"argument {position} is an array of {found}, argument {i} of {family} "
                f"(shape {x.shape}): arrays of two backends do not mix. Move one: "
                f"get_backend({found!r}).asarray(to_numpy(x))"
            )
        found, position = family, i
    return _instance(found or "numpy")


def get_backend(name: str | None = None) -> Backend:
    """The backend of that name; without a name the one on which new arrays are born.

    Raises ValueError for an unknown name, BackendUnavailable if it can't run here.
    """
    name = _current.get() if name is None else name
    if name not in _BACKENDS:
        near = difflib.get_close_matches(str(name), _BACKENDS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(_BACKENDS)}."
        raise ValueError(f"backend {name!r} is unknown. {hint}")
    if name == "cupy":
        trouble = _cupy_trouble()
        if trouble is not None:
            raise BackendUnavailable(trouble)
    return _instance(name)


def use(name: str) -> Use:
    """From here on new arrays are born on this backend; in a `with` statement until its end.

    The choice belongs to the thread (or async task) that makes it: a new thread begins with numpy.
    Raises ValueError for an unknown name, BackendUnavailable if it can't run here.

    >>> with use("strict"):
    ...     get_backend().name
    'strict'
    >>> get_backend().name
    'numpy'
    """
    return Use(name)


class Use:
    """What `use(name)` returns: the choice is made already, leaving a `with` block undoes it."""

    def __init__(self, name: str) -> None:
        self._backend = get_backend(name)
        self._previous = [_current.get()]
        self._entered = False
        _current.set(self._backend.name)

    def __enter__(self) -> Backend:
        if self._entered:
            self._previous.append(_current.get())
        self._entered = True
        _current.set(self._backend.name)
        return self._backend

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.set(self._previous.pop())


def to_numpy(x: Any) -> np.ndarray:
    """An array of any backend, a Tensor, or a number as a NumPy array on the host.

    Waits for the device; the strict double counts it.
    """
    return backend_of(x).to_numpy(x)


def available() -> tuple[str, ...]:
    """The names of the backends that can run here. Tries CuPy if it is installed."""
    return tuple(name for name in _BACKENDS if name != "cupy" or _cupy_trouble() is None)


def _instance(name: str) -> Backend:
    backend = _INSTANCES.get(name)
    if backend is None:
        backend = _INSTANCES.setdefault(name, _BACKENDS[name]())
    return backend


def _family(x: Any) -> str:
    """Whose array `x` is: looked up by its class, which is remembered."""
    cls = type(x)
    family = _FAMILIES.get(cls)
    if family is None:
        family = _FAMILIES[cls] = _classify(cls)
    return family


def _classify(cls: type) -> str:
    if getattr(cls, "__minibn_tensor__", False):
        return _TENSOR
    if cls is type(None) or issubclass(cls, (bool, int, float, complex, np.generic)):
        return _NEUTRAL
    for name, (module, attribute) in _ARRAY_CLASSES.items():
        loaded = sys.modules.get(module)  # an array's library is loaded already, or there is none
        if loaded is not None and issubclass(cls, getattr(loaded, attribute)):
            return name
    raise TypeError(
        f"{cls.__module__}.{cls.__qualname__} is no array of {', '.join(_BACKENDS)}. "
        "Make one: minibn.backend.get_backend().asarray(x)"
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names and names[0]) or platform.processor() or platform.machine() or "unknown"


def _cpu_cores() -> int:
    """The cores this process may use, not those the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
