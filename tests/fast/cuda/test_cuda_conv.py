"""Convolutions on tensor cores against their definitions."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda import on, on_cuda, orders
from support.products import PRECISIONS, agree, digits, run

from minibn import Tensor, grad, kernels, ops
from minibn.autograd.dispatch import find_kernel
from minibn.backend import to_numpy
from minibn.fast.cuda import products
from minibn.fast.cuda.conv import TiledConv2d, TiledInputGrad, TiledWeightGrad
from minibn.fast.cuda.products import DEPTH, TILES, Plan, division, use_plans
from minibn.fast.precision import precision
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad

KERNELS = {
    Conv2d: TiledConv2d,
    Conv2dInputGrad: TiledInputGrad,
    Conv2dWeightGrad: TiledWeightGrad,
}
CHANNELS = [(3, 10), (8, 4), (4, 5)]  # copied one by one or four at a time, stored by one or two
SMALL = ((1, 1), (1, 1), (1, 4, 5, 8), (3, 3, 8, 4))


def arrays(conv, seed=0):
    """{op: its factors}, of the three ops with these settings."""
    op, rng = Conv2d(*conv), np.random.default_rng(seed)
    x, w, c = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in (op.x_shape, op.w_shape, op.y_shape)
    )
    return {Conv2d: (x, w), Conv2dInputGrad: (c, w), Conv2dWeightGrad: (x, c)}


def sizes(Op, conv):
    """M, N, K of the product behind the op."""
    op = Conv2d(*conv)
    (N, H, W, C), (Kh, Kw, _, F) = op.x_shape, op.w_shape
    return {
        Conv2d: (op.rows, F, Kh * Kw * C),
        Conv2dInputGrad: (N * H * W, C, Kh * Kw * F),
        Conv2dWeightGrad: (Kh * Kw * C, F, op.rows),
    }[Op]


@st.composite
def problems(draw):
    (C, F), N = draw(st.sampled_from(CHANNELS)), draw(st.integers(1, 3))
    Kh, Kw = (draw(st.integers(1, 4)) for _ in "hw")
    stride = draw(st.tuples(*2 * [st.integers(1, 3)]))
    padding = draw(st.tuples(*2 * [st.integers(0, 2)]))
    H, W = (draw(st.integers(max(1, k - 2 * p), 7)) for k, p in zip((Kh, Kw), padding, strict=True))
    return stride, padding, (N, H, W, C), (Kh, Kw, C, F)


@on_cuda
@settings(max_examples=15, deadline=None)
@given(conv=problems(), seed=st.integers(0, 2**32))
def test_the_three_agree_with_their_definitions(backend, conv, seed):
    for Op, factors in arrays(conv, seed).items():
        found = run(backend, KERNELS[Op], Op(*conv), factors)
        agree(found, Op(*conv), factors, sizes(Op, conv)[2])


@on_cuda
@pytest.mark.parametrize("to", PRECISIONS)
@settings(max_examples=5, deadline=None)
@given(conv=problems(), seed=st.integers(0, 2**32))
def test_products_of_small_integers_are_exact_in_any_order_of_threads(backend, to, conv, seed):
    """So that each number counts where it belongs, once, and zeros stand outside of images."""
    rng = np.random.default_rng(seed)
    for Op, factors in arrays(conv).items():
        whole = [rng.integers(-8, 9, f.shape).astype(np.float32) for f in factors]
        compute = functools.partial(run, backend, KERNELS[Op], Op(*conv), whole, to)
        for result in orders(backend, compute):
            np.testing.assert_array_equal(to_numpy(result), Op(*conv).forward(*whole))


@on_cuda
@pytest.mark.parametrize("to", ["tf32", "bf16"])
@pytest.mark.parametrize("Op", KERNELS)
def test_factors_are_rounded_to_nearest_and_nothing_else_is(backend, Op, to):
    factors = arrays(SMALL)[Op]
    agree(run(backend, KERNELS[Op], Op(*SMALL), factors, to), Op(*SMALL), factors, 72, to)


EVERY_TILE = pytest.mark.parametrize(
    "to, tile",
    [
        pytest.param(to, tile, id=f"{to}-{tile.rows}x{tile.columns}")
        for to, tiles in TILES.items()
        for tile in tiles
    ],
)


@on_cuda
@EVERY_TILE
@pytest.mark.parametrize("Op", KERNELS)
def test_every_tile_gives_the_same_product(backend, Op, to, tile):
    conv = ((1, 1), (1, 1), (1, 6, 5, 64), (2, 3, 64, 32))
    if Op is not Conv2d:
        conv = ((1, 1), (1, 1), (1, 6, 5, 32), (2, 3, 32, 64))
    factors, (M, N, K) = arrays(conv)[Op], sizes(Op, conv)
    with use_plans({(M, N, K, to): Plan(tile, 1, -(-K // DEPTH))}):
        agree(run(backend, KERNELS[Op], Op(*conv), factors, to), Op(*conv), factors, K, to)


@on_cuda
@pytest.mark.parametrize("Op", KERNELS)
def test_a_product_split_into_parts_is_the_same_and_repeats_bit_for_bit(backend, Op):
    conv = ((2, 1), (2, 1), (2, 9, 8, 10), (3, 3, 10, 10))
    factors, (M, N, K) = arrays(conv)[Op], sizes(Op, conv)
    steps = -(-K // 32)
    each = max(1, steps // 2)  # the last part is shorter
    chosen = Plan(TILES["fp32"][-1], -(-steps // each), each)
    assert chosen.parts > 1
    with use_plans({(M, N, K, "fp32"): chosen}):
        results = orders(backend, lambda: to_numpy(run(backend, KERNELS[Op], Op(*conv), factors)))
    agree(backend.asarray(results[0]), Op(*conv), factors, K, parts=chosen.parts)
    for result in results:
        np.testing.assert_array_equal(result, results[0])


@on_cuda
@pytest.mark.parametrize("to", PRECISIONS)
def test_results_do_not_depend_on_the_order_of_threads(backend, to):
    factors = arrays(SMALL)[Conv2d]
    results = orders(
        backend, lambda: to_numpy(run(backend, TiledConv2d, Conv2d(*SMALL), factors, to))
    )
    for result in results:
        np.testing.assert_array_equal(result, results[0])


@on_cuda
@pytest.mark.parametrize("to", ["fp32", "bf16"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("shift", [4, 5])
@pytest.mark.parametrize("Op", KERNELS)
def test_nothing_outside_of_the_arrays_is_read_or_written(backend, Op, shift, parts, to):
    factors, (M, N, K) = arrays(SMALL)[Op], sizes(Op, SMALL)
    xp, role = backend.xp, list(KERNELS).index(Op)

    def inside(shape):
        """A part of a larger array of NaN, shifted by some numbers: aligned to 16 bytes, or not."""
        around = xp.full(math.prod(shape) + 2 * shift, np.nan, np.float32)
        return around, around[shift:-shift].reshape(shape)

    given_ = []
    for factor in factors:
        _, part = inside(factor.shape)
        part[...] = backend.asarray(factor)
        given_.append(part)
    around, z = inside((Op(*SMALL).y_shape, Op(*SMALL).x_shape, Op(*SMALL).w_shape)[role])
    steps = -(-K // 32)
    chosen = Plan(TILES[to][-1], min(parts, steps), -(-steps // parts))
    with use_plans({(M, N, K, to): chosen}):
        products.product(role, SMALL, *given_, z, to)
    agree(z, Op(*SMALL), factors, K, to, parts)
    edges = to_numpy(around)
    assert np.isnan(edges[:shift]).all() and np.isnan(edges[-shift:]).all()


@on_cuda
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("Op", KERNELS)
def test_a_bad_number_shows_where_it_counts_and_nowhere_else(backend, Op, bad):
    a, b = arrays(SMALL)[Op]
    a[0, 1, 2, 3] = bad
    found = to_numpy(run(backend, KERNELS[Op], Op(*SMALL), (a, b)))
    np.testing.assert_array_equal(
        np.isfinite(found), np.isfinite(Op(*SMALL).forward(np.where(np.isinf(a), np.nan, a), b))
    )


@on_cuda
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
def test_the_three_are_adjoint(backend, stride):
    conv = (stride, (0, 1), (2, 5, 4, 8), (3, 2, 8, 4))
    factors = arrays(conv)
    (x, w), c = factors[Conv2d], factors[Conv2dWeightGrad][1]
    y, x_bar, w_bar = (
        to_numpy(run(backend, KERNELS[Op], Op(*conv), factors[Op])).astype(float) for Op in KERNELS
    )
    size = (abs(c) * Conv2d(*conv).forward(abs(x), abs(w))).sum()
    for pair in ((x, x_bar), (w, w_bar)):
        assert abs((c * y).sum() - (pair[0] * pair[1]).sum()) <= 2 * digits("fp32", 64) * size


@on_cuda
def test_the_backward_pass_rounds_as_the_forward_pass_did(backend):
    factors = arrays(SMALL)
    (x, w), c = factors[Conv2d], factors[Conv2dWeightGrad][1]
    kernel = TiledConv2d(Conv2d(*SMALL))
    kernel.needs_input_grad = (True, True)
    with precision("bf16"):
        kernel.forward(backend.asarray(x), backend.asarray(w))
    for _ in range(2):  # a vjp may be asked for twice
        x_bar, w_bar = kernel.vjp(*(backend.asarray(a) for a in (c, c, x, w)))
        agree(x_bar, Conv2dInputGrad(*SMALL), (c, w), 36, "bf16")
        agree(w_bar, Conv2dWeightGrad(*SMALL), (x, c), 20, "bf16")
    kernel.needs_input_grad = (False, True)
    assert kernel.vjp(*(backend.asarray(a) for a in (c, c, x, w)))[0] is None


@on_cuda
def test_arrays_may_lie_in_memory_as_they_like(backend):
    x, w = arrays(SMALL)[Conv2d]
    wide = backend.asarray(np.repeat(x, 2, axis=2))[:, :, ::2]
    turned = backend.asarray(np.ascontiguousarray(w.T)).T
    agree(TiledConv2d(Conv2d(*SMALL)).forward(wide, turned), Conv2d(*SMALL), (x, w), 72)


@on_cuda
def test_second_derivatives_are_those_of_the_definition(backend):
    x, w = arrays(SMALL)[Conv2d]
    v = backend.asarray(np.random.default_rng(1).standard_normal(x.shape).astype(np.float32))

    def twice(mode):
        with kernels(mode):
            leaf, weight = (Tensor(backend.asarray(a), requires_grad=True) for a in (x, w))
            y = ops.conv2d(leaf, weight, padding=1)
            slope = grad((y * y * y).sum(), leaf, create_graph=True)
            return [to_numpy(g.data) for g in grad((slope * v).sum(), [leaf, weight])]

    for fast, reference in zip(twice("always"), twice("reference"), strict=True):
        np.testing.assert_allclose(fast, reference, atol=1e-5 * abs(reference).max())


@pytest.mark.parametrize("Op", KERNELS)
def test_float32_convolutions_run_on_tensor_cores_and_no_others(Op):
    op = Op(*SMALL)
    with on("emulated") as backend:
        a, b = (backend.asarray(f) for f in arrays(SMALL)[Op])
        assert type(find_kernel(op, [a, b])) is KERNELS[Op]
        assert not KERNELS[Op].fits(op, a.astype(np.float64), b.astype(np.float64))
        assert not KERNELS[Op].fits(op, a, b.astype(np.float16))
        assert not KERNELS[Op].fits(op, a[:0], b)
        large = Op((1, 1), (0, 0), (2**12, 2**8, 2**8, 2**4), (1, 1, 2**4, 1))
        assert not KERNELS[Op].fits(large, a, b)


@given(by=st.integers(1, 2**31 - 1), n=st.integers(0, 2**31 - 1))
def test_a_division_by_multiplying_is_exact(by, n):
    _, multiplier, shift = division(by)
    assert multiplier < 2**32
    for k in (n, n // by * by, max(n // by * by - 1, 0)):
        assert k * multiplier >> shift == k // by


def vgg16():
    """(M, N, K) of the products of VGG-16's convolutions, 128 images of 32 × 32 pixels."""
    for C, F, side in [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8),
                       (256, 256, 8), (256, 512, 4), (512, 512, 4), (512, 512, 2)]:  # fmt: skip
        for Op in KERNELS:
            yield sizes(Op, ((1, 1), (1, 1), (128, side, side, C), (3, 3, C, F)))


@pytest.mark.parametrize("to", PRECISIONS)
def test_the_parts_of_every_plan_cover_k_and_keep_half_the_machine_busy(to):
    for M, N, K in [*vgg16(), (1, 1, 1), (5, 3, 100), (10, 10, 10**6)]:
        plan = products.plan(M, N, K, to)
        assert plan.parts * plan.steps * DEPTH >= K
        assert (plan.parts - 1) * plan.steps * DEPTH < K
        if (M, N, K) in vgg16():
            tiles = math.ceil(M / plan.tile.rows) * math.ceil(N / plan.tile.columns)
            assert tiles * plan.parts >= products.H100.multiprocessors // 2


@EVERY_TILE
def test_the_blocks_of_a_tile_fit_into_a_multiprocessor_at_once(to, tile):
    for role in range(3):  # of an H100 or H200: 228 KB, of which each block needs one for itself
        assert tile.blocks * (tile.shared_bytes(role, to) + 1024) <= 228 * 1024
    assert tile.blocks * tile.warps <= 64
