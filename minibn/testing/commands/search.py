"""Looking for a problem at which a gradient is wrong: outside of pytest, and without a database.

`search` lets hypothesis draw the problems, shrink one that fails, and climb towards those that
lose the most digits. `sample` needs NumPy alone: normal inputs of given shapes, a seed each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibn.testing.commands.digits_table import DigitsTable
from minibn.testing.problem import Problem
from minibn.testing.report import FULL, GradientError, GradReport

Ask = Callable[..., GradReport]  # (problem, diagnose, raises=False) -> its report


def search_failure(
    name: str, problems: Any, ask: Ask, table: DigitsTable, *, examples: int, seed: int
) -> GradReport | None:
    """The report on the smallest problem that fails, with its diagnosis; None if none fails.

    problems is a strategy. What is found until the first failure goes into the table, then the
    smallest failure: what shrinking tried in between is no statistics.
    """
    import hypothesis
    from hypothesis import HealthCheck, Phase, settings, target
    from hypothesis.errors import Flaky

    failing: list[Problem] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.target, Phase.shrink),
    )
    @hypothesis.given(problems)
    def look(problem: Problem) -> None:
        report = ask(problem, diagnose=False)
        if not report.passed:
            failing.append(problem)
            raise GradientError(report)
        if not failing:
            table.add(name, report)
        target(FULL - report.digits)

    with contextlib.suppress(GradientError, Flaky):
        look()
    return _diagnosed(name, failing, ask, table)


def sample(
    name: str, shapes: Sequence[tuple[int, ...]], f: Any, ask: Ask, table: DigitsTable, **how: int
) -> GradReport | None:
    """The same with normal inputs of these shapes; how: examples and seed. The first failure ends
    it, and is as small as the shapes are."""
    failing: list[Problem] = []
    for seed in range(how["seed"], how["seed"] + how["examples"]):
        rng = np.random.default_rng(seed)
        problem = Problem(f, tuple(np.asarray(rng.standard_normal(s)) for s in shapes), seed)
        report = ask(problem, diagnose=False)
        if not report.passed:
            failing.append(problem)
            break
        table.add(name, report)
    return _diagnosed(name, failing, ask, table)


def _diagnosed(
    name: str, failing: list[Problem], ask: Ask, table: DigitsTable
) -> GradReport | None:
    if not failing:
        return None
    report = ask(failing[-1], diagnose=True)
    table.add(name, report)
    return report
