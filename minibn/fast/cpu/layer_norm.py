"""Norms over each example, while a block of examples is in the cache.

For layer_norm and rms_norm over the whole example, group_norm and instance_norm, with gamma and
beta per channel. All statistics are per example, so forward and backward are a single pass each.
With G groups of channels, S pixels, and sums that stay within a group:

    forward    z = x - mu,   y = z · (gamma inv_std) + beta
    backward   A = Σ_s ȳ,   B = Σ_s ȳ z   per example and channel
               x̄ = ȳ · (gamma inv_std) - z · inv_std³ Σ gamma B / M - inv_std Σ gamma A / M

The plain op reduces along axes in the middle, a few channels at a time, which is slow. Measured
(one core that others shared, 128×32×32×16 in float32, forward and backward): 10 ms (rms) and 18 to
19 ms (layer, instance, four groups), where the plain op takes 36, 57, 96 and 327.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibn.fast.cpu import memory
from minibn.fast.cpu.rows import Rows, is_far, sum_blocks
from minibn.fast.kernel import Kernel
from minibn.ops.layer_normalization import LayerNorm

ROW = 512  # elements of an inner loop: pixels times channels


class Layout:
    """An example as S pixels of C channels in G groups, cut into rows of several pixels."""

    def __init__(self, N: int, S: int, C: int, G: int) -> None:
        self.shape, self.C, self.G = (N, S, C), C, G
        self.M = S * C // G  # values that share a mean
        most = max(1, min(ROW // C, S))
        self.repeat = next(r for r in range(most, 0, -1) if S % r == 0)

    @staticmethod
    def of(shape: tuple[int, ...], axes: tuple[int, ...], vector: tuple[int, ...]) -> Any:
        """The layout for statistics over these axes of an array, or None."""
        k = len(shape)
        groups = {  # axes -> how many of the last axes are channels, and how many groups they form
            (*range(1, k - 2), k - 1): (2, shape[-2] if k > 2 else 1),
            (*range(1, k - 1),): (1, shape[-1]),
            (*range(1, k),): (1, 1),  # last, as for vectors it equals the first
        }
        if k < 2 or axes not in groups or math.prod(shape) == 0:
            return None
        last, G = groups[axes]
        if vector != shape[k - last :] or last >= k:
            return None
        return Layout(shape[0], math.prod(shape[1 : k - last]), math.prod(shape[k - last :]), G)

    def rows(self, x: np.ndarray) -> np.ndarray:
        """(b, S, C) as (b, rows, repeat·C), a view."""
        return x.reshape(len(x), -1, self.repeat * self.C)

    def tile(self, v: np.ndarray, dtype: Any) -> np.ndarray:
        """(b, C) repeated along the rows of each example: (b, 1, repeat·C)."""
        return np.tile(v.astype(dtype), (1, self.repeat))[:, None]

    def sum(self, x: np.ndarray) -> np.ndarray:
        """Σ over the pixels: (b, S, C) -> (b, C) in float64."""
        x = self.rows(x)
        return self._folded(np.ones(x.shape[1], x.dtype) @ x)

    def dot(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Σ x y over the pixels: (b, C) in float64."""
        return self._folded(np.einsum("brc,brc->bc", self.rows(x), self.rows(y)))

    def _folded(self, v: np.ndarray) -> np.ndarray:
        return v.reshape(len(v), self.repeat, self.C).sum(1, np.float64)

    def first(self, x: np.ndarray) -> np.ndarray:
        """The first value of each group, for each of its channels: (b, S, C) -> (b, C)."""
        return np.repeat(x[:, 0, :: self.C // self.G], self.C // self.G, axis=1)

    def mean(self, v: np.ndarray) -> np.ndarray:
        """Sums over pixels as means over the group, for each of its channels: (b, C)."""
        each = v.reshape(len(v), self.G, -1).sum(2) / self.M
        return np.repeat(each, self.C // self.G, axis=1)


class FusedExampleNorm(Kernel):
    """LayerNorm and RmsNorm over axes that have a `Layout`."""

    @classmethod
    def fits(cls, op: Any, x: Any, *affine: Any) -> bool:
        return (
            x.dtype in (np.float32, np.float64)
            and all(hasattr(v, "dtype") and v.dtype == x.dtype for v in affine)
            and all(v.shape == affine[0].shape for v in affine)
            and Layout.of(x.shape, op.axes, affine[0].shape) is not None
        )

    @classmethod
    def pays(cls, op: Any, x: Any, *affine: Any) -> bool:
        return x.size >= 1 << 14  # below it, calls cost more than passes

    def forward(self, x, *affine):
        self.layout = at = Layout.of(x.shape, self.op.axes, affine[0].shape)
        self.rows = Rows(at.shape)
        self.centres = isinstance(self.op, LayerNorm)
        N, C, wide = at.shape[0], at.C, np.float64
        # Subtracted from x one after another: see `_centred`.
        self.mu, self.shift = np.zeros((N, C)), np.zeros((N, C))
        self.inv = np.empty((N, C))
        gamma = affine[0].reshape(C).astype(wide)
        beta = affine[1].reshape(C).astype(wide) if self.centres else None
        values = np.ascontiguousarray(x).reshape(at.shape)
        out = memory.empty(at.shape, x.dtype)

        def normalise(b: slice) -> None:
            block = values[b]
            if self.centres:
                self.mu[b] = at.mean(at.sum(block)).astype(x.dtype)  # as it will be subtracted
                block = self._centred(block, b)
                rest = at.mean(at.sum(block))  # the rounding error of the mean
                square = at.mean(at.dot(block, block))
                far = is_far(rest * rest, square, 1e-8)  # less is lost in the backward pass
                if far.any():
                    self.mu[b] = np.where(far, at.first(values[b]), self.mu[b])
                    shifted = self._centred(values[b], b)  # exact for equal values
                    self.shift[b] = np.where(far, at.mean(at.sum(shifted)).astype(x.dtype), 0)
                    block = self._centred(values[b], b)
                    rest = np.where(far, at.mean(at.sum(block)), rest)
                    square = np.where(far, at.mean(at.dot(block, block)), square)
                var = np.maximum(square - rest * rest, 0)
            else:
                var = at.mean(at.dot(block, block))
            self.inv[b] = 1 / np.sqrt(var + self.op.eps)
            scale = gamma * self.inv[b]
            y = at.rows(out[b])
            np.multiply(at.rows(block), at.tile(scale, x.dtype), out=y)
            if beta is not None:
                np.add(y, at.tile(beta - rest * scale, x.dtype), out=y)
                self.shift[b] += np.where(far, rest, 0)
                self.mu[b] += np.where(far, 0, rest)

        self.rows.map_blocks(normalise)
        return out.reshape(x.shape)

    def _centred(self, block: np.ndarray, b: slice) -> np.ndarray:
        """(x - mu) - shift of some examples; without a mean x itself."""
        if not self.centres:
            return block
        at, z = self.layout, memory.scratch(block.shape, block.dtype)
        np.subtract(at.rows(block), at.tile(self.mu[b], block.dtype), out=at.rows(z))
        if self.shift[b].any():
            np.subtract(at.rows(z), at.tile(self.shift[b], block.dtype), out=at.rows(z))
        return z

    def vjp(self, g, out, x, gamma, *beta):
        at, inv = self.layout, self.inv
        factor = gamma.reshape(at.C).astype(np.float64)
        values, cotangents = (np.ascontiguousarray(a).reshape(at.shape) for a in (x, g))
        dx = memory.empty(at.shape, x.dtype) if self.needs_input_grad[0] else None

        def pull(b: slice) -> list[np.ndarray]:
            z, g = self._centred(values[b], b), cotangents[b]
            along = at.dot(g, z)  # (b, C)
            g_beta = at.sum(g) if self.centres else np.zeros_like(along)
            sums = [(along * inv[b]).sum(0), g_beta.sum(0)]
            if dx is None:
                return sums
            slope = -(inv[b] ** 3) * at.mean(factor * along)
            flat, t = at.rows(dx[b]), memory.scratch(z.shape, z.dtype)
            np.multiply(at.rows(g), at.tile(factor * inv[b], x.dtype), out=flat)
            np.multiply(at.rows(z), at.tile(slope, x.dtype), out=at.rows(t))
            np.add(flat, at.rows(t), out=flat)
            if self.centres:
                offset = -inv[b] * at.mean(factor * g_beta)
                np.add(flat, at.tile(offset, x.dtype), out=flat)
            return sums

        vectors = [
            v.astype(x.dtype).reshape(gamma.shape) for v in sum_blocks(self.rows.map_blocks(pull))
        ]
        g_x = None if dx is None else dx.reshape(x.shape)
        return g_x, *vectors[: 1 + len(beta)]
