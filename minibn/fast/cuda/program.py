"""CUDA sources and their launches.

A `Program` is a file of CUDA C++ beside this one, compiled at its first launch by
`cupy.RawModule`, or its double, which emulates a GPU (`emulator`). What is fixed at compile time is
given as macros: `launch(..., REAL="float")`.

The folder that $MINIBN_PREPARED_KERNELS names may hold kernels that were compiled beforehand, such
as on a machine without a GPU (`Program.compile`). One that the GPU does not load is compiled anew.
"""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minibn.backend import backend_of
from minibn.setting import Setting

HERE = Path(__file__).parent
REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}  # C's name of a dtype
PREPARED = "MINIBN_PREPARED_KERNELS"
LARGEST = np.iinfo(np.int32).max  # sizes and positions are C's int: larger arrays do not fit

Macros = tuple[tuple[str, Any], ...]  # (name, value) of each, sorted
Around = Callable[[str], AbstractContextManager[Any]]  # "program.function" -> a context manager
_around: Setting[Around] = Setting("wrap_launches", nullcontext)

Launches = dict[tuple[str, Macros], set[str]]  # (program, macros): the kernels that were launched
_notes: Setting[Launches | None] = Setting("note_launches", None)


def wrap_launches(around: Around) -> AbstractContextManager[Around]:
    """Context manager: run each launch in `with around("program.function")`, to time it."""
    return _around.override(around)


def note_launches(launches: Launches) -> AbstractContextManager[Any]:
    """Context manager: a launch computes nothing and is noted. Results are what was in memory."""
    return _notes.override(launches)


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
        fixed = tuple(sorted(macros.items()))
        if (launches := _notes.get()) is not None:
            launches.setdefault((self.name, fixed), set()).add(function)
            return
        kernel = _kernel(on, self, function, fixed)
        if shared > 48 << 10:  # above the default limit
            kernel.max_dynamic_shared_size_bytes = shared
        values = tuple(map(_argument, arguments))
        with _around.get()(f"{self.name}.{function}"):
            kernel(_three(blocks), _three(threads), values, shared_mem=shared)

    def compile(self, macros: Macros, architecture: str) -> bytes:
        """The machine code for a GPU ("sm_90": an H100 or H200), compiled by NVRTC, which needs
        CuPy and no GPU. Raises RuntimeError if it does not compile."""
        from cupy.cuda import nvrtc

        source = nvrtc.createProgram(self.text, f"{self.name}.cu", (), ())
        try:
            options = (f"--gpu-architecture={architecture}", *_options(macros))
            nvrtc.compileProgram(source, options)
            return bytes(nvrtc.getCUBIN(source))
        except nvrtc.NVRTCError:
            raise RuntimeError(nvrtc.getProgramLog(source)) from None
        finally:
            nvrtc.destroyProgram(source)

    def file_of(self, macros: Macros, architecture: str) -> str:
        """The name of the file with that machine code, which belongs to this source and macros."""
        digest = hashlib.sha256(repr((self.text, _options(macros))).encode()).hexdigest()
        return f"{self.name}-{digest[:16]}.{architecture}.cubin"


def _options(macros: Macros) -> tuple[str, ...]:
    return ("-std=c++17", *(f"-D{key}={value}" for key, value in macros))


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
def _module(on: Any, program: Program, macros: Macros) -> Any:
    prepared = _prepared(on, program, macros)
    return prepared or on.cupy.RawModule(code=program.text, options=_options(macros))


@functools.cache  # since CuPy asks the driver each time
def _kernel(on: Any, program: Program, function: str, macros: Macros) -> Any:
    return _module(on, program, macros).get_function(function)


def _prepared(on: Any, program: Program, macros: Macros) -> Any:
    """The module from the folder of prepared kernels; None if it has none that the GPU loads."""
    folder = os.environ.get(PREPARED) if on.name == "cupy" else None
    if not folder:
        return None
    path = Path(folder, program.file_of(macros, f"sm_{on.compute_capability}"))
    if not path.exists():
        return None
    try:
        module = on.cupy.RawModule(path=str(path))
        return module if module.module else None  # which loads it
    except Exception as error:  # a damaged file, another driver: of CuPy's own kinds
        warnings.warn(
            f"{path} can't be loaded ({error}); its kernels are compiled anew. Unset ${PREPARED}, "
            "or prepare them again: python -m experiments.gpu_check --prepare",
            stacklevel=2,
        )
        return None
