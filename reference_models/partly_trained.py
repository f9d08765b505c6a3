"""Networks of which only a part is trained (Frankle, Schwab & Morcos 2021, "Training BatchNorm and
Only BatchNorm"): the rest stays as it was drawn.

    net = train_only(vgg("vgg11", norm="batch"), "batch-norm").initialize(seed)

A frozen value is a Buffer in the Parameter's place, under the same name and with the same
initialiser. So no optimizer sees it, all parts start from the same network, and
`net.parameters()` is what is trained:

    all              everything: the control
    batch-norm       gamma and beta of every BatchNorm
    random-weights   as many weights: two of each filter of each convolution, drawn at random
    output           the last linear layer
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from minibn import nn, ops
from minibn.backend import array_module, to_numpy
from minibn.nn.module import Module
from minibn.nn.state import Buffer, Parameter, zeros
from minibn.random import generator
from reference_models.norms import choose

PARTS = ("all", "batch-norm", "random-weights", "output")
A_FEATURE = 2  # weights of a filter that are trained in the place of its gamma and beta


class PartlyTrainedConv2d(Module):
    """A convolution of which `A_FEATURE` weights of each filter are trained, the rest frozen.

    Which ones is drawn by `initialize` from its seed and the layer's name. The filters
    (Kh, Kw, C, F) are `weight`, a Buffer with zeros at these places, plus `trained`, a Parameter
    (2, F), put there: the sum has the bits of its two parts. `rows` says where, so that a state
    dict is complete.
    Raises ValueError for filters with fewer weights, or a bias.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        *field, F = conv.weight.shape
        if math.prod(field) < A_FEATURE or conv.bias is not None:
            raise ValueError(
                f"PartlyTrainedConv2d: a filter of {conv.name} has {math.prod(field)} weights and "
                f"bias={conv.bias is not None}; it needs {A_FEATURE} weights or more, and no bias."
            )
        self.stride, self.padding = conv.stride, conv.padding
        self.weight = Buffer(conv.weight.shape, conv.weight.init)
        self.trained = Parameter((A_FEATURE, F), zeros)
        self.rows = Buffer((A_FEATURE, F), zeros)  # which weights of each filter

    def seeded(self, seed: int, path: str) -> None:
        """Choose the weights, each filter's its own, and move their values into `trained`."""
        *field, F = self.weight.shape
        order = generator(seed, "trained weights", path).random((math.prod(field), F)).argsort(0)
        self.rows.place(order[:A_FEATURE].astype(self.rows.dtype))
        drawn, places = to_numpy(self.weight.data).copy(), to_numpy(self.places)
        self.trained.place(drawn.reshape(-1)[places])
        drawn.reshape(-1)[places] = 0
        self.weight.place(drawn)

    @property
    def places(self) -> Any:
        """(2, F): the positions of the trained weights in the flat filters."""
        rows, F = self.rows.data, self.rows.shape[1]
        return rows.astype("int64") * F + array_module(rows).arange(F)

    def filters(self) -> Any:
        """The weights (Kh, Kw, C, F) that x is convolved with."""
        return self.weight + ops.scatter(self.trained, self.places, self.weight.shape, unique=True)

    def forward(self, x: Any) -> Any:
        return ops.conv2d(x, self.filters(), stride=self.stride, padding=self.padding)


def train_only(model: Module, part: str) -> Any:
    """The model with every Parameter frozen that is not of this part (of PARTS). Call it before
    `initialize`. Returns the model.

    Raises ValueError for an unknown part; for "random-weights" also where the convolutions would
    not have as many trained weights as BatchNorm has gammas and betas.
    """
    choose("train_only", "part", part, dict.fromkeys(PARTS))
    if part == "all":
        return model
    modules = list(model.named_modules())
    norms = [m for _, m in modules if isinstance(m, nn.BatchNorm)]
    kept: list[Module] = []
    if part == "batch-norm":
        kept = list(norms)
    elif part == "output":
        kept = [[m for _, m in modules if isinstance(m, nn.Linear)][-1]]
    else:
        for parent, name, conv in list(_convolutions(model)):
            setattr(parent, name, PartlyTrainedConv2d(conv))
            kept.append(getattr(parent, name))
        wanted, chosen = (sum(p.size for m in of for p in m.parameters()) for of in (norms, kept))
        if wanted != chosen:
            raise ValueError(
                f"train_only: {chosen} random weights for {wanted} gammas and betas. Each "
                'convolution needs a BatchNorm behind it: norm="batch".'
            )
    for _, module in list(model.named_modules()):
        if module not in kept:
            for name, state in list(vars(module).items()):
                if isinstance(state, Parameter):
                    setattr(module, name, Buffer(state.shape, state.init))
    return model


def _convolutions(model: Module) -> Iterator[tuple[Module, str, nn.Conv2d]]:
    """(its parent, its name there, the convolution)"""
    for _, parent in model.named_modules():
        for name, child in parent.children():
            if isinstance(child, nn.Conv2d):
                yield parent, name, child
