"""Operations that move values without computing. Each vjp moves them back.

`pad` and a slice are each other's adjoint, as are `broadcast_to` and a sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply, unbroadcast
from minibn.backend import array_module
from minibn.errors import ShapeError, check_integer


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
