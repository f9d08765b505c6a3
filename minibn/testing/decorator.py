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

A *vacuous* example, at which gradient and oracle are both zero (x² at 0), shows nothing about the
vjp. It is left out, whether drawn or given by `@example`: the test's body, which is about a checked
gradient, does not run there, and the example is counted. The test fails as vacuous only if some
input's gradient was zero in every example of a run, so that nothing was compared. An inconclusive
example (a kink at 1e-9 of the input's scale, numbers that underflow) is left out in the same way,
and the test fails if most are.

hypothesis' deadline is off, since a check calls f many times, unless `@settings(deadline=...)` on
the test sets one.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, cast

import numpy as np
from hypothesis import Phase, event, given, settings, target
from hypothesis import strategies as st

from minibn.autograd.tensor import Tensor
from minibn.backend import Backend
from minibn.setting import Setting
from minibn.testing.arguments import name_of
from minibn.testing.check import check_vjp
from minibn.testing.commands.coverage import events
from minibn.testing.commands.rows import as_problem, check_named, problems
from minibn.testing.commands.search import LARGE, larger_failure
from minibn.testing.layer_problem import LayerProblem
from minibn.testing.problem import Problem
from minibn.testing.report import (
    FULL,
    Diagnosis,
    GradientError,
    GradReport,
    InputReport,
    Vacuous,
    larger_of,
)
from minibn.testing.strategies import Point, seeds

Test = Callable[..., Any]
Check = Callable[[Problem], GradReport]


@dataclass(frozen=True)
class DrawnProblem(Problem):
    """A problem that is shown by its shapes, as hypothesis prints it below a report which has its
    values; perhaps with a hand-written vjp."""

    vjp: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        shapes = ", ".join(f"{x.dtype} {x.shape}" for x in self.inputs)
        settings = getattr(self.f, "keywords", None)
        return f"<{shapes}; seed {self.seed}{f'; {settings}' if settings else ''}>"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:  # hypothesis prints with it
        printer.text(repr(self))


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
        raise TypeError("gradient_test: vjp= needs f=, the function whose gradient it is.")
    if vjp is not None and (backend is not None or order != 1):
        raise TypeError("gradient_test: backend= and order= are for functions of Tensors, not vjp=")
    chosen = {"backend": backend, "order": order}

    def decorate(test: Test) -> Test:
        checked = given(problem=drawn)(_check_first(test, name or test.__name__, chosen))
        return _in_runs(checked, examples, drawn)

    return decorate


@dataclass
class _Run:
    """What the examples of one run of a test showed."""

    compared: set[int] = field(default_factory=set)  # inputs whose gradients were compared
    vacuous: Counter[int] = field(default_factory=Counter)  # input -> examples where it was zero
    examples: int = 0
    left_out: int = 0
    last: GradReport | None = None  # of a vacuous example
    unclear: int = 0  # inconclusive examples
    last_unclear: GradReport | None = None
    largest: GradReport | None = None  # of the failure that shows most of a pattern
    check: Check | None = None  # with the test's own arguments

    def add(self, report: GradReport) -> None:
        self.examples += 1
        self.compared |= {x.position for x in report.inputs if x.verdict == "agrees"}
        if not report.left_out:
            return
        self.left_out += 1
        if not report.only_vacuous:
            self.unclear += 1
            self.last_unclear = report
            return
        self.last = report
        self.vacuous.update(x.position for x in report.inputs if x.verdict == "vacuous")

    def raise_if_undecided(self) -> None:
        """Vacuous, if the gradient of some input was zero wherever it was not empty; GradientError,
        if most examples were inconclusive."""
        __tracebackhide__ = True
        if self.last_unclear is not None and 2 * self.unclear > self.examples:
            self.last_unclear.faults.append(
                f"{self.unclear} of {self.examples} examples are inconclusive, and this is the "
                "last of them. Draw points at which f is better conditioned"
            )
            raise GradientError(self.last_unclear) from None
        if self.last is None or not (never := sorted(set(self.vacuous) - self.compared)):
            return
        inputs = " and ".join(f"input {i}" for i in never)
        self.last.faults.append(
            f"{self.vacuous[never[0]]} of {self.examples} examples are vacuous: the gradient of "
            f"{inputs} and its oracle were zero in all that are not empty, so nothing was "
            "compared. Draw points at which f is not flat, or declare the input in the problem's "
            "`flat`"
        )
        raise Vacuous(self.last) from None


_run: Setting[_Run | None] = Setting("gradient_test", None)


def _in_runs(checked: Test, examples: int | None, drawn: st.SearchStrategy[Any]) -> Test:
    """The test, with a `_Run` of its own in each call. hypothesis' decorators leave their settings
    on the function that they get, which is this one; hypothesis reads those of `checked`."""

    @functools.wraps(checked)
    def outer(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        settled = {k: v for k, v in vars(outer).items() if k != "__wrapped__"}
        vars(checked).update(settled | {SETTINGS: _settings_of(outer, examples)})
        run = _Run()
        try:
            with _run.override(run):
                checked(*args, **kwargs)
        except GradientError as error:
            if isinstance(error, Vacuous) or error.report.diagnose is Diagnosis:
                raise
            largest = run.largest or error.report
            if run.check is not None and largest.size < LARGE:
                largest = larger_failure(drawn, run.check, largest)
            error.report.larger = largest
            raise
        run.raise_if_undecided()

    return outer


SETTINGS = "_hypothesis_internal_use_settings"  # where `@settings` and `@given` leave them


def _settings_of(test: Test, examples: int | None) -> settings:
    """The settings of a test, without the deadline and the explanation of failures (a list of our
    lines) that hypothesis has by default."""
    default: Any = settings.default
    own = getattr(test, SETTINGS, None) or default
    deadline = own.deadline if own.deadline != default.deadline else None
    phases = own.phases
    if phases == default.phases:  # its explanation names our lines
        phases = tuple(p for p in phases if p is not Phase.explain)
    return settings(
        own, deadline=deadline, max_examples=examples or own.max_examples, phases=phases
    )


def _check_first(test: Test, name: str, chosen: dict[str, Any]) -> Test:
    """The test with a check in front. Its signature, which hypothesis and pytest read, has
    `problem` and not `report`."""
    wanted = inspect.signature(test).parameters
    drawn = inspect.Parameter("problem", inspect.Parameter.KEYWORD_ONLY)
    others = [p for key, p in wanted.items() if key not in ("problem", "report")]
    signature = inspect.Signature([*others, drawn])

    def arguments(*args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Of the body, after the check; None where the body does not run."""
        __tracebackhide__ = True
        known = signature.bind(*args, **kwargs).arguments
        overruled = {key: known[key] for key in chosen if key in known}
        how = chosen | overruled
        check: Check = functools.partial(_check, name=name, **how)
        known["report"] = report = check(known["problem"])
        _settle(report, check)
        return None if report.left_out else {k: x for k, x in known.items() if k in wanted}

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        if (given := arguments(*args, **kwargs)) is not None:
            test(**given)

    @functools.wraps(test)
    async def run_async(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        if (given := arguments(*args, **kwargs)) is not None:
            await cast(Any, test(**given))

    body: Any = run_async if inspect.iscoroutinefunction(test) else run
    body.__signature__ = signature  # pytest reads it
    if isinstance(test, FunctionType):  # a traceback shows the test, not these lines
        place = {k: getattr(test.__code__, k) for k in ("co_filename", "co_firstlineno")}
        body.__code__ = body.__code__.replace(**place)
    return body


def _problems_from(
    strategy: st.SearchStrategy[Any],
    f: Callable[..., Any] | None,
    vjp: Callable[..., Any] | None,
) -> st.SearchStrategy[Problem]:
    if f is None:
        return strategy.map(_a_problem)

    @st.composite
    def at(draw: st.DrawFn) -> Problem:
        """Points have settings and a seed of their own, plain arrays have not."""
        drawn = draw(strategy)
        seed = draw(seeds)
        if isinstance(drawn, tuple):
            drawn = Point(drawn, seed=seed)
        elif not isinstance(drawn, Point):
            drawn = Point((np.asarray(drawn),), seed=seed)
        f_here, vjp_here = drawn.bind(f), None if vjp is None else drawn.bind(vjp)
        return DrawnProblem(f_here, drawn.inputs, drawn.seed, drawn.flat, vjp_here)

    return at()


def _a_problem(drawn: Any) -> Problem:
    if not isinstance(drawn, (Problem, LayerProblem)):
        raise TypeError(
            f"gradient_test: the strategy draws a {type(drawn).__name__}, not a Problem: give f=, "
            "the function of it, as well."
        )
    return as_problem(drawn)


def _check(problem: Problem, *, name: str, **chosen: Any) -> GradReport:
    __tracebackhide__ = True
    if isinstance(problem, DrawnProblem) and problem.vjp is None:
        _must_take_tensors(problem, name)
    elif isinstance(problem, DrawnProblem) and problem.vjp is not None:
        return check_vjp(
            problem.f, problem.vjp, *problem.inputs, name=name, seed=problem.seed,
            zero_gradient=problem.flat, allow_empty=True, raises=False,
        )  # fmt: skip
    return check_named(name, problem, raises=False, **chosen)


def _must_take_tensors(problem: Problem, name: str) -> None:
    """Without vjp=, f is a function of Tensors; np.square is none."""
    __tracebackhide__ = True
    try:
        result: Any = problem.f(*map(Tensor, problem.inputs))
    except TypeError as error:
        result = error
    if not isinstance(result, Tensor):
        what = f"gives {type(result).__name__}."
        if isinstance(result, TypeError):
            what = f"raises TypeError: {result}".rstrip(".") + "."
        raise TypeError(
            f"gradient_test of {name}: without vjp=, f must take and give Tensors, whose gradient "
            f"the tape computes. For Tensors {name_of(problem.f)} {what} "
            "Write f with minibn.ops, or pass vjp=lambda g, x: ..., the gradient that f's author "
            "wrote, if f takes NumPy arrays."
        ) from None


def _settle(report: GradReport, check: Check) -> None:
    """Raise the error of a failed check; tell hypothesis, and this run, about any other."""
    __tracebackhide__ = True
    run = _run.get() or _Run()  # none in another thread: then nothing is counted
    run.check = check
    report.left_out = report.undecided
    run.add(report)
    if report.left_out:
        what = "vacuous, gradient and oracle are zero" if report.only_vacuous else "inconclusive"
        event(f"left out: {what}")
        return
    if not report.passed:
        run.largest = report.larger = larger_of(run.largest, report)
        raise GradientError(report) from None
    for text in sorted({_event(x) for x in report.inputs} | events(report)):
        event(text)
    target(FULL - report.digits, label="digits lost")


def _event(x: InputReport) -> str:
    if x.kinks:
        return "at a kink"
    if x.verdict in ("empty", "zero"):
        return {"empty": "nothing to compare: empty", "zero": "a gradient that is zero"}[x.verdict]
    return f"oracle: {x.how.split(',')[0]}"
