"""Hand-written problems.

One small shape, standard normal numbers, gamma = 1 and beta = 0, no ties, equal shapes where two
arrays are combined, stride 1 or windows that tile: typical examples. Mutants are checked on them,
to find what such examples miss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minibn import ops
from suite.registry.case import Rng, here


def normal(f: Callable[..., Any], *shapes: tuple[int, ...], domain: Any = None):
    """Makes problems of f at standard normal arrays of these shapes."""

    def make(rng: Rng) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
        inputs = tuple(rng.standard_normal(shape) for shape in shapes)
        return f, (domain(inputs[0]), *inputs[1:]) if domain else inputs

    return make


def above_zero(x: np.ndarray) -> np.ndarray:
    return np.abs(x) + 0.5


def dropout(rng: Rng):
    draws = rng.random((3, 4))
    return lambda x: ops.dropout(x, 0.5, here(x, draws)), (rng.standard_normal((3, 4)),)


def choice(rng: Rng):
    mask = rng.random((3, 4)) < 0.5
    return lambda x, y: ops.where(here(x, mask), x, y), tuple(rng.standard_normal((2, 3, 4)))


def indexing(rng: Rng):
    index: Any = slice(1, 3) if rng.random() < 0.5 else [3, 0, 1]
    return lambda x: ops.getitem(x, index), (rng.standard_normal((4, 3)),)


def classification(rng: Rng):
    labels = rng.integers(0, 3, 4)
    return lambda x: ops.softmax_cross_entropy(x, labels), (rng.standard_normal((4, 3)),)


def untrained(op: Callable[..., Any]):
    """A normalisation that has not been trained: gamma = 1, beta = 0."""

    def make(rng: Rng):
        return op, (rng.standard_normal((4, 3, 5)), np.ones(5), np.zeros(5))

    return make


def inference(x, gamma, beta):
    return ops.batch_norm_inference(x, gamma, beta, here(x, np.zeros(5)), here(x, np.ones(5)))


def lp_norm(p: float):
    return untrained(lambda x, gamma, beta: ops.lp_batch_norm(x, gamma, beta, p=p))


def lp_inference(x, gamma, beta):
    fixed = here(x, np.zeros(5)), here(x, np.ones(5))
    return ops.lp_batch_norm_inference(x, gamma, beta, *fixed, p=1)


def untrained_without_beta(op: Callable[..., Any]):
    return lambda rng: (op, (rng.standard_normal((4, 3, 5)), np.ones(5)))


INDEX = np.array([5, 0, 2])
