"""Claims about theorems and learning rates: the numbers that they read off the records of runs."""

import math
from pathlib import Path
from typing import Any

import pytest
from claim_studies import found, named, study, trained

from experiments.running.study import Study
from minibn.errors import DataError

# Theorems


def unit(step: int, residual: float | None, exceeded: bool, **more: Any) -> dict[str, Any]:
    columns = ("scaling", "mean", "correlation", "reduction", "cosine", "vanilla", "along",
               "curvature", "multiple")  # fmt: skip
    names = ("4.1", "4.5", "4.5 scale invariance")
    return {
        "step": step, "layer": 3, "m": 4, **dict.fromkeys(columns, 1.0), **more,
        "residual": {**dict.fromkeys(names, residual), "4.2b": 0.1, "4.1 printed": 0.1},
        "exceeded": {"4.2b": exceeded, "4.1 printed": exceeded},
    }  # fmt: skip


def network(folder: Path, *records: dict[str, Any]) -> Study:
    """A study of theorems, whose norms 1 and 2 are behind convolutions, at two seeds."""
    made = study(folder, "theorems", channels=[8, 16])
    for seed in (0, 1):
        heads = [unit(0, 1e-15, True, eps=0.0), unit(0, 1e-15, False, eps=0.1)]
        trained(made, "batchnorm", seed, steps=2000, heads=heads, theorems=records)
    return made


def test_an_identity_is_judged_by_its_worst_case_and_a_form_without_eps_without(
    tmp_path: Path,
) -> None:
    made = network(tmp_path / "s", unit(5, 1e-16, False), unit(6, 3e-12, False))
    exact = found(named("theorem-4.1"), made)
    assert (exact.values, exact.verdict.word) == ({0: 3e-12, 1: 3e-12}, "reproduced")
    assert found(named("theorem-4.1-printed"), made).values == {0: 1, 1: 1}
    worse = network(tmp_path / "t", unit(5, None, True))
    assert found(named("theorem-4.1"), worse).values == {0: math.inf, 1: math.inf}


def test_linear_layers_and_convolutions_are_judged_apart(tmp_path: Path) -> None:
    bad = unit(5, 0.0, True, layer=1, reduction=2.0, curvature=2.0)
    made = network(tmp_path / "s", bad, {**bad, "layer": 2}, unit(5, 0.0, False, reduction=0.5))
    for id, linear, convolutions in (
        ("theorem-4.2b", 0, 1), ("gradient-flatter", 0.5, 2), ("curvature-smaller", 0, 0),
    ):  # fmt: skip
        assert found(named(id), made).mean == linear
        assert found(named(f"{id}-convolutions"), made).mean == convolutions
    alone = network(tmp_path / "t", unit(5, 0.0, False))
    reason = found(named("theorem-4.2b-convolutions"), alone).verdict.reason
    assert reason.endswith("has no units of the convolutions on record")


def test_a_unit_without_numbers_fulfils_no_condition(tmp_path: Path) -> None:
    dead = unit(5, 0.0, False, along=None, cosine=None, reduction=None)
    made = network(tmp_path / "s", dead, *(unit(t, 0.0, False, along=-1.0) for t in range(20)))
    assert found(named("hessian-positive"), made).values == {0: 0, 1: 0}
    assert found(named("gradient-flatter"), made).values == {0: 1, 1: 1}
    many = network(tmp_path / "t", dead, unit(6, 0.0, False))
    reason = found(named("hessian-positive"), many).verdict.reason
    assert reason == "batchnorm at lr 0.1, seed 0: along is not finite in 50% of the units"


def test_what_the_gradient_loses_is_measured_by_what_chance_removes(tmp_path: Path) -> None:
    chance = network(tmp_path / "s", unit(5, 0.0, False, m=64, mean=1 / 64, correlation=1 / 64))
    loses = found(named("gradient-loses-parts"), chance)
    assert loses.values == pytest.approx({0: 1, 1: 1})
    assert loses.verdict.reason == "within the margin"
    more = network(tmp_path / "t", unit(5, 0.0, False, m=64, mean=3 / 64, correlation=1 / 64))
    assert found(named("gradient-loses-parts"), more).verdict.word == "reproduced"


@pytest.mark.parametrize("broken", [{"multiple": -0.1}, {"residual": 1e-3}])
def test_the_lemma_needs_its_algebra_and_its_condition_in_every_unit(
    tmp_path: Path, broken: dict[str, Any]
) -> None:
    good = [unit(t, 1e-15, False) for t in range(3)]
    assert found(named("lemma-4.5-holds"), network(tmp_path / "s", *good)).values == {0: 1, 1: 1}
    bad = unit(5, **{"residual": 1e-15, "exceeded": False} | broken)
    lemma = found(named("lemma-4.5-holds"), network(tmp_path / "t", *good, bad))
    assert (lemma.mean, lemma.verdict.word) == (0.75, "contradicted")


# Learning rates

RATES = (0.1, 0.2, 0.4)


def swept(folder: Path, start: float = 0.75, **best: list[float]) -> Study:
    """A study of learning rates in which a variant learns up to its rate, by seed, the better the
    larger (from `start` on), and diverges at larger ones."""
    made = study(folder, "learning_rates", lr=list(RATES))
    for variant, rates in best.items():
        for seed, largest in enumerate(rates):
            for i, lr in enumerate(RATES):
                bad = None if lr <= largest else 3
                var = [{"step": t, "var": [1.0, 10.0**t, x]} for t, x in ((0, 5.0), (1, 700.0))]
                moments = [*var, {"step": 2, "var": [1.0, None, None]}]
                accuracy = start + i / 10 + (0.02 if variant == "batchnorm" else 0.0)
                trained(made, variant, seed, accuracy, lr=lr, diverged=bad, moments=moments)
    return made


def test_the_largest_rate_is_compared_by_seed(tmp_path: Path) -> None:
    made = swept(tmp_path / "s", 0.9, batchnorm=[0.4, 0.2], standard=[0.1, 0.1], l1=[0.1, 0.1])
    larger = found(named("bn-larger-rates"), made)
    assert larger.values == pytest.approx({0: 4, 1: 2})
    assert larger.verdict.word == "reproduced"
    assert "standard" in larger.claim.measured and "lr 0" not in larger.claim.measured
    assert found(named("bn-stable-at-larger-rates"), made).values == pytest.approx({0: 4, 1: 2})
    assert found(named("l1-larger-rates"), made).verdict.reason == "within the margin"
    small = found(named("equal-at-small-rates"), made)
    assert small.values == pytest.approx({0: 0.02, 1: 0.02})
    share = found(named("gain-is-by-rates"), made)
    assert share.values == pytest.approx({0: 0.2 / 0.22, 1: 0.1 / 0.12})
    assert found(named("explodes-with-depth"), made).values == pytest.approx({0: 700, 1: 700})


def test_runs_too_short_to_train_say_nothing_about_trained_networks(tmp_path: Path) -> None:
    made = swept(tmp_path / "s", 0.3, batchnorm=[0.4, 0.4], standard=[0.1, 0.1])
    for id, accuracy in (("equal-at-small-rates", 0.32), ("gain-is-by-rates", 0.52)):
        finding = found(named(id), made)
        assert finding.values == {}
        assert f"ends at {accuracy} of the training set, below 0.9" in finding.verdict.reason


def test_an_explosion_is_read_where_moments_reach_the_step_before_divergence(
    tmp_path: Path,
) -> None:
    made = swept(tmp_path / "s", standard=[0.1, 0.1])
    assert found(named("explodes-with-depth"), made).values == pytest.approx({0: 700, 1: 700})
    path = made.run("standard-lr0.2-seed1").folder / "moments.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    reason = found(named("explodes-with-depth"), made).verdict.reason
    assert reason.endswith("moments of the step before divergence are not on record")


def test_where_nothing_learns_there_is_no_largest_or_best_rate(tmp_path: Path) -> None:
    made = swept(tmp_path / "s", batchnorm=[0.4, 0.2], standard=[0.05, 0.05])
    share = found(named("gain-is-by-rates"), made).verdict.reason
    assert share == "standard learns at no rate of the grid"
    larger = found(named("bn-larger-rates"), made).verdict.reason
    assert larger == "standard, seed 0: none of the grid's rates is one"


def test_a_sweep_that_has_not_ended_decides_nothing(tmp_path: Path) -> None:
    made = swept(tmp_path / "s", batchnorm=[0.4, 0.2], standard=[0.1, 0.1])
    (made.run("standard-lr0.2-seed1").folder / "result.json").unlink()
    reason = found(named("bn-larger-rates"), made).verdict.reason
    assert reason == "standard, seed 1 has not ended at lr 0.2"
    assert found(named("l1-larger-rates"), made).verdict.reason.startswith("no run of l1 in")


def test_rates_above_one_at_which_every_seed_of_the_study_diverged_need_not_be_run(
    tmp_path: Path,
) -> None:
    one, two = (study(tmp_path / n, "learning_rates", lr=list(RATES)) for n in ("1", "2"))
    for made, seed, largest in ((one, 0, 0.1), (two, 1, 0.2)):
        for lr in RATES:
            trained(made, "batchnorm", seed, 0.3, lr=lr)
            if lr <= 2 * largest:  # in study 1 nothing is run at 0.4
                diverged = None if lr <= largest else 3
                trained(made, "standard", seed, 0.3, lr=lr, diverged=diverged)
    assert found(named("bn-larger-rates"), one, two).values == pytest.approx({0: 4, 1: 2})
    trained(one, "standard", 2, 0.3, lr=0.2)  # in that study another seed bears 0.2
    reason = found(named("bn-larger-rates"), one, two).verdict.reason
    assert reason == "standard, seed 0 has not ended at lr 0.4"


def test_grids_that_differ_are_refused(tmp_path: Path) -> None:
    one = swept(tmp_path / "1", batchnorm=[0.4])
    two = study(tmp_path / "2", "learning_rates", lr=[0.1, 0.2])
    with pytest.raises(DataError, match=r"has lr .*like with like"):
        found(named("bn-larger-rates"), one, two)
