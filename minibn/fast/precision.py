"""Precision: the format that the factors of products are rounded to.

A GPU multiplies matrices many times faster in a shorter format. `precision(...)` sets the format of
the factors of convolutions (and of their two gradients) and of matrix products:

    "fp32"   23 bits of mantissa: float32 as it is (the default)
    "tf32"   10 bits of mantissa, the exponents of float32
    "bf16"    7 bits of mantissa, the exponents of float32

    with minibn.precision("tf32"):
        loss = model(x)

Only the factors are rounded, inside the product. Products are accumulated in float32, and all else
stays float32: weights, the optimizer's state, statistics of norms, activations in memory.
float64 and complex arrays are never rounded.

The two gradients of a product are products themselves, and their factors are rounded too, also with
`create_graph=True`. Rounding is a step function; in derivatives it counts as the identity, as on a
GPU. Set the precision around both the forward and the backward pass. Kernels round, definitions do
not: under `minibn.kernels("reference")` nothing is rounded.

On machines without tensor cores factors are rounded in software (`minibn.fast.rounding`): slower
than fp32, with the accuracy of tensor cores.

Source: NVIDIA, PTX ISA, "Alternate floating point data formats"; Wang & Kanwar 2019, bfloat16.
"""

from __future__ import annotations

from minibn.setting import Choice, SettingScope

MANTISSA = {"fp32": 23, "tf32": 10, "bf16": 7}  # bits, without the implicit leading 1
_precision = Choice("precision", MANTISSA, default="fp32")
current = _precision.get  # () -> the current precision: "fp32", "tf32" or "bf16"


def precision(name: str) -> SettingScope:
    """From here on round factors of products to "fp32" (no rounding), "tf32" or "bf16".

    In a `with` statement until its end. It holds for the current thread or asyncio task only.
    Raises ValueError for another name.

    >>> with precision("bf16"):
    ...     current()
    'bf16'
    >>> current()
    'fp32'
    """
    return _precision.choose(name)
