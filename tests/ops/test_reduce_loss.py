"""Reductions and losses: axes, empty axes, and logits that are far out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suite.registry import axes_of, full_shapes
from support.backends import on_devices

from minibn import Tensor, grad, ops
from minibn.backend import get_backend, to_numpy
from minibn.backend.strict import count_transfers
from minibn.errors import ShapeError

seeds = st.integers(0, 2**32 - 1)
TWINS = {"sum": np.sum, "mean": np.mean, "var": np.var, "max": np.max}


@pytest.mark.parametrize("name", TWINS)
@given(data=st.data())
def test_reductions_equal_numpys_over_any_axes(name, data):
    shape = data.draw(full_shapes)
    axis, keepdims = data.draw(axes_of(len(shape))), data.draw(st.booleans())
    x = np.random.default_rng(data.draw(seeds)).standard_normal(shape)
    y = getattr(ops, name)(x, axis=axis, keepdims=keepdims)
    expected = TWINS[name](x, axis=axis, keepdims=keepdims)
    assert np.shape(y) == np.shape(expected)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)


def test_the_sum_over_nothing_is_zero_and_its_gradient_has_the_shape_of_nothing(backend):
    x = Tensor(backend.asarray(np.zeros((2, 0, 3))), requires_grad=True)
    for axis, shape in ((1, (2, 3)), ((0, 1), (3,)), (None, ()), (0, (0, 3)), ((), (2, 0, 3))):
        y = x.sum(axis=axis)
        assert y.shape == shape
        assert not y.numpy().any()
        c = backend.asarray(np.ones(shape))
        assert grad(y, x, c).shape == x.shape


@pytest.mark.parametrize("op", [ops.mean, ops.max, ops.logsumexp, ops.norm, ops.var])
def test_what_has_no_value_over_nothing_raises(op):
    x = np.zeros((2, 0, 3))
    with pytest.raises(ValueError, match=r"axis 1 of shape \(2, 0, 3\)"):
        op(x, axis=1)
    assert op(x, axis=2).shape == (2, 0)


@pytest.mark.parametrize("op", [ops.mean, ops.logsumexp, ops.norm])
def test_a_result_without_entries_is_no_error_though_the_axis_is_empty(op, backend):
    x = Tensor(backend.asarray(np.zeros((5, 0, 0))), requires_grad=True)
    y = op(x, axis=-1)
    assert y.shape == (5, 0)
    assert grad(y, x, backend.asarray(np.zeros((5, 0)))).shape == x.shape


@pytest.mark.parametrize("shape", [(5, 0, 0), (3, 0), (0, 3), (0,)])
@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
def test_the_softmax_of_nothing_is_nothing(op, shape, backend):
    x = Tensor(backend.asarray(np.zeros(shape, np.float32)), requires_grad=True)
    for axis in range(len(shape)):
        y = op(x, axis=axis)
        assert (y.shape, y.dtype) == (shape, np.float32)
        assert grad(y, x, backend.asarray(np.zeros(shape, np.float32))).shape == shape


def test_the_maximum_of_nothing_raises_also_where_there_are_no_results():
    for op in (ops.max, ops.min):
        with pytest.raises(ValueError, match=r"axis -1 of shape \(5, 0, 0\) is empty"):
            op(np.zeros((5, 0, 0)), axis=-1)


@pytest.mark.parametrize("axis", [2, -3, (0, 2)])
def test_an_axis_that_does_not_exist_is_named(axis):
    with pytest.raises(ValueError, match="does not exist"):
        ops.sum(np.zeros((2, 3)), axis)


def test_an_axis_named_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        ops.sum(np.zeros((2, 3)), (1, -1))


def test_reductions_of_a_scalar_give_it_back(backend):
    x = Tensor(backend.asarray(np.array(3.0)), requires_grad=True)
    for op in (ops.sum, ops.mean, ops.max, ops.logsumexp, ops.norm):
        y = op(x)
        assert (y.shape, y.item()) == ((), 3.0)
        assert grad(y, x).item() == pytest.approx(1)


def test_reductions_of_integers_and_booleans_are_those_of_numpy(backend):
    for values in (np.array([[1, 2], [3, 5]]), np.array([[True, False], [True, True]])):
        x = Tensor(backend.asarray(values))
        np.testing.assert_array_equal(x.sum(axis=0).numpy(), values.sum(axis=0))
        np.testing.assert_array_equal(x.max(axis=0).numpy(), values.max(axis=0))
        np.testing.assert_allclose(x.mean(axis=0).numpy(), values.mean(axis=0))


def test_the_sum_down_the_rows_of_float32_keeps_its_digits():
    x = (np.random.default_rng(0).random((50_000, 3)) + 1).astype(np.float32)
    exact = x.astype(float).sum(axis=0)
    np.testing.assert_allclose(ops.sum(x, 0), exact, rtol=1e-6)


def test_the_unbiased_variance_divides_by_one_less():
    x = np.random.default_rng(0).standard_normal((5, 2))
    np.testing.assert_allclose(ops.var(x, 0, correction=1), x.var(0, ddof=1), rtol=1e-13)
    with pytest.raises(ValueError, match="needs more"):
        ops.var(x[:1], 0, correction=1)


def test_logsumexp_of_minus_infinities_is_exact_and_flat(backend):
    x = Tensor(backend.asarray(np.array([[-np.inf, 0.0, 0.0], [-np.inf] * 3])), requires_grad=True)
    y = ops.logsumexp(x, axis=1)
    np.testing.assert_allclose(y.numpy(), [np.log(2), -np.inf])
    g = grad(y, x, backend.asarray(np.array([2.0, 3.0]))).numpy()
    np.testing.assert_allclose(g, [[0, 1, 1], [0, 0, 0]])


def test_logsumexp_and_softmax_take_huge_numbers(backend):
    x = backend.asarray(np.array([[1e4, 1e4 - 1, -1e4], [-1e300, -1e300, -1e300]]))
    y = backend.to_numpy(ops.logsumexp(x, axis=1))
    np.testing.assert_allclose(y, [1e4 + np.log1p(np.exp(-1)), -1e300 + np.log(3)])
    p = backend.to_numpy(ops.softmax(x))
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p[1], 1 / 3)


def test_a_shift_of_the_logits_costs_no_digits_of_float32():
    """The loss and the gradient are those of the differences, which float32 holds exactly here."""
    x = np.array([[0.5, 0.25, -1.0], [0.0, 0.0, 3.0]], np.float32)
    for f in (ops.softmax, lambda x: ops.softmax_cross_entropy(x, [1, 0])):
        np.testing.assert_allclose(f(x + np.float32(8192)), f(x), rtol=1e-6)
        np.testing.assert_allclose(f(x - np.float32(8192)), f(x), rtol=1e-6)
    far = Tensor(x + np.float32(8192), requires_grad=True)
    for y, c in (
        (ops.logsumexp(far, 1), np.ones(2)),
        (ops.softmax_cross_entropy(far, [1, 0]), None),
    ):
        near = Tensor(x, requires_grad=True)
        twin = ops.logsumexp(near, 1) if c is not None else ops.softmax_cross_entropy(near, [1, 0])
        np.testing.assert_allclose(grad(y, far, c).numpy(), grad(twin, near, c).numpy(), rtol=1e-6)


# -- softmax cross-entropy


def test_cross_entropy_is_stable_at_logits_of_ten_thousand_and_more(backend):
    x = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [0.0, -np.inf, 1.0]])
    x = Tensor(backend.asarray(x), requires_grad=True)
    y = ops.softmax_cross_entropy(x, [0, 0, 2])
    assert y.item() == pytest.approx((0 + 2e4 + np.log1p(np.exp(-1))) / 3)
    y.backward()
    g = x.grad.numpy()
    np.testing.assert_allclose(g[:2], [[0, 0, 0], [-1 / 3, 1 / 3, 0]], atol=1e-15)
    np.testing.assert_allclose(g.sum(1), 0, atol=1e-16)


@pytest.mark.parametrize("kind", ["list", "array", "device", "uint8", "tensor"])
def test_labels_come_as_a_list_or_an_array_of_either_side(backend, kind):
    x = Tensor(backend.asarray(np.eye(3)[:2]), requires_grad=True)
    labels = {
        "list": [0, 2],
        "array": np.array([0, 2]),
        "device": backend.asarray(np.array([0, 2])),
        "uint8": backend.asarray(np.array([0, 2], np.uint8)),
        "tensor": Tensor(backend.asarray(np.array([0, 2]))),
    }[kind]
    y = ops.softmax_cross_entropy(x, labels)
    row = np.log(np.exp([1, 0, 0]).sum())
    assert y.item() == pytest.approx((row - 1 + row) / 2)
    assert grad(y, x).shape == (2, 3)


@pytest.mark.parametrize(
    "labels, error, message",
    [
        ([0, 3], ValueError, "run from 0 to 3"),
        ([-1, 2], ValueError, "run from -1 to 2"),
        ([0.0, 1.0], ShapeError, "integers"),
        ([[0, 1, 0], [1, 0, 0]], ShapeError, "argmax"),
        ([0], ShapeError, "one integer per row"),
        ([True, False], ShapeError, "integers"),
    ],
)
@pytest.mark.parametrize("on_host", [True, False])
def test_bad_labels_are_named(backend, labels, error, message, on_host):
    x = backend.asarray(np.zeros((2, 3)))
    labels = np.array(labels) if on_host else backend.asarray(np.array(labels))
    with pytest.raises(error, match=message):
        ops.softmax_cross_entropy(Tensor(x), labels)


@on_devices
def test_labels_of_the_host_are_checked_and_nothing_waits(backend):
    leaf = Tensor(backend.asarray(np.ones((3, 4))), requires_grad=True)
    one = backend.asarray(np.ones(()))
    with count_transfers() as count:
        grad(ops.softmax_cross_entropy(leaf, np.array([0, 3, 1])), leaf, one)
    assert count.n == 0, count.names
    with pytest.raises(ValueError, match="labels run from 0 to 4"):
        ops.softmax_cross_entropy(leaf, [0, 4, 1])


@on_devices
def test_infinite_logits_and_nan_mean_the_same_on_a_device(backend):
    x = np.zeros((6, 4))
    x[0, 1], x[1, 2], x[2, 0], x[3] = np.inf, np.nan, -np.inf, -np.inf
    x[4, :2] = np.inf
    for row, label in zip(x, (1, 0, 0, 1, 3, 2), strict=True):
        found = []
        for on in (get_backend("numpy"), backend):
            leaf = Tensor(on.asarray(row[None]), requires_grad=True)
            with np.errstate(all="ignore"):
                loss = ops.softmax_cross_entropy(leaf, [label])
                found.append((to_numpy(loss), to_numpy(grad(loss, leaf))))
        for ours, expected in zip(*found, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-12, err_msg=f"{row}")


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0), (2, 3, 1)])
def test_logits_that_are_no_matrix_are_refused(shape):
    with pytest.raises(ShapeError, match="logits"):
        ops.softmax_cross_entropy(np.zeros(shape), [0, 0])


def test_mse_refuses_to_broadcast_a_column_against_a_row():
    with pytest.raises(ShapeError, match="must be equal"):
        ops.mse(np.zeros((3, 1)), np.zeros(3))
    assert ops.mse(np.array([1.0, 4.0]), np.array([3.0, 4.0])) == 2


def test_one_hot_has_a_one_at_each_label(backend):
    hot = ops.one_hot(backend.asarray(np.array([1, 0])), 3, np.float32)
    assert hot.dtype == np.float32
    np.testing.assert_array_equal(backend.to_numpy(hot), [[0, 1, 0], [1, 0, 0]])


def test_a_reused_label_buffer_changes_no_gradient(backend):
    labels = backend.asarray(np.array([0, 1]))
    x = Tensor(backend.asarray(np.eye(2)), requires_grad=True)
    loss = ops.softmax_cross_entropy(x, labels)
    want = grad(loss, x, retain_graph=True).numpy().copy()
    labels[...] = 0
    np.testing.assert_array_equal(grad(loss, x).numpy(), want)
