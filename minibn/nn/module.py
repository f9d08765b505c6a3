"""Modules: what holds the parameters.

A Module's attributes are its parts: Parameters (trained), Buffers (kept, not trained) and other
Modules. Building a network draws nothing; `initialize(seed)` draws every value on the current
backend, each from a generator of its own that is keyed by the parameter's name. So two networks
that share names and shapes start from the same weights, whatever else they contain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from minibn.autograd import observers
from minibn.autograd.tensor import Version
from minibn.backend import to_numpy
from minibn.errors import ShapeError
from minibn.nn.model_summary import summary
from minibn.nn.state import (
    Buffer,
    Counter,
    Initializer,
    Parameter,
    State,
    load_values,
    ones,
    zeros,
)
from minibn.random import generator

__all__ = ["Buffer", "Counter", "Initializer", "Module", "Parameter", "State", "ones", "zeros"]

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
        load_values(dict(self._named(State)), state, strict)

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
