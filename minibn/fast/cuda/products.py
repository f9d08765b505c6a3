"""Convolutions and matrix products as tiled products on tensor cores: `products.cu`.

    z (M, N) = a (M, K) · b (K, N)

    forward        y = windows(x) · w       M pixels of y,  N = F,  K = Kh·Kw·C taps
    input grad     x̄ = windows(c) · wᵀ      M pixels of x,  N = C,  K = Kh·Kw·F, filters flipped
    weight grad    w̄ = windows(x)ᵀ · c      M = Kh·Kw·C,    N = F,  K pixels of y

The windows are never stored: the loader of a tile computes each number's position in the images
("implicit GEMM": Chetlur et al. 2014, cuDNN). A matrix product is the convolution of M images of
one pixel, and its two gradients are those above. Tiles of a and b are prefetched; each warp reads
its fragments of them from shared memory and multiplies by `mma.sync`.

Factors are rounded as `minibn.precision` says: "bf16" on their way to shared memory, in registers;
the others as fragments. "fp32" is three products of tf32 numbers, x = big + small for each factor
("3xTF32": NVIDIA's CUTLASS; Ootomo & Yokota 2022). The relative error of a product is at most
3 · 2⁻²². Infinities become NaN, by ∞ - ∞.

If z has too few tiles for the GPU, K is split: the parts are stored, and added in order by a second
kernel. No atomics, so results repeat bit for bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn.backend import backend_of
from minibn.fast.cuda.program import LARGEST, Program, address

PROGRAM, PARTS = Program("products"), Program("parts")
FORWARD, INPUT_GRAD, WEIGHT_GRAD = 0, 1, 2  # as in the source
PRECISIONS = {"fp32": 0, "tf32": 1, "bf16": 2}
DEPTH = 32  # of K in a tile, as in the source
STAGES = {"fp32": 3, "tf32": 3, "bf16": 2}  # tiles of a and b in shared memory
NUMBER_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}  # of their numbers
MOST = LARGEST - 1024  # numbers in an array: the last tile reaches past its end


@dataclass(frozen=True)
class Chip:
    """The properties of a GPU that plans depend on; by default an H100 or H200."""

    multiprocessors: int = 132
    shared_bytes: int = 227 << 10  # bytes of shared memory per block
    has_tensor_cores: bool = True  # of Ampere or later


H100 = Chip()


@functools.cache
def chip_of(backend: Any) -> Chip:
    """The chip of a backend; an H100 where it is emulated."""
    if backend.name == "strict":
        return H100
    ampere = backend.compute_capability >= 80
    return Chip(backend.multiprocessors, backend.shared_memory, ampere)


@dataclass(frozen=True)
class Tile:
    """The part of z that a block computes, `rows` × `columns`, and that of each of its warps."""

    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    blocks: int  # resident per multiprocessor, limited by registers and shared memory

    @property
    def warps(self) -> int:
        return self.rows // self.warp_rows * (self.columns // self.warp_columns)

    def shared_bytes(self, role: int, precision: str) -> int:
        """Bytes of shared memory: the positions of `rows` pixels or taps, and the stages."""
        number = NUMBER_BYTES[precision]

        def size(rows: int, by_k: bool) -> int:
            return rows * (DEPTH + 16 // number) if by_k else DEPTH * (rows + 8)

        a = size(self.rows, role != WEIGHT_GRAD)
        b = size(self.columns, role == INPUT_GRAD)
        return 16 * self.rows + number * STAGES[precision] * (a + b)

    def runs_on(self, chip: Chip, precision: str) -> bool:
        """Whether the chip has enough shared memory, in every role."""
        roles = (FORWARD, INPUT_GRAD, WEIGHT_GRAD)
        return max(self.shared_bytes(role, precision) for role in roles) <= chip.shared_bytes


# Larger tiles read less. "fp32" needs more registers per product, so its warp tiles are smaller.
SMALL = (Tile(256, 64, 64, 32, 1), Tile(128, 64, 64, 32, 2), Tile(64, 64, 32, 32, 3))
LARGE = (Tile(256, 128, 64, 64, 1), Tile(128, 128, 64, 64, 2), *SMALL)
TILES = {"fp32": (Tile(128, 128, 64, 32, 1), *SMALL), "tf32": LARGE, "bf16": LARGE}
ROUNDS = (1, 2, 3, 4)  # K is split to give each multiprocessor that many blocks

# The cost model of `plan`: rates of a multiprocessor per clock. Orders of magnitude from public
# measurements of the H100 (2/3 of its tensor cores' peak by mma.sync, 5 TB/s from L2), not ours.
MULTIPLY_RATE = {"fp32": 200, "tf32": 600, "bf16": 1200}  # products of two numbers
FETCH_RATE, SHARED_RATE = 6, 128  # numbers from L2; bytes from or to shared memory
FILLING, LAUNCH = 4, 4000  # steps until a block's first product, clocks of one more kernel


@dataclass(frozen=True)
class Plan:
    tile: Tile
    parts: int  # of K
    steps: int  # of DEPTH in a part


Sizes = tuple[int, int, int, str]  # M, N, K, precision
TUNED_PLANS: dict[Sizes, Plan] = {}  # on an H100 or H200 measured to be better than `clocks` says


@contextmanager
def use_plans(plans: dict[Sizes, Plan]) -> Iterator[None]:
    """Context manager: use these plans, to measure them."""
    before = TUNED_PLANS.copy()
    problem.cache_clear()
    try:
        TUNED_PLANS.update(plans)
        yield
    finally:
        TUNED_PLANS.clear()
        TUNED_PLANS.update(before)
        problem.cache_clear()


def plan(M: int, N: int, K: int, precision: str, chip: Chip = H100) -> Plan:
    """The tile and the number of parts of K that are fastest by `clocks`."""
    tuned = TUNED_PLANS.get((M, N, K, precision))
    if tuned is not None and tuned.tile.runs_on(chip, precision):
        return tuned
    return min(plans(M, N, K, precision, chip), key=lambda p: clocks(p, M, N, precision, chip))


def plans(M: int, N: int, K: int, precision: str, chip: Chip = H100) -> list[Plan]:
    """All candidate plans, with K split or not."""
    found = []
    steps = -(-K // DEPTH)
    for tile in (tile for tile in TILES[precision] if tile.runs_on(chip, precision)):
        tiles = -(-M // tile.rows) * -(-N // tile.columns)
        for wanted in (1, *(n * chip.multiprocessors // tiles for n in ROUNDS)):
            most = min(steps, MOST // (M * N), 2**16 - 1)  # the last for the grid
            each = -(-steps // max(1, min(wanted, most)))
            found.append(Plan(tile, -(-steps // each), each))
    return list(dict.fromkeys(found))


def clocks(p: Plan, M: int, N: int, precision: str, chip: Chip = H100) -> float:
    """Estimated clocks of the busiest multiprocessor, by the slowest of three resources."""
    tile = p.tile
    sides = tile.rows + tile.columns
    shared = NUMBER_BYTES[precision] * (sides + tile.warps * (tile.warp_rows + tile.warp_columns))
    step = max(
        tile.rows * tile.columns / MULTIPLY_RATE[precision],
        sides / FETCH_RATE,
        shared / SHARED_RATE,
    )
    blocks = -(-M // tile.rows) * -(-N // tile.columns) * p.parts
    mine = -(-blocks // chip.multiprocessors)
    adding = (
        LAUNCH + 2 * p.parts * M * N / (FETCH_RATE * chip.multiprocessors) if p.parts > 1 else 0
    )
    return mine * (p.steps + FILLING) * DEPTH * step + adding


DIVISION = np.dtype([("by", "i4"), ("multiplier", "u4"), ("shift", "i4")])
PROBLEM = np.dtype(
    [(name, "i4") for name in ("M", "N", "K", "steps", "columns", "H", "W", "C")]
    + [(name, DIVISION) for name in ("pixels", "row", "channels", "places", "taps")]
    + [(name, "i4") for name in ("stride_h", "stride_w", "start_h", "start_w", "direction")]
    + [("gap_h", DIVISION), ("gap_w", DIVISION)]
)


def division(by: int) -> tuple[int, int, int]:
    """n // by as a product and a shift, exact for 0 <= n < 2³¹ (Granlund & Montgomery 1994).

    >>> by, multiplier, shift = division(7)
    >>> 1_000_000_000 * multiplier >> shift == 1_000_000_000 // 7
    True
    """
    shift = 31 + (by - 1).bit_length()
    return by, (1 << shift) // by + 1, shift


Settings = tuple[Any, Any, tuple[int, ...], tuple[int, ...]]  # of a convolution: see ops.conv


@dataclass(frozen=True)
class Launch:
    """The launch parameters for one of the three products of a convolution."""

    plan: Plan
    shape: tuple[int, int]  # M, N
    rows: tuple[int, int, int]  # numbers contiguous in images, b and z
    argument: Any  # a PROBLEM
    blocks: tuple[int, int]
    macros: dict[str, int]


@functools.lru_cache(maxsize=4096)
def problem(role: int, settings: Settings, precision: str, chip: Chip = H100) -> Launch:
    """The product `role` of the convolution with these settings."""
    (sh, sw), (ph, pw), (N, H, W, C), (Kh, Kw, _, F) = settings
    Ho, Wo = (H + 2 * ph - Kh) // sh + 1, (W + 2 * pw - Kw) // sw + 1
    if role == INPUT_GRAD:  # windows of c, dilated by the stride; filters flipped
        sizes = (N * H * W, C, Kh * Kw * F)
        images, grid = (Ho, Wo, F), (H, W)
        way, gap = (1, 1, ph, pw, -1), (sh, sw)
    else:
        sizes = (N * Ho * Wo, F, Kh * Kw * C)
        images, grid = (H, W, C), (Ho, Wo)
        way, gap = (sh, sw, -ph, -pw, 1), (1, 1)
    if role == WEIGHT_GRAD:
        sizes = (sizes[2], sizes[1], sizes[0])
    chosen, depth = plan(*sizes, precision, chip), images[2]
    tile, columns = chosen.tile, -(-sizes[1] // chosen.tile.columns)
    by = [division(n) for n in (math.prod(grid), grid[1], depth, Kh * Kw, Kw, *gap)]
    values = (*sizes, chosen.steps, columns, *images, *by[:5], *way, *by[5:])
    return Launch(
        plan=chosen,
        shape=sizes[:2],
        rows=(depth, depth if role == INPUT_GRAD else sizes[1], sizes[1]),
        argument=np.array(values, PROBLEM)[()],  # host: a kernel's argument, by value
        blocks=(-(-sizes[0] // tile.rows) * columns, chosen.parts),
        macros={"ROLE": role, "PRECISION": PRECISIONS[precision], "DILATED": int(gap != (1, 1))}
        | {"REUSE": int(depth % DEPTH == 0 and Kh * Kw > 1), "BLOCKS": tile.blocks}
        | {"BM": tile.rows, "BN": tile.columns, "WM": tile.warp_rows, "WN": tile.warp_columns}
        | {"SHARED": tile.shared_bytes(role, precision)},
    )


def product(role: int, settings: Settings, images: Any, b: Any, z: Any, precision: str) -> None:
    """z = one of the three products of the convolution with these settings.

    images, b, z are x, w, y or c, w, x̄ or x, c, w̄: contiguous arrays of float32.
    """
    backend: Any = backend_of(z)
    launch = problem(role, settings, precision, chip_of(backend))
    (M, N), tile, parts = launch.shape, launch.plan.tile, launch.plan.parts
    out = z if parts == 1 else backend.xp.empty((parts, M, N), np.float32)
    VA, VB, VZ = (
        vector_width(x, row, most)
        for x, row, most in zip((images, b, out), launch.rows, (4, 4, 2), strict=True)
    )
    PROGRAM.launch(
        "product",
        launch.blocks,
        32 * tile.warps,
        *(images, b, out, launch.argument),
        shared=launch.macros["SHARED"],
        **(launch.macros | {"VA": VA, "VB": VB, "VZ": VZ}),
    )
    if parts > 1:
        PARTS.launch("sum_of_parts", -(-M * N // 256), 256, out, z, M * N, parts)


def vector_width(x: Any, row: int, most: int) -> int:
    """Numbers of x that a thread moves at once: `most`, or 1 if rows or x are not aligned."""
    return most if row % most == 0 and address(x) % (4 * most) == 0 else 1


def fits(*arrays: Any) -> bool:
    """Whether the kernel supports these arrays."""
    return chip_of(backend_of(*arrays)).has_tensor_cores and all(
        a.dtype == np.float32 and 0 < a.size <= MOST for a in arrays
    )
