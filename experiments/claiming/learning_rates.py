"""Claims about learning rates, mostly of Bjorck et al. 2018, from studies of
`experiments.learning_rates`. What a largest or best rate is, is defined in `learning_rates_tables`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from experiments.claiming.claim import Claim, at
from experiments.claiming.evidence import EVERY_RATE, Missing, Sweep, Trace
from experiments.claiming.metrics import Metric, Quantity, numbers, quotient
from experiments.claiming.rules import Rule, at_least, close, times
from experiments.claiming.training import BN, STD
from experiments.views.learning_rates_tables import (
    DIVERGED,
    Outcome,
    barrier,
    best_rate,
    largest,
    outcome,
    smallest_common_rate,
)  # fmt: skip

KIND = "learning_rates"
BJORCK = "Bjorck et al. 2018"
TRAINED = 0.9  # train accuracy; where neither is so far, they differ by how fast they start
UNSEEN = "No study of this kind had been seen"
DOUBLING = "the grid doubles: one step of it, at every seed"


@functools.cache
def outcome_of(trace: Trace) -> Outcome | None:
    """A sweep asks for the same ones again and again, and each is a file to read."""
    return outcome(trace.copies[0])


def ended(sweep: Sweep) -> list[Outcome]:
    """How the seed's runs ended. Raises Missing unless each rate of the grid has its end, up to the
    one at which every seed diverged: above that nothing is run."""
    found = [o for o in map(outcome_of, sweep.family) if o]
    end = barrier((o.lr, o.status == DIVERGED) for o in found)
    ours = {o.lr: o for o in found if o.seed == sweep.seed}
    grid = sorted(sweep.traces[0].settings["lr"])
    if lacks := [lr for lr in grid if lr <= end and lr not in ours]:
        raise Missing(f"{sweep} has not ended at lr {', '.join(f'{lr:g}' for lr in lacks)}")
    return [ours[lr] for lr in sorted(ours)]


def largest_rate(words: str, learns: bool) -> Quantity:
    def of(sweep: Sweep) -> float:
        rate = largest(ended(sweep), learns=learns)[sweep.variant][sweep.seed]
        if not rate:
            raise Missing(f"{sweep}: none of the grid's rates is one")
        return rate

    return Quantity(words, of)


LEARNS = largest_rate("largest rate that learns", True)
STABLE = largest_rate("largest rate without divergence", False)
GRID = Quantity("train accuracy over the grid", ended)


def accuracy(found: list[Outcome], lr: float) -> float:
    return next(o.train for o in found if o.lr == lr)


def at_equal_small_rate(bn: list[Outcome], std: list[Outcome]) -> float:
    """How much more accurate at the smallest rate at which both learn."""
    rate = smallest_common_rate([*bn, *std], (bn[0].variant, std[0].variant))
    if rate is None:
        raise Missing("there is no rate at which both learn")
    gap = accuracy(bn, rate) - accuracy(std, rate)
    require_trained(max(accuracy(bn, rate), accuracy(std, rate)), rate)
    return gap


def require_trained(best: float, lr: float) -> None:
    """Their networks are trained until nothing changes, where a slower one has caught up."""
    if best < TRAINED:
        raise Missing(
            f"at lr {lr:g} the better of the two ends at {best:.2f} of the training set, below "
            f"{TRAINED}: too short for a sentence about trained networks"
        )


def share_by_rate(bn: list[Outcome], std: list[Outcome]) -> float:
    """Of best against best: the share that is gained by BatchNorm's own best rate."""
    theirs, own = best_rate(std, std[0].variant), best_rate(bn, bn[0].variant)
    if theirs is None or own is None:
        raise Missing(f"{(std if theirs is None else bn)[0].variant} learns at no rate of the grid")
    if theirs not in {o.lr for o in bn}:
        raise Missing(f"{bn[0].variant} was not trained at lr {theirs:g}")
    require_trained(accuracy(bn, own), own)
    gain = accuracy(bn, own) - accuracy(std, theirs)
    if gain <= 0:
        raise Missing(f"{bn[0].variant}'s best is no better than {std[0].variant}'s")
    return (accuracy(bn, own) - accuracy(bn, theirs)) / gain


def explosion(sweep: Sweep) -> float:
    """At the smallest rate that diverged, in the last step at which all was finite: the variance of
    the last layer's output over that of the first. Missing if moments end before that step."""
    ended(sweep)
    for trace in sweep.traces:
        if trace.diverged is not None:
            records = trace.records("moments")
            if not any(record["step"] == trace.diverged - 1 for record in records):
                raise Missing(f"{trace}: moments of the step before divergence are not on record")
            for record in reversed(records):
                var = numbers(record["var"])
                if np.isfinite(var).all():
                    return float(var[-1] / var[0])
            raise Missing(f"{trace} has no finite moments on record")
    raise Missing(f"{sweep} diverged at no rate of the grid")


def larger(variant: str, quantity: Quantity, id: str, says: str, place: str, main: bool) -> Claim:
    return Claim(
        id, says, place, KIND, at(EVERY_RATE, variant, STD), quotient(quantity), times(2),
        DOUBLING, main=main,
    )  # fmt: skip


def compared(id: str, says: str, form: str, fold: Callable, rule: Rule, why: str) -> Claim:
    return Claim(
        id, says, BJORCK, KIND, at(EVERY_RATE, BN, STD), Metric(GRID, form, fold), rule, why,
        amended=f"undecided unless one of the two has trained (0.9); before, short runs were "
        f"judged, too. {UNSEEN}",
    )  # fmt: skip


CLAIMS = [
    larger(
        BN, LEARNS, "bn-larger-rates", "BatchNorm learns at larger rates",
        f"§1; {BJORCK}", True,
    ),
    larger(
        BN, STABLE, "bn-stable-at-larger-rates", "BatchNorm does not diverge at larger rates",
        BJORCK, False,
    ),
    *(
        larger(
            norm, LEARNS, f"{norm}-larger-rates", f"{norm} learns at larger rates than no norm",
            "§3.3, not measured there", False,
        )
        for norm in ("l1", "l2", "linf")
    ),
    compared(
        "equal-at-small-rates", "At an equal small rate BatchNorm makes little difference",
        "{0} - {1} at the smallest rate at which both learn", at_equal_small_rate, close(0.05),
        "five points, of trained networks",
    ),
    compared(
        "gain-is-by-rates", "Most of BatchNorm's gain comes from larger rates",
        "share of best {0} - best {1} that {0} gains from {1}'s best rate to its own",
        share_by_rate, at_least(0.5, opposite=0.25), "most: a half; the opposite: a quarter",
    ),
    Claim(
        "explodes-with-depth", "Without a norm, at too large a rate, deep layers explode", BJORCK,
        KIND, at(EVERY_RATE, STD),
        Metric(Quantity("variance before divergence", explosion), "{0}, last layer / first",
               lambda a: a, quotient=True),
        times(100), "two orders of magnitude",
        amended=f"undecided where moments were not recorded up to divergence. {UNSEEN}",
    ),
]  # fmt: skip
