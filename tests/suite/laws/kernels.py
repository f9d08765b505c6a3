"""The law of kernels: a kernel computes what its op's definition computes.

The tolerance is relative to the definition's condition: `size` is the change of its results for a
unit relative change of each input, of random sign (by a small one, scaled up). Kernels are within
1e-12 of `size` in float64 and 2e-5 in float32. (For a convolution `size` is about conv(|x|, |w|).)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from minibn import grad, ops
from minibn.autograd.dispatch import kernels
from minibn.backend import Backend, to_numpy
from minibn.fast.cpu.fused_block import FusedBlockKernel
from minibn.fast.cpu.kernel_list import KERNELS
from minibn.fast.fused_ops import FusedBlock, FusedConvBlock
from minibn.ops.batch_normalization import BatchNorm
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.layer_normalization import LayerNorm, RmsNorm
from minibn.ops.linalg import MatMul
from minibn.ops.loss import SoftmaxCrossEntropy
from minibn.ops.lp_normalization import LpBatchNorm
from minibn.ops.pool import MaxPool2d
from minibn.ops.reduce import Sum
from minibn.testing.laws.agreement import leaves_of
from minibn.testing.problem import Problem
from minibn.testing.strategies import conv2d_problems, pool_problems
from suite.laws.faults import Fault, add_faults, scaled
from suite.laws.row_law import law, points_of

# The rows of the registry in which an op runs that may have a kernel, on a CPU or by CUDA.
ROWS: dict[type, tuple[str, ...]] = {
    BatchNorm: ("batch_norm", "nn.BatchNorm", "nn.NoisyBatchNorm", "nn.Sequential"),
    Conv2d: ("conv2d", "nn.Conv2d", "nn.Sequential", "nn.WSConv2d"),
    Conv2dInputGrad: ("conv2d",),
    Conv2dWeightGrad: ("conv2d",),
    FusedConvBlock: ("fused_block",),
    FusedBlock: ("fused_block",),
    LayerNorm: (
        "group_norm", "instance_norm", "layer_norm", "nn.GroupNorm", "nn.InstanceNorm",
        "nn.LayerNorm",
    ),
    LpBatchNorm: (
        "lp_batch_norm, p=1", "lp_batch_norm, p=2", "lp_batch_norm, p=inf", "nn.LpBatchNorm",
    ),
    MatMul: ("matmul", "nn.Linear", "nn.Sequential", "nn.WSLinear"),
    MaxPool2d: ("max_pool2d", "nn.MaxPool2d"),
    RmsNorm: ("rms_norm", "nn.RMSNorm"),
    SoftmaxCrossEntropy: ("softmax_cross_entropy",),
    Sum: ("sum", "mean"),
}  # fmt: skip


def rows_of(definition: type) -> tuple[str, ...]:
    """The rows of the registry in which a definition runs that may have a kernel."""
    return ROWS.get(definition, ())


FAST = tuple(sorted({row for op in KERNELS for row in rows_of(op)}))  # those in which one has
ALLOWED = {np.float64: 1e-12, np.float32: 2e-5}
STEP = 1e-6


def fast_points(case: str) -> st.SearchStrategy[Problem]:
    """The row's problems; of convolution and pooling, every other one as networks have it."""
    usual = {
        "conv2d": conv2d_problems("beyond", most=6, kernel=3, stride=1),
        "max_pool2d": pool_problems(padding=False, size=2, stride=2),
    }
    if case not in usual:
        return points_of(case)
    return points_of(case) | usual[case].map(lambda point: point.problem(getattr(ops, case)))


def results(
    problem: Problem, inputs: Sequence[np.ndarray], along: Sequence[np.ndarray], backend: Backend
) -> list[np.ndarray]:
    """Value, gradients, gradients of ⟨gradients, along⟩. The last input is the cotangent."""
    *leaves, c = leaves_of(inputs, backend)
    y = problem.f(*leaves)
    first = grad(y, leaves, c.data, unused="zeros")
    slopes = grad((problem.f(*leaves) * c).sum(), leaves, create_graph=True, unused="zeros")
    total = sum((g * backend.asarray(v)).sum() for g, v in zip(slopes, along, strict=True))
    second = grad(total, [*leaves, c], unused="zeros")
    return [to_numpy(r) for r in (y, *first, *second)]


@law(
    "kernels",
    "A kernel gives what its op's definition gives, in value and two derivatives, up to rounding.",
    over=FAST,
    draw=fast_points,
    devices=False,
)
def kernels_agree_with_definitions(problem: Problem, backend: Backend) -> None:
    rng, c = problem.rng(), problem.cotangent()
    along = [rng.standard_normal(x.shape).astype(np.float32) for x in problem.inputs]
    for dtype, allowed in ALLOWED.items():
        given = [x.astype(dtype) for x in (*problem.inputs, c)]
        wide = [x.astype(np.float64) for x in given]
        with kernels("reference"):
            expected = results(problem, wide, along, backend)
            moved = [
                results(
                    problem,
                    [x * (1 + STEP * rng.choice([-1.0, 1.0], x.shape)) for x in wide],
                    along,
                    backend,
                )
                for _ in range(3)
            ]
        with kernels("always"):
            actual = results(problem, given, along, backend)
        for i, (ours, exact, *others) in enumerate(zip(actual, expected, *moved, strict=True)):
            changes = [np.abs(other - exact).max(initial=0) / STEP for other in others]
            size = max(np.abs(exact).max(initial=0), *changes)
            error = np.abs(ours - exact).max(initial=0)
            assert ours.dtype == dtype, f"result {i} is {ours.dtype}, not {np.dtype(dtype).name}"
            assert error <= allowed * size, (
                f"{np.dtype(dtype).name}, {name_of_result(i, len(along))}: "
                f"off by {error:.1e} of {size:.1e}"
            )


def compare_on(backend: Backend, row: str, examples: int) -> None:
    """The law on `row` and `backend`, also for CUDA kernels; raises AssertionError."""
    replace(kernels_agree_with_definitions, over=(row,)).run(row, examples, backend)


def name_of_result(i: int, inputs: int) -> str:
    if i == 0:
        return "the value"
    order, position = ("first", i - 1) if i <= inputs else ("second", i - 1 - inputs)
    return f"the {order} derivative, input {position}"


# -- faults


add_faults(
    kernels_agree_with_definitions=Fault(
        "fused_block",
        patch=(FusedBlockKernel, "forward", scaled(FusedBlockKernel.forward, 1.0001)),
    ),
)
