"""Measurements of a training by its training loss instead of by its step.

A network that learns faster has a lower loss at the same step, and there the loss, its gradient and
their changes are smaller, whatever its landscape. So two networks are compared where their training
losses are equal. What is measured at a step belongs to these losses:

training loss    the mean loss of the training batches within AROUND steps of it
near a centre    within a factor of WIDTH: the bins of CENTRES do not overlap, and with 2.0 the
                 largest, none holds the loss of a network that has not begun to learn, ln 10 = 2.30

The number of a bin is the median over what lies in it. A bin that a training jumps over, or has not
reached, is nan: nothing is interpolated. Plain functions of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CENTRES = (2.0, 1.5, 1.0, 0.7, 0.5)  # nats
AROUND = 10  # steps
WIDTH = 1.12


def training_loss(steps: np.ndarray, losses: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The mean of `losses` (of `steps`) within AROUND steps of each step in `at`; nan where there
    is none."""
    steps, losses = np.asarray(steps), np.asarray(losses, np.float64)
    near = np.abs(steps - np.asarray(at)[:, None]) <= AROUND  # (probes, steps)
    found = [losses[row].mean() if row.any() else np.nan for row in near]
    return np.array(found)


def in_bins(around: np.ndarray, centres: Sequence[float] = CENTRES) -> np.ndarray:
    """Which training losses (probes,) are near which centre: (centres, probes) of bool."""
    middle = np.asarray(centres, np.float64)[:, None]
    return (middle / WIDTH <= around) & (around <= middle * WIDTH)


def at_losses(
    steps: np.ndarray,
    losses: np.ndarray,
    probe_steps: np.ndarray,
    values: np.ndarray,
    centres: Sequence[float] = CENTRES,
) -> np.ndarray:
    """The median of the values near each training loss; nan where no probe is.

    steps, losses (T,): of the training's batches. probe_steps (P,), values (P, ...): what was
    measured, and when. -> (centres, ...)
    """
    values = np.asarray(values, np.float64)
    bins = in_bins(training_loss(steps, losses, probe_steps), centres)
    found = np.full((len(bins), *values.shape[1:]), np.nan)
    for i, near in enumerate(bins):
        if near.any():
            found[i] = np.median(values[near], axis=0)
    return found


def count_at_losses(
    steps: np.ndarray,
    losses: np.ndarray,
    probe_steps: np.ndarray,
    centres: Sequence[float] = CENTRES,
) -> np.ndarray:
    """How many probes are near each training loss: (centres,)."""
    return in_bins(training_loss(steps, losses, probe_steps), centres).sum(1)
