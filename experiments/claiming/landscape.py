"""Claims about probes on the landscape of VGG (Figs. 4, 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments import paper
from experiments.claiming.claim import BN, END, LEAD, MOST, STD, VGG, Claim, at
from experiments.claiming.metrics import itself, quotient
from experiments.claiming.probes import (
    Record,
    at_equal_distance,
    beta,
    beta_over_floor,
    bounds,
    gradient_change,
    gradient_norm,
    loss_band,
    probe_quantity,
)
from experiments.claiming.rules import Rule, at_least, close, times

DOUBLE = "twice: a difference that one sees; the paper's medians are 4 to 14 times apart"
FIFTH = "a fifth: the paper's are a half apart, and both are bounded by 1 / (smallest step)"
BOUNDS = (
    "the verdict says how often beta is a bound only: saturated at the smallest step, or at the "
    "ceiling. The rule is as it was"
)


def loss_width(variant: str, i: int) -> float:
    low, high = paper.LOSS_RANGE[variant][i]
    return high - low


def largest_change(variant: str, i: int) -> float:
    return paper.CHANGE_RANGE[variant][i][1]


def beta_of_paper(variant: str, i: int) -> float:
    return paper.EFFECTIVE_BETA[variant][i]


@dataclass(frozen=True)
class Measure:
    """One of Fig. 4's three quantities. less, more: the words for a smaller and a larger one;
    of_paper: the paper's curve of a variant, at the i-th of its LANDSCAPE_STEPS."""

    id: str
    less: str
    more: str
    place: str
    number: Callable[[Record], float]
    of_paper: Callable[[str, int], float]
    rule: Rule
    why: str

    def quotient_of_paper(self, one: str, other: str, *steps: int) -> float:
        """The quotient of the medians over the steps."""
        where = [paper.LANDSCAPE_STEPS.index(step) for step in steps]
        a, b = (sorted(self.of_paper(v, i) for i in where)[len(where) // 2] for v in (one, other))
        return a / b


MEASURES = (
    Measure(
        id="loss",
        less="The loss varies less along the gradient",
        more="the loss band is larger",
        place="Fig. 4a",
        number=loss_band,
        of_paper=loss_width,
        rule=times(2),
        why=DOUBLE,
    ),
    Measure(
        id="change",
        less="Gradients are more predictive",
        more="the gradient's change is larger",
        place="Fig. 4b",
        number=gradient_change,
        of_paper=largest_change,
        rule=times(2),
        why=DOUBLE,
    ),
    Measure(
        id="beta",
        less="Effective beta is smaller",
        more="beta is larger",
        place="Fig. 4c",
        number=beta,
        of_paper=beta_of_paper,
        rule=times(1.2),
        why=FIFTH,
    ),
)


def smoother(measure: Measure) -> Claim:
    is_beta = measure.number is beta
    return Claim(
        f"bn-{measure.id}",
        f"{measure.less} with BatchNorm",
        place=f"§3.2, {measure.place}",
        kind=VGG,
        runs=at(0.1, STD, BN),
        metric=quotient(probe_quantity(measure.number, *LEAD)),
        rule=measure.rule,
        why=measure.why,
        paper=measure.quotient_of_paper(STD, BN, 500, 1000, 2000),
        main=True,
        remark=bounds(*LEAD) if is_beta else None,
        amended=BOUNDS if is_beta else "",
    )


def rougher(measure: Measure, step: int) -> Claim:
    is_beta = measure.number is beta
    return Claim(
        f"bn-{measure.id}-worse-at-{step}",
        f"At step {step} {measure.more} with BatchNorm",
        place=f"{measure.place}, digitised",
        kind=VGG,
        runs=at(0.1, BN, STD),
        metric=quotient(probe_quantity(measure.number, step, step + 1)),
        rule=measure.rule,
        why="the rule of the claim about later steps, the other way round",
        paper=measure.quotient_of_paper(BN, STD, step),
        main=step == 0,
        remark=bounds(step, step + 1) if is_beta else None,
        amended=BOUNDS if is_beta else "",
    )


DETAILS = [
    Claim(
        "bn-predictiveness-two-orders",
        "Gradients are more predictive by nearly two orders of magnitude",
        place="§3.2",
        kind=VGG,
        runs=at(0.1, STD, BN),
        metric=quotient(probe_quantity(gradient_change, *MOST, over="largest")),
        rule=at_least(30, opposite=10),
        why="one and a half orders; ten or less is no more than one; of each, the worst single "
        "probe",
        paper=paper.LARGEST_CHANGE[STD] / paper.LARGEST_CHANGE[BN],
        amended="in words: that a peak is one probe",
    ),
    Claim(
        "random-directions-alike",
        "On random probes as long as the gradient the loss varies less",
        place="§3.2, no figure",
        kind=VGG,
        runs=at(0.1, STD, BN),
        metric=quotient(probe_quantity(loss_band, *LEAD, direction="random")),
        rule=times(2),
        why="the rule of the claim about the gradient's direction; but BatchNorm's gradient is "
        "longer, and so are its probes",
        amended="no longer a main claim, as it compares probes of different lengths. The verdict "
        "is as it was: contradicted (0.31)",
    ),
    Claim(
        "random-directions-at-equal-distance",
        "Along random directions the loss varies less, too",
        place="§3.2, no figure",
        kind=VGG,
        runs=at(0.1, STD, BN),
        metric=at_equal_distance(*LEAD),
        rule=times(2),
        why="the rule of the claim about the gradient's direction; as far in both networks",
        main=True,
        amended="added, and main in the place of random-directions-alike; what is alike depends on "
        "how lengths are made equal: per squared distance the quotients are 1.2 and 1.4",
    ),
    Claim(
        "random-directions-by-filter",
        "Along filter-normalised directions the loss varies less, too",
        place="§3.2, no figure",
        kind=VGG,
        runs=at(0.1, STD, BN),
        metric=quotient(probe_quantity(loss_band, *LEAD, direction="filter")),
        rule=times(2),
        why="the rule of the claim about the gradient's direction; each as long as its weights",
        amended="added: lengths that do not depend on the gradient",
    ),
    Claim(
        "bn-gradient-smaller",
        "The gradients' magnitudes are smaller with BatchNorm",
        place="§3.1",
        kind=VGG,
        runs=at(0.1, STD, BN),
        metric=quotient(probe_quantity(gradient_norm, *LEAD)),
        rule=times(1.25),
        why="a quarter: no number in the paper",
    ),
    Claim(
        "bn-gradient-explodes-at-0",
        "At step 0 BatchNorm's gradient is larger",
        place="Yang et al. 2019",
        kind=VGG,
        runs=at(0.1, BN, STD),
        metric=quotient(probe_quantity(gradient_norm, 0, 1)),
        rule=times(2),
        why="twice: their mean-field theory has it grow with depth",
    ),
]


def at_the_floor(variant: str) -> Claim:
    return Claim(
        f"beta-at-its-floor-{variant}",
        f"Late, {variant}'s beta is all it can show: 1 / (smallest step)",
        place="Fig. 4c, digitised",
        kind=VGG,
        runs=at(0.1, variant),
        metric=itself(probe_quantity(beta_over_floor, 5_000, END[1])),
        rule=close(0.25, to=1),
        why="a quarter around 1",
        paper=paper.LATE_BETA[variant] * paper.STEP_SIZES[0],
    )


CLAIMS = [
    *(smoother(measure) for measure in MEASURES),
    *(rougher(measure, step) for step in (0, 100) for measure in MEASURES),
    *DETAILS,
    *(at_the_floor(variant) for variant in (STD, BN)),
]
