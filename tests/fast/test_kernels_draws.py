"""Draws in blocks on threads are those of the definition, bit for bit."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibn import kernels, nn
from minibn.backend import get_backend
from minibn.fast.cpu import draws, threads
from minibn.fast.cpu.draws import MANY
from minibn.random import uniforms, uniforms_and_normals

NUMPY = get_backend("numpy")
BLOCKS = [16, 48, 1 << 16]  # a block's integers


def identical(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(
    key=st.integers(0, (1 << 128) - 1),
    step=st.integers(0, 2**40),
    count=st.integers(0, 300),
    block=st.sampled_from(BLOCKS),
    dtype=st.sampled_from([np.float32, np.float64]),
    threads_used=st.integers(1, 3),
)
def test_blocks_and_threads_change_no_bit(key, step, count, block, dtype, threads_used):
    expected = uniforms_and_normals(NUMPY, key, step, count, dtype)
    counter = step << 128
    with patch.object(draws, "BLOCK", block), threads.limit_threads(threads_used):
        identical(draws.uniforms_and_normals(key, counter, count, dtype), expected)
        identical([draws.uniforms(key, counter, count, dtype)], expected[:1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [MANY, MANY + 1, 4 * MANY + 37])
def test_ragged_counts_of_many_draws_are_those_of_the_definition(dtype, count):
    with kernels("reference"):
        expected = uniforms_and_normals(NUMPY, 5, 7, count, dtype, stream=1)
    for n in (1, 2, 3):
        with threads.limit_threads(n):
            identical(uniforms_and_normals(NUMPY, 5, 7, count, dtype, stream=1), expected)
            identical([uniforms(NUMPY, 5, 7, count, dtype, stream=1)], expected[:1])


def test_many_draws_are_made_in_blocks_unless_the_reference_is_asked_for():
    with patch.object(draws, "uniforms_and_normals") as fast:
        uniforms_and_normals(NUMPY, 0, 0, MANY, np.float32)
        assert fast.call_count == 1
        uniforms_and_normals(NUMPY, 0, 0, MANY, np.float16)
        uniforms_and_normals(NUMPY, 0, 0, MANY - 1, np.float32)
        with kernels("reference"):
            uniforms_and_normals(NUMPY, 0, 0, MANY, np.float32)
        assert fast.call_count == 1


@pytest.mark.parametrize("channels", [1, 7, 64, 100_003])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_of_many_activations_is_that_of_the_definition(channels, dtype):
    x = np.zeros((-(-3 * MANY // channels), channels), dtype)
    noise = nn.Sequential(noise=nn.Noise()).initialize(0)[0]
    with kernels("reference"):
        expected = noise.draw(x, 3)
    for n in (1, 2):
        with threads.limit_threads(n):
            identical(noise.draw(x, 3), expected)


def test_a_block_counts_on_from_a_counter_that_overflows_a_word():
    counter = (1 << 64) - 3
    expected = np.random.Philox(key=1, counter=counter).random_raw(64) >> 40
    with patch.object(draws, "BLOCK", 16):
        found = draws.uniforms(1, counter, 64, np.float64)
    np.testing.assert_array_equal(found * 2**24, expected)
