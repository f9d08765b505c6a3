"""What a solution gets for each part, and why. All of it is decided here, in the grader's process.

Values are compared with the spec's forward pass; gradients with derivatives of that one, by
`check_vjp`. Feedback shows numbers and the solution's own lines, and never the spec's source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np

from minibn.testing.check import check_vjp
from minibn.testing.grading.feedback import (
    OWN_FORWARD,
    Finding,
    as_text,
    cut_graph,
    differences,
    explanation,
    feedback_of,
    of_error,
    with_names,
    worst_entry,
)
from minibn.testing.grading.solution import Stopped, StudentError
from minibn.testing.grading.spec import (
    Case,
    Check,
    Gradient,
    KeepsFloat32,
    Part,
    Spec,
    Unmodified,
    Values,
)
from minibn.testing.grading.student import Result, Student
from minibn.testing.report import GradReport, without_listeners

NOT_JUDGED = ("inconclusive", "vacuous", "zero", "empty")


@dataclass
class PartResult:
    """What a part is worth, what the solution gets, and the feedback.

    digits   that agree at the worst case; None if none could be compared
    feedback  sentences; the first says what is wrong
    """

    name: str
    points: float
    max_points: float
    digits: float | None = None
    feedback: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.points == self.max_points


class Judge:
    """The findings about one solution; each case is asked for once."""

    def __init__(self, spec: Spec, student: Student, seed: int, explain: bool = True) -> None:
        self.spec, self.student, self.seed, self.explain = spec, student, seed, explain
        self.drawn = list(spec.cases(np.random.default_rng((seed, 3))))
        self.values: Callable[[int], Finding] = cache(self._values)
        self.gradients: Callable[[int], dict[str, Finding]] = cache(self._gradients)
        self.told: set[str] = set()
        self.asked_for_own = False

    def part(self, part: Part) -> PartResult:
        """The result of a part. What a solution returns may be of any form: where that breaks a
        comparison, the part is lost, and says so."""
        self.student.solution.begin_part()
        result = PartResult(part.name or _title(part), 0, part.points)
        try:
            self._judge(part, result)
        except Exception as error:  # any, as the spec's own checks run here
            result.feedback = [
                f"this part could not be judged ({type(error).__name__}: {error}): is what you "
                "return of the right form? If it is, tell your teacher"
            ]
        return result

    def _judge(self, part: Part, result: PartResult) -> None:
        if isinstance(part, Unmodified):
            findings = [self._unmodified()]
        elif isinstance(part, Check):
            findings = [self._check(part)]
        else:
            numbers = self.spec.chosen(part, self.drawn)
            if isinstance(part, Values):
                findings = [self.values(k) for k in numbers]
            elif isinstance(part, Gradient):
                findings = [self.gradients(k)[part.of] for k in numbers]
            elif isinstance(part, KeepsFloat32):
                findings = [self._float32(k) for k in numbers[:1]]
            else:
                raise TypeError(f"a spec has no part {type(part).__name__}")
        seen = [f.digits for f in findings if f.digits is not None]
        result.digits = min(seen, default=None)
        wrong = [f for f in findings if f.sentences]
        if wrong:
            result.feedback = feedback_of(wrong, self.told)
        elif not any(f.judged for f in findings):
            result.feedback = ["the derivative could not be measured at these points: no points"]
        else:
            result.points = part.points

    # -- values

    def expected(self, case: Case, out: np.ndarray | None = None) -> np.ndarray:
        return np.asarray(self._forward(case, out)(*case.inputs.values()))

    def _forward(self, case: Case, out: np.ndarray | None) -> Callable[..., np.ndarray]:
        """The reference at the settings of a case, and at the solution's own mask."""
        settings = dict(case.settings)
        if self.spec.mask is not None and out is not None:
            settings["mask"] = self.spec.mask(case, out)
        return lambda *inputs: np.asarray(self.spec.forward(*inputs, **settings))

    def _exact(self, case: Case) -> Case:
        """The case with the numbers that the solution gets."""
        cast = {name: x.astype(self.student.dtype) for name, x in case.inputs.items()}
        return Case(case.kind, cast, case.settings, case.zero_gradient)

    def _values(self, k: int) -> Finding:
        case = self._exact(self.drawn[k])
        try:
            out = self.student.run(case).out
        except StudentError as error:
            return of_error(case, error)
        return self.compare(case, out)

    def compare(self, case: Case, out: np.ndarray) -> Finding:
        finding = Finding(case)
        try:
            with np.errstate(all="ignore"):
                expected = self.expected(_double(case), out)
        except ValueError as reason:  # of the mask
            finding.sentences.append(str(reason))
            return finding
        finding.sentences, finding.digits = differences(out, expected, self.student.dtype)
        if finding.sentences:
            finding.details = [f"output   {as_text(out)}", f"expected {as_text(expected)}"]
        return finding

    # -- gradients

    def _gradients(self, k: int) -> dict[str, Finding]:
        case = self._exact(self.drawn[k])
        names = list(case.inputs)
        rng = np.random.default_rng((self.seed, k, 4))
        try:
            out = self.student.run(case).out
            g = rng.standard_normal(self._output_shape(case, out))
            first = self.student.run(case, g)
        except StudentError as error:
            return dict.fromkeys(names, of_error(case, error))
        except ValueError as reason:  # of the mask
            return dict.fromkeys(names, Finding(case, [str(reason)]))
        found = self._by_form(case, first)
        good = [i for i, name in enumerate(names) if name not in found]
        if good:
            found |= self._by_derivative(case, out, good)
        return found

    def _output_shape(self, case: Case, out: np.ndarray) -> tuple[int, ...]:
        return self.expected(_double(case), out).shape

    def _by_form(self, case: Case, first: Result) -> dict[str, Finding]:
        """Gradients that can't be compared: none, cut, or of another shape."""
        names, gradients = list(case.inputs), first.gradients or []
        if len(gradients) < len(names):
            count = f"{len(gradients)} gradient{'s' * (len(gradients) != 1)}"
            text = f"the backward pass returns {count}, and must return {len(names)}: of "
            return dict.fromkeys(names, Finding(case, [text + ", ".join(names)]))
        found = {}
        for name, d in zip(names, gradients, strict=False):
            shape = case.inputs[name].shape
            if name in first.cut:
                found[name] = Finding(case, [cut_graph(first.cut, names, name)])
            elif d is None:
                found[name] = Finding(case, [f"the backward pass returns None for {name}"])
            elif d.shape != shape:
                text = f"the gradient of {name} has shape {d.shape}, and {name} has {shape}"
                found[name] = Finding(case, [text])
        return found

    def _by_derivative(self, case: Case, out: np.ndarray, good: list[int]) -> dict[str, Finding]:
        names = list(case.inputs)
        failed: list[StudentError] = []

        def check(f: Callable[..., Any], which: list[int], diagnose: bool) -> GradReport:
            def vjp(g: np.ndarray, *inputs: np.ndarray) -> list[np.ndarray | None]:
                try:
                    gradients = self.student.run(case, g, inputs).gradients or []
                except Stopped as error:
                    failed.append(error)
                    raise
                return [
                    _as(d, x.dtype) if i in which else None
                    for i, (d, x) in enumerate(zip(gradients, inputs, strict=False))
                ]

            with without_listeners(), np.errstate(all="ignore"):
                report = check_vjp(
                    f, vjp, *case.inputs.values(), wrt=which, seed=self.seed, raises=False,
                    zero_gradient=[i for i in which if names[i] in case.zero_gradient],
                    name=self.spec.title, diagnose=diagnose, reproduce=_no_script,
                )  # fmt: skip
            if failed:
                raise failed[0]
            return report

        reference = self._forward(case, out)
        try:
            report = check(reference, good, self.explain)
            found = {names[i]: self._finding(case, report, i, names) for i in good}
            wrong = [x.position for x in report.inputs if x.verdict == "wrong"]
            for i in wrong[1:] if self.explain else []:  # the diagnosis is of the first alone
                found[names[i]] = self._finding(case, check(reference, [i], True), i, names)
            if wrong and (self.explain or self.spec.follow_through):
                own = partial(check, which=good, diagnose=False)
                self._of_their_own_forward(case, out, own, found)
        except StudentError as error:
            return {names[i]: of_error(case, error) for i in good}
        return found

    def _finding(self, case: Case, report: GradReport, i: int, names: list[str]) -> Finding:
        entry = next((x for x in report.inputs if x.position == i), None)
        faults = [f for f in report.faults if not f.startswith("input ") or f"input {i}:" in f]
        finding = Finding(case)
        if entry is not None:
            finding.judged = entry.verdict not in ("inconclusive", "vacuous")
            finding.digits = None if entry.verdict in NOT_JUDGED else entry.digits
            if entry.verdict == "wrong":
                finding.sentences = explanation(report, entry, self.student.style.on_tensors)
                finding.details = worst_entry(entry)
        finding.sentences += faults
        finding.sentences = [with_names(text, names) for text in finding.sentences]
        return finding

    def _of_their_own_forward(
        self,
        case: Case,
        out: np.ndarray,
        check: Callable[..., GradReport],
        found: dict[str, Finding],
    ) -> None:
        """Where the forward pass is wrong: is the gradient that of the solution's own?"""
        once = not self.spec.follow_through  # it takes a thousand calls, and is the same elsewhere
        if (once and self.asked_for_own) or not self.compare(case, out).sentences:
            return
        self.asked_for_own = True

        def forward(*inputs: np.ndarray) -> np.ndarray:
            if any(np.iscomplexobj(x) for x in inputs):
                raise TypeError("solutions get real numbers")
            return self.student.run(case, inputs=inputs).out.astype(float)

        try:
            report = check(forward)
        except (StudentError, TypeError, ValueError):
            return
        if not report.passed:
            return
        for name, finding in found.items():
            if finding.sentences and self.spec.follow_through:
                found[name] = Finding(case, digits=finding.digits)
            elif finding.sentences:
                finding.sentences.insert(0, OWN_FORWARD)

    # -- the rest

    def _unmodified(self) -> Finding:
        if not self.student.calls:
            return Finding(None, ["no call ended without an error, so nothing could be seen"])
        changed = sorted(self.student.modified)
        text = f"a call changes its arguments in place: {', '.join(changed)}. Work on copies"
        return Finding(None, [text] if changed else [])

    def _check(self, part: Check) -> Finding:
        try:
            with np.errstate(all="ignore"):
                rng = np.random.default_rng((self.seed, 5))
                return Finding(None, list(part.look(self.student, rng)))
        except StudentError as error:
            return of_error(None, error)

    def _float32(self, k: int) -> Finding:
        case, before = self.drawn[k], self.student.dtype
        self.student.dtype = np.float32
        try:
            out = self.student.run(case).out
            g = np.ones(self._output_shape(case, out))
            result = self.student.run(case, g)
        except (StudentError, ValueError) as error:
            return of_error(case, error)
        finally:
            self.student.dtype = before
        arrays: dict[str, np.ndarray | None] = {"the output": result.out}
        arrays |= {f"the gradient of {n}": d for n, d in zip(case.inputs, result.gradients or [])}  # noqa: B905
        return Finding(case, [
            f"{what} of float32 inputs is {d.dtype}"
            for what, d in arrays.items()
            if d is not None and d.dtype != np.float32
        ])  # fmt: skip


def _as(d: Any, dtype: Any) -> Any:
    """float64 for float32 inputs is no mistake here; the other way round is."""
    if isinstance(d, np.ndarray) and (d.dtype.kind in "iub" or d.dtype.itemsize > dtype.itemsize):
        return d.astype(dtype)
    return d


def _no_script(*_: Any) -> str:
    """A script would show the reference."""
    return ""


def _double(case: Case) -> Case:
    return Case(case.kind, {n: x.astype(float) for n, x in case.inputs.items()}, case.settings)


def _title(part: Part) -> str:
    where = f", {part.on}" if part.on else ""
    if isinstance(part, Gradient):
        return f"gradient of {part.of}{where}"
    names = {Values: "values", Unmodified: "arguments unchanged", KeepsFloat32: "keeps float32"}
    return names.get(type(part), "a check") + where
