"""Runs of layers as one op: where bias or norm, noise, ReLU and pooling follow each other.

`Sequential` hands its layers here. A run that `ops.epilogue` can do at once is called so; every
other layer is called as it is. Nothing else changes: the layers keep their parameters, statistics
and counters, and where somebody looks in between (`watch`, `detect_anomaly`) or kernels are
switched off, each layer is called by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from minibn import anomaly, ops
from minibn.backend import kernels
from minibn.errors import ShapeError
from minibn.nn.layers import Conv2d, MaxPool2d, ReLU
from minibn.nn.module import Module
from minibn.nn.noise import Noise
from minibn.nn.norm import BatchNorm

ORDER: tuple[type[Module], ...] = (Conv2d, BatchNorm, Noise, ReLU, MaxPool2d)


@dataclass
class Run:
    """Layers that follow each other in ORDER, each kind at most once."""

    conv: Conv2d | None = None
    norm: BatchNorm | None = None
    noise: Noise | None = None
    relu: ReLU | None = None
    pool: MaxPool2d | None = None

    def __call__(self, x: Any) -> Any:
        try:
            return self.forward(x)
        except ShapeError:
            for layer in vars(self).values():  # one by one: the layer that raises names itself
                x = x if layer is None else layer(x)
            raise

    def forward(self, x: Any) -> Any:
        norm, noise, affine = self.norm, None, []
        if self.conv is not None:
            x = self.conv.without_bias(x)
            affine = [] if self.conv.bias is None else [self.conv.bias]
        if self.noise is not None and self.noise.active:
            noise = _draw(self.noise)
        settings = {"noise": noise, "relu": self.relu is not None, "pool": 2 if self.pool else 0}
        if norm is None:
            return ops.epilogue(x, *affine, **settings)
        if affine:  # a bias before a norm
            x = x + affine[0]
        if not norm.training:
            return ops.epilogue(x, *norm.scale_and_shift(), **settings)
        y, mean, var = ops.epilogue(
            x, norm.gamma, norm.beta, eps=norm.eps, return_moments=True, **settings
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
        layer.size in (2, (2, 2)) and layer.stride in (None, 2, (2, 2)) and layer.padding in (0, (0, 0))
    )


def steps(layers: Sequence[Module]) -> Iterator[Any]:
    """The layers to call one after another, runs in the place of their layers."""
    if kernels.mode() == "reference" or anomaly.active():
        yield from layers
        return
    start = 0
    while start < len(layers):
        end, place = start, -1
        while end < len(layers) and _fits(layers[end]) and ORDER.index(type(layers[end])) > place:
            place = ORDER.index(type(layers[end]))
            end += 1
        run = list(layers[start:end])
        if run and isinstance(run[0], Conv2d) and (run[0].bias is None or len(run) == 1):
            yield run.pop(0)
        if len(run) > 1:
            names = {Conv2d: "conv", BatchNorm: "norm", Noise: "noise", ReLU: "relu"}
            yield Run(**{names.get(type(layer), "pool"): layer for layer in run})
        else:
            yield from run
        if end == start:
            yield layers[start]
        start = max(end, start + 1)
