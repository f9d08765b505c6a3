"""Metrics of claims: the number of each, from runs with given records."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claim_studies import (
    BETTER,
    add_run,
    claim,
    forget_streams,
    judge,
    named,
    pair,
    study,
    trace,
)

from experiments.claiming import metrics, probes, rules
from experiments.claiming.claim import LEAD, at
from experiments.claiming.evidence import Missing, Trace
from experiments.claiming.metrics import Quantity, difference, quotient
from experiments.training.study import Study


def test_a_diverged_run_counts_as_chance_from_there_on(tmp_path: Path) -> None:
    run = trace(tmp_path / "s", accuracy=0.6, diverged=4)
    assert metrics.train_accuracy(0, 10).of(run) == pytest.approx((4 * 0.6 + 6 * 0.1) / 10)
    assert metrics.train_accuracy(5, 10).of(run) == pytest.approx(0.1)
    assert metrics.train_accuracy(0, 4).of(run) == pytest.approx(0.6)
    assert metrics.test_accuracy(10).of(run) == pytest.approx(0.1)
    assert metrics.train_loss(0, 10).of(run) == math.inf
    with pytest.raises(Missing, match="diverged at step 4"):
        probes.probe_quantity(probes.loss_band, 0, 10).of(run)


def test_a_standard_network_that_diverges_fails(tmp_path: Path) -> None:
    fails = named("std-fails-at-0.5")
    made = study(tmp_path / "s", steps=2000)
    for seed in (0, 1):
        add_run(made, "standard", seed, 0.3, lr=0.5, steps=2000, diverged=40)
    finding = judge(fails, made)
    assert finding.values == pytest.approx({0: 0.1, 1: 0.1})
    assert finding.verdict.word == "reproduced"


def test_a_loss_that_diverged_is_larger_than_any(tmp_path: Path) -> None:
    made = study(tmp_path / "s", "deep_linear")
    for seed in (0, 1):
        add_run(made, "standard", seed, 0.3, diverged=3)
        add_run(made, "batchnorm", seed, 0.6)
    less = claim(
        quotient(metrics.train_loss(5, 10)), rules.times(2), *at(0.1, "standard", "batchnorm"),
        kind="deep_linear",
    )  # fmt: skip
    assert judge(less, made).verdict.word == "reproduced"
    both = claim(less.metric, less.rule, *at(0.1, "standard", "standard"), kind="deep_linear")
    assert judge(both, made).verdict.reason.startswith("not a number: standard at lr 0.1, seed 0")


@pytest.mark.parametrize("bad", [None, math.nan])
def test_an_accuracy_that_is_no_number_leaves_the_claim_undecided(
    tmp_path: Path, bad: float | None
) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    forget_streams(made.run("standard-lr0.1-seed1"))
    path = made.run("standard-lr0.1-seed1").folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[3]["accuracy"] = bad
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert judge(BETTER, made).verdict.reason.startswith("not a number: ")


def test_train_accuracy_is_the_mean_over_its_steps_alone(tmp_path: Path) -> None:
    run = trace(tmp_path / "s", accuracy=np.arange(10) / 10)
    assert metrics.train_accuracy(2, 5).of(run) == pytest.approx(0.3)
    assert metrics.test_accuracy(10).of(run) == pytest.approx(0.9)
    with pytest.raises(Missing, match="no test accuracy after 5 updates"):
        metrics.test_accuracy(5).of(run)


def probe_record(step: int, losses: list[float | None], **more: Any) -> dict[str, Any]:
    return {
        "step": step, "lr": 0.1, "direction": "gradient", "gradient_norm": 3.0,
        "losses": losses, "gradient_change": losses, "beta": losses,
        "step_sizes": [0.05, 0.4], **more,
    }  # fmt: skip


def test_probes_are_read_along_the_gradient_within_their_steps(tmp_path: Path) -> None:
    seen = [
        probe_record(0, [1.0, 9.0]),
        probe_record(4, [1.0, 100.0]),
        probe_record(4, [0.0, 1e9], direction="random"),
        probe_record(6, [1.0, 4.0]),
        probe_record(8, [1.0, 2.0]),
    ]
    run = trace(tmp_path / "s", landscape=seen)
    assert probes.probe_quantity(probes.loss_band, 4, 10).of(run) == 3.0
    assert probes.probe_quantity(probes.gradient_change, 4, 10, over="largest").of(run) == 100.0
    assert probes.probe_quantity(probes.decades, 4, 5).of(run) == pytest.approx(2)
    assert probes.probe_quantity(probes.beta_over_floor, 8, 9).of(run) == pytest.approx(0.1)
    assert probes.probe_quantity(probes.beta_over_edge, 8, 9).of(run) == pytest.approx(0.1)
    assert probes.probe_quantity(probes.gradient_norm, 0, 10).of(run) == 3.0
    assert probes.probe_quantity(probes.loss_band, 0, 10, direction="random").of(run) == 1e9
    with pytest.raises(Missing, match=r"no records of landscape, gradient at steps 1 to 3"):
        probes.probe_quantity(probes.loss_band, 1, 3).of(run)


def test_a_probe_that_left_the_finite_is_wider_than_any(tmp_path: Path) -> None:
    run = trace(tmp_path / "s", landscape=[probe_record(0, [1.0, None])])
    assert probes.probe_quantity(probes.loss_band, 0, 1).of(run) == math.inf
    assert probes.probe_quantity(probes.beta, 0, 1).of(run) == math.inf


def test_a_hessian_that_was_not_finite_is_sharper_than_any(tmp_path: Path) -> None:
    seen = [
        {"step": 0, "eigenvalues": [30.0, 10.0], "along_gradient": 5.0},
        {"step": 5, "eigenvalues": [], "along_gradient": None},
    ]
    run = trace(tmp_path / "s", curvature=seen)
    assert probes.hessian(0, 5).of(run) == 30
    assert probes.hessian(0, 5, over_edge=True).of(run) == pytest.approx(1.5)
    assert probes.along_gradient(0, 5).of(run) == 5
    assert probes.hessian(5, 6).of(run) == probes.along_gradient(5, 6).of(run) == math.inf


def test_curvature_along_the_gradient_is_compared_by_its_size(tmp_path: Path) -> None:
    made = study(tmp_path / "s", steps=2000)
    read = []
    for variant, curvatures in (("standard", (-6.0, 6.0, 8.0)), ("batchnorm", (-2.0, -2.0, 9.0))):
        seen = [{"step": 500 + 500 * i, "along_gradient": x} for i, x in enumerate(curvatures)]
        run = Trace(add_run(made, variant, steps=2000, curvature=seen))
        read.append(
            [probes.along_gradient(*LEAD, signed=signed).of(run) for signed in (True, False)]
        )
    assert read == [[6, 6], [-2, 2]]
    finding = judge(named("bn-curves-less-along-the-gradient"), made)
    assert finding.values == pytest.approx({0: 3})


def landscapes(folder: Path, kind: str, lr: float, steps: int, **losses: list[float]) -> Study:
    """A probe a variant, in the middle of a run, at two seeds."""
    made = study(folder, kind, steps=steps, depth=25)
    for variant, of in losses.items():
        for seed in (0, 1):
            seen = [probe_record(600, [*of], saturated=True, at_ceiling=False)]
            add_run(made, variant, seed, lr=lr, steps=steps, landscape=seen)
    return made


def test_beta_of_an_lp_norm_is_compared_with_no_norm_and_with_batchnorm(tmp_path: Path) -> None:
    made = landscapes(
        tmp_path / "s", "vgg_cifar", 0.1, 2000,
        standard=[6.0, 1.0], batchnorm=[2.0, 1.0], l1=[3.0, 1.0], linf=[2.0, 1.5],
    )  # fmt: skip
    smaller, similar = (judge(named(id), made) for id in ("l1-beta", "l1-beta-as-bn"))
    assert (smaller.mean, smaller.verdict.word) == (pytest.approx(2), "reproduced")
    assert (similar.mean, similar.verdict.word) == (pytest.approx(1.5), "contradicted")
    assert similar.remark.startswith("l1 saturated in 100% of its probes")
    assert judge(named("linf-beta-as-bn"), made).verdict.word == "reproduced"
    assert judge(named("l2-beta"), made).verdict.reason.startswith("no run of l2")


def test_the_deep_linear_landscape_of_an_lp_norm_is_compared_with_no_norm(tmp_path: Path) -> None:
    made = landscapes(
        tmp_path / "s", "deep_linear", 1e-6, 10_000,
        standard=[1.0, 100.0], l1=[1.0, 10.0], linf=[1.0, 1000.0],
    )  # fmt: skip
    band, change = (judge(named(f"dln-l1-{what}"), made) for what in ("loss-band", "change"))
    assert (band.mean, change.mean) == (pytest.approx(1), pytest.approx(10))
    words = [
        judge(named(f"dln-linf-{what}"), made).verdict.word for what in ("loss-band", "change")
    ]
    assert words == ["contradicted", "contradicted"]


def test_random_probes_are_compared_up_to_the_same_distance(tmp_path: Path) -> None:
    def along(slope: float, length: float) -> dict[str, Any]:
        losses: list[float | None] = [1 + slope * length * eta for eta in (0.05, 0.4)]
        return probe_record(600, losses, direction="random", loss=1.0, gradient_norm=length)

    made = study(tmp_path / "s", steps=2000)
    for seed in (0, 1):
        add_run(made, "standard", seed, steps=2000, landscape=[along(4, 1.0)])
        add_run(made, "batchnorm", seed, steps=2000, landscape=[along(1, 8.0)])
    alike = judge(named("random-directions-alike"), made)
    assert alike.values == pytest.approx({0: 0.5, 1: 0.5})
    assert judge(named("random-directions-at-equal-distance"), made).values == pytest.approx(
        {0: 4, 1: 4}
    )


def test_a_band_within_a_distance_has_straight_lines_and_may_be_infinite() -> None:
    curve = (np.array([0.0, 1.0, 3.0]), np.array([5.0, 4.0, 8.0]))
    assert [probes.band_within(curve, r) for r in (0.5, 1.5, 3)] == pytest.approx([0.5, 1, 4])
    lost = (curve[0], np.array([5.0, math.inf, 4.0]))
    assert probes.band_within(lost, 1.0) == math.inf


def test_a_verdict_on_beta_says_how_often_it_is_a_bound(tmp_path: Path) -> None:
    made = study(tmp_path / "s", steps=2000)
    for seed in (0, 1):
        for variant, beta in (("standard", 8.0), ("batchnorm", 2.0)):
            flags = {"saturated": variant == "batchnorm", "at_ceiling": seed == 1}
            seen = [probe_record(600, [beta, 1.0], **flags)]
            add_run(made, variant, seed, steps=2000, landscape=seen)
    finding = judge(named("bn-beta"), made)
    assert (finding.mean, str(finding.verdict)) == (4, "reproduced")
    assert finding.remark == (
        "standard saturated in 0% of its probes, at the ceiling in 50%; "
        "batchnorm saturated in 100% of its probes, at the ceiling in 50%"
    )


def test_quotients_of_layers_are_averaged_geometrically(tmp_path: Path) -> None:
    run = trace(tmp_path / "s")
    numbers = iter([np.array([8.0, 2.0]), np.array([1.0, 1.0])] * 2)
    twice = Quantity("q", lambda run: next(numbers))
    assert quotient(twice)([run, run]) == pytest.approx(4)
    assert difference(twice)([run, run]) == pytest.approx(4)
    assert quotient(Quantity("q", lambda run: 0.0))([run, run]) == pytest.approx(1)
