"""Convolution and pooling against loops that read like their definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.backends import on_backends

from minibn import Tensor, grad, ops
from minibn.backend import to_numpy
from minibn.errors import ShapeError
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.pool import AvgPool2d, AvgPool2dAdjoint
from minibn.testing.registry import geometries

seeds = st.integers(0, 2**32 - 1)


def conv2d_by_loops(x, w, stride, padding):
    (N, H, W, _), (Kh, Kw, _, F) = x.shape, w.shape
    (sh, sw), (ph, pw) = stride, padding
    Ho, Wo = (H + 2 * ph - Kh) // sh + 1, (W + 2 * pw - Kw) // sw + 1
    y = np.zeros((N, Ho, Wo, F))
    for n, i, j, f, k, m in itertools.product(*map(range, (N, Ho, Wo, F, Kh, Kw))):
        row, column = sh * i + k - ph, sw * j + m - pw
        if 0 <= row < H and 0 <= column < W:
            y[n, i, j, f] += x[n, row, column] @ w[k, m, :, f]
    return y


def max_pool_by_loops(x, size, stride, padding):
    """Values, and the gradient of their sum weighted by `c`: each to the first of the largest."""
    N, H, W, C = x.shape
    Ho, Wo = (
        (n + 2 * p - k) // s + 1 for n, p, k, s in zip((H, W), padding, size, stride, strict=True)
    )
    y = np.zeros((N, Ho, Wo, C))
    taken = np.zeros((N, Ho, Wo, C, 2), int)
    for n, i, j, c in np.ndindex(*y.shape):
        best = None
        for k, m in itertools.product(range(size[0]), range(size[1])):
            row, column = i * stride[0] + k - padding[0], j * stride[1] + m - padding[1]
            if 0 <= row < H and 0 <= column < W and (best is None or x[n, row, column, c] > best):
                best, taken[n, i, j, c] = x[n, row, column, c], (row, column)
        y[n, i, j, c] = best
    return y, taken


def drawn(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@on_backends
@given(geometries(), seeds)
def test_conv2d_equals_loops(backend, geometry, seed):
    x_shape, w_shape, stride, padding = geometry
    x, w = drawn(seed, x_shape, w_shape)
    y = ops.conv2d(backend.asarray(x), backend.asarray(w), stride=stride, padding=padding)
    np.testing.assert_allclose(to_numpy(y), conv2d_by_loops(x, w, stride, padding), atol=1e-12)


@on_backends
@given(geometries(), seeds)
def test_the_three_convolutions_are_each_others_adjoints(backend, geometry, seed):
    x_shape, w_shape, stride, padding = geometry
    settings = (stride, padding, x_shape, w_shape)
    x, w, c = drawn(seed, x_shape, w_shape, Conv2d(*settings).y_shape)
    first, second, third = (backend.asarray(a) for a in (x, w, c))
    through_y = (to_numpy(Conv2d(*settings).forward(first, second)) * c).sum()
    through_x = (to_numpy(Conv2dInputGrad(*settings).forward(third, second)) * x).sum()
    through_w = (to_numpy(Conv2dWeightGrad(*settings).forward(first, third)) * w).sum()
    np.testing.assert_allclose([through_x, through_w], through_y, rtol=1e-12, atol=1e-11)


def test_an_image_of_one_pixel_returns_the_kernel_turned_round():
    x = np.zeros((1, 5, 6, 1))
    x[0, 2, 3, 0] = 1
    w = np.arange(6.0).reshape(2, 3, 1, 1) + 1
    y = ops.conv2d(x, w)
    np.testing.assert_array_equal(y[0, 1:3, 1:4, 0], w[::-1, ::-1, 0, 0])
    assert y.sum() == w.sum()


def test_one_number_and_a_pair_are_the_same_setting():
    x, w = drawn(0, (2, 6, 5, 2), (3, 2, 2, 3))
    y = ops.conv2d(x, w, stride=2, padding=1)
    np.testing.assert_array_equal(y, ops.conv2d(x, w, stride=(2, 2), padding=[1, 1]))
    np.testing.assert_array_equal(y, ops.conv2d(x, w, stride=np.int64(2), padding=np.int32(1)))


def test_float32_images_under_float64_filters_each_get_a_gradient_of_their_own_dtype():
    x, w = drawn(0, (1, 4, 4, 2), (3, 3, 2, 1))
    x, w = Tensor(x.astype(np.float32), requires_grad=True), Tensor(w, requires_grad=True)
    y = ops.conv2d(x, w)
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert w.grad.dtype == np.float64


@pytest.mark.parametrize("x, w", [((0, 4, 4, 2), (3, 3, 2, 3)), ((2, 4, 4, 0), (3, 3, 0, 3))])
def test_convolution_of_no_images_or_no_channels_is_zero(x, w):
    x, w = Tensor(np.zeros(x), requires_grad=True), Tensor(np.ones(w), requires_grad=True)
    y = ops.conv2d(x, w)
    assert y.shape == (x.shape[0], 2, 2, 3)
    gx, gw = grad(y, [x, w], np.ones(y.shape))
    assert (gx.shape, gw.shape) == (x.shape, w.shape)
    assert not y.numpy().any()


@pytest.mark.parametrize(
    "x, w, settings, message",
    [
        ((2, 3, 8, 8), (3, 3, 3, 4), {}, "channels first"),
        ((8, 8, 3), (3, 3, 3, 4), {}, "four axes"),
        ((1, 2, 8, 3), (3, 3, 3, 4), {}, "does not fit"),
        ((1, 8, 8, 3), (3, 3, 3, 4), {"stride": 0}, "stride"),
        ((1, 8, 8, 3), (3, 3, 3, 4), {"padding": -1}, "padding"),
        ((1, 8, 8, 3), (3, 3, 3, 4), {"padding": (1, 1, 1)}, "padding"),
        ((1, 8, 8, 3), (3, 3, 3, 4), {"stride": 1.5}, "stride"),
        ((1, 8, 8, 3), (3, 3, 3, 4), {"bias": np.zeros(3)}, "bias"),
    ],
)
def test_conv2d_says_what_does_not_fit(x, w, settings, message):
    with pytest.raises(ShapeError, match=message):
        ops.conv2d(np.zeros(x), np.zeros(w), **settings)


@on_backends
@given(geometries(), seeds, st.booleans())
def test_max_pool_equals_loops_and_gives_ties_to_the_first_in_row_major_order(
    backend, geometry, seed, tied
):
    (N, H, W, C), (Kh, Kw, _, _), stride, padding = geometry
    padding = (min(padding[0], Kh // 2), min(padding[1], Kw // 2))
    rng = np.random.default_rng(seed)
    shape = (N, max(H, Kh), max(W, Kw), C)
    x = rng.integers(-2, 1, shape).astype(float) if tied else rng.standard_normal(shape) - 3
    y, taken = max_pool_by_loops(x, (Kh, Kw), stride, padding)
    leaf = Tensor(backend.asarray(x), requires_grad=True)
    ours = ops.max_pool2d(leaf, (Kh, Kw), stride, padding)
    np.testing.assert_array_equal(ours.numpy(), y)
    c = rng.standard_normal(y.shape)
    expected = np.zeros(shape)
    for n, i, j, channel in np.ndindex(*y.shape):
        row, column = taken[n, i, j, channel]
        expected[n, row, column, channel] += c[n, i, j, channel]
    ours.backward(backend.asarray(c))
    np.testing.assert_allclose(leaf.grad.numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("value", [-1.0, -1e30, -np.inf])
def test_max_pool_never_returns_padding(backend, value):
    x = Tensor(backend.asarray(np.full((2, 4, 5, 2), value)), requires_grad=True)
    y = ops.max_pool2d(x, 3, stride=2, padding=1)
    assert (y.numpy() == value).all()
    y.backward(backend.asarray(np.ones(y.shape)))
    assert x.grad.numpy().sum() == y.size, "the padding took a part of the gradient"


def test_a_nan_passes_through_max_pool(backend):
    x = np.zeros((1, 4, 4, 1))
    x[0, 1, 2] = np.nan
    y = to_numpy(ops.max_pool2d(backend.asarray(x), 2))
    np.testing.assert_array_equal(np.isnan(y[0, :, :, 0]), [[False, True], [False, False]])
    padded = to_numpy(ops.max_pool2d(backend.asarray(x), 3, 1, 1))
    assert np.isnan(padded[0, :3, 1:, 0]).all()
    assert np.isnan(padded).sum() == 9


def test_overlapping_windows_add_up_in_the_pixel_that_all_of_them_take():
    x = Tensor(np.zeros((1, 3, 3, 1)), requires_grad=True)
    x.data[0, 1, 1] = 1
    ops.max_pool2d(x, 2, stride=1).backward(np.array([1.0, 2, 3, 4]).reshape(1, 2, 2, 1))
    assert x.grad.numpy()[0, 1, 1, 0] == 10
    assert x.grad.numpy().sum() == 10


@given(geometries(), seeds)
def test_average_pool_equals_loops_and_its_gradient_is_its_adjoint(geometry, seed):
    (N, H, W, C), (Kh, Kw, _, _), stride, _ = geometry
    x = drawn(seed, (N, max(H, Kh), max(W, Kw), C))[0]
    y = ops.avg_pool2d(x, (Kh, Kw), stride)
    for n, i, j in np.ndindex(*y.shape[:3]):
        window = x[n, i * stride[0] : i * stride[0] + Kh, j * stride[1] : j * stride[1] + Kw]
        np.testing.assert_allclose(y[n, i, j], window.mean((0, 1)), atol=1e-13)
    c = drawn(seed + 1, y.shape)[0]
    back = AvgPool2dAdjoint((Kh, Kw), stride, x.shape).forward(c)
    ahead = AvgPool2d((Kh, Kw), stride).forward(x)
    np.testing.assert_allclose((back * x).sum(), (ahead * c).sum(), rtol=1e-11, atol=1e-12)


def test_average_pool_leaves_its_input_alone_even_with_windows_of_one():
    x = np.ones((1, 2, 2, 1))
    y = ops.avg_pool2d(x, 1)
    y += 1
    assert (x == 1).all()


@pytest.mark.parametrize("op", [ops.max_pool2d, ops.avg_pool2d])
def test_pooling_says_what_does_not_fit(op):
    with pytest.raises(ShapeError, match="do not fit"):
        op(np.zeros((1, 2, 8, 1)), 3)
    with pytest.raises(ShapeError, match="images are"):
        op(np.zeros((2, 8, 1)), 2)
    with pytest.raises(ShapeError, match="size"):
        op(np.zeros((1, 8, 8, 1)), 0)


def test_max_pool_refuses_padding_in_which_a_window_would_fit():
    with pytest.raises(ShapeError, match="half"):
        ops.max_pool2d(np.zeros((1, 8, 8, 1)), 3, padding=2)


def test_pooling_of_no_images_is_no_images():
    x = Tensor(np.zeros((0, 4, 4, 2)), requires_grad=True)
    for op in (ops.max_pool2d, ops.avg_pool2d):
        y = op(x, 2)
        assert y.shape == (0, 2, 2, 2)
        assert grad(y, x, np.zeros(y.shape)).shape == x.shape


@pytest.mark.parametrize("pool", [ops.max_pool2d, ops.avg_pool2d])
def test_pooling_bytes_says_to_scale_them_first(pool):
    with pytest.raises(TypeError, match="Scale bytes first"):
        pool(np.full((1, 4, 4, 1), 200, np.uint8))


def test_padded_max_pooling_of_three_axes_says_what_images_are():
    with pytest.raises(ShapeError, match=r"images are \(N, H, W, C\)"):
        ops.max_pool2d(np.zeros((4, 4, 1)), 2, padding=1)
