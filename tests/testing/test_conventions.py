"""The table of conventions: what is computed is what is promised, and nothing is left out."""

import pytest

from minibn.testing.commands import conventions
from minibn.testing.commands.conventions import BATCH_NORM, SUBGRADIENTS, Convention, broken, table
from minibn.testing.registry import CASES


@pytest.mark.parametrize("convention", [*SUBGRADIENTS, *BATCH_NORM], ids=lambda c: c.choice)
def test_what_is_computed_is_what_is_promised(convention):
    assert convention.kept, f"{convention.compute()} is not {convention.promised}"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.convention])
def test_each_op_with_a_convention_has_a_line(name):
    line = {"norm": "l2 norm", "norm, p=1": "l1 norm", "norm, p=inf": "l-infinity norm"}
    assert any(c.choice.startswith(line.get(name, name)) for c in SUBGRADIENTS)


def test_every_line_has_four_cells_and_stands_under_its_header():
    for lines in (part.splitlines() for part in table().split("\n\n")):
        start = [lines[0].index(word) for word in ("computed", "promised", "in ")]
        assert all(line[at - 1] == " " != line[at] for line in lines for at in start)
    assert table().count("\n") == len(SUBGRADIENTS) + len(BATCH_NORM) + 2


@pytest.mark.parametrize(
    ("found", "promised"), [(0.5, 0.0), ([1, 0], [0.5, 0.5]), (float("nan"), 0.0), ("a", "raises")]
)
def test_a_broken_promise_is_named(found, promised, monkeypatch):
    wrong = Convention("relu at 0", lambda: found, promised, "")
    monkeypatch.setattr(conventions, "SUBGRADIENTS", (wrong,))
    assert broken() == ["relu at 0"]
