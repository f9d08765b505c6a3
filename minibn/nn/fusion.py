"""Runs of layers as one op: where bias or norm, noise, ReLU and pooling follow each other.

`Sequential` hands its layers here. A run that `ops.epilogue` can do at once is called so; every
other layer is called as it is. Nothing else changes: the layers keep their parameters, statistics
and counters, and where somebody looks in between (`watch`, `detect_anomaly`) or kernels are
switched off, each layer is called by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from minibn import anomaly, ops
from minibn.backend import kernels
from minibn.errors import ShapeError
from minibn.nn.layers import Conv2d, MaxPool2d, ReLU
from minibn.nn.module import Module
from minibn.nn.noise import Noise
from minibn.nn.norm import BatchNorm

ORDER: tuple[type[Module], ...] = (Conv2d, BatchNorm, Noise, ReLU, MaxPool2d)


class Run:
    """Layers that follow each other in ORDER, each kind at most once, called as one."""

    def __init__(self, layers: Sequence[Module]) -> None:
        self.layers = layers
        kinds: dict[type, Any] = {type(layer): layer for layer in layers}
        self.conv: Conv2d | None = kinds.get(Conv2d)
        self.norm: BatchNorm | None = kinds.get(BatchNorm)
        self.noise: Noise | None = kinds.get(Noise)
        self.relu, self.pool = ReLU in kinds, 2 if MaxPool2d in kinds else 0

    def __call__(self, x: Any) -> Any:
        step = None if self.noise is None else int(self.noise.step.data)
        try:
            return self.forward(x)
        except ShapeError:
            if self.noise is not None:
                self.noise.step.data[...] = step
            for layer in self.layers:  # one by one: the layer that raises names itself
                x = layer(x)
            raise

    def forward(self, x: Any) -> Any:
        bias = []
        if self.conv is not None:
            x = self.conv.without_bias(x)
            bias = [self.conv.bias]
        noise = None if self.noise is None or not self.noise.active else _draw(self.noise)
        norm = self.norm
        if norm is None:
            return ops.epilogue(x, *bias, noise=noise, relu=self.relu, pool=self.pool)
        for b in bias:
            x = x + b
        if not norm.training:
            affine = norm.scale_and_shift()
            return ops.epilogue(x, *affine, noise=noise, relu=self.relu, pool=self.pool)
        y, mean, var = ops.epilogue(
            x,
            norm.gamma,
            norm.beta,
            eps=norm.eps,
            noise=noise,
            relu=self.relu,
            pool=self.pool,
            return_moments=True,
        )
        norm.track(mean, var, x.size // x.shape[-1])
        return y


def _draw(noise: Noise) -> Any:
    """The draws of this step, again and again the same."""
    step = noise.next_step()
    return lambda x: noise.draw(x, step)


def _fits(layer: Module) -> bool:
    """Whether this layer can be part of a run: nobody watches it, and it does the usual."""
    if type(layer) not in ORDER or vars(layer).get("_watchers"):
        return False
    return not isinstance(layer, MaxPool2d) or (
        layer.size in (2, (2, 2))
        and layer.stride in (None, 2, (2, 2))
        and layer.padding in (0, (0, 0))
    )


def steps(layers: Sequence[Module]) -> Iterator[Any]:
    """What to call one after another: the layers, and runs in the place of theirs."""
    if kernels.mode() == "reference" or anomaly.active():
        yield from layers
        return
    run: list[Module] = []

    def finished() -> Iterator[Any]:
        if run and isinstance(run[0], Conv2d) and run[0].bias is None:
            yield run.pop(0)  # there is nothing to add behind it
        yield from run if len(run) < 2 else [Run(tuple(run))]
        run.clear()

    for layer in layers:
        fits = _fits(layer)
        if run and not (fits and ORDER.index(type(run[-1])) < ORDER.index(type(layer))):
            yield from finished()
        if fits:
            run.append(layer)
        else:
            yield layer
    yield from finished()
