"""Quantities of the landscape, from landscape.jsonl and curvature.jsonl.

A probe's band goes from the least to the largest of its losses over all step sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.claiming.evidence import Missing, Trace
from experiments.claiming.metrics import INF, TINY, Metric, Quantity, float_value, span
from experiments.training.json_files import float_array

Record = dict[str, Any]


def loss_band(record: Record) -> float:
    losses = float_array(record["losses"], null=INF)
    return float(losses.max() - losses.min())


def decades(record: Record) -> float:
    losses = float_array(record["losses"], null=INF)
    return float(np.log10(losses.max() / losses.min()))


def gradient_change(record: Record) -> float:
    return float(float_array(record["gradient_change"], null=INF).max())


def beta(record: Record) -> float:
    """The effective beta: the largest of the probe's."""
    return float(float_array(record["beta"], null=INF).max())


def beta_over_floor(record: Record) -> float:
    """Beta times the smallest step size: 1 where the gradient's change is as large as the gradient
    at every step, so that beta is 1 / (smallest step)."""
    return float(beta(record) * float_array(record["step_sizes"], null=INF).min())


def beta_over_edge(record: Record) -> float:
    return float(beta(record) * record["lr"] / 2)


def gradient_norm(record: Record) -> float:
    return float_value(record["gradient_norm"], null=INF)


# The numbers of a probe, in words
IN_WORDS: dict[Callable[[Record], float], str] = {
    loss_band: "loss band on the probe",
    decades: "loss band on the probe in decades",
    gradient_change: "gradient's change on the probe",
    beta: "effective beta",
    beta_over_floor: "effective beta × smallest step",
    beta_over_edge: "effective beta × lr / 2",
    gradient_norm: "norm of the gradient",
}


def probe_quantity(
    number: Callable[[Record], float],
    start: int,
    stop: int,
    *,
    direction: str = "gradient",
    over: str = "median",
) -> Quantity:
    """The median or largest of a number of each probe of the steps start to stop (exclusive)."""
    take: Any = {"median": np.median, "largest": np.max}[over]

    def of(run: Trace) -> float:
        seen = run.between("landscape", start, stop, direction=direction)
        return float(take([number(record) for record in seen]))

    how = "" if over == "median" else "peak of "
    along = "" if direction == "gradient" else f", {direction} direction"
    return Quantity(f"{how}{IN_WORDS[number]}{along}, {span(start, stop)}", of)


Curve = tuple[np.ndarray, np.ndarray]  # of a probe: distances, ascending from 0, and losses


def random_probes(start: int, stop: int) -> Quantity:
    """step -> the probe's curve. A random direction of `minibn.analysis.probe` is as long as the
    gradient, so probes of one step size end at different distances."""

    def curve(record: Record) -> Curve:
        distances = float_array([0.0, *record["step_sizes"]], null=INF) * gradient_norm(record)
        return distances, float_array([record["loss"], *record["losses"]], null=INF)

    def of(run: Trace) -> dict[int, Curve]:
        return {
            r["step"]: curve(r) for r in run.between("landscape", start, stop, direction="random")
        }

    return Quantity(f"loss band on the probe, random direction, {span(start, stop)}", of)


def band_within(curve: Curve, radius: float) -> float:
    """Largest minus least loss up to this distance, straight lines between the probe's points."""
    distances, losses = curve
    inside = losses[distances <= radius]
    if not np.isfinite(inside).all():
        return INF
    band = [*inside, np.interp(radius, distances, losses)]
    return float(max(band) - min(band))


def at_equal_distance(start: int, stop: int) -> Metric:
    """Of two runs, the median over steps of the loss band, up to the end of the shorter of the
    step's two probes."""

    def fold(ours: dict[int, Curve], theirs: dict[int, Curve]) -> float:
        bands = []
        for step in sorted(ours.keys() & theirs.keys()):
            pair = ours[step], theirs[step]
            radius = min(distances[-1] for distances, _ in pair)
            bands.append([band_within(curve, radius) for curve in pair])
        if not bands:
            raise Missing("the two have no probes at the same steps")
        a, b = np.median(bands, axis=0)
        return max(a, TINY) / max(b, TINY)

    words = "{0} / {1}, both up to the shorter one's end"
    return Metric(random_probes(start, stop), words, fold, quotient=True)


def bounds(start: int, stop: int) -> Callable[[Sequence[Sequence[Trace]]], str]:
    """In words, for each variant: in what share of the probes along the gradient beta is that of
    the smallest step, so that a shorter one would show more; and in what share it is the most that
    a probe can show."""

    def shares(runs: Sequence[Trace]) -> str:
        seen = [
            r for run in runs for r in run.between("landscape", start, stop, direction="gradient")
        ]
        saturated, ceiling = (
            np.mean([r.get(key, np.nan) for r in seen]) for key in ("saturated", "at_ceiling")
        )
        variant = runs[0].key.variant
        return (
            f"{variant} saturated in {saturated:.0%} of its probes, at the ceiling in {ceiling:.0%}"
        )

    return lambda seeds: "; ".join(shares(runs) for runs in zip(*seeds, strict=True))


def hessian(start: int, stop: int, *, over_edge: bool = False) -> Quantity:
    """The largest eigenvalue, the median over steps; over_edge: divided by 2 / lr."""

    def largest(record: Record) -> float:
        return float(float_array(record["eigenvalues"] or [None], null=INF).max())  # []: not finite

    words = "largest Hessian eigenvalue"
    return _curvature(largest, words, start, stop, over_edge=over_edge)


def along_gradient(
    start: int, stop: int, *, over_edge: bool = False, signed: bool = True, over: str = "median"
) -> Quantity:
    """gᵀHg / gᵀg, the median over steps, or the mean; over_edge: divided by 2 / lr; not signed: its
    absolute value, by which at least the gradient changes per distance over a short step."""

    def value(record: Record) -> float:
        x = float_value(record["along_gradient"], null=INF)
        return x if signed else abs(x)

    words = "curvature along the gradient" if signed else "|curvature along the gradient|"
    return _curvature(value, words, start, stop, over_edge=over_edge, over=over)


def _curvature(
    number: Callable[[Record], float],
    words: str,
    start: int,
    stop: int,
    *,
    over_edge: bool,
    over: str = "median",
) -> Quantity:
    take: Any = {"median": np.median, "mean": np.mean}[over]

    def of(run: Trace) -> float:
        found = float(take([number(record) for record in run.between("curvature", start, stop)]))
        return found * run.config["lr"] / 2 if over_edge else found

    how = "" if over == "median" else "mean of "
    return Quantity(f"{how}{words}{' × lr / 2' if over_edge else ''}, {span(start, stop)}", of)
