"""The deep linear network's problem: the samples, the loss, the network of each variant."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.linear.settings import INITS, Settings, norm_of
from experiments.training.step import Task
from minibn import nn
from minibn.backend import get_backend
from minibn.random import generator
from reference_models.deep_linear import deep_linear

# Losses of the probes pass 1e15, and a network at the edge of stability amplifies rounding: in
# float32 a run would soon depend on its rounding. Most of a step's time is overhead of calls, so
# float64 costs little more.
DTYPE = np.float64


@dataclass(frozen=True)
class Problem:
    """The samples x (N, width) and the targets x A; always one batch."""

    x: np.ndarray
    targets: np.ndarray

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x, self.targets

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.x.tobytes() + self.targets.tobytes()).hexdigest()


def make_problem(s: Settings, seed: int) -> Problem:
    """x and A, normally distributed, drawn from the seed."""
    rng = generator(seed, "deep_linear")
    x = rng.standard_normal((s.samples, s.width)).astype(DTYPE)
    A = rng.standard_normal((s.width, s.width)).astype(DTYPE) * (s.target_std / s.width**0.5)
    return Problem(x, x @ A)


def rank_losses(s: Settings, data: Problem) -> list[float]:
    """The least loss of a linear map of rank 0, 1, ..., width: levels at which training lingers.

    With X = QR, ‖X P - X A‖ = ‖R P - Qᵀ X A‖, and the best R P of a rank keeps the largest singular
    values (Eckart & Young 1936). In a deep linear network these maps are saddles (Baldi & Hornik
    1989), and flat ones.
    """
    q = np.linalg.qr(data.x)[0]
    squares = np.linalg.svd(q.T @ data.targets, compute_uv=False) ** 2
    return [s.loss_scale * float(squares[rank:].sum()) for rank in range(len(squares) + 1)]


def task(s: Settings) -> Task:
    """scale · Σ (output - target)², over samples and units."""

    def prepare(x: np.ndarray, targets: np.ndarray) -> tuple[Any, Any]:
        return get_backend().asarray(x), get_backend().asarray(targets)

    def loss(outputs: Any, targets: Any) -> Any:
        error = outputs - targets
        return (error * error).sum() * s.loss_scale

    return Task(prepare, loss)


def network(s: Settings, variant: str, seed: int) -> nn.Sequential:
    """The variant's network, with weights drawn from the seed."""
    model = deep_linear(
        s.depth,
        s.width,
        norm=norm_of(variant),
        norm_output=s.norm_output,
        affine=not s.fixed_affine,
        init=INITS[s.init],
    )
    return model.initialize(seed, dtype=DTYPE)
