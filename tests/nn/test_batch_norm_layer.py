"""BatchNorm: conventions, examples, errors, and the re-estimation of running statistics.

Its laws are in `tests/suite/laws/` (`batch_norm.py` the op, `layers.py` the layer), its
gradients are checked in `tests/testing/test_registry.py`.
"""

import math

import numpy as np
import pytest
from suite import loops

from minibn import nn, ops
from minibn.backend import to_numpy
from minibn.errors import ShapeError

SHAPES = [(6, 3), (2, 3, 4, 3), (5, 2, 3), (1, 2, 2, 3)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def norm_with(gamma, beta, **settings):
    norm = nn.BatchNorm(len(gamma), **settings).initialize(0, dtype=np.float64)
    norm.gamma.place(np.asarray(gamma, float))
    norm.beta.place(np.asarray(beta, float))
    return norm


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_training_normalises_each_channel_by_the_batchs_biased_moments(backend, shape, eps):
    gamma, beta, x = normal(3, seed=1), normal(3, seed=2), 2 * normal(*shape) + 5
    y = norm_with(gamma, beta, eps=eps)(backend.asarray(x))
    np.testing.assert_allclose(to_numpy(y), loops.batch_norm(x, gamma, beta, eps), atol=1e-12)


def test_momentum_weighs_the_new_batch_so_that_it_is_one_minus_the_decay_of_others(backend):
    decay, x = 0.9, normal(8, 3)
    norm = nn.BatchNorm(3, momentum=1 - decay).initialize(0, dtype=np.float64)
    running_mean, running_var = np.full(3, 7.0), np.full(3, 2.0)
    norm.running_mean.place(running_mean)
    norm.running_var.place(running_var)
    norm(backend.asarray(x))
    chainers = decay * running_mean + (1 - decay) * x.mean(axis=0)
    np.testing.assert_allclose(to_numpy(norm.running_mean.data), chainers, rtol=1e-12)
    chainers = decay * running_var + (1 - decay) * x.var(axis=0) * 8 / 7
    np.testing.assert_allclose(to_numpy(norm.running_var.data), chainers, rtol=1e-12)
    assert (nn.BatchNorm(3).eps, nn.BatchNorm(3).momentum) == (1e-5, 0.1)


def test_tracking_off_leaves_the_running_statistics_and_the_count_alone(backend):
    norm = nn.BatchNorm(3).initialize(0, dtype=np.float64)
    norm.tracking = False
    before, x = norm.state_dict(), normal(6, 3)
    y = norm(backend.asarray(x))
    np.testing.assert_allclose(
        to_numpy(y), loops.batch_norm(x, np.ones(3), np.zeros(3), 1e-5), atol=1e-12
    )
    assert all(np.array_equal(before[name], norm.state_dict()[name]) for name in before)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3), (0, 3)])
def test_a_single_value_a_channel_raises_with_advice_and_writes_nothing(backend, shape):
    norm = nn.BatchNorm(3).initialize(0)
    before = norm.state_dict()
    with pytest.raises(ShapeError, match=r"no variance\. Use a larger batch, or eval mode"):
        norm(backend.asarray(np.ones(shape, np.float32)))
    assert all(np.array_equal(before[name], norm.state_dict()[name]) for name in before)


def test_one_image_of_two_pixels_is_enough(backend):
    norm = nn.BatchNorm(1, eps=0).initialize(0, dtype=np.float64)
    y = norm(backend.asarray(np.array([1.0, 5.0]).reshape(1, 1, 2, 1)))
    assert to_numpy(y).ravel().tolist() == [-1, 1]
    assert to_numpy(norm.running_var.data).tolist() == pytest.approx([0.9 + 0.1 * 8])


def test_eps_bounds_the_scale_of_a_constant_channel(backend):
    y = norm_with([1], [3.0])(backend.asarray(np.full((4, 1), 7.0)))
    assert to_numpy(y).tolist() == [[3.0]] * 4


@pytest.mark.parametrize("settings", [{"eps": -1e-5}, {"eps": math.nan}, {"momentum": 1.5}])
def test_settings_out_of_range_raise(settings):
    with pytest.raises(ValueError, match=f"BatchNorm: {next(iter(settings))}="):
        nn.BatchNorm(3, **settings)


# -- reestimate_statistics


def model():
    net = nn.Sequential(
        linear1=nn.Linear(4, 3), norm1=nn.BatchNorm(3, momentum=0.3), noise1=nn.Noise(),
        drop1=nn.Dropout(0.5), linear2=nn.Linear(3, 2), norm2=nn.BatchNorm(2),
    )  # fmt: skip
    return net.initialize(0, dtype=np.float64)


def test_reestimation_gives_the_average_over_the_batches(backend):
    net = model()
    net.norm1.tracking = False  # that the batches of a training leave no trace is no hindrance
    net(backend.asarray(normal(6, 4, seed=9)))
    batches = [normal(5 + k, 4, seed=k) for k in range(3)]
    weights = net.state_dict()
    nn.reestimate_statistics(net, (backend.asarray(x) for x in batches))
    w1, b1, w2, b2 = (
        weights[n] for n in ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")
    )
    first = [x @ w1 + b1 for x in batches]
    second = [(h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5) @ w2 + b2 for h in first]
    for norm, inputs in ((net.norm1, first), (net.norm2, second)):
        mean = sum(x.mean(0) for x in inputs) / 3
        var = sum(x.var(0, ddof=1) for x in inputs) / 3
        np.testing.assert_allclose(to_numpy(norm.running_mean.data), mean, atol=1e-12)
        np.testing.assert_allclose(to_numpy(norm.running_var.data), var, rtol=1e-12)
        assert norm.batches.data == 3
    after = net.state_dict()
    assert after["noise1.step"] == weights["noise1.step"] == 1
    assert all(np.array_equal(weights[n], after[n]) for n in weights if "linear" in n)


def settings_of(net):
    modes = [module.training for _, module in net.named_modules()]
    return modes, [(n.momentum, n.tracking) for n in (net.norm1, net.norm2)]


@pytest.mark.parametrize("fails", [True, False])
def test_reestimation_restores_modes_momentum_and_tracking_even_after_an_exception(fails):
    net = model().eval()
    net.noise1.train()
    net.norm1.tracking = False
    before = settings_of(net)

    def batches():
        yield normal(5, 4)
        if fails:
            raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            nn.reestimate_statistics(net, batches())
    else:
        nn.reestimate_statistics(net, batches())
    assert settings_of(net) == before == ([False, False, False, True, False, False, False], [
        (0.3, False), (0.1, True),
    ])  # fmt: skip


def test_reestimation_without_batches_raises_and_changes_nothing():
    net = model()
    net(normal(6, 4))
    before = net.state_dict()
    with pytest.raises(ValueError, match="reestimate_statistics: batches is empty"):
        nn.reestimate_statistics(net, iter(()))
    assert all(np.array_equal(before[name], net.state_dict()[name]) for name in before)


def test_reestimation_replaces_statistics_that_are_not_finite(backend):
    net = nn.BatchNorm(2).initialize(0)
    net.running_mean.data[...] = np.nan
    net.running_var.data[...] = np.inf
    x = normal(8, 2, seed=1).astype(np.float32)
    nn.reestimate_statistics(net, [backend.asarray(x)])
    np.testing.assert_allclose(net.running_mean.numpy(), x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(net.running_var.numpy(), x.var(0, ddof=1), rtol=1e-5)


def test_a_momentum_of_one_keeps_nothing_of_the_old_statistics(backend):
    net = nn.BatchNorm(2, momentum=1.0).initialize(0)
    net.running_mean.data[...] = 1e10
    net(backend.asarray(np.array([[1, 2], [3, 4]], np.float32)))
    assert net.running_mean.numpy().tolist() == [2, 3]


def test_a_large_offset_costs_the_statistics_no_digits():
    x = (1000 + normal(1 << 17, 4)).astype(np.float32)
    mean, var = ops.moments(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-7)
    np.testing.assert_allclose(var, exact.var(0), rtol=1e-4)
