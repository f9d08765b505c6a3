"""Signature styles: what a solution must define, and how a case becomes the arguments of a call.

cs231n     forward(x, ..., param) -> (out, cache), backward(dout, cache) -> gradients;
           a loss is f(x, y) -> (loss, dx). Images are (N, C, H, W)
arrays     f(x, ..., settings) -> out and f_vjp(g, x, ..., settings) -> gradients
minibn     a function of minibn's Tensors, with keywords; images are (N, H, W, C)
minitorch  a class with static forward(ctx, *arrays, settings) and backward(ctx, g); arrays stand
           for its Tensors, and a Context of ours keeps what is saved
tinytorch  a class of layers, or a function, on the solution's own `Tensor`: that has `.data`,
           `.grad` and, for results, `.backward(g)`
torch      a torch.autograd.Function, an nn.Module, or a function of torch tensors
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Settings = dict[str, Any]
ON_ARRAYS = ("function", "tensor.function", "torch.function", "minibn.function")
STYLES = ("cs231n", "arrays", "minibn", "minitorch", "tinytorch", "torch")


@dataclass(frozen=True)
class Layout:
    """The solution's layout of arrays: their axes in the order of the spec's, by name."""

    axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to(self, name: str, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.transpose(self.axes[name])) if name in self.axes else x

    def back(self, name: str, x: np.ndarray) -> np.ndarray:
        if name not in self.axes or x.ndim != len(self.axes[name]):
            return x
        return np.ascontiguousarray(x.transpose(np.argsort(self.axes[name])))


@dataclass(frozen=True)
class RowsAsImages(Layout):
    """The rows of x (M, C) as pixels of images (N, C, H, W); the spec's statistics are over M."""

    def to(self, name: str, x: np.ndarray) -> np.ndarray:
        if name not in ("x", "out") or x.ndim != 2:
            return x
        width = 2 if len(x) % 2 == 0 else 1
        height = 3 if len(x) % 3 == 0 else 1
        return np.ascontiguousarray(x.reshape(-1, height, width, x.shape[1]).transpose(0, 3, 1, 2))

    def back(self, name: str, x: np.ndarray) -> np.ndarray:
        if name not in ("x", "out") or x.ndim != 4:
            return x
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(-1, x.shape[1])


@dataclass(frozen=True)
class Style:
    """How a solution is called.

    name       one of STYLES
    how        the kind of call, see calls.py
    defines    the names that the solution must define, the forward pass first
    kinds      of the first of these: "function", "torch.Function", ...; the style fits no other
    arguments  (settings of the case, "train" or "eval") -> what follows the inputs
    keywords   (settings, mode) -> keyword arguments, of functions of tensors
    construct  (inputs, settings) -> arguments of a layer's constructor
    parameters of a layer: input's name -> names of the attribute
    state      names of running statistics, in a dict of `arguments` or of the layer
    provides   what else can be graded in this style, such as "running statistics"
    """

    name: str
    how: str
    defines: tuple[str, ...]
    kinds: tuple[str, ...] = ("function",)
    arguments: Callable[[Settings, str], Sequence[Any]] = lambda settings, mode: ()
    keywords: Callable[[Settings, str], Settings] = lambda settings, mode: {}
    construct: Callable[[Mapping[str, np.ndarray], Settings], Sequence[Any]] = lambda x, s: ()
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    state: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    layout: Layout = field(default_factory=Layout)
    library: str = "own"  # of tensors

    @property
    def on_tensors(self) -> bool:
        return self.how in ("graph", "layer")

    @property
    def signature(self) -> str:
        return " and ".join(self.defines)


def cs231n(forward: str, backward: str = "", **more: Any) -> Style:
    """A pair of functions, or without `backward` a loss that returns its gradient."""
    defines = (forward, backward) if backward else (forward,)
    return Style("cs231n", "pair" if backward else "loss", defines, ON_ARRAYS, **more)


def on_arrays(name: str, *settings: str, **more: Any) -> Style:
    """f and f_vjp, whose settings follow the inputs by position, in this order."""
    how = {"kinds": ON_ARRAYS, "arguments": _listed(settings)} | more
    return Style("arrays", "vjp", (name, f"{name}_vjp"), **how)  # type: ignore[arg-type]


def minibn_function(name: str, *settings: str, **more: Any) -> Style:
    """A function of minibn's Tensors; settings are keywords."""
    keywords: Any = lambda case, mode: {key: case[key] for key in settings}  # noqa: E731
    how = {"kinds": ("minibn.function",), "library": "minibn", "keywords": keywords} | more
    return Style("minibn", "graph", (name,), **how)  # type: ignore[arg-type]


def minitorch_class(name: str, *settings: str, **more: Any) -> Style:
    """A class with forward(ctx, ...) and backward(ctx, g), called with arrays."""
    how = {"kinds": ("context",), "arguments": _listed(settings)} | more
    return Style("minitorch", "context", (name,), **how)  # type: ignore[arg-type]


def torch_function(name: str, *settings: str, **more: Any) -> Style:
    """A torch.autograd.Function, or a function of torch tensors."""
    how = {
        "kinds": ("torch.Function", "torch.function"),
        "library": "torch",
        "arguments": _listed(settings),
    } | more
    return Style("torch", "graph", (name,), **how)  # type: ignore[arg-type]


def torch_layer(name: str, **more: Any) -> Style:
    return Style("torch", "layer", (name,), ("torch.Module",), library="torch", **more)


def tinytorch_layer(name: str, **more: Any) -> Style:
    return Style("tinytorch", "layer", (name,), ("class",), **more)


def tinytorch_function(name: str, *settings: str, **more: Any) -> Style:
    """A function of the solution's own Tensors."""
    how = {"kinds": ("tensor.function",), "arguments": _listed(settings)} | more
    return Style("tinytorch", "graph", (name,), **how)  # type: ignore[arg-type]


def _listed(settings: Sequence[str]) -> Callable[[Settings, str], Sequence[Any]]:
    return lambda case, mode: [case[key] for key in settings]
