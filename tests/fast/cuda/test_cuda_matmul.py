"""Matrix products on tensor cores against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda import on, on_cuda, orders
from support.products import PRECISIONS, agree, run

from minibn.autograd.dispatch import find_kernel
from minibn.backend import to_numpy
from minibn.fast.cuda import products
from minibn.fast.cuda.matmul import TiledMatMul
from minibn.fast.cuda.products import TILES, Plan, use_plans
from minibn.fast.precision import precision
from minibn.fast.rounding import round_to
from minibn.ops.linalg import MatMul, swap

LAYOUTS = ["rows", "columns", "gaps"]


def matrix(rng, rows, columns):
    return rng.standard_normal((rows, columns)).astype(np.float32)


def laid_out(backend, x, layout):
    """x on the device: as it is, as a transposed view, or as every other column of a larger one."""
    if layout == "columns":
        return swap(backend.asarray(np.ascontiguousarray(x.T)))
    if layout == "gaps":
        return backend.asarray(np.repeat(x, 2, axis=1))[:, ::2]
    return backend.asarray(x)


@on_cuda
@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 4, 10, 65])),
    layouts=st.tuples(*2 * [st.sampled_from(LAYOUTS)]),
    seed=st.integers(0, 2**32),
)
def test_products_and_their_gradients_agree_in_every_layout(backend, shape, layouts, seed):
    (M, K, N), rng = shape, np.random.default_rng(seed)
    x, y, g = matrix(rng, M, K), matrix(rng, K, N), matrix(rng, M, N)
    there = [laid_out(backend, a, layout) for a, layout in zip((x, y), layouts, strict=True)]
    kernel = TiledMatMul(MatMul())
    kernel.needs_input_grad = (True, True)
    agree(kernel.forward(*there), MatMul(), (x, y), K)
    for _ in range(2):  # a vjp may be asked for twice
        x_bar, y_bar = kernel.vjp(backend.asarray(g), None, *there)
        agree(x_bar, MatMul(), (g, y.T), N)
        agree(y_bar, MatMul(), (x.T, g), M)


@on_cuda
@pytest.mark.parametrize("to", ["tf32", "bf16"])
def test_a_product_with_the_identity_rounds_to_nearest_even(backend, to):
    rng = np.random.default_rng(0)
    x = matrix(rng, 8, 16) * np.float32(10.0) ** rng.integers(-30, 30, (8, 16)).astype(np.float32)
    x[0, :2] = 1 + 2.0**-11, 1 + 3 * 2.0**-11  # between two numbers of tf32
    x[1, :2] = 1 + 2.0**-8, 1 + 3 * 2.0**-8  # and of bf16
    found = to_numpy(run(backend, TiledMatMul, MatMul(), (x, np.eye(16, dtype=np.float32)), to))
    np.testing.assert_array_equal(found, round_to(x, to))


@on_cuda
@pytest.mark.parametrize("to", PRECISIONS)
def test_small_whole_numbers_are_multiplied_exactly(backend, to):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((19, 100), (100, 13)))
    np.testing.assert_array_equal(to_numpy(run(backend, TiledMatMul, MatMul(), (x, y), to)), x @ y)


@on_cuda
@pytest.mark.parametrize("to", PRECISIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_number_stays_in_its_row_and_shows(backend, bad, to):
    rng = np.random.default_rng(0)
    x, y = matrix(rng, 20, 40), matrix(rng, 40, 12)
    clean = to_numpy(run(backend, TiledMatMul, MatMul(), (x, y), to))
    x[3, 5] = bad
    found = to_numpy(run(backend, TiledMatMul, MatMul(), (x, y), to))
    assert not np.isfinite(found[3]).any()
    others = np.arange(20) != 3
    np.testing.assert_array_equal(found[others], clean[others])


@on_cuda
def test_numbers_of_any_size_keep_their_digits(backend):
    """Rows of 10⁻²⁰ and 10¹⁵ beside each other: what rounding leaves over is not lost."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** np.linspace(-20, 15, 16).astype(np.float32)[:, None]
    x, y = matrix(rng, 16, 40) * scale, matrix(rng, 40, 12)
    agree(run(backend, TiledMatMul, MatMul(), (x, y)), MatMul(), (x, y), 40)


@on_cuda
def test_parts_are_added_in_their_order(backend):
    rng = np.random.default_rng(0)
    x, y = matrix(rng, 10, 300), matrix(rng, 300, 12)
    with use_plans({(10, 12, 300, "fp32"): Plan(TILES["fp32"][-1], 4, 3)}):
        results = orders(backend, lambda: to_numpy(run(backend, TiledMatMul, MatMul(), (x, y))))
    agree(backend.asarray(results[0]), MatMul(), (x, y), 300, parts=4)
    total = np.zeros((10, 12), np.float32)
    for k in range(0, 300, 96):  # each part alone
        total += to_numpy(run(backend, TiledMatMul, MatMul(), (x[:, k : k + 96], y[k : k + 96])))
    for result in results:
        np.testing.assert_array_equal(result, total)


@on_cuda
def test_the_backward_pass_of_a_product_rounds_as_the_forward_pass_did(backend):
    rng = np.random.default_rng(0)
    x, y, g = matrix(rng, 5, 8), matrix(rng, 8, 4), matrix(rng, 5, 4)
    kernel = TiledMatMul(MatMul())
    kernel.needs_input_grad = (True, False)
    with precision("tf32"):
        kernel.forward(backend.asarray(x), backend.asarray(y))
    x_bar, y_bar = kernel.vjp(backend.asarray(g), None, backend.asarray(x), backend.asarray(y))
    agree(x_bar, MatMul(), (g, y.T), 4, "tf32")
    assert y_bar is None


def test_products_of_two_float32_matrices_run_on_tensor_cores_and_no_others():
    with on("emulated") as backend:
        x = backend.asarray(np.ones((6, 6), np.float32))
        assert type(find_kernel(MatMul(), [x, x])) is TiledMatMul
        for a, b in [(x.astype(np.float64), x), (x[None], x), (x[:0], x), (x, x[:, :0])]:
            assert not TiledMatMul.fits(MatMul(), a, b)


def test_a_plan_under_test_is_forgotten_afterwards():
    before = products.plan(10, 12, 300, "fp32")
    other = Plan(TILES["fp32"][0], 1, 10)
    with use_plans({(10, 12, 300, "fp32"): other}):
        assert products.plan(10, 12, 300, "fp32") == other
    assert products.plan(10, 12, 300, "fp32") == before


@on_cuda
@pytest.mark.parametrize("to", PRECISIONS)
def test_too_large_a_sum_is_not_finite(backend, to):
    """Or a training that diverges would seem to go on."""
    x, y = np.full((1, 8), 1e38, np.float32), np.full((8, 1), -1, np.float32)
    assert not np.isfinite(to_numpy(run(backend, TiledMatMul, MatMul(), (x, y), to))).any()
