"""Every oracle against the gradient, along one direction: which agree with it, which do not."""

from __future__ import annotations

import math

import numpy as np

from minibn.testing.checking import oracles
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import Abstention, Slope
from minibn.testing.checking.vjp_calls import CEILING, SAFETY, VjpResult
from minibn.testing.report import FULL, InputReport, digits


def vote(report: InputReport, ensemble: Ensemble, result: VjpResult) -> None:
    """Each oracle against the gradient along the probe; then a sentence on which agree."""
    c, g = ensemble.point.cotangents[0], result.gradients[0].astype(float)
    terms = g * ensemble.probe
    ours = float(terms.sum())
    rounding = result.spread_along(ensemble.probe) + result.eps * float(np.linalg.norm(terms))
    least = 10 ** -(CEILING[result.bytes] if report.verdict == "wrong" else report.demanded)
    with_us: list[str] = []
    against: list[str] = []
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
        (with_us if abs(value - ours) <= limit else against).append(name)
    order = _order(report, ensemble, ours, rounding)
    if order is not None and (order > 1.8 or 0.5 < order < 1.2):
        (with_us if order > 1.8 else against).append("Taylor order")
    report.sides = _sentence(with_us, against)
    if against == ["complex step"] and _contradict(ensemble.answers, c):
        report.verdict, report.digits = "agrees", report.oracles["differences"]
        report.sides += ": f is not analytic as written, and the gradient is right"
    elif report.verdict == "agrees" and {"differences", "reference"} & set(against):
        report.verdict = "inconclusive"


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


def _sentence(with_us: list[str], against: list[str]) -> str:
    def joined(names: list[str]) -> str:
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    if with_us and against:
        return f"{joined(with_us)} with the gradient, {joined(against)} against it"
    if against:
        alone = len(against) == 1
        return f"{joined(against)} against the gradient" + ("" if alone else ", and none with it")
    return ""
