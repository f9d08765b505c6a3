"""Initialisers: functions (shape, rng) -> array. Fans count the receptive field of a convolution.

Linear weights are (in, out); filters (Kh, Kw, C, F).
"""

from __future__ import annotations

import math

import numpy as np

from minibn.nn.state import Initializer, ones, zeros

__all__ = ["glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "ones", "zeros"]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs feed an output, and how many outputs an input feeds.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2:
        raise ValueError(f"fans: a weight has two axes or more, not shape {shape}.")
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def glorot_uniform(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """U(-a, a) with a = √(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16)."""
    limit = math.sqrt(6 / sum(fans(shape)))
    return rng.uniform(-limit, limit, shape)


def glorot_normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """N(0, 2 / (fan_in + fan_out)): glorot_uniform's variance, normally distributed."""
    return rng.normal(0.0, math.sqrt(2 / sum(fans(shape))), shape)


def he_uniform(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """U(-a, a) with a = √(6 / fan_in) (He et al. 2015)."""
    limit = math.sqrt(6 / fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def he_normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """N(0, 2 / fan_in) (He et al. 2015, eq. 10)."""
    return rng.normal(0.0, math.sqrt(2 / fans(shape)[0]), shape)


BY_NAME: dict[str, Initializer] = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
}
