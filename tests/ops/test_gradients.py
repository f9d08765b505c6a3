"""Every op's derivatives against numbers that were computed without any derivative.

The table of ops is `minibn/testing/registry.py`, the oracles are `support/oracles.py`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from support.backends import on_devices
from support.oracles import (
    Problem,
    Vacuous,
    check_float32,
    check_gradients,
    check_second_derivatives,
)

from minibn import ops
from minibn.backend import Backend, get_backend
from minibn.testing.registry import CASES, NO_GRADIENT, Case

EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def run(case: Case, check: Callable[..., None], examples: int, *args: Any) -> None:
    @settings(max_examples=examples)
    @given(case.problems)
    def examine(problem: Problem) -> None:
        check(problem, *args)

    examine()


def test_every_op_is_in_the_table_or_said_to_have_no_gradient():
    named = {name.partition(",")[0] for name in CASES}
    assert named.isdisjoint(NO_GRADIENT)
    assert named | set(NO_GRADIENT) == set(ops.__all__)


@EVERY_CASE
def test_the_gradient_agrees_with_complex_steps_and_differences(case):
    run(case, check_gradients, settings().max_examples, get_backend("numpy"), case.analytic)


@EVERY_CASE
def test_the_second_derivative_agrees_with_a_derivative_of_the_gradient(case):
    run(case, check_second_derivatives, 15, get_backend("numpy"), case.analytic)


@EVERY_CASE
def test_float32_gives_float32_gradients_close_to_those_of_float64(case):
    run(case, check_float32, 15, case.digits, get_backend("numpy"))


@on_devices
@EVERY_CASE
def test_both_derivatives_agree_on_devices(case, backend: Backend):
    def check(problem: Problem) -> None:
        check_gradients(problem, backend, case.analytic)
        check_second_derivatives(problem, backend, case.analytic)
        check_float32(problem, case.digits, backend)

    run(case, check, 5)


# -- tests of the tests: a wrong gradient is found, a vacuous check fails


class Wrong(ops.elementwise.Exp):
    """exp, with a gradient a millionth too large."""

    def vjp(self, g, out, x):
        return g * out * 1.000001


class Ignorant(ops.elementwise.Exp):
    """exp, with a vjp that forgets how it depends on x: right at first order only."""

    def vjp(self, g, out, x):
        return g * ops.elementwise.value(out)


def through(op):
    return lambda x: ops.elementwise.apply(op(), x)


def test_a_gradient_that_is_wrong_by_a_millionth_is_found():
    problem = Problem(through(Wrong), (np.array([0.3, -1.0]),))
    with pytest.raises(AssertionError, match="complex step"):
        check_gradients(problem, get_backend("numpy"))
    with pytest.raises(AssertionError, match="differences"):
        check_gradients(problem, get_backend("numpy"), analytic=False)


def test_a_second_derivative_that_is_missing_is_found():
    problem = Problem(through(Ignorant), (np.array([0.3, -1.0]),))
    check_gradients(problem, get_backend("numpy"))
    with pytest.raises(AssertionError, match="input 0"):
        check_second_derivatives(problem, get_backend("numpy"))


def test_a_check_of_nothing_fails():
    problem = Problem(ops.relu, (-np.ones(3),))
    with pytest.raises(Vacuous):
        check_gradients(problem, get_backend("numpy"))


def test_a_function_that_drops_the_imaginary_part_is_refused_by_the_complex_step():
    problem = Problem(lambda x: ops.exp(getattr(x, "real", x)), (np.ones(2),))
    with pytest.raises(AssertionError, match="not analytic"):
        check_gradients(problem, get_backend("numpy"))
