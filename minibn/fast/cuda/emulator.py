"""CUDA kernels on a machine without a GPU: compiled for the host, so that tests can run them.

    with use("strict"), emulate():
        ...                # ops run by the CUDA kernels, on the strict double's arrays

It tests that kernels compute correctly, with their indices and barriers, but not their speed. The
execution model is in `emulator.h`. Needs a C++ compiler (`g++`, `clang++` or $CXX).
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minibn.backend.strict_array import compute
from minibn.errors import BackendUnavailable
from minibn.fast.selection import emulation
from minibn.setting import Setting

HEADER = Path(__file__).parent / "emulator.h"
# Without contraction to fused multiply-adds, so that float arithmetic is what the source says.
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-w", "-shared", "-fPIC")

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
def _folder() -> str:
    folder = tempfile.mkdtemp(prefix="minibn-emulated-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def compile_kernels(text: str, options: tuple[str, ...]) -> Callable[..., None]:
    """A function (name, blocks, threads, arguments, shared) that runs kernels of this source."""
    names = re.findall(r"EXPORT\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(", text)
    entries = "".join(
        f'extern "C" int run_{name}(void** a, const int* shape, int shared, unsigned order)\n'
        f"{{ return emulator::start({name}, a, shape, shared, order); }}\n"
        for name in names
    )
    library = ctypes.CDLL(str(_build(f'#include "{HEADER}"\n{text}\n{entries}', options)))

    def run(
        function: str,
        blocks: tuple[int, ...],
        threads: tuple[int, ...],
        arguments: Any,
        shared: int,
    ) -> None:
        values = [_value(a) for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        shape = (ctypes.c_int * 6)(*blocks, *threads)

        def launch(alive: Any = (arguments, values)) -> None:  # as long as this can be called again
            with _one_at_a_time:
                stuck = getattr(library, "run_" + function)(pointers, shape, shared, _order.get())
            if stuck:
                raise RuntimeError(f"kernel {function}: its threads wait for each other for ever")

        compute(launch)

    return run


@functools.cache
def _build(text: str, options: tuple[str, ...]) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(text, encoding="utf-8")
    command = [compiler(), *FLAGS, *options, str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the emulated kernels do not compile:\n{done.stderr}")
    return library


def _value(a: Any) -> np.ndarray:
    """The bytes of a kernel argument: an array's address, a number's value."""
    if isinstance(a, np.generic):
        return np.array(a)  # host: a C value
    return np.array(a._host.ctypes.data, np.uintp)  # host: a pointer
