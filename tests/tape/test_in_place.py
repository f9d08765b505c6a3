"""Tensors changed in place, and Tensors among NumPy's functions."""

import numpy as np
import pytest

from minibn import Tensor, backend, no_grad, ops, use
from minibn.errors import GraphError, ShapeError

UPDATES = {
    "+=": (lambda x, y: x.__iadd__(y), lambda x, y: x + y),
    "-=": (lambda x, y: x.__isub__(y), lambda x, y: x - y),
    "*=": (lambda x, y: x.__imul__(y), lambda x, y: x * y),
    "/=": (lambda x, y: x.__itruediv__(y), lambda x, y: x / y),
    "**=": (lambda x, y: x.__ipow__(y), lambda x, y: x**y),
    "@=": (lambda x, y: x.__imatmul__(y), lambda x, y: x @ y),
}
each_update = pytest.mark.parametrize("update, right", UPDATES.values(), ids=UPDATES)
A = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


@each_update
@pytest.mark.parametrize("backend_name", ["numpy", "strict"])
def test_under_no_grad_a_leaf_changes_in_place(update, right, backend_name):
    with use(backend_name) as here:
        x = Tensor(here.asarray(A.copy()), requires_grad=True)
        memory, version = x.data, x.version.count
        with no_grad():
            assert update(x, Tensor(here.asarray(A))) is x
        assert x.data is memory
        assert (x.version.count, x.requires_grad, x.dtype) == (version + 1, True, np.float32)
        np.testing.assert_array_equal(x.numpy(), right(A, A))


@each_update
def test_while_ops_are_recorded_a_leaf_that_requires_a_gradient_refuses(update, right):
    x = Tensor(A.copy(), requires_grad=True)
    with pytest.raises(TypeError, match=r"with minibn\.no_grad\(\)"):
        update(x, A)
    np.testing.assert_array_equal(x.data, A)


@each_update
def test_a_result_of_a_graph_becomes_a_new_tensor(update, right):
    x = Tensor(A.copy(), requires_grad=True)
    y = before = x * 1
    y = update(y, A)
    assert y is not before
    np.testing.assert_array_equal(before.data, A)
    y.sum().backward()
    assert x.grad is not None


def test_a_running_total_takes_part_in_the_graph():
    x = Tensor([1.0, 2.0], requires_grad=True)
    total = Tensor(0.0)
    for i in range(2):
        total += x[i] * 3
    total.backward()
    assert x.grad.data.tolist() == [3, 3]


def test_training_by_hand():
    w = Tensor([1.0], requires_grad=True)
    for _ in range(3):
        (w * w).sum().backward()
        with no_grad():
            w -= 0.25 * w.grad
        w.grad = None
    assert w.data.tolist() == [0.125]


def test_data_may_be_updated_by_a_gradient():
    w = Tensor(np.ones(3, np.float32), requires_grad=True)
    (w * w).sum().backward()
    w.data -= 0.25 * w.grad
    w.data *= w.grad
    assert w.data.dtype == np.float32
    assert w.data.tolist() == [1, 1, 1]


def test_a_graph_is_not_written_into_an_array():
    w = Tensor(np.ones(3), requires_grad=True)
    array = np.zeros(3)
    with pytest.raises(TypeError, match=r"Use \.detach\(\)"):
        array += w
    assert not array.any()


def test_a_change_that_a_backward_pass_would_miss_is_found():
    w = Tensor([2.0], requires_grad=True)
    y = w * w
    with no_grad():
        w *= 3
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


@pytest.mark.parametrize(
    "x, y, error",
    [
        (np.ones(2, np.int64), 0.5, "result is float64, this Tensor int64"),
        (np.ones(2, np.float32), 1j, "result is complex64, this Tensor float32"),
    ],
)
def test_another_kind_of_number_is_refused(x, y, error):
    t = Tensor(x)
    with pytest.raises(TypeError, match=error):
        t += y
    assert t.data.tolist() == [1, 1]


def test_another_shape_is_refused():
    t = Tensor(np.ones(2))
    with pytest.raises(ShapeError, match=r"shape \(3, 2\), this Tensor \(2,\)"):
        t += np.ones((3, 2))


# -- among NumPy's functions


def test_a_constant_is_an_array_to_numpy(tmp_path):
    t = Tensor(A)
    assert np.asarray(t) is A or np.shares_memory(np.asarray(t), A)
    assert np.array(t, np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(t), A)
    np.save(tmp_path / "a.npy", t)
    np.savez(tmp_path / "a.npz", t=t)
    for loaded in (np.load(tmp_path / "a.npy"), np.load(tmp_path / "a.npz")["t"]):
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, A)
    np.testing.assert_array_equal(np.array([t, t]), np.array([A, A]))


@pytest.mark.parametrize("make", [np.asarray, np.array, lambda t: np.array([t, t]), np.concatenate])
def test_a_tensor_with_a_gradient_is_no_array(make):
    leaf = Tensor(A, requires_grad=True)
    for t in (leaf, leaf * 2):
        with pytest.raises(TypeError, match=r"Use \.numpy\(\)"):
            make(t)


def test_no_file_is_written_of_a_tensor_with_a_gradient(tmp_path):
    with pytest.raises(TypeError, match=r"Use \.numpy\(\)"):
        np.save(tmp_path / "a.npy", Tensor(A, requires_grad=True))


def test_a_tensor_of_a_device_is_not_copied_in_silence():
    with use("strict") as strict:
        t = Tensor(strict.asarray(A))
        with pytest.raises(TypeError, match=r"not copied to the host .* Use \.numpy\(\)"):
            np.asarray(t)
        np.testing.assert_array_equal(backend.to_numpy(t), A)


@pytest.mark.parametrize(
    "ufunc, remedy",
    [
        (np.exp, "ops.exp"), (np.sqrt, "ops.sqrt"), (np.abs, "ops.abs"), (np.tanh, "ops.tanh"),
        (np.maximum, "ops.maximum"), (np.negative, "ops.negative"), (np.sin, "function of minibn"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_ufunc_names_the_op(ufunc, remedy, requires_grad):
    t = Tensor(A, requires_grad=requires_grad)
    with pytest.raises(TypeError, match=remedy):
        ufunc(*[t] * ufunc.nin)
    with pytest.raises(TypeError, match=r"np\.add of a Tensor"):
        np.add.reduce(t)


@pytest.mark.parametrize(
    "call, op",
    [
        (np.sum, "sum"), (np.mean, "mean"), (np.amax, "max"), (np.transpose, "transpose"),
        (lambda t: np.concatenate([t, t]), "concatenate"),
        (lambda t: np.where(A > 1, t, 0), "where"),
    ],
)  # fmt: skip
def test_a_function_of_numpy_takes_constants_and_names_the_op(call, op):
    np.testing.assert_array_equal(call(Tensor(A)), call(A))
    with pytest.raises(TypeError, match=rf"silently. .* Here: minibn\.ops\.{op}\."):
        call(Tensor(A, requires_grad=True))


def test_shapes_need_no_values():
    t = Tensor(A, requires_grad=True)
    assert (np.shape(t), np.ndim(t), np.size(t)) == ((2, 2), 2, 4)
    assert np.zeros_like(t).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("requires_grad", [True, False])
def test_operators_between_arrays_and_tensors_are_ops(requires_grad):
    t = Tensor(2 * A, requires_grad=requires_grad)
    pairs = [
        (A + t, ops.add(A, t)), (A - t, ops.subtract(A, t)), (A * t, ops.multiply(A, t)),
        (A / t, ops.divide(A, t)), (A**t, ops.power(A, t)), (A @ t, ops.matmul(A, t)),
        (np.float64(3) * t, ops.multiply(3, t)), (np.add(t, A), ops.add(t, A)),
    ]  # fmt: skip
    for ours, right in pairs:
        assert isinstance(ours, Tensor)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours.data, right.data)
    for ours, right in [
        (t > A, A < 2 * A), (t <= A, A >= 2 * A), (t == A, A == 2 * A), (t != A, A != 2 * A)
    ]:  # fmt: skip
        assert type(ours) is np.ndarray
        np.testing.assert_array_equal(ours, right)
