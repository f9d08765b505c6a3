"""Who sides with whom: every oracle against the gradient, along one direction."""

from __future__ import annotations

import math

import numpy as np

from minibn.testing.judging import oracles
from minibn.testing.judging.bench import Bench
from minibn.testing.judging.oracles import Abstains, Slope
from minibn.testing.judging.pulling import CEILING, SAFETY, Pulled
from minibn.testing.report import FULL, InputReport, digits


def vote(report: InputReport, bench: Bench, pulled: Pulled) -> None:
    """Each oracle against the gradient along the probe; then a sentence on who sides with whom."""
    c, g = bench.point.cotangents[0], pulled.gradients[0].astype(float)
    terms = g * bench.probe
    ours = float(terms.sum())
    rounding = pulled.spread_along(bench.probe) + pulled.eps * float(np.linalg.norm(terms))
    least = 10 ** -(CEILING[pulled.bytes] if report.verdict == "wrong" else report.demanded)
    with_us: list[str] = []
    against: list[str] = []
    for name, said in bench.said.items():
        if isinstance(said, str):
            report.oracles[name] = f"abstains: {said}"
            continue
        value, error = said.along(c)
        scale = max(abs(value), abs(ours))
        report.oracles[name] = digits(abs(value - ours), scale) if scale else FULL
        limit = 2 * least * max(float(np.abs(terms).sum()), abs(value))
        limit = max(SAFETY * (error + rounding), limit)
        if name in ("differences", "reference"):  # their errors are estimates, not bounds
            limit = max(limit, 100 * error + 1e-8 * scale)
        (with_us if abs(value - ours) <= limit else against).append(name)
    order = _order(report, bench, ours, rounding)
    if order is not None and (order > 1.8 or 0.5 < order < 1.2):
        (with_us if order > 1.8 else against).append("Taylor order")
    report.sides = _sentence(with_us, against)
    if against == ["complex step"] and _contradict(bench.said, c):
        report.verdict, report.digits = "agrees", report.oracles["differences"]
        report.sides += ": f is not analytic as written, and the gradient is right"
    elif report.verdict == "agrees" and {"differences", "reference"} & set(against):
        report.verdict = "inconclusive"


def _contradict(said: dict[str, Slope | str], c: np.ndarray) -> bool:
    """Whether the differences are exact enough to say that the complex step is wrong."""
    exact, central = said["complex step"], said["differences"]
    if isinstance(exact, str) or isinstance(central, str):
        return False
    value, error = central.along(c)
    return abs(exact.along(c)[0] - value) > 100 * error + 1e-8 * abs(value)


def _order(report: InputReport, bench: Bench, ours: float, rounding: float) -> float | None:
    """The order of the first Taylor remainder along the probe, from values at hand."""
    if bench.sides is None:
        return None
    c, ahead = bench.point.cotangents[0], bench.sides.ahead
    along = (ahead * c).sum(axis=tuple(range(1, ahead.ndim)))
    at_zero, noise = float((c * bench.point.y).sum()), float((np.abs(c) * bench.point.noise).sum())
    try:
        steps = bench.sides.steps
        order = oracles.taylor_order(along, steps, at_zero, ours, noise, slope_error=rounding)
    except Abstains as reason:
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
