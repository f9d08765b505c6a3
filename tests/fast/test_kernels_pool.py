"""Max-pooling by corners against its definition: values, winners of ties, NaN, odd images."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import Tensor, grad, kernels, ops
from minibn.autograd.dispatch import find_kernel
from minibn.fast.cpu import pool, threads
from minibn.fast.cpu.pool import TiledMaxPool2d
from minibn.ops.pool import MaxPool2d


@st.composite
def images(draw, values):
    """(size, x, ȳ), x with remainders that no window covers, in any layout."""
    size = draw(st.tuples(*2 * [st.integers(1, 3)]))
    N, C = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    H, W = (draw(st.integers(s, 7)) for s in size)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    x = (
        rng.choice(np.array(values, dtype), (2 * N, H, W, C))
        if values
        else rng.standard_normal((2 * N, H, W, C)).astype(dtype)
    )
    g = rng.standard_normal((N, H // size[0], W // size[1], C)).astype(dtype)
    x = {"C": x[:N].copy(), "F": np.asfortranarray(x[:N]), "S": x[::2]}[
        draw(st.sampled_from("CFS"))
    ]
    return size, x, g


def agree(size, x, g, block, count):
    op = MaxPool2d(size, size, (0, 0))
    kernel = TiledMaxPool2d(op)
    with patch.object(pool, "BLOCK", block), threads.limit_threads(count):
        y = kernel.forward(x)
        np.testing.assert_array_equal(y, op.forward(x))
        assert y.dtype == x.dtype
        for _ in range(2):  # a vjp may be asked for twice
            g_x = kernel.vjp(g, y, x)
            np.testing.assert_array_equal(g_x, op.vjp(g, y, x))
            assert g_x.dtype == x.dtype


blocks = st.sampled_from([1, 100, 1 << 18])


@given(images([]), blocks, st.integers(1, 3))
def test_values_and_gradients_are_those_of_the_definition_exactly(problem, block, count):
    agree(*problem, block, count)


@given(images([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan]), blocks, st.integers(1, 3))
def test_ties_infinities_and_nans_win_where_they_win_in_the_definition(problem, block, count):
    agree(*problem, block, count)


def test_an_infinite_cotangent_reaches_its_pixel_and_no_other():
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    agree((2, 2), x, np.array([np.inf, -np.inf, np.nan, 0]).reshape(1, 2, 2, 1), 1, 1)


def test_windows_that_tile_the_image_are_pooled_by_corners_and_no_others():
    x = np.zeros((2, 6, 6, 1))
    with kernels("always"):
        assert type(find_kernel(MaxPool2d((3, 2), (3, 2), (0, 0)), [x])) is TiledMaxPool2d
        assert find_kernel(MaxPool2d((3, 3), (2, 2), (0, 0)), [x]) is None
        assert find_kernel(MaxPool2d((2, 2), (2, 2), (1, 1)), [x]) is None
        assert find_kernel(MaxPool2d((2, 2), (2, 2), (0, 0)), [x.astype(complex)]) is None
    large = np.zeros((16, 32, 32, 64), np.float32)
    assert type(find_kernel(MaxPool2d((2, 2), (2, 2), (0, 0)), [large])) is TiledMaxPool2d


@pytest.mark.parametrize("mode", ["always", "lean", "reference"])
def test_a_second_derivative_flows_to_the_winners(mode):
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 3))
    with kernels(mode):
        leaf = Tensor(x, requires_grad=True)
        y = ops.max_pool2d(leaf, 2)
        slope = grad((y * y * y).sum(), leaf, create_graph=True)
        second = grad(slope.sum(), leaf).numpy()
    corners = x.reshape(2, 2, 2, 2, 2, 3)
    wins = (corners == corners.max(axis=(2, 4), keepdims=True)).reshape(x.shape)
    np.testing.assert_allclose(second, np.where(wins, 6 * x, 0), atol=1e-12)
