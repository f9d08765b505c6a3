"""Random numbers from one root seed, split by name; no global state.

`generator(seed, "order", epoch)` is a separate NumPy Generator for each list of names, for draws on
the host: weights, the order of the data, augmentation.

Draws per activation (noise, dropout) are stateless: `uniforms_and_normals(key, step, n)` is a
function of its arguments, by the counter-based generator Philox4x64-10 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"). So a resumed run, any number of threads and a GPU
get the same draws: raw integers and uniforms are equal on every backend, normals within a few ulp.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn.autograd.dispatch import find_kernel
from minibn.backend import Backend, array_module, backend_of
from minibn.errors import check_integer


def derive(seed: int, *names: object) -> int:
    """A 128-bit integer that depends on the seed and on each name in turn (SHA-256, so that
    neighbouring seeds share nothing).

    >>> derive(0, "weights", "conv1.weight") == derive(0, "weights", "conv1.weight")
    True
    >>> derive(0, "a", "bc") == derive(0, "ab", "c")
    False

    Raises TypeError for a seed that is no integer.
    """
    text = repr((check_integer(seed, "a seed"), *(str(name) for name in names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def generator(seed: int, *names: object) -> np.random.Generator:
    """The NumPy Generator that belongs to `names` under the root seed."""
    return np.random.default_rng(derive(seed, *names))


# A 64-bit integer gives two fractions of 24 bits, which float32 and float64 hold exactly.
FRACTION = 2.0**-24


def working_dtype(dtype: Any) -> np.dtype:
    """The dtype to compute draws in: at least float32, since float16 can't hold 2²⁴ - 1. Raises
    TypeError for integers, which no draw is."""
    if np.dtype(dtype).kind != "f":
        raise TypeError(f"random numbers are of floating point, not {dtype}. Use dtype=float32.")
    return np.promote_types(dtype, np.float32)


Affine = tuple[float, Any]  # (scale, shift (C,)): draw i becomes scale · draw + shift[i % C]


def integers(backend: Backend, key: int, counter: int, count: int) -> Any:
    """`count` raw 64-bit integers of Philox4x64-10, (count,) uint64: the same on every backend."""
    kernel = find_kernel(integers, (count,), backend=backend)
    if kernel is not None:
        return kernel.forward(backend, key, counter, count)
    return backend.philox(key, counter, count)


def uniforms(backend: Backend, key: int, step: int, count: int, dtype: Any, stream: int = 0) -> Any:
    """`count` uniforms in [0, 1) for this (key, step, stream): multiples of 2⁻²⁴."""
    counter = (stream << 192) + (step << 128)
    kernel = find_kernel(uniforms, (count, dtype), backend=backend)
    if kernel is not None:
        return kernel.forward(backend, key, counter, count, dtype)
    raw = integers(backend, key, counter, count)
    return ((raw >> 40).astype(working_dtype(dtype)) * FRACTION).astype(dtype, copy=False)


def uniforms_and_normals(
    backend: Backend,
    key: int,
    step: int,
    count: int,
    dtype: Any,
    stream: int = 0,
    *,
    uniform: Affine | None = None,
    normal: Affine | None = None,
) -> tuple[Any, Any]:
    """`count` uniforms in [0, 1) and as many standard normals, independent, one integer for both.

    The uniforms are those of `uniforms`. The normals come by Box & Muller (1958) from the other
    half of each integer: they reach ±5.8. `uniform` and `normal` are a scale and a shift (C,) per
    channel, for draws that belong to activations (..., C) in C order.
    """
    counter = (stream << 192) + (step << 128)
    kernel = find_kernel(uniforms_and_normals, (count, dtype), backend=backend)
    if kernel is not None:
        return kernel.forward(backend, key, counter, count, dtype, uniform, normal)
    half = -(-count // 2)
    raw = integers(backend, key, counter, 2 * half)
    u = (raw >> 40).astype(working_dtype(dtype))[:count] * FRACTION
    low = ((raw & 0xFFFFFFFF) >> 8).astype(working_dtype(dtype))
    xp = array_module(low)
    radius = xp.sqrt(-2 * xp.log((low[:half] + 1) * FRACTION))  # log of a number in (0, 1]
    angle = low[half:] * (2 * math.pi * FRACTION)
    z = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])[:count]
    return (
        _scale_and_shift(u.astype(dtype, copy=False), uniform),
        _scale_and_shift(z.astype(dtype, copy=False), normal),
    )


def _scale_and_shift(draws: Any, affine: Affine | None) -> Any:
    if affine is None or not draws.size:
        return draws
    scale, shift = affine
    return (draws.reshape(-1, len(shift)) * scale + shift).reshape(-1)


@dataclass(frozen=True)
class NoiseDraws:
    """The draws (s, m) of `minibn.nn.Noise` for one step, the same at each call.

        per unit j:        mu_j ~ U(-n_mu, n_mu),            sigma_j ~ U(1, n_sigma)
        per activation:    m ~ U(mu_j - r_mu, mu_j + r_mu),  s ~ N(sigma_j, spread²)

    An object, not a function, so that a kernel can read the settings and draw by itself.
    """

    key: int
    step: int
    n_mu: float
    n_sigma: float
    r_mu: float
    spread: float

    def __call__(self, x: Any) -> tuple[Any, Any]:
        """(s, m) of the shape and dtype of x (..., C)."""
        backend, C, dtype = backend_of(x), x.shape[-1], x.dtype
        per_unit = uniforms(backend, self.key, self.step, 2 * C, dtype, stream=1)
        mu = self.n_mu * (2 * per_unit[:C] - 1)  # (C,)
        sigma = 1 + (self.n_sigma - 1) * per_unit[C:]  # (C,)
        m, s = uniforms_and_normals(
            backend, self.key, self.step, x.size, dtype,
            uniform=(2 * self.r_mu, mu - self.r_mu), normal=(self.spread, sigma),
        )  # fmt: skip
        return s.reshape(x.shape), m.reshape(x.shape)
