"""Evaluation of a model at other values of its parameters, which leaves the model unchanged.

A measurement replaces weights, moves running statistics and draws noise. Inside `working_state` all
that happens to copies; `Module.preserved_state` restores the original values, bit for bit.

Also shared by the measurements: checks of their arguments, and inner products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from minibn.autograd.tensor import Tensor, value
from minibn.nn.module import Module
from minibn.nn.state import Parameter, State

Arrays = Mapping[str, Any]
Loss = Callable[[Any, Any], Any]  # (outputs, targets) -> a scalar Tensor
Batch = tuple[Any, Any]  # (x, targets)


def snapshot(model: Module) -> dict[str, Any]:
    """A copy of every parameter, buffer and counter by name, on the model's own backend."""
    return {name: state.data.copy() for name, state in _states(model)}


def _states(model: Module) -> Iterator[tuple[str, State]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


class WorkingState:
    """The values of a model, which may be replaced. See `working_state`."""

    def __init__(self, model: Module) -> None:
        self._states = dict(_states(model))
        self._buffers = {name: buffer.data for name, buffer in model.named_buffers()}

    def replace(self, values: Arrays) -> None:
        """Set these parameters to these arrays (the arrays themselves, not copies)."""
        for name, array in values.items():
            self._states[name].data = array

    def reset_buffers(self, to: Arrays | None = None) -> None:
        """Restore running statistics and counters to the first ones, or to the snapshot `to`: then
        every evaluation has the same statistics and draws the same noise."""
        values = self._buffers if to is None else to
        for name in self._buffers:
            self._states[name].data = values[name].copy()


@contextmanager
def working_state(model: Module) -> Iterator[WorkingState]:
    """Inside, the model is in training mode, on copies of its values, which may be replaced;
    afterwards it is unchanged (`Module.preserved_state`).

    Raises ValueError for a model without parameters that require a gradient.
    """
    if not trainable(model):
        raise ValueError(
            f"{type(model).__name__} has no parameter that requires a gradient: there is nothing "
            "to measure."
        )
    state = WorkingState(model)  # of the model's own arrays, which nothing inside touches
    with model.preserved_state(), model.mode(training=True):
        yield state


def trainable(model: Module) -> dict[str, Parameter]:
    """The parameters that require a gradient, each once, by (first) name."""
    unique = {id(p): (name, p) for name, p in reversed(list(model.named_parameters()))}
    return {name: p for name, p in reversed(unique.values()) if p.requires_grad}


def loss_of(model: Module, batch: Batch, loss: Loss, who: str) -> Tensor:
    """loss(model(x), targets) for the batch (x, targets).

    Raises ValueError, in the name of `who`, unless that is a scalar Tensor.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(f"{who}: batch is a {type(batch).__name__}; it must be (x, targets).")
    x, targets = batch
    y = loss(model(x), targets)
    if not isinstance(y, Tensor) or y.size != 1:
        kind = f"a Tensor of shape {y.shape}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{who}: the loss is {kind}; it must be a scalar Tensor.")
    return y


def check_decay(who: str, weight_decay: float) -> None:
    """Raise ValueError unless weight_decay is a finite number, 0 or more."""
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"{who}: weight_decay={weight_decay} must be a finite number, 0 or more.")


def inner(a: Sequence[Any], b: Sequence[Any]) -> float:
    """⟨a, b⟩ of two lists of arrays, in float64. One transfer from the backend."""
    total: Any = sum((x.astype("float64") * y).sum() for x, y in zip(a, b, strict=True))
    return float(total.item()) if a else 0.0


def norm(a: Sequence[Any]) -> float:
    """‖a‖₂ of a list of arrays."""
    return inner(a, a) ** 0.5


def arrays(tensors: Iterable[Any]) -> list[Any]:
    return [value(t) for t in tensors]
