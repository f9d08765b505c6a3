"""Ours beside theirs: a table's cells, the ratio, the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from experiments.benchmarking.cases import OURS
from experiments.benchmarking.report import say
from experiments.benchmarking.timing import Found, Ratio

RIVAL = "PyTorch"  # what their names begin with
OWN = (f"{OURS} graph", f"{OURS} eager", OURS)  # of several of ours, the first is compared


def ours_in(found: Found) -> str:
    """The name of the contender that stands for us."""
    return next(name for name in OWN if name in found)


def compared(
    found: Found, phase: str = "total", names: Iterable[str] | None = None
) -> tuple[list[str], Ratio | None]:
    """(cells for a table, the ratio to PyTorch's best). names: whose cells, all who were timed if
    not given; who wasn't gets a dash."""
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


def record_of(found: Found, ratio: Ratio | None) -> dict[str, Any]:
    times = {
        name: phases["total"].record() | {p: t.record() for p, t in phases.items() if p != "total"}
        for name, phases in found.items()
    }
    ratio_record = dataclasses.asdict(ratio) if ratio else None
    return {"times": times, "ours": ours_in(found), "ratio": ratio_record}


def progress(name: Any, found: Found, ratio: Ratio | None) -> None:
    ours = found[ours_in(found)]["total"]
    say(f"  {name}: {ours} ms" + (f", ratio {ratio.medians:.2f}" if ratio else ""))
