"""Metrics of claims: the number that each reads off runs whose records the test wrote."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claim_studies import (
    BETTER,
    claim,
    found,
    named,
    pair,
    study,
    trained,
)

from experiments.claiming import layers, metrics, rules
from experiments.claiming.claim import at
from experiments.claiming.evidence import Missing, Trace
from experiments.claiming.metrics import Quantity, difference, quotient
from experiments.running.study import Study
from minibn.errors import DataError


def traces(made: Study) -> list[Trace]:
    return [Trace(run) for run in made.runs()]


def trace(folder: Path, variant: str = "batchnorm", **run: Any) -> Trace:
    return Trace(trained(study(folder), variant, **run))


def test_a_diverged_run_counts_as_chance_from_there_on(tmp_path: Path) -> None:
    run = trace(tmp_path / "s", accuracy=0.6, diverged=4)
    assert metrics.train_accuracy(0, 10).of(run) == pytest.approx((4 * 0.6 + 6 * 0.1) / 10)
    assert metrics.train_accuracy(5, 10).of(run) == pytest.approx(0.1)
    assert metrics.train_accuracy(0, 4).of(run) == pytest.approx(0.6)
    assert metrics.test_accuracy(10).of(run) == pytest.approx(0.1)
    assert metrics.train_loss(0, 10).of(run) == math.inf
    with pytest.raises(Missing, match="diverged at step 4"):
        metrics.walk("loss", 0, 10).of(run)


def test_a_standard_network_that_diverges_fails(tmp_path: Path) -> None:
    fails = named("std-fails-at-0.5")
    made = study(tmp_path / "s", steps=2000)
    for seed in (0, 1):
        trained(made, "standard", seed, 0.3, lr=0.5, steps=2000, diverged=40)
    finding = found(fails, made)
    assert finding.values == pytest.approx({0: 0.1, 1: 0.1})
    assert finding.verdict.word == "reproduced"


def test_a_loss_that_diverged_is_larger_than_any(tmp_path: Path) -> None:
    made = study(tmp_path / "s", "deep_linear")
    for seed in (0, 1):
        trained(made, "standard", seed, 0.3, diverged=3)
        trained(made, "batchnorm", seed, 0.6)
    less = claim(
        quotient(metrics.train_loss(5, 10)), rules.times(2), *at(0.1, "standard", "batchnorm"),
        kind="deep_linear",
    )  # fmt: skip
    assert found(less, made).verdict.word == "reproduced"
    both = claim(less.metric, less.rule, *at(0.1, "standard", "standard"), kind="deep_linear")
    assert found(both, made).verdict.reason.startswith("not a number: standard at lr 0.1, seed 0")


@pytest.mark.parametrize("bad", [None, math.nan])
def test_an_accuracy_that_is_no_number_leaves_the_claim_undecided(
    tmp_path: Path, bad: float | None
) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    path = made.run("standard-lr0.1-seed1").folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[3]["accuracy"] = bad
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert found(BETTER, made).verdict.reason.startswith("not a number: ")


def test_train_accuracy_is_the_mean_over_its_steps_alone(tmp_path: Path) -> None:
    run = trace(tmp_path / "s", accuracy=np.arange(10) / 10)
    assert metrics.train_accuracy(2, 5).of(run) == pytest.approx(0.3)
    assert metrics.test_accuracy(10).of(run) == pytest.approx(0.9)
    with pytest.raises(Missing, match="no test accuracy after 5 updates"):
        metrics.test_accuracy(5).of(run)


def step_of_walk(step: int, losses: list[float | None], **more: Any) -> dict[str, Any]:
    return {
        "step": step, "lr": 0.1, "direction": "gradient", "gradient_norm": 3.0,
        "losses": losses, "gradient_change": losses, "beta": losses,
        "step_sizes": [0.05, 0.4], **more,
    }  # fmt: skip


def test_walks_are_read_along_the_gradient_within_their_steps(tmp_path: Path) -> None:
    walks = [
        step_of_walk(0, [1.0, 9.0]),
        step_of_walk(4, [1.0, 100.0]),
        step_of_walk(4, [0.0, 1e9], direction="random"),
        step_of_walk(6, [1.0, 4.0]),
        step_of_walk(8, [1.0, 2.0]),
    ]
    run = trace(tmp_path / "s", landscape=walks)
    assert metrics.walk("loss", 4, 10).of(run) == 3.0
    assert metrics.walk("change", 4, 10, over="largest").of(run) == 100.0
    assert metrics.walk("decades", 4, 5).of(run) == pytest.approx(2)
    assert metrics.walk("beta over its floor", 8, 9).of(run) == pytest.approx(0.1)
    assert metrics.walk("beta over the edge", 8, 9).of(run) == pytest.approx(0.1)
    assert metrics.walk("gradient", 0, 10).of(run) == 3.0
    assert metrics.walk("loss", 0, 10, direction="random").of(run) == 1e9
    with pytest.raises(Missing, match=r"no records of landscape, gradient at steps 1 to 3"):
        metrics.walk("loss", 1, 3).of(run)


def test_a_walk_that_left_the_finite_is_wider_than_any(tmp_path: Path) -> None:
    run = trace(tmp_path / "s", landscape=[step_of_walk(0, [1.0, None])])
    assert metrics.walk("loss", 0, 1).of(run) == math.inf
    assert metrics.walk("beta", 0, 1).of(run) == math.inf


def test_a_hessian_that_was_not_finite_is_sharper_than_any(tmp_path: Path) -> None:
    seen = [
        {"step": 0, "eigenvalues": [30.0, 10.0], "along_gradient": 5.0},
        {"step": 5, "eigenvalues": [], "along_gradient": None},
    ]
    run = trace(tmp_path / "s", curvature=seen)
    assert metrics.sharpness(0, 5).of(run) == 30
    assert metrics.sharpness(0, 5, over_edge=True).of(run) == pytest.approx(1.5)
    assert metrics.sharpness(0, 5, along=True).of(run) == 5
    assert (
        metrics.sharpness(5, 6).of(run) == metrics.sharpness(5, 6, along=True).of(run) == math.inf
    )


def moments(place: str, unit: int, means: dict[int, float], var: float = 4.0) -> list[dict]:
    return [
        {"step": t, "layer": 1, "unit": unit, "place": place, "mean": m, "var": var}
        for t, m in means.items()
    ]


def test_drift_is_the_median_over_units_and_successive_steps(tmp_path: Path) -> None:
    records = [
        *moments("activation", 0, {0: 0.0, 1: 1.0, 5: 7.0, 6: 4.0}),
        *moments("activation", 3, {0: 0.0, 1: -2.0}),
        *moments("norm_input", 0, {0: 0.0, 1: 10.0}),
    ]
    bn = trace(tmp_path / "bn", norm="batch", distributions=records)
    std = trace(tmp_path / "std", "standard", distributions=records)
    # layer 2 of 13 lies as deep as the first of 8
    assert layers.drift("mean", "activation", 0, 10, [2]).of(bn) == pytest.approx([2.0])
    assert layers.drift("mean", "activation", 0, 2, [2]).of(bn) == pytest.approx([1.5])
    assert layers.drift("mean", "norm_input", 0, 10, [2]).of(bn) == pytest.approx([10.0])
    assert layers.drift("mean", "norm_input", 0, 10, [2]).of(std) == pytest.approx([2.0])
    relative = layers.drift("mean", "activation", 0, 10, [2], relative=True)
    assert relative.of(bn) == pytest.approx([1.0])
    with pytest.raises(Missing, match="no two successive steps"):
        layers.drift("mean", "activation", 5, 6, [2]).of(bn)


def test_spread_compares_quantiles_a_hundred_steps_apart_in_standard_deviations(
    tmp_path: Path,
) -> None:
    records = moments("activation", 0, {0: 0.0, 1: 0.0, 50: 0.0, 100: 0.0})
    for record, q in zip(records, (0.0, 50.0, 60.0, 6.0), strict=True):
        record["quantiles"] = [q] * 7
    run = trace(tmp_path / "s", steps=200, distributions=records)
    assert layers.spread(0, 200, [2]).of(run) == pytest.approx([3.0])
    assert layers.moment("sd", 0, 200, [2]).of(run) == pytest.approx([2.0])


def test_shift_is_read_at_the_layer_that_lies_as_deep(tmp_path: Path) -> None:
    shifts = [
        {"step": 0, "layer": k, "l2": float(k), "relative": 0.1, "cosine": c, "std": 2.0,
         "wasserstein": 1.0}
        for k, c in ((3, 0.5), (6, None))
    ]  # fmt: skip
    run = trace(tmp_path / "s", shift=shifts)
    assert layers.shift("l2", 0, 1, (5, 10)).of(run) == pytest.approx([3, 6])
    assert layers.shift("wasserstein", 0, 1, (5,)).of(run) == pytest.approx([0.5])
    assert layers.shift("cosine", 0, 1, (5, 10)).of(run)[0] == 0.5
    assert np.isnan(layers.shift("cosine", 0, 1, (5, 10)).of(run)[1])


def test_quotients_of_layers_are_averaged_geometrically(tmp_path: Path) -> None:
    run = trace(tmp_path / "s")
    numbers = iter([np.array([8.0, 2.0]), np.array([1.0, 1.0])] * 2)
    twice = Quantity("q", lambda run: next(numbers))
    assert quotient(twice)([run, run]) == pytest.approx(4)
    assert difference(twice)([run, run]) == pytest.approx(4)
    assert quotient(Quantity("q", lambda run: 0.0))([run, run]) == pytest.approx(1)


# Theorems and learning rates: what other experiments write


def unit(step: int, residual: float | None, exceeded: bool, **more: Any) -> dict[str, Any]:
    columns = ("scaling", "mean", "correlation", "reduction", "cosine", "vanilla", "along",
               "curvature", "multiple")  # fmt: skip
    return {
        "step": step, **dict.fromkeys(columns, 1.0), **more,
        "residual": {"4.1": residual, "4.2b": 0.1, "4.1 printed": 0.1},
        "exceeded": {"4.2b": exceeded, "4.1 printed": exceeded},
    }  # fmt: skip


def test_an_identity_is_judged_by_its_worst_case_and_a_form_without_eps_without(
    tmp_path: Path,
) -> None:
    made = study(tmp_path / "s", "theorems")
    for seed in (0, 1):
        heads = [unit(0, 1e-15, True, eps=0.0), unit(0, 1e-15, False, eps=0.1)]
        layer = [unit(5, 1e-16, False), unit(6, 3e-12, False, curvature=0.5)]
        trained(made, "batchnorm", seed, steps=2000, heads=heads, theorems=layer)
    exact = found(named("theorem-4.1"), made)
    assert (exact.values, exact.verdict.word) == ({0: 3e-12, 1: 3e-12}, "reproduced")
    assert found(named("theorem-4.1-printed"), made).values == {0: 1, 1: 1}
    assert found(named("theorem-4.2b"), made).values == {0: 0, 1: 0}
    assert found(named("curvature-smaller"), made).values == {0: 0.5, 1: 0.5}
    trained(made, "batchnorm", 2, steps=2000, heads=heads, theorems=[unit(5, None, True)])
    assert found(named("theorem-4.1"), made).values[2] == math.inf


RATES = (0.1, 0.2, 0.4)


def swept(folder: Path, **best: list[float]) -> Study:
    """A study of learning rates in which a variant learns up to its rate, by seed, and diverges at
    larger ones."""
    made = study(folder, "learning_rates", lr=list(RATES))
    for variant, rates in best.items():
        for seed, largest in enumerate(rates):
            for i, lr in enumerate(RATES):
                bad = None if lr <= largest else 3
                var = [{"step": t, "var": [1.0, 10.0**t, x]} for t, x in ((0, 5.0), (1, 700.0))]
                moments = [*var, {"step": 2, "var": [1.0, None, None]}]
                accuracy = 0.3 + i / 10 + (0.02 if variant == "batchnorm" else 0.0)
                trained(made, variant, seed, accuracy, lr=lr, diverged=bad, moments=moments)
    return made


def test_the_largest_rate_is_compared_by_seed(tmp_path: Path) -> None:
    made = swept(tmp_path / "s", batchnorm=[0.4, 0.2], standard=[0.1, 0.1], l1=[0.1, 0.1])
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
