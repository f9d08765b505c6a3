"""Many reports as one table: how many digits each check's gradients agreed to, worst first."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minibn.testing.commands.coverage import Coverage
from minibn.testing.report import GradReport, InputReport

VERDICTS = ("wrong", "vacuous", "inconclusive", "agrees", "zero", "empty")  # the gravest first
HEADER = ("gradients of", "checks", "least", "median", "demanded", "verdicts", "oracles")
LEFT = (0, 5, 6)  # columns of words; the others are numbers


def verdict_of(report: GradReport) -> str:
    """The gravest verdict on an input, or "fault" if the vjp as a whole is wrong."""
    if report.faults:
        return "fault"
    verdicts = {x.verdict for x in report.inputs}
    return next((verdict for verdict in VERDICTS if verdict in verdicts), "agrees")


def _compared_numbers(x: InputReport) -> bool:
    """Whether x has digits: zeros, empty arrays, and values between two slopes have none."""
    return x.verdict in ("wrong", "inconclusive") or (x.verdict == "agrees" and not x.kinks)


@dataclass
class Row:
    """The results of the checks of one name."""

    name: str
    verdicts: Counter[str] = field(default_factory=Counter)
    oracles: Counter[str] = field(default_factory=Counter)
    digits: list[float] = field(default_factory=list)  # of each check that compared numbers
    demanded: float = 0.0  # of the check that agreed least
    failures: int = 0
    worst: GradReport | None = None  # the last that failed, else the one that agreed least

    def add(self, report: GradReport) -> None:
        self.verdicts[verdict_of(report)] += 1
        self.failures += not report.passed
        compared = [x for x in report.inputs if _compared_numbers(x)]
        self.oracles.update(x.how.split(",")[0] for x in compared if not x.kinks)
        self.oracles.update("one-sided, at kinks" for x in report.inputs if x.kinks)
        worse = self.worst is None
        if compared:
            least = min(compared, key=lambda x: x.digits)
            if not self.digits or least.digits < min(self.digits):
                self.demanded, worse = least.demanded, True
            self.digits.append(least.digits)
        if not report.passed or (worse and not self.failures):
            self.worst = report

    @property
    def checks(self) -> int:
        return self.verdicts.total()

    @property
    def least(self) -> float | None:
        return min(self.digits, default=None)

    @property
    def median(self) -> float | None:
        return statistics.median(self.digits) if self.digits else None

    def cells(self) -> tuple[str, ...]:
        numbers = (self.least, self.median, self.demanded if self.digits else None)
        return (
            shorten(self.name),
            str(self.checks),
            *("-" if x is None else f"{x:.1f}" for x in numbers),
            ", ".join(f"{verdict} {n}" for verdict, n in self.verdicts.most_common()),
            ", ".join(oracle for oracle, _ in self.oracles.most_common()) or "-",
        )

    def as_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "passed": not self.failures,
            "checks": self.checks,
            "digits": {"least": self.least, "median": self.median, "demanded": self.demanded},
            "verdicts": dict(self.verdicts),
            "oracles": dict(self.oracles),
        }


class DigitsTable:
    """A row for each name, and what all of their checks covered.

    >>> table = DigitsTable()
    >>> table.add("f", GradReport("f"))
    >>> table.rows["f"].checks, table.failures
    (1, 0)
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.coverage = Coverage()

    def add(self, name: str, report: GradReport) -> None:
        self.rows.setdefault(name, Row(name)).add(report)
        self.coverage.add(report)

    @property
    def failures(self) -> int:
        return sum(row.failures for row in self.rows.values())

    def worst_first(self) -> list[Row]:
        """Failures, then by the digits that agreed; rows that compared no numbers are last."""

        def badness(row: Row) -> tuple[bool, float]:
            return not row.failures, 99.0 if row.least is None else row.least

        return sorted(self.rows.values(), key=badness)

    def table(self, most: int = 40) -> str:
        """As text; no more than `most` rows, then what was covered."""
        rows = self.worst_first()
        lines = align_columns([HEADER, *(row.cells() for row in rows[:most])], LEFT)
        if rows[most:]:
            lines.append(f"... and {len(rows) - most} more, none of them worse")
        lines.append(str(self.coverage))
        return "\n".join(lines)


def shorten(name: str, most: int = 60) -> str:
    """The name, without its middle if it is long: parameters are at the end.

    >>> shorten("test_a_very_long_sentence[numpy-conv2d]", 30)
    'test_a_ver...nce[numpy-conv2d]'
    """
    return name if len(name) <= most else f"{name[: most // 3]}...{name[3 + most // 3 - most :]}"


def align_columns(rows: Iterable[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Rows of cells as lines, in columns: those of `left` are words, the others numbers."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
