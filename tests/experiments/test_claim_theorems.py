"""Claims about theorems: their numbers from the records of runs."""

import math
from pathlib import Path
from typing import Any

import pytest
from claim_studies import add_run, judge, named, study

from experiments.training.study import Study

INEQUALITIES = ("4.2b", "4.1 printed", "4.2a printed")


def unit(step: int, residual: float | None, exceeded: bool, **more: Any) -> dict[str, Any]:
    columns = ("scaling", "mean", "correlation", "reduction", "cosine", "vanilla", "along",
               "curvature", "multiple")  # fmt: skip
    names = ("4.1", "4.5", "4.5 scale invariance")
    return {
        "step": step, "layer": 3, "m": 4, **dict.fromkeys(columns, 1.0), **more,
        "residual": {**dict.fromkeys(names, residual), **dict.fromkeys(INEQUALITIES, 0.1)},
        "exceeded": dict.fromkeys(INEQUALITIES, exceeded),
    }  # fmt: skip


def network(folder: Path, *records: dict[str, Any]) -> Study:
    """A study of theorems, whose norms 1 and 2 are behind convolutions, at two seeds."""
    made = study(folder, "theorems", channels=[8, 16])
    for seed in (0, 1):
        heads = [unit(0, 1e-15, True, eps=0.0), unit(0, 1e-15, False, eps=0.1)]
        add_run(made, "batchnorm", seed, steps=2000, heads=heads, theorems=records)
    return made


def test_an_identity_is_judged_by_its_worst_case_and_a_form_without_eps_without(
    tmp_path: Path,
) -> None:
    made = network(tmp_path / "s", unit(5, 1e-16, False), unit(6, 3e-12, False))
    exact = judge(named("theorem-4.1"), made)
    assert (exact.values, exact.verdict.word) == ({0: 3e-12, 1: 3e-12}, "reproduced")
    assert judge(named("theorem-4.1-printed"), made).values == {0: 1, 1: 1}
    worse = network(tmp_path / "t", unit(5, None, True))
    assert judge(named("theorem-4.1"), worse).values == {0: math.inf, 1: math.inf}


@pytest.mark.parametrize("violated", [True, False])
def test_the_first_line_of_theorem_4_2_as_printed_is_judged_without_eps(
    tmp_path: Path, violated: bool
) -> None:
    made = study(tmp_path / "s", "theorems")
    for seed in (0, 1):
        heads = [unit(0, 0.0, violated, eps=0.0), unit(0, 0.0, not violated, eps=0.1)]
        add_run(made, "batchnorm", seed, steps=2000, heads=heads)
    word = "contradicted" if violated else "reproduced"
    assert judge(named("theorem-4.2a-printed"), made).verdict.word == word


def test_linear_layers_and_convolutions_are_judged_apart(tmp_path: Path) -> None:
    bad = unit(5, 0.0, True, layer=1, reduction=2.0, curvature=2.0)
    made = network(tmp_path / "s", bad, {**bad, "layer": 2}, unit(5, 0.0, False, reduction=0.5))
    for id, linear, convolutions in (
        ("theorem-4.2b", 0, 1), ("gradient-flatter", 0.5, 2), ("curvature-smaller", 0, 0),
    ):  # fmt: skip
        assert judge(named(id), made).mean == linear
        assert judge(named(f"{id}-convolutions"), made).mean == convolutions
    alone = network(tmp_path / "t", unit(5, 0.0, False))
    reason = judge(named("theorem-4.2b-convolutions"), alone).verdict.reason
    assert reason.endswith("has no units of the convolutions on record")


def test_a_unit_without_numbers_fulfils_no_condition(tmp_path: Path) -> None:
    dead = unit(5, 0.0, False, along=None, cosine=None, reduction=None)
    made = network(tmp_path / "s", dead, *(unit(t, 0.0, False, along=-1.0) for t in range(20)))
    assert judge(named("hessian-positive"), made).values == {0: 0, 1: 0}
    assert judge(named("gradient-flatter"), made).values == {0: 1, 1: 1}
    many = network(tmp_path / "t", dead, unit(6, 0.0, False))
    reason = judge(named("hessian-positive"), many).verdict.reason
    assert reason == "batchnorm at lr 0.1, seed 0: along is not finite in 50% of the units"


def test_what_the_gradient_loses_is_measured_by_what_chance_removes(tmp_path: Path) -> None:
    chance = network(tmp_path / "s", unit(5, 0.0, False, m=64, mean=1 / 64, correlation=1 / 64))
    loses = judge(named("gradient-loses-parts"), chance)
    assert loses.values == pytest.approx({0: 1, 1: 1})
    assert loses.verdict.reason == "within the margin"
    more = network(tmp_path / "t", unit(5, 0.0, False, m=64, mean=3 / 64, correlation=1 / 64))
    assert judge(named("gradient-loses-parts"), more).verdict.word == "reproduced"


@pytest.mark.parametrize("broken", [{"multiple": -0.1}, {"residual": 1e-3}])
def test_the_lemma_needs_its_algebra_and_its_condition_in_every_unit(
    tmp_path: Path, broken: dict[str, Any]
) -> None:
    good = [unit(t, 1e-15, False) for t in range(3)]
    assert judge(named("lemma-4.5-holds"), network(tmp_path / "s", *good)).values == {0: 1, 1: 1}
    bad = unit(5, **{"residual": 1e-15, "exceeded": False} | broken)
    lemma = judge(named("lemma-4.5-holds"), network(tmp_path / "t", *good, bad))
    assert (lemma.mean, lemma.verdict.word) == (0.75, "contradicted")
