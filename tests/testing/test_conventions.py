"""The table of conventions: what is computed is what is promised, and nothing is left out."""

import pytest

from minibn.testing.commands import conventions
from minibn.testing.commands.conventions import (
    BATCH_NORM,
    SUBGRADIENTS,
    Convention,
    broken_promises,
    conventions_table,
)


@pytest.mark.parametrize("convention", [*SUBGRADIENTS, *BATCH_NORM], ids=lambda c: c.choice)
def test_what_is_computed_is_what_is_promised(convention):
    assert convention.holds, f"{convention.compute()} is not {convention.promised}"


def test_every_line_has_four_cells_and_stands_under_its_header():
    for lines in (part.splitlines() for part in conventions_table().split("\n\n")):
        start = [lines[0].index(word) for word in ("computed", "promised", "in ")]
        assert all(line[at - 1] == " " != line[at] for line in lines for at in start)
    assert conventions_table().count("\n") == len(SUBGRADIENTS) + len(BATCH_NORM) + 2


@pytest.mark.parametrize(
    ("found", "promised"), [(0.5, 0.0), ([1, 0], [0.5, 0.5]), (float("nan"), 0.0), ("a", "raises")]
)
def test_a_broken_promise_is_named(found, promised, monkeypatch):
    wrong = Convention("relu at 0", lambda: found, promised, "")
    monkeypatch.setattr(conventions, "SUBGRADIENTS", (wrong,))
    assert broken_promises() == ["relu at 0"]
