"""`check_torch`: the gradients of a module, an autograd.Function or any function of PyTorch.

Every evaluation starts from the same state: parameters, buffers, the generators of PyTorch, NumPy
and Python. Afterwards all is as before, the `.grad` of tensors too: the check computes on copies.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minibn.testing.adapters.packages import package
from minibn.testing.arguments import check_leaves, name_of
from minibn.testing.check import check_vjp
from minibn.testing.containers import Mismatch, paths, rebuild
from minibn.testing.diagnosis.call_script import call_script
from minibn.testing.libraries import as_numpy, like
from minibn.testing.model import ENTRIES, STARTS
from minibn.testing.report import GradReport

CUT = (
    "look for .detach(), .data, .item(), .numpy(), torch.no_grad() or torch.tensor(...) of a "
    "tensor on the way"
)
ALONE = 16  # of so many inputs each is tried as the only one that requires grad
SEED = 0  # of PyTorch's generators in every evaluation


def check_torch(fn: Callable[..., Any], *tensors: Any, **keywords: Any) -> GradReport:
    """Compare the gradients that PyTorch computes with derivatives computed from values.

    fn       a Module: its parameters are checked too, by name, in its present mode; a subclass of
             torch.autograd.Function: its `apply`; or any function (keyword arguments of fn by
             functools.partial)
    tensors  what fn is called with: tensors, also in dicts, lists and tuples, on any device, and
             anything else, which is passed on. Those of floats or complex numbers are
             differentiated, or those that wrt= names. fn gets tensors of their strides
    keywords  those of `check_vjp`; wrt= and zero_gradient= take names of parameters as well

    A fn of float32 is judged against itself in float64, where it can compute so, or else against
    its own values in float32. Raises as `check_vjp` does; ImportError without PyTorch. A graph that
    is cut is a failure that says so.

    >>> import torch                                                       # doctest: +SKIP
    >>> check_torch(torch.nn.Linear(3, 2), torch.randn(4, 3)).passed      # doctest: +SKIP
    True
    """
    torch = package("torch", "check_torch")
    call = TorchCall(torch, fn, tensors)
    arguments: tuple[Any, ...] = (call.parameters, *tensors) if call.parameters else tensors
    shift = bool(call.parameters)
    if shift:
        for keyword in ("wrt", "zero_gradient"):
            if (chosen := keywords.get(keyword)) is not None:
                chosen = [chosen] if isinstance(chosen, (int, str)) else chosen
                keywords[keyword] = [i + 1 if isinstance(i, int) and i >= 0 else i for i in chosen]
        keywords = {"composite": True, "entries": ENTRIES, "starts": STARTS} | keywords
    call.find_precision(arguments)
    title = f"The gradient of {name_of(fn)}: is it right?"
    script = partial(call_script, "check_torch", {"fn": fn}, tensors, {}, title)
    return check_leaves(
        check_vjp, call.value, call.vjp, arguments, only=call.can_move, finish=call.finish,
        labels=partial(_label, shift),
        **({"name": name_of(fn), "reproduce": lambda *point: script()} | keywords),
    )  # fmt: skip


def _label(shift: bool, label: str) -> str:
    """Parameters by their names, and the inputs counted without them."""
    if not shift:
        return label
    if label.startswith("input 0['"):
        return label[len("input 0['") :].replace("']", "", 1)
    number, _, path = label.removeprefix("input ").partition("[")
    return f"input {int(number) - 1}" + (f"[{path}" if path else "")


class TorchCall:
    """A function of PyTorch with what its evaluations need and change."""

    def __init__(self, torch: Any, fn: Callable[..., Any], tensors: Sequence[Any]) -> None:
        self.torch, self.fn = torch, fn
        self.name = name_of(fn)
        is_function = inspect.isclass(fn) and issubclass(fn, torch.autograd.Function)
        self.apply = fn.apply if is_function else fn  # type: ignore[attr-defined]
        inner, self.before, self.keywords = _without_partial(fn)
        self.module = inner if isinstance(inner, torch.nn.Module) else None
        self.parameters: dict[str, Any] = {}
        if self.module is not None:
            self.parameters = {
                name: p for name, p in self.module.named_parameters() if p.requires_grad
            }
        self.modules = _modules_of(torch, fn)
        self.given = [*paths(tuple(tensors)), *paths(self.parameters)]
        self.own = {id(x) for _, x in self.given}
        self.dtypes: dict[str, Any] = {}  # of the leaves, if fn computes in these alone
        self.needs_grad = False  # fn differentiates inside
        self.why = ""
        self.unused: set[str] = set()
        self.faults: list[str] | None = None

    def label(self, path: str) -> str:
        """The name of the leaf with this path in the tuple of the arguments."""
        return _label(bool(self.parameters), "input " + path[1:].replace("]", "", 1))

    def can_move(self, x: Any) -> bool:
        return isinstance(x, self.torch.Tensor) and (x.is_floating_point() or x.is_complex())

    # -- evaluations

    def run(self, arguments: Sequence[Any]) -> Any:
        """fn; a module with these parameters in the place of its own."""
        if self.module is None:
            return self.apply(*arguments)
        parameters, *inputs = arguments if self.parameters else ({}, *arguments)
        return self.torch.func.functional_call(
            self.module, parameters, (*self.before, *inputs), self.keywords
        )

    def _dtype(self, arguments: Sequence[Any]) -> Any:
        """The most exact precision among the arguments."""
        given = [x for _, x in paths(tuple(arguments)) if self.can_move(x)]
        names = [self.torch.finfo(x.dtype).dtype for x in given]  # of the parts of complex ones
        widest = max(names, key=lambda name: int(name[5:]), default="float64")
        return getattr(self.torch, widest)

    def _copy(self, buffer: Any, dtype: Any) -> Any:
        floats = buffer.is_floating_point()
        return buffer.detach().to(dtype, copy=True) if floats else buffer.detach().clone()

    def value(self, *arguments: Any) -> Any:
        arguments = self._in_own_precision(arguments)
        if self.needs_grad:
            arguments, _ = self._with_leaves(arguments)
        with self.unchanged(arguments), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Casting complex values to real": the check sees it
            with self.torch.set_grad_enabled(self.needs_grad):
                return self.run(arguments)

    def vjp(self, g: Any, *arguments: Any) -> list[Any]:
        """The gradients of all leaves that move, in the structure of the arguments. Raises Mismatch
        if the graph is cut."""
        gradients = self._gradients(g, arguments)
        if self.faults is None and len(gradients) <= ALONE:
            self.faults = self._differ_alone(g, arguments, gradients)
        self.unused = {path for path, d in gradients.items() if d is None}
        every = [gradients.get(path) for path, _ in paths(tuple(arguments))]
        return list(rebuild(tuple(arguments), iter(every)))

    def _gradients(
        self, g: Any, arguments: Sequence[Any], only: str | None = None
    ) -> dict[str, Any]:
        """The gradients of all leaves that move, by path; or of `only` one that requires grad."""
        arguments, leaves = self._with_leaves(arguments)
        if only is not None:
            for path, leaf in leaves.items():
                leaf.requires_grad_(path == only)
            leaves = {only: leaves[only]}
        with self.torch.enable_grad(), self.unchanged(arguments):
            return self._pull(self.run(arguments), g, leaves)

    def _differ_alone(
        self, g: Any, arguments: Sequence[Any], together: dict[str, Any]
    ) -> list[str]:
        """A backward that reads ctx.needs_input_grad may be wrong for one input alone."""
        faults = []
        for path, expected in together.items() if len(together) > 1 else ():
            if expected is None:
                continue
            label = self.label(path)
            try:
                alone = self._gradients(g, arguments, path)[path]
            except Exception as error:  # whatever a backward raises that expects more inputs
                faults.append(
                    f"{label}: {type(error).__name__} where no other input requires grad: {error}"
                )
                continue
            eps = self.torch.finfo(expected.dtype).eps
            gap = (alone - expected).abs() if alone is not None else expected.abs()
            if expected.numel() and not gap.max() <= 1e3 * eps * expected.abs().max():
                faults.append(
                    f"{label}: the gradient is another one where no other input requires grad: "
                    "does backward read ctx.needs_input_grad?"
                )
        return faults

    def _pull(self, y: Any, g: Any, leaves: dict[str, Any]) -> dict[str, Any]:
        pairs = [
            (out, c) for (_, out), (_, c) in zip(paths(y), paths(g), strict=True) if c is not None
        ]
        for out, _ in pairs:
            if not isinstance(out, self.torch.Tensor):
                raise Mismatch(
                    f"the graph is cut: {self.name} gives a {type(out).__name__}, not a tensor; "
                    f"{CUT}"
                )
        pairs = [(out, c) for out, c in pairs if out.requires_grad]
        if not pairs:
            raise Mismatch(
                f"the graph is cut: the output of {self.name} does not require grad, so that no "
                f"gradient reaches any input; {CUT}"
            )
        outs, cotangents = zip(*pairs, strict=True)
        found = self.torch.autograd.grad(outs, list(leaves.values()), cotangents, allow_unused=True)
        return dict(zip(leaves, found, strict=True))

    def _with_leaves(self, arguments: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(the arguments, with those that move as leaves of a graph; these by path)."""
        found = paths(tuple(arguments))
        leaves = {
            path: x.detach().requires_grad_()
            for path, x in found
            if id(x) not in self.own and self.can_move(x)
        }
        return rebuild(tuple(arguments), iter([leaves.get(path, x) for path, x in found])), leaves

    # -- precision

    def find_precision(self, arguments: Sequence[Any]) -> None:
        """Can fn be evaluated in float64, and does it then compute the same function?"""
        torch = self.torch
        found = paths(tuple(arguments))
        values = [np.array(as_numpy(x)) if self.can_move(x) else None for _, x in found]
        here = self._with_values(arguments, values)
        try:
            low = self.value(*here)
        except RuntimeError as error:
            if "grad" not in str(error):
                raise
            self.needs_grad = True  # it calls torch.autograd.grad
            low = self.value(*here)
        coarse = {
            path: x.dtype
            for path, x in found
            if self.can_move(x) and torch.finfo(x.dtype).bits < 64
        }
        if not coarse:
            return
        exact = [x if x is None else x.astype(np.result_type(x, np.float64)) for x in values]
        try:
            high = self.value(*self._with_values(arguments, exact))
            differ = self._differ(low, high)
        except Exception as error:  # whatever fn raises for numbers that it was not written for
            self.why = f"in float64 it raises {type(error).__name__}"
        else:
            self.why = "in float64 it has other values (random numbers?)" if differ else ""
        if self.why:
            self.dtypes = coarse

    def _with_values(self, arguments: Sequence[Any], values: Sequence[Any]) -> tuple[Any, ...]:
        leaves = [x for _, x in paths(tuple(arguments))]
        new = [x if v is None else like(v, x) for x, v in zip(leaves, values, strict=True)]
        return rebuild(tuple(arguments), iter(new))

    def _differ(self, low: Any, high: Any) -> bool:
        for (_, a), (_, b) in zip(paths(low), paths(high), strict=True):
            if self.can_move(a):
                eps = self.torch.finfo(a.dtype).eps
                gap = (a - b).abs().max() if a.numel() else 0
                if not gap <= 10 * eps**0.5 * (b.abs().max() if b.numel() else 1):
                    return True
        return False

    def _in_own_precision(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        if not self.dtypes:
            return tuple(arguments)
        found = paths(tuple(arguments))
        if any(
            self.can_move(x) and x.is_complex() != self.dtypes[p].is_complex
            for p, x in found
            if p in self.dtypes
        ):
            raise TypeError(f"{self.name} computes in its own precision: no complex step")
        own = [x.to(self.dtypes[path]) if path in self.dtypes else x for path, x in found]
        return rebuild(tuple(arguments), iter(own))

    # -- state

    @contextmanager
    def unchanged(self, arguments: Sequence[Any]) -> Iterator[None]:
        """Inside, the modules that fn uses compute in the precision of the arguments, with copies
        of their buffers; afterwards they and the generators are as before."""
        torch = self.torch
        saved = [
            (m, m._buffers, _numbers(m), [(p, p.data) for p in m.parameters(recurse=False)])
            for module in self.modules
            for m in module.modules()
        ]
        dtype = self._dtype(arguments)
        generators = [torch.default_generator]
        if any(isinstance(x, torch.Tensor) and x.is_cuda for _, x in self.given):
            generators += torch.cuda.default_generators
        states = [g.get_state() for g in generators]
        legacy, python = np.random.get_state(), random.getstate()  # noqa: NPY002  # fn may use it
        try:
            for module, buffers, _, parameters in saved:
                module._buffers = {
                    k: b if b is None else self._copy(b, dtype) for k, b in buffers.items()
                }
                for p, data in parameters:
                    if data.is_floating_point() and data.dtype != dtype:
                        p.data = data.to(dtype)
            for g in generators:
                g.manual_seed(SEED)
            yield
        finally:
            for module, buffers, numbers, parameters in saved:
                module._buffers = buffers
                for key in _numbers(module).keys() - numbers.keys():  # it has hidden the class's
                    delattr(module, key)
                vars(module).update(numbers)
                for p, data in parameters:
                    p.data = data
            for g, state in zip(generators, states, strict=True):
                g.set_state(state)
            np.random.set_state(legacy)  # noqa: NPY002  # as above
            random.setstate(python)

    def finish(self, report: GradReport) -> None:
        """Say which inputs no gradient has reached, and in which precision fn was judged."""
        if self.why:
            report.notes.append(
                f"{self.name} was evaluated in its own precision, since {self.why}: no more digits "
                "than these can be demanded."
            )
        report.faults += self.faults or []
        for label in sorted(map(self.label, self.unused)):
            for entry in report.inputs:
                if entry.label == label and not entry.passed:
                    report.notes.append(f"The graph is cut: no gradient reaches {label}; {CUT}.")


def _modules_of(torch: Any, fn: Any) -> list[Any]:
    """The modules that a function uses: its own, of its closure, of its globals, of a partial."""
    fn, args, keywords = _without_partial(fn)
    found = [fn, getattr(fn, "__self__", None), *args, *keywords.values()]
    try:
        names = inspect.getclosurevars(getattr(fn, "__func__", fn))
        found += [*names.nonlocals.values(), *names.globals.values()]
    except (TypeError, ValueError):  # a builtin
        pass
    unique = {id(x): x for x in found if isinstance(x, torch.nn.Module)}
    return list(unique.values())


def _without_partial(fn: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """(the function in a functools.partial, its first arguments, its keyword arguments)."""
    return (fn.func, fn.args, fn.keywords) if isinstance(fn, partial) else (fn, (), {})


def _numbers(module: Any) -> dict[str, Any]:
    """Attributes that a forward pass may count up."""
    return {
        k: v
        for k, v in vars(module).items()
        if isinstance(v, (bool, int, float)) and k != "training"
    }
