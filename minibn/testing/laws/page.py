"""The table of laws as a page, made from the laws.

LAWS.md is `python -m minibn.testing.laws > minibn/testing/LAWS.md`: the laws about any op. From a
checkout `python -m minibn.testing laws` prints those about minibn's own ops and layers as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from minibn.testing.laws.base import Law

HEAD = """\
# Laws

Written by `python -m minibn.testing.laws`; a test compares. Each line is a sentence, a function (in
the file of `laws/` in the last column), and a test for everything that it is about. *All backends*
are NumPy, the strict double, and CuPy where there is a GPU. `check_laws(problem)` checks every
law about *anything* on an op of yours. LAWS.md has these; `python -m minibn.testing laws`, from a
checkout, prints those about minibn's own ops, layers and optimizers as well; each of these has a
fault that breaks it in `tests/suite/laws/`.
"""
COLUMNS = ("| law | about | on | checked by |", "|---|---|---|---|")


def about_anything(law: Law) -> str:
    return "anything"


def laws_page(laws: Iterable[Law], about: Callable[[Law], str] = about_anything) -> str:
    """The laws as a table for each group, in the order of their groups' first laws; `about` says
    in words what a law is about."""
    groups: dict[str, list[str]] = {}
    for law in laws:
        file = law.check.__module__.rpartition(".")[2]
        on = "all backends" if law.devices else "NumPy"
        sentence = law.sentence.replace("|", "\\|")
        row = f"| {sentence} | {about(law)} | {on} | {file}.py: `{law.name}` |"
        groups.setdefault(law.group, []).append(row)
    tables = ["\n".join([f"## {group}", "", *COLUMNS, *rows, ""]) for group, rows in groups.items()]
    return "\n".join([HEAD, *tables])
