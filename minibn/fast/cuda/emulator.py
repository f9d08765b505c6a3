"""CUDA kernels on a machine without a GPU: compiled for the host, so that tests can run them.

    with use("strict"), emulate():
        ...                # ops run by the CUDA kernels, on the strict double's arrays

It tests that kernels compute correctly, with their indices and barriers, but not their speed. The
execution model is in `emulator.h`. Needs a C++ compiler (`g++`, `clang++` or $CXX), whose output is
kept on disk for later processes (`library_cache`).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from minibn.backend.backends import StrictBackend
from minibn.backend.strict_array import StrictArray, compute
from minibn.errors import BackendUnavailable
from minibn.fast.cuda import library_cache
from minibn.fast.cuda.recording import Stream
from minibn.fast.selection import emulation
from minibn.setting import Setting

HEADER = Path(__file__).parent / "emulator.h"
# Without contraction to fused multiply-adds, so that float arithmetic is what the source says.
FLAGS = ("-O2", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-w", "-shared", "-fPIC")

_one_at_a_time = threading.Lock()  # fibers and stacks are global variables
_order: Setting[int] = Setting("emulated_order", 0)


@contextmanager
def emulate(order: int = 0) -> Iterator[None]:
    """Context manager: the strict double runs ops by the CUDA kernels.

    order: of the threads of a block: 0 as numbered, 1 backwards, larger numbers shuffle. A correct
    kernel's results do not depend on it. Raises BackendUnavailable without
    a C++ compiler.
    """
    compiler()
    with emulation.override(True), _order.override(order):
        yield


@functools.cache
def compiler() -> str:
    """The C++ compiler's path."""
    for name in (os.environ.get("CXX"), "g++", "clang++"):
        found = name and shutil.which(name)
        if found:
            return found
    raise BackendUnavailable(
        "emulate(): no C++ compiler is found. Install g++ or clang++, or name one in $CXX"
    )


@functools.cache
def compiler_version() -> str:
    """What the compiler says of itself, and of the machine that it compiles for."""
    command = [compiler(), "-v"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@functools.cache
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="minibn-emulated-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class RawModule:
    """As `cupy.RawModule`."""

    def __init__(self, code: str, options: tuple[str, ...] = ()) -> None:
        names = re.findall(r"EXPORT\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(", code)
        entries = "".join(
            f'extern "C" int run_{name}(void** a, const int* shape, int shared, unsigned order)\n'
            f"{{ return emulator::start({name}, a, shape, shared, order); }}\n"
            for name in names
        )
        self._library = _load(f'#include "{HEADER.name}"\n{code}\n{entries}', options)

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(name, getattr(self._library, f"run_{name}"))


class RawKernel:
    """As `cupy.RawKernel`: as particular about arguments (`cupy/cuda/function.pyx`), and with the
    limits of an H100."""

    max_dynamic_shared_size_bytes = 48 << 10

    def __init__(self, name: str, start: Any) -> None:
        self._name, self._start = name, start

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
    ) -> None:
        assert all(type(n) is int and n > 0 for n in (*grid, *block)), (grid, block)
        assert max(grid[1:]) < 1 << 16, f"gridDim {grid} is more than CUDA takes"
        assert math.prod(block) <= 1024, f"blockDim {block} is more than CUDA takes"
        assert shared_mem <= self.max_dynamic_shared_size_bytes <= 227 << 10, shared_mem
        values = list(map(_value, args))
        assert sum(v.nbytes for v in values) <= 4096, "the arguments are more than CUDA takes"
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        shape, order = (ctypes.c_int * 6)(*grid, *block), _order.get()

        def launch(alive: Any = (args, values)) -> None:  # as long as this can be called again
            with _one_at_a_time:
                stuck = self._start(pointers, shape, shared_mem, order)
            if stuck:
                raise RuntimeError(f"kernel {self._name}: its threads wait for each other for ever")

        compute(launch)


StrictBackend.cupy = SimpleNamespace(RawModule=RawModule, cuda=SimpleNamespace(Stream=Stream))


@functools.cache
def _load(text: str, options: tuple[str, ...]) -> ctypes.CDLL:
    flags = (*FLAGS, *options)
    key = library_cache.key_of(
        [compiler_version(), HEADER.read_text(encoding="utf-8"), text, *flags]
    )
    if known := library_cache.find(key):
        with contextlib.suppress(OSError):  # such as on a disk from which nothing may be run
            return ctypes.CDLL(str(known))
    library = _build(text, flags)
    library_cache.store(key, library)
    return ctypes.CDLL(str(library))


def _build(text: str, flags: tuple[str, ...]) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(text, encoding="utf-8")
    command = [compiler(), *flags, f"-I{HEADER.parent}", str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the emulated kernels do not compile:\n{done.stderr}")
    return library


def _value(a: Any) -> np.ndarray:
    """The bytes of a kernel argument: an array's address, a number, a struct."""
    if isinstance(a, StrictArray):
        return np.array(a._host.ctypes.data, np.uintp)  # host: a pointer
    if isinstance(a, np.ndarray) and a.size == 1:  # a struct; a scalar of that dtype is refused
        return a
    if isinstance(a, np.generic) and not isinstance(a, np.void):
        return np.array(a)  # host: a C value
    raise TypeError(f"Unsupported type {type(a)}")
