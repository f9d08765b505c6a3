"""A stand-in for CuPy on machines without a GPU: NumPy under CuPy's restrictions.

It checks the API, not numerical differences: code that runs on it uses only names, keywords and
conversions that CuPy has. It raises for NumPy arrays and NumPy's functions, for implicit
conversions to Python numbers (each waits for the device), and for what CuPy lacks. Reductions and
single elements are 0-d arrays. Index arrays wrap around silently, as in CuPy. Explicit
synchronizations (`item`, `to_numpy`, a boolean mask, ...) are counted: `count_transfers`.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.backend.cupy_surface import surface, version
from minibn.backend.strict_array import (
    StrictArray,
    compute,
    count_transfers,
    count_wait,
    is_recording,
    key_for_numpy,
    operand,
    to_numpy,
    unwrap,
    wrap,
)

__all__ = ["Namespace", "StrictArray", "count_transfers", "is_recording", "to_numpy", "xp"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SUBMODULES = _words("fft lib lib.stride_tricks linalg")

# The dtypes that CuPy's atomic operations take.
ATOMIC_DTYPES = {"add": "iIlLqQefd", "subtract": "iI", "maximum": "iIlLqQfd", "minimum": "iIlLqQfd"}

# Functions of shapes and dtypes only: the result is on the host.
ON_THE_HOST = _words(
    "broadcast_shapes can_cast common_type iscomplexobj isdtype isfortran isrealobj isscalar "
    "issubdtype iterable may_share_memory min_scalar_type ndim promote_types result_type shape "
    "shares_memory size"
)
# Functions that wait for the device: the result is on the host, or its shape depends on values.
TRANSFERS = _words("item tolist")
WAITS = TRANSFERS | _words(
    "argwhere bincount compress extract flatnonzero intersect1d nonzero setdiff1d setxor1d "
    "trim_zeros union1d unique unique_all unique_counts unique_inverse unique_values"
)
# Functions, beside the ufuncs, that take numbers in the place of an array.
NUMBERS = (bool, int, float, complex, np.generic)
TAKE_NUMBERS = _words(
    "around average diagflat iscomplex iscomplexobj isneginf isposinf isreal isrealobj iterable "
    "min_scalar_type nan_to_num ndim require round shape"
)
# Excluded: implicit transfers to files or text, and device memory.
EXCLUSIONS = _words(
    "array2string array_repr array_str base cstruct data device dump dumps flat save savetxt savez "
    "savez_compressed tobytes toDlpack tofile"
)


def _along_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    """`take_along_axis` or `put_along_axis` with the indices wrapped into range."""

    def call(x: Any, indices: Any, *values: Any, axis: int | None) -> Any:
        length = x.size if axis is None else x.shape[axis]
        return compute(
            lambda: function(
                unwrap(x), unwrap(indices) % max(length, 1), *unwrap(values), axis=axis
            )
        )

    return call


def _onto_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """`xp.asarray` and `xp.array`: the two functions that take NumPy arrays, and copy them."""

    def move(x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, StrictArray):
            return compute(lambda: function(unwrap(x), *args, **kwargs))
        return wrap(function(x.copy() if isinstance(x, np.ndarray) else unwrap(x), *args, **kwargs))

    return move


def _scatter(ufunc: np.ufunc) -> Callable[..., None]:
    """`ufunc.at` with CuPy's dtypes, out-of-range positions wrapped."""

    def at(x: Any, indices: Any, b: Any) -> None:
        if x.dtype.char not in ATOMIC_DTYPES.get(ufunc.__name__, "iIlLqQ"):
            raise TypeError(f"CuPy {version()}: {ufunc.__name__}.at takes no {x.dtype}")
        compute(lambda: ufunc.at(unwrap(x), key_for_numpy(indices, x.shape)[0], unwrap(b)))

    return at


def _translate(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy as one on strict arrays."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if name in WAITS or (name == "where" and len(args) + len(kwargs) == 1):
            count_wait(name)
        if name in ("take", "put"):
            kwargs.setdefault("mode", "wrap")

        def find() -> Any:
            return function(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()})

        if name in ON_THE_HOST | TRANSFERS:
            return find()
        found = compute(find, name)
        return found if kwargs.get("out") is None else kwargs["out"]

    return call


def _check_call(full: str, function: Callable[..., Any], bound: int = 0) -> Any:
    """`function` behind CuPy's parameter list for that name; `bound` arguments come before it."""
    parameters = surface()[full]
    first = parameters.first if parameters and full not in SPECIAL else ""
    # Functions whose first parameters have these names refuse lists, which NumPy's take, and those
    # that are no ufuncs refuse numbers, too.
    wants_arrays = {"a": 1, "ar": 1, "arr": 1, "condition": 1, "m": 1, "x": 1, "x1": 2}
    wanted = 0 if bound else wants_arrays.get(first, 0)
    takes_numbers = isinstance(getattr(np, full, None), np.ufunc) or full in TAKE_NUMBERS

    def call(*args: Any, **kwargs: Any) -> Any:
        complaint = parameters and parameters.complaint(len(args) - bound, kwargs)
        if complaint:
            raise TypeError(f"CuPy {version()}: {full} {complaint}")
        for x in args[:wanted]:
            if isinstance(x, (list, tuple) if takes_numbers else (list, tuple, *NUMBERS)):
                also = " and numbers" if takes_numbers else ""
                what = type(x).__name__
                raise TypeError(f"CuPy {version()}: {full} takes arrays{also}, this is a {what}")
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = full.rpartition(".")[2]
    return call


SPECIAL: dict[str, Callable[..., Any]] = {
    "array": _onto_device(np.array),
    "asarray": _onto_device(np.asarray),
    "asnumpy": to_numpy,
    "put_along_axis": _along_axis(np.put_along_axis),
    "take_along_axis": _along_axis(np.take_along_axis),
}


class Namespace:
    """The double of the `cupy` module, with the names that NumPy has too."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self.__name__ = f"strict.{path}".rstrip(".")

    def __getattr__(self, name: str) -> Any:
        value = _resolve(self._path + name)
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return f"<the strict double of {self.__name__.replace('strict', 'cupy')}>"


def _resolve(full: str) -> Any:
    if full in SUBMODULES:
        return Namespace(f"{full}.")
    if full == "ndarray":
        return StrictArray
    if full in SPECIAL:
        return _check_call(full, SPECIAL[full])
    try:
        found = operator.attrgetter(full)(np)
    except AttributeError:
        found = NotImplemented
    if full not in surface() or full in EXCLUSIONS or found is NotImplemented:
        remedy = "draw on the host: minibn.random" if full == "random" else "write it with others"
        raise AttributeError(f"CuPy {version()} and NumPy do not share the name {full}: {remedy}")
    if found is None or isinstance(found, float):
        return found
    if isinstance(found, type):
        if issubclass(found, (np.generic, np.dtype, np.finfo, np.iinfo)):
            return found
    elif callable(found):
        call = _check_call(full, _translate(full, found))
        if f"{full}.at" in surface():
            call.at = _check_call(f"{full}.at", _scatter(found))
        return call
    raise AttributeError(f"the strict double leaves out {full}, which makes no plain array")


def _operator(function: Callable[..., Any], swapped: bool, in_place: bool) -> Callable[..., Any]:
    def operate(self: StrictArray, other: Any) -> Any:
        other = operand(other)
        if other is NotImplemented:
            return other
        found = compute(
            lambda: function(other, self._host) if swapped else function(self._host, other),
            function.__name__,
        )
        return self if in_place else found

    return operate


def _refuse(name: str) -> Callable[..., Any]:
    def convert(self: StrictArray) -> Any:
        raise TypeError(f"{name}(x) would wait for the device without saying so: x.item()")

    return convert


def _attribute(name: str) -> property:
    def get(self: StrictArray) -> Any:
        value = getattr(self._host, name)
        return compute(lambda: value) if isinstance(value, np.ndarray) else value

    return property(get)


def _fill_class() -> None:
    """Give StrictArray the operators, and the methods and attributes that CuPy and NumPy share."""
    arithmetic = _words("add sub mul truediv floordiv mod pow lshift rshift and or xor")
    for name in arithmetic | _words("matmul lt le eq ne gt ge"):
        function = getattr(operator, f"__{name}__")
        setattr(StrictArray, f"__{name}__", _operator(function, swapped=False, in_place=False))
    for name in arithmetic | {"matmul"}:
        function = getattr(operator, f"__{name}__")
        setattr(StrictArray, f"__r{name}__", _operator(function, swapped=True, in_place=False))
    for name in arithmetic:
        function = getattr(operator, f"__i{name}__")
        setattr(StrictArray, f"__i{name}__", _operator(function, swapped=False, in_place=True))
    for name in _words("neg pos abs invert"):
        setattr(StrictArray, f"__{name}__", _translate(name, getattr(operator, f"__{name}__")))
    for name in _words("bool int float complex index"):
        setattr(StrictArray, f"__{name}__", _refuse(name))
    for full in surface():
        space, _, name = full.rpartition(".")
        if space != "ndarray" or name in EXCLUSIONS or not hasattr(np.ndarray, name):
            continue
        if surface()[full] is None:
            setattr(StrictArray, name, _attribute(name))
        else:
            function = _translate(name, getattr(np.ndarray, name))
            setattr(StrictArray, name, _check_call(full, function, bound=1))


_fill_class()
xp = Namespace()
