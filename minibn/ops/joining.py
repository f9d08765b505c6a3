"""Arrays one after another, and their parts: `concatenate` and `split` undo each other."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply
from minibn.backend import array_module
from minibn.errors import ShapeError, check_integer, with_own_keywords
from minibn.ops.indexing import getitem
from minibn.ops.shape import reshape, sizes_of


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
