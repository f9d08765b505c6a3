"""Rounding in software: products of rounded factors on machines without tensor cores.

The bits of a float32 are sign, exponent and 23 bits of mantissa; read as an integer they increase
with its absolute value. To round, the last d bits of that integer are dropped, to nearest:

    bits' = (bits + half - 1 + odd) with the last d bits cleared,    half = 2^(d-1)

where `odd` is the last bit that remains: ties go to even (IEEE 754). A carry out of the mantissa
increases the exponent, which is correct, up to infinity. NaN stays NaN.
So numbers of tf32 and bf16 are float32 numbers whose last 13 or 16 bits are 0. The error is at
most 2^-11 or 2^-8 of a normal number; subnormal ones, below 1.2e-38, keep fewer digits.

A product of two such numbers has at most 22 bits and is exact in float32, so that a float32
product of rounded matrices is what a tensor core computes, up to the order and the rounding of its
sums. One difference: GPUs before Hopper (sm_90) round to tf32 by `cvt.rna`, with ties away from
zero.

`RoundedProduct` rounds the factors, then calls another kernel or the definition. Winograd's kernel
is excluded: it multiplies sums of rounded numbers, which are not rounded themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import array_module
from minibn.fast.cpu.elementwise import map_pieces
from minibn.fast.kernel import Kernel, KernelTable, select_kernel
from minibn.fast.precision import MANTISSA, current, precision
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.linalg import MatMul


def round_to(x: Any, to: str) -> Any:
    """The float32 array x with the digits of "tf32" or "bf16", as a new array.

    Laws: rounding twice is rounding once; x <= y gives round_to(x) <= round_to(y).
    Raises TypeError for another dtype.

    >>> round_to(np.array([1 + 2**-8, 1 + 2**-8 + 2**-20], np.float32), "bf16").tolist()
    [1.0, 1.0078125]
    """
    if x.dtype != np.float32:
        raise TypeError(f"round_to: x has dtype {x.dtype}; only float32 is rounded to {to}.")
    drop, out = MANTISSA["fp32"] - MANTISSA[to], x.copy()
    if drop:
        map_pieces(lambda piece: _drop_bits(piece, drop), out)
    return out


def _drop_bits(x: Any, drop: int) -> None:
    bits = x.view(np.uint32)
    odd = (bits >> drop) & 1
    nearest = (bits + ((1 << (drop - 1)) - 1) + odd) & (2**32 - (1 << drop))
    bits[...] = array_module(x).where(x == x, nearest, bits)  # NaN would carry into the sign


class RoundedProduct(Kernel):
    """A product of two float32 arrays, and its derivatives, with rounded factors.

    kernels: those that may multiply the rounded factors; where none fits and pays, the op does.
    The backward pass rounds like the forward pass.
    """

    rounds = True
    kernels: tuple[type[Kernel], ...] = ()

    @classmethod
    def fits(cls, op: Any, *factors: Any) -> bool:
        return all(x.dtype == np.float32 for x in factors)

    def forward(self, *factors):
        self.to = current()
        factors = tuple(round_to(x, self.to) for x in factors)
        self.product = select_kernel(self.kernels, self.op, factors) or self.op
        self.product.needs_input_grad = self.needs_input_grad
        return self.product.forward(*factors)

    def vjp(self, g, out, *factors):
        self.product.needs_input_grad = self.needs_input_grad
        with precision(self.to):  # a definition's vjp consists of products
            return self.product.vjp(
                round_to(g, self.to), out, *(round_to(x, self.to) for x in factors)
            )


def round_before(*kernels: type[Kernel]) -> type[RoundedProduct]:
    """`RoundedProduct` whose rounded factors these kernels multiply."""
    return type("RoundedProduct", (RoundedProduct,), {"kernels": kernels})


# For the strict double, which has no other kernels.
KERNELS: KernelTable = {
    Conv2d: (RoundedProduct,),
    Conv2dInputGrad: (RoundedProduct,),
    Conv2dWeightGrad: (RoundedProduct,),
    MatMul: (RoundedProduct,),
}
