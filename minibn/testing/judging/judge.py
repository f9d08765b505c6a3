"""Judging the gradient of one input: how far it is from what the oracles say, and who is right.

The tolerance is measured, not chosen: ten times the sum of the oracle's own error, the change of
the oracle's and of the gradient's value when every number moves to its neighbour, and one rounding
of the largest entry. Beyond `CEILING` digits nobody asks. What exceeds it is wrong if it is
systematic: seen from points nearby, an error stays as it is, and rounding comes out anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minibn.testing.judging import oracles
from minibn.testing.judging.bench import Bench, Point
from minibn.testing.judging.oracles import Abstains, Slope
from minibn.testing.judging.pulling import CEILING, LEAST, SAFETY, Pulled, systematic
from minibn.testing.report import FULL, InputReport, digits

ENTRIES = 400  # of the Jacobian: up to here each is looked at
DIRECTIONS = 4  # for a larger one
NEARBY = 10  # points at which an error is looked at again


def judge(
    point: Point, i: int, pulled: Pulled, zero: bool = False, entries: int = ENTRIES
) -> tuple[InputReport, Bench]:
    """Compare the gradients of input `i` with what the oracles say. `zero`: they should be."""
    x = point.inputs[i]
    bench = Bench(point, i)
    report = InputReport(i, x.shape, str(x.dtype), kinks=bench.kinked)
    if bench.sides is None and bench.abstained("complex step"):
        report.verdict, report.sides = "inconclusive", str(bench.said["differences"])
        report.digits = 0.0
        return report, bench
    whole = x.size * point.y.size <= entries
    units = list(np.eye(x.size).reshape(x.size, *x.shape)) if whole else []
    normals = [np.asarray(point.rng.standard_normal(x.shape)) for _ in range(DIRECTIONS - 1)]
    us = np.stack(units or [bench.probe, *normals])
    if bench.kinked:
        _at_kinks(report, bench, us, pulled, whole)
    else:
        report.how = f"{bench.leading}, " + ("every entry" if whole else f"{len(us)} directions")
        _equal_to_the_slope(report, bench, us, pulled, whole)
        _vote(report, bench, pulled)
    _vacuous_or_zero(report, bench, pulled, us, zero)
    least = LEAST[4 if point.coarse else pulled.bytes]
    if report.verdict == "agrees" and report.digits < min(least, LEAST[pulled.bytes]):
        report.verdict = "inconclusive"
        report.sides = (
            f"only {report.demanded:.1f} digits can be seen here, and not even those agree: f is "
            "too badly conditioned at this point (a large constant added to it? a huge offset?)"
        )
    return report, bench


@dataclass
class Comparison:
    """⟨gradient, u⟩ and ⟨c, J u⟩ for every cotangent c and direction u, flat, with the error that
    the oracle admits."""

    ours: np.ndarray
    expected: np.ndarray
    error: np.ndarray

    @classmethod
    def at(cls, bench: Bench, gradients: Sequence[np.ndarray], us: np.ndarray) -> Comparison:
        slopes = [bench.slope(u) for u in us]
        found = [
            (float((g.astype(float) * u).sum()), *slope.along(c))
            for c, g in zip(bench.point.cotangents, gradients, strict=True)
            for u, slope in zip(us, slopes, strict=True)
        ]
        return cls(*np.array(found).T)

    @property
    def gap(self) -> np.ndarray:
        return np.abs(self.ours - self.expected)

    @property
    def scale(self) -> float:
        return float(max(np.abs(self.ours).max(), np.abs(self.expected).max()))


def _equal_to_the_slope(
    report: InputReport, bench: Bench, us: np.ndarray, pulled: Pulled, whole: bool
) -> None:
    found = Comparison.at(bench, pulled.gradients, us)
    here, away = (
        bench.slope(bench.probe),
        bench.moved_to(bench.point.neighbour()).slope(bench.probe),
    )
    shaken = max(abs(here.along(c)[0] - away.along(c)[0]) for c in bench.point.cotangents)
    lengths = np.tile([float(np.linalg.norm(u)) for u in us], len(bench.point.cotangents))
    spread = np.tile([pulled.spread_along(u) for u in us], len(bench.point.cotangents))
    tolerance = found.error + spread + shaken * lengths / np.linalg.norm(bench.probe)
    tolerance = SAFETY * (tolerance + pulled.eps * found.scale)
    tolerance = np.maximum(tolerance, 10 ** -CEILING[pulled.bytes] * found.scale)
    wrong = ~(found.gap <= tolerance)  # a NaN is wrong
    report.digits = digits(float(found.gap.max()), found.scale)
    if wrong.any():
        noise = _if_rounding(bench, pulled, us, found, wrong)
        report.verdict = "wrong" if noise is None else "agrees"
        tolerance = tolerance if noise is None else np.maximum(tolerance, SAFETY * noise)
    report.demanded = digits(float(tolerance.max()), found.scale)
    if not whole:
        norm = max(float(np.linalg.norm(g.astype(float))) for g in pulled.gradients)
        _state_what_may_be_missed(report, float(tolerance.max()), norm, len(us))
    worst = int(np.argmax(np.nan_to_num(found.gap / np.maximum(tolerance, 1e-300), nan=np.inf)))
    report.cotangent = worst // len(us)
    index = np.unravel_index(worst % len(us), report.shape) if whole and report.shape else ()
    report.worst = {
        "index": [int(k) for k in index] if whole else None,
        "analytic": float(found.ours[worst]),
        "numeric": float(found.expected[worst]),
        "tolerance": float(tolerance[worst]),
    }


def _if_rounding(
    bench: Bench, pulled: Pulled, us: np.ndarray, found: Comparison, wrong: np.ndarray
) -> float | None:
    """How far rounding moves the gradient, if that is all that is wrong with it; else None.

    The error is looked at again from points nearby. In the saturated half of a sigmoid, s (1 - s)
    has few digits left, and its error takes both signs; a forgotten factor is as large as before.
    """
    lost = found.gap[wrong] > 10 ** -LEAST[pulled.bytes] * found.scale
    if not np.isfinite(found.ours).all() or lost.any():
        return None
    seen = []
    for _ in range(NEARBY):
        inputs = [
            (x * (1 + pulled.eps ** (1 / 3) * bench.point.rng.uniform(-1, 1, x.shape)))
            .astype(f"f{pulled.bytes}")
            .astype(float)
            for x in bench.point.inputs
        ]
        there = _compared_at(bench, pulled, us, inputs)
        if there is not None:
            seen.append((there.ours - there.expected)[wrong])
    if len(seen) < NEARBY // 2:
        return None
    errors = np.array(seen)
    noise = np.abs(errors).max(axis=0)
    if systematic(errors).any() or (found.gap[wrong] > SAFETY * noise).any():
        return None
    return float(noise.max())


def _compared_at(
    bench: Bench, pulled: Pulled, us: np.ndarray, inputs: list[np.ndarray]
) -> Comparison | None:
    """The comparison at another point; None if f or the vjp raises there."""
    if oracles.value_near(bench.point.f, inputs) is None:
        return None
    gradients = pulled.again(inputs)
    if gradients is None:
        return None
    try:
        return Comparison.at(bench.moved_to(bench.point.at(inputs)), gradients, us)
    except Abstains:
        return None


def _state_what_may_be_missed(
    report: InputReport, tolerance: float, norm: float, directions: int
) -> None:
    """⟨error, u⟩ is normal with the error's norm as its width: near 0 its density is 0.4 / width.
    For an error of 0.1 % of the gradient's norm."""
    inside = min(1.0, 0.8 * tolerance / (1e-3 * norm)) if norm > 0 else 1.0
    report.missed = inside**directions


def _at_kinks(
    report: InputReport, bench: Bench, us: np.ndarray, pulled: Pulled, whole: bool
) -> None:
    """At a kink two things are asked: does each entry of the gradient lie between the one-sided
    derivatives, and is the gradient right beside the kink?

    Between the sides: output by output, in the generalised gradient of Clarke (1983). This holds
    for each entry by itself, and along the direction in which all entries move at once, so that
    ties stay ties, if f is smooth along it; not along any direction, where several kinks meet.
    Nor does it hold for a network, whose chain rule may leave the sides: only beside is asked.
    """
    point, i = bench.point, bench.i
    report.how = "beside the kinks"
    if not point.composite:
        report.how = "between the one-sided derivatives, and beside the kinks"
        _between_the_sides(report, bench, list(us) if whole else _some_kinks(bench), pulled)
        together = np.ones(point.inputs[i].shape)
        if not bench.differences(together).kinks().any():
            _between_the_sides(report, bench, [together], pulled)
    for _ in range(3):
        beside = [
            x + 1e-3 * oracles.scale_of(x) * point.rng.uniform(-1, 1, x.shape) for x in point.inputs
        ]
        beside = [x.astype(f"f{pulled.bytes}").astype(float) for x in beside]
        if oracles.value_near(point.f, beside) is None or (g := pulled.again(beside)) is None:
            continue
        there = Bench(point.at(beside), i)
        if there.kinked or there.sides is None:
            continue
        found = Comparison.at(there, g, us)
        limit = 10 ** -(LEAST[pulled.bytes] - 1 if pulled.bytes == 8 else 1) * found.scale
        if not (found.gap <= limit + SAFETY * found.error).all():
            worst = int(np.argmax(np.nan_to_num(found.gap, nan=np.inf)))
            report.verdict, report.sides = "wrong", "wrong beside the kinks, too"
            report.digits = digits(float(found.gap.max()), found.scale)
            report.worst = {
                "index": None,
                "analytic": float(found.ours[worst]),
                "numeric": float(found.expected[worst]),
            }
        return


def _some_kinks(bench: Bench, most: int = 4) -> list[np.ndarray]:
    """Unit directions of some entries of a large input that sit at a kink: halve the entries, and
    follow a half that has one."""
    x, rng = bench.point.inputs[bench.i], bench.point.rng
    found = []
    for _ in range(most):
        suspects = rng.permutation(x.size)
        while len(suspects) > 1:
            halves = np.array_split(suspects, 2)
            for half in halves:
                u = np.zeros(x.shape)
                u.flat[half] = rng.standard_normal(len(half))
                if bench.differences(u).kinks().any():
                    suspects = half
                    break
            else:
                break
        u = np.zeros(x.shape)
        u.flat[suspects[0]] = 1.0
        found.append(u)
    return found


def _between_the_sides(
    report: InputReport, bench: Bench, us: Sequence[np.ndarray], pulled: Pulled
) -> None:
    outside = scale = allowed = 0.0
    for u in us:
        sides = bench.differences(u)
        kinks = sides.kinks()
        error = np.where(kinks, sides.right.error + sides.left.error, sides.central.error)
        for c, g in zip(bench.point.cotangents, pulled.gradients, strict=True):
            right, left = c * sides.right.value, c * sides.left.value
            central = c * sides.central.value
            low = float(np.where(kinks, np.minimum(right, left), central).sum())
            high = float(np.where(kinks, np.maximum(right, left), central).sum())
            slack = SAFETY * (float((np.abs(c) * error).sum()) + pulled.spread_along(u))
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


def _vote(report: InputReport, bench: Bench, pulled: Pulled) -> None:
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


def _vacuous_or_zero(
    report: InputReport, bench: Bench, pulled: Pulled, us: np.ndarray, zero: bool
) -> None:
    """Are both sides no more than rounding errors? Then nothing was compared."""
    c = bench.point.cotangents[0]
    near = bench.moved_to(bench.point.neighbour())
    analytic = max(float(np.abs(g.astype(float)).max()) for g in pulled.gradients)
    numeric = shaken = 0.0
    if bench.kinked and bench.sides is not None:
        numeric = float(max(np.abs(s.value).max() for s in (bench.sides.right, bench.sides.left)))
    else:
        for u in (bench.probe, *us[:8]):
            value, error = bench.slope(u).along(c)
            numeric = max(numeric, abs(value))
            shaken = max(shaken, abs(value - near.slope(u).along(c)[0]), error)
    nothing = analytic <= SAFETY * float(pulled.spread.max()) and numeric <= SAFETY * shaken
    if report.digits < 2:  # below what can be seen of f, and not alike: noise on either side
        seen = SAFETY * float((np.abs(c) * bench.point.noise).sum())
        seen /= oracles.scale_of(bench.point.inputs[bench.i])
        nothing = nothing or max(analytic, numeric) <= seen
    if nothing and report.verdict in ("agrees", "inconclusive"):
        report.verdict = "zero" if zero else "vacuous"
        report.sides = (
            f"gradient ({analytic:.1e}) and oracle ({numeric:.1e}) are rounding errors at most, so "
            "the check could not have failed. Is f flat here (a sum of normalised values, say), or "
            "should the input be declared in zero_gradient?"
        )
    elif zero and report.verdict == "agrees":
        report.verdict, report.sides = "wrong", "declared zero, but it is not"
