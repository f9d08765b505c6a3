"""The docs of the laws, made from the laws: `python -m minibn.testing.laws > .../LAWS.md`."""

from __future__ import annotations

from minibn.testing.laws.law import EVERY_LAYER, EVERY_OP, GROUPS, LAWS, Law

HEAD = """\
# Laws

Made by `python -m minibn.testing.laws`; a test compares. Each line is a sentence, a function (in
`laws/`, where the last column says), and a test for everything that it is about. *All backends* are
NumPy, the strict double, and CuPy where there is a GPU. `check_laws(problem)` puts an op of yours
through every law that is about *anything*.
"""
COLUMNS = ("| law | about | on | checked by |", "|---|---|---|---|")


def about(law: Law) -> str:
    if law.generic:
        return f"anything; tested on {len(EVERY_OP)} ops and {len(EVERY_LAYER)} layers"
    if law.over == EVERY_LAYER:
        return f"all {len(EVERY_LAYER)} layers"
    return ", ".join(f"`{name}`" for name in law.over)


def row(law: Law) -> str:
    file = law.check.__module__.rpartition(".")[2]
    where = "all backends" if law.devices else "NumPy"
    sentence = law.sentence.replace("|", "\\|")
    return f"| {sentence} | {about(law)} | {where} | {file}.py: `{law.name}` |"


def table() -> str:
    """LAWS.md as the laws are now."""
    parts = [HEAD]
    for group in GROUPS:
        if rows := [row(law) for law in LAWS.values() if law.group == group]:
            parts.append("\n".join([f"## {group}", "", *COLUMNS, *rows, ""]))
    return "\n".join(parts)
