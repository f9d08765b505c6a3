"""The loss landscape along a training, from landscape.jsonl of its runs.

landscape-lr0.1.png            loss, gradient change and effective beta of two variants (Fig. 4)
landscape-variants-lr0.1.png   the same for every variant, a column each (Figs. 12b to 12d)

A file a rate and direction; none without records. A record is a probe from one point of one
training: "least to largest" is over its step sizes. Where these hold the paper's, 1/2, 1, 2 and 4
times the rate, it is over the paper's alone, and the paper's curves stand beside it; else over all
sizes that the runs have in common. The axis of steps is linear, with the first hundred at the left
of a panel. Values above a panel are among the largest 1 % of it, or not finite. Dotted with
markers: the paper's digitised curves, upward for the largest, downward for the least.
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
    LARGEST,
    LEAST,
    PAPER,
    WIDEST,
    entry,
    fill_band,
    heading,
    left_out,
    legend_below,
    log_limits,
    own_style,
    plain_numbers,
    save,
    subplots,
    visible,
)
from experiments.views.series import (
    Curve,
    Group,
    entries_of,
    group_runs,
    over_seeds,
    plot_curve,
    seeds_of,
    stands_for,
)
from experiments.views.step_axis import step_axes, strip_note
from experiments.views.step_sizes import (
    CHANGE,
    LOSS,
    probes_of,
    sizes_in_words,
    sizes_to_show,
)

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


def band(group: Group, key: str, direction: str = "gradient", sizes: Sequence[float] = ()) -> Band:
    """The least and the largest value over the step sizes, as curves over the seeds."""
    seeds = probes_of(group, direction, sizes)
    steps = [[r["step"] for r in s] for s in seeds]
    probes = [[float_array(r[key], np.inf) for r in s] for s in seeds]
    low = over_seeds([(at, [v.min() for v in s]) for at, s in zip(steps, probes, strict=True)])
    high = over_seeds([(at, [v.max() for v in s]) for at, s in zip(steps, probes, strict=True)])
    return low, high


def effective_beta(group: Group, direction: str = "gradient", sizes: Sequence[float] = ()) -> Curve:
    """The largest beta of each probe, over the seeds."""
    return band(group, "beta", direction, sizes)[1]


def share(
    group: Group, flag: str, direction: str = "gradient", sizes: Sequence[float] = ()
) -> float:
    """The share of training with this flag ("saturated", "at_ceiling"): each probe counts for the
    steps up to the next one. The mean over the seeds."""
    seeds = probes_of(group, direction, sizes)
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
        sizes = sizes_to_show(groups, direction)
        figure, row = subplots(1, 3, figsize=(WIDEST, 4.2))
        _panels([list(row)] * len(pair), pair, direction, sizes)
        for axes, title, label in zip(row, TITLES, LABELS, strict=True):
            axes.set(title=title, ylabel=label, xlabel="step of training")
        handles = entries_of(pair)
        for handle, group in zip(handles, pair, strict=True):
            part = share(group, "saturated", direction, sizes)
            handle.set_label(f"{handle.get_label()} (beta saturated in {part:.0%} of training)")
        handles += _references(pair, direction, sizes)
        where = file_name("landscape-variants", lr, direction) + ".png"
        others = left_out((g.variant for g in pair), (g.variant for g in groups), where)
        legend_below(figure, handles, _title(pair, direction, sizes, others), columns=3)
        paths.append(save(figure, folder, file_name("landscape", lr, direction)))
    return paths


@own_style()
def plot_all_landscapes(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Fig. 12: a column a variant, on common scales. Nothing where Fig. 4 shows them all."""
    paths = []
    for (lr, direction), groups in probe_groups(runs).items():
        if len(groups) < 3:
            continue
        sizes = sizes_to_show(groups, direction)
        size = (max(WIDEST, 1.4 * len(groups)), 6.0)
        figure, grid = subplots(
            3, len(groups), figsize=size, sharex=True, sharey="row", squeeze=False
        )
        _panels([list(column) for column in grid.T], groups, direction, sizes)
        handles = entries_of(groups)
        for axes, group, handle in zip(grid[0], groups, handles, strict=True):
            name = handle.get_label().replace("-", "-\n").replace(", ", "\n")
            axes.set_title(name, color=group.colour)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        for axes, label in zip(grid[:, 0], OF_ROWS, strict=True):
            axes.set_ylabel(label)
        handles = _references(groups, direction, sizes)
        legend_below(figure, handles, _title(groups, direction, sizes), columns=3)
        paths.append(save(figure, folder, file_name("landscape-variants", lr, direction)))
    return paths


def _title(
    groups: Sequence[Group], direction: str, sizes: Sequence[float], others: str = ""
) -> str:
    seeds = probes_of(groups[0], direction)
    last = max(r["step"] for s in seeds for r in s)
    who = seeds_of(groups, "paler: all of them")
    who += in_precision(groups[0].runs[0].config["settings"])
    return heading(
        [f"Walks along {WAYS[direction]}, lr {groups[0].lr:g} ({who})"],
        [f"from the least to the largest over {sizes_in_words(sizes, seeds[0][0])}"],
        [strip_note(last), others],
    )


def _references(groups: Sequence[Group], direction: str, sizes: Sequence[float]) -> list[Any]:
    """Legend entries for the grey lines and for the paper's curves."""
    lr = groups[0].lr
    lines = [entry(text, linestyle="--", linewidth=1) for text in _levels(lr, sizes)]
    if not beside_the_paper(groups, direction, sizes):
        return lines
    if any(g.variant in paper.LOSS_RANGE for g in groups):
        lines.append(entry("the paper's largest (its loss: with a weight penalty)", **LARGEST))
        lines.append(entry("the paper's least", **LEAST))
    if any(g.variant in paper.CHANGE_AT_START.keys() - paper.CHANGE_RANGE for g in groups):
        lines.append(entry("the paper's at step 0", **PAPER))
    return lines


def beside_the_paper(groups: Sequence[Group], direction: str, sizes: Sequence[float] = ()) -> bool:
    """Whether the paper shows probes like those of groups at one rate, over these step sizes
    (default: any)."""
    same = not sizes or (
        len(sizes) == len(paper.STEP_SIZES) and np.allclose(sizes, paper.STEP_SIZES, rtol=1e-5)
    )
    alike = groups[0].lr == paper.RATE and all(group.on_cifar10 for group in groups)
    return alike and direction == "gradient" and same


def _levels(lr: float, sizes: Sequence[float]) -> dict[str, float]:
    """Name -> value of the horizontal lines of the beta panels."""
    floor, edge = 1 / min(sizes), 2 / lr
    if np.isclose(floor, edge):
        return {f"1/(smallest step) = 2/lr = {edge:.3g}": edge}
    return {f"1/(smallest step) = {floor:.3g}": floor, f"2/lr = {edge:.3g}": edge}


def _panels(
    columns: list[list[Any]], groups: Sequence[Group], direction: str, sizes: Sequence[float]
) -> None:
    """Draw each group's three measures into its column of three axes (which may be the same)."""
    lr = groups[0].lr
    beside = beside_the_paper(groups, direction, sizes)
    known = {g.variant for g in groups} if beside else set()
    betas = [effective_beta(group, direction, sizes) for group in groups]
    last = max(curve.steps[-1] for curve in betas)
    in_view = sum(step <= last * 1.15 for step in paper.LANDSCAPE_STEPS)
    parts = {axes: step_axes(axes, last) for axes in {a for column in columns for a in column}}
    for i, key in enumerate((LOSS, CHANGE)):
        bands = [band(group, key, direction, sizes) for group in groups]
        theirs = [np.ravel(PAPERS[key][v][:in_view]) for v in known & set(PAPERS[key])]
        limits = log_limits((c.median for pair in bands for c in pair), theirs)
        for column, group, (low, high) in zip(columns, groups, bands, strict=True):
            for axes in parts[column[i]]:
                shade(axes, low, high, group.colour, limits)
                if beside:
                    _papers_band(axes, group, key)
            plain_numbers(column[i])
    theirs = [
        np.array(paper.EFFECTIVE_BETA[v][:in_view]) for v in known & set(paper.EFFECTIVE_BETA)
    ]
    levels = list(_levels(lr, sizes).values())
    limits = log_limits((curve.median for curve in betas), [*theirs, np.array(levels)])
    for column, group, curve in zip(columns, groups, betas, strict=True):
        for axes in parts[column[2]]:
            plot_curve(axes, curve.below(10 * limits[1]), group.colour)
            axes.set(yscale="log", ylim=limits)
            for level in levels:
                axes.axhline(level, color="0.35", linestyle="--", linewidth=1)
            if beside and group.variant in paper.EFFECTIVE_BETA:
                _papers(axes, group, paper.EFFECTIVE_BETA[group.variant], LARGEST)
        plain_numbers(column[2])


def shade(axes: Any, low: Curve, high: Curve, colour: str, limits: tuple[float, float]) -> None:
    """The band of the median seed, and paler that of all seeds. Infinity lies above the axis."""
    low, high = low.below(10 * limits[1]), high.below(10 * limits[1])
    fill_band(axes, low.steps, low.low, high.high, colour, alpha=0.15)
    fill_band(axes, low.steps, low.median, high.median, colour, alpha=0.4)
    for end in (low.median, high.median):
        axes.plot(low.steps, end, color=colour, linewidth=0.8, **visible(low.steps))
    axes.set(yscale="log", ylim=limits)


def _papers_band(axes: Any, group: Group, key: str) -> None:
    if group.variant in PAPERS[key]:
        for end, style in ((0, LEAST), (1, LARGEST)):
            _papers(axes, group, [pair[end] for pair in PAPERS[key][group.variant]], style)
    elif key == CHANGE and group.variant in paper.CHANGE_AT_START:
        axes.plot([0], [paper.CHANGE_AT_START[group.variant]], color=group.colour, **PAPER)


def _papers(axes: Any, group: Group, values: Sequence[float], style: dict[str, Any]) -> None:
    """Step 0 stands alone: a line to step 100 would show values that were not measured."""
    steps, values = [0, np.nan, *paper.LANDSCAPE_STEPS[1:]], [values[0], np.nan, *values[1:]]
    axes.plot(steps, values, color=group.colour, **style, zorder=3)
