"""Convolution by Winograd's algorithm on threads: 3×3 filters, stride 1, any padding.

The mathematics is in `winograd.py`, the steps in `tiling.py`. Here they run on threads, in one of
two ways:

* **Blocks**: if images are large and filters small, each thread computes blocks of images from
  tiles to outputs, so that a block stays in the cache. Each thread has its own partial gradient of
  the filters; these are added in the order of the threads.
* **Stages**: if images are small and filters large, the filters' transform does not fit into a
  thread's cache. Then the whole batch is processed in three stages, and the n² matrix products are
  divided among the threads, so that no two threads read the same matrices.

The gradients need the tiles V and the filters' transform U again. In stages the forward pass saves
V (2.25 times the memory of x), except in "lean" mode; by blocks V is recomputed, which takes no
longer than reading it from memory. U, up to four times as large as the filters, is saved for small
batches only: saved for 128 images too, it made a step of VGG-16 2 % faster and its peak memory a
quarter larger.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibn.fast.cpu import memory
from minibn.fast.cpu.products import multiply, multiply_by_transposed, multiply_transposed
from minibn.fast.cpu.threads import blocks, count, parallel, share
from minibn.fast.cpu.tiling import (
    Plan,
    Source,
    Target,
    gather_filters,
    load_cotangents,
    load_tiles,
    store_input_grad,
    store_tiles,
    transform_filters,
)
from minibn.fast.kernel import Kernel

# V and U, which the gradients read again
SavedTransforms = tuple[np.ndarray | None, np.ndarray | None]


def my_products(i: int, threads: int, products: int, columns: int) -> list[tuple[int, slice]]:
    """The products of thread i, with their columns: whole products, and a share of the columns of
    the remaining ones, which do not divide evenly.

    >>> my_products(0, 2, 3, 10)
    [(0, slice(0, 10, None)), (2, slice(0, 5, None))]
    >>> my_products(1, 2, 3, 10)
    [(1, slice(0, 10, None)), (2, slice(5, 10, None))]
    """
    whole = products // threads * threads
    mine = [(t, slice(0, columns)) for t in range(i, whole, threads)]
    return mine + [(t, share(columns, i, threads)) for t in range(whole, products)]


def convolve(
    plan: Plan, x: np.ndarray, w: np.ndarray, y: Target, keep: bool = False
) -> SavedTransforms:
    """y (N, Ho, Wo, F), into its target. Returns the transforms to save for the gradients."""
    U = plan.filters_array(plan.C, plan.F)
    if plan.by_blocks:
        _convolve_by_blocks(plan, x, w, U, y)
        return None, None
    V = plan.tile_array(plan.N, plan.C, memory.empty if keep else memory.scratch)
    M = plan.tile_array(plan.N, plan.F)
    VV, MM = plan.matrices(V), plan.matrices(M)
    threads = count()

    def load(i: int) -> None:
        transform_filters(plan, w, U, share(plan.C, i, threads))
        images = share(plan.N, i, threads)
        load_tiles(plan, x.__getitem__, images, V[:, :, images])

    def multiply_tiles(i: int) -> None:
        for t, f in my_products(i, threads, plan.products, plan.F):
            np.matmul(VV[t], U[t][:, f], out=MM[t][:, f])

    def store(i: int) -> None:
        images = share(plan.N, i, threads)
        store_tiles(plan, M[:, :, images], images, y)

    for stage in (load, multiply_tiles, store):
        parallel(stage, threads)
    return V if keep else None, U if keep and plan.few_tiles else None


def _convolve_by_blocks(plan: Plan, x: Any, w: Any, U: np.ndarray, y: Target) -> None:
    every = list(blocks(plan.N, plan.block))
    threads = min(count(), len(every))
    transform_filters(plan, w, U, slice(0, plan.C))

    def work(i: int) -> None:
        V, M = plan.tile_array(plan.block, plan.C), plan.tile_array(plan.block, plan.F)
        for images in every[i::threads]:
            n = images.stop - images.start
            tiles, products = _front(V, n), _front(M, n)
            load_tiles(plan, x.__getitem__, images, tiles)
            multiply(plan.matrices(tiles), U, plan.matrices(products))
            store_tiles(plan, products, images, y)

    parallel(work, threads)


def _front(V: np.ndarray, images: int) -> np.ndarray:
    """The start of V's memory for fewer images: (n, n, images, th, tw, C), contiguous."""
    n, _, most, th, tw, C = V.shape
    if images == most:
        return V
    shape = (n, n, images, th, tw, C)
    return V.reshape(-1)[: math.prod(shape)].reshape(shape)


def gradients(
    plan: Plan,
    dy: Source,
    x: np.ndarray | None,
    w: np.ndarray | None,
    saved: SavedTransforms = (None, None),
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(dx, dw) for the cotangents dy (N, Ho, Wo, F): dx if there is w, dw if there is x."""
    dx = None if w is None else memory.empty((plan.N, plan.H, plan.W, plan.C), plan.dtype)
    dw = None if x is None else memory.empty((3, 3, plan.C, plan.F), plan.dtype)
    work = _gradients_by_blocks if plan.by_blocks else _gradients_by_stages
    work(plan, dy, x, w, None if dx is None else Target(dx), dw, saved)
    return dx, dw


def _gradients_by_stages(
    plan: Plan, dy: Source, x: Any, w: Any, dx: Target | None, dw: Any, saved: SavedTransforms
) -> None:
    N, C, F = plan.N, plan.C, plan.F
    dM, dV = plan.tile_array(N, F), plan.tile_array(N, C)
    V = plan.tile_array(N, C) if saved[0] is None else saved[0]
    U = plan.filters_array(C, F) if saved[1] is None else saved[1]
    dU = U if saved[1] is None else plan.filters_array(C, F)  # overwrites U, once it was read
    VV, dVV, dMM = (plan.matrices(tiles) for tiles in (V, dV, dM))
    threads = count()

    def load(i: int) -> None:
        images = share(N, i, threads)
        load_cotangents(plan, dy, images, dM[:, :, images])
        if dw is not None and saved[0] is None:
            load_tiles(plan, x.__getitem__, images, V[:, :, images])
        if dx is not None and saved[1] is None:
            transform_filters(plan, w, U, share(C, i, threads))

    def inputs(i: int) -> None:
        if dx is not None:
            for t, c in my_products(i, threads, plan.products, C):
                multiply_by_transposed(dMM[t], U[t][c], dVV[t][:, c])

    def filters(i: int) -> None:
        if dw is not None:
            for t, f in my_products(i, threads, plan.products, F):
                np.matmul(VV[t].T, dMM[t][:, f], out=dU[t][:, f])

    def store(i: int) -> None:
        if dw is not None:
            gather_filters(plan, dU, dw, share(C, i, threads))
        if dx is not None:
            images = share(N, i, threads)
            store_input_grad(plan, dV[:, :, images], images, dx)

    for stage in (load, inputs, filters, store):
        parallel(stage, threads)


def _gradients_by_blocks(
    plan: Plan, dy: Source, x: Any, w: Any, dx: Target | None, dw: Any, saved: SavedTransforms
) -> None:
    C, F = plan.C, plan.F
    every = list(blocks(plan.N, plan.block))
    threads = min(count(), len(every))
    UT = plan.filters_array(F, C)
    if dx is not None:
        transform_filters(plan, w.transpose(0, 1, 3, 2), UT, slice(0, F))

    def work(i: int) -> np.ndarray:
        M, tiles = plan.tile_array(plan.block, F), plan.tile_array(plan.block, C)
        dU, one = plan.filters_array(C, F), plan.filters_array(C, F)
        for images in every[i::threads]:
            n = images.stop - images.start
            dM, V = _front(M, n), _front(tiles, n)
            load_cotangents(plan, dy, images, dM)
            if dw is not None:
                load_tiles(plan, x.__getitem__, images, V)
                first = images is every[i]
                multiply_transposed(plan.matrices(V), plan.matrices(dM), dU if first else one)
                if not first:
                    np.add(dU, one, out=dU)
            if dx is not None:
                multiply(plan.matrices(dM), UT, plan.matrices(V))  # V becomes dV
                store_input_grad(plan, V, images, dx)
        return dU

    dU, *others = parallel(work, threads)
    if dw is not None:
        for other in others:  # in the order of the threads, so that results repeat bit for bit
            np.add(dU, other, out=dU)
        gather_filters(plan, dU, dw, slice(0, C))


def _suits(op: Any, *arrays: Any) -> bool:
    """3×3, stride 1, one float dtype, nothing empty, channels contiguous."""
    return (
        op.w_shape[:2] == (3, 3)
        and op.stride == (1, 1)
        and arrays[0].dtype == arrays[1].dtype
        and arrays[0].dtype in (np.float32, np.float64)
        and math.prod(op.x_shape) > 0
        and math.prod(op.y_shape) > 0
    )


class _Winograd(Kernel):
    @classmethod
    def fits(cls, op: Any, *inputs: Any) -> bool:
        return _suits(op, *inputs)

    @classmethod
    def pays(cls, op: Any, *inputs: Any) -> bool:
        C, F = op.w_shape[2:]
        return C >= 16 and F >= 16 and math.prod(op.y_shape) * C >= 1 << 20


class WinogradConv2d(_Winograd):
    """Conv2d: y, then both gradients from one transform of the cotangent."""

    def forward(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        self.plan = Plan(self.op, x.dtype)
        y = memory.empty(self.op.y_shape, x.dtype)
        self.saved = convolve(self.plan, x, w, Target(y), self.keep and self.needs_input_grad[1])
        return y

    def vjp(self, g: np.ndarray, out: Any, x: np.ndarray, w: np.ndarray) -> Any:
        wants_x, wants_w = self.needs_input_grad
        given = x if wants_w else None, w if wants_x else None
        return gradients(self.plan, g.__getitem__, *given, self.saved)


class WinogradInputGrad(_Winograd):
    """Conv2dInputGrad of a cotangent c and filters w."""

    def forward(self, c: np.ndarray, w: np.ndarray) -> Any:
        return gradients(Plan(self.op, c.dtype), c.__getitem__, None, w)[0]


class WinogradWeightGrad(_Winograd):
    """Conv2dWeightGrad of images x and a cotangent c."""

    def forward(self, x: np.ndarray, c: np.ndarray) -> Any:
        return gradients(Plan(self.op, x.dtype), c.__getitem__, x, None)[1]
