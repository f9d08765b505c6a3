"""Curvature: against matrices that are known, and against Hessians in full."""

import math

import numpy as np
import pytest
from curved import conv_net, full, images, quadratic, quadratic_model, squares, symmetric

from minibn import Tensor, grad, jacobian, nn, ops
from minibn.analysis.curvature import (
    Hessian,
    curvature_along_gradient,
    hessian_eigenvalues,
    hessian_trace,
)

# -- a quadratic, whose Hessian is known


def test_a_product_with_the_hessian_of_a_quadratic_is_the_product_with_its_matrix():
    A = symmetric([-3, -1, 0.5, 2, 7])
    model, batch = quadratic_model(A)
    H, w = Hessian(model, batch, loss=quadratic), model.w.numpy()
    np.testing.assert_allclose(full(H), A, atol=1e-14)
    np.testing.assert_allclose(H.gradient, A @ w, atol=1e-14)
    assert H.loss == pytest.approx(w @ A @ w / 2) and H.size == 5
    assert H.gradient_norm == pytest.approx(np.linalg.norm(A @ w))


def test_curvature_along_the_gradient_of_a_quadratic_is_its_rayleigh_quotient():
    A = symmetric([-3, -1, 0.5, 2, 7])
    model, batch = quadratic_model(A)
    g = A @ model.w.numpy()
    expected = (g @ A @ g) / (g @ g)
    assert curvature_along_gradient(model, batch, loss=quadratic) == pytest.approx(expected, 1e-13)


@pytest.mark.parametrize("which", ["largest", "magnitude"])
def test_lanczos_to_the_end_finds_every_eigenvalue_in_the_order_asked_for(which):
    spectrum = np.array([-9, -4, -1, 0.5, 2, 6, 7.0])
    model, batch = quadratic_model(symmetric(spectrum))
    found = hessian_eigenvalues(model, batch, 7, loss=quadratic, which=which, tolerance=0)
    order = np.argsort(-spectrum if which == "largest" else -abs(spectrum))
    np.testing.assert_allclose(found.values, spectrum[order], atol=1e-13)
    assert found.residuals.max() < 1e-12 and found.iterations == 7


def test_a_multiple_eigenvalue_counts_once_until_the_iteration_goes_to_the_end():
    model, batch = quadratic_model(symmetric([5, 5, 5, 2, 2, -1, -1, -1.0]))
    H = Hessian(model, batch, loss=quadratic)
    first = H.eigenvalues(3)
    np.testing.assert_allclose(first.values, [5, 2, -1], atol=1e-12)
    assert first.converged and first.iterations == 3
    np.testing.assert_allclose(
        H.eigenvalues(8, tolerance=0).values, [5, 5, 5, 2, 2, -1, -1, -1], atol=1e-12
    )


@pytest.mark.parametrize("iterations", [5, 10, 20, 35])
def test_within_its_residual_of_each_ritz_value_lies_an_eigenvalue(iterations):
    spectrum = np.concatenate([np.linspace(-1, 1, 96), [1.5, 2, 3, 3.2]])
    model, batch = quadratic_model(symmetric(spectrum))
    found = hessian_eigenvalues(model, batch, 3, loss=quadratic, iterations=iterations, tolerance=0)
    distance = abs(spectrum[:, None] - found.values).min(axis=0)
    assert (distance <= found.residuals + 1e-13).all()
    assert found.values[0] <= 3.2 + 1e-13
    assert found.iterations == iterations


def test_lanczos_stops_where_the_residuals_are_as_small_as_asked_for():
    spectrum = np.concatenate([np.linspace(-1, 1, 96), [1.5, 2, 3, 3.2]])
    model, batch = quadratic_model(symmetric(spectrum))
    H = Hessian(model, batch, loss=quadratic)
    loose, tight = (H.eigenvalues(2, tolerance=t, iterations=100) for t in (1e-2, 1e-8))
    assert loose.converged and loose.residuals.max() <= 1e-2 * 3.2
    assert tight.converged and tight.residuals.max() <= 1e-8 * 3.2
    assert loose.iterations < tight.iterations < 60
    np.testing.assert_allclose(tight.values, [3.2, 3], atol=1e-12)


def test_full_orthogonalisation_finds_no_ghosts_of_a_dominant_eigenvalue():
    """Without it the largest one returns as a second and a third after enough iterations."""
    spectrum = np.concatenate([np.linspace(0, 1, 79), [1e4]])
    model, batch = quadratic_model(symmetric(spectrum))
    found = hessian_eigenvalues(
        model, batch, 3, loss=quadratic, iterations=80, tolerance=0
    )  # fmt: skip
    np.testing.assert_allclose(found.values, [1e4, 1, 1 - 1 / 78], rtol=1e-9)


def test_the_trace_of_a_diagonal_hessian_is_exact_with_one_sample():
    model, batch = quadratic_model(np.diag([1.0, -2, 4, 8]))
    once = hessian_trace(model, batch, loss=quadratic, samples=1)
    assert once.value == 11 and math.isnan(once.error) and once.samples == 1
    found = hessian_trace(model, batch, loss=quadratic, samples=5)
    assert found.value == 11 and found.error == 0


def test_the_trace_is_within_its_standard_error_as_often_as_it_says():
    A = symmetric(np.arange(12.0))
    model, batch = quadratic_model(A)
    H = Hessian(model, batch, loss=quadratic)
    found = [H.trace(samples=20, seed=seed) for seed in range(60)]
    off = np.array([(f.value - 66) / f.error for f in found])
    assert 0.5 < (abs(off) < 1).mean() < 0.85  # 68 % of normal errors, ± 3 σ of 60
    assert abs(off).max() < 4.5
    variance = 2 * (A**2).sum() - 2 * (np.diag(A) ** 2).sum()
    assert np.mean([f.error**2 for f in found]) == pytest.approx(variance / 20, rel=0.15)


def test_descent_on_a_quadratic_is_stable_up_to_two_over_the_largest_eigenvalue():
    A = symmetric([1, 3, 8.0])
    model, batch = quadratic_model(A)
    edge = 2 / hessian_eigenvalues(model, batch, loss=quadratic, tolerance=1e-9).values[0]
    for lr, grows in ((0.99 * edge, False), (1.01 * edge, True)):
        w = np.ones(3)
        for _ in range(1000):
            w = w - lr * (A @ w)
        assert (np.linalg.norm(w) > 1) == grows


# -- networks, against the jacobian of the gradient of an independent text


def mlp_text(batch):
    """Loss of a vector: Linear(3, 4), ReLU, Linear(4, 2)."""
    x, labels = batch

    def loss(w):
        W, b, V, c = w[:12].reshape(3, 4), w[12:16], w[16:24].reshape(4, 2), w[24:]
        return ops.softmax_cross_entropy(ops.relu(x @ W + b) @ V + c, labels)

    return loss


def conv_text(batch):
    """Loss of a vector: conv, BatchNorm of primitive ops, ReLU, pooling, linear."""
    x, labels = batch

    def loss(w):
        y = ops.conv2d(x, w[:54].reshape(3, 3, 2, 3), padding=1)
        y = ops.batch_norm_composed(y, w[54:57], w[57:60])
        y = ops.max_pool2d(ops.relu(y), 2).reshape(len(x), 12)
        return ops.softmax_cross_entropy(y @ w[60:96].reshape(12, 3) + w[96:], labels)

    return loss


def linear_text(batch):
    """Loss of a vector: three linear layers 3 × 3, BatchNorm behind the first."""
    x, targets = batch

    def loss(w):
        y = ops.batch_norm_composed(x @ w[:9].reshape(3, 3), w[9:12], w[12:15])
        return squares(y @ w[15:24].reshape(3, 3) @ w[24:].reshape(3, 3), targets)

    return loss


def networks():
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((6, 3))
    mlp = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    layers = [nn.Linear(3, 3, bias=False) for _ in range(3)]
    deep = nn.Sequential(layers[0], nn.BatchNorm(3), *layers[1:])
    cross_entropy = ops.softmax_cross_entropy
    return {
        "mlp": (mlp, (vectors, rng.integers(0, 2, 6)), mlp_text, cross_entropy),
        "conv": (conv_net(), images(), conv_text, cross_entropy),
        "deep linear": (deep, (vectors, rng.standard_normal((6, 3))), linear_text, squares),
    }


@pytest.mark.parametrize("name", ["mlp", "conv", "deep linear"])
def test_of_a_network_all_agrees_with_the_jacobian_of_the_gradient(name):
    model, batch, text, loss = networks()[name]
    model.initialize(3, dtype=np.float64)
    for p in model.parameters():  # away from the gamma = 1 and beta = 0 of the start
        p.data += 0.2 * np.random.default_rng(p.size).standard_normal(p.shape)
    w = np.concatenate([p.data.reshape(-1) for p in model.parameters()])
    f = text(batch)
    A = jacobian(lambda w: grad(f(w), w, create_graph=True), w).numpy()
    g = grad(f(leaf := Tensor(w, requires_grad=True)), leaf).numpy()
    scale = abs(A).max()

    H = Hessian(model, batch, loss=loss)
    assert H.loss == pytest.approx(f(Tensor(w)).item(), rel=1e-12)
    np.testing.assert_allclose(H.gradient, g, atol=1e-11 * abs(g).max())
    np.testing.assert_allclose(full(H), A, atol=1e-10 * scale)
    assert H.along_gradient() == pytest.approx((g @ A @ g) / (g @ g), rel=1e-9)
    expected = np.linalg.eigvalsh(A)[::-1]
    n = H.size
    largest = H.eigenvalues(3, tolerance=1e-9, iterations=n)
    np.testing.assert_allclose(largest.values, expected[:3], atol=1e-10 * scale)
    by_size = expected[np.argsort(-abs(expected))]
    magnitude = H.eigenvalues(3, which="magnitude", tolerance=1e-9, iterations=n)
    np.testing.assert_allclose(magnitude.values, by_size[:3], atol=1e-10 * scale)
    trace = H.trace(samples=200)
    assert abs(trace.value - np.trace(A)) < 4 * trace.error


def test_a_weight_before_batch_norm_has_no_slope_along_itself_and_its_product_is_minus_the_slope():
    """The loss is the same for t · w: ⟨g, w⟩ = 0, and H w = -g, since g(t · w) = g(w) / t; the
    other parameters' gradients stay as they are. (Exactly so at eps = 0.)"""
    model = conv_net(eps=0)
    H = Hessian(model, images())
    along = np.zeros(H.size)
    along[:54] = model.conv.weight.numpy().reshape(-1)
    g = H.gradient * (along != 0)
    assert np.linalg.norm(g) > 0.1
    assert abs(H.gradient @ along) < 1e-13
    np.testing.assert_allclose(H @ along, -g, atol=1e-13)


def test_weight_decay_adds_to_the_diagonal_of_matrices_and_filters_only():
    model, batch = conv_net(), images()
    plain, decayed = (Hessian(model, batch, weight_decay=d) for d in (0.0, 0.5))
    decay = np.concatenate([np.full(p.size, 0.5 * (p.ndim > 1)) for p in model.parameters()])
    w = np.concatenate([p.data.reshape(-1) for p in model.parameters()])
    v = np.random.default_rng(0).standard_normal(plain.size)
    np.testing.assert_allclose(decayed @ v, plain @ v + decay * v, atol=1e-13)
    np.testing.assert_allclose(decayed.gradient, plain.gradient + decay * w, atol=1e-13)
    assert decayed.loss == pytest.approx(plain.loss + 0.5 * (decay * w * w).sum(), rel=1e-13)


def test_the_three_functions_are_the_three_questions_to_one_hessian():
    model, batch = conv_net(), images()
    H = Hessian(model, batch, weight_decay=0.5)
    assert curvature_along_gradient(model, batch, weight_decay=0.5) == H.along_gradient()
    found = hessian_eigenvalues(
        model, batch, 2, weight_decay=0.5, which="magnitude", iterations=9, tolerance=0.1, seed=3
    )
    expected = H.eigenvalues(2, which="magnitude", iterations=9, tolerance=0.1, seed=3)
    assert repr(found) == repr(expected)
    assert hessian_trace(model, batch, weight_decay=0.5, samples=3, seed=3) == H.trace(3, 3)
