"""Small trainings whose steps are captured, or not: for the tests of captured steps."""

from typing import Any

import numpy as np

from experiments.training.device_steps import DeviceStep
from minibn import nn, optim, to_numpy
from minibn.data import Batches, pad_crop_flip
from minibn.fast.cuda.captured_step import WARM_UP

LAYERS = {
    "conv1": lambda: nn.Conv2d(3, 4, 3, padding=1, bias=False),
    "norm1": lambda: nn.BatchNorm(4),
    "noise1": lambda: nn.Noise(),
    "relu1": lambda: nn.ReLU(),
    "pool1": lambda: nn.MaxPool2d(2),
    "flatten": lambda: nn.Flatten(),
    "linear2": lambda: nn.Linear(4 * 3 * 3, 10),
}


def network(**other):
    """A small network; `other` replaces layers, or leaves them out (None)."""
    makers = {**LAYERS, **other}
    layers = {name: make() for name, make in makers.items() if make is not None}
    return nn.Sequential(**layers).initialize(0).train()


def batches_of(augment=pad_crop_flip):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (13, 6, 6, 3), np.uint8)
    return Batches(images, rng.integers(0, 10, 13), 4, seed=1, augment=augment)


def optimizer_of(model, **settings):
    groups = optim.decay_groups(model, 0.01)
    return optim.SGD(groups, lr=0.1, **{"momentum": 0.9, **settings})


class Training:
    """A model with its steps: captured ("auto") or not ("off"); a rate that changes."""

    def __init__(self, graph, model=None, optimizer=None, **settings):
        self.model = network() if model is None else model
        self.optimizer = optimizer_of(self.model, **settings) if optimizer is None else optimizer
        self.step = DeviceStep(self.model, self.optimizer, batches_of(), graph)
        self.number, self.seen = 0, []

    def run(self, steps):
        for _ in range(steps):
            self.optimizer.lr = 0.1 / (1 + self.number % 5)
            self.seen.append(self.step(self.number))
            self.number += 1
        return self

    @property
    def replays(self):
        return self.captured.captured

    @property
    def captured(self) -> Any:
        return self.step.step

    @property
    def result(self):
        """Everything there is afterwards, as bytes."""
        results = [to_numpy(r) for step in self.seen for r in step]
        state = {**self.model.state_dict(), **self.optimizer.state_dict()}
        return [r.tobytes() for r in results] + [(k, v.tobytes()) for k, v in state.items()]


BEFORE = WARM_UP + 2  # steps after which a training with momentum replays


def both(change=lambda training: None, steps=4, **settings):
    """(captured, not captured) after `change` in the middle of a training, and `steps` more."""
    found = []
    for graph in ("auto", "off"):
        training = Training(graph, **settings).run(BEFORE + 1)
        change(training)
        found.append(training.run(steps))
    assert found[0].result == found[1].result
    return found[0]
