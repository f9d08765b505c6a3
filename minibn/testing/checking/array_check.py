"""The check of a vjp on NumPy arrays, from the first call of f to the verdicts on all inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn.testing.checking.counting import Counted, OutOfBudget
from minibn.testing.checking.ensemble import Ensemble, Point
from minibn.testing.checking.kinks import at_ties_of_inputs
from minibn.testing.checking.layouts import copy_in
from minibn.testing.checking.verdict import judge
from minibn.testing.checking.vjp_calls import SAFETY, VjpCalls, VjpResult
from minibn.testing.memory_layouts import layout_of
from minibn.testing.report import GradReport, InputReport


@dataclass
class ArrayCheck:
    """The arguments of `check_vjp`; `given` are arrays at the positions `wrt`, and other things.
    `run` fills the report.

    first_wrong: the report, the oracles and the gradients of the first input with a wrong gradient
    """

    f: Counted
    vjp: Callable[..., Any]
    given: list[Any]
    wrt: Sequence[int]
    report: GradReport
    zero_gradient: Collection[Any]
    allow_empty: bool
    reference: Callable[..., Any] | None
    convention: Callable[..., Any] | None
    accuracy: float
    allow_views: bool
    entries: int
    starts: Sequence[float]
    composite: bool
    first_wrong: tuple[InputReport, Ensemble, VjpResult] | None = None

    def run(self) -> None:
        try:
            self._judge_all()
        except OutOfBudget:
            self._end_without_verdict()
        finally:
            self.report.calls = self.f.calls
            self.f.finish()
        for entry in self.report.inputs:
            x = self.given[entry.position]
            entry.magnitude, entry.layout = float(np.abs(x).max(initial=0)), layout_of(x)

    def _judge_all(self) -> None:
        report, wrt, given = self.report, self.wrt, self.given
        rng = np.random.default_rng((report.seed, 2))
        y = self._value_at_the_point()
        if report.faults:
            return
        cotangents = [np.asarray(rng.standard_normal(y.shape)).astype(y.dtype) for _ in range(2)]
        self.calls = calls = VjpCalls(
            self.vjp, given, wrt, report.faults, report.notes, self.accuracy, self.allow_views
        )
        exact = [x.astype(float) if i in wrt else x for i, x in enumerate(given)]
        point = Point(
            self._in_float64(exact), [exact[i] for i in wrt],
            [np.asarray(c, float) for c in cotangents], rng, starts=self.starts,
            composite=self.composite, accuracy=self.accuracy,
            room=lambda: self.f.left / max(1, len(wrt) - len(report.inputs)),
        )  # fmt: skip
        if point.coarse and not report.notes:
            report.notes.append(
                f"f itself is exact to {-np.log10(point.relative_noise):.0f} digits here: more of "
                "a gradient can't be judged"
            )
        calls.rounding = [
            point.rounding(k, point.cotangents[0], 0.0, float(np.finfo(given[i].dtype).eps))
            for k, i in enumerate(wrt)
        ]
        results = calls.measure(cotangents, rng, point.f)
        if results is None:
            return
        if self.reference is not None:
            self._compare_with_reference(exact, y)
            point.reference = self._with_inputs(self.reference)
        judged = [self._judge(point, k, results[k], y) for k in range(len(wrt))]
        if all(judged) and not self.composite:
            at_ties_of_inputs(report.inputs, point, results)
        if self.convention is not None:
            self._check_convention(self.convention, cotangents[0], results, point)

    def _judge(self, point: Point, k: int, result: VjpResult, y: np.ndarray) -> bool:
        """Add the report on input number k of those that are differentiated; False if it is
        empty."""
        i = self.wrt[k]
        x = self.given[i]
        if x.size * y.size == 0:
            self.report.inputs.append(_empty(i, x, self.allow_empty))
            return False
        with np.errstate(all="ignore"):  # the verdict reports what is not finite
            zero = i in self.zero_gradient
            entry, ensemble, result = judge(point, k, result, zero, self.entries)
        entry.position, entry.dtype = i, str(x.dtype)
        self.report.inputs.append(entry)
        wrong = entry.verdict == "wrong" and entry.worst is not None
        if wrong and self.first_wrong is None:
            self.first_wrong = entry, ensemble, result
        return True

    def _end_without_verdict(self) -> None:
        judged = {entry.position for entry in self.report.inputs}
        for i in self.wrt:
            if i not in judged:
                x = self.given[i]
                entry = InputReport(i, x.shape, str(x.dtype), verdict="inconclusive", digits=0.0)
                entry.how = "not compared"
                entry.sides = f"the budget was used up after {self.f.calls} calls of f: give more"
                self.report.inputs.append(entry)

    # -- f

    def _value_at_the_point(self) -> np.ndarray:
        """f at the point: it must be finite, the same in two calls, and leave its inputs
        unchanged."""
        passed = [_copy(x) for x in self.given]
        y, again = (np.asarray(self.f(*xs)) for xs in ([_copy(x) for x in passed], passed))
        if y.dtype.kind != "f":
            raise TypeError(f"f gives {y.dtype}, not floats: there is nothing to differentiate.")
        if not np.isfinite(y).all():
            raise ValueError("f is not finite at this point: give a point inside its domain.")
        gap = np.inf if y.shape != again.shape else float(np.abs(y - again).max(initial=0))
        gap /= float(np.abs(y).max(initial=0)) or 1.0
        if y.tobytes() != again.tobytes() and not gap <= SAFETY * self.accuracy:
            self.report.faults.append(
                "f gives two values at one point: freeze its randomness, and its running statistics"
                if gap > 1e-10
                else f"f gives two values at one point, {gap:.0e} apart: if that is expected "
                f"(atomic additions, say), pass accuracy={10 * gap:.0e}"
            )
        for i, (x, after) in enumerate(zip(self.given, passed, strict=True)):
            if isinstance(x, np.ndarray) and x.tobytes() != after.tobytes():
                self.report.faults.append(f"f modifies its input {i} in place")
        return y

    def _with_inputs(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f as a function of the inputs that are differentiated."""
        return lambda *moving: f(*self.calls.with_inputs(moving))

    def _in_float64(self, exact: Sequence[Any]) -> Callable[..., Any]:
        """What the oracles differentiate: f in float64, or if it takes its own precision alone (a
        CUDA kernel), the reference, or f on rounded numbers."""
        dtypes = [self.given[i].dtype for i in self.wrt]
        if all(dtype == np.float64 for dtype in dtypes):
            return self._with_inputs(self.f)
        try:
            self.f(*map(_copy, exact))
            return self._with_inputs(self.f)
        except Exception:  # whatever it raises for float64
            names = " and ".join(sorted({str(dtype) for dtype in dtypes}))
        if self.reference is not None:
            self.report.notes.append(f"f takes {names} alone: judged by the reference in float64")
            return self._with_inputs(self.reference)
        self.report.notes.append(
            f"f takes {names} alone: judged by its own differences, to the digits that these have. "
            "reference= in float64 would judge all digits"
        )

        def rounded(*moving: np.ndarray) -> np.ndarray:
            if any(x.dtype.kind == "c" for x in moving):
                raise TypeError(f"f takes {names} alone")
            xs = [x.astype(dtype) for x, dtype in zip(moving, dtypes, strict=True)]
            return np.asarray(self.f(*self.calls.with_inputs(xs)), float)

        return rounded

    # -- other promises

    def _compare_with_reference(self, exact: Sequence[Any], y: np.ndarray) -> None:
        assert self.reference is not None
        there = np.asarray(self.reference(*exact), float)
        scale = float(np.abs(y).max(initial=0))
        allowed = max(1e-9, 100 * float(np.finfo(y.dtype).eps), SAFETY * self.accuracy) * scale
        if there.shape != y.shape:
            self.report.faults.append(f"f gives shape {y.shape}, the reference {there.shape}")
        elif not np.all(np.abs(there - y) <= allowed):
            where = np.unravel_index(int(np.argmax(np.abs(there - y))), y.shape)
            self.report.faults.append(
                f"at {tuple(map(int, where))} f is {y[where]!r} and the reference "
                f"{there[where]!r}: one of them is wrong"
            )

    def _check_convention(
        self,
        convention: Callable[..., Any],
        g: np.ndarray,
        results: Sequence[VjpResult],
        point: Point,
    ) -> None:
        promised = convention(g, *self.given)
        promised = promised if isinstance(promised, (tuple, list)) else (promised,)
        shapes = [np.shape(p) for p in promised]
        if shapes != [self.given[i].shape for i in self.wrt]:
            raise ValueError(
                f"convention gives shapes {shapes}: it must give a gradient of each input's shape."
            )
        for i, ours, expected in zip(self.wrt, results, promised, strict=True):
            gap = np.abs(np.asarray(ours.gradients[0], float) - np.asarray(expected, float))
            scale = float(np.abs(expected).max(initial=0))
            beside = ours.at(point.beside(f"f{ours.bytes}"))  # at a kink, here are both sides
            spread = ours.spread if beside is None else np.minimum(ours.spread, beside.spread)
            if not np.all(gap <= SAFETY * (spread + ours.eps * scale)):
                where = np.unravel_index(int(np.argmax(gap)), gap.shape)
                self.report.faults.append(
                    f"input {i}: the documented convention promises "
                    f"{np.asarray(expected)[where]!r} at {tuple(map(int, where))}, the vjp gives "
                    f"{ours.gradients[0][where]!r}"
                )


def _copy(x: Any) -> Any:
    return copy_in(x) if isinstance(x, np.ndarray) else x


def _empty(i: int, x: np.ndarray, allowed: bool) -> InputReport:
    report = InputReport(i, x.shape, str(x.dtype), verdict="empty" if allowed else "vacuous")
    report.sides = "no entries: the check could not have failed. Pass arrays with values."
    return report
