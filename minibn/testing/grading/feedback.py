"""What a student reads: sentences about a comparison, the digits, a small case in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibn.testing.grading.spec import Case
from minibn.testing.report import GradReport, InputReport, digits

DEMANDED = {8: 7.0, 4: 3.5}  # digits of values, by the bytes of a number
OWN_FORWARD = "it is the gradient of your own forward pass, and that is wrong: correct it first"
SHOWN = 20  # numbers of an array that are printed


@dataclass
class Finding:
    """The result of one comparison. `sentences` say what is wrong; none: nothing is."""

    case: Case | None
    sentences: list[str] = field(default_factory=list)
    digits: float | None = None
    details: list[str] = field(default_factory=list)
    error: bool = False  # the solution could not be run here
    judged: bool = True


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


def explanation(report: GradReport, entry: InputReport, on_tensors: bool) -> list[str]:
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


def worst_entry(entry: InputReport) -> list[str]:
    worst = entry.worst or {}
    if not worst.get("index") or isinstance(worst["numeric"], tuple):
        return []
    index = tuple(worst["index"])
    return [f"at {index}: yours {worst['analytic']:.8g}, expected {worst['numeric']:.8g}"]


def cut_graph(cut: list[str], names: list[str], name: str) -> str:
    """Why a tensor has no gradient after a backward pass."""
    whole = "no input gets a gradient" if len(cut) == len(names) else f"{name} gets no gradient"
    return (
        f"the graph is cut: {whole} after .backward(). The result was computed from `.data` (NumPy "
        "arrays) and put into a new tensor, so that nothing leads back: compute on the tensors "
        "themselves, or give the result a backward function"
    )


def feedback_of(wrong: list[Finding], before: set[str]) -> list[str]:
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
        lines += [f"  {name} = {as_text(x)}" for name, x in small.case.inputs.items()]
        lines += [
            f"  {key} = {as_text(x) if isinstance(x, np.ndarray) else x}"
            for key, x in small.case.settings.items()
            if np.size(x) <= SHOWN
        ]
        lines += [f"  {detail}" for detail in small.details]
    return lines


def as_text(x: np.ndarray) -> str:
    if x.size > SHOWN:
        return f"an array of shape {x.shape}"
    return np.array2string(x, precision=6, separator=", ", max_line_width=10**6).replace("\n", "")


def of_error(case: Case | None, error: Exception) -> Finding:
    return Finding(case, [str(error)], error=True)


def with_names(text: str, names: list[str]) -> str:
    for i, name in enumerate(names):
        text = text.replace(f"input {i}", name)
    return text.replace("The error is", "the error is") if text.startswith("The error") else text
