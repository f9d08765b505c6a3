"""Numbers to round, and what they become, by other means than `minibn.fast.rounding`."""

import numpy as np

from minibn.fast.precision import MANTISSA

LOW = ("tf32", "bf16")


def floats(seed: int, *shape: int) -> np.ndarray:
    """float32 numbers, none of which lies exactly between two shorter ones: there devices differ
    (see `rounding`)."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return (x.view(np.uint32) | 1).view(np.float32)


def expected(x: np.ndarray, to: str) -> np.ndarray:
    """The same rounding by arithmetic: an integer multiple of the last digit's value, in float64,
    where all of it is exact."""
    exponent = np.maximum(np.frexp(x.astype(np.float64))[1], -125)  # below, digits get fewer
    last = np.ldexp(1.0, exponent - 1 - MANTISSA[to])
    with np.errstate(over="ignore"):
        return (np.rint(x / last) * last).astype(np.float32)
