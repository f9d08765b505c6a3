"""Which kernel runs: the finder that `minibn.fast` registers in `minibn.autograd.dispatch`.

Each backend has a table: definition -> kernels, of which the first that fits and pays runs. NumPy's
is `cpu/kernel_list.py`, CuPy's `cuda/kernel_list.py`, each loaded at the first op on its backend.
The strict double runs the definitions, with products rounded in software, or CUDA's
kernels inside `emulate()`.

If a definition was edited since its kernels were tested, or is patched, the definition runs (see
`verified.py`).
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence
from types import FunctionType
from typing import Any

from minibn.autograd.dispatch import mode
from minibn.backend import Backend, backend_of
from minibn.fast.kernel import Kernel, KernelTable, select_kernel
from minibn.fast.verified import METHODS, Binding, bindings_of
from minibn.setting import Setting

MODULES = {
    "cpu": "minibn.fast.cpu.kernel_list",
    "cuda": "minibn.fast.cuda.kernel_list",
    "by hand": "minibn.fast.rounding",
}
WITHOUT = "MINIBN_WITHOUT_KERNELS"  # an environment variable: kernels that are not to run
emulation: Setting[bool] = Setting("emulation", False)  # see `cuda.emulator`


def kernels_of(backend: Backend) -> KernelTable:
    """The kernels for arrays of this backend, by definition."""
    if backend.name == "strict":
        return _load("cuda" if emulation.get() else "by hand")
    return _load("cpu" if backend.name == "numpy" else "cuda")


@functools.cache
def _load(which: str) -> KernelTable:
    """A backend's table, without the kernels that $MINIBN_WITHOUT_KERNELS names (their classes,
    with commas between them): their definitions run. Raises ValueError for an unknown name."""
    table: KernelTable = importlib.import_module(MODULES[which]).KERNELS
    unwanted = without_kernels()
    if not unwanted:
        return table
    tables = [importlib.import_module(module).KERNELS for module in MODULES.values()]
    known = {kernel.__name__ for table in tables for among in table.values() for kernel in among}
    for name in unwanted - known:
        raise ValueError(
            f"${WITHOUT} names {name!r}, which is no kernel. Unset it, or name one of "
            f"{', '.join(sorted(known))}"
        )
    return {key: tuple(k for k in among if k.__name__ not in unwanted)
            for key, among in table.items()}  # fmt: skip


def without_kernels() -> frozenset[str]:
    """The names in $MINIBN_WITHOUT_KERNELS."""
    return frozenset(os.environ.get(WITHOUT, "").replace(",", " ").split())


def runs_cuda_kernels(backend: Backend) -> bool:
    """Whether CUDA kernels run on this backend: on a GPU, or emulated."""
    return backend.name == "cupy" or (backend.name == "strict" and emulation.get())


_known: dict[Any, tuple[Binding, ...] | None] = {}  # by definition; None: it was edited
# Set while kernels are compared with definitions.
skip_verification: Setting[bool] = Setting("skip_verification", False)


def is_verified(key: Any, instance: Any = None) -> bool:
    """Whether this definition (a class or a function), and all it calls, are unchanged since its
    kernels were tested, and none of its methods is patched, in the class or in `instance`."""
    bindings = _known.get(key)
    if bindings is None:  # edited, or not checked yet
        if skip_verification.get() or key in _known:
            return skip_verification.get()
        bindings = _known[key] = bindings_of(key)
        if bindings is None:
            return False
    for owner, name, function in bindings:
        if getattr(owner, name) is not function:
            return False
    own = getattr(instance, "__dict__", None)
    return not own or own.keys().isdisjoint(METHODS)


def edited_definitions() -> list[Any]:
    """The definitions among those looked up so far that are edited or replaced."""
    return [key for key in list(_known) if not is_verified(key)]


def find(
    definition: Any, inputs: Sequence[Any], needs: tuple[bool, ...], backend: Backend | None
) -> Kernel | None:
    """The kernel to run in the place of `definition`, or None: see `dispatch.find_kernel`."""
    is_key = isinstance(definition, (type, FunctionType))
    key = definition if is_key else type(definition)
    table = kernels_of(backend or backend_of(*inputs))
    among = table.get(key)
    if among is None or not is_verified(key, None if is_key else definition):
        return None
    kernel = select_kernel(among, definition, inputs)
    if kernel is not None:
        kernel.needs_input_grad = needs
        kernel.keep = True in needs and mode() != "lean"
    return kernel
