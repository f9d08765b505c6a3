"""Modules: what holds the parameters.

A Module's attributes are its parts: Parameters (trained), Buffers (kept, not trained) and other
Modules. Building a network draws nothing; `initialize(seed)` draws every value on the current
backend, each from a generator of its own that is keyed by the parameter's name. So two networks
that share names and shapes start from the same weights, whatever else they contain.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from minibn.autograd import observers
from minibn.autograd.tensor import Tensor, Version
from minibn.backend import backend_of, get_backend, to_numpy
from minibn.errors import ShapeError
from minibn.nn.model_summary import summary
from minibn.random import generator

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

    @np.errstate(under="ignore")  # host: as in Module.__call__
    def place(self, values: np.ndarray) -> None:
        """Take these values: in place where there are some, else on the current backend."""
        if self._data is None:
            self._data = get_backend().asarray(values.copy())
        else:
            self._data[...] = backend_of(self._data).asarray(values, dtype=self._data.dtype)
        self.bump_version()

    def initialize(self, rng: np.random.Generator, dtype: Any) -> None:
        self._data = None
        with np.errstate(under="ignore"):  # host: as in Module.__call__
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


# What to do instead of an attribute that hides a method of Module.
_INSTEAD = {
    "train": "The mode is the attribute `training`; to change it, call .train() or .eval().",
    "eval": "The mode is the attribute `training`; to change it, call .train() or .eval().",
    "forward": "Define a method forward(self, x), or use another name.",
}


class Module:
    """A part of a network. Subclasses set parts in `__init__` and define `forward`.

    Parts are attributes. A plain list, tuple, set or dict of modules is none: use `nn.ModuleList`
    or `nn.ModuleDict`. What walks over the parts (`initialize`, `parameters`, `train`, ...) raises
    TypeError for modules that stand in a plain container only.
    """

    name = ""
    training = True

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if hidden := list(parts_in_containers(vars(cls), containers_only=False)):
            raise TypeError(
                f"{cls.__name__}: {hidden[0][0]} is an attribute of the class, which all its "
                f"instances would share. Set it in __init__: self.{hidden[0][0]} = ..."
            )

    def __setattr__(self, key: str, value: Any) -> None:
        hides = callable(getattr(Module, key, None))
        if hides and (not callable(value) or isinstance(value, Module)):
            raise AttributeError(
                f"{type(self).__name__}.{key} = {type(value).__name__}: this would hide the method "
                f"Module.{key}(). {_INSTEAD.get(key, 'Use another name.')}"
            )
        replaced = vars(self).get(key)
        if isinstance(replaced, State) and not (value is None or isinstance(value, State)):
            raise TypeError(
                f"{type(self).__name__}.{key} is a {type(replaced).__name__}, and a "
                f"{type(value).__name__} in its place would not be trained or saved. Write into "
                f"it: .{key}.assign(values)."
            )
        if isinstance(value, (Module, State)):
            value.name = key
        object.__setattr__(self, key, value)

    def forward(self, x: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no forward.")

    @np.errstate(under="ignore")  # host: a number that is too small is 0, which is no error
    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        try:
            if observers.current():
                with observers.layer(self.name):
                    output = self.forward(*inputs, **keywords)
            else:
                output = self.forward(*inputs, **keywords)
        except ShapeError as error:
            if self.name:
                error.add_note(f"In layer {self.name} ({type(self).__name__}).")
            raise
        except AttributeError as error:
            if type(getattr(error, "obj", None)) not in (list, tuple):
                raise
            raise TypeError(
                f"{self.name or type(self).__name__}: an input is a {type(error.obj).__name__}. "
                "Make it an array: numpy.asarray(x, numpy.float32)."
            ) from error
        for watcher in vars(self).get("_watchers", ()):
            watcher(self, inputs, output)
        return output

    # -- its parts
    def children(self) -> Iterator[tuple[str, Module]]:
        return ((k, v) for k, v in vars(self).items() if isinstance(v, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module ("") and all below it, by their path such as "conv1".

        Raises TypeError if a plain container holds a Module or a Parameter that is no part."""
        modules = list(self._walk(prefix))
        known: set[int] | None = None
        for path, module in modules:
            for key, part in parts_in_containers(vars(module)):
                if known is None:
                    known = {id(x) for _, m in modules for x in (m, *vars(m).values())}
                if id(part) not in known:
                    where = f"{path}.{key}" if path else f"{type(self).__name__}.{key}"
                    raise TypeError(
                        f"{where} is a plain container with a {type(part).__name__}, which would "
                        "not be initialised, trained or saved. Use nn.ModuleList (or "
                        "nn.ModuleDict, nn.Sequential), or attributes of their own."
                    )
        return iter(modules)

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for key, child in self.children():
            yield from child._walk(f"{prefix}.{key}" if prefix else key)

    def _named(self, kind: type) -> Iterator[tuple[str, Any]]:
        for path, module in self.named_modules():
            for key, part in vars(module).items():
                if isinstance(part, kind):
                    yield (f"{path}.{key}" if path else key), part

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return self._named(Parameter)

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        return self._named(Buffer)

    def parameters(self) -> list[Parameter]:
        """Every parameter, once: one that is shared has several names."""
        return list({id(p): p for _, p in self.named_parameters()}.values())

    # -- values
    def initialize(self, seed: int = 0, dtype: Any = np.float32) -> Any:
        """Draw every parameter and reset every buffer, on the current backend. Returns self.

        Raises TypeError unless dtype is floating-point.
        """
        if np.dtype(dtype).kind not in "fc":
            raise TypeError(
                f"initialize: dtype {np.dtype(dtype)} can't be trained. Use a floating-point dtype,"
                " such as numpy.float32."
            )
        for name, state in self._named(State):
            state.initialize(generator(seed, "weights", name), dtype)
            state.grad = None
        for path, module in self.named_modules():
            module.seeded(seed, path)
        return self

    def seeded(self, seed: int, path: str) -> None:
        """Called by `initialize` with the module's path: where a random layer takes its key."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and buffer by name, as NumPy arrays."""
        return {name: to_numpy(state.data).copy() for name, state in self._named(State)}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Take the values of `state`. Nothing is changed unless everything fits.

        Raises KeyError that lists missing, unexpected and misshapen names, and values of another
        kind (complex, text, fractions for a Counter); with `strict=False` only the last two count.
        """
        own: dict[str, State] = dict(self._named(State))
        given = {name: to_numpy(state[name]) for name in own if name in state}
        wrong = {
            "missing": [n for n in own if n not in state] if strict else [],
            "unexpected": [n for n in state if n not in own] if strict else [],
            "misshapen": [
                f"{n} {array.shape} for {own[n].shape}"
                for n, array in given.items()
                if array.shape != own[n].shape
            ],
        }
        wrong["of another kind"] = [
            f"{n} {array.dtype}" for n, array in given.items() if not own[n].takes(array.dtype)
        ]
        if any(wrong.values()):
            found = "; ".join(f"{kind}: {', '.join(n)}" for kind, n in wrong.items() if n)
            raise KeyError(f"load_state_dict: {found}. Was the state saved from another network?")
        for name, array in given.items():
            own[name].place(array)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    # -- mode
    def train(self, mode: bool = True) -> Any:
        """Training mode, here and below: batch statistics, noise, dropout. Returns self."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Any:
        """Evaluation mode, here and below. Gradients are recorded all the same. Returns self."""
        return self.train(False)

    @contextmanager
    def mode(self, training: bool):
        """Train or eval mode inside a `with` block; afterwards each module's own mode is back."""
        before = [(module, module.training) for _, module in self.named_modules()]
        self.train(training)
        try:
            yield self
        finally:
            for module, was in before:
                module.training = was

    @contextmanager
    def preserved_state(self):
        """Inside, anything may happen to this model: to values, gradients, versions, counters and
        modes, to its attributes and parts. Afterwards all of them are the objects that they were,
        to the last bit, also after an exception.

        Inside, every parameter and buffer has a copy of its values, in an array of its own.
        Raises RuntimeError for a model without values.

        >>> from minibn import nn
        >>> layer = nn.Linear(2, 2).initialize(seed=0)
        >>> before = layer.weight.data.copy()
        >>> with layer.preserved_state():
        ...     layer.weight.data[...] = 0
        >>> np.array_equal(layer.weight.data, before)
        True
        """
        slots = ("data", "grad", "version", "requires_grad", "name")
        states = [state for _, state in self._named(State)]
        values = [[getattr(state, slot) for slot in slots] for state in states]
        attributes = [(module, dict(vars(module))) for _, module in self.named_modules()]
        try:
            for state, (data, *_) in zip(states, values, strict=True):
                state.data = data.copy()
                state.version = Version()  # what changes inside concerns no graph from outside
            yield self
        finally:
            for state, before in zip(states, values, strict=True):
                for slot, value in zip(slots, before, strict=True):
                    setattr(state, slot, value)
            for module, own in attributes:
                vars(module).clear()
                vars(module).update(own)

    # -- observation
    @contextmanager
    def watch(self, watcher: Callable[[Module, tuple, Any], None]):
        """Inside, `watcher(module, inputs, output)` is called after each call of this module.
        inputs: the positional ones."""
        watchers = vars(self).setdefault("_watchers", [])
        watchers.append(watcher)
        try:
            yield self
        finally:
            watchers.remove(watcher)

    def summary(self, x: Any) -> str:
        """A table of the layers, their shapes and parameters, and of what runs each of their ops:
        the definition or a kernel, with its file. x: a batch, or the shape of one example. See
        `minibn.nn.summary`."""
        return summary(self, x)

    def __repr__(self) -> str:
        settings = ", ".join(
            f"{k}={v!r}"
            for k, v in vars(self).items()
            if isinstance(v, (int, float, str, tuple))
            and k not in ("name", "training")
            and not k.startswith("_")
        )
        parts = "".join("\n  " + f"{k}: {v!r}".replace("\n", "\n  ") for k, v in self.children())
        return f"{type(self).__name__}({settings}{parts}{chr(10) if parts else ''})"


def parts_in_containers(
    attributes: Mapping[str, Any], containers_only: bool = True
) -> Iterator[tuple[str, Any]]:
    """(key, part) for every Module or State inside of a list, tuple, set, deque or dict among the
    attributes, at any depth; without `containers_only` also for those that are attributes."""
    for key, held in attributes.items():
        stack, seen = [held], set()
        while stack:
            x = stack.pop()
            if isinstance(x, (Module, State)):
                if x is not held or not containers_only:
                    yield key, x
            elif isinstance(x, (list, tuple, set, frozenset, deque, dict)) and id(x) not in seen:
                seen.add(id(x))
                stack.extend(x.values() if isinstance(x, dict) else x)
