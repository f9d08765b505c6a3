"""The verdict on the gradient of one input: how far it is from the oracles, and if that is wrong.

The tolerance is measured, not chosen: ten times the sum of the oracle's own error, the change of
the oracle's and of the gradient's value when every number moves to its neighbour, and one rounding
of the largest entry. No more than `CEILING` digits are demanded. A larger difference is wrong if it
is systematic: at points nearby a mistake gives the same error, rounding a different one.
"""

from __future__ import annotations

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.comparison import Comparison, if_rounding
from minibn.testing.checking.ensemble import Ensemble, Point
from minibn.testing.checking.kinks import at_kinks
from minibn.testing.checking.majority import vote
from minibn.testing.checking.oracles import Abstention
from minibn.testing.checking.vjp_calls import CEILING, LEAST, SAFETY, VjpResult
from minibn.testing.report import InputReport, digits

ENTRIES = 400  # a Jacobian of up to so many is compared entry by entry
DIRECTIONS = 4  # for a larger one


def judge(
    point: Point, i: int, result: VjpResult, zero: bool = False, entries: int = ENTRIES
) -> tuple[InputReport, Ensemble]:
    """Compare the gradients of input `i` with the oracles. `zero`: they are declared to be zero."""
    x = point.inputs[i]
    ensemble = Ensemble(point, i)
    report = InputReport(i, x.shape, str(x.dtype), kinks=ensemble.kink_count)
    try:
        if ensemble.sides is None and ensemble.abstains("complex step"):
            raise Abstention(str(ensemble.answers["differences"]))
        _compare(report, ensemble, result, zero, entries)
    except Abstention as reason:
        report.verdict, report.sides = "inconclusive", f"{reason}: move it away from the edge"
        report.digits = 0.0
    return report, ensemble


def _compare(
    report: InputReport, ensemble: Ensemble, result: VjpResult, zero: bool, entries: int
) -> None:
    point, x = ensemble.point, ensemble.point.inputs[ensemble.i]
    whole = x.size * point.y.size <= entries
    units = list(np.eye(x.size).reshape(x.size, *x.shape)) if whole else []
    normals = [np.asarray(point.rng.standard_normal(x.shape)) for _ in range(DIRECTIONS - 1)]
    us = np.stack(units or [ensemble.probe, *normals])
    if ensemble.kink_count:
        at_kinks(report, ensemble, us, result, whole)
    else:
        report.how = f"{ensemble.leading}, " + ("every entry" if whole else f"{len(us)} directions")
        _equal_to_the_slope(report, ensemble, us, result, whole)
        vote(report, ensemble, result)
    _vacuous_or_zero(report, ensemble, result, us, zero)
    least = LEAST[4 if point.coarse else result.bytes]
    if report.verdict == "agrees" and report.digits < min(least, LEAST[result.bytes]):
        report.verdict = "inconclusive"
        report.sides = (
            f"only {report.demanded:.1f} digits can be seen here, and not even those agree: f is "
            "too badly conditioned at this point (a large constant added to it? a huge offset?)"
        )


def _equal_to_the_slope(
    report: InputReport, ensemble: Ensemble, us: np.ndarray, result: VjpResult, whole: bool
) -> None:
    comparison = Comparison.at(ensemble, result.gradients, us)
    here, away = (
        ensemble.slope(ensemble.probe),
        ensemble.at(ensemble.point.neighbour()).slope(ensemble.probe),
    )
    change = max(abs(here.along(c)[0] - away.along(c)[0]) for c in ensemble.point.cotangents)
    lengths = np.tile([float(np.linalg.norm(u)) for u in us], len(ensemble.point.cotangents))
    spread = np.tile([result.spread_along(u) for u in us], len(ensemble.point.cotangents))
    tolerance = comparison.error + spread + change * lengths / np.linalg.norm(ensemble.probe)
    tolerance = SAFETY * (tolerance + result.eps * comparison.scale)
    tolerance = np.maximum(tolerance, 10 ** -CEILING[result.bytes] * comparison.scale)
    wrong = ~(comparison.gap <= tolerance)  # a NaN is wrong
    report.digits = digits(float(comparison.gap.max()), comparison.scale)
    if wrong.any():
        noise = if_rounding(ensemble, result, us, comparison, wrong)
        report.verdict = "wrong" if noise is None else "agrees"
        tolerance = tolerance if noise is None else np.maximum(tolerance, SAFETY * noise)
    report.demanded = digits(float(tolerance.max()), comparison.scale)
    if whole:
        small = (comparison.expected != 0) & (np.abs(comparison.expected) <= tolerance)
        report.too_small = int(small.reshape(-1, len(us)).all(axis=0).sum())
    else:
        norm = max(float(np.linalg.norm(g.astype(float))) for g in result.gradients)
        _add_chance_to_miss(report, float(tolerance.max()), norm, len(us))
    worst = int(
        np.argmax(np.nan_to_num(comparison.gap / np.maximum(tolerance, 1e-300), nan=np.inf))
    )
    report.cotangent = worst // len(us)
    index = np.unravel_index(worst % len(us), report.shape) if whole and report.shape else ()
    report.worst = {
        "index": [int(k) for k in index] if whole else None,
        "analytic": float(comparison.ours[worst]),
        "numeric": float(comparison.expected[worst]),
        "tolerance": float(tolerance[worst]),
    }


def _add_chance_to_miss(
    report: InputReport, tolerance: float, norm: float, directions: int
) -> None:
    """The chance to miss an error of 0.1 % of the gradient's norm. ⟨error, u⟩ is normal with the
    error's norm as its standard deviation σ: near 0 its density is 0.4 / σ."""
    inside = min(1.0, 0.8 * tolerance / (1e-3 * norm)) if norm > 0 else 1.0
    report.missed = inside**directions


def _vacuous_or_zero(
    report: InputReport, ensemble: Ensemble, result: VjpResult, us: np.ndarray, zero: bool
) -> None:
    """If both sides are no more than rounding errors, nothing was compared."""
    c = ensemble.point.cotangents[0]
    near = ensemble.at(ensemble.point.neighbour())
    analytic = max(float(np.abs(g.astype(float)).max()) for g in result.gradients)
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
    nothing = analytic <= SAFETY * float(result.spread.max()) and numeric <= SAFETY * change
    if report.digits < 2:  # both sides may be noise of f
        noise = SAFETY * float((np.abs(c) * ensemble.point.noise).sum())
        noise /= oracles.scale_of(ensemble.point.inputs[ensemble.i])
        nothing = nothing or max(analytic, numeric) <= noise
    if nothing and report.verdict in ("agrees", "inconclusive"):
        report.verdict = "zero" if zero else "vacuous"
        report.sides = (
            f"gradient ({analytic:.1e}) and oracle ({numeric:.1e}) are rounding errors at most, so "
            "the check could not have failed. Is f flat here (a sum of normalised values, say), or "
            "should the input be declared in zero_gradient? A property test draws away from such "
            "points."
        )
    elif zero and report.verdict == "agrees":
        report.verdict, report.sides = "wrong", "declared zero, but it is not"
