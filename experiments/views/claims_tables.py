"""Verdicts as text: Markdown for readers, JSON for programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.claiming.judging import ALIKE, CONTRADICTED, REPRODUCED, UNDECIDED, Interval
from experiments.claiming.registry import Claim, Claims, Evidence, Finding
from experiments.claiming.streams import RunStreams
from experiments.output import markdown_table

WORDS = (REPRODUCED, CONTRADICTED, ALIKE, UNDECIDED)
HEAD = ("claim", "source", "holds if", "paper", "ours", "seeds", "direction", "verdict")
NOTE = """\
- ours: the mean over the seeds and Student's interval at 95 %, of paired differences or (×) of
  paired quotients, by their logarithms
- **reproduced**: the whole interval holds; **contradicted**: it is on the other side of the margin;
  **alike**: within the margin, a result; undecided: it crosses a margin, or seeds lack
- direction: on which side of zero (or of ×1) the whole interval lies
- ‡: the same verdict with all claims' intervals together at 95 % (Bonferroni); of forty verdicts
  without it, two may be chance
- paper: the same number from its digitised curves, often of another window of steps"""


def numeral(x: float) -> str:
    """Three digits, small ones for small numbers: 0.263, 14.3, 3.2e+03."""
    return f"{x:.1e}" if x and not 1e-3 <= abs(x) < 1e4 else f"{x:.3g}"


def holds_if(claim: Claim) -> str:
    """The rule: "> 0.02", "> 1.25 ×", "0.05 to 0.15"."""
    low, high = sorted(claim.shown(sign * claim.limit) for sign in (-1, 1))
    unit = " ×" if claim.is_quotient else ""
    if claim.says == "alike":
        return f"{numeral(low)} to {numeral(high)}{unit}"
    if claim.combine == "value below":
        return f"< {numeral(low)}"
    return f"> {numeral(low if claim.says == 'not less' else high)}{unit}"


def interval(finding: Finding) -> tuple[float, float, float]:
    """Mean and ends as they are read, ends of one seed infinite."""
    own = Interval.of(np.array(list(finding.values.values())))
    low, high = sorted(
        math.inf * np.sign(x) if math.isinf(x) else finding.claim.shown(x)
        for x in (own.low, own.high)
    )
    return finding.claim.shown(own.mean), low, high


def ours(finding: Finding) -> str:
    if not finding.values:
        return ""
    mean, low, high = interval(finding)
    unit = " ×" if finding.claim.is_quotient else ""
    if len(finding.values) < 2:
        return numeral(mean) + unit
    return f"{numeral(mean)}{unit} ({numeral(low)} to {numeral(high)})"


def verdict(finding: Finding) -> str:
    own = finding.verdict
    if own.word != UNDECIDED:
        return f"**{own.word}**" + " ‡" * own.firm
    more = f"; {own.needed} seeds would decide" if own.needed else ""
    return f"{own.word}: {own.reason}{more}"


def row(finding: Finding) -> list[str]:
    claim = finding.claim
    return [
        claim.sentence + (f" (amends `{claim.amends}`)" if claim.amends else ""),
        claim.source,
        holds_if(claim),
        "" if claim.paper is None else numeral(claim.paper),
        ours(finding),
        str(len(finding.values) or ""),
        finding.verdict.direction,
        verdict(finding),
    ]


def verdict_table(findings: Sequence[Finding]) -> str:
    return markdown_table(HEAD, map(row, findings))


def count_verdicts(findings: Sequence[Finding]) -> str:
    """ "3 reproduced, 1 contradicted, 0 alike, 2 undecided"."""
    words = Counter(finding.verdict.word for finding in findings)
    return ", ".join(f"{words[word]} {word}" for word in WORDS)


def rules(claims: Claims) -> str:
    """Markdown: what each claim measures, where, and why its margin."""
    return "\n".join(
        f"- `{c.id}` ({c.scale if isinstance(c.scale, str) else ' / '.join(c.scale)}"
        f"{'' if c.lr is None else f', lr {c.lr:g}'}): {c.metric}"
        f"{''.join(f', {k} {v}' for k, v in c.options.items())}; {c.combine} of "
        f"{', '.join(s if isinstance(s, str) else 'the worst of ' + ', '.join(s) for s in c.runs)}"
        f"; {c.seeds} seeds. Margin: {c.why}."
        for c in claims.claims
    )


def registrations(claims: Claims) -> str:
    """Markdown: which rules were fixed in which commit."""
    rows = [
        (name, own["what"], f"`{own['commit'][:12]}`" if own["commit"] else "", own["date"])
        for name, own in claims.registrations.items()
    ]
    table = markdown_table(("rules", "of", "registered in", "on"), rows)
    withdrawn = [
        f"`{id}` was withdrawn before its runs: {why}." for id, why in claims.withdrawn.items()
    ]
    return "\n\n".join([table, *withdrawn])


def trained(evidence: Evidence) -> str:
    """Markdown: the runs, their commits and machines, and what they cost."""
    groups: dict[tuple[Any, ...], list[RunStreams]] = {}
    for run in evidence.all:
        s = run.settings
        setting = run.kind, run.variant, f"{run.lr:g}", s.get("init", ""), s.get("width", "")
        groups.setdefault((*setting, s["steps"]), []).append(run)
    rows = []
    for group, runs in groups.items():
        lost = sum(run.diverged is not None for run in runs)
        rows.append([
            *group, ", ".join(str(seed) for seed in sorted(run.seed for run in runs)), lost or "",
            f"{sum(run.seconds for run in runs) / 3600:.2f}",
            *(", ".join(sorted({str(run.environment.get(key))[:40] for run in runs}))
              for key in ("commit", "device")),
        ])  # fmt: skip
    head = ("experiment", "variant", "lr", "init", "width", "steps", "seeds", "diverged",
            "core-hours", "commit", "machine")  # fmt: skip
    return markdown_table(head, sorted(rows, key=str))


def document(findings: Sequence[Finding], claims: Claims, evidence: Evidence, command: str) -> str:
    """claims.md."""
    return (
        "\n\n".join(
            (
                "# Claims and verdicts",
                f"{len(findings)} claims: {count_verdicts(findings)}. Made by `{command}`.",
                NOTE,
                verdict_table(findings),
                "## When the rules were fixed",
                registrations(claims),
                "## What was trained",
                trained(evidence),
                "## How each is measured",
                rules(claims),
            )
        )
        + "\n"
    )


def content(findings: Sequence[Finding]) -> dict[str, Any]:
    """claims.json: of each claim the verdict and the number of every seed, as it is read."""
    found = {}
    for f in findings:
        mean, low, high = interval(f) if f.values else (None, None, None)
        ends = [x if x is not None and math.isfinite(x) else None for x in (mean, low, high)]
        found[f.claim.id] = {
            "sentence": f.claim.sentence,
            "verdict": f.verdict.word,
            "firm": f.verdict.firm,
            "direction": f.verdict.direction,
            "reason": f.verdict.reason,
            "seeds_needed": f.verdict.needed,
            "mean": ends[0],
            "interval": ends[1:],
            "seeds": {str(seed): f.claim.shown(x) for seed, x in f.values.items()},
        }
    return {"claims": found}
