"""Convolutions of any kernel, stride and padding as matrix products, a few images at a time.

    y = columns(x) · w          columns (N·Ho·Wo, Kh·Kw·C): the window of each result, one a row
    w̄ = columns(x)ᵀ · c         w, w̄ (Kh·Kw·C, F);  y, c (N·Ho·Wo, F)
    x̄ = Σ_{k,l} c · w[k,l]ᵀ     each product added to the pixels of tap (k, l)

These are the formulas of `minibn.ops.conv`, with less memory traffic: the columns have Kh·Kw times
the size of x, so the definition writes them to memory and reads them back. A block of images whose
columns (or results) are 2¹⁸ numbers, 1 MB in float32, stays in a core's cache, where filling them
costs less than one pass over memory. So nothing is saved: the weight gradient fills its columns
again. Blocks are divided among threads, whose weight gradients are added in order.

Measured on two cores (AVX-512, OpenBLAS, float32) for the first layer of VGG, 3 -> 64 channels of
128 images of 32 x 32 pixels: forward 4.3 ms, of which the product alone is 3, and weight gradient
4.0; the definition takes 12 and 8.5, PyTorch 30 and 21. Columns by rows, as here, and by taps (each
row of the matrix a shifted image) are equally fast for 3 channels; rows serve any number. Keeping
the columns for the weight gradient costs as much as filling them again.

The vjp's two gradients share only the reading of c, so each is a separate pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minibn.fast.cpu import memory, threads
from minibn.fast.cpu.products import UNPACKED
from minibn.fast.cpu.tiling import Source, Target
from minibn.fast.kernel import Kernel
from minibn.ops.conv import windows

BLOCK = 1 << 18  # numbers in a block's columns or results


def slices(K: int, F: int) -> int:
    """How many rows of (rows, K) · (K, F) to multiply at a time; 0 for all.

    Products small enough for OpenBLAS not to pack them (see `products`) run at 105-115 GFLOP/s a
    core instead of 85-95; under 64 rows nothing is gained.
    """
    rows = 1 << max(UNPACKED // (K * F), 1).bit_length() - 1
    return rows if rows >= 64 else 0


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a · b: (rows, K), (K, F) -> (rows, F)."""
    K, F = b.shape
    rows = slices(K, F) or len(a)
    even = len(a) // rows * rows
    np.matmul(a[:even].reshape(-1, rows, K), b, out=out[:even].reshape(-1, rows, F))
    np.matmul(a[even:], b, out=out[even:])


def transposed_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """aᵀ · b: (rows, K), (rows, F) -> (K, F)."""
    K, F = a.shape[1], b.shape[1]
    rows = slices(K, F)
    if not rows or len(a) < 2 * rows:
        return a.T @ b
    even = len(a) // rows * rows
    parts = a[:even].reshape(-1, rows, K).transpose(0, 2, 1) @ b[:even].reshape(-1, rows, F)
    return parts.sum(axis=0) + a[even:].T @ b[even:]


class Blocks:
    """One thread's images, a block at a time, with scratch for one block.

    op: a convolution's settings; images: the thread's share. Iterating gives slices of images.
    """

    def __init__(self, op: Any, images: slice, dtype: Any) -> None:
        (_, H, W, C), (Kh, Kw, _, F), (_, Ho, Wo, _) = op.x_shape, op.w_shape, op.y_shape
        (ph, pw), self.op, self.images = op.padding, op, images
        self.pixels, self.K, self.F = Ho * Wo, Kh * Kw * C, F
        n = max(1, min(images.stop - images.start, BLOCK // (self.pixels * max(self.K, F))))
        self.size, self.dtype = n, dtype
        self.plain = op.stride == (1, 1) and op.padding == (0, 0) and Kh == Kw == 1
        self.padded = np.zeros((n, H + 2 * ph, W + 2 * pw, C), dtype)  # zeros stay at its border
        self.inside = self.padded[:, ph : ph + H, pw : pw + W]

    def __iter__(self) -> Iterator[slice]:
        return threads.blocks(self.images, self.size)

    def columns(self, x: np.ndarray) -> Callable[[slice], np.ndarray]:
        """A function that fills the columns of a block of x: slice -> (pixels, K)."""
        Kh, Kw, C, _ = self.op.w_shape
        if self.plain:  # each pixel is its own window
            return lambda block: x[block].reshape(-1, C)
        scratch = np.empty((self.size * self.pixels, self.K), self.dtype)

        def fill(block: slice) -> np.ndarray:
            images, n = x[block], block.stop - block.start
            if any(self.op.padding):
                self.inside[:n] = images
                images = self.padded[:n]
            views = windows(images, Kh, Kw, self.op.stride)  # (n, Ho, Wo, Kh, Kw, C)
            filled = scratch[: n * self.pixels]
            filled.reshape(views.shape)[...] = views
            return filled

        return fill


def convolve(op: Any, x: np.ndarray, w: np.ndarray, y: Target) -> None:
    """y = conv2d(x, w) for the settings of `op`, into its target."""
    w = w.reshape(-1, op.w_shape[3])  # (K, F)

    def work(images: slice) -> None:
        blocks = Blocks(op, images, x.dtype)
        columns = blocks.columns(x)
        for block in blocks:
            results = y.open(block)
            product(columns(block), w, results.reshape(-1, blocks.F))
            y.close(block, results)

    threads.map_shares(work, len(x))


def weight_grad(op: Any, x: np.ndarray, c: Source) -> np.ndarray:
    """w̄ = weight_grad(x, c) for the settings of `op`."""

    def work(images: slice) -> np.ndarray:
        blocks = Blocks(op, images, x.dtype)
        columns = blocks.columns(x)
        w_grad = np.zeros((blocks.K, blocks.F), x.dtype)
        for block in blocks:
            w_grad += transposed_product(columns(block), c(block).reshape(-1, blocks.F))
        return w_grad

    first, *others = threads.map_shares(work, len(x))
    for other in others:  # in the threads' order, so that results repeat bit for bit
        first += other
    return first.reshape(op.w_shape)


def input_grad(op: Any, c: Source, w: np.ndarray) -> np.ndarray:
    """x̄ = input_grad(c, w) for the settings of `op`."""
    (Kh, Kw, C, F), (sh, sw), (_, Ho, Wo, _) = op.w_shape, op.stride, op.y_shape
    x_grad = memory.empty(op.x_shape, w.dtype)
    taps = [(k, m, np.ascontiguousarray(w[k, m].T)) for k in range(Kh) for m in range(Kw)]

    def work(images: slice) -> None:
        blocks = Blocks(op, images, w.dtype)
        scratch = np.empty((blocks.size * blocks.pixels, C), w.dtype)
        for block in blocks:
            rows = c(block).reshape(-1, F)
            if blocks.plain:
                product(rows, taps[0][2], x_grad[block].reshape(-1, C))
                continue
            n, part = block.stop - block.start, scratch[: len(rows)]
            padded = blocks.padded[:n]
            padded[...] = 0
            for k, m, tap in taps:
                product(rows, tap, part)
                lay = padded[:, k : k + sh * Ho : sh, m : m + sw * Wo : sw]
                lay += part.reshape(lay.shape)
            x_grad[block] = blocks.inside[:n]

    threads.map_shares(work, op.x_shape[0])
    return x_grad


class _Im2col(Kernel):
    @classmethod
    def fits(cls, op: Any, a: Any, b: Any) -> bool:
        return a.dtype == b.dtype and a.dtype in (np.float32, np.float64) and a.size * b.size > 0

    @classmethod
    def pays(cls, op: Any, a: Any, b: Any) -> bool:
        """Threads and blocks are worth it from about 10 MFLOP up, for two images or more."""
        K, F = op.w_shape[0] * op.w_shape[1] * op.w_shape[2], op.w_shape[3]
        return op.y_shape[0] > 1 and op.rows * K * F > 5 * 10**6


def gradients(op: Any, c: Source, x: Any, w: Any) -> tuple[Any, Any]:
    """(x̄, w̄) for the cotangents c: x̄ if there is w, w̄ if there is x."""
    return (
        None if w is None else input_grad(op, c, w),
        None if x is None else weight_grad(op, x, c),
    )


class Im2colConv2d(_Im2col):
    """y = conv2d(x, w).    x̄ = input_grad(ȳ, w),   w̄ = weight_grad(x, ȳ)"""

    def forward(self, x, w):
        y = memory.empty(self.op.y_shape, x.dtype)
        convolve(self.op, x, w, Target(y))
        return y

    def vjp(self, g, out, x, w):
        wants_x, wants_w = self.needs_input_grad
        return gradients(self.op, g.__getitem__, x if wants_w else None, w if wants_x else None)


class Im2colInputGrad(_Im2col):
    """x̄ = input_grad(c, w)."""

    def forward(self, c, w):
        return input_grad(self.op, c.__getitem__, w)


class Im2colWeightGrad(_Im2col):
    """w̄ = weight_grad(x, c)."""

    def forward(self, x, c):
        return weight_grad(self.op, x, c.__getitem__)
