"""The search for a problem at which a gradient is wrong, outside of pytest, without a database.

`search_failure` lets hypothesis draw the problems, shrink one that fails, and search for those that
lose the most digits. `sample` needs NumPy alone: normal inputs of given shapes, a seed each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibn.testing.commands.digits_table import DigitsTable
from minibn.testing.problem import Problem
from minibn.testing.report import FULL, MEASURED, GradientError, GradReport

Ask = Callable[..., GradReport]  # (problem, diagnose, raises=False) -> its report


def search_failure(
    name: str, problems: Any, ask: Ask, table: DigitsTable, *, examples: int, seed: int
) -> GradReport | None:
    """The report on the smallest problem that fails, with its diagnosis; None if none fails. Its
    `larger` is that of the largest: small arrays hide patterns.

    problems is a strategy. The table gets the checks before the first failure, and the smallest
    failure, but not the steps of shrinking.
    """
    import hypothesis
    from hypothesis import HealthCheck, Phase, settings, target
    from hypothesis.errors import Flaky

    failing: list[Problem] = []
    largest: list[Problem] = []  # of those, as long as all entries can be measured

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
            if report.entries <= MEASURED:
                largest.append(problem)
                largest.sort(key=_entries, reverse=True)
                del largest[1:]
            raise GradientError(report)
        if not failing:
            table.add(name, report)
        target(FULL - report.digits)

    with contextlib.suppress(GradientError, Flaky):
        look()
    report = _diagnose(name, failing, ask, table)
    if report is not None and largest and _entries(largest[0]) > report.entries:
        report.larger = ask(largest[0], diagnose=True)
    return report


def _entries(problem: Problem) -> int:
    return sum(x.size for x in problem.inputs)


def sample(
    name: str, shapes: Sequence[tuple[int, ...]], f: Any, ask: Ask, table: DigitsTable, **how: int
) -> GradReport | None:
    """The report on the first of `how["examples"]` problems that fails, with its diagnosis; None if
    none fails. Inputs are normal, of these shapes, from the seeds `how["seed"]` on."""
    failing: list[Problem] = []
    for seed in range(how["seed"], how["seed"] + how["examples"]):
        rng = np.random.default_rng(seed)
        problem = Problem(f, tuple(np.asarray(rng.standard_normal(s)) for s in shapes), seed)
        report = ask(problem, diagnose=False)
        if not report.passed:
            failing.append(problem)
            break
        table.add(name, report)
    return _diagnose(name, failing, ask, table)


def _diagnose(name: str, failing: list[Problem], ask: Ask, table: DigitsTable) -> GradReport | None:
    if not failing:
        return None
    report = ask(failing[-1], diagnose=True)
    table.add(name, report)
    return report
