"""Noise that an fused_block's CUDA kernel draws: the host's, forward and back."""

import numpy as np
import pytest
from support.cuda import on_cuda
from support.fused_blocks import DRAWS, Problem

from minibn import Tensor, nn, ops
from minibn.autograd.dispatch import kernels
from minibn.backend import to_numpy
from minibn.fast.cuda.fused_block import DRAWN, FusedBlockKernel
from minibn.fast.cuda.scalars import Scalars, use_scalars
from minibn.fast.fused_ops import FusedBlock
from minibn.random import NoiseDraws


@on_cuda
@pytest.mark.parametrize("pool", [0, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_drawn_in_the_kernel_is_the_hosts(backend, dtype, pool):
    shape = (6, 4, 4, 12)
    for value, difference in ((0.0, 0), (1.0, 4)):  # m, and m + s
        x = backend.asarray(np.full(shape, value), dtype=dtype)
        kernel = FusedBlockKernel(FusedBlock(None, DRAWS, False, pool))
        found = to_numpy(kernel.forward(x))
        assert kernel.kind == DRAWN
        s, m = DRAWS(np.full(shape, value, dtype))
        expected = s * dtype(value) + m
        expected = ops.max_pool2d(expected, 2) if pool else expected
        assert (abs(found - expected) <= difference * np.spacing(abs(expected) + 1)).all()


@on_cuda
@pytest.mark.parametrize("pool", [0, 2])
def test_the_tick_is_added_to_the_step_forward_and_back(backend, pool):
    given = Scalars(backend.xp)
    given.tick += 4
    problem = Problem(8, (2, 4, 4, 8), "norm", "draws", True, pool)
    with use_scalars(given):
        moved = problem.by_kernel(backend, np.float64)[1]

    def at(step):
        op = FusedBlock(1e-3, NoiseDraws(DRAWS.key, step, 0.5, 1.25, 0.1, 0.1), True, pool)
        op.needs_input_grad = (True,) * 3
        with kernels("reference"):
            y = op.forward(problem.x, *problem.affine)
            return [y, *op.vjp(problem.g, y, problem.x, *problem.affine)]

    for ours, right, other in zip(moved, at(7), at(3), strict=True):
        np.testing.assert_allclose(to_numpy(ours), right, rtol=1e-9, atol=1e-9)
        assert np.abs(right - other).max() > 1e-3


@on_cuda
def test_layers_in_a_run_draw_in_the_kernel_and_agree_with_the_layers_one_by_one(backend):
    def results(mode):
        net = nn.Sequential(
            norm=nn.BatchNorm(8), noise=nn.Noise(r_is_variance=True), relu=nn.ReLU(),
            pool=nn.MaxPool2d(),
        ).initialize(0)  # fmt: skip
        x = np.random.default_rng(0).standard_normal((4, 4, 4, 8)).astype(np.float32)
        leaf = Tensor(backend.asarray(x), requires_grad=True)
        with kernels(mode):
            y = net(leaf)
            (y * y).sum().backward()
        return [to_numpy(a) for a in (y, leaf.grad, net.norm.gamma.grad, net.norm.running_var.data)]

    for ours, right in zip(results("fast"), results("reference"), strict=True):
        np.testing.assert_allclose(ours, right, rtol=2e-4, atol=2e-4)
