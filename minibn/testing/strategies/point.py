"""The point at which a function is differentiated, as strategies draw it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minibn.testing.problem import Problem


@dataclass(frozen=True)
class Point:
    """Arrays, and the settings of the call `f(*inputs, **settings)`, of any function.

    seed: of everything that a check draws at this point (cotangents, directions).
    flat: positions of inputs whose gradient is zero here, whatever the values are (an empty
    result, say), so that a check of them is not reported as vacuous.

    >>> point = Point((np.ones(3),), {"axis": 0})
    >>> float(point.bind(np.sum)(*point.inputs))
    3.0
    """

    inputs: tuple[np.ndarray, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    flat: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(np.asarray(x) for x in self.inputs))

    def bind(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f with the settings filled in: of the inputs alone (a vjp: of g and the inputs)."""
        return partial(f, **self.settings) if self.settings else f

    def problem(self, f: Callable[..., Any]) -> Problem:
        """The problem of differentiating f here."""
        return Problem(self.bind(f), self.inputs, self.seed, self.flat)
