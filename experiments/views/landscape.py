"""The loss landscape along a training, from landscape.jsonl of its runs.

landscape-lr0.1.png            loss, gradient change and effective beta of two variants (Fig. 4)
landscape-variants-lr0.1.png   the same for every variant, a column each (Figs. 12b to 12d)

A file a rate and direction; none without records. A record is a probe from one point of one
training: "least to largest" is over its step sizes. Steps are on an axis that is linear up to 1 and
logarithmic from there, since the first steps differ most. Values above a panel are among the
largest 1 % of it, or not finite. Dotted with markers: the paper's digitised curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import paper
from experiments.training.json_files import float_array
from experiments.training.settings import in_precision
from experiments.training.study import Run
from experiments.views.plotting import (
    PAPER,
    WIDEST,
    early_steps,
    entry,
    legend_below,
    log_limits,
    own_style,
    plain_numbers,
    save,
    subplots,
)
from experiments.views.series import (
    Curve,
    Group,
    group_runs,
    over_seeds,
    plot_curve,
    seeds_of,
    stands_for,
)

LOSS, CHANGE = "losses", "gradient_change"
PAPERS: dict[str, dict[str, Any]] = {LOSS: paper.LOSS_RANGE, CHANGE: paper.CHANGE_RANGE}
TITLES = ("loss along the probe", "change of the gradient along the probe", "effective beta")
LABELS = ("loss (nats)", "‖∇L(w - ηd) - ∇L(w)‖ (l2)", "largest ‖change‖ / ‖ηd‖")
OF_ROWS = (
    "loss along\nthe probe (nats)",
    "gradient's change\nalong the probe (l2)",
    "effective\nbeta",
)
WAYS = {
    "gradient": "the gradient",
    "random": "random directions",
    "filter": "random directions, filter by filter as long as the weights",
}
Band = tuple[Curve, Curve]  # the least over the step sizes, and the largest


def plot(runs: Sequence[Run], folder: Path) -> list[Path]:
    """All views of this module that the records allow. Returns the paths of the PNGs."""
    return [*plot_landscape(runs, folder), *plot_all_landscapes(runs, folder)]


def probe_groups(runs: Sequence[Run]) -> dict[tuple[float, str], list[Group]]:
    """(rate, direction) -> the groups whose probes went that way."""
    found: dict[tuple[float, str], list[Group]] = {}
    for group in group_runs(runs):
        directions = {r["direction"] for records in group.records("landscape") for r in records}
        for direction in sorted(directions):
            found.setdefault((group.lr, direction), []).append(group)
    return found


def band(group: Group, key: str, direction: str = "gradient") -> Band:
    """The least and the largest value over the step sizes, as curves over the seeds."""
    seeds = group.records("landscape", direction=direction)
    steps = [[r["step"] for r in s] for s in seeds]
    probes = [[float_array(r[key], np.inf) for r in s] for s in seeds]
    low = over_seeds([(at, [v.min() for v in s]) for at, s in zip(steps, probes, strict=True)])
    high = over_seeds([(at, [v.max() for v in s]) for at, s in zip(steps, probes, strict=True)])
    return low, high


def effective_beta(group: Group, direction: str = "gradient") -> Curve:
    """The largest beta of each probe, over the seeds."""
    return band(group, "beta", direction)[1]


def share(group: Group, flag: str, direction: str = "gradient") -> float:
    """The share of training with this flag ("saturated", "at_ceiling"): each probe counts for the
    steps up to the next one. The mean over the seeds."""
    seeds = group.records("landscape", direction=direction)
    shares = [
        np.average([bool(r[flag]) for r in s], weights=stands_for([r["step"] for r in s]))
        for s in seeds
    ]
    return float(np.mean(shares))


def file_name(view: str, lr: float, direction: str = "gradient") -> str:
    return view + ("" if direction == "gradient" else f"-{direction}") + f"-lr{lr:g}"


@own_style()
def plot_landscape(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Fig. 4: standard beside batchnorm (of other studies: the first three variants)."""
    paths = []
    for (lr, direction), groups in probe_groups(runs).items():
        pair = [g for g in groups if g.variant in ("standard", "batchnorm")]
        pair = pair if len(pair) == 2 else groups[:3]
        figure, row = subplots(1, 3, figsize=(WIDEST, 4.0))
        _panels([list(row)] * len(pair), pair, lr, direction)
        for axes, title, label in zip(row, TITLES, LABELS, strict=True):
            axes.set(title=title, ylabel=label, xlabel="step of training")
        shares = {g: share(g, "saturated", direction) for g in pair}
        handles = [
            entry(f"{g.variant} (beta saturated in {part:.0%} of training)", color=g.colour)
            for g, part in shares.items()
        ]
        handles += _references(pair, lr, direction)
        legend_below(figure, handles, _title(pair, lr, direction), columns=3)
        paths.append(save(figure, folder, file_name("landscape", lr, direction)))
    return paths


@own_style()
def plot_all_landscapes(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Fig. 12: a column a variant, on common scales. Nothing where Fig. 4 shows them all."""
    paths = []
    for (lr, direction), groups in probe_groups(runs).items():
        if len(groups) < 3:
            continue
        size = (max(WIDEST, 1.4 * len(groups)), 5.8)
        figure, grid = subplots(
            3, len(groups), figsize=size, sharex=True, sharey="row", squeeze=False
        )
        _panels([list(column) for column in grid.T], groups, lr, direction)
        for axes, group in zip(grid[0], groups, strict=True):
            axes.set_title(group.variant.replace("-", "-\n"), color=group.colour)
        for axes in grid[-1]:
            axes.set_xlabel("step of training")
        for axes, label in zip(grid[:, 0], OF_ROWS, strict=True):
            axes.set_ylabel(label)
        handles = _references(groups, lr, direction)
        legend_below(figure, handles, _title(groups, lr, direction), columns=3)
        paths.append(save(figure, folder, file_name("landscape-variants", lr, direction)))
    return paths


def _title(groups: Sequence[Group], lr: float, direction: str) -> str:
    sizes = groups[0].records("landscape", direction=direction)[0][0]["step_sizes"]
    seeds = seeds_of(groups)
    who = seeds if seeds == "one seed" else f"median of {seeds}, paler: all of them"
    who += in_precision(groups[0].runs[0].config["settings"])
    return (
        f"Walks along {WAYS[direction]}, lr {lr:g} ({who})\n"
        f"from the least to the largest over the step sizes {', '.join(f'{x:g}' for x in sizes)}"
    )


def _references(groups: Sequence[Group], lr: float, direction: str) -> list[Any]:
    """Legend entries for the grey lines and for the paper's curves."""
    lines = [entry(text, linestyle="--", linewidth=1) for text in _levels(groups, lr, direction)]
    if beside_the_paper(lr, direction) and any(g.variant in paper.LOSS_BAND for g in groups):
        text = "the paper's (its loss holds a weight penalty of about 2 at the start)"
        lines.append(entry(text, **PAPER))
    return lines


def beside_the_paper(lr: float, direction: str) -> bool:
    """Whether the paper shows probes of this kind."""
    return lr == paper.RATE and direction == "gradient"


def _levels(groups: Sequence[Group], lr: float, direction: str) -> dict[str, float]:
    """Name -> value of the horizontal lines of the beta panels."""
    smallest = min(groups[0].records("landscape", direction=direction)[0][0]["step_sizes"])
    floor, edge = 1 / smallest, 2 / lr
    if np.isclose(floor, edge):
        return {f"1/(smallest step) = 2/lr = {edge:.3g}": edge}
    return {f"1/(smallest step) = {floor:.3g}": floor, f"2/lr = {edge:.3g}": edge}


def _panels(columns: list[list[Any]], groups: Sequence[Group], lr: float, direction: str) -> None:
    """Draw each group's three measures into its column of three axes (which may be the same)."""
    beside = beside_the_paper(lr, direction)
    known = {g.variant for g in groups} if beside else set()
    betas = [effective_beta(group, direction) for group in groups]
    last = max(curve.steps[-1] for curve in betas)
    in_view = sum(step <= last * 1.15 for step in paper.LANDSCAPE_STEPS)
    for i, key in enumerate((LOSS, CHANGE)):
        bands = [band(group, key, direction) for group in groups]
        theirs = [np.ravel(PAPERS[key][v][:in_view]) for v in known & set(PAPERS[key])]
        limits = log_limits((c.median for pair in bands for c in pair), theirs)
        for column, group, (low, high) in zip(columns, groups, bands, strict=True):
            shade(column[i], low, high, group.colour, limits)
            plain_numbers(column[i])
            if beside:
                _papers_band(column[i], group, key)
    theirs = [
        np.array(paper.EFFECTIVE_BETA[v][:in_view]) for v in known & set(paper.EFFECTIVE_BETA)
    ]
    levels = list(_levels(groups, lr, direction).values())
    limits = log_limits((curve.median for curve in betas), [*theirs, np.array(levels)])
    for column, group, curve in zip(columns, groups, betas, strict=True):
        plot_curve(column[2], curve.below(10 * limits[1]), group.colour)
        column[2].set(yscale="log", ylim=limits)
        plain_numbers(column[2])
        for level in levels:
            column[2].axhline(level, color="0.35", linestyle="--", linewidth=1)
        if beside and group.variant in paper.EFFECTIVE_BETA:
            _papers(column[2], group, paper.EFFECTIVE_BETA[group.variant])
    for axes in (axes for column in columns for axes in column):
        early_steps(axes, last)


def shade(axes: Any, low: Curve, high: Curve, colour: str, limits: tuple[float, float]) -> None:
    """The band of the median seed, and paler that of all seeds. Infinity lies above the axis."""
    low, high = low.below(10 * limits[1]), high.below(10 * limits[1])
    axes.fill_between(low.steps, low.low, high.high, color=colour, alpha=0.15, linewidth=0)
    axes.fill_between(low.steps, low.median, high.median, color=colour, alpha=0.4, linewidth=0)
    for end in (low.median, high.median):
        axes.plot(low.steps, end, color=colour, linewidth=0.8)
    axes.set(yscale="log", ylim=limits)


def _papers_band(axes: Any, group: Group, key: str) -> None:
    if group.variant in PAPERS[key]:
        for end in (0, 1):
            _papers(axes, group, [pair[end] for pair in PAPERS[key][group.variant]])
    elif key == CHANGE and group.variant in paper.CHANGE_AT_START:
        axes.plot([0], [paper.CHANGE_AT_START[group.variant]], color=group.colour, **PAPER)


def _papers(axes: Any, group: Group, values: Sequence[float]) -> None:
    """Step 0 stands alone: a line to step 100 would show values that were not measured."""
    steps, values = [0, np.nan, *paper.LANDSCAPE_STEPS[1:]], [values[0], np.nan, *values[1:]]
    axes.plot(steps, values, color=group.colour, **PAPER, zorder=3)
