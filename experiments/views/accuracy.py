"""Accuracy of VGG trainings over the steps, from metrics.jsonl and test.jsonl of their runs.

accuracy.png          training and test accuracy of all variants and rates (Figs. 1a, 1b)
accuracy-rates.png    standard and BatchNorm at every rate (Figs. 1a, 1b)
accuracy-noise.png    with and without noise, at the main rate (Fig. 2 left)
accuracy-lp.png       the l_p norms (Figs. 5a, 12a)
accuracy-others.png   norms that the paper does not try

The later files show parts of the first; one that would show all of it is left out. Dotted with
markers, one a rate: the paper's digitised curves, in figures with few curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import paper
from experiments.training.study import Run
from experiments.views.plotting import (
    DASHES,
    PAPER,
    RATE_MARKS,
    WIDEST,
    entry,
    heading,
    left_out,
    legend_below,
    own_style,
    save,
    smooth,
    subplots,
)
from experiments.views.series import (
    Group,
    entries_of,
    group_runs,
    line_width,
    main_rate,
    middle_of,
    over_seeds,
    plot_curve,
)

BESIDE = ("standard", "batchnorm")
NORM_FAMILIES = {
    "noise": ("noisy-batchnorm", "noisy-standard"),
    "lp": ("l1", "l2", "linf"),
    "others": (
        "layernorm", "groupnorm", "instancenorm", "rmsnorm", "weightstandardisation",
        "groupnorm-weightstandardisation", "frozen-batchnorm",
    ),
    "lp-readings": ("l1-centred", "linf-centred", "l2-mean-of-norm", "linf-mean-of-norm"),
}  # fmt: skip
MOST = 6  # curves of ours among which the paper's are still legible


def plot(runs: Sequence[Run], folder: Path, window: int) -> list[Path]:
    """All views of this module that the records allow. Returns the paths of the PNGs."""
    every = [group for group in group_runs(runs) if group.records("metrics")]
    if not every:
        return []
    views = {"accuracy": every}
    both = [group for group in every if group.variant in BESIDE]
    if len({group.lr for group in both}) > 1:
        views["accuracy-rates"] = both
    for name, groups in groups_by_norm_family(every).items():
        views[f"accuracy-{name}"] = groups
    views = {n: g for n, g in views.items() if n == "accuracy" or len(g) < len(every)}
    return [plot_accuracy(groups, every, folder, window, name) for name, groups in views.items()]


def groups_by_norm_family(every: Sequence[Group]) -> dict[str, list[Group]]:
    """Family -> its variants, and those of BESIDE, at the main rate; only families of which a
    variant was trained."""
    rate = main_rate(every)
    families = {}
    for name, variants in NORM_FAMILIES.items():
        groups = [g for g in every if g.lr == rate and g.variant in BESIDE + variants]
        if any(group.variant in variants for group in groups):
            families[name] = groups
    return families


@own_style()
def plot_accuracy(
    groups: Sequence[Group], every: Sequence[Group], folder: Path, window: int, name: str
) -> Path:
    """Training and test accuracy: a colour a variant, a dash a rate, x where a run diverged.
    every: all groups there are; those not drawn are named."""
    figure, axes = subplots(1, 2, figsize=(WIDEST, 4.5), sharex=True, sharey=True)
    handles = _plot(axes, groups, window)
    rates = {group.lr for group in groups}
    at = f" at lr {min(rates):g}" if len(rates) == 1 else ""
    shown = {(group.variant, group.lr) for group in groups}
    others = [f"{g.variant} at {g.lr:g}" for g in every if (g.variant, g.lr) not in shown]
    smoothed = f"training: mean of the last {window} steps"
    elsewhere = "the paper's curves: in the figures of fewer variants"
    title = heading(
        [f"Accuracy{at} ({middle_of(groups)}; {smoothed})"],
        [left_out((), others, "accuracy.png"), elsewhere * beside_many(groups)],
    )
    legend_below(figure, handles, title)
    return save(figure, folder, name)


def _plot(pair: Sequence[Any], groups: Sequence[Group], window: int) -> list[Any]:
    """Training accuracy into the first axes, test accuracy into the second; returns the legend's
    handles. The main rate is solid."""
    left, right = pair
    main = main_rate(groups)
    rates = sorted({group.lr for group in groups}, key=lambda lr: (lr != main, lr))
    papers: set[float] = set()  # the rates of the paper's curves
    for group in groups:
        width = line_width(group.variant, [g.variant for g in groups if g.lr == group.lr])
        style = {"linestyle": DASHES[rates.index(group.lr) % len(DASHES)]}
        curves = _curves(group, window)
        for axes, curve in zip(pair, curves, strict=True):
            if len(curve.steps):
                plot_curve(axes, curve, group.colour, linewidth=width, **style)
        last = 0
        for run in group.runs:
            metrics = run.records("metrics")
            last = max(last, len(metrics))
            if (run.result or {}).get("status") == "diverged" and metrics:
                end = smooth([r["accuracy"] for r in metrics], window)[-1]
                left.plot(metrics[-1]["step"], end, "x", color=group.colour)
        mark = RATE_MARKS[rates.index(group.lr) % len(RATE_MARKS)]
        if len(groups) <= MOST and _papers(pair, group, last, mark):
            papers.add(group.lr)
    left.set(title="training", xlabel="step of training", ylabel="share of images classified right")
    right.set(title="test", xlabel="step of training", ylim=(0, 1))
    handles = entries_of(groups)
    for i, rate in enumerate(rates):
        at = f", lr {rate:g}" if len(rates) > 1 else ""
        if at:
            handles.append(entry(f"lr {rate:g}", linestyle=DASHES[i % len(DASHES)]))
        if rate in papers:
            mark = RATE_MARKS[i % len(RATE_MARKS)]
            handles.append(entry(f"the paper's{at}", **{**PAPER, "marker": mark}))
    return handles


def beside_many(groups: Sequence[Group]) -> bool:
    """Whether the paper's curves of these groups are left out, among too many of ours."""
    known = {*paper.TRAIN, *paper.TEST}
    return (
        len(groups) > MOST
        and groups[0].on_cifar10
        and any((group.variant, group.lr) in known for group in groups)
    )


def _curves(group: Group, window: int) -> list[Any]:
    """Training and test accuracy over the seeds; of the smoothed points a part is enough."""
    some = slice(None, None, max(1, window // 8))
    train = [
        ([r["step"] for r in s][some], smooth([r["accuracy"] for r in s], window)[some])
        for s in group.records("metrics")
    ]
    test = [([r["updates"] for r in s], [r["accuracy"] for r in s]) for s in group.records("test")]
    return [over_seeds(train), over_seeds(test)]


def _papers(pair: Sequence[Any], group: Group, last: int, mark: str) -> bool:
    """Draw the paper's curves up to our last step with this marker. Returns whether there are."""
    if not group.on_cifar10:
        return False
    known = False
    tables: tuple[Mapping[Any, Any], ...] = (paper.TRAIN, paper.TEST)
    for axes, table in zip(pair, tables, strict=True):
        values = table.get((group.variant, group.lr), (None,) * len(paper.STEPS))
        points = [
            (step, value / 100)
            for step, value in zip(paper.STEPS, values, strict=True)
            if value is not None and step <= last
        ]
        if points:
            style = {**PAPER, "marker": mark}
            axes.plot(*zip(*points, strict=True), color=group.colour, **style, zorder=3)
            known = True
    return known
