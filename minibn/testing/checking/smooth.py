"""The check of a gradient at a point without kinks, and at a second point.

A difference beyond the tolerance is wrong if it is systematic: at points nearby a mistake gives the
same error, rounding a different one. Rounding has a limit, too: a gradient whose error is random,
but `LOST` times larger than the rounding of f explains (`Point.rounding`), was computed in too
little precision.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minibn.testing.checking.comparison import LOST, Comparison, noise_of_errors, tolerance_of
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import EPS, norm, value_near
from minibn.testing.checking.small_entries import find_wrong_small_entries
from minibn.testing.checking.vjp_calls import LEAST, SAFETY, VjpResult
from minibn.testing.report import InputReport, digits

FLAT = {8: 1e-6, 4: 1e-2, 2: 1e-1}  # times |f| / |x|: a smaller gradient is nearly flat


class Comparing(NamedTuple):
    """The largest error and the largest tolerance; the tolerance along a direction of length 1; and
    if the gradient is nearly flat, so that rounding hides its digits, the size to compare with."""

    along: float
    gap: float
    tolerance: float
    flat: float


def equal_to_the_slope(
    report: InputReport, ensemble: Ensemble, us: np.ndarray, result: VjpResult, whole: bool
) -> Comparing:
    """The verdict without a kink: ⟨gradient, u⟩ against ⟨c, J u⟩ for each direction and cotangent.
    whole: `us` are the directions of single entries."""
    comparison = Comparison.at(ensemble, result.gradients, us)
    tolerance, oracle, explained = tolerance_of(ensemble, result, us, comparison)
    wrong = ~(comparison.gap <= tolerance)  # a NaN is wrong
    if wrong.any():
        least = float(oracle.max())
        noise = _judge_errors(
            report, ensemble, us, result, comparison, wrong, least, explained, whole
        )
        if report.verdict == "agrees":
            wrong &= False
            tolerance = np.maximum(tolerance, SAFETY * noise)
    few, scale, flat = 10 ** -LEAST[result.bytes] * comparison.scale, comparison.scale, 0.0
    if oracle.max() <= few < tolerance.max():  # the vjp's roundings hide its digits
        natural = ensemble.point.rounding(ensemble.i, ensemble.point.cotangents[0], 0.0) / EPS
        flat = FLAT[result.bytes] * natural if FLAT[result.bytes] * natural > scale else 0.0
    report.digits = digits(float(comparison.gap.max()), scale)
    report.demanded = digits(float(tolerance.max()), scale)
    if whole:
        small = (comparison.expected != 0) & (np.abs(comparison.expected) <= tolerance)
        report.too_small = int(small.reshape(-1, len(us)).all(axis=0).sum())
        if report.verdict == "agrees" and report.too_small:
            hidden = find_wrong_small_entries(ensemble, result, us, comparison, small)
            if hidden.any():
                wrong, report.verdict, report.digits = hidden, "wrong", 0.0
                report.sides = "an entry is wrong that is very small beside the largest"
    else:
        size = max(norm(g.astype(float)) for g in result.gradients)
        _add_chance_to_miss(report, float(tolerance.max()), size, len(us))
    _add_worst(report, comparison, tolerance, wrong, us, whole)
    shortest = min(float(np.linalg.norm(u)) for u in us) or 1.0
    most = float(tolerance.max())
    return Comparing(most / shortest, float(comparison.gap.max()), most, flat)


def _judge_errors(
    report: InputReport,
    ensemble: Ensemble,
    us: np.ndarray,
    result: VjpResult,
    comparison: Comparison,
    wrong: np.ndarray,
    oracle: float,
    explained: float,
    whole: bool,
) -> float:
    """Errors beyond the tolerance are a mistake, a loss of precision, or rounding, whose size is
    returned. oracle: the oracle's own part of the tolerance; explained: what rounding explains."""
    point, i, scale = ensemble.point, ensemble.i, comparison.scale
    flat = SAFETY * max(point.rounding(i, c, 0.0, result.precision) for c in point.cotangents)
    hidden = np.abs(comparison.expected) <= LOST[8] / SAFETY * flat  # f hardly resolves them
    judged = wrong & ~((hidden | (not whole)) & (comparison.gap <= flat))
    beyond = point.rounding_beyond(i, result.precision)
    most = SAFETY * LOST[result.bytes] * max(explained, beyond)
    seen = oracle <= 10 ** -LEAST[result.bytes] * scale
    noise: float | None = flat
    if seen and comparison.gap.max() > max(most, 1e-3 * scale):
        noise = None  # no rounding is so large
    elif judged.any():
        noise = noise_of_errors(ensemble, result, us, comparison, judged)
    report.verdict = "wrong"
    if noise is None:
        return 0.0
    if noise <= LOST[result.bytes] * explained:
        report.verdict = "agrees"
    elif not seen or 1e-4 * scale < noise <= LOST[result.bytes] * beyond:
        report.verdict = "inconclusive"  # random, and as small as what rounding leaves of f
    else:
        report.sides = _lost_precision(noise / scale)
    return noise


def _add_worst(
    report: InputReport,
    comparison: Comparison,
    tolerance: np.ndarray,
    wrong: np.ndarray,
    us: np.ndarray,
    whole: bool,
) -> None:
    """The number that is furthest beyond its tolerance, among those that are wrong if any are."""
    excess = np.nan_to_num(comparison.gap / np.maximum(tolerance, 1e-300), nan=np.inf)
    worst = int(np.argmax(np.where(wrong, excess, -1.0) if wrong.any() else excess))
    report.cotangent = worst // len(us)
    u = us[worst % len(us)]
    index = np.unravel_index(worst % len(us), report.shape) if whole and report.shape else ()
    length = float(np.abs(u).max()) if whole else 1.0
    report.worst = {
        "index": [int(k) for k in index] if whole else None,
        "analytic": float(comparison.ours[worst]) / length,
        "numeric": float(comparison.expected[worst]) / length,
        "tolerance": float(tolerance[worst]) / length,
    }


def _lost_precision(error: float) -> str:
    """What a random error of this relative size looks like."""
    inside = "float32" if error < 3e-6 else "float16 or bfloat16"
    return (
        f"the error is random, about {error:.0e} of the gradient, and f is more exact: is a part "
        f"of the gradient computed in {inside}? If f itself is exact to fewer digits (an "
        f"iteration that is stopped, say), pass accuracy={SAFETY * error:.0e}"
    )


def wrong_elsewhere(
    report: InputReport, ensemble: Ensemble, result: VjpResult
) -> tuple[Ensemble, VjpResult] | None:
    """The gradient must be right at a second point, too: a vjp that keeps the first input which it
    saw is right there alone. Returns the oracles and the gradients of that point if it is not."""
    point = ensemble.point
    us = ensemble.probe[None]
    for _ in range(3):
        beside = point.beside(f"f{result.bytes}")
        if value_near(point.f, beside) is None or (at := result.at(beside)) is None:
            continue
        other = Ensemble(point.at(beside), ensemble.i)
        if other.kink_count or (other.sides is None and other.abstains("complex step")):
            continue
        there = Comparison.at(other, at.gradients, other.probe[None])
        limit = max(10 ** -min(8, report.demanded - 2) * there.scale, 1e-300)
        here = float(Comparison.at(ensemble, result.gradients, us).gap.max())
        off = there.gap > limit + LOST[8] * (there.error + here)
        if other.sides is not None:  # the differences must see it, too
            c, central = point.cotangents, other.sides.central
            values, errors = np.transpose([central.along(cotangent) for cotangent in c])
            off = off & (np.abs(there.ours - values) > limit + 100 * errors)
        if off.any():
            report.verdict = "wrong"
            report.digits = digits(float(there.gap.max()), there.scale)
            report.sides = (
                "right at this point, and wrong at another, 0.1 % away: does the vjp keep the "
                "first input that it saw? Or is it right here by chance, as at zeros?"
            )
            report.cotangent = int(np.argmax(np.nan_to_num(there.gap, nan=np.inf)))
            report.worst = {
                "index": None,
                "analytic": float(there.ours[report.cotangent]),
                "numeric": float(there.expected[report.cotangent]),
            }
            return other, at
        return None
    return None


def _add_chance_to_miss(
    report: InputReport, tolerance: float, norm: float, directions: int
) -> None:
    """The chance to miss an error of 0.1 % of the gradient's norm. ⟨error, u⟩ is normal with the
    error's norm as its standard deviation σ: near 0 its density is 0.4 / σ."""
    inside = min(1.0, 0.8 * tolerance / (1e-3 * norm)) if norm > 0 else 1.0
    report.missed = inside**directions
