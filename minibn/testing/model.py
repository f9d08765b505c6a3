"""`check_model`: a whole network's gradients, parameter by parameter.

Each forward pass moves BatchNorm's running statistics and the counters of noise and dropout, so two
passes evaluate two functions, and their difference is no derivative. Here every evaluation starts
from the same buffers and generators, and afterwards all is as before, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minibn.autograd.backward import grad
from minibn.autograd.tape import set_grad_enabled
from minibn.autograd.tensor import Tensor, value
from minibn.backend import backend_of, to_numpy
from minibn.errors import did_you_mean
from minibn.nn.module import Module
from minibn.nn.state import Parameter, State
from minibn.testing.check import check_vjp
from minibn.testing.report import GradReport, without_listeners

ENTRIES = 4  # a parameter with as many is compared entry by entry, at a forward pass each
STARTS = (5e-6,)  # of the differences: a larger step would cross the kinks of some ReLU


def check_model(
    model: Module,
    loss: Callable[..., Any],
    batch: Any,
    *,
    dtype: Any = np.float64,
    seed: int = 0,
    zero_gradient: Collection[str] = (),
    raises: bool = True,
) -> GradReport:
    """Compare the gradient of `loss(model(x), *rest)` with oracles, for every parameter and for x.

    batch   (x, *rest), for instance (images, labels), or x alone
    dtype   in which the gradient is computed; the oracles are in float64 at the same numbers
    zero_gradient  names of parameters whose gradient is zero, such as a bias before BatchNorm

    The model is checked in its present mode, with the same noise and masks in every evaluation.
    Parameters, buffers, gradients and generators are afterwards as before. The report has a line
    for each parameter. Raises as `check_vjp` does, and ValueError for an unknown parameter.

    >>> from minibn import nn, ops
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.ReLU()).initialize(seed=0)
    >>> x = np.random.default_rng(0).standard_normal((5, 3))
    >>> report = check_model(model, ops.mse, (x, np.ones((5, 4))), zero_gradient=["0.bias"])
    >>> print(report.line_of("1.gamma").partition(":")[0])
    1.gamma  (4,) float64
    """
    __tracebackhide__ = True
    x, *rest = batch if isinstance(batch, (tuple, list)) else (batch,)
    first_names = {id(p): name for name, p in reversed(list(model.named_parameters()))}
    parameters = model.parameters()  # a shared one is there once
    names = [first_names[id(p)] for p in parameters]
    if isinstance(zero_gradient, str):
        zero_gradient = [zero_gradient]
    flat = [_position(name, names) for name in zero_gradient]
    images = np.asarray(to_numpy(value(x)))
    moving = [np.asarray(to_numpy(p.data)).astype(dtype) for p in parameters]
    if images.dtype.kind == "f":
        names, moving = [*names, "x"], [*moving, images.astype(dtype)]

    def forward(arrays: Sequence[np.ndarray]) -> tuple[list[Tensor], Any]:
        device = backend_of(parameters[0].data) if parameters else backend_of(value(x))
        for p, array in zip(parameters, arrays, strict=False):
            p.data = device.asarray(array)
        given = arrays[len(parameters)] if len(arrays) > len(parameters) else images
        leaf = Tensor(device.asarray(given), requires_grad=given.dtype.kind in "fc")
        leaves: list[Tensor] = [*parameters, leaf][: len(arrays)]
        return leaves, loss(model(leaf), *rest)

    def f(*arrays: np.ndarray) -> np.ndarray:
        with _unchanged(model, np.result_type(*arrays)), set_grad_enabled(False):
            return np.asarray(to_numpy(value(forward(arrays)[1])))

    def vjp(g: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        with _unchanged(model, arrays[0].dtype), set_grad_enabled(True):
            leaves, y = forward(arrays)
            if not isinstance(y, Tensor):
                raise TypeError(
                    f"loss gives a {type(y).__name__}, not a Tensor: return the Tensor."
                )
            cotangent = backend_of(y.data).asarray(g.astype(y.dtype))
            return tuple(to_numpy(d) for d in grad(y, leaves, cotangent, unused="zeros"))

    with without_listeners():
        report = check_vjp(
            f, vjp, *moving, name=f"{type(model).__name__}, {len(names)} parameters and inputs",
            seed=seed, zero_gradient=flat, entries=ENTRIES, starts=STARTS, composite=True,
            raises=False,
            diagnose=False,
        )  # fmt: skip
    for entry in report.inputs:
        entry.name = names[entry.position]
    return report.settle(raises)


def _position(name: str, names: list[str]) -> int:
    if name not in names:
        hint = did_you_mean(name, names)
        raise ValueError(f"check_model: no parameter is called {name!r}. {hint}")
    return names.index(name)


@contextmanager
def _unchanged(model: Module, dtype: Any) -> Iterator[None]:
    """Inside, the model may compute with other parameters, in another dtype; afterwards its arrays,
    their values and its generators are as before."""
    states = [state for _, state in _states(model)]
    arrays = [state.data for state in states]
    plain = [(module, _plain(module)) for module in _modules(model)]
    generators = [g for module in _modules(model) for g in _generators(module)]
    positions = [g.bit_generator.state for g in generators]
    legacy = np.random.get_state()  # noqa: NPY002  # a layer may use it
    for state, array in zip(states, arrays, strict=True):
        if not isinstance(state, Parameter):
            state.data = array.astype(dtype) if array.dtype.kind == "f" else array.copy()
    try:
        yield
    finally:
        for state, array in zip(states, arrays, strict=True):
            state.data = array
        for module, values in plain:
            vars(module).update(values)
        for g, position in zip(generators, positions, strict=True):
            g.bit_generator.state = position
        np.random.set_state(legacy)  # noqa: NPY002  # as above


def _modules(model: Module) -> list[Module]:
    return [module for _, module in model.named_modules()]


def _states(model: Module) -> list[tuple[str, State]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _plain(module: Module) -> dict[str, Any]:
    """Attributes that a forward pass may count up."""
    return {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str))}


def _generators(module: Module) -> list[np.random.Generator]:
    """NumPy's generators among the attributes, also in lists."""
    values: list[Any] = []
    for v in vars(module).values():
        values += v if isinstance(v, (list, tuple)) else [v]
    return [v for v in values if isinstance(v, np.random.Generator)]
