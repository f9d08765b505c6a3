"""Each wrong gradient gets its sentence; right ones and noise get none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minibn.errors import ShapeError
from minibn.testing.diagnosis.screen_text import (
    RECOGNISERS,
    Evidence,
    agreed_digits,
    explain,
    screen,
    worst_entries,
)

rng = np.random.default_rng


def evidence(analytic, numeric, x=None, *, output=None, cotangent=None, inputs=(), **rest):
    """Of input 0, with values that have nothing to do with the gradient unless they are given."""
    numeric = np.asarray(numeric, float)
    draw = rng(numeric.size + 7)
    x = draw.standard_normal(numeric.shape) if x is None else x
    output = draw.standard_normal(()) if output is None else output
    cotangent = draw.standard_normal(np.shape(output)) if cotangent is None else cotangent
    rest.setdefault("tolerance", np.array(1e-9))
    return Evidence(0, (x, *inputs), output, cotangent, analytic, numeric, **rest)


def normal(*shape, seed=0):
    return rng(seed).standard_normal(shape)


def the_sentence(ev):
    """The only one."""
    found = explain(ev)
    assert len(found) == 1, found
    return found[0]


# -- nothing to say


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (4, 3, 3, 2)])
def test_a_right_gradient_has_no_diagnosis(shape):
    numeric = normal(*shape)
    assert explain(evidence(numeric + 1e-11, numeric, ties=np.ones(shape, bool))) == []


@pytest.mark.parametrize("shape", [(6,), (4, 5), (3, 3, 3), (2, 4, 4, 3)])
@pytest.mark.parametrize("size", [1e3, 1.0, 1e-2, 1e-8])
def test_noise_of_any_size_has_no_diagnosis(shape, size):
    for seed in range(20):
        numeric = normal(*shape, seed=seed) * 10 ** normal(*shape, seed=seed + 100)
        noise = size * normal(*shape, seed=seed + 50)
        ev = evidence(
            numeric + noise, numeric, output=normal(*shape, seed=3), inputs=(normal(shape[-1]),),
            others={1: normal(*shape, seed=9)}, with_ones=normal(*shape, seed=8),
        )  # fmt: skip
        assert explain(ev) == [], (shape, size, seed)


def test_a_few_scattered_errors_have_no_diagnosis():
    for seed in range(50):
        numeric = normal(5, 6, seed=seed)
        wrong = numeric.copy()
        wrong.flat[rng(seed).choice(30, 4, replace=False)] += normal(4, seed=seed + 1)
        assert explain(evidence(wrong, numeric)) == [], seed


def test_noise_proportional_to_a_wide_gradient_is_not_a_ratio():
    numeric = np.array([1e6, 1.0, 2.0, -3.0, 0.5])
    assert explain(evidence(numeric * (1 + 0.01 * normal(5)), numeric)) == []


# -- formulas


def test_zero_everywhere_is_said_and_nothing_else():
    n = normal(4, 5)
    assert "zero everywhere" in the_sentence(evidence(np.zeros((4, 5)), n, ties=n > 0))


def test_nan_and_infinity_are_counted_and_located():
    numeric = normal(3, 4)
    wrong = numeric.copy()
    wrong[1, 2], wrong[2, 0] = np.nan, np.inf
    found = explain(evidence(wrong, numeric))
    assert found[0].startswith("2 of 12 entries are NaN or infinite, the first at (1, 2)")


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (-1, "-1 everywhere: the sign is wrong"),
        (2, "2 everywhere: counted twice?"),
        (1 / 2, "1/2 everywhere: is a factor of 2 missing?"),
        (1 / 20, "1/20 everywhere, and 20 = 4·5 is the size of axes 0 and 2 of the input: a mean"),
        (60, "60 everywhere, and 60 = 4·3·5 is the size of axes 0, 1 and 2 of the input: a sum"),
        (1 / 7, "1/7 everywhere, and 7 is the size of axis 0 of the output: a mean"),
        (20 / 19, "20/19 everywhere, and 20 = 4·5"),
        (1.01, "1.01 everywhere: 0.01 too large, relatively."),
        (0.3, "0.3 everywhere."),
    ],
)
def test_a_constant_ratio_is_named(ratio, told):
    numeric = normal(4, 3, 5)
    assert told in the_sentence(evidence(ratio * numeric, numeric, output=normal(7)))


def test_a_constant_ratio_is_seen_through_the_noise_of_the_oracle():
    numeric = normal(4, 3)
    ev = evidence(-numeric, numeric + 1e-6 * normal(4, 3, seed=1), tolerance=np.array(1e-5))
    assert "the sign is wrong" in the_sentence(ev)


def test_a_forgotten_scalar_input_is_the_ratio():
    numeric = normal(4, 3)
    ev = evidence(numeric / 0.37, numeric, inputs=(np.array([0.37]),))
    assert "1/(input 1) everywhere: the factor input 1 is missing" in the_sentence(ev)


def test_an_ignored_cotangent_of_a_scalar_is_the_ratio():
    numeric = normal(4, 3)
    ev = evidence(numeric / 1.7, numeric, cotangent=np.array(1.7))
    assert "the factor the cotangent is missing" in the_sentence(ev)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_forgotten_gamma_is_found_along_any_axis(axis):
    numeric = normal(4, 3, 5)
    gamma = normal(numeric.shape[axis], seed=5)
    along = gamma.reshape([-1 if a == axis else 1 for a in range(3)])
    told = the_sentence(evidence(numeric / along, numeric, inputs=(gamma,)))
    place = "the last axis" if axis == 2 else f"axis {axis}"
    expected = f"is 1/(input 1) along {place}: the factor input 1 is missing."
    assert told == f"The ratio analytic/numeric {expected}"


def test_a_factor_too_many_is_found():
    numeric, other = normal(4, 3), normal(4, 3, seed=2)
    told = the_sentence(evidence(numeric * other, numeric, inputs=(other,)))
    assert "is input 1: that factor stands there once too often" in told


def test_a_ratio_that_depends_on_one_axis_is_shown():
    numeric = normal(4, 3, 5)
    wrong = numeric * np.array([1.0, 2.0, 1.0])[:, None]
    assert "only on the index along axis 1: 1, 2, 1." in explain(evidence(wrong, numeric))[0]


def test_swapped_gradients_are_found():
    numeric, other = normal(3, 4), normal(3, 4, seed=1)
    told = the_sentence(evidence(other, numeric, others={1: other}))
    assert "numeric gradient of input 1: are the gradients of inputs 0 and 1 swapped?" in told


def test_a_transposed_gradient_is_found():
    numeric = normal(2, 3, 3)
    told = the_sentence(evidence(numeric.swapaxes(1, 2), numeric))
    assert told == "It is the numeric gradient with the last two axes transposed."


def test_reversed_axes_are_found():
    numeric = normal(3, 4, 3)
    assert "axes permuted to (2, 1, 0)" in the_sentence(evidence(numeric.T, numeric))


def test_a_reshape_for_a_transpose_is_found():
    numeric = normal(3, 4)
    told = the_sentence(evidence(numeric.T.reshape(3, 4), numeric))
    assert "a reshape for a transpose?" in told


def test_a_kernel_that_is_not_flipped_is_found():
    numeric = normal(3, 2, 2, 3)
    told = the_sentence(evidence(numeric[::-1, ::-1], numeric))
    assert "flipped along axes 0 and 1" in told


@pytest.mark.parametrize("step", [1, -1])
def test_a_shift_by_one_is_found_whatever_moves_in(step):
    numeric = normal(4, 6)
    wrong = np.roll(numeric, step, axis=1)
    wrong[:, 0 if step > 0 else -1] = 0
    assert f"shifted by {step:+d} along axis 1" in the_sentence(evidence(wrong, numeric))


def test_an_ignored_cotangent_is_found_from_the_gradient_for_ones():
    numeric, ones = normal(3, 4), normal(3, 4, seed=3)
    assert "the cotangent is ignored" in the_sentence(evidence(ones, numeric, with_ones=ones))


def test_an_ignored_cotangent_is_found_elementwise():
    g = normal(3, 4, seed=2)
    numeric = normal(3, 4) * g
    told = the_sentence(evidence(numeric / g, numeric, output=normal(3, 4), cotangent=g))
    assert "the cotangent is ignored" in told


def test_a_missing_cotangent_term_is_found():
    g, numeric = normal(3, 4, seed=2), normal(3, 4)
    told = the_sentence(evidence(numeric - g, numeric, output=normal(3, 4), cotangent=g))
    assert told == "The error is -1 times the cotangent: the cotangent is subtracted."


# -- terms of a normalisation


def batch_norm(eps=1e-3, shape=(4, 3, 5), mean=1.0, variance=1.0, gamma_power=1, wrong_std=None):
    """Evidence of the gradient of x, with its mean and variance terms scaled."""
    x, g = normal(*shape) * 2 + 1, normal(*shape, seed=1)
    gamma, axes = normal(shape[-1], seed=2), tuple(range(len(shape) - 1))
    inv_std = 1 / np.sqrt(x.var(axes) + eps)
    x_hat = (x - x.mean(axes)) * inv_std

    def gradient(mean, variance, gamma, inv_std=inv_std):
        c, x_hat = g * gamma, (x - x.mean(axes)) * inv_std
        return inv_std * (c - mean * c.mean(axes) - variance * x_hat * (c * x_hat).mean(axes))

    used = inv_std if wrong_std is None else 1 / wrong_std(x.var(axes), eps)
    return evidence(
        gradient(mean, variance, gamma**gamma_power, used), gradient(1, 1, gamma), x,
        output=x_hat * gamma, cotangent=g, inputs=(gamma, normal(shape[-1], seed=4)),
    )  # fmt: skip


def test_a_missing_mean_term_is_found():
    told = the_sentence(batch_norm(mean=0))
    assert told == (
        "The error is constant along axes 0 and 1: the mean term over axes 0 and 1 is missing."
    )


@pytest.mark.parametrize(
    ("variance", "told"),
    [
        (0, "is missing"),
        (1.01, "is 1 % too large"),
        (0.98, "is 2 % too small"),
        (4, "is 4 times what it should be"),
        (-1, "has the wrong sign"),
    ],
)
def test_a_wrong_variance_term_is_found_and_measured(variance, told):
    expected = "The error is proportional to the input centred over axes 0 and 1: the variance term"
    assert the_sentence(batch_norm(variance=variance)) == f"{expected} {told}."


def test_statistics_treated_as_constants_are_found():
    told = the_sentence(batch_norm(mean=0, variance=0))
    assert "the mean term is missing, the variance term is missing" in told


def test_gamma_forgotten_in_batch_norm_is_found():
    told = the_sentence(batch_norm(gamma_power=0))
    assert "1/(input 1) along the last axis: the factor input 1 is missing" in told


@pytest.mark.parametrize(
    "wrong_std",
    [lambda v, eps: np.sqrt(v * 12 / 11 + eps), lambda v, eps: np.sqrt(v) + eps],
    ids=["unbiased", "eps outside the root"],
)
def test_a_wrong_standard_deviation_is_found(wrong_std):
    told = the_sentence(batch_norm(wrong_std=wrong_std))
    assert told.startswith("1/σ over axes 0 and 1 is off by factors of 0.9")


def test_zero_for_a_cotangent_of_ones_is_told_from_plain_zero():
    numeric, rounding = normal(3, 4), 1e-17 * normal(3, 4, seed=1)
    told = the_sentence(evidence(rounding, numeric, with_ones=rounding))
    assert told.endswith("(but for a cotangent of ones it is): is the cotangent ignored?")


def test_an_added_constant_is_found():
    numeric = normal(3, 4)
    told = the_sentence(evidence(numeric + 0.25, numeric))
    assert told.startswith("The error is the same everywhere, 0.25: an added constant")


def test_an_error_that_is_constant_along_one_axis_is_found():
    numeric = normal(3, 4, 5)
    told = the_sentence(evidence(numeric + normal(3, 1, 5, seed=1), numeric))
    assert told == "The error is constant along axis 1: a mean term that is missing or wrong."


# -- places


def spoilt(numeric, where):
    return numeric + np.where(where, normal(*numeric.shape, seed=9), 0)


def test_an_error_at_the_border_is_found():
    numeric = normal(2, 5, 6, 3)
    where = np.ones(numeric.shape, bool)
    where[:, 1:-1, 1:-1] = False
    told = the_sentence(evidence(spoilt(numeric, where), numeric))
    assert told == "The error is only at the border of axes 1 and 2: padding?"


def test_a_wide_border_is_found():
    numeric = normal(9, 8)
    where = np.ones(numeric.shape, bool)
    where[2:-2] = False
    told = the_sentence(evidence(spoilt(numeric, where), numeric))
    assert told == "The error is only at the border of axis 0, 2 entries wide: padding?"


def test_a_dropped_row_is_found_with_its_index():
    numeric = normal(6, 7)
    wrong = numeric.copy()
    wrong[-1] = 0
    zero, index, *rest = explain(evidence(wrong, numeric))
    assert "It is 0 in 7 of 42 entries where it should not be" in zero
    assert any("The error is only at index 5 (the last) of axis 0." in s for s in (index, *rest))


def test_an_error_only_at_ties_is_found():
    numeric = normal(3, 3)
    ties = np.zeros((3, 3), bool)
    ties[0, 1] = ties[2, 2] = True
    told = the_sentence(evidence(spoilt(numeric, ties), numeric, ties=ties))
    assert "only at ties or kinks (2 of 9 entries)" in told


@pytest.mark.parametrize(("sign", "word"), [(-1, "negative"), (1, "positive")])
def test_an_error_on_one_side_of_zero_is_found(sign, word):
    x, numeric = normal(4, 6), normal(4, 6, seed=1)
    told = the_sentence(evidence(spoilt(numeric, sign * x > 0), numeric, x))
    assert told.startswith(f"The error is only where the input is {word}")


def test_an_error_at_small_inputs_is_found():
    x, numeric = normal(40), normal(40, seed=1)
    x[[3, 17, 30]] *= 1e-4
    told = explain(evidence(spoilt(numeric, np.abs(x) < 1e-3), numeric, x))
    assert any("only where |input 0| is small" in sentence for sentence in told), told


def test_an_error_at_repeated_values_is_found():
    x, numeric = normal(30), normal(30, seed=1)
    where = np.zeros(30, bool)
    where[[1, 6, 11, 22]] = True
    x[where] = 0.5
    told = the_sentence(evidence(spoilt(numeric, where), numeric, x))
    assert "a value of the input is repeated (4 of 30 entries)" in told


def test_a_wrong_sign_in_part_is_found():
    x, numeric = normal(5, 6), normal(5, 6, seed=1)
    wrong = np.where(x < 0, -numeric, numeric)
    found = explain(evidence(wrong, numeric, x))
    assert "The sizes are right." in found[0]
    assert any("where the input is negative" in sentence for sentence in found)


def test_one_entry_is_not_over_interpreted():
    found = explain(evidence(np.array([-2.0]), np.array([2.0])))
    assert found == [
        "The ratio analytic/numeric is -1 everywhere: the sign is wrong. "
        "(One entry only: other explanations fit as well.)"
    ]
    assert explain(evidence(np.array(2.9), np.array(2.0))) == []


def test_large_inputs_are_diagnosed_from_the_entries_that_were_measured():
    full = normal(20, 30)
    numeric = np.full((20, 30), np.nan)
    probed = rng(0).choice(600, 25, replace=False)
    numeric.flat[probed] = full.flat[probed]
    assert "the sign is wrong" in the_sentence(evidence(-full, numeric))
    assert explain(evidence(full, numeric)) == []


def test_a_gradient_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="analytic has shape"):
        evidence(np.zeros((4, 3)), np.zeros(3))


# -- the screen, and the data


def test_the_worst_entries_come_first_and_nan_before_all():
    numeric = np.array([1.0, 2.0, 3.0, np.nan])
    ev = evidence(np.array([1.5, np.nan, 5.0, 9.0]), numeric)
    assert [e["index"] for e in worst_entries(ev)] == [(1,), (2,), (0,)]
    assert worst_entries(ev)[1]["ratio"] == pytest.approx(5 / 3)
    assert agreed_digits(ev) == 0


def test_digits_are_those_of_the_worst_entry():
    ev = evidence(np.array([1.0, 2.0 + 2e-6]), np.array([1.0, 2.0]))
    assert agreed_digits(ev) == pytest.approx(6, abs=1e-3)


def test_the_screen_shows_op_shapes_worst_entry_picture_and_sentence():
    numeric = normal(2, 6, 7)
    where = np.ones(numeric.shape, bool)
    where[:, 1:-1, 1:-1] = False
    wrong = spoilt(numeric, where)
    wrong[:, 0] = 0
    shown = screen(evidence(wrong, numeric), "conv2d").splitlines()
    assert shown[0] == "conv2d(float64 (2, 6, 7)) -> ()"
    assert "digits agreed" in shown[1]
    drawing = [line.strip() for line in shown if set(line.strip()) <= set(".X0!?")]
    assert drawing == ["0000000", *["X.....X"] * 4, "XXXXXXX"]
    assert shown[-1].startswith("=> The error is only at the border of axes 1 and 2")


def test_a_large_picture_is_cut_around_the_worst_entry():
    numeric = normal(100, 200)
    wrong = numeric.copy()
    wrong[77, 150] += 1
    shown = screen(evidence(wrong, numeric)).splitlines()
    drawing = [line.strip() for line in shown if set(line.strip()) <= set(".X")]
    assert len(drawing) == 12
    assert {len(line) for line in drawing} == {40}
    assert sum(line.count("X") for line in drawing) == 1


values = st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, 1e-300, 1e300, np.nan, np.inf, -np.inf, 3.7])
shapes = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)


@st.composite
def any_evidence(draw):
    """Of any shapes, with any values, NaN, infinity and overflow among them."""
    shape = draw(shapes)
    seed = draw(st.integers(0, 2**32 - 1))
    special = draw(st.lists(values, min_size=1, max_size=6))

    def array(shape):
        r = rng(seed + len(shape))
        drawn = np.asarray(r.standard_normal(shape))
        return np.where(r.random(shape) < 0.5, drawn, r.choice(special, shape))

    other = draw(shapes)
    return Evidence(
        0, (array(shape), array(other)), array(draw(shapes)), array(draw(shapes)),
        array(shape) * draw(st.sampled_from([1, -1, 1.5])), array(shape), np.array(1e-9),
        {0: array(shape), 1: array(other)}, draw(st.none() | st.just(array(shape))),
        draw(st.none() | st.just(array(shape) > 0)),
    )  # fmt: skip


@given(any_evidence())
def test_nothing_crashes_or_warns_and_the_screen_stays_one_screen(ev):
    found = explain(ev)
    assert all(isinstance(s, str) and s.endswith((".", "?", ")")) for s in found)
    lines = screen(ev, "some_function").splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100


@given(any_evidence())
def test_a_gradient_within_the_tolerance_is_never_explained(ev):
    known = np.isfinite(ev.numeric)
    right = Evidence(
        0, ev.inputs, ev.output, ev.cotangent, np.where(known, ev.numeric, 0), ev.numeric,
        ev.tolerance, ev.others, ev.with_ones, ev.ties,
    )  # fmt: skip
    assert explain(right) == []


def test_every_recogniser_says_what_it_recognises():
    assert all(recognise.__doc__ for recognise in RECOGNISERS)
