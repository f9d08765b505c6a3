"""Softmax cross-entropy in one walk against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import Tensor, grad, kernels, ops
from minibn.autograd.dispatch import find_kernel
from minibn.fast.cpu.loss import RowwiseCrossEntropy
from minibn.ops.loss import SoftmaxCrossEntropy

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


@given(
    N=st.integers(1, 9),
    K=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1.0, 30.0, 1e4]),
    dtype=st.sampled_from(["float32", "float64"]),
    order=st.sampled_from("CF"),
    keep=st.booleans(),
)
def test_loss_and_gradient_agree_with_the_definition(N, K, seed, size, dtype, order, keep):
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.standard_normal((N, K)) * size, dtype=dtype, order=order)
    op = SoftmaxCrossEntropy(rng.integers(0, K, N))
    kernel = RowwiseCrossEntropy(op)
    kernel.keep = keep
    before, y = x.copy(), op.forward(x)
    found = kernel.forward(x)
    assert found.dtype == y.dtype and found.shape == y.shape
    assert abs(found - y) <= TOLERANCE[dtype] * max(1, abs(x).max())
    g = np.asarray(1.7, dtype)
    for _ in range(2):  # a vjp may be asked for twice
        found = kernel.vjp(g, y, x)
        assert found.dtype == x.dtype
        assert abs(found - op.vjp(g, y, x)).max() <= TOLERANCE[dtype] * g
    np.testing.assert_array_equal(x, before)


def test_the_kernel_stands_in_for_finite_logits_and_leaves_the_rest_to_the_definition():
    op, x = SoftmaxCrossEntropy(np.array([0, 1])), np.zeros((2, 3))
    assert type(find_kernel(op, [x])) is RowwiseCrossEntropy
    assert find_kernel(op, [x.astype(np.float16)]) is None
    for odd in (np.inf, np.nan):
        x[1, 2] = odd
        assert find_kernel(op, [x]) is None
    x[1] = -np.inf
    assert find_kernel(op, [x]) is None
    x[1, 0] = 0
    assert type(find_kernel(op, [x])) is RowwiseCrossEntropy


@pytest.mark.parametrize("mode", ["always", "lean"])
def test_a_second_derivative_is_that_of_the_definition(mode):
    rng = np.random.default_rng(0)
    x, labels, v = rng.standard_normal((4, 5)), rng.integers(0, 5, 4), rng.standard_normal((4, 5))

    def second(mode):
        with kernels(mode):
            leaf = Tensor(x, requires_grad=True)
            loss = ops.softmax_cross_entropy(leaf, labels)
            slope = grad(loss, leaf, create_graph=True)
            return grad((slope * v).sum(), leaf).numpy()

    np.testing.assert_allclose(second(mode), second("reference"), atol=1e-13)
