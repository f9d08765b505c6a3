"""Verdicts as text: tables for readers, the rules behind them, and JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.claiming.claim import FIGURES, OTHERS, SEEN, TEXT, Claim, Finding
from experiments.claiming.evidence import Evidence
from experiments.claiming.rules import CONTRADICTED, REPRODUCED, UNDECIDED
from experiments.output import markdown_table

HEAD = ("claim", "where", "holds if", "paper", "ours", "seeds", "verdict")
VERDICTS = """\
- **reproduced**: the rule holds at every seed, and for their mean
- **contradicted**: its opposite does (between the two lies a margin)
- undecided: anything else, with the reason; always so on one seed"""
COLUMNS = """\
- holds if: for which numbers ("times": quotients); of what, see "How each is measured"
- paper: the nearest number from its digitised curves, often of another window of steps
- ours: the mean over the seeds (least to largest); of quotients the geometric mean
- †: amended after part of the evidence was seen; the other rules were fixed before the runs"""
BLIND = (
    "What the paper leaves open of the deep linear network was decided by its loss curves: claims "
    "about its losses are no blind test."
)
NOTE = f"{VERDICTS}\n\n{COLUMNS}\n\n{BLIND}"


def numeral(x: float) -> str:
    """Three digits, small ones for small numbers: 0.263, 14.3, 3.2e+03, ∞."""
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if x and not 1e-3 <= abs(x) < 1e4:
        return f"{x:.1e}"
    return f"{x:.3g}"


def of_paper(claim: Claim) -> str:
    """The paper's number, with "fails" where it does not fulfil the rule."""
    if claim.paper is None:
        return ""
    return numeral(claim.paper) + ("" if claim.rule.holds(claim.paper) else ", fails")


def ours(finding: Finding) -> str:
    """Mean and spread over the seeds."""
    values = list(finding.values.values())
    if len(values) < 2:
        return "".join(map(numeral, values))
    return f"{numeral(finding.mean)} ({numeral(min(values))} to {numeral(max(values))})"


def row(finding: Finding) -> list[str]:
    claim, verdict = finding.claim, finding.verdict
    word = verdict.word if verdict.word == UNDECIDED else f"**{verdict.word}**"
    cells = [
        claim.says + (" †" if claim.amended else ""),
        claim.place,
        f"{claim.rule} times" if claim.metric.quotient else str(claim.rule),
        of_paper(claim),
        ours(finding),
        str(len(finding.values) or ""),
        f"{word}: {verdict.reason}" if verdict.reason else word,
    ]
    return [cell.replace("|", "∣") for cell in cells]


def verdict_table(findings: Sequence[Finding]) -> str:
    """Markdown: one row per claim; the remarks below."""
    remarks = [f"- {f.claim.says}: {f.remark}." for f in findings if f.remark]
    parts = [markdown_table(HEAD, map(row, findings)), "\n".join(remarks)]
    return "\n\n".join(filter(None, parts))


def count_verdicts(findings: Sequence[Finding]) -> str:
    """ "3 reproduced, 1 contradicted, 2 undecided"."""
    words = [finding.verdict.word for finding in findings]
    kinds = (REPRODUCED, CONTRADICTED, UNDECIDED)
    return ", ".join(f"{words.count(kind)} {kind}" for kind in kinds)


def counts(findings: Sequence[Finding]) -> str:
    """Markdown: the verdicts on all claims, on the main ones, and by source."""
    groups = {
        "all": findings,
        "the main ones": [f for f in findings if f.claim.main],
        **{who: [f for f in findings if f.claim.source == who] for who in (TEXT, FIGURES, OTHERS)},
    }
    kinds = (REPRODUCED, CONTRADICTED, UNDECIDED)
    rows = []
    for who, of in groups.items():
        words = [finding.verdict.word for finding in of]
        rows.append([who, len(of), *map(words.count, kinds)])
    measurements = len({f.claim.measurement for f in findings})
    return (
        markdown_table(("claims", "number", *kinds), rows)
        + f"\n\nThey rest on {measurements} measurements: some are judged twice, as the paper's "
        "text and its figures say opposite things."
    )


def rules(findings: Sequence[Finding]) -> str:
    """Markdown, for every claim: what is measured, for which numbers it holds and for which its
    opposite does, and why."""
    return "\n".join(
        f"- `{c.id}`: {c.says}.  \n  {c.measurement}. Holds if {c.rule}, its opposite if "
        f"{c.rule.opposite_text}: {c.why}."
        for c in (finding.claim for finding in findings)
    )


def amendments(findings: Sequence[Finding]) -> str:
    """Markdown: what was changed or added after part of the evidence had been seen."""
    changed = [finding.claim for finding in findings if finding.claim.amended]
    return "\n".join(f"- {c.id}: {c.amended}." for c in changed)


def scale(evidence: Evidence) -> str:
    """Markdown: what was trained, one line per kind of study."""
    lines = []
    for kind in evidence.studies:
        count = sum(len(seeds) for seeds in evidence.traces[kind].values())
        compared = [
            f"{name} {', '.join(f'{x:g}' if isinstance(x, float) else str(x) for x in values)}"
            for name, values in evidence.varied_settings(kind).items()
        ]
        shared = ", ".join(
            f"{name} {value}"
            for name, value in evidence.settings(kind).items()
            if value not in (None, False)
        )
        runs = f"{count} run{'s' * (count != 1)}"
        lines.append(f"- **{kind}**, {runs}: {'; '.join(compared)}.  \n  {shared}")
    return "\n".join(lines)


def document(
    findings: Sequence[Finding], evidence: Evidence, sections: Mapping[str, Sequence[Claim]]
) -> str:
    """claims.md: the main claims, the others by subject, how each is measured, what was amended."""
    main = [finding for finding in findings if finding.claim.main]
    parts = [
        "# Claims and verdicts",
        counts(findings),
        VERDICTS,
        "## The main claims",
        verdict_table(main),
        COLUMNS,
        BLIND,
        "## What was trained",
        scale(evidence),
    ]
    for title, claims in sections.items():
        ids = {claim.id for claim in claims if not claim.main}
        rest = [finding for finding in findings if finding.claim.id in ids]
        if rest:
            parts += [f"## {title}: the other claims", verdict_table(rest)]
    parts += ["## How each is measured, and why"]
    by_id = {finding.claim.id: finding for finding in findings}
    for title, claims in sections.items():
        of = [by_id[claim.id] for claim in claims if claim.id in by_id]
        if of:
            parts += [f"### {title}", rules(of)]
    parts += [
        "## Amended †",
        f"Changed or added after part of the evidence was seen, at most: {SEEN}.",
        amendments(findings),
    ]
    return "\n\n".join(parts) + "\n"


def content(findings: Sequence[Finding], evidence: Evidence, commit: str) -> dict[str, Any]:
    """claims.json: numbers that are not finite are null; no paths of this machine."""
    studies = {
        kind: {
            "settings": evidence.settings(kind),
            "runs": evidence.run_descriptions(kind),
        }
        for kind in evidence.studies
    }
    return {"commit": commit, "studies": studies, "claims": [_entry(f) for f in findings]}


def _entry(finding: Finding) -> dict[str, Any]:
    claim, values = finding.claim, finding.values
    return {
        "id": claim.id,
        "claim": claim.says,
        "place": claim.place,
        "measured": claim.measurement,
        "holds_if": str(claim.rule),
        "opposite_if": claim.rule.opposite_text,
        "why": claim.why,
        "source": claim.source,
        "amended": claim.amended,
        "paper": _finite(claim.paper),
        "main": claim.main,
        "seeds": {str(seed): _finite(x) for seed, x in values.items()},
        "n": len(values),
        "mean": _finite(finding.mean),
        "least": _finite(min(values.values(), default=None)),
        "largest": _finite(max(values.values(), default=None)),
        "verdict": finding.verdict.word,
        "reason": finding.verdict.reason,
        "remark": finding.remark,
    }


def _finite(x: float | None) -> float | None:
    return float(f"{x:.6g}") if x is not None and math.isfinite(x) else None
