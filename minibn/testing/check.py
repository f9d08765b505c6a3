"""`check_vjp`: is a hand-written vjp of a function on NumPy arrays right? It needs NumPy alone.

    >>> import numpy as np
    >>> report = check_vjp(np.tanh, lambda g, x: g * (1 - np.tanh(x) ** 2), np.array([0.3, -1.0]))
    >>> report.passed, report.digits > 14
    (True, True)

Cotangents are always drawn, from a normal distribution. The vjp's gradients are compared with
oracles that must agree among themselves (`checking/oracles.py`), to as many digits as these are
exact (`checking/verdict.py`). A comparison of zeros with zeros fails.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from minibn.testing.arguments import name_of, takes_any_arguments
from minibn.testing.checking.array_check import ArrayCheck
from minibn.testing.checking.counting import Counted
from minibn.testing.checking.ensemble import Ensemble
from minibn.testing.checking.oracles import STARTS
from minibn.testing.checking.verdict import ENTRIES
from minibn.testing.checking.vjp_calls import CEILING, VjpResult
from minibn.testing.diagnosis.budget import Budget
from minibn.testing.diagnosis.entrywise import dissect
from minibn.testing.diagnosis.reproducer import script
from minibn.testing.diagnosis.screen_text import explain, remark, screen
from minibn.testing.report import Diagnosis, GradReport, InputReport

Vjp = Callable[..., Any]
Script = Callable[[np.ndarray, int, np.ndarray, Callable[..., Any]], str]


@takes_any_arguments
def check_vjp(
    f: Callable[..., Any],
    vjp: Vjp,
    *arrays: Any,
    name: str = "",
    seed: int = 0,
    wrt: int | str | Sequence[int | str] | None = None,
    zero_gradient: Collection[int | str] = (),
    allow_empty: bool = False,
    reference: Callable[..., Any] | None = None,
    convention: Callable[..., Any] | None = None,
    accuracy: float = 0.0,
    allow_views: bool = False,
    budget: int | str | None = None,
    entries: int = ENTRIES,
    starts: Sequence[float] = STARTS,
    composite: bool = False,
    complex_convention: str = "pytorch",
    raises: bool = True,
    diagnose: bool = True,
    reproduce: Script | None = None,
) -> GradReport:
    """Compare a hand-written vector-Jacobian product with derivatives computed from values.

    f(*arrays) -> array; vjp(g, *arrays) -> the gradient of Σ g·f, of each array in turn (a tuple,
    or the array itself if there is one). Arrays and outputs may also be in dicts, lists, tuples and
    dataclasses, complex, and of other libraries: f and the vjp get what was given, g in the
    structure of f's outputs (0-d for a number), and the gradient is returned in that of the
    arguments. Inputs of float32 or float16 are judged against f in
    float64 at the same numbers.

    name           of f in the report
    wrt            positions to differentiate, or names of leaves such as "weight" for
                   "input 0['weight']"; the others may be anything, labels for instance
    zero_gradient  positions or names whose gradient is known to be zero; at others a zero fails
    allow_empty    arrays without entries are no failure
    reference      a second, independent implementation of f (loops): its values must be f's, and
                   its derivatives are compared with the vjp, too
    convention     convention(g, *arrays): the gradient that is promised at this point, such as
                   relu'(0) = 0; it is compared to rounding
    accuracy       the relative error of f and of the vjp, if they are exact to fewer digits than
                   their dtype: an iteration that is stopped at 1e-13, sums in any order on a GPU
    allow_views    the gradients may be views of the cotangent, or share memory with each other
    budget         the most that the check may cost: calls of f (500), or a time ("30s", "2min"). A
                   check that can't end within it compares along fewer directions, and is
                   inconclusive if not even those fit
    seed           of the cotangents and directions
    entries        the size of the Jacobian up to which every entry is compared; a larger one is
                   compared along random directions
    starts         largest steps of the differences, in units of the input's own scale
    composite      f is a network: at a kink its gradient may lie outside the one-sided
                   derivatives, so only points beside the kink are compared
    complex_convention  "pytorch" (dL/da + i dL/db for z = a + ib) or "jax" (its conjugate)
    diagnose       measure a wrong gradient entry by entry, explain it, write a script
    reproduce      (cotangent, position, numeric gradient, f on arrays) -> the script for a report

    Raises GradientError, whose `report` says which input, where and in what way; Vacuous if both
    sides are zero; TypeError or ValueError for inputs that can't be differentiated. With
    `raises=False` the report is returned in any case.
    """
    __tracebackhide__ = True
    if not (callable(f) and callable(vjp)):
        raise TypeError("check_vjp(f, vjp, *arrays): the first two arguments are functions.")
    wrt = _positions(wrt, len(arrays))  # names are resolved before
    if unknown := set(zero_gradient) - set(wrt):
        raise ValueError(
            f"zero_gradient names {sorted(unknown)}, and only {wrt} are differentiated."
        )
    given = [_differentiable(x, i, wrt) for i, x in enumerate(arrays)]
    report = GradReport(name or name_of(f), seed=seed)
    report.counted = counted = Counted(f, budget, report.name)
    check = ArrayCheck(
        counted, vjp, given, wrt, report, zero_gradient=zero_gradient, allow_empty=allow_empty,
        reference=reference, convention=convention, accuracy=accuracy, allow_views=allow_views,
        entries=entries, starts=starts, composite=composite,
    )  # fmt: skip
    check.run()
    if diagnose and check.first_wrong is not None:
        entry, ensemble, result = check.first_wrong
        at = list(given)  # where it is wrong, which may be beside the point
        for i, x in zip(wrt, ensemble.point.inputs, strict=True):
            at[i] = x.astype(given[i].dtype)
        write = reproduce or partial(_script, f, vjp, at, wrt, report.name)
        report.diagnose = partial(diagnosis, ensemble, result, report, entry, write)
    return report.settle(raises)


def diagnosis(
    ensemble: Ensemble, result: VjpResult, report: GradReport, entry: InputReport, write: Script
) -> Diagnosis:
    """Measure a wrong gradient entry by entry, and describe its error."""
    budget = Budget.beside(report.counted, report.calls)
    with np.errstate(all="ignore"):
        evidence = dissect(ensemble, result, entry.cotangent, budget)
        sentences = explain(evidence)
    c = evidence.cotangent.astype(result.gradients[0].dtype)
    script = write(c, entry.position, evidence.numeric, report.counted)
    shown = screen(evidence, report.name, sentences)
    hint = "" if sentences else remark(evidence)
    return Diagnosis(sentences, shown, script, hint, budget.spent, evidence.doubtful)


def _script(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    given: list[Any],
    wrt: Sequence[int],
    name: str,
    cotangent: np.ndarray,
    position: int,
    numeric: np.ndarray,
    value: Callable[..., Any],
) -> str:
    return script(f, vjp, given, cotangent, position, numeric, name, value, wrt)


def _positions(wrt: Any, count: int) -> list[int]:
    if not count:
        raise TypeError(
            "check_vjp needs at least one array to differentiate: check_vjp(f, vjp, x)."
        )
    wrt = list(range(count)) if wrt is None else [wrt] if isinstance(wrt, int) else list(wrt)
    positions = [i + count if isinstance(i, int) and -count <= i < 0 else i for i in wrt]
    unique = set(positions)
    if not positions or len(unique) < len(positions) or not unique <= set(range(count)):
        raise ValueError(f"wrt={wrt}: name positions from 0 to {count - 1}, each once.")
    return positions


def _differentiable(x: Any, i: int, wrt: Sequence[int]) -> Any:
    if i not in wrt:
        return x
    array = np.asarray(x)
    if array.dtype.kind != "f" or array.dtype.itemsize not in CEILING:
        others = [k for k in wrt if k != i]
        instead = f", or name what to differentiate: wrt={others}" if others else ""
        raise TypeError(
            f"input {i} has dtype {array.dtype}: only float64, float32 and float16 are "
            f"differentiated. Convert it with .astype(float){instead}."
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not np.isfinite(array).all():
        raise ValueError(f"input {i} holds NaN or infinity: give a point of f's domain.")
    return array
