"""A stand-in for CuPy on machines without a GPU: NumPy arrays under CuPy's restrictions.

It checks the surface, not the numbers: what runs on it finds in CuPy every name, keyword and
conversion that it uses. Refused are mixing with NumPy arrays, NumPy's functions, implicit
conversions to Python numbers (each waits for the device), and whatever CuPy lacks. Reductions and
single elements are 0-d arrays. Index arrays wrap around silently, as CuPy's do. What waits for
the device by request (`item`, `to_numpy`, a boolean mask, ...) is counted: `count_transfers`.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minibn.backend.cupy_surface import surface, version
from minibn.errors import BackendMismatch


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DTYPES = "?bBhHiIlLqQefdFD"
NUMBERS = (bool, int, float, complex, np.generic)
SUBMODULES = _words("fft lib lib.stride_tricks linalg")

# The dtypes that CuPy's atomic operations take.
SCATTERED = {"add": "iIlLqQefd", "subtract": "iI", "maximum": "iIlLqQfd", "minimum": "iIlLqQfd"}

# What answers about arrays without looking at their values: the answer is on the host.
ON_THE_HOST = _words(
    "broadcast_shapes can_cast common_type iscomplexobj isdtype isfortran isrealobj isscalar "
    "issubdtype iterable may_share_memory min_scalar_type ndim promote_types result_type shape "
    "shares_memory size"
)
# What waits for the device: its result is on the host, or has a shape that depends on values.
ASKED_FOR = _words("item tolist")
WAITING = ASKED_FOR | _words(
    "argwhere bincount compress extract flatnonzero intersect1d nonzero setdiff1d setxor1d "
    "trim_zeros union1d unique unique_all unique_counts unique_inverse unique_values"
)
# What takes arrays to files or text unasked, or is about device memory.
LEFT_OUT = _words(
    "array2string array_repr array_str base cstruct data device dump dumps flat save savetxt savez "
    "savez_compressed tobytes toDlpack tofile"
)


class Transfers:
    """How often the host waited for the device: `n`, and in `names` by what."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @property
    def n(self) -> int:
        return len(self.names)


_counting: list[Transfers] = []


@contextmanager
def count_transfers() -> Iterator[Transfers]:
    """Count what waits for the device inside the block: `with count_transfers() as count`."""
    count = Transfers()
    _counting.append(count)
    try:
        yield count
    finally:
        _counting.remove(count)


def to_numpy(x: "StrictArray") -> np.ndarray:
    """The array on the host, as a copy, and counted."""
    _count("to_numpy")
    return x._host.copy()


class StrictArray:
    """An array that behaves as `cupy.ndarray` where CuPy is stricter than NumPy."""

    __slots__ = ("__weakref__", "_host")
    __hash__ = None  # type: ignore[assignment]  # equality is elementwise

    def __init__(self, host: np.ndarray) -> None:
        if host.dtype.char not in DTYPES:
            raise TypeError(f"CuPy has no arrays of dtype {host.dtype}: use numbers up to 64 bits")
        self._host = host

    def __getitem__(self, key: Any) -> "StrictArray":
        key, copies = _index(key, self.shape)
        found = np.asarray(self._host[key])
        return StrictArray(found.copy() if copies and found.base is not None else found)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._host[_index(key, self.shape)[0]] = _operand(value)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator["StrictArray"]:
        if self._host.ndim < 2:
            raise TypeError("iterating over single elements would launch a kernel for each")
        return (self[i] for i in range(len(self)))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"CuPy {version()} and NumPy do not both have ndarray.{name}")

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("no implicit conversion to a NumPy array: minibn.backend.to_numpy(x)")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = getattr(function, "__name__", "function")
        raise BackendMismatch(
            f"numpy.{name} got a strict array: xp = array_module(x), then xp.{name}"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and isinstance(inputs[0], np.generic) and not kwargs:
            return _wrap(ufunc(*_unwrap(inputs)))  # np.float32(2) * x, which CuPy allows
        raise BackendMismatch(
            f"numpy.{ufunc.__name__} got a strict array, maybe beside a NumPy array: "
            f"xp = array_module(x), then xp.{ufunc.__name__}"
        )

    def __copy__(self) -> "StrictArray":
        return StrictArray(self._host.copy())

    def __deepcopy__(self, memo: Any) -> "StrictArray":
        return self.__copy__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a device array is not pickled: save minibn.backend.to_numpy(x)")

    def __format__(self, spec: str) -> str:
        if spec:
            raise TypeError(f"format(x, {spec!r}) would wait for the device: format x.item()")
        return repr(self)

    def __repr__(self) -> str:
        return f"strict.{self._host!r}"


def _operand(x: Any) -> Any:
    """What an operator takes beside a strict array, unwrapped; NotImplemented for what CuPy leaves
    to the other side: objects that opt out of ufuncs, as Tensors do."""
    if isinstance(x, (StrictArray, np.ndarray)):
        return _unwrap(x)
    if isinstance(x, NUMBERS):
        return x
    if getattr(x, "__array_ufunc__", False) is None:
        return NotImplemented
    raise TypeError(f"an array takes arrays and numbers beside it, this is a {type(x).__name__}")


def _unwrap(x: Any) -> Any:
    """The NumPy arrays inside the arguments of a call, with no other array among them."""
    if isinstance(x, StrictArray):
        return x._host
    if isinstance(x, np.ndarray):
        raise BackendMismatch(
            f"a NumPy array (shape {x.shape}) meets a strict array: "
            "get_backend('strict').asarray(x) first"
        )
    if getattr(x, "__minibn_tensor__", False):
        raise TypeError("array functions take arrays, this is a Tensor: pass x.data")
    return type(x)([_unwrap(item) for item in x]) if type(x) in (list, tuple) else x


def _wrap(x: Any) -> Any:
    """Results of NumPy as strict arrays: numbers become 0-d arrays, tuples are wrapped inside."""
    if isinstance(x, (np.ndarray, *NUMBERS)):
        return StrictArray(np.asarray(x))
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(_wrap, x))
    return type(x)(map(_wrap, x)) if isinstance(x, (list, tuple)) else x


def _index(key: Any, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], bool]:
    """The key for NumPy, its integer arrays wrapped into range; and whether it makes a copy."""
    parts = [
        np.asarray(p, dtype=None if p else int) if isinstance(p, list) else _unwrap(p)
        for p in (key if isinstance(key, tuple) else (key,))
    ]
    arrays = [isinstance(p, (np.ndarray, bool, np.bool)) for p in parts]
    masks = [isinstance(p, np.ndarray) and p.dtype == bool for p in parts]
    axes = [
        p.ndim if mask else int(p is not None and p is not ...)
        for p, mask in zip(parts, masks, strict=True)
    ]
    axis = 0
    for i, p in enumerate(parts):
        if masks[i]:
            _count("mask")
        elif arrays[i] and axis < len(shape) and np.asarray(p).dtype.kind in "iu":
            parts[i] = p % max(shape[axis], 1)
        axis += len(shape) - sum(axes) if p is ... else axes[i]
    if not any(arrays) and not any(p is ... for p in parts):
        parts.append(...)  # a single element is then a 0-d view, not a scalar
    return tuple(parts), any(arrays)


def _count(name: str) -> None:
    for count in _counting:
        count.names.append(name)


def _along_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    """`take_along_axis` or `put_along_axis` with the indices wrapped into range."""

    def call(x: Any, indices: Any, *values: Any, axis: int | None) -> Any:
        length = x.size if axis is None else x.shape[axis]
        index = _unwrap(indices) % max(length, 1)
        return _wrap(function(_unwrap(x), index, *_unwrap(values), axis=axis))

    return call


def _onto_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """`xp.asarray` and `xp.array`: the two functions that take NumPy arrays, and copy them."""

    def move(x: Any, *args: Any, **kwargs: Any) -> Any:
        x = x.copy() if isinstance(x, np.ndarray) else _unwrap(x)
        return _wrap(function(x, *args, **kwargs))

    return move


def _scatter(ufunc: np.ufunc) -> Callable[..., None]:
    """`ufunc.at` with CuPy's dtypes, out-of-range positions wrapped."""

    def at(x: Any, indices: Any, b: Any) -> None:
        if x.dtype.char not in SCATTERED.get(ufunc.__name__, "iIlLqQ"):
            raise TypeError(f"CuPy {version()}: {ufunc.__name__}.at takes no {x.dtype}")
        ufunc.at(_unwrap(x), _index(indices, x.shape)[0], _unwrap(b))

    return at


def _translated(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy as one on strict arrays."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if name in WAITING or (name == "where" and len(args) + len(kwargs) == 1):
            _count(name)
        if name in ("take", "put"):
            kwargs.setdefault("mode", "wrap")
        found = function(*_unwrap(args), **{k: _unwrap(v) for k, v in kwargs.items()})
        if kwargs.get("out") is not None:
            return kwargs["out"]
        return found if name in ON_THE_HOST | ASKED_FOR else _wrap(found)

    return call


def _checked(full: str, function: Callable[..., Any], bound: int = 0) -> Any:
    """`function` behind CuPy's parameter list for that name; `bound` arguments come before it."""
    parameters = surface()[full]
    first = parameters.first if parameters and full not in SPECIAL else ""
    wants_arrays = {"a": 1, "ar": 1, "arr": 1, "m": 1, "x": 1, "x1": 2}.get(first, 0)

    def call(*args: Any, **kwargs: Any) -> Any:
        complaint = parameters and parameters.complaint(len(args) - bound, kwargs)
        if complaint:
            raise TypeError(f"CuPy {version()}: {full} {complaint}")
        if wants_arrays and any(isinstance(x, (list, tuple)) for x in args[:wants_arrays]):
            raise TypeError(f"CuPy {version()}: {full} takes arrays and numbers, no lists")
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
    """What stands for the `cupy` module: its names, as far as NumPy has them too."""

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
        return _checked(full, SPECIAL[full])
    try:
        found = operator.attrgetter(full)(np)
    except AttributeError:
        found = NotImplemented
    if full not in surface() or full in LEFT_OUT or found is NotImplemented:
        remedy = "draw on the host: minibn.random" if full == "random" else "write it with others"
        raise AttributeError(f"CuPy {version()} and NumPy do not share the name {full}: {remedy}")
    if found is None or isinstance(found, float):
        return found
    if isinstance(found, type):
        if issubclass(found, (np.generic, np.dtype, np.finfo, np.iinfo)):
            return found
    elif callable(found):
        call = _checked(full, _translated(full, found))
        if f"{full}.at" in surface():
            call.at = _checked(f"{full}.at", _scatter(found))
        return call
    raise AttributeError(f"the strict double leaves out {full}, which makes no plain array")


def _operator(function: Callable[..., Any], swapped: bool, in_place: bool) -> Callable[..., Any]:
    def operate(self: StrictArray, other: Any) -> Any:
        other = _operand(other)
        if other is NotImplemented:
            return other
        found = function(other, self._host) if swapped else function(self._host, other)
        return self if in_place else _wrap(found)

    return operate


def _refused(name: str) -> Callable[..., Any]:
    def convert(self: StrictArray) -> Any:
        raise TypeError(f"{name}(x) would wait for the device without saying so: x.item()")

    return convert


def _attribute(name: str) -> property:
    def get(self: StrictArray) -> Any:
        value = getattr(self._host, name)
        return StrictArray(value) if isinstance(value, np.ndarray) else value

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
        setattr(StrictArray, f"__{name}__", _translated(name, getattr(operator, f"__{name}__")))
    for name in _words("bool int float complex index"):
        setattr(StrictArray, f"__{name}__", _refused(name))
    for full in surface():
        space, _, name = full.rpartition(".")
        if space != "ndarray" or name in LEFT_OUT or not hasattr(np.ndarray, name):
            continue
        if surface()[full] is None:
            setattr(StrictArray, name, _attribute(name))
        else:
            function = _translated(name, getattr(np.ndarray, name))
            setattr(StrictArray, name, _checked(full, function, bound=1))


_fill_class()
xp = Namespace()
