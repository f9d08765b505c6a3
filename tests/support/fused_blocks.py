"""FusedBlocks (norm or bias, noise, ReLU, pooling) by CUDA kernels, beside their definition."""

import numpy as np
import pytest
from suite.registry.fused_blocks import apart, undo

from minibn import ops
from minibn.autograd.dispatch import kernels
from minibn.backend import to_numpy
from minibn.fast.cuda.fused_block import FusedBlockKernel
from minibn.fast.fused_ops import FusedBlock
from minibn.random import NoiseDraws

TOLERANCE = {np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-12}
CHANNELS = (1, 3, 8, 10, 64, 130)
DRAWS = NoiseDraws(0xB0A7 << 90, 3, 0.5, 1.25, 0.1, 0.1)
NOISES = ("none", "arrays", "draws")


class Problem:
    """An fused_block with inputs in float64, away from its kinks, and a cotangent."""

    def __init__(self, seed, shape, kind="norm", noise="none", relu=True, pool=0, offset=0.0):
        rng = np.random.default_rng(seed)
        z = apart(rng, shape, "normal")
        drawn = None if noise == "none" else DRAWS(z)
        self.eps, self.relu, self.pool = 1e-3 if kind == "norm" else None, relu, pool
        x, *self.affine = undo(z, rng, kind, drawn, self.eps or 0)
        self.noise, self.x = noise, x + offset
        y = ops.max_pool2d(z, pool) if pool else z
        self.g = rng.standard_normal(y.shape)

    def op(self):
        noise = {"none": None, "draws": DRAWS, "arrays": lambda x: DRAWS(x)}[self.noise]
        return FusedBlock(self.eps, noise, self.relu, self.pool)

    def by_kernel(self, backend, dtype, wants=None, poison=True):
        """(kernel, [value, *gradients]); what is not written shows as NaN."""
        inputs = [backend.asarray(a, dtype=dtype) for a in (self.x, *self.affine)]
        op, g = self.op(), backend.asarray(self.g, dtype=dtype)
        assert FusedBlockKernel.fits(op, *inputs)
        kernel = FusedBlockKernel(op)
        kernel.needs_input_grad = wants or (True,) * len(inputs)
        with poisoned(backend):
            y = kernel.forward(*inputs)
            return kernel, [y, *kernel.vjp(g, y, *inputs)]

    def by_definition(self):
        op, inputs = self.op(), (self.x, *self.affine)
        op.needs_input_grad = (True,) * len(inputs)
        with kernels("reference"):
            y = op.forward(*inputs)
            return [y, *op.vjp(self.g, y, *inputs)]

    def sizes(self):
        """What each result is made of, in size: the value, x̄, and each vector's gradient."""
        (_, *affine), rows = (self.x, *self.affine), self.x.reshape(-1, self.x.shape[-1])
        scale, reach = 1.0, np.abs(rows).max()
        if self.eps is not None:
            sigma = np.sqrt(rows.var(0) + self.eps)
            reach = (np.abs(rows - rows.mean(0)) / sigma).max()
            scale = (np.abs(affine[0]) / sigma).max()
            value = (np.abs(affine[0]) * reach + np.abs(affine[1])).max()
        else:
            scale = np.abs(affine[0]).max() if len(affine) == 2 else 1.0
            value = scale * reach + max([np.abs(a).max() for a in affine], default=0)
        factor = 1 if self.noise == "none" else 2
        g = np.abs(self.g).max() * factor
        through = g * scale * (1 + reach**2 if self.eps is not None else 1)
        sums = [g * len(rows) * reach, g * len(rows)]
        return [factor * value + 1, through, *sums[2 - len(affine) :]]

    def check(self, backend, dtype):
        kernel, found = self.by_kernel(backend, dtype)
        expected = self.by_definition()
        for i, (a, b, size) in enumerate(zip(found, expected, self.sizes(), strict=True)):
            assert a.dtype == dtype and a.shape == b.shape, i
            error = np.abs(to_numpy(a) - b).max() / size
            assert error <= TOLERANCE[np.dtype(dtype)], f"result {i}: {error:.1e} of {size:.1e}"
        return kernel


class poisoned:
    """Inside, `xp.empty` of the backend gives NaN, so that what no thread writes shows."""

    def __init__(self, backend):
        self.xp, self.patch = backend.xp, pytest.MonkeyPatch()

    def __enter__(self):
        def empty(shape, dtype=np.float64):
            return self.xp.full(shape, np.nan, dtype)

        self.patch.setattr(self.xp, "empty", empty)

    def __exit__(self, *error):
        self.patch.undo()


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
