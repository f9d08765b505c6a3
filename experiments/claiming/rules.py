"""Decision rules, and the verdict on one number per seed.

A rule says for which numbers a claim holds and for which its opposite does; between the two lies
the margin. The verdict is

    reproduced     the rule holds at every seed, and for their mean
    contradicted   its opposite holds at every seed, and for their mean
    undecided      anything else, with the reason; always so with one seed
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "undecided"
INF = math.inf


@dataclass(frozen=True)
class Rule:
    """The claim holds for numbers in [low, high]; its opposite for those <= below or >= above.
    An infinite `below` or `above` says that there is no opposite on that side."""

    low: float
    high: float
    below: float
    above: float

    def holds(self, x: float) -> bool:
        return self.low <= x <= self.high

    def opposite(self, x: float) -> bool:
        too_low = self.below > -INF and x <= self.below
        too_high = self.above < INF and x >= self.above
        return too_low or too_high

    def __str__(self) -> str:
        if self.high == INF:
            return f"≥ {self.low:.3g}"
        if self.low == -INF:
            return f"≤ {self.high:.3g}"
        return f"{self.low:.3g} to {self.high:.3g}"

    @property
    def opposite_text(self) -> str:
        """The numbers for which the opposite holds, in words."""
        ends = []
        if self.below > -INF:
            ends.append(f"≤ {self.below:.3g}")
        if self.above < INF:
            ends.append(f"≥ {self.above:.3g}")
        return " or ".join(ends)


def at_least(bound: float, opposite: float) -> Rule:
    """Holds from `bound` up; the opposite from `opposite` down."""
    return Rule(bound, INF, opposite, INF)


def at_most(bound: float, opposite: float) -> Rule:
    """Holds from `bound` down; the opposite from `opposite` up."""
    return Rule(-INF, bound, -INF, opposite)


def more_by(margin: float) -> Rule:
    """A difference: at least `margin`; the opposite is as much less."""
    return at_least(margin, -margin)


def times(factor: float) -> Rule:
    """A quotient: at least `factor`; the opposite is at most its inverse."""
    return at_least(factor, 1 / factor)


def close(margin: float, to: float = 0.0) -> Rule:
    """At most `margin` away; the opposite is twice as far."""
    return Rule(to - margin, to + margin, to - 2 * margin, to + 2 * margin)


def within_factor(factor: float) -> Rule:
    """A quotient within a factor; the opposite is outside of its square."""
    return Rule(1 / factor, factor, 1 / factor**2, factor**2)


@dataclass(frozen=True)
class Verdict:
    word: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}" if self.reason else self.word


def mean(values: Mapping[int, float], quotient: bool) -> float:
    """The mean over seeds; of quotients the geometric one."""
    numbers = np.array(list(values.values()))
    with np.errstate(all="ignore"):
        return float(np.exp(np.log(numbers).mean()) if quotient else numbers.mean())


def judge(
    rule: Rule, values: Mapping[int, float], missing: Mapping[int, str], quotient: bool = False
) -> Verdict:
    """values: one number per seed; missing: the reason, for each seed that has none."""
    if missing:
        return Verdict(UNDECIDED, next(iter(missing.values())))
    if len(values) < 2:
        return Verdict(UNDECIDED, f"n = {len(values)}")
    numbers, n = [*values.values(), mean(values, quotient)], len(values)
    if all(rule.holds(x) for x in numbers):
        return Verdict(REPRODUCED)
    if all(rule.opposite(x) for x in numbers):
        return Verdict(CONTRADICTED)
    hold = sum(rule.holds(x) for x in values.values())
    against = sum(rule.opposite(x) for x in values.values())
    if not hold and not against:
        return Verdict(UNDECIDED, "within the margin")
    if hold and against:
        return Verdict(UNDECIDED, f"seeds disagree: {hold} of {n} hold, {against} the opposite")
    count, what = (hold, "hold") if hold else (against, "hold the opposite")
    if count == n:  # opposites on either side, or infinities
        return Verdict(UNDECIDED, f"all {n} {what}, their mean does not")
    return Verdict(UNDECIDED, f"{count} of {n} {what}, the rest lies within the margin")
