"""Every oracle against the gradient, along one direction: which agree with it, which do not."""

from __future__ import annotations

import math

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import Abstention, Slope, norm
from minibn.testing.checking.vjp_calls import CEILING, LEAST, SAFETY, VjpResult
from minibn.testing.report import FULL, InputReport, digits


def vote(report: InputReport, ensemble: Ensemble, result: VjpResult, allowed: float) -> None:
    """Each oracle against the gradient along the probe; then a sentence on which agree.
    allowed: the tolerance along a direction of length 1."""
    c, g = ensemble.point.cotangents[0], result.gradients[0].astype(float)
    terms = g * ensemble.probe
    ours = float(terms.sum())
    rounding = result.eps * norm(terms) + min(
        result.spread_along(ensemble.probe),
        100 * ensemble.point.rounding(ensemble.i, c, ours, result.precision),
    )
    if report.verdict == "agrees":
        rounding = max(rounding, allowed / SAFETY * float(np.linalg.norm(ensemble.probe)))
    least = 10 ** -(CEILING[result.bytes] if report.verdict == "wrong" else report.demanded)
    with_us: list[str] = []
    against: list[str] = []
    cannot_tell: list[str] = []  # between the gradient and the leading oracle
    leading = ensemble.slope(ensemble.probe).along(c)[0]
    for name, answer in ensemble.answers.items():
        if isinstance(answer, str):
            report.oracles[name] = f"abstains: {answer}"
            continue
        value, error = answer.along(c)
        scale = max(abs(value), abs(ours))
        report.oracles[name] = digits(abs(value - ours), scale) if scale else FULL
        limit = 2 * least * max(float(np.abs(terms).sum()), abs(value))
        limit = max(SAFETY * (error + rounding), limit)
        if name in ("differences", "reference"):  # their errors are estimates, not bounds
            limit = max(limit, 100 * error + 1e-8 * scale)
        side = with_us if abs(value - ours) <= limit else against
        if side is with_us and name != ensemble.leading and abs(value - leading) <= limit:
            cannot_tell.append(name)
        side.append(name)
    order = _order(report, ensemble, ours, rounding)
    if order is not None and (order > 1.8 or 0.5 < order < 1.2):
        (with_us if order > 1.8 else against).append("Taylor order")
        other = _order(InputReport(0, (), ""), ensemble, leading, rounding)
        if order > 1.8 and other is not None and other > 1.8:
            cannot_tell.append("Taylor order")
    reason = report.sides
    firm = [name for name in with_us if name not in cannot_tell]
    if report.verdict == "wrong" and against:
        report.sides = _sentence(firm, against, cannot_tell)
    else:
        report.sides = _sentence(with_us, against, [])
    report.sides = "; ".join(filter(None, [report.sides, reason]))
    if against == ["complex step"] and _contradict(ensemble.answers, c):
        report.verdict, report.digits = "agrees", report.oracles["differences"]
        report.demanded = min(report.demanded, LEAST[result.bytes])
        report.sides = _sentence(with_us, against, [])
        report.sides += ": f is not analytic as written, and the gradient is right"
    elif report.verdict == "wrong" and against == [ensemble.leading] and len(firm) > 1:
        report.verdict = "inconclusive"
    elif report.verdict == "agrees" and {"differences", "reference"} & set(against):
        outvoted = against == ["differences"] and _taylor_sides_against(ensemble, c, rounding)
        report.verdict = "agrees" if outvoted else "inconclusive"


def _taylor_sides_against(ensemble: Ensemble, c: np.ndarray, rounding: float) -> bool:
    """Whether the slope that the differences say is of the wrong order, while the gradient is right
    by all others: at the edge of a domain, say."""
    answer = ensemble.answers["differences"]
    if isinstance(answer, str) or ensemble.abstains("complex step"):
        return False
    order = _order(InputReport(0, (), ""), ensemble, answer.along(c)[0], rounding)
    return order is not None and order < 1.5


def _contradict(answers: dict[str, Slope | str], c: np.ndarray) -> bool:
    """Whether the differences are exact enough to show that the complex step is wrong."""
    exact, central = answers["complex step"], answers["differences"]
    if isinstance(exact, str) or isinstance(central, str):
        return False
    value, error = central.along(c)
    return abs(exact.along(c)[0] - value) > 100 * error + 1e-8 * abs(value)


def _order(report: InputReport, ensemble: Ensemble, ours: float, rounding: float) -> float | None:
    """The order of the first Taylor remainder along the probe, from the differences' values."""
    if ensemble.sides is None:
        return None
    c, ahead = ensemble.point.cotangents[0], ensemble.sides.ahead
    along = (ahead * c).sum(axis=tuple(range(1, ahead.ndim)))
    at_zero, noise = (
        float((c * ensemble.point.y).sum()),
        float((np.abs(c) * ensemble.point.noise).sum()),
    )
    try:
        steps = ensemble.sides.steps
        order = oracles.taylor_order(along, steps, at_zero, ours, noise, slope_error=rounding)
    except Abstention as reason:
        report.oracles["Taylor order"] = f"abstains: {reason}"
        return None
    exact = math.isinf(order)
    report.order = None if exact else order
    report.oracles["Taylor order"] = "exact" if exact else f"{order:.2f}, where 2 is right"
    return order


def _sentence(with_us: list[str], against: list[str], cannot_tell: list[str]) -> str:
    def joined(names: list[str]) -> str:
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    rest = f"; {joined(cannot_tell)} can't tell at this size" if cannot_tell else ""
    if with_us and against:
        return f"{joined(with_us)} with the gradient, {joined(against)} against it{rest}"
    if against:
        alone = len(against) == 1
        none = "" if alone else ", and none with it"
        return f"{joined(against)} against the gradient{rest or none}"
    return ""
