"""Claims: a sentence of the paper, a metric, and a rule that was fixed before the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from experiments.claiming.evidence import Evidence, Key, Missing
from experiments.claiming.metrics import Metric
from experiments.claiming.rules import Rule, Verdict, judge, mean

# Windows of steps. The paper trains for 15,000 steps, our smallest evidence for 2,000: claims about
# early training are judged at the same steps in both, claims about the end only at 15,000.
LEAD = (500, 2_000)  # after the first steps, which differ: BatchNorm's lead is largest here
LATEST = (1_500, 2_000)  # the end of our shortest evidence
MOST = (100, 2_000)
END = (14_000, 15_000)

VGG = "vgg_cifar"
BN, STD, NOISY = "batchnorm", "standard", "noisy-batchnorm"
LP_NORMS = ("l1", "l2", "linf")

# Settings that studies of a kind must have: with others a claim isn't the paper's.
SCALE: dict[str, dict[str, Any]] = {VGG: {"data": "cifar10"}}

# The evidence that had been seen when claims were amended.
SEEN = (
    "VGG at lr 0.1, seeds 0 and 1, at lr 0.5 and 0.01, seed 0; the theorems, seeds 0 to 2; the "
    "deep linear network, seed 0"
)

TEXT, FIGURES, OTHERS = "the paper's sentences", "its figures, as we read them", "others' and ours"


@dataclass(frozen=True)
class Claim:
    """One row of the table.

    says: the claim, short; place: where the paper (or another source) makes it; runs: what the
    metric takes, in order; why: the reason for the rule; paper: the metric of the paper's digitised
    curves, if there are any; scale: settings without which the claim isn't the paper's; main:
    whether it stands in the short table; amended: what was changed or added, and why, after part of
    the evidence had been seen (SEEN); remark: from the runs of every seed, what a reader of the
    verdict must know.
    """

    id: str
    says: str
    _: KW_ONLY
    place: str
    kind: str
    runs: tuple[Key, ...]
    metric: Metric
    rule: Rule
    why: str
    paper: float | None = None
    scale: Mapping[str, Any] = field(default_factory=dict)
    main: bool = False
    amended: str = ""
    remark: Callable[[Sequence[Sequence[Any]]], str] | None = None

    @property
    def source(self) -> str:
        """The kind of source, by `place`: TEXT names a section or an appendix of the paper, FIGURES
        only figures, or a number that is printed nowhere ("digitised"); OTHERS none of these."""
        if "digitised" in self.place:
            return FIGURES
        if self.place.startswith("Fig.") and "§" not in self.place:
            return FIGURES
        return TEXT if "§" in self.place or "App." in self.place else OTHERS

    @property
    def measurement(self) -> str:
        """The metric in words: "train accuracy, steps 500-2,000: batchnorm - standard, lr 0.1"."""
        rates = {key.lr for key in self.runs}
        if len(rates) == 1:
            text = self.metric.text([key.variant for key in self.runs])
            (rate,) = rates
            return text if rate is None else f"{text}, lr {rate:g}"
        return self.metric.text([f"{key.variant} {key.lr:g}" for key in self.runs])


@dataclass(frozen=True)
class Finding:
    """A claim, its numbers (one a seed) and the verdict on them."""

    claim: Claim
    values: dict[int, float]
    verdict: Verdict
    remark: str = ""

    @property
    def mean(self) -> float:
        return mean(self.values, self.claim.metric.quotient) if self.values else math.nan


def find(claim: Claim, evidence: Evidence) -> Finding:
    """Measure every seed that has all the runs, and judge."""
    try:
        seeds = evidence.runs(claim.kind, claim.runs)
        _require_scale(claim, evidence)
    except Missing as reason:
        return Finding(claim, {}, judge(claim.rule, {}, {-1: str(reason)}))
    values: dict[int, float] = {}
    missing: dict[int, str] = {}
    for seed, runs in seeds.items():
        try:
            values[seed] = claim.metric(runs)
        except Missing as reason:
            missing[seed] = str(reason)
    measured = [runs for seed, runs in seeds.items() if seed in values]
    remark = claim.remark(measured) if claim.remark and measured else ""
    verdict = judge(claim.rule, values, missing, claim.metric.quotient)
    return Finding(claim, values, verdict, remark)


def _require_scale(claim: Claim, evidence: Evidence) -> None:
    ours = evidence.settings(claim.kind)
    for name, value in {**SCALE.get(claim.kind, {}), **claim.scale}.items():
        if ours.get(name) != value:
            raise Missing(f"it is about {name} {value}, these studies have {ours.get(name)}")


def at(lr: float | None, *variants: str) -> tuple[Key, ...]:
    """The runs of the variants at one rate; None: at all rates."""
    return tuple(Key(variant, lr) for variant in variants)


def point(table: Mapping[Any, Sequence[Any]], key: Any, steps: Sequence[int], *of: int) -> float:
    """The mean over the steps `of` of a digitised curve, which has a value for each of `steps`."""
    return float(np.mean([table[key][steps.index(step)] for step in of]))


def geometric(quotients: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(quotients))))
