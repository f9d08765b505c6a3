"""Convolution and pooling: examples and errors. Their laws are in tests/suite/laws/."""

import numpy as np
import pytest

from minibn import Tensor, grad, ops
from minibn.backend import to_numpy
from minibn.errors import ShapeError


def drawn(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def test_one_number_and_a_pair_are_the_same_setting():
    x, w = drawn(0, (2, 6, 5, 2), (3, 2, 2, 3))
    y = ops.conv2d(x, w, stride=2, padding=1)
    np.testing.assert_array_equal(y, ops.conv2d(x, w, stride=(2, 2), padding=[1, 1]))
    np.testing.assert_array_equal(y, ops.conv2d(x, w, stride=np.int64(2), padding=np.int32(1)))


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


def test_padded_max_pooling_of_three_axes_says_what_images_are():
    with pytest.raises(ShapeError, match=r"images are \(N, H, W, C\)"):
        ops.max_pool2d(np.zeros((4, 4, 1)), 2, padding=1)
