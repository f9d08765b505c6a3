"""Calls of a solution: the same request for a pair of functions, a class with a context, a layer.

This runs where the solution runs, in a process of its own as a rule, and decides nothing. A request
names the solution's functions and gives a list of steps; each is a forward pass, with a backward
pass if it has a cotangent. The answer holds arrays.

    how        what the solution defines                               style
    pair       forward(*inputs, ...) -> (out, cache), backward(dout, cache) -> gradients    CS231n
    loss       f(*inputs, ...) -> (loss, gradient)                                          CS231n
    vjp        f(*inputs, ...) -> out, f_vjp(g, *inputs, ...) -> gradients                  arrays
    context    class with forward(ctx, *inputs, ...) and backward(ctx, g)                minitorch
    graph      a function of tensors, whose result has .backward(g); inputs have .grad
    layer      a class: layer(x) or layer.forward(x), as graph; its parameters have .grad
"""

from __future__ import annotations

import contextlib
import inspect
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Request = Mapping[str, Any]
Answer = dict[str, Any]


class FormError(Exception):
    """The solution returns something of another form than the style promises."""


class Context:
    """What `ctx` is to a forward and a backward pass: it keeps values, and any attribute."""

    def __init__(self) -> None:
        self.saved_values: tuple[Any, ...] = ()

    def save_for_backward(self, *values: Any) -> None:
        self.saved_values = values

    saved_tensors = property(lambda self: self.saved_values)


def kinds(names: Mapping[str, Any]) -> dict[str, str]:
    """name -> what it is: "function", "class", "context", or, as far as the solution uses a library
    or a class Tensor, "torch.function", "torch.Module", "minibn.function", "tensor.function"."""
    torch = sys.modules.get("torch")
    uses = [name for name in ("torch", "minibn") if _uses(names, name)]
    function = f"{uses[0]}.function" if uses else "function"
    if not uses and inspect.isclass(names.get("Tensor")):
        function = "tensor.function"
    found = {}
    for name, thing in names.items():
        if name.startswith("_") or not callable(thing):
            continue
        if not inspect.isclass(thing):
            found[name] = function
        elif torch is not None and issubclass(thing, torch.autograd.Function):
            found[name] = "torch.Function"
        elif torch is not None and issubclass(thing, torch.nn.Module):
            found[name] = "torch.Module"
        elif _takes_context(thing):
            found[name] = "context"
        else:
            found[name] = "class"
    return found


def _uses(names: Mapping[str, Any], library: str) -> bool:
    def comes_from(thing: Any) -> bool:
        module = getattr(thing, "__name__" if inspect.ismodule(thing) else "__module__", None)
        return str(module).partition(".")[0] == library

    return any(comes_from(names[key]) for key in names if key != "grade")


def _takes_context(thing: type) -> bool:
    forward = inspect.getattr_static(thing, "forward", None)
    function = getattr(forward, "__func__", forward)
    with contextlib.suppress(TypeError, ValueError):
        first = [name for name in inspect.signature(function).parameters if name != "cls"]
        return first[:1] in (["ctx"], ["context"])
    return False


def answer(names: Mapping[str, Any], request: Request) -> Answer:
    """Carry the steps of a request out. Errors of the solution are the caller's to describe."""
    caller = CALLERS[request["how"]](names, request)
    steps = []
    for step in request["steps"]:
        random.seed(step["seed"])
        np.random.seed(step["seed"] % 2**32)  # noqa: NPY002  what solutions draw from
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(step["seed"])
        with np.errstate(all="ignore"):  # the grader reports what is not finite
            steps.append(caller.step(step))
    return {"steps": steps, "modified": sorted(caller.modified)}


class Arrays:
    """What the ways on arrays have in common: arguments are copies, and are compared afterwards."""

    def __init__(self, names: Mapping[str, Any], request: Request) -> None:
        self.functions = [names[name] for name in request["defines"]]
        self.input_names = request["inputs"]
        self.modified: set[str] = set()
        self.rest: list[Any] | None = None
        self.state_names = request["state"]

    def step(self, step: Mapping[str, Any]) -> Answer:
        inputs = [x.copy() for x in step["inputs"]]
        self._update_rest(step["rest"])
        g = None if step["cotangent"] is None else step["cotangent"].copy()
        out, gradients = self.passes(inputs, self.rest or [], g)
        self._compare(step, inputs, g)
        return {
            "out": as_array(out, "the output"),
            "gradients": None if gradients is None else as_gradients(gradients),
            "cut": [],
            "state": self._state(),
        }

    def passes(self, inputs: list, rest: list, g: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def _update_rest(self, rest: list[Any]) -> None:
        """Dicts stay the same objects in all steps: a solution keeps running statistics there."""
        if self.rest is None:
            self.rest = rest
        for i, value in enumerate(rest):
            if isinstance(value, dict):
                self.rest[i].update(value)
            else:
                self.rest[i] = value

    def _compare(self, step: Mapping[str, Any], inputs: list, g: Any) -> None:
        for name, before, after in zip(self.input_names, step["inputs"], inputs, strict=True):
            if before.shape != after.shape or before.tobytes() != after.tobytes():
                self.modified.add(name)
        if g is not None and g.tobytes() != step["cotangent"].tobytes():
            self.modified.add("the gradient of the output")

    def _state(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for holder in self.rest or []:
            if isinstance(holder, dict):
                found |= {
                    name: as_array(holder[name], name)
                    for name in self.state_names
                    if holder.get(name) is not None
                }
        return found


class Pair(Arrays):
    def passes(self, inputs: list, rest: list, g: Any) -> tuple[Any, Any]:
        name = self.functions[0].__name__
        out, cache = two(self.functions[0](*inputs, *rest), f"{name} must return (out, cache)")
        return out, None if g is None else self.functions[1](g, cache)


class Loss(Arrays):
    def passes(self, inputs: list, rest: list, g: Any) -> tuple[Any, Any]:
        name = self.functions[0].__name__
        loss, *grads = _tuple(self.functions[0](*inputs, *rest))
        if len(grads) != len(inputs):
            raise FormError(
                f"{name} must return (loss, {', '.join('d' + x for x in self.input_names)})"
            )
        return loss, None if g is None else [g * as_array(d, "a gradient") for d in grads]


class Vjp(Arrays):
    def passes(self, inputs: list, rest: list, g: Any) -> tuple[Any, Any]:
        f, vjp = self.functions[0], self.functions[-1]
        return f(*inputs, *rest), None if g is None else vjp(g, *inputs, *rest)


class ContextClass(Arrays):
    def passes(self, inputs: list, rest: list, g: Any) -> tuple[Any, Any]:
        ctx = Context()
        function = self.functions[0]
        out = function.forward(ctx, *inputs, *rest)
        if g is None:
            return out, None
        gradients = _tuple(function.backward(ctx, g))
        return out, gradients[: len(inputs)]  # what follows belongs to the settings


class Graph:
    """Tensors of any library that records a graph: minibn's, PyTorch's, the solution's own."""

    def __init__(self, names: Mapping[str, Any], request: Request) -> None:
        self.framework = request["library"]
        self.names = names
        self.input_names = request["inputs"]
        self.modified: set[str] = set()
        self.state_names = request["state"]
        self.parameters = request["parameters"]  # input's name -> names of the attribute
        thing = names[request["defines"][0]]
        self.function = getattr(thing, "apply", thing)  # of an autograd.Function

    def step(self, step: Mapping[str, Any]) -> Answer:
        tensors = [self.tensor(x) for x in step["inputs"]]
        out = self.forward(tensors, step)
        g, cut = step["cotangent"], []
        gradients: list[Any] | None = None
        if g is not None:
            reached = hasattr(out, "backward") and getattr(out, "requires_grad", True) is not False
            if reached:
                self.backward(out, g)
            grads = [getattr(t, "grad", None) for t in tensors]
            cut = [i for i, d in enumerate(grads) if d is None or not reached]
            gradients = [
                None if i in cut else numbers(d, "a gradient") for i, d in enumerate(grads)
            ]
            for i, name in enumerate(self.input_names):
                if name in self.parameters and i not in cut:  # a bias of (1, C), say
                    gradients[i] = gradients[i].reshape(step["inputs"][i].shape)
        for name, before, tensor in zip(self.input_names, step["inputs"], tensors, strict=True):
            after = numbers(tensor, name)
            if not np.array_equal(after.ravel(), before.ravel().astype(after.dtype)):
                self.modified.add(name)
        out = as_array(numbers(out, "the output"), "the output")
        return {"out": out, "gradients": gradients, "cut": cut, "state": self.state()}

    def tensor(self, x: np.ndarray) -> Any:
        if self.framework == "torch":
            import torch

            t = torch.tensor(x)
            return t.requires_grad_() if x.dtype.kind == "f" else t
        if self.framework == "minibn":
            return sys.modules["minibn"].Tensor(x.copy(), requires_grad=True)
        make = self.names.get("Tensor")
        if make is None:
            raise FormError("the style needs a class Tensor in the solution: define or import it")
        if x.dtype.kind != "f":
            return make(x.copy())
        try:
            return make(x.copy(), requires_grad=True)
        except TypeError:
            return make(x.copy())

    def setting(self, value: Any) -> Any:
        """An array among the settings, such as labels, as the library takes it."""
        if isinstance(value, np.ndarray) and self.framework != "minibn":
            return self.tensor(value) if self.framework == "own" else _torch_constant(value)
        return value

    def forward(self, tensors: list, step: Mapping[str, Any]) -> Any:
        rest = [self.setting(value) for value in step["rest"]]
        keywords = {key: self.setting(value) for key, value in step["keywords"].items()}
        return self.function(*tensors, *rest, **keywords)

    def backward(self, out: Any, g: np.ndarray) -> None:
        if self.framework == "torch":
            import torch

            out.backward(torch.tensor(g).reshape(out.shape).to(out.dtype))
        elif self.framework == "minibn":
            out.backward(g)
        else:
            out.backward(g.reshape(np.shape(numbers(out, "the output"))))

    def state(self) -> dict[str, Any]:
        return {}


class Layer(Graph):
    """A class of the solution: an object of it is made once, and used in all steps."""

    def __init__(self, names: Mapping[str, Any], request: Request) -> None:
        super().__init__(names, request)
        sizes = [tuple(x) if isinstance(x, list) else x for x in request["construct"]]
        self.layer = names[request["defines"][0]](*sizes)

    def forward(self, tensors: list, step: Mapping[str, Any]) -> Any:
        training = step["mode"] == "train"
        switch = getattr(self.layer, "train" if training else "eval", None)
        if callable(switch):
            switch()
        else:
            self.layer.training = training
        free = []
        for i, name in enumerate(self.input_names):
            if name not in self.parameters:
                free.append(tensors[i])
                continue
            attribute = next((a for a in self.parameters[name] if hasattr(self.layer, a)), None)
            if attribute is None:
                wanted = " or ".join(self.parameters[name])
                raise FormError(f"the layer has no parameter {wanted}")
            tensors[i] = self._set(attribute, tensors[i])
        call = self.layer if callable(self.layer) else self.layer.forward
        rest = [self.setting(value) for value in step["rest"]]
        if self.framework == "own":
            takes = inspect.signature(self.layer.forward).parameters
            if "training" in takes:
                return call(*free, *rest, training=training)
        return call(*free, *rest)

    def _set(self, attribute: str, tensor: Any) -> Any:
        """The layer's own parameter, with the values of `tensor` and no gradient."""
        parameter = getattr(self.layer, attribute)
        if self.framework == "torch":
            import torch

            parameter = torch.nn.Parameter(tensor.detach().reshape(parameter.shape))
            setattr(self.layer, attribute, parameter)
            return parameter
        if parameter is None:
            setattr(self.layer, attribute, tensor)
            return tensor
        parameter.data = tensor.data.reshape(np.shape(parameter.data))
        parameter.grad = None
        return parameter

    def state(self) -> dict[str, Any]:
        held = {name: getattr(self.layer, name, None) for name in self.state_names}
        return {name: numbers(x, name) for name, x in held.items() if x is not None}


CALLERS: dict[str, Callable[..., Any]] = {
    "pair": Pair, "loss": Loss, "vjp": Vjp, "context": ContextClass, "graph": Graph, "layer": Layer,
}  # fmt: skip


def _torch_constant(value: np.ndarray) -> Any:
    import torch

    return torch.tensor(value)


def _tuple(x: Any) -> tuple:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def two(x: Any, rule: str) -> tuple[Any, Any]:
    if not (isinstance(x, (tuple, list)) and len(x) == 2):
        raise FormError(f"{rule}, and it returns a {type(x).__name__}")
    return x[0], x[1]


def numbers(x: Any, what: str) -> np.ndarray:
    """The array in a tensor of any library."""
    if hasattr(x, "detach"):
        x = x.detach()
    if hasattr(x, "cpu"):
        x = x.cpu()
    if hasattr(x, "numpy") and callable(x.numpy):
        x = x.numpy()
    elif not isinstance(x, np.ndarray) and hasattr(x, "data") and not np.isscalar(x):
        x = x.data
    return as_array(x, what)


def as_array(x: Any, what: str) -> np.ndarray:
    """Raises FormError unless x is numeric."""
    if x is None:
        raise FormError(f"{what} is None: is a `return` missing?")
    try:
        array = np.asarray(x)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biufc":
        raise FormError(f"{what} is a {type(x).__name__}, not an array of numbers")
    return array


def as_gradients(gradients: Any) -> list[np.ndarray | None]:
    return [None if d is None else as_array(d, "a gradient") for d in _tuple(gradients)]
