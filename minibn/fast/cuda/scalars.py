"""The two scalars of a training step that change between replays of a captured graph.

A captured graph repeats its launches with the same arguments. The learning rate and the step of
random draws change, so kernels read them from device memory.

    step of a draw = argument + tick        (tick is 0 outside a graph)
    learning rate  = argument · rate        (rate is 1 outside a graph)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.setting import Setting


class Scalars:
    """tick (1,) uint64 and rate (1,) float64, arrays of `xp`.

    rate_is_read: whether a kernel used the rate, so that replays follow it.
    """

    def __init__(self, xp: Any) -> None:
        self.tick = xp.zeros(1, np.uint64)
        self._rate = xp.ones(1, np.float64)
        self.rate_is_read = False

    @property
    def rate(self) -> Any:
        self.rate_is_read = True
        return self._rate


_CONSTANT: dict[str, Scalars] = {}
_captured: Setting[Scalars | None] = Setting("scalars", None)


def scalars(backend: Any) -> Scalars:
    """The scalars that kernels of the current context read."""
    found = _captured.get()
    if found is None:
        found = _CONSTANT.get(backend.name) or _CONSTANT.setdefault(
            backend.name, Scalars(backend.xp)
        )
    return found


# with use_scalars(scalars): kernels read these, while a graph is captured
use_scalars = _captured.override
