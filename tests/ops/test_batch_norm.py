"""Batch normalisation: the op, its definition, and the laws of its gradient."""

import numpy as np
import pytest
from hypothesis import given
from support.backends import on_backends
from support.oracles import gradients

from minibn import Tensor, grad, ops
from minibn.backend import get_backend, to_numpy
from minibn.errors import ShapeError
from minibn.testing.registry import normalisations


def batch_norm_by_loops(x, gamma, beta, eps):
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        values = [float(v) for v in x[..., c].ravel()]
        mean = sum(values) / len(values)
        var = sum((v - mean) ** 2 for v in values) / len(values)
        y[..., c] = (x[..., c] - mean) / (var + eps) ** 0.5 * gamma[c] + beta[c]
    return y


@on_backends
@given(normalisations(lambda *x, eps: (ops.batch_norm(*x, eps=eps), eps)))
def test_batch_norm_equals_loops(backend, problem):
    y, eps = problem.f(*map(backend.asarray, problem.inputs))
    expected = batch_norm_by_loops(*problem.inputs, eps)
    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-9, atol=1e-11)


def both(problem, backend, value):
    """`value` of batch_norm and of its definition at the problem's inputs."""
    _, eps = problem.f(*problem.inputs)
    c = problem.rng().standard_normal(problem.inputs[0].shape)
    for op in (ops.batch_norm, ops.batch_norm_composed):
        yield value(lambda *x, op=op: op(*x, eps=eps), problem.inputs, c, backend)


def second_derivatives(f, inputs, c, backend):
    leaves = [Tensor(backend.asarray(x), requires_grad=True) for x in inputs]
    slopes = grad(f(*leaves), leaves, backend.asarray(c), create_graph=True)
    total = sum((g * g).sum() for g in slopes)
    return [g.numpy() for g in grad(total, leaves, unused="zeros")]


@on_backends
@given(normalisations(lambda *x, eps: (ops.batch_norm(*x, eps=eps), eps)))
def test_batch_norm_equals_its_definition_in_value_and_two_derivatives(backend, problem):
    def value(f, inputs, c, backend):
        return [to_numpy(f(*map(backend.asarray, inputs)))]

    for what in (value, gradients, second_derivatives):
        for ours, composed in zip(*both(problem, backend, what), strict=True):
            scale = np.abs(composed).max()
            np.testing.assert_allclose(ours, composed, rtol=1e-8, atol=1e-9 * scale)


@given(normalisations(lambda *x, eps: (ops.batch_norm(*x, eps=eps), eps)))
def test_the_gradient_sums_to_zero_and_is_orthogonal_to_x_hat_up_to_eps(problem):
    (x, gamma, _), (_, eps) = problem.inputs, problem.f(*problem.inputs)
    c = problem.rng().standard_normal(x.shape)
    numpy = get_backend("numpy")
    g, *_ = gradients(lambda *x: ops.batch_norm(*x, eps=eps), problem.inputs, c, numpy)
    axes = tuple(range(x.ndim - 1))
    variance = x.var(axes)
    x_hat = (x - x.mean(axes)) / np.sqrt(variance + eps)
    sizes = np.abs(gamma) / np.sqrt(variance + eps) * np.abs(c).sum(axes)
    assert (np.abs(g.sum(axes)) <= 1e-12 * sizes).all()
    law = gamma / np.sqrt(variance + eps) * (c * x_hat).sum(axes) * eps / (variance + eps)
    np.testing.assert_allclose((g * x_hat).sum(axes), law, rtol=1e-7, atol=1e-10 * sizes.max())


def test_the_scale_and_shift_of_the_input_are_normalised_away():
    x = np.random.default_rng(0).standard_normal((6, 4, 3))
    gamma, beta = np.array([1.0, -2, 0.5]), np.array([0.0, 1, 3])
    y = ops.batch_norm(x, gamma, beta, eps=1e-5)
    scaled = ops.batch_norm(7 * x + 3, gamma, beta, eps=49e-5)
    np.testing.assert_allclose(scaled, y, atol=1e-12)


def test_the_moments_that_are_returned_are_those_of_the_batch_as_plain_arrays(backend):
    x = np.random.default_rng(0).standard_normal((4, 5, 3))
    leaf = Tensor(backend.asarray(x), requires_grad=True)
    ones, zeros = backend.asarray(np.ones(3)), backend.asarray(np.zeros(3))
    y, mean, var = ops.batch_norm(leaf, ones, zeros, return_moments=True)
    assert y.requires_grad
    np.testing.assert_allclose(to_numpy(mean), x.mean((0, 1)), atol=1e-14)
    np.testing.assert_allclose(to_numpy(var), x.var((0, 1)), atol=1e-14)
    assert not isinstance(mean, Tensor)


def test_a_constant_channel_is_normalised_to_beta_and_gives_finite_gradients():
    x = Tensor(np.full((4, 2), 3.0), requires_grad=True)
    y = ops.batch_norm(x, np.ones(2), np.array([0.5, -0.5]))
    np.testing.assert_allclose(y.numpy(), np.tile([0.5, -0.5], (4, 1)), atol=1e-10)
    y.backward(np.random.default_rng(0).standard_normal((4, 2)))
    assert np.isfinite(x.grad.numpy()).all()


def test_a_large_offset_costs_float32_no_more_digits_than_the_input_has_lost_already():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((256, 4)) + 1000).astype(np.float32)
    y = ops.batch_norm(x, np.ones(4, np.float32), np.zeros(4, np.float32))
    exact = batch_norm_by_loops(x.astype(float), np.ones(4), np.zeros(4), 1e-5)
    assert np.abs(y - exact).max() < 4 * 1000 * np.finfo(np.float32).eps


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3), (0, 3), (4,), (1, 0)])
def test_a_batch_without_a_variance_is_refused(shape):
    C = shape[-1]
    with pytest.raises(ShapeError, match="batch"):
        ops.batch_norm(np.zeros(shape), np.ones(C), np.zeros(C))


@pytest.mark.parametrize("op", [ops.batch_norm, ops.batch_norm_inference])
def test_a_vector_of_the_wrong_length_is_named(op):
    vectors = {"gamma": np.ones(3), "beta": np.zeros(2)}
    if op is ops.batch_norm_inference:
        vectors |= {"running_mean": np.zeros(3), "running_var": np.ones(3)}
    with pytest.raises(ShapeError, match="beta"):
        op(np.zeros((4, 3)), **vectors)


def test_inference_is_affine_with_the_slope_of_the_running_variance():
    rng = np.random.default_rng(0)
    gamma, var = rng.standard_normal(3), rng.random(3) + 0.1
    x = Tensor(rng.standard_normal((5, 3)), requires_grad=True)
    y = ops.batch_norm_inference(x, gamma, np.zeros(3), np.ones(3), var, eps=1e-3)
    c = rng.standard_normal((5, 3))
    y.backward(c)
    np.testing.assert_allclose(x.grad.numpy(), c * gamma / np.sqrt(var + 1e-3), rtol=1e-12)
