"""Layers without statistics: each holds its parameters and makes one call into `minibn.ops`.

Images are (N, H, W, C), vectors (N, C).
"""

from __future__ import annotations

import math
from typing import Any

from minibn import ops
from minibn.errors import ShapeError, check_flag, with_own_keywords
from minibn.nn.init import glorot_uniform, zeros
from minibn.nn.module import Module
from minibn.nn.state import Initializer, Parameter
from minibn.ops.conv import pair
from minibn.ops.pool import windows


class Linear(Module):
    """y = x W + b. x (N, inputs) -> (N, outputs), W (inputs, outputs), b (outputs,).

    >>> import numpy as np
    >>> Linear(3, 2).initialize(seed=0)(np.ones((4, 3), np.float32)).shape
    (4, 2)
    """

    @with_own_keywords
    def __init__(
        self, inputs: int, outputs: int, bias: bool = True, init: Initializer = glorot_uniform
    ) -> None:
        self.weight = Parameter((inputs, outputs), init)
        self.bias = Parameter((outputs,), zeros) if check_flag(bias, "Linear: bias") else None

    def forward(self, x: Any) -> Any:
        return self.affine(x, self.weight)

    def affine(self, x: Any, weight: Any) -> Any:
        """x W + b; W: the layer's weight, or computed from it."""
        if x.ndim < 1:
            raise ShapeError(f"{self.name or type(self).__name__}: x has no axis of inputs.")
        if x.shape[-1] != self.weight.shape[0]:
            raise ShapeError(
                f"{self.name or type(self).__name__}: expects {self.weight.shape[0]} inputs, x has "
                f"{x.shape[-1]} (x.shape={tuple(x.shape)}). "
                + ("Images need Flatten() first." if x.ndim > 2 else "Are the images another size?")
            )
        y = ops.matmul(x, weight)
        return y if self.bias is None else y + self.bias


class Conv2d(Module):
    """Convolution with filters (Kh, Kw, C, F). x (N, H, W, C) -> (N, Ho, Wo, F).

    size, stride, padding: an integer or a pair. Before a norm that subtracts the mean, a
    convolution needs no bias: its gradient would be exactly zero.

    >>> import numpy as np
    >>> Conv2d(3, 8, 3, padding=1).initialize(0)(np.ones((2, 5, 6, 3), np.float32)).shape
    (2, 5, 6, 8)
    """

    @with_own_keywords
    def __init__(
        self,
        channels: int,
        filters: int,
        size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        init: Initializer = glorot_uniform,
    ) -> None:
        Kh, Kw = pair(size, "Conv2d: size", 1)
        pair(stride, "Conv2d: stride", 1), pair(padding, "Conv2d: padding", 0)
        self.stride, self.padding = stride, padding
        self.weight = Parameter((Kh, Kw, channels, filters), init)
        self.bias = Parameter((filters,), zeros) if check_flag(bias, "Conv2d: bias") else None

    def forward(self, x: Any) -> Any:
        return ops.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Any:
        return ops.relu(x)


class MaxPool2d(Module):
    """The largest value of each window; the stride is the window's size unless given."""

    @with_own_keywords
    def __init__(
        self, size: int | tuple[int, int] = 2, stride: Any = None, padding: Any = 0
    ) -> None:
        windows(size, stride, padding, "MaxPool2d")
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Any) -> Any:
        return ops.max_pool2d(x, self.size, self.stride, self.padding)


class AvgPool2d(Module):
    """The mean of each window; the stride is the window's size unless given."""

    @with_own_keywords
    def __init__(self, size: int | tuple[int, int] = 2, stride: Any = None) -> None:
        windows(size, stride, 0, "AvgPool2d")
        self.size, self.stride = size, stride

    def forward(self, x: Any) -> Any:
        return ops.avg_pool2d(x, self.size, self.stride)


class GlobalAvgPool2d(Module):
    """The mean of each channel over the image: (N, H, W, C) -> (N, C)."""

    def forward(self, x: Any) -> Any:
        return ops.global_avg_pool2d(x)


class Flatten(Module):
    """(N, ...) -> (N, product of the other axes), in C order: channels vary fastest."""

    def forward(self, x: Any) -> Any:
        if x.ndim < 1:
            raise ShapeError("Flatten: x has no axis. A batch is (N, ...).")
        return ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
