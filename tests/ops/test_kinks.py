"""What elementwise ops do at the edges of their domain, and with unusual operands.

Conventions at kinks: `minibn/testing/commands/conventions.py`; `test_gradients.py` checks them.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import Tensor, grad, ops
from minibn.errors import BackendMismatch, ShapeError


def leaf(backend, values, dtype=float):
    return Tensor(backend.asarray(np.array(values, dtype)), requires_grad=True)


def slope(y, x, cotangent=None):
    """The gradient on the host; the cotangent is of different numbers unless given."""
    xp = np.arange(2.0, 2 + y.size).reshape(y.shape) if cotangent is None else cotangent
    backend = ops.elementwise.backend_of(y.data)
    return grad(y, x, backend.asarray(np.asarray(xp, float))).numpy()


def test_a_nan_passes_through_maximum_from_either_side(backend):
    x, y = (backend.asarray(np.array(v)) for v in ([np.nan, 1.0], [1.0, np.nan]))
    assert np.isnan(backend.to_numpy(ops.maximum(x, y))).all()


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_l2_norm_neither_overflows_nor_underflows(scale):
    x = Tensor(np.array([3.0, -4.0]) * scale, requires_grad=True)
    y = ops.norm(x)
    np.testing.assert_allclose(y.item(), 5 * scale, rtol=1e-14)
    np.testing.assert_allclose(slope(y, x, 1e150), [0.6e150, -0.8e150], rtol=1e-14)


def test_norms_are_those_of_numpy():
    x = np.random.default_rng(0).standard_normal((3, 4))
    for p in (1, 2, np.inf):
        np.testing.assert_allclose(ops.norm(x, p, 1), np.linalg.norm(x, p, axis=1), rtol=1e-14)
    with pytest.raises(ValueError, match="p=3"):
        ops.norm(x, 3)


@given(st.integers(0, 10**6), st.sampled_from([1e-160, 1e-20, 1e20, 1e160]))
def test_the_slope_of_a_quotient_neither_overflows_nor_underflows(seed, scale):
    a, b = np.random.default_rng(seed).uniform(1, 2, (2, 3)) * scale
    x, y = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)
    np.testing.assert_allclose(slope(x / y, y, np.ones(3)), -(a / b) / b, rtol=1e-14)


def test_sigmoid_and_tanh_are_finite_and_flat_far_out():
    x = Tensor(np.array([-1e4, 1e4]), requires_grad=True)
    np.testing.assert_array_equal(ops.sigmoid(x).numpy(), [0, 1])
    np.testing.assert_array_equal(slope(ops.sigmoid(x), x), [0, 0])
    np.testing.assert_allclose(ops.sigmoid(np.array([-40.0, -700.0])), np.exp([-40.0, -700.0]))
    np.testing.assert_array_equal(slope(ops.tanh(x), x), [0, 0])


def test_the_power_zero_is_flat_even_at_zero(backend):
    x = leaf(backend, [0.0, -2.0])
    np.testing.assert_array_equal((x**0).numpy(), [1, 1])
    np.testing.assert_array_equal(slope(x**0, x), [0, 0])
    first = grad((x**1).sum(), x, create_graph=True)
    np.testing.assert_array_equal(first.numpy(), [1, 1])
    np.testing.assert_array_equal(grad(first.sum(), x).numpy(), [0, 0])


@pytest.mark.parametrize("p", [2, 2.0, np.int64(2), np.float64(2), "array", "tensor"])
def test_whole_exponents_of_any_kind_take_negative_bases_and_keep_float32(backend, p):
    if isinstance(p, str):
        whole = backend.asarray(np.array([2, 2]))
        p = whole if p == "array" else Tensor(whole)
    x = leaf(backend, [-3.0, 0.0], np.float32)
    assert (x**p).dtype == np.float32
    # A GPU's powers are a few units in the last place off, also where the exact one is a number.
    np.testing.assert_allclose((x**p).numpy(), [9, 0], rtol=1e-6)
    np.testing.assert_allclose(slope(x**p, x), [-12, 0], rtol=1e-6)


def test_an_exponent_is_differentiated_with_a_number_below_it(backend):
    p = leaf(backend, [1.0, 3.0])
    np.testing.assert_allclose((2**p).numpy(), [2, 8], rtol=1e-15)
    np.testing.assert_allclose(slope(2**p, p), [4 * np.log(2), 24 * np.log(2)], rtol=4e-15)


def test_where_takes_a_mask_and_nothing_that_only_looks_like_one(backend):
    x, y = leaf(backend, [1.0, 2.0]), leaf(backend, [3.0, 4.0])
    mask = x.data > 1
    np.testing.assert_array_equal(ops.where(mask, x, y).numpy(), [3, 2])
    np.testing.assert_array_equal(slope(ops.where(mask, x, y), x), [0, 3])
    np.testing.assert_array_equal(slope(ops.where(True, x, y), x), [2, 3])
    np.testing.assert_array_equal(slope(ops.where([True, False], x, 0.0), x), [2, 0])
    with pytest.raises(TypeError, match="x != 0"):
        ops.where(backend.asarray(np.array([1, 0])), x, y)


def test_dropout_keeps_what_was_drawn_at_p_or_above_and_rescales_it(backend):
    x = leaf(backend, [1.0, 2.0, 3.0, 4.0], np.float32)
    draws = backend.asarray(np.array([0.1, 0.75, 0.8, 0.2]))
    y = ops.dropout(x, 0.75, draws)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.numpy(), [0, 8, 12, 0])
    np.testing.assert_array_equal(slope(y, x), [0, 12, 16, 0])
    np.testing.assert_array_equal(ops.dropout(x, 0, draws).numpy(), x.numpy())
    for p in (1, -0.1, 1.5):
        with pytest.raises(ValueError, match="0 <= p < 1"):
            ops.dropout(x, p, draws)
    with pytest.raises(ShapeError, match="one draw a value"):
        ops.dropout(x, 0.5, draws[:1])


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2), np.int64(2), True])
def test_numbers_adopt_the_dtype_of_the_tensor(backend, number):
    x = leaf(backend, [1.0, -2.0], np.float32)
    for y in (x + number, number - x, x * number, number * x, x / number, number / x):
        assert y.dtype == np.float32
        assert grad(y.sum(), x).dtype == np.float32
    assert ops.maximum(x, number).dtype == np.float32
    assert ops.maximum(number, x).dtype == np.float32
    assert ops.where(x.data > 0, x, number).dtype == np.float32
    assert (x * 2 + 1 - 0.5 * x).mean().dtype == np.float32


def test_a_cast_brings_the_gradient_back_in_the_dtype_of_its_input(backend):
    x = leaf(backend, [1.0, 2.0], np.float32)
    y = ops.cast(x, np.float64)
    assert y.dtype == np.float64
    assert grad(y, x, backend.asarray(np.ones(2))).dtype == np.float32


def test_a_tensor_cast_to_integers_is_a_constant(backend):
    x = leaf(backend, [1.7, 2.2])
    for dtype in (np.int64, bool):
        assert not x.astype(dtype).requires_grad
    y = (x * x.astype(np.int64)).sum()
    np.testing.assert_array_equal(grad(y, x).numpy(), [1, 2])


def test_sign_is_a_plain_array_of_the_dtype_of_its_input(backend):
    x = leaf(backend, [-2.0, 0.0, 3.0], np.float32)
    found = ops.sign(x)
    assert not isinstance(found, Tensor)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(backend.to_numpy(found), [-1, 0, 1])


def test_arrays_of_two_backends_do_not_mix(backend):
    if backend.name == "numpy":
        pytest.skip("the other backend is numpy")
    x, y = leaf(backend, [[1.0, 2.0]]), Tensor(np.ones((1, 2)), requires_grad=True)
    for f in (
        lambda: ops.add(x, y.data),
        lambda: ops.where(y.data > 0, x, x),
        lambda: ops.batch_norm(Tensor(x.data.reshape(2, 1)), np.ones(1), np.zeros(1)),
        lambda: x.backward(np.ones((1, 2))),
        lambda: ops.dropout(x, 0.5, np.ones((1, 2))),
    ):
        with pytest.raises(BackendMismatch):
            f()
