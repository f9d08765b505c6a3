"""Matrix products of linear layers: rows divided among minibn's threads.

OpenBLAS's own threads keep spinning for some milliseconds after a product, on the cores that the
next kernel's threads need (measured: what follows takes up to twice as long).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.fast.cpu import memory
from minibn.fast.cpu.threads import map_shares, one_blas_thread
from minibn.fast.kernel import Kernel

THREADED = 1 << 18  # multiplications from which OpenBLAS uses threads
SHARED = 1 << 23  # from which it pays to use ours


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b: (M, K), (K, N) -> (M, N)."""
    (M, K), N = a.shape, b.shape[1]
    if M * K * N < SHARED:
        with one_blas_thread():
            return a @ b
    out = memory.empty((M, N), a.dtype)
    map_shares(lambda rows: np.matmul(a[rows], b, out=out[rows]), M, least=16)
    return out


class ThreadedMatMul(Kernel):
    """MatMul of two matrices: z = a @ b,  ā = z̄ @ bᵀ,  b̄ = aᵀ @ z̄."""

    @classmethod
    def fits(cls, op: Any, a: Any, b: Any) -> bool:
        same = a.ndim == b.ndim == 2 and a.dtype == b.dtype
        return same and a.dtype in (np.float32, np.float64)

    @classmethod
    def pays(cls, op: Any, a: Any, b: Any) -> bool:
        return a.size * b.shape[1] >= THREADED

    def forward(self, a, b):
        return product(a, b)

    def vjp(self, g, out, a, b):
        return (
            product(g, b.T) if self.needs_input_grad[0] else None,
            product(a.T, g) if self.needs_input_grad[1] else None,
        )
