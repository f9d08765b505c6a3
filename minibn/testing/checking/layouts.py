"""Memory layouts of what a vjp gets, and the memory of what it returns.

Inputs arrive in the layout in which the user gave them. Cotangents arrive in every layout, since a
caller decides on theirs (a slice, a transpose, the expanded cotangent of a sum): a vjp that reads
them as if they were contiguous is wrong. Buffers are longer than their arrays and filled with NaN,
so that such a vjp reads NaN, and not another's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.lib.array_utils import byte_bounds


def place(x: np.ndarray, strides: Sequence[int], offset: int, size: int) -> np.ndarray:
    """The values of x with these strides, from byte `offset` of a buffer of `size` bytes on."""
    items = -(-size // x.itemsize) + x.size  # with room for a reader who ignores the strides
    buffer = np.full(items, np.nan if x.dtype.kind == "f" else 0, x.dtype)
    y = np.ndarray(x.shape, x.dtype, buffer.data, offset, tuple(strides))
    y[...] = x
    return y


def expands(x: np.ndarray) -> bool:
    """Whether entries of x share memory, as those of `np.broadcast_to` do."""
    return any(s == 0 < n - 1 for s, n in zip(x.strides, x.shape, strict=True))


def copy_in(x: np.ndarray, layout: np.ndarray | None = None) -> np.ndarray:
    """A copy of x in the layout of `layout` (of x itself), read-only if that is. The strides are
    the same in numbers: x may be the same values in float64, or complex, which take more bytes."""
    layout = x if layout is None else layout
    fixed = layout is not x and expands(layout)  # its entries can't move one by one
    in_numbers = all(s % layout.itemsize == 0 for s in layout.strides)  # not a field of a record
    if fixed or layout.flags.c_contiguous or not x.size or x.dtype.hasobject or not in_numbers:
        y = np.array(x, order="C")
    else:
        low, high = byte_bounds(layout)
        first = layout.__array_interface__["data"][0] - low
        longer = lambda size: size * x.itemsize // layout.itemsize  # noqa: E731
        y = place(x, [longer(s) for s in layout.strides], longer(first), longer(high - low))
    if layout is x:
        y.flags.writeable = x.flags.writeable
    return y


def in_fortran_order(x: np.ndarray) -> np.ndarray:
    return place(x, np.empty(x.shape, x.dtype, "F").strides, 0, x.nbytes)


def reversed_in_memory(x: np.ndarray) -> np.ndarray:
    """Negative strides along every axis."""
    strides = [-s for s in np.empty(x.shape, x.dtype).strides]
    return place(x, strides, max(x.nbytes - x.itemsize, 0), x.nbytes)


def with_gaps(x: np.ndarray) -> np.ndarray:
    """Every second number of a buffer."""
    return place(x, [2 * s for s in np.empty(x.shape, x.dtype).strides], 0, 2 * x.nbytes)


COTANGENT_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "in Fortran order": in_fortran_order,
    "with negative strides": reversed_in_memory,
    "with gaps (every second number of a buffer)": with_gaps,
}


def expanded(x: np.ndarray) -> np.ndarray:
    """The first number of x in every place, with strides of 0, as a sum passes it back. Read-only,
    since writing to one entry would change all."""
    one = np.full(1 + x.size, np.nan, x.dtype)
    one[0] = x.flat[0]
    y = np.ndarray(x.shape, x.dtype, one.data, 0, (0,) * x.ndim)
    y.flags.writeable = False
    return y


def aliases(
    gradients: Sequence[object],
    positions: Sequence[int],
    g: np.ndarray,
    inputs: Sequence[object],
    before: Sequence[np.ndarray] = (),
) -> list[str]:
    """What is wrong with the memory of the gradients as they were returned, a sentence each.

    Whoever accumulates into one of them must not change the cotangent, an input, another gradient,
    another entry of the same one, or what the call before has returned (`before`).
    """
    arrays = {i: d for i, d in zip(positions, gradients, strict=True) if isinstance(d, np.ndarray)}
    arrays = {i: d for i, d in arrays.items() if d.size}
    remedy = "Return a copy, or pass allow_views=True if nothing ever writes into a gradient"
    faults = []
    for i, d in arrays.items():
        if expands(d):
            faults.append(
                f"input {i}: the gradient is a broadcast whose entries share memory: nothing can "
                f"be added to it. {remedy}"
            )
        elif not d.flags.writeable:
            faults.append(f"input {i}: the gradient is read-only. {remedy}")
        if np.may_share_memory(d, g):
            faults.append(
                f"input {i}: the gradient is a view of the cotangent: adding to one changes the "
                f"other. {remedy}"
            )
        elif any(np.may_share_memory(d, old) for old in before):
            faults.append(
                f"input {i}: every call writes its gradient into the same memory, so that the next "
                f"one changes this. {remedy}"
            )
        faults += [
            f"input {i}: the gradient is a view of input {k}: adding to it changes the input. "
            f"{remedy}"
            for k, x in enumerate(inputs)
            if isinstance(x, np.ndarray) and np.may_share_memory(d, x)
        ]
        faults += [
            f"the gradients of inputs {i} and {k} share memory: adding to one of them changes the "
            f"other. {remedy}"
            for k, other in arrays.items()
            if k > i and np.may_share_memory(d, other)
        ]
    return faults
