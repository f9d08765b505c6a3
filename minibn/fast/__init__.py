"""Kernels: faster implementations of definitions in `ops`, `nn`, `optim` and `random`.

Importing this package registers them (`minibn/__init__.py` does). Without it only the definitions
run. `README.md` is the tour.
"""

import os
from importlib import import_module
from typing import Any

from minibn.autograd.dispatch import plug_in


def _find_first(*arguments: Any) -> Any:
    """Load the kernels when the first op runs, so that `import minibn` is fast."""
    find = import_module("minibn.fast.selection").find
    plug_in(find)
    return find(*arguments)


plug_in(_find_first)


def _load_kernels() -> None:
    """Before a fork: a child would wait forever for what another thread was importing."""
    import_module("minibn.fast.selection")
    import_module("minibn.fast.cpu.kernel_list")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_load_kernels)
