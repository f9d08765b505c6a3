"""Verdicts: Student's interval beside a margin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.claiming.judging import (
    ALIKE,
    CONTRADICTED,
    REPRODUCED,
    SAYS,
    UNDECIDED,
    Interval,
    decide,
    judge,
    seeds_needed,
    student,
)

# Abramowitz and Stegun, table 26.10: two-sided 95 %, degrees of freedom 1, 2, 4, 9, 30, 120
TABLE = {2: 12.706, 3: 4.303, 5: 2.776, 10: 2.262, 31: 2.042, 121: 1.980}


@pytest.mark.parametrize(("n", "t"), TABLE.items())
def test_students_quantiles_are_those_of_the_tables(n: int, t: float) -> None:
    assert student(0.95, n) == pytest.approx(t, abs=6e-4)


def test_a_95_percent_interval_covers_the_mean_in_95_of_100_experiments_with_three_seeds() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for values in rng.normal(1.0, 2.0, (4000, 3)):
        own = Interval.of(values)
        covered += own.low <= 1.0 <= own.high
    assert 0.94 < covered / 4000 < 0.96  # sd 0.0034


@pytest.mark.parametrize(
    ("says", "low", "high", "word"),
    [
        ("more", 1.1, 2, REPRODUCED),
        ("more", -0.9, 0.9, ALIKE),
        ("more", 0.5, 0.9, ALIKE),  # on one side of zero, and too small to matter
        ("more", 0.9, 1.1, UNDECIDED),
        ("more", -1.1, 0.2, UNDECIDED),
        ("more", -2, -1.1, CONTRADICTED),
        ("not less", -0.9, 5, REPRODUCED),
        ("not less", -1.1, 5, UNDECIDED),
        ("not less", -2, -1.1, CONTRADICTED),
        ("alike", -0.9, 0.9, REPRODUCED),
        ("alike", 0.9, 1.1, UNDECIDED),
        ("alike", 1.1, 2, CONTRADICTED),
        ("alike", -2, -1.1, CONTRADICTED),
    ],
)
def test_the_whole_interval_decides(says: str, low: float, high: float, word: str) -> None:
    assert decide(says, 1.0, low, high) == word


@pytest.mark.parametrize(("says", "truth"), [("more", 1.0), ("not less", -1.0), ("alike", 1.0)])
def test_an_effect_on_the_margin_is_called_reproduced_in_one_of_forty_experiments(
    says: str, truth: float
) -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for values in rng.normal(truth, 0.2, (2000, 5)):
        own = Interval.of(values)
        wrong += decide(says, 1.0, own.low, own.high) == REPRODUCED
    assert 0.015 < wrong / 2000 < 0.037  # 0.025, sd 0.0035


@given(
    says=st.sampled_from(SAYS),
    margin=st.floats(0, 3),
    ends=st.tuples(st.floats(-9, 9), st.floats(-9, 9)).map(sorted),
    shrink=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_a_narrower_interval_never_overturns_a_verdict(says, margin, ends, shrink) -> None:
    low, high = ends
    inner = [low + share * (high - low) for share in shrink]
    word = decide(says, margin, low, high)
    if word != UNDECIDED and low <= inner[0] <= inner[1] <= high:
        assert decide(says, margin, *inner) == word


def test_more_seeds_with_the_same_spread_decide_and_the_number_needed_is_enough() -> None:
    two = {10: 0.5, 11: 2.5}
    verdict = judge("more", 1.0, two, runs=2, claims=1)
    assert verdict.word == UNDECIDED
    assert "crosses a margin" in verdict.reason
    needed = verdict.needed
    assert needed is not None
    mean, sd = 1.5, float(np.std([0.5, 2.5], ddof=1))
    half = student(0.95, needed) * sd / needed**0.5
    assert mean - half > 1.0
    assert mean - student(0.95, needed - 1) * sd / (needed - 1) ** 0.5 <= 1.0


def test_an_effect_of_the_margin_itself_is_never_decided() -> None:
    assert seeds_needed("more", 1.0, Interval(1.0, 0.5, 3, -1, 3)) is None


def test_fewer_seeds_than_registered_decide_nothing_but_show_a_direction() -> None:
    verdict = judge("more", 1.0, {10: 5.0, 11: 5.1, 12: 5.2}, runs=8, claims=1)
    assert (verdict.word, verdict.direction) == (UNDECIDED, "as claimed")
    assert verdict.reason == "3 of the 8 registered seeds"


def test_one_seed_and_numbers_that_are_not_finite_decide_nothing() -> None:
    assert judge("more", 1.0, {10: 5.0}, runs=1, claims=1).word == UNDECIDED
    verdict = judge("more", 1.0, {10: np.inf, 11: 5.0}, runs=2, claims=1)
    assert verdict.reason == "not finite at seed 10"


def test_equal_numbers_have_an_interval_without_width() -> None:
    assert judge("alike", 0.1, {1: 0.0, 2: 0.0, 3: 0.0}, runs=3, claims=40).word == REPRODUCED


def test_direction_says_on_which_side_of_zero_the_interval_lies() -> None:
    def direction(says, *values):
        return judge(says, 1.0, dict(enumerate(values)), runs=3, claims=1).direction

    assert direction("more", 0.1, 0.11, 0.12) == "as claimed"
    assert direction("more", -0.1, -0.11, -0.12) == "opposite"
    assert direction("more", -0.1, 0.0, 0.1) == "open"
    assert direction("alike", 0.1, 0.11, 0.12) == "larger"


def test_a_firm_verdict_holds_with_the_wider_intervals_of_all_claims_together() -> None:
    values = {10: 1.3, 11: 1.5, 12: 1.4}
    assert judge("more", 1.0, values, runs=3, claims=1).firm
    verdict = judge("more", 1.0, values, runs=3, claims=40)
    assert (verdict.word, verdict.firm) == (REPRODUCED, False)
