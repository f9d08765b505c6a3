"""The module machine's models and their twins: textbook formulas on NumPy copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.backend import to_numpy
from minibn.nn.layers import Conv2d, Flatten, GlobalAvgPool2d, Linear, ReLU
from minibn.nn.module import Module
from minibn.nn.noise import Dropout, Noise, RandomLayer
from minibn.nn.norm import BatchNorm
from minibn.nn.sequential import Sequential
from minibn.optim import SGD, Adam, Optimizer

States = dict[str, np.ndarray]


class Trap(Module):
    """The identity, until it is armed: then its forward raises."""

    armed = False

    def forward(self, x: Any) -> Any:
        if self.armed:
            raise ArithmeticError("on purpose")
        return x


def vectors(momentum: float | None) -> Sequential:
    """For batches (N, 3)."""
    return Sequential(
        first=Linear(3, 4, bias=False), norm=BatchNorm(4, momentum=momentum), relu=ReLU(),
        dropout=Dropout(0.4), trap=Trap(), last=Linear(4, 2),
    )  # fmt: skip


def images(momentum: float | None) -> Sequential:
    """For batches (N, 4, 3, 2); one BatchNorm is over images, one over vectors."""
    return Sequential(
        first=Conv2d(2, 3, 3, padding=1, bias=False), norm=BatchNorm(3, momentum=momentum),
        noise=Noise(), relu=ReLU(), pool=GlobalAvgPool2d(), trap=Trap(), flat=Flatten(),
        second=Linear(3, 4), norm2=BatchNorm(4, momentum=0.5), last=Linear(4, 2),
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[..., Sequential], tuple[int, ...]]] = {
    "vectors": (vectors, (3,)),
    "images": (images, (4, 3, 2)),
}


# -- the twins: textbook formulas on NumPy copies


class NaiveSGD:
    """v ← m v + g (the first v is g), w ← w - lr v."""

    def __init__(self) -> None:
        self.lr, self.momentum = 0.05, 0.9
        self.velocity: States = {}

    def optimizer(self, params: list) -> Optimizer:
        return SGD(params, lr=self.lr, momentum=self.momentum)

    def moved(self, name: str, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        self.velocity[name] = self.momentum * self.velocity.get(name, np.zeros_like(w)) + g
        return w - self.lr * self.velocity[name]

    def step(self) -> None:
        """Called before a step's first parameter."""


class NaiveAdam:
    """Algorithm 1 of Kingma & Ba (2015), word by word; m̂ and v̂ as sums over all gradients."""

    def __init__(self) -> None:
        self.lr, self.beta1, self.beta2, self.eps = 0.02, 0.8, 0.9, 1e-8
        self.t = 0
        self.gradients: dict[str, list[tuple[int, np.ndarray]]] = {}

    def optimizer(self, params: list) -> Optimizer:
        return Adam(params, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps)

    def moved(self, name: str, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        gradients = self.gradients.setdefault(name, [])
        k = len(gradients) + 1  # moments decay once for each gradient, bias once a step
        gradients.append((k, g))
        m = sum((1 - self.beta1) * self.beta1 ** (k - i) * g for i, g in gradients)
        v = sum((1 - self.beta2) * self.beta2 ** (k - i) * g * g for i, g in gradients)
        m_hat, v_hat = m / (1 - self.beta1**self.t), v / (1 - self.beta2**self.t)
        return w - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)

    def step(self) -> None:
        self.t += 1


class Statistics:
    """The moments of the training batches of one BatchNorm."""

    def __init__(self, channels: int, momentum: float | None) -> None:
        self.channels, self.momentum = channels, momentum
        self.means: list[np.ndarray] = []
        self.variances: list[np.ndarray] = []

    def add_batch(self, x: np.ndarray) -> None:
        rows = x.reshape(-1, self.channels)
        self.means.append(np.mean(rows, axis=0))
        self.variances.append(np.var(rows, axis=0, ddof=1))

    def running(self, start: float, batches: list[np.ndarray]) -> np.ndarray:
        """(1-m)^k · start + Σ m (1-m)^(k-i) · batch_i; without momentum, the plain average."""
        k, m = len(batches), self.momentum
        if m is None and k:
            return np.mean(batches, axis=0)
        value = np.full(self.channels, start)
        if m is not None:
            value = value * (1 - m) ** k
            for i, batch in enumerate(batches, start=1):
                value = value + m * (1 - m) ** (k - i) * batch
        return value


class Twin:
    """The expected state of a model. Copied with each save."""

    def __init__(self, model: Sequential, rule: NaiveSGD | NaiveAdam) -> None:
        self.rule = rule
        self.parameters = {n: to_numpy(p.data).copy() for n, p in model.named_parameters()}
        self.drawn = {n: 0 for n, m in model.named_modules() if isinstance(m, RandomLayer)}
        self.statistics = {
            n: Statistics(m.gamma.shape[0], m.momentum)
            for n, m in model.named_modules()
            if isinstance(m, BatchNorm)
        }

    def step(self, gradients: States) -> None:
        self.rule.step()
        for name, g in gradients.items():
            self.parameters[name] = self.rule.moved(name, self.parameters[name], g)


def same(actual: np.ndarray, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-10, err_msg=what)


def same_bits(actual: States, expected: States, what: str) -> None:
    assert actual.keys() == expected.keys(), f"{what}: {actual.keys() ^ expected.keys()}"
    for name, array in expected.items():
        assert array.dtype == actual[name].dtype, f"{what}: dtype of {name}"
        assert array.tobytes() == actual[name].tobytes(), f"{what}: {name} differs"
