"""What the description of an error may cost: calls of f, and seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from minibn.testing.checking.counting import Counted

CALLS = 400  # of f, for the text of a failure
SECONDS = 5.0
TIMES = 10  # as many as the check's own calls, or fewer


@dataclass
class Budget:
    """The calls of `f` that are left, and the time."""

    f: Counted
    calls: int = CALLS
    seconds: float = SECONDS
    start: int = field(init=False)
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.f.calls
        self.until = time.perf_counter() + self.seconds

    @classmethod
    def beside(cls, f: Counted, check: int) -> Budget:
        """For the text beside a check that took `check` calls."""
        return cls(f, min(CALLS, TIMES * check))

    @property
    def spent(self) -> int:
        return self.f.calls - self.start

    @property
    def left(self) -> int:
        """Calls that are left; none once the time is over."""
        return max(0, self.calls - self.spent) if time.perf_counter() < self.until else 0
