"""Randomness as an argument: one root seed, split by name (nothing here is global).

`generator(seed, "order", epoch)` is a NumPy Generator of its own for each list of names, for what
is drawn on the host: weights, the order of the data, augmentation.

What is drawn per activation (noise, dropout) is stateless: `uniforms_and_normals(key, step, n)`
is a function of its arguments, by the counter-based generator Philox4x64-10 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"). So a resumed run, a frozen probe, several threads
and a GPU all see the same draws: raw integers and uniforms are equal on every backend, normals
within a few ulp.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from minibn.backend import Backend, array_module


def derive(seed: int, *names: object) -> int:
    """A 128-bit integer that depends on the seed and on each name in turn (SHA-256, so that
    neighbouring seeds share nothing).

    >>> derive(0, "weights", "conv1.weight") == derive(0, "weights", "conv1.weight")
    True
    >>> derive(0, "a", "bc") == derive(0, "ab", "c")
    False
    """
    text = repr((int(seed), *(str(name) for name in names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def generator(seed: int, *names: object) -> np.random.Generator:
    """The NumPy Generator that belongs to `names` under the root seed."""
    return np.random.default_rng(derive(seed, *names))


# -- Philox4x64-10: multipliers and key increments of the paper
M0, M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
W0, W1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
LOW, WORD = 0xFFFFFFFF, 1 << 64


def _multiply(a, b: int) -> tuple[Any, Any]:
    """The high and the low 64 bits of a·b: a an array of uint64, b a constant."""
    a_low, a_high, b_low, b_high = a & LOW, a >> 32, b & LOW, b >> 32
    middle = ((a_low * b_low) >> 32) + ((a_low * b_high) & LOW) + ((a_high * b_low) & LOW)
    carried = (middle >> 32) + ((a_low * b_high) >> 32) + ((a_high * b_low) >> 32)
    return a_high * b_high + carried, a * b


def philox(xp: Any, key: int, counter: int, count: int) -> Any:
    """`count` raw 64-bit integers as an array of `xp`: the definition, in array code.

    key: 128 bits, counter: 256 bits. Law: equals np.random.Philox(counter=..., key=...).random_raw
    (which counts up before its first block), as a test asserts; NumPy's backend uses that.
    """
    blocks = -(-count // 4)
    start, words = counter % WORD, [counter >> 64 * i & WORD - 1 for i in (1, 2, 3)]
    if start + blocks >= WORD:
        raise ValueError("philox: the lowest word of the counter would overflow.")
    c0 = xp.arange(blocks, dtype=xp.uint64) + xp.uint64(start + 1)
    c1, c2, c3 = (xp.full(blocks, word, dtype=xp.uint64) for word in words)
    k0, k1 = key % WORD, key >> 64
    for _ in range(10):
        high0, low0 = _multiply(c0, M0)
        high1, low1 = _multiply(c2, M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + W0) % WORD, (k1 + W1) % WORD
    return xp.stack([c0, c1, c2, c3], axis=1).reshape(-1)[:count]


# A 64-bit integer gives two fractions of 24 bits, which float32 and float64 hold exactly.
FRACTION = 2.0**-24


def uniforms(backend: Backend, key: int, step: int, count: int, dtype: Any, stream: int = 0) -> Any:
    """`count` uniforms in [0, 1) for this (key, step, stream): multiples of 2⁻²⁴."""
    raw = backend.philox(key, (stream << 192) + (step << 128), count)
    return (raw >> 40).astype(dtype) * FRACTION


def uniforms_and_normals(
    backend: Backend, key: int, step: int, count: int, dtype: Any, stream: int = 0
) -> tuple[Any, Any]:
    """`count` uniforms in [0, 1) and as many standard normals, independent, one integer for both.

    The uniforms are those of `uniforms`. The normals come by Box & Muller (1958) from the other
    half of each integer: they reach ±5.8.
    """
    half = -(-count // 2)
    raw = backend.philox(key, (stream << 192) + (step << 128), 2 * half)
    uniform = (raw >> 40).astype(dtype)[:count] * FRACTION
    low = ((raw & LOW) >> 8).astype(dtype)
    xp = array_module(low)
    radius = xp.sqrt(-2 * xp.log((low[:half] + 1) * FRACTION))  # the logarithm of (0, 1]
    angle = low[half:] * (2 * math.pi * FRACTION)
    return uniform, xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])[:count]
