"""A function with the point at which it is differentiated: drawn by strategies, given to checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minibn.testing.memory_layouts import laid_out_as


@dataclass(frozen=True)
class Problem:
    """A function of arrays with the point at which it is differentiated.

    f takes arrays or Tensors of `inputs`' shapes, and gives one of them.
    seed: of everything that a check draws for this problem (cotangents, directions).
    flat: positions of inputs whose gradient is known to be zero at this point.
    """

    f: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    seed: int = 0
    flat: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(np.asarray(x) for x in self.inputs))

    def astype(self, dtype: Any) -> Problem:
        """The problem in another precision, in the same memory layouts. Inputs are scaled down
        first if a sum of a hundred of their squares would overflow in it (float16 ends at 65,504).
        """
        room = float(np.finfo(dtype).max / 100) ** 0.5

        def fitted(x: np.ndarray) -> np.ndarray:
            if x.dtype.kind != "f" or x.dtype == dtype:
                return x
            scale = min(1.0, room / max(float(np.abs(x).max(initial=0)), 1.0))
            return laid_out_as(np.asarray(x * scale, dtype), x)

        return replace(self, inputs=tuple(map(fitted, self.inputs)))

    def rng(self) -> np.random.Generator:
        return np.random.default_rng((self.seed, 1))

    def cotangent(self) -> np.ndarray:
        """Normal numbers, of the output's shape. Never ones: sums of gradients hide mistakes."""
        shape = np.shape(self.f(*self.inputs))
        return np.asarray(self.rng().standard_normal(shape))
