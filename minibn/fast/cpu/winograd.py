"""Winograd's convolution of 3×3 filters: the mathematics (its use by threads is in `conv.py`).

Lavin & Gray 2015, "Fast algorithms for convolutional neural networks"; the matrices after Toom 1963
and Cook 1966.

**One axis.** m outputs of a filter g of 3 taps need m + 2 inputs d: y_i = Σ_k d_{i+k} g_k, which
are 3m products if done so. Multiplying two polynomials u (m coefficients) and g (3) is as many
products, and there fewer suffice: the result has n = m + 2 coefficients, so its values at n points
determine it, and its value at a point is the product of two values. With E_k the matrix that
evaluates k coefficients at the n points (row α: 1, α, α², ...; the point ∞ gives the last one),

    u·g = E_n⁻¹ [(E_m u) ∘ (E_3 g)]         ∘ multiplies entry by entry: n products

For a fixed g this is a linear map of u; its transpose is the filter, with the same products
(transposed, E_m comes last instead of first):

    y = Aᵀ [(G g) ∘ (Bᵀ d)],   Aᵀ = E_mᵀ,   G = E_3,   Bᵀ = E_n⁻ᵀ

**Two axes.** The same along rows and along columns. For a tile d of n×n pixels:

    V = Bᵀ d B,   U = G g Gᵀ,   Y = Aᵀ (U ∘ V) A

and with channels each of the n² entries of U ∘ V becomes a product of matrices, over all tiles at
once: M_ij = V_ij U_ij, (tiles, C) @ (C, F). m = 4 has 36 products for 16 outputs, 2.25 each
instead of 9.

**Gradients.** The map is a chain of linear maps, so its gradients are the adjoints, in reverse:

    M̄ = A Ȳ Aᵀ,   Ū_ij = V_ijᵀ M̄_ij,   V̄_ij = M̄_ij U_ijᵀ,   ḡ = Gᵀ Ū G,   d̄ = B V̄ Bᵀ

where d̄ of overlapping tiles add up. Neighbours overlap by two pixels. Since 0 and ∞ are among the
points, the first pixel of a tile takes part in the first product only, and the last in the last
(the first coefficient of a polynomial is its value at 0): adding the overlap is one addition.

Large points increase rounding errors: 0, 1, -1, 2, -1/2, ∞ lose half as many digits as 0, ±1, ±2, ∞
(measured:
`tests/fast/test_kernels_conv.py` holds the error to 2e-5 of conv(|x|, |w|) in float32).
"""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
from numpy.lib.stride_tricks import as_strided


class Scheme:
    """The matrices of one axis: y (m) = At [(G g (3)) ∘ (Bt d (inputs))], n products.

    overlap  tiles reach one pixel beyond their m outputs on either side. Without, the pixels beyond
             are known to be zero.
    """

    def __init__(self, At: np.ndarray, G: np.ndarray, Bt: np.ndarray) -> None:
        self.At, self.G, self.Bt = At, G, Bt
        self.m, self.n = At.shape
        self.overlap = Bt.shape[1] > self.m
        # B without the rows of the overlap: from n products to a tile's own m pixels.
        self.inner = np.ascontiguousarray(Bt.T[1:-1] if self.overlap else Bt.T)
        self.GG = np.kron(G, G)  # G along both axes: (n², 9)

    def astype(self, dtype: np.dtype) -> Scheme:
        return Scheme(*(np.ascontiguousarray(M, dtype) for M in (self.At, self.G, self.Bt)))


def cook_toom(m: int, points: tuple[Fraction | int, ...]) -> Scheme:
    """The scheme for m outputs of three taps, from m + 1 points; ∞ comes on top."""
    n = m + 2

    def E(k: int) -> np.ndarray:
        rows = [[Fraction(p) ** i for i in range(k)] for p in points]
        return np.array([*rows, [int(i == k - 1) for i in range(k)]], float)

    Bt = np.linalg.inv(E(n)).T
    scale = np.array([Bt[0, 0], *[1.0] * (n - 2), Bt[-1, -1]])  # so that the overlap has weight 1
    return Scheme(E(m).T, E(3) * scale[:, None], Bt / scale[:, None])


def _pair() -> Scheme:
    """Images of two pixels between zeros: y₀ = g₁ d₀ + g₂ d₁, y₁ = g₀ d₀ + g₁ d₁ (three products).

    y₀ = g₁ (d₀ + d₁) + (g₂ - g₁) d₁,   y₁ = g₁ (d₀ + d₁) + (g₀ - g₁) d₀
    """
    return Scheme(
        np.array([[1.0, 1, 0], [1, 0, 1]]),
        np.array([[0.0, 1, 0], [0, -1, 1], [1, -1, 0]]),
        np.array([[1.0, 1], [0, 1], [1, 0]]),
    )


@functools.cache
def schemes(dtype: np.dtype) -> dict[str, Scheme]:
    """The schemes by name: tiles of 4×4 and 2×2 outputs, and whole images of 2×2 pixels."""
    return {
        "4x4": cook_toom(4, (0, 1, -1, 2, Fraction(-1, 2))).astype(dtype),
        "2x2": cook_toom(2, (0, 1, -1)).astype(dtype),
        "pair": _pair().astype(dtype),
    }


def _rows(x: np.ndarray, tiles: int, size: int, step: int) -> np.ndarray:
    """Axis 1 of x as (overlapping) tiles: (b, h, ...) -> (b, tiles, size, ...), a view."""
    if size == step:
        return x.reshape(len(x), tiles, size, *x.shape[2:])
    b, h = x.strides[:2]
    shape = (len(x), tiles, size, *x.shape[2:])
    return as_strided(x, shape, (b, step * h, h, *x.strides[2:]))


def input_tiles(s: Scheme, x: np.ndarray, V: np.ndarray, P: np.ndarray) -> None:
    """V = Bᵀ d B for each tile d of x.

    x (b, m·th + 2, m·tw + 2, C) with its border (none where tiles don't overlap),
    V (n, n, b, th, tw, C), P scratch (b, rows of x, n, tw, C): first along the width, since a row
    is shared by tiles.
    """
    _, _, b, th, tw, C = V.shape
    k = s.Bt.shape[1]
    columns = _rows(x.reshape(-1, x.shape[2], C), tw, k, s.m)  # (b·rows, tw, k, C)
    np.matmul(s.Bt, columns, out=P.reshape(-1, s.n, tw, C).transpose(0, 2, 1, 3))
    tiles = _rows(P.reshape(b, -1, s.n, tw * C), th, k, s.m)  # (b, th, k, n, tw·C)
    np.matmul(s.Bt, tiles.transpose(0, 1, 3, 2, 4), out=_by_rows(V))


def _by_rows(V: np.ndarray) -> np.ndarray:
    """(n, n, b, th, tw, C) as (b, th, n of the width, n of the height, tw·C), a view."""
    n, _, b, th, tw, C = V.shape
    return V.reshape(n, n, b, th, tw * C).transpose(2, 3, 1, 0, 4)


def output_tiles(s: Scheme, M: np.ndarray, y: np.ndarray, Q: np.ndarray) -> None:
    """Y = Aᵀ M A for each tile.

    M (n, n, b, th, tw, F), y (b, m·th, m·tw, F), Q scratch (b, m·th, n, tw, F).
    """
    _, _, b, th, tw, F = M.shape
    rows = Q.reshape(b, th, s.m, s.n, tw * F)
    np.matmul(s.At, _by_rows(M), out=rows.transpose(0, 1, 3, 2, 4))
    columns = Q.transpose(0, 1, 3, 2, 4)  # (b, m·th, tw, n, F)
    np.matmul(s.At, columns, out=y.reshape(b, s.m * th, tw, s.m, F))


def output_tiles_adjoint(s: Scheme, dy: np.ndarray, dM: np.ndarray, Q: np.ndarray) -> None:
    """M̄ = A Ȳ Aᵀ for each tile. Shapes as in `output_tiles`."""
    _, _, b, th, tw, F = dM.shape
    columns = dy.reshape(b, s.m * th, tw, s.m, F)
    np.matmul(s.At.T, columns, out=Q.transpose(0, 1, 3, 2, 4))
    rows = Q.reshape(b, th, s.m, s.n, tw * F).transpose(0, 1, 3, 2, 4)
    np.matmul(s.At.T, rows, out=_by_rows(dM))


def input_tiles_adjoint(s: Scheme, dV: np.ndarray, dx: np.ndarray, Q: np.ndarray) -> None:
    """d̄ = B V̄ Bᵀ for each tile, overlaps added; what falls on the border is dropped.

    dV (n, n, b, th, tw, C), dx (b, m·th, m·tw, C) without border, Q scratch (b, m·th, n, tw, C).
    """
    _, _, b, th, tw, C = dV.shape
    rows = Q.reshape(b, th, s.m, s.n, tw * C)
    np.matmul(s.inner, _by_rows(dV), out=rows.transpose(0, 1, 3, 2, 4))
    if s.overlap and th > 1:
        first, last = (dV[i].reshape(s.n, b, th, tw * C).transpose(1, 2, 0, 3) for i in (0, -1))
        rows[:, :-1, -1] += first[:, 1:]  # a tile's first row is the last of the tile above
        rows[:, 1:, 0] += last[:, :-1]
    columns = Q.transpose(0, 1, 3, 2, 4)  # (b, m·th, tw, n, C)
    own = dx.reshape(b, s.m * th, tw, s.m, C)
    np.matmul(s.inner, columns, out=own)
    if s.overlap and tw > 1:
        own[:, :, :-1, -1] += columns[:, :, 1:, 0]
        own[:, :, 1:, 0] += columns[:, :, :-1, -1]
