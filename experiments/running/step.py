"""One training step, as experiments see it: what is minimised, and what a recorder may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from experiments.running.study import Run
from minibn import nn, ops
from minibn.backend import get_backend
from minibn.data import normalize
from minibn.optim import Optimizer
from minibn.tape import value


@dataclass(frozen=True)
class Task:
    """What a network is trained for.

    prepare(inputs, targets) -> (x, targets) for the backend; loss(model(x), targets) -> a scalar
    Tensor; score(outputs, targets) -> a 0-d array, or None where there is nothing but the loss.
    """

    prepare: Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
    loss: Callable[[Any, Any], Any]
    score: Callable[[Any, Any], Any] | None = None


def _accuracy(logits: Any, labels: np.ndarray) -> Any:
    """The share of right answers."""
    right = value(logits).argmax(axis=1) == get_backend().asarray(labels)
    return right.astype(logits.dtype).mean()


CLASSIFY = Task(
    prepare=lambda images, labels: (normalize(get_backend().asarray(images)), labels),
    loss=ops.softmax_cross_entropy,
    score=_accuracy,
)


@dataclass
class Step:
    """A step that is about to be made: update `number` (from 0) of a run, with its batch."""

    run: Run
    model: nn.Sequential
    optimizer: Optimizer
    number: int
    inputs: np.ndarray
    targets: np.ndarray
    task: Task = CLASSIFY

    @cached_property
    def batch(self) -> tuple[Any, Any]:
        """(x, targets) as the network gets them."""
        return self.task.prepare(self.inputs, self.targets)


def one_step(
    model: nn.Module,
    optimizer: Optimizer,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task = CLASSIFY,
) -> tuple[Any, Any]:
    """One update. Returns (loss, score) before it, as 0-d arrays of the backend (score or None)."""
    x, targets = task.prepare(inputs, targets)
    outputs = model(x)
    loss = task.loss(outputs, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.data, None if task.score is None else task.score(outputs, targets)
