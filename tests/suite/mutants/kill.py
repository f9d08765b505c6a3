"""Which check kills which mutant: `python -m minibn.testing kill` prints the table.

Every check runs on every wrong gradient of `suite.mutants`: ours, common practice, and the checkers
of other projects (`peers.py`); once on hand-written problems, once on problems that our strategies
draw. The same checks run on the right ops, to count false alarms. Then `check_vjp` and the other
projects' checkers run on the NumPy functions of `suite.functions`, wrong ones and right ones.

Exit code: 0 if our suite kills every mutant and every wrong function, and raises no false alarm;
else 1.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from minibn.console import prints_anywhere
from minibn.errors import did_you_mean
from suite.functions import FUNCTIONS
from suite.functions import run as functions
from suite.functions.run import FunctionResults
from suite.mutants import FAMILIES, MUTANTS
from suite.mutants.peers import PEERS
from suite.mutants.run import SETS, Check, Findings, MutationResults, killers, run_mutants
from suite.registry import CASES

# -- the tables


def groups(names: Iterable[str]) -> dict[str, list[str]]:
    """The mutants by what is wrong: the first derivative, only the second, only at ties."""
    by_kind: dict[str, list[str]] = {"first": [], "second": [], "ties": []}
    for name in names:
        m = MUTANTS[name]
        by_kind["ties" if m.kink else "second" if m.order == 2 else "first"].append(name)
    return by_kind


HEADER = ("checker", "kind", "plain", "drawn", "2nd order", "ties", "alarms plain", "alarms drawn")


def summary(result: MutationResults) -> list[tuple[str, ...]]:
    """A row for each checker, then for ours: mutants killed of all, false alarms of all."""
    by = groups(result.mutants)
    ours, laws = (
        [c.name for c in result.suite if (c.kind == "a law") == is_law] for is_law in (False, True)
    )
    rows = [(c.name, c.kind, [c.name]) for c in result.peers]
    rows += [(c.name, "ours", [c.name]) for c in result.suite if c.kind != "a law"]
    rows += [(f"{len(laws)} laws", "ours", laws), ("the whole suite", "ours", [*ours, *laws])]

    def of(table: dict[str, Findings], names: Iterable[str], checks: list[str], which: str) -> str:
        asked = [n for n in names if any(table[n][which][c] is not None for c in checks)]
        return f"{sum(bool(killers(table[n], checks, [which])) for n in asked)}/{len(asked)}"

    def killed(names: list[str], checks: list[str], which: str) -> str:
        return (
            f"{sum(bool(killers(result.mutants[n], checks, [which])) for n in names)}/{len(names)}"
        )

    return [
        (
            name, kind,
            killed(by["first"], checks, "plain"), killed(by["first"], checks, "drawn"),
            killed(by["second"], checks, "drawn"), killed(by["ties"], checks, "drawn"),
            of(result.correct, result.correct, checks, "plain"),
            of(result.correct, result.correct, checks, "drawn"),
        )
        for name, kind, checks in rows
    ]  # fmt: skip


def columns(rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Rows as text; the first is the header."""
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def matrix(result: MutationResults) -> list[list[str]]:
    """A row for each mutant, a column for each check and set: x killed it, . did not."""
    ours = [c for c in result.suite if c.kind != "a law"]
    laws = [c.name for c in result.suite if c.kind == "a law"]

    def cells(results: Findings, checks: list[Check], which: str) -> str:
        marks = (results[which][c.name] for c in checks)
        return "".join(" " if said is None else "x" if said else "." for said in marks)

    def letters(checks: list[Check], first: str) -> str:
        return "".join(chr(ord(first) + i) for i in range(len(checks)))

    both = [(checks, letters(checks, a)) for checks, a in ((result.peers, "a"), (ours, "A"))]
    sets = [(checks, which) for checks, _ in both if checks for which in SETS]
    rows = [["mutant", *(f"{which} {key}" for c, key in both if c for which in SETS), "laws"]]
    for family in FAMILIES:
        for name, results in result.mutants.items():
            if MUTANTS[name].family == family:
                broken = killers(results, laws)
                laws_column = " ".join(broken[:2]) + (f" +{len(broken) - 2}" if broken[2:] else "")
                marks = [" " * (len(w) + 1) + cells(results, c, w) for c, w in sets]
                rows.append([f"{family}: {name}", *marks, laws_column])
    return rows


def legend(result: MutationResults) -> str:
    ours = [c for c in result.suite if c.kind != "a law"]
    rows = [
        [chr(ord(first) + i), check.name, check.kind, check.mechanics]
        for checks, first in ((result.peers, "a"), (ours, "A"))
        for i, check in enumerate(checks)
    ]
    return columns(rows)


def of_laws(result: MutationResults) -> list[list[str]]:
    """A row for each law: of the mutants that it is about, how many break it."""
    rows = [["law", "killed", "alarms", "sentence"]]
    for law in (c for c in result.suite if c.kind == "a law"):
        counts = []
        for table in (result.mutants, result.correct):
            asked = [f for f in table.values() if any(f[w][law.name] is not None for w in SETS)]
            counts.append(f"{sum(bool(killers(f, [law.name])) for f in asked)}/{len(asked)}")
        rows.append([law.name, *counts, law.mechanics])
    return rows


# -- the command


def known_name(parser: argparse.ArgumentParser, name: str, known: Iterable[str], what: str) -> str:
    """The name, if it is known; else a parser error with the nearest names."""
    known = list(known)
    if name not in known:
        parser.error(f"there is no {what} {name!r}. {did_you_mean(name, known)}")
    return name


def provenance(argv: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """The command, versions and seeds with which the table can be reproduced."""
    versions = {"python": platform.python_version()}
    for package in ("minibn", "numpy", "hypothesis", "torch", "autograd", "jax"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    missing = [p for p in PEERS.values() if not p.installed]
    return {
        "command": " ".join(["python -m minibn.testing kill", *argv]),
        "date": datetime.date.today().isoformat(),
        "versions": versions,
        "seed": "hypothesis derandomised, problems carry their own seeds (plain ones 0 to 4)",
        "problems": {"plain": 5, "drawn": args.examples},
        "skipped": [f"{p.name}: {p.needs} is not installed" for p in missing if args.peers],
    }


def details(result: MutationResults) -> str:
    """The result of every check for a few mutants."""
    lines = []
    for name, results in result.mutants.items():
        m = MUTANTS[name]
        lines += [f"{name} ({m.case}): {m.sentence}"]
        for check in (*result.peers, *result.suite):
            for which in SETS:
                said = results[which][check.name]
                if said is not None:
                    verdict = f"killed  {said[:110]}" if said else "-"
                    lines.append(f"  {which:<6} {check.name:<32} {verdict}")
    return "\n".join(lines)


@prints_anywhere
def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        "python -m minibn.testing kill", description="Which check kills which wrong gradient."
    )
    parser.add_argument(
        "--mutant", metavar="NAME", help="this one only, with every check's message"
    )
    parser.add_argument("--case", metavar="NAME", help="the mutants of this op only")
    parser.add_argument("--examples", type=int, default=40, help="problems drawn for each op (40)")
    parser.add_argument(
        "--catalogue", choices=["both", "ops", "functions"], default="both",
        help="minibn's ops with their mutants, NumPy functions with theirs, or both",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (one for each core)"
    )
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="only our suite")
    parser.add_argument("--markdown", action="store_true", help="tables for a README")
    parser.add_argument("--json", metavar="FILE", help="everything, as data")
    args = parser.parse_args(argv)
    for flag in ("examples", "jobs"):
        if (value := getattr(args, flag)) < 1:
            parser.error(f"--{flag} {value}: at least 1.")
    chosen = list(MUTANTS)
    cases = list(CASES)
    if args.mutant:
        chosen = [known_name(parser, args.mutant, MUTANTS, "mutant")]
        cases = [MUTANTS[args.mutant].case]
    if args.case:
        cases = [known_name(parser, args.case, CASES, "case")]
        chosen = [name for name in chosen if MUTANTS[name].case == args.case]
    few = bool(args.mutant or args.case)
    about = provenance(argv, args)
    data, failed = dict(about), False
    if args.catalogue != "functions":
        result = run_mutants(
            chosen, cases, peers=args.peers, examples=args.examples, jobs=1 if few else args.jobs
        )
        print(report(result, about, args.markdown, few))
        data |= as_data(result)
        failed |= bool(result.survivors or result.false_alarms)
    if args.catalogue != "ops" and not few:
        found = functions.run_functions(peers=args.peers, drawn=min(args.examples, functions.DRAWN))
        print("\n" + report_functions(found, about, args.markdown))
        data["functions"] = functions.as_data(found)
        failed |= bool(found.survivors or found.false_alarms)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(data, file, indent=1)
    return int(failed)


def report_functions(found: FunctionResults, about: dict[str, Any], markdown: bool) -> str:
    rights, wrongs = functions.RIGHT.values(), functions.WRONG
    hard = sum(not right.usual for right in rights)
    parts = [
        f"{len(wrongs)} wrong gradients of {len(FUNCTIONS)} NumPy functions. "
        f"{len(rights)} right ones, for false alarms: {len(rights) - hard} at usual points, {hard} "
        f"at hard ones.\n{about['command']}",
        columns([functions.HEADER, *functions.summary(found)], markdown),
    ]
    if found.survivors:
        parts.append("SURVIVORS of check_vjp: " + ", ".join(found.survivors))
    if found.false_alarms:
        parts.append("FALSE ALARMS of check_vjp: " + ", ".join(found.false_alarms))
    return "\n\n".join(parts)


def report(result: MutationResults, about: dict[str, Any], markdown: bool, few: bool) -> str:
    by = {kind: len(names) for kind, names in groups(result.mutants).items()}
    problems, versions = about["problems"], about["versions"].items()
    parts = [
        f"{len(result.mutants)} mutants: {by['first']} with a wrong first derivative (or memory, "
        f"or dtype), {by['second']} with only the second wrong, {by['ties']} wrong only at ties.\n"
        f"{len(result.correct)} right ops, for false alarms. {problems['plain']} plain and "
        f"{problems['drawn']} drawn problems each.",
        f"{about['command']}\n{about['date']}, {', '.join(' '.join(v) for v in versions)}\n"
        f"seed: {about['seed']}",
        *(f"skipped: {line}" for line in about["skipped"]),
    ]
    if few:
        parts.append(details(result))
    fence = ("```\n", "\n```") if markdown else ("", "")
    parts += [
        fence[0] + legend(result) + fence[1],
        columns([HEADER, *summary(result)], markdown),
        fence[0] + columns(matrix(result)) + fence[1],
        columns(of_laws(result), markdown),
    ]
    if result.survivors:
        parts.append("SURVIVORS of our suite: " + ", ".join(result.survivors))
    if result.false_alarms:
        parts.append("FALSE ALARMS of our suite: " + ", ".join(result.false_alarms))
    return "\n\n".join(parts)


def as_data(result: MutationResults) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "checks": [
            {"name": c.name, "kind": c.kind, "mechanics": c.mechanics}
            for c in (*result.peers, *result.suite)
        ],
        "mutants": {
            name: {
                "family": MUTANTS[name].family, "case": MUTANTS[name].case,
                "sentence": MUTANTS[name].sentence, "order": MUTANTS[name].order,
                "kink": MUTANTS[name].kink, "said": results,
            }
            for name, results in result.mutants.items()
        },
        "correct": result.correct,
        "summary": [dict(zip(HEADER, row, strict=True)) for row in summary(result)],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
