"""The probe: exact where the answer is known, and elsewhere the same as a probe by hand."""

import copy

import numpy as np
import pytest
from curved import Weights
from hypothesis import given
from hypothesis import strategies as st
from untouched import images, lived, noisy_net

from minibn import grad, kernels, nn, ops, optim, to_numpy
from minibn.analysis import Probe, probe
from minibn.analysis.gradient_probe import DIRECTIONS
from reference_models.vgg import vgg

MODES = ("reference", "fast", "lean", "always")


def bowl(w, target):
    """½ (w - c)ᵀA(w - c), whose gradient is A(w - c)."""
    A, c = target
    return ((w - c) * (A @ (w - c))).sum() * 0.5


def drawn(seed, n=4):
    """A model that is its weights w (n,), and a bowl for it, symmetric and not always convex."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    return Weights(n).initialize(seed, dtype=np.float64), (A + A.T, rng.standard_normal(n))


# -- a quadratic, where everything is known

sizes = st.lists(st.floats(0, 100), min_size=1, max_size=5)


@given(st.integers(0, 10**6), st.integers(1, 6), sizes)
def test_along_the_gradient_of_a_quadratic_the_losses_are_its_parabola(seed, n, etas):
    model, (A, c) = drawn(seed, n)
    w = model.w.data.copy()
    g = A @ (w - c)
    seen = probe(model, (None, (A, c)), etas, loss=bowl)
    eta, rounding = np.array(etas), 1e-12 * (1 + np.abs(A).max() * max(etas)) ** 2
    parabola = seen.loss - eta * (g @ g) + eta**2 / 2 * (g @ A @ g)
    scale = np.abs(seen.loss) + g @ g + 1
    np.testing.assert_allclose(seen.losses, parabola, rtol=1e-9, atol=1e3 * rounding * scale)
    assert seen.loss == pytest.approx((w - c) @ A @ (w - c) / 2, rel=1e-9, abs=rounding * scale)
    assert seen.gradient_norm == pytest.approx(np.linalg.norm(g), rel=1e-12)


@given(st.integers(0, 10**6), st.lists(st.floats(1e-3, 100), min_size=1, max_size=5))
def test_beta_of_a_quadratic_is_how_much_it_stretches_the_direction(seed, etas):
    model, (A, c) = drawn(seed)
    g = A @ (model.w.data - c)
    seen = probe(model, (None, (A, c)), etas, loss=bowl)
    eta, stretched = np.array(etas), np.linalg.norm(A @ g)
    np.testing.assert_allclose(seen.gradient_change, eta * stretched, rtol=1e-9)
    np.testing.assert_allclose(seen.distance, eta * np.linalg.norm(g), rtol=1e-12)
    np.testing.assert_allclose(seen.beta, stretched / np.linalg.norm(g), rtol=1e-9)
    there = [g - e * (A @ g) for e in etas]
    cosines = [h @ g / (np.linalg.norm(h) * np.linalg.norm(g)) for h in there]
    np.testing.assert_allclose(seen.cosine, cosines, rtol=1e-9, atol=1e-9)
    assert seen.step_sizes.tolist() == etas
    assert all(
        v.dtype == np.float64 and v.shape == (len(etas),)
        for v in (seen.losses, seen.cosine, seen.gradient_change, seen.distance, seen.beta)
    )


@given(st.integers(0, 10**6), st.sampled_from(["random", "filter"]))
def test_any_direction_meets_the_quadratics_own_stretch(seed, direction):
    """A weight of two axes, so that "filter" moves it; the probe is seen from within the loss."""
    rng = np.random.default_rng(seed)
    model = Weights(4, 1).initialize(seed, dtype=np.float64)
    A, c, at = rng.standard_normal((4, 4)), rng.standard_normal((4, 1)), []

    def seeing(w, target):
        at.append(w.data.copy())
        return bowl(w, target)

    seen = probe(model, (None, (A + A.T, c)), [0.5, 2], loss=seeing, direction=direction)
    d = at[0] - at[-1]
    np.testing.assert_allclose(4 * (at[0] - at[1]), d, rtol=1e-9)
    stretch = np.linalg.norm((A + A.T) @ d) / np.linalg.norm(d)
    np.testing.assert_allclose(seen.beta, stretch, rtol=1e-9)


# -- the directions


def moved(direction, seed=0, model=None, batch=None):
    """How far each parameter is from its start after a step of size 1, and the probe."""
    model, batch = model or noisy_net(), batch or images()
    at = []

    def seeing(outputs, labels):
        at.append({name: p.data.copy() for name, p in model.named_parameters()})
        return ops.softmax_cross_entropy(outputs, labels)

    seen = probe(model, batch, [1.0], loss=seeing, direction=direction, seed=seed)
    start, there = at
    return {name: start[name] - there[name] for name in start}, start, seen


def test_a_random_direction_is_as_long_as_the_gradient_and_moves_every_parameter():
    d, _, seen = moved("random")
    length = np.sqrt(sum((a**2).sum() for a in d.values()))
    assert length == pytest.approx(seen.gradient_norm, rel=1e-12)
    assert seen.distance == pytest.approx(seen.gradient_norm, rel=1e-12)
    assert all(a.any() for a in d.values())
    assert not np.allclose(d["norm1.gamma"], d["norm1.beta"]), "each parameter has its own draws"


def test_a_filter_direction_has_the_filters_norms_and_leaves_vectors_alone():
    d, weights, seen = moved("filter")
    for name, a in d.items():
        if a.ndim == 1:
            assert not a.any(), name
        else:
            axes = tuple(range(a.ndim - 1))
            ours, theirs = (np.sqrt((b**2).sum(axis=axes)) for b in (a, weights[name]))
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    expected = sum((a**2).sum() for a in weights.values() if a.ndim > 1) ** 0.5
    assert seen.distance == pytest.approx(expected, rel=1e-9)


def test_a_filter_of_zeros_stays_where_it_is():
    model = noisy_net()
    model.conv1.weight.data[..., 0] = 0
    d, _, seen = moved("filter", model=model)
    assert not d["conv1.weight"][..., 0].any() and d["conv1.weight"][..., 1].all()
    assert np.isfinite(seen.losses).all()


@pytest.mark.parametrize("direction", ["random", "filter"])
def test_a_seed_names_a_direction_whatever_else_the_network_contains(direction):
    again, other = (moved(direction, seed=s)[0]["conv1.weight"] for s in (0, 1))
    first = moved(direction)[0]["conv1.weight"]
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0
    model = noisy_net()
    del model.norm2  # the same seed still means the same for the weights that are there
    shorter = moved(direction, model=model)[0]["conv1.weight"]
    cosine = (first * shorter).sum() / np.linalg.norm(first) / np.linalg.norm(shorter)
    assert cosine == pytest.approx(1, abs=1e-12)


# -- the probe by hand


def by_hand(model, batch, eta, d, counters=None):
    """(loss, gradient) after a step of eta against d, in a copy in training mode."""
    twin = copy.deepcopy(model).train()
    for p, d_i in zip(twin.parameters(), d, strict=True):
        p.data = p.data - eta * d_i
    for _ in range(counters or 0):  # let the noise move on
        twin.eval()
        for _, module in twin.named_modules():
            if isinstance(module, nn.Noise | nn.Dropout):
                module.step.advance()
        twin.train()
    loss = ops.softmax_cross_entropy(twin(batch[0]), batch[1])
    return loss.item(), [to_numpy(g) for g in grad(loss, twin.parameters())]


def length(a):
    return np.sqrt(sum((x**2).sum() for x in a))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_network_with_batchnorm_and_noise_probes_as_by_hand(mode, frozen):
    etas, (x, labels) = [0.1, 0.0, 0.4], images(8)
    with kernels(mode):
        model = lived(noisy_net(), x)
        loss, g = by_hand(model, (x, labels), 0, [0] * len(model.parameters()))
        seen = probe(model, (x, labels), etas, frozen_noise=frozen)
        assert (seen.loss, seen.gradient_norm) == pytest.approx((loss, length(g)), rel=1e-12)
        for i, eta in enumerate(etas):
            there, g_there = by_hand(model, (x, labels), eta, g, 0 if frozen else i + 1)
            change = length([a - b for a, b in zip(g_there, g, strict=True)])
            cosine = sum((a * b).sum() for a, b in zip(g_there, g, strict=True))
            assert seen.losses[i] == pytest.approx(there, rel=1e-12)
            assert seen.gradient_change[i] == pytest.approx(change, rel=1e-9, abs=1e-12)
            assert seen.cosine[i] == pytest.approx(cosine / length(g) / length(g_there), rel=1e-9)


@pytest.mark.parametrize("noise", [True, False])
def test_a_vgg_probes_as_by_hand(noise):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6, 32, 32, 3)), rng.integers(0, 10, 6)
    model = vgg("vgg11", width=1 / 32, norm="batch", noise=noise).initialize(0, dtype=np.float64)
    model(x)  # statistics and counters are not those of the beginning
    _, g = by_hand(model, (x, labels), 0, [0] * len(model.parameters()))
    seen = probe(model, (x, labels), [0.05, 0.4])
    for i, eta in enumerate([0.05, 0.4]):
        there, g_there = by_hand(model, (x, labels), eta, g)
        assert seen.losses[i] == pytest.approx(there, rel=1e-12)
        change = length([a - b for a, b in zip(g_there, g, strict=True)])
        assert seen.gradient_change[i] == pytest.approx(change, rel=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_step_of_size_zero_sees_the_training_steps_own_loss_to_the_last_bit(direction, mode):
    x, labels = images(dtype=np.float32)
    with kernels(mode):
        model = noisy_net(np.float32)
        model(x)
        seen = probe(model, (x, labels), [0.1, 0.0], direction=direction)
        expected = ops.softmax_cross_entropy(model(x), labels).item()
    assert seen.losses[1] == seen.loss == expected
    assert seen.gradient_change[1] == 0 == seen.distance[1] and np.isnan(seen.beta[1])
    assert seen.cosine[1] == pytest.approx(1, abs=1e-12)
    assert seen.effective_beta == seen.beta[0] > 0


def test_fresh_noise_changes_the_gradient_even_where_nothing_moves():
    seen = probe(noisy_net(), images(), [0.0, 0.0], frozen_noise=False)
    assert seen.gradient_change.min() > 0.01 and np.ptp(seen.losses) > 0.001


def test_the_probe_is_in_training_mode_also_when_the_model_is_not():
    x, labels = images()
    model = lived(noisy_net(), x)
    expected = probe(copy.deepcopy(model).train(), (x, labels), [0.1]).losses
    assert probe(model.eval(), (x, labels), [0.1]).losses == expected


def test_a_probe_batch_is_measured_along_the_gradient_of_the_first():
    model, one = drawn(0)
    _, (B, b) = drawn(1)
    A, a = one
    w = model.w.data.copy()
    d, g, etas = A @ (w - a), B @ (w - b), np.array([0.1, 0.2])
    batches = {"batch": (None, one), "probe_batch": (None, (B, b))}
    seen = probe(model, step_sizes=etas, loss=bowl, **batches)
    there = [w - eta * d for eta in etas]
    np.testing.assert_allclose(seen.losses, [(v - b) @ B @ (v - b) / 2 for v in there], rtol=1e-12)
    assert seen.loss == pytest.approx((w - b) @ B @ (w - b) / 2, rel=1e-12)
    assert seen.gradient_norm == pytest.approx(np.linalg.norm(g), rel=1e-12)
    np.testing.assert_allclose(seen.gradient_change, etas * np.linalg.norm(B @ d), rtol=1e-9)
    np.testing.assert_allclose(seen.distance, etas * np.linalg.norm(d), rtol=1e-12)
    cosines = [h @ g / np.linalg.norm(h) / np.linalg.norm(g) for h in (B @ (v - b) for v in there)]
    np.testing.assert_allclose(seen.cosine, cosines, rtol=1e-9)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_weight_decay_is_the_penalty_of_the_optimizer_on_weights_but_not_on_vectors(direction):
    model, batch, decay = noisy_net(), images(), 0.3

    def penalised(outputs, labels):
        weights = [p for p in model.parameters() if p.ndim > 1]
        penalty = sum((p * p).sum() for p in weights) * (decay / 2)
        return ops.softmax_cross_entropy(outputs, labels) + penalty

    with_option = probe(model, batch, [0.1, 0.4], weight_decay=decay, direction=direction)
    with_loss = probe(model, batch, [0.1, 0.4], loss=penalised, direction=direction)
    without = probe(model, batch, [0.1, 0.4], direction=direction)
    assert_same(with_option, with_loss, rtol=1e-10)
    assert with_option.loss > without.loss + 0.1
    groups = optim.decay_groups(model, decay)
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.parameters() if p.ndim > 1}


def assert_same(one: Probe, other: Probe, rtol: float = 0) -> None:
    for name, seen in vars(one).items():
        np.testing.assert_allclose(seen, getattr(other, name), rtol=rtol, err_msg=name)
