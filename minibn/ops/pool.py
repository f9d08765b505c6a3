"""Pooling over windows of images x (N, H, W, C) -> (N, Ho, Wo, C)."""

from __future__ import annotations

import functools
import operator
from typing import Any

from minibn.autograd.tape import Op, apply
from minibn.autograd.tensor import value
from minibn.backend import array_module
from minibn.errors import ShapeError
from minibn.ops.conv import pair
from minibn.ops.elementwise import real
from minibn.ops.indexing import scatter
from minibn.ops.precision import in_float32
from minibn.ops.reduce import mean
from minibn.ops.shape import Pad


def _corners(x, size, stride) -> list:
    """For each position (k, m) in a window, row by row: its pixel in each, (N, Ho, Wo, C)."""
    _, H, W, _ = x.shape
    Ho, Wo = (H - size[0]) // stride[0] + 1, (W - size[1]) // stride[1] + 1
    return [
        x[:, k : k + stride[0] * Ho : stride[0], m : m + stride[1] * Wo : stride[1]]
        for k in range(size[0])
        for m in range(size[1])
    ]


def window_argmax(x, size, stride):
    """The flat position in x of the largest value of each window: (N, Ho, Wo, C) integers.

    Of tied values the first in row-major order; a NaN is the largest, as in PyTorch.
    """
    xp = array_module(x)
    _, H, W, C = x.shape
    corners = _corners(real(x), size, stride)
    best = functools.reduce(xp.maximum, corners)
    offset = xp.zeros(best.shape, dtype=xp.int64)
    for i, corner in reversed(list(enumerate(corners))):  # so that the first of ties is set last
        k, m = divmod(i, size[1])
        offset = xp.where((corner == best) | (corner != corner), (k * W + m) * C, offset)
    N, Ho, Wo, _ = best.shape
    image = xp.arange(N).reshape(N, 1, 1, 1) * H
    row = xp.arange(Ho).reshape(Ho, 1, 1) * stride[0]
    column = xp.arange(Wo).reshape(Wo, 1) * stride[1]
    return offset + (((image + row) * W + column) * C + xp.arange(C))


def _pad_for_max(x, padding, size):
    """x padded with zeros, and a copy to compare, where padding is less than every value."""
    if not any(padding):
        return x, x
    (ph, pw), (_, H, W, _) = padding, x.shape
    x = Pad(((0, 0), (ph, ph), (pw, pw), (0, 0))).forward(x)
    xp = array_module(x)
    seen = xp.maximum(real(x), xp.finfo(x.dtype).min)  # so that padding is less than -inf
    seen[:, :ph] = seen[:, ph + H :] = seen[:, :, :pw] = seen[:, :, pw + W :] = -xp.inf
    return x, seen


class MaxPool2d(Op):
    """y = the largest value of each window: a gather.    x̄ = ȳ, scattered to the same positions

    Padding is never returned. The vjp recomputes the positions, so that only x is saved.
    """

    needs = (0,)

    def __init__(self, size, stride, padding) -> None:
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x):
        x, seen = _pad_for_max(x, self.padding, self.size)
        return x.reshape(-1)[window_argmax(seen, self.size, self.stride)]

    def vjp(self, g, out, x):
        padded, seen = _pad_for_max(value(x), self.padding, self.size)
        places = window_argmax(seen, self.size, self.stride)
        apart = all(step >= size for step, size in zip(self.stride, self.size, strict=True))
        (ph, pw), (_, H, W, _) = self.padding, x.shape
        return scatter(g, places, padded.shape, unique=apart)[:, ph : ph + H, pw : pw + W]


class AvgPool2d(Op):
    """y = the mean of each window.    x̄: each ȳ, spread evenly over its window"""

    needs = ()

    def __init__(self, size, stride) -> None:
        self.size, self.stride = size, stride

    def forward(self, x):
        corners = _corners(x, self.size, self.stride)
        return functools.reduce(operator.add, corners) * (1 / len(corners))

    def vjp(self, g, out, x):
        return apply(AvgPool2dAdjoint(self.size, self.stride, x.shape), g)


class AvgPool2dAdjoint(Op):
    """x = each y, spread evenly over its window.    ȳ = the mean of x̄ over each window"""

    needs = ()

    def __init__(self, size, stride, x_shape) -> None:
        self.size, self.stride, self.x_shape = size, stride, x_shape

    def forward(self, y):
        x = array_module(y).zeros(self.x_shape, y.dtype)
        share = y * (1 / (self.size[0] * self.size[1]))
        for corner in _corners(x, self.size, self.stride):  # views: they add into x
            corner += share
        return x

    def vjp(self, g, out, y):
        return apply(AvgPool2d(self.size, self.stride), g)


def windows(size: Any, stride: Any, padding: Any, name: str) -> tuple:
    """(size, stride, padding) as pairs. Raises ShapeError."""
    size, padding = pair(size, f"{name}: size", 1), pair(padding, f"{name}: padding", 0)
    stride = size if stride is None else pair(stride, f"{name}: stride", 1)
    if any(2 * p > s for p, s in zip(padding, size, strict=True)):
        raise ShapeError(f"{name}: padding {padding} is more than half of the window {size}.")
    return size, stride, padding


def _settings(name: str, x, size: Any, stride: Any, padding: Any = (0, 0)) -> tuple:
    size, stride, padding = windows(size, stride, padding, name)
    if x.ndim != 4:
        raise ShapeError(f"{name}: x has shape {x.shape}; images are (N, H, W, C).")
    if x.shape[1] + 2 * padding[0] < size[0] or x.shape[2] + 2 * padding[1] < size[1]:
        raise ShapeError(
            f"{name}: windows of {size} do not fit into images of {x.shape[1:3]}. "
            "Use smaller windows, fewer poolings or larger images."
        )
    return size, stride, padding


def max_pool2d(x, size: Any = 2, stride: Any = None, padding: Any = 0):
    """The largest value of each window.

    x (N, H, W, C) -> (N, Ho, Wo, C), Ho = (H + 2·padding - size) // stride + 1; stride is size by
    default.
    The first of tied values gets the gradient (as in PyTorch). Padding is never returned.
    """
    size, stride, padding = _settings("max_pool2d", x, size, stride, padding)
    return apply(MaxPool2d(size, stride, padding), x)


@in_float32
def avg_pool2d(x, size: Any = 2, stride: Any = None):
    """The mean of each window. x (N, H, W, C) -> (N, Ho, Wo, C); stride = size by default.

    Laws: a constant image stays constant, to rounding; the gradient's sum is kept if the windows
    tile the image.
    """
    size, stride, _ = _settings("avg_pool2d", x, size, stride)
    return apply(AvgPool2d(size, stride), x)


@in_float32
def global_avg_pool2d(x):
    """The mean of each image's channels: (N, H, W, C) -> (N, C)."""
    _settings("global_avg_pool2d", x, 1, 1)
    return mean(x, axis=(1, 2))
