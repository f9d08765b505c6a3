"""Residual networks for CIFAR (He et al. 2016, "Deep Residual Learning", section 4.2), with
BatchNorm, another norm or none, and SkipInit (De & Smith 2020).

ResNet-(6n + 2): one convolution, three stages of n blocks with 16, 32 and 64 channels, and a
linear layer behind the mean over the image. A block adds a branch of two convolutions to its input:

    y = relu(skip(x) + branch(x))     branch:  conv → norm → ReLU → conv → norm (→ scale)
    y = skip(x) + branch(x)           branch:  norm → ReLU → conv → norm → ReLU → conv (→ scale)

the second with `preactivation` (He et al. 2016, "Identity Mappings"). The shortcut is option A, as
in the paper's networks for CIFAR: it has no parameters. Where the image is halved it takes each
second pixel, and the new channels are 0.

Layers are numbered through as in `vgg`, and have the same names in every variant:
"block3.branch.conv6.weight". With `preactivation` norm6 and relu6 stand before conv6, else behind
it; the block's last ReLU is "block3.relu7".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from minibn import nn, ops
from minibn.nn.init import he_normal
from minibn.nn.module import Module
from minibn.nn.state import Initializer, Parameter, zeros
from reference_models.norms import NORMS, Norm, choose, maker_of, norm_name, standardises

__all__ = ["NORMS", "RESNET", "ResidualBlock", "Scale", "Shortcut", "blocks_of", "resnet"]

# Blocks of each of the three stages
RESNET = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}
CHANNELS = (16, 32, 64)


class Scale(Module):
    """y = alpha x with one trained number alpha, 0 at first (SkipInit, De & Smith 2020)."""

    def __init__(self) -> None:
        self.alpha = Parameter((1,), zeros)

    def forward(self, x: Any) -> Any:
        return x * self.alpha


class Shortcut(Module):
    """The skip path without parameters ("option A"): (N, H, W, C) -> (N, H/stride, W/stride, F).

    Each `stride`-th pixel, and F - C channels of zeros behind the others; else the input itself.
    """

    def __init__(self, channels: int, filters: int, stride: int = 1) -> None:
        self.stride, self.added = stride, filters - channels

    def forward(self, x: Any) -> Any:
        if self.stride > 1:
            x = ops.getitem(x, (slice(None), *2 * (slice(None, None, self.stride),)))
        return ops.pad(x, (*3 * ((0, 0),), (0, self.added))) if self.added else x


class ResidualBlock(Module):
    """skip(x) + branch(x), and the ReLU behind the sum where there is one."""

    def __init__(self, branch: nn.Sequential, skip: Module, **relu: Module) -> None:
        self.branch, self.skip = branch, skip
        for name, part in relu.items():
            setattr(self, name, part)
        self._after = tuple(relu)

    def forward(self, x: Any) -> Any:
        y = self.skip(x) + self.branch(x)
        for name in self._after:
            y = getattr(self, name)(y)
        return y


def resnet(
    model: str = "resnet20",
    *,
    width: float = 1.0,
    stages: Sequence[tuple[int, int]] | None = None,
    norm: Norm = "batch",
    skip_init: bool = False,
    preactivation: bool = False,
    classes: int = 10,
    channels: int = 3,
    init: Initializer = he_normal,
) -> nn.Sequential:
    """A ResNet for images (N, H, W, channels) -> logits (N, classes). Not initialised yet.

    model: a name of RESNET. width scales the channels. stages: (blocks, channels) of each stage in
    their place, such as ((16, 64),) for 16 blocks of one width; the first convolution has the first
    stage's channels. norm: as in `vgg`; "none" leaves convolutions a bias. skip_init multiplies
    each branch by a trained number that starts at 0. H and W are multiples of 2^(stages - 1).
    Raises ValueError for an unknown name, a width that leaves no channels, a stage without blocks
    or with fewer channels than the one before.

    >>> net = resnet("resnet20")
    >>> sum(p.size for p in net.parameters())
    269722
    >>> [name for name, _ in net.block1.branch.children()]
    ['conv2', 'norm2', 'relu2', 'conv3', 'norm3']
    """
    norm = norm_name(norm)
    make = maker_of("resnet", norm, NORMS)
    if stages is None:
        choose("resnet", "model", model, RESNET)
        if not 0 < width < float("inf"):
            raise ValueError(f"resnet: width={width} must be a positive number.")
        stages = [(RESNET[model], int(C * width)) for C in CHANNELS]
    _check_stages(stages)

    def convolution(C: int, F: int, stride: int, behind: Module | None) -> Module:
        """3×3, with a bias where no norm's beta stands for it."""
        kind: Callable[..., Module] = nn.Conv2d
        if standardises(norm):
            kind = partial(nn.WSConv2d, scaled=make is None)
        bias = not hasattr(behind, "beta")
        return kind(C, F, 3, stride=stride, padding=1, bias=bias, init=init)

    def layer_of(k: int, C: int, F: int, stride: int = 1, relu: bool = True) -> dict[str, Module]:
        """Layer k: conv → norm → ReLU, or with `preactivation` norm → ReLU → conv."""
        norm_k = make(C if preactivation else F) if make is not None else None
        conv = {f"conv{k}": convolution(C, F, stride, norm_k)}
        others: dict[str, Module] = {} if norm_k is None else {f"norm{k}": norm_k}
        if relu:
            others[f"relu{k}"] = nn.ReLU()
        return {**others, **conv} if preactivation else {**conv, **others}

    C = stages[0][1]
    parts: dict[str, Module] = {}
    if preactivation:
        parts["conv1"] = convolution(channels, C, 1, make(C) if make is not None else None)
    else:
        parts |= layer_of(1, channels, C)
    k, block = 1, 0
    for stage, (blocks, F) in enumerate(stages):
        for i in range(blocks):
            block += 1
            stride = 2 if stage > 0 and i == 0 else 1
            branch = layer_of(k + 1, C, F, stride)
            branch |= layer_of(k + 2, F, F, relu=preactivation)
            k += 2
            if skip_init:
                branch[f"scale{k}"] = Scale()
            after: dict[str, Module] = {} if preactivation else {f"relu{k}": nn.ReLU()}
            skip = Shortcut(C, F, stride)
            parts[f"block{block}"] = ResidualBlock(nn.Sequential(**branch), skip, **after)
            C = F
    if preactivation:
        if make is not None:
            parts[f"norm{k + 1}"] = make(C)
        parts[f"relu{k + 1}"] = nn.ReLU()
    parts["pool"] = nn.GlobalAvgPool2d()
    parts[f"linear{k + 1}"] = nn.Linear(C, classes, init=init)
    return nn.Sequential(**parts)


def blocks_of(model: nn.Sequential) -> list[ResidualBlock]:
    """The residual blocks, from the first."""
    return [part for _, part in model.children() if isinstance(part, ResidualBlock)]


def _check_stages(stages: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError for stages that make no network."""
    if not stages:
        raise ValueError("resnet: stages is empty. Give (blocks, channels) of one or more.")
    widths = [1, *(C for _, C in stages)]
    for (blocks, filters), before in zip(stages, widths, strict=False):
        if blocks < 1 or filters < before:
            raise ValueError(
                f"resnet: a stage of {blocks} blocks with {filters} channels. It needs 1 block or "
                f"more, and {before} channels or more: the shortcut adds channels and drops none."
            )
