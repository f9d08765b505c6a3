"""Calls of a function are counted, limited, and shown: a check may take many of a slow function."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

QUIET = 3.0  # seconds after which a line shows the progress, on a terminal


class OutOfBudget(BaseException):
    """The calls or the seconds of a check are used up. No `Exception`: f's own errors at points
    nearby are caught, and this must not be."""


class Counted:
    """f, with the number of its calls so far.

    budget: how many calls are allowed, or for how long: 500, "30s" or "2min"; None for no limit.
    Raises OutOfBudget at the first call beyond it; ValueError for anything else as a budget.
    """

    def __init__(self, f: Callable[..., Any], budget: int | str | None = None, name: str = ""):
        self.f, self.name, self.calls = f, name, 0
        self.most, self.seconds = parse_budget(budget)
        self.start = self.shown = time.perf_counter()

    def __call__(self, *args: Any) -> Any:
        now = time.perf_counter()
        if self.calls >= self.most or now - self.start >= self.seconds:
            raise OutOfBudget
        self.calls += 1
        if now - self.start > QUIET and now - self.shown > 0.5 and sys.stderr.isatty():
            self.shown = now
            line = f"check of {self.name}: {self.calls} calls, {now - self.start:.0f} s"
            print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)
        return self.f(*args)

    @property
    def left(self) -> float:
        """Calls that are left, at the pace so far."""
        used = time.perf_counter() - self.start
        rest = (self.seconds - used) / used * self.calls if self.calls and used else self.seconds
        return max(0.0, min(self.most - self.calls, rest))

    def finish(self) -> None:
        """End the line of the progress; the text of a failure has a budget of its own."""
        if self.shown > self.start:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
        self.most = self.seconds = float("inf")


def parse_budget(budget: int | str | None) -> tuple[float, float]:
    """(calls, seconds), each infinite unless it is limited.

    >>> parse_budget(200), parse_budget("1.5min"), parse_budget(None)
    ((200, inf), (inf, 90.0), (inf, inf))
    """
    if budget is None:
        return float("inf"), float("inf")
    if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0:
        return budget, float("inf")
    if isinstance(budget, str):
        text = budget.replace(" ", "")
        for unit, length in (("min", 60.0), ("s", 1.0)):
            number = text.removesuffix(unit)
            if text.endswith(unit) and number.replace(".", "", 1).isdigit() and float(number) > 0:
                return float("inf"), length * float(number)
    raise ValueError(f'budget={budget!r}: a number of calls of f (500), or a time ("30s", "2min").')
