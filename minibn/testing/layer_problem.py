"""A layer as a function of its input *and its parameters*, which is what is differentiated.

Each evaluation of it starts from the same running statistics and the same draws, and leaves the
layer as it was: otherwise a difference of two evaluations compares two functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minibn import nn
from minibn.autograd.tape import dtype_for_integers
from minibn.autograd.tensor import Tensor, value
from minibn.backend import backend_of
from minibn.nn.state import State
from minibn.testing.problem import Problem


@dataclass(frozen=True)
class LayerProblem:
    """A layer with float64 values, an input, and the seed of a check."""

    layer: nn.Module
    x: np.ndarray
    seed: int = 0

    @property
    def names(self) -> list[str]:
        """The names of the inputs of `problem`: "x", then the parameters'."""
        return ["x", *(name for name, _ in self.layer.named_parameters())]

    def problem(self) -> Problem:
        """The layer as a function of x and its parameters, at their present values."""
        values = [np.array(p.data) for p in self.layer.parameters()]
        f = partial(call, layer=self.layer)
        near = self.x + 1e-3 * np.random.default_rng(self.seed).standard_normal(self.x.shape)
        constant = np.array_equal(f(self.x, *values), f(near, *values))  # all dropped, all negative
        return Problem(f, (self.x, *values), self.seed, frozenset({0} if constant else ()))


def call(x: Any, *parameters: Any, layer: nn.Module) -> Any:
    """layer(x) with these values of its parameters, on x's backend; the layer keeps its own."""
    with substitute_parameters(layer, value(x), parameters):
        return layer(x)


@contextmanager
def substitute_parameters(layer: nn.Module, x: Any, parameters: Any) -> Iterator[None]:
    """Inside, the layer has these parameters, and copies of its buffers and counters."""
    values = {id(p): v for p, v in zip(layer.parameters(), parameters, strict=True)}
    dtypes = [x.dtype, *(value(p).dtype for p in parameters)]  # complex, if one is
    dtype = dtype_for_integers(dtypes) or np.result_type(*dtypes)
    before = [
        (module, key, state)
        for _, module in layer.named_modules()
        for key, state in vars(module).items()
        if isinstance(state, State)
    ]
    try:
        for module, key, state in before:
            trained = isinstance(state, nn.Parameter)
            vars(module)[key] = values[id(state)] if trained else copy_of_state(state, x, dtype)
        yield
    finally:
        for module, key, state in before:
            vars(module)[key] = state


def copy_of_state(state: State, x: Any, dtype: Any) -> Any:
    """A copy of a buffer or a counter; of a buffer, on x's backend and of this dtype."""
    if isinstance(state, nn.Counter):
        counter = nn.Counter()
        counter.place(state.data)
        return counter
    array = np.array(state.data)
    return Tensor(backend_of(x).asarray(array.astype(dtype)))
