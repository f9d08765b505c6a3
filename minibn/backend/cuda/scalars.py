"""The two numbers of a training step that change while its launches stay the same.

A captured graph repeats its launches with the arguments that they had when it was captured. The
learning rate and the number of the step must not be among these: kernels read them from the
device's memory.

    step of a draw = the one given by value + tick        (tick is 0 outside a graph)
    learning rate  = the one given by value · rate        (rate is 1 outside a graph)
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class Scalars:
    """tick (1,) uint64 and rate (1,) float64, arrays of `xp`."""

    def __init__(self, xp: Any) -> None:
        self.tick = xp.zeros(1, np.uint64)
        self.rate = xp.ones(1, np.float64)


_CONSTANT: dict[str, Scalars] = {}
_captured: contextvars.ContextVar[Scalars | None] = contextvars.ContextVar(
    "minibn_scalars", default=None
)


def scalars(backend: Any) -> Scalars:
    """Those that kernels launched here must read."""
    found = _captured.get()
    if found is None:
        found = _CONSTANT.get(backend.name) or _CONSTANT.setdefault(
            backend.name, Scalars(backend.xp)
        )
    return found


@contextmanager
def reading(given: Scalars) -> Iterator[None]:
    """Inside, kernels read these: while a graph is captured."""
    before = _captured.set(given)
    try:
        yield
    finally:
        _captured.reset(before)


def capturing() -> bool:
    """Whether a graph is being captured: nothing may wait for the device."""
    return _captured.get() is not None
