"""One training step: the task (inputs, loss, score), and the step as recorders read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from experiments.training.study import Run
from minibn import nn, ops
from minibn.autograd.tensor import value
from minibn.backend import get_backend
from minibn.data import normalize
from minibn.optim import Optimizer


class Feed(Protocol):
    """A source of the batch of each step, such as minibn.data.Batches."""

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Task:
    """What a network is trained for.

    prepare(inputs, targets) -> (x, targets) for the backend; loss(model(x), targets) -> a scalar
    Tensor; score(outputs, targets) -> a 0-d array; None: there is only the loss.
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


class Step:
    """A step that is about to be made: update `number` (from 0) of a run, with its batch."""

    def __init__(
        self,
        run: Run,
        model: nn.Sequential,
        optimizer: Optimizer,
        number: int,
        inputs: Any,
        targets: Any,
        task: Task = CLASSIFY,
    ) -> None:
        self.run, self.model, self.optimizer = run, model, optimizer
        self.number, self.task = number, task
        self._given: Callable[[], tuple[Any, Any]] = lambda: (inputs, targets)

    @classmethod
    def of(
        cls, feed: Feed, run: Run, model: Any, optimizer: Optimizer, number: int, task: Task
    ) -> Step:
        """One whose batch is fetched from `feed` when it is first read."""
        step = cls(run, model, optimizer, number, None, None, task)
        step._given = lambda: feed.batch(number)
        return step

    @cached_property
    def given(self) -> tuple[Any, Any]:
        """(inputs, targets) on the host, as the feed gives them."""
        return self._given()

    @property
    def inputs(self) -> Any:
        return self.given[0]

    @property
    def targets(self) -> Any:
        return self.given[1]

    @cached_property
    def batch(self) -> tuple[Any, Any]:
        """(x, targets) as the network gets them."""
        return self.task.prepare(*self.given)


def one_step(
    model: nn.Module,
    optimizer: Optimizer,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task = CLASSIFY,
) -> tuple[Any, Any]:
    """One update. Returns (loss, score) before it, as 0-d arrays of the backend (score or None)."""
    return update(model, optimizer, *task.prepare(inputs, targets), task)


def update(
    model: nn.Module, optimizer: Optimizer, x: Any, targets: Any, task: Task
) -> tuple[Any, Any]:
    """`one_step` from a batch as the network gets it."""
    outputs = model(x)
    loss = task.loss(outputs, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.data, None if task.score is None else task.score(outputs, targets)
