"""Figures and tables of `vgg_cifar` studies, from their files.

Several studies must be of one network on one data set. The figures, each kind in the module of that
name, which lists its files; without records there is no figure:

accuracy           training and test accuracy (Figs. 1a, 1b, 2 left, 5a)
distributions      of single units over training (Figs. 1c, 2 right, 6), and how they move (Fig. 8)
shift              internal covariate shift, of the paper's two layers and of all (Fig. 3a)
landscape          probes along the gradient (Figs. 4, 12)
gradient_change    how far it changes with the step size (Fig. 11a)
curvature          along the gradient, and of the Hessian, beside 2/lr

table.md holds the numbers beside the paper's; summary.json, a small file, the points of the curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import paper
from experiments.training.comparability import require_comparable
from experiments.training.study import Run, Study
from experiments.views import accuracy as accuracy_figures
from experiments.views import curvature as curvature_figures
from experiments.views import distributions as distribution_figures
from experiments.views import gradient_change as gradient_change_figures
from experiments.views import landscape as landscape_figures
from experiments.views import probe_tables
from experiments.views import shift as shift_figures
from experiments.views.series import ReadOnce, group_runs, without_copies
from experiments.views.tables import write_summary
from experiments.views.vgg_tables import (
    against_the_paper,
    drift_table,
    in_one_line,
    make_table,
    summary,
)
from minibn import checkpoint
from minibn.errors import DataError


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw everything, write table.md and summary.json, and print tables and paths.

    Raises DataError if there are no results, or if the studies are not of one network and data set.
    """
    out = out or studies[0].folder
    every = without_copies(run for study in studies for run in study.runs())
    runs: list[Run] = [ReadOnce(run.folder) for run in every]
    runs = [run for run in runs if run.records("metrics") or run.result]
    if not runs:
        raise DataError(f"{studies[0].folder} has no run with results yet.")
    settings = studies[0].settings
    require_comparable(studies)
    runs = [run for group in group_runs(runs) for run in group.runs]
    window = max(1, settings["steps"] // 50)
    layers = paper.shown_layers(settings["model"])
    table, line = make_table(runs), in_one_line(runs)
    parts = (
        table,
        line,
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
        *accuracy_figures.plot(runs, folder, window),
        *distribution_figures.plot(runs, folder),
        *shift_figures.plot(runs, folder),
        *landscape_figures.plot(runs, folder),
        *gradient_change_figures.plot(runs, folder),
        *curvature_figures.plot(runs, folder),
    ]
    print(f"\n{table}\n\n{line}\n")
    print("\n".join(["Figures:", *map(str, paths)]))
