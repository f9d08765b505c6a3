"""The arrays of the strict double: NumPy arrays with CuPy's restrictions. See `strict`.

The class itself has storage, indexing and conversions; `strict` adds operators, and the methods and
attributes that CuPy has. Explicit synchronizations (`item`, `to_numpy`, a boolean mask, ...) are
counted: `count_transfers`. Every computation goes through `compute`, where a recording can store it
(`fast/cuda/recording.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minibn.backend.cupy_surface import version
from minibn.errors import BackendMismatch
from minibn.setting import Setting

DTYPES = "?bBhHiIlLqQefdFD"
NUMBERS = (bool, int, float, complex, np.generic)


class Transfers:
    """How often the host waited for the device: `n`, and for which functions: `names`."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @property
    def n(self) -> int:
        return len(self.names)


_counting: Setting[tuple[Transfers, ...]] = Setting("transfers", ())
# The active `Recording` or None: see `fast/cuda/recording.py`.
current_recorder: Setting[Any] = Setting("recorder", None)


def is_recording() -> bool:
    """Whether computations are being recorded, as in a stream capture."""
    return current_recorder.get() is not None


@contextmanager
def count_transfers() -> Iterator[Transfers]:
    """Count synchronizations inside the block: `with count_transfers() as count`."""
    count = Transfers()
    with _counting.override((*_counting.get(), count)):
        yield count


def to_numpy(x: "StrictArray") -> np.ndarray:
    """A copy of the array on the host; counted as a synchronization."""
    count_wait("to_numpy")
    return x._host.copy()


class StrictArray:
    """An array that is as strict as `cupy.ndarray` where CuPy is stricter than NumPy."""

    __slots__ = ("__weakref__", "_host")
    __hash__ = None  # type: ignore[assignment]  # equality is elementwise

    def __init__(self, host: np.ndarray) -> None:
        if host.dtype.char not in DTYPES:
            raise TypeError(f"CuPy has no arrays of dtype {host.dtype}: use numbers up to 64 bits")
        self._host = host
        if (recorder := current_recorder.get()) is not None:
            recorder.on_new_array(self)

    def __getitem__(self, key: Any) -> "StrictArray":
        def get() -> np.ndarray:
            key_, copies = key_for_numpy(key, self.shape)
            found = np.asarray(self._host[key_])
            return found.copy() if copies and found.base is not None else found

        return compute(get)

    def __setitem__(self, key: Any, value: Any) -> None:
        def put() -> None:
            self._host[key_for_numpy(key, self.shape)[0]] = operand(value)

        compute(put)

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
            return compute(lambda: ufunc(*unwrap(inputs)))  # np.float32(2) * x: CuPy allows it
        raise BackendMismatch(
            f"numpy.{ufunc.__name__} got a strict array, maybe beside a NumPy array: "
            f"xp = array_module(x), then xp.{ufunc.__name__}"
        )

    def __copy__(self) -> "StrictArray":
        return compute(self._host.copy)

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


def compute(call: Callable[[], Any], name: str = "") -> Any:
    """The result of `call`, computed on NumPy arrays, as strict arrays; recorded if a recording is
    active. name: of the array function or operator."""
    recorder = current_recorder.get()
    return wrap(call()) if recorder is None else recorder.on_call(call, name)


def operand(x: Any) -> Any:
    """The other operand of an operator, unwrapped; NotImplemented for objects that opt out of
    ufuncs, such as Tensors, whose reflected operator then runs, as in CuPy."""
    if isinstance(x, (StrictArray, np.ndarray)):
        return unwrap(x)
    if isinstance(x, NUMBERS):
        return x
    if getattr(x, "__array_ufunc__", False) is None:
        return NotImplemented
    raise TypeError(f"an array takes arrays and numbers beside it, this is a {type(x).__name__}")


def unwrap(x: Any) -> Any:
    """The arguments of a call with strict arrays as NumPy arrays. Raises for other arrays."""
    if isinstance(x, StrictArray):
        return x._host
    if isinstance(x, np.ndarray):
        raise BackendMismatch(
            f"a NumPy array (shape {x.shape}) meets a strict array: "
            "get_backend('strict').asarray(x) first"
        )
    if getattr(x, "__minibn_tensor__", False):
        raise TypeError("array functions take arrays, this is a Tensor: pass x.data")
    return type(x)([unwrap(item) for item in x]) if type(x) in (list, tuple) else x


def wrap(x: Any) -> Any:
    """Results of NumPy as strict arrays; numbers become 0-d arrays, tuples are wrapped by item."""
    if isinstance(x, (np.ndarray, *NUMBERS)):
        return StrictArray(np.asarray(x))
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(wrap, x))
    return type(x)(map(wrap, x)) if isinstance(x, (list, tuple)) else x


def key_for_numpy(key: Any, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], bool]:
    """The key for NumPy, its integer arrays wrapped into range; and whether it makes a copy."""
    parts = [
        np.asarray(p, dtype=None if p else int) if isinstance(p, list) else unwrap(p)
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
            count_wait("mask")
        elif arrays[i] and axis < len(shape) and np.asarray(p).dtype.kind in "iu":
            parts[i] = p % max(shape[axis], 1)
        axis += len(shape) - sum(axes) if p is ... else axes[i]
    if not any(arrays) and not any(p is ... for p in parts):
        parts.append(...)  # a single element is then a 0-d view, not a scalar
    return tuple(parts), any(arrays)


def count_wait(name: str) -> None:
    """Count a synchronization in every active `count_transfers`."""
    if (recorder := current_recorder.get()) is not None:
        recorder.on_wait(name)
    for count in _counting.get():
        count.names.append(name)
