"""`@gradient_test`: a gradient check of every drawn problem, then the test's own body.

    @gradient_test("conv2d")                                # a row of the registry
    def test_convolution(problem, report):
        assert report.digits > 11

    @gradient_test(norm_problems(), f=my_norm, vjp=my_norm_vjp)     # a hand-written vjp
    def test_my_norm(problem):
        assert my_norm(*problem.inputs).ndim > 0

hypothesis draws the problems, so `@settings`, `@example` and `@seed` work above the decorator, and
`--hypothesis-show-statistics` shows how often there were kinks and empty arrays, and which oracle
was used. It searches for the point at which the most digits are lost (`hypothesis.target`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import event, given, note, settings, target
from hypothesis import strategies as st

from minibn.backend import Backend
from minibn.testing.check import check_vjp
from minibn.testing.commands.coverage import events
from minibn.testing.commands.rows import as_problem, check_named, problems
from minibn.testing.layer_problem import LayerProblem
from minibn.testing.problem import Problem
from minibn.testing.report import FULL, GradReport
from minibn.testing.strategies import Point, seeds

Test = Callable[..., None]


@dataclass(frozen=True)
class ProblemWithVjp(Problem):
    """A problem with a hand-written vjp."""

    vjp: Callable[..., Any] | None = None


def gradient_test(
    problems_of: str | st.SearchStrategy[Any],
    *,
    f: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    backend: Backend | str | None = None,
    order: int = 1,
    examples: int | None = None,
) -> Callable[[Test], Test]:
    """Check the gradient at every problem drawn, then run the test.

    problems_of  a strategy of Problems (or LayerProblems); or, with f, of Points, arrays, or tuples
                 of arrays; or, in a checkout, the name of a row of minibn's own registry
    f, vjp       a function and its vjp on NumPy arrays; without a vjp, f takes Tensors
    backend, order   as for `check_gradients`; a test that has parameters of these names (fixtures,
                 `@pytest.mark.parametrize`) is checked with their values
    examples     how many problems, instead of `@settings(max_examples=...)`, which works as well;
                 by default as many as the hypothesis profile says

    The test gets those of the arguments `problem` and `report` (the GradReport) that it has.
    Raises UnknownName (a LookupError) for a name that is no row, with the nearest names;
    NoCheckout where there is no registry.
    """
    if isinstance(problems_of, str) and f is None:
        name, drawn = problems_of, problems(problems_of)
    elif isinstance(problems_of, st.SearchStrategy):
        name, drawn = "", _problems_from(problems_of, f, vjp)
    else:
        raise TypeError(
            f"gradient_test({problems_of!r}): give the name of a row of the registry alone, or a "
            "strategy (with f, a strategy of its inputs)."
        )
    if vjp is not None and f is None:
        raise TypeError("gradient_test: vjp= without f=: of what function is it the vjp?")
    if vjp is not None and (backend is not None or order != 1):
        raise TypeError("gradient_test: backend= and order= are for functions of Tensors, not vjp=")
    chosen = {"backend": backend, "order": order}

    def decorate(test: Test) -> Test:
        checked = given(problem=drawn)(_check_first(test, name or test.__name__, chosen))
        return checked if examples is None else settings(max_examples=examples)(checked)

    return decorate


def _check_first(test: Test, name: str, chosen: dict[str, Any]) -> Test:
    """The test with a check in front. Its signature, which hypothesis and pytest read, has
    `problem` and not `report`."""
    wanted = inspect.signature(test).parameters
    drawn = inspect.Parameter("problem", inspect.Parameter.KEYWORD_ONLY)
    others = [p for key, p in wanted.items() if key not in ("problem", "report")]
    signature = inspect.Signature([*others, drawn])

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        known = signature.bind(*args, **kwargs).arguments
        overruled = {key: known[key] for key in chosen if key in known}
        known["report"] = report = _check(known["problem"], name, **(chosen | overruled))
        _report_to_hypothesis(report)
        test(**{key: x for key, x in known.items() if key in wanted})

    run.__signature__ = signature  # type: ignore[attr-defined]  # pytest reads it
    return run


def _problems_from(
    strategy: st.SearchStrategy[Any],
    f: Callable[..., Any] | None,
    vjp: Callable[..., Any] | None,
) -> st.SearchStrategy[Problem]:
    if f is None:
        return strategy.map(_a_problem)

    def at(drawn: Any, seed: int) -> Problem:
        """Points have settings and a seed of their own, plain arrays have not."""
        if isinstance(drawn, tuple):
            drawn = Point(drawn, seed=seed)
        elif not isinstance(drawn, Point):
            drawn = Point((np.asarray(drawn),), seed=seed)
        point = drawn.problem(f)
        if vjp is None:
            return point
        return ProblemWithVjp(point.f, point.inputs, point.seed, point.flat, drawn.bind(vjp))

    return st.builds(at, strategy, seeds)


def _a_problem(drawn: Any) -> Problem:
    if not isinstance(drawn, (Problem, LayerProblem)):
        raise TypeError(
            f"gradient_test: the strategy draws a {type(drawn).__name__}, not a Problem: give f=, "
            "the function of it, as well."
        )
    return as_problem(drawn)


def _check(problem: Problem, name: str, **chosen: Any) -> GradReport:
    if isinstance(problem, ProblemWithVjp) and problem.vjp is not None:
        return check_vjp(
            problem.f, problem.vjp, *problem.inputs, name=name, seed=problem.seed,
            zero_gradient=problem.flat, allow_empty=True,
        )  # fmt: skip
    return check_named(name, problem, **chosen)


def _report_to_hypothesis(report: GradReport) -> None:
    """The number to maximise, the events to count, and the text to print on a failure."""
    for text in sorted({_event(x) for x in report.inputs} | events(report)):
        event(text)
    target(FULL - report.digits, label="digits lost")
    note(str(report))


def _event(x: Any) -> str:
    if x.kinks:
        return "at a kink"
    if x.verdict in ("empty", "zero"):
        return {"empty": "nothing to compare: empty", "zero": "a gradient that is zero"}[x.verdict]
    return f"oracle: {x.how.split(',')[0]}"
