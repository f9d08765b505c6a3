"""CUDA sources and their launches.

A `Program` is a file of CUDA C++ beside this one, compiled at its first launch: by NVRTC for CuPy's
arrays, by the host's C++ compiler for those of the strict double while it emulates a GPU (see
`emulator`). What is fixed at compile time is given as macros: `launch(..., REAL="float")`.

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

from minibn.backend.array_types import library_of
from minibn.fast.cuda.emulator import compile_kernels
from minibn.setting import Setting

HERE = Path(__file__).parent
REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}  # C's name of a dtype
PREPARED = "MINIBN_PREPARED_KERNELS"
LARGEST = np.iinfo(np.int32).max  # sizes and positions are C's int: larger arrays do not fit

Around = Callable[[str], AbstractContextManager[Any]]  # "program.function" -> a context manager
_around: Setting[Around] = Setting("wrap_launches", nullcontext)

Macros = tuple[tuple[str, Any], ...]
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
        device, fixed = _device_of(arguments), tuple(sorted(macros.items()))
        if (launches := _notes.get()) is not None:
            launches.setdefault((self.name, fixed), set()).add(function)
            return
        run = _runner(library_of(device), self, fixed)
        values = [_argument(a) for a in arguments]
        with _around.get()(f"{self.name}.{function}"):
            run(function, _three(blocks), _three(threads), values, shared)

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


def _device_of(arguments: tuple[Any, ...]) -> Any:
    """The first argument that is an array with axes."""
    return next(a for a in arguments if hasattr(a, "shape") and a.shape != ())


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
def _runner(device: str, program: Program, macros: Macros) -> Any:
    if device == "cupy":
        return _on_cupy(program, macros)
    return compile_kernels(program.text, _options(macros)[1:])


def _on_cupy(program: Program, macros: Macros) -> Any:
    import cupy

    module = _prepared(program, macros)
    if module is None:
        module = cupy.RawModule(code=program.text, options=_options(macros))
    find = functools.cache(module.get_function)  # cached: CuPy asks the driver each time

    def run(function: str, blocks: Any, threads: Any, arguments: Any, shared: int) -> None:
        kernel = find(function)
        if shared > 48 << 10:  # above the default limit
            kernel.max_dynamic_shared_size_bytes = shared
        # CuPy passes structs by value as arrays of length 1, not as scalars.
        values = [np.array([a]) if isinstance(a, np.void) else a for a in arguments]
        kernel(blocks, threads, tuple(values), shared_mem=shared)

    return run


def _prepared(program: Program, macros: Macros) -> Any:
    """The module from the folder of prepared kernels; None if it has none that the GPU loads."""
    import cupy

    folder = os.environ.get(PREPARED)
    if not folder:
        return None
    architecture = f"sm_{cupy.cuda.Device().compute_capability}"
    path = Path(folder, program.file_of(macros, architecture))
    if not path.exists():
        return None
    try:
        module = cupy.RawModule(path=str(path))
        return module if module.module else None  # which loads it
    except Exception as error:  # a damaged file, another driver: of CuPy's own kinds
        warnings.warn(
            f"{path} can't be loaded ({error}); its kernels are compiled anew. Unset ${PREPARED}, "
            "or prepare them again: python -m experiments.gpu_check --prepare",
            stacklevel=2,
        )
        return None
