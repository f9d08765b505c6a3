"""Entries of a gradient that are small beside the largest: is one of them wrong?

The tolerance is a fraction of the largest entry, since sums of large terms leave rounding errors of
that size in small entries, too. Where f gives its outputs for a small input to full precision, as
an elementwise function does, a mistake can be seen all the same.
"""

from __future__ import annotations

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.comparison import Comparison, errors_nearby
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import Abstention
from minibn.testing.checking.vjp_calls import SAFETY, VjpResult, systematic

MOST = 8  # entries that are looked at


def find_wrong_small_entries(
    ensemble: Ensemble,
    result: VjpResult,
    us: np.ndarray,
    comparison: Comparison,
    small: np.ndarray,
) -> np.ndarray:
    """Which of the numbers `small` of the comparison are wrong, beyond doubt: relatively to their
    own size, more than rounding of the outputs that depend on the entry explains, by the
    differences as well, and in the same way at points nearby."""
    wrong = np.zeros(comparison.gap.shape, bool)
    suspects = small & (comparison.gap > 1e-6 * np.abs(comparison.expected))
    for n in np.flatnonzero(suspects)[:MOST]:
        u = us[n % len(us)]
        c = ensemble.point.cotangents[n // len(us)]
        own = float(np.abs(ensemble.point.inputs[ensemble.i][u != 0]).item())
        point = ensemble.point
        alone = oracles.EPS * np.abs(point.y)  # of each output by itself
        try:
            sides = oracles.differences(point.f, point.inputs, ensemble.i, u, alone, point.starts)
        except Abstention:
            continue
        depends = sides.central.value != 0
        length = float(oracles.units(point.inputs[ensemble.i])[u != 0].item())
        for step in (
            own,
            -own,
            length,
            -length,
            3 * length,
            -3 * length,
        ):  # if it is saturated here
            far = oracles.shift(point.inputs, ensemble.i, step * u / float(np.abs(u).max()))
            there = oracles.value_near(point.f, far)
            depends = depends | (there is None or there != point.y)
        value = float((c * sides.central.value).sum())
        error = float((np.abs(c) * sides.central.error)[depends].sum())
        expected, ours = float(comparison.expected[n]), float(comparison.ours[n])
        noise = np.where(depends, np.abs(c) * alone, 0.0).sum()
        rounding = float(noise) * float(np.abs(u).max()) / own if own else np.inf
        if abs(value - expected) > SAFETY * error + 1e-6 * abs(expected):
            continue
        if abs(ours - value) <= SAFETY * (100 * rounding + error) or not depends.any():
            continue
        only = np.zeros(wrong.shape, bool)
        only[n] = True
        errors = errors_nearby(ensemble, result, us, only)
        wrong[n] = errors is not None and bool(systematic(errors).all())
    return wrong
