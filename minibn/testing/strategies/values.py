"""The values of arrays: functions (rng, shape, texture) -> float64 array.

The texture is the kind of numbers. Textures are in the order in which an example shrinks, the
simplest first: values from a seed can't shrink, the texture can.

    integers   -3 … 3: zeros, ties and negatives among them
    dyadic     quarters from -3 to 3: exact in every precision
    normal     N(0, 1)
    heavy      normal numbers times 10^U(-2, 0.7): some tiny, some large
    scaled     normal numbers, all times one power of ten, from 10⁻¹² to 10¹²

Special textures are outside the domain of some functions (an exponential of 10⁴, a tie of a
maximum). They are drawn on request only:

    ties       three different values, the largest of them at least twice
    zeros      about half of the values are 0
    tiny       about half are 10⁻⁶: too near to a kink at 0 for any difference quotient
    offset     normal numbers around ±10⁴, for functions that suffer from cancellation
    wide       each number times a power of ten of its own, from 10⁻¹² to 10¹²

A domain says where a function is defined, or smooth, and keeps the texture's character there: large
numbers are limited by `within`, small ones by `positive`, `nonzero` and `gap_separated`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Domain = Callable[[np.random.Generator, Any, str], np.ndarray]
"""(rng, shape, texture) -> float64 values of that shape and texture, drawn with rng."""

TEXTURES = ("integers", "dyadic", "normal", "heavy", "scaled")
"""The kinds of numbers that are drawn by default, the simplest first."""

SPECIAL = ("ties", "zeros", "tiny", "offset", "wide")
"""Those that are drawn on request: `textures=("normal", "ties")`."""

POWERS = (-12, -9, -6, -3, 3, 6, 9, 12)  # of ten, in "scaled" and "wide"


def real(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    """Any real numbers: a `Domain`, called with (rng, shape, texture)."""
    if texture == "integers":
        return rng.integers(-3, 4, shape).astype(float)
    if texture == "dyadic":
        return rng.integers(-12, 13, shape) / 4
    if texture == "ties":
        return with_ties(rng, shape)
    x = np.asarray(rng.standard_normal(shape))
    if texture == "heavy":
        return x * 10 ** rng.uniform(-2, 0.7, shape)
    if texture == "zeros":
        return np.where(rng.random(shape) < 0.5, 0.0, x)
    if texture == "tiny":
        return x * np.where(rng.random(shape) < 0.5, 1e-6, 1.0)
    if texture == "offset":
        return x + rng.choice([-1e4, 1e4])
    if texture == "scaled":
        return x * power_of_ten(rng)
    if texture == "wide":
        return x * power_of_ten(rng, shape)
    if texture == "normal":
        return x
    raise ValueError(f"texture {texture!r} is unknown. Use one of {TEXTURES + SPECIAL}.")


def power_of_ten(rng: np.random.Generator, shape: Any = None) -> Any:
    """A power of ten from `POWERS`; with a shape, an array of them."""
    return 10.0 ** rng.choice(POWERS, shape)


def positive(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    """From 0.25 up: for logarithms, roots, variances. Called with (rng, shape, texture)."""
    return 0.25 + np.abs(real(rng, shape, texture))


def nonzero(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
    """Of both signs, at least 0.25 away from 0: for divisors and factors. Called with (rng, shape,
    texture)."""
    return positive(rng, shape, texture) * rng.choice([-1.0, 1.0], shape)


def within(limit: float) -> Domain:
    """A domain of numbers from -limit to limit, around ±10⁴ for the texture "offset".

    For functions that saturate or explode: far out, their gradient is lost to rounding.
    """

    def bounded(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
        centre = rng.choice([-1e4, 1e4]) if texture == "offset" else 0.0
        x = real(rng, shape, "normal" if texture == "offset" else texture)
        if texture == "scaled":  # clipped, all would be limits
            x = x * min(1.0, limit / np.abs(x).max(initial=limit))
        return np.clip(x, -limit, limit) + centre

    return bounded


def gap_separated(gap: float = 0.2) -> Domain:
    """A domain away from every kink: all absolute values differ from each other and from 0 by at
    least `gap`.

    So there is no tie in a maximum, none in a maximum of absolute values, and no zero.

    >>> separated = gap_separated(0.5)
    >>> x = separated(np.random.default_rng(0), (2, 3), "integers")
    >>> sorted(np.abs(x).ravel().tolist())
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """

    def separated(rng: np.random.Generator, shape: Any, texture: str = "normal") -> np.ndarray:
        size = math.prod(shape)
        places = rng.permutation(size) + 1.0
        if texture == "integers":
            x = places * math.ceil(gap)
        elif texture == "dyadic":
            x = places * 2.0 ** math.ceil(math.log2(gap))
        elif texture == "scaled":
            x = places * gap * max(1.0, power_of_ten(rng))
        else:
            x = places * 1.25 * gap + gap / 10 * rng.uniform(-1, 1, size)
        return (x * rng.choice([-1.0, 1.0], size)).reshape(shape)

    return separated


def with_ties(rng: np.random.Generator, shape: Any, texture: str = "integers") -> np.ndarray:
    """On the kinks: three different values, one of them 0, the largest one at least twice.

    A single value is 0. Of two, both are 0. Called with (rng, shape, texture).
    """
    low, high = (-1.0, 2.0) if texture == "integers" else rng.uniform(0.5, 2, 2) * (-1, 1)
    x = rng.choice([0.0, low, high], math.prod(shape))
    planted = [0.0, 0.0] if x.size < 3 else [high, high, 0.0]
    x[rng.permutation(x.size)[: len(planted)]] = planted[: x.size]
    return x.reshape(shape)
