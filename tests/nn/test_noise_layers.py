"""Noise (Algorithm 1) and Dropout: their distributions, and what their draws depend on."""

import numpy as np
import pytest

from minibn import Tensor, nn, use
from minibn.backend import to_numpy
from minibn.random import uniforms_and_normals


def seeded(layer, seed=0, name="noise"):
    """The layer as it stands in a network under that name."""
    return nn.Sequential(**{name: layer}).initialize(seed)[0]


def draws(backend, *shape, step=0, dtype=np.float64, **settings):
    """(s, m) as NumPy arrays (rows, channels), each row an activation of every unit."""
    noise = seeded(nn.Noise(**settings))
    s, m = noise.draw(backend.asarray(np.zeros(shape), dtype=dtype), step)
    assert s.shape == m.shape == shape and s.dtype == m.dtype == dtype
    return to_numpy(s).reshape(-1, shape[-1]), to_numpy(m).reshape(-1, shape[-1])


def near(found, expected):
    """Equal up to rounding: a kernel may fuse what a pair of layers rounds twice."""
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)


def distance_from_uniform(values, low, high):
    """The Kolmogorov-Smirnov distance, in units of its 1 % critical value."""
    at = (np.sort(values) - low) / (high - low)
    n = len(at)
    gap = max((np.arange(1, n + 1) / n - at).max(), (at - np.arange(n) / n).max())
    return gap / (1.63 / np.sqrt(n))


# -- Algorithm 1


def test_each_units_shift_and_scale_are_uniform(backend):
    s, m = draws(backend, 400, 1500)
    middle = (m.max(axis=0) + m.min(axis=0)) / 2  # mu_j to within 0.001
    assert abs(middle).max() <= 0.501 and abs(middle).max() > 0.49
    assert distance_from_uniform(middle, -0.5, 0.5) < 1
    scale = s.mean(axis=0)  # sigma_j ± 0.1 / √400
    assert scale.min() > 0.98 and scale.max() < 1.27
    assert distance_from_uniform(scale, 1, 1.25) < 1.5
    assert scale.mean() == pytest.approx(1.125, abs=0.006)
    assert scale.var() == pytest.approx(0.25**2 / 12 + 0.1**2 / 400, rel=0.1)
    assert abs(np.corrcoef(middle, scale)[0, 1]) < 0.1
    for row in (0, 1):  # a unit's draws are none of the activations' draws
        inside = m[row] - middle
        assert abs(np.corrcoef(inside, middle)[0, 1]) < 0.1
        assert abs(np.corrcoef(inside, scale)[0, 1]) < 0.1


def test_each_activations_shift_is_uniform_about_its_units(backend):
    _, m = draws(backend, 3000, 40)
    middle = (m.max(axis=0) + m.min(axis=0)) / 2
    inside = (m - middle).ravel()
    assert abs(inside).max() <= 0.1 + 1e-12
    assert inside.var() == pytest.approx(0.2**2 / 12, rel=0.01)
    assert distance_from_uniform(inside[::50], -0.1, 0.1) < 1


@pytest.mark.parametrize(("r_is_variance", "std"), [(False, 0.1), (True, 0.1**0.5)])
def test_each_activations_scale_is_normal_about_its_units(backend, r_is_variance, std):
    s, _ = draws(backend, 3000, 40, r_is_variance=r_is_variance)
    z = (s - s.mean(axis=0)) / std
    assert z.std() == pytest.approx(1, rel=0.01)
    assert (z**3).mean() == pytest.approx(0, abs=0.03)
    assert (z**4).mean() == pytest.approx(3, rel=0.02)
    assert (abs(z) < 1).mean() == pytest.approx(0.6827, abs=0.006)


def test_shift_and_scale_of_an_activation_are_independent(backend):
    s, m = draws(backend, 3000, 40)
    s, m = (s - s.mean(axis=0)).ravel(), (m - m.mean(axis=0)).ravel()
    assert abs(np.corrcoef(s, m)[0, 1]) < 4 / np.sqrt(s.size)
    assert abs(np.corrcoef(s**2, m**2)[0, 1]) < 4 / np.sqrt(s.size)
    assert abs(np.corrcoef(m[1:], m[:-1])[0, 1]) < 4 / np.sqrt(s.size)
    assert abs(np.corrcoef(s[1:], s[:-1])[0, 1]) < 4 / np.sqrt(s.size)


def test_height_and_width_count_as_batch(backend):
    s, m = draws(backend, 8, 10, 10, 20)
    assert (np.ptp(m, axis=0) <= 0.2).all() and (np.ptp(m, axis=0) > 0.19).all()
    assert np.ptp(m.mean(axis=0)) > 0.5  # the channels' own shifts
    assert np.ptp(s.mean(axis=0)) > 0.15
    as_rows_s, as_rows_m = draws(backend, 800, 20)  # the same activations as vectors
    np.testing.assert_array_equal(m, as_rows_m)
    np.testing.assert_array_equal(s, as_rows_s)
    assert len(np.unique(s)) > 0.99 * s.size  # an activation of its own draw


def test_the_settings_scale_what_they_are_named_for(backend):
    s, m = draws(backend, 500, 300, n_mu=0.02, n_sigma=3.0, r_mu=2.0, r_sigma=0)
    assert abs(m).max() <= 2.02 and abs(m).max() > 1.99
    assert (np.ptp(s, axis=0) < 1e-12).all()
    assert 2.95 < s.max() <= 3 and 1 <= s.min() < 1.05


def test_every_step_draws_new_units(backend):
    units = [draws(backend, 100, 500, step=step)[1].mean(axis=0) for step in (0, 1, 2)]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert abs(np.corrcoef(units[a], units[b])[0, 1]) < 0.15


def test_two_layers_and_two_seeds_draw_differently():
    x = np.zeros((50, 40))
    net = nn.Sequential(noise1=nn.Noise(), noise2=nn.Noise()).initialize(0)
    other = nn.Sequential(noise1=nn.Noise()).initialize(1)
    drawn = [layer.draw(x, 0)[1].ravel() for layer in (net.noise1, net.noise2, other.noise1)]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        means = [drawn[i].reshape(50, 40).mean(axis=0) for i in (a, b)]
        assert abs(np.corrcoef(*means)[0, 1]) < 0.5
        assert (drawn[a] != drawn[b]).all()


# -- in a network


def test_training_computes_s_x_plus_m_and_moves_on_one_step(backend):
    noise = seeded(nn.Noise())
    x = np.random.default_rng(0).normal(size=(6, 4))
    for step in range(3):
        assert noise.step.data == step
        s, m = noise.draw(backend.asarray(x), step)
        expected = x * to_numpy(s) + to_numpy(m)
        np.testing.assert_array_equal(to_numpy(noise(backend.asarray(x))), expected)


def test_the_gradient_is_the_cotangent_times_s_exactly(backend):
    noise = seeded(nn.Noise())
    rng = np.random.default_rng(0)
    x, cotangent = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    s, _ = noise.draw(backend.asarray(x), 0)
    leaf = Tensor(backend.asarray(x), requires_grad=True)
    noise(leaf).backward(backend.asarray(cotangent))
    np.testing.assert_array_equal(to_numpy(leaf.grad.data), cotangent * to_numpy(s))


@pytest.mark.parametrize("make", [nn.Noise, nn.Dropout])
def test_evaluation_is_the_identity_unless_asked_otherwise(backend, make):
    x = backend.asarray(np.ones((6, 4)))
    layer = seeded(make()).eval()
    assert layer(x) is x and layer.step.data == 0
    layer = seeded(make(in_eval=True)).eval()
    first = to_numpy(layer(x))
    assert (first != 1).any()
    np.testing.assert_array_equal(first, to_numpy(layer(x)))  # the same draws again
    assert layer.step.data == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_and_other_backends_draw_alike(backend, dtype):
    s, m = draws(backend, 40, 30, step=5, dtype=dtype)
    with use("numpy") as numpy:
        expected_s, expected_m = draws(numpy, 40, 30, step=5, dtype=dtype)
    np.testing.assert_array_equal(m, expected_m)
    assert (abs(s - expected_s) <= 4 * np.spacing(abs(expected_s))).all()


def test_either_precision_sees_the_same_draws_up_to_rounding(backend):
    single, double = (draws(backend, 100, 50, dtype=dtype) for dtype in (np.float32, np.float64))
    np.testing.assert_allclose(single[1], double[1], atol=1e-7)
    np.testing.assert_allclose(single[0], double[0], atol=1e-6)


@pytest.mark.parametrize("make", [nn.Noise, nn.Dropout])
def test_a_resumed_model_goes_on_where_it_was(backend, make):
    def fresh():
        return nn.Sequential(noise=make()).initialize(3)

    x = backend.asarray(np.ones((6, 4)))
    straight, net = fresh(), fresh()
    expected = [to_numpy(straight(x)) for _ in range(5)][3:]
    for _ in range(3):
        net(x)
    saved = net.state_dict()
    assert saved["noise.step"] == 3
    resumed = fresh()
    resumed.load_state_dict(saved)
    for y in expected:
        np.testing.assert_array_equal(to_numpy(resumed(x)), y)


@pytest.mark.parametrize("make", [nn.Noise, nn.Dropout])
def test_a_layer_without_a_seed_refuses_to_draw(make):
    net = nn.Sequential(noise=make())
    net.load_state_dict({"noise.step": np.array(3)})
    with pytest.raises(RuntimeError, match=r"'noise' has no key.*initialize\(seed=0\)"):
        net(np.ones((2, 3)))
    assert net.eval()(np.ones((2, 3))).shape == (2, 3)


def test_noisy_batch_norm_is_batch_norm_followed_by_noise(backend):
    noisy = nn.NoisyBatchNorm(4, eps=0.5, momentum=0.3).initialize(2, dtype=np.float64)
    pair = nn.Sequential(norm=nn.BatchNorm(4, eps=0.5, momentum=0.3), noise=nn.Noise())
    pair.initialize(2, dtype=np.float64)
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 4))
    for step in range(3):
        inputs = backend.asarray(x + step)
        near(to_numpy(noisy(inputs)), to_numpy(pair(inputs)))
    noisy.eval(), pair.eval()
    near(to_numpy(noisy(inputs)), to_numpy(pair(inputs)))
    np.testing.assert_array_equal(to_numpy(noisy(inputs)), to_numpy(noisy.norm(inputs)))
    assert noisy.state_dict().keys() == pair.state_dict().keys()


# -- Dropout


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9])
def test_dropout_keeps_its_share_and_scales_what_it_keeps(backend, p):
    layer = seeded(nn.Dropout(p))
    x = np.random.default_rng(0).uniform(1, 2, (200, 200))
    y = to_numpy(layer(backend.asarray(x)))
    kept = y != 0
    assert kept.mean() == pytest.approx(1 - p, abs=4 * np.sqrt(p * (1 - p) / x.size))
    np.testing.assert_allclose(y[kept], x[kept] / (1 - p), rtol=1e-14)
    again = to_numpy(layer(backend.asarray(x))) != 0
    assert (again != kept).mean() == pytest.approx(2 * p * (1 - p), abs=0.01)


def test_dropouts_gradient_is_its_mask_times_the_scale(backend):
    x = Tensor(backend.asarray(np.random.default_rng(0).uniform(1, 2, (9, 7))), requires_grad=True)
    y = seeded(nn.Dropout(0.5))(x)
    y.sum().backward()
    np.testing.assert_array_equal(to_numpy(x.grad.data), 2.0 * (to_numpy(y.data) != 0))
    assert {0.0, 2.0} == set(to_numpy(x.grad.data).ravel().tolist())


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match="0 <= p < 1"):
        nn.Dropout(p)


def test_float16_draws_are_the_float32_draws_rounded(backend):
    for dtype in (np.float16, np.float32):
        u, normal = uniforms_and_normals(backend, 3, 0, 1000, dtype)
        assert u.dtype == normal.dtype == dtype
    exact = [to_numpy(a) for a in uniforms_and_normals(backend, 3, 0, 1000, np.float32)]
    for got, want in zip(uniforms_and_normals(backend, 3, 0, 1000, np.float16), exact, strict=True):
        np.testing.assert_array_equal(to_numpy(got), want.astype(np.float16))
