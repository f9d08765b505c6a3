"""The norms beside BatchNorm, as layers: their settings, states and errors.

Laws: tests/suite/laws/lp_norms.py and layer_norms.py; gradients: tests/testing/test_registry.py.
"""

import math

import numpy as np
import pytest

from minibn import Tensor, nn, ops
from minibn.backend import to_numpy
from minibn.errors import ShapeError
from minibn.nn.layer_norm import RELU_GAIN


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def same(a, b):
    np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


# -- l_p norms


@pytest.mark.parametrize("settings", [
    {"p": 1}, {"p": 2, "eps": 0.3}, {"p": math.inf, "center_first": True},
    {"p": 2, "reduce": "mean_of_norm"},
])  # fmt: skip
def test_training_is_the_op_with_the_settings_of_the_layer(backend, settings):
    x = backend.asarray(normal(4, 3, 2, 5))
    norm = nn.LpBatchNorm(5, **settings).initialize(0, dtype=np.float64)
    same(norm(x), ops.lp_batch_norm(x, norm.gamma, norm.beta, **settings))


def test_defaults_are_those_of_batch_norm_and_the_norm_runs_from_one():
    norm, other = nn.LpBatchNorm(3, p=1).initialize(0), nn.BatchNorm(3)
    assert (norm.eps, norm.momentum) == (other.eps, other.momentum)
    assert norm.running_norm.numpy().tolist() == [1, 1, 1]
    assert list(norm.state_dict()) == ["gamma", "beta", "running_mean", "running_norm", "batches"]


def test_a_norm_that_does_not_track_keeps_its_statistics():
    norm = nn.LpBatchNorm(3, p=2).initialize(0, dtype=np.float64)
    norm.tracking = False
    before = norm.state_dict()
    norm(normal(6, 3))
    for name, array in norm.state_dict().items():
        same(array, before[name])


def test_reestimation_gives_the_average_norm_over_the_batches():
    net = nn.Sequential(a=nn.LpBatchNorm(3, p=1), b=nn.LpBatchNorm(3, p=math.inf, momentum=0.3))
    net.initialize(0, dtype=np.float64)
    net(normal(6, 3, seed=9))
    batches = [normal(5 + k, 3, seed=k) for k in range(3)]
    nn.reestimate_statistics(net, batches)
    l1 = [np.abs(x).mean(0) for x in batches]
    np.testing.assert_allclose(net.a.running_norm.numpy(), sum(l1) / 3, rtol=1e-12)
    after = [(x - x.mean(0)) / (n + 1e-5) for x, n in zip(batches, l1, strict=True)]
    top = sum(np.abs(x).max(0) for x in after) / 3
    np.testing.assert_allclose(net.b.running_norm.numpy(), top, rtol=1e-12)
    assert net.b.batches.data == 3 and net.b.momentum == 0.3


@pytest.mark.parametrize("settings, message", [
    ({"p": 3}, "LpBatchNorm: p=3 is not implemented"),
    ({"p": 1, "reduce": "sum"}, "LpBatchNorm: reduce='sum'"),
    ({"p": 1, "eps": -1.0}, "LpBatchNorm: eps=-1.0 must not be negative"),
    ({"p": 1, "momentum": 2.0}, "LpBatchNorm: momentum=2.0 is the weight of the new batch"),
])  # fmt: skip
def test_settings_out_of_range_are_refused_when_the_layer_is_built(settings, message):
    with pytest.raises(ValueError, match=message):
        nn.LpBatchNorm(3, **settings)


@pytest.mark.parametrize("build", [
    lambda eps: nn.BatchNorm(4, eps=eps), lambda eps: nn.FrozenBatchNorm(4, eps=eps),
    lambda eps: nn.LayerNorm(4, eps=eps), lambda eps: nn.RMSNorm(4, eps=eps),
    lambda eps: nn.GroupNorm(2, 4, eps=eps), lambda eps: nn.InstanceNorm(4, eps=eps),
    lambda eps: nn.WSConv2d(4, 4, 3, eps=eps), lambda eps: nn.WSLinear(4, 4, eps=eps),
])  # fmt: skip
@pytest.mark.parametrize("eps", [-1e-5, math.nan])
def test_every_norm_refuses_a_negative_eps_when_it_is_built(build, eps):
    with pytest.raises(ValueError, match=r"\w+: eps=\S+ must not be negative"):
        build(eps)


# -- frozen BatchNorm


def test_the_first_batch_in_training_freezes_the_statistics_and_evaluation_does_not(backend):
    norm = nn.FrozenBatchNorm(3).initialize(0, dtype=np.float64)
    x = 3 * normal(8, 2, 3) + 1
    norm.eval()
    np.testing.assert_allclose(to_numpy(norm(backend.asarray(x))), x / math.sqrt(1 + 1e-5))
    norm.train()(backend.asarray(x))
    np.testing.assert_allclose(to_numpy(norm.running_mean.data), x.mean((0, 1)))
    np.testing.assert_allclose(to_numpy(norm.running_var.data), x.var((0, 1)))
    assert norm.batches.data == 1


def test_in_a_network_each_is_estimated_on_what_those_before_it_let_through():
    net = nn.Sequential(a=nn.Linear(4, 5), b=nn.FrozenBatchNorm(5), c=nn.ReLU(), d=nn.Linear(5, 3),
                        e=nn.FrozenBatchNorm(3))  # fmt: skip
    y = net.initialize(0, dtype=np.float64)(normal(64, 4)).numpy()
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-3)


def test_gamma_and_beta_are_trained_and_the_statistics_are_not():
    norm = nn.FrozenBatchNorm(3).initialize(0, dtype=np.float64)
    norm(Tensor(normal(8, 3))).backward(normal(8, 3, seed=1))
    assert {name for name, _ in norm.named_parameters()} == {"gamma", "beta"}
    assert all(np.abs(p.grad.numpy()).max() > 0 for p in norm.parameters())


def test_it_takes_the_state_of_a_batch_norm_and_keeps_its_statistics():
    trained = nn.BatchNorm(3).initialize(0, dtype=np.float64)
    trained(normal(8, 3))
    norm = nn.FrozenBatchNorm(3).initialize(0, dtype=np.float64)
    norm.load_state_dict(trained.state_dict())
    x = normal(5, 3, seed=1)
    same(norm(x), trained.eval()(x))
    same(norm.running_mean.data, trained.running_mean.data)


def test_a_first_batch_without_a_variance_is_refused_and_leaves_no_trace():
    norm = nn.FrozenBatchNorm(3).initialize(0)
    with pytest.raises(ShapeError, match="fewer than two values"):
        norm(np.ones((1, 3), np.float32))
    assert norm.batches.data == 0
    with pytest.raises(ValueError, match="FrozenBatchNorm: eps=-1"):
        nn.FrozenBatchNorm(3, eps=-1)


# -- norms of each example


@pytest.mark.parametrize("layer", [
    nn.LayerNorm(4), nn.LayerNorm(4, axes="example"), nn.LayerNorm((3, 2, 4)), nn.RMSNorm(4),
    nn.GroupNorm(2, 4), nn.InstanceNorm(4),
])  # fmt: skip
def test_training_and_evaluation_are_the_same_and_no_state_is_kept(layer):
    layer.initialize(0, dtype=np.float64)
    x, before = normal(5, 3, 2, 4), layer.state_dict()
    same(layer(x), layer.eval()(x))
    assert before.keys() == {name for name, _ in layer.named_parameters()}


def test_layer_norm_has_a_gamma_for_what_its_shape_says():
    assert nn.LayerNorm(4).gamma.shape == (4,)
    assert nn.LayerNorm((3, 2, 4)).beta.shape == (3, 2, 4)
    assert nn.RMSNorm((2, 4)).gamma.shape == (2, 4)
    assert not hasattr(nn.RMSNorm(4), "beta")


@pytest.mark.parametrize("groups", [0, 3, 8])
def test_group_norm_refuses_groups_that_do_not_divide_the_channels(groups):
    with pytest.raises(ValueError, match=f"4 channels can't be cut into groups={groups}"):
        nn.GroupNorm(groups, 4)


def test_instance_norm_of_a_single_pixel_names_the_layer():
    net = nn.Sequential(norm1=nn.InstanceNorm(4)).initialize(0)
    with pytest.raises(ShapeError, match=r"(?s)no variance|has one value.*In layer norm1"):
        net(np.ones((2, 1, 1, 4), np.float32))


# -- weight standardisation


def test_the_filters_that_convolve_are_standardised_and_those_that_are_trained_are_not():
    conv = nn.WSConv2d(3, 5, 3, padding=1).initialize(0, dtype=np.float64)
    x, w = normal(2, 6, 6, 3), conv.filters().numpy()
    np.testing.assert_allclose(w.mean((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(w.std((0, 1, 2)), 1, atol=2e-3)
    same(conv(x), ops.conv2d(x, w, conv.bias.data, padding=1))
    plain = nn.Conv2d(3, 5, 3, padding=1).initialize(0, dtype=np.float64)
    same(conv.weight.data, plain.weight.data)


def test_scaled_filters_keep_the_variance_of_what_a_relu_lets_through():
    conv = nn.WSConv2d(64, 32, 3, scaled=True, bias=False).initialize(0, dtype=np.float64)
    y = conv(np.maximum(normal(4, 16, 16, 64), 0))
    assert np.std(to_numpy(y)) == pytest.approx(1, abs=0.05)
    z = np.maximum(normal(10**6), 0)
    assert pytest.approx(1 / z.std(), rel=5e-3) == RELU_GAIN
    assert conv.gain.shape == (32,)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_standardised_linear_layer_is_a_standardised_convolution_of_one_pixel(scaled):
    linear = nn.WSLinear(4, 3, scaled=scaled, factor=1.5).initialize(0, dtype=np.float64)
    conv = nn.WSConv2d(4, 3, 1, scaled=scaled, factor=1.5).initialize(0, dtype=np.float64)
    conv.weight.place(linear.weight.numpy().reshape(1, 1, 4, 3))
    x = normal(5, 4)
    np.testing.assert_allclose(linear(x).numpy(), conv(x[:, None, None]).numpy()[:, 0, 0], 1e-12)
    assert sorted(linear.state_dict()) == sorted(conv.state_dict())


def test_scaled_matrices_with_a_factor_of_one_keep_the_variance():
    linear = nn.WSLinear(400, 50, bias=False, scaled=True, factor=1.0)
    y = linear.initialize(0, dtype=np.float64)(normal(500, 400))
    assert np.std(to_numpy(y)) == pytest.approx(1, abs=0.05)


def test_a_standardised_linear_layer_names_what_does_not_fit():
    layer = nn.WSLinear(4, 3).initialize(0)
    with pytest.raises(ShapeError, match="WSLinear: expects 4 inputs, x has 2"):
        layer(np.ones((1, 2), np.float32))
    with pytest.raises(ShapeError, match="fewer than two weights"):
        nn.WSLinear(1, 3).initialize(0)(np.ones((2, 1), np.float32))


def test_gain_and_filters_get_gradients():
    conv = nn.WSConv2d(2, 3, 3, scaled=True).initialize(0, dtype=np.float64)
    conv(normal(2, 5, 5, 2)).backward(normal(2, 3, 3, 3))
    for name, p in conv.named_parameters():
        assert np.abs(p.grad.numpy()).max() > 0, name
    np.testing.assert_allclose(conv.weight.grad.numpy().sum((0, 1, 2)), 0, atol=1e-12)
