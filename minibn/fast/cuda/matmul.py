"""Matrix products on tensor cores: see `products`.

A product of matrices is a convolution of images of one pixel, and that with a transposed matrix is
a gradient of it. So a transposed view is read without a copy:

    x · y    forward           x · yᵀ    input grad           xᵀ · y    weight grad
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import array_module
from minibn.fast.cuda import products
from minibn.fast.cuda.products import FORWARD, INPUT_GRAD, WEIGHT_GRAD
from minibn.fast.kernel import Kernel
from minibn.fast.precision import current


def is_transposed(x: Any) -> bool:
    """Whether x is the transpose of a C-contiguous matrix."""
    return bool(x.T.flags.c_contiguous and not x.flags.c_contiguous)


def product(x: Any, y: Any, precision: str) -> Any:
    """x @ y: (M, K), (K, N) -> (M, N), a new array."""
    xp, (M, K), N = array_module(x), x.shape, y.shape[1]
    z = xp.empty((M, N), np.float32)
    if is_transposed(y):
        role, images, filters = INPUT_GRAD, (M, 1, 1, N), (1, 1, N, K)
        x, y = xp.ascontiguousarray(x), y.T
    elif is_transposed(x):
        role, images, filters = WEIGHT_GRAD, (K, 1, 1, M), (1, 1, M, N)
        x, y = x.T, xp.ascontiguousarray(y)
    else:
        role, images, filters = FORWARD, (M, 1, 1, K), (1, 1, K, N)
        x, y = xp.ascontiguousarray(x), xp.ascontiguousarray(y)
    products.product(role, ((1, 1), (0, 0), images, filters), x, y, z, precision)
    return z


class TiledMatMul(Kernel):
    """MatMul of two matrices: z = x @ y,  x̄ = z̄ @ yᵀ,  ȳ = xᵀ @ z̄.

    The backward pass rounds like the forward pass.
    """

    @classmethod
    def fits(cls, op: Any, x: Any, y: Any) -> bool:
        matrices = x.ndim == y.ndim == 2 and products.fits(x, y)
        return matrices and x.shape[0] * y.shape[1] <= products.MOST

    def forward(self, x, y):
        self.precision = current()
        return product(x, y, self.precision)

    def vjp(self, g, out, x, y):
        return (
            product(g, y.T, self.precision) if self.needs_input_grad[0] else None,
            product(x.T, g, self.precision) if self.needs_input_grad[1] else None,
        )
