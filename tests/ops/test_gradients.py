"""Every op's gradient against numbers that were computed without any derivative.

The ops are the rows of `tests/suite/registry/`, the numbers come from the oracles of
`minibn/testing/checking/`. Layers, and the digits that each row promises, are the business of
`tests/testing/test_registry.py`; second derivatives on devices, and those of layers, of the law
`the_derivative_of_the_gradient`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from suite.registry import CASES, Case, Tied
from support.backends import on_backends, on_devices

from minibn.testing import Problem, check_gradients, check_problem
from minibn.testing.commands.profiles import share

EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
KINKS = {name: case for name, case in CASES.items() if case.kinks is not None}


def examine(drawn: Any, check: Callable[..., Any], examples: int = 25, **how: Any) -> None:
    """Check so many examples in a profile of 25, in others in proportion."""

    @settings(max_examples=share(examples))
    @given(drawn)
    def each(problem: Any) -> None:
        check(problem, **how)

    each()


@EVERY_CASE
def test_the_gradient_agrees_with_the_oracles(case: Case):
    examine(case.problems, check_problem)


@EVERY_CASE
def test_the_second_derivative_agrees_with_the_oracles(case: Case):
    examine(case.problems, check_problem, 10, order=2)


@on_devices
@EVERY_CASE
def test_the_gradient_agrees_on_devices(case: Case, backend):
    examine(case.problems, check_problem, 5, backend=backend)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@EVERY_CASE
def test_a_lower_precision_loses_no_more_than_its_rounding(case: Case, dtype):
    if case.digits_of(dtype) is None:
        pytest.skip("the registry promises nothing in this precision")

    def check(problem: Problem) -> None:
        check_problem(problem.astype(dtype))

    examine(case.problems, check, 8)


@on_backends
@pytest.mark.parametrize("case", KINKS.values(), ids=KINKS.keys())
def test_at_a_kink_the_gradient_is_the_promised_one_of_those_between_the_sides(case, backend):
    def check(tied: Tied) -> None:
        problem = tied.problem
        check_gradients(
            problem.f, *problem.inputs, backend=backend, seed=problem.seed, allow_empty=True,
            zero_gradient=problem.flat, convention=tied.expected,
        )  # fmt: skip

    examine(case.kinks, check, 1.0 if backend.name == "numpy" else 0.2)
