"""Learning rates as pure functions of the step, counted from 0."""

from __future__ import annotations

import math
from collections.abc import Callable

from minibn.errors import check_integer, check_real

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Always lr."""
    check_real(lr, "constant: lr")
    return lambda step: lr


def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """lr · factor^(step // every)."""
    if not check_real(factor, "step_decay: factor") >= 0:
        raise ValueError(f"step_decay: factor={factor} must not be negative.")
    check_real(lr, "step_decay: lr")
    check_integer(every, "step_decay: every", least=1)
    return lambda step: lr * factor ** (step // every)


def cosine(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """From lr to `end` along half a cosine over `steps` (Loshchilov & Hutter 2017), then `end`."""
    check_real(lr, "cosine: lr"), check_real(end, "cosine: end")
    check_integer(steps, "cosine: steps", least=0)
    return lambda step: (
        end + (lr - end) * (1 + math.cos(math.pi * min(step / max(steps, 1), 1))) / 2
    )


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """`schedule`, scaled up linearly over the first `steps`: (step + 1) / steps."""
    if not callable(schedule):
        raise TypeError(f"warm_up: schedule={schedule!r} is no function. Use constant(lr).")
    check_integer(steps, "warm_up: steps", least=0)
    return lambda step: schedule(step) * min((step + 1) / max(steps, 1), 1)
