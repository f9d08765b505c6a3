"""The forest plot: every claim a row, with its seeds, interval, margin and the paper's value."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claiming.judging import ALIKE, CONTRADICTED, REPRODUCED, UNDECIDED, Interval
from experiments.claiming.registry import Claim, Finding
from experiments.views.plotting import entry, own_style, save, subplots

# Of Okabe and Ito (2008), apart for colour-blind readers; the words stand beside them, too.
COLOUR = {REPRODUCED: "#009e73", CONTRADICTED: "#d55e00", ALIKE: "#0072b2", UNDECIDED: "#7f7f7f"}
BAND = "#dcefe8"
ROW = 0.28  # inches
LINE = 58  # characters of a row's label, which is broken there


@own_style()
def plot(findings: Sequence[Finding], folder: Path) -> Path:
    """Write forest.png and .svg: quotients above, on a logarithmic axis, differences below."""
    panels = [
        [f for f in findings if f.claim.is_quotient],
        [f for f in findings if not f.claim.is_quotient],
    ]
    heights = [len(panel) + 1.5 for panel in panels]
    figure, axes = subplots(
        2, 1, figsize=(10, ROW * sum(heights) + 1.2), height_ratios=heights, squeeze=False
    )
    for panel, axis in zip(panels, axes.flat, strict=True):
        _panel(axis, panel)
    axes.flat[0].set_xlabel("quotient, as the sentence has it (1: no difference)")
    axes.flat[1].set_xlabel("difference, or value minus its reference (accuracy, cosine)")
    handles = [
        entry("a seed", linestyle="", marker="o", markersize=3.5),
        entry("mean and 95 % interval", linewidth=2, marker="|", markersize=8),
        entry("the paper's curves", linestyle="", marker="D", markersize=5, color="k",
              markerfacecolor="none"),
        entry("the claim holds here", linewidth=8, color=BAND),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower center", ncol=4)
    figure.tight_layout(rect=(0, 0.45 / figure.get_figheight(), 1, 1))
    return save(figure, folder, "forest")


def _panel(axis: Any, findings: Sequence[Finding]) -> None:
    shown = [f for f in findings if f.values]
    numbers = [x for f in shown for x in f.values.values() if math.isfinite(x)]
    numbers += [p for f in findings if (p := _paper(f.claim)) is not None]
    numbers += [sign * f.claim.limit for f in findings for sign in (-1.3, 1.3)]
    low, high = min(numbers, default=-1), max(numbers, default=1)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    is_log = bool(findings) and findings[0].claim.is_quotient
    scale = np.exp if is_log else np.asarray
    for y, finding in enumerate(findings):
        _row(axis, finding, y, scale, low, high)
    axis.axvline(float(scale(0.0)), color="0.3", linewidth=0.8)
    if is_log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.set_xlim(float(scale(low)), float(scale(high)))
    axis.set_ylim(len(findings) - 0.4, -0.6)
    axis.set_yticks(
        range(len(findings)), [_label(f) for f in findings], fontsize=7, linespacing=0.95
    )
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    words = axis.twinx()
    words.set_ylim(axis.get_ylim())
    words.set_yticks(range(len(findings)), [_word(f) for f in findings], fontsize=7.5)
    for label, finding in zip(words.get_yticklabels(), findings, strict=True):
        label.set_color(COLOUR[finding.verdict.word])
    words.tick_params(axis="y", length=0)
    words.grid(visible=False)
    words.spines["right"].set_visible(False)


def _row(axis: Any, finding: Finding, y: int, scale: Any, low: float, high: float) -> None:
    claim, limit = finding.claim, finding.claim.limit
    begin = -limit if claim.says in ("alike", "not less") else limit
    end = limit if claim.says == "alike" else high
    axis.fill_betweenx([y - 0.38, y + 0.38], scale(begin), scale(end), color=BAND, linewidth=0)
    colour = COLOUR[finding.verdict.word]
    values = np.array([x for x in finding.values.values() if math.isfinite(x)])
    if len(values) > 1:
        own = Interval.of(values)
        ends = np.clip([own.low, own.high], low, high)
        axis.plot(scale(ends), [y, y], color=colour, linewidth=2)
        axis.plot([scale(own.mean)], [y], color=colour, marker="|", markersize=8)
    axis.plot(scale(values), np.full(len(values), y), linestyle="", marker="o", markersize=3,
              color=colour, alpha=0.55)  # fmt: skip
    if (paper := _paper(claim)) is not None:
        axis.plot([scale(paper)], [y], marker="D", markersize=5, color="k", markerfacecolor="none")


def _paper(claim: Claim) -> float | None:
    """The paper's number as it is judged."""
    if claim.paper is None:
        return None
    if claim.is_quotient:
        return math.log(claim.paper)
    difference = claim.paper - claim.reference
    return -difference if claim.combine == "value below" else difference


def _label(finding: Finding) -> str:
    return textwrap.fill(finding.claim.sentence, LINE)


def _word(finding: Finding) -> str:
    word, n = finding.verdict.word, len(finding.values)
    return f"{word} ({n})" if n else f"{word} (no runs)"
