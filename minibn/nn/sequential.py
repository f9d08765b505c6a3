"""Sequential: modules one after another."""

from __future__ import annotations

from typing import Any

from minibn.autograd.dispatch import find_kernel
from minibn.nn.module import Module


class Sequential(Module):
    """Modules one after another, named by keyword or numbered by position.

    >>> from minibn.nn import Linear, ReLU
    >>> net = Sequential(Linear(4, 3), ReLU(), head=Linear(3, 2)).initialize(seed=0)
    >>> [name for name, _ in net.named_parameters()]
    ['0.weight', '0.bias', 'head.weight', 'head.bias']
    """

    def __init__(self, *modules: Module, **named: Module) -> None:
        for key, module in [*((str(i), m) for i, m in enumerate(modules)), *named.items()]:
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: {key} is a {type(module).__name__}, not a Module.")
            if hasattr(Module, key) or key in vars(self):
                raise ValueError(
                    f"Sequential: {key!r} is taken, by an attribute of Module or another part. "
                    "Use another name."
                )
            setattr(self, key, module)

    def forward(self, x: Any) -> Any:
        kernel = find_kernel(Sequential, [x]) if hasattr(x, "dtype") else None
        if kernel is not None:  # which runs fused blocks in the place of their layers
            return kernel.forward(self, x)
        for _, module in self.children():
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(list(self.children()))

    def __getitem__(self, i: int) -> Module:
        return [module for _, module in self.children()][i]
