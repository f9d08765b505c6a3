"""Fast ways to run what stands in `ops`, `nn`, `optim` and `random`: kernels.

Importing this package plugs them in (`minibn/__init__.py` does). Without it everything runs by its
definition, and nothing else is missing. `README.md` is the tour.
"""

from importlib import import_module
from typing import Any

from minibn.autograd.dispatch import plug_in
from minibn.fast.precision import precision

__all__ = ["precision"]


def _find_first(*asked: Any) -> Any:
    """Load the kernels, when the first op asks for one: `import minibn` stays quick."""
    find = import_module("minibn.fast.selection").find
    plug_in(find)
    return find(*asked)


plug_in(_find_first)
