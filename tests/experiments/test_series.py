"""Runs as curves: a variant at one rate, over its seeds."""

import numpy as np
import pytest
import synthetic

from experiments.training.study import Run
from experiments.views import series

INF = np.inf


def test_curves_of_several_seeds_are_their_median_least_and_largest():
    curve = series.over_seeds([([0, 1], [1.0, 10.0]), ([0, 1], [3.0, 30.0]), ([0, 1], [2.0, 5.0])])
    assert curve.steps.tolist() == [0, 1]
    assert curve.median.tolist() == [2, 10]
    assert curve.low.tolist() == [1, 5]
    assert curve.high.tolist() == [3, 30]


def test_a_seed_that_stopped_early_counts_as_far_as_it_went():
    curve = series.over_seeds([([0, 5, 9], [1.0, 1.0, 1.0]), ([0, 5], [3.0, np.nan])])
    assert curve.steps.tolist() == [0, 5, 9]
    assert curve.median.tolist() == [2, 1, 1]


def test_a_probe_that_was_not_finite_is_infinite_and_not_left_out():
    curve = series.over_seeds([([0], [INF]), ([0], [1.0]), ([0], [2.0])])
    assert (curve.median[0], curve.high[0]) == (2, INF)
    assert curve.below(100.0).high[0] == 100


def test_no_values_make_an_empty_curve():
    assert len(series.over_seeds([]).steps) == 0
    assert len(series.over_seeds([([3], [np.nan])]).steps) == 0


def test_the_median_over_training_counts_each_record_for_the_steps_up_to_the_next():
    dense_at_the_start = [0, 1, 2, 5, 10, 100, 200, 300]
    values = [9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 3.0]
    assert np.median(values) == 9
    assert series.over_training(dense_at_the_start, values) == 2


def test_the_median_over_training_passes_over_what_is_undefined():
    assert series.over_training([0, 100, 200], [np.nan, 5.0, 5.0]) == 5
    assert np.isnan(series.over_training([0, 1], [np.nan, np.nan]))
    assert series.over_training([7], [4.0]) == 4


def test_runs_are_grouped_by_rate_and_variant_in_the_order_of_colours(tmp_path):
    plan = [("l1", 0.1, 1), ("l1", 0.1, 0), ("standard", 0.5, 0), ("standard", 0.1, 0)]
    study = synthetic.study(tmp_path / "study", plan, streams=())
    groups = series.group_runs(study.runs())
    assert [(g.variant, g.lr) for g in groups] == [
        ("standard", 0.1), ("l1", 0.1), ("standard", 0.5)
    ]  # fmt: skip
    assert [run.config["seed"] for run in groups[1].runs] == [0, 1]


@pytest.mark.parametrize(
    ("trained", "main"),
    [
        ([("standard", 0.01), ("batchnorm", 0.5), ("standard", 0.5)], 0.5),
        ([("standard", 0.01), ("standard", 0.1), ("standard", 0.5)], 0.1),
        ([("standard", 0.02), ("standard", 0.5)], 0.02),
    ],
)
def test_the_main_rate_is_that_of_most_variants_then_the_papers_then_the_lowest(trained, main):
    assert series.main_rate([series.Group(v, lr, ()) for v, lr in trained]) == main


def test_a_run_that_several_studies_hold_counts_once(tmp_path):
    plan = [("standard", 0.1, 0)]
    first, second = (synthetic.study(tmp_path / n, plan, streams=()) for n in ("one", "two"))
    runs = series.without_copies([*first.runs(), *second.runs()])
    assert [run.folder.parent.parent.name for run in runs] == ["one"]


def test_reading_once_gives_what_reading_gives(tmp_path):
    study = synthetic.study(tmp_path / "study", [("standard", 0.1, 0)], steps=3)
    run: Run = study.runs()[0]
    once = series.ReadOnce(run.folder)
    for name in ("metrics", "distributions", "landscape"):
        assert once.records(name) == run.records(name) == once.records(name)
    assert once.config == run.config


def test_a_spread_names_the_least_and_the_largest_only_where_they_differ():
    assert series.spread([0.5]) == "0.5"
    assert series.spread([1.0, 1.0001]) == "1"
    assert series.spread([1.0, 4.0, 2.0, np.nan]) == "2 (1 to 4)"
    assert series.spread([90.0, 91.26, 88.0], ".1f") == "90.0 (88.0 to 91.3)"
    assert series.spread([np.nan]) == ""
