"""The check of a gradient at a kink, and beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.comparison import Comparison
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.vjp_calls import LEAST, SAFETY, VjpResult
from minibn.testing.report import InputReport, digits


def at_kinks(
    report: InputReport, ensemble: Ensemble, us: np.ndarray, result: VjpResult, whole: bool
) -> None:
    """At a kink two things are checked: each entry of the gradient lies between the one-sided
    derivatives, and the gradient is right beside the kink.

    Between the sides: output by output, in the generalised gradient of Clarke (1983). This holds
    for each entry by itself, and along the direction in which all entries move at once, so that
    ties stay ties, if f is smooth along it; not along any direction, where several kinks meet.
    Nor does it hold for a network, whose chain rule may give a value outside the sides: there only
    the second is checked.
    """
    point, i = ensemble.point, ensemble.i
    report.how = "beside the kinks"
    if not point.composite:
        report.how = "between the one-sided derivatives, and beside the kinks"
        between_the_sides(report, ensemble, list(us) if whole else some_kinks(ensemble), result)
        together = np.ones(point.inputs[i].shape)
        if not ensemble.differences(together).kinks().any():
            between_the_sides(report, ensemble, [together], result)
    if not _right_beside(report, ensemble, us, result) and point.composite:
        report.verdict, report.sides = "inconclusive", "every point tried nearby has kinks"


def _right_beside(
    report: InputReport, ensemble: Ensemble, us: np.ndarray, result: VjpResult
) -> bool:
    """Compare at a point 0.1 % away that has no kink; False if all of three have one."""
    point, number = ensemble.point, f"f{result.bytes}"
    for _ in range(3):
        moved = [
            x + 1e-3 * oracles.scale_of(x) * point.rng.uniform(-1, 1, x.shape) for x in point.inputs
        ]
        beside = [np.asarray(x, number).astype(float) for x in moved]
        if oracles.value_near(point.f, beside) is None or (g := result.again(beside)) is None:
            continue
        there = Ensemble(point.at(beside), ensemble.i)
        if there.kink_count or there.sides is None:
            continue
        comparison = Comparison.at(there, g, us)
        limit = 10 ** -(LEAST[result.bytes] - 1 if result.bytes == 8 else 1) * comparison.scale
        agree = digits(float(comparison.gap.max()), comparison.scale)
        report.digits = min(report.digits, agree)
        report.demanded = max(report.demanded, digits(limit, comparison.scale))
        if not (comparison.gap <= limit + SAFETY * comparison.error).all():
            worst = int(np.argmax(np.nan_to_num(comparison.gap, nan=np.inf)))
            report.verdict, report.sides = "wrong", "wrong beside the kinks, too"
            report.worst = {
                "index": None,
                "analytic": float(comparison.ours[worst]),
                "numeric": float(comparison.expected[worst]),
            }
        return True
    return False


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


def between_the_sides(
    report: InputReport, ensemble: Ensemble, us: Sequence[np.ndarray], result: VjpResult
) -> None:
    outside = scale = allowed = 0.0
    for u in us:
        sides = ensemble.differences(u)
        kinks = sides.kinks()
        error = np.where(kinks, sides.right.error + sides.left.error, sides.central.error)
        for c, g in zip(ensemble.point.cotangents, result.gradients, strict=True):
            right, left = c * sides.right.value, c * sides.left.value
            central = c * sides.central.value
            low = float(np.where(kinks, np.minimum(right, left), central).sum())
            high = float(np.where(kinks, np.maximum(right, left), central).sum())
            slack = SAFETY * (float((np.abs(c) * error).sum()) + result.spread_along(u))
            ours = float((g.astype(float) * u).sum())
            scale = max(scale, abs(low), abs(high))
            beyond = max(low - ours, ours - high) if math.isfinite(ours) else math.inf
            if beyond > max(outside, slack, 1e-6 * scale):
                outside = beyond
                report.worst = {"index": None, "analytic": ours, "numeric": (low, high)}
            allowed = max(allowed, slack, 1e-6 * scale)
    report.digits = min(report.digits, digits(outside, scale))
    report.demanded = max(report.demanded, digits(allowed, scale))
    if outside > 0:
        report.verdict = "wrong"
        report.sides = "at a kink, and not between the one-sided derivatives"
