"""The integers of `minibn.random` by a CUDA kernel: each thread makes a block of four.

Integers and uniforms are bitwise NumPy's, normals within a few ulp, since a GPU has its own log,
sin and cos. The step of a draw is word 2 of the counter; kernels add `scalars.tick` to it, so that
each replay of a captured graph gets new draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.backend import Backend
from minibn.fast.cuda.program import LARGEST, REALS, Program
from minibn.fast.cuda.scalars import scalars
from minibn.fast.kernel import Kernel
from minibn.random import NoiseDraws

PROGRAM = Program("draws")
THREADS = 128
WORD = 1 << 64


def words(backend: Backend, key: int, counter: int) -> tuple[Any, ...]:
    """A key and a counter as kernel arguments: k0, k1, c0, ... c3, lowest first, and the tick."""
    parts = [key >> 64 * i for i in range(2)] + [counter >> 64 * i for i in range(4)]
    return *(np.uint64(part % WORD) for part in parts), scalars(backend).tick


class LaunchedIntegers(Kernel):
    """`minibn.random.integers`: uniforms and normals are made from them by their definitions."""

    @classmethod
    def fits(cls, op: Any, count: int) -> bool:
        return count <= LARGEST - 4 * THREADS

    def forward(self, backend: Backend, key: int, counter: int, count: int) -> Any:
        if counter % WORD + -(-count // 4) >= WORD:
            raise ValueError("philox: the lowest word of the counter would overflow.")
        out = backend.xp.empty(count, np.uint64)
        _launch("integers", count, out, count, *words(backend, key, counter))
        return out


def unit_parameters(backend: Backend, noise: NoiseDraws, C: int, dtype: Any) -> Any:
    """The noise parameters of each unit: mu_j - r_mu and sigma_j, (2, C)."""
    out = backend.xp.empty((2, C), dtype)
    settings = float(noise.n_mu), float(noise.n_sigma), float(noise.r_mu)
    counter = words(backend, noise.key, (1 << 192) + (noise.step << 128))
    _launch("units", 2 * C, out, C, *settings, *counter, REAL=REALS[np.dtype(dtype)])
    return out


def _launch(function: str, count: int, *arguments: Any, REAL: str = "float") -> None:
    """Run a kernel whose threads draw four integers each, `count` in all."""
    PROGRAM.launch(function, -(-count // (4 * THREADS)), THREADS, *arguments, REAL=REAL)
