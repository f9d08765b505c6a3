"""The backends: each has a namespace, and methods where the libraries differ.

`minibn.backend` finds the one that an array belongs to; CuPy's is in `cupy_backend`.
"""

from __future__ import annotations

import importlib
import math
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minibn.backend.array_types import (
    NEUTRAL,
    TENSOR,
    backend_name,
    copy_of_foreign,
    is_foreign,
    library_of,
)
from minibn.backend.philox import philox
from minibn.errors import BackendMismatch, ShapeError


class Backend:
    """An array library: its namespace `xp`, and methods where libraries differ."""

    name: str
    xp: Any  # the namespace to call: `xp.zeros`, `xp.float32`, ...
    cupy: Any  # of devices: the module, or its double (fast/cuda/emulator.py), for kernels, streams

    @property
    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured: then nothing may wait for the device, and an
        array copied to it would be the same in every replay."""
        return False

    @property
    def out_of_memory_errors(self) -> tuple[type[Exception], ...]:
        """The exceptions that this backend raises when memory runs out, for an `except` clause."""
        return (MemoryError,)

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """`x` as an array of this backend; host arrays, lists and scalars are copied to the device,
        and so are arrays of other libraries, over the host.

        Raises BackendMismatch for an array of another device: copy it to the host first.
        """
        if getattr(x, "__minibn_tensor__", False):
            raise TypeError("asarray: x is a Tensor, whose graph would be lost: pass x.data")
        x = copy_of_foreign(x) if is_foreign(x) else x
        whose = NEUTRAL if isinstance(x, (list, tuple)) else library_of(x)
        if getattr(getattr(x, "dtype", None), "kind", "f") in "OSUVmM":
            raise TypeError(f"asarray: x has dtype {x.dtype}, which is no number")
        if whose == self.name:
            x = x if dtype is None else x.astype(dtype, copy=False)
        elif whose in (NEUTRAL, "numpy"):
            x = np.asarray(x)
            if x.dtype.kind in "OSU":
                raise TypeError(f"asarray: x has dtype {x.dtype}, which is no number")
            x = self._from_host(x if dtype is None else x.astype(dtype, copy=False))
        else:
            raise BackendMismatch(
                f"asarray: x is an array of {whose}, this is {self.name}. "
                "Bring it to the host first: asarray(to_numpy(x))"
            )
        return x

    def to_numpy(self, x: Any) -> np.ndarray:
        """`x` as a NumPy array on the host; waits for the device. NumPy arrays are not copied."""
        if backend_name(x) != self.name:
            raise BackendMismatch(
                f"to_numpy: x is an array of {backend_name(x)}, this is {self.name}. "
                "minibn.backend.to_numpy(x) takes either"
            )
        return self._to_host(x.data if library_of(x) == TENSOR else x)

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
        """`count` raw integers of Philox4x64-10, equal on every backend."""
        return philox(self.xp, key, counter, count)

    def synchronize(self) -> None:
        """Wait until the device has finished. Needed for timing only."""

    def memory(self) -> dict[str, int]:
        """Bytes of memory: `total` and `free`; {} where the system does not report them."""
        try:
            lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        found = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return {"total": found["MemTotal"] * 1024, "free": found["MemAvailable"] * 1024}

    def shortage(self, error: BaseException) -> str:
        """For an error message: the allocation that failed, and the memory that is free."""
        size = {key: f"{bytes_ / 1e9:.1f}" for key, bytes_ in self.memory().items()}
        asked = (str(error).splitlines() or [""])[0].rstrip(".")
        there = f"{size['free']} of {size['total']} GB are free" if size else ""
        return "; ".join(part for part in (asked, there) if part)

    def describe(self) -> dict[str, str | int]:
        """The device's name and size as strings and numbers, for a run's config."""
        return {"backend": self.name, "device": _cpu_model(), "cores": _cpu_cores()}

    def _from_host(self, x: np.ndarray) -> Any:
        return x

    def _to_host(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def _scatter_arguments(
        self, out_shape: tuple[int, ...], index: Any, values: Any
    ) -> tuple[Any, Any, Any]:
        for name, x in (("index", index), ("values", values)):
            if backend_name(x) != self.name:
                raise BackendMismatch(
                    f"scatter: {name} is an array of {backend_name(x)}, this is {self.name}. "
                    "Bring it to the host first: asarray(to_numpy(x))"
                )
        if index.shape != values.shape:
            raise ShapeError(
                f"scatter: index has shape {index.shape}, values {values.shape}: "
                "each value needs one flat position. Broadcast the values first"
            )
        out = self.xp.zeros(math.prod(out_shape), dtype=values.dtype)
        return out, index.reshape(-1), values.reshape(-1)

    def _add_at(self, out: Any, index: Any, values: Any) -> None:
        self.xp.add.at(out, index, values)

    def __repr__(self) -> str:
        return f"<minibn backend {self.name}>"


class NumpyBackend(Backend):
    """Arrays in host memory."""

    name = "numpy"
    xp = np

    def philox(self, key: int, counter: int, count: int) -> Any:
        return np.random.Philox(key=key, counter=counter).random_raw(count)


class DeviceBackend(Backend):
    """A backend whose scatter needs atomic additions: CuPy's, and the strict double."""

    def _add_at(self, out: Any, index: Any, values: Any) -> None:
        if values.dtype.kind == "c":  # atomic additions are of real numbers: add two columns
            part = values.real.dtype
            out = out.view(part).reshape(-1, 2)
            values = self.xp.ascontiguousarray(values).view(part).reshape(-1, 2)
        self.xp.add.at(out, index, values)


class StrictBackend(DeviceBackend):
    """NumPy arrays wrapped so that they are at least as strict as CuPy's: see `strict.py`."""

    name = "strict"

    def __init__(self) -> None:
        self._strict: Any = importlib.import_module("minibn.backend.strict")  # when first used
        self.xp = self._strict.xp

    @property
    def is_capturing(self) -> bool:
        return self._strict.is_recording()

    def private_pool(self) -> AbstractContextManager[None]:
        """As CuPy's: here every array has memory of its own."""
        return nullcontext()

    def _from_host(self, x: np.ndarray) -> Any:
        return self._strict.StrictArray(x.copy())  # copied, as to a device

    def _to_host(self, x: Any) -> np.ndarray:
        return self._strict.to_numpy(x)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names and names[0]) or platform.processor() or platform.machine() or "unknown"


def _cpu_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
