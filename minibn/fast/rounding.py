"""Rounding by hand: products of rounded factors where no unit of the machine rounds them.

A float32 is sign, exponent and 23 bits of mantissa in a row, and as an integer it grows with its
absolute value. To keep fewer bits, d of them are dropped from that integer, to nearest:

    bits' = (bits + half - 1 + odd) with the last d bits cleared,    half = 2^(d-1)

where `odd` is the last bit that is kept: what lies exactly between two goes to the even one (IEEE
754). A carry out of the mantissa raises the exponent, which is right, up to infinity. NaN is kept.
So numbers of tf32 and bf16 are float32 numbers whose last 13 or 16 bits are 0. The error is at
most 2^-11 or 2^-8 of a normal number; tiny ones (subnormal, below 1.2e-38) keep fewer digits.

A product of two such numbers has at most 22 bits and is exact in float32, so that a float32
product of rounded matrices is what a tensor core computes, up to the order and the rounding of its
sums. One difference is left: GPUs before Hopper (sm_90) round to tf32 by `cvt.rna` alone, which
takes what lies exactly between two away from zero.

`Rounded` is the kernel that does so around any other way to multiply. Winograd's is not taken: it
would multiply sums of rounded numbers, which are not rounded themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import array_module
from minibn.fast.cpu.elementwise import piecewise
from minibn.fast.kernel import Kernel, KernelTable, first
from minibn.fast.precision import MANTISSA, current, precision
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.linalg import MatMul


def rounded(x: Any, to: str) -> Any:
    """The float32 array x with the digits of "tf32" or "bf16", as a new array.

    Laws: rounding twice is rounding once; x <= y gives rounded(x) <= rounded(y).
    Raises TypeError for another dtype.

    >>> rounded(np.array([1 + 2**-8, 1 + 2**-8 + 2**-20], np.float32), "bf16").tolist()
    [1.0, 1.0078125]
    """
    if x.dtype != np.float32:
        raise TypeError(f"rounded: x has dtype {x.dtype}; only float32 is rounded to {to}.")
    drop, out = MANTISSA["fp32"] - MANTISSA[to], x.copy()
    if drop:
        piecewise(lambda piece: _drop_bits(piece, drop), out)
    return out


def _drop_bits(x: Any, drop: int) -> None:
    bits = x.view(np.uint32)
    odd = (bits >> drop) & 1
    nearest = (bits + ((1 << (drop - 1)) - 1) + odd) & (2**32 - (1 << drop))
    bits[...] = array_module(x).where(x == x, nearest, bits)  # NaN would carry into the sign


class Rounded(Kernel):
    """A product of two float32 arrays, and its derivatives, of rounded factors.

    behind: the kernels that may multiply them then; where none fits, or is worth it, the op does.
    The backward pass rounds as the forward pass did.
    """

    rounds = True
    behind: tuple[type[Kernel], ...] = ()

    @classmethod
    def fits(cls, op: Any, *factors: Any) -> bool:
        return all(x.dtype == np.float32 for x in factors)

    def forward(self, *factors):
        self.to = current()
        factors = tuple(rounded(x, self.to) for x in factors)
        self.product = first(self.behind, self.op, factors) or self.op
        self.product.needs_input_grad = self.needs_input_grad
        return self.product.forward(*factors)

    def vjp(self, g, out, *factors):
        self.product.needs_input_grad = self.needs_input_grad
        with precision(self.to):  # a definition's vjp consists of products, too
            return self.product.vjp(
                rounded(g, self.to), out, *(rounded(x, self.to) for x in factors)
            )


def over(*behind: type[Kernel]) -> type[Rounded]:
    """`Rounded` with these kernels behind it."""
    return type("Rounded", (Rounded,), {"behind": behind})


# Where there are no kernels, or none that fits.
KERNELS: KernelTable = {
    Conv2d: (Rounded,),
    Conv2dInputGrad: (Rounded,),
    Conv2dWeightGrad: (Rounded,),
    MatMul: (Rounded,),
}
