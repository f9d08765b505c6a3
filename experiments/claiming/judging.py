"""The verdict on a claim: Student's interval over the seeds, beside a margin that was fixed before.

A claim has one number a seed: a value, a difference of two runs of one seed, or the logarithm of
their quotient, counted so that a positive one is what the claim says. Its mean lies, in 95 of 100
such experiments, in the interval mean ± t · sd / √n. The margin is the least effect that matters:

    says            reproduced           alike         contradicted
    more            above +margin        within ±      below -margin
    not less        above -margin                      below -margin
    alike           within ±margin                     outside ±margin

in all cases the whole interval. An interval that crosses a margin is undecided, with the number of
seeds at which it would no longer, if mean and spread stayed what they are. More seeds make it
narrower, so that in the end every claim is decided, but one whose effect is the margin itself.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

REPRODUCED, CONTRADICTED, ALIKE, UNDECIDED = "reproduced", "contradicted", "alike", "undecided"
SAYS = ("more", "not less", "alike")
LEVEL = 0.95
MOST_SEEDS = 1000


@functools.cache
def student(level: float, n: int) -> float:
    """The half-width of a two-sided interval of this level in standard errors, at n values:
    Student's t with n - 1 degrees of freedom, from its density by Simpson's rule.

    >>> [round(student(0.95, n), 3) for n in (2, 3, 5, 8)]
    [12.706, 4.303, 2.776, 2.365]
    """
    nu = n - 1
    # With t = √nu · tan u the density is cos(u)^(nu - 1) du, on a finite range.
    u = np.linspace(0, math.pi / 2, 20_001)  # host: a quantile
    density = np.cos(u) ** (nu - 1)
    pieces = (density[:-2:2] + 4 * density[1:-1:2] + density[2::2]) * (u[1] / 3)
    share = np.cumsum(pieces) / pieces.sum()
    return float(math.sqrt(nu) * math.tan(np.interp(level, share, u[2::2])))


@dataclass(frozen=True)
class Interval:
    """mean, sd and ends of Student's interval over n seeds; one seed has no ends (infinite)."""

    mean: float
    sd: float
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray, level: float = LEVEL) -> Interval:
        n, mean = len(values), float(np.mean(values))
        if n < 2:
            return cls(mean, math.nan, n, -math.inf, math.inf)
        sd = float(np.std(values, ddof=1))
        half = student(level, n) * sd / math.sqrt(n)
        return cls(mean, sd, n, mean - half, mean + half)


@dataclass(frozen=True)
class Verdict:
    """One of the four words. direction: whether the interval lies on one side of zero. reason: of
    an undecided one. needed: seeds that would decide it, None for more than MOST_SEEDS. firm:
    whether it is the same with the intervals of all claims together at 95 % (Bonferroni)."""

    word: str
    direction: str
    reason: str = ""
    needed: int | None = None
    firm: bool = False


def decide(says: str, margin: float, low: float, high: float) -> str:
    """The table above."""
    if says == "alike":
        if -margin <= low and high <= margin:
            return REPRODUCED
        return CONTRADICTED if low > margin or high < -margin else UNDECIDED
    if low > (-margin if says == "not less" else margin):
        return REPRODUCED
    if high < -margin:
        return CONTRADICTED
    if says == "more" and -margin <= low and high <= margin:
        return ALIKE
    return UNDECIDED


def judge(
    says: str, margin: float, values: Mapping[int, float], *, runs: int, claims: int
) -> Verdict:
    """The verdict on one number a seed. runs: how many seeds were registered; with fewer it stays
    undecided. claims: how many are judged together."""
    numbers = np.array(list(values.values()), np.float64)  # host: numbers of claims
    if odd := [seed for seed, x in values.items() if not math.isfinite(x)]:
        return Verdict(UNDECIDED, "", f"not finite at seed {', '.join(map(str, odd))}")
    interval = Interval.of(numbers)
    direction = "as claimed" if interval.low > 0 else "opposite" if interval.high < 0 else "open"
    if says == "alike":
        direction = {"as claimed": "larger", "opposite": "smaller"}.get(direction, direction)
    if interval.n < runs:
        return Verdict(UNDECIDED, direction, f"{interval.n} of the {runs} registered seeds")
    word = decide(says, margin, interval.low, interval.high)
    if word == UNDECIDED:
        needed = seeds_needed(says, margin, interval)
        return Verdict(word, direction, "the interval crosses a margin", needed)
    wide = Interval.of(numbers, 1 - (1 - LEVEL) / claims)
    return Verdict(word, direction, firm=decide(says, margin, wide.low, wide.high) == word)


def seeds_needed(says: str, margin: float, seen: Interval) -> int | None:
    """The least n that would decide, with this mean and spread; None for more than MOST_SEEDS."""

    def decides(n: int) -> bool:
        half = student(LEVEL, n) * seen.sd / math.sqrt(n)
        return decide(says, margin, seen.mean - half, seen.mean + half) != UNDECIDED

    counts = range(seen.n + 1, MOST_SEEDS + 1)
    first = bisect.bisect_left(counts, True, key=decides)  # intervals only get narrower
    return counts[first] if first < len(counts) else None
