"""Second implementations, as loops over single numbers, close to the mathematical definitions.

They share nothing with `minibn.ops` but the layout: images (N, H, W, C), filters (Kh, Kw, C, F).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Pair = tuple[int, int]


def sides(image: Any, kernel: Any, stride: Pair, padding: Pair) -> tuple[int, ...]:
    """(Ho, Wo)"""
    return tuple(
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(image, kernel, stride, padding, strict=True)
    )


def window(i: int, j: int, image: Any, kernel: Any, stride: Pair, padding: Pair) -> Iterator[Any]:
    """((k, m), (row, column)) for each place of the window of output (i, j) inside the image."""
    for k, m in itertools.product(range(kernel[0]), range(kernel[1])):
        row, column = stride[0] * i + k - padding[0], stride[1] * j + m - padding[1]
        if 0 <= row < image[0] and 0 <= column < image[1]:
            yield (k, m), (row, column)


def conv2d(x: np.ndarray, w: np.ndarray, stride: Pair, padding: Pair) -> np.ndarray:
    """y[n,i,j,f] = Σ x[n, s·i+k-p, s·j+m-p, c] · w[k,m,c,f]"""
    (N, H, W, _), (Kh, Kw, _, F) = x.shape, w.shape
    y = np.zeros((N, *sides((H, W), (Kh, Kw), stride, padding), F))
    for n, i, j, f in np.ndindex(*y.shape):
        for (k, m), (row, column) in window(i, j, (H, W), (Kh, Kw), stride, padding):
            y[n, i, j, f] += x[n, row, column] @ w[k, m, :, f]
    return y


def conv2d_vjp(
    g: np.ndarray, x: np.ndarray, w: np.ndarray, stride: Pair, padding: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """Each product of the forward sum, differentiated by one factor and by the other."""
    g_x, g_w = np.zeros_like(x), np.zeros_like(w)
    for n, i, j, f in np.ndindex(*g.shape):
        for (k, m), (row, column) in window(i, j, x.shape[1:3], w.shape[:2], stride, padding):
            g_x[n, row, column] += g[n, i, j, f] * w[k, m, :, f]
            g_w[k, m, :, f] += g[n, i, j, f] * x[n, row, column]
    return g_x, g_w


def max_pool(
    x: np.ndarray, g: Any, size: Pair, stride: Pair, padding: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """(value, gradient of ⟨g(shape), value⟩): a window's goes to its first largest value."""
    N, H, W, C = x.shape
    y = np.zeros((N, *sides((H, W), size, stride, padding), C))
    c, g_x = g(y.shape), np.zeros_like(x)
    for n, i, j, channel in np.ndindex(*y.shape):
        best = None
        for _, (row, column) in window(i, j, (H, W), size, stride, padding):
            if best is None or x[n, row, column, channel] > x[(n, *best, channel)]:
                best = (row, column)
        assert best is not None
        y[n, i, j, channel] = x[(n, *best, channel)]
        g_x[(n, *best, channel)] += c[n, i, j, channel]
    return y, g_x


def avg_pool(x: np.ndarray, g: Any, size: Pair, stride: Pair) -> tuple[np.ndarray, np.ndarray]:
    """(value, gradient of ⟨g(shape), value⟩)"""
    N, H, W, C = x.shape
    y = np.zeros((N, *sides((H, W), size, stride, (0, 0)), C))
    c, g_x = g(y.shape), np.zeros_like(x)
    for n, i, j in np.ndindex(*y.shape[:3]):
        for _, (row, column) in window(i, j, (H, W), size, stride, (0, 0)):
            y[n, i, j] += x[n, row, column] / (size[0] * size[1])
            g_x[n, row, column] += c[n, i, j] / (size[0] * size[1])
    return y, g_x


def moments(values: list[float]) -> tuple[float, float]:
    """Mean and biased variance of a list of numbers."""
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((v - mean) ** 2 for v in values) / len(values)


def batch_norm(x: np.ndarray, gamma: Any, beta: Any, eps: float) -> np.ndarray:
    """y = gamma · (x - mean) / √(var + eps) + beta, channel by channel."""
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        mean, var = moments(x[..., c].ravel().tolist())
        y[..., c] = (x[..., c] - mean) / math.sqrt(var + eps) * gamma[c] + beta[c]
    return y


def batch_norm_vjp(
    g: np.ndarray, x: np.ndarray, gamma: Any, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From the Jacobian of one channel: ∂x̂_i/∂x_j = (δ_ij - 1/M - x̂_i x̂_j / M) / √(var + eps)."""
    g_x, C = np.empty_like(x), x.shape[-1]
    g_gamma, g_beta = np.empty(C), np.empty(C)
    for c in range(C):
        values, cotangent = x[..., c].ravel(), g[..., c].ravel()
        (mean, var), M = moments(values.tolist()), values.size
        sigma = math.sqrt(var + eps)
        x_hat = (values - mean) / sigma
        jacobian = (np.eye(M) - 1 / M - np.outer(x_hat, x_hat) / M) / sigma
        g_x[..., c] = (gamma[c] * cotangent @ jacobian).reshape(x.shape[:-1])
        g_gamma[c], g_beta[c] = math.fsum(cotangent * x_hat), math.fsum(cotangent)
    return g_x, g_gamma, g_beta
