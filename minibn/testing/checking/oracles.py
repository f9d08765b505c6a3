"""Oracles: derivatives computed from nothing but values of the function.

Each is a function of `f`, the list of its inputs, the position `i` of the one that moves and the
direction `u` in which it moves, and returns a `Slope`: J u, the derivative of every output along
u, with an estimate of its own error. An oracle that does not apply raises `Abstention`.

    complex step   f(x + ihu).imag / h    Squire & Trapp 1998    exact, where f is analytic
    differences    (f(x+hu) - f(x-hu)) / 2h, extrapolated to h = 0: Ridders 1982    any smooth f
    one large step f(x+u) - f(x)          where f is affine: no error but rounding
    Taylor order   how fast f(x+hu) - f(x) - h⟨g, u⟩ vanishes: an order, not a tolerance

NumPy alone is needed here; `f` takes and gives NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Function = Callable[..., Any]
TINY = 1e-20  # of the scale of x: nothing cancels in the complex step, so it can be so small
EPS = float(np.finfo(float).eps)
SMALLEST = float(np.finfo(float).tiny)  # a smaller number has lost digits
STRIDE = 0.7548776662466927  # the large step; no whole number, which could be a period of f
PART = 0.3819660112501051  # of it, for a third look: the stairs of a floor can meet two steps
LEVELS = 5  # steps of a tableau, each half the one before
STARTS = (5e-2, 2e-3, 1e-4, 5e-6)  # its largest step, in units of the input's own scale
SMALLER = (1e-4, 5e-6, 1e-7, 2e-9)  # to confirm a contradiction


class Abstention(Exception):
    """The oracle does not apply here; the message says why."""


@dataclass(frozen=True)
class Slope:
    """J u with the error of each entry, as the oracle estimates it."""

    value: np.ndarray
    error: np.ndarray

    def along(self, c: np.ndarray) -> tuple[float, float]:
        """⟨c, J u⟩ and its error."""
        return float((c * self.value).sum()), float((np.abs(c) * self.error).sum())


@dataclass(frozen=True)
class Sides:
    """The slopes from the points x ± hu, from either side and central, with the values ahead."""

    central: Slope
    right: Slope  # as h falls to 0
    left: Slope  # as h rises to 0: the slope in direction -u is minus this
    steps: np.ndarray  # (n,) the h at which f was evaluated
    ahead: np.ndarray  # (n, *output) f(x + hu)

    def kinks(self) -> np.ndarray:
        """Where the two sides disagree by more than the errors of both explain."""
        gap = np.abs(self.right.value - self.left.value)
        size = np.maximum(np.abs(self.right.value), np.abs(self.left.value))
        return gap > 20 * (self.right.error + self.left.error) + 1e-5 * size


def shift(inputs: Sequence[np.ndarray], i: int, step: Any) -> list[np.ndarray]:
    """The inputs, with `step` added to number i."""
    return [np.asarray(x + step) if k == i else x for k, x in enumerate(inputs)]


def one_ulp_away(x: np.ndarray, salt: int) -> np.ndarray:
    """The neighbours of x among the numbers of its precision, nearer to 0 or further, at random.

    The side is drawn for each magnitude (a hash of its bits and the salt): ties stay ties, and
    zeros zero. Otherwise, at a kink, the gradient of the other side would pass for a rounding
    error.
    """
    magnitude = np.abs(x)
    bits = magnitude.view(f"u{x.dtype.itemsize}").astype(np.uint64)
    with np.errstate(over="ignore"):  # Fibonacci hashing: the product wraps
        mixed = (bits ^ np.uint64(salt)) * np.uint64(0x9E3779B97F4A7C15)
    outwards = (mixed >> np.uint64(63)).astype(bool)
    away = np.where(outwards, np.nextafter(magnitude, np.inf), np.nextafter(magnitude, 0))
    return np.asarray(np.copysign(np.where(x == 0, 0, away), x)).astype(x.dtype)


def salt_from(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))


def smooth(noise: np.ndarray) -> np.ndarray:
    """An entry's noise, but not less than the root mean square: one entry may be lucky."""
    return np.maximum(noise, norm(noise) / np.sqrt(noise.size or 1))


def norm(x: np.ndarray) -> float:
    """The Euclidean norm, also where squares overflow or underflow."""
    largest = float(np.abs(x).max(initial=0))
    if not (largest and np.isfinite(largest)):
        return largest
    return largest * float(np.linalg.norm(x / largest))


def value_near(f: Function, inputs: Sequence[np.ndarray]) -> np.ndarray | None:
    """f at a point nearby, where it need not be defined: None if it raises or is not finite."""
    try:
        with np.errstate(all="ignore"):
            y = np.asarray(f(*map(np.asarray, inputs)), float)  # 0-d arithmetic gives scalars
    except Exception:  # any error of f's own: it may check its domain
        return None
    return y if np.isfinite(y).all() else None


def noise_of(f: Function, inputs: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """How far rounding moves each output: fourth differences over steps so small that nothing else
    is left (Moré & Wild 2011, "Estimating computational noise"). They include what f loses inside,
    by cancellation or by computing in float32. Where f moves in stairs, so that no step shows, it
    moves between neighbouring numbers."""
    y = np.asarray(f(*inputs))
    own = np.abs(y).astype(float) * (np.finfo(y.dtype).eps if y.dtype.kind == "f" else EPS)
    own = np.maximum(own, SMALLEST)
    for _ in range(2):
        salt = salt_from(rng)
        there = value_near(f, [one_ulp_away(x, salt) for x in inputs])
        stairs = np.abs(there - y) if there is not None and there.shape == y.shape else 0 * own
        largest = max(float(np.abs(a).max(initial=0)) for a in (y, *inputs))
        own = np.maximum(own, np.where(stairs <= 1e-6 * largest, stairs, 0.0))  # no step of floor
    steps = [3e-7 * units(x) * rng.standard_normal(x.shape) for x in inputs]
    outwards = [np.where(x == 0, h, np.copysign(h, x)) for x, h in zip(inputs, steps, strict=True)]
    samples = [
        value_near(f, [np.asarray(x + k * h) for x, h in zip(inputs, outwards, strict=True)])
        for k in range(8)  # on one side, so that a kink at x is not seen, nor at a 0 beside it
    ]
    values = [v for v in samples if v is not None and v.shape == y.shape]
    if len(values) < len(samples):
        return smooth(own)
    fourth = np.diff(np.stack(values), n=4, axis=0)
    largest = np.abs(fourth).max(axis=0)  # squares of large numbers overflow
    relative = fourth / np.where(largest > 0, largest, 1.0)
    moved = largest * np.sqrt((relative**2).mean(axis=0) / 70)  # 70 = Σ binomials²
    return smooth(np.maximum(own, moved))


def complex_step(f: Function, inputs: Sequence[np.ndarray], i: int, u: np.ndarray) -> Slope:
    """f(x + ihu).imag / h: no cancellation, so exact to rounding, if f is analytic as written.

    Abstention if the imaginary part is lost (`np.abs`, `np.var`, `.real`, integer arrays) or f's
    value is not the real part. Other cases are found by a comparison with `differences`.
    """
    h = TINY * min(_lengths(inputs[i], u))
    try:
        with np.errstate(all="ignore"):
            y = np.asarray(f(*shift(inputs, i, h * 1j * u)))
    except Exception as error:  # whatever f raises on complex numbers
        raise Abstention(f"f does not take complex numbers ({type(error).__name__})") from error
    if y.dtype.kind != "c":
        raise Abstention("f drops the imaginary part: it is not analytic as written")
    plain = np.asarray(f(*inputs))
    largest = float(np.abs(inputs[i]).max(initial=0))
    nearly = 1e-9 * float(np.abs(plain).max(initial=0)) + 16 * EPS * largest + h  # log(1 + ih)
    if y.shape != plain.shape or not np.allclose(y.real, plain, rtol=1e-7, atol=nearly):
        raise Abstention("f has another value on complex numbers: it is not analytic as written")
    slope = np.asarray(y.imag / h)
    if not np.isfinite(slope).all():
        raise Abstention("the complex step is not finite here")
    return Slope(slope, 4 * EPS * np.abs(slope) + SMALLEST / h)


def one_large_step(
    f: Function, inputs: Sequence[np.ndarray], i: int, u: np.ndarray, noise: np.ndarray
) -> Slope:
    """f(x + u) - f(x), which is J u if f is affine in this input: the adjoint test
    ⟨g, J u⟩ = ⟨Jᵀ g, u⟩ without a J. Abstention if two such steps are not alike."""
    stride = STRIDE * _lengths(inputs[i], u)[0]
    steps = (PART, 1, 2, 3)
    part, near, far, further = (value_near(f, shift(inputs, i, k * stride * u)) for k in steps)
    if part is None or near is None or far is None or further is None:
        raise Abstention("f is not finite one step away")
    y = np.asarray(f(*inputs))
    first, second, partly = near - y, further - far, (part - y) / PART
    error = 16 * noise + 8 * EPS * np.maximum(np.abs(near), np.abs(further))
    apart = np.maximum(np.abs(second - first), np.abs(partly - first) / 3)
    if not np.all(apart <= error):
        raise Abstention("f is not affine in this input")
    return Slope(first / stride, error / stride)


def _extrapolate(quotients: list[np.ndarray], order: int) -> tuple[np.ndarray, np.ndarray]:
    """Neville's tableau over steps that halve; the error is the last step of the extrapolation."""
    row = [quotients[0]]
    for quotient in quotients[1:]:
        before, row = row, [quotient]
        for k, coarse in enumerate(before):
            power = 2.0 ** (order * (k + 1))
            row.append((power * row[k] - coarse) / (power - 1))
    error = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - before[-1]))
    return row[-1], error


def scale_of(x: np.ndarray) -> float:
    """The length on which x varies: the unit of steps."""
    largest = float(np.abs(x).max(initial=0))
    if x.size > 1 and largest > 0:
        spread = largest * float(np.std(x / largest))  # squares of large numbers overflow
        return max(spread, 1e-3 * largest)
    return largest or 1.0


def units(x: np.ndarray) -> np.ndarray:
    """The length on which each entry of x varies, in x's shape: `scale_of(x)`, or that of a slice
    if the slices along some axis are of very different sizes (channels of 1e-6 and of 1e6)."""
    apart, axis = 1e4, None
    for a in range(x.ndim):
        sizes = np.abs(x).max(axis=tuple(k for k in range(x.ndim) if k != a), initial=0)
        sizes = sizes[sizes > 1e-290]  # smaller ones are zeros
        if sizes.size and sizes.max() / sizes.min() > apart:
            apart, axis = sizes.max() / sizes.min(), a
    if axis is None:
        return np.full(x.shape, scale_of(x))
    slices = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    each = np.abs(slices).max(axis=1)
    zero = each <= 1e-290
    if slices.shape[1] > 1:  # `scale_of` each slice
        spread = np.std(slices / np.where(zero, 1.0, each)[:, None], axis=1)
        each = np.maximum(each * spread, 1e-3 * each)
    each = np.where(zero, scale_of(x), each)
    return np.broadcast_to(each.reshape(-1, *[1] * (x.ndim - 1 - axis)), x.shape)


def _lengths(x: np.ndarray, u: np.ndarray) -> list[float]:
    """The units of steps along u: no entry moves by more than its own unit. Where a single small
    entry moves, its own size, too."""
    reach = float((np.abs(u) / units(x)).max(initial=0)) or 1.0
    lengths = [1 / reach]
    if np.count_nonzero(u) == 1:
        own = float(np.abs(x[u != 0]).item()) / float(np.abs(u[u != 0]).item())
        if 1e-290 < own < 1e-2 * lengths[0]:
            lengths.append(own)
    return lengths


def differences(
    f: Function,
    inputs: Sequence[np.ndarray],
    i: int,
    u: np.ndarray,
    noise: np.ndarray,
    starts: Sequence[float] = STARTS,
) -> Sides:
    """Central and one-sided differences, extrapolated, from the same values of f.

    The largest step is reduced until the error is small beside the slope; each output takes its
    best tableau. Abstention if f is finite at no step.
    """
    y = np.asarray(f(*inputs), float)
    starts = [start * length for length in _lengths(inputs[i], u) for start in starts]
    best: list[Slope] = []
    steps: np.ndarray = np.zeros(0)
    values_ahead: np.ndarray = np.zeros((0, *y.shape))
    smallest = np.full(y.shape, np.inf)  # change of each output that was seen
    resolution = 16 * EPS * max(1.0, *(float(np.abs(x).max(initial=0)) for x in (y, *inputs)))
    for start in starts:
        h = start / 2.0 ** np.arange(LEVELS)
        values = [value_near(f, shift(inputs, i, s * u)) for s in (*h, *-h)]
        if any(v is None or v.shape != y.shape for v in values):
            continue
        ahead, behind = np.split(np.array(values), 2)
        along = h.reshape(-1, *[1] * y.ndim)
        changes = np.abs(np.array(values) - y)
        # Constant here, and beyond in jumps of a rounding: no slope, but something larger inside
        on_a_stair = (changes == 0).all(axis=0) & (smallest < resolution)
        smallest = np.minimum(smallest, np.where(changes > 0, changes, np.inf).min(axis=0))
        slopes = []
        for quotient, order in (
            ((ahead - behind) / (2 * along), 2),
            ((ahead - y) / along, 1),
            ((y - behind) / along, 1),
        ):
            value, error = _extrapolate(list(quotient), order)
            slopes.append(Slope(value, np.where(on_a_stair, np.inf, error + 4 * noise / h[-1])))
        steps, values_ahead = h, ahead
        best = [_better(a, b) for a, b in zip(best, slopes, strict=True)] if best else slopes
        worst = [s.error.max(initial=0) / max(np.abs(s.value).max(initial=0), 1e-300) for s in best]
        if worst[0] < 1e-9 and max(worst) < 1e-5:
            break
    if not best:
        raise Abstention("f is not finite around this point")
    central, right, left = best
    return Sides(central, right, left, steps, values_ahead)


def _better(one: Slope, other: Slope) -> Slope:
    """Entry by entry the more exact of two estimates, from larger and from smaller steps. If they
    contradict each other, the larger steps are wrong: they cross a kink or a pole."""
    apart = np.abs(one.value - other.value) > 10 * (one.error + other.error)
    keep = (one.error <= other.error) & ~apart
    return Slope(np.where(keep, one.value, other.value), np.where(keep, one.error, other.error))


def taylor_order(
    values: np.ndarray,
    steps: np.ndarray,
    at_zero: float,
    slope: float,
    noise: float,
    slope_error: float = 0.0,
) -> float:
    """The order at which R(h) = |φ(h) - φ(0) - h φ'| vanishes with h.

    values (n,): φ at `steps` (n,), each half the one before; noise: of one value; slope_error: the
    rounding of φ'. A right slope gives 2, a wrong one 1, whatever
    the units; an expansion that is exact for small h gives infinity. Abstention if fewer than three
    remainders exceed the noise.
    """
    rest = np.abs(values - at_zero - steps * slope)
    rounding = EPS * (np.abs(values) + abs(at_zero) + np.abs(steps * slope))
    hidden_below = 30 * (noise + rounding + steps * slope_error)
    hidden = rest <= hidden_below
    if hidden.all():
        return float("inf")
    count = int(np.argmax(hidden)) if hidden.any() else len(rest)  # of the larger remainders
    if 0 < count < len(rest) and rest[count - 1] > 30 * hidden_below[count - 1]:
        return float("inf")  # exact up to a kink, and only steps beyond it have a remainder
    if count < 3:
        raise Abstention("fewer than three remainders exceed the rounding errors")
    last = slice(count - 3, count)
    return float(np.polyfit(np.log2(steps[last]), np.log2(rest[last]), 1)[0])
