"""Distributions of single units over a training, from distributions.jsonl of its run.

distributions.png    what enters the ReLU of a layer: quantiles over training (Figs. 1c, 2 right)
drift.png            how its mean and variance move (Fig. 8), at the ReLU and at the norm's input
histograms-lp.png    histograms of a unit of a deep layer, of the l_p norms (Fig. 6)
histograms-others.png    and of norms that the paper does not try

All at the main rate, of the first seed. No file where nothing was recorded. Panels that are
compared have one scale: those of a layer (of histograms, all), of drift those of a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import paper
from experiments.training.settings import in_precision
from experiments.training.study import Run
from experiments.views.accuracy import groups_by_norm_family
from experiments.views.plotting import (
    PAPER,
    WIDEST,
    colour,
    depth_note,
    entry,
    fan,
    heading,
    left_out,
    legend_below,
    own_style,
    save,
    smooth,
    subplots,
    visible,
)
from experiments.views.series import Group, group_runs, main_rate, seeds_of
from experiments.views.tables import as_deep
from experiments.views.vgg_tables import first_seeds, first_units, successive

FOUR = ("standard", "batchnorm", "noisy-batchnorm", "noisy-standard")  # of Figs. 1, 2 and 8
FIG_6_LAYER = 11
RIDGES = 9  # histograms of a panel
PAPERS = {"mean": paper.DRIFT, "var": paper.VARIANCE_DRIFT}


def plot(runs: Sequence[Run], folder: Path) -> list[Path]:
    """All views of this module that the records allow. Returns the paths of the PNGs."""
    layers = paper.shown_layers(runs[0].config["settings"]["model"])
    paths = [*distribution_figure(runs, layers, folder), *drift_figure(runs, layers, folder)]
    for family, groups in groups_by_norm_family(group_runs(runs)).items():
        if family != "noise":  # the first figure shows it
            paths += histograms(groups, folder, f"histograms-{family}")
    return paths


Units = dict[tuple[int, str], list[dict[str, Any]]]  # (layer, place) -> records of one unit


def _first_units_by_variant(runs: Sequence[Run]) -> list[tuple[str, Units]]:
    """(variant, its first units) of at most four variants: the paper's four if there are any."""
    first = {run.config["variant"]: run for run in first_seeds(runs)}
    shown = [variant for variant in FOUR if variant in first] or list(first)[:4]
    found = [(variant, first_units(first[variant])) for variant in shown]
    return [(variant, series) for variant, series in found if series]


def _row_label(recorded: Sequence[tuple[str, Units]], layer: int, of_paper: int) -> str:
    """A layer, the paper's, and the unit that is shown."""
    units = {s[key][0]["unit"] for _, s in recorded for key in s if key[0] == layer and s[key]}
    unit = f"unit {units.pop()}" if len(units) == 1 else "one unit each"
    return f"layer {as_deep(layer, of_paper)}\n{unit}".replace(" (", "\n(")


def _which(runs: Sequence[Run], recorded: Sequence[tuple[str, Units]]) -> tuple[str, str]:
    """(the rate and the seed of a figure, the variants that it leaves out), for its title."""
    first = first_seeds(runs)
    shown = {variant for variant, _ in recorded}
    groups = [Group(r.config["variant"], r.config["lr"], (r,)) for r in first]
    seed = seeds_of([group for group in groups if group.variant in shown])
    text = f"lr {main_rate(group_runs(runs)):g}, {seed}"
    text += in_precision(runs[0].config["settings"])
    return text, left_out(shown, (r.config["variant"] for r in first))


@own_style()
def distribution_figure(runs: Sequence[Run], layers: dict[int, int], folder: Path) -> list[Path]:
    """One panel a layer and variant: quantiles of one unit's values over the batch, by step."""
    recorded = _first_units_by_variant(runs)
    if not recorded:
        return []
    figure, grid = subplots(
        len(layers), len(recorded), figsize=(WIDEST / 4 * len(recorded), 1.6 * len(layers)),
        sharex=True, sharey="row", squeeze=False,
    )  # fmt: skip
    for row, (layer, of_paper) in zip(grid, layers.items(), strict=True):
        for axes, (variant, series) in zip(row, recorded, strict=True):
            seen = [r for r in series.get((layer, "activation"), []) if "quantiles" in r]
            if seen:
                quantiles = np.array([r["quantiles"] for r in seen])
                fan(axes, [r["step"] for r in seen], quantiles, colour(variant))
        row[0].set_ylabel(_row_label(recorded, layer, of_paper))
    for axes, (variant, _) in zip(grid[0], recorded, strict=True):
        axes.set_title(variant, color=colour(variant))
    for axes in grid[-1]:
        axes.set_xlabel("step of training")
    which, others = _which(runs, recorded)
    title = heading(
        [f"What enters the ReLU of one unit a layer, {which}"],
        ["median and 50, 90, 98 % of its values over the batch", depth_note(layers)],
        [others],
    )
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return [save(figure, folder, "distributions")]


@own_style()
def drift_figure(runs: Sequence[Run], layers: dict[int, int], folder: Path) -> list[Path]:
    """Fig. 8: how mean and variance change between successive steps, and since the first.

    Solid: at the activation; dashed: at the norm's input. After a BatchNorm the batch mean is
    beta and the variance gamma² by definition, so the dashed line is the fair comparison. Dotted
    with markers: the paper's median over training, at the activation, to the next step.
    """
    recorded = _first_units_by_variant(runs)
    records_of_places = [records for _, series in recorded for records in series.values()]
    if not any(successive(records, "mean")[0] for records in records_of_places):
        return []  # of a single step, nothing changes
    columns = [(moment, first) for moment in ("mean", "var") for first in (False, True)]
    names, theirs = {"mean": "mean", "var": "variance"}, False
    figure, grid = subplots(
        len(layers), 4, figsize=(WIDEST, 0.6 + 1.4 * len(layers)), sharex=True, sharey="col",
        squeeze=False,
    )  # fmt: skip
    for row, (layer, of_paper) in zip(grid, layers.items(), strict=True):
        for axes, (moment, first) in zip(row, columns, strict=True):
            for variant, series in recorded:
                for place, style in (("activation", "-"), ("norm_input", "--")):
                    records = series.get((layer, place), [])
                    steps, change = (_since_first if first else successive)(records, moment)
                    if steps:
                        name = variant + (": norm's input" if place == "norm_input" else "")
                        look = {"color": colour(variant), **visible(steps)}
                        axes.plot(steps, smooth(change, 3), style, **look, label=name)
                if not first:
                    theirs |= _papers_median(
                        axes, runs, PAPERS[moment].get((variant, of_paper)), variant
                    )
            axes.set_yscale("log")
            axes.minorticks_off()
        row[0].set_ylabel(_row_label(recorded, layer, of_paper))
    for axes, (moment, first) in zip(grid[0], columns, strict=True):
        since = "since step 0" if first else "to the next step"
        axes.set_title(f"|change of {names[moment]}|\n{since}")
    for axes in grid[-1]:
        axes.set_xlabel("step of training")
    handles, _ = grid[0][0].get_legend_handles_labels()
    if theirs:
        text = "the paper's median at the activation"
        handles.append(entry(text, **PAPER))
    which, others = _which(runs, recorded)
    title = heading(
        [f"How mean and variance over the batch of one unit a layer change, {which}"],
        [depth_note(layers), others],
    )
    legend_below(figure, handles, title, columns=4)
    return [save(figure, folder, "drift")]


def _papers_median(axes: Any, runs: Sequence[Run], median: float | None, variant: str) -> bool:
    """Draw the paper's median change over the steps of ours. Returns whether there is one."""
    settings = runs[0].config["settings"]
    comparable = settings["data"] == "cifar10" and main_rate(group_runs(runs)) == paper.RATE
    if median is None or not comparable or not axes.lines:
        return False
    last = max(line.get_xdata()[-1] for line in axes.lines)
    axes.plot([0, last], [median, median], color=colour(variant), **PAPER, zorder=3)
    return True


def _since_first(records: list[dict[str, Any]], moment: str) -> tuple[list[int], list[float]]:
    """|moment(t) - moment(0)| at every recorded t after the first: not at the t + 1 behind it,
    which is there for the change to the next step and would make pairs of points."""
    recorded = {r["step"] for r in records}
    later = [r for r in records if r["step"] > 0 and r["step"] - 1 not in recorded]
    return [r["step"] for r in later], [
        max(abs(r[moment] - records[0][moment]), 1e-12) for r in later
    ]


@own_style()
def histograms(groups: Sequence[Group], folder: Path, name: str) -> list[Path]:
    """Fig. 6: what enters the ReLU of one unit, a histogram a step, later ones higher up."""
    layer = _layer(groups[0].runs[0])
    found = []
    for group in groups:
        records = first_units(group.runs[0]).get((layer, "activation"), [])
        if seen := [r for r in records if "histogram" in r]:
            found.append((group, seen))
    if not found:
        return []
    figure, row = subplots(
        1, len(found), figsize=(WIDEST / 5 * max(2, len(found)), 4.2), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axes, (group, seen) in zip(row[0], found, strict=True):
        _ridges(axes, seen, group.colour)
        axes.set_title(group.variant, color=group.colour)
        axes.set_xlabel("value")
    row[0][0].set_ylabel("step of training")
    units = {seen[0]["unit"] for _, seen in found}
    unit = f"unit {units.pop()}" if len(units) == 1 else "one unit"
    seed = seeds_of([Group(group.variant, group.lr, group.runs[:1]) for group, _ in found])
    title = heading(
        [f"What enters the ReLU of {unit} of layer {as_deep(layer, FIG_6_LAYER)}, over the batch"],
        [
            f"lr {groups[0].lr:g}, {seed}{in_precision(groups[0].runs[0].config['settings'])}",
            "heights: shares of the fullest bin",
        ],
        [left_out((group.variant for group, _ in found), (group.variant for group in groups))],
    )
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return [save(figure, folder, name)]


def _layer(run: Run) -> int:
    """The layer of this network that stands for the paper's layer of Fig. 6."""
    layers = paper.shown_layers(run.config["settings"]["model"])
    return next(layer for layer, of_paper in layers.items() if of_paper == FIG_6_LAYER)


def _ridges(axes: Any, records: list[dict[str, Any]], shade: str) -> None:
    """Histograms of equal height, each on a line of its own; 98 % of all values in view, and of
    panels that share their scale those of all."""
    places = np.unique(np.linspace(0, len(records) - 1, RIDGES).round().astype(int))
    chosen = [records[i] for i in places]
    ends = [(r["quantiles"][0], r["quantiles"][-1]) for r in chosen]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    margin = 0.05 * (high - low) or 1.0
    for i, record in enumerate(chosen):
        counts = np.array(record["histogram"], np.float64)
        first, last = record["range"]
        edges = np.linspace(first, last, len(counts) + 1)
        shares = counts / counts.max()
        heights = i + 1.4 * np.append(shares, shares[-1])
        axes.fill_between(
            edges, i, heights, step="post", color=shade, alpha=0.55, linewidth=0, zorder=-i
        )
        axes.step(edges, heights, where="post", color=shade, linewidth=0.7, zorder=-i)
    before = axes.get_xlim() if axes.get_autoscalex_on() is False else (np.inf, -np.inf)
    axes.set_xlim(min(before[0], low - margin), max(before[1], high + margin))
    axes.set_yticks(range(len(chosen)), [str(r["step"]) for r in chosen])
    axes.grid(axis="y", alpha=0)
