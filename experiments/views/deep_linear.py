"""Figures and tables of `deep_linear` studies, from their files.

Several studies must be of one network. Several seeds: the median, and a band from the least to the
largest.

loss.png                training loss, a panel a rate (Figs. 3b left, 5b)
shift.png               internal covariate shift of layers 9 and 17, a row a rate (Fig. 3b)
shift-layers.png        its median over training, for every layer
distributions.png       activations of layers 1, 11 and 24 over training (Fig. 9)
landscape-lr*.png, gradient-change-lr*.png    see `deep_linear_probes` (Figs. 10, 11b, 13)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import paper
from experiments.training.comparability import require_comparable
from experiments.training.study import Run, Study
from experiments.views import curvature, deep_linear_probes
from experiments.views.deep_linear_tables import (
    in_one_line,
    make_tables,
    shift_layers,
    summary,
)
from experiments.views.plotting import (
    DOTTED,
    PAPER,
    WIDEST,
    depth_note,
    entry,
    fan,
    heading,
    left_out,
    legend_below,
    log_limits,
    own_style,
    save,
    subplots,
)
from experiments.views.series import (
    Curve,
    Group,
    ReadOnce,
    entries_of,
    group_runs,
    line_width,
    middle_of,
    over_seeds,
    plot_curve,
    seeds_of,
    without_copies,
)
from experiments.views.shift import MEASURES, by_layer, of_layer
from experiments.views.step_axis import thousands
from experiments.views.tables import as_deep, write_summary
from minibn import checkpoint
from minibn.errors import DataError

THIN = 10  # a line of the loss has a point each so many steps
PAIR = ("standard", "batchnorm")  # of Fig. 3b


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw everything, write table.md and summary.json, and print tables and paths.

    Raises DataError if there are no results, or if the studies are not of one network.
    """
    out = out or studies[0].folder
    every = without_copies(run for study in studies for run in study.runs())
    runs: list[Run] = [ReadOnce(run.folder) for run in every]
    groups = group_runs(run for run in runs if run.records("metrics"))
    if not groups:
        raise DataError(f"{studies[0].folder} has no run with results yet.")
    require_comparable(studies, free=("steps",))  # curves may be of different lengths
    tables, line = make_tables(groups), in_one_line(groups)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(out / "table.md", "\n\n".join([*tables, line]) + "\n")
    write_summary(out / "summary.json", summary(studies[0].settings, groups))
    folder, depth = out / "figures", studies[0].settings["depth"]
    paths = [
        loss_figure(groups, folder),
        *shift_figure(groups, depth, folder),
        *layers_figure(groups, folder),
        *distribution_figure(groups, folder),
        *deep_linear_probes.plot(groups, folder),
        *curvature.plot(runs, folder),
    ]
    print(f"\n{tables[0]}\n\n{line}\n")
    print("\n".join(["Figures:", *map(str, paths)]))


def by_rate(groups: Sequence[Group]) -> dict[float, list[Group]]:
    """The largest rate first."""
    rates = sorted({group.lr for group in groups}, reverse=True)
    return {lr: [group for group in groups if group.lr == lr] for lr in rates}


def loss_curve(group: Group) -> Curve:
    seeds = [[r for r in s if r["step"] % THIN == 0] for s in group.records("metrics")]
    return over_seeds([([r["step"] for r in s], [r["loss"] for r in s]) for s in seeds])


def papers_loss(group: Group, last: float) -> tuple[list[float], list[float]]:
    """(steps, losses) that the paper shows of this variant at this rate, up to step `last`."""
    theirs = paper.DEEP_LINEAR_LOSS.get((group.variant, group.lr), ())
    points = [(s, v) for s, v in zip(paper.DEEP_LINEAR_STEPS, theirs, strict=False) if v]
    return [s for s, _ in points if s <= 1.05 * last], [v for s, v in points if s <= 1.05 * last]


def _losses(axes: Any, groups: Sequence[Group]) -> list[np.ndarray]:
    """Draw the losses of groups at one rate, and the paper's. Returns all that must be in view."""
    seen = []
    for group in groups:
        curve = loss_curve(group)
        width = line_width(group.variant, [g.variant for g in groups])
        plot_curve(axes, curve, group.colour, linewidth=width)
        theirs = papers_loss(group, curve.steps[-1])
        axes.plot(*theirs, color=group.colour, **PAPER, zorder=3)
        seen += [curve.low, curve.median, np.array(theirs[1])]
    axes.set(yscale="log", xlabel="step of training")
    return seen


@own_style()
def loss_figure(groups: Sequence[Group], folder: Path) -> Path:
    """Fig. 5b, and the left of Fig. 3b: training loss, a panel a rate."""
    rates = by_rate(groups)
    figure, (row,) = subplots(
        1, len(rates), figsize=(min(WIDEST, 1 + 4.8 * len(rates)), 4.2), sharey=True, squeeze=False
    )
    seen = []
    for axes, (lr, found) in zip(row, rates.items(), strict=True):
        seen += _losses(axes, found)
        axes.set_title(f"lr {lr:g}")
    row[0].set(ylim=log_limits([], seen), ylabel="loss: squared error, summed over samples")
    handles = [*entries_of(groups), entry("the paper's", **PAPER)]
    levels = {tuple(run.config["rank_losses"]) for group in groups for run in group.runs}
    if len(levels) == 1:  # one seed, one problem
        handles.append(_rank_levels(row, levels.pop()))
    legend_below(figure, handles, f"Training loss ({middle_of(groups)})", columns=4)
    return save(figure, folder, "loss")


def _rank_levels(row: Sequence[Any], losses: Sequence[float]) -> Any:
    """Lines at the losses of the best maps of each rank. Returns their handle of the legend."""
    style = {"color": "0.6", "linewidth": 0.7, "linestyle": "-.", "zorder": 1}
    low, high = row[0].get_ylim()
    for axes in row:
        for rank, loss in enumerate(losses):
            if low < loss < high:
                axes.axhline(loss, **style)
                place = (1.01, loss)
                transform = axes.get_yaxis_transform()
                axes.text(*place, f"{rank}", transform=transform, fontsize=8, va="center")
    return entry("best map of that rank: a saddle", **style)


@own_style()
def shift_figure(groups: Sequence[Group], depth: int, folder: Path) -> list[Path]:
    """Fig. 3b: standard and batchnorm, a row a rate."""
    found = [g for g in groups if g.records("shift") and g.variant in PAIR]
    rates, layers = by_rate(found), shift_layers(depth)
    if not found:
        return []
    figure, grid = subplots(
        len(rates), 1 + 2 * len(layers), figsize=(WIDEST, 1.0 + 2.3 * len(rates)), sharex=True,
        sharey="col", squeeze=False,
    )  # fmt: skip
    curves: dict[str, list[Any]] = {"loss": [], "l2": []}  # all that must be in view
    for row, (lr, pair) in zip(grid, rates.items(), strict=True):
        curves["loss"] += _losses(row[0], pair)
        row[0].set(xlabel="", ylabel=f"lr {lr:g}")
        row[0].set_title("training loss")
        panels = [(m, layer, k) for m in ("l2", "cosine") for layer, k in layers.items()]
        for axes, (measure, layer, k) in zip(row[1:], panels, strict=True):
            curves.setdefault(measure, []).extend(_shift(axes, pair, measure, layer, k))
            axes.set_title(f"{MEASURES[measure]}\nlayer {as_deep(layer, k)}")
        for axes in row:
            thousands(axes)
    for axes in grid[-1]:
        axes.set_xlabel("step of training")
    grid[0][0].set_ylim(log_limits([], curves["loss"]))
    shown = ((lr, l2) for (_, lr, _), (l2, _) in paper.DEEP_LINEAR_SHIFT.items())
    levels = [np.array([l2]) for lr, l2 in shown if lr in rates and l2 is not None]
    for row in grid:  # one scale for both layers
        for axes in row[1 : 1 + len(layers)]:
            axes.set_ylim(log_limits(curves["l2"], levels))
        for axes in (*row[2 : 1 + len(layers)], *row[2 + len(layers) :]):
            axes.tick_params(labelleft=False)
    text = "the paper's: median of l2 over training, mean cosine of its second half"
    handles = [*entries_of(found), entry("the paper's loss", **PAPER), entry(text, **DOTTED)]
    everything = {g.variant for g in groups if g.records("shift")}
    others = left_out({g.variant for g in found}, everything, "shift-layers.png")
    title = heading(
        [f"Internal covariate shift, Definition 2.1 ({middle_of(found)}; ideal: l2 0, cosine 1)"],
        [depth_note(layers), others],
    )
    legend_below(figure, handles, title)
    return [save(figure, folder, "shift")]


def _shift(
    axes: Any, groups: Sequence[Group], measure: str, layer: int, k: int
) -> list[np.ndarray]:
    """Draw one measure of a layer, and the paper's. Returns all that must be in view."""
    seen = []
    for group in groups:
        seeds = of_layer(group, layer, measure)
        if measure == "l2":  # zeros, as in layer 1, are below a logarithmic axis
            seeds = [(steps, np.where(values > 0, values, np.nan)) for steps, values in seeds]
        curve = over_seeds(seeds)
        plot_curve(axes, curve, group.colour, linewidth=0.9)
        seen += [curve.low, curve.high]
        theirs = paper.DEEP_LINEAR_SHIFT.get((group.variant, group.lr, k), (None, None))
        level = theirs[("l2", "cosine").index(measure)]
        if level is not None and len(curve.steps):
            axes.plot(curve.steps[[0, -1]], [level, level], color=group.colour, **DOTTED, zorder=3)
            seen.append(np.array([level]))
    axes.set(yscale="log") if measure == "l2" else axes.set_ylim(-1.08, 1.08)
    return seen


@own_style()
def layers_figure(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Covariate shift of every layer: the median over training, in both senses."""
    found = [group for group in groups if group.records("shift")]
    if not found:
        return []
    rates = by_rate(found)
    measures = {
        "relative": "‖G - G'‖ / ‖G‖",
        "cosine": "cosine of G and G'",
        "wasserstein": "Wasserstein distance",
    }
    figure, grid = subplots(
        len(rates), 3, figsize=(WIDEST, 1.0 + 2.4 * len(rates)), sharex=True, sharey="col",
        squeeze=False,
    )  # fmt: skip
    seen: dict[str, list[np.ndarray]] = {measure: [] for measure in measures}
    for row, (lr, of_rate) in zip(grid, rates.items(), strict=True):
        for axes, measure in zip(row, measures, strict=True):
            curves = [by_layer(group, measure) for group in of_rate]
            for group, curve in zip(of_rate, curves, strict=True):
                width = line_width(group.variant, [g.variant for g in of_rate])
                plot_curve(axes, curve, group.colour, marker=".", linewidth=width)
            if measure == "cosine":
                axes.set_ylim(-1.08, 1.08)
            else:
                seen[measure] += [v for c in curves for v in c[1:]]
                axes.set(yscale="log", ylim=log_limits([], seen[measure]))
        row[0].set_ylabel(f"lr {lr:g}\nmedian over training")
    for axes, label in zip(grid[0], measures.values(), strict=True):
        axes.set_title(label)
    for axes in grid[-1]:
        axes.set_xlabel("layer")
    title = (
        f"Covariate shift of every layer from a step to the next ({middle_of(found)})\n"
        "left: Definition 2.1, 0 in layer 1; right: of what the layer hands to the next"
    )
    legend_below(figure, entries_of(found), title)
    return [save(figure, folder, "shift-layers")]


@own_style()
def distribution_figure(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Fig. 9: the distribution of one unit of three layers over training, of the first seed at the
    highest rate."""
    first = next(iter(by_rate(groups).values()))
    found = {group: group.runs[0].records("distributions") for group in first}
    found = {g: [r for r in records if "quantiles" in r] for g, records in found.items()}
    layers = sorted({r["layer"] for records in found.values() for r in records})
    if not layers:
        return []
    figure, grid = subplots(
        len(layers), len(found),
        figsize=(min(WIDEST, 1 + 2.7 * len(found)), 0.9 + 1.6 * len(layers)),
        sharex=True, sharey="row", squeeze=False,
    )  # fmt: skip
    for axes, group in zip(grid[0], found, strict=True):
        axes.set_title(group.variant, color=group.colour)
    for row, layer in zip(grid, layers, strict=True):
        for axes, (group, records) in zip(row, found.items(), strict=True):
            seen = [r for r in records if r["layer"] == layer]
            fan(axes, [r["step"] for r in seen], np.array([r["quantiles"] for r in seen]),
                group.colour)  # fmt: skip
        units = {r["unit"] for records in found.values() for r in records if r["layer"] == layer}
        row[0].set_ylabel(f"layer {layer}, unit {'/'.join(map(str, sorted(units)))}\nactivation")
        for axes in row:
            thousands(axes)
    for axes in grid[-1]:
        axes.set_xlabel("step of training")
    seed = seeds_of([Group(group.variant, group.lr, group.runs[:1]) for group in found])
    title = heading(
        [f"Activations of one unit over the samples, lr {first[0].lr:g}, {seed}"],
        ["median and 50, 90, 98 %"],
        [left_out((group.variant for group in found), (group.variant for group in groups))],
    )
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return [save(figure, folder, "distributions")]
