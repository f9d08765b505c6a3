"""Precision: what the operands of products are rounded to.

A GPU multiplies matrices many times faster when the factors have fewer digits. `precision(...)`
says how many the factors of convolutions (and of their two gradients) and of matrix products keep:

    "fp32"   23 bits of mantissa: float32 as it is (the default)
    "tf32"   10 bits of mantissa, the exponents of float32
    "bf16"    7 bits of mantissa, the exponents of float32

    with minibn.precision("tf32"):
        loss = model(x)

Only the factors are rounded, inside the product. Their products are added up in float32, and all
else stays float32: weights and what the optimizer keeps, statistics of norms, activations in
memory. float64 and complex arrays are never rounded.

The two gradients of a product are products themselves, and their factors are rounded too, also
where they are differentiated again (`create_graph=True`). A gradient is that of the products
without rounding, which is a step function: as on a GPU, rounding counts as the identity. Make the
choice around the forward and the backward pass. Kernels round, definitions do not: under
`minibn.kernels("reference")` nothing is rounded.

Where a machine has no such units, the rounding is done by hand (`minibn.fast.rounding`): slower
than fp32, and as exact as on those that have them.

Source: NVIDIA, PTX ISA, "Alternate floating point data formats"; Wang & Kanwar 2019, bfloat16.
"""

from __future__ import annotations

from minibn.setting import Choice, ChoiceScope

MANTISSA = {"fp32": 23, "tf32": 10, "bf16": 7}  # bits kept, the leading 1 not counted
_precision = Choice("precision", MANTISSA, default="fp32")
current = _precision.get  # () -> the current precision: "fp32", "tf32" or "bf16"


def precision(name: str) -> ChoiceScope:
    """From here on factors of products are rounded so: "fp32" (not at all), "tf32" or "bf16".

    In a `with` statement until its end. The choice belongs to the thread (or asyncio task) that
    makes it. Raises ValueError for another name.

    >>> with precision("bf16"):
    ...     current()
    'bf16'
    >>> current()
    'fp32'
    """
    return _precision.choose(name)
