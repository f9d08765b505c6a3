"""Convolution by blocks of columns against its definition, for any kernel, stride and padding."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import Tensor, grad, kernels, ops
from minibn.autograd.dispatch import find_kernel
from minibn.fast.cpu import im2col, threads
from minibn.fast.cpu.im2col import Im2colConv2d, Im2colInputGrad, Im2colWeightGrad
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
KERNELS = {
    Conv2d: Im2colConv2d,
    Conv2dInputGrad: Im2colInputGrad,
    Conv2dWeightGrad: Im2colWeightGrad,
}


@st.composite
def problems(draw):
    """(settings, x, w, c): a convolution, its inputs, and a cotangent of its result."""
    small = st.integers(1, 5)
    (N, C, F), (Kh, Kw) = (draw(small) for _ in range(3)), (draw(st.integers(1, 4)) for _ in "hw")
    stride = draw(st.tuples(*2 * [st.integers(1, 3)]))
    padding = draw(st.tuples(*2 * [st.integers(0, 2)]))
    H, W = (draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip((Kh, Kw), padding, strict=True))
    settings = (stride, padding, (N, H, W, C), (Kh, Kw, C, F))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype, order = draw(st.sampled_from(["float32", "float64"])), draw(st.sampled_from("CFS"))
    shapes = settings[2], settings[3], Conv2d(*settings).y_shape
    return settings, *(laid_out(rng, shape, dtype, order) for shape in shapes)


def laid_out(rng, shape, dtype, order):
    """Random numbers in C order, Fortran order, or as every other element of a larger array."""
    if order == "S":
        return rng.standard_normal([2 * n for n in shape]).astype(dtype)[(slice(1, None, 2),) * 4]
    return np.asarray(rng.standard_normal(shape), dtype=dtype, order=order)


def agree(fast, definition, scale, dtype):
    assert fast.shape == definition.shape and fast.dtype == dtype
    assert abs(fast - definition).max() <= TOLERANCE[dtype.name] * scale.max()


@given(problem=problems(), block=st.sampled_from([1, 200, 1 << 18]), count=st.integers(1, 3))
def test_values_and_both_gradients_of_the_three_agree_with_their_definitions(problem, block, count):
    settings, x, w, c = problem
    cases = [(Conv2d, (x, w), c), (Conv2dInputGrad, (c, w), x), (Conv2dWeightGrad, (x, c), w)]
    with patch.object(im2col, "BLOCK", block), threads.limit_threads(count):
        for Op, inputs, g in cases:
            op, kernel = Op(*settings), KERNELS[Op](Op(*settings))
            op.needs_input_grad = kernel.needs_input_grad = (True, True)
            sizes = [abs(a) for a in inputs]
            agree(kernel.forward(*inputs), op.forward(*inputs), op.forward(*sizes), x.dtype)
            expected, scales = op.vjp(g, None, *inputs), op.vjp(abs(g), None, *sizes)
            for _ in range(2):  # a vjp may be asked for twice
                found = kernel.vjp(g, None, *inputs)
                for a, b, scale in zip(found, expected, scales, strict=True):
                    agree(a, b, scale, x.dtype)


@pytest.mark.parametrize("Op", KERNELS)
def test_every_convolution_but_winograds_is_run_by_columns(Op):
    settings = ((2, 2), (1, 1), (3, 9, 9, 4), (5, 5, 4, 6))
    op = Op(*settings)
    x, w, c = (np.ones(shape) for shape in (op.x_shape, op.w_shape, op.y_shape))
    inputs = {Conv2d: [x, w], Conv2dInputGrad: [c, w], Conv2dWeightGrad: [x, c]}[Op]
    with kernels("always"):
        assert type(find_kernel(op, inputs)) is KERNELS[Op]
        assert find_kernel(op, [a.astype(complex) for a in inputs]) is None
        assert find_kernel(op, [inputs[0].astype(np.float32), inputs[1]]) is None


def test_the_first_layer_of_a_network_pays():
    settings = ((1, 1), (1, 1), (128, 32, 32, 3), (3, 3, 3, 64))
    x, w = (np.empty(shape, np.float32) for shape in settings[2:])
    assert type(find_kernel(Conv2d(*settings), [x, w])) is Im2colConv2d


def test_an_unwanted_gradient_is_not_computed():
    kernel = Im2colConv2d(Conv2d((1, 1), (0, 0), (2, 4, 4, 1), (3, 3, 1, 2)))
    x, w, c = np.ones((2, 4, 4, 1)), np.ones((3, 3, 1, 2)), np.ones((2, 2, 2, 2))
    kernel.needs_input_grad = (False, True)
    assert kernel.vjp(c, None, x, w)[0] is None
    kernel.needs_input_grad = (True, False)
    assert kernel.vjp(c, None, x, w)[1] is None


def test_a_second_derivative_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 6, 6, 3)), rng.standard_normal((5, 5, 3, 4))
    v = rng.standard_normal(x.shape)

    def twice(mode):
        with kernels(mode):
            leaf, weight = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
            y = ops.conv2d(leaf, weight, stride=2, padding=2)
            slope = grad((y * y * y).sum(), leaf, create_graph=True)
            return [g.numpy() for g in grad((slope * v).sum(), [leaf, weight])]

    for fast, reference in zip(twice("always"), twice("reference"), strict=True):
        np.testing.assert_allclose(fast, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "K, F, rows", [(27, 64, 512), (147, 64, 64), (576, 64, 0), (1, 1, 1 << 19)]
)
def test_products_are_cut_to_what_blas_does_not_pack_or_not_at_all(K, F, rows):
    assert im2col.slices(K, F) == rows
    rng = np.random.default_rng(0)
    for R in (1, 63, 64, 1100):
        a, b, c = (rng.standard_normal(shape) for shape in ((R, K), (K, F), (R, F)))
        out = np.empty((R, F))
        im2col.product(a, b, out)
        np.testing.assert_allclose(out, a @ b, atol=1e-10)
        np.testing.assert_allclose(im2col.transposed_product(a, c), a.T @ c, atol=1e-10)
