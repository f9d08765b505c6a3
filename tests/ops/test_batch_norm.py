"""Batch normalisation: examples and errors. Its laws are in tests/suite/laws/batch_norm.py."""

import numpy as np
import pytest
from suite import loops

from minibn import Tensor, ops
from minibn.backend import to_numpy
from minibn.errors import ShapeError


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
    exact = loops.batch_norm(x.astype(float), np.ones(4), np.zeros(4), 1e-5)
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
