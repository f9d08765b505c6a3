"""How far the gradient changes with the step size, from landscape.jsonl of VGG trainings.

gradient-change-lr0.1.png    the l2 change of the gradient against the step size of a walk along it:
                             a line a step of training, from blue to red; a panel a variant
                             (Fig. 11a)

A file a rate, of the first seed; none where nothing was recorded. Both axes are logarithmic: a
gradient that changes in proportion to the step is a line of slope 1, and one that has changed as
far as it will is flat. Black dots: the paper's median over training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import paper
from experiments.running.study import Run
from experiments.views.drawing import PAPER, log_limits, plain_numbers, pyplot, save
from experiments.views.landscape import CHANGE, LINES, beside_the_paper, walked
from experiments.views.series import Group, numbers

ACROSS = 4  # panels


def draw(runs: Sequence[Run], folder: Path) -> list[Path]:
    """A file for each rate at which walks went along the gradient. Returns their paths."""
    return [
        _figure(groups, lr, folder)
        for (lr, direction), groups in walked(runs).items()
        if direction == "gradient"
    ]


def _figure(groups: Sequence[Group], lr: float, folder: Path) -> Path:
    plt = pyplot()
    across = min(len(groups), ACROSS)
    down = -(-len(groups) // across)
    width = max(5.5, 1.6 + 2.7 * across)
    figure, grid = plt.subplots(
        down, across, figsize=(width, 0.9 + 2.6 * down), sharex=True, sharey=True, squeeze=False
    )
    panels = list(grid.flat)
    chosen = [group.records("landscape", direction="gradient")[0] for group in groups]
    last = max(records[-1]["step"] for records in chosen)
    early = plt.matplotlib.colors.SymLogNorm(linthresh=10, vmin=0, vmax=max(last, 1), base=10)
    shades = plt.cm.ScalarMappable(early, plt.get_cmap("coolwarm"))
    limits, dots = [], []
    for axes, group, records in zip(panels, groups, chosen, strict=False):
        _lines(axes, group, records, shades)
        limits += [numbers(r[CHANGE]) for r in records]
        if beside_the_paper(lr, "gradient") and group.variant in paper.CHANGE_BY_STEP_SIZE:
            dots.append(np.array(paper.CHANGE_BY_STEP_SIZE[group.variant]))
            axes.plot(paper.STEP_SIZES, dots[-1], color="black", **PAPER, zorder=3)
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    for axes in panels[: len(groups)][-across:]:  # the lowest panel of each column
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("change of the gradient (l2)", fontsize=8)
    panels[0].set_ylim(log_limits(limits, dots))
    plain_numbers(panels[0])
    figure.supxlabel("step size (along the gradient)", fontsize=9)
    told = "; black dots: the paper's median over training" if dots else ""
    title = (
        f"How far the gradient changes along the walk, lr {lr:g}\none seed; dashed: step 0{told}"
    )
    figure.suptitle(title, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1 - 1.0 / width, 1))
    _bar(figure, figure.add_axes((1 - 0.95 / width, 0.2, 0.18 / width, 0.6)), shades, last)
    return save(figure, folder, f"gradient-change-lr{lr:g}")


def _lines(axes: Any, group: Group, records: list[dict[str, Any]], shades: Any) -> None:
    """The first steps, which are few, above the many later ones."""
    places = np.unique(np.linspace(0, len(records) - 1, LINES).round().astype(int))
    for r in (records[i] for i in reversed(places)):
        style = {"linestyle": "--", "linewidth": 1.8} if r["step"] == 0 else {"linewidth": 0.9}
        change = numbers(r[CHANGE], null=np.nan)
        axes.plot(r["step_sizes"], change, color=shades.to_rgba(r["step"]), **style)
    axes.set(xscale="log", yscale="log")
    axes.set_title(group.variant, color=group.colour, fontsize=10)
    sizes = records[0]["step_sizes"]
    axes.set_xticks(sizes, [f"{x:g}" for x in sizes])
    axes.set_xticks([], minor=True)


def _bar(figure: Any, place: Any, shades: Any, last: int) -> None:
    """Which colour is which step."""
    bar = figure.colorbar(shades, cax=place, label="step of training")
    ticks = [0, *(10**k for k in range(1, 6) if 10**k <= last)]
    bar.set_ticks(ticks, labels=[str(t) for t in ticks])
    bar.minorticks_off()
