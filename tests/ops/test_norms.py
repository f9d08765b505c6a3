"""The norms beside BatchNorm: worked examples, what is returned beside the value, and errors.

Their laws are in tests/suite/laws/ (`lp_norms.py`, `layer_norms.py`).
"""

import math

import numpy as np
import pytest

from minibn import Tensor, ops
from minibn.backend import to_numpy
from minibn.errors import ShapeError

ORDERS = (1, 2, math.inf)


def column(*values):
    return np.array(values, float)[:, None]


def lp(x, p, **settings):
    """x̂ with eps = 0, as a list."""
    return ops.lp_batch_norm(x, np.ones(1), np.zeros(1), p=p, eps=0.0, **settings).ravel().tolist()


# -- l_p norms over the batch

# The mean is 1, the sizes are 1, 3, 4 and 4.
X = column(1, 3, 4, -4)


def test_the_paper_read_literally_divides_by_the_norm_of_values_that_are_not_centred():
    assert lp(X, 1) == pytest.approx([0, 2 / 3, 1, -5 / 3])
    assert lp(X, math.inf) == pytest.approx([0, 0.5, 0.75, -1.25])
    rms = math.sqrt((1 + 9 + 16 + 16) / 4)
    assert lp(X, 2) == pytest.approx([0, 2 / rms, 3 / rms, -5 / rms])


def test_centred_first_it_divides_by_the_norm_of_what_is_left():
    assert lp(X, 1, center_first=True) == pytest.approx([0, 0.8, 1.2, -2])
    assert lp(X, math.inf, center_first=True) == pytest.approx([0, 0.4, 0.6, -1])


def test_mean_of_norm_divides_the_whole_norm_by_the_number_of_values():
    for p in ORDERS:
        whole = np.linalg.norm(X.ravel(), p) / 4
        found = lp(X, p, reduce="mean_of_norm")
        assert found == pytest.approx(((X - 1) / whole).ravel().tolist())


def test_the_default_is_the_literal_reading():
    for p in ORDERS:
        assert lp(X, p) == lp(X, p, center_first=False, reduce="norm_of_mean")


def test_a_bias_in_front_counts_in_the_norm_unless_it_is_centred_first():
    for p in ORDERS:
        assert lp(X + 10, p, center_first=True) == pytest.approx(lp(X, p, center_first=True))
        assert np.abs(lp(X + 10, p)).max() < 0.8 * np.abs(lp(X, p)).max()


@pytest.mark.parametrize("p", ORDERS)
def test_the_mean_and_the_norm_of_the_batch_come_back_as_plain_arrays(backend, p):
    x = np.random.default_rng(0).standard_normal((4, 5, 3)) + 1
    leaf = Tensor(backend.asarray(x), requires_grad=True)
    affine = backend.asarray(np.ones(3)), backend.asarray(np.zeros(3))
    y, mean, norm = ops.lp_batch_norm(leaf, *affine, p=p, return_moments=True)
    assert y.requires_grad and not isinstance(mean, Tensor) and not isinstance(norm, Tensor)
    rows = x.reshape(20, 3)
    np.testing.assert_allclose(to_numpy(mean), rows.mean(0), atol=1e-14)
    expected = np.linalg.norm(rows, p, axis=0) / 20 ** (1 / p)
    np.testing.assert_allclose(to_numpy(norm), expected, rtol=1e-13)


@pytest.mark.parametrize("center_first", [False, True])
@pytest.mark.parametrize("p", ORDERS)
def test_a_channel_of_zeros_becomes_beta_and_gives_finite_gradients(p, center_first):
    x = Tensor(np.zeros((4, 2)), requires_grad=True)
    beta = np.array([0.5, -0.5])
    y = ops.lp_batch_norm(x, np.ones(2), beta, p=p, center_first=center_first)
    np.testing.assert_array_equal(y.numpy(), np.tile(beta, (4, 1)))
    g = np.random.default_rng(0).standard_normal((4, 2))
    y.backward(g)
    eps = math.sqrt(1e-5) if p == 2 else 1e-5
    np.testing.assert_allclose(x.grad.numpy(), (g - g.mean(0)) / eps, rtol=1e-10)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3), (0, 3), (4,)])
def test_a_batch_without_a_mean_to_take_away_is_refused(shape):
    C = shape[-1]
    with pytest.raises(ShapeError, match="batch"):
        ops.lp_batch_norm(np.zeros(shape), np.ones(C), np.zeros(C), p=1)


def test_orders_and_readings_that_there_are_not_are_named():
    x, ones = np.ones((4, 1)), np.ones(1)
    with pytest.raises(ValueError, match=r"p=3 is not implemented. Use 1, 2 or float\('inf'\)"):
        ops.lp_batch_norm(x, ones, ones, p=3)
    with pytest.raises(ValueError, match=r"reduce='mean' is unknown\. Use one of"):
        ops.lp_batch_norm(x, ones, ones, p=1, reduce="mean")
    with pytest.raises(ValueError, match="lp_batch_norm_inference: p=0"):
        ops.lp_batch_norm_inference(x, ones, ones, ones, ones, p=0)
    with pytest.raises(ShapeError, match=r"beta has shape \(2,\)"):
        ops.lp_batch_norm(x, ones, np.ones(2), p=1)


# -- norms of each example

IMAGES = np.random.default_rng(1).standard_normal((2, 3, 4, 6)) * 3 + 5
ONES, ZEROS = np.ones(6), np.zeros(6)


def moments_over(y, *axes):
    return np.abs(y.mean(axes)).max(), np.abs(y.std(axes) - 1).max()


@pytest.mark.parametrize("norm, axes", [
    (lambda: ops.layer_norm(IMAGES, ONES, ZEROS), (3,)),
    (lambda: ops.layer_norm(IMAGES, ONES, ZEROS, axes="example"), (1, 2, 3)),
    (lambda: ops.layer_norm(IMAGES, ONES, ZEROS, axes=(1, 2)), (1, 2)),
    (lambda: ops.layer_norm(IMAGES, np.ones((3, 4, 6)), np.zeros((3, 4, 6))), (1, 2, 3)),
    (lambda: ops.instance_norm(IMAGES, ONES, ZEROS), (1, 2)),
    (lambda: ops.group_norm(IMAGES, ONES, ZEROS, groups=2).reshape(2, 3, 4, 2, 3), (1, 2, 4)),
    (lambda: ops.weight_standardisation(IMAGES), (0, 1, 2)),
])  # fmt: skip
def test_each_norm_gives_mean_zero_and_variance_one_over_its_own_axes(norm, axes):
    off = moments_over(norm(), *axes)
    assert max(off) < 1e-5
    others = moments_over(norm(), *(a for a in range(3) if a not in axes), 3)
    assert max(others) > 1e-3 or axes == (3,)


def test_rms_norm_gives_mean_square_one_and_leaves_the_mean():
    y = ops.rms_norm(IMAGES, ONES, axes="example")
    np.testing.assert_allclose((y * y).mean((1, 2, 3)), 1, atol=1e-5)
    assert (y.mean((1, 2, 3)) > 0.5).all()


@pytest.mark.parametrize("norm, message", [
    (lambda: ops.layer_norm(IMAGES, np.ones(4), ZEROS), r"gamma has shape \(4,\), which is not"),
    (lambda: ops.layer_norm(IMAGES, ONES, np.ones(())), r"beta has shape \(\)"),
    (lambda: ops.layer_norm(np.ones((4, 1)), np.ones(1), np.ones(1)), "fewer than 2 values"),
    (lambda: ops.instance_norm(np.ones((4, 6)), ONES, ZEROS), "one value for each channel"),
    (lambda: ops.instance_norm(np.ones((4, 1, 1, 6)), ONES, ZEROS), "larger images, or layer_norm"),
    (lambda: ops.instance_norm(IMAGES, ONES, np.ones(5)), r"beta has shape \(5,\)"),
    (lambda: ops.group_norm(IMAGES, ONES, ZEROS, groups=4), "6 channels can't be cut into"),
    (lambda: ops.group_norm(IMAGES, ONES, ZEROS, groups=0), "groups=0"),
    (lambda: ops.group_norm(np.ones((4, 6)), ONES, ZEROS, groups=6), "one value a group"),
    (lambda: ops.rms_norm(IMAGES, np.ones(5)), r"rms_norm: gamma has shape \(5,\)"),
    (lambda: ops.weight_standardisation(np.ones((1, 1, 1, 3))), "fewer than two weights"),
    (lambda: ops.weight_standardisation(np.ones(3)), "Filters are the last axis"),
    (lambda: ops.weight_standardisation(IMAGES, np.ones(5)), r"gamma has shape \(5,\), w 6 filter"),
])  # fmt: skip
def test_what_does_not_fit_raises_with_the_remedy(norm, message):
    with pytest.raises(ShapeError, match=message):
        norm()


def test_axes_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="layer_norm: axis 4 does not exist"):
        ops.layer_norm(IMAGES, ONES, ZEROS, axes=4)
