"""A cotangent of another dtype than the output's gets the definition, whatever kernel ran forward.

A complex cotangent of a real graph is what a complex step through a gradient sends.
"""

import numpy as np
import pytest
from support.cuda import on

from minibn import Tensor, kernels, nn, ops
from minibn.backend import get_backend, to_numpy, use
from minibn.fast.fused_ops import fused_block

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


X, W3, W5, W1 = normal(2, 8, 6, 3), normal(3, 3, 3, 4), normal(5, 5, 3, 4), normal(1, 1, 3, 4)
C = np.ones(3)
CASES = {
    "conv2d 3x3": (lambda x, w: ops.conv2d(x, w, padding=1), (X, W3)),
    "conv2d 5x5": (lambda x, w: ops.conv2d(x, w), (X, W5)),
    "conv2d 5x5, stride 2": (lambda x, w: ops.conv2d(x, w, stride=2, padding=2), (X, W5)),
    "conv2d 1x1": (lambda x, w: ops.conv2d(x, w), (X, W1)),
    "matmul": (ops.matmul, (normal(7, 5), normal(5, 4))),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 2), (X,)),
    "max_pool2d, odd": (lambda x: ops.max_pool2d(x, 2), (normal(2, 5, 7, 3),)),
    "batch_norm": (ops.batch_norm, (X, C, C)),
    "layer_norm": (ops.layer_norm, (X, C, C)),
    "rms_norm": (ops.rms_norm, (X, C)),
    "l1": (lambda x, g, b: ops.lp_batch_norm(x, g, b, p=1, eps=1e-5), (X, C, C)),
    "linf": (lambda x, g, b: ops.lp_batch_norm(x, g, b, p=np.inf, eps=1e-5), (X, C, C)),
    "cross-entropy": (lambda x: ops.softmax_cross_entropy(x, [0, 2, 1]), (normal(3, 4),)),
    "sum": (lambda x: ops.sum(x, axis=(0, 1, 2)), (X,)),
    "block": (lambda x, b: fused_block(x, b, relu=True, pool=2), (X, C)),
    "norm block": (lambda x, g, b: fused_block(x, g, b, eps=1e-5, relu=True), (X, C, C)),
    "convolution and norm": (
        lambda x, w, g, b: fused_block(x, g, b, filters=w, eps=1e-5, relu=True, pool=2),
        (normal(2, 8, 8, 3), W3[..., :2], np.ones(2), np.ones(2)),
    ),
    "5x5 and a bias": (
        lambda x, w, b: fused_block(x, b, filters=w, padding=2, relu=True),
        (X, W5, np.ones(4)),
    ),
}  # fmt: skip


def pulled_back(f, inputs, factor, dtype):
    backend = get_backend()
    leaves = [Tensor(backend.asarray(x.astype(dtype)), requires_grad=True) for x in inputs]
    y = f(*leaves)
    g = np.random.default_rng(1).standard_normal(y.shape) * factor
    y.backward(Tensor(backend.asarray(g)))
    return [to_numpy(leaf.grad.data) for leaf in leaves]


@pytest.mark.parametrize("place", ["numpy", "emulated"])
@pytest.mark.parametrize("name", CASES)
def test_a_complex_cotangent_of_a_real_graph_gives_the_definitions_gradient(name, place):
    f, inputs = CASES[name]
    with kernels("reference"), use("numpy"):
        expected = pulled_back(f, inputs, 1 + 2j, np.float64)
    for dtype, close in ((np.float64, 1e-12), (np.float32, 1e-3)):
        if place == "numpy":
            with kernels("always"):
                found = pulled_back(f, inputs, 1 + 2j, dtype)
        else:
            with on("emulated"), kernels("always"):
                found = pulled_back(f, inputs, 1 + 2j, dtype)
        for ours, right in zip(found, expected, strict=True):
            assert ours.dtype.kind == "c"
            np.testing.assert_allclose(ours, right, rtol=0, atol=close * abs(right).max())


def test_layers_take_one_too():
    x = normal(2, 8, 8, 3)
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm(4), nn.ReLU(), nn.MaxPool2d(2))
    net.initialize(0, dtype=np.float64)
    results = []
    for name in ("always", "reference"):
        with kernels(name):
            y = net(x)
            y.backward(Tensor(np.full(y.shape, 1 + 1j)))
        results.append([p.grad.numpy() for p in net.parameters()])
        net.zero_grad()
    for ours, right in zip(*results, strict=True):
        np.testing.assert_allclose(ours, right, rtol=0, atol=1e-10 * max(abs(right).max(), 1))
