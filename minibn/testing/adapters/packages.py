"""Packages that a check needs, and that nobody else has to install."""

from __future__ import annotations

import importlib
from types import ModuleType

PACKAGES = {
    "torch": ("PyTorch", "pip install torch"),
    "jax": ("JAX", "pip install jax"),
    "autograd": ("HIPS autograd", "pip install autograd"),
}


def package(name: str, check: str) -> ModuleType:
    """The package, imported when a check is called that needs it. Raises ImportError with the
    command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library, install = PACKAGES[name]
        raise ImportError(f"{check} needs {library}: {install}") from error
