"""FusedBlocks by CUDA kernels: digits under large means, ties, and numbers that are none."""

import numpy as np
import pytest
from support.cuda import on_cuda
from support.fused_blocks import Problem, same

from minibn import Tensor, grad
from minibn.autograd.dispatch import kernels
from minibn.backend import to_numpy
from minibn.fast.cuda.fused_block import FusedBlockKernel
from minibn.fast.fused_ops import fused_block
from minibn.ops.batch_normalization import BatchNorm

# -- digits


@on_cuda
@pytest.mark.parametrize("noise", ["none", "draws"])
def test_a_large_offset_costs_no_more_digits_than_the_definition_loses(backend, noise):
    problem = Problem(7, (8, 8, 8, 4), "norm", noise, False, 0, offset=1e3)
    problem.x = problem.x.astype(np.float32).astype(np.float64)
    exact = problem.by_definition()
    _, found = problem.by_kernel(backend, np.float32)
    op = problem.op()
    op.needs_input_grad = (True,) * 3
    single = [a.astype(np.float32) for a in (problem.x, *problem.affine)]
    with kernels("reference"):
        y = op.forward(*single)
        definition = [y, *op.vjp(problem.g.astype(np.float32), y, *single)]
    for ours, theirs, right, size in zip(found, definition, exact, problem.sizes(), strict=True):
        error, allowed = (np.abs(a - right).max() for a in (to_numpy(ours), theirs))
        assert error <= max(allowed, 1e-6 * size)


@on_cuda
@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
def test_moments_keep_their_digits_under_a_large_mean(backend, mean):
    x = (np.random.default_rng(0).standard_normal((3000, 3)) + mean).astype(np.float32)
    op = BatchNorm(1e-5)
    ones = backend.asarray(np.ones(3, np.float32))
    FusedBlockKernel(op).forward(backend.asarray(x), ones, ones)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(to_numpy(op.mean), wide.mean(0), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(to_numpy(op.var), wide.var(0), rtol=2e-6)


@on_cuda
def test_gradients_keep_their_digits_under_a_large_mean(backend):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2000, 4)) + 1e3).astype(np.float32)
    x_hat = (x - x.mean(0, np.float64)) / x.std(0, dtype=np.float64)
    g = (1 + x_hat + rng.standard_normal(x.shape)).astype(np.float32)  # both sums are large
    problem = Problem(0, (2, 4), relu=False)
    problem.x, problem.g, problem.affine = (
        x.astype(np.float64),
        g.astype(np.float64),
        [np.ones(4)] * 2,
    )
    y, dx, *sums = (to_numpy(a) for a in problem.by_kernel(backend, np.float32)[1])
    exact_y, exact_dx, *exact_sums = problem.by_definition()
    np.testing.assert_allclose(y, exact_y, rtol=0, atol=2e-6)
    np.testing.assert_allclose(dx, exact_dx, rtol=0, atol=4e-6)
    np.testing.assert_allclose(sums, exact_sums, rtol=2e-6)


@on_cuda
def test_a_first_row_far_from_the_others_costs_the_variance_no_digits(backend):
    x = np.random.default_rng(0).standard_normal((4000, 4)).astype(np.float32)
    x[0] = 100
    op = BatchNorm(1e-5)
    ones = backend.asarray(np.ones(4, np.float32))
    FusedBlockKernel(op).forward(backend.asarray(x), ones, ones)
    np.testing.assert_allclose(to_numpy(op.var), x.astype(np.float64).var(0), rtol=2e-6)


@on_cuda
def test_a_constant_channel_has_variance_zero_and_finite_gradients(backend):
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    x[:, 1] = 1234.567
    leaves = [Tensor(backend.asarray(a), requires_grad=True) for a in (x, *np.ones((2, 3), "f"))]
    y, _, var = fused_block(*leaves, eps=1e-5, return_moments=True)
    assert to_numpy(var)[1] == 0
    np.testing.assert_array_equal(to_numpy(y)[:, 1], 1)
    assert all(np.isfinite(to_numpy(s)).all() for s in grad(y, leaves, y.data))


# -- kinks and bad numbers


@on_cuda
def test_ties_in_windows_go_to_the_first_and_zeros_to_nobody(backend):
    x = np.zeros((2, 2, 2, 3))
    x[0, :, :, 0] = [[1, 1], [1, 1]]
    x[0, :, :, 1] = [[-1, 2], [2, 0]]
    x[0, :, :, 2] = [[-1, -1], [-2, 3]]
    x[1, :, :, 0] = [[-1, -2], [-1, -2]]
    x[1, :, :, 1] = [[0, 0], [4, 4]]
    problem = Problem(0, x.shape, "nothing", pool=2)
    problem.x, problem.g = x, 1 + np.arange(6.0).reshape(2, 1, 1, 3)
    y, dx = (to_numpy(a) for a in problem.by_kernel(backend, np.float64)[1])
    np.testing.assert_array_equal(y[:, 0, 0], [[1, 2, 3], [0, 4, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 1], [[0, 2], [0, 0]])
    np.testing.assert_array_equal(dx[0, :, :, 2], [[0, 0], [0, 3]])
    np.testing.assert_array_equal(dx[1, :, :, 0], np.zeros((2, 2)))
    np.testing.assert_array_equal(dx[1, :, :, 1], [[0, 0], [5, 0]])
    same((y, dx), problem.by_definition())


@on_cuda
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["norm", "scale and shift"])
@pytest.mark.parametrize("pool", [0, 2])
def test_a_bad_number_stays_in_its_channel_and_is_bad_where_it_is_in_the_definition(
    backend, bad, kind, pool
):
    problem = Problem(5, (4, 4, 4, 3), kind, pool=pool)
    right = [to_numpy(a) for a in problem.by_kernel(backend, np.float64)[1]]
    problem.x[1, 2, 3, 1] = bad
    with np.errstate(all="ignore"):
        expected = problem.by_definition()
    found = [to_numpy(a) for a in problem.by_kernel(backend, np.float64)[1]]
    for i, (ours, before, theirs) in enumerate(zip(found, right, expected, strict=True)):
        np.testing.assert_array_equal(ours[..., [0, 2]], before[..., [0, 2]])
        if i != 2:  # a pixel without cotangent adds nothing to the scale's gradient, 0 · inf or not
            np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs), f"result {i}")


@on_cuda
@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("pool", [0, 2])
def test_an_infinite_cotangent_stays_in_its_window(backend, bad, pool):
    problem = Problem(6, (2, 4, 4, 2), "shift", pool=pool)
    problem.g[0, 0, 0, 0] = bad
    problem.g[1, 1, 0, 1] = -bad
    with np.errstate(invalid="ignore"):
        expected = problem.by_definition()[1]
    found = to_numpy(problem.by_kernel(backend, np.float64)[1][1])
    windows = np.isfinite(found).reshape(2, 2, 2, 2, 2, 2).all((2, 4))
    there = np.isfinite(expected).reshape(2, 2, 2, 2, 2, 2).all((2, 4))
    np.testing.assert_array_equal(windows, there)
