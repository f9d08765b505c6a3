"""What the runs of `learning_rates` say: outcomes, largest stable rates, tables.

The definitions, fixed before the runs; the margin and the grid after a pilot of nine runs (one
seed), in which a margin of 0.1 instead would have lowered both the standard network's largest rate
that learns (0.4, loss 2.22 at the end) and BatchNorm's (3.2, loss 2.22):

A run *diverged* if its loss was not finite at some step. It *learns* if its mean training loss over
the last tenth of the steps lies more than 0.05 below ln 10. No constant answer has an expected loss
below ln 10, whatever its biases do, and over a tenth of 200 steps the loss of a dead network
scatters by less than 0.005; so this much is no accident, and who just begins to learn counts. Else
it is *at chance*: dead, or too slow for so few steps.

The largest rate *without divergence* of a variant and seed is the largest of the grid such that
neither it nor a smaller one diverged: behind a rate that diverged, a network that dies first is no
more stable. The largest rate that *learns* is the largest at which the run learns, whatever smaller
rates do: the reading that favours each variant.

A variant's *best* rate has the highest training accuracy (mean over seeds; it is never chosen by
the test set). A diverged run counts as chance in accuracies. So does a rate that a study left out
because every seed of it diverged at a lower one: else the mean of a variant over several studies
would be that of the seeds that survived.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.running.study import Run, Study
from experiments.views.drawing import in_order
from experiments.views.series import spread, without_copies
from experiments.views.tables import seconds

CLASSES = 10  # of both data sets
CHANCE = 1 / CLASSES
MARGIN = 0.05  # of the loss (nats) below a constant answer's
LAST = 0.1  # the share of the steps over which a run's end is averaged
LEARNS, AT_CHANCE, DIVERGED = "learns", "at chance", "diverged"


@dataclass(frozen=True)
class Outcome:
    """How a run ended. Loss and `train` are means over the last tenth of the steps; `test` is NaN
    where it was not measured; `step` is that of divergence. A diverged one without a step was left
    out, for a lower rate had diverged: see `left_out`."""

    variant: str
    lr: float
    seed: int
    status: str
    loss: float = math.inf
    train: float = CHANCE
    test: float = CHANCE
    step: int | None = None

    @property
    def ran(self) -> bool:
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
    status = LEARNS if loss < math.log(CLASSES) - MARGIN else AT_CHANCE
    return Outcome(*who, status, loss, train, tests[-1]["accuracy"] if tests else math.nan)


def outcomes(runs: Iterable[Run]) -> list[Outcome]:
    """Of the runs that ended, by variant in the order of figures, rate and seed."""
    return sorted_as_drawn(o for o in map(outcome, runs) if o)


def sorted_as_drawn(found: Iterable[Outcome]) -> list[Outcome]:
    found = list(found)
    order = in_order(o.variant for o in found)
    return sorted(found, key=lambda o: (order.index(o.variant), o.lr, o.seed))


def left_out(found: Sequence[Outcome], grid: Iterable[float]) -> list[Outcome]:
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
    missing = [o for study in studies for o in left_out(outcomes(study.runs()), grid)]
    ended = outcomes(without_copies(run for study in studies for run in study.runs()))
    found = {(o.variant, o.lr, o.seed): o for o in [*missing, *ended]}
    return sorted_as_drawn(found.values())


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


def stable_table(found: Sequence[Outcome], grid: Sequence[float]) -> str:
    """Markdown: a row a variant."""
    rows = [
        "| variant | largest rate without divergence | largest rate that learns | best rate "
        "| train accuracy there | test accuracy there |",
        "|---|---|---|---|---|---|",
    ]
    without, learning = largest(found, learns=False), largest(found)
    for variant in without:
        best = best_rate(found, variant)
        there = [] if best is None else at(found, variant, best).values()
        cells = [
            variant,
            rates_text(without[variant].values(), grid[-1]),
            rates_text(learning[variant].values(), grid[-1]),
            "none" if best is None else f"{best:g}",
            spread([o.train for o in there], ".3f"),
            spread([o.test for o in there], ".3f"),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    note = (
        "(median over seeds, least to largest where they differ; ≥: the largest rate of the grid; "
        "none: no rate of the grid)"
    )
    return "\n".join(rows) + "\n\n" + note


def middle_rate(rates: Iterable[float]) -> float:
    """The median; of an even number the lower one, so that it is a rate of the grid."""
    return statistics.median_low(rates)


def rates_text(rates: Iterable[float], top: float) -> str:
    """The median of rates, with the least and largest where they differ."""
    rates = list(rates)
    low, middle, high = (
        ("≥ " if lr >= top else "") + f"{lr:g}" if lr else "none"
        for lr in (min(rates), middle_rate(rates), max(rates))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


def grid_table(found: Sequence[Outcome], grid: Sequence[float]) -> str:
    """Markdown: training accuracy, a row a variant, a column a rate."""
    rows = [f"| variant | {' | '.join(f'{lr:g}' for lr in grid)} |", "|---" * (len(grid) + 1) + "|"]
    for variant in dict.fromkeys(o.variant for o in found):
        cells = [_cell(list(at(found, variant, lr).values())) for lr in grid]
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    note = (
        "(training accuracy by rate, mean over seeds, a diverged run counted as chance; in "
        "brackets how many did not learn; not run: left out, for a lower rate diverged at every "
        "seed of the study; counts as diverged)"
    )
    return "\n".join(rows) + "\n\n" + note


def _cell(there: Sequence[Outcome]) -> str:
    if not there:
        return ""
    statuses = [o.status if o.ran else "not run" for o in there]
    count = [(s, statuses.count(s)) for s in (AT_CHANCE, DIVERGED, "not run")]
    failed = ", ".join(f"{n} {s}" for s, n in count if n)
    if all(o.status == DIVERGED for o in there):
        steps = [o.step for o in there if o.step is not None]
        return f"diverged at step {spread(steps, 'g')}" if steps else "not run"
    return f"{np.mean([o.train for o in there]):.3f}" + (f" ({failed})" if failed else "")


def gains(found: Sequence[Outcome], variant: str, base: str = "standard") -> dict[str, Any] | None:
    """How much better `variant` is than `base`, in training accuracy, by seed:

    at_small_rate   at `small_rate`, the smallest at which every run of both learns (or None):
                    there Bjorck et al. find little difference
    equal_rate      at `base_rate`, the best rate of `base`
    own_rate        more than that at `rate`, its own best rate (or None)

    None if there is no run of one of them, or no run of `base` learns.
    """
    if not {base, variant} <= {o.variant for o in found}:
        return None
    base_rate, rate = best_rate(found, base), best_rate(found, variant)
    if base_rate is None:
        return None
    small = smallest_common_rate(found, (base, variant))

    def more(better: tuple[str, float | None], worse: tuple[str, float | None]) -> dict[int, float]:
        if better[1] is None or worse[1] is None:
            return {}
        a, b = (at(found, name, lr) for name, lr in (better, worse))  # type: ignore[arg-type]
        return {seed: a[seed].train - b[seed].train for seed in a if seed in b}

    return {
        "small_rate": small,
        "at_small_rate": more((variant, small), (base, small)),
        "base_rate": base_rate,
        "equal_rate": more((variant, base_rate), (base, base_rate)),
        "rate": rate,
        "own_rate": more((variant, rate), (variant, base_rate)),
    }


def gains_table(found: Sequence[Outcome]) -> str:
    """Markdown: what each variant gains over the standard network, and how much of it comes from
    a rate that the standard network does not bear. Empty without a standard network."""
    rows = []
    for variant in dict.fromkeys(o.variant for o in found):
        gain = gains(found, variant)
        if variant == "standard" or not gain:
            continue
        cells = [
            f"{spread(list(gain[key].values()), '+.3f')} at {gain[lr]:g}" if gain[key] else "none"
            for key, lr in (
                ("at_small_rate", "small_rate"),
                ("equal_rate", "base_rate"),
                ("own_rate", "rate"),
            )
        ]
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    if not rows:
        return ""
    head = (
        "| variant | over standard, at the smallest rate at which both learn "
        "| over standard, at the standard network's best rate "
        "| more by the variant's own best rate |\n|---|---|---|---|\n"
    )
    note = (
        "(training accuracy; the last two columns add up to best against best; none: no such rate)"
    )
    return head + "\n".join(rows) + "\n\n" + note


def definitions(steps: int) -> str:
    return (
        f"Trained for {steps:,} steps. Diverged: a loss that is not finite. Learns: mean training "
        f"loss of the last tenth of the steps below ln {CLASSES} - {MARGIN:g} = "
        f"{math.log(CLASSES) - MARGIN:.2f}. At chance: neither; dead, or too slow for so few steps."
    )


def summary(
    settings: dict[str, Any], runs: Sequence[Run], found: Sequence[Outcome], grid: Sequence[float]
) -> dict[str, Any]:
    """Everything the figure and the tables show, in a small file (without this machine's paths)."""
    free = ("data_dir", "variants", "lr", "seed")
    variants = list(dict.fromkeys(o.variant for o in found))
    content = {
        "settings": {k: v for k, v in settings.items() if k not in free},
        "definitions": definitions(settings["steps"]),
        "grid": list(grid),
        "largest_without_divergence": largest(found, learns=False),
        "largest_that_learns": largest(found),
        "best_rate": {v: best_rate(found, v) for v in variants},
        "gains_over_standard": {v: gains(found, v) for v in variants if v != "standard"},
        "runs": [asdict(o) for o in found if o.ran],
        "seconds": round(sum(map(seconds, runs)), 1),
        "environment": runs[0].config["environment"],
        "data_fingerprint": sorted({run.config["data_fingerprint"] for run in runs}),
    }
    return _plain(content)


def _plain(content: Any) -> Any:
    """For JSON: no number that is not finite, and not more digits than they are worth."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    if isinstance(content, float):
        return float(f"{content:.5g}") if math.isfinite(content) else None
    return content
