"""Quantities of the landscape: what landscape.jsonl and curvature.jsonl hold, over some steps.

A walk's band is of its losses, or of the gradient's change, at all its step sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.claiming.evidence import Missing, Trace
from experiments.claiming.metrics import INF, TINY, Metric, Quantity, numbers, span


def _width(record: dict[str, Any]) -> float:
    losses = numbers(record["losses"])
    return float(losses.max() - losses.min())


def _decades(record: dict[str, Any]) -> float:
    losses = numbers(record["losses"])
    return float(np.log10(losses.max() / losses.min()))


def _most(key: str) -> Callable[[dict[str, Any]], float]:
    return lambda record: float(numbers(record[key]).max())


# name -> (in words, what is read off a walk)
WALK: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "loss": ("loss band on the walk", _width),
    "decades": ("loss band on the walk in decades", _decades),
    "change": ("gradient's change on the walk", _most("gradient_change")),
    "beta": ("effective beta", _most("beta")),
    "beta over its floor": (
        "effective beta × smallest step",
        lambda r: float(numbers(r["beta"]).max() * numbers(r["step_sizes"]).min()),
    ),
    "beta over the edge": (
        "effective beta × lr / 2",
        lambda r: float(numbers(r["beta"]).max() * r["lr"] / 2),
    ),
    "gradient": ("norm of the gradient", lambda r: float(numbers([r["gradient_norm"]])[0])),
}


def walk(
    what: str, start: int, stop: int, *, direction: str = "gradient", over: str = "median"
) -> Quantity:
    """Of the walks of the steps start to stop (without), the median, or the largest."""
    words, read = WALK[what]
    take: Any = {"median": np.median, "largest": np.max}[over]

    def of(run: Trace) -> float:
        seen = run.between("landscape", start, stop, direction=direction)
        return float(take([read(record) for record in seen]))

    how = "" if over == "median" else "peak of "
    along = "" if direction == "gradient" else f", {direction} direction"
    return Quantity(f"{how}{words}{along}, {span(start, stop)}", of)


Curve = tuple[np.ndarray, np.ndarray]  # of a walk: distances, ascending from 0, and losses


def random_walks(start: int, stop: int) -> Quantity:
    """step -> the walk's curve. A random direction of `minibn.analysis.probe` is as long as the
    gradient, so walks of one step size end at different distances."""

    def curve(record: dict[str, Any]) -> Curve:
        distances = numbers([0.0, *record["step_sizes"]]) * numbers([record["gradient_norm"]])
        return distances, numbers([record["loss"], *record["losses"]])

    def of(run: Trace) -> dict[int, Curve]:
        return {
            r["step"]: curve(r) for r in run.between("landscape", start, stop, direction="random")
        }

    return Quantity(f"loss band on the walk, random direction, {span(start, stop)}", of)


def band_within(curve: Curve, radius: float) -> float:
    """Largest minus least loss up to this distance, straight lines between the walk's points."""
    distances, losses = curve
    inside = losses[distances <= radius]
    if not np.isfinite(inside).all():
        return INF
    band = [*inside, np.interp(radius, distances, losses)]
    return float(max(band) - min(band))


def at_equal_distance(start: int, stop: int) -> Metric:
    """The median over steps, of each of two runs, of the band up to where the shorter of the two
    walks of the step ends."""

    def fold(ours: dict[int, Curve], theirs: dict[int, Curve]) -> float:
        bands = []
        for step in sorted(ours.keys() & theirs.keys()):
            pair = ours[step], theirs[step]
            radius = min(distances[-1] for distances, _ in pair)
            bands.append([band_within(curve, radius) for curve in pair])
        if not bands:
            raise Missing("the two have no walks at the same steps")
        a, b = np.median(bands, axis=0)
        return max(a, TINY) / max(b, TINY)

    words = "{0} / {1}, both up to the shorter one's end"
    return Metric(random_walks(start, stop), words, fold, quotient=True)


def bounds(start: int, stop: int) -> Callable[[Sequence[Sequence[Trace]]], str]:
    """In words, of walks along the gradient, for each variant: how often beta is that of the
    smallest step, so that a shorter walk shows a larger one; or the most that can be shown."""

    def shares(runs: Sequence[Trace]) -> str:
        seen = [
            r for run in runs for r in run.between("landscape", start, stop, direction="gradient")
        ]
        saturated, ceiling = (
            np.mean([r.get(key, np.nan) for r in seen]) for key in ("saturated", "at_ceiling")
        )
        variant = runs[0].key.variant
        return (
            f"{variant} saturated in {saturated:.0%} of its walks, at the ceiling in {ceiling:.0%}"
        )

    return lambda seeds: "; ".join(shares(runs) for runs in zip(*seeds, strict=True))


def sharpness(
    start: int, stop: int, *, along: bool = False, over_edge: bool = False, over: str = "median"
) -> Quantity:
    """The largest eigenvalue of the Hessian, or its value along the gradient; over_edge: divided by
    2 / lr. The median over steps, or the mean."""
    take: Any = {"median": np.median, "mean": np.mean}[over]
    key = "along_gradient" if along else "eigenvalues"

    def of(run: Trace) -> float:
        seen = [r[key] for r in run.between("curvature", start, stop)]
        values = [numbers([x] if along else x or [None]).max() for x in seen]  # none: not finite
        return float(take(values)) * (run.key.lr / 2 if over_edge else 1)

    words = "curvature along the gradient" if along else "largest Hessian eigenvalue"
    how = "" if over == "median" else "mean of "
    return Quantity(f"{how}{words}{' × lr / 2' if over_edge else ''}, {span(start, stop)}", of)
