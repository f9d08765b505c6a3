"""Which kernel runs: the finder that `minibn.fast` plugs into the core.

Each backend has a table: definition -> kernels, the first that fits and pays wins. NumPy's is
`cpu/kernel_list.py`, CuPy's `cuda/kernel_list.py`, each loaded when the first array of its backend
meets an op. The strict double runs the definitions, with products rounded by hand, or CUDA's
kernels inside `emulated()`.

A kernel stands for its definition as it was when the law was last run on both. Where the definition
was edited since, or is patched, the definition runs (see `verified.py`).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from types import FunctionType
from typing import Any

from minibn.autograd.dispatch import mode
from minibn.backend import Backend, backend_of
from minibn.fast.kernel import Kernel, KernelTable, first
from minibn.fast.verified import METHODS, Binding, bindings_of
from minibn.setting import Setting

MODULES = {
    "cpu": "minibn.fast.cpu.kernel_list",
    "cuda": "minibn.fast.cuda.kernel_list",
    "by hand": "minibn.fast.rounding",
}
emulating: Setting[bool] = Setting("emulating", False)  # see `cuda.emulator`


def kernels_of(backend: Backend) -> KernelTable:
    """The kernels for arrays of this backend, by the definition that they stand for."""
    if backend.name == "strict":
        return _load("cuda" if emulating.get() else "by hand")
    return _load("cpu" if backend.name == "numpy" else "cuda")


@functools.cache
def _load(which: str) -> KernelTable:
    return importlib.import_module(MODULES[which]).KERNELS


def runs_cuda_kernels(backend: Backend) -> bool:
    """Whether CUDA kernels run on this backend: on a GPU, or emulated."""
    return backend.name == "cupy" or (backend.name == "strict" and emulating.get())


_known: dict[Any, tuple[Binding, ...] | None] = {}  # by definition; None: it was edited
trusting: Setting[bool] = Setting("trusting", False)  # while kernels and definitions are compared


def is_as_verified(key: Any, instance: Any = None) -> bool:
    """Whether the text of this definition (a class or a function), and of all it calls, is that
    which was compared with its kernels, and nothing of it is replaced, in `instance` neither."""
    bindings = _known.get(key)
    if bindings is None:  # edited, or not looked at yet
        if trusting.get() or key in _known:
            return trusting.get()
        bindings = _known[key] = bindings_of(key)
        if bindings is None:
            return False
    for owner, name, function in bindings:
        if getattr(owner, name) is not function:
            return False
    own = getattr(instance, "__dict__", None)
    return not own or own.keys().isdisjoint(METHODS)


def verified_definitions() -> list[bool]:
    """For each definition that was asked for so far, whether it is as verified."""
    return [is_as_verified(key) for key in list(_known)]


def find(
    definition: Any, inputs: Sequence[Any], needs: tuple[bool, ...], backend: Backend | None
) -> Kernel | None:
    """The kernel to run in the place of `definition`, or None: what `find_kernel` asks."""
    is_key = isinstance(definition, (type, FunctionType))
    key = definition if is_key else type(definition)
    table = kernels_of(backend or backend_of(*inputs))
    among = table.get(key)
    if among is None or not is_as_verified(key, None if is_key else definition):
        return None
    kernel = first(among, definition, inputs)
    if kernel is not None:
        kernel.needs_input_grad = needs
        kernel.keep = True in needs and mode() != "lean"
    return kernel
