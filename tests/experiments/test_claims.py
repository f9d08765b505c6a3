"""Claims: rules give the verdicts they promise, on studies whose numbers the test knows."""

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import claims
from experiments.claiming import layers, metrics, rules
from experiments.claiming.claim import Claim, Finding, at, find
from experiments.claiming.evidence import Evidence, Key, Missing, Trace
from experiments.claiming.metrics import Metric, Quantity, difference, itself, quotient
from experiments.study import Run, Study
from minibn.errors import DataError

KINDS = ("vgg_cifar", "deep_linear", "theorems", "learning_rates")
STEPS = 10
SETTINGS = {
    "model": "vgg11", "width": 0.5, "head": "linear", "data": "shapes", "batch_size": 16,
    "steps": STEPS, "threads": 1, "record_every": 5,
}  # fmt: skip


def study(folder: Path, kind: str = "vgg_cifar", **settings: Any) -> Study:
    return Study.create(folder, kind, {**SETTINGS, **settings})


def trained(
    study: Study,
    variant: str,
    seed: int = 0,
    accuracy: Any = 0.5,
    *,
    lr: float = 0.1,
    steps: int = STEPS,
    norm: str = "none",
    data: str = "d",
    diverged: int | None = None,
    **streams: Iterable[dict[str, Any]],
) -> Run:
    """A run that claims this accuracy (one, or one a step), loss 1 - accuracy, these records."""
    run = study.run(f"{variant}-lr{lr:g}-seed{seed}")
    config = {"variant": variant, "lr": lr, "seed": seed, "norm": norm, "settings": study.settings}
    run.begin({**config, "data_fingerprint": data, "environment": {"threads": 1, "commit": "c"}})
    curve = np.broadcast_to(np.asarray(accuracy, np.float64), steps)[:diverged]
    for step, a in enumerate(curve.tolist()):
        run.stream("metrics").append({"step": step, "loss": 1 - a, "accuracy": a, "lr": lr})
    test = {"step": len(curve) - 1, "updates": len(curve), "accuracy": float(curve[-1])}
    streams = {"test": [test], **streams}
    for name, records in streams.items():
        for record in records:
            run.stream(name).append(record)
    done = {"status": "done", "steps": steps}
    run.finish(done if diverged is None else {"status": "diverged", "step": diverged})
    return run


def pair(folder: Path, ours: list[float], theirs: list[float], **settings: Any) -> Study:
    """batchnorm and standard, a run a seed, with these accuracies."""
    made = study(folder, **settings)
    for variant, numbers in (("batchnorm", ours), ("standard", theirs)):
        for seed, accuracy in enumerate(numbers):
            trained(made, variant, seed, accuracy)
    return made


def claim(metric: Metric, rule: rules.Rule, *keys: Key, **more: Any) -> Claim:
    kind = more.pop("kind", "vgg_cifar")
    return Claim("id", "says", "place", kind, keys, metric, rule, "why", **more)


ACCURACY = metrics.train_accuracy(0, STEPS)
BETTER = claim(difference(ACCURACY), rules.more_by(0.02), *at(0.1, "batchnorm", "standard"))


def found(what: Claim, *studies: Study) -> Finding:
    return find(what, Evidence([s.folder for s in studies], KINDS))


# The verdict


def test_a_rule_that_holds_at_every_seed_is_reproduced(tmp_path: Path) -> None:
    finding = found(BETTER, pair(tmp_path / "s", [0.8, 0.7, 0.9], [0.5, 0.5, 0.6]))
    assert str(finding.verdict) == "reproduced"
    assert finding.values == pytest.approx({0: 0.3, 1: 0.2, 2: 0.3})
    assert finding.mean == pytest.approx(0.8 / 3)


def test_an_opposite_that_holds_at_every_seed_is_contradicted(tmp_path: Path) -> None:
    finding = found(BETTER, pair(tmp_path / "s", [0.5, 0.5], [0.8, 0.7]))
    assert str(finding.verdict) == "contradicted"


@pytest.mark.parametrize(
    ("ours", "reason"),
    [
        ([0.51, 0.49], "within the margin"),
        ([0.6, 0.4], "seeds disagree (1 of 2 hold, 1 hold the opposite)"),
        ([0.9, 0.9, 0.51], "seeds disagree (2 of 3 hold, 0 hold the opposite)"),
        ([0.2, 0.49], "seeds disagree (0 of 2 hold, 1 hold the opposite)"),
        ([0.9], "n = 1"),
        ([0.1], "n = 1"),
    ],
)
def test_anything_else_is_undecided_and_says_why(
    tmp_path: Path, ours: list[float], reason: str
) -> None:
    finding = found(BETTER, pair(tmp_path / "s", ours, [0.5] * len(ours)))
    assert str(finding.verdict) == f"undecided: {reason}"


@pytest.mark.parametrize("what", claims.CLAIMS, ids=lambda c: c.id)
def test_no_claim_is_decided_by_one_seed(what: Claim) -> None:
    for x in (-math.inf, -1e9, -1, 0, 1e-9, 0.1, 1, 1e9, math.inf):
        assert rules.judge(what.rule, {0: x}, {}, what.metric.quotient).word == "undecided"


def test_a_seed_without_a_number_leaves_the_claim_undecided(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    trained(made, "batchnorm", 2, 0.9, steps=7)
    trained(made, "standard", 2, 0.5)
    finding = found(BETTER, made)
    assert set(finding.values) == {0, 1}
    assert str(finding.verdict) == "undecided: batchnorm at lr 0.1, seed 2 has 7 of the 10 steps"


def test_a_mean_is_geometric_for_quotients_only() -> None:
    assert rules.mean({0: 1.0, 1: 100.0}, quotient=True) == pytest.approx(10)
    assert rules.mean({0: 1.0, 1: 100.0}, quotient=False) == pytest.approx(50.5)


@pytest.mark.parametrize(
    ("rule", "holds", "opposite", "neither"),
    [
        (rules.more_by(0.1), [0.1, 5], [-0.1, -5], [0, 0.09, -0.09]),
        (rules.times(2), [2, math.inf], [0.5, 0], [1, 1.9, 0.51]),
        (rules.at_most(0.15, opposite=0.3), [0.15, 0], [0.3, 1], [0.2]),
        (rules.close(0.1, to=1), [0.95, 1.05], [0.79, 1.21], [0.85, 1.15]),
        (rules.alike(2), [0.5, 1, 2], [0.25, 4], [0.3, 3]),
    ],
)
def test_a_rule_its_opposite_and_the_margin_between(
    rule: rules.Rule, holds: list[float], opposite: list[float], neither: list[float]
) -> None:
    for x in [*holds, *opposite, *neither]:
        assert (rule.holds(x), rule.opposite(x)) == (x in holds, x in opposite), x


# Which runs


def test_missing_runs_are_named(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    l1 = claim(difference(ACCURACY), rules.more_by(0.02), *at(0.1, "l1", "standard"))
    assert found(l1, made).verdict.reason == "no run of l1 at lr 0.1 in these studies"
    faster = claim(difference(ACCURACY), rules.more_by(0.02), *at(0.5, "batchnorm", "standard"))
    assert found(faster, made).verdict.reason == "no run of batchnorm at lr 0.5 in these studies"
    linear = claim(itself(ACCURACY), rules.more_by(0.02), Key("l1", 1e-6), kind="deep_linear")
    assert found(linear, made).verdict.reason == "no study of deep_linear was given"


def test_runs_are_paired_by_seed_and_others_do_not_count(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    for seed, accuracy in ((0, 0.9), (1, 0.8), (2, 0.1)):
        trained(made, "batchnorm", seed, accuracy)
    for seed, accuracy in ((1, 0.5), (0, 0.4), (7, 0.99)):
        trained(made, "standard", seed, accuracy)
    assert found(BETTER, made).values == pytest.approx({0: 0.5, 1: 0.3})
    other = study(tmp_path / "other")
    trained(other, "batchnorm", 0)
    trained(other, "standard", 1)
    assert "have no seed in common" in found(BETTER, other).verdict.reason


def test_seeds_may_lie_in_several_studies(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1", record_every=5), study(tmp_path / "2", record_every=9)
    for made, seed in ((one, 0), (two, 1)):
        trained(made, "batchnorm", seed, 0.9)
        trained(made, "standard", seed, 0.5)
    assert found(BETTER, one, two).verdict.word == "reproduced"


@pytest.mark.parametrize("changed", [{"width": 1.0}, {"steps": 20}, {"weight_decay": 4e-4}])
def test_studies_of_another_scale_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    one, two = pair(tmp_path / "1", [0.9], [0.5]), pair(tmp_path / "2", [0.9], [0.5], **changed)
    with pytest.raises(DataError, match=f"{next(iter(changed))} .*like with like"):
        found(BETTER, one, two)


def test_runs_that_saw_other_data_are_refused(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    trained(one, "batchnorm", data="original")
    trained(two, "standard", data="recompressed")
    with pytest.raises(DataError, match="saw other data"):
        found(BETTER, one, two)


def test_data_may_belong_to_the_seed_but_not_to_the_variant(tmp_path: Path) -> None:
    made = study(tmp_path / "s", "deep_linear")
    for seed in (0, 1):
        trained(made, "batchnorm", seed, data=f"drawn {seed}")
    Evidence([made.folder], KINDS)
    trained(made, "standard", 1, data="drawn 7")
    with pytest.raises(DataError, match="saw other data"):
        Evidence([made.folder], KINDS)


def test_one_training_in_two_studies_counts_once_with_what_each_measured(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    for seed in (0, 1):
        trained(one, "batchnorm", seed, 0.9)
        trained(two, "batchnorm", seed, 0.9, shift=[{"step": 0, "layer": 4, "l2": 3.0}])
    what = claim(itself(layers.shift("l2", 0, 1, [5])), rules.at_least(2, 1), Key("batchnorm", 0.1))
    assert found(what, one).verdict.reason.endswith("has no records of shift, 3 at step 0")
    # layer 5 of 13 lies as deep as layer 3 of 8, which nobody measured; layer 4 is the paper's 6
    what = claim(itself(layers.shift("l2", 0, 1, [6])), rules.at_least(2, 1), Key("batchnorm", 0.1))
    assert found(what, one, two).values == {0: 3.0, 1: 3.0}


def test_two_trainings_of_one_name_that_differ_are_refused(tmp_path: Path) -> None:
    one, two = study(tmp_path / "1"), study(tmp_path / "2")
    trained(one, "batchnorm", 0, 0.9)
    trained(two, "batchnorm", 0, 0.8)
    with pytest.raises(DataError, match="different trainings of one variant"):
        found(BETTER, one, two)


def test_a_claim_of_one_scale_is_not_judged_by_another(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9, 0.9], [0.5, 0.5])
    full = claim(BETTER.metric, BETTER.rule, *BETTER.runs, scale={"width": 1.0})
    reason = found(full, made).verdict.reason
    assert reason == "it is about width 1.0, these studies have 0.5"


# Metrics


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
    (fails,) = [c for c in claims.CLAIMS if c.id == "std-fails-at-0.5"]
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


def theorem(id: str) -> Claim:
    (what,) = [c for c in claims.CLAIMS if c.id == id]
    return what


def test_an_identity_is_judged_by_its_worst_case_and_a_form_without_eps_without(
    tmp_path: Path,
) -> None:
    made = study(tmp_path / "s", "theorems")
    for seed in (0, 1):
        heads = [unit(0, 1e-15, True, eps=0.0), unit(0, 1e-15, False, eps=0.1)]
        layer = [unit(5, 3e-12, False), unit(6, 1e-16, False, curvature=0.5)]
        trained(made, "batchnorm", seed, steps=2000, heads=heads, theorems=layer)
    exact = found(theorem("theorem-4.1"), made)
    assert (exact.values, exact.verdict.word) == ({0: 3e-12, 1: 3e-12}, "reproduced")
    assert found(theorem("theorem-4.1-printed"), made).values == {0: 1, 1: 1}
    assert found(theorem("theorem-4.2b"), made).values == {0: 0, 1: 0}
    assert found(theorem("curvature-smaller"), made).values == {0: 0.5, 1: 0.5}
    trained(made, "batchnorm", 2, steps=2000, heads=heads, theorems=[unit(5, None, True)])
    assert found(theorem("theorem-4.1"), made).values[2] == math.inf


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
    larger = found(theorem("bn-larger-rates"), made)
    assert larger.values == pytest.approx({0: 4, 1: 2})
    assert larger.verdict.word == "reproduced"
    assert "standard" in larger.claim.measured and "lr 0" not in larger.claim.measured
    assert found(theorem("bn-stable-at-larger-rates"), made).values == pytest.approx({0: 4, 1: 2})
    assert found(theorem("l1-larger-rates"), made).verdict.reason == "within the margin"
    small = found(theorem("equal-at-small-rates"), made)
    assert small.values == pytest.approx({0: 0.02, 1: 0.02})
    share = found(theorem("gain-is-by-rates"), made)
    assert share.values == pytest.approx({0: 0.2 / 0.22, 1: 0.1 / 0.12})
    assert found(theorem("explodes-with-depth"), made).values == pytest.approx({0: 700, 1: 700})


def test_a_sweep_that_has_not_ended_decides_nothing(tmp_path: Path) -> None:
    made = swept(tmp_path / "s", batchnorm=[0.4, 0.2], standard=[0.1, 0.1])
    (made.run("standard-lr0.2-seed1").folder / "result.json").unlink()
    reason = found(theorem("bn-larger-rates"), made).verdict.reason
    assert reason == "standard, seed 1 has not ended at lr 0.2"
    assert found(theorem("l1-larger-rates"), made).verdict.reason.startswith("no run of l1 in")


def test_rates_above_one_at_which_every_seed_of_the_study_diverged_need_not_be_run(
    tmp_path: Path,
) -> None:
    one = swept(tmp_path / "1", batchnorm=[0.4], standard=[0.1])
    two = study(tmp_path / "2", "learning_rates", lr=list(RATES))
    for lr in RATES:
        trained(two, "batchnorm", 1, 0.3, lr=lr)
        if lr < 0.4:
            trained(two, "standard", 1, 0.3, lr=lr, diverged=None if lr < 0.2 else 3)
    assert found(theorem("bn-larger-rates"), one, two).values == pytest.approx({0: 4, 1: 4})
    trained(two, "standard", 2, 0.3, lr=0.2)  # in that study another seed bears 0.2
    reason = found(theorem("bn-larger-rates"), one, two).verdict.reason
    assert reason == "standard, seed 1 has not ended at lr 0.4"


def test_grids_that_differ_are_refused(tmp_path: Path) -> None:
    one = swept(tmp_path / "1", batchnorm=[0.4])
    two = study(tmp_path / "2", "learning_rates", lr=[0.1, 0.2])
    with pytest.raises(DataError, match=r"has lr .*like with like"):
        found(theorem("bn-larger-rates"), one, two)


# The claims themselves


@pytest.mark.parametrize("what", claims.CLAIMS, ids=lambda c: c.id)
def test_every_claim_has_a_source_a_metric_a_rule_and_its_reason(what: Claim) -> None:
    assert what.says and what.place and what.why and not what.why.endswith(".")
    assert len(what.says) <= 70
    assert what.kind in KINDS and what.runs
    rule = what.rule
    assert rule.refuted and rule.low <= rule.high
    for x in (rule.low, rule.high, rule.below, rule.above):
        assert not (rule.holds(x) and rule.opposite(x))
    assert "{" not in what.measured and all(key.variant in what.measured for key in what.runs)


def test_ids_are_unique_and_every_claim_stands_in_one_section() -> None:
    ids = [what.id for what in claims.CLAIMS]
    assert len(set(ids)) == len(ids) == sum(map(len, claims.SECTIONS.values()))


# The paper's text says so, and its figures don't (digitised).
AGAINST_ITSELF = {
    "mean-as-stable", "variance-as-stable", "bn-predictiveness-two-orders", "dln-loss-band",
    "dln-std-without-ics-1e-6",
}  # fmt: skip


def test_the_papers_own_curves_fulfil_every_rule_but_those_its_figures_contradict() -> None:
    numbers = {c.id: c for c in claims.CLAIMS if c.paper is not None}
    assert {i for i, c in numbers.items() if not c.rule.holds(c.paper or 0)} == AGAINST_ITSELF
    assert all(numbers[i].rule.opposite(numbers[i].paper or 0) for i in AGAINST_ITSELF)


# The program


def test_the_command_prints_the_table_and_writes_it_without_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = study(tmp_path / "s", steps=2000, data_dir=str(tmp_path))
    for seed in (0, 1):
        trained(made, "batchnorm", seed, 0.9, steps=2000)
        trained(made, "standard", seed, 0.5, steps=2000)
        trained(made, "noisy-batchnorm", seed, 0.5, steps=2000)
    linear = study(tmp_path / "linear", "deep_linear")
    trained(linear, "batchnorm", lr=1e-6, diverged=4)
    out = tmp_path / "out"
    assert claims.main([str(made.folder), str(linear.folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "BatchNorm trains faster at lr 0.1" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == ["0.26", "0.4 (0.4 to 0.4), n = 2", "**reproduced**"]
    assert "| **contradicted** |" in said  # noisy BatchNorm is far from BatchNorm here
    text = (out / "claims.md").read_text()
    content = json.loads((out / "claims.json").read_text(), parse_constant=lambda c: 1 / 0)
    for written in (text, json.dumps(content)):
        assert str(tmp_path) not in written
    assert f"{len(claims.CLAIMS)} claims: " in text and row in text
    for what in claims.CLAIMS:
        assert text.count(f"`{what.id}`") == 1
    entry = content["claims"][0]
    assert entry["seeds"] == {"0": pytest.approx(0.4), "1": pytest.approx(0.4)}
    assert (entry["n"], entry["verdict"]) == (2, "reproduced")
    described = content["studies"]["deep_linear"]["runs"]["batchnorm-lr1e-06-seed0"]
    assert described == {"result": {"status": "diverged", "step": 4}, "commit": "c"}
    assert content["studies"]["vgg_cifar"]["settings"]["steps"] == 2000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which studies?"),
        (["nowhere"], "there is no study"),
        (["s", "wide"], "like with like"),
        (["s", "other"], "is a study of cooking. There are claims about deep_linear, "),
        (["s", "--outt", "x"], "Did you mean --out?"),
    ],
)
def test_what_cannot_be_judged_ends_in_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    study(Path("s"))
    study(Path("wide"), width=1.0)
    study(Path("other"), "cooking")
    assert claims.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m experiments.claims: ") and says in line


def test_claims_need_no_matplotlib(tmp_path: Path) -> None:
    made = pair(tmp_path / "s", [0.9], [0.5])
    program = (
        "import sys; sys.modules['matplotlib'] = None; from experiments import claims; "
        f"sys.exit(claims.main([{str(made.folder)!r}]))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr
