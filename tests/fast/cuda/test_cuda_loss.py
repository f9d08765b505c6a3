"""Softmax cross-entropy by CUDA kernels against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda import on_cuda, orders

from minibn import Tensor, grad, kernels, ops
from minibn.backend import to_numpy
from minibn.backend.strict import count_transfers
from minibn.fast.cuda.graph import Graph
from minibn.fast.cuda.loss import WarpCrossEntropy
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.testing.commands.profiles import share

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
KINDS = [np.int64, np.int32, np.uint8, np.int16]


def by_kernel(backend, x, labels, g, keep=True):
    x, g = backend.asarray(x), backend.asarray(g)
    kernel = WarpCrossEntropy(SoftmaxCrossEntropy(backend.asarray(labels)))
    assert kernel.fits(kernel.op, x)
    kernel.keep = keep
    y = kernel.forward(x)
    return [to_numpy(a) for a in (y, kernel.vjp(g, y, x), kernel.vjp(g, y, x))]


@on_cuda
@settings(max_examples=share(40))
@given(
    N=st.integers(1, 20) | st.sampled_from([300]),
    K=st.integers(1, 12) | st.sampled_from([32, 33, 100]),
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1.0, 30.0, 1e4]),
    dtype=st.sampled_from([np.float32, np.float64]),
    kind=st.sampled_from(KINDS),
    keep=st.booleans(),
)
def test_loss_and_gradient_agree_with_the_definition(backend, N, K, seed, size, dtype, kind, keep):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((N, K)) * size).astype(dtype)
    labels, g = rng.integers(0, K, N).astype(kind), np.asarray(1.7, dtype)
    op = SoftmaxCrossEntropy(labels)
    wide = x.astype(np.float64)
    y, *slopes = by_kernel(backend, x, labels, g, keep)
    assert y.dtype == dtype and y.shape == ()
    assert abs(y - op.forward(wide)) <= TOLERANCE[dtype] * max(1, abs(x).max())
    for slope in slopes:
        assert slope.dtype == dtype
        assert abs(slope - op.vjp(1.7, None, wide)).max() <= TOLERANCE[dtype]


@on_cuda
def test_infinite_logits_and_nan_mean_what_they_mean_in_the_definition(backend):
    x = np.zeros((6, 4))
    x[0, 1], x[1, 2], x[2, 0], x[3] = np.inf, np.nan, -np.inf, -np.inf
    x[4, :2] = np.inf
    labels, g = np.array([1, 0, 0, 1, 3, 2]), np.asarray(1.0)
    for row in range(6):
        given, label = x[row : row + 1], labels[row : row + 1]
        op = SoftmaxCrossEntropy(label)
        with np.errstate(all="ignore"), kernels("reference"):
            expected = op.forward(given), op.vjp(g, None, given)
        y, slope, _ = by_kernel(backend, given, label, g)
        np.testing.assert_allclose(y, expected[0], rtol=1e-12, err_msg=f"row {row}")
        np.testing.assert_allclose(slope, expected[1], rtol=1e-12, err_msg=f"row {row}")


@on_cuda
def test_threads_in_any_order_give_the_same_bits(backend):
    rng = np.random.default_rng(0)
    given = rng.standard_normal((300, 37)).astype(np.float32), rng.integers(0, 37, 300)
    g = np.asarray(1.0, np.float32)
    first, *others = orders(backend, lambda: by_kernel(backend, *given, g))
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


@on_cuda
def test_labels_of_the_host_are_checked_and_nothing_waits(backend):
    leaf = Tensor(backend.asarray(np.ones((3, 4))), requires_grad=True)
    one = backend.asarray(np.ones(()))
    with count_transfers() as count:
        loss = ops.softmax_cross_entropy(leaf, np.array([0, 3, 1]))
        assert isinstance(loss.node.kernel, WarpCrossEntropy)
        grad(loss, leaf, one)
    assert count.n == 0, count.names
    with pytest.raises(ValueError, match="labels run from 0 to 4"):
        ops.softmax_cross_entropy(leaf, [0, 4, 1])


@on_cuda
def test_labels_of_the_device_are_checked_unless_a_graph_is_captured(backend):
    x = Tensor(backend.asarray(np.ones((3, 4))), requires_grad=True)
    good, bad = (backend.asarray(np.array(a)) for a in ([0, 3, 1], [0, 4, 1]))
    with pytest.raises(ValueError, match="labels run from 0 to 4"):
        ops.softmax_cross_entropy(x, bad)
    graph = Graph(backend)
    with count_transfers() as count:
        with graph.capture([]):
            loss, lost = (ops.softmax_cross_entropy(x, labels) for labels in (good, bad))
            with pytest.raises(ValueError, match="labels run from 0 to 4"):
                ops.softmax_cross_entropy(x, [0, 4, 1])
        graph.launch()
    assert count.n == 0, count.names
    assert to_numpy(loss) == pytest.approx(np.log(4)) and np.isnan(to_numpy(lost))


@on_cuda
def test_labels_that_change_afterwards_change_nothing(backend):
    x = Tensor(backend.asarray(np.eye(3)), requires_grad=True)
    labels = backend.asarray(np.array([0, 1, 2]))
    loss = ops.softmax_cross_entropy(x, labels)
    labels[...] = 0
    np.testing.assert_allclose(to_numpy(grad(loss, x)).sum(0), 0, atol=1e-12)
