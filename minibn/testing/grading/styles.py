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
    """The solution's layout of arrays, where it is not the spec's.

    axes  name of an input, or "out" -> the spec's axes in the solution's order: (0, 2, 3, 1) if
          the spec has (N, C, H, W) and the solution (N, H, W, C)
    """

    axes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to(self, name: str, x: np.ndarray) -> np.ndarray:
        """The array `name` of the spec, in the solution's layout."""
        return np.ascontiguousarray(x.transpose(self.axes[name])) if name in self.axes else x

    def back(self, name: str, x: np.ndarray) -> np.ndarray:
        """The array `name` of the solution, in the spec's layout."""
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
    """What a solution must define, and how it is called. The functions below (`cs231n`,
    `torch_layer`, ...) make one; their `**more` are fields of this class.

    name       one of STYLES
    how        the kind of call: "pair", "loss", "vjp", "context", "graph" or "layer" (see calls.py)
    defines    the names that the solution must define, the forward pass first
    kinds      what the first of these may be: "function", "class", "context", "torch.Function",
               "torch.Module", "torch.function", "minibn.function", "tensor.function"
    arguments  (settings of the case, mode) -> the positional arguments after the inputs, a list;
               the mode is "train" or "eval"
    keywords   (settings of the case, mode) -> keyword arguments, for functions of tensors
    construct  (inputs, settings) -> the positional arguments of a layer's constructor
    parameters  for layers: name of an input -> possible names of the layer's attribute
    state      names of running statistics, in a dict among `arguments`, or in the layer
    provides   what else can be graded in this style, such as "running statistics"; a Part with
               `needs` is left out of a style that does not provide it
    layout     a Layout, if the solution's arrays have their axes in another order than the spec's
    library    whose tensors a "graph" or a "layer" gets: "torch", "minibn", or "own" for the class
               `Tensor` of the solution
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
    """The style of CS231n, on NumPy arrays; images are (N, C, H, W).

    forward   the name of a function: forward(*inputs, *arguments) -> (out, cache). Without
              `backward` it is a loss: forward(*inputs, *arguments) -> (loss, one gradient for
              each input)
    backward  the name of a function: backward(dout, cache) -> one gradient for each input
    more      fields of `Style`; `arguments` makes the dict (conv_param, bn_param) after the inputs
    """
    defines = (forward, backward) if backward else (forward,)
    return Style("cs231n", "pair" if backward else "loss", defines, ON_ARRAYS, **more)


def on_arrays(name: str, *settings: str, **more: Any) -> Style:
    """Two functions on NumPy arrays: f(*inputs, *settings) -> out and
    f_vjp(g, *inputs, *settings) -> one gradient for each input; g has the shape of out.

    name      of f; its vjp is called NAME_vjp
    settings  names of the case's settings, which follow the inputs by position, in this order
    more      fields of `Style`
    """
    how = {"kinds": ON_ARRAYS, "arguments": _listed(settings)} | more
    return Style("arrays", "vjp", (name, f"{name}_vjp"), **how)  # type: ignore[arg-type]


def minibn_function(name: str, *settings: str, **more: Any) -> Style:
    """A function of minibn's Tensors, f(*inputs, **settings) -> Tensor. Its gradient is the one
    that `.backward(g)` leaves in the inputs' `.grad`.

    name      of the function
    settings  names of the case's settings, which are passed as keywords
    more      fields of `Style`; `layout` for images, which are (N, H, W, C) in minibn
    """
    keywords: Any = lambda case, mode: {key: case[key] for key in settings}  # noqa: E731
    how = {"kinds": ("minibn.function",), "library": "minibn", "keywords": keywords} | more
    return Style("minibn", "graph", (name,), **how)  # type: ignore[arg-type]


def minitorch_class(name: str, *settings: str, **more: Any) -> Style:
    """A class with the static methods forward(ctx, *inputs, *settings) -> out and
    backward(ctx, g) -> one gradient for each input, called with NumPy arrays. `ctx` has
    `save_for_backward`, `saved_values` and `saved_tensors`.

    name      of the class
    settings  names of the case's settings, which follow the inputs by position, in this order
    more      fields of `Style`
    """
    how = {"kinds": ("context",), "arguments": _listed(settings)} | more
    return Style("minitorch", "context", (name,), **how)  # type: ignore[arg-type]


def torch_function(name: str, *settings: str, **more: Any) -> Style:
    """A torch.autograd.Function, called by its `apply`, or a function of torch tensors:
    f(*inputs, *settings) -> tensor. Images are (N, C, H, W).

    name      of the class or function
    settings  names of the case's settings, which follow the inputs by position, in this order
    more      fields of `Style`
    """
    how = {
        "kinds": ("torch.Function", "torch.function"),
        "library": "torch",
        "arguments": _listed(settings),
    } | more
    return Style("torch", "graph", (name,), **how)  # type: ignore[arg-type]


def torch_layer(name: str, **more: Any) -> Style:
    """An nn.Module, called with those inputs that are not its parameters.

    name  of the class
    more  fields of `Style`: `construct` gives the arguments of its constructor, `parameters` the
          attributes that hold the other inputs, as {"w": ("weight",), "b": ("bias",)}
    """
    return Style("torch", "layer", (name,), ("torch.Module",), library="torch", **more)


def tinytorch_layer(name: str, **more: Any) -> Style:
    """A class of layers on the solution's own `Tensor`, called as layer(x) or layer.forward(x).
    A `Tensor(array)` has `.data` and `.grad`, a result also `.backward(g)` for an array g.

    name  of the class
    more  fields of `Style`: `construct` gives the arguments of its constructor, `parameters` the
          attributes that hold the other inputs, as {"gamma": ("weight", "gamma")}
    """
    return Style("tinytorch", "layer", (name,), ("class",), **more)


def tinytorch_function(name: str, *settings: str, **more: Any) -> Style:
    """A function of the solution's own Tensors: f(*inputs, *settings) -> Tensor. A `Tensor(array)`
    has `.data` and `.grad`, a result also `.backward(g)` for an array g.

    name      of the function
    settings  names of the case's settings, which follow the inputs by position, in this order
    more      fields of `Style`
    """
    how = {"kinds": ("tensor.function",), "arguments": _listed(settings)} | more
    return Style("tinytorch", "graph", (name,), **how)  # type: ignore[arg-type]


def _listed(settings: Sequence[str]) -> Callable[[Settings, str], Sequence[Any]]:
    return lambda case, mode: [case[key] for key in settings]
