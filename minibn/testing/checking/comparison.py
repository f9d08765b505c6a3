"""A gradient beside the oracles' values, number by number; is a difference rounding?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import Abstention
from minibn.testing.checking.vjp_calls import CEILING, SAFETY, VjpResult, systematic

NEARBY = 10  # points at which an error is measured again
MOST = 8  # errors that are measured again
LOST = {8: 200.0, 4: 40.0, 2: 10.0}  # times what rounding explains: digits were lost on the way


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

    def scales(self, us: np.ndarray) -> np.ndarray | float:
        """What is rounded, for each number: the largest of them, or the largest entry of the
        gradient if `us` are the directions of single entries, of different lengths."""
        lengths = np.abs(us).reshape(len(us), -1).max(axis=1)
        if (np.count_nonzero(us.reshape(len(us), -1), axis=1) > 1).any() or not lengths.all():
            return self.scale
        each = np.tile(lengths, len(self.ours) // len(us))
        entry = max(np.abs(self.ours / each).max(), np.abs(self.expected / each).max())
        return np.minimum(self.scale, entry * each)


def tolerance_of(
    ensemble: Ensemble, result: VjpResult, us: np.ndarray, comparison: Comparison
) -> tuple[np.ndarray, np.ndarray, float]:
    """The tolerance of each number, the oracle's part of it, and how much rounding explains.

    The gradient's own spread between neighbouring numbers counts as far as the oracle moves, too,
    or rounding explains it: a float32 inside of a float64 gradient does not excuse itself.
    """
    point = ensemble.point
    explained = max(
        point.rounding(ensemble.i, c, comparison.scale, result.precision) for c in point.cotangents
    )
    repeats = len(point.cotangents)
    lengths = np.tile([float(np.linalg.norm(u)) for u in us], repeats)
    moved = change_between_neighbours(ensemble, 1e-6 * comparison.scale)
    change = moved * lengths / np.linalg.norm(ensemble.probe)
    spread = np.tile([result.spread_along(u) for u in us], repeats)
    most = SAFETY * change + LOST[result.bytes] * explained * np.maximum(lengths, 1.0)
    spread = np.minimum(spread, most)
    scale = comparison.scales(us)
    least = 10 ** -CEILING[result.bytes] * scale
    oracle = np.maximum(SAFETY * (comparison.error + change), least)
    tolerance = SAFETY * (comparison.error + change + spread + result.eps * scale)
    return np.maximum(tolerance, least), oracle, explained


def change_between_neighbours(ensemble: Ensemble, much: float) -> float:
    """How far the oracle moves along the probe when every number moves to its neighbour. If that is
    more than `much`, the differences are asked as well: the complex step may be valid on one side
    of the point alone."""
    there = ensemble.at(ensemble.point.neighbour())

    def change(slope: Callable[[Ensemble], oracles.Slope]) -> float:
        here, away = slope(ensemble), slope(there)
        return max(abs(here.along(c)[0] - away.along(c)[0]) for c in ensemble.point.cotangents)

    moved = change(lambda e: e.slope(e.probe))
    if moved > much and ensemble.sides is not None:
        moved = min(moved, change(lambda e: e.differences(e.probe).central))
    return moved


def compare_at(
    ensemble: Ensemble, result: VjpResult, us: np.ndarray, inputs: list[np.ndarray]
) -> Comparison | None:
    """The comparison at another point; None if f or the vjp raises there."""
    if oracles.value_near(ensemble.point.f, inputs) is None:
        return None
    there = result.at(inputs)
    if there is None:
        return None
    try:
        return Comparison.at(ensemble.at(ensemble.point.at(inputs)), there.gradients, us)
    except Abstention:
        return None


def errors_nearby(
    ensemble: Ensemble, result: VjpResult, us: np.ndarray, wrong: np.ndarray
) -> np.ndarray | None:
    """The errors of the numbers `wrong`, measured again at points nearby (axis 0); None if f or the
    vjp raises at most of them."""
    samples = []
    point, number = ensemble.point, f"f{result.bytes}"
    for _ in range(NEARBY):
        shaken = [
            x * (1 + np.cbrt(np.finfo(number).eps) * point.rng.uniform(-1, 1, x.shape))
            for x in (point.inputs if point.composite else point.beside())
        ]
        inputs = [np.asarray(x, number).astype(float) for x in shaken]
        there = compare_at(ensemble, result, us, inputs)
        if there is not None:
            samples.append((there.ours - there.expected)[wrong])
    return np.array(samples) if len(samples) >= NEARBY // 2 else None


def noise_of_errors(
    ensemble: Ensemble, result: VjpResult, us: np.ndarray, comparison: Comparison, wrong: np.ndarray
) -> float | None:
    """How large the errors are, if they are random; None if they are not.

    In the saturated half of a sigmoid, s (1 - s) has few digits left, and its error has either sign
    at points nearby; that of a forgotten factor stays the same.
    """
    if not np.isfinite(comparison.ours).all():
        return None
    worst = np.flatnonzero(wrong)[np.argsort(-comparison.gap[wrong])][:MOST]
    chosen = np.unique(worst % len(us))  # the directions of the largest errors
    those = wrong.reshape(-1, len(us))[:, chosen]
    gap = comparison.gap.reshape(-1, len(us))[:, chosen][those]
    errors = errors_nearby(ensemble, result, us[chosen], those.reshape(-1))
    if errors is None or systematic(errors).any():
        return None
    noise = np.abs(errors).max(axis=0)
    return None if (gap > SAFETY * noise).any() else float(noise.max())
