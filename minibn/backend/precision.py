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

Where a machine has no such units, the rounding is done by hand (`minibn.backend.rounding`): slower
than fp32, and as exact as on those that have them.

Source: NVIDIA, PTX ISA, "Alternate floating point data formats"; Wang & Kanwar 2019, bfloat16.
"""

from __future__ import annotations

import contextvars
import difflib
from typing import Any

MANTISSA = {"fp32": 23, "tf32": 10, "bf16": 7}  # bits kept, the leading 1 not counted
_current: contextvars.ContextVar[str] = contextvars.ContextVar("minibn_precision", default="fp32")


def current() -> str:
    """The current precision: "fp32", "tf32" or "bf16"."""
    return _current.get()


class precision:
    """From here on factors of products are rounded so: "fp32" (not at all), "tf32" or "bf16".

    In a `with` statement until its end. The choice belongs to the thread (or async task) that
    makes it. Raises ValueError for another name.

    >>> with precision("bf16"):
    ...     current()
    'bf16'
    >>> current()
    'fp32'
    """

    def __init__(self, name: str) -> None:
        if name not in MANTISSA:
            near = difflib.get_close_matches(str(name), MANTISSA, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(MANTISSA)}."
            raise ValueError(f"precision {name!r} is unknown. {hint}")
        self.name, self._before = name, [_current.get()]
        self._entered = False
        _current.set(name)

    def __enter__(self) -> precision:
        if self._entered or _current.get() != self.name:  # again, or after another choice
            self._before.append(_current.get())
        self._entered = True
        _current.set(self.name)
        return self

    def __exit__(self, *error: Any) -> None:
        _current.set(self._before.pop())
