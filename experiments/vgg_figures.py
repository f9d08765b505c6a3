"""Figures, table and verdict of `vgg_cifar` studies, from their files.

    python -m experiments.vgg_figures STUDY [STUDY ...] [--out DIR]

draws them again, for several studies (of one network on one data set) together; into the first one
unless --out says otherwise.

accuracy.png        training and test accuracy over the steps (Figs. 1a, 1b, 2 left)
norms-*.png         the same for one family of norms, with the paper's curves (Figs. 5a, 12a)
histograms-*.png    the distribution of a unit over training, for that family (Fig. 6)
distributions.png   what enters the ReLU of a layer, over training (Figs. 1c, 2 right)
drift.png           how its mean and variance move (Fig. 8), at the ReLU and at the norm's input
landscape, gradient-change, curvature, shift: see the modules of those names

A view whose records no run has is not drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import (
    curvature_figures,
    landscape_figures,
    norm_figures,
    paper,
    probe_tables,
    shift_figures,
)
from experiments.command_line import UsageError, parse, report, setting
from experiments.figures import colour, fan, legend_below, pyplot, save, smooth
from experiments.norm_figures import draw_accuracy
from experiments.series import ReadOnce, grouped, main_rate, middle_of, without_copies
from experiments.study import Run, Study
from experiments.vgg_tables import (
    against_the_paper,
    drift_table,
    first_seeds,
    first_units,
    make_table,
    make_verdict,
    require_alike,
    successive,
    summary,
    write_summary,
)
from minibn import checkpoint
from minibn.errors import DataError

PROGRAM = "python -m experiments.vgg_figures"
FOUR = ("standard", "batchnorm", "noisy-batchnorm", "noisy-standard")  # of Figs. 1, 2 and 8


def draw(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw everything, write table.md and summary.json, and print table, verdict and paths.

    Raises DataError if there are no results, or if the studies are not of one network and data set.
    """
    out = out or studies[0].folder
    every = without_copies(run for study in studies for run in study.runs())
    runs: list[Run] = [ReadOnce(run.folder) for run in every]
    runs = [run for run in runs if run.records("metrics") or run.result]
    if not runs:
        raise DataError(f"{studies[0].folder} has no run with results yet.")
    settings = studies[0].settings
    require_alike(studies)
    runs = [run for group in grouped(runs) for run in group.runs]
    window = max(1, settings["steps"] // 50)
    layers = paper.shown_layers(settings["model"])
    table, verdict = make_table(runs), make_verdict(runs)
    parts = (
        table,
        verdict,
        against_the_paper(runs),
        drift_table(runs, layers),
        probe_tables.landscape_table(runs),
        probe_tables.steps_table(runs),
        probe_tables.shift_table(runs),
    )
    text = "\n\n".join(part for part in parts if part)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(out / "table.md", text.rstrip() + "\n")
    write_summary(out / "summary.json", summary(settings, runs, window))
    folder = out / "figures"
    paths = [
        *accuracy_figure(runs, folder, window),
        *norm_figures.draw(runs, folder, window),
        *distribution_figure(runs, layers, folder),
        *drift_figure(runs, layers, folder),
        *shift_figures.draw(runs, folder),
        *landscape_figures.draw(runs, folder),
        *curvature_figures.draw(runs, folder),
    ]
    print(f"\n{table}\n\n{verdict}\n")
    print("\n".join(["Figures:", *map(str, paths)]))


def accuracy_figure(runs: list[Run], folder: Path, window: int) -> list[Path]:
    """All variants and rates: a colour a variant, a dash a rate, x where a run diverged."""
    groups = [group for group in grouped(runs) if group.records("metrics")]
    if not groups:
        return []
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), sharey=True)
    handles = draw_accuracy(axes, groups, window)
    title = f"Accuracy ({middle_of(groups)}; training: mean of the last {window} steps)"
    legend_below(figure, handles, title)
    return [save(figure, folder, "accuracy")]


def _title(layer: int, of_paper: int) -> str:
    return f"layer {layer}" + (f" (as deep as the paper's {of_paper})" if layer != of_paper else "")


def _recorded(runs: list[Run]) -> list[tuple[str, dict[tuple[int, str], list[dict[str, Any]]]]]:
    """(variant, its first units) of at most four variants: the paper's four if there are any."""
    first = {run.config["variant"]: run for run in first_seeds(runs)}
    shown = [variant for variant in FOUR if variant in first] or list(first)[:4]
    found = [(variant, first_units(first[variant])) for variant in shown]
    return [(variant, series) for variant, series in found if series]


def distribution_figure(runs: list[Run], layers: dict[int, int], folder: Path) -> list[Path]:
    """One panel a layer and variant: quantiles of one unit's values over the batch, by step."""
    recorded = _recorded(runs)
    if not recorded:
        return []
    plt = pyplot()
    figure, grid = plt.subplots(
        len(layers), len(recorded), figsize=(2.9 * len(recorded), 1.9 * len(layers)),
        sharex=True, squeeze=False,
    )  # fmt: skip
    for row, (layer, of_paper) in zip(grid, layers.items(), strict=True):
        for axes, (variant, series) in zip(row, recorded, strict=True):
            seen = [r for r in series.get((layer, "activation"), []) if "quantiles" in r]
            if seen:
                quantiles = np.array([r["quantiles"] for r in seen])
                fan(axes, [r["step"] for r in seen], quantiles, colour(variant))
        row[0].set_ylabel(_title(layer, of_paper).replace(" (", "\n("), fontsize=8)
    for axes, (variant, _) in zip(grid[0], recorded, strict=True):
        axes.set_title(variant, color=colour(variant))
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.suptitle(
        "what enters the ReLU of one unit: median and 50, 90, 98 % of its values (mind the "
        f"scales), lr {main_rate(grouped(runs)):g}, one seed",
        fontsize=10,
    )
    figure.tight_layout()
    return [save(figure, folder, "distributions")]


def drift_figure(runs: list[Run], layers: dict[int, int], folder: Path) -> list[Path]:
    """Fig. 8: how mean and variance change between successive steps, and since the first.

    Solid: at the activation; dotted: at the norm's input. After a BatchNorm the batch mean is
    beta and the variance gamma² by definition, so the dotted line is the fair comparison.
    """
    recorded = _recorded(runs)
    if not recorded:
        return []
    plt = pyplot()
    columns = [(moment, first) for moment in ("mean", "var") for first in (False, True)]
    names = {"mean": "mean", "var": "variance"}
    figure, grid = plt.subplots(
        len(layers), 4, figsize=(14, 1.9 * len(layers)), sharex=True, squeeze=False
    )
    for row, (layer, of_paper) in zip(grid, layers.items(), strict=True):
        for axes, (moment, first) in zip(row, columns, strict=True):
            for variant, series in recorded:
                for place, style in (("activation", "-"), ("norm_input", ":")):
                    records = series.get((layer, place), [])
                    steps, change = (_since_first if first else successive)(records, moment)
                    if steps:
                        name = variant + (": norm's input" if place == "norm_input" else "")
                        line = smooth(change, 3)
                        axes.plot(steps, line, style, color=colour(variant), label=name)
            axes.set_yscale("log")
            axes.minorticks_off()
            since = "since step 0" if first else "to the next step"
            axes.set_title(f"|change of {names[moment]}| {since}", fontsize=8)
        row[0].set_ylabel(_title(layer, of_paper).replace(" (", "\n("), fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    handles, _ = grid[0][0].get_legend_handles_labels()
    title = f"mean and variance of one unit, lr {main_rate(grouped(runs)):g}, one seed"
    legend_below(figure, handles, title, columns=6)
    return [save(figure, folder, "drift")]


def _since_first(records: list[dict[str, Any]], moment: str) -> tuple[list[int], list[float]]:
    """|moment(t) - moment(0)| for every recorded t after the first."""
    later = [r for r in records if r["step"] > 0]
    return [r["step"] for r in later], [
        max(abs(r[moment] - records[0][moment]), 1e-12) for r in later
    ]


@dataclass(frozen=True)
class Options:
    out: str | None = setting(None, "folder for figures, table and summary", kind=str)


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    folders = []
    while words and not words[0].startswith("-"):
        folders.append(Path(words.pop(0)))
    try:
        given = parse(
            Options,
            words,
            program=f"{PROGRAM} STUDY [STUDY ...]",
            description=str(__doc__).partition("\n\n")[0],
        )
        if not folders:
            raise UsageError(f"which study? {PROGRAM} runs/vgg_cifar/TIME")
        out = Path(given["out"]) if given.get("out") else None
        draw([Study.open(folder, "vgg_cifar", "STUDY") for folder in folders], out)
    except (UsageError, DataError, OSError) as error:
        return report(PROGRAM, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
