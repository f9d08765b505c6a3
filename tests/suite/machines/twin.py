"""A deliberately naive autodiff in NumPy, without saved values and without optimisation.

The method is the dual number of Clifford (1873), forward mode: every value carries its slope along
each single entry of each leaf, and an op pushes each slope forward in turn. There is no tape, no
backward pass, no cotangent on the way and no un-broadcasting, so it shares no mistakes with the
tape. A gradient is computed at the end: ⟨cotangent, slope⟩, entry by entry.

    x = leaf([3.0, 4.0])
    gradient(multiply(x, x), of=x, cotangent=ones(2))          # [6, 8]

Each op is one function: its value, then for each argument the linear map that pushes a slope
through. Comparisons are of real parts, so that values may be complex: `replay` computes a result
again with a leaf moved by a tiny imaginary step, and the imaginary part of its gradient is then a
row of the Hessian.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

TINY = 1e-20  # the complex step: nothing cancels, so it can be this small


class Twin:
    """A value, and how it moves when one entry of one leaf moves.

    slopes: (name of the leaf, number of its entry) -> slope, an array of the value's shape.
    recipe: the op and the arguments that gave it, for `replay`; None for leaves and constants.
    """

    def __init__(self, value: Any, slopes: dict | None = None, name: object = None) -> None:
        self.value = np.array(value)
        self.slopes: dict[tuple[object, int], np.ndarray] = slopes or {}
        self.name = name or object()
        self.recipe: tuple[Callable[..., Twin], tuple] | None = None

    def holding(self, value: Any) -> Twin:
        """The same node with another value, after a change in place."""
        changed = Twin(value, self.slopes, self.name)
        changed.recipe = self.recipe
        return changed


def constant(value: Any) -> Twin:
    """A value that moves with nothing."""
    return Twin(value)


def leaf(value: Any, name: object = None) -> Twin:
    """A value whose entries move freely: along its entry i its slope is the i-th unit vector."""
    x = Twin(value, name=name)
    for i in range(x.value.size):
        unit = np.zeros(x.value.size)
        unit[i] = 1
        x.slopes[x.name, i] = unit.reshape(x.value.shape)
    return x


def gradient(z: Twin, of: Twin, cotangent: np.ndarray) -> np.ndarray:
    """⟨cotangent, slope of z⟩ along each entry of the leaf `of`."""
    entries = [
        np.sum(cotangent * z.slopes.get((of.name, i), np.zeros(z.value.shape)))
        for i in range(of.value.size)
    ]
    return np.array(entries, dtype=float if not entries else None).reshape(of.value.shape)


def replay(z: Twin, fresh: Twin | None = None, along: dict | None = None) -> Twin:
    """z computed again from its recipe: with the node `fresh` as one more leaf, and with each leaf
    named in `along` moved by i·TINY in that direction."""
    done: dict[int, Twin] = {}

    def again(x: Any) -> Any:
        if not isinstance(x, Twin):
            return tuple(again(part) for part in x) if isinstance(x, tuple) else x
        if id(x) not in done:
            if fresh is not None and x.name is fresh.name:
                done[id(x)] = leaf(x.value, x.name)
            elif x.recipe is not None:
                op, arguments = x.recipe
                y = op(*(again(part) for part in arguments))
                # The real part is known, to the last digit: a tie stays a tie.
                moved = 1j * y.value.imag if y.value.dtype.kind == "c" else 0
                done[id(x)] = y.holding(x.value + moved)
                done[id(x)].name = x.name
            elif along and x.name in along:
                done[id(x)] = x.holding(x.value + 1j * TINY * along[x.name])
            else:
                done[id(x)] = x
        return done[id(x)]

    return again(z)


# -- an op, from its value and the maps that push slopes through it


def op(rule: Callable[..., tuple]) -> Callable[..., Twin]:
    """The op whose `rule` gives its value and the pairs (argument, map of that argument's slope).

    The slopes of all arguments add up: the chain rule.
    """

    @functools.wraps(rule)
    def run(*arguments: Any) -> Twin:
        value, *moves = rule(*arguments)
        slopes: dict = {}
        for x, push in moves:
            for entry, slope in x.slopes.items():
                slopes[entry] = np.asarray(slopes.get(entry, 0) + push(slope))
        z = Twin(value, slopes)
        z.recipe = (run, arguments)
        return z

    return run


def linear(f: Callable[[Any], Any], x: Twin) -> tuple:
    """A linear map is its own derivative."""
    return f(x.value), (x, f)


# -- elementwise


@op
def add(x, y):
    return x.value + y.value, (x, lambda d: d + 0 * y.value), (y, lambda d: d + 0 * x.value)


@op
def subtract(x, y):
    return x.value - y.value, (x, lambda d: d - 0 * y.value), (y, lambda d: 0 * x.value - d)


@op
def multiply(x, y):
    return x.value * y.value, (x, lambda d: d * y.value), (y, lambda d: x.value * d)


@op
def divide(x, y):
    return (
        x.value / y.value,
        (x, lambda d: d / y.value),
        (y, lambda d: -x.value * d / y.value**2),
    )


@op
def negative(x):
    return linear(lambda d: -d, x)


@op
def exp(x):
    return np.exp(x.value), (x, lambda d: np.exp(x.value) * d)


@op
def log(x):
    return np.log(x.value), (x, lambda d: d / x.value)


@op
def sqrt(x):
    return np.sqrt(x.value), (x, lambda d: d / (2 * np.sqrt(x.value)))


@op
def tanh(x):
    return np.sinh(x.value) / np.cosh(x.value), (x, lambda d: d / np.cosh(x.value) ** 2)


@op
def sigmoid(x):
    return 1 / (1 + np.exp(-x.value)), (x, lambda d: d / (2 + np.exp(x.value) + np.exp(-x.value)))


@op
def relu(x):
    """The slope at 0 is taken as 0."""
    on = np.where(x.value.real > 0, 1.0, 0.0)
    return x.value * on, (x, lambda d: d * on)


@op
def abs(x):
    """The slope at 0 is taken as 0."""
    side = np.where(x.value.real > 0, 1.0, np.where(x.value.real < 0, -1.0, 0.0))
    return x.value * side, (x, lambda d: d * side)


@op
def maximum(x, y):
    """A tie shares the slope: half to each."""
    above, tie = x.value.real > y.value.real, x.value.real == y.value.real
    weight = np.where(tie, 0.5, np.where(above, 1.0, 0.0))
    return (
        weight * x.value + (1 - weight) * y.value,
        (x, lambda d: weight * d),
        (y, lambda d: (1 - weight) * d),
    )


# -- reductions, shapes, products


@op
def sum(x, axis, keepdims):
    return linear(lambda d: np.sum(d, axis=axis, keepdims=keepdims), x)


@op
def mean(x, axis, keepdims):
    return linear(lambda d: np.mean(d, axis=axis, keepdims=keepdims), x)


@op
def max(x, axis, keepdims):
    """Ties share the slope equally."""
    top = x.value.real == np.max(x.value.real, axis=axis, keepdims=True)
    weight = top / np.sum(top, axis=axis, keepdims=True)
    return linear(lambda d: np.sum(weight * d, axis=axis, keepdims=keepdims), x)


@op
def logsumexp(x, axis, keepdims):
    total = np.sum(np.exp(x.value), axis=axis, keepdims=True)
    share = np.exp(x.value) / total
    value = np.log(total) if keepdims else np.log(np.sum(np.exp(x.value), axis=axis))
    return value, (x, lambda d: np.sum(share * d, axis=axis, keepdims=keepdims))


@op
def reshape(x, shape):
    return linear(lambda d: np.reshape(d, shape), x)


@op
def transpose(x, axes):
    return linear(lambda d: np.transpose(d, axes), x)


@op
def broadcast_to(x, shape):
    return linear(lambda d: np.broadcast_to(d, shape), x)


@op
def getitem(x, index):
    return linear(lambda d: d[index], x)


@op
def concatenate(parts, axis):
    """Along one argument's entry the other arguments are constant."""

    def only(i):
        zeros = [np.zeros(x.value.shape) for x in parts]
        return lambda d: np.concatenate([*zeros[:i], d, *zeros[i + 1 :]], axis)

    value = np.concatenate([x.value for x in parts], axis)
    return value, *((x, only(i)) for i, x in enumerate(parts))


@op
def matmul(x, y):
    return x.value @ y.value, (x, lambda d: d @ y.value), (y, lambda d: x.value @ d)
