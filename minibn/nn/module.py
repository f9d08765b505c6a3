"""Modules: what holds the parameters.

A Module's attributes are its parts: Parameters (trained), Buffers (kept, not trained) and other
Modules. Building a network draws nothing; `initialize(seed)` draws every value on the current
backend, each from a generator of its own that is keyed by the parameter's name. So two networks
that share names and shapes start from the same weights, whatever else they contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from minibn.autograd import observers
from minibn.autograd.tensor import Version
from minibn.backend import to_numpy
from minibn.errors import ShapeError, check_flag, did_you_mean
from minibn.nn.attributes import INSTEAD, METHODS, is_trained, parts_in_containers
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
from minibn.ops.precision import numeric_dtype
from minibn.random import generator

__all__ = ["Buffer", "Counter", "Initializer", "Module", "Parameter", "State", "ones", "zeros"]


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
        if hidden := list(parts_in_containers(vars(cls), Module, containers_only=False)):
            raise TypeError(
                f"{cls.__name__}: {hidden[0][0]} is an attribute of the class, which all its "
                f"instances would share. Set it in __init__: self.{hidden[0][0]} = ..."
            )

    def __setattr__(self, key: str, value: Any) -> None:
        is_part = isinstance(value, (Module, State))
        hides = callable(getattr(Module, key, None)) or (is_part and hasattr(Module, key))
        if key == "training":
            value = check_flag(value, f"{type(self).__name__}.training")
        elif hides and (not callable(value) or is_part):
            raise AttributeError(
                f"{type(self).__name__}.{key} = {type(value).__name__}: this would hide the method "
                f"Module.{key}{'()' if callable(getattr(Module, key)) else ''}. "
                f"{INSTEAD.get(key, 'Use another name.')}"
            )
        if value is self:
            raise TypeError(f"{type(self).__name__}.{key}: a module can't be its own part.")
        if is_trained(value) and not is_part:
            raise TypeError(
                f"{type(self).__name__}.{key} is a Tensor that requires a gradient, which would "
                "not be trained or saved. Make it an nn.Parameter(shape, init)."
            )
        replaced = vars(self).get(key)
        if isinstance(replaced, State) and not (value is None or isinstance(value, State)):
            raise TypeError(
                f"{type(self).__name__}.{key} is a {type(replaced).__name__}, and a "
                f"{type(value).__name__} in its place would not be trained or saved. Write into "
                f"it: .{key}.assign(values)."
            )
        if is_part:
            value.name = key
        object.__setattr__(self, key, value)
        if is_part and key not in vars(self):
            raise TypeError(
                f"{type(self).__name__}.{key} is a slot or a property of the class, so this "
                f"{type(value).__name__} would be no part. Use another name."
            )

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
            if not any(x is error.obj for x in (*inputs, *keywords.values())):
                raise
            if hasattr(error.obj, "shape") or isinstance(error.obj, Module):
                raise
            raise TypeError(
                f"{self.name or type(self).__name__}: an input is a {type(error.obj).__name__}. "
                "Make it an array: numpy.asarray(x, numpy.float32)."
            ) from error
        for watcher in vars(self).get("_watchers", ()):
            watcher(self, inputs, output)
        return output

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Called for an attribute that does not exist: the error says what to use instead."""
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            if hasattr(type(self), name):  # a property that raised AttributeError: its own message
                return object.__getattribute__(self, name)
            own = [key for key in (*vars(self), *dir(type(self))) if not key.startswith("_")]
            hint = f"Use {METHODS[name]}." if name in METHODS else did_you_mean(name, own, most=3)
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}. {hint}",
                name=name,
                obj=self,
            )

    # -- its parts
    def children(self) -> Iterator[tuple[str, Module]]:
        return ((k, v) for k, v in vars(self).items() if isinstance(v, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module ("") and all below it, by their path such as "conv1".

        Raises TypeError if a plain container holds a Module or a Parameter that is no part."""
        modules = list(self._walk(prefix))
        known: set[int] | None = None
        for path, module in modules:
            for key, part in parts_in_containers(vars(module), Module):
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

    def _walk(self, prefix: str, above: tuple[Module, ...] = ()) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for key, child in self.children():
            path = f"{prefix}.{key}" if prefix else key
            if child is self or child in above:
                raise TypeError(
                    f"{path} is a module that it is a part of, such as its parent. Keep it outside "
                    "of the attributes, or in a weakref.ref."
                )
            yield from child._walk(path, (*above, self))

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
        try:
            kind: str = numeric_dtype(dtype, "initialize").kind
        except TypeError:
            kind = "?"
        if kind not in "fc":
            raise TypeError(
                f"initialize: dtype {dtype} can't be trained. Use a floating-point dtype,"
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
        mode = check_flag(mode, "train: mode")
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
        if not callable(watcher):
            raise TypeError(f"watch: {watcher!r:.80} is no function of (module, inputs, output).")
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
