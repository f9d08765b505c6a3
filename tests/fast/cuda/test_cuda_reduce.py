"""Sums over the leading axes: the definition's, without a product that can't be captured."""

import numpy as np
import pytest
from support.cuda import on_cuda

from minibn import Tensor, ops, to_numpy
from minibn.fast.cuda.graph import Graph


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4, 7), (1, 1), (300, 2), (0, 3)])
@on_cuda
def test_they_are_the_sums_in_either_precision(backend, shape, keepdims):
    x = np.random.default_rng(0).standard_normal(shape)
    axes = tuple(range(len(shape) - 1))
    for dtype, digits in ((np.float64, 1e-13), (np.float32, 2e-5)):
        there = backend.asarray(x.astype(dtype))
        y = ops.sum(there, axis=axes, keepdims=keepdims)
        assert y.dtype == dtype
        expected = x.sum(axis=axes, keepdims=keepdims)
        np.testing.assert_allclose(to_numpy(y), expected, atol=digits * (1 + np.abs(x).sum()))


@on_cuda
def test_a_bias_is_added_and_its_gradient_found_in_a_capture(backend):
    x = backend.asarray(np.ones((6, 4), np.float32))
    bias = Tensor(backend.asarray(np.zeros(4, np.float32)), requires_grad=True)

    def gradient():
        bias.grad = None
        y = bias + x
        (y * y).sum().backward()
        assert bias.grad is not None
        return bias.grad.data

    gradient()
    graph = Graph(backend)
    with graph.capture():
        g = gradient()
    x *= 3
    graph.launch()
    assert to_numpy(g).tolist() == [36.0] * 4
