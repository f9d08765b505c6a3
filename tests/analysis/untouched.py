"""What "the model is left as it was" means, and models that have everything that could be left."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minibn import Tensor, nn, ops
from minibn.backend import to_numpy


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, nothing may change: values to the bit, the arrays that hold them, what hangs on them
    (gradients, versions), modes, watchers, and the generators that belong to everybody."""
    states = [*model.named_parameters(), *model.named_buffers()]
    before = [(s.data, to_numpy(s.data).tobytes(), s.grad, s.version.count) for _, s in states]
    grads = [None if s.grad is None else to_numpy(s.grad).tobytes() for _, s in states]
    modes = [(module, module.training) for _, module in model.named_modules()]
    everybodys = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002  the global one
    try:
        yield
    finally:
        for (name, state), (array, values, g, count) in zip(states, before, strict=True):
            assert state.data is array, f"{name} is another array"
            assert to_numpy(array).tobytes() == values, f"{name} has other values"
            assert state.grad is g, f"{name} has another gradient"
            assert state.version.count == count, f"{name} counts as changed in place"
        after = [None if s.grad is None else to_numpy(s.grad).tobytes() for _, s in states]
        assert after == grads
        assert [(module, module.training) for _, module in model.named_modules()] == modes
        assert not any(vars(module).get("_watchers") for _, module in model.named_modules())
        now = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002  the global one
        assert now == everybodys


def lived(model: nn.Module, x: object, seed: int = 3) -> nn.Module:
    """The model after two batches and one update, with gradients, and a part in eval mode."""
    for _ in range(2):
        model(x)
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.assign(p.data + 0.1 * p.data)
        p.grad = Tensor(p.data * float(rng.standard_normal()))
    next(model.children())[1].training = False
    return model


def noisy_net(dtype: type = np.float64) -> nn.Sequential:
    """Two convolutions with BatchNorm and noise, and a classifier of 3: images (N, 6, 6, 2)."""
    return nn.Sequential(
        conv1=nn.Conv2d(2, 3, 3, padding=1, bias=False),
        norm1=nn.BatchNorm(3),
        noise1=nn.Noise(),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(3, 4, 3, padding=1, bias=False),
        norm2=nn.NoisyBatchNorm(4),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
        drop=nn.Dropout(0.3),
        linear=nn.Linear(36, 3),
    ).initialize(0, dtype=dtype)


def images(N: int = 5, dtype: type = np.float64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, 6, 6, 2)).astype(dtype), rng.integers(0, 3, N)


def raises_on(call: int):
    """The usual loss, which fails on its `call`-th call."""
    calls = []

    def loss(outputs: Tensor, labels: np.ndarray) -> Tensor:
        calls.append(1)
        if len(calls) == call:
            raise ZeroDivisionError("in the middle")
        return ops.softmax_cross_entropy(outputs, labels)

    return loss
