"""The landscape of deep linear networks, from landscape.jsonl of their runs: a file a rate.

landscape-lr1e-06.png         loss, change of the gradient and effective beta along the gradient, a
                              column a variant (Figs. 10, 13)
gradient-change-lr1e-06.png   the gradient's change against the step size, a line a step (Fig. 11b)

"Least to largest" is over the step sizes of a probe from one point of one training. Dotted: what
was read off the paper's figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import paper
from experiments.views.gradient_change import plot_gradient_change
from experiments.views.landscape import band, effective_beta, shade
from experiments.views.plotting import (
    DOTTED,
    LARGEST,
    WIDEST,
    entry,
    heading,
    legend_below,
    log_limits,
    own_style,
    save,
    subplots,
)
from experiments.views.series import Group, middle_of, plot_curve
from experiments.views.step_axis import step_axes, strip_note
from experiments.views.step_sizes import CHANGE, LOSS

ROWS = {
    LOSS: "loss along the probe\n(summed over samples)",
    CHANGE: "change of the gradient\nalong the probe (l2)",
    "beta": "effective beta\n(loss / weight²)",
}
LEVEL = {"color": "0.35", "linestyle": "--", "linewidth": 1}


def plot(groups: Sequence[Group], folder: Path) -> list[Path]:
    """All views of this module that the records allow. Returns the paths of the PNGs."""
    probed: dict[float, list[Group]] = {}
    for group in groups:
        if group.records("landscape"):
            probed.setdefault(group.lr, []).append(group)
    return [
        path
        for lr, found in probed.items()
        for path in (landscape(found, lr, folder), _gradient_change(found, lr, folder))
    ]


def _gradient_change(groups: Sequence[Group], lr: float, folder: Path) -> Path:
    sizes = paper.DEEP_LINEAR_STEP_SIZES
    theirs = {v: (sizes, y) for v, y in paper.DEEP_LINEAR_CHANGE_BY_STEP_SIZE.items()}
    return plot_gradient_change(groups, theirs if lr == paper.DEEP_LINEAR_RATE else {}, folder)


@own_style()
def landscape(groups: Sequence[Group], lr: float, folder: Path) -> Path:
    """Figs. 10 and 13."""
    width = min(WIDEST, 1.6 + 2.2 * len(groups))
    figure, grid = subplots(
        3, len(groups), figsize=(max(5.0, width), 6.6), sharex=True, sharey="row", squeeze=False
    )
    for axes, group in zip(grid[0], groups, strict=True):
        axes.set_title(group.variant, color=group.colour)
    last = max(curve.steps[-1] for curve in map(effective_beta, groups))
    parts = {axes: step_axes(axes, last) for axes in grid.flat}
    bands = {key: [band(group, key) for group in groups] for key in (LOSS, CHANGE)}
    for row, (key, pairs) in zip(grid, bands.items(), strict=False):
        largest = [_largest_losses(group) for group in groups] if key == LOSS else []
        limits = log_limits(
            [values for pair in pairs for curve in pair for values in curve[1:]],
            [values for _, values in largest],
        )
        for axes, group, (low, high) in zip(row, groups, pairs, strict=True):
            for part in parts[axes]:
                shade(part, low, high, group.colour, limits)
        for axes, group, (steps, values) in zip(row, groups, largest, strict=False):
            for part in parts[axes]:
                part.plot(steps, values, color=group.colour, **LARGEST)
    betas = [effective_beta(group) for group in groups]
    limits = log_limits([values for curve in betas for values in curve[1:]], [np.array([2 / lr])])
    for axes, group, curve in zip(grid[2], groups, betas, strict=True):
        for part in parts[axes]:
            plot_curve(part, curve.below(10 * limits[1]), group.colour)
            part.axhline(2 / lr, **LEVEL)
            if lr == paper.DEEP_LINEAR_RATE and group.variant in paper.DEEP_LINEAR_BETA:
                part.axhline(paper.DEEP_LINEAR_BETA[group.variant], color=group.colour, **DOTTED)
        axes.set(yscale="log", ylim=limits)
    for axes, label in zip(grid[:, 0], ROWS.values(), strict=True):
        axes.set_ylabel(label)
    for axes in grid[-1]:
        axes.set_xlabel("step of training")
    handles = [entry(f"2/lr = {2 / lr:g}: the edge of stability", **LEVEL)]
    if lr == paper.DEEP_LINEAR_RATE:
        handles += [
            entry(f"the paper's {what}", **style)
            for what, style in (("largest loss at three steps", LARGEST), ("median beta", DOTTED))
        ]
    sizes = groups[0].records("landscape")[0][0]["step_sizes"]
    title = heading(
        [f"Walks along the gradient, lr {lr:g} ({middle_of(groups)})"],
        [f"least to largest over steps of {', '.join(f'{x:g}' for x in sizes)}", strip_note(last)],
    )
    legend_below(figure, handles, title, columns=3 if len(groups) > 2 else 1)
    return save(figure, folder, f"landscape-lr{lr:g}")


def _largest_losses(group: Group) -> tuple[Sequence[float], np.ndarray]:
    """(steps, the largest losses of the paper's probes there), if it shows this group."""
    shown = group.lr == paper.DEEP_LINEAR_RATE and group.variant in paper.DEEP_LINEAR_LARGEST_LOSS
    if not shown:
        return (), np.array([])
    losses = paper.DEEP_LINEAR_LARGEST_LOSS[group.variant]
    return paper.DEEP_LINEAR_WALK_STEPS, np.array(losses)
