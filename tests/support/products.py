"""Convolutions and matrix products by tensor cores against float64, with the digits they owe."""

import numpy as np

from minibn.backend import to_numpy
from minibn.fast.precision import precision
from minibn.fast.rounding import round_to

PRECISIONS = ["fp32", "tf32", "bf16"]


def digits(to, K, parts=1):
    """The error that a sum of K products may have, of the sum of their absolute values.

    A tensor core adds 8 products (bf16: 16) to a sum at a time, and cuts each of these 9 (17)
    terms, and the new sum, to 24 bits. fp32: three times for the same 8 products, which are then
    added up to nearest; and each product lacks up to 3 · 2⁻²². At last the parts of K are added.
    """
    if to == "bf16":
        cuts = -(-K // 16) * 18 * 2.0**-23
    elif to == "tf32":
        cuts = -(-K // 8) * 10 * 2.0**-23
    else:
        cuts = 3 * 10 * 2.0**-23 + -(-K // 8) * 2.0**-24 + 3 * 2.0**-22
    return cuts + parts * 2.0**-24


def exact(op, factors, to="fp32"):
    """(the result of rounded factors, that of their absolute values), both in float64."""
    wide = [round_to(a, to).astype(np.float64) for a in factors]
    return op.forward(*wide), op.forward(*map(abs, wide))


def agree(found, op, factors, K, to="fp32", parts=1):
    """`found`, on the device, is the op's result for these factors, element by element."""
    found = to_numpy(found)
    expected, size = exact(op, factors, to)
    assert found.shape == expected.shape and found.dtype == np.float32
    assert (abs(found - expected) <= digits(to, K, parts) * size).all()


def run(backend, Kernel, op, factors, to="fp32"):
    """The kernel's result on the device."""
    kernel = Kernel(op)
    with precision(to):
        return kernel.forward(*(backend.asarray(a) for a in factors))
