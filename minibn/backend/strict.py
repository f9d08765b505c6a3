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

DTYPES = "?bBhHiIlLqQefdFD"
SCATTERED = "iIlLqQefd"  # what CuPy's add.at takes (subtract, maximum: fewer)
NUMBERS = (bool, int, float, complex, np.generic)

# Functions that answer about arrays on the host, functions whose result's size or check waits
# for the device, and attributes and methods of arrays that are left out: they leave the device
# without being asked to, or have no meaning here.
ON_THE_HOST = frozenset(
    "broadcast_shapes can_cast common_type iscomplexobj isdtype isfortran isrealobj isscalar "
    "issubdtype may_share_memory min_scalar_type ndim promote_types result_type shape "
    "shares_memory size".split()
)
WAITING = frozenset(
    "argwhere bincount compress extract flatnonzero item nonzero place to_numpy tolist "
    "union1d unique unique_all unique_counts unique_inverse unique_values".split()
)
LEFT_OUT = frozenset("base cstruct data device dump dumps flat tobytes toDlpack tofile".split())


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
        value = _operand(value)
        if value is NotImplemented:
            raise TypeError("assigned values are numbers or arrays of this backend")
        self._host[_index(key, self.shape)[0]] = value

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
        return f"Strict{self._host!r}"


def _operand(x: Any) -> Any:
    """What an operator may take beside a strict array, unwrapped."""
    if isinstance(x, StrictArray):
        return x._host
    if isinstance(x, NUMBERS):
        return x
    if isinstance(x, (np.ndarray, list, tuple)):
        return _unwrap(np.asarray(x))
    return NotImplemented


def _unwrap(x: Any) -> Any:
    """The NumPy arrays inside the arguments of a call, with no other array among them."""
    if isinstance(x, StrictArray):
        return x._host
    if isinstance(x, np.ndarray):
        raise BackendMismatch(
            f"a NumPy array or list (shape {x.shape}) meets a strict array: "
            "get_backend('strict').asarray(x) first"
        )
    if getattr(x, "__minibn_tensor__", False):
        raise TypeError("array functions take arrays, this is a Tensor: pass x.data")
    if isinstance(x, (list, tuple)):
        return type(x)([_unwrap(item) for item in x])
    return x


def _wrap(x: Any) -> Any:
    """Results of NumPy as strict arrays: also its scalars and truth values, and inside tuples."""
    if isinstance(x, (np.ndarray, np.generic, bool)):
        return StrictArray(np.asarray(x))
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(_wrap, x))
    return type(x)(map(_wrap, x)) if isinstance(x, (list, tuple)) else x


def _index(key: Any, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], bool]:
    """The key for NumPy, its integer arrays wrapped into range; whether it makes a copy."""
    parts = [
        np.asarray(p, dtype=None if p else int) if isinstance(p, list) else _unwrap(p)
        for p in (key if isinstance(key, tuple) else (key,))
    ]
    arrays = [p for p in parts if isinstance(p, (np.ndarray, bool, np.bool))]
    axes = [p.ndim if _is_mask(p) else p is not None and p is not ... for p in parts]
    axis = 0
    for i, p in enumerate(parts):
        if _is_mask(p):
            _count("mask")
        elif isinstance(p, np.ndarray) and p.dtype.kind in "iu" and axis < len(shape):
            parts[i] = p % max(shape[axis], 1)
        axis += len(shape) - sum(axes) if p is ... else axes[i]
    if not arrays and not any(p is ... for p in parts):
        parts.append(...)  # so that a single element is a 0-d view, not a scalar
    return tuple(parts), bool(arrays)


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == bool


def _count(name: str) -> None:
    for count in _counting:
        count.names.append(name)


def _checked(full: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of NumPy under CuPy's parameters, on strict arrays."""
    parameters, name = surface()[full], full.rpartition(".")[2]

    def call(*args: Any, **kwargs: Any) -> Any:
        complaint = parameters and parameters.complaint(
            len(args) - full.startswith("ndarray."), kwargs
        )
        if complaint:
            raise TypeError(f"CuPy {version()}: {full} {complaint}")
        if full in ("asarray", "array") and isinstance(args[0], np.ndarray):
            args = (StrictArray(args[0].copy()), *args[1:])  # the way onto the device
        if isinstance(function, np.ufunc) and any(isinstance(x, (list, tuple)) for x in args):
            raise TypeError(f"CuPy {version()}: {full} takes arrays and numbers, no lists")
        if name in WAITING or (name == "where" and len(args) + len(kwargs) == 1):
            _count(name)
        if name in ("take", "put"):
            kwargs.setdefault("mode", "wrap")
        found = function(*_unwrap(args), **{k: _unwrap(v) for k, v in kwargs.items()})
        out = kwargs.get("out")
        if out is not None:
            return out
        return found if name in ON_THE_HOST or name in WAITING & {"item", "tolist"} else _wrap(found)

    call.__name__ = call.__qualname__ = name
    return call


def _take_along_axis(x: np.ndarray, indices: np.ndarray, axis: int | None) -> np.ndarray:
    length = x.size if axis is None else x.shape[axis]
    return np.take_along_axis(x, indices % max(length, 1), axis)


def _put_along_axis(x: np.ndarray, indices: np.ndarray, values: Any, axis: int | None) -> None:
    length = x.size if axis is None else x.shape[axis]
    np.put_along_axis(x, indices % max(length, 1), values, axis)


def _scatter(ufunc: np.ufunc) -> Callable[..., None]:
    def at(x: np.ndarray, indices: Any, b: Any) -> None:
        if x.dtype.char not in SCATTERED:
            raise TypeError(f"CuPy {version()}: {ufunc.__name__}.at takes no {x.dtype}")
        ufunc.at(x, _index(_rewrap(indices), x.shape)[0], b)

    return at


def _rewrap(x: Any) -> Any:
    return tuple(map(_wrap, x)) if isinstance(x, tuple) else _wrap(x)


WRAPPING = {"take_along_axis": _take_along_axis, "put_along_axis": _put_along_axis}
