"""What a check costs can be limited; and functions that take their own precision alone."""

import time

import numpy as np
import pytest

from minibn.testing import GradientError, check_vjp
from minibn.testing.checking.counting import Counted, parse_budget

X = np.random.default_rng(0).standard_normal(300)


def cube_vjp(g, x):
    return 3 * g * x**2


def real_cube(x):  # takes no complex step, so each slope takes many calls
    return np.real(x) ** 3


@pytest.mark.parametrize("budget", [1, 5, 50, 300, 1000])
def test_no_more_calls_are_made_than_the_budget_allows(budget):
    f = Counted(real_cube)
    report = check_vjp(f, cube_vjp, X, budget=budget, raises=False)
    assert f.calls <= budget + 1  # one to see whether f has one output or several
    if not report.passed:
        assert "the budget was used up after" in str(report)


def test_a_check_that_can_not_end_within_its_budget_compares_along_fewer_directions():
    f = Counted(real_cube)
    x = X[:15]
    assert "every entry" in check_vjp(f, cube_vjp, x).inputs[0].how
    f.calls = 0
    report = check_vjp(f, cube_vjp, x, budget=400)
    assert report.passed
    assert "directions" in report.inputs[0].how
    assert f.calls <= 401
    with pytest.raises(GradientError, match="WRONG"):
        check_vjp(f, lambda g, x: 1.01 * cube_vjp(g, x), x, budget=400)


def test_a_budget_in_seconds_ends_a_slow_check():
    def slow(x):
        time.sleep(0.005)
        return np.real(x) ** 3

    start = time.perf_counter()
    report = check_vjp(slow, cube_vjp, X, budget="0.3s", raises=False, diagnose=False)
    assert report.calls <= 60
    assert time.perf_counter() - start < 30  # the budget is of f's time, on a busy machine
    assert not report.passed or "directions" in report.inputs[0].how


@pytest.mark.parametrize("budget", [0, -3, True, 1.5, "", "s", "5 h", "-1s", "1.2.3s"])
def test_a_budget_that_makes_no_sense_is_refused(budget):
    with pytest.raises(ValueError, match=r"budget=.*: a number of calls of f \(500\), or a time"):
        check_vjp(np.square, lambda g, x: 2 * g * x, X, budget=budget)


def test_a_budget_is_calls_or_a_time():
    assert parse_budget(7)[0] == 7
    assert parse_budget("2min")[1] == 120
    assert parse_budget("0.5 s")[1] == 0.5


# -- functions of one precision


def single(x):
    if x.dtype != np.float32:
        raise TypeError("this kernel takes float32 alone")
    return np.sin(x)


def test_a_function_that_takes_float32_alone_is_judged_by_what_it_gives():
    x = X[:6].astype(np.float32)
    report = check_vjp(single, lambda g, x: g * np.cos(x), x)
    assert "takes float32 alone: judged by its own differences" in str(report)
    assert report.inputs[0].demanded > 2
    with pytest.raises(GradientError, match="WRONG"):
        check_vjp(single, lambda g, x: np.float32(1.05) * g * np.cos(x), x)


def test_a_function_that_takes_float32_alone_is_judged_by_its_reference():
    x = X[:6].astype(np.float32)
    report = check_vjp(single, lambda g, x: g * np.cos(x), x, reference=np.sin)
    assert "judged by the reference in float64" in str(report)
    assert report.inputs[0].demanded > 4
    with pytest.raises(GradientError, match="WRONG"):
        check_vjp(single, lambda g, x: np.float32(1.001) * g * np.cos(x), x, reference=np.sin)
    with pytest.raises(GradientError, match="and the reference"):
        check_vjp(single, lambda g, x: g * np.cos(x), x, reference=np.tanh)
