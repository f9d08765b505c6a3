"""Every op and every layer computes on a GPU what it computes on NumPy.

Value, gradients and second derivatives, at points drawn by the rows of the registry, in both
precisions, with CUDA kernels wherever one fits and (on CuPy) without any. On machines without a GPU
the rows run in which an op has a CUDA kernel, by the emulator.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from suite.laws.kernels import STEP, fast_points, name_of_result, results, rows_of
from suite.laws.row_law import ANYTHING, LAWS
from support.cuda import AGREE, ROWS_WITH_KERNELS, on

from minibn import Op
from minibn.autograd.dispatch import kernels
from minibn.backend import get_backend, use
from minibn.fast.cuda.kernel_list import KERNELS
from minibn.testing.commands.profiles import share
from minibn.testing.problem import Problem

PAIRS = [
    *(("emulated", row) for row in ROWS_WITH_KERNELS),
    *(pytest.param("cupy", row, marks=pytest.mark.gpu) for row in ANYTHING),
]
MODES = {"emulated": ["always"], "cupy": ["always", "reference"]}


def off(problem: Problem, dtype, backend, mode: str) -> list[tuple[str, float]]:
    """What there is to compare, with its error: relative to its largest entry, or to the change
    that moving each input by one part in itself makes, as in the law of kernels."""
    rng, numpy = problem.rng(), get_backend("numpy")
    given = [x.astype(dtype) for x in (*problem.inputs, problem.cotangent())]
    along = [rng.standard_normal(x.shape).astype(np.float32) for x in problem.inputs]
    with kernels("reference"), use("numpy"):
        expected = results(problem, given, along, numpy)
        wide = [x.astype(np.float64) for x in given]
        exact = results(problem, wide, along, numpy)
        shaken = [x * (1 + STEP * rng.choice([-1.0, 1.0], x.shape)) for x in wide]
        moved = results(problem, shaken, along, numpy)
    with kernels(mode):
        found = results(problem, given, along, backend)
    errors = []
    for i, (ours, theirs, y, there) in enumerate(zip(found, expected, exact, moved, strict=True)):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name_of_result(
            i, len(along)
        )
        size = max(np.abs(y).max(initial=0), np.abs(there - y).max(initial=0) / STEP)
        error = np.abs(ours - theirs).max(initial=0)
        errors.append((name_of_result(i, len(along)), float(error / size) if error else 0.0))
    return errors


@pytest.mark.parametrize("dtype", AGREE)
@pytest.mark.parametrize("name, row", PAIRS)
def test_a_gpu_computes_what_numpy_computes(name, row, dtype):
    with on(name) as backend:

        @settings(max_examples=share(2 if name == "emulated" else 6))
        @given(fast_points(row))
        def check(problem):
            for mode in MODES[name]:
                for what, error in off(problem, dtype, backend, mode):
                    assert error <= AGREE[dtype], f"{what}, kernels {mode}: off by {error:.1e}"

        check()


# -- with CUDA kernels in the ops' places, the laws hold

BESIDE = [
    (law, row)
    for law in LAWS.values()
    if law.devices and law.group != "kernels"
    for row in law.over
    if row in ROWS_WITH_KERNELS
]


@pytest.mark.gpu
@pytest.mark.parametrize("law, row", BESIDE, ids=[f"{law.name}-{row}" for law, row in BESIDE])
def test_a_law_holds_with_cuda_kernels(law, row):
    with on("cupy") as backend, kernels("always"):
        law.run(row, examples=share(4), backend=backend)


@pytest.mark.parametrize("row", ROWS_WITH_KERNELS)
def test_the_laws_hold_with_cuda_kernels_on_the_emulator(row):
    with on("emulated") as backend, kernels("always"):
        for law in (law for law, other in BESIDE if other == row and not law.generic):
            law.run(row, examples=1, backend=backend, shrink=False)


def test_every_op_that_has_a_cuda_kernel_names_its_rows():
    lacking = [
        op.__name__
        for op in KERNELS
        if isinstance(op, type) and issubclass(op, Op) and not rows_of(op)
    ]
    assert lacking == [], "name them in laws/kernels.py or in tests/support/cuda.py"


def test_an_error_in_the_last_digits_allowed_would_show():
    """A kernel that is off by ten times what is allowed fails."""
    problem = Problem(lambda x: x * 1.0, (np.array([1.0, 2.0, 3.0]),))
    with on("emulated") as backend:
        for dtype, allowed in AGREE.items():
            wrong = Problem(
                lambda x, by=10 * allowed: x * (1.0 if isinstance(x.data, np.ndarray) else 1 + by),
                problem.inputs,
            )
            assert max(error for _, error in off(problem, dtype, backend, "always")) == 0
            assert max(error for _, error in off(wrong, dtype, backend, "always")) > allowed
