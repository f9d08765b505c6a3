"""Calls of a function are counted, so that a report can say what it cost."""

from collections.abc import Callable
from typing import Any


class Counted:
    """f, with the number of its calls so far."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f, self.calls = f, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.f(*args)
