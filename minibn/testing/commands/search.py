"""The search for a problem at which a gradient is wrong, outside of pytest, without a database.

`search_failure` lets hypothesis draw the problems, shrink one that fails, and search for those that
lose the most digits. `sample` needs NumPy alone: normal inputs of given shapes, a seed each.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minibn.testing.commands.digits_table import DigitsTable
from minibn.testing.problem import Problem
from minibn.testing.report import (
    FULL,
    MEASURED,
    GradientError,
    GradReport,
    larger_of,
    size_of,
    without_listeners,
)

LARGE = 3, 12  # the shortest axis, and entries: a smaller failure may hide its pattern
LOOK = 3.0  # seconds that the search for a larger one may take

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
                largest.sort(key=_size, reverse=True)
                del largest[1:]
            raise GradientError(report)
        if not failing:
            table.add(name, report)
        target(FULL - report.digits)

    with contextlib.suppress(GradientError, Flaky):
        look()
    report = _diagnose(name, failing, ask, table)
    if report is not None:
        found = ask(largest[0], diagnose=True) if largest else report
        if found.size < LARGE:
            found = larger_failure(problems, lambda p: ask(p, diagnose=True), found)
        report.larger = found
    return report


def larger_failure(
    problems: Any, check: Callable[[Problem], GradReport], known: GradReport
) -> GradReport:
    """The largest failure, `known` or one of thirty more problems. hypothesis starts with a small
    failure that it knows from the last run, and shrinks others at once; so a larger one may not
    have been seen. It takes a few seconds at most."""
    from hypothesis import HealthCheck, Phase, given, settings

    until = time.perf_counter() + LOOK
    found = [known]

    def look(problem: Problem) -> None:
        if time.perf_counter() > until or not LARGE[1] <= _size(problem)[1] <= MEASURED:
            return
        with contextlib.suppress(Exception):  # of f's own: there is a failure already
            report = check(problem)
            if not report.passed and not report.only_vacuous:
                found[0] = larger_of(found[0], report)

    quiet = settings(
        max_examples=30, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with without_listeners(), contextlib.suppress(Exception):
        quiet(given(problem=problems)(look))()
    return found[0]


def _size(problem: Problem) -> tuple[int, int]:
    return size_of([x.shape for x in problem.inputs])


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
