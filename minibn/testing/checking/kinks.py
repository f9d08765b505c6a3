"""The check of a gradient at a kink, and beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.comparison import LOST, Comparison, noise_of_errors, tolerance_of
from minibn.testing.checking.ensemble import Ensemble, Point
from minibn.testing.checking.vjp_calls import LEAST, SAFETY, VjpResult
from minibn.testing.report import FULL, InputReport, digits

NEARBY = 60  # points around a kink, whose slopes belong to its generalised gradient


def slopes_add_up(ensemble: Ensemble, us: np.ndarray) -> bool:
    """Whether the slope along the probe is the sum of those along single entries `us`. It is not at
    a point where many kinks meet, such as a median of three equal numbers, which has a slope along
    every line and no gradient."""
    weights = [float(ensemble.probe[u != 0].item() / u[u != 0].item()) for u in us]
    single = [ensemble.slope(u) for u in us]
    along = ensemble.slope(ensemble.probe)
    total = sum(w * s.value for w, s in zip(weights, single, strict=True))
    error = along.error + sum(abs(w) * s.error for w, s in zip(weights, single, strict=True))
    size = max(float(np.abs(along.value).max(initial=0)), float(np.abs(total).max(initial=0)))
    return bool((np.abs(total - along.value) <= 100 * error + 1e-4 * size).all())


def at_kinks(
    report: InputReport,
    ensemble: Ensemble,
    us: np.ndarray,
    result: VjpResult,
    whole: bool,
    several: bool = False,
) -> None:
    """At a kink two things are checked: each entry of the gradient lies between the one-sided
    derivatives, and the gradient is right beside the kink.

    Between the sides: output by output, in the generalised gradient of Clarke (1983). This holds
    for each entry by itself, and along the directions in which ties stay ties (all entries move by
    the same amount, or in proportion), if f is smooth along them; not along any direction, where
    several kinks meet. Nor does it hold for a network, whose chain rule may give a value outside
    the sides: there only the second is checked.

    How far rounding moves the gradient is measured beside the kink: at the kink, two neighbouring
    numbers lie on either side of it.
    """
    point, i = ensemble.point, ensemble.i
    x = point.inputs[i]
    there = _right_beside(report, ensemble, us, result)
    report.how = "beside the kinks"
    if not point.composite:
        report.how = "between the one-sided derivatives, and beside the kinks"
        beside = there if there is not None else replace(result, spread=0 * result.spread)
        spread = np.minimum(result.spread, beside.spread)
        exact = replace(result, spread=spread)
        directions = list(us) if whole else some_kinks(ensemble)
        between_the_sides(report, ensemble, directions, exact, several)
        for together in (np.ones(x.shape), x):
            if together.any() and not ensemble.differences(together).kinks().any():
                between_the_sides(report, ensemble, [together], exact, several)
    elif there is None:
        report.verdict, report.sides = "inconclusive", "every point tried nearby has kinks"


def _right_beside(
    report: InputReport, ensemble: Ensemble, us: np.ndarray, result: VjpResult
) -> VjpResult | None:
    """Compare at a point 1 % away that has no kink (a network's at 0.1 %, since it has more), and
    return the vjp's result there; None if all of three have one. Steps are smaller than usual,
    since the kinks are near."""
    point = ensemble.point
    distance = 1e-3 if point.composite else 1e-2
    starts = point.starts if point.composite else oracles.SMALLER
    for _ in range(3):
        beside = point.beside(f"f{result.bytes}", distance)
        if oracles.value_near(point.f, beside) is None or (at := result.at(beside)) is None:
            continue
        there = Ensemble(replace(point.at(beside), starts=starts, measured=None), ensemble.i)
        if there.kink_count or there.sides is None:
            continue
        comparison = Comparison.at(there, at.gradients, us)
        tolerance, _, explained = tolerance_of(there, at, us, comparison)
        if there.leading != "complex step":  # their errors are estimates
            few = LEAST[result.bytes] if result.bytes == 8 else 1
            tolerance = np.maximum(tolerance, 10**-few * comparison.scale)
        wrong = ~(comparison.gap <= tolerance)
        report.digits = digits(float(comparison.gap.max()), comparison.scale)
        report.demanded = digits(float(tolerance.max()), comparison.scale)
        noise = noise_of_errors(there, at, us, comparison, wrong) if wrong.any() else None
        if wrong.any() and (noise is None or noise > LOST[result.bytes] * explained):
            worst = int(np.argmax(np.nan_to_num(comparison.gap / tolerance, nan=np.inf)))
            report.verdict, report.sides = "wrong", "wrong beside the kinks, too"
            report.worst = {
                "index": None,
                "analytic": float(comparison.ours[worst]),
                "numeric": float(comparison.expected[worst]),
            }
        return at
    return None


def some_kinks(ensemble: Ensemble, most: int = 4) -> list[np.ndarray]:
    """Unit directions of some entries of a large input that are at a kink, by bisection: halve the
    entries, and go on with a half that has one."""
    x, rng = ensemble.point.inputs[ensemble.i], ensemble.point.rng
    directions = []
    for _ in range(most):
        suspects = rng.permutation(x.size)
        while len(suspects) > 1:
            halves = np.array_split(suspects, 2)
            for half in halves:
                u = np.zeros(x.shape)
                u.flat[half] = rng.standard_normal(len(half))
                if ensemble.differences(u).kinks().any():
                    suspects = half
                    break
            else:
                break
        u = np.zeros(x.shape)
        u.flat[suspects[0]] = 1.0
        directions.append(u)
    return directions


def _with_slopes_nearby(
    ensemble: Ensemble, u: np.ndarray, c: np.ndarray, ours: float, low: float, high: float
) -> tuple[float, float]:
    """The range of ⟨c, J u⟩ with the slopes at points nearby: the generalised gradient is the hull
    of their limits. The one-sided derivatives are all of it for a maximum, not for a median: of
    three equal numbers, the middle one does not change when one of them moves."""
    point, i = ensemble.point, ensemble.i
    h = 1e-5 / float((np.abs(u) / oracles.units(point.inputs[i])).max())
    for _ in range(NEARBY):
        if low <= ours <= high:
            break
        beside = point.beside()
        ahead, behind = (
            oracles.value_near(point.f, oracles.shift(beside, i, s * u)) for s in (h, -h)
        )
        if ahead is not None and behind is not None:
            value = float((c * (ahead - behind)).sum()) / (2 * h)
            low, high = min(low, value), max(high, value)
    return low, high


def between_the_sides(
    report: InputReport,
    ensemble: Ensemble,
    us: Sequence[np.ndarray],
    result: VjpResult,
    several: bool = False,
) -> None:
    """⟨gradient, u⟩ must lie between the one-sided derivatives along u, output by output, or among
    the slopes nearby. several: so many kinks meet that not every direction shows one."""
    outside = scale = allowed = 0.0
    for u in us:
        sides = ensemble.differences(u)
        kinks = sides.kinks()
        sampled = several or kinks.any()
        error = np.where(kinks, sides.right.error + sides.left.error, sides.central.error)
        for c, g in zip(ensemble.point.cotangents, result.gradients, strict=True):
            right, left = c * sides.right.value, c * sides.left.value
            central = c * sides.central.value
            least, most = np.minimum(right, left), np.maximum(right, left)
            unsure = ~kinks & (np.abs(least + most - 2 * central) > 1e-3 * np.abs(central))
            least = np.where(unsure, np.minimum(least, central), least)
            most = np.where(unsure, np.maximum(most, central), most)
            low = float(np.where(kinks | unsure, least, central).sum())
            high = float(np.where(kinks | unsure, most, central).sum())
            slack = SAFETY * (float((np.abs(c) * error).sum()) + result.spread_along(u))
            ours = float((g.astype(float) * u).sum())
            scale = max(scale, abs(low), abs(high))
            beyond = max(low - ours, ours - high) if math.isfinite(ours) else math.inf
            if sampled and math.isfinite(ours) and beyond > max(slack, 1e-6 * scale):
                low, high = _with_slopes_nearby(ensemble, u, c, ours, low, high)
                beyond = max(low - ours, ours - high)
            if beyond > max(outside, slack, 1e-6 * scale):
                outside = beyond
                report.worst = {"index": None, "analytic": ours, "numeric": (low, high)}
            allowed = max(allowed, slack, 1e-6 * scale)
    report.digits = min(report.digits, digits(outside, scale))
    report.demanded = min(report.demanded or FULL, digits(allowed, scale))
    if outside > 0:
        report.verdict = "wrong"
        report.sides = "at a kink, and not between the one-sided derivatives"


def at_ties_of_inputs(
    reports: Sequence[InputReport], point: Point, results: Sequence[VjpResult]
) -> None:
    """Where two inputs are tied (x and y of a maximum), f has a kink along each of them and none
    along both: there the sum of their gradients is determined. `reports[k]` is that of input k.

    An output counts as tied if its kink along one input vanishes when the others move; kinks of
    several inputs at one point which have nothing to do with each other say nothing about a sum.
    """
    tied = [k for k, report in enumerate(reports) if report.kinks]
    if len(tied) < 2 or not all(_kink_vanishes(point, k) for k in tied):
        return
    inputs, c = point.inputs, point.cotangents
    for us in ([np.ones(x.shape) for x in inputs], inputs):
        longest = max(float((np.abs(us[k]) / oracles.units(inputs[k])).max()) for k in tied)
        if not longest:
            continue

        def along(t: np.ndarray, us: Sequence[np.ndarray] = us) -> Any:
            return point.f(*(x + t * u if k in tied else x for k, (x, u) in pairs(us)))

        def pairs(us: Sequence[np.ndarray]) -> Any:
            return enumerate(zip(inputs, us, strict=True))

        at, step = [np.zeros(())], np.asarray(1 / longest)
        sides = oracles.differences(along, at, 0, step, point.noise, point.starts)
        if sides.kinks().any():
            continue
        for n, cotangent in enumerate(c):
            value, error = sides.central.along(cotangent)
            terms = [results[k].gradients[n].astype(float) * us[k] / longest for k in tied]
            ours = float(sum(t.sum() for t in terms))
            scale = float(sum(np.abs(t).sum() for t in terms))
            limit = SAFETY * error + 1e-6 * scale
            if not abs(ours - value) <= limit:
                both = f"{names_of(tied)} are tied here"
                reports[tied[0]].verdict = "wrong"
                reports[tied[0]].digits = digits(abs(ours - value), scale)
                reports[tied[0]].demanded = digits(limit, scale)
                reports[tied[0]].sides = (
                    f"{both}: where both move, f changes by {value:.6g}, and their gradients "
                    f"together say {ours:.6g}: a tie shared between them must not be counted twice"
                )
                return


def names_of(positions: Sequence[int]) -> str:
    return "inputs " + " and ".join(map(str, positions))


def _kink_vanishes(point: Point, i: int) -> bool:
    """Whether the kinks along input i are gone when all other inputs move a little."""
    moved = point.beside()
    away = point.at([point.inputs[i] if k == i else x for k, x in enumerate(moved)])
    u = point.direction(i)
    try:
        sides = oracles.differences(away.f, away.inputs, i, u, away.noise, away.starts)
    except oracles.Abstention:
        return False
    return not sides.kinks().any()
