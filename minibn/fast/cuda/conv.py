"""Convolutions and their two gradients on tensor cores: see `products`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibn.backend import array_module
from minibn.fast.cuda import products
from minibn.fast.cuda.products import FORWARD, INPUT_GRAD, WEIGHT_GRAD
from minibn.fast.kernel import Kernel
from minibn.fast.precision import current


def run(role: int, op: Any, images: Any, b: Any, precision: str) -> Any:
    """y, x̄ or w̄ of a convolution with the settings of `op`, as a new array."""
    xp = array_module(images)
    shape = (op.y_shape, op.x_shape, op.w_shape)[role]
    z = xp.empty(shape, np.float32)
    images, b = xp.ascontiguousarray(images), xp.ascontiguousarray(b)
    products.product(role, op.settings, images, b, z, precision)
    return z


class _Tiled(Kernel):
    @classmethod
    def fits(cls, op: Any, a: Any, b: Any) -> bool:
        shapes = (op.x_shape, op.w_shape, op.y_shape)
        return products.fits(a, b) and max(math.prod(s) for s in shapes) <= products.MOST


class TiledConv2d(_Tiled):
    """y = conv2d(x, w).    x̄ = input_grad(ȳ, w),   w̄ = weight_grad(x, ȳ)

    The backward pass rounds like the forward pass.
    """

    def forward(self, x, w):
        self.precision = current()
        return run(FORWARD, self.op, x, w, self.precision)

    def vjp(self, g, out, x, w):
        wants_x, wants_w = self.needs_input_grad
        return (
            run(INPUT_GRAD, self.op, g, w, self.precision) if wants_x else None,
            run(WEIGHT_GRAD, self.op, x, g, self.precision) if wants_w else None,
        )


class TiledInputGrad(_Tiled):
    """x̄ = input_grad(c, w)."""

    def forward(self, c, w):
        return run(INPUT_GRAD, self.op, c, w, current())


class TiledWeightGrad(_Tiled):
    """w̄ = weight_grad(x, c)."""

    def forward(self, x, c):
        return run(WEIGHT_GRAD, self.op, x, c, current())
