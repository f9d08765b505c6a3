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

Initializer = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


def zeros(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.zeros(shape)


def ones(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.ones(shape)


class State(Tensor):
    """A leaf Tensor that belongs to a module: its shape is known before its values are."""

    __slots__ = ("_data", "_shape", "init", "name")
    copied_slots = ("_data", "_shape", "init", "name", "grad", "requires_grad", "version")

    def __init__(self, shape: tuple[int, ...], init: Initializer = zeros) -> None:
        if not isinstance(shape, (tuple, list)):
            raise TypeError(
                f"{type(self).__name__}: {type(shape).__name__} is no shape, a tuple of sizes. For "
                "given values: init=lambda shape, rng: values, or .place(values) afterwards."
            )
        if any(not isinstance(n, (int, np.integer)) or n < 1 for n in shape):
            raise ValueError(f"{type(self).__name__}: shape {shape}: every size must be 1 or more.")
        self._shape, self.init, self.name = tuple(shape), init, "?"
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
        self._data = array

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

    @np.errstate(under="ignore")  # host: a number that is too small is 0, which is no error
    def place(self, values: np.ndarray) -> None:
        """Take these values: in place where there are some, else on the current backend."""
        if self._data is None:
            self._data = get_backend().asarray(values.copy())
        else:
            self._data[...] = backend_of(self._data).asarray(values, dtype=self._data.dtype)
        self.bump_version()

    def initialize(self, rng: np.random.Generator, dtype: Any) -> None:
        self._data = None
        with np.errstate(under="ignore"):  # host: a number that is too small is 0
            self.place(self.init(self._shape, rng).astype(dtype))


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


def load_values(own: dict[str, State], state: Mapping[str, Any], strict: bool) -> None:
    """Place the values of `state` in the parameters and buffers `own`, by name. Nothing is changed
    unless everything fits: see `Module.load_state_dict`."""
    given = {name: to_numpy(state[name]) for name in own if name in state}
    wrong = {
        "missing": [n for n in own if n not in state] if strict else [],
        "unexpected": [n for n in state if n not in own] if strict else [],
        "misshapen": [
            f"{n} {array.shape} for {own[n].shape}"
            for n, array in given.items()
            if array.shape != own[n].shape
        ],
        "of another kind": [
            f"{n} {array.dtype}" for n, array in given.items() if not own[n].takes(array.dtype)
        ],
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {', '.join(n)}" for kind, n in wrong.items() if n)
        raise KeyError(f"load_state_dict: {found}. Was the state saved from another network?")
    for name, array in given.items():
        own[name].place(array)
