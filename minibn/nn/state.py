"""What a module holds: Parameters, which are trained, and Buffers, which are not.

Each is a leaf Tensor whose shape is known before its values are: `Module.initialize` draws them,
and `load_values` takes them from a state dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minibn.autograd.tensor import Tensor, Version
from minibn.backend import backend_of, get_backend, to_numpy
from minibn.errors import ShapeError

Initializer = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


def zeros(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.zeros(shape)


def ones(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.ones(shape)


class State(Tensor):
    """A leaf Tensor that belongs to a module: its shape is known before its values are."""

    __slots__ = ("_data", "_shape", "init", "name")
    _data: Any
    copied_slots = ("_data", "_shape", "init", "name", "_grad", "_requires_grad", "version")

    def __init__(self, shape: tuple[int, ...], init: Initializer = zeros) -> None:
        if not isinstance(shape, (tuple, list)):
            raise TypeError(
                f"{type(self).__name__}: {type(shape).__name__} is no shape, a tuple of sizes. For "
                "given values: init=lambda shape, rng: values, or .place(values) afterwards."
            )
        if not callable(init):
            raise TypeError(
                f"{type(self).__name__}: init={init!r:.80} is no function of (shape, rng). Those "
                "of nn.init are."
            )
        integers = all(isinstance(n, (int, np.integer)) and n is not True for n in shape)
        if not integers or any(n < 1 for n in shape):
            raise ValueError(
                f"{type(self).__name__}: shape {tuple(shape)}: every size must be 1 or more, an "
                "integer."
            )
        self._shape = tuple(map(int, shape))
        self.init, self.name = init, "?"
        self._set(None, isinstance(self, Parameter), None, Version())

    @property
    def data(self) -> Any:  # type: ignore[override]  # a slot in Tensor, a guarded one here
        if self._data is None:
            raise RuntimeError(
                f"{self.name!r} of shape {self._shape} has no values yet. Call "
                "model.initialize(seed=0), or load a state_dict, when every layer is an attribute "
                "of its Module, or stands in an nn.Sequential, nn.ModuleList or nn.ModuleDict."
            )
        return self._data

    @data.setter
    def data(self, array: Any) -> None:
        shape = getattr(array, "shape", None)
        if array is not None and (isinstance(array, Tensor) or shape != self._shape):
            what = f"an array of shape {shape}" if shape is not None else type(array).__name__
            raise ShapeError(f"{self.name}.data: {what} for shape {self._shape}. Use .assign.")
        self._data = array

    def _is_floating(self) -> bool:
        return self._data is None or super()._is_floating()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def size(self) -> int:
        return math.prod(self._shape)

    def __repr__(self) -> str:
        if self.is_initialized:
            return super().__repr__()
        return f"{type(self).__name__}(shape={self._shape}, no values yet)"

    @property
    def is_initialized(self) -> bool:
        return self._data is not None

    def takes(self, dtype: np.dtype) -> bool:
        """Whether values of this dtype can be placed here."""
        if self._data is None:
            return dtype.kind in "fc"
        return np.can_cast(dtype, self._data.dtype, "same_kind")

    @np.errstate(under="ignore")  # host: a number that is too small is 0
    def prepare(self, values: Any) -> np.ndarray:
        """A copy of the values on the host, in the dtype of this one's. Raises ShapeError for
        another shape, TypeError for values of another kind."""
        array = _as_array(values, self.name)
        if array.shape != self._shape:
            raise ShapeError(f"{self.name}: values of shape {array.shape} for {self._shape}.")
        if not self.takes(array.dtype):
            raise TypeError(f"{self.name}: values of dtype {array.dtype} are of another kind.")
        return array.astype(array.dtype if self._data is None else self._data.dtype)

    def place(self, values: Any) -> None:
        """Take these values: in place where there are some, else on the current backend. Raises as
        `prepare`."""
        array = self.prepare(values)
        if self._data is None:
            self._data = get_backend().asarray(array)
        else:
            self._data[...] = backend_of(self._data).asarray(array)
        self.bump_version()

    def initialize(self, rng: np.random.Generator, dtype: Any) -> None:
        values = _as_array(self.init(self._shape, rng), f"{self.name}: init")
        if values.dtype.kind == "c" and np.dtype(dtype).kind != "c":
            raise TypeError(f"{self.name}: init gives {values.dtype}, the dtype is {dtype}.")
        before, self._data = self._data, None
        try:
            with np.errstate(under="ignore"):  # host: a number that is too small is 0
                self.place(values.astype(dtype))
        except BaseException:  # a Ctrl-C too: the values stay as they were
            self._data = before
            raise


class Parameter(State):
    """What is trained: a leaf that requires a gradient."""

    __slots__ = ()


class Buffer(State):
    """What is kept but not trained, such as running statistics."""

    __slots__ = ()


class Counter(Buffer):
    """An integer that counts steps. It stays on the host: reading it must not wait for a GPU."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(())
        self._data = np.zeros((), np.int64)  # host: counters stay there

    def initialize(self, rng: np.random.Generator, dtype: Any) -> None:
        self.place(np.zeros((), np.int64))  # host: counters stay there

    def advance(self) -> int:
        """The count before this call; then it is one more."""
        before = int(self._data)
        self._data += 1
        return before


def _as_array(values: Any, name: str) -> np.ndarray:
    """The values as a NumPy array. Raises TypeError that says whose they are."""
    try:
        is_list = isinstance(values, (list, tuple))
        return to_numpy(np.asarray(values) if is_list else values)  # host: a list
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error


def load_values(own: dict[str, State], state: Mapping[str, Any], strict: bool) -> None:
    """Place the values of `state` in the parameters and buffers `own`, by name. Nothing is changed
    unless everything fits: see `Module.load_state_dict`."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"load_state_dict: state is a {type(state).__name__}, no dict of arrays by name as "
            ".state_dict() returns it."
        )
    given = {
        name: _as_array(state[name], f"load_state_dict: {name}") for name in own if name in state
    }
    wrong = {
        "missing": [n for n in own if n not in state] if strict else [],
        "unexpected": [str(n) for n in state if n not in own] if strict else [],
        "misshapen": [
            f"{n} {array.shape} for {own[n].shape}"
            for n, array in given.items()
            if array.shape != own[n].shape
        ],
        "of another kind": [
            f"{n} {array.dtype}"
            for n, array in given.items()
            if not own[n].takes(array.dtype)
            or (isinstance(own[n], Counter) and array.size and not 0 <= int(array.min()) < 2**63)
        ],
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {', '.join(n)}" for kind, n in wrong.items() if n)
        raise KeyError(f"load_state_dict: {found}. Was the state saved from another network?")
    copies = {name: own[name].prepare(array) for name, array in given.items()}
    for name, array in copies.items():  # none of them is a view of another's memory
        own[name].place(array)
