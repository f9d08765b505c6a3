"""A verdict for every claim: reproduced, contradicted, alike, or undecided and why.

    python -m experiments.claims STUDY [STUDY ...] [--out DIR]
    python -m experiments.claims --from experiments/results/paper/streams

A claim is a sentence of "How Does Batch Normalization Help Optimization?" (Santurkar et al. 2018),
a control of one, or one of a paper that answers it. It has a metric, one number a seed, and a
margin, all fixed in a commit before the runs: experiments/claiming/claims.toml. The verdict comes
from Student's interval over the seeds: experiments/claiming/judging.py.

STUDY is a study's folder; --from names one with kept studies (.npz). With --out, DIR gets claims.md
(the table, the rules, the runs), claims.json, REPORT.md, the forest plot, and in DIR/streams small
files of the studies' streams, from which --from computes all of it again, in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.claiming import streams
from experiments.claiming.registry import Claims, Evidence, Finding, at_scale, find, load
from experiments.plot import VIEWS
from experiments.training.command_line import UsageError, one_of, parse_folders, setting
from experiments.training.entry_point import check_out, program
from experiments.training.json_files import write_json
from experiments.training.study import Study
from experiments.views import claims_tables as tables
from experiments.views import forest, report
from minibn import checkpoint

PROGRAM = "python -m experiments.claims"
KINDS = tuple(VIEWS)  # of studies that are plotted


@dataclass(frozen=True)
class Options:
    kept: str | None = setting(None, "folder of kept studies", kind=str, path=True, also="--from")
    scale: str = setting("cpu", "whose settings the runs must have", choices=("cpu", "paper"))
    out: str | None = setting(None, "folder for the results", kind=str, path=True)


def evidence_of(folders: Sequence[Path], kept: Path | None, claims: Claims) -> Evidence:
    """The runs of studies, and of a folder of kept ones. Raises UsageError for a folder without
    any, DataError for files that can't be read or the same run twice."""
    runs = []
    for folder in folders:
        runs += streams.read_study(Study.open(folder, KINDS, "STUDY"))
    if kept is not None:
        files = sorted(kept.glob("*.npz"))
        if not files:
            raise UsageError(f"--from {kept}: there is no kept study (*.npz) in that folder.")
        for file in files:
            runs += streams.load(file)
    return Evidence(runs, claims.scales)


def write(findings: Sequence[Finding], claims: Claims, evidence: Evidence, folder: Path) -> None:
    """claims.md, claims.json, REPORT.md and the forest plot."""
    folder.mkdir(parents=True, exist_ok=True)
    command = f"{PROGRAM} --from {folder / 'streams'} --out {folder}"
    checkpoint.write_text(
        folder / "claims.md", tables.document(findings, claims, evidence, command)
    )
    checkpoint.write_text(folder / "REPORT.md", report.report(findings, evidence, command))
    write_json(folder / "claims.json", tables.content(findings))
    forest.plot(findings, folder)


@program(PROGRAM)
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; with --out, write it too. Returns the exit code."""
    folders, options = parse_folders(Options, arguments, program=PROGRAM, description=__doc__)
    if not folders and options.kept is None:
        raise UsageError(f"which study? {PROGRAM} STUDY ..., or --from FOLDER of kept ones.")
    check_out(options.out)
    one_of("--scale", options.scale, ("cpu", "paper"))
    claims = at_scale(load(), options.scale)
    evidence = evidence_of(folders, options.kept and Path(options.kept), claims)
    findings = find(claims, evidence)
    print(tables.verdict_table(findings), tables.NOTE, sep="\n\n")
    print(f"\n{len(findings)} claims: {tables.count_verdicts(findings)}.")
    if options.out:
        out = Path(options.out)
        for folder in folders:
            streams.keep(Study(folder), out / "streams")
        write(findings, claims, evidence, out)
        print(f"Written: {out / 'claims.md'}, claims.json, REPORT.md, forest.png, streams/")


if __name__ == "__main__":
    sys.exit(main())
