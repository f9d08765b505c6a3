"""Every op stands in every table. A failure says which lines to add, and in which files."""

import re
from pathlib import Path

import pytest
from suite.mutants import MUTANTS
from suite.registry import CASES, LAYERS, NO_GRADIENT, NOT_DRAWN

from minibn import nn, ops
from minibn.nn.module import Module
from minibn.testing.commands.conventions import SUBGRADIENTS

ROOT = Path(__file__).parents[2]
ROW = "tests/suite/registry/__init__.py"
PARITY = ("tests/parity/torch_pairs.py", "tests/parity/torch_norms.py")
OPS = (*ops.__all__, "fused_block")

# What PyTorch is compared with: read as text, since PyTorch need not be installed.
PAIRS = {
    name
    for file in PARITY
    for name in re.findall(r'^    "(.+)": ', (ROOT / file).read_text(encoding="utf-8"), re.M)
}
# The lines of the table of conventions whose beginning is not the name of their row.
LINES = {"norm": "l2 norm", "norm, p=1": "l1 norm", "norm, p=inf": "l-infinity norm"}


def missing_lines(op: str) -> list[str]:
    """For each table that lacks the op: the file, and the line to add."""
    if op in NO_GRADIENT:
        return []
    rows = {name: case for name, case in CASES.items() if name.partition(",")[0] == op}
    found = []
    if not rows:
        found.append(
            f'{ROW}, in CASES: "{op}": e.unary(ops.{op}, torch="{op}"),  # or Case(its problems, '
            "plain=..., torch=...); in NO_GRADIENT, if it has none"
        )
    found += [
        f'{ROW}, in the row "{name}": plain=plain.normal(ops.{op}, (3, 4))'
        for name, case in rows.items()
        if case.plain is None
    ]
    if rows and not any(case.torch or name in PAIRS for name, case in rows.items()):
        found.append(
            f'{ROW}, in the row "{op}": torch="{op}", the name of the function in PyTorch; or '
            f'{PARITY[0]}, in PAIRS: "{op}": same("{op}", lambda x: ...)'
        )
    if not any(mutant.case.partition(",")[0] == op for mutant in MUTANTS.values()):
        found.append(
            f'tests/suite/mutants/, in the file of its family: @wrong(the class of {op}, "{op}") '
            f"before def {op}_loses_a_factor(self, g, out, x), with the mistake as its docstring"
        )
    for name, case in rows.items():
        line = LINES.get(name, name)
        if case.kinks is not None and not case.convention:
            found.append(f'{ROW}, in the row "{name}": convention="the derivative at 0 is ..."')
        if case.convention and not any(c.choice.startswith(line) for c in SUBGRADIENTS):
            found.append(
                "minibn/testing/commands/conventions.py, in SUBGRADIENTS: "
                f'Convention("{line} at 0", lambda: slopes(ops.{op}, 0), 0.0, "the same")'
            )
    return found


@pytest.mark.parametrize("op", OPS)
def test_an_op_stands_in_every_table(op):
    missing = missing_lines(op) if op != "fused_block" else []
    assert not missing, f"{op} is missing in\n" + "\n".join(f"  {line}" for line in missing)


def test_every_row_is_of_an_op_that_is_exported():
    assert {name.partition(",")[0] for name in CASES} | set(NO_GRADIENT) <= set(OPS)
    assert set(CASES).isdisjoint(NO_GRADIENT)


def test_an_op_that_is_nowhere_is_told_of_every_table(monkeypatch):
    for name, mutant in list(MUTANTS.items()):
        if mutant.case == "relu":
            monkeypatch.delitem(MUTANTS, name)
    assert [line.partition(",")[0] for line in missing_lines("relu")] == ["tests/suite/mutants/"]
    monkeypatch.delitem(CASES, "relu")
    first, second = missing_lines("relu")
    assert first.startswith(f'{ROW}, in CASES: "relu": e.unary(ops.relu')
    assert second.startswith("tests/suite/mutants/")


def test_every_exported_layer_has_a_row():
    exported = {
        name
        for name in nn.__all__
        if isinstance(kind := getattr(nn, name), type) and issubclass(kind, Module)
    }
    assert set(LAYERS).isdisjoint(NOT_DRAWN)
    assert set(LAYERS) | set(NOT_DRAWN) == exported, f"{ROW.replace('__init__', 'layers')}, LAYERS"
