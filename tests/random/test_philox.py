"""Philox against NumPy's, named generators, and the distribution of the draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.backends import on_backends

from minibn.backend import get_backend, to_numpy
from minibn.backend.philox import philox
from minibn.random import derive, generator, uniforms, uniforms_and_normals

WORD = 1 << 64
keys = st.integers(0, (1 << 128) - 1)
counters = st.builds(
    lambda low, high: low + (high << 64),
    st.integers(0, WORD - 100) | st.sampled_from([0, 1, WORD - 100]),
    st.integers(0, (1 << 192) - 1),
)


# -- raw integers


@on_backends
@settings(max_examples=60)
@given(key=keys, counter=counters, count=st.integers(0, 40))
def test_philox_in_array_code_equals_numpys(backend, key, counter, count):
    expected = np.random.Philox(key=key, counter=counter).random_raw(count)
    for drawn in (
        philox(backend.xp, key, counter, count),
        backend.philox(key, counter, count),
    ):
        drawn = to_numpy(drawn)
        assert drawn.dtype == np.uint64 and drawn.shape == (count,)
        np.testing.assert_array_equal(drawn, expected)


def test_philox_refuses_a_counter_whose_lowest_word_would_overflow(backend):
    xp = backend.xp
    with pytest.raises(ValueError, match="overflow"):
        philox(xp, 0, WORD - 2, 8)
    expected = np.random.Philox(key=0, counter=WORD - 2).random_raw(4)
    np.testing.assert_array_equal(to_numpy(philox(xp, 0, WORD - 2, 4)), expected)


# -- names


def test_a_generator_depends_on_the_seed_and_on_each_name():
    ways = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, "b", "a"), (0, "a", 1)]
    ways += [(0, "a', 'b"), (-1, "a"), (0, "a", 11), (0, "a1", 1)]
    assert len({derive(*way) for way in ways}) == len(ways)
    firsts = {generator(*way).integers(1 << 62) for way in ways}
    assert len(firsts) == len(ways)


@given(st.integers(-(2**70), 2**70), st.lists(st.text() | st.integers(), max_size=3))
def test_the_same_names_give_the_same_generator_and_a_key_of_128_bits(seed, names):
    assert 0 <= derive(seed, *names) < 1 << 128
    a, b = generator(seed, *names).random(3), generator(seed, *names).random(3)
    np.testing.assert_array_equal(a, b)


def test_generators_of_other_names_are_not_disturbed_by_use():
    alone = generator(0, "weights").random(5)
    order = generator(0, "order")
    order.random(1000)
    weights = generator(0, "weights")
    order.random(1000)
    np.testing.assert_array_equal(weights.random(5), alone)


def test_neighbouring_seeds_and_names_are_uncorrelated():
    rows = [generator(seed, "a", i).normal(size=500) for seed in range(4) for i in range(4)]
    correlation = np.corrcoef(rows) - np.eye(16)
    assert abs(correlation).max() < 0.2


def test_nothing_draws_from_numpys_global_generator():
    before = np.random.get_state()[1].copy()  # noqa: NPY002  the global state is what is checked
    generator(0, "a").random(9)
    uniforms_and_normals(get_backend("numpy"), 1, 0, 9, np.float32)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002  as above


def test_a_key_is_the_same_forever():
    """Runs are resumed, and weights compared, across versions of this library."""
    assert derive(0, "weights", "conv1.weight") == 0xEBDB0948B20457EAD31144C5AFEA2A26


# -- uniforms and normals


def draw(backend, count, dtype=np.float64, key=0xB0A7, step=0, stream=0):
    u, z = uniforms_and_normals(backend, key, step, count, dtype, stream)
    assert u.shape == z.shape == (count,) and u.dtype == z.dtype == dtype
    return to_numpy(u), to_numpy(z)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 100_000])
def test_uniforms_lie_in_the_unit_interval_and_normals_are_finite(backend, dtype, count):
    u, z = draw(backend, count, dtype)
    assert ((u >= 0) & (u < 1)).all()
    assert np.isfinite(z).all() and (abs(z) <= 5.8).all()
    np.testing.assert_array_equal(u * 2**24, np.floor(u * 2**24))


def test_the_extreme_integers_give_finite_draws():
    class Extreme:
        name = "numpy"

        def __init__(self, raw):
            self.raw = raw

        def philox(self, key, counter, count):
            return np.full(count, self.raw, np.uint64)

    for dtype in (np.float32, np.float64):
        for raw, u, z in [(0, 0, 24 * 2 * np.log(2)), (WORD - 1, 1 - 2**-24, 0)]:
            drawn_u, drawn_z = uniforms_and_normals(Extreme(raw), 0, 0, 4, dtype)
            assert drawn_u.tolist() == [u] * 4
            assert drawn_z[0] == pytest.approx(z**0.5, rel=1e-6) and np.isfinite(drawn_z).all()


def test_uniforms_and_normals_have_their_moments_and_are_independent(backend):
    n = 400_000
    u, z = draw(backend, n)
    error = 4 / np.sqrt(n)
    for k in range(1, 5):
        assert (u**k).mean() == pytest.approx(1 / (k + 1), abs=error)
    for k, moment in enumerate([0, 1, 0, 3, 0, 15], start=1):
        spread = np.sqrt([1, 2, 15, 96, 945, 10170][k - 1])
        assert (z**k).mean() == pytest.approx(moment, abs=error * spread)
    assert np.histogram(u, 256, (0, 1))[0] / n * 256 == pytest.approx(1, abs=0.13)
    half = n // 2
    pairs = [(u, z), (u**2, z**2), (u[1:], u[:-1]), (z[1:], z[:-1]), (z[:half], z[half:])]
    pairs += [(z[:half] ** 2, z[half:] ** 2), (u[:half], z[half:]), (u[half:], z[:half])]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


@on_backends
@given(key=keys, step=st.integers(0, 2**40), stream=st.integers(0, 3), count=st.integers(0, 50))
def test_uniforms_are_the_same_alone_as_beside_normals_and_begin_with_a_shorter_draw(
    backend, key, step, stream, count
):
    """Normals do not: they pair the first half of the integers with the second."""
    alone = to_numpy(uniforms(backend, key, step, count, np.float32, stream))
    np.testing.assert_array_equal(alone, draw(backend, count, np.float32, key, step, stream)[0])
    longer = to_numpy(uniforms(backend, key, step, count + 13, np.float32, stream))
    np.testing.assert_array_equal(alone, longer[:count])


def test_keys_steps_and_streams_draw_differently():
    ways = [{}, {"key": 1}, {"key": 2}, {"step": 1}, {"step": 2}, {"stream": 1}, {"stream": 2}]
    rows = [draw(get_backend("numpy"), 2000, **way) for way in ways]
    for kind in (0, 1):
        correlation = np.corrcoef([row[kind] for row in rows]) - np.eye(len(ways))
        assert abs(correlation).max() < 0.1
    assert len(np.unique([row[1][:50] for row in rows])) == len(ways) * 50


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_backend_draws_the_same_uniforms_and_normals_within_four_ulp(backend, dtype):
    (u, z), (expected_u, expected_z) = (
        draw(backend, 9999, dtype),
        draw(get_backend("numpy"), 9999, dtype),
    )
    np.testing.assert_array_equal(u, expected_u)
    assert (abs(z - expected_z) <= 4 * np.spacing(np.maximum(abs(expected_z), 1))).all()


def test_either_precision_draws_the_same_numbers_up_to_rounding():
    (u, z), (single_u, single_z) = (
        draw(get_backend("numpy"), 9999),
        draw(get_backend("numpy"), 9999, np.float32),
    )
    np.testing.assert_array_equal(u, single_u)
    np.testing.assert_allclose(z, single_z, atol=5e-6)
