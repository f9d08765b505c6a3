"""REPORT.md: prose with the numbers of the claims filled in, so that none is typed by hand.

The text is experiments/report.md. In it {{claim-id}} becomes the claim's number, interval, seeds
and verdict, {{verdicts}} their count, {{compute}} what the runs cost, {{errata}} the theorems'
table, {{command}} what made it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.claiming.registry import Evidence, Finding
from experiments.claiming.streams import RunStreams
from experiments.output import markdown_table
from experiments.views.claims_tables import count_verdicts, ours, verdict
from minibn.errors import DataError

TEMPLATE = Path(__file__).parent.parent / "report.md"
# corrected form -> (as printed in v3, the correction)
ERRATA = {
    "4.1": ("4.1 printed", "= for ≤; 1/m for 1/√m in the last term (later versions have it)"),
    "4.2a": ("4.2a printed", "= for ≤, at eps = 0"),
    "4.2b": ("4.2b", "no theorem: it needs that H keeps the gradients' order"),
    "4.4": ("4.4 printed", "= for ≤; lambda² and 1/m are missing, a square is twice"),
    "C.1": ("C.1 printed", "= for <, at one X, not between two maxima"),
}


def report(findings: Sequence[Finding], evidence: Evidence, command: str) -> str:
    """The text with its numbers. Raises DataError for a name that is no claim."""
    parts = {f.claim.id: phrase(f) for f in findings}
    parts |= {
        "verdicts": count_verdicts(findings),
        "compute": compute(evidence.all),
        "errata": errata(evidence.all),
        "command": command,
    }

    def fill(match: re.Match[str]) -> str:
        if match[1] not in parts:
            raise DataError(f"{TEMPLATE}: {match[0]} is no claim of claims.toml.")
        return parts[match[1]]

    return re.sub(r"\{\{([\w.-]+)\}\}", fill, TEMPLATE.read_text(encoding="utf-8"))


def phrase(finding: Finding) -> str:
    """ "2.14 × [1.8 to 2.6, n = 8, **reproduced**]"."""
    if not finding.values:
        return f"[{verdict(finding)}]"
    number, _, ends = ours(finding).partition(" (")
    ends = f"{ends.rstrip(')')}, " if ends else ""
    return f"{number} [{ends}n = {len(finding.values)}, {verdict(finding)}]"


def compute(runs: Sequence[RunStreams]) -> str:
    """Markdown: runs, seeds and core-hours of each kind of study."""
    groups: dict[str, list[RunStreams]] = {}
    for run in runs:
        groups.setdefault(re.sub(r"-seed\d+$", "", run.study), []).append(run)
    rows: list[tuple[object, ...]] = [
        (name, len(own), len({run.seed for run in own}),
         f"{sum(run.seconds for run in own) / 3600:.1f}")
        for name, own in groups.items()
    ]  # fmt: skip
    hours = sum(run.seconds for run in runs) / 3600
    rows.append(("all", len(runs), "", f"{hours:.1f}"))
    return markdown_table(("study", "runs", "seeds", "hours of one thread"), rows)


def errata(runs: Sequence[RunStreams]) -> str:
    """Markdown: the corrected forms' largest residual, and how often the printed ones fail, over
    the random losses (at eps = 0, as in the paper)."""
    tables = [t for run in runs for name, t in run.tables.items() if name.startswith("heads")]
    if not tables:
        return "(No study of the theorems is among these.)"

    def column(name: str) -> np.ndarray:
        return np.concatenate([t[name][t["eps"] == 0] for t in tables if name in t])

    rows = []
    for exact, (printed, correction) in ERRATA.items():
        residual = column(f"residual.{exact}") if printed != exact else np.zeros(0)
        largest = f"{np.nanmax(residual):.0e}" if residual.size else ""
        rows.append((exact, correction, largest, f"{column(f'exceeded.{printed}').mean():.0%}"))
    head = ("theorem", "corrected", "largest residual", "v3's form is violated in")
    return markdown_table(head, rows)
