"""What people who know NumPy or PyTorch type: methods, numbers, formats, keywords, other arrays."""

import inspect
import math

import numpy as np
import pytest

from minibn import Tensor, grad, nn, ops
from minibn.backend import get_backend, to_numpy


def leaf(backend, values, dtype=float):
    return Tensor(backend.asarray(np.array(values, dtype)), requires_grad=True)


# -- one value as a Python number


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_tensor_with_one_value_is_a_number(backend, shape):
    x = leaf(backend, np.full(shape, -2.75))
    assert (float(x), int(x), bool(x), complex(x)) == (-2.75, -2, True, -2.75 + 0j)
    assert not bool(x * 0) and math.sqrt(-x) == math.sqrt(2.75) and round(float(x), 1) == -2.8
    assert x.item() == -2.75


@pytest.mark.parametrize("convert", [float, int, bool, complex])
@pytest.mark.parametrize("values", [[1.0, 2.0], []])
def test_a_tensor_of_more_values_or_none_is_no_number(backend, convert, values):
    with pytest.raises(TypeError, match=r"needs a Tensor with one value.*shape"):
        convert(leaf(backend, values))


def test_a_tensor_of_one_integer_is_an_index_and_no_other(backend):
    assert [10, 20, 30][Tensor(backend.asarray(np.array(2)))] == 30
    with pytest.raises(TypeError, match="float64"):
        range(leaf(backend, 2.0))


def test_a_loss_is_formatted_as_a_number(backend):
    loss = (leaf(backend, [1.0, 2.0]) ** 2).sum()
    assert f"{loss:.3f} {loss:>8.2e} {loss}" == "5.000 5.00e+00 5.0"
    assert f"{leaf(backend, [1.0])}" == repr(leaf(backend, [1.0]))
    with pytest.raises(TypeError, match=r"shape \(2,\) can't be formatted with '.3f'.*item\(\)"):
        f"{leaf(backend, [1.0, 2.0]):.3f}"


def test_tolist_gives_nested_lists(backend):
    assert leaf(backend, [[1.0, 2.0]]).tolist() == [[1.0, 2.0]]
    assert leaf(backend, 3.0).tolist() == 3.0


# -- methods


METHODS = {
    "min": (lambda x: x.min(1), lambda a: a.min(1)),
    "max": (lambda x: x.max(axis=0, keepdims=True), lambda a: a.max(0, keepdims=True)),
    "mean": (lambda x: x.mean(-1), lambda a: a.mean(-1)),
    "var": (lambda x: x.var(correction=1), lambda a: a.var(ddof=1)),
    "std": (lambda x: x.std(0, correction=1), lambda a: a.std(0, ddof=1)),
    "norm": (lambda x: x.norm(axis=1), lambda a: np.sqrt((a * a).sum(1))),
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: x.log(), np.log),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "abs": (lambda x: (-x).abs(), np.abs),
    "pow": (lambda x: x.pow(2), np.square),
    "tanh": (lambda x: x.tanh(), np.tanh),
    "relu": (lambda x: x.relu(), lambda a: np.maximum(a, 0)),
    "sigmoid": (lambda x: x.sigmoid(), lambda a: 1 / (1 + np.exp(-a))),
    "softmax": (lambda x: x.softmax(0), lambda a: np.exp(a) / np.exp(a).sum(0)),
    "log_softmax": (lambda x: x.log_softmax(), lambda a: a - np.log(np.exp(a).sum(1))[:, None]),
    "clip": (lambda x: x.clip(0.5, 1.5), lambda a: a.clip(0.5, 1.5)),
    "clip max": (lambda x: x.clip(max=1.0), lambda a: np.minimum(a, 1)),
    "clamp": (lambda x: x.clamp(min=1.0), lambda a: np.maximum(a, 1)),
    "flatten": (lambda x: x.flatten(), np.ravel),
    "flatten from 1": (lambda x: x.reshape(1, 2, 3).flatten(1), lambda a: a.reshape(1, 6)),
    "squeeze": (lambda x: x[None, :, None].squeeze(), lambda a: a),
    "squeeze one": (lambda x: x[None, :, None].squeeze(-2), lambda a: a[None]),
    "unsqueeze": (lambda x: x.unsqueeze(-1), lambda a: a[..., None]),
    "unsqueeze 1": (lambda x: x.unsqueeze(1), lambda a: a[:, None]),
    "view": (lambda x: x.view(3, -1), lambda a: a.reshape(3, 2)),
    "permute": (lambda x: x.permute(1, 0), np.transpose),
    "t": (lambda x: x.t() + x.T, lambda a: 2 * a.T),
    "copy": (lambda x: x.copy(), np.copy),
    "clone": (lambda x: x.clone(), np.copy),
}  # fmt: skip


@pytest.mark.parametrize("ours, numpys", METHODS.values(), ids=METHODS)
def test_a_method_computes_what_its_name_says_and_has_a_gradient(backend, ours, numpys):
    a = np.array([[0.4, 1.2, 2.0], [0.7, 1.3, 0.9]])
    x = leaf(backend, a)
    y = ours(x)
    np.testing.assert_allclose(y.numpy(), numpys(a), rtol=1e-12)
    (g,) = grad(y.sum(), [x])
    step = 1e-6
    d = np.random.default_rng(0).normal(size=a.shape)
    slope = (numpys(a + step * d).sum() - numpys(a - step * d).sum()) / (2 * step)
    assert abs((g.numpy() * d).sum() - slope) < 1e-6


def test_a_copy_has_memory_of_its_own(backend):
    x = leaf(backend, [1.0, 2.0])
    y = x.copy()
    x.assign(0.0)
    assert y.numpy().tolist() == [1, 2] and not y.is_leaf
    whole = Tensor(backend.asarray(np.array([1, 2]))).copy()
    assert whole.dtype.kind == "i"


def test_argmax_and_argmin_are_plain_arrays(backend):
    x = leaf(backend, [[1.0, 3.0, 3.0], [2.0, 0.0, 0.0]])
    assert to_numpy(x.argmax(1)).tolist() == [1, 0]
    assert to_numpy(x.argmin(axis=-1)).tolist() == [0, 1]
    assert x.argmax().item() == 1
    assert (x.dim(), x.numel(), x.size, x.ndim) == (2, 6, 6, 2)


def test_shape_methods_refuse_what_does_not_fit():
    x = Tensor(np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"squeeze: axis 0 of shape \(2, 1\) is not of length 1"):
        x.squeeze(0)
    for call in (lambda: x.squeeze(2), lambda: x.unsqueeze(4), lambda: x.flatten(3)):
        with pytest.raises(IndexError):
            call()
    assert Tensor(3.0).flatten().shape == (1,) and x.squeeze((1,)).shape == (2,)
    assert Tensor(np.ones((2, 0, 3))).flatten(1).shape == (2, 0)


@pytest.mark.parametrize(
    "name, remedy",
    [("cuda", r"minibn\.use"), ("cpu", r"x\.numpy\(\)"), ("expand", r"ops\.broadcast_to"),
     ("float", "astype"), ("softplus", r"ops\.softplus\(x"), ("sqeeze", "'squeeze'"),
     ("masked_fill", r"ops\.where")],
)  # fmt: skip
def test_an_attribute_that_a_tensor_lacks_names_what_to_use(name, remedy):
    with pytest.raises(AttributeError, match=f"no attribute {name!r}.*{remedy}"):
        getattr(Tensor(1.0), name)
    assert not hasattr(Tensor(1.0), "__cuda_array_interface__")


# -- keywords


def functions_of_an_axis():
    for owner, names in ((ops, ops.__all__), (Tensor, dir(Tensor))):
        for name in names:
            if inspect.isfunction(function := getattr(owner, name)) and name != "moments":
                parameters = inspect.signature(function).parameters
                for ours, theirs in (
                    ("axis", "dim"), ("keepdims", "keepdim"), ("correction", "unbiased"),
                    ("correction", "ddof"), ("min", "a_min"),
                ):  # fmt: skip
                    if ours in parameters:
                        yield pytest.param(
                            function, ours, theirs, id=f"{owner.__name__}.{name}-{theirs}"
                        )


@pytest.mark.parametrize("function, ours, theirs", list(functions_of_an_axis()))
def test_keywords_of_pytorch_are_answered_with_ours(function, ours, theirs):
    with pytest.raises(
        TypeError, match=f"{function.__name__}: the keyword is {ours}=, not {theirs}="
    ):
        function(Tensor(np.ones((2, 3))), **{theirs: 0})


def test_another_unknown_keyword_is_python_s_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'axes'"):
        ops.sum(np.ones(3), axes=0)


# -- arrays of other libraries


class Foreign:
    """An array of another library, which has one way to hand over its values."""

    def __init__(self, values, dtype="f4"):
        self.values = np.array(values, dtype)
        self.dtype, self.shape, self.ndim = "foreign.float32", self.values.shape, self.values.ndim


class WithArray(Foreign):
    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class WithDlpack(Foreign):
    def __dlpack__(self, **settings):
        return self.values.__dlpack__(**settings)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class Refusing(Foreign):
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("it requires a gradient.")


@pytest.mark.parametrize("kind", [WithArray, WithDlpack])
def test_arrays_of_other_libraries_are_copied_to_the_backend_in_use(backend, kind):
    theirs = kind([[1.0, 2.0]])
    x = Tensor(theirs, requires_grad=True)
    assert type(x.data) is type(backend.asarray(np.ones(1))) and x.dtype == np.float32
    theirs.values[:] = 7
    assert x.tolist() == [[1, 2]]
    assert to_numpy(get_backend().asarray(kind([1, 2], "i8"))).dtype == np.int64
    assert to_numpy(kind([3.0])).tolist() == [3]


@pytest.mark.parametrize("kind", [WithArray, WithDlpack])
def test_a_state_dict_of_another_library_s_arrays_is_loaded(backend, kind):
    layer = nn.Sequential(nn.Linear(3, 2)).initialize(seed=0)
    values = np.arange(6.0).reshape(2, 3)
    theirs = {"0.weight": kind(values), "0.bias": kind([1.0, 2.0])}
    layer.load_state_dict(nn.from_pytorch(theirs))
    np.testing.assert_array_equal(layer[0].weight.numpy(), values.T)
    layer.load_state_dict({"0.weight": kind(values.T), "0.bias": kind([3.0, 4.0])})
    assert layer[0].bias.tolist() == [3, 4]


def test_an_array_that_can_not_be_converted_says_what_to_do():
    for take in (Tensor, get_backend().asarray, to_numpy):
        with pytest.raises(
            TypeError, match=r"Refusing can't be converted: it requires.*detach\(\)"
        ):
            take(Refusing([1.0]))


def test_an_op_does_not_convert_in_silence_but_says_how():
    for call in (
        lambda x: ops.relu(x), lambda x: ops.sum(x), lambda x: Tensor([1.0]) * x,
        lambda x: nn.ReLU()(x), lambda x: ops.softmax(x),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"WithArray is no array.*minibn\.Tensor\(x\)"):
            call(WithArray([1.0]))
