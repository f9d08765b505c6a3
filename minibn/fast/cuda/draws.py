"""The draws of `minibn.random` by CUDA kernels: each thread makes a block of four integers.

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
Affine = tuple[float, Any]  # (scale, shift (C,)): draw i becomes scale · draw + shift[i % C]


def words(backend: Backend, key: int, counter: int) -> tuple[Any, ...]:
    """A key and a counter as kernel arguments: k0, k1, c0, ... c3, lowest first, and the tick."""
    parts = [key >> 64 * i for i in range(2)] + [counter >> 64 * i for i in range(4)]
    return *(np.uint64(part % WORD) for part in parts), scalars(backend).tick


def _launch(
    function: str, blocks: int, *arguments: Any, REAL: str = "float", OFFSET: int = 0
) -> None:
    """Run a kernel whose threads take one of `blocks` blocks of four integers each."""
    grid = -(-blocks // THREADS)
    PROGRAM.launch(function, grid, THREADS, *arguments, REAL=REAL, OFFSET=OFFSET)


def integers(backend: Backend, key: int, counter: int, count: int) -> Any:
    """`count` integers, as `minibn.backend.philox.philox` makes them."""
    if counter % WORD + -(-count // 4) >= WORD:
        raise ValueError("philox: the lowest word of the counter would overflow.")
    out = backend.xp.empty(count, np.uint64)
    _launch("integers", -(-count // 4), out, count, *words(backend, key, counter))
    return out


class LaunchedIntegers(Kernel):
    """`minibn.random.integers`."""

    def forward(self, *arguments: Any) -> Any:
        return integers(*arguments)


class _Draws(Kernel):
    """Draws by one launch. Inputs: count and dtype."""

    @classmethod
    def fits(cls, op: Any, count: int, dtype: Any) -> bool:
        return np.dtype(dtype) in REALS and count <= LARGEST - 8


class LaunchedUniforms(_Draws):
    """`minibn.random.uniforms`."""

    def forward(self, backend: Backend, key: int, counter: int, count: int, dtype: Any) -> Any:
        u, real = backend.xp.empty(count, dtype), REALS[np.dtype(dtype)]
        _launch("uniforms", -(-count // 4), u, count, *words(backend, key, counter), REAL=real)
        return u


class LaunchedUniformsAndNormals(_Draws):
    """`minibn.random.uniforms_and_normals`."""

    def forward(
        self,
        backend: Backend,
        key: int,
        counter: int,
        count: int,
        dtype: Any,
        uniform: Affine | None = None,
        normal: Affine | None = None,
    ) -> tuple[Any, Any]:
        real, given = REALS[np.dtype(dtype)], words(backend, key, counter)
        u, z = (backend.xp.empty(count, dtype) for _ in range(2))
        half = -(-count // 2)
        affine: list[Any] = []
        for pair in (uniform, normal):
            scale, shift = (1.0, u) if pair is None else pair
            affine += [float(scale), shift, 0 if pair is None else len(shift)]
        _launch(
            "both", -(-half // 4), u, z, count, half, *affine, *given, REAL=real, OFFSET=half % 4
        )
        return u, z


def unit_parameters(backend: Backend, noise: NoiseDraws, C: int, dtype: Any) -> Any:
    """The noise parameters of each unit: mu_j - r_mu and sigma_j, (2, C)."""
    out = backend.xp.empty((2, C), dtype)
    settings = float(noise.n_mu), float(noise.n_sigma), float(noise.r_mu)
    counter = words(backend, noise.key, (1 << 192) + (noise.step << 128))
    _launch("units", -(-C // 2), out, C, *settings, *counter, REAL=REALS[np.dtype(dtype)])
    return out
