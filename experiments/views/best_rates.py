"""Accuracies of variants that are trained at each rate of a grid, and compared at the best of each.

Shared by `only_bn` and `skip_init`. The best rate of a variant has the highest training accuracy:
the mean over the last tenth of the steps, then over the seeds, where a run that diverged counts as
chance. No test image chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.output import markdown_table
from experiments.training.study import Run, Study
from experiments.views.learning_rates_outcomes import (
    DIVERGED,
    Outcome,
    at,
    outcomes,
    rates_of,
)
from experiments.views.plotting import entry, smooth
from experiments.views.series import over_seeds, plot_curve, spread, without_copies
from experiments.views.tables import CHANCE, short
from minibn.errors import DataError

Colours = Mapping[str, str]  # variant -> colour, in the order of legends and tables


def ended(studies: Sequence[Study], colours: Colours) -> tuple[list[Run], list[Outcome]]:
    """The trainings of the studies that ended, each once, and how, by variant in the order of
    `colours`, which names those that count.

    Raises DataError if none has ended.
    """
    every = without_copies(run for study in studies for run in study.runs())
    runs = [run for run in every if run.config["variant"] in colours and run.result]
    if not runs:
        raise DataError(f"{studies[0].folder} has no run that ended. Continue it with --resume.")
    order = list(colours)
    found = sorted(outcomes(runs), key=lambda o: (order.index(o.variant), o.lr, o.seed))
    return runs, found


def variants_of(found: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(o.variant for o in found))


def best_rate(found: Sequence[Outcome], variant: str) -> float:
    """The variant's rate of the highest mean training accuracy; of equal ones, the smallest."""

    def mean(lr: float) -> float:
        return float(np.mean([o.train for o in at(found, variant, lr).values()]))

    return max(rates_of(found, variant), key=lambda lr: (mean(lr), -lr))


def difference(found: Sequence[Outcome], one: str, other: str, measure: str) -> dict[int, float]:
    """seed -> `measure` ("train" or "test") of `one` minus that of `other`, each at its best rate;
    of the seeds that both have there."""
    a, b = (
        {seed: getattr(o, measure) for seed, o in at(found, v, best_rate(found, v)).items()}
        for v in (one, other)
    )
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def curves(axes: Any, runs: Sequence[Run], found: Sequence[Outcome], colours: Colours) -> None:
    """Training accuracy over the steps, each variant at its best rate: the mean of the last
    twentieth of the steps; median over the seeds, and a band from the least to the largest."""
    for variant in variants_of(found):
        best = best_rate(found, variant)
        of = [r for r in runs if (r.config["variant"], r.config["lr"]) == (variant, best)]
        records = [run.records("metrics") for run in of]
        window = max(1, max(map(len, records), default=1) // 20)
        some = slice(window - 1, None, max(1, window // 4))
        curve = over_seeds(
            ([r["step"] for r in s][some], smooth([r["accuracy"] for r in s], window)[some])
            for s in records
        )
        if len(curve.steps):
            plot_curve(axes, curve, colours[variant])
    axes.set(xlabel="step of training", ylabel="accuracy on the batch", ylim=(0, 1))
    axes.axhline(CHANCE, color="black", linewidth=0.8, linestyle=":")


def by_rate(axes: Any, found: Sequence[Outcome], colours: Colours, measure: str) -> None:
    """Accuracy at the end against the rate: a point a seed (x: diverged, as chance), a line through
    the means."""
    for variant in variants_of(found):
        means = []
        for lr in rates_of(found, variant):
            there = list(at(found, variant, lr).values())
            means.append((lr, float(np.mean([getattr(o, measure) for o in there]))))
            for o in there:
                marker = "x" if o.status == DIVERGED else "o"
                axes.plot(lr, getattr(o, measure), marker, color=colours[variant], markersize=4)
        axes.plot(*zip(*means, strict=True), color=colours[variant], linewidth=1.2)
    grid = sorted({o.lr for o in found})
    axes.axhline(CHANCE, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="learning rate", ylabel="accuracy", ylim=(0, 1))
    axes.set_xticks(grid, [f"{lr:g}" for lr in grid])
    axes.set_xticks([], minor=True)
    axes.set_xlim(grid[0] / 1.5, grid[-1] * 1.5)


def handles(found: Sequence[Outcome], colours: Colours) -> list[Any]:
    """Entries of a legend: the variants, and the marks of single runs."""
    marks = [entry("a seed", marker="o", linestyle="", markersize=4)]
    if any(o.status == DIVERGED for o in found):
        marks.append(entry("diverged", marker="x", linestyle="", markersize=4))
    lines = [entry(v, color=colours[v], linewidth=2) for v in variants_of(found)]
    return [*lines, *marks, entry("chance", color="black", linewidth=0.8, linestyle=":")]


def accuracy_table(found: Sequence[Outcome]) -> str:
    """Markdown: a row a variant and rate."""
    rows = []
    for variant in variants_of(found):
        best = best_rate(found, variant)
        for lr in rates_of(found, variant):
            there = list(at(found, variant, lr).values())
            failed = sum(o.status == DIVERGED for o in there)
            rows.append((
                variant, f"{lr:g}" + (" (best)" if lr == best else ""), len(there), failed or "",
                spread([o.train for o in there], ".3f"), spread([o.test for o in there], ".3f"),
            ))  # fmt: skip
    head = ("variant", "lr", "seeds", "diverged", "train accuracy", "test accuracy")
    note = (
        "train: mean over the last tenth of the steps; test: at the end, in eval mode; median over "
        "seeds, least to largest where they differ; best: of the highest mean train accuracy; a "
        "run that diverged counts as chance"
    )
    return markdown_table(head, rows, note)


def as_numbers(found: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The outcomes for a summary, a record a run."""
    return [
        {
            "variant": o.variant, "lr": o.lr, "seed": o.seed, "status": o.status,
            "train": short(o.train), "test": short(o.test),
        }
        for o in found
    ]  # fmt: skip
