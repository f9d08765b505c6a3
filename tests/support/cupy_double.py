"""A stand-in for the module `cupy` itself, so that CuPy's branches run once without it.

Arrays are the strict double's, taken for CuPy's; kernels run on the emulator; a capture is a
recording. The names under `cuda` are those that we use, with CuPy 14.2's signatures.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import minibn.backend as backends
from minibn.backend import Backend, array_types, cupy_backend, strict, use
from minibn.backend.strict_array import StrictArray
from minibn.errors import BackendUnavailable
from minibn.fast.cuda import emulator
from minibn.fast.cuda.recording import Stream


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self._time = 0.0

    def record(self, stream: Any = None) -> None:
        self._time = time.perf_counter()

    def synchronize(self) -> None:
        pass


class Pool:
    def malloc(self, size: int) -> None:
        raise AssertionError("the strict double's arrays come from NumPy")

    def free_all_blocks(self, stream: Any = None) -> None:
        pass

    def used_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0


class MemoryHook(nullcontext[None]):
    pass


class Device:
    id, mem_info, compute_capability = 0, (60 << 30, 80 << 30), "90"

    def __init__(self, device: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


def cupy_module() -> Any:
    module: Any = ModuleType("cupy")
    pool = Pool()
    module.__getattr__ = lambda name: getattr(strict.xp, name)
    module.__version__ = "14.2.0"
    module.ndarray = StrictArray
    module.asnumpy = strict.to_numpy
    module.RawModule = emulator.RawModule
    module.RawKernel = lambda code, name: lambda grid, block, args: None
    module.get_default_memory_pool = lambda: pool
    module.get_default_pinned_memory_pool = lambda: pool
    module.cuda = SimpleNamespace(
        Stream=Stream, Event=Event, Device=Device, MemoryPool=Pool, MemoryHook=MemoryHook,
        using_allocator=nullcontext, get_current_stream=Stream,
        get_elapsed_time=lambda a, b: 1000 * (b._time - a._time),
        memory=SimpleNamespace(OutOfMemoryError=type("OutOfMemoryError", (MemoryError,), {})),
        runtime=SimpleNamespace(
            getDeviceCount=lambda: 1, getDevice=lambda: 0, driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000, cudaDevAttrMaxSharedMemoryPerBlockOptin=97,
            cudaDevAttrMultiProcessorCount=16,
            deviceGetAttribute=lambda what, device: {16: 132, 97: 227 << 10}[what],
            getDeviceProperties=lambda device: {"name": b"stand-in"},
        ),
    )  # fmt: skip
    return module


@contextmanager
def cupy_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """`use("cupy")` with the stand-in, for a test."""
    from minibn.fast.cuda import scalars

    try:
        emulator.compiler()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    pointer = property(lambda x: SimpleNamespace(ptr=x._host.ctypes.data))
    monkeypatch.setattr(StrictArray, "data", pointer, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", cupy_module())
    monkeypatch.setitem(array_types.LIBRARIES, StrictArray, "cupy")
    monkeypatch.setattr(cupy_backend, "_IS_READY", [True])
    monkeypatch.setattr(backends, "_INSTANCES", {"cupy": cupy_backend.CupyBackend()})
    monkeypatch.setattr(scalars, "_CONSTANT", {})
    with use("cupy") as backend:
        yield backend
