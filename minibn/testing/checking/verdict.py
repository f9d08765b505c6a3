"""The verdict on the gradient of one input: how far it is from the oracles, and if that is wrong.

The tolerance is measured, not chosen: ten times the sum of the oracle's own error, the change of
the oracle's and of the gradient's value when every number moves to its neighbour, and one rounding
of the largest entry. No more than `CEILING` digits are demanded. A larger difference is wrong if it
is systematic: at points nearby a mistake gives the same error, rounding a different one.

Rounding has a limit, too: a gradient whose error is random, but `LOST` times larger than the
rounding of f explains (`Point.rounding`), was computed in too little precision.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.comparison import (
    LOST,
    Comparison,
    compare_at,
    noise_of_errors,
    tolerance_of,
)
from minibn.testing.checking.counting import OutOfBudget
from minibn.testing.checking.ensemble import Ensemble, Point
from minibn.testing.checking.kinks import at_kinks
from minibn.testing.checking.majority import vote
from minibn.testing.checking.oracles import Abstention
from minibn.testing.checking.small_entries import find_wrong_small_entries
from minibn.testing.checking.vjp_calls import LEAST, SAFETY, VjpResult
from minibn.testing.report import InputReport, digits

ENTRIES = 400  # a Jacobian of up to so many is compared entry by entry
SLOPES = 100  # of so many inputs, if each slope takes many calls of f
DIRECTIONS = 4  # for a larger one
CALLS = {"complex step": 2, "one large step": 6, "differences": 20}  # of f, for a slope
FLAT = {8: 1e-6, 4: 1e-2, 2: 1e-1}  # times |f| / |x|: a smaller gradient is nearly flat


class Comparing(NamedTuple):
    """The largest error and the largest tolerance; the tolerance along a direction of length 1; and
    if the gradient is nearly flat, so that rounding hides its digits, the size to compare with."""

    along: float
    gap: float
    tolerance: float
    flat: float


def judge(
    point: Point, i: int, result: VjpResult, zero: bool = False, entries: int = ENTRIES
) -> tuple[InputReport, Ensemble, VjpResult]:
    """Compare the gradients of input `i` with the oracles. `zero`: they are declared to be zero.
    Returns the report with the oracles and the gradients that it is about: those of the point, or
    if these are right, those of a point beside it where the gradient is wrong."""
    x = point.inputs[i]
    ensemble = Ensemble(point, i)
    report = InputReport(i, x.shape, str(x.dtype), kinks=ensemble.kink_count)
    try:
        if ensemble.sides is None and ensemble.abstains("complex step"):
            raise Abstention(str(ensemble.answers["differences"]))
        ensemble, result = _compare(report, ensemble, result, zero, entries)
    except Abstention as reason:
        report.verdict, report.sides = "inconclusive", f"{reason}: move it away from the edge"
        report.digits = 0.0
    except OutOfBudget:
        if report.verdict != "wrong":
            raise
        report.sides = "the budget ended before other oracles were asked"
    return report, ensemble, result


def _compare(
    report: InputReport, ensemble: Ensemble, result: VjpResult, zero: bool, entries: int
) -> tuple[Ensemble, VjpResult]:
    point, i = ensemble.point, ensemble.i
    # A comparison takes a slope for each direction, and as many again for what comes after
    slopes = point.room() / (2 * CALLS[ensemble.leading])
    slopes = min(slopes, SLOPES) if ensemble.leading == "differences" else slopes
    whole = point.inputs[i].size * point.y.size <= entries and point.inputs[i].size <= slopes
    units = point.unit_directions(i) if whole else []
    few = int(min(DIRECTIONS, max(1, slopes)))
    us = np.stack(units or [ensemble.probe, *(point.direction(i) for _ in range(few - 1))])
    found = None
    if ensemble.kink_count:
        at_kinks(report, ensemble, us, result, whole)
    else:
        report.how = f"{ensemble.leading}, " + ("every entry" if whole else f"{len(us)} directions")
        found = _equal_to_the_slope(report, ensemble, us, result, whole)
        vote(report, ensemble, result, found.along)
        if report.verdict == "agrees":
            elsewhere = _wrong_elsewhere(report, ensemble, result)
            if elsewhere is not None:
                return elsewhere
    _vacuous_or_zero(report, ensemble, result, us, zero)
    least = LEAST[4 if point.coarse else result.bytes]
    least = min(least, LEAST[result.bytes], digits(SAFETY**2 * result.eps, 1.0))
    if report.verdict != "agrees" or report.demanded >= least:
        return ensemble, result
    if report.digits >= least and _agrees_nearby(ensemble, result, least):
        report.demanded = least
    elif found is not None and found.flat:
        report.digits = digits(found.gap, found.flat)
        report.demanded = digits(found.tolerance, found.flat)
        report.how += ", of f / x: nearly flat here"
    else:
        report.verdict = "inconclusive"
        report.sides = (
            f"only {report.demanded:.1f} digits can be seen here: f is too badly conditioned at "
            "this point (a large constant added to it? a huge offset?)"
        )
    return ensemble, result


def _agrees_nearby(ensemble: Ensemble, result: VjpResult, least: float) -> bool:
    """Whether the least digits agree at three points nearby, whatever the tolerance there."""
    us = ensemble.probe[None]
    agree = []
    for _ in range(3):
        there = compare_at(ensemble, result, us, ensemble.point.beside(f"f{result.bytes}"))
        if there is not None:
            agree.append(digits(float(there.gap.max()), there.scale) >= least)
    return len(agree) > 1 and all(agree)


def _equal_to_the_slope(
    report: InputReport, ensemble: Ensemble, us: np.ndarray, result: VjpResult, whole: bool
) -> Comparing:
    """The verdict without a kink."""
    point, i = ensemble.point, ensemble.i
    comparison = Comparison.at(ensemble, result.gradients, us)
    tolerance, oracle, explained = tolerance_of(ensemble, result, us, comparison)
    wrong = ~(comparison.gap <= tolerance)  # a NaN is wrong
    if wrong.any():
        flat = SAFETY * max(point.rounding(i, c, 0.0, result.precision) for c in point.cotangents)
        hidden = np.abs(comparison.expected) <= LOST[8] / SAFETY * flat  # f hardly resolves them
        judged = wrong & ~(hidden & (comparison.gap <= flat))
        beyond = point.rounding_beyond(i, result.precision)
        most = SAFETY * LOST[result.bytes] * max(explained, beyond)
        seen = oracle.max() <= 10 ** -LEAST[result.bytes] * comparison.scale
        gross = seen and comparison.gap.max() > max(most, 1e-3 * comparison.scale)
        noise: float | None = flat
        if gross:
            noise = None  # no rounding is so large
        elif judged.any():
            noise = noise_of_errors(ensemble, result, us, comparison, judged)
        report.verdict = "wrong"
        if noise is not None and noise <= LOST[result.bytes] * explained:
            report.verdict, wrong = "agrees", judged & False
            tolerance = np.maximum(tolerance, SAFETY * noise)
        elif noise is not None and (
            not seen or 1e-4 * comparison.scale < noise <= LOST[result.bytes] * beyond
        ):
            report.verdict = "inconclusive"  # random, and as small as what rounding leaves of f
        elif noise is not None:
            report.sides = _lost_precision(noise / comparison.scale)
    scale, flat = comparison.scale, 0.0
    if oracle.max() <= 10 ** -LEAST[result.bytes] * scale < tolerance.max():
        natural = point.rounding(i, point.cotangents[0], 0.0) / oracles.EPS
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
        norm = max(float(np.linalg.norm(g.astype(float))) for g in result.gradients)
        _add_chance_to_miss(report, float(tolerance.max()), norm, len(us))
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
    shortest = min(float(np.linalg.norm(u)) for u in us) or 1.0
    most = float(tolerance.max())
    return Comparing(most / shortest, float(comparison.gap.max()), most, flat)


def _lost_precision(error: float) -> str:
    """What a random error of this relative size looks like."""
    inside = "float32" if error < 3e-6 else "float16 or bfloat16"
    return (
        f"the error is random, about {error:.0e} of the gradient, and f is more exact: is a part "
        f"of the gradient computed in {inside}? If f itself is exact to fewer digits (an "
        f"iteration that is stopped, say), pass accuracy={SAFETY * error:.0e}"
    )


def _wrong_elsewhere(
    report: InputReport, ensemble: Ensemble, result: VjpResult
) -> tuple[Ensemble, VjpResult] | None:
    """The gradient must be right at a second point, too: a vjp that keeps the first input which it
    saw is right there alone. Returns the oracles and the gradients of that point if it is not."""
    point = ensemble.point
    us = ensemble.probe[None]
    for _ in range(3):
        beside = point.beside(f"f{result.bytes}")
        if oracles.value_near(point.f, beside) is None or (at := result.at(beside)) is None:
            continue
        other = Ensemble(point.at(beside), ensemble.i)
        if other.kink_count or (other.sides is None and other.abstains("complex step")):
            continue
        there = Comparison.at(other, at.gradients, us)
        limit = max(10 ** -min(LEAST[result.bytes], report.demanded - 1) * there.scale, 1e-300)
        here = float(Comparison.at(ensemble, result.gradients, us).gap.max())
        off = there.gap > limit + LOST[8] * (there.error + here)
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


def _vacuous_or_zero(
    report: InputReport,
    ensemble: Ensemble,
    result: VjpResult,
    us: np.ndarray,
    zero: bool,
) -> None:
    """If both sides are no more than rounding errors, nothing was compared."""
    point = ensemble.point
    c = point.cotangents[0]
    near = ensemble.at(point.neighbour())
    longest = np.abs(us).max(axis=0)  # of an entry's directions: 1, but for very small entries
    analytic = max(float(np.abs(g.astype(float) * longest).max()) for g in result.gradients)
    numeric = change = 0.0
    if ensemble.kink_count and ensemble.sides is not None:
        numeric = float(
            max(np.abs(s.value).max() for s in (ensemble.sides.right, ensemble.sides.left))
        )
    else:
        for u in (ensemble.probe, *us[:8]):
            value, error = ensemble.slope(u).along(c)
            numeric = max(numeric, abs(value))
            change = max(change, abs(value - near.slope(u).along(c)[0]), error)
    spread = float((result.spread * longest).max())
    nothing = analytic <= SAFETY * spread and numeric <= SAFETY * change
    nothing = nothing and report.verdict != "wrong"
    if report.digits < 2:  # both sides may be noise of f
        flat = SAFETY * point.rounding(ensemble.i, c, 0.0, result.precision)
        nothing = nothing or max(analytic, numeric) <= flat
    if nothing:
        report.verdict = "zero" if zero else "vacuous"
        report.sides = (
            f"gradient ({analytic:.1e}) and oracle ({numeric:.1e}) are rounding errors at most, so "
            "the check could not have failed. Is f flat here (a sum of normalised values, say), or "
            "should the input be declared in zero_gradient? A property test draws away from such "
            "points."
        )
    elif zero and report.verdict == "agrees":
        report.verdict, report.sides = "wrong", "declared zero, but it is not"
