"""The catalogue of strangers" functions: every wrong gradient is found, no right one is wrong."""

import inspect
from collections import Counter

import numpy as np
import pytest
from suite.functions import FAMILIES, FUNCTIONS, RIGHT, WRONG
from suite.functions.function import function
from suite.functions.run import complaint, copied, finding, points_of

from minibn.testing import check_vjp

# Found or right only at some seeds, so these are tried at 20.
MANY_SEEDS = ("kinks", "thresholds", "ties", "precision", "state")
# What check_vjp does not find yet, and what it complains about.
MISSED: set[str] = {
    "squares_flip_a_tiny_value",
    "clip_doubles_at_its_bounds",
    "clip_turns_round_at_its_bounds",
    "clip_excludes_its_bounds",
    "relu6_is_five_at_six",
    "hinge_is_eight_at_its_margin",
    "soft_threshold_is_two_at_its_threshold",
    "interpolation_is_minus_three_at_a_knot",
    "at_least_two_is_five_at_two",
    "distance_from_one_is_two_at_one",
    "leaky_relu_adds_both_slopes",
    "huber_doubles_at_its_joint",
    "square_reads_memory_order",
    "square_reads_the_memory_of_its_cotangent",
    "square_ignores_negative_strides",
    "square_ignores_negative_strides_of_its_cotangent",
    "square_reads_between_gaps",
    "square_reads_gaps_of_its_cotangent",
    "square_writes_to_a_broadcast_input",
    "addition_returns_one_array_twice",
    "addition_returns_two_views_of_one_array",
    "addition_returns_its_cotangent",
    "column_sums_returns_a_broadcast_view",
    "column_sums_returns_a_read_only_array",
    "flattening_returns_a_view",
    "stopped_fixed_point_with_a_wrong_sign",
    "stopped_jacobi_by_its_diagonal",
    "relu_plus_cube_seven_digits_beside_a_kink",
    "relu_plus_cube_ten_digits_beside_a_kink",
    "matrix_product_multiplies_in_float32",
    "matrix_product_in_float16_inside_float32",
    "matrix_product_in_bfloat16_inside_float32",
    "exponential_in_float16_inside_float32",
    "exponential_in_bfloat16_inside_float32",
    "exponential_with_one_entry_in_float32",
    "exponential_by_a_table",
    "sine_keeps_its_first_input",
    "sine_backward_keeps_its_first_input",
    "sine_looks_up_by_shape",
    "parabola_returns_one_buffer",
    "parabola_wrong_in_every_fourth_call",
    "parabola_loses_digits_in_every_fourth_call",
    "atomic_sum_without_the_two",
    "maximum_gives_a_tie_to_both",
    "maximum_gives_a_tie_to_none",
    "minimum_gives_a_tie_to_both",
}
ALARMS: set[str] = {
    "log_cosh_near_zero",
    "sigmoid_at_30",
    "sigmoid_all_saturated",
    "sigmoid_at_40",
    "tanh_at_17_and_18",
    "cube_at_zeros",
    "softmax_with_a_margin_of_30",
    "sum_of_softmax",
    "cross_entropy_of_sure_predictions",
    "stopped_fixed_point",
    "stopped_fixed_point_slowly",
    "stopped_jacobi",
    "stopped_newton",
    "atomic_sum",
    "atomic_gradient",
}


def still(names, name):
    """A strict xfail for a name of the list, so that the list only shrinks."""
    marks = [pytest.mark.xfail(strict=True, reason="not yet")] if name in names else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [still(MISSED, name) for name in WRONG])
def test_a_wrong_gradient_is_found(name):
    wrong = WRONG[name]
    for seed in range(20 if wrong.of.family in MANY_SEEDS else 1):
        assert finding(wrong, points_of(wrong), seed=seed), f"seed {seed}: {wrong.sentence}"


@pytest.mark.parametrize("name", [still(ALARMS, name) for name in RIGHT])
def test_a_right_gradient_is_not_called_wrong(name):
    right = RIGHT[name]
    for seed in range(3):
        said = complaint(right, points_of(right), seed=seed)
        assert not said, f"seed {seed}: {said}\n{right.why}"


def test_the_catalogue_has_many_of_every_family():
    assert len(WRONG) >= 110
    assert len(RIGHT) >= 120
    assert {f.family for f in FUNCTIONS.values()} == set(FAMILIES)
    assert min(Counter(w.of.family for w in WRONG.values()).values()) >= 6


@pytest.mark.xfail(reason="accuracy= is to come")
def test_every_mistake_is_one_sentence_and_every_setting_a_keyword():
    for wrong in WRONG.values():
        assert wrong.sentence.endswith("."), wrong.name
        assert wrong.sentence != "None.", wrong.name
    keywords = set(inspect.signature(check_vjp).parameters)
    for entry in (*WRONG.values(), *RIGHT.values()):
        assert set(entry.settings) <= keywords, entry.name


def test_the_lists_of_what_is_open_name_entries_of_the_catalogue():
    assert set(WRONG) >= MISSED
    assert set(RIGHT) >= ALARMS


def listed(result):
    return list(result) if isinstance(result, (tuple, list)) else [result]


def traces(f, vjp, point):
    """All that can be seen of a vjp: gradients, for cotangents of several layouts and over several
    calls, their dtypes, what they share, and what became of the arguments."""
    inputs = copied(point)
    shape = np.shape(f(*inputs))
    rng = np.random.default_rng(0)
    g = np.asarray(rng.standard_normal(shape)).astype(inputs[0].dtype)
    cotangents = [g, g, g]
    if shape:
        wide = np.repeat(g, 2, axis=-1)[..., ::2]
        cotangents += [np.asfortranarray(g), np.flip(np.flip(g).copy()), wide]
    for c in cotangents:
        before = c.copy()
        found = listed(vjp(c, *inputs))
        for d in found:
            array = np.asarray(d)
            yield array.dtype, array.shape, array.tobytes(), array.flags.writeable
        yield [np.shares_memory(a, b) for a in found for b in (c, *found) if a is not b]
        yield len({id(d) for d in found}), before.tobytes() == c.tobytes()
        yield [np.asarray(x).tobytes() for x in inputs]
    moved = tuple((x + 0.125).astype(x.dtype) for x in inputs)
    first = listed(vjp(g, *moved))
    yield [np.asarray(d).tobytes() for d in first]
    yield [np.shares_memory(a, b) for a in first for b in listed(vjp(g, *moved))]


def seen(f, vjp, point):
    try:
        with np.errstate(all="ignore"):
            return list(traces(f, vjp, point))
    except Exception as error:  # an error can be seen, too
        return type(error).__name__


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_changes_something_that_can_be_seen(name):
    wrong = WRONG[name]
    for point in points_of(wrong):
        if seen(*wrong.make(), point) != seen(wrong.of.f, wrong.of.vjp, point):
            return
    pytest.fail(wrong.sentence)


def test_two_entries_of_one_name_are_refused():
    square = FUNCTIONS["square"]

    def square_modifies_its_input(g, x):
        """Once more."""

    with pytest.raises(ValueError, match="called 'square_modifies_its_input'"):
        square.wrong()(square_modifies_its_input)
    with pytest.raises(ValueError, match="square_of_a_slice"):
        square.hard("square_of_a_slice", np.zeros(2), why="")
    with pytest.raises(ValueError, match="two called 'square'"):
        function(at=[np.zeros(2)])(square.f)
