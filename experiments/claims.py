"""A verdict for every claim of the paper: reproduced, contradicted, or undecided and why.

    python -m experiments.claims STUDY [STUDY ...] [--out DIR]

Each claim is a sentence of "How Does Batch Normalization Help Optimization?" (Santurkar et al.
2018; some are of papers that answer it), a metric (one number a seed), and a rule with its reason,
fixed before the runs but where it is marked as amended: experiments/claiming/. Studies may be of
any kinds, in any order; those of one kind must be of one network, data set and length. A claim
whose runs are not among them is undecided, as is one about VGG on other data than CIFAR-10. One
seed decides nothing.

Not covered, as nothing here measures them: accuracies with augmentation, other architectures,
BatchNorm under other initialisations.

Prints the table; with --out also writes DIR/claims.md, with the rules, and DIR/claims.json.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.claiming import (
    covariate_shift,
    curvature,
    deep_linear,
    deep_linear_landscape,
    distributions,
    landscape,
    learning_rates,
    lp_norms,
    noise,
    theorem_units,
    theorems,
    training,
)
from experiments.claiming import verdict_tables as tables
from experiments.claiming.claim import Claim, Finding, find
from experiments.claiming.evidence import Evidence
from experiments.training.command_line import parse_studies, setting
from experiments.training.entry_point import check_out, program
from experiments.training.json_files import write_json
from experiments.training.provenance import commit
from minibn import checkpoint

PROGRAM = "python -m experiments.claims"

SECTIONS: dict[str, Sequence[Claim]] = {
    "Training and generalisation": training.CLAIMS,
    "Noise behind BatchNorm": noise.CLAIMS,
    "Distributions": distributions.CLAIMS,
    "Internal covariate shift": covariate_shift.CLAIMS,
    "The landscape": [*landscape.CLAIMS, *curvature.CLAIMS],
    "The l_p norms": lp_norms.CLAIMS,
    "The deep linear network": [*deep_linear.CLAIMS, *deep_linear_landscape.CLAIMS],
    "The theorems": theorems.CLAIMS,
    "The theorems in a network": theorem_units.CLAIMS,
    "Learning rates": learning_rates.CLAIMS,
}
CLAIMS: tuple[Claim, ...] = tuple(itertools.chain.from_iterable(SECTIONS.values()))


def verdicts(folders: Sequence[Path]) -> tuple[list[Finding], Evidence]:
    """Every claim with its numbers and verdict, and the studies that it was judged by.

    Raises UsageError for a folder that holds no study, DataError for studies that must not be
    mixed or can't be read.
    """
    evidence = Evidence(folders, {claim.kind for claim in CLAIMS})
    return [find(claim, evidence) for claim in CLAIMS], evidence


def write(findings: Sequence[Finding], evidence: Evidence, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(folder / "claims.md", tables.document(findings, evidence, SECTIONS))
    write_json(folder / "claims.json", tables.content(findings, evidence, commit()))


@dataclass(frozen=True)
class Options:
    out: str | None = setting(None, "folder for claims.md and claims.json", kind=str, path=True)


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; with --out, write it too. Returns the exit code."""
    folders, options = parse_studies(Options, arguments, program=PROGRAM, description=__doc__)
    check_out(options.out)
    findings, evidence = verdicts(folders)
    print(
        tables.scale(evidence),
        tables.verdict_table(findings),
        tables.NOTE,
        sep="\n\n",
    )
    print(
        f"\n{tables.counts(findings)}\n\n{len(findings)} claims: {tables.count_verdicts(findings)}."
    )
    if options.out:
        write(findings, evidence, Path(options.out))
        print(f"Written: {Path(options.out) / 'claims.md'}, claims.json")


if __name__ == "__main__":
    sys.exit(main())
