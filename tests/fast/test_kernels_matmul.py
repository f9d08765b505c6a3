"""Matrix products on our own threads against their definition."""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import Tensor, grad, ops
from minibn.autograd.dispatch import find_kernel, kernels
from minibn.fast.cpu import matmul, memory, threads
from minibn.fast.cpu.matmul import ThreadedMatMul
from minibn.ops.linalg import MatMul
from minibn.testing.strategies import LAYOUTS

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
TRANSPOSED = {"transposed": lambda a: np.ascontiguousarray(a.T).T}


@contextmanager
def shared(count=2, least=0):
    """From `least` multiplications on, among so many threads."""
    with patch.object(matmul, "SHARED", least), threads.limit_threads(count):
        yield


def drawn(M, K, N, dtype="float64", seed=0):
    """a (M, K), b (K, N) and a cotangent of their product."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((M, K), (K, N), (M, N))]


def by_kernel(a, b, g, wants=(True, True)):
    kernel = ThreadedMatMul(MatMul())
    assert kernel.fits(kernel.op, a, b)
    kernel.needs_input_grad = wants
    z = kernel.forward(a, b)
    return z, *kernel.vjp(g, z, a, b)


def check(found, a, b, g):
    exact, sizes = ([x.astype(float) for x in (a, b, g)], [abs(x) for x in (a, b, g)])
    for ours, right, size in zip(found, in_full(*exact), in_full(*sizes), strict=True):
        assert (ours.shape, ours.dtype) == (right.shape, a.dtype)
        scale = size.max(initial=0)
        assert abs(ours - right).max(initial=0) <= TOLERANCE[a.dtype.name] * scale


def in_full(a, b, g):
    return a @ b, g @ b.T, a.T @ g


sides = st.sampled_from([0, 1, 2, 5, 15, 16, 17, 33, 70])


@given(
    sizes=st.tuples(sides, sides, sides),
    dtype=st.sampled_from(["float32", "float64"]),
    count=st.integers(1, 3),
    least=st.sampled_from([0, 5000, 1 << 23]),
    seed=st.integers(0, 2**32),
)
def test_any_size_and_number_of_threads_agrees(sizes, dtype, count, least, seed):
    problem = drawn(*sizes, dtype, seed)
    with shared(count, least):
        found = by_kernel(*problem)
        check(found, *problem)
        for a, b in zip(found, by_kernel(*problem), strict=True):
            np.testing.assert_array_equal(a, b, "a run repeats bit for bit")


@pytest.mark.parametrize("layout", LAYOUTS | TRANSPOSED)
def test_the_layout_of_operands_and_cotangent_changes_nothing(layout):
    problem = [(LAYOUTS | TRANSPOSED)[layout](a) for a in drawn(40, 20, 33)]
    with shared():
        check(by_kernel(*problem), *problem)


def test_strides_of_zero_change_nothing():
    a, b, g = drawn(40, 20, 33)
    g = np.broadcast_to(0.5, g.shape)
    with shared():
        check(by_kernel(a, b, g), a, b, g)


def test_every_row_is_written_once_and_operands_are_not():
    problem = drawn(50, 20, 33)
    before = [a.copy() for a in problem]
    for a in problem:
        a.flags.writeable = False
    with shared(3), patch.object(memory, "empty", lambda shape, dtype: np.full(shape, np.nan)):
        check(by_kernel(*problem), *problem)
    for a, b in zip(problem, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wants", [(True, False), (False, True)])
def test_only_the_gradients_that_are_wanted_are_computed(wants):
    problem = drawn(40, 20, 33)
    with shared():
        everything, found = by_kernel(*problem), by_kernel(*problem, wants=wants)
    for ours, right, wanted in zip(found[1:], everything[1:], wants, strict=True):
        np.testing.assert_array_equal(ours, right if wanted else None)


def test_stacks_of_matrices_and_other_dtypes_are_left_to_the_definition():
    a, b, _ = drawn(3, 4, 5)
    with kernels("always"):
        assert type(find_kernel(MatMul(), [a, b])) is ThreadedMatMul
        assert find_kernel(MatMul(), [a[None], b]) is None
        assert find_kernel(MatMul(), [a, b[None]]) is None
        for dtypes in ("df", "ee", "DD", "ii", "gg"):
            assert (
                find_kernel(MatMul(), [x.astype(d) for x, d in zip((a, b), dtypes, strict=True)])
                is None
            )
    assert find_kernel(MatMul(), [a, b]) is None, "it does not pay"
    a, b, _ = drawn(128, 512, 512, "float32")
    assert type(find_kernel(MatMul(), [a, b])) is ThreadedMatMul


@pytest.mark.parametrize("order", ["<", ">"])
def test_results_of_any_byte_order_are_in_the_machines(order):
    a, b, _ = (x.astype(order + "f4") for x in drawn(40, 20, 33))
    with kernels("always"), shared():
        leaves = [Tensor(x, requires_grad=True) for x in (a, b)]
        z = ops.matmul(*leaves)
        assert z.dtype.isnative
        np.testing.assert_allclose(z.data, a @ b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shapes", [((40, 7), (7, 9)), ((7,), (7, 9)), ((40, 7), (7,))], ids=str)
def test_matrices_and_vectors_have_the_derivatives_of_the_definition(shapes):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape) for shape in shapes]
    results = []
    for mode in ("always", "reference"):
        with kernels(mode), shared():
            leaves = [Tensor(a, requires_grad=True) for a in values]
            z = ops.matmul(*leaves)
            first = grad((z**3).sum(), leaves, create_graph=True)
            second = grad(sum((s**2).sum() for s in first), leaves)
            results.append([z.data, *(s.data for s in (*first, *second))])
    for ours, right in zip(*results, strict=True):
        np.testing.assert_allclose(ours, right, rtol=0, atol=1e-12 * abs(right).max())
