"""Containers of modules: Sequential, ModuleList and ModuleDict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, GeneratorType
from typing import Any, overload

from minibn.autograd.dispatch import find_kernel
from minibn.errors import check_integer, did_you_mean
from minibn.nn.module import Module


class Container(Module):
    """What the containers have in common: modules by name, in their order."""

    def _add(self, key: str, module: Any, others: Iterable[str] = ()) -> None:
        kind = type(self).__name__
        if not isinstance(module, Module):
            remedy = {
                list: f" Unpack it: {kind}(*layers).",
                tuple: f" Unpack it: {kind}(*layers).",
                dict: f" Unpack it: {kind}(**layers).",
                OrderedDict: f" Unpack it: {kind}(**layers).",
                GeneratorType: f" Unpack it: {kind}(*layers).",
                FunctionType: " Make it a Module with a method forward(self, x).",
                type: " Call it, to make a layer.",
            }
            raise TypeError(
                f"{kind}: {key} is a {type(module).__name__}, not a Module."
                + (remedy.get(type(module), "") if kind == "Sequential" else "")
            )
        if not key or "." in key or key.startswith("_"):
            raise ValueError(
                f"{kind}: {key!r} is no name of a module: no dot, no underscore first."
            )
        if hasattr(Module, key) or hasattr(type(self), key) or key in others:
            raise ValueError(
                f"{kind}: {key!r} is taken, by an attribute of Module or another part. "
                "Use another name."
            )
        setattr(self, key, module)

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Any]:
        return iter([module for _, module in self.children()])

    def _key(self, i: int) -> str:
        """The name of the module at position i, which may be negative. Raises IndexError."""
        keys, kind = [key for key, _ in self.children()], type(self).__name__
        if isinstance(i, str):
            raise TypeError(f"{kind}[{i!r}]: an index is a number. By its name: getattr(x, {i!r}).")
        at = check_integer(i, f"{kind}: an index")
        if not -len(keys) <= at < len(keys):
            raise IndexError(f"{kind}[{at}]: it has {len(keys)} modules.")
        return keys[at]

    def _select(self, i: Any, part: Module, renumber: bool = False) -> Any:
        """The module at position i (IndexError if there is none). Of a slice, `part`: an empty
        container, which takes these modules, under the same names or numbered anew."""
        if not isinstance(i, slice):
            return getattr(self, self._key(i))
        chosen = list(self.children())[i]
        for n, (key, module) in enumerate(chosen):
            vars(part)[str(n) if renumber else key] = module  # unlike setattr: module.name stays
        part.training = self.training
        return part


class Sequential(Container):
    """Modules one after another, named by keyword or numbered by position.

    An index gives a module, a slice a Sequential of the same modules under the same names.

    >>> from minibn.nn import Linear, ReLU
    >>> net = Sequential(Linear(4, 3), ReLU(), head=Linear(3, 2)).initialize(seed=0)
    >>> [name for name, _ in net.named_parameters()]
    ['0.weight', '0.bias', 'head.weight', 'head.bias']
    >>> [name for name, _ in net[:-1].named_parameters()]
    ['0.weight', '0.bias']
    """

    def __init__(self, *modules: Module, **named: Module) -> None:
        for key, module in [*((str(i), m) for i, m in enumerate(modules)), *named.items()]:
            self._add(key, module, others=vars(self))

    def forward(self, x: Any) -> Any:
        kernel = find_kernel(Sequential, [x]) if hasattr(x, "dtype") else None
        if kernel is not None:  # which runs fused blocks in the place of their layers
            return kernel.forward(self, x)
        for _, module in self.children():
            x = module(x)
        return x

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> Sequential: ...
    def __getitem__(self, i: Any) -> Any:
        return self._select(i, Sequential())

    def __setitem__(self, i: int, module: Module) -> None:
        """Replace the module at position i; the name stays. Raises IndexError, TypeError."""
        key = self._key(i)
        if not isinstance(module, Module):
            raise TypeError(f"Sequential: {key} is a {type(module).__name__}, not a Module.")
        setattr(self, key, module)

    def __delitem__(self, i: int) -> None:
        """Remove the module at position i. The others keep their names, as in a slice."""
        delattr(self, self._key(i))

    def append(self, module: Module) -> Sequential:
        """Add a module at the end, under the next free number. Returns self."""
        number = len(self)
        while str(number) in vars(self):
            number += 1
        self._add(str(number), module)
        return self


class Holder(Container):
    """A container that is never called, so its modules are named by their path: "layers.0"."""

    _name = ""

    @property  # type: ignore[override]  # a plain attribute in Module
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        for key, module in self.children():
            module.name = f"{name}.{key}"

    def __setattr__(self, key: str, value: Any) -> None:
        super().__setattr__(key, value)
        if isinstance(value, Module) and self.name:
            value.name = f"{self.name}.{key}"

    def forward(self, x: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no forward: call its modules.")


class ModuleList(Holder):
    """A list of modules that are parts of the module it belongs to, named "0", "1", ...

    It has no forward: call its modules.

    >>> from minibn.nn import Linear
    >>> class Net(Module):
    ...     def __init__(self):
    ...         self.layers = ModuleList(Linear(4, 4) for _ in range(3))
    ...     def forward(self, x):
    ...         for layer in self.layers:
    ...             x = layer(x)
    ...         return x
    >>> len(Net().initialize(seed=0).parameters())
    6
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        if not isinstance(modules, Iterable):
            raise TypeError(f"ModuleList: {type(modules).__name__} is no list. Use [layer, ...].")
        self.extend(modules)

    def _become(self, modules: Iterable[Any]) -> None:
        """Have these modules, in this order."""
        modules = list(modules)
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"ModuleList: {i} is a {type(module).__name__}, not a Module.")
        for key, _ in list(self.children()):
            delattr(self, key)
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> ModuleList: ...
    def __getitem__(self, i: Any) -> Any:
        return self._select(i, ModuleList(), renumber=True)

    def __setitem__(self, i: Any, module: Any) -> None:
        modules = list(self)
        modules[i] = module
        self._become(modules)

    def __delitem__(self, i: Any) -> None:
        modules = list(self)
        del modules[i]
        self._become(modules)

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def __add__(self, modules: Iterable[Module]) -> ModuleList:
        return self[:].extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add a module at the end. Returns self."""
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add modules at the end. Returns self."""
        self._become([*self, *modules])
        return self

    def insert(self, i: int, module: Module) -> None:
        """Put a module before position i."""
        modules = list(self)
        modules.insert(i, module)
        self._become(modules)

    def pop(self, i: int = -1) -> Any:
        """Take the module at position i out, and return it."""
        module = self[i]
        del self[i]
        return module


class ModuleDict(Holder):
    """A dictionary of modules that are parts of the module it belongs to, by their keys.

    Raises ValueError for a key that is an attribute of Module, TypeError for one that is no string.
    It has no forward: call its modules.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        self.update(modules)

    def __getitem__(self, key: str) -> Any:
        modules = dict(self.children())
        if key not in modules:
            raise KeyError(f"ModuleDict: no module {key!r}. {did_you_mean(key, modules)}")
        return modules[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The module of this key, or the default."""
        return dict(self.children()).get(key, default)

    def __setitem__(self, key: str, module: Module) -> None:
        if not isinstance(key, str) or not key or "." in key:
            raise TypeError(f"ModuleDict: key {key!r} is no name: a string without a dot.")
        self._add(key, module)

    def __delitem__(self, key: str) -> None:
        self[key]
        delattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in dict(self.children())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules by key."""
        for key, module in dict(modules).items():
            self[key] = module

    def keys(self) -> list[str]:
        """The keys, in the order of their first assignment."""
        return [key for key, _ in self.children()]

    def values(self) -> list[Module]:
        """The modules, in the order of their keys."""
        return [module for _, module in self.children()]

    def items(self) -> list[tuple[str, Module]]:
        """(key, module), in the order of the keys."""
        return list(self.children())

    def pop(self, key: str) -> Any:
        """Take the module of this key out, and return it."""
        module = self[key]
        del self[key]
        return module
