"""What is written into a Tensor, its gradient and its flags: checked when it is set."""

import copy
import pickle

import numpy as np
import pytest

import minibn
import minibn.nn
import minibn.optim
from minibn import Tensor, grad, hvp, jacobian, no_grad, ops, use
from minibn.autograd.tape import grad_enabled
from minibn.errors import GraphError, ShapeError


def leaf(backend, values=(1.0, 2.0, 3.0), dtype=float):
    return Tensor(backend.asarray(np.array(values, dtype)), requires_grad=True)


# -- requires_grad


@pytest.mark.parametrize("flag", [np.float32, "float32", "False", 1, None, 0.0])
def test_a_dtype_in_the_place_of_requires_grad_is_no_flag(flag):
    with pytest.raises(TypeError, match=r"requires_grad=.* must be True or False"):
        Tensor(np.ones(2), flag)
    x = Tensor(np.ones(2))
    with pytest.raises(TypeError, match=r"requires_grad=.* must be True or False"):
        x.requires_grad = flag
    assert Tensor(np.ones(2), np.True_).requires_grad is True


@pytest.mark.parametrize("dtype", [int, np.uint8, bool])
def test_integers_do_not_require_a_gradient_later_either(dtype):
    x = Tensor(np.ones(2, dtype))
    with pytest.raises(TypeError, match="can't require a gradient"):
        x.requires_grad = True
    assert not x.requires_grad


def test_a_result_stays_in_its_graph():
    y = leaf_numpy() * 2
    with pytest.raises(GraphError, match=r"\.detach\(\)"):
        y.requires_grad = False
    assert y.requires_grad


def leaf_numpy():
    return Tensor(np.ones(3), requires_grad=True)


def test_flags_and_gradients_are_copied():
    x = leaf_numpy()
    (x * x).sum().backward()
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other.requires_grad and other.grad.tolist() == [2, 2, 2]


# -- grad


@pytest.mark.parametrize("g", [np.ones(3), 1.0, [1, 1, 1], "g", np.float64(1)])
def test_a_gradient_is_a_tensor(g):
    x = leaf_numpy()
    with pytest.raises(TypeError, match=r"grad is a Tensor or None.*Use Tensor\(array\)"):
        x.grad = g
    assert x.grad is None


@pytest.mark.parametrize("shape", [(), (1,), (1, 3), (2, 3), (4,)])
def test_a_gradient_has_the_shape_of_its_tensor(backend, shape):
    x = leaf(backend)
    with pytest.raises(ShapeError, match=r"grad has shape .*, its Tensor \(3,\)"):
        x.grad = Tensor(backend.asarray(np.ones(shape)))


# -- elements


WRITES = {
    "an element": 0, "the last": -1, "a slice": slice(1, None), "all": ..., "a list": [0, 2],
    "a mask": np.array([True, False, True]), "an integer Tensor": Tensor(np.array([2, 0])),
}  # fmt: skip


@pytest.mark.parametrize("index", WRITES.values(), ids=WRITES)
def test_elements_are_written_in_place_as_in_an_array(index):
    x, right = Tensor(np.arange(3.0)), np.arange(3.0)
    memory, version = x.data, x.version.count
    x[index] = 7
    right[np.asarray(index) if isinstance(index, Tensor) else index] = 7
    assert x.data is memory and x.version.count == version + 1
    np.testing.assert_array_equal(x.data, right)


def test_a_leaf_is_written_under_no_grad_only(backend):
    x = leaf(backend)
    for values in (5, Tensor(backend.asarray(np.ones(3)))):
        with pytest.raises(TypeError, match=r"with minibn\.no_grad\(\).*ops\.where"):
            x[...] = values
    with no_grad():
        x[1:] = 0
        x[0] += 4
    assert x.tolist() == [5, 0, 0] and x.requires_grad
    with pytest.raises(TypeError, match="gradient is required"):
        (x * 1)[0] = 1


def test_a_graph_is_not_written_into_elements():
    x, total = leaf_numpy(), Tensor(np.zeros(3))
    with pytest.raises(TypeError, match="gradient is required"):
        total[0] = x.sum()
    assert total.tolist() == [0, 0, 0]


def test_writing_elements_is_noticed_by_the_backward_pass():
    x = leaf_numpy()
    y = (x * x).sum()
    with no_grad():
        x[0] = 3
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


BAD_VALUES = {
    "fractions into integers": (np.ones(3, int), 2.5), "complex": (np.ones(3), 1j),
    "NaN into integers": (np.ones(3, int), np.nan), "text": (np.ones(3), "7"),
    "None": (np.ones(3), None), "texts": (np.ones(3), np.array(["1"] * 3)),
    "objects": (np.ones(3), np.array([1, None, 2])), "a set": (np.ones(3), {1}),
    "a masked array": (np.ones(3), np.ma.array([1.0, 2, 3], mask=[0, 1, 0])),
    "an array of fractions": (np.ones(3, int), np.array([1.5, 2, 3])),
    "a longer list": (np.ones(3), [1.0, 2, 3, 4]), "another shape": (np.ones(3), np.ones(2)),
}  # fmt: skip


@pytest.mark.parametrize("array, values", BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_do_not_fit_change_nothing(array, values):
    x = Tensor(array)
    for write in (x.assign, lambda v: x.__setitem__(..., v)):
        with pytest.raises((TypeError, ShapeError)):
            write(values)
        assert x.tolist() == [1, 1, 1] and x.version.count == 0


def test_values_of_one_length_are_not_repeated():
    x = Tensor(np.ones(3))
    for values in ([5.0], np.ones(1), np.ones((1, 3))):
        with pytest.raises(ShapeError, match="assign: values have shape"):
            x.assign(values)
    assert x.assign([3, 2, 1]).tolist() == [3, 2, 1] and x.assign(np.float32(4)).tolist() == [4] * 3


def test_a_tensor_takes_values_of_its_own_memory():
    x = Tensor(np.arange(3.0))
    x.assign(x.data[::-1])
    assert x.tolist() == [2, 1, 0]


# -- comparisons and signs


@pytest.mark.parametrize("other", ["a", None])
def test_an_order_needs_numbers(backend, other):
    x = leaf(backend)
    for compare in ("__lt__", "__le__", "__gt__", "__ge__"):
        with pytest.raises(TypeError, match="can't be compared with"):
            getattr(x, compare)(other)
    assert not (leaf_numpy() == None).any()  # noqa: E711  # elementwise, as an array


def test_shapes_of_a_comparison_agree(backend):
    for compare in ("__eq__", "__ne__", "__lt__", "__ge__"):
        with pytest.raises(ShapeError, match="comparison"):
            getattr(leaf(backend), compare)(backend.asarray(np.ones(2)))


def test_plus_is_the_tensor_itself():
    x = leaf_numpy()
    assert +x is x


def test_a_tensor_without_axes_has_no_length():
    for use_it in (len, list, tuple):
        with pytest.raises(TypeError, match=r"has no axis.*\.item\(\)"):
            use_it(Tensor(1.0))


# -- gradients of what


def test_a_single_tensor_is_no_list_of_parameters():
    x = leaf_numpy()
    with pytest.raises(TypeError, match=r"hvp: params is a list.*\[params\]"):
        hvp(lambda: (x**3).sum(), x, np.ones(3))


@pytest.mark.parametrize("output", [3.0, "y", np.ones(()), None])
def test_the_output_of_a_function_is_a_tensor(output):
    x = leaf_numpy()
    with pytest.raises(GraphError, match="not a Tensor"):
        grad(output, x)
    with pytest.raises(GraphError, match="jacobian: f returns a"):
        jacobian(lambda x: output, np.ones(2))
    with pytest.raises(GraphError, match="hvp: f returns a"):
        hvp(lambda: output, [x], [np.ones(3)])
    with pytest.raises(TypeError, match="grad: inputs is None"):
        grad(x.sum(), None)


@pytest.mark.parametrize("cotangent", [["1", "2", "3"], np.array(["1"] * 3), "abc", {1, 2}])
def test_a_cotangent_is_of_numbers(cotangent):
    x = leaf_numpy()
    with pytest.raises(TypeError, match=r"no number|no array"):
        (x * 1).backward(cotangent)
    assert x.grad is None


# -- settings


def test_no_grad_is_a_decorator_with_and_without_parentheses():
    @no_grad
    def bare(x):
        return x * 2

    @no_grad()
    def called(x):
        return x * 2

    for f in (bare, called):
        assert not f(leaf_numpy()).requires_grad and grad_enabled.get()


def test_a_generator_is_not_decorated_without_effect():
    def batches():
        yield 1

    async def step():
        pass

    for function in (batches, step, 3):
        with pytest.raises(TypeError, match="with block"):
            no_grad()(function)


def test_no_backend_is_none():
    with pytest.raises(ValueError, match="backend None is unknown"):
        use(None)
    assert Tensor([1.0]).tolist() == [1]


def test_the_modules_name_what_has_another_name_here():
    for module, name, remedy in (
        (minibn, "tensor", r"minibn\.Tensor"), (minibn, "zeros", "numpy.zeros"),
        (ops, "cross_entropy", "softmax_cross_entropy"), (ops, "clamp", "clip"),
        (ops, "batchnorm", "'batch_norm'"), (minibn.nn, "BatchNorm2d", r"nn\.BatchNorm"),
        (minibn.nn, "CrossEntropyLoss", "softmax_cross_entropy"), (minibn.nn, "Lineer", "'Linear'"),
        (minibn.optim, "lr_scheduler", "cosine"), (minibn.optim, "Sgd", "SGD"),
    ):  # fmt: skip
        with pytest.raises(AttributeError, match=f"no attribute '{name}'.*{remedy}"):
            getattr(module, name)
