"""Runs of layers as one op: where bias or norm, noise, ReLU and pooling follow each other.

`Sequential` hands its layers here. A run that `ops.epilogue` can do at once is called so; every
other layer is called as it is. Nothing else changes: the layers keep their parameters, statistics
and counters, and where somebody looks in between (`watch`, `detect_anomaly`) or kernels are
switched off, each layer is called by itself. So to watch changes the rounding, but not with
`kernels("reference")`.
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
from minibn.ops.conv import conv2d_op

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
        noise = None
        if self.noise is not None and self.noise.active:
            for layer in (self.conv, self.norm):  # what has no values yet says so first
                _ = layer and [p.data for p in layer.parameters()]
            noise = self.noise.draws(self.noise.next_step())
        settings: dict[str, Any] = {"noise": noise, "relu": self.relu, "pool": self.pool}
        conv, norm = self.conv, self.norm
        bias: list[Any] = []
        if conv is not None and norm is not None and conv.bias is not None:
            x, conv = conv(x), None  # a bias before a norm
        if conv is not None:
            settings |= {"filters": conv.weight, "stride": conv.stride, "padding": conv.padding}
            bias += [conv.bias] if conv.bias is not None else []
        if norm is None:
            return ops.epilogue(x, *bias, **settings)
        if not norm.training:
            return ops.epilogue(x, *norm.scale_and_shift(), **settings)
        y, mean, var = ops.epilogue(
            x, norm.gamma, norm.beta, eps=norm.eps, return_moments=True, **settings
        )
        norm.track(mean, var, self._values(x, conv))
        return y

    @staticmethod
    def _values(x: Any, conv: Conv2d | None) -> int:
        """How many values a channel has where the norm sees them."""
        if conv is None:
            return x.size // x.shape[-1]
        return conv2d_op(x, conv.weight, conv.stride, conv.padding).rows


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
