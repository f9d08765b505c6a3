"""How far the gradient changes with the step size, from landscape.jsonl of trainings.

gradient-change-lr0.1.png    l2 change of the gradient against the step size of a probe along it:
                             a line a step of training, from blue to red; a panel a variant
                             (Fig. 11a; of the deep linear network, Fig. 11b)

A file a rate, of the first seed; none where nothing was recorded. Both axes are logarithmic: a
gradient that changes in proportion to the step is a line of slope 1, and one whose change has
saturated is flat. Black dots: the paper's median over training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import paper
from experiments.training.json_files import float_array
from experiments.training.settings import in_precision
from experiments.training.study import Run
from experiments.views.landscape import beside_the_paper, probe_groups
from experiments.views.plotting import PAPER as DOTS
from experiments.views.plotting import (
    WIDEST,
    colour_scale,
    log_limits,
    own_style,
    plain_numbers,
    save,
    subplots,
    visible,
)
from experiments.views.series import Group
from experiments.views.step_sizes import CHANGE

ACROSS = 4  # panels
LINES = 50  # of a panel, as in the paper


def plot(runs: Sequence[Run], folder: Path) -> list[Path]:
    """A file for each rate at which probes of VGG went along the gradient. Returns their paths."""
    theirs = {v: (paper.STEP_SIZES, y) for v, y in paper.CHANGE_BY_STEP_SIZE.items()}
    return [
        plot_gradient_change(groups, theirs if beside_the_paper(groups, direction) else {}, folder)
        for (_, direction), groups in probe_groups(runs).items()
        if direction == "gradient"
    ]


@own_style()
def plot_gradient_change(
    groups: Sequence[Group],
    theirs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    folder: Path,
) -> Path:
    """The figure of groups at one rate. theirs: variant -> the paper's (step sizes, medians)."""
    lr = groups[0].lr
    across = min(len(groups), ACROSS if len(groups) != 5 else 5)
    down = -(-len(groups) // across)
    width = min(WIDEST, 2.2 + 2.3 * across)
    figure, grid = subplots(
        down, across, figsize=(width, 0.9 + 2.4 * down), sharex=True, sharey=True, squeeze=False
    )
    panels = grid.flat[: len(groups)]
    chosen = [group.records("landscape", direction="gradient")[0] for group in groups]
    last = max(records[-1]["step"] for records in chosen)
    shades = colour_scale("coolwarm", 0, max(last, 1))
    for axes, group, records in zip(panels, groups, chosen, strict=True):
        _lines(axes, records, shades)
        axes.set_title(group.variant, color=group.colour)
        if group.variant in theirs:
            axes.plot(*theirs[group.variant], color="black", **DOTS, zorder=3)
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    for axes in panels[-across:]:  # the lowest panel of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("step size")
    for axes in grid[:, 0]:
        axes.set_ylabel("change of the gradient (l2)")
    changes = [float_array(r[CHANGE], np.inf) for records in chosen for r in records]
    papers = [np.array(theirs[g.variant][1]) for g in groups if g.variant in theirs]
    panels[0].set_ylim(log_limits(changes, papers))
    plain_numbers(panels[0])
    note = "; black dots: the paper's median over training" if papers else ""
    title = f"How far the gradient changes along the probe, lr {lr:g}\n"
    title += _seeds(groups) + in_precision(groups[0].runs[0].config["settings"])
    figure.suptitle(f"{title}; dashed: step 0{note}", fontsize=10)
    figure.tight_layout(rect=(0, 0, 1 - 0.95 / width, 1))
    place = figure.add_axes((1 - 0.9 / width, 0.2, 0.15 / width, 0.55))
    figure.colorbar(shades, cax=place, label="step of training")
    return save(figure, folder, f"gradient-change-lr{lr:g}")


def _seeds(groups: Sequence[Group]) -> str:
    """The seed that is drawn, of how many."""
    first = {group.runs[0].config["seed"] for group in groups}
    of = max(len(group.runs) for group in groups)
    which = f"seed {first.pop()}" if len(first) == 1 else "the first seed of each variant"
    return which + (f", one of {of}" if of > 1 else "")


def _lines(axes: Any, records: list[dict[str, Any]], shades: Any) -> None:
    """Draw at most LINES steps, the first, which are few, above the later ones."""
    places = np.unique(np.linspace(0, len(records) - 1, LINES).round().astype(int))
    for r in (records[i] for i in reversed(places)):
        style = {"linestyle": "--", "linewidth": 1.8} if r["step"] == 0 else {"linewidth": 0.8}
        change = float_array(r[CHANGE], np.nan)
        style |= visible(change)
        axes.plot(r["step_sizes"], change, color=shades.to_rgba(r["step"]), **style)
    axes.set(xscale="log", yscale="log")
    sizes = records[0]["step_sizes"]
    if sizes[-1] < 100 * sizes[0]:
        axes.set_xticks(sizes, [f"{x:g}" for x in sizes])
        axes.set_xticks([], minor=True)
