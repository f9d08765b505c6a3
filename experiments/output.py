"""What programs print: lines that appear at once, and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def say(text: str = "") -> None:
    """Print at once, without buffering: a benchmark takes minutes."""
    print(text, flush=True)


def say_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table with aligned columns."""
    say(markdown_table(head, rows, align=True))


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "", *, align: bool = False
) -> str:
    """Markdown, with a note in brackets below; nothing without rows.

    align: for a terminal, columns of equal width, the first to the left, the others to the right.

    >>> print(markdown_table(["layer", "ms"], [["conv1", 3.5], ["conv2", "12.25"]], align=True))
    | layer |    ms |
    |:------|------:|
    | conv1 |   3.5 |
    | conv2 | 12.25 |
    """
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    if len(cells) == 1:
        return ""
    rule = ["---"] * len(head)
    if align:
        wide, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
        rule = [":" + "-" * (wide + 1), *("-" * (w + 1) + ":" for w in others)]
        cells = [
            [row[0].ljust(wide), *(c.rjust(w) for c, w in zip(row[1:], others, strict=True))]
            for row in cells
        ]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, f"|{'|'.join(rule)}|")
    return "\n".join(lines) + (f"\n\n({note})" if note else "")
