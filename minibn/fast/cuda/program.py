"""CUDA sources and their launches.

A `Program` is a file of CUDA C++ beside this one, compiled at its first launch: by NVRTC for CuPy's
arrays, by the host's C++ compiler for those of the strict double while it emulates a GPU (see
`emulator`). What is fixed at compile time is given as macros: `launch(..., REAL="float")`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minibn.backend.array_types import library_of
from minibn.fast.cuda.emulator import compile_kernels
from minibn.setting import Setting

HERE = Path(__file__).parent
REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}  # C's name of a dtype
LARGEST = np.iinfo(np.int32).max  # sizes and positions are C's int: larger arrays do not fit

Around = Callable[[str], AbstractContextManager[Any]]  # "program.function" -> a context manager
_around: Setting[Around] = Setting("wrap_launches", nullcontext)


def wrap_launches(around: Around) -> AbstractContextManager[Around]:
    """Context manager: run each launch in `with around("program.function")`, to time it."""
    return _around.override(around)


class Program:
    """The kernels of `name`.cu."""

    def __init__(self, name: str) -> None:
        self.name = name

    @functools.cached_property
    def text(self) -> str:
        """The source with `#include "..."` expanded, so that compilers' caches see changes."""
        return _with_includes(self.name + ".cu", set())

    def launch(
        self,
        function: str,
        blocks: int | tuple[int, ...],
        threads: int | tuple[int, ...],
        *arguments: Any,
        shared: int = 0,
        **macros: Any,
    ) -> None:
        """Run a kernel on `blocks` × `threads`, with `shared` bytes of dynamic shared memory.

        arguments: contiguous arrays of one device, as pointers; int as `int`, float as `double`,
        NumPy scalars as their own type. macros: names and values for the preprocessor.
        """
        if 0 in np.atleast_1d(blocks):  # host: an empty launch, an error in CUDA
            return
        device = next(a for a in arguments if hasattr(a, "shape") and a.shape != ())
        run = _runner(library_of(device), self, tuple(sorted(macros.items())))
        values = [_argument(a) for a in arguments]
        with _around.get()(f"{self.name}.{function}"):
            run(function, _three(blocks), _three(threads), values, shared)


def _with_includes(name: str, seen: set[str]) -> str:
    lines = []
    for line in (HERE / name).read_text(encoding="utf-8").splitlines():
        if line.startswith('#include "'):
            included = line.split('"')[1]
            if included not in seen:
                seen.add(included)
                lines.append(_with_includes(included, seen))
        else:
            lines.append(line)
    return "\n".join(lines)


def _three(extent: int | tuple[int, ...]) -> tuple[int, ...]:
    extent = (extent,) if isinstance(extent, int) else extent
    return (*extent, 1, 1)[:3]


def _argument(a: Any) -> Any:
    """The kernel argument: an array itself, a number as a NumPy scalar of C's type."""
    if isinstance(a, np.generic):
        return a
    if isinstance(a, int):
        return np.int32(a)
    if isinstance(a, float):
        return np.float64(a)
    if not a.flags.c_contiguous:
        raise ValueError(f"a kernel takes contiguous arrays, this has strides {a.strides}")
    return a


@functools.cache
def _runner(device: str, program: Program, macros: tuple[tuple[str, Any], ...]) -> Any:
    options = tuple(f"-D{key}={value}" for key, value in macros)
    if device == "cupy":
        return _on_cupy(program, options)
    return compile_kernels(program.text, options)


def _on_cupy(program: Program, options: tuple[str, ...]) -> Any:
    import cupy

    module = cupy.RawModule(code=program.text, options=("-std=c++17", *options))

    find = functools.cache(module.get_function)  # cached: CuPy asks the driver each time

    def run(function: str, blocks: Any, threads: Any, arguments: Any, shared: int) -> None:
        kernel = find(function)
        if shared > 48 << 10:  # above the default limit
            kernel.max_dynamic_shared_size_bytes = shared
        # CuPy passes structs by value as arrays of length 1, not as scalars.
        values = [np.array([a]) if isinstance(a, np.void) else a for a in arguments]
        kernel(blocks, threads, tuple(values), shared_mem=shared)

    return run
