"""The verdict on the gradient of one input: how far it is from the oracles, and if that is wrong.

The tolerance is measured, not chosen: ten times the sum of the oracle's own error, the change of
the oracle's and of the gradient's value when every number moves to its neighbour, and one rounding
of the largest entry. No more than `CEILING` digits are demanded, and no less than `LEAST`: if even
these can't be seen, the check is inconclusive.
"""

from __future__ import annotations

import numpy as np

from minibn.testing.checking.comparison import compare_at
from minibn.testing.checking.counting import OutOfBudget
from minibn.testing.checking.ensemble import Ensemble, Point
from minibn.testing.checking.kinks import at_kinks, slopes_add_up
from minibn.testing.checking.majority import vote
from minibn.testing.checking.oracles import Abstention
from minibn.testing.checking.smooth import equal_to_the_slope, wrong_elsewhere
from minibn.testing.checking.vjp_calls import LEAST, SAFETY, VjpResult
from minibn.testing.report import InputReport, digits

ENTRIES = 400  # a Jacobian of up to so many is compared entry by entry
SLOPES = 100  # of so many inputs, if each slope takes many calls of f
DIRECTIONS = 4  # for a larger one
CALLS = {"complex step": 2, "one large step": 6, "differences": 20}  # of f, for a slope


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
        found = equal_to_the_slope(report, ensemble, us, result, whole)
        vote(report, ensemble, result, found.along)
        if report.verdict == "wrong" and whole and not slopes_add_up(ensemble, us):
            blank = InputReport(i, report.shape, report.dtype)
            vars(report).update(verdict=blank.verdict, digits=blank.digits, demanded=0.0, sides="")
            at_kinks(report, ensemble, us, result, whole, several=True)
        if report.verdict == "agrees":
            elsewhere = wrong_elsewhere(report, ensemble, result)
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
