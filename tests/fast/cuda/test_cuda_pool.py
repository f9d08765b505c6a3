"""2x2 max-pooling by a CUDA kernel against the op."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda import on_cuda, orders

from minibn import Tensor, grad, ops
from minibn.autograd.dispatch import find_kernel, kernels
from minibn.backend import to_numpy
from minibn.backend.strict import count_transfers
from minibn.fast.cuda.pool import WindowMaxPool2d
from minibn.ops.pool import MaxPool2d
from minibn.testing.commands.profiles import share

OP = MaxPool2d((2, 2), (2, 2), (0, 0))


def by_kernel(backend, x, g):
    x, g = backend.asarray(x), backend.asarray(g)
    assert WindowMaxPool2d.fits(OP, x)
    kernel = WindowMaxPool2d(OP)
    y = kernel.forward(x)
    return [to_numpy(a) for a in (y, kernel.vjp(g, y, x))]


def by_definition(x, g):
    with kernels("reference"):
        y = OP.forward(x)
        return [y, OP.vjp(g, y, x)]


@on_cuda
@settings(max_examples=share(40))
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(2, 7)),
    C=st.sampled_from((1, 3, 4, 10, 64, 130)),
    dtype=st.sampled_from([np.float32, np.float64]),
    tied=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_images_of_any_shape_give_exactly_what_the_op_gives(backend, shape, C, dtype, tied, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*shape, C)).astype(dtype)
    x = np.round(x) if tied else x
    g = rng.standard_normal((shape[0], shape[1] // 2, shape[2] // 2, C)).astype(dtype)
    for ours, right in zip(by_kernel(backend, x, g), by_definition(x, g), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, right)


@on_cuda
def test_the_first_nan_of_a_window_wins_and_infinities_are_numbers(backend):
    rng = np.random.default_rng(0)
    x = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1.0], (9, 6, 4, 3))
    g = 1 + rng.random((9, 3, 2, 3))
    with np.errstate(invalid="ignore"):
        expected = by_definition(x, g)
    for ours, right in zip(by_kernel(backend, x, g), expected, strict=True):
        np.testing.assert_array_equal(ours, right)


@on_cuda
@pytest.mark.parametrize("shape", [(2, 5, 4, 8), (2, 4, 5, 3)])
def test_threads_in_any_order_give_the_same_bits_and_nothing_waits(backend, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    g = np.ones((shape[0], shape[1] // 2, shape[2] // 2, shape[3]))
    first, *others = orders(backend, lambda: by_kernel(backend, x, g))
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)
    leaf, g = Tensor(backend.asarray(x), requires_grad=True), backend.asarray(g)
    with count_transfers() as count:
        y = ops.max_pool2d(leaf)
        assert isinstance(y.node.kernel, WindowMaxPool2d)
        grad(y, leaf, g)
    assert count.n == 0, count.names


@on_cuda
@pytest.mark.parametrize(
    "settings", [((3, 3), (3, 3), (0, 0)), ((2, 2), (1, 1), (0, 0)), ((2, 2), (2, 2), (1, 1))]
)
def test_other_windows_and_dtypes_get_the_definition(backend, settings):
    x = backend.asarray(np.ones((2, 6, 6, 3)))
    assert find_kernel(MaxPool2d(*settings), [x]) is None
    assert find_kernel(OP, [x.astype(np.float16)]) is None
    assert isinstance(find_kernel(OP, [x]), WindowMaxPool2d)
