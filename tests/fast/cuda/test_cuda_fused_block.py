"""Norm or bias, noise, ReLU and pooling as CUDA kernels, against the ops one after another."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suite.registry.fused_blocks import AFFINE
from support.cuda import on_cuda, orders
from support.fused_blocks import CHANNELS, DRAWS, NOISES, Problem, same

from minibn import Tensor, grad, ops
from minibn.autograd.dispatch import find_kernel, kernels
from minibn.backend import to_numpy
from minibn.backend.strict import count_transfers
from minibn.fast.cuda.fused_block import FusedBlockKernel
from minibn.fast.fused_ops import FusedBlock, fused_block
from minibn.testing.commands.profiles import share


@on_cuda
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", AFFINE)
def test_every_combination_agrees_with_the_ops_one_after_another(backend, kind, noise, dtype):
    for relu, pool in itertools.product((False, True), (0, 2)):
        for shape in ((2, 4, 6, 8), (3, 2, 4, 3)):
            Problem(1, shape, kind, noise, relu, pool).check(backend, dtype)


@on_cuda
@settings(max_examples=share(25))
@given(
    seed=st.integers(0, 2**32),
    lead=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    C=st.sampled_from(CHANNELS),
    kind=st.sampled_from(AFFINE),
    noise=st.sampled_from(NOISES),
    relu=st.booleans(),
    pool=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_drawn_shapes_agree_too(backend, seed, lead, C, kind, noise, relu, pool, dtype):
    pool = pool and len(lead) == 3
    if pool:
        lead = [lead[0], *(2 * (1 + n // 3) for n in lead[1:])]
    if np.prod(lead) < 3:
        lead[0] = 3
    Problem(seed, (*lead, C), kind, noise, relu, 2 * pool).check(backend, dtype)


@on_cuda
@pytest.mark.parametrize(
    "shape",
    [(40, 1028), (300, 260), (2100, 8), (1030, 3), (600, 12)],
    ids=["many channels", "channels in one step", "many rows", "odd rows", "chunks with a rest"],
)
def test_activations_of_many_blocks_agree(backend, shape):
    Problem(2, shape, "norm", "draws").check(backend, np.float32)


@on_cuda
@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("pool", [0, 2])
def test_threads_in_any_order_give_the_same_bits(backend, kind, noise, pool):
    for shape in ((2, 4, 6, 8), (3, 2, 4, 3)):
        problem = Problem(3, shape, kind, noise, True, pool)

        def compute(problem=problem):
            return [to_numpy(a) for a in problem.by_kernel(backend, np.float32)[1]]

        first, *others = orders(backend, compute)
        for other in others:
            same(other, first)


@on_cuda
def test_nothing_waits_for_the_device(backend):
    problem = Problem(4, (2, 4, 4, 8), "norm", "draws", True, 2)
    leaves = [Tensor(backend.asarray(a), requires_grad=True) for a in (problem.x, *problem.affine)]
    g = backend.asarray(problem.g)
    with count_transfers() as count:
        y = fused_block(*leaves, eps=1e-3, noise=DRAWS, relu=True, pool=2)
        assert isinstance(y.node.kernel, FusedBlockKernel)
        grad(y, leaves, g)
    assert count.n == 0, count.names


@on_cuda
@pytest.mark.parametrize(
    "kind, wants", [("norm", (0, 1, 1)), ("shift", (0, 1)), ("norm", (1, 0, 0))]
)
@pytest.mark.parametrize("noise", NOISES)
def test_an_input_gradient_that_nobody_wants_is_not_made(backend, kind, wants, noise):
    problem = Problem(5, (2, 4, 4, 8), kind, noise, True, 2)
    _, (_, *full) = problem.by_kernel(backend, np.float32)
    _, (_, *found) = problem.by_kernel(backend, np.float32, tuple(map(bool, wants)))
    for a, b, wanted in zip(found, full, wants, strict=True):
        if wanted:
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    assert wants[0] or found[0] is None


@on_cuda
def test_views_with_gaps_and_odd_addresses_agree(backend):
    problem = Problem(6, (4, 4, 4, 8), "norm", "none", True, 2)
    kernel = FusedBlockKernel(problem.op())
    kernel.needs_input_grad = (True,) * 3
    x, g = (backend.asarray(a, dtype=np.float32) for a in (problem.x, problem.g))
    affine = [backend.asarray(a, dtype=np.float32) for a in problem.affine]
    expected = [to_numpy(a) for a in problem.by_kernel(backend, np.float32)[1]]
    for odd in (lambda a: backend.xp.stack([a, a], axis=-1)[..., 0], lambda a: shifted(backend, a)):
        y = kernel.forward(odd(x), *map(odd, affine))
        same(map(to_numpy, (y, *kernel.vjp(odd(g), y, odd(x), *affine))), expected)


def shifted(backend, a):
    """The same values one place further on in memory."""
    flat = backend.xp.empty(a.size + 1, a.dtype)
    flat[1:] = a.reshape(-1)
    return flat[1:].reshape(a.shape)


# -- behind the ops


@on_cuda
@pytest.mark.parametrize("shape", [(7, 3), (3, 4, 5, 8), (2, 2, 2, 1)])
def test_batch_norm_by_itself_is_the_op(backend, shape):
    problem = Problem(9, shape, relu=False)
    given = [backend.asarray(a) for a in (problem.x, *problem.affine)]
    results = []
    for mode in ("fast", "reference"):
        with kernels(mode):
            leaves = [Tensor(a, requires_grad=True) for a in given]
            y, mean, var = ops.batch_norm(*leaves, eps=1e-3, return_moments=True)
            assert isinstance(y.node.kernel, FusedBlockKernel) == (mode == "fast")
            slopes = grad(y, leaves, backend.asarray(problem.g))
            results.append([to_numpy(a) for a in (y, mean, var, *slopes)])
    for ours, right in zip(*results, strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-11, atol=1e-11)


@on_cuda
def test_a_second_pull_back_gives_the_same(backend):
    problem = Problem(10, (2, 4, 4, 8), "norm", "draws", True, 2)
    leaves = [Tensor(backend.asarray(a), requires_grad=True) for a in (problem.x, *problem.affine)]
    y = fused_block(*leaves, eps=1e-3, noise=DRAWS, relu=True, pool=2)
    g = backend.asarray(problem.g)
    first = [to_numpy(s) for s in grad(y, leaves, g, retain_graph=True)]
    same(first, [to_numpy(s) for s in grad(y, leaves, g)])


@on_cuda
@pytest.mark.parametrize(
    "shape, settings, dtypes",
    [
        ((2, 5, 4, 3), {"relu": True, "pool": 2}, "ddd"),
        ((2, 6, 6, 3), {"relu": True, "pool": 3}, "ddd"),
        ((4, 3), {"relu": True}, "dff"),
        ((4, 3), {"relu": True}, "eee"),
        ((4, 3), {"relu": True}, "DDD"),
        ((0, 3), {"relu": True}, "ddd"),
    ],
    ids=str,
)
def test_odd_images_other_pools_and_dtypes_get_the_ops_themselves(backend, shape, settings, dtypes):
    rng = np.random.default_rng(0)
    x, scale, shift = (
        backend.asarray(rng.standard_normal(s), dtype=d)
        for s, d in zip((shape, 3, 3), dtypes, strict=True)
    )
    op = FusedBlock(None, None, settings.get("relu", False), settings.get("pool", 0))
    assert find_kernel(op, [x, scale, shift]) is None
    y = fused_block(x, scale, shift, **settings)
    with kernels("reference"):
        np.testing.assert_array_equal(to_numpy(y), to_numpy(op.compose(x, scale, shift)))
