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
from minibn.testing.checking.ensemble import Ensemble, Point
from minibn.testing.checking.kinks import at_ties_of_inputs
from minibn.testing.checking.layouts import copy_in
from minibn.testing.checking.oracles import STARTS
from minibn.testing.checking.verdict import ENTRIES, judge
from minibn.testing.checking.vjp_calls import CEILING, SAFETY, VjpCalls, VjpResult
from minibn.testing.diagnosis.entrywise import dissect
from minibn.testing.diagnosis.reproducer import script
from minibn.testing.diagnosis.screen_text import explain, screen
from minibn.testing.report import Diagnosis, GradReport, InputReport

Vjp = Callable[..., Any]
Script = Callable[[np.ndarray, int, np.ndarray], str]


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
    seed           of the cotangents and directions
    entries        the size of the Jacobian up to which every entry is compared; a larger one is
                   compared along random directions
    starts         largest steps of the differences, in units of the input's own scale
    composite      f is a network: at a kink its gradient may lie outside the one-sided
                   derivatives, so only points beside the kink are compared
    complex_convention  "pytorch" (dL/da + i dL/db for z = a + ib) or "jax" (its conjugate)
    diagnose       measure a wrong gradient entry by entry, explain it, write a script
    reproduce      (cotangent, position, numeric gradient) -> the script for a report

    Raises GradientError, whose `report` says which input, where and in what way; Vacuous if both
    sides are zero; TypeError or ValueError for inputs that can't be differentiated. With
    `raises=False` the report is returned in any case.
    """
    if not (callable(f) and callable(vjp)):
        raise TypeError("check_vjp(f, vjp, *arrays): the first two arguments are functions.")
    wrt = _positions(wrt, len(arrays))  # names are resolved before
    if unknown := set(zero_gradient) - set(wrt):
        raise ValueError(
            f"zero_gradient names {sorted(unknown)}, and only {wrt} are differentiated."
        )
    given = [_differentiable(x, i, wrt) for i, x in enumerate(arrays)]
    report = GradReport(name or name_of(f), seed=seed)
    rng = np.random.default_rng((seed, 2))
    y = _value(f, given, report, accuracy)
    cotangents = [np.asarray(rng.standard_normal(y.shape)).astype(y.dtype) for _ in range(2)]
    if report.faults:
        return report.settle(raises)
    calls = VjpCalls(vjp, given, wrt, report.faults, report.notes, accuracy, allow_views)
    exact = [x.astype(float) if i in wrt else x for i, x in enumerate(given)]

    def forward(*moving: np.ndarray) -> Any:
        return f(*calls.with_inputs(moving))

    double = [np.asarray(c, float) for c in cotangents]
    point = Point(
        forward, [exact[i] for i in wrt], double, rng, starts=starts, composite=composite,
        accuracy=accuracy,
    )  # fmt: skip
    calls.rounding = [
        point.rounding(k, double[0], 0.0, float(np.finfo(given[i].dtype).eps))
        for k, i in enumerate(wrt)
    ]
    result = calls.measure(cotangents, rng, forward)
    if result is not None:
        if reference is not None:
            _compare_with_reference(reference, exact, point.y, report)
            point.reference = lambda *moving: reference(*calls.with_inputs(moving))
        judged: dict[int, InputReport] = {}
        for k, i in enumerate(wrt):
            if given[i].size * y.size == 0:
                report.inputs.append(_empty(i, given[i], allow_empty))
                continue
            with np.errstate(all="ignore"):  # the verdict reports what is not finite
                entry, ensemble = judge(point, k, result[k], i in zero_gradient, entries)
            entry.position, entry.dtype = i, str(given[i].dtype)
            report.inputs.append(entry)
            judged[k] = entry
            wrong = entry.verdict == "wrong" and entry.worst is not None
            if wrong and diagnose and report.diagnose is Diagnosis:
                write = reproduce or partial(_script, f, vjp, given, report.name)
                report.diagnose = partial(diagnosis, ensemble, result[k], report.name, entry, write)
        if len(judged) == len(wrt) and not composite:
            at_ties_of_inputs(report.inputs, point, result)
    if convention is not None and result is not None:
        _check_convention(convention, cotangents[0], given, wrt, result, point, report)
    return report.settle(raises)


def diagnosis(
    ensemble: Ensemble, result: VjpResult, name: str, entry: InputReport, write: Script
) -> Diagnosis:
    """Measure a wrong gradient entry by entry, and describe its error."""
    with np.errstate(all="ignore"):
        evidence = dissect(ensemble, result, entry.cotangent)
    c = evidence.cotangent.astype(result.gradients[0].dtype)
    script = write(c, entry.position, evidence.numeric)
    return Diagnosis(explain(evidence), screen(evidence, name), script)


def _script(
    f: Callable[..., Any],
    vjp: Vjp,
    given: list[Any],
    name: str,
    cotangent: np.ndarray,
    position: int,
    numeric: np.ndarray,
) -> str:
    return script(f, vjp, given, cotangent, position, numeric, name)


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


def _value(f: Callable[..., Any], given: list, report: GradReport, accuracy: float) -> np.ndarray:
    """f at the point: it must be finite, the same in two calls, and leave its inputs unchanged."""
    passed = [_copy(x) for x in given]
    y, again = (np.asarray(f(*given)) for given in ([_copy(x) for x in passed], passed))
    if y.dtype.kind != "f":
        raise TypeError(f"f gives {y.dtype}, not floats: there is nothing to differentiate.")
    if not np.isfinite(y).all():
        raise ValueError("f is not finite at this point: give a point inside its domain.")
    gap = np.inf if y.shape != again.shape else float(np.abs(y - again).max(initial=0))
    gap /= float(np.abs(y).max(initial=0)) or 1.0
    if y.tobytes() != again.tobytes() and not gap <= SAFETY * accuracy:
        report.faults.append(
            "f gives two values at one point: freeze its randomness, and its running statistics"
            if gap > 1e-10
            else f"f gives two values at one point, {gap:.0e} apart: if that is expected (atomic "
            f"additions, say), pass accuracy={10 * gap:.0e}"
        )
    for i, (x, after) in enumerate(zip(given, passed, strict=True)):
        if isinstance(x, np.ndarray) and x.tobytes() != after.tobytes():
            report.faults.append(f"f modifies its input {i} in place")
    return y


def _copy(x: Any) -> Any:
    return copy_in(x) if isinstance(x, np.ndarray) else x


def _empty(i: int, x: np.ndarray, allowed: bool) -> InputReport:
    report = InputReport(i, x.shape, str(x.dtype), verdict="empty" if allowed else "vacuous")
    report.sides = "no entries: the check could not have failed. Pass arrays with values."
    return report


def _compare_with_reference(
    reference: Callable[..., Any], exact: list, y: np.ndarray, report: GradReport
) -> None:
    there = np.asarray(reference(*exact), float)
    scale = float(np.abs(y).max(initial=0))
    if there.shape != y.shape:
        report.faults.append(f"f gives shape {y.shape}, the reference {there.shape}")
    elif not np.all(np.abs(there - y) <= 1e-9 * scale):
        where = np.unravel_index(int(np.argmax(np.abs(there - y))), y.shape)
        report.faults.append(
            f"at {tuple(map(int, where))} f is {y[where]!r} and the reference {there[where]!r}: "
            "one of them is wrong"
        )


def _check_convention(
    convention: Callable[..., Any],
    g: np.ndarray,
    given: list,
    wrt: Sequence[int],
    result: list[VjpResult],
    point: Point,
    report: GradReport,
) -> None:
    promised = convention(g, *given)
    promised = promised if isinstance(promised, (tuple, list)) else (promised,)
    shapes = [np.shape(p) for p in promised]
    if shapes != [given[i].shape for i in wrt]:
        raise ValueError(
            f"convention gives shapes {shapes}: it must give a gradient of each input's shape."
        )
    for i, ours, expected in zip(wrt, result, promised, strict=True):
        gap = np.abs(np.asarray(ours.gradients[0], float) - np.asarray(expected, float))
        scale = float(np.abs(expected).max(initial=0))
        beside = ours.at(point.beside(f"f{ours.bytes}"))  # at a kink, the spread is of both sides
        spread = ours.spread if beside is None else np.minimum(ours.spread, beside.spread)
        if not np.all(gap <= SAFETY * (spread + ours.eps * scale)):
            where = np.unravel_index(int(np.argmax(gap)), gap.shape)
            report.faults.append(
                f"input {i}: the documented convention promises "
                f"{np.asarray(expected)[where]!r} at {tuple(map(int, where))}, the vjp gives "
                f"{ours.gradients[0][where]!r}"
            )
