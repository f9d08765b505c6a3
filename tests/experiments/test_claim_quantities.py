"""What claims measure, from streams with known numbers."""

from typing import Any

import numpy as np
import pytest

from experiments.claiming import quantities as q
from experiments.claiming.streams import Missing, RunStreams, tables_of


def run(variant: str = "batchnorm", **streams: list[dict[str, Any]]) -> RunStreams:
    """A run of 100 steps whose accuracy is its step / 100 and whose loss is 2 - accuracy."""
    metrics = [{"step": t, "loss": 2 - t / 100, "accuracy": t / 100} for t in range(100)]
    made = RunStreams(
        study="study", kind="vgg_cifar", variant=variant, lr=0.1, seed=10,
        settings={"model": "vgg16", "lr": [0.1]}, environment={},
        result={"status": "done", "steps": 100}, seconds=1.0, norm="none", data="d",
    )  # fmt: skip
    for name, records in {"metrics": metrics, **streams}.items():
        made.tables.update(tables_of(name, records))
    return made


def probe(step: int, losses: Any, change: Any = (1.0, 2.0), loss: float = 2.0) -> dict[str, Any]:
    return {
        "step": step, "direction": "gradient", "loss": loss, "gradient_norm": 2.0,
        "step_sizes": [0.001, 0.1], "losses": losses, "gradient_change": list(change),
        "beta": [c / (2.0 * eta) for c, eta in zip(change, (0.001, 0.1), strict=True)],
    }  # fmt: skip


def diverged(at: int) -> RunStreams:
    made = run()
    keep = {name: column[:at] for name, column in made.tables["metrics"].items()}
    result = {"status": "diverged", "step": at}
    return RunStreams(**{**vars(made), "result": result, "tables": {"metrics": keep}})


def test_training_accuracy_is_the_mean_over_its_steps() -> None:
    assert q.train_accuracy(run(), steps=[50, 100]) == pytest.approx(0.745)


def test_a_diverged_run_has_the_accuracy_of_chance_from_there_on() -> None:
    half = q.train_accuracy(diverged(75), steps=[50, 100])
    assert half == pytest.approx((np.mean(np.arange(50, 75) / 100) + 0.1) / 2)
    assert q.test_accuracy(diverged(75), updates=100) == 0.1


def test_a_run_that_is_too_short_has_no_number() -> None:
    with pytest.raises(Missing, match="100 of the 200 steps"):
        q.train_accuracy(run(), steps=[50, 200])


def test_a_band_is_over_the_step_sizes_that_are_named_and_a_change_counts_the_start() -> None:
    probed = run(landscape=[probe(50, [2.5, 1.0])])
    landscape = {"steps": [0, 100]}
    band = q.landscape(probed, measure="loss_band", sizes=[0.001, 0.1], **landscape)
    assert band == pytest.approx(1.5)
    assert q.landscape(probed, measure="loss_band", sizes=[0.1], **landscape) == 0
    change = q.landscape(probed, measure="loss_change", sizes=[0.1], **landscape)
    assert change == pytest.approx(1.0)
    relative = q.landscape(probed, measure="relative_loss_band", sizes=[0.001, 0.1], **landscape)
    assert relative == pytest.approx(0.75)


def test_beta_is_the_largest_and_along_one_step_the_gradients_relative_change() -> None:
    probed = run(landscape=[probe(50, [1.0, 1.0], change=(0.01, 3.0))])
    landscape: dict[str, Any] = {"steps": [0, 100]}
    beta = q.landscape(probed, measure="beta", sizes=[0.001, 0.1], **landscape)
    assert beta == pytest.approx(15.0)
    relative = q.landscape(probed, measure="relative_gradient_change", sizes=[0.1], **landscape)
    assert relative == pytest.approx(0.1 * 15.0)


def test_a_step_size_that_was_not_probed_is_missing_and_named() -> None:
    probed = run(landscape=[probe(50, [2.5, 1.0])])
    with pytest.raises(Missing, match=r"no probe with a step of size 0\.4"):
        q.landscape(probed, measure="loss_band", sizes=[0.1, 0.4], steps=[0, 100])


def test_a_loss_that_was_not_finite_makes_an_infinite_band() -> None:
    probed = run(landscape=[probe(50, [2.5, None])])
    assert np.isinf(q.landscape(probed, measure="loss_band", sizes=[0.001, 0.1], steps=[0, 100]))


def test_at_equal_loss_a_probe_counts_where_the_training_loss_around_it_is() -> None:
    probes = [probe(t, [2.0, 2.0 - t / 50]) for t in (0, 20, 50, 90)]  # losses 1.95 to 1.15
    found = q.landscape(
        run(landscape=probes), measure="loss_change", sizes=[0.1], steps=[0, 100],
        at_loss=[2.0, 1.5, 0.7, 0.5],
    )  # fmt: skip
    assert found[:2] == pytest.approx([0.2, 1.0])  # the median of steps 0 and 20; step 50
    assert np.isnan(found[2:]).all()  # 1.1 is near neither


def test_shift_is_a_median_over_steps_for_each_layer() -> None:
    records = [
        {"step": t, "layer": k, "l2": float(k * t), "cosine": -0.5 if k == 10 else 0.9}
        for t in (10, 20, 90)
        for k in (5, 10)
    ]
    shifted = run(shift=records)
    assert q.shift(shifted, what="l2", steps=[0, 100], layers=[5, 10]) == pytest.approx([100, 200])
    cosines = {"what": "cosine", "steps": [0, 100], "layers": [5, 10]}
    assert q.shift(shifted, **cosines, of="least") == pytest.approx(-0.5)
    assert q.shift(shifted, **cosines, of="largest") == pytest.approx(0.9)


def distribution(step: int, mean: float, quantiles: Any = None) -> dict[str, Any]:
    record = {"step": step, "layer": 3, "unit": 7, "place": "activation", "mean": mean, "var": 4.0}
    return record if quantiles is None else {**record, "quantiles": quantiles}


def test_the_mean_drifts_from_one_step_to_the_next_in_standard_deviations() -> None:
    moved = run(distributions=[distribution(t, t * 3.0) for t in (10, 11, 50, 51, 90)])
    found = q.mean_drift(moved, place="norm_input", steps=[0, 100], layers=[3])
    assert found == pytest.approx([1.5])


def test_quantiles_move_in_a_hundred_steps() -> None:
    records = [distribution(t, 0.0, [float(t)] * 7) for t in (0, 100)]
    moved = run(distributions=records)
    metrics = tables_of("metrics", [{"step": t, "loss": 1.0, "accuracy": 0} for t in range(200)])
    moved.tables.update(metrics)
    found = q.quantile_change(moved, place="activation", steps=[0, 200], layers=[3])
    assert found == pytest.approx([50.0])


def test_what_was_not_recorded_is_missing() -> None:
    with pytest.raises(Missing, match="no shift layer 5 at steps 0 to 100"):
        q.shift(run(), what="l2", steps=[0, 100], layers=[5])
    with pytest.raises(Missing, match="no test accuracy after 50"):
        q.test_accuracy(run(), updates=50)


def test_the_largest_rate_is_of_a_grid_that_was_run_whole_or_up_to_a_divergence() -> None:
    grid = [0.1, 0.2, 0.4]

    def at(lr: float, made: RunStreams) -> RunStreams:
        return RunStreams(**{**vars(made), "lr": lr, "settings": {"lr": grid}})

    rule = {"accuracy": 0.2, "steps": [0, 100]}
    lost = diverged(1)
    assert q.largest_rate([at(0.1, run()), at(0.2, lost)], **rule) == 0.1
    assert q.largest_rate([at(lr, run()) for lr in grid], **rule) == 0.4
    with pytest.raises(Missing, match=r"no run at lr 0\.2"):
        q.largest_rate([at(0.1, run()), at(0.4, run())], **rule)
    with pytest.raises(Missing, match="no rate of the grid"):
        q.largest_rate([at(0.1, lost)], **rule)


def test_a_stream_is_split_by_its_words_and_nested_records_are_flat() -> None:
    records = [
        {"step": 0, "place": "input", "residual": {"4.1": 1.0, "4.2": None}, "list": [1, 2]},
        {"step": 1, "place": "output", "residual": {"4.1": 2.0}, "list": [3]},
        {"step": 2, "place": "input", "flag": True},
    ]
    tables = tables_of("heads", records)
    assert set(tables) == {"heads:input", "heads:output"}
    own = tables["heads:input"]
    assert own["step"].tolist() == [0, 2]
    np.testing.assert_array_equal(own["residual.4.1"], [1, np.nan])
    np.testing.assert_array_equal(own["list"], [[1, 2], [np.nan, np.nan]])
    np.testing.assert_array_equal(own["flag"], [np.nan, 1])


def test_growth_is_compared_with_theory_in_units_of_its_margins() -> None:
    records = [
        {"step": 0, "network": name, "batch_size": 8, "depth": depth, "factor": factor}
        for name, depth, factor in (("relu", 64, 1.02), ("relu", 8, 9.0), ("batch", 64, 1.47))
    ]
    grown = run(gradients=records)
    theory = [["relu", 8, 1.0, 0.05], ["batch", 8, 1.5, 0.04]]
    assert q.growth_deviation(grown, depth=64, theory=theory) == pytest.approx(0.5)
    with pytest.raises(Missing, match="no relu of depth 64 and batch size 16"):
        q.growth_deviation(grown, depth=64, theory=[["relu", 16, 1.0, 0.05]])


def test_a_layer_is_in_equilibrium_by_the_angles_of_the_last_quarter() -> None:
    theory = (2 * 0.1 * 0.02) ** 0.5
    angles = [[9.0, 9.0]] * 75 + [[theory * 1.05, theory * 1.2]] * 25
    records = [{"step": t, "angle": angle} for t, angle in enumerate(angles)]
    made = run("decay0.02", rotation=records)
    made.settings["steps"] = 100
    assert q.equilibrium_share(made, within=0.1) == 0.5


def test_the_best_rate_is_chosen_by_training_accuracy_and_read_on_the_test_set() -> None:
    grid = [0.1, 0.2]

    def at(lr: float, train: float, test: float) -> RunStreams:
        made = run(test=[{"step": 99, "updates": 100, "accuracy": test}])
        made.tables["metrics"]["accuracy"][:] = train
        return RunStreams(**{**vars(made), "lr": lr, "settings": {"lr": grid, "steps": 100}})

    runs = [at(0.1, 0.5, 0.9), at(0.2, 0.6, 0.3)]
    assert q.test_accuracy_at_best_rate(runs) == pytest.approx(0.3)
    with pytest.raises(Missing, match=r"no run at lr 0\.2"):
        q.test_accuracy_at_best_rate(runs[:1])


def test_the_paths_deviation_is_that_of_the_worst_block() -> None:
    paths = [
        {"step": 0, "variant": "batchnorm", "block": k, "residual": r, "skip": 1.0}
        for k, r in ((1, 1.02), (2, 0.6), (3, 0.33))
    ]
    assert q.path_deviation(run(paths=paths), network="batchnorm") == pytest.approx(0.2)
    with pytest.raises(Missing, match="paths of none"):
        q.path_deviation(run(paths=paths), network="none")
