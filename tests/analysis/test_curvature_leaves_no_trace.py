"""Curvature leaves no trace, is the same every time and everywhere, and says what is wrong."""

import math

import numpy as np
import pytest
from curved import Weights, conv_net, images, quadratic

from minibn import Tensor, nn, no_grad, ops, to_numpy, use
from minibn.analysis.curvature import (
    Hessian,
    curvature_along_gradient,
    hessian_eigenvalues,
    hessian_trace,
)
from minibn.errors import ShapeError

# -- without a trace, and the same every time


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was_to_the_last_bit_in_training_mode_and_in_eval_mode(training):
    model, batch = conv_net(noise=True).train(training), images()
    model(batch[0])
    for p in model.parameters():
        p.grad = Tensor(np.ones(p.shape))
    states = [*model.named_parameters(), *model.named_buffers()]
    before = [(s, s.data, s.data.copy(), s.grad) for _, s in states]
    curvature_along_gradient(model, batch)
    hessian_eigenvalues(model, batch, 2)
    hessian_trace(model, batch, samples=2)
    with pytest.raises(ValueError):
        Hessian(model, batch, loss=lambda y, targets: y)
    for state, array, values, g in before:
        assert state.data is array and state.grad is g
        np.testing.assert_array_equal(array, values)
    assert all(module.training == training for _, module in model.named_modules())


def test_what_is_measured_is_the_training_modes_loss_also_in_eval_mode():
    model, batch = conv_net(), images()
    expected = curvature_along_gradient(model, batch)
    assert curvature_along_gradient(model.eval(), batch) == expected
    model.train()
    assert Hessian(model, batch).loss == ops.softmax_cross_entropy(model(batch[0]), batch[1]).item()


def test_the_network_runs_once_however_many_products_are_taken():
    model, calls = conv_net(), []
    with model.watch(lambda *_: calls.append(1)):
        H = Hessian(model, images())
        H.along_gradient(), H.eigenvalues(3), H.trace(samples=3)
    assert len(calls) == 1


def test_noise_is_that_of_the_present_step_in_every_product():
    model, batch = conv_net(noise=True), images()
    rng = np.random.default_rng(0)
    H = Hessian(model, batch)
    u, v = rng.standard_normal((2, H.size))
    np.testing.assert_array_equal(H @ v, H @ v)
    assert u @ (H @ v) == pytest.approx(v @ (H @ u), rel=1e-10)  # one noise: it is symmetric
    np.testing.assert_array_equal(Hessian(model, batch) @ v, H @ v)
    step = ops.softmax_cross_entropy(model(batch[0]), batch[1]).item()
    assert H.loss == step  # what training sees; its noise has moved on now
    assert Hessian(model, batch).loss != step


def test_seeds_choose_the_vectors_and_reproduce_them():
    model, batch = conv_net(), images()
    H = Hessian(model, batch)
    assert H.trace(samples=3, seed=1) == H.trace(samples=3, seed=1) != H.trace(samples=3, seed=2)
    start = [
        H.eigenvalues(iterations=3, tolerance=0, seed=seed).values.item() for seed in (1, 1, 2)
    ]
    assert start[0] == start[1] != start[2]


def test_float32_agrees_with_float64_to_its_own_digits():
    found = []
    for dtype in (np.float32, np.float64):
        model = conv_net(np.float32)
        for state in [*model.parameters(), *(b for _, b in model.named_buffers())]:
            state.data = state.data.astype(dtype if state.data.ndim else np.int64)
        x, labels = images(np.float32)
        H = Hessian(model, (x.astype(dtype), labels))
        assert H.gradient.dtype == (H @ H.gradient).dtype == np.float64
        largest = H.eigenvalues(3, tolerance=1e-4).values
        found.append([H.along_gradient(), H.trace(samples=4).value, *largest])
    np.testing.assert_allclose(*found, rtol=2e-5, atol=2e-5 * max(found[1]))


def test_every_backend_gives_the_same_answers(backend):
    x, labels = images()
    batch = (backend.asarray(x), backend.asarray(labels))
    model = conv_net(noise=True)  # on the backend
    H = Hessian(model, batch, weight_decay=0.1)
    reference = to_numpy(H @ H.gradient)
    answers = [H.along_gradient(), H.trace(samples=3).value, *H.eigenvalues(3).values]
    assert np.isfinite(answers).all() and isinstance(answers[0], float)
    with use("numpy"):
        H = Hessian(conv_net(noise=True), (x, labels), weight_decay=0.1)
        np.testing.assert_allclose(H @ H.gradient, reference, rtol=1e-9, atol=1e-11)
        expected = [H.along_gradient(), H.trace(samples=3).value, *H.eigenvalues(3).values]
    np.testing.assert_allclose(answers, expected, rtol=1e-9)


# -- edges


def test_a_zero_gradient_has_no_direction_so_the_curvature_along_it_is_nan():
    model = nn.Sequential(nn.Linear(2, 2)).initialize(0)
    zeros = np.zeros((3, 2), np.float32)
    H = Hessian(model, (zeros, zeros), loss=lambda y, t: ((y - t) ** 2).sum())
    assert H.gradient_norm == 0 and math.isnan(H.along_gradient())
    assert H.eigenvalues().values == pytest.approx([6])  # of the biases, over three rows


def test_a_loss_that_is_linear_or_constant_in_the_weights_has_the_hessian_zero():
    model = nn.Sequential(nn.Linear(2, 2)).initialize(0, dtype=np.float64)
    x = np.ones((3, 2))
    for loss in (lambda y, t: y.sum(), lambda y, t: Tensor(np.array(2.0))):
        H = Hessian(model, (x, x), loss=loss)
        assert not (H @ np.ones(6)).any()
        found = H.eigenvalues(2)
        assert found.values.tolist() == [0, 0] and found.converged
        assert H.eigenvalues(tolerance=0).iterations == 6  # to the end, as it was asked to
        assert H.trace(samples=2).value == 0
    assert Hessian(model, (x, x), loss=lambda y, t: y.sum()).along_gradient() == 0


def test_frozen_parameters_and_recording_switched_off_do_not_matter_to_the_rest():
    model, batch = conv_net(), images()
    v = np.random.default_rng(0).standard_normal(99) * (np.arange(99) >= 60)
    expected = Hessian(model, batch) @ v
    assert abs(expected[60:]).max() > 0.1
    for p in (model.conv.weight, model.norm.gamma, model.norm.beta):
        p.requires_grad = False
    with no_grad():
        np.testing.assert_allclose(Hessian(model, batch) @ v[60:], expected[60:], atol=1e-14)


def test_a_parameter_that_the_loss_does_not_use_has_zeros():
    model = Weights(3).initialize(0, dtype=np.float64)
    model.unused = nn.Linear(2, 1).initialize(0, dtype=np.float64)
    H = Hessian(model, (None, np.eye(3)), loss=quadratic)
    np.testing.assert_array_equal(H @ np.ones(6), [1, 1, 1, 0, 0, 0])


def test_a_hessian_stays_the_one_of_its_weights_when_the_model_moves_on():
    model, batch = conv_net(), images()
    H = Hessian(model, batch)
    v, before = H.gradient, H @ H.gradient
    model.conv.weight.assign(model.conv.weight.numpy() * 2)
    model(batch[0])
    np.testing.assert_array_equal(H @ v, before)
    assert abs(Hessian(model, batch) @ v - before).max() > 0.01


@pytest.mark.parametrize(
    ("act", "error", "said"),
    [
        (lambda m, b: Hessian(nn.ReLU(), b), ValueError, "no parameter"),
        (lambda m, b: Hessian(m, b, loss=lambda y, t: y), ValueError, r"shape \(4, 3\).*scalar"),
        (lambda m, b: Hessian(m, b, loss=lambda y, t: 1.0), ValueError, "float.*scalar Tensor"),
        (lambda m, b: Hessian(m, b[0]), ValueError, r"\(x, targets\)"),
        (lambda m, b: Hessian(m, b, weight_decay=-1), ValueError, "weight_decay=-1"),
        (lambda m, b: Hessian(m, b) @ np.ones(5), ShapeError, r"\(5,\).*\(99,\)"),
        (lambda m, b: hessian_eigenvalues(m, b, 0), ValueError, "k=0"),
        (lambda m, b: hessian_eigenvalues(m, b, 100), ValueError, "k=100.*99"),
        (lambda m, b: hessian_eigenvalues(m, b, 9, iterations=8), ValueError, "iterations=8"),
        (
            lambda m, b: hessian_eigenvalues(m, b, which="smallest"),
            ValueError,
            "largest, magnitude",
        ),
        (lambda m, b: hessian_trace(m, b, samples=0), ValueError, "samples=0"),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_one_line(act, error, said):
    with pytest.raises(error, match=said) as caught:
        act(conv_net(), images())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error_that_asks_whether_training_diverged(bad):
    model, (x, labels) = conv_net(), images()
    x[0, 0, 0, 0] = bad
    with pytest.raises(FloatingPointError, match=r"loss is nan.*diverged"):
        Hessian(model, (x, labels))


def test_a_product_that_is_not_finite_is_an_error():
    model = Weights(1).initialize(0, dtype=np.float64)
    model.w.assign(np.zeros(1))
    H = Hessian(model, (None, None), loss=lambda w, t: (w**1.5).sum())
    for ask in (H.eigenvalues, H.trace):
        with pytest.raises(FloatingPointError, match=r"H v is not finite.*square root"):
            ask()
