"""Curvature of the loss over a training, from curvature.jsonl of its runs.

curvature-lr0.1.png    g'Hg / g'g along the gradient, the largest eigenvalue and the trace of the
                       Hessian over training, beside 2/lr, where gradient descent on a parabola
                       begins to diverge
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures import early_steps, legend_below, plain_numbers, pyplot, save
from experiments.series import Curve, Group, draw_curve, grouped, middle_of, numbers, over_seeds
from experiments.study import Run


def draw(runs: Sequence[Run], folder: Path) -> list[Path]:
    """g'Hg / g'g, the largest eigenvalues and the trace of the Hessian over training, by rate."""
    plt = pyplot()
    paths = []
    found = [group for group in grouped(runs) if group.records("curvature")]
    for lr in sorted({group.lr for group in found}):
        groups = [group for group in found if group.lr == lr]
        figure, row = plt.subplots(1, 3, figsize=(12, 4.2))
        last = 0.0
        for group in groups:
            for axes, curve in zip(row, _curvatures(group), strict=True):
                if len(curve.steps):
                    draw_curve(axes, curve, group.colour)
                    last = max(last, curve.steps[-1])
        names = ("along the gradient, g'Hg / g'g", "largest eigenvalue of H", "trace of H")
        for axes, name in zip(row, names, strict=True):
            axes.set(title=name, xlabel="step of training", ylabel="curvature")
            axes.set_yscale("symlog", linthresh=1, linscale=0.5)
            plain_numbers(axes)
            early_steps(axes, last)
        for axes in row[:2]:
            axes.axhline(2 / lr, color="0.35", linestyle="--", linewidth=1)
        handles = [plt.Line2D([], [], color=g.colour, linewidth=2, label=g.variant) for g in groups]
        edge = f"2/lr = {2 / lr:.3g}: the edge of stability"
        handles.append(plt.Line2D([], [], color="0.35", linestyle="--", linewidth=1, label=edge))
        title = f"Curvature of the loss over training, lr {lr:g} ({middle_of(groups)})"
        legend_below(figure, handles, title, columns=5)
        paths.append(save(figure, folder, f"curvature-lr{lr:g}"))
    return paths


def _curvatures(group: Group) -> list[Curve]:
    def curve(of: Any) -> Curve:
        seeds = group.records("curvature")
        return over_seeds(
            [([r["step"] for r in s], numbers([of(r) for r in s], np.nan)) for s in seeds]
        )

    def largest(record: dict[str, Any]) -> float | None:
        return max((v for v in record["eigenvalues"] or [] if v is not None), default=None)

    return [curve(lambda r: r["along_gradient"]), curve(largest), curve(lambda r: r["trace"])]
