"""What a probe's numbers say: the largest beta, and whether it was too coarse or too short."""

import math

import numpy as np
import pytest
from curved import Weights
from hypothesis import given
from hypothesis import strategies as st

from minibn import Tensor, nn, ops
from minibn.analysis import Probe, probe


def ramp(w, _):
    """½ relu(w+1)² - ½ relu(w-1)²: its slope rises from 0 at -1 to 2 at 1, and stays there."""
    return (ops.relu(w + 1) ** 2 - ops.relu(w - 1) ** 2).sum() * 0.5


def probe_at(loss, at, etas):
    model = Weights(1).initialize(0, dtype=np.float64)
    model.w.assign(np.array([float(at)]))
    return probe(model, (None, None), etas, loss=loss)


@pytest.mark.parametrize("etas", [[2, 4, 8], [8, 2, 4], [1, 1.25, 8]])
def test_a_gradient_that_has_changed_all_it_can_before_the_first_step_is_saturated(etas):
    seen = probe_at(ramp, 1, etas)  # from the end of the ramp: the slope is 0 after a step of 1
    np.testing.assert_array_equal(seen.gradient_change, 2)
    assert seen.saturated and not seen.at_ceiling
    assert seen.effective_beta == 1 / min(etas)  # one over the step, whatever the network


@pytest.mark.parametrize("etas", [[0.25, 0.5, 0.75], [0.5, 1, 2], [0, 0.5, 1, 2]])
def test_a_gradient_that_changes_in_proportion_is_not_saturated(etas):
    seen = probe_at(ramp, 1, etas)
    assert seen.effective_beta == 1 and not seen.saturated


def test_a_beta_that_is_largest_at_the_shortest_step_is_at_the_floor_saturated_or_not():
    growing = record([4, 1, 2], [8, 3, 5.5])  # more than 1.5 times as much at twice the step
    assert growing.at_floor and not (growing.saturated or growing.at_ceiling)
    assert growing.effective_beta == growing.beta[1]
    stopped = record([0, 1, 2], [0, 3, 4])
    assert stopped.at_floor and stopped.saturated
    assert not record([1, 2, 4], [1, 3, 5]).at_floor
    assert not record([1], [3]).at_floor, "a single step is no probe"


def test_a_beta_that_is_largest_at_the_longest_step_is_at_the_ceiling():
    seen = probe_at(lambda w, _: (w**4).sum() * 0.25, 1, [4, 1, 2])  # slopes 1, then (1 - eta)³
    np.testing.assert_allclose(seen.gradient_change, [28, 1, 2], rtol=1e-12)
    np.testing.assert_allclose(seen.beta, [7, 1, 1], rtol=1e-12)
    assert seen.effective_beta == seen.beta[0]
    assert seen.at_ceiling and not seen.saturated


def test_a_beta_that_is_largest_in_between_has_no_flag():
    seen = probe_at(ramp, 0.5, [0.5, 1, 2])  # steps of .75, 1.5 and 3 of a ramp that ends after 1.5
    np.testing.assert_allclose(seen.beta, [1, 1, 0.5])
    late = Probe(1.0, 1.0, *(np.array(v) for v in ([1, 2, 4], [0] * 3, [1, 3, 5.0], [1] * 3)),
                 np.array([1, 2, 4.0]))  # fmt: skip
    assert not any(flags(late)) and late.effective_beta == 1.5


def record(etas, changes):
    etas, changes = np.array(etas, float), np.array(changes, float)
    return Probe(1.0, 1.0, etas, np.zeros(len(etas)), changes, np.zeros(len(etas)), 2 * etas)


def flags(seen):
    return seen.saturated, seen.at_floor, seen.at_ceiling


changes = st.one_of(st.floats(0, 1e6), st.sampled_from([math.nan, math.inf, 0.0]))
rows = st.tuples(st.floats(1e-3, 1e3), changes)
probes = st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: row[0])


@given(probes, st.randoms(use_true_random=False))
def test_effective_beta_is_the_largest_ratio_and_the_order_of_the_steps_does_not_matter(rows, rng):
    seen = record(*zip(*rows, strict=True))
    ratios = [change / (2 * eta) for eta, change in rows if not math.isnan(change)]
    if ratios:
        assert seen.effective_beta == max(ratios)
    else:
        assert math.isnan(seen.effective_beta)
    rng.shuffle(rows)
    other = record(*zip(*rows, strict=True))
    assert flags(other) == flags(seen)
    assert other.effective_beta == seen.effective_beta or not ratios


@given(probes)
def test_a_step_of_size_zero_says_nothing_about_beta(rows):
    seen = record(*zip(*rows, strict=True))
    more = record(*zip(*rows, (0.0, 0.0), strict=True))
    assert flags(more) == flags(seen)
    assert more.effective_beta == seen.effective_beta or math.isnan(seen.effective_beta)


def test_a_loss_that_never_changes_has_beta_zero_along_a_slope_and_none_where_it_is_flat():
    model, x = nn.Sequential(nn.Linear(2, 2)).initialize(0), np.ones((3, 2), np.float32)
    sloped = probe(model, (x, None), [1, 2], loss=lambda y, _: y.sum())
    assert sloped.effective_beta == 0 and not sloped.saturated
    flat = probe(model, (x, None), [1, 2], loss=lambda y, _: Tensor(2.0))
    assert flat.loss == 2 and flat.gradient_norm == 0 and flat.losses.tolist() == [2, 2]
    assert math.isnan(flat.effective_beta) and np.isnan(flat.cosine).all()
    assert not any(flags(flat))
