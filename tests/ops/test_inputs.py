"""What is no array, or no setting of the right kind, is refused at the call, with a remedy."""

import inspect

import numpy as np
import pytest

from minibn import Tensor, errors, ops

X = np.random.default_rng(0).normal(size=(2, 4, 4, 2))
V = np.ones(2)
I = np.zeros((), int)  # noqa: E741  # flat positions
CALLS = {  # each function, of its first input
    "broadcast_to": lambda x: ops.broadcast_to(x, (2, 2, 4, 4, 2)),
    "batch_norm": lambda x: ops.batch_norm(x, V, V),
    "batch_norm_composed": lambda x: ops.batch_norm_composed(x, V, V),
    "batch_norm_inference": lambda x: ops.batch_norm_inference(x, V, V, V, V),
    "cast": lambda x: ops.cast(x, np.float32),
    "clip": lambda x: ops.clip(x, 0, 1),
    "concatenate": lambda x: ops.concatenate([x, x]),
    "conv2d": lambda x: ops.conv2d(x, np.ones((1, 1, 2, 3))),
    "dropout": lambda x: ops.dropout(x, 0.5, X),
    "gather": lambda x: ops.gather(x, I),
    "getitem": lambda x: ops.getitem(x, 0),
    "group_norm": lambda x: ops.group_norm(x, V, V, groups=1),
    "instance_norm": lambda x: ops.instance_norm(x, V, V),
    "layer_norm": lambda x: ops.layer_norm(x, V, V),
    "lp_batch_norm": lambda x: ops.lp_batch_norm(x, V, V, p=1),
    "lp_batch_norm_inference": lambda x: ops.lp_batch_norm_inference(x, V, V, V, V, p=1),
    "matmul": lambda x: ops.matmul(x, np.ones((2, 2))),
    "mse": lambda x: ops.mse(x, X),
    "one_hot": lambda x: ops.one_hot(x, 3, np.float32),
    "pad": lambda x: ops.pad(x, [(1, 1)] * 4),
    "reshape": lambda x: ops.reshape(x, -1),
    "rms_norm": lambda x: ops.rms_norm(x, V),
    "scatter": lambda x: ops.scatter(x, I, (3,)),
    "softmax_cross_entropy": lambda x: ops.softmax_cross_entropy(x, [0, 1]),
    "split": lambda x: ops.split(x, 1),
    "stack": lambda x: ops.stack([x, x]),
    "where": lambda x: ops.where(x, 1.0, X),
}
BINARY = ("add", "subtract", "multiply", "divide", "power", "maximum")
CALLS |= {name: lambda x, name=name: getattr(ops, name)(x, X) for name in BINARY}
CALLS |= {name: getattr(ops, name) for name in ops.__all__ if name not in CALLS}
NUMBERS = {*BINARY, "abs", "exp", "log", "negative", "relu", "sigmoid", "softplus", "sqrt", "tanh"}


class OtherLibrary:
    """An array of another library."""

    dtype, shape, ndim, size = "other.float32", X.shape, 4, X.size

    def __array__(self, dtype=None, copy=None):
        return X


NO_ARRAYS = {
    "list": X.tolist(), "None": None, "text": "abc", "dict": {"x": X}, "class": np.float32,
    "number": 2.5, "NumPy's number": np.float32(2.5), "other library": OtherLibrary(),
    "texts": X.astype(str), "objects": X.astype(object), "records": np.zeros(2, [("a", "f4")]),
    "dates": np.array(["2020-01-01"], "M8[D]"), "masked": np.ma.array(X),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_ARRAYS)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_array_is_refused_by_every_op_in_words(name, kind):
    if "number" in kind and (name in NUMBERS | {"where", "cast", "clip", "mse"} or "NumPy" in kind):
        pytest.skip("numbers are operands too, and shapes may fit")
    with pytest.raises((TypeError, ValueError)) as caught:
        CALLS[name](NO_ARRAYS[kind])
    text = str(caught.value)
    assert not any(
        raw in text for raw in ("has no attribute", "ufunc", "not supported between", "operand")
    ), text


@pytest.mark.parametrize("name", ["sum", "batch_norm", "matmul", "softmax", "concatenate"])
def test_the_message_names_the_function_and_the_remedy(name):
    with pytest.raises(TypeError, match=rf"{name}: an input is a float.*minibn\.Tensor\(x\)"):
        CALLS[name](2.5)
    with pytest.raises(TypeError, match=r"OtherLibrary is no array.*minibn\.Tensor\(x\)"):
        CALLS[name](OtherLibrary())


def test_functions_keep_their_signatures():
    assert list(inspect.signature(ops.conv2d).parameters)[:3] == ["x", "w", "bias"]


# -- settings


@pytest.mark.parametrize("axis", ["0", 0.0, 1.5, True, [0.0], np.array([0.0, 1.0]), {0}, X])
@pytest.mark.parametrize(
    "f",
    [ops.sum, ops.mean, ops.var, ops.std, ops.max, ops.min, ops.logsumexp, ops.norm, ops.softmax,
     ops.log_softmax, lambda x, axis: ops.split(x, 1, axis), lambda x, axis: ops.stack([x], axis),
     lambda x, axis: ops.concatenate([x], axis), lambda x, axis: Tensor(x).argmax(axis),
     lambda x, axis: Tensor(x).unsqueeze(axis), lambda x, axis: Tensor(x).squeeze(axis),
     lambda x, axis: Tensor(x).flatten(axis), lambda x, axis: ops.layer_norm(x, V, V, axes=axis)],
)  # fmt: skip
def test_an_axis_that_is_no_integer_is_refused(f, axis):
    with pytest.raises((TypeError, ValueError), match=r"must be an integer|axes="):
        f(X, axis=axis)


@pytest.mark.parametrize("keepdims", [1, "no", None, [], 2.0])
@pytest.mark.parametrize(
    "f", [ops.sum, ops.mean, ops.var, ops.std, ops.max, ops.logsumexp, ops.norm]
)
def test_a_second_axis_is_not_taken_for_keepdims(f, keepdims):
    with pytest.raises(TypeError, match=r"keepdims=.* must be True or False"):
        f(X, axis=0, keepdims=keepdims)
    assert f(X, axis=0, keepdims=np.True_).shape == (1, 4, 4, 2)


@pytest.mark.parametrize("size", ["2", 2.0, True, None, np.float32(4)])
def test_a_size_that_is_no_integer_is_refused(size):
    calls = [
        lambda: ops.reshape(X, (size, -1)), lambda: ops.broadcast_to(V, (size, 2)),
        lambda: ops.scatter(V, np.arange(2), (size,)), lambda: ops.pad(V, [(size, 1)]),
        lambda: ops.split(V, [size, 1]), lambda: ops.transpose(X, (size, 1, 2, 3)),
        lambda: ops.one_hot(np.arange(2), size, np.float32),
        lambda: ops.group_norm(X, V, V, groups=size),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(TypeError, match="must be an integer"):
            call()
    for setting in ("stride", "padding"):
        with pytest.raises(errors.ShapeError, match=f"{setting}=.* must be one or two integers"):
            ops.conv2d(X, np.ones((1, 1, 2, 1)), **{setting: size})
    with pytest.raises(errors.ShapeError, match="pair"):
        ops.pad(V, 1)


@pytest.mark.parametrize("number", ["0.1", None, True, 1j, [0.1], np.ones(2), X])
def test_a_setting_that_is_no_number_is_refused(number):
    calls = [
        lambda: ops.batch_norm(X, V, V, eps=number), lambda: ops.layer_norm(X, V, V, eps=number),
        lambda: ops.rms_norm(X, V, eps=number), lambda: ops.std(X, correction=number),
        lambda: ops.dropout(V, number, V), lambda: ops.batch_norm_inference(X, *[V] * 4, eps=number)
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(TypeError, match="must be a real number"):
            call()
    for call in (lambda: ops.norm(X, number), lambda: ops.lp_batch_norm(X, V, V, p=number)):
        with pytest.raises((TypeError, ValueError), match="p="):
            call()


def test_a_number_of_any_library_without_axes_is_a_setting():
    eps = [1e-3, np.float64(1e-3), np.array(1e-3), Tensor(1e-3)]
    results = [ops.batch_norm(X.astype(np.float32), V, V, eps=e) for e in eps]
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


@pytest.mark.parametrize("dtype", [None, str, object, "U3", "M8[D]", [("a", "f4")], "abc", 3.0])
def test_numbers_are_cast_to_numbers_only(dtype):
    for call in (lambda: ops.cast(X, dtype), lambda: Tensor(X).astype(dtype)):
        with pytest.raises(TypeError, match=r"no dtype of numbers.*numpy\.float32"):
            call()


@pytest.mark.parametrize("index", [None, True, [0, 1], range(2), np.array([0.0]), np.array([True])])
def test_flat_positions_are_integers(index):
    for call in (lambda: ops.gather(V, index), lambda: ops.scatter(V[:1], index, (3,))):
        with pytest.raises(TypeError, match="an array of integers"):
            call()


@pytest.mark.parametrize("index", [1.0, [0.5], np.array([0.0, 1.0]), (slice(None), 1.5)])
def test_an_index_is_no_fraction(index):
    with pytest.raises(IndexError, match="integers or booleans"):
        ops.getitem(X, index)
    with pytest.raises(IndexError, match="5 indices for an array of shape"):
        ops.getitem(X, ([0],) * 5)


@pytest.mark.parametrize("labels", [[0.0, 1.0], [True, False], [-1, 0], [0, 3]])
def test_a_label_without_a_column_is_no_row_of_zeros(labels):
    with pytest.raises((TypeError, ValueError), match="one_hot: labels"):
        ops.one_hot(np.array(labels), 3, np.float32)


@pytest.mark.parametrize("name", BINARY)
def test_shapes_that_do_not_broadcast_are_named(backend, name):
    x, y = (backend.asarray(np.ones(shape, np.float32)) for shape in ((2, 3), (2,)))
    for left in (x, Tensor(x, requires_grad=True)):
        with pytest.raises(errors.ShapeError, match=r"\(2, 3\) and \(2,\) can't be broadcast"):
            getattr(ops, name)(left, y)


def test_a_bound_that_is_nan_gives_nan_as_in_numpy(backend):
    x = backend.asarray(np.array([-1.0, 2.0, np.nan]))
    for bounds in ({"min": np.nan}, {"max": np.nan}):
        assert np.isnan(backend.to_numpy(ops.clip(x, **bounds))).all()


def test_the_absolute_value_of_minus_zero_is_zero(backend):
    x = backend.asarray(np.array([-0.0, 0.0, -2.0], np.float32))
    assert not np.signbit(backend.to_numpy(ops.abs(x))).any()


def test_python_s_booleans_are_numbers_of_full_precision():
    assert ops.exp(True).dtype == np.float64
