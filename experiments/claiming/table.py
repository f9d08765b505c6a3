"""Verdicts as text: a table for readers, the rules behind it, and JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from experiments.claiming.claim import FIGURES, OTHERS, SEEN, TEXT, Claim, Finding
from experiments.claiming.evidence import Evidence
from experiments.claiming.rules import CONTRADICTED, REPRODUCED, UNDECIDED

HEAD = "| claim | holds if | paper | ours | verdict |\n" + "|---" * 5 + "|\n"
NOTE = (
    "Ours: mean over the seeds (least to largest); of quotients the geometric mean. Paper: the "
    "nearest number from its digitised curves, often of another window of steps, where there is "
    "one, and whether it fails the rule. Reproduced: the rule holds at every seed; contradicted: "
    "its opposite does; anything else is undecided, as is one seed alone. The rules were fixed "
    "before the runs, but for those marked as amended (†): these were changed or added after part "
    f"of the evidence was seen ({SEEN}). What the paper leaves open of the deep linear network was "
    "decided by its loss curves: claims about its losses are no blind test."
)


def numeral(x: float) -> str:
    """Three digits, small ones for small numbers: 0.263, 14.3, 3.2e+03, ∞."""
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if x and not 1e-3 <= abs(x) < 1e4:
        return f"{x:.1e}"
    return f"{x:.3g}"


def of_paper(claim: Claim) -> str:
    """The paper's number; with a word where it does not fulfil the rule itself."""
    if claim.paper is None:
        return ""
    return numeral(claim.paper) + ("" if claim.rule.holds(claim.paper) else ", fails")


def ours(finding: Finding) -> str:
    """Mean, spread and number of seeds."""
    values = list(finding.values.values())
    if not values:
        return ""
    if len(values) == 1:
        return f"{numeral(values[0])}, n = 1"
    ends = f"{numeral(min(values))} to {numeral(max(values))}"
    return f"{numeral(finding.mean)} ({ends}), n = {len(values)}"


def row(finding: Finding) -> str:
    claim = finding.claim
    word = f"**{finding.verdict.word}**" if finding.verdict.word != UNDECIDED else UNDECIDED
    reason = "; ".join(filter(None, [finding.verdict.reason, finding.remark]))
    cells = [
        f"{claim.says}{' †' if claim.amended else ''} ({claim.place})",
        f"{claim.measured}: **{claim.rule}**",
        of_paper(claim),
        ours(finding),
        f"{word}: {reason}" if reason else word,
    ]
    return f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |"


def table(findings: Sequence[Finding]) -> str:
    return HEAD + "\n".join(row(finding) for finding in findings)


def counted(findings: Sequence[Finding]) -> str:
    """ "3 reproduced, 1 contradicted, 2 undecided"."""
    words = [finding.verdict.word for finding in findings]
    kinds = (REPRODUCED, CONTRADICTED, UNDECIDED)
    return ", ".join(f"{words.count(kind)} {kind}" for kind in kinds)


def counts(findings: Sequence[Finding]) -> str:
    """Markdown: the verdicts on all claims, the main ones, and by who says so."""
    parts = [("all", findings), ("the main ones", [f for f in findings if f.claim.main])]
    parts += [(who, [f for f in findings if f.claim.source == who])
              for who in (TEXT, FIGURES, OTHERS)]  # fmt: skip
    lines = [f"- {who}, {len(of)} claims: {counted(of)}" for who, of in parts]
    numbers = len({f.claim.measured for f in findings})
    return "\n".join([
        *lines,
        f"\nThey rest on {numbers} measurements: some are judged twice, as the paper's text "
        "and its figures say opposite things.",
    ])  # fmt: skip


def rules(findings: Sequence[Finding]) -> str:
    """Markdown: every rule with its opposite, its reason, and what was amended."""
    return "\n".join(
        f"- `{c.id}`: holds if {c.rule}, its opposite if {c.rule.refuted}: {c.why}."
        + (f" **Amended**: {c.amended}." if c.amended else "")
        for c in (finding.claim for finding in findings)
    )


def scale(evidence: Evidence) -> str:
    """Markdown: what was trained, one line a kind."""
    lines = []
    for kind in evidence.studies:
        told = ", ".join(
            f"{name} {value}"
            for name, value in evidence.settings(kind).items()
            if value is not None
        )
        count = sum(len(seeds) for seeds in evidence.traces[kind].values())
        lines.append(f"- {kind}: {count} runs; {told}")
    return "\n".join(lines)


def document(
    findings: Sequence[Finding], evidence: Evidence, sections: dict[str, Sequence[Claim]]
) -> str:
    """claims.md: the main claims, the others by subject, the rules."""
    main = [finding for finding in findings if finding.claim.main]
    parts = [
        "# Claims and verdicts",
        counts(findings),
        scale(evidence),
        NOTE,
        "## The main claims",
        table(main),
    ]
    for title, claims in sections.items():
        ids = {claim.id for claim in claims if not claim.main}
        rest = [finding for finding in findings if finding.claim.id in ids]
        if rest:
            parts += [f"## {title}", table(rest)]
    return "\n\n".join([*parts, "## The rules, and why", rules(findings)]) + "\n"


def content(findings: Sequence[Finding], evidence: Evidence, commit: str) -> dict[str, Any]:
    """claims.json: numbers that are not finite are null; no paths of this machine."""
    studies = {
        kind: {
            "settings": evidence.settings(kind),
            "runs": evidence.described(kind),
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
        "measured": claim.measured,
        "holds_if": str(claim.rule),
        "opposite_if": claim.rule.refuted,
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
