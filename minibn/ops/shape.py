"""Operations that move values without computing. Each vjp moves them back.

`gather` and `scatter` are each other's adjoint, as are `pad` and a slice, `broadcast_to` and a
sum.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply, unbroadcast
from minibn.autograd.tensor import value
from minibn.backend import array_module, backend_of
from minibn.errors import ShapeError, check_integer, with_own_keywords


class Reshape(Op):
    """z = x in another shape (C order).    x̄ = z̄ in x's"""

    integers = "kept"
    needs = ()
    view = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x):
        return x.reshape(self.shape)

    def vjp(self, g, out, x):
        return reshape(g, x.shape)


class Transpose(Op):
    """z has axis `axes[i]` of x as its axis i.    x̄: the inverse permutation of z̄"""

    integers = "kept"
    needs = ()
    view = True

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, x):
        return x.transpose(self.axes)

    def vjp(self, g, out, x):
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return transpose(g, inverse)


class BroadcastTo(Op):
    """z = x repeated to `shape`.    x̄ = the sum of z̄ over the repeats"""

    integers = "kept"
    needs = ()
    view = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x):
        return array_module(x).broadcast_to(x, self.shape)

    def vjp(self, g, out, x):
        return unbroadcast(g, x.shape)


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


class Pad(Op):
    """z = x padded with zeros.    x̄ = the inside of z̄"""

    integers = "kept"
    needs = ()

    def __init__(self, widths: tuple[tuple[int, int], ...]) -> None:
        self.widths = widths

    def forward(self, x):
        shape = tuple(n + b + a for n, (b, a) in zip(x.shape, self.widths, strict=True))
        z = array_module(x).zeros(shape, x.dtype)
        z[self._inside(x.shape)] = x
        return z

    def vjp(self, g, out, x):
        return g[self._inside(x.shape)]

    def _inside(self, shape):
        return tuple(slice(b, b + n) for n, (b, _) in zip(shape, self.widths, strict=True))


class Concatenate(Op):
    """z = the inputs one after another along `axis`.    Each x̄ = its part of z̄"""

    integers = "kept"
    needs = ()

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, *inputs):
        return array_module(*inputs).concatenate(inputs, axis=self.axis)

    def vjp(self, g, out, *inputs):
        parts, start = [], 0
        for x in inputs:
            stop = start + x.shape[self.axis]
            parts.append(g[(slice(None),) * self.axis + (slice(start, stop),)])
            start = stop
        return tuple(parts)


def sizes_of(shape: Any, what: str, least: int = 0) -> tuple[int, ...]:
    """A shape, an integer or a sequence of them, as a tuple. Raises TypeError, ValueError."""
    several = isinstance(shape, (tuple, list)) or (isinstance(shape, np.ndarray) and shape.ndim)
    given = shape if several else (shape,)
    return tuple(check_integer(n, what, least) for n in given)


def reshape(x, shape: Any):
    """x in another shape of the same size; one entry may be -1."""
    shape = sizes_of(shape, "reshape: a size", -1)
    known = math.prod(n for n in shape if n != -1)
    fits = x.size == known if -1 not in shape else known > 0 and x.size % known == 0
    if not fits or shape.count(-1) > 1:
        raise ShapeError(f"reshape: {x.size} values of shape {x.shape} don't fit into {shape}.")
    return apply(Reshape(shape), x)


def transpose(x, axes: Any = None):
    """x with its axes permuted (reversed by default)."""
    order = tuple(reversed(range(x.ndim)))
    if axes is not None:
        given = axes if isinstance(axes, (tuple, list, range)) else (axes,)
        order = tuple(check_integer(a, "transpose: axis") for a in given)
    order = tuple(a + x.ndim if a < 0 else a for a in order)
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"transpose: axes {axes} are no permutation of the {x.ndim} axes of x.")
    return apply(Transpose(order), x)


def broadcast_to(x, shape: tuple[int, ...]):
    """x repeated to `shape`, by NumPy's rules. Raises ShapeError if it doesn't fit."""
    shape = sizes_of(shape, "broadcast_to: a size")
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(f"broadcast_to: shape {x.shape} can't be repeated to {shape}.")
    return apply(BroadcastTo(shape), x)


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


def pad(x, widths: Any):
    """x padded with zeros: one (before, after) pair of widths per axis."""
    try:
        pairs = [(before, after) for before, after in widths]
    except (TypeError, ValueError):
        raise ShapeError(
            f"pad: widths={widths!r} must be a pair (before, after) for each of {x.ndim} axes."
        ) from None
    widths = tuple(tuple(check_integer(n, "pad: a width") for n in pair) for pair in pairs)
    if len(widths) != x.ndim or any(w < 0 for pair in widths for w in pair):
        raise ShapeError(f"pad: widths {widths} must be {x.ndim} pairs of numbers from 0 up.")
    return apply(Pad(widths), x)


@with_own_keywords
def concatenate(tensors: Any, axis: int = 0):
    """The arrays or Tensors one after another along `axis`; their other axes agree."""
    tensors = list(tensors)
    if not tensors:
        raise ShapeError("concatenate: there is nothing to concatenate.")
    ndim, axis = tensors[0].ndim, check_integer(axis, "concatenate: axis")
    if not -ndim <= axis < ndim or any(x.ndim != ndim for x in tensors):
        raise ShapeError(f"concatenate: no axis {axis} in shapes {[x.shape for x in tensors]}.")
    axis %= ndim
    others = {x.shape[:axis] + x.shape[axis + 1 :] for x in tensors}
    if len(others) > 1:
        raise ShapeError(
            f"concatenate: shapes {[x.shape for x in tensors]} differ beside axis {axis}."
        )
    return apply(Concatenate(axis), *tensors)


@with_own_keywords
def stack(tensors: Any, axis: int = 0):
    """The arrays or Tensors of one shape along a new axis. Raises ShapeError."""
    tensors = list(tensors)
    shapes = {x.shape for x in tensors}
    if len(shapes) != 1:
        raise ShapeError(f"stack: shapes {[x.shape for x in tensors]} must be equal, one at least.")
    (shape,), axis = shapes, check_integer(axis, "stack: axis")
    if not -len(shape) - 1 <= axis <= len(shape):
        raise ShapeError(f"stack: no axis {axis} among the {len(shape) + 1} axes of the result.")
    at = axis % (len(shape) + 1)
    return concatenate([reshape(x, (*shape[:at], 1, *shape[at:])) for x in tensors], at)


@with_own_keywords
def split(x, split_size: Any, axis: int = 0) -> tuple:
    """x in parts along `axis`, each a view, as PyTorch's split.

    split_size: the length of each part (the last one may be shorter), or a list of their lengths.
    It is no number of parts, as NumPy's. Raises ShapeError unless the lengths add up to the axis's.
    """
    if not -x.ndim <= check_integer(axis, "split: axis") < x.ndim:
        raise ShapeError(f"split: no axis {axis} in shape {x.shape}.")
    at, length = axis % x.ndim, x.shape[axis]
    if isinstance(split_size, (int, np.integer)):
        if split_size < 1:
            raise ShapeError(
                f"split: split_size={split_size}, the length of a part, is at least 1."
            )
        starts = range(0, builtins.max(length, 1), split_size)
        sizes = [min(split_size, length - start) for start in starts]
    else:
        sizes = list(sizes_of(split_size, "split: split_size", least=-1))
    if builtins.sum(sizes) != length or any(n < 0 for n in sizes):
        raise ShapeError(f"split: lengths {sizes} must add up to {length}, axis {axis} of x.")
    parts, start = [], 0
    for n in sizes:
        parts.append(getitem(x, (slice(None),) * at + (slice(start, start + n),)))
        start += n
    return tuple(parts)
