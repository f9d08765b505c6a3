"""Accuracy and distributions of one family of norms beside standard and BatchNorm.

norms-lp.png         training and test accuracy of the l_p norms (Figs. 5a, 12a)
histograms-lp.png    histograms of one unit of a deep layer over training (Fig. 6)
norms-others.png     and histograms-others.png: the norms that the paper does not try

At the main rate. No file for a family of which no variant was trained. Dotted with dots: the
paper's digitised accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import paper
from experiments.figures import DASHES, PAPER, legend_below, pyplot, save, smooth
from experiments.series import Group, draw_curve, grouped, main_rate, middle_of, over_seeds
from experiments.study import Run
from experiments.vgg_tables import first_units

BESIDE = ("standard", "batchnorm")
FAMILIES = {
    "lp": ("l1", "l2", "linf"),
    "others": (
        "layernorm", "groupnorm", "instancenorm", "rmsnorm", "weightstandardisation",
        "frozen-batchnorm",
    ),
}  # fmt: skip
SHOWN = 11  # the layer of Fig. 6
RIDGES = 9  # histograms of a panel


def draw(runs: Sequence[Run], folder: Path, window: int) -> list[Path]:
    """All views of this module that the records allow. Returns the paths of the PNGs."""
    every = grouped(runs)
    rate = main_rate(every)
    paths = []
    for family, variants in FAMILIES.items():
        groups = [g for g in every if g.lr == rate and g.variant in BESIDE + variants]
        if any(group.variant in variants for group in groups):
            paths += accuracy(groups, folder, window, f"norms-{family}")
            paths += histograms(groups, folder, f"histograms-{family}")
    return paths


def accuracy(groups: Sequence[Group], folder: Path, window: int, name: str) -> list[Path]:
    """Fig. 5a: training and test accuracy, beside the paper's."""
    groups = [group for group in groups if group.records("metrics")]
    if not groups:
        return []
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), sharey=True)
    handles = draw_accuracy(axes, groups, window)
    title = (
        f"Accuracy at lr {groups[0].lr:g} ({middle_of(groups)}; training: mean of the last "
        f"{window} steps)"
    )
    legend_below(figure, handles, title)
    return [save(figure, folder, name)]


def draw_accuracy(pair: Sequence[Any], groups: Sequence[Group], window: int) -> list[Any]:
    """Training accuracy into the first axes, test accuracy into the second; returns the legend's
    handles: a colour a variant, a dash a rate (solid: the main one)."""
    plt = pyplot()
    left, right = pair
    main = main_rate(groups)
    rates = sorted({group.lr for group in groups}, key=lambda lr: (lr != main, lr))
    papers = False
    for group in groups:
        style = {"linestyle": DASHES[rates.index(group.lr) % len(DASHES)]}
        curves = _curves(group, window)
        for axes, curve in zip(pair, curves, strict=True):
            if len(curve.steps):
                draw_curve(axes, curve, group.colour, **style)
        for run in group.runs:
            metrics = run.records("metrics")
            if (run.result or {}).get("status") == "diverged" and metrics:
                end = smooth([r["accuracy"] for r in metrics], window)[-1]
                left.plot(metrics[-1]["step"], end, "x", color=group.colour)
        if len(curves[0].steps):
            papers |= _papers(pair, group, curves[0].steps[-1])
    left.set(title="training", xlabel="step", ylabel="share of images classified right")
    right.set(title="test", xlabel="step", ylim=(0, 1))
    shades = {group.variant: group.colour for group in groups}
    handles = [plt.Line2D([], [], color=c, linewidth=2, label=v) for v, c in shades.items()]
    for i, rate in enumerate(rates if len(rates) > 1 else ()):
        dash = DASHES[i % len(DASHES)]
        handles.append(plt.Line2D([], [], color="0.35", linestyle=dash, label=f"lr {rate:g}"))
    if papers:
        handles.append(plt.Line2D([], [], color="0.35", **PAPER, label="the paper's"))
    return handles


def _curves(group: Group, window: int) -> list[Any]:
    """Training and test accuracy over the seeds; some of the smoothed points draw the same line."""
    some = slice(None, None, max(1, window // 8))
    train = [
        ([r["step"] for r in s][some], smooth([r["accuracy"] for r in s], window)[some])
        for s in group.records("metrics")
    ]
    test = [([r["updates"] for r in s], [r["accuracy"] for r in s]) for s in group.records("test")]
    return [over_seeds(train), over_seeds(test)]


def _papers(pair: Sequence[Any], group: Group, last: float) -> bool:
    """Draw what is known of the paper's curves up to our last step; whether there is any."""
    if group.runs[0].config["settings"]["data"] != "cifar10":
        return False
    known = False
    tables: tuple[Mapping[Any, Any], ...] = (paper.TRAIN, paper.TEST)
    for axes, table in zip(pair, tables, strict=True):
        values = table.get((group.variant, group.lr), (None,) * len(paper.STEPS))
        points = [
            (step, value / 100)
            for step, value in zip(paper.STEPS, values, strict=True)
            if value is not None and step <= last + 1
        ]
        if points:
            axes.plot(*zip(*points, strict=True), color=group.colour, **PAPER, zorder=3)
            known = True
    return known


def histograms(groups: Sequence[Group], folder: Path, name: str) -> list[Path]:
    """Fig. 6: what enters the ReLU of one unit, a histogram a step, later ones higher up."""
    layer = _layer(groups[0].runs[0])
    found = []
    for group in groups:
        records = first_units(group.runs[0]).get((layer, "activation"), [])
        if seen := [r for r in records if "histogram" in r]:
            found.append((group, seen))
    if not found:
        return []
    plt = pyplot()
    figure, row = plt.subplots(
        1, len(found), figsize=(0.8 + 2.3 * len(found), 4.2), sharey=True, squeeze=False
    )
    for axes, (group, seen) in zip(row[0], found, strict=True):
        _ridges(axes, seen, group.colour)
        axes.set_title(group.variant, color=group.colour)
        axes.set_xlabel("value")
    row[0][0].set_ylabel("step of training")
    like = "" if layer == SHOWN else f" (as deep as the paper's {SHOWN})"
    figure.suptitle(
        f"what enters the ReLU of one unit of layer {layer}{like}, over the batch; lr "
        f"{groups[0].lr:g}, one seed (mind the scales)",
        fontsize=10,
    )
    figure.tight_layout()
    return [save(figure, folder, name)]


def _layer(run: Run) -> int:
    """The layer of this network that stands for the paper's layer of Fig. 6."""
    layers = paper.shown_layers(run.config["settings"]["model"])
    return next(layer for layer, of_paper in layers.items() if of_paper == SHOWN)


def _ridges(axes: Any, records: list[dict[str, Any]], shade: str) -> None:
    """Histograms of equal area, each standing on a line of its own; 98 % of all values in view."""
    places = np.unique(np.linspace(0, len(records) - 1, RIDGES).round().astype(int))
    chosen = [records[i] for i in places]
    ends = [(r["quantiles"][0], r["quantiles"][-1]) for r in chosen]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    margin = 0.05 * (high - low) or 1.0
    for i, record in enumerate(chosen):
        counts = np.array(record["histogram"], np.float64)
        first, last = record["range"]
        edges = np.linspace(first, last, len(counts) + 1)
        shares = counts / counts.max()
        heights = i + 1.4 * np.append(shares, shares[-1])
        axes.fill_between(
            edges, i, heights, step="post", color=shade, alpha=0.55, linewidth=0, zorder=-i
        )
        axes.step(edges, heights, where="post", color=shade, linewidth=0.7, zorder=-i)
    axes.set_xlim(low - margin, high + margin)
    axes.set_yticks(range(len(chosen)), [str(r["step"]) for r in chosen])
    axes.grid(axis="y", alpha=0)
