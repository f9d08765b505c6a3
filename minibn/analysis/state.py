"""To look at a model elsewhere than where it stands, and leave no trace.

A measurement replaces weights, moves running statistics and draws noise. Inside `held` all that
happens to copies: the model's own arrays are put aside, and afterwards every parameter, buffer,
counter, gradient and mode is the object that it was, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from minibn.nn.module import Module, Parameter, State
from minibn.tape import value

Arrays = Mapping[str, Any]


def snapshot(model: Module) -> dict[str, Any]:
    """A copy of every parameter, buffer and counter by name, on the model's own backend."""
    return {name: state.data.copy() for name, state in _states(model)}


def _states(model: Module) -> Iterator[tuple[str, State]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


class Held:
    """A model whose values may be replaced. See `held`."""

    def __init__(self, model: Module) -> None:
        self._states = dict(_states(model))
        self._kept = {name: state.data for name, state in self._states.items()}

    def put(self, values: Arrays) -> None:
        """Let these parameters be these arrays (the arrays themselves, not copies)."""
        for name, array in values.items():
            self._states[name].data = array

    def rewind(self, to: Arrays | None = None) -> None:
        """Running statistics and counters again as they were at first, or as in the snapshot `to`:
        so that one evaluation after another sees the same statistics and draws the same noise."""
        kept = self._kept if to is None else to
        for name, state in self._states.items():
            if not isinstance(state, Parameter):
                state.data = kept[name].copy()

    def _give_back(self) -> None:
        for name, state in self._states.items():
            state.data = self._kept[name]


@contextmanager
def held(model: Module) -> Iterator[Held]:
    """Inside, the model is in training mode and its values may be replaced; see the module.

    Raises ValueError for a model without parameters.
    """
    states = [state for _, state in _states(model)]
    if not any(isinstance(state, Parameter) for state in states):
        raise ValueError(f"{type(model).__name__} has no parameters: there is nothing to measure.")
    hold, grads = Held(model), [state.grad for state in states]
    try:
        hold.put({name: state.data.copy() for name, state in _states(model)})
        with model.mode(training=True):
            yield hold
    finally:
        hold._give_back()
        for state, g in zip(states, grads, strict=True):
            state.grad = g


def inner(a: Sequence[Any], b: Sequence[Any]) -> float:
    """⟨a, b⟩ of two lists of arrays, accumulated in float64. One transfer from the backend."""
    total: Any = sum((x * y).sum(dtype="float64") for x, y in zip(a, b, strict=True))
    return float(total.item())


def norm(a: Sequence[Any]) -> float:
    """‖a‖₂ of a list of arrays."""
    return inner(a, a) ** 0.5


def arrays(tensors: Iterable[Any]) -> list[Any]:
    return [value(t) for t in tensors]
