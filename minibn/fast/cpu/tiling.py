"""A convolution in Winograd's tiles: the plan, padded images, and the steps.

Each step transforms some images (or some filters) in groups that stay in the cache; `conv.py` runs
the steps on threads. The mathematics is in `winograd.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minibn.fast.cpu import memory
from minibn.fast.cpu.threads import blocks, count
from minibn.fast.cpu.winograd import (
    Scheme,
    input_tiles,
    input_tiles_adjoint,
    output_tiles,
    output_tiles_adjoint,
    schemes,
)

TILES = 256  # tiles in a block: 64 channels make 2.4 MB of V, and products of a good size
GROUP = 1 << 14  # tiles times channels that are transformed at a time: scratch of 1.5 MB
FILTERS = 3 << 20  # bytes of U up to which a thread works through blocks on its own
LOADING = 60  # tiles whose products take as long as reading a filter's transform from memory

Transform = Callable[[Scheme, np.ndarray, np.ndarray, np.ndarray], None]
Source = Callable[[slice], np.ndarray]  # some images -> their array: `array.__getitem__`, say


class Target:
    """Where results are written, some images at a time: an array, or see the subclasses."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def open(self, images: slice) -> np.ndarray:
        """Memory for the results of these images."""
        return self.array[images]

    def close(self, images: slice, block: np.ndarray) -> None:
        """Called when the results are written, and still in the cache."""


class Plan:
    """How one convolution is divided into tiles and blocks.

    The frame is the image whose convolution with padding 1 has all outputs: for padding 2 one pixel
    larger on each side, for padding 0 the image itself, whose outermost outputs are dropped.
    """

    def __init__(self, op: Any, dtype: np.dtype) -> None:
        self.N, self.H, self.W, self.C = op.x_shape
        _, self.Ho, self.Wo, self.F = op.y_shape
        ph, pw = op.padding
        self.x_at = max(ph - 1, 0), max(pw - 1, 0)  # where x begins in the frame
        self.y_at = max(1 - ph, 0), max(1 - pw, 0)  # where y begins
        frame = self.H + 2 * self.x_at[0], self.W + 2 * self.x_at[1]
        self.dtype = dtype
        every = schemes(dtype)
        if max(frame) <= 2:
            self.s = every["pair"]
        else:
            self.s = min(every["4x4"], every["2x2"], key=lambda s: self._cost(s, frame))
        self.th, self.tw = (-(-side // self.s.m) for side in frame)
        self.products = self.s.n**2
        self.tiles = self.th * self.tw
        size = self.products * self.C * self.F * dtype.itemsize
        self.by_blocks = size <= FILTERS and self.N * self.tiles > TILES
        per_thread = -(-self.N // count())
        self.block = max(1, min(TILES // self.tiles, per_thread)) if self.by_blocks else self.N

    def _cost(self, s: Scheme, frame: tuple[int, int]) -> int:
        tiles = self.N * math.prod(-(-side // s.m) for side in frame)
        return s.n**2 * (tiles + LOADING)

    def group(self, channels: int, images: slice) -> int:
        """The number of images to transform at a time."""
        return max(1, min(images.stop - images.start, GROUP // (self.tiles * channels)))

    @property
    def few_tiles(self) -> bool:
        """Whether computing the filters' transform U takes at least half as long as the
        products."""
        return self.N * self.tiles <= 2 * LOADING

    @property
    def border(self) -> int:
        return int(self.s.overlap)

    def tile_array(self, images: int, channels: int, make: Any = memory.scratch) -> np.ndarray:
        """For V or M of so many images: (n, n, images, th, tw, channels)."""
        return make((self.s.n, self.s.n, images, self.th, self.tw, channels), self.dtype)

    def filters_array(self, rows: int, columns: int) -> np.ndarray:
        """For U or its gradient: (n², rows, columns)."""
        return memory.scratch((self.products, rows, columns), self.dtype)

    def rows_array(self, images: int, channels: int, border: int = 0) -> np.ndarray:
        """Scratch between the two axes: (images, rows, n, tw, channels)."""
        rows = self.s.m * self.th + 2 * border
        return memory.scratch((images, rows, self.s.n, self.tw, channels), self.dtype)

    def matrices(self, V: np.ndarray) -> np.ndarray:
        """(n, n, images, th, tw, C) as (n², images·tiles, C)."""
        return V.reshape(self.products, -1, V.shape[-1])


class Frame:
    """Images as whole tiles: padded with zeros if they do not fill them exactly."""

    def __init__(
        self, plan: Plan, images: int, channels: int, at: tuple[int, int], border: int
    ) -> None:
        h, w = plan.s.m * plan.th + 2 * border, plan.s.m * plan.tw + 2 * border
        self.top, self.left = at[0] + border, at[1] + border
        self.shape = (images, h, w, channels)
        self.dtype = plan.dtype
        self._scratch: np.ndarray | None = None

    @property
    def scratch(self) -> np.ndarray:
        """Made of zeros at its first use."""
        if self._scratch is None:
            self._scratch = memory.scratch(self.shape, self.dtype)
            self._scratch.fill(0)
        return self._scratch

    def _filled_by(self, x: np.ndarray) -> bool:
        return x.shape[1:] == self.shape[1:]

    def _inside(self, x: np.ndarray) -> np.ndarray:
        return self.scratch[: len(x), self.top :, self.left :][:, : x.shape[1], : x.shape[2]]

    def around(self, x: np.ndarray) -> np.ndarray:
        """x (b, H, W, C) padded with zeros; x itself if no padding is needed."""
        if self._filled_by(x):
            return x
        np.copyto(self._inside(x), x)
        return self.scratch[: len(x)]

    def target(self, x: np.ndarray) -> np.ndarray:
        """The array for whole tiles of x: x itself, or scratch, which `finish` copies to x."""
        return x if self._filled_by(x) else self.scratch[: len(x)]

    def finish(self, x: np.ndarray) -> None:
        if not self._filled_by(x):
            np.copyto(x, self._inside(x))


def transform_filters(plan: Plan, w: np.ndarray, U: np.ndarray, rows: slice) -> None:
    """U = G g Gᵀ of the filters in some rows of (3, 3, rows, columns), into (n², rows, columns)."""
    for r in blocks(rows, max(1, 2048 // w.shape[3])):
        np.matmul(plan.s.GG, w[:, :, r].reshape(9, -1), out=U[:, r].reshape(plan.products, -1))


def gather_filters(plan: Plan, dU: np.ndarray, dw: np.ndarray, rows: slice) -> None:
    """ḡ = Gᵀ Ū G of the filters in some rows: the adjoint. Shapes as above."""
    for r in blocks(rows, max(1, 2048 // dU.shape[2])):
        part = dU[:, r].reshape(plan.products, -1)
        np.matmul(plan.s.GG.T, part, out=dw[:, :, r].reshape(9, -1))


def load_tiles(plan: Plan, x: Source, images: slice, V: np.ndarray) -> None:
    """V = Bᵀ d B: the tiles of some images of x (N, H, W, C)."""
    _load(plan, input_tiles, x, images, V, plan.x_at, plan.border)


def store_tiles(plan: Plan, M: np.ndarray, images: slice, y: Target) -> None:
    """Y = Aᵀ M A: some images of y (N, Ho, Wo, F) from their products."""
    _store(plan, output_tiles, M, images, y, plan.y_at)


def load_cotangents(plan: Plan, dy: Source, images: slice, dM: np.ndarray) -> None:
    """M̄ = A Ȳ Aᵀ: the products' cotangents from those of the images, dy (N, Ho, Wo, F)."""
    _load(plan, output_tiles_adjoint, dy, images, dM, plan.y_at, 0)


def store_input_grad(plan: Plan, dV: np.ndarray, images: slice, dx: Target) -> None:
    """d̄ = B V̄ Bᵀ: the gradient dx (N, H, W, C) of some images from that of their tiles."""
    _store(plan, input_tiles_adjoint, dV, images, dx, plan.x_at)


def _load(
    plan: Plan, transform: Transform, x: Source, images: slice, V: Any, at: Any, border: int
) -> None:
    """`transform` from images to tiles, a group at a time."""
    channels = V.shape[-1]
    group = plan.group(channels, images)
    frame = Frame(plan, group, channels, at, border)
    scratch = plan.rows_array(group, channels, border)
    for b in blocks(images, group):
        part = frame.around(x(b))
        mine = slice(b.start - images.start, b.stop - images.start)
        transform(plan.s, part, V[:, :, mine], scratch[: len(part)])


def _store(plan: Plan, transform: Transform, V: Any, images: slice, y: Target, at: Any) -> None:
    """`transform` from tiles to images, a group at a time."""
    channels = V.shape[-1]
    group = plan.group(channels, images)
    frame = Frame(plan, group, channels, at, 0)
    scratch = plan.rows_array(group, channels)
    for b in blocks(images, group):
        block = y.open(b)
        whole = frame.target(block)
        mine = slice(b.start - images.start, b.stop - images.start)
        transform(plan.s, V[:, :, mine], whole, scratch[: len(whole)])
        frame.finish(block)
        y.close(b, block)
