"""minibn beside PyTorch: cells of a table, the ratio, the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from experiments.benchmarking.cases import OURS
from experiments.benchmarking.timing import Ratio, Timings
from experiments.output import say

RIVAL = "PyTorch"  # the prefix of their names
# The first of these that was timed is compared.
OWN = (*(f"{OURS} {way}" for way in ("graph", "eager", "lean", "reference")), OURS)


def ours_in(found: Timings) -> str:
    """The name of the contender that stands for us."""
    return next(name for name in OWN if name in found)


def compare(
    found: Timings, phase: str = "total", names: Iterable[str] | None = None
) -> tuple[list[str], Ratio | None]:
    """(cells for a table, the ratio to PyTorch's best). names: a cell for each of these
    contenders (default: all that were timed), a dash for one that was not timed."""
    names = list(found if names is None else names)
    times = {name: phases[phase] for name, phases in found.items()}
    rivals = {name: t for name, t in times.items() if name.startswith(RIVAL)}
    ratio = Ratio.to_best(times[ours_in(found)], rivals)
    cells = [str(times.get(name, "-")) for name in names]
    if any(name.startswith(RIVAL) for name in names):
        cells += [f"{ratio.medians:.2f}", f"{ratio.paired:.2f}"] if ratio else ["-", "-"]
    return cells, ratio


def head_of(first: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    rivals = any(name.startswith(RIVAL) for name in names)
    return [first, *(f"{name}, ms" for name in names), *(["ratio", "paired"] if rivals else [])]


def record_of(found: Timings, ratio: Ratio | None) -> dict[str, Any]:
    times = {
        name: phases["total"].record() | {p: t.record() for p, t in phases.items() if p != "total"}
        for name, phases in found.items()
    }
    ratio_record = dataclasses.asdict(ratio) if ratio else None
    return {"times": times, "ours": ours_in(found), "ratio": ratio_record}


def race_all(
    cases: Iterable[Any],
    race: Callable[[Any], tuple[Timings, dict[str, Any]] | None],
    *,
    names: Iterable[str] | None = None,
    label: Callable[[Any], Any] = str,
    save: Callable[[list[dict[str, Any]]], None] = lambda results: None,
) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """(records, rows of a table) of the cases. `race` times the contenders of a case, or returns
    None to skip it. After each case a line is printed and the records so far are saved."""
    results: list[dict[str, Any]] = []
    rows = []
    for case in cases:
        raced = race(case)
        if raced is None:
            continue
        found, how = raced
        cells, ratio = compare(found, names=names)
        rows.append([label(case), *cells])
        progress(label(case), found, ratio)
        results.append({"case": vars(case), **record_of(found, ratio), **how})
        save(results)
    return results, rows


def say_losses_apart(results: list[dict[str, Any]]) -> None:
    first = max(result["losses_apart"]["first"] for result in results)
    say(f"First losses, without noise, differ by at most {first:.0e} of ours.")


def progress(name: Any, found: Timings, ratio: Ratio | None) -> None:
    ours = found[ours_in(found)]["total"]
    say(f"  {name}: {ours} ms" + (f", ratio {ratio.medians:.2f}" if ratio else ""))
