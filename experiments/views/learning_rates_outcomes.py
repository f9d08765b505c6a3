"""How the runs of `learning_rates` ended: outcomes, largest stable rates, best rates.

The definitions:

A run *diverged* if its loss was not finite at some step. It *learns* if its training accuracy over
the last quarter of the steps is at least twice that of chance; else it is *at chance*: dead, or too
slow for so few steps. (An earlier definition, a loss 0.05 nats below ln 10, let a network of 14 %
accuracy learn. This one is also that of the claim `bn-larger-rates`.)

The largest rate *without divergence* of a variant and seed is the largest of the grid such that
neither it nor a smaller one diverged: above a rate that diverged, a network that dies before it
diverges is no more stable. The largest rate that *learns* is the largest at which the run learns,
whatever smaller rates do: the reading that favours each variant.

A variant's *best* rate has the highest training accuracy (mean over seeds; it is never chosen by
the test set). A diverged run counts as chance in accuracies. So does a rate that a study left out
because every seed of it diverged at a lower one: else the mean of a variant over several studies
would be that of the seeds that survived.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.training.study import Run, Study
from experiments.views.plotting import in_order
from experiments.views.series import without_copies
from experiments.views.tables import CHANCE

LEAST = 2 * CHANCE  # accuracy of a run that learns
LAST = 0.25  # the share of the steps over which a run's end is averaged
LEARNS, AT_CHANCE, DIVERGED = "learns", "at chance", "diverged"


@dataclass(frozen=True)
class Outcome:
    """How a run ended. Loss and `train` are means over the last quarter of the steps; `test` is NaN
    where it was not measured; `step` is that of divergence. A diverged one without a step was not
    run, as a lower rate had diverged: see `skipped_outcomes`."""

    variant: str
    lr: float
    seed: int
    status: str
    loss: float = math.inf
    train: float = CHANCE
    test: float = CHANCE
    step: int | None = None

    @property
    def has_run(self) -> bool:
        return self.status != DIVERGED or self.step is not None


def outcome(run: Run) -> Outcome | None:
    """None while the run has no end."""
    result, config = run.result, run.config
    if result is None:
        return None
    who = (config["variant"], config["lr"], config["seed"])
    if result["status"] == "diverged":
        return Outcome(*who, DIVERGED, step=result["step"])
    metrics, tests = run.records("metrics"), run.records("test")
    last = metrics[-max(1, int(len(metrics) * LAST)) :]
    loss, train = (float(np.mean([m[key] for m in last])) for key in ("loss", "accuracy"))
    status = LEARNS if train >= LEAST else AT_CHANCE
    return Outcome(*who, status, loss, train, tests[-1]["accuracy"] if tests else math.nan)


def outcomes(runs: Iterable[Run]) -> list[Outcome]:
    """Of the runs that ended, by variant in the order of figures, rate and seed."""
    return sort_for_plots(o for o in map(outcome, runs) if o)


def sort_for_plots(found: Iterable[Outcome]) -> list[Outcome]:
    found = list(found)
    order = in_order(o.variant for o in found)
    return sorted(found, key=lambda o: (order.index(o.variant), o.lr, o.seed))


def skipped_outcomes(found: Sequence[Outcome], grid: Iterable[float]) -> list[Outcome]:
    """What one study with these outcomes did not run of the grid, since every seed of it diverged
    at a lower rate. Each counts as diverged."""
    missing = []
    for variant in dict.fromkeys(o.variant for o in found):
        of = [o for o in found if o.variant == variant]
        end = barrier((o.lr, o.status == DIVERGED) for o in of)
        ran = {(o.lr, o.seed) for o in of}
        missing += [
            Outcome(variant, lr, seed, DIVERGED)
            for lr in grid
            for seed in sorted({o.seed for o in of})
            if lr > end and (lr, seed) not in ran
        ]
    return missing


def outcomes_of(studies: Sequence[Study]) -> list[Outcome]:
    """`outcomes` of all runs of the studies, each once, and what a study left out of the rates of
    all of them, unless another ran it."""
    grid = sorted({lr for study in studies for lr in study.settings["lr"]})
    missing = [o for study in studies for o in skipped_outcomes(outcomes(study.runs()), grid)]
    ended = outcomes(without_copies(run for study in studies for run in study.runs()))
    found = {(o.variant, o.lr, o.seed): o for o in [*missing, *ended]}
    return sort_for_plots(found.values())


def largest_stable(runs: Iterable[Run], *, learns: bool = True) -> dict[str, dict[int, float]]:
    """variant -> seed -> the largest rate of the grid at which it learns or, with `learns` False,
    up to which it does not diverge. 0.0: no rate of the grid."""
    return largest(outcomes(runs), learns=learns)


def largest(found: Sequence[Outcome], *, learns: bool = True) -> dict[str, dict[int, float]]:
    """`largest_stable` of outcomes."""
    rates: dict[str, dict[int, float]] = {}
    for variant, seed in dict.fromkeys((o.variant, o.seed) for o in found):
        of = [o for o in found if (o.variant, o.seed) == (variant, seed)]
        if learns:
            good = [o.lr for o in of if o.status == LEARNS]
        else:
            end = min((o.lr for o in of if o.status == DIVERGED), default=math.inf)
            good = [o.lr for o in of if o.lr < end]
        rates.setdefault(variant, {})[seed] = max(good, default=0.0)
    return rates


def middle_rate(rates: Iterable[float]) -> float:
    """The median; of an even number the lower one, so that it is a rate of the grid."""
    return statistics.median_low(rates)


def barrier(ended: Iterable[tuple[float, bool]]) -> float:
    """From (rate, whether it diverged) of a variant's runs: the smallest rate at which all
    diverged; infinity if there is none. Above it nothing is run."""
    at: dict[float, list[bool]] = {}
    for lr, diverged in ended:
        at.setdefault(lr, []).append(diverged)
    return min((lr for lr, all_of in at.items() if all(all_of)), default=math.inf)


def at(found: Sequence[Outcome], variant: str, lr: float) -> dict[int, Outcome]:
    """seed -> outcome of the variant at the rate."""
    return {o.seed: o for o in found if (o.variant, o.lr) == (variant, lr)}


def rates_of(found: Sequence[Outcome], variant: str) -> list[float]:
    return sorted({o.lr for o in found if o.variant == variant})


def best_rate(found: Sequence[Outcome], variant: str) -> float | None:
    """The rate of the highest mean training accuracy, of those at which a run learns; of equal
    ones, the smallest. None if no run of the variant learns."""
    rates = [
        lr
        for lr in rates_of(found, variant)
        if any(o.status == LEARNS for o in at(found, variant, lr).values())
    ]

    def mean(lr: float) -> float:
        return float(np.mean([o.train for o in at(found, variant, lr).values()]))

    return max(rates, key=lambda lr: (mean(lr), -lr), default=None)


def smallest_common_rate(found: Sequence[Outcome], variants: Sequence[str]) -> float | None:
    """The smallest rate at which every run of all these variants learns; None if there is none."""
    common = set.intersection(*(set(rates_of(found, v)) for v in variants))
    good = [
        lr
        for lr in common
        if all(o.status == LEARNS for v in variants for o in at(found, v, lr).values())
    ]
    return min(good, default=None)
