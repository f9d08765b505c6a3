"""A gradient beside the oracles' values, number by number; is a difference rounding?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import Abstention
from minibn.testing.checking.vjp_calls import LEAST, SAFETY, VjpResult, systematic

NEARBY = 10  # points at which an error is measured again


@dataclass
class Comparison:
    """⟨gradient, u⟩ and ⟨c, J u⟩ for every cotangent c and direction u, flat, with the oracle's
    estimate of its error."""

    ours: np.ndarray
    expected: np.ndarray
    error: np.ndarray

    @classmethod
    def at(cls, ensemble: Ensemble, gradients: Sequence[np.ndarray], us: np.ndarray) -> Comparison:
        slopes = [ensemble.slope(u) for u in us]
        rows = [
            (float((g.astype(float) * u).sum()), *slope.along(c))
            for c, g in zip(ensemble.point.cotangents, gradients, strict=True)
            for u, slope in zip(us, slopes, strict=True)
        ]
        return cls(*np.array(rows).T)

    @property
    def gap(self) -> np.ndarray:
        return np.abs(self.ours - self.expected)

    @property
    def scale(self) -> float:
        return float(max(np.abs(self.ours).max(), np.abs(self.expected).max()))


def compare_at(
    ensemble: Ensemble, result: VjpResult, us: np.ndarray, inputs: list[np.ndarray]
) -> Comparison | None:
    """The comparison at another point; None if f or the vjp raises there."""
    inputs = [np.asarray(x) for x in inputs]
    if oracles.value_near(ensemble.point.f, inputs) is None:
        return None
    gradients = result.again(inputs)
    if gradients is None:
        return None
    try:
        return Comparison.at(ensemble.at(ensemble.point.at(inputs)), gradients, us)
    except Abstention:
        return None


def if_rounding(
    ensemble: Ensemble, result: VjpResult, us: np.ndarray, comparison: Comparison, wrong: np.ndarray
) -> float | None:
    """How far rounding moves the gradient, if its error is rounding alone; else None.

    The error is measured again at points nearby. In the saturated half of a sigmoid, s (1 - s) has
    few digits left, and its error has either sign; that of a forgotten factor stays the same.
    """
    lost = comparison.gap[wrong] > 10 ** -LEAST[result.bytes] * comparison.scale
    if not np.isfinite(comparison.ours).all() or lost.any():
        return None
    samples = []
    for _ in range(NEARBY):
        inputs = [
            (x * (1 + result.eps ** (1 / 3) * ensemble.point.rng.uniform(-1, 1, x.shape)))
            .astype(f"f{result.bytes}")
            .astype(float)
            for x in ensemble.point.inputs
        ]
        there = compare_at(ensemble, result, us, inputs)
        if there is not None:
            samples.append((there.ours - there.expected)[wrong])
    if len(samples) < NEARBY // 2:
        return None
    errors = np.array(samples)
    noise = np.abs(errors).max(axis=0)
    if systematic(errors).any() or (comparison.gap[wrong] > SAFETY * noise).any():
        return None
    return float(noise.max())
