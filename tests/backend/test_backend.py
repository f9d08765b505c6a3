"""The backend: found from arrays, chosen at the edge, and what its objects promise."""

import subprocess
import sys
import threading
import timeit
import types
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minibn.backend as backend_module
from minibn.autograd.tensor import Tensor
from minibn.backend import (
    array_module,
    available,
    backend_of,
    cupy_backend,
    get_backend,
    to_numpy,
    use,
)
from minibn.backend.array_types import LIBRARIES
from minibn.backend.strict import xp as strict_xp
from minibn.errors import BackendMismatch, BackendUnavailable, ShapeError

HERE = ["numpy", "strict"]


class FakeCupy(types.ModuleType):
    """As much of CuPy as deciding about it looks at."""

    __version__ = "14.2.0"

    def __init__(self, devices=1, driver=13000, trouble="", kernel_trouble=""):
        super().__init__("cupy")

        class Runtime:
            @staticmethod
            def getDeviceCount():
                warnings.warn("cupy says something", stacklevel=1)
                if trouble:
                    raise RuntimeError(trouble)
                return devices

            @staticmethod
            def driverGetVersion():
                return driver

        def ones(shape):
            if kernel_trouble:
                raise RuntimeError(kernel_trouble)
            return np.ones(shape)

        class Array:
            shape = (3,)

        self.ndarray, self.ones = Array, ones
        self.cuda = types.SimpleNamespace(runtime=Runtime)


@pytest.fixture
def fake_cupy(monkeypatch):
    """Put a fake CuPy in place of the real one; what the backend remembers is restored."""
    monkeypatch.setattr(cupy_backend, "_IS_READY", [])
    monkeypatch.setattr(backend_module, "_INSTANCES", {})
    known = dict(LIBRARIES)

    def install(**settings):
        fake = FakeCupy(**settings)
        monkeypatch.setitem(sys.modules, "cupy", fake)
        return fake

    yield install
    LIBRARIES.clear()
    LIBRARIES.update(known)


def test_importing_the_backend_imports_neither_cupy_nor_the_strict_double():
    code = (
        "import sys, minibn.backend as b, numpy as np; b.array_module(np.ones(1));"
        "print([m for m in ('cupy', 'minibn.backend.strict') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_the_namespace_is_found_from_the_array():
    x = get_backend("strict").asarray([1.0])
    assert array_module(np.ones(2), np.ones(3)) is np
    assert array_module(x) is strict_xp
    assert backend_of(x) is get_backend("strict")
    assert array_module(Tensor(np.ones(1))) is np
    assert array_module(Tensor(x), x) is strict_xp


def test_numbers_numpy_scalars_and_none_decide_nothing():
    x = get_backend("strict").asarray([1.0])
    assert array_module(1.0, None, np.float32(2), True, x, 2j) is strict_xp
    assert array_module(np.float32(2), 1) is np
    assert array_module() is np


def test_a_subclass_of_ndarray_belongs_to_numpy():
    class Mine(np.ndarray):
        pass

    assert array_module(np.ones(2).view(Mine)) is np


def test_mixing_backends_names_both_and_the_remedy():
    x = get_backend("strict").asarray([1.0])
    with pytest.raises(
        BackendMismatch, match=r"0 is an array of numpy, argument 2 of strict.*asar"
    ):
        array_module(np.ones(1), 3, x)
    with pytest.raises(BackendMismatch, match="strict"):
        backend_of(Tensor(x), Tensor(np.ones(1)))


@pytest.mark.parametrize("x", [[1.0], "abc", object(), {"a": 1}])
def test_what_is_no_array_is_named(x):
    with pytest.raises(TypeError, match="is no array of numpy, strict, cupy"):
        array_module(x)


def test_a_class_named_ndarray_in_another_library_is_not_taken_for_cupy():
    ndarray = type("ndarray", (), {"__module__": "cupyish"})
    with pytest.raises(TypeError, match="cupyish"):
        array_module(ndarray())


def test_an_array_of_cupy_is_known_by_its_class(fake_cupy):
    cupy = fake_cupy()
    assert array_module(cupy.ndarray(), 2.0) is cupy
    with pytest.raises(BackendMismatch, match=r"numpy.*cupy"):
        array_module(np.ones(3), cupy.ndarray())


def test_finding_numpy_takes_less_than_a_microsecond():
    x = np.ones(3)
    assert min(timeit.repeat(lambda: array_module(x, x), number=1000, repeat=20)) < 1e-3


def test_use_sets_the_backend_until_it_is_set_again():
    try:
        use("strict")
        assert get_backend().name == "strict"
        use("numpy")
        assert get_backend().name == "numpy"
    finally:
        use("numpy")


def test_use_restores_after_an_exception_and_when_nested():
    with pytest.raises(ZeroDivisionError), use("strict"):
        with use("numpy") as inner:
            assert inner.name == get_backend().name == "numpy"
        assert get_backend().name == "strict"
        raise ZeroDivisionError
    assert get_backend().name == "numpy"


def test_use_restores_what_was_there_when_the_block_chose_another():
    with use("strict"):
        use("numpy")
        use("strict")
    assert get_backend().name == "numpy"


def test_a_choice_that_is_entered_late_restores_what_was_chosen_in_between():
    chosen = use("numpy")
    with use("strict"):
        with chosen:
            assert get_backend().name == "numpy"
        assert get_backend().name == "strict"
    assert get_backend().name == "numpy"


def test_one_choice_may_be_entered_twice():
    chosen = use("strict")
    with chosen:
        use("numpy")
        with chosen:
            assert get_backend().name == "strict"
        assert get_backend().name == "numpy"
    assert get_backend().name == "numpy"


def test_another_thread_keeps_its_own_choice():
    seen = []
    with use("strict"):
        thread = threading.Thread(target=lambda: seen.append(get_backend().name))
        thread.start()
        thread.join()
    assert seen == ["numpy"]


def test_a_failed_choice_changes_nothing():
    with use("strict"):
        with pytest.raises(ValueError, match="Did you mean 'numpy'"):
            use("nunpy")
        assert get_backend().name == "strict"


@pytest.mark.parametrize("name", ["torch", "", 3])
def test_an_unknown_backend_is_an_error_that_lists_the_known(name):
    with pytest.raises(ValueError, match="numpy, strict, cupy"):
        get_backend(name)


def test_a_near_miss_is_shown():
    with pytest.raises(ValueError, match="Did you mean 'cupy'"):
        get_backend("cuppy")


@pytest.mark.skipif("cupy" in available(), reason="CuPy can run here")
def test_cupy_where_it_cannot_run_is_one_line_with_the_remedy():
    with pytest.raises(BackendUnavailable) as caught:
        use("cupy")
    assert "\n" not in str(caught.value)
    assert any(word in str(caught.value) for word in ("pip install", "driver", "device"))
    assert get_backend().name == "numpy"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trouble": "cudaErrorInsufficientDriver: too old", "driver": 0}, "no NVIDIA driver"),
        ({"trouble": "cudaErrorInsufficientDriver: too old"}, "too old.*cupy-cuda12x"),
        ({"trouble": "cudaErrorNoDevice: none"}, "no CUDA device: cudaErrorNoDevice"),
        ({"devices": 0}, "no CUDA device"),
        ({"kernel_trouble": "\n=====\nlibnvrtc.so is missing\n\nmore"}, "libnvrtc.so is miss.*ctk"),
    ],
)
def test_each_reason_why_cupy_fails_is_told_in_one_line_without_warnings(fake_cupy, settings, said):
    fake_cupy(**settings)
    with pytest.raises(BackendUnavailable, match=said) as caught:
        use("cupy")
    assert "\n" not in str(caught.value)
    assert "cupy" not in available()


def test_an_old_cupy_is_refused(fake_cupy):
    fake_cupy().__version__ = "13.6.0"
    with pytest.raises(BackendUnavailable, match=r"13\.6\.0 is older than 14"):
        use("cupy")


def test_a_cupy_that_works_is_chosen_without_warnings(fake_cupy):
    cupy = fake_cupy()
    with use("cupy") as chosen:
        assert chosen.xp is cupy
        assert "cupy" in available()


def test_cupy_that_is_not_installed_says_what_to_install(fake_cupy, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(cupy_backend.importlib, "import_module", absent)
    with pytest.raises(BackendUnavailable, match=r"not installed.*cupy-cuda13x.*cupy-cuda12x"):
        use("cupy")


def test_what_runs_here_is_listed():
    assert set(HERE) <= set(available())


@pytest.mark.parametrize("name", HERE)
def test_asarray_moves_host_data_and_lets_its_own_arrays_pass(name):
    backend = get_backend(name)
    x = backend.asarray([[1, 2], [3, 4]], dtype=np.float32)
    assert array_module(x) is backend.xp
    assert x.dtype == np.float32
    assert backend.asarray(x) is x
    assert backend.asarray(x, np.float64).dtype == np.float64
    assert backend.asarray(2.5).shape == ()
    assert backend.asarray(np.float32(2.5)).dtype == np.float32
    assert np.array_equal(backend.to_numpy(backend.asarray(np.arange(3))), [0, 1, 2])


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("bad", [["a"], [object()], np.array(["x"])])
def test_asarray_refuses_what_is_no_number(name, bad):
    with pytest.raises(TypeError):
        get_backend(name).asarray(bad)


def test_asarray_refuses_another_device_and_tensors():
    x = get_backend("strict").asarray([1.0])
    with pytest.raises(BackendMismatch, match="to_numpy"):
        get_backend("numpy").asarray(x)
    with pytest.raises(TypeError, match=r"x\.data"):
        get_backend("numpy").asarray(Tensor(np.ones(1)))


def test_moving_to_the_strict_device_copies():
    host = np.ones(2)
    x = get_backend("strict").asarray(host)
    x += 1
    assert host.tolist() == [1, 1]


def test_to_numpy_takes_any_backend_tensors_and_numbers():
    host = np.ones(2)
    assert to_numpy(host) is host
    assert to_numpy(get_backend("strict").asarray(host)).tolist() == [1, 1]
    assert to_numpy(Tensor(host)) is host
    assert to_numpy(3.0).shape == ()
    with pytest.raises(BackendMismatch, match=r"minibn\.backend\.to_numpy"):
        get_backend("strict").to_numpy(host)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", "i8", "f2"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_scatter_add_is_the_sum_of_single_additions(name, dtype, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    size = int(np.prod(shape))
    index = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=8)), dtype=np.int64)
    values = (np.arange(1, len(index) + 1) * (1 + (2j if "c" in dtype else 0))).astype(dtype)
    expected = np.zeros(size, dtype)
    for i, value in zip(index, values, strict=True):
        expected[i] += value
    backend = get_backend(name)
    out = backend.scatter_add(shape, backend.asarray(index), backend.asarray(values))
    assert out.shape == shape
    assert out.dtype == np.dtype(dtype)
    assert np.array_equal(to_numpy(out).reshape(-1), expected)


@pytest.mark.parametrize("name", HERE)
def test_scatter_takes_index_and_values_of_any_equal_shape_and_strides(name):
    backend = get_backend(name)
    index = backend.asarray(np.arange(6).reshape(2, 3)).T
    values = backend.asarray(np.arange(6.0).reshape(2, 3) * (1 + 1j)).T
    for scatter in (backend.scatter_add, backend.scatter_assign):
        found = to_numpy(scatter((3, 3), index, values)).reshape(-1)
        assert np.array_equal(found, [*(np.arange(6) * (1 + 1j)), 0, 0, 0])


@pytest.mark.parametrize("name", HERE)
def test_scatter_refuses_an_index_of_another_shape(name):
    backend = get_backend(name)
    with pytest.raises(ShapeError, match=r"\(2,\), values \(1,\)"):
        backend.scatter_add((3,), backend.asarray([0, 1]), backend.asarray([1.0]))


def test_scatter_refuses_two_backends():
    with pytest.raises(BackendMismatch):
        get_backend("numpy").scatter_add((3,), np.array([0]), get_backend("strict").asarray([1.0]))


@pytest.mark.parametrize("name", HERE)
def test_the_device_is_described_in_plain_strings_and_numbers(name):
    described = get_backend(name).describe()
    assert described["backend"] == name
    assert described["device"]
    assert described["cores"] >= 1
    assert all(isinstance(v, (str, int)) for v in described.values())


@pytest.mark.parametrize("name", HERE)
def test_exhausted_memory_can_be_caught(name):
    backend = get_backend(name)
    backend.synchronize()
    with pytest.raises(backend.out_of_memory_errors):
        raise MemoryError
