"""Products of rounded factors, and everything that must not be rounded."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from support.backends import BACKENDS, chosen
from support.cuda import CUDA, on
from support.rounding import LOW, expected, floats

import minibn
from minibn import Tensor, grad, hvp, kernels, ops, precision
from minibn.backend import Backend
from minibn.backend.strict_array import count_transfers
from minibn.fast.fused_ops import fused_block
from minibn.fast.precision import MANTISSA

UNIT = 2.0**-24  # of float32: the largest relative error of one operation
EVERYWHERE = ["numpy", "strict", *CUDA]


@contextmanager
def there(name: str) -> Iterator[Backend]:
    with on(name) if name == "emulated" else chosen(name) as backend:
        yield backend


def conv(x, w):
    return ops.conv2d(x, w, stride=(1, 2), padding=1)


def same(x, w):
    return ops.conv2d(x, w, padding=1)


# name -> function, its factors, its result's shape, terms of a sum: of z, of x̄ and of w̄
PRODUCTS = {
    "conv2d": (conv, (3, 6, 7, 4), (3, 3, 4, 8), (3, 6, 4, 8), (36, 72, 72)),
    "conv2d-same": (same, (2, 8, 8, 16), (3, 3, 16, 16), (2, 8, 8, 16), (144, 144, 128)),
    "conv2d-1x1": (ops.conv2d, (2, 5, 5, 6), (1, 1, 6, 9), (2, 5, 5, 9), (6, 9, 50)),
    "matmul": (ops.matmul, (33, 20), (20, 7), (33, 7), (20, 7, 33)),
    "matmul-stacked": (ops.matmul, (2, 1, 5, 4), (3, 4, 6), (2, 3, 5, 6), (4, 18, 10)),
    "matmul-vector": (ops.matmul, (5, 20), (20,), (5,), (20, 1, 5)),
}


def derived(f, x, w, g):
    """(z, x̄, w̄) on the current backend, as NumPy's arrays."""
    backend = minibn.get_backend()
    x, w = (Tensor(backend.asarray(a), requires_grad=True) for a in (x, w))
    z = f(x, w)
    return [backend.to_numpy(a.data) for a in (z, *grad(z, [x, w], backend.asarray(g)))]


def three(f, x, w, g):
    """(z, x̄, w̄) by definitions in float64: a product each, of factors that are given."""
    with kernels("reference"), minibn.use("numpy"):
        return derived(f, *(a.astype(np.float64) for a in (x, w, g)))


def largest(backend: str, terms: int) -> float:
    """The error of a sum of products, as a share of the sum of their absolute values.

    By float32 arithmetic half a digit a term. A tensor core cuts off where it adds, which is a
    whole one, and float32 is three products of halves of the factors there: what they leave out
    is 3 · 2^-22 (Ootomo & Yokota 2022).
    """
    on_host = backend in ("numpy", "strict")
    return 1.01 * terms * UNIT if on_host else (2 * terms + 12) * UNIT


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("to", MANTISSA)
@pytest.mark.parametrize("backend", EVERYWHERE)
@pytest.mark.parametrize("mode", ["fast", "always"])
def test_a_product_is_that_of_rounded_factors_added_up_in_float32(name, to, backend, mode):
    if (to, mode, backend) == ("fp32", "always", "numpy"):
        pytest.skip("Winograd's sums are others: see test_kernels_conv")
    f, x_shape, w_shape, z_shape, terms = PRODUCTS[name]
    factors = floats(1, *x_shape), floats(2, *w_shape), floats(3, *z_shape)
    short = [expected(a, to) for a in factors]
    with there(backend), kernels(mode), precision(to):
        found = derived(f, *factors)
    exact, sizes = three(f, *short), three(f, *map(np.abs, short))
    for i in range(3):
        assert found[i].dtype == np.float32
        error = np.abs(found[i] - exact[i])
        assert (error <= largest(backend, terms[i]) * sizes[i]).all(), i
        if to != "fp32":  # and it is not that of the factors as they were
            error = np.abs(found[i] - three(f, *factors)[i])
            assert (error > largest(backend, terms[i]) * sizes[i]).any(), i


@pytest.mark.parametrize("to", LOW)
@pytest.mark.parametrize("backend", EVERYWHERE)
def test_gradients_miss_the_exact_ones_by_two_roundings_of_every_term(to, backend):
    factors = floats(4, 2, 8, 8, 16), floats(5, 3, 3, 16, 16), floats(6, 2, 8, 8, 16)
    with there(backend), precision(to):
        found = derived(same, *factors)
    half = 2.0 ** -(MANTISSA[to] + 1)
    share = (1 + half) ** 2 - 1 + largest(backend, 144)
    for z, exact, size in zip(
        found, three(same, *factors), three(same, *map(np.abs, factors)), strict=True
    ):
        assert (np.abs(z - exact) <= share * size).all()


@pytest.mark.parametrize("to", LOW)
@pytest.mark.parametrize("dtypes", [("float64",) * 2, ("float32", "float64"), ("complex64",) * 2])
@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_other_dtypes_are_never_rounded(to, dtypes, backend):
    x, w = (floats(i, 6, 6).astype(dtype) for i, dtype in enumerate(dtypes))
    with chosen(backend):
        plain = derived(ops.matmul, x, w, (x @ w))
        with precision(to):
            found = derived(ops.matmul, x, w, (x @ w))
    for a, b in zip(plain, found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", ["fast", "always", "lean"])
def test_no_kernel_that_adds_before_it_multiplies_runs_on_rounded_factors(mode):
    x = Tensor(floats(0, 8, 32, 32, 64), requires_grad=True)
    w = Tensor(floats(1, 3, 3, 64, 64), requires_grad=True)
    scale, shift = np.ones(64, np.float32), np.zeros(64, np.float32)
    names = {}
    for to in ("fp32", "bf16"):
        with kernels(mode), precision(to), minibn.profile() as profile:
            y = fused_block(x, scale, shift, filters=w, padding=1, eps=1e-5, relu=True)
            y.sum().backward()
            ops.conv2d(x, w, padding=1).sum().backward()
        names[to] = {row.name for row in profile.rows}
    assert any("Winograd" in name for name in names["fp32"]), "or nothing is tested here"
    assert any("FusedConvBlockKernel" in name for name in names["fp32"])
    assert not any("Winograd" in name or "FusedConvBlockKernel" in name for name in names["bf16"])
    assert "Conv2d (RoundedProduct)" in names["bf16"]


@pytest.mark.parametrize("to", LOW)
def test_a_layer_in_one_call_rounds_as_its_parts_do(to):
    factors = floats(0, 4, 8, 8, 16), floats(1, 3, 3, 16, 8)
    gamma, beta = floats(2, 8), floats(3, 8)

    def whole(x, w):
        return fused_block(x, gamma, beta, filters=w, padding=1, eps=1e-3, relu=True, pool=2)

    def parts(x, w):
        y = ops.conv2d(x, w, padding=1)
        return ops.max_pool2d(ops.relu(ops.batch_norm(y, gamma, beta, eps=1e-3)), 2)

    g = floats(4, 4, 4, 4, 8)
    with kernels("always"), precision(to):
        one, other = derived(whole, *factors, g), derived(parts, *factors, g)
    for a, b in zip(one, other, strict=True):  # but for ȳ, which rounds a last digit elsewhere
        np.testing.assert_allclose(a, b, rtol=0, atol=3 * 2.0 ** -MANTISSA[to] * np.abs(b).max())
    np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)


def test_definitions_round_nothing():
    factors = floats(1, 2, 8, 8, 16), floats(2, 3, 3, 16, 16), floats(3, 2, 8, 8, 16)
    with kernels("reference"):
        plain = derived(same, *factors)
        with precision("bf16"):
            found = derived(same, *factors)
    for a, b in zip(plain, found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("f", [same, ops.matmul])
@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_a_backward_pass_rounds_as_its_forward_pass_did(f, backend):
    name = "conv2d-same" if f is same else "matmul"
    x, w, g = (floats(i, *shape) for i, shape in enumerate(PRODUCTS[name][1:4]))
    with chosen(backend) as found:
        x, w = (Tensor(found.asarray(a), requires_grad=True) for a in (x, w))
        g = found.asarray(g)
        with precision("bf16"):
            z = f(x, w)
            inside = grad(z, [x, w], g, retain_graph=True)
        outside = grad(z, [x, w], g)
        for a, b in zip(inside, outside, strict=True):
            np.testing.assert_array_equal(found.to_numpy(a.data), found.to_numpy(b.data))


@pytest.mark.parametrize("to", LOW)
@pytest.mark.parametrize("f", [same, ops.matmul])
def test_gradients_that_are_recorded_are_rounded_alike(f, to):
    name = "conv2d-same" if f is same else "matmul"
    x, w, g = (floats(i, *shape) for i, shape in enumerate(PRODUCTS[name][1:4]))
    x, w = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    with precision(to):
        plain = grad(f(x, w), [x, w], g)
        recorded = grad(f(x, w), [x, w], g, create_graph=True)
    for a, b in zip(plain, recorded, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=300 * UNIT * np.abs(a.data).max())


def test_second_derivatives_miss_the_exact_ones_by_the_roundings_on_their_way():
    x, w, v = floats(0, 12, 10), floats(1, 10, 6), floats(2, 10, 6)

    def curved(dtype):
        images, filters = x.astype(dtype), Tensor(w.astype(dtype), requires_grad=True)

        def loss():
            return (ops.matmul(images, filters) ** 2).sum()

        (found,) = hvp(loss, [filters], [v.astype(dtype)])
        return found.data

    exact, size = curved(np.float64), 2 * np.abs(x.T) @ np.abs(x) @ np.abs(v)  # H v = 2 xᵀ x v
    for to in LOW:
        with precision(to):
            error = np.abs(curved(np.float32) - exact)
        half = 2.0 ** -(MANTISSA[to] + 1)  # four factors are rounded: x and v, then xᵀ and x v
        assert (error <= ((1 + half) ** 4 - 1 + 40 * UNIT) * size).all()
        assert error.max() > half / 50 * size.max(), "and rounded they are"


def test_rounding_never_waits_for_the_device():
    with minibn.use("strict") as backend, precision("tf32"):
        x, w = (Tensor(backend.asarray(floats(i, 6, 6)), requires_grad=True) for i in (1, 2))
        with count_transfers() as count:
            ops.matmul(x, w).sum().backward()
        assert count.n == 0, count.names
