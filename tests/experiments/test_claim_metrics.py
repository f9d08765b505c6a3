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

from experiments.claiming import layers, metrics, rules, walks
from experiments.claiming.claim import at
from experiments.claiming.evidence import Missing, Trace
from experiments.claiming.metrics import Quantity, difference, quotient
from experiments.running.study import Study


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
        walks.walk("loss", 0, 10).of(run)


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
    seen = [
        step_of_walk(0, [1.0, 9.0]),
        step_of_walk(4, [1.0, 100.0]),
        step_of_walk(4, [0.0, 1e9], direction="random"),
        step_of_walk(6, [1.0, 4.0]),
        step_of_walk(8, [1.0, 2.0]),
    ]
    run = trace(tmp_path / "s", landscape=seen)
    assert walks.walk("loss", 4, 10).of(run) == 3.0
    assert walks.walk("change", 4, 10, over="largest").of(run) == 100.0
    assert walks.walk("decades", 4, 5).of(run) == pytest.approx(2)
    assert walks.walk("beta over its floor", 8, 9).of(run) == pytest.approx(0.1)
    assert walks.walk("beta over the edge", 8, 9).of(run) == pytest.approx(0.1)
    assert walks.walk("gradient", 0, 10).of(run) == 3.0
    assert walks.walk("loss", 0, 10, direction="random").of(run) == 1e9
    with pytest.raises(Missing, match=r"no records of landscape, gradient at steps 1 to 3"):
        walks.walk("loss", 1, 3).of(run)


def test_a_walk_that_left_the_finite_is_wider_than_any(tmp_path: Path) -> None:
    run = trace(tmp_path / "s", landscape=[step_of_walk(0, [1.0, None])])
    assert walks.walk("loss", 0, 1).of(run) == math.inf
    assert walks.walk("beta", 0, 1).of(run) == math.inf


def test_a_hessian_that_was_not_finite_is_sharper_than_any(tmp_path: Path) -> None:
    seen = [
        {"step": 0, "eigenvalues": [30.0, 10.0], "along_gradient": 5.0},
        {"step": 5, "eigenvalues": [], "along_gradient": None},
    ]
    run = trace(tmp_path / "s", curvature=seen)
    assert walks.sharpness(0, 5).of(run) == 30
    assert walks.sharpness(0, 5, over_edge=True).of(run) == pytest.approx(1.5)
    assert walks.sharpness(0, 5, along=True).of(run) == 5
    assert walks.sharpness(5, 6).of(run) == walks.sharpness(5, 6, along=True).of(run) == math.inf


def test_random_walks_are_compared_up_to_the_same_distance(tmp_path: Path) -> None:
    def along(slope: float, length: float) -> dict[str, Any]:
        losses: list[float | None] = [1 + slope * length * eta for eta in (0.05, 0.4)]
        return step_of_walk(600, losses, direction="random", loss=1.0, gradient_norm=length)

    made = study(tmp_path / "s", steps=2000)
    for seed in (0, 1):
        trained(made, "standard", seed, steps=2000, landscape=[along(4, 1.0)])
        trained(made, "batchnorm", seed, steps=2000, landscape=[along(1, 8.0)])
    alike = found(named("random-directions-alike"), made)
    assert alike.values == pytest.approx({0: 0.5, 1: 0.5})
    assert found(named("random-directions-at-equal-distance"), made).values == pytest.approx(
        {0: 4, 1: 4}
    )


def test_a_band_within_a_distance_has_straight_lines_and_may_be_infinite() -> None:
    curve = (np.array([0.0, 1.0, 3.0]), np.array([5.0, 4.0, 8.0]))
    assert [walks.band_within(curve, r) for r in (0.5, 1.5, 3)] == pytest.approx([0.5, 1, 4])
    lost = (curve[0], np.array([5.0, math.inf, 4.0]))
    assert walks.band_within(lost, 1.0) == math.inf


def test_a_verdict_on_beta_says_how_often_it_is_a_bound(tmp_path: Path) -> None:
    made = study(tmp_path / "s", steps=2000)
    for seed in (0, 1):
        for variant, beta in (("standard", 8.0), ("batchnorm", 2.0)):
            flags = {"saturated": variant == "batchnorm", "at_ceiling": seed == 1}
            seen = [step_of_walk(600, [beta, 1.0], **flags)]
            trained(made, variant, seed, steps=2000, landscape=seen)
    finding = found(named("bn-beta"), made)
    assert (finding.mean, str(finding.verdict)) == (4, "reproduced")
    assert finding.remark == (
        "standard saturated in 0% of its walks, at the ceiling in 50%; "
        "batchnorm saturated in 100% of its walks, at the ceiling in 50%"
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


def test_spread_at_the_norms_input_is_not_that_of_the_activation(tmp_path: Path) -> None:
    records = []
    for place, by in (("activation", 2.0), ("norm_input", 4.0)):
        for record in moments(place, 0, {0: 0.0, 100: 0.0}):
            records.append({**record, "quantiles": [by * (record["step"] == 100)] * 7})
    bn = trace(tmp_path / "bn", norm="batch", steps=200, distributions=records)
    assert layers.spread(0, 200, [2]).of(bn) == pytest.approx([1])
    assert layers.spread(0, 200, [2], "norm_input").of(bn) == pytest.approx([2])
    std = trace(tmp_path / "std", "standard", steps=200, distributions=records)
    assert layers.spread(0, 200, [2], "norm_input").of(std) == pytest.approx([1])


def test_on_its_own_scale_a_distribution_that_is_moved_and_stretched_has_not_changed(
    tmp_path: Path,
) -> None:
    first, second = moments("activation", 0, {0: 0.0, 100: 10.0})
    normal = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    first["quantiles"] = (2 * normal).tolist()
    same = {**second, "var": 100.0, "quantiles": (10 + 10 * normal).tolist()}
    bent = {**second, "quantiles": (10 + 2 * normal + 2).tolist()}
    spread = layers.spread(0, 200, [2], own_scale=True)
    for name, then, changed in (("same", same, 0), ("bent", bent, 1)):
        run = trace(tmp_path / name, steps=200, distributions=[first, then])
        assert spread.of(run) == pytest.approx([changed])
        assert layers.spread(0, 200, [2]).of(run)[0] > 4


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


@pytest.mark.parametrize(
    ("cosines", "parallel", "uncorrelated"),
    [
        ((0.9, -0.9), "contradicted", "contradicted"),
        ((-0.95, -0.95), "contradicted", "contradicted"),
        ((0.2, -0.1), "contradicted", "reproduced"),
        ((0.99, 0.97), "reproduced", "contradicted"),
        ((0.99, 0.7), "undecided", "contradicted"),
    ],
)
def test_layers_of_opposite_signs_are_neither_parallel_nor_uncorrelated(
    cosines: tuple[float, float], parallel: str, uncorrelated: str
) -> None:
    for id, word in (("dln-std-without-ics", parallel), ("dln-bn-uncorrelated", uncorrelated)):
        what = named(id)
        x = float(what.metric.fold(np.array(cosines)))
        assert rules.judge(what.rule, {0: x, 1: x}, {}).word == word


def test_quotients_of_layers_are_averaged_geometrically(tmp_path: Path) -> None:
    run = trace(tmp_path / "s")
    numbers = iter([np.array([8.0, 2.0]), np.array([1.0, 1.0])] * 2)
    twice = Quantity("q", lambda run: next(numbers))
    assert quotient(twice)([run, run]) == pytest.approx(4)
    assert difference(twice)([run, run]) == pytest.approx(4)
    assert quotient(Quantity("q", lambda run: 0.0))([run, run]) == pytest.approx(1)
