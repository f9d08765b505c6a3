"""Runs as curves: a variant at one rate, over its seeds. What figures and tables share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import paper
from experiments.training.settings import in_precision
from experiments.training.study import Run
from experiments.views.plotting import colour, entry, fill_band, in_order, visible


class ReadOnce(Run):
    """A run whose files are read once: for plots, when no training runs. The largest stream, of the
    distributions, is not kept in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._read: dict[str, list[dict[str, Any]]] = {}
        self._config: dict[str, Any] = {}

    @property
    def config(self) -> dict[str, Any]:
        self._config = self._config or super().config
        return self._config

    def records(self, name: str) -> list[dict[str, Any]]:
        if name == "distributions":
            return super().records(name)
        if name not in self._read:
            self._read[name] = super().records(name)
        return self._read[name]


class Curve(NamedTuple):
    """Median, least and largest value over the seeds at each step; vectors of one length."""

    steps: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def below(self, top: float) -> Curve:
        """The curve with `top` for everything above it: a line to infinity can't be plotted."""
        return Curve(self.steps, *(np.minimum(values, top) for values in self[1:]))


@dataclass(frozen=True)
class Group:
    """The runs of one variant at one rate, a run a seed. `runs` is never empty."""

    variant: str
    lr: float
    runs: tuple[Run, ...]

    @property
    def colour(self) -> str:
        return colour(self.variant)

    @property
    def on_cifar10(self) -> bool:
        """Whether it was trained on the paper's data set, so that its VGG curves can be beside."""
        return self.runs[0].config["settings"].get("data") == "cifar10"

    def records(self, stream: str, **wanted: Any) -> list[list[dict[str, Any]]]:
        """A list for each seed that has records of the stream with these values of their keys."""
        found = [
            [r for r in run.records(stream) if all(r.get(k) == v for k, v in wanted.items())]
            for run in self.runs
        ]
        return [records for records in found if records]


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """By rate, then variant in the order of COLOURS, then seed."""
    found: dict[tuple[float, str], dict[int, Run]] = {}
    for run in runs:
        config = run.config
        found.setdefault((config["lr"], config["variant"]), {})[config["seed"]] = run
    return [
        Group(variant, lr, tuple(seeds[s] for s in sorted(seeds)))
        for lr in sorted({rate for rate, _ in found})
        for variant in in_order(v for rate, v in found if rate == lr)
        if (seeds := found[lr, variant])
    ]


def without_copies(runs: Iterable[Run]) -> list[Run]:
    """One run for each (variant, rate, seed): studies may hold the same one, the first counts."""
    by_name: dict[str, Run] = {}
    for run in runs:
        by_name.setdefault(run.name, run)
    return list(by_name.values())


def main_rate(groups: Sequence[Group]) -> float:
    """The rate at which most variants were trained; of several, the paper's, else the lowest."""
    rates = [group.lr for group in groups]
    return max(rates, key=lambda lr: (rates.count(lr), lr == paper.RATE, -lr))


def over_seeds(curves: Iterable[tuple[Sequence[float], Sequence[float] | np.ndarray]]) -> Curve:
    """Curves (steps, values), one a seed, as one. Each step counts the seeds that have it (one may
    have stopped early); NaN is left out."""
    at: dict[float, list[float]] = {}
    for steps, values in curves:
        for step, value in zip(steps, values, strict=True):
            if not np.isnan(value):
                at.setdefault(float(step), []).append(float(value))
    steps = sorted(at)
    columns = [(np.median(at[s]), np.min(at[s]), np.max(at[s])) for s in steps]
    median, low, high = np.array(columns, np.float64).reshape(-1, 3).T
    return Curve(np.array(steps), median, low, high)


def over_training(steps: Sequence[float], values: Sequence[float] | np.ndarray) -> float:
    """The median over training of values measured at some steps, each of which counts for the steps
    up to the next: so a schedule that is dense at the start does not weigh the start more."""
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    finite = np.asarray(values, np.float64)[known]
    order = np.argsort(finite)
    below = np.cumsum(stands_for(np.asarray(steps)[known])[order])
    return float(finite[order][np.searchsorted(below, below[-1] / 2)])


def stands_for(steps: Sequence[float] | np.ndarray) -> np.ndarray:
    """How many steps each of some ascending ones stands for: those up to the next; the last as many
    as the one before it."""
    at = np.asarray(steps, np.float64)
    return np.append(np.diff(at), at[-1] - at[-2]) if len(at) > 1 else np.ones(len(at))


def second_half(steps: Sequence[int], values: np.ndarray) -> float:
    """The mean over the second half of training; nan without a value."""
    late = values[np.asarray(steps) >= steps[-1] / 2]
    late = late[~np.isnan(late)]
    return float(late.mean()) if len(late) else float("nan")


def line_width(variant: str, beside: Iterable[str]) -> float:
    """In points. BatchNorm's line is wider beside l2's, which is plotted later and may hide it."""
    return 3.2 if variant == "batchnorm" and "l2" in beside else 1.3


def plot_curve(axes: Any, curve: Curve, colour: str, **style: Any) -> None:
    """The median over seeds as a line, and a band from the least to the largest; of a single step a
    point and a bar."""
    style = {"linewidth": 1.3, **style, **visible(curve.steps)}
    axes.plot(curve.steps, curve.median, color=colour, **style)
    if (curve.high > curve.low).any():
        fill_band(axes, curve.steps, curve.low, curve.high, colour, alpha=0.18)


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """The median over seeds as text, with the least and the largest where they differ from it."""
    known = [v for v in values if not np.isnan(v)]
    if not known:
        return ""
    middle, low, high = (f"{v:{form}}" for v in (np.median(known), min(known), max(known)))
    return middle if low == middle == high else f"{middle} ({low} to {high})"


def seeds_of(groups: Sequence[Group], band: str = "band: least to largest") -> str:
    """The seeds in a figure, for its title: the only one, or how many, and what their band is."""
    seeds = {run.config["seed"] for group in groups for run in group.runs}
    counts = {len(group.runs) for group in groups}
    if counts == {1}:
        return f"seed {seeds.pop()}" if len(seeds) == 1 else "one seed each"
    many = f"n = {counts.pop()} seeds" if len(counts) == 1 else "n seeds, see the legend"
    return f"median of {many}, {band}"


def middle_of(groups: Sequence[Group]) -> str:
    """What `plot_curve` shows of these seeds, for a title."""
    return seeds_of(groups) + in_precision(groups[0].runs[0].config["settings"])


def entries_of(groups: Sequence[Group]) -> list[Any]:
    """A line of a legend for each variant, with its number of seeds where they differ."""
    counts: dict[str, dict[float, int]] = {}
    for group in groups:
        counts.setdefault(group.variant, {})[group.lr] = len(group.runs)
    differ = len({n for of_rates in counts.values() for n in of_rates.values()}) > 1
    handles = []
    for variant, of_rates in counts.items():
        numbers = ", ".join(f"{n} at lr {lr:g}" for lr, n in of_rates.items())
        if len(set(of_rates.values())) == 1:
            numbers = f"{next(iter(of_rates.values()))}"
        label = f"{variant}, n = {numbers}" if differ else variant
        handles.append(entry(label, color=colour(variant), linewidth=2))
    return handles
