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
from minibn.testing.report import GradReport, InputReport, digits, without_listeners

DEMANDED = {8: 7.0, 4: 3.5}  # digits of values, by the bytes of a number
OWN_FORWARD = "it is the gradient of your own forward pass, and that is wrong: mend it first"
SHOWN = 20  # numbers of an array that are printed
NOT_JUDGED = ("inconclusive", "vacuous", "zero", "empty")


@dataclass
class Finding:
    """The result of one comparison. `sentences` say what is wrong; none: nothing is."""

    case: Case | None
    sentences: list[str] = field(default_factory=list)
    digits: float | None = None
    details: list[str] = field(default_factory=list)
    error: bool = False  # the solution could not be run here
    judged: bool = True


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
            result.feedback = _feedback(wrong, self.told)
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
            return _error(case, error)
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
            finding.details = [f"output   {_shown(out)}", f"expected {_shown(expected)}"]
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
            return dict.fromkeys(names, _error(case, error))
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
                found[name] = Finding(case, [_cut(first.cut, names, name)])
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
            return {names[i]: _error(case, error) for i in good}
        return found

    def _finding(self, case: Case, report: GradReport, i: int, names: list[str]) -> Finding:
        entry = next((x for x in report.inputs if x.position == i), None)
        faults = [f for f in report.faults if not f.startswith("input ") or f"input {i}:" in f]
        finding = Finding(case)
        if entry is not None:
            finding.judged = entry.verdict not in ("inconclusive", "vacuous")
            finding.digits = None if entry.verdict in NOT_JUDGED else entry.digits
            if entry.verdict == "wrong":
                finding.sentences = _explanation(report, entry, self.student.style.on_tensors)
                finding.details = _worst(entry)
        finding.sentences += faults
        finding.sentences = [_with_names(text, names) for text in finding.sentences]
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
            return _error(None, error)

    def _float32(self, k: int) -> Finding:
        case, before = self.drawn[k], self.student.dtype
        self.student.dtype = np.float32
        try:
            out = self.student.run(case).out
            g = np.ones(self._output_shape(case, out))
            result = self.student.run(case, g)
        except (StudentError, ValueError) as error:
            return _error(case, error)
        finally:
            self.student.dtype = before
        arrays: dict[str, np.ndarray | None] = {"the output": result.out}
        arrays |= {f"the gradient of {n}": d for n, d in zip(case.inputs, result.gradients or [])}  # noqa: B905
        return Finding(case, [
            f"{what} of float32 inputs is {d.dtype}"
            for what, d in arrays.items()
            if d is not None and d.dtype != np.float32
        ])  # fmt: skip


def differences(
    out: np.ndarray, expected: np.ndarray, dtype: Any = np.float64
) -> tuple[list[str], float | None]:
    """Sentences about an array that is not the expected one, and the digits that agree."""
    if out.size == expected.size == 1:
        out = out.reshape(expected.shape)  # a loss may be an array of one number
    if out.shape != expected.shape:
        return [f"the output has shape {out.shape}, and must have {expected.shape}"], None
    if out.dtype.kind == "c":
        return ["the output is complex"], None
    if not np.isfinite(out).all():
        return [f"{int((~np.isfinite(out)).sum())} of {out.size} outputs are not finite"], 0.0
    scale = float(np.abs(expected).max(initial=0))
    gap = np.abs(out - expected)
    agree = digits(float(gap.max(initial=0)), scale or 1.0)
    if agree >= DEMANDED[np.dtype(dtype).itemsize]:
        return [], agree
    wrong = gap > 10 ** -DEMANDED[np.dtype(dtype).itemsize] * scale
    text = f"{int(wrong.sum())} of {out.size} outputs differ, and {agree:.1f} digits agree"
    with np.errstate(all="ignore"):
        ratios = (out / expected)[np.abs(expected) > 1e-3 * scale]
    if (
        len(ratios)
        and np.ptp(ratios) < 1e-6 * abs(ratios[0])
        and (len(ratios) > 1 or out.size == 1)
    ):
        text += f": all are {ratios[0]:.6g} times what they should be"
    elif np.ptp(out - expected) < 1e-6 * scale and out.size > 1:
        text += f": all are too large by {(out - expected).flat[0]:.6g}"
    return [text], agree


def _explanation(report: GradReport, entry: InputReport, on_tensors: bool) -> list[str]:
    """The diagnosis, if it is about this input; always a sentence."""
    text = f"the gradient of input {entry.position} is wrong: {entry.digits:.1f} digits agree"
    if entry.sides.startswith("at a kink"):
        text += f" ({entry.sides})"
    sentences = [text]
    if entry is next(x for x in report.inputs if x.verdict == "wrong"):
        sentences += report.diagnosis.sentences
    worst = entry.worst or {}
    if on_tensors and worst.get("analytic") == 0 and entry.digits < 0.1:
        sentences.append("it may be cut: are values computed from `.data` (NumPy) in between?")
    return sentences


def _worst(entry: InputReport) -> list[str]:
    worst = entry.worst or {}
    if not worst.get("index") or isinstance(worst["numeric"], tuple):
        return []
    index = tuple(worst["index"])
    return [f"at {index}: yours {worst['analytic']:.8g}, expected {worst['numeric']:.8g}"]


def _cut(cut: list[str], names: list[str], name: str) -> str:
    """Why a tensor has no gradient after a backward pass."""
    whole = "no input gets a gradient" if len(cut) == len(names) else f"{name} gets no gradient"
    return (
        f"the graph is cut: {whole} after .backward(). The result was computed from `.data` (NumPy "
        "arrays) and put into a new tensor, so that nothing leads back: compute on the tensors "
        "themselves, or give the result a backward function"
    )


def _feedback(wrong: list[Finding], before: set[str]) -> list[str]:
    """The explanation of the largest case that has one, then the smallest case in numbers; of an
    error that an earlier part showed, `before`, the sentence alone."""
    size = lambda f: f.case.size if f.case is not None else 0  # noqa: E731
    errors = [f for f in wrong if f.error]
    small = min(errors or wrong, key=size)
    explained = [f for f in errors or wrong if len(f.sentences) > 1]
    told = max(explained or [small], key=lambda f: (f.sentences[0] == OWN_FORWARD, size(f)))
    lines = list(dict.fromkeys(told.sentences))
    known = small.error and small.sentences[0] in before
    before.add(small.sentences[0])
    if small.case is not None and not known:
        lines.append(f"for example, {small.case.kind}:")
        lines += [f"  {name} = {_shown(x)}" for name, x in small.case.inputs.items()]
        lines += [
            f"  {key} = {_shown(x) if isinstance(x, np.ndarray) else x}"
            for key, x in small.case.settings.items()
            if np.size(x) <= SHOWN
        ]
        lines += [f"  {detail}" for detail in small.details]
    return lines


def _shown(x: np.ndarray) -> str:
    if x.size > SHOWN:
        return f"an array of shape {x.shape}"
    return np.array2string(x, precision=6, separator=", ", max_line_width=10**6).replace("\n", "")


def _error(case: Case | None, error: Exception) -> Finding:
    return Finding(case, [str(error)], error=True)


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


def _with_names(text: str, names: list[str]) -> str:
    for i, name in enumerate(names):
        text = text.replace(f"input {i}", name)
    return text.replace("The error is", "the error is") if text.startswith("The error") else text


def _title(part: Part) -> str:
    where = f", {part.on}" if part.on else ""
    if isinstance(part, Gradient):
        return f"gradient of {part.of}{where}"
    names = {Values: "values", Unmodified: "arguments unchanged", KeepsFloat32: "keeps float32"}
    return names.get(type(part), "a check") + where
