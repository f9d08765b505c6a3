"""Max-pooling with windows that tile the image (stride = size, no padding), 2 x 2 or any other.

The pixels at place (k, m) of every window form a corner of x, the strided view x[:, k::s, m::s] of
y's shape. Forward is the maximum of the corners, first down each window and then along it, so that
the first half of the work runs over whole rows of the image.

    y = max_{k,m} corner(k, m)

Backward hands ȳ to the first corner that equals y, in row-major order. What a corner does not take
is left for the next, and the last takes the rest:

    left = ȳ;   for each corner:   x̄(corner) = left · [corner = y],   left = left - x̄(corner)

The product and the difference are those of the bits read as integers, times 0 or 1 and minus itself
or 0: exact for every value, also for an infinite one, and as fast as with floats. A masked copy
(`np.copyto(where=)`, `np.where`) takes four times as long. Nothing is kept but x and y.

Measured for (128, 32, 32, 64) in float32 on two cores: forward 3 ms, backward 7 to 8; the
definition takes 75 and 70.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minibn.backend.cpu import memory, threads
from minibn.backend.kernels import Kernel

BLOCK = 1 << 18  # pixels, times channels, of the images in a block: 1 MB in float32


def _blocks(x: np.ndarray, images: slice) -> Iterator[slice]:
    size = max(1, BLOCK // max(x[0].size, 1))
    for block in threads.blocks(images.stop - images.start, size):
        yield slice(images.start + block.start, images.start + block.stop)


class TiledMaxPool2d(Kernel):
    """y = the largest value of each window.    x̄: ȳ, at the first of its window's largest values"""

    @classmethod
    def fits(cls, op: Any, x: Any) -> bool:
        return (
            tuple(op.size) == tuple(op.stride)
            and not any(op.padding)
            and x.dtype in (np.float32, np.float64)
            and x.size > 0
        )

    @classmethod
    def pays(cls, op: Any, x: Any) -> bool:
        return x.size >= 1 << 15

    def forward(self, x):
        (N, H, W, C), (sh, sw) = x.shape, self.op.size
        Ho, Wo = H // sh, W // sw
        y = memory.empty((N, Ho, Wo, C), x.dtype)

        def work(images: slice) -> None:
            for block in _blocks(x, images):
                rows = x[block, 0 : sh * Ho : sh, : sw * Wo]  # (n, Ho, sw·Wo, C)
                down = np.empty(rows.shape, x.dtype)
                np.copyto(down, rows)
                for k in range(1, sh):
                    np.maximum(down, x[block, k : sh * Ho : sh, : sw * Wo], out=down)
                np.copyto(y[block], down[:, :, ::sw])
                for m in range(1, sw):
                    np.maximum(y[block], down[:, :, m::sw], out=y[block])

        threads.in_shares(work, N)
        return y

    def vjp(self, g, out, x):
        (N, H, W, _), (sh, sw) = x.shape, self.op.size
        Ho, Wo = H // sh, W // sw
        x_grad = memory.empty(x.shape, x.dtype)
        x_grad[:, sh * Ho :] = 0  # pixels in no window
        x_grad[:, :, sw * Wo :] = 0
        places = [
            (slice(k, sh * Ho, sh), slice(m, sw * Wo, sw)) for k in range(sh) for m in range(sw)
        ]
        bits = np.dtype(f"u{x.itemsize}")

        def work(images: slice) -> None:
            for block in _blocks(x, images):
                y = out[block]
                is_nan = np.isnan(y).any()
                left = g[block].astype(g.dtype, order="C").view(bits)
                wins, taken = np.empty(y.shape, bool), np.empty(y.shape, bits)
                for place in places[:-1]:
                    corner = x[block, *place]
                    np.equal(corner, y, out=wins)
                    if is_nan:
                        wins |= np.isnan(corner)
                    np.copyto(taken, wins)
                    np.multiply(left, taken, out=taken)
                    np.copyto(x_grad[block, *place], taken.view(x.dtype))
                    np.subtract(left, taken, out=left)
                np.copyto(x_grad[block, *places[-1]], left.view(x.dtype))

        threads.in_shares(work, N)
        return x_grad
