"""Draws by a CUDA kernel: NumPy's integers and uniforms bit for bit, its normals within 4 ulp."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda import on_cuda, orders

from minibn import kernels, nn, ops
from minibn.autograd.dispatch import find_kernel
from minibn.backend import get_backend, to_numpy
from minibn.backend.strict import count_transfers
from minibn.fast.cuda.scalars import Scalars, use_scalars
from minibn.random import NoiseDraws, integers, uniforms, uniforms_and_normals
from minibn.testing.commands.profiles import share

NUMPY = get_backend("numpy")
WORD = 1 << 64
DTYPES = [np.float32, np.float64]
keys = st.integers(0, (1 << 128) - 1)
steps = st.integers(0, WORD - 1)


def near(found, expected):
    """Within 4 ulp, counted where the draws lie: at 1 for smaller ones."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert (abs(found - expected) <= 4 * np.spacing(np.maximum(abs(expected), 1))).all()


@on_cuda
@settings(max_examples=share(40))
@given(
    key=keys,
    low=st.integers(0, WORD - 100) | st.sampled_from([0, 1, WORD - 100]),
    high=st.integers(0, (1 << 192) - 1),
    count=st.integers(0, 40),
)
def test_integers_are_numpys(backend, key, low, high, count):
    counter = low + (high << 64)
    expected = np.random.Philox(key=key, counter=counter).random_raw(count)
    found = to_numpy(integers(backend, key, counter, count))
    assert found.dtype == np.uint64
    np.testing.assert_array_equal(found, expected)


@on_cuda
def test_a_lowest_word_that_would_overflow_is_refused(backend):
    expected = np.random.Philox(key=0, counter=WORD - 2).random_raw(4)
    np.testing.assert_array_equal(to_numpy(integers(backend, 0, WORD - 2, 4)), expected)
    with pytest.raises(ValueError, match="overflow"):
        integers(backend, 0, WORD - 2, 8)


@on_cuda
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=share(40))
@given(key=keys, step=steps, stream=st.integers(0, 3), count=st.integers(0, 1100))
def test_uniforms_are_numpys_and_normals_within_four_ulp(backend, dtype, key, step, stream, count):
    u, z = (to_numpy(a) for a in uniforms_and_normals(backend, key, step, count, dtype, stream))
    expected_u, expected_z = uniforms_and_normals(NUMPY, key, step, count, dtype, stream)
    np.testing.assert_array_equal(u, expected_u)
    np.testing.assert_array_equal(to_numpy(uniforms(backend, key, step, count, dtype, stream)), u)
    assert u.dtype == dtype
    near(z, expected_z)


@on_cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 1), (5, 3), (3, 3, 3, 10), (6, 64), (2, 2, 2, 130), (1, 2)])
def test_noise_is_the_hosts(backend, dtype, shape):
    noise = NoiseDraws(12345 << 70, 6, 0.5, 1.25, 0.1, 0.1)
    s, m = (to_numpy(a) for a in noise(backend.xp.empty(shape, dtype)))
    expected_s, expected_m = noise(np.empty(shape, dtype))
    np.testing.assert_array_equal(m, expected_m)
    near(s, expected_s)


@on_cuda
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tick_is_added_to_the_step(backend, dtype):
    given = Scalars(backend.xp)
    given.tick += 3

    def drawn(step):
        both = uniforms_and_normals(backend, 7, step, 37, dtype)
        return [to_numpy(a) for a in (*both, integers(backend, 7, step << 128, 9))]

    with use_scalars(given):
        moved = drawn(2)
    for a, b, other in zip(moved, drawn(5), drawn(2), strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != other).any()


@on_cuda
def test_threads_in_any_order_draw_the_same(backend):
    noise = NoiseDraws(1, 2, 0.5, 1.25, 0.1, 0.1)
    x = backend.xp.empty((31, 7), np.float32)
    first, *others = orders(backend, lambda: [to_numpy(a) for a in noise(x)])
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


@on_cuda
def test_layers_draw_by_the_kernel_and_wait_for_nothing(backend):
    net = nn.Sequential(noise=nn.Noise(), dropout=nn.Dropout()).initialize(0)
    x = backend.asarray(np.ones((3, 2), np.float32))
    never = patch.object(backend, "philox", side_effect=AssertionError("array code drew integers"))
    with never, count_transfers() as count:
        ops.sum(net(x))
    assert count.n == 0, count.names


@on_cuda
def test_the_definition_draws_where_it_is_asked_for_and_for_other_dtypes(backend):
    given = backend, 3, 4, 50
    assert find_kernel(integers, (50,), backend=backend) is not None
    with kernels("reference"):
        assert find_kernel(integers, (50,), backend=backend) is None
        expected = uniforms_and_normals(*given, np.float32)
    found = uniforms_and_normals(*given, np.float32)
    half = uniforms(*given, np.float16)
    np.testing.assert_array_equal(to_numpy(found[0]), to_numpy(expected[0]))
    np.testing.assert_array_equal(to_numpy(half), to_numpy(found[0]).astype(np.float16))
    near(to_numpy(found[1]), to_numpy(expected[1]))


def test_without_emulation_the_strict_double_draws_by_the_definition():
    strict = get_backend("strict")
    assert find_kernel(integers, (50,), backend=strict) is None
