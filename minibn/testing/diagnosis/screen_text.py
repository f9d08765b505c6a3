"""Why a gradient is wrong, on one screen: the worst entries, a picture, and sentences.

`explain` calls every recogniser: of mistakes in a formula (a forgotten factor, a transpose), of
missing terms of a normalisation, of mistakes in certain entries only (the border, ties). A sentence
appears only if it accounts for the error in every entry, so an error without a known pattern gets
none.

>>> import numpy as np
>>> x, g = np.arange(1.0, 9.0), np.linspace(-1, 2, 8)
>>> sign = Evidence(0, (x,), x**2, g, -2 * x * g, 2 * x * g, np.array(1e-9))
>>> explain(sign)
['The ratio analytic/numeric is -1 everywhere: the sign is wrong.']
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from textwrap import wrap
from typing import Any

import numpy as np

from minibn.testing.diagnosis.evidence import Evidence, largest, names
from minibn.testing.diagnosis.formulas import (
    FORMULAS,
    MISSING_TERMS,
    find_ignored_cotangent,
    identically_zero,
    multiple_of_something,
)
from minibn.testing.diagnosis.jacobians import JACOBIANS, swapped_arguments
from minibn.testing.diagnosis.places import (
    PLACES,
    at_small_inputs,
    by_sign_of_input,
    by_threshold,
)
from minibn.testing.diagnosis.ratios import constant_ratio, few_ratios, forgotten_factor
from minibn.testing.diagnosis.sizes import SIZES, function_of_the_entry
from minibn.testing.diagnosis.terms import TERMS

NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")

Recogniser = Callable[[Evidence], str | None]

ENTRIES: tuple[Recogniser, ...] = (constant_ratio, forgotten_factor, multiple_of_something)

RECOGNISERS: tuple[Recogniser, ...] = (
    *JACOBIANS,
    *FORMULAS,
    *TERMS,
    *MISSING_TERMS,
    *PLACES,
    few_ratios,
)  # the most specific first

LINES, COLUMNS = 25, 100  # of the screen
ROWS, WIDTH = 12, 40  # of the picture


def explain(evidence: Evidence, most: int = 3) -> list[str]:
    """Descriptions of the error, the most specific first; [] if nothing is recognised."""
    if not evidence.wrong.any():
        return []
    with np.errstate(all="ignore"):
        for only in (swapped_arguments, identically_zero):
            if text := only(evidence):
                return [text]  # the others would say the same
        return _explain(evidence)[:most]


def _explain(ev: Evidence) -> list[str]:
    """A formula explains errors in places, too."""
    wider = ev.wider
    if wider and (found := _matches(ENTRIES, wider)):
        return found[:1]
    for recognisers in ((find_ignored_cotangent,), JACOBIANS[:3], FORMULAS + TERMS, MISSING_TERMS):
        if found := _matches(recognisers, ev):
            return _with_doubt(found, ev)
    if wider and (found := _matches((at_small_inputs, by_threshold, by_sign_of_input), wider)):
        return found + _in_that_place(wider)
    found = _matches(JACOBIANS[3:], ev) or _matches(PLACES, ev) or _matches([few_ratios], ev)
    return _with_doubt(found, ev)


def remark(ev: Evidence) -> str:
    """What can be said of an error that nothing explains: that it is small, or random, or depends
    on the entry's value alone. Empty if nothing can."""
    with np.errstate(all="ignore"):
        found = _matches((*SIZES, function_of_the_entry) if ev.wider else SIZES, ev.wider or ev)
    return found[0] if found else ""


def _matches(recognisers: Iterable[Recogniser], ev: Evidence) -> list[str]:
    """The sentences that hold for this cotangent, and for the other one as well."""
    found = []
    for recognise in recognisers:
        text = recognise(ev)
        if text and ev.again is not None and ev.again.wrong.any():
            other = recognise(ev.again)
            if other is None or NUMBER.sub("#", other) != NUMBER.sub("#", text):
                continue
        if text:
            found.append(text)
    return found


def _in_that_place(ev: Evidence) -> list[str]:
    """What the error is in the entries that are wrong."""
    if not ev.analytic[ev.wrong].any():
        return ["There it is 0."]
    inside = replace(ev, numeric=np.where(ev.wrong, ev.numeric, np.nan))
    found = _matches(ENTRIES, inside)
    return [f"There: {text}" for text in found[:1]]


def _with_doubt(found: list[str], ev: Evidence) -> list[str]:
    count = int(ev.measured.sum())
    if found and count < 4 and ev.wider is None and ev.pulled is None:
        if found[-1].endswith(")"):
            return found
        entries = "One entry" if count == 1 else f"{count} entries"
        return [*found[:-1], f"{found[-1]} ({entries} only: other explanations fit as well.)"]
    return found


def agreed_digits(evidence: Evidence) -> float:
    """-log10 of the largest error, relative to the largest numeric entry; from 0 to 16."""
    if not np.isfinite(evidence.analytic[evidence.measured]).all():
        return 0.0
    error, scale = evidence.largest_error, largest(evidence.numeric)
    if error == 0:
        return 16.0
    return float(np.clip(np.log10(scale) - np.log10(error), 0, 16)) if scale else 0.0


def worst_entries(evidence: Evidence, n: int = 3) -> list[dict[str, Any]]:
    """The n entries that are furthest off: index, analytic, numeric, tolerance, ratio."""
    excess = np.where(np.isnan(evidence.error), -1.0, np.abs(evidence.error)).ravel()
    excess[~np.isfinite(evidence.analytic).ravel()] = np.inf
    entries = []
    for flat in np.argsort(-excess, kind="stable")[:n]:
        if excess[flat] < 0:
            continue
        index = tuple(int(i) for i in np.unravel_index(flat, evidence.x.shape))
        a, b = float(evidence.analytic[index]), float(evidence.numeric[index])
        entries.append(
            {
                "index": index,
                "analytic": a,
                "numeric": b,
                "tolerance": float(evidence.tolerance[index]),
                "ratio": a / b if b else float("nan"),
            }
        )
    return entries


def picture(evidence: Evidence, rows: int = ROWS, columns: int = WIDTH) -> list[str]:
    """A slice through the worst entry, its two longest axes: a caption, then one line a row. There
    is none if every entry differs.

    . agrees   X differs   0 is zero and should not be   ! is not finite   ? was not measured
    """
    worst = worst_entries(evidence, 1)
    shape = evidence.x.shape
    differs = evidence.wrong & (evidence.analytic != 0) & np.isfinite(evidence.analytic)
    if not worst or evidence.x.size < 2 or differs.all():
        return []
    longest = sorted(range(len(shape)), key=lambda a: shape[a])[-2:]  # later axes win ties
    axes = tuple(sorted(a for a in longest if shape[a] > 1))
    signs = np.where(evidence.wrong, "X", ".")
    signs[evidence.wrong & (evidence.analytic == 0)] = "0"
    signs[~evidence.measured] = "?"
    signs[~np.isfinite(evidence.analytic)] = "!"
    cut: list[Any] = list(worst[0]["index"])
    start = []
    for axis, room in zip(axes, (rows, columns)[-len(axes) :], strict=True):
        first = max(0, min(cut[axis] - room // 2, shape[axis] - room))  # the worst entry is inside
        start.append(first)
        cut[axis] = slice(first, first + room)
    rest = [f"axis {a} at {cut[a]}" for a in range(len(shape)) if a not in axes and shape[a] > 1]
    caption = f"axes {names(axes)}" if len(axes) == 2 else f"axis {axes[0]}"
    if any(start):
        caption += f" from {names(start)}"
    caption = "; ".join([caption, *rest])
    legend = "(. agrees, X differs, 0 zero, ! not finite, ? not measured)"
    top = [f"{caption}   {legend}"]
    if len(top[0]) > COLUMNS:  # many axes
        top = [*wrap(caption, COLUMNS)[:1], legend]
    return [*top, *("  " + "".join(r) for r in np.atleast_2d(signs[tuple(cut)]))]


def screen(evidence: Evidence, name: str = "f", found: list[str] | None = None) -> str:
    """At most 25 lines: what was checked, the worst entries, a picture, the sentences (`found`, if
    they are known already; a remark on the error's size if there are none)."""
    found = explain(evidence) if found is None else found
    shapes = ", ".join(f"{x.dtype} {x.shape}" for x in evidence.inputs)
    wrong, of = int(evidence.wrong.sum()), int((evidence.measured | evidence.wrong).sum())
    sentences = [
        line
        for sentence in found or list(filter(None, [remark(evidence)]))
        for line in wrap(sentence, COLUMNS, initial_indent="=> ", subsequent_indent="   ")
    ] or ["=> The error has no pattern that is known here."]
    top = [
        *wrap(f"{name}({shapes}) -> {evidence.output.shape}", COLUMNS, subsequent_indent="   ")[:3],
        f"gradient of input {evidence.position}: {agreed_digits(evidence):.1f} digits agreed, "
        f"{wrong} of {of} entries off by more than the tolerance",
        f"  {'worst at':<16}{'analytic':>24}{'numeric':>24}{'tolerance':>11}{'ratio':>12}",
        *(
            f"  {e['index']!s:<16}{e['analytic']:>24.15g}{e['numeric']:>24.15g}"
            f"{e['tolerance']:>11.1e}{e['ratio']:>12.6g}"
            for e in worst_entries(evidence)
        ),
    ]
    room = LINES - len(top) - len(sentences) - 2  # for the caption
    drawing = picture(evidence, min(ROWS, room)) if room > 0 else []
    return "\n".join([*top, *drawing, *sentences])


__all__ = [
    "RECOGNISERS",
    "Evidence",
    "agreed_digits",
    "explain",
    "picture",
    "screen",
    "worst_entries",
]
