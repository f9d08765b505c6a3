"""Fused layers: successive Conv2d, BatchNorm, Noise, ReLU and MaxPool2d as one fused block.

The kernel of `Sequential`: layers that form a fused block run as one op, `fused_block`; every other
layer is called as usual. Parameters, statistics and counters stay in the layers. If an
intermediate value is observed (`watch`, `detect_anomaly`), a layer's `forward` or an op was edited
or replaced, or kernels are switched off, the layers run one by one. So watching a layer changes
rounding errors, except under `kernels("reference")`.

The blocks of a Sequential are determined once, and again when it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from minibn.autograd import observers
from minibn.errors import ShapeError
from minibn.fast.fused_ops import fused_block
from minibn.fast.kernel import Kernel
from minibn.fast.selection import is_verified
from minibn.nn.layers import Conv2d, MaxPool2d, ReLU
from minibn.nn.module import Module
from minibn.nn.noise import Noise
from minibn.nn.norm import BatchNorm
from minibn.nn.sequential import Sequential
from minibn.ops.conv import conv2d_op

ORDER: tuple[type[Module], ...] = (Conv2d, BatchNorm, Noise, ReLU, MaxPool2d)


class LayerBlock:
    """Successive layers in ORDER, each kind at most once, called as one op."""

    def __init__(self, layers: Sequence[Module]) -> None:
        self.layers = layers
        kinds: dict[type, Any] = {type(layer): layer for layer in layers}
        self.conv: Conv2d | None = kinds.get(Conv2d)
        self.norm: BatchNorm | None = kinds.get(BatchNorm)
        self.noise: Noise | None = kinds.get(Noise)
        self.relu, self.pool = ReLU in kinds, 2 if MaxPool2d in kinds else 0

    @property
    def name(self) -> str:
        return " + ".join(layer.name for layer in self.layers)

    def __call__(self, x: Any) -> Any:
        step = None if self.noise is None else int(self.noise.step.data)
        try:
            if observers.current():
                with observers.layer(self.name):
                    return self.forward(x)
            return self.forward(x)
        except ShapeError:
            if self.noise is not None:
                self.noise.step.data[...] = step
            for layer in self.layers:  # one by one, so that the error names the layer
                x = layer(x)
            raise

    def forward(self, x: Any) -> Any:
        noise = None
        if self.noise is not None and self.noise.active:
            for layer in (self.conv, self.norm):  # raises first if parameters are not initialized
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
            return fused_block(x, *bias, **settings)
        if not norm.training:
            return fused_block(x, *norm.scale_and_shift(), **settings)
        y, mean, var = fused_block(
            x, norm.gamma, norm.beta, eps=norm.eps, return_moments=True, **settings
        )
        norm.track(mean, var, self._values(x, conv))
        return y

    @staticmethod
    def _values(x: Any, conv: Conv2d | None) -> int:
        """The number of values per channel at the norm."""
        if conv is None:
            return x.size // x.shape[-1]
        return conv2d_op(x, conv.weight, conv.stride, conv.padding).rows


def _can_fuse(layer: Module) -> bool:
    """Whether this layer can be part of a block: not watched, not edited, settings supported."""
    if type(layer) not in ORDER or vars(layer).get("_watchers"):
        return False
    if not is_verified(type(layer), layer):
        return False
    return not isinstance(layer, MaxPool2d) or (
        layer.size in (2, (2, 2))
        and layer.stride in (None, 2, (2, 2))
        and layer.padding in (0, (0, 0))
    )


def plan_blocks(layers: Sequence[Module]) -> list[Module | LayerBlock]:
    """The layers and blocks to call one after another."""
    plan: list[Module | LayerBlock] = []
    block: list[Module] = []

    def close() -> None:
        plan.extend(block if len(block) < 2 else [LayerBlock(tuple(block))])
        block.clear()

    for layer in layers:
        fits = _can_fuse(layer)
        if block and not (fits and ORDER.index(type(block[-1])) < ORDER.index(type(layer))):
            close()
        if fits:
            block.append(layer)
        else:
            plan.append(layer)
    close()
    return plan


# The layers of a Sequential, whether each can be fused, and the blocks and layers to call.
Plan = tuple[list[Module], list[bool], list[Module | LayerBlock]]
_plans: WeakKeyDictionary[Sequential, Plan] = WeakKeyDictionary()


def _steps(model: Sequential) -> Sequence[Module | LayerBlock]:
    layers = [layer for _, layer in model.children()]
    if any(observer.every_layer for observer in observers.current()):
        return layers
    fusible = [_can_fuse(layer) for layer in layers]
    planned = _plans.get(model)
    if planned is None or planned[1] != fusible or planned[0] != layers:
        planned = _plans[model] = layers, fusible, plan_blocks(layers)
    return planned[2]


class FusedSequential(Kernel):
    """The forward of Sequential, with fused blocks in the place of their layers."""

    def forward(self, model: Sequential, x: Any) -> Any:
        for step in _steps(model):
            x = step(x)
        return x
