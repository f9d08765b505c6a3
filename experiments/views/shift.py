"""Internal covariate shift of VGG trainings, from shift.jsonl of their runs.

shift.png                l2, absolute and relative to the gradient, and cosine of two layers, a
                         row a rate (Fig. 3a; its accuracy is in accuracy-rates.png)
shift-layers-lr0.1.png   every layer of every variant: Definition 2.1, and the original notion (how
                         mean, variance and distribution of what enters the layer's ReLU move)

No file where nothing was recorded. Without any shift l2 is 0, which a logarithmic axis can't show
(the lower the better), and the cosine 1, which is a line. Dotted in a variant's colour:
the paper's median of l2 over training, and its mean cosine over the second half of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import paper
from experiments.training.json_files import float_array
from experiments.training.study import Run
from experiments.views.plotting import (
    DOTTED,
    WIDEST,
    depth_note,
    entry,
    heading,
    left_out,
    legend_below,
    log_limits,
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
    over_training,
    plot_curve,
    second_half,
)
from experiments.views.step_axis import step_axes, strip_note
from experiments.views.tables import as_deep
from reference_models.vgg import VGG

MEASURES = {
    "l2": "‖G - G'‖ (l2)",
    "relative": "‖G - G'‖ / ‖G‖",
    "cosine": "cosine of G and G'",
    "mean_drift": "|change of a unit's mean|",
    "var_drift": "|change of a unit's variance|",
    "wasserstein": "Wasserstein distance",
}
OVER_STEPS = ("l2", "relative", "cosine")
PAPERS = "the paper's: median of l2, mean of the cosine's second half"


def plot(runs: Sequence[Run], folder: Path) -> list[Path]:
    """All views of this module that the records allow. Returns the paths of the PNGs."""
    return [*over_steps(runs, folder), *over_layers(runs, folder)]


def groups_by_rate(runs: Sequence[Run]) -> dict[float, list[Group]]:
    """rate -> the groups of which covariate shift was recorded; the highest rate first."""
    found: dict[float, list[Group]] = {}
    for group in reversed(group_runs(runs)):
        if group.records("shift"):
            found.setdefault(group.lr, []).insert(0, group)
    return found


def layers_to_show(runs: Sequence[Run]) -> dict[int, int]:
    """Layer of these runs' network -> the paper's layer that lies as deep."""
    convolutions = sum(entry != "M" for entry in VGG[runs[0].config["settings"]["model"]])
    return {paper.same_depth(k, paper.CONVOLUTIONS, convolutions): k for k in paper.SHIFT_LAYERS}


def of_layer(group: Group, layer: int, measure: str) -> list[tuple[list[int], np.ndarray]]:
    """(steps, values) of one layer, for each seed that has any. Undefined values are nan."""
    found = []
    for records in group.records("shift", layer=layer):
        values = float_array([r.get(measure) for r in records], np.nan)
        found.append(([r["step"] for r in records], values))
    return found


def medians(group: Group, layer: int, measure: str) -> list[float]:
    """The median over training of one layer's measure, for each seed; nan where it has none."""
    return [over_training(steps, values) for steps, values in of_layer(group, layer, measure)]


def late_cosine(group: Group, layer: int) -> list[float]:
    """The mean cosine of the second half of training, for each seed."""
    return [second_half(*seed) for seed in of_layer(group, layer, "cosine")]


@own_style()
def over_steps(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Fig. 3a: standard beside batchnorm (of other studies: the first three variants); one scale
    for each measure."""
    found = groups_by_rate(runs)
    if not found:
        return []
    layers = layers_to_show(runs)
    figure, grid = subplots(
        len(found), len(OVER_STEPS) * len(layers), figsize=(WIDEST, 1.3 + 2.1 * len(found)),
        squeeze=False,
    )  # fmt: skip
    pairs = {lr: _pair(groups) for lr, groups in found.items()}
    pair = [group for groups in pairs.values() for group in groups]
    last = max(s[-1]["step"] for group in pair for s in group.records("shift"))
    panels: dict[str, list[Any]] = {measure: [] for measure in OVER_STEPS}
    curves: dict[str, list[Curve]] = {measure: [] for measure in OVER_STEPS}
    for row, (lr, groups) in zip(grid, pairs.items(), strict=True):
        row[0].set_ylabel(f"lr {lr:g}")
        places = [(m, layer, k) for m in OVER_STEPS for layer, k in layers.items()]
        for axes, (measure, layer, k) in zip(row, places, strict=True):
            for part in step_axes(axes, last):
                curves[measure] += _plot_layer(part, groups, layer, k, measure)
            axes.set_title(f"{MEASURES[measure]}\nlayer {as_deep(layer, k)}")
            panels[measure].append(axes)
    for measure, found_panels in panels.items():
        _one_scale(measure, found_panels, curves[measure], pair)
    for axes in grid[-1]:
        axes.set_xlabel("step of training")
    every = {g.variant for groups in found.values() for g in groups}
    others = left_out({g.variant for g in pair}, every, "shift-layers-lr*.png")
    _legend(figure, pair, [strip_note(last), depth_note(layers), others])
    return [save(figure, folder, "shift")]


def _pair(groups: Sequence[Group]) -> list[Group]:
    pair = [group for group in groups if group.variant in ("standard", "batchnorm")]
    return pair if len(pair) == 2 else list(groups[:3])


class Papers(NamedTuple):
    """The paper's numbers at one of its layers: the median of l2, the mean late cosine, and l2 at
    the start; None where it shows none."""

    l2: float | None
    cosine: float | None
    start: float | None


def papers(group: Group, k: int) -> Papers:
    """Those to compare with a group at the paper's layer k; of other data none."""
    if not group.on_cifar10:
        return Papers(None, None, None)
    key = (group.variant, group.lr, k)
    l2, cosine = paper.SHIFT.get(key, (None, None))
    return Papers(l2, cosine, paper.SHIFT_AT_START.get(key))


def _are_shown(groups: Sequence[Group]) -> bool:
    return any(any(papers(g, k)) for g in groups for k in paper.SHIFT_LAYERS)


def _plot_layer(
    axes: Any, groups: Sequence[Group], layer: int, k: int, measure: str
) -> list[Curve]:
    """Draw one measure of a layer, and the paper's. Returns our curves."""
    curves = [over_seeds(of_layer(group, layer, measure)) for group in groups]
    for group, curve in zip(groups, curves, strict=True):
        plot_curve(axes, curve, group.colour)
        theirs = papers(group, k)
        level = {"l2": theirs.l2, "cosine": theirs.cosine}.get(measure)
        if level is not None:
            axes.axhline(level, color=group.colour, **DOTTED)
        if theirs.start is not None and measure == "l2":
            axes.plot([0], [theirs.start], "o", color=group.colour, markersize=4)
    return curves


def _one_scale(
    measure: str, panels: Sequence[Any], curves: Sequence[Curve], groups: Sequence[Group]
) -> None:
    """The same heights in all panels of a measure, and their numbers at the first of each row."""
    rows = len({group.lr for group in groups})
    theirs = [papers(group, k) for group in groups for k in paper.SHIFT_LAYERS]
    levels = [level for numbers in theirs for level in (numbers.l2, numbers.start) if level]
    always = [np.array(levels)] if measure == "l2" else []
    limits = log_limits((curve.median for curve in curves), always)
    for i, axes in enumerate(panels):
        if measure == "cosine":
            _ideal_cosine(axes)
        else:
            axes.set(yscale="log", ylim=limits)
            plain_numbers(axes)
        axes.tick_params(labelleft=i % (len(panels) // rows) == 0)


def _ideal_cosine(axes: Any) -> None:
    axes.axhline(1, color="0.35", linestyle="--", linewidth=1)
    axes.set_ylim(-1.08, 1.08)


def _legend(figure: Any, groups: Sequence[Group], notes: Sequence[str]) -> None:
    handles = entries_of(groups)
    handles.append(entry("ideal: cosine 1 (l2: 0, below any logarithmic axis)", linestyle="--"))
    if _are_shown(groups):
        handles.append(entry(f"{PAPERS}; dot: its l2 at the start", **DOTTED))
    title = heading(
        ["Internal covariate shift by Definition 2.1: how a layer's gradient changes when the "
         "layers before it are updated"],
        [middle_of(groups), notes[0]],
        notes[1:],
    )  # fmt: skip
    legend_below(figure, handles, title, columns=3)


@own_style()
def over_layers(runs: Sequence[Run], folder: Path) -> list[Path]:
    """A file a rate: the median over training of each measure, for every layer."""
    paths = []
    for lr, groups in groups_by_rate(runs).items():
        variants = [group.variant for group in groups]
        figure, grid = subplots(2, 3, figsize=(WIDEST, 6.2), sharex=True)
        for axes, (measure, label) in zip(grid.flat, MEASURES.items(), strict=True):
            curves = [by_layer(group, measure) for group in groups]
            for group, curve in zip(groups, curves, strict=True):
                width = line_width(group.variant, variants)
                plot_curve(axes, curve, group.colour, marker=".", linewidth=width)
            axes.set_title(label)
            if measure == "cosine":
                _ideal_cosine(axes)
            else:
                ends = [values for curve in curves for values in curve[1:]]
                ends += [_papers_l2(groups)] if measure == "l2" else []
                axes.set(yscale="log", ylim=log_limits([], ends))
                plain_numbers(axes)
        _papers_layers(grid, groups, layers_to_show(runs))
        count = max(r["layer"] for group in groups for s in group.records("shift") for r in s)
        ticks = range(1, count + 1, 2)
        for axes in grid.flat:
            axes.set_xticks(ticks, [str(t) for t in ticks])
        for axes in grid[-1]:
            axes.set_xlabel("layer")
        grid[0][0].set_ylabel("Definition 2.1\nmedian over training")
        grid[1][0].set_ylabel("what enters the ReLU\nmedian over training")
        handles = [
            *entries_of(groups), entry("ideal cosine", linestyle="--", linewidth=1)
        ]  # fmt: skip
        if _are_shown(groups):
            style = {"linestyle": "", "marker": "o", "markerfacecolor": "white"}
            handles.append(entry(PAPERS, **style))
        title = (
            f"Covariate shift of every layer from a step to the next, lr {lr:g} "
            f"({middle_of(groups)})\nzeros, as of layer 1 by definition or of a dead network, are "
            "not plotted; behind a BatchNorm mean and variance are beta and gamma²"
        )
        legend_below(figure, handles, title, columns=5)
        paths.append(save(figure, folder, f"shift-layers-lr{lr:g}"))
    return paths


def by_layer(group: Group, measure: str) -> Curve:
    """Medians over training; x: layers. Zeros, which a logarithmic axis can't show, are missing."""
    layers = sorted({r["layer"] for s in group.records("shift") for r in s})
    by_seed: list[list[float]] = [medians(group, layer, measure) for layer in layers]
    found = np.array(by_seed, np.float64).T
    if measure != "cosine":
        found[found == 0] = np.nan
    return over_seeds([(layers, values) for values in found])


def _papers_l2(groups: Sequence[Group]) -> np.ndarray:
    found = [papers(group, k).l2 for group in groups for k in paper.SHIFT_LAYERS]
    return np.array([l2 for l2 in found if l2 is not None])


def _papers_layers(grid: Any, groups: Sequence[Group], layers: dict[int, int]) -> None:
    for group in groups:
        for layer, k in layers.items():
            l2, cosine, _ = papers(group, k)
            for axes, theirs in ((grid[0][0], l2), (grid[0][2], cosine)):
                if theirs is not None:
                    style = {"markerfacecolor": "white", "markersize": 6, "zorder": 4}
                    axes.plot([layer], [theirs], "o", color=group.colour, **style)
