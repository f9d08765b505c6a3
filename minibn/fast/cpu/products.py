"""Matrix products of the sizes of convolutions, split to be fast in OpenBLAS.

OpenBLAS copies ("packs") its operands into panels before it multiplies. For up to a million
multiplications it has kernels that do not (0.3.31, AVX-512: 113 against 93 GFLOP/s on one core for
(256, 64) @ (64, 64); `python -m experiments.benchmark --parts machine` shows the machine's own).
With up to 128 channels packing is a noticeable cost, so those products are split to that size.
"""

from __future__ import annotations

import numpy as np

UNPACKED = 1_000_000  # M·N·K up to which OpenBLAS does not pack
COLUMNS = 64


def multiply(A: np.ndarray, B: np.ndarray, out: np.ndarray) -> None:
    """out[t] = A[t] @ B[t]. A (t, R, C), B (t, C, F), out (t, R, F); any strides."""
    _, R, C = A.shape
    F = B.shape[2]
    if R * C * F <= UNPACKED or C > 128 or F % COLUMNS:
        np.matmul(A, B, out=out)
        return
    rows = R
    while rows * COLUMNS * C > UNPACKED and rows % 2 == 0:
        rows //= 2
    np.matmul(
        _cut_rows(A, rows)[:, :, None],  # (t, R/rows, 1, rows, C)
        _cut_columns(B)[:, None],  # (t, 1, F/64, C, 64)
        out=_cut_columns(_cut_rows(out, rows)),
    )


def multiply_transposed(A: np.ndarray, B: np.ndarray, out: np.ndarray) -> None:
    """out[t] = A[t]ᵀ @ B[t]. A (t, R, C), B (t, R, F), out (t, C, F); any strides."""
    _, R, C = A.shape
    F = B.shape[2]
    if R * C * F <= UNPACKED or C > 128 or F % COLUMNS or C % COLUMNS:
        np.matmul(A.transpose(0, 2, 1), B, out=out)
        return
    rows = COLUMNS
    while rows * COLUMNS * R > UNPACKED and rows % 2 == 0:
        rows //= 2
    np.matmul(
        _cut_rows(A.transpose(0, 2, 1), rows)[:, :, None],
        _cut_columns(B)[:, None],
        out=_cut_columns(_cut_rows(out, rows)),
    )


def multiply_by_transposed(A: np.ndarray, B: np.ndarray, out: np.ndarray) -> None:
    """out = A @ Bᵀ, one product: A (R, F), B (C, F), out (R, C); cut where it has few rows.

    (16 rows, 512, 512: 86 instead of 34 GFLOP/s. 128 rows: no gain.)
    """
    (R, F), C = A.shape, len(B)
    columns = 32
    while R * columns * F > UNPACKED and columns > 16:
        columns //= 2
    if R * columns * F > UNPACKED or C % columns:
        np.matmul(A, B.T, out=out)
    else:
        cut = B.reshape(-1, columns, F).swapaxes(1, 2)
        np.matmul(A, cut, out=out.reshape(R, -1, columns).swapaxes(0, 1))


def _cut_rows(A: np.ndarray, rows: int) -> np.ndarray:
    """(t, R, C) -> (t, R / rows, rows, C), a view."""
    return A.reshape(len(A), -1, rows, A.shape[-1])


def _cut_columns(A: np.ndarray) -> np.ndarray:
    """(..., R, F) -> (..., F / 64, R, 64), a view."""
    return A.reshape(*A.shape[:-1], -1, COLUMNS).swapaxes(-3, -2)
