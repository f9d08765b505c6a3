"""The suite of minibn's own ops, which is part of a checkout and is not installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import minibn

TESTS = Path(minibn.__file__).parents[1] / "tests"


class NoCheckout(RuntimeError):
    """minibn runs from an installation, without the suite; the message names the remedy."""


def suite(name: str) -> ModuleType:
    """The module `suite.<name>`, with `<checkout>/tests` on the path; raises NoCheckout."""
    if not (TESTS / "suite").is_dir():
        raise NoCheckout(
            f"suite.{name} tests minibn's own ops and is not installed: clone minibn's repository, "
            "and run this in it after pip install -e '.[test]'."
        )
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    return importlib.import_module(f"suite.{name}")
