"""Two-dimensional convolution (cross-correlation, as in every deep-learning library).

    y[n,i,j,f] = Σ_{k,l,c} x[n, s·i+k-p, s·j+l-p, c] · w[k,l,c,f]

x (N, H, W, C), w (Kh, Kw, C, F), y (N, Ho, Wo, F) with Ho = (H + 2p - Kh) // s + 1.

The map is linear in x and in w. So three ops suffice for derivatives of any order, each the adjoint
of another: `conv2d`, `conv2d_input_grad` and `conv2d_weight_grad`. With c the cotangent of a
result, ⟨c, conv2d(x, w)⟩ = ⟨x, input_grad(c, w)⟩ = ⟨w, weight_grad(x, c)⟩: every vjp below
follows from this line.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply
from minibn.backend import array_module
from minibn.errors import ShapeError
from minibn.ops.precision import in_float32, to_floating_point
from minibn.ops.shape import Pad

Pair = tuple[int, int]


def windows(x, Kh: int, Kw: int, stride: Pair):
    """Every window of x: (N, H, W, C) -> (N, Ho, Wo, Kh, Kw, C), a strided view."""
    N, H, W, C = x.shape
    Ho, Wo = (H - Kh) // stride[0] + 1, (W - Kw) // stride[1] + 1
    n, h, w, c = x.strides
    return array_module(x).lib.stride_tricks.as_strided(
        x, (N, Ho, Wo, Kh, Kw, C), (n, h * stride[0], w * stride[1], h, w, c)
    )


class _Conv(Op):
    """Base of the three: stride, padding, and the shapes of the convolution's x, w and y."""

    def __init__(self, stride: Pair, padding: Pair, x_shape: Any, w_shape: Any) -> None:
        self.settings = (stride, padding, x_shape, w_shape)
        self.stride, self.padding = stride, padding
        self.x_shape, self.w_shape = x_shape, w_shape
        (N, H, W, _), (Kh, Kw, _, F) = x_shape, w_shape
        (sh, sw), (ph, pw) = stride, padding
        self.y_shape = (N, (H + 2 * ph - Kh) // sh + 1, (W + 2 * pw - Kw) // sw + 1, F)
        self.rows = math.prod(self.y_shape[:3])

    def _columns(self, x):
        """The windows of the padded x as rows (im2col): (N·Ho·Wo, Kh·Kw·C)."""
        ph, pw = self.padding
        Kh, Kw, C, _ = self.w_shape
        if ph or pw:
            x = Pad(((0, 0), (ph, ph), (pw, pw), (0, 0))).forward(x)
        return windows(x, Kh, Kw, self.stride).reshape(self.rows, Kh * Kw * C)


class Conv2d(_Conv):
    """y = conv2d(x, w): windows, then one matrix product.

    x̄ = input_grad(ȳ, w),   w̄ = weight_grad(x, ȳ)
    The columns take Kh·Kw times the memory of x and are freed at once.
    """

    def forward(self, x, w):
        Kh, Kw, C, F = self.w_shape
        return (self._columns(x) @ w.reshape(Kh * Kw * C, F)).reshape(self.y_shape)

    def vjp(self, g, out, x, w):
        return (
            apply(Conv2dInputGrad(*self.settings), g, w) if self.needs_input_grad[0] else None,
            apply(Conv2dWeightGrad(*self.settings), x, g) if self.needs_input_grad[1] else None,
        )


class Conv2dInputGrad(_Conv):
    """x̄ = input_grad(c, w): each pixel of c times the filters, added to its window in x̄.

    c̄ = conv2d(g, w),   w̄ = weight_grad(g, c)
    """

    def forward(self, c, w):
        (N, H, W, C), (Kh, Kw, _, F) = self.x_shape, self.w_shape
        (sh, sw), (ph, pw) = self.stride, self.padding
        _, Ho, Wo, _ = self.y_shape
        xp = array_module(c)
        padded = xp.zeros((N, H + 2 * ph, W + 2 * pw, C), xp.result_type(c, w))
        rows = c.reshape(self.rows, F)  # (N·Ho·Wo, F)
        for k in range(Kh):
            for m in range(Kw):
                part = (rows @ w[k, m].T).reshape(N, Ho, Wo, C)
                padded[:, k : k + sh * Ho : sh, m : m + sw * Wo : sw] += part
        return padded[:, ph : ph + H, pw : pw + W]  # (N, H, W, C)

    def vjp(self, g, out, c, w):
        return (
            apply(Conv2d(*self.settings), g, w) if self.needs_input_grad[0] else None,
            apply(Conv2dWeightGrad(*self.settings), g, c) if self.needs_input_grad[1] else None,
        )


class Conv2dWeightGrad(_Conv):
    """w̄ = weight_grad(x, c): every window of x, weighted by its pixel of c.

    x̄ = input_grad(c, g),   c̄ = conv2d(x, g)
    """

    def forward(self, x, c):
        rows = c.reshape(self.rows, self.w_shape[3])  # (N·Ho·Wo, F)
        return (self._columns(x).T @ rows).reshape(self.w_shape)

    def vjp(self, g, out, x, c):
        return (
            apply(Conv2dInputGrad(*self.settings), c, g) if self.needs_input_grad[0] else None,
            apply(Conv2d(*self.settings), x, g) if self.needs_input_grad[1] else None,
        )


def pair(setting: Any, name: str, least: int) -> Pair:
    """3 or (3, 5) as two integers, each at least `least`."""
    both = tuple(setting) if isinstance(setting, (tuple, list)) else (setting, setting)
    whole = all(isinstance(s, (int, np.integer)) and not isinstance(s, bool) for s in both)
    if len(both) != 2 or not whole or min(both) < least:
        raise ShapeError(f"{name}={setting!r} must be one or two integers from {least} up.")
    return int(both[0]), int(both[1])


def conv2d_op(x, w, stride: Any, padding: Any) -> Conv2d:
    """The op for these arrays. Raises ShapeError unless they fit together."""
    if x.ndim != 4 or w.ndim != 4:
        raise ShapeError(
            f"conv2d: x (N, H, W, C) and w (Kh, Kw, C, F) have four axes; x has shape {x.shape}, "
            f"w {w.shape}. A single image is x[None]."
        )
    stride, padding = pair(stride, "conv2d: stride", 1), pair(padding, "conv2d: padding", 0)
    if x.shape[3] != w.shape[2]:
        raise ShapeError(
            f"conv2d: weight expects {w.shape[2]} input channels, x has {x.shape[3]} "
            f"(x.shape={tuple(x.shape)}). Are the images grey, or channels first?"
        )
    for side, k, p in zip(x.shape[1:3], w.shape[:2], padding, strict=True):
        if k < 1 or side + 2 * p < k:
            raise ShapeError(
                f"conv2d: a kernel of {w.shape[:2]} does not fit into images of {x.shape[1:3]} "
                f"with padding {padding}. Use a smaller kernel, fewer poolings or more padding."
            )
    return Conv2d(stride, padding, tuple(x.shape), tuple(w.shape))


@in_float32
def conv2d(x, w, bias=None, *, stride: Any = 1, padding: Any = 0):
    """The convolution of images x with filters w.

    x (N, H, W, C), w (Kh, Kw, C, F), bias (F,) or None -> (N, Ho, Wo, F)
    stride, padding: an integer, or a pair for the two directions; padding is with zeros.
    Laws: linear in x and in w; commutes with translations away from the border.
    Raises ShapeError for channels that differ, or a kernel larger than the padded image.
    """
    x, w, bias = to_floating_point(x, w, bias)
    y = apply(conv2d_op(x, w, stride, padding), x, w)
    if bias is None:
        return y
    if bias.shape != (w.shape[3],):
        raise ShapeError(f"conv2d: bias has shape {bias.shape}, w has {w.shape[3]} filters.")
    return y + bias
