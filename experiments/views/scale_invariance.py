"""Figures, table and summary of `scale_invariance` studies, from their files.

scale_invariance-lrRATE.png   ‖w‖, angle a step and effective rate of every layer over the training,
                              a column a decay
table.md                      the angles against √(2ηλ)
summary.json                  the same as data, run by run
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.training.comparability import require_comparable
from experiments.training.settings import in_precision
from experiments.training.study import Study
from experiments.views.plotting import (
    DOTTED,
    WIDEST,
    colour_scale,
    entry,
    legend_below,
    log_limits,
    own_style,
    plain_numbers,
    save,
    subplots,
)
from experiments.views.scale_invariance_tables import (
    WINDOW,
    Training,
    equilibrium_table,
    find_trainings,
    groups_of,
    summary,
)
from experiments.views.series import over_seeds
from experiments.views.step_axis import thousands
from experiments.views.tables import write_summary
from minibn import checkpoint

ROWS = {
    "norm": "‖w‖",
    "angle": "angle a step, rad",
    "rate": "effective rate η/‖w‖²",
}
POINTS = 80  # of a line


def plot(studies: Sequence[Study], out: Path | None = None) -> None:
    """Draw a figure a rate, write table.md and summary.json, and print the table and the paths.

    Raises DataError if there is nothing to plot, or if the studies are not of one scale.
    """
    found, out = find_trainings(studies), out or studies[0].folder
    require_comparable(studies)
    settings = studies[0].settings
    out.mkdir(parents=True, exist_ok=True)
    text = equilibrium_table(found)
    checkpoint.write_text(out / "table.md", text + "\n")
    shown = {k: v for k, v in settings.items() if k != "data_dir"}
    write_summary(out / "summary.json", {"settings": shown, "runs": summary(found)})
    paths = [
        figure([t for t in found if t.lr == lr], settings, out / "figures")
        for lr in sorted({t.lr for t in found})
    ]
    print(f"\n{text}\n\nFigures: {', '.join(map(str, paths))}")


@own_style()
def figure(found: Sequence[Training], settings: dict[str, Any], folder: Path) -> Path:
    """One rate: a column a decay, a line a layer."""
    groups = list(groups_of(found).values())
    width = max(6.6, min(WIDEST, 2.4 + 2.2 * len(groups)))
    figure, grid = subplots(
        len(ROWS), len(groups), figsize=(width, 7.4), sharex=True, sharey="row", squeeze=False
    )
    layers = found[0].columns["norm"].shape[1]
    shades = colour_scale("viridis", 0, 1).to_rgba(np.linspace(0, 0.9, layers))
    for row, name in zip(grid, ROWS, strict=True):
        drawn = []
        for axes, group in zip(row, groups, strict=True):
            lines = [points(t, name) for t in group]
            for layer, shade in enumerate(shades):
                curve = over_seeds((steps, values[:, layer]) for steps, values in lines)
                marker = "." if len(curve.steps) == 1 else ""
                axes.plot(curve.steps, curve.median, marker=marker, color=shade, linewidth=1.1)
                drawn.append(curve.median)
            if name == "angle" and group[0].decay:
                axes.axhline(group[0].equilibrium, color="black", zorder=3, **DOTTED)
            axes.axvspan(
                WINDOW * settings["steps"], settings["steps"], color="#e8e8e8", linewidth=0,
                zorder=0,
            )  # fmt: skip
            axes.set_yscale("log")
        always = [np.array([t.equilibrium]) for t in found] if name == "angle" else []
        low, high = log_limits(drawn, always)
        row[0].set_ylim(low, high)
        row[0].set_ylabel(ROWS[name])
        plain_numbers(row[0])
    for axes, group in zip(grid[0], groups, strict=True):
        axes.set_title(title_of(group[0]))
    for axes in grid[-1]:
        axes.set_xlabel("step")
        thousands(axes)
    handles = [entry(f"layer {k}", color=c, linewidth=2) for k, c in enumerate(shades, start=1)]
    handles.append(entry("√(2ηλ)", color="black", **DOTTED))
    handles.append(entry("last quarter: judged", color="#e8e8e8", linewidth=7))
    seeds = len({t.seed for t in found})
    which = f"seed {found[0].seed}" if seeds == 1 else f"median of {seeds} seeds"
    title = (
        f"{settings['model']}, width {settings['width']:g}, BatchNorm, {settings['data']}, batch "
        f"{settings['batch_size']}, SGD at {found[0].lr:g}{in_precision(settings)}; {which}"
    )
    legend_below(figure, handles, title, columns=5)
    return save(figure, folder, f"scale_invariance-lr{found[0].lr:g}")


def title_of(training: Training) -> str:
    """A column's title: the decay, and how many time constants the run has."""
    if not training.decay:
        return "no decay"
    counts = "" if training.counts else ",\ndoes not count"
    return f"decay {training.decay:g}:\n{training.time_constants:.3g} time constants{counts}"


def points(training: Training, name: str) -> tuple[list[float], np.ndarray]:
    """(steps, values (steps, layers)) of a column's lines: means over equal parts of the training,
    of angles the root mean square."""
    parts = np.array_split(np.arange(len(training.steps)), min(POINTS, len(training.steps)))
    values = training.columns[name] ** (2 if name == "angle" else 1)
    means = np.stack([values[part].mean(axis=0) for part in parts])
    steps = [float(training.steps[part].mean()) for part in parts]
    return steps, means ** (0.5 if name == "angle" else 1)
