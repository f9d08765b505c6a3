"""Figures, tables and summary of `learning_rates` studies, from their files.

Several studies must be of one network on one data set.

learning_rates.png   accuracy against the rate, and the outcome of each run
divergence.png       mean and variance of the layers' outputs in the last steps before a loss is
                     not finite, beside another variant at the same rate; only if a run diverged
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.training.comparability import require_comparable
from experiments.training.json_files import write_json
from experiments.training.settings import in_precision
from experiments.training.study import Run, Study
from experiments.views.learning_rates_gains import gains_table
from experiments.views.learning_rates_outcomes import (
    AT_CHANCE,
    DIVERGED,
    LEARNS,
    Outcome,
    at,
    largest,
    middle_rate,
    outcomes_of,
    rates_of,
)
from experiments.views.learning_rates_tables import (
    definitions,
    grid_table,
    stable_table,
    summary,
)
from experiments.views.plotting import (
    WIDEST,
    colour,
    colour_scale,
    entry,
    legend_below,
    own_style,
    save,
    subplots,
    variant_entries,
)
from experiments.views.series import Curve, line_width, over_seeds, plot_curve, without_copies
from experiments.views.tables import CHANCE
from minibn import checkpoint
from minibn.errors import DataError

MARKS: dict[str, dict[str, Any]] = {
    LEARNS: {"marker": "o"},
    AT_CHANCE: {"marker": "o", "markerfacecolor": "white"},
    DIVERGED: {"marker": "x", "markeredgewidth": 1.4},
}
STEPS_BEFORE = 4  # those before divergence that are plotted


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw everything, write table.md and summary.json, and print tables and paths.

    Raises DataError if no run has ended, or if the studies are not of one network and data set.
    """
    out = out or studies[0].folder
    require_comparable(studies)
    settings = studies[0].settings
    runs = without_copies(run for study in studies for run in study.runs())
    found = outcomes_of(studies)
    if not found:
        raise DataError(f"{studies[0].folder} has no run that ended. Continue it with --resume.")
    grid = sorted({lr for study in studies for lr in study.settings["lr"]})
    parts = (stable_table(found, grid), gains_table(found), grid_table(found, grid))
    text = "\n\n".join([*(part for part in parts if part), definitions(settings["steps"])])
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(out / "table.md", text + "\n")
    write_json(out / "summary.json", summary(settings, runs, found, grid))
    paths = [rates_figure(found, grid, settings, out / "figures")]
    paths += divergence_figure(runs, found, out / "figures")
    print(f"\n{text}\n\nFigures: {', '.join(map(str, paths))}")


@own_style()
def rates_figure(
    found: Sequence[Outcome], grid: Sequence[float], settings: dict[str, Any], folder: Path
) -> Path:
    variants = list(dict.fromkeys(o.variant for o in found))
    figure, (left, middle, right) = subplots(1, 3, figsize=(WIDEST, 4.6), width_ratios=(1, 1, 1.15))
    for axes, measure, title in (
        (left, "train", f"training accuracy,\nlast tenth of {settings['steps']:,} steps"),
        (middle, "test", "test accuracy at the end"),
    ):
        for variant in variants:
            plot_curve(
                axes, by_rate(found, variant, measure), colour(variant), marker=".",
                linewidth=line_width(variant, variants),
            )  # fmt: skip
        axes.axhline(CHANCE, color="black", linewidth=0.8, linestyle=":")
        axes.set(title=title, ylabel="accuracy")
    top = max(axes.get_ylim()[1] for axes in (left, middle))
    for axes in (left, middle):
        axes.set_ylim(0, top)
    bars(right, found, variants)
    for axes in (left, middle, right):
        axes.set(xscale="log", xlabel="learning rate")
        axes.set_xticks(grid, [f"{lr:g}" for lr in grid], rotation=60)
        axes.set_xticks([], minor=True)
        axes.set_xlim(grid[0] / 1.5, grid[-1] * 1.5)
    marks = [entry(name, color="black", linestyle="", **style) for name, style in MARKS.items()]
    seeds = sorted({o.seed for o in found})
    band = f"seed {seeds[0]}"
    if len(seeds) > 1:
        band = f"median of n = {len(seeds)} seeds, band: least to largest"
    title = (
        f"{settings['model']}, width {settings['width']:g}, {settings['data']}, batch "
        f"{settings['batch_size']}{in_precision(settings)}; {band}; dotted: chance (diverged "
        "counts as chance)"
    )
    legend_below(figure, [*variant_entries(variants), *marks], title)
    return save(figure, folder, "learning_rates")


def by_rate(found: Sequence[Outcome], variant: str, measure: str) -> Curve:
    """Over the rates instead of steps."""
    seeds = sorted({o.seed for o in found if o.variant == variant})
    of = [[o for o in found if (o.variant, o.seed) == (variant, seed)] for seed in seeds]
    return over_seeds(([o.lr for o in run], [getattr(o, measure) for o in run]) for run in of)


def bars(axes: Any, found: Sequence[Outcome], variants: Sequence[str]) -> None:
    """A row a variant: a mark a run, and bars up to the largest stable rates (the median seed)."""
    without, learning = largest(found, learns=False), largest(found)
    least = min(o.lr for o in found) / 1.5
    for row, variant in enumerate(variants):
        for rates, alpha in ((without, 0.15), (learning, 0.3)):
            end = middle_rate(rates[variant].values())
            if end > 0:
                axes.barh(
                    row, end - least, left=least, color=colour(variant), alpha=alpha, linewidth=0
                )  # fmt: skip
        seeds = sorted({o.seed for o in found if o.variant == variant})
        for lr in rates_of(found, variant):
            for seed, o in at(found, variant, lr).items():
                if not o.has_run:
                    continue
                place = row + 0.75 * ((seeds.index(seed) + 0.5) / len(seeds) - 0.5)
                axes.plot(
                    lr, place, color=colour(variant), linestyle="", markersize=3.5,
                    **MARKS[o.status],
                )  # fmt: skip
    axes.set_yticks(range(len(variants)), variants)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.grid(False)
    axes.set_title(
        "each run; dark: largest rate that learns,\npale: without divergence (median seed)"
    )


@own_style()
def divergence_figure(runs: Sequence[Run], found: Sequence[Outcome], folder: Path) -> list[Path]:
    """The standard network's run that diverged at the lowest rate, if its moments were recorded up
    to there, beside BatchNorm's (else any two)."""
    chosen = diverged_and_other(runs, found)
    if chosen is None:
        return []
    bad, other, step = chosen
    steps = sorted({0, *range(max(0, step - STEPS_BEFORE), step)})
    figure, grid = subplots(
        2, len(other) + 1, figsize=(1.5 + 3.6 * (len(other) + 1), 5.4), sharex=True, sharey="row",
        squeeze=False,
    )  # fmt: skip
    shades = colour_scale("viridis_r", 0, 1).to_rgba(np.linspace(0.1, 1, len(steps)))
    for column, run in enumerate([bad, *other]):
        records = {r["step"]: r for r in run.records("moments")}
        for axes, key in zip(grid[:, column], ("mean", "var"), strict=True):
            for number, shade in zip(steps, shades, strict=True):
                if number in records:
                    values = [np.nan if v is None else v for v in records[number][key]]
                    layers = range(1, len(values) + 1)
                    axes.plot(layers, values, ".-", color=shade, label=f"step {number}")
            axes.set_yscale("log")
        title = f"{run.config['variant']}" + (f", diverged at step {step}" if run is bad else "")
        grid[0, column].set_title(title, color=colour(run.config["variant"]))
        grid[1, column].set_xlabel("layer")
    grid[0, 0].set_ylabel("|mean| of a unit")
    grid[1, 0].set_ylabel("variance of a unit")
    handles = grid[0, 0].get_legend_handles_labels()[0]
    diverged = sum(o.status == DIVERGED and o.has_run for o in found)
    title = (
        f"What the layers put out, before any norm; lr {bad.config['lr']:g}, seed "
        f"{bad.config['seed']} (in all {diverged} runs diverged)\n"
        "mean over a layer's units; layers: convolutions, then linear"
    )
    legend_below(figure, handles, title)
    return [save(figure, folder, "divergence")]


def diverged_and_other(
    runs: Sequence[Run], found: Sequence[Outcome]
) -> tuple[Run, list[Run], int] | None:
    """(run, [another at its rate and seed], the step at which it diverged)."""
    named = {(r.config["variant"], r.config["lr"], r.config["seed"]): r for r in runs}
    bad = sorted(
        (o for o in found if o.status == DIVERGED and o.has_run),
        key=lambda o: (o.variant != "standard", o.lr, o.seed),
    )
    for o in bad:
        run = named[o.variant, o.lr, o.seed]
        recorded = {r["step"] for r in run.records("moments")}
        if o.step and o.step - 1 in recorded:
            others = [
                named[p.variant, p.lr, p.seed]
                for p in sorted(found, key=lambda p: p.variant != "batchnorm")
                if (p.lr, p.seed) == (o.lr, o.seed) and p.status != DIVERGED
            ]
            return run, others[:1], o.step
    return None
