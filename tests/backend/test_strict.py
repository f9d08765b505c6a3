"""The strict double refuses what CuPy refuses or lacks, and computes what NumPy computes."""

import copy
import operator
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minibn.backend import get_backend, to_numpy
from minibn.backend.cupy_surface import surface
from minibn.backend.strict import StrictArray, count_transfers, xp
from minibn.errors import BackendMismatch


def strict(x, dtype=None) -> StrictArray:
    return get_backend("strict").asarray(x, dtype)


def host(x) -> np.ndarray:
    assert type(x) is StrictArray
    return to_numpy(x)


X = strict(np.arange(6.0).reshape(2, 3))
OPERATORS = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lt", "le", "eq", "ne", "gt"]


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_compute_what_numpy_computes(name):
    function = getattr(operator, name)
    x, y = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 5.0])
    assert np.array_equal(host(function(strict(x), strict(y))), function(x, y))
    assert np.array_equal(host(function(strict(x), 2)), function(x, 2))
    assert np.array_equal(host(function(2, strict(x))), function(2, x))
    if name in OPERATORS[:7]:  # NumPy's scalars compare by becoming arrays first
        assert np.array_equal(host(function(np.float64(2), strict(x))), function(2, x))


@pytest.mark.parametrize("name", [*OPERATORS, "matmul"])
def test_operators_refuse_numpy_arrays_on_either_side(name):
    function = getattr(operator, name)
    with pytest.raises(BackendMismatch):
        function(X, np.ones((3, 2)))
    with pytest.raises(TypeError):
        function(np.ones((3, 2)), X)


def test_operators_refuse_lists_and_strings():
    for other in ([1, 2, 3], (1, 2, 3), "a", None):
        with pytest.raises(TypeError):
            X + other
        with pytest.raises(TypeError):
            operator.eq(X, other)


def test_operators_leave_objects_that_opt_out_of_ufuncs_to_them():
    class Other:
        __array_ufunc__ = None

        def __radd__(self, x):
            return "other"

    assert X + Other() == "other"
    assert np.float32(1) + Other() == "other"


def test_python_numbers_are_weak_and_numpy_scalars_are_not():
    x = strict([1.0], np.float32)
    assert (x * 2.0).dtype == np.float32
    assert (x * np.float64(2)).dtype == np.float64
    assert (np.float32(2) * x).dtype == np.float32


def test_operators_in_place_write_into_the_same_memory():
    x = strict([1.0, 2.0])
    same, view = x, x[:1]
    x += 1
    x *= strict([2.0, 3.0])
    assert x is same
    assert host(view).tolist() == [4.0]
    with pytest.raises(BackendMismatch):
        x += np.ones(2)
    zero = scalar = strict(1.0)
    zero += 1
    assert zero is scalar
    assert host(scalar) == 2


@pytest.mark.parametrize("convert", [bool, int, float, complex, operator.index, range, round])
def test_implicit_conversions_to_numbers_raise(convert):
    with pytest.raises(TypeError):
        convert(strict(1))


def test_truth_and_formatting_raise_but_length_is_known():
    x = strict([1.0, 2.0])
    assert len(x) == 2
    with pytest.raises(TypeError, match=r"item\(\)"):
        bool(x[0] > 0)
    with pytest.raises(TypeError, match=r"item\(\)"):
        f"{x[0]:.3f}"


def test_iterating_over_elements_raises_over_rows_gives_views():
    with pytest.raises(TypeError, match="kernel"):
        list(strict([1.0]))
    x = strict(np.zeros((2, 2)))
    for row in x:
        row += 1
    assert host(x).sum() == 4
    with pytest.raises(TypeError):
        operator.contains(x, 1.0)  # compares, and asks for a truth value


def test_no_implicit_conversion_to_numpy():
    for convert in (np.asarray, np.array, lambda x: np.asarray([x]), lambda x: np.ones(6)[x]):
        with pytest.raises((TypeError, IndexError)):
            convert(strict(1))
    with pytest.raises(TypeError, match="to_numpy"):
        np.asarray(X)
    with pytest.raises(TypeError):
        np.zeros((2, 3))[...] = X


@pytest.mark.parametrize(
    "call",
    [
        np.exp,
        np.sum,
        np.shape,
        np.linalg.norm,
        lambda x: np.add(x, x),
        lambda x: np.add.reduce(x),
        lambda x: np.multiply(np.ones((2, 3)), x),
        lambda x: np.concatenate([x, x]),
        lambda x: np.where(np.ones((2, 3)) > 0, x, x),
        lambda x: np.add(np.ones((2, 3)), np.ones((2, 3)), out=x),
        lambda x: np.einsum("ij->i", x),
    ],
)
def test_functions_of_numpy_are_refused(call):
    with pytest.raises(BackendMismatch, match="xp"):
        call(X)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: xp.add(X, a),
        lambda a: xp.sum(a),
        lambda a: xp.stack([X, a]),
        lambda a: xp.einsum("ij,ij->i", X, a),
        lambda a: xp.exp(X, out=a),
        lambda a: X.sum(axis=0, out=a),
        lambda a: X.dot(a),
        lambda a: X[a.astype(int)],
        lambda a: operator.setitem(X, ..., a),
        lambda a: xp.add.at(X, (0, 0), a[0, 0:1]),
    ],
)
def test_functions_refuse_numpy_arrays_among_their_arguments(call):
    with pytest.raises(BackendMismatch):
        call(np.ones((2, 3)))


@pytest.mark.parametrize("function", ["sum", "mean", "transpose", "exp", "reshape", "take"])
def test_lists_of_numbers_are_no_arrays(function):
    with pytest.raises(TypeError, match=r"takes arrays.*this is a list"):
        getattr(xp, function)([1.0, 2.0], 0)


@pytest.mark.parametrize("number", [True, 2, 2.0, np.float32(2)])
def test_only_ufuncs_and_a_few_functions_take_a_number_for_an_array(number):
    for name in ("sum", "max", "transpose", "ravel", "zeros_like", "squeeze"):
        with pytest.raises(TypeError, match="takes arrays, this is a"):
            getattr(xp, name)(number)
    with pytest.raises(TypeError, match="where takes arrays"):
        xp.where(number, X, X)
    for name in ("exp", "add", "maximum", "around", "nan_to_num"):
        getattr(xp, name)(*[number] * (2 if name in ("add", "maximum") else 1))


@pytest.mark.parametrize(
    "name",
    [
        *("errstate", "vecdot", "nditer", "random", "cuda", "ElementwiseKernel", "asfarray"),
        *("linalg.vector_norm", "linalg.nonsense", "nonsense", "save", "array_repr"),
        *("r_", "mgrid", "vectorize", "longdouble", "object_", "str_", "clongdouble"),
    ],
)
def test_names_that_cupy_or_numpy_lacks_are_refused(name):
    with pytest.raises(AttributeError, match=name.rpartition(".")[2]):
        operator.attrgetter(name)(xp)
    first = name.partition(".")[0]
    assert hasattr(xp, first) == (first == "linalg")


@pytest.mark.parametrize("name", ["get", "flat", "tofile", "setflags", "nonsense", "at"])
def test_attributes_that_cupy_or_numpy_lacks_are_refused(name):
    with pytest.raises(AttributeError, match=name):
        getattr(X, name)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: xp.sum(X, where=X > 0), "sum takes no 'where'"),
        (lambda: xp.max(X, initial=0), "max takes no 'initial'"),
        (lambda: X.max(initial=0), "ndarray.max takes no 'initial'"),
        (lambda: X.sum(where=X > 0), "ndarray.sum takes no 'where'"),
        (lambda: X.var(correction=1), "ndarray.var takes no 'correction'"),
        (lambda: xp.exp(X, where=X > 0), "exp takes no 'where'"),
        (lambda: xp.clip(X, min=0, max=1), "clip takes no"),
        (lambda: xp.zeros(3, like=X), "zeros takes no 'like'"),
        (lambda: xp.take(X, strict([0]), mode="clip"), "take takes no 'mode'"),
        (lambda: X.item(0), "item takes 0 positional"),
        (
            lambda: xp.lib.stride_tricks.sliding_window_view(X, 2, 1, writeable=True),
            "sliding_window_view takes no 'writeable'",
        ),
    ],
)
def test_keywords_that_cupy_lacks_are_refused(call, said):
    with pytest.raises(TypeError, match=said):
        call()


@pytest.mark.parametrize(
    "reduce",
    [
        lambda x: x.sum(),
        lambda x: x.mean(),
        lambda x: x.max(),
        lambda x: x.argmax(),
        lambda x: x.any(),
        lambda x: x.dot(x),
        lambda x: x @ x,
        lambda x: x[0],
        lambda x: x[-1, ...],
        lambda x: xp.sum(x),
        lambda x: xp.linalg.norm(x),
        lambda x: xp.allclose(x, x),
        lambda x: xp.array_equal(x, x),
        lambda x: xp.count_nonzero(x),
        lambda x: xp.einsum("i,i->", x, x),
        lambda x: xp.exp(2.0),
    ],
)
def test_reductions_and_single_elements_are_arrays_of_no_dimension(reduce):
    found = reduce(strict([1.0, 2.0, 3.0]))
    assert type(found) is StrictArray
    assert found.shape == ()


def test_answers_about_the_layout_are_on_the_host():
    assert X.shape == (2, 3)
    assert (X.ndim, X.size, X.nbytes, X.itemsize, X.strides) == (2, 6, 48, 8, (24, 8))
    assert X.flags.c_contiguous
    assert xp.shares_memory(X, X[0]) is True
    assert xp.result_type(X, np.float32) == np.float64
    assert xp.iscomplexobj(X) is False


def test_constants_and_types_are_those_of_numpy():
    assert xp.float32 is np.float32
    assert xp.newaxis is None
    assert xp.pi == np.pi
    assert xp.finfo(xp.float32).eps == np.finfo(np.float32).eps
    assert isinstance(X, xp.ndarray)
    assert xp.dtype("f4") == xp.float32


def test_views_are_views_and_may_be_written_through():
    x = strict(np.zeros((2, 3)))
    for i, view in enumerate((x[0], x[0, 0], x.reshape(6), x.T, x[:, None], x.ravel(), x.real)):
        view[...] = i + 1
        assert host(x).reshape(-1)[0] == i + 1
    windows = xp.lib.stride_tricks.as_strided(x, shape=(2,), strides=(24,))
    windows.fill(9)
    assert host(x)[:, 0].tolist() == [9, 9]
    copied = x[strict(0)]
    copied[...] = 5
    assert 5 not in host(x)


def test_methods_and_tuples_of_arrays_are_wrapped():
    q, r = xp.linalg.qr(strict(np.eye(2)))
    assert type(q) is type(r) is StrictArray
    assert [type(p) for p in xp.split(X, 3, axis=1)] == [StrictArray] * 3
    assert [type(p) for p in xp.divmod(5, strict([2]))] == [StrictArray] * 2
    assert type(xp.nonzero(X)[0]) is StrictArray
    assert X.astype(np.float32).clip(1, 2).transpose().squeeze().dtype == np.float32
    out = xp.zeros(3)
    assert X.sum(axis=0, out=out) is out
    assert host(xp.broadcast_arrays(X, strict(1.0))[1]).shape == (2, 3)


def test_every_method_in_the_surface_that_numpy_shares_is_there():
    from minibn.backend.strict import EXCLUSIONS

    names = [n.removeprefix("ndarray.") for n in surface() if n.startswith("ndarray.")]
    shared = [n for n in names if hasattr(np.ndarray, n) and n not in EXCLUSIONS]
    assert len(shared) > 40
    assert [n for n in shared if not hasattr(StrictArray, n)] == []


def test_every_function_of_both_libraries_can_be_looked_up():
    found = [n for n in surface() if "." not in n and hasattr(xp, n)]
    assert len(found) > 350
    assert {"asarray", "where", "tensordot", "matmul", "take_along_axis", "asnumpy"} <= set(found)


def test_transfers_are_counted():
    x = strict([1.0, 2.0, 0.0])
    with count_transfers() as count:
        (x * 2).sum(axis=0).reshape(1).astype(np.float32)
        assert count.n == 0
        x.sum().item()
        with count_transfers() as inner:
            to_numpy(x)
            xp.asnumpy(x)
        x[x > 1]
        x[x > 1] = 0
        x.tolist()
        xp.nonzero(x)
        xp.where(x > 0)
        xp.where(x > 0, x, 0)
    to_numpy(x)
    assert inner.names == ["to_numpy", "to_numpy"]
    expected = ["item", "to_numpy", "to_numpy", "mask", "mask", "tolist", "nonzero", "where"]
    assert count.names == expected
    assert count.n == len(expected)


def test_counting_stops_after_an_exception():
    with pytest.raises(ZeroDivisionError), count_transfers() as count:
        raise ZeroDivisionError
    X.sum().item()
    assert count.n == 0


def test_out_of_range_index_arrays_wrap_around_silently():
    x = strict([10.0, 11.0, 12.0])
    far = strict([3, -4, 7])
    expected = [10.0, 12.0, 11.0]
    assert host(x[far]).tolist() == expected
    assert host(x[[3, -4, 7]]).tolist() == expected
    assert host(x.take(far)).tolist() == expected
    assert host(xp.take(x, far, axis=0)).tolist() == expected
    assert host(xp.take_along_axis(x, far, axis=0)).tolist() == expected
    y = xp.zeros(3)
    y[far] = strict([1.0, 2.0, 3.0])
    xp.add.at(y, strict([3, 3, 4]), 1.0)
    assert host(y).tolist() == [3.0, 4.0, 2.0]
    xp.put_along_axis(y, strict([5]), 7.0, axis=0)
    assert host(y).tolist() == [3.0, 4.0, 7.0]


def test_out_of_range_python_integers_raise():
    with pytest.raises(IndexError):
        X[2]


KEYS = hnp.basic_indices((3, 4, 2), allow_ellipsis=True, allow_newaxis=True)


@settings(max_examples=100, deadline=None)
@given(key=KEYS)
def test_basic_indices_select_what_numpy_selects(key):
    x = np.arange(24).reshape(3, 4, 2)
    found = strict(x)[key]
    assert found.shape == np.shape(x[key])
    assert np.array_equal(host(found), x[key])


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_index_arrays_and_masks_between_slices_select_what_numpy_selects(data):
    x = np.arange(24).reshape(3, 4, 2)
    parts: list = []
    masked = False
    for axis, n in enumerate(x.shape):
        kind = data.draw(st.sampled_from(["slice", "array", "far", "none", "mask", "int"]))
        if kind == "mask" and not masked and axis < 2:
            masked = True
            parts.append(np.arange(n) == data.draw(st.integers(0, n - 1)))
        elif kind in ("array", "far"):
            reach = 3 * n if kind == "far" else n - 1
            parts.append(
                np.array(data.draw(st.lists(st.integers(-n, reach), min_size=1, max_size=1)))
            )
        elif kind == "int":
            parts.append(data.draw(st.integers(-n, n - 1)))
        else:
            parts.extend([None] * (kind == "none") + [slice(None)])
    if data.draw(st.booleans()) and isinstance(parts[-1], slice):
        parts[-1] = ...
    key, axis, near = tuple(parts), 0, []
    for p in parts:
        integers = isinstance(p, np.ndarray) and p.dtype != bool
        near.append(p % x.shape[axis] if integers else p)
        axis += p is not None
    ours = tuple(strict(p) if isinstance(p, np.ndarray) else p for p in key)
    assert np.array_equal(host(strict(x)[ours]), x[tuple(near)])
    y, z = strict(x), x.copy()
    y[ours] = -1
    z[tuple(near)] = -1
    assert np.array_equal(host(y), z)


def test_scatters_take_only_the_dtypes_that_cupy_takes():
    for dtype in (np.int8, np.bool_, np.complex64):
        with pytest.raises(TypeError, match=r"add\.at takes no"):
            xp.add.at(xp.zeros(2, dtype=dtype), strict([0]), 1)
    with pytest.raises(TypeError, match=r"subtract\.at"):
        xp.subtract.at(xp.zeros(2), strict([0]), 1)
    assert not hasattr(xp.multiply, "at")
    assert not hasattr(xp.add, "reduce")


@pytest.mark.parametrize("dtype", ["O", "U3", "M8[s]", "g", "G"])
def test_dtypes_that_cupy_lacks_are_refused(dtype):
    with pytest.raises(TypeError, match="no arrays of dtype"):
        StrictArray(np.zeros(1, dtype=dtype))


def test_copies_stay_on_the_device_and_pickles_are_refused():
    x = strict([1.0, 2.0])
    with count_transfers() as count:
        for copied in (copy.copy(x), copy.deepcopy({"x": x})["x"], x.copy(), xp.array(x)):
            copied += 1
        same = xp.asarray(x)
    assert count.n == 0
    assert host(x).tolist() == [1.0, 2.0]
    assert xp.shares_memory(same, x)
    with pytest.raises(TypeError, match="to_numpy"):
        pickle.dumps(x)


def test_saving_by_numpy_is_refused(tmp_path):
    with pytest.raises(TypeError):
        np.save(tmp_path / "x.npy", X)
    with pytest.raises(TypeError):
        np.savez(tmp_path / "x.npz", x=X)


def test_arrays_move_onto_the_device_by_asarray_alone():
    numbers = np.ones(2)
    moved = xp.asarray(numbers)
    moved += 1
    assert host(moved).tolist() == [2, 2]
    assert numbers.tolist() == [1, 1]
    assert xp.array([[1, 2]]).shape == (1, 2)
    with pytest.raises(BackendMismatch):
        xp.ascontiguousarray(np.ones(2))


def test_arrays_are_unhashable_and_show_their_values():
    with pytest.raises(TypeError, match="unhashable"):
        hash(X)
    assert repr(strict([1.0])) == f"{strict([1.0])}" == "strict.array([1.])"
    assert repr(xp.linalg) == "<the strict double of cupy.linalg>"
