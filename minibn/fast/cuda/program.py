"""CUDA sources and their launches.

A `Program` is a file of CUDA C++ beside this one, compiled at its first launch by
`cupy.RawModule`, or its double, which emulates a GPU (`emulator`). What is fixed at compile time is
given as macros: `launch(..., REAL="float")`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minibn.backend import backend_of
from minibn.setting import Setting

HERE = Path(__file__).parent
REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}  # C's name of a dtype
LARGEST = np.iinfo(np.int32).max  # sizes and positions are C's int: larger arrays do not fit

Macros = tuple[tuple[str, Any], ...]  # (name, value) of each, sorted
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
        on = backend_of(next(a for a in arguments if hasattr(a, "shape") and a.shape != ()))
        kernel = _kernel(on.cupy.RawModule, self, function, tuple(sorted(macros.items())))
        if shared > 48 << 10:  # above the default limit
            kernel.max_dynamic_shared_size_bytes = shared
        values = tuple(map(_argument, arguments))
        with _around.get()(f"{self.name}.{function}"):
            kernel(_three(blocks), _three(threads), values, shared_mem=shared)


def address(x: Any) -> int:
    """Where the array's values begin in the device's memory."""
    return int(x._host.ctypes.data if hasattr(x, "_host") else x.data.ptr)


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
    """The kernel argument: an array itself, a number as a NumPy scalar of C's type, a struct as an
    array of one, as CuPy wants it."""
    if isinstance(a, np.generic):
        return np.array([a]) if isinstance(a, np.void) else a  # host: passed by value
    if isinstance(a, int):
        return np.int32(a)
    if isinstance(a, float):
        return np.float64(a)
    if not a.flags.c_contiguous:
        raise ValueError(f"a kernel takes contiguous arrays, this has strides {a.strides}")
    return a


@functools.cache
def _module(raw_module: Any, program: Program, macros: Macros) -> Any:
    options = ("-std=c++17", *(f"-D{key}={value}" for key, value in macros))
    return raw_module(code=program.text, options=options)


@functools.cache  # since CuPy asks the driver each time
def _kernel(raw_module: Any, program: Program, function: str, macros: Macros) -> Any:
    return _module(raw_module, program, macros).get_function(function)
