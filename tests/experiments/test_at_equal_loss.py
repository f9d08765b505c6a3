"""Measurements by training loss: which probe belongs to which loss, and what a bin holds."""

import numpy as np
import pytest

from experiments.claiming.at_equal_loss import (
    AROUND,
    CENTRES,
    WIDTH,
    at_losses,
    count_at_losses,
    in_bins,
    training_loss,
)


def test_a_probes_training_loss_is_the_mean_of_the_batches_around_it():
    steps, losses = np.arange(100), np.linspace(2, 1, 100)
    losses[50] += 21.0  # one batch in 21 is an outlier
    assert training_loss(steps, losses, [50])[0] == pytest.approx(losses[40:61].mean())


def test_at_the_ends_of_a_training_the_window_is_cut():
    steps, losses = np.arange(30), np.arange(30.0)
    assert training_loss(steps, losses, [0, 29]).tolist() == [AROUND / 2, 29 - AROUND / 2]


def test_a_probe_without_batches_around_it_has_no_training_loss():
    assert np.isnan(training_loss(np.arange(5), np.ones(5), [100])).all()


def test_bins_do_not_overlap_and_leave_out_a_network_that_has_not_begun_to_learn():
    many = np.geomspace(0.1, 4, 5000)
    inside = in_bins(many)
    assert inside.sum(0).max() == 1
    assert inside.any(1).all()
    assert not in_bins(np.array([np.log(10)])).any()


def test_a_bin_reaches_as_far_up_as_down_on_a_logarithmic_axis():
    edges = np.array([1 / WIDTH, WIDTH])
    assert in_bins(edges * [1.0001, 0.9999], (1.0,)).all()
    assert not in_bins(edges * [0.9999, 1.0001], (1.0,)).any()


def test_a_bin_holds_the_median_of_its_probes_entry_by_entry():
    steps, losses = np.arange(300), np.repeat([2.0, 1.0, 0.5], 100)
    probes = np.array([20, 40, 60, 150])
    values = np.array([[1.0, 9.0], [3.0, 8.0], [2.0, np.inf], [7.0, 5.0]])
    found = at_losses(steps, losses, probes, values)
    assert found.shape == (len(CENTRES), 2)
    assert found[0].tolist() == [2, 9]
    assert found[2].tolist() == [7, 5]


def test_a_loss_that_a_training_jumps_over_or_does_not_reach_stays_empty():
    steps, losses = np.arange(200), np.repeat([2.0, 0.7], 100)
    probes = np.array([50, 150])
    found = at_losses(steps, losses, probes, np.ones(2))
    assert np.isnan(found).tolist() == [False, True, True, False, True]
    assert count_at_losses(steps, losses, probes).tolist() == [1, 0, 0, 1, 0]


def test_two_trainings_of_one_landscape_at_different_paces_are_equal_at_equal_loss():
    """The control works: what depends on the loss alone differs at equal steps, and not here."""

    def seen(pace):
        steps = np.arange(2000)
        losses = 2.3 * np.exp(-steps / pace)
        probes = np.arange(0, 2000, 10)
        return losses[probes] ** 2, at_losses(steps, losses, probes, losses[probes] ** 2)

    (slow, slow_at), (fast, fast_at) = seen(1200.0), seen(400.0)
    assert np.median(slow / fast) > 2
    assert slow_at / fast_at == pytest.approx(np.ones(len(CENTRES)), rel=0.1)
