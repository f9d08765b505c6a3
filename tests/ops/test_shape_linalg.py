"""Indexing, reshaping and matrix products: what NumPy's rules are, and what a GPU must not do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suite.registry import full_shapes

from minibn import Tensor, grad, ops
from minibn.autograd.tape import unbroadcast
from minibn.errors import ShapeError

seeds = st.integers(0, 2**32 - 1)


def counting(backend, *shape):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    return Tensor(backend.asarray(x), requires_grad=True), x


INDICES = {
    "a slice": slice(1, None),
    "a slice backwards": (slice(None), slice(None, None, -2)),
    "an integer": 1,
    "a negative integer": (-1, ..., -2),
    "a NumPy integer": np.int64(2),
    "None": (None, 1, None),
    "Ellipsis": (..., 0),
    "nothing": (),
    "one element": (0, 1, 2),
    "an empty slice": slice(2, 2),
    "a list": [2, 0, 2],
    "an empty list": [],
    "an array with repeats": np.array([0, 0, 2, -3]),
    "an array of no dimension": np.array(2),
    "unsigned integers": np.array([0, 2], np.uint8),
    "two arrays that broadcast": (np.array([[0], [2]]), np.array([1, -1])),
    "arrays apart": (np.array([0, 1]), slice(None), np.array([3, -4])),
    "an array after an Ellipsis": (..., np.array([3, 3, -1])),
    "an array beside an integer": (1, np.array([0, 0, 2])),
    "a mask": np.arange(36).reshape(3, 3, 4) % 5 == 0,
    "a mask of the first axis": np.array([True, False, True]),
    "a mask of later axes": (slice(None), np.arange(12).reshape(3, 4) % 3 == 1),
    "a list of booleans": [True, False, True],
    "a mask of nothing": np.zeros(3, bool),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_getitem_takes_what_numpy_takes_and_adds_up_repeats(backend, index):
    x, host = counting(backend, 3, 3, 4)
    y, expected = x[index], host[index]
    assert y.shape == np.shape(expected)
    np.testing.assert_array_equal(y.numpy(), expected)
    c = np.random.default_rng(0).standard_normal(y.shape)
    gradient = np.zeros(host.shape)
    np.add.at(gradient, index, c)
    np.testing.assert_allclose(grad(y, x, backend.asarray(c)).numpy(), gradient, atol=1e-15)


@pytest.mark.parametrize("as_tensor", [True, False])
def test_an_index_may_live_on_the_backend(backend, as_tensor):
    x, host = counting(backend, 3, 2)
    index = backend.asarray(np.array([2, 2, -3]))
    y = x[Tensor(index) if as_tensor else index]
    np.testing.assert_array_equal(y.numpy(), host[[2, 2, 0]])
    np.testing.assert_array_equal(x[x.data > 3].numpy(), [4, 5])


@pytest.mark.parametrize(
    "index",
    [
        np.array([0, 3]),
        np.array([-4]),
        [3],
        (slice(None), np.array([[4]])),
        (..., np.array([-5, 0])),
        (np.zeros((3, 3), bool), np.array([9])),
        (None, np.array([3])),
        3,
        (0, 0, 4),
        (0, 0, 0, 0),
        np.ones(4, bool),
        np.array([0.5]),
    ],
)
def test_an_index_out_of_range_raises_on_every_backend(backend, index):
    x, _ = counting(backend, 3, 3, 4)
    with pytest.raises(IndexError):
        ops.getitem(x, index)


def test_changing_an_index_array_afterwards_changes_no_gradient():
    x, index = Tensor(np.zeros(3), requires_grad=True), np.array([0, 1])
    y = x[index]
    index[:] = 2
    np.testing.assert_array_equal(grad(y, x, np.ones(2)).numpy(), [1, 1, 0])


@pytest.mark.parametrize("shape, to", [((3,), (2,)), ((2, 3), (3,)), ((2,), (2, 3)), ((2,), ())])
def test_what_cannot_be_broadcast_is_refused(shape, to):
    with pytest.raises(ShapeError, match="can't be repeated"):
        ops.broadcast_to(np.zeros(shape), to)


def test_unbroadcast_sums_over_axes_of_no_length_too():
    assert unbroadcast(np.zeros((0, 3)), (1, 3)).tolist() == [[0, 0, 0]]
    assert unbroadcast(np.zeros((4, 0)), (0,)).shape == (0,)
    with pytest.raises(ShapeError, match="unbroadcast"):
        unbroadcast(np.zeros(3), (1, 3))


@given(full_shapes, seeds)
def test_scatter_undoes_gather(shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    index = rng.permutation(x.size).reshape(shape)
    np.testing.assert_array_equal(ops.scatter(ops.gather(x, index), index, shape), x)


def test_concatenate_of_two_dtypes_gives_each_its_own_back(backend):
    x = Tensor(backend.asarray(np.ones((2, 1), np.float32)), requires_grad=True)
    y = Tensor(backend.asarray(np.ones((2, 2))), requires_grad=True)
    z = ops.concatenate([x, y, x], axis=-1)
    assert (z.shape, z.dtype) == ((2, 4), np.float64)
    c = backend.asarray(np.arange(8.0).reshape(2, 4))
    gx, gy = grad(z, [x, y], c)
    assert (gx.dtype, gy.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(gx.numpy(), [[3], [11]])
    np.testing.assert_array_equal(gy.numpy(), [[1, 2], [5, 6]])


def test_concatenate_says_what_does_not_fit():
    x = np.zeros((2, 3))
    for parts, axis in (([], 0), ([x], 2), ([x], -3), ([x, x[0]], -1), ([x, x.T], 0)):
        with pytest.raises(ShapeError, match="concatenate"):
            ops.concatenate(parts, axis)


def test_transpose_refuses_what_is_no_permutation():
    x = np.zeros((2, 3, 4))
    for axes in ((0, 1), (0, 0, 1), (0, 1, 5), (0, 1, -4)):
        with pytest.raises(ShapeError, match="permutation"):
            ops.transpose(x, axes)
    assert Tensor(x).transpose(-1, 0, 1).shape == (4, 2, 3)
    assert Tensor(x).transpose().shape == (4, 3, 2)
    assert Tensor(x[0, 0]).transpose(0).shape == (4,)


def test_reshape_and_pad_say_what_does_not_fit():
    x = np.zeros((2, 3))
    for shape in (5, (4, -1), (-1, -1), (0, -1)):
        with pytest.raises(ShapeError, match="reshape"):
            ops.reshape(x, shape)
    assert ops.reshape(x[:0], (-1, 3)).shape == (0, 3)
    for widths in ([(1, 1)], [(1, 1), (0, -1)]):
        with pytest.raises(ShapeError, match="pad"):
            ops.pad(x, widths)


# -- matrix products

PRODUCTS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((1, 2, 3), (5, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((2, 5, 2, 3), (3, 4)),
    ((2, 0), (0, 3)),
    ((0, 2, 3), (3, 4)),
    ((4, 2, 0), (0, 3)),
    ((2, 3), (3, 0)),
]


@pytest.mark.parametrize("first, second", PRODUCTS)
def test_matmul_equals_numpys_and_its_gradients_equal_einsums(backend, first, second):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(first), rng.standard_normal(second)
    x, y = (Tensor(backend.asarray(v), requires_grad=True) for v in (a, b))
    z = x @ y
    assert z.shape == np.shape(a @ b)
    np.testing.assert_allclose(z.numpy(), a @ b, atol=1e-13)
    c = np.asarray(rng.standard_normal(z.shape))
    gx, gy = grad(z, [x, y], backend.asarray(c))
    big_a, big_b = np.atleast_2d(a), b.reshape(-1, 1) if b.ndim == 1 else b
    big_c = c.reshape(np.shape(big_a @ big_b))
    full_a = np.einsum("...mn,...kn->...mk", big_c, big_b)
    full_b = np.einsum("...mk,...mn->...kn", big_a, big_c)
    np.testing.assert_allclose(gx.numpy(), reduced(full_a, big_a.shape, first), atol=1e-12)
    np.testing.assert_allclose(gy.numpy(), reduced(full_b, big_b.shape, second), atol=1e-12)


def reduced(g, shape, original):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    for axis, n in enumerate(shape):
        g = g.sum(axis=axis, keepdims=True) if n == 1 != g.shape[axis] else g
    return g.reshape(original)


def test_matmul_says_what_does_not_fit():
    x = np.zeros((2, 3))
    with pytest.raises(ShapeError, match="transposed"):
        ops.matmul(x, x)
    with pytest.raises(ShapeError, match=r"Use \*"):
        ops.matmul(x, np.zeros(()))
    with pytest.raises(ValueError):
        ops.matmul(np.zeros((2, 2, 3)), np.zeros((4, 3, 2)))


@pytest.mark.parametrize(("g", "x"), [((3, 2), (2, 3)), ((2, 3), (3,) * 3), ((4, 3), (4, 2))])
def test_a_gradient_that_its_input_does_not_broadcast_to_is_refused(g, x):
    with pytest.raises(ShapeError, match="by position, and untransposed"):
        unbroadcast(np.ones(g), x)
