"""Tables as text that is Markdown too, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def say(text: str = "") -> None:
    """Print at once: a benchmark takes minutes, and its reader waits."""
    print(text, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns: the first to the left, the others to the right.

    >>> print(table(["layer", "ms"], [["conv1", 3.5], ["conv2", "12.25"]]))
    | layer |    ms |
    |:------|------:|
    | conv1 |   3.5 |
    | conv2 | 12.25 |
    """
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *rest = zip(row, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]) + " |"

    rule = (
        "|:" + "|".join(["-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    )
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])
