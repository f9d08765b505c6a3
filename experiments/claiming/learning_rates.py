"""Claims about learning rates, mostly of Bjorck et al. 2018, from studies of
`experiments.learning_rates`. What a largest or best rate is, and what counts as diverged without
having been run, is defined in `learning_rates_outcomes`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from experiments.claiming.claim import BN, LP_NORMS, STD, Claim, at
from experiments.claiming.evidence import Missing, Sweep
from experiments.claiming.metrics import INF, Metric, Quantity, quotient
from experiments.claiming.rules import Rule, at_least, close, times
from experiments.training.json_files import float_array
from experiments.training.study import Study
from experiments.views.learning_rates_outcomes import (
    Outcome,
    best_rate,
    largest,
    outcomes_of,
    smallest_common_rate,
)

KIND = "learning_rates"
BJORCK = "Bjorck et al. 2018"
TRAINED = 0.9  # train accuracy; below it, networks differ by how fast they start
UNSEEN = "No study of this kind had been seen"
DOUBLING = "the grid doubles: one step of it, at every seed"


@functools.cache
def outcomes(studies: tuple[Study, ...]) -> list[Outcome]:
    """`outcomes_of`, cached: every sweep needs it, and it reads files."""
    return outcomes_of(studies)


def outcomes_of_sweep(sweep: Sweep) -> list[Outcome]:
    """How the seed's runs ended, at every rate of the grid. A rate that was not run, because at a
    lower one all runs of the variant in one study diverged, counts as diverged. Raises Missing if
    another run has not ended."""
    found = outcomes(sweep.studies)
    ours = [o for o in found if (o.variant, o.seed) == (sweep.variant, sweep.seed)]
    grid = sorted({lr for study in sweep.studies for lr in study.settings["lr"]})
    ends = {o.lr for o in ours}
    if lacks := [f"{lr:g}" for lr in grid if lr not in ends]:
        raise Missing(f"{sweep} has not ended at lr {', '.join(lacks)}")
    return ours


def largest_rate(words: str, learns: bool) -> Quantity:
    def of(sweep: Sweep) -> float:
        rate = largest(outcomes_of_sweep(sweep), learns=learns)[sweep.variant][sweep.seed]
        if not rate:
            raise Missing(f"{sweep}: none of the grid's rates is one")
        return rate

    return Quantity(words, of)


LEARNS = largest_rate("largest rate that learns", True)
STABLE = largest_rate("largest rate without divergence", False)
ACCURACIES = Quantity("train accuracy over the grid", outcomes_of_sweep)


def accuracy(found: list[Outcome], lr: float) -> float:
    return next(o.train for o in found if o.lr == lr)


def at_equal_small_rate(bn: list[Outcome], std: list[Outcome]) -> float:
    """The difference in train accuracy at the smallest rate at which both learn."""
    rate = smallest_common_rate([*bn, *std], (bn[0].variant, std[0].variant))
    if rate is None:
        raise Missing("there is no rate at which both learn")
    gap = accuracy(bn, rate) - accuracy(std, rate)
    require_trained(max(accuracy(bn, rate), accuracy(std, rate)), rate)
    return gap


def require_trained(best: float, lr: float) -> None:
    """Raise Missing if the better network is not trained: Bjorck et al. train until nothing
    changes, where a slower network has caught up."""
    if best < TRAINED:
        raise Missing(
            f"at lr {lr:g} the better of the two ends at {best:.2f} of the training set, below "
            f"{TRAINED}: too short for a sentence about trained networks"
        )


def share_by_rate(bn: list[Outcome], std: list[Outcome]) -> float:
    """The share of BatchNorm's gain (best against best) that is due to its own best rate."""
    theirs, own = best_rate(std, std[0].variant), best_rate(bn, bn[0].variant)
    if theirs is None or own is None:
        raise Missing(f"{(std if theirs is None else bn)[0].variant} learns at no rate of the grid")
    require_trained(accuracy(bn, own), own)
    gain = accuracy(bn, own) - accuracy(std, theirs)
    if gain <= 0:
        raise Missing(f"{bn[0].variant}'s best is no better than {std[0].variant}'s")
    return (accuracy(bn, own) - accuracy(bn, theirs)) / gain


def explosion(sweep: Sweep) -> float:
    """At the smallest rate that diverged, in the last step at which all was finite: the variance of
    the last layer's output over that of the first. Missing if moments end before that step."""
    outcomes_of_sweep(sweep)
    for trace in sweep.traces:
        if trace.diverged is not None:
            records = trace.records("moments")
            if not any(record["step"] == trace.diverged - 1 for record in records):
                raise Missing(f"{trace}: moments of the step before divergence are not on record")
            for record in reversed(records):
                var = float_array(record["var"], null=INF)
                if np.isfinite(var).all():
                    return float(var[-1] / var[0])
            raise Missing(f"{trace} has no finite moments on record")
    raise Missing(f"{sweep} diverged at no rate of the grid")


def larger(
    id: str, says: str, *, variant: str, quantity: Quantity, place: str, main: bool = False
) -> Claim:
    return Claim(
        id,
        says,
        place=place,
        kind=KIND,
        runs=at(None, variant, STD),
        metric=quotient(quantity),
        rule=times(2),
        why=DOUBLING,
        main=main,
    )


def compare(
    id: str, says: str, *, form: str, fold: Callable[..., float], rule: Rule, why: str
) -> Claim:
    return Claim(
        id,
        says,
        place=BJORCK,
        kind=KIND,
        runs=at(None, BN, STD),
        metric=Metric(ACCURACIES, form, fold),
        rule=rule,
        why=why,
        amended="undecided unless one of the two has trained (0.9); before, short runs were "
        f"judged, too. {UNSEEN}",
    )


CLAIMS = [
    larger(
        "bn-larger-rates",
        "BatchNorm learns at larger rates",
        variant=BN,
        quantity=LEARNS,
        place=f"§1; {BJORCK}",
        main=True,
    ),
    larger(
        "bn-stable-at-larger-rates",
        "BatchNorm does not diverge at larger rates",
        variant=BN,
        quantity=STABLE,
        place=BJORCK,
    ),
    *(
        larger(
            f"{norm}-larger-rates",
            f"{norm} learns at larger rates than no norm",
            variant=norm,
            quantity=LEARNS,
            place="§3.3, not measured there",
        )
        for norm in LP_NORMS
    ),
    compare(
        "equal-at-small-rates",
        "At an equal small rate BatchNorm makes little difference",
        form="{0} - {1} at the smallest rate at which both learn",
        fold=at_equal_small_rate,
        rule=close(0.05),
        why="five points, of trained networks",
    ),
    compare(
        "gain-is-by-rates",
        "Most of BatchNorm's gain comes from larger rates",
        form="share of best {0} - best {1} that {0} gains from {1}'s best rate to its own",
        fold=share_by_rate,
        rule=at_least(0.5, opposite=0.25),
        why="most: a half; the opposite: a quarter",
    ),
    Claim(
        "explodes-with-depth",
        "Without a norm, at too large a rate, deep layers explode",
        place=BJORCK,
        kind=KIND,
        runs=at(None, STD),
        metric=Metric(
            Quantity("variance before divergence", explosion),
            "{0}, last layer / first",
            lambda a: a,
            quotient=True,
        ),
        rule=times(100),
        why="two orders of magnitude",
        amended=f"undecided where moments were not recorded up to divergence. {UNSEEN}",
    ),
]
