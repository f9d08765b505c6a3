"""What factors of products are rounded to: the choice, and the rounding itself."""

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.backends import on_backends
from support.rounding import LOW, expected, floats

from minibn import precision
from minibn.fast.precision import MANTISSA, current
from minibn.fast.rounding import round_to

# --- the choice ---------------------------------------------------------------------------------


def test_nothing_is_rounded_unless_it_is_asked_for():
    assert current() == "fp32"


def test_a_choice_ends_with_its_block_also_after_an_error():
    with precision("bf16"):
        with pytest.raises(ZeroDivisionError), precision("tf32"):
            assert current() == "tf32"
            raise ZeroDivisionError
        assert current() == "bf16"
    assert current() == "fp32"


def test_a_choice_without_a_block_holds_until_the_next():
    with precision("fp32"):
        precision("tf32")
        assert current() == "tf32"
    assert current() == "fp32"


def test_a_choice_belongs_to_its_thread():
    seen = []
    with precision("bf16"):
        other = threading.Thread(target=lambda: seen.append(current()))
        other.start()
        other.join()
    assert seen == ["fp32"]


def test_an_unknown_precision_is_refused_with_the_near_miss():
    with pytest.raises(ValueError, match=r"'bf-16' is unknown\. Did you mean 'bf16'\?"):
        precision("bf-16")
    with pytest.raises(ValueError, match="There are fp32, tf32, bf16"):
        precision("double")
    assert current() == "fp32"


# --- the rounding -------------------------------------------------------------------------------

bits = st.integers(0, 2**32 - 1)
any_floats = st.lists(bits, min_size=1, max_size=40).map(
    lambda found: np.array(found, np.uint32).view(np.float32)
)


@pytest.mark.parametrize("to", LOW)
@on_backends
@given(x=any_floats)
def test_rounding_is_to_the_nearest_and_of_two_to_the_even_one(backend, to, x):
    found = backend.to_numpy(round_to(backend.asarray(x), to))
    finite = np.isfinite(x)
    np.testing.assert_array_equal(found[finite], expected(x[finite], to))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(x))


@pytest.mark.parametrize("to", LOW)
def test_ties_go_to_the_even_neighbour(to):
    last = 2.0 ** -MANTISSA[to]
    between = np.array([1 + last / 2, 1 + 3 * last / 2, -1 - last / 2], np.float32)
    assert round_to(between, to).tolist() == [1, 1 + 2 * last, -1]
    beside = np.nextafter(between, np.float32(9))
    assert round_to(beside, to).tolist() == [1 + last, 1 + 2 * last, -1]


@pytest.mark.parametrize("to", LOW)
@on_backends
def test_nan_and_infinity_stay_and_what_is_too_large_becomes_infinite(backend, to):
    nans = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    large = np.float32(np.finfo(np.float32).max)
    x = np.concatenate([nans, np.array([np.inf, -np.inf, large, -large], np.float32)])
    found = backend.to_numpy(round_to(backend.asarray(x), to))
    assert np.isnan(found[:3]).all()
    assert found[3:].tolist() == [np.inf, -np.inf, np.inf, -np.inf]


@pytest.mark.parametrize("to", LOW)
@given(x=any_floats)
def test_rounding_again_changes_nothing(to, x):
    once = round_to(x, to)
    np.testing.assert_array_equal(round_to(once, to), once)


@pytest.mark.parametrize("to", LOW)
@given(x=any_floats)
def test_rounding_keeps_the_order(to, x):
    ordered = np.sort(x[~np.isnan(x)])
    y = round_to(ordered, to)
    assert (y[:-1] <= y[1:]).all()


@pytest.mark.parametrize("to", LOW)
@given(mantissa=st.integers(0, 2**10 - 1), exponent=st.integers(-126, 127))
def test_a_number_with_few_enough_digits_stays(to, mantissa, exponent):
    digits = mantissa >> (10 - MANTISSA[to])
    x = np.array([math.ldexp(1 + digits / 2 ** MANTISSA[to], exponent)], np.float32)
    np.testing.assert_array_equal(round_to(x, to), x)


@pytest.mark.parametrize(("to", "most"), [("tf32", 2**-11), ("bf16", 2**-8)])
def test_the_relative_error_is_at_most_half_of_the_last_digit(to, most):
    x = floats(0, 10_000) * np.exp2(np.arange(10_000) % 200 - 100).astype(np.float32)
    error = np.abs(round_to(x, to).astype(np.float64) / x - 1).max()
    assert 0.9 * most < error <= most


@on_backends
def test_the_argument_stays_whatever_its_layout(backend):
    x = floats(0, 6, 40)
    for layout in (lambda a: a, lambda a: a.T, lambda a: a[::2, 1::3], lambda a: a[:0]):
        array = layout(backend.asarray(x))
        found = backend.to_numpy(round_to(array, "bf16"))
        np.testing.assert_array_equal(found, expected(layout(x), "bf16"))
        np.testing.assert_array_equal(backend.to_numpy(array), layout(x))


def test_large_arrays_are_rounded_in_pieces_to_the_same_numbers():
    x = floats(0, 700_001)
    np.testing.assert_array_equal(round_to(x, "tf32"), expected(x, "tf32"))


def test_only_float32_can_be_rounded():
    with pytest.raises(TypeError, match="dtype float64; only float32 is rounded to bf16"):
        round_to(np.ones(3), "bf16")
