"""Curvature of the loss over a training, from curvature.jsonl of its runs.

curvature-lr0.1.png    g'Hg / g'g along the gradient, the largest eigenvalue and the trace of the
                       Hessian over training, beside 2/lr, where gradient descent on a parabola
                       begins to diverge

A file a rate; none where nothing was recorded. A point a record, on a linear axis of steps, since
the early ones are not recorded. The trace is Hutchinson's estimate: of one seed with its standard
error, of several with their band.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.training.json_files import float_array
from experiments.training.study import Run
from experiments.views.plotting import (
    WIDEST,
    entry,
    legend_below,
    own_style,
    plain_numbers,
    save,
    subplots,
)
from experiments.views.series import (
    Curve,
    Group,
    entries_of,
    group_runs,
    line_width,
    middle_of,
    over_seeds,
    plot_curve,
)

TITLES = ("along the gradient, g'Hg / g'g", "largest eigenvalue of H", "trace of H (estimated)")


@own_style()
def plot(runs: Sequence[Run], folder: Path) -> list[Path]:
    """A file for each rate at which curvature was recorded. Returns the paths of the PNGs."""
    paths = []
    found = [group for group in group_runs(runs) if group.records("curvature")]
    for lr in sorted({group.lr for group in found}):
        groups = [group for group in found if group.lr == lr]
        linear = max(1.0, 10.0 ** round(np.log10(2 / lr) - 3))
        figure, row = subplots(1, 3, figsize=(WIDEST, 3.7))
        variants = [group.variant for group in groups]
        for group in groups:
            width = line_width(group.variant, variants)
            for axes, of in zip(row, (_along, _largest, _trace), strict=True):
                plot_curve(axes, _curve(group, of), group.colour, marker=".", linewidth=width)
            if len(group.records("curvature")) == 1:
                trace, error = _curve(group, _trace), _curve(group, _error)
                row[2].errorbar(
                    trace.steps, trace.median, error.median, fmt="none", ecolor=group.colour,
                    elinewidth=0.8,
                )  # fmt: skip
        for axes, title in zip(row, TITLES, strict=True):
            axes.set(title=title, xlabel="step of training")
            axes.set_yscale("symlog", linthresh=linear, linscale=0.5)
        row[0].set_ylabel("curvature (loss / weight²)")
        for axes in row[:2]:
            axes.axhline(2 / lr, color="0.35", linestyle="--", linewidth=1)
        both = [axes.get_ylim() for axes in row[:2]]  # curvatures, on one scale
        for axes in row[:2]:
            axes.set_ylim(min(low for low, _ in both), max(high for _, high in both))
        for axes in row:
            plain_numbers(axes)
        edge = entry(f"2/lr = {2 / lr:.3g}: the edge of stability", linestyle="--", linewidth=1)
        title = f"Curvature of the loss over training, lr {lr:g} ({middle_of(groups)})"
        legend_below(figure, [*entries_of(groups), edge], title)
        paths.append(save(figure, folder, f"curvature-lr{lr:g}"))
    return paths


def _curve(group: Group, of: Any) -> Curve:
    """A number of each record over the seeds; what is undefined is left out."""
    seeds = group.records("curvature")
    return over_seeds(
        [([r["step"] for r in s], float_array([of(r) for r in s], np.nan)) for s in seeds]
    )


def _along(record: dict[str, Any]) -> float | None:
    return record["along_gradient"]


def _largest(record: dict[str, Any]) -> float | None:
    return max((v for v in record["eigenvalues"] or [] if v is not None), default=None)


def _trace(record: dict[str, Any]) -> float | None:
    return record["trace"]


def _error(record: dict[str, Any]) -> float | None:
    """Only where there is a trace: the two are plotted together."""
    return None if record["trace"] is None else (record["trace_error"] or 0.0)
