"""Values taken from positions, x[index], and put back there.

`gather` and `scatter` are each other's adjoint, as are GetItem and SetItem: those at flat
positions, these at slices.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply
from minibn.autograd.tensor import value
from minibn.backend import array_module, backend_of
from minibn.ops.shape import sizes_of


class GetItem(Op):
    """z = x[index] with slices.    x̄ = z̄ at the index, 0 elsewhere"""

    integers = "kept"
    needs = ()
    view = True

    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, x):
        return x[self.index]

    def vjp(self, g, out, x):
        return apply(SetItem(self.index, x.shape), g)


class SetItem(Op):
    """z = 0 of `shape`, but x at the index: the adjoint of GetItem.    x̄ = z̄[index]"""

    integers = "kept"
    needs = ()

    def __init__(self, index: Any, shape: tuple[int, ...]) -> None:
        self.index, self.shape = index, shape

    def forward(self, x):
        z = array_module(x).zeros(self.shape, x.dtype)
        z[self.index] = x
        return z

    def vjp(self, g, out, x):
        return apply(GetItem(self.index), g)


class Gather(Op):
    """z = x.flat[index].    x̄ = the sum of z̄ over the positions that each value was copied to"""

    integers = "kept"
    needs = ()

    def __init__(self, index: Any, unique: bool = False) -> None:
        self.index, self.unique = index, unique

    def forward(self, x):
        return x.reshape(-1)[self.index]

    def vjp(self, g, out, x):
        return scatter(g, self.index, x.shape, self.unique)


class Scatter(Op):
    """z = 0 of `shape`, x added at the flat index: the adjoint of Gather.    x̄ = z̄.flat[index]"""

    integers = "int64"
    needs = ()

    def __init__(self, index: Any, shape: tuple[int, ...], unique: bool = False) -> None:
        self.index, self.shape, self.unique = index, shape, unique

    def forward(self, x):
        backend = backend_of(x)
        put = backend.scatter_assign if self.unique else backend.scatter_add
        return put(self.shape, self.index, x)

    def vjp(self, g, out, x):
        return gather(g, self.index, self.unique)


_BASIC = (slice, int, np.integer, type(None), type(...))


def _dtype(part: Any) -> Any:
    """An empty list of indices has none of its own."""
    return np.intp if isinstance(part, (list, tuple)) and not part else None


def getitem(x, index: Any):
    """x[index]: slices, integers, None and Ellipsis (a view), or arrays of integers or booleans.

    Integer arrays are checked against the axis: CuPy wraps out-of-range indices silently.
    Raises IndexError.
    """
    parts = index if isinstance(index, tuple) else (index,)
    if all(isinstance(part, _BASIC) for part in parts):
        return apply(GetItem(index), x)
    backend = backend_of(value(x))
    parts = tuple(
        part if isinstance(part, _BASIC) else backend.asarray(value(part), dtype=_dtype(part))
        for part in parts
    )
    for part in parts:
        if hasattr(part, "dtype") and part.dtype.kind not in "iub":
            raise IndexError(f"getitem: an index of {part.dtype}; it is of integers or booleans.")
    # Index the flat positions in the same way, to see where each value comes from.
    xp, indices = backend.xp, _axes_indexed(parts, x.ndim)
    if len(indices) > x.ndim:
        raise IndexError(f"getitem: {len(indices)} indices for an array of shape {x.shape}.")
    for axis, part in enumerate(indices):
        if part is not None and part.size:
            low, high = int(part.min().item()), int(part.max().item())
            if low < -x.shape[axis] or high >= x.shape[axis]:
                raise IndexError(
                    f"getitem: indices from {low} to {high} for axis {axis} of shape {x.shape}."
                )
    positions = xp.arange(x.size).reshape(x.shape)[parts]
    return apply(Gather(positions), x)


def _axes_indexed(parts: tuple, ndim: int) -> list:
    """The integer array that indexes each axis of x, or None."""
    used = [p for p in parts if p is not None]
    masks = [hasattr(p, "dtype") and p.dtype.kind == "b" for p in used]
    widths = [p.ndim if m else p is not ... for p, m in zip(used, masks, strict=True)]
    axes: list = []
    for part, mask in zip(used, masks, strict=True):
        if part is ...:
            axes += [None] * (ndim - builtins.sum(widths))
        elif mask:
            axes += [None] * part.ndim
        else:
            axes.append(part if hasattr(part, "dtype") else None)
    return axes


def gather(x, index, unique: bool = False):
    """x.flat[index]; `index` is an integer array of any shape, not checked against the range.

    unique: no position occurs twice, so the adjoint may assign instead of adding.
    """
    return apply(Gather(_positions(index, "gather"), unique), x)


def _positions(index: Any, name: str) -> Any:
    """The flat index. Raises TypeError unless it is an array of integers."""
    index = value(index)
    if getattr(getattr(index, "dtype", None), "kind", "") not in ("i", "u"):
        raise TypeError(f"{name}: index={index!r:.80} must be an array of integers: positions.")
    return index


def scatter(x, index, shape: tuple[int, ...], unique: bool = False):
    """Zeros of `shape`, x added at the flat `index` (of x's shape): the adjoint of gather."""
    shape = sizes_of(shape, "scatter: a size")
    return apply(Scatter(_positions(index, "scatter"), shape, unique), x)
