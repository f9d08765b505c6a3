"""What is timed, and our side of it: training steps and single layers of VGG.

A step is zero_grad, forward, backward and the update by SGD. The input is random and fixed, in
float32, on the network's device and in the layout that the library prefers: its conversion is not
timed. The learning rate is small, so that the weights stay close to the initial ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import minibn
from experiments.benchmarking.timing import Contender
from experiments.vgg.settings import VARIANTS
from minibn import nn, ops, optim
from minibn.autograd.profiling import part
from minibn.autograd.tensor import value
from minibn.backend import get_backend
from reference_models.vgg import vgg

LEARNING_RATE = 1e-3
AGREEMENT = 1e-4  # of first losses, relative; of a layer's outputs, relative to the largest
# Looser where factors are rounded, since libraries sum in different orders.
ROUNDED = {"fp32": AGREEMENT, "tf32": 1e-3, "bf16": 2e-2}
SEED = 0
OURS = "minibn"


class Disagreement(Exception):
    """Contenders compute different things, so that their times mean nothing."""


@dataclass(frozen=True)
class Case:
    """A network, a batch size, and how it is trained."""

    model: str
    variant: str = "batchnorm"
    batch: int = 128
    width: float = 1.0
    precision: str = "fp32"  # of the factors of products
    momentum: float = 0.0
    weight_decay: float = 0.0  # of weights, not of biases, gammas and betas

    def __str__(self) -> str:
        width = "" if self.width == 1 else f", width {self.width:g}"
        precision = "" if self.precision == "fp32" else f", {self.precision}"
        return f"{self.model} {self.variant}, batch {self.batch}{width}{precision}"

    def network(self) -> nn.Sequential:
        norm, noise = VARIANTS[self.variant]
        return vgg(self.model, width=self.width, norm=norm, noise=noise).initialize(SEED)

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """(images (N, 32, 32, 3), labels (N,)), always the same."""
        draws = np.random.default_rng(SEED)
        images = draws.standard_normal((self.batch, 32, 32, 3), np.float32)
        return images, draws.integers(0, 10, self.batch)


class Step:
    """Our training step, on the backend in use."""

    def __init__(self, case: Case, kernels: str = "fast", network: Any = None) -> None:
        self.kernels, self.precision = kernels, case.precision
        self.network = case.network() if network is None else network
        groups = optim.decay_groups(self.network, case.weight_decay)
        self.optimizer = optim.SGD(
            [group for group in groups if group["params"]], LEARNING_RATE, case.momentum
        )
        images, self.labels = case.data()  # labels are checked on the host, as in a training
        self.images = get_backend().asarray(images)

    def __call__(self) -> float:
        """One step. Returns the loss before the update as a number, which waits for the device."""
        return float(self.update().item())

    def update(self) -> Any:
        """One step. Returns the loss before the update, a scalar on the device."""
        with minibn.kernels(self.kernels), minibn.precision(self.precision):
            return self._step()

    def _step(self) -> Any:
        self.optimizer.zero_grad()
        loss = self._loss()
        loss.backward()
        with part("SGD.step"):
            self.optimizer.step()
        return loss.data

    def _loss(self) -> Any:
        return ops.softmax_cross_entropy(self.network(self.images), self.labels)

    def quiet_loss(self) -> float:
        """The loss without noise, which differs between libraries. Nothing is updated."""
        noises = [m for _, m in self.network.named_modules() if isinstance(m, nn.Noise)]
        with (
            minibn.kernels(self.kernels),
            minibn.precision(self.precision),
            minibn.no_grad(),
        ):
            for noise in noises:
                noise.eval()
            loss = float(self._loss().item())
            for noise in noises:
                noise.train()
        return loss


def contend(case: Case, pytorch: Any, lean: bool = False) -> tuple[dict[str, Any], float]:
    """(training steps by contender, the difference of their first losses): ours, with `lean` also
    in that mode, and PyTorch's layouts (pytorch: its side, or None). Raises Disagreement."""
    steps: dict[str, Any] = {OURS: Step(case)}
    if lean:
        steps[f"{OURS} lean"] = Step(case, "lean")
    if pytorch:
        for layout in pytorch.LAYOUTS:
            steps[f"PyTorch {layout}"] = pytorch.Step(case, layout, case.network())
    return steps, check_agreement(case, steps)


def check_agreement(case: Case, steps: dict[str, Any]) -> float:
    """`apart` of the contenders' first losses. Raises Disagreement if it is above ROUNDED."""
    distance = apart(steps)
    if distance > ROUNDED[case.precision]:
        losses = ", ".join(f"{step.quiet_loss():.7g} ({name})" for name, step in steps.items())
        raise Disagreement(f"{case}: the first losses differ, so nothing is timed: {losses}.")
    return distance


def apart(steps: dict[str, Any]) -> float:
    """The largest relative difference of a loss from the first (ours); infinite if one is not
    finite."""
    ours, *others = (step.quiet_loss() for step in steps.values())
    if not all(map(math.isfinite, (ours, *others))):
        return math.inf
    return max((abs(loss - ours) for loss in others), default=0.0) / abs(ours)


def stages(network: nn.Sequential) -> Iterator[tuple[str, nn.Sequential]]:
    """("conv3", the convolution with what follows it up to the next) for each convolution."""
    parts: dict[str, nn.Module] = {}
    for name, module in [*network.children(), ("flatten", nn.Flatten())]:
        if name == "flatten" or (name.startswith("conv") and parts):
            yield next(iter(parts)), nn.Sequential(**parts)
            if name == "flatten":
                return
            parts = {}
        parts[name] = module


class Stage:
    """One of our convolutions with its norm, ReLU and pooling, alone: forward, then backward."""

    def __init__(self, network: nn.Sequential, x: np.ndarray, input_gradient: bool) -> None:
        self.network = network
        self.x = minibn.Tensor(x, requires_grad=input_gradient)
        self.g: np.ndarray | None = None  # the cotangent, which needs the output's shape

    def output(self) -> np.ndarray:
        with minibn.no_grad():
            return value(self.network(self.x))

    def __call__(self) -> dict[str, float]:
        self.x.grad = None
        self.network.zero_grad()
        began = time.perf_counter()
        y = self.network(self.x)
        middle = time.perf_counter()
        if self.g is None:
            self.g = cotangent(y.shape)
        start = time.perf_counter()
        y.backward(self.g)
        return {"forward": middle - began, "backward": time.perf_counter() - start}


def contend_in_stages(case: Case, pytorch: Any) -> Iterator[tuple[str, list[Contender]]]:
    """(name with sizes, contenders) for each convolution of the network with what follows it, on
    random input and a random cotangent. Raises Disagreement if outputs differ."""
    network, shape = case.network(), (case.batch, 32, 32, 3)
    for name, stage in stages(network):
        first = name == "conv1"
        x = np.random.default_rng(SEED).standard_normal(shape, np.float32)
        ours = Stage(stage, x, input_gradient=not first)
        contenders = [Contender(OURS, ours)]
        y = ours.output()
        for layout in pytorch.LAYOUTS if pytorch else ():
            theirs = pytorch.Stage(stage, x, layout, input_gradient=not first)
            if np.abs(theirs.output() - y).max() > AGREEMENT * np.abs(y).max():
                raise Disagreement(f"{case}: {name} gives another output in PyTorch {layout}.")
            contenders.append(Contender(f"PyTorch {layout}", theirs))
        pooled = "" if y.shape[1] == shape[1] else ", pool"
        yield f"{name} ({shape[1]} px, {shape[3]}->{y.shape[3]}{pooled})", contenders
        shape = y.shape


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """(N, H, W, F), random and fixed."""
    return np.random.default_rng(SEED + 1).standard_normal(shape, np.float32)
