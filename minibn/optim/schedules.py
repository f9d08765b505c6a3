"""Learning rates as pure functions of the step, counted from 0."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Always lr."""
    return lambda step: lr


def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """lr · factor^(step // every)."""
    return lambda step: lr * factor ** (step // every)


def cosine(lr: float, steps: int, end: float = 0.0) -> Schedule:
    """From lr to `end` along half a cosine over `steps` (Loshchilov & Hutter 2017), then `end`."""
    return lambda step: (
        end + (lr - end) * (1 + math.cos(math.pi * min(step / max(steps, 1), 1))) / 2
    )


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """`schedule`, scaled up linearly over the first `steps`: (step + 1) / steps."""
    return lambda step: schedule(step) * min((step + 1) / max(steps, 1), 1)
