"""check_vjp on what strangers bring: kinks in any place, memory in any layout, digits that get lost
on the way, vjps that remember. Each was once judged wrongly."""

import numpy as np
import pytest

from minibn.testing import GradientError, Vacuous, check_vjp

SEEDS = range(20)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(g, x):
    y = softmax(x)
    return y * (g - (g * y).sum(-1, keepdims=True))


def is_wrong(f, vjp, *inputs, seeds=SEEDS, **settings):
    """Whether every seed says so."""
    reports = [
        check_vjp(f, vjp, *inputs, seed=seed, raises=False, diagnose=False, **settings)
        for seed in seeds
    ]
    return not any(report.passed for report in reports)


# -- kinks away from 0


KINKS = {
    "clip": (lambda x: np.clip(x, -1, 1), lambda x: np.abs(x) < 1, [0.5, -1.0, 1.0]),
    "relu6": (lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6), [0.5, 6.0, 7.0]),
    "hinge": (lambda x: np.maximum(0, 1 - x), lambda x: -1.0 * (x < 1), [0.5, 1.0, 2.0]),
    "at least 2": (lambda x: np.maximum(x, 2), lambda x: x > 2, [1.0, 2.0, 3.0]),
    "interp": (
        lambda x: np.interp(np.real(x), [0, 1, 3], [0.0, 2.0, 1.0]),
        lambda x: np.where(x < 1, 2.0, -0.5),
        [0.5, 1.0, 2.0],
    ),
    "soft threshold": (
        lambda x: np.sign(np.real(x)) * np.maximum(np.abs(x) - 0.5, 0),
        lambda x: np.abs(x) > 0.5,
        [0.5, 1.0, -2.0],
    ),
}


@pytest.mark.parametrize("name", KINKS)
@pytest.mark.parametrize("slope", [2.5, -3.0, 8.0])
def test_a_slope_outside_of_both_sides_is_found_at_a_kink_anywhere(name, slope):
    f, right, values = KINKS[name]
    x = np.array(values)
    kink = x[1] if name != "soft threshold" else 0.5

    def wrong(g, x):
        return g * np.where(x == kink, slope, right(x))

    assert check_vjp(f, lambda g, x: g * right(x), x).passed
    assert is_wrong(f, wrong, x)


def test_a_convention_is_held_at_a_kink_away_from_0():
    x = np.array([0.5, -1.0, 1.0])

    def including(g, x):
        return g * (np.abs(x) <= 1)

    def excluding(g, x):
        return g * (np.abs(x) < 1)

    def clip(x):
        return np.clip(x, -1, 1)

    assert check_vjp(clip, including, x, convention=including).passed
    assert is_wrong(clip, excluding, x, convention=including)


@pytest.mark.parametrize("share", [(1, 1), (0, 0), (0.8, 0.8)])
def test_a_tie_of_two_inputs_is_counted_once(share):
    def vjp(a, b):
        return lambda g, x, y: (g * ((x > y) + a * (x == y)), g * ((x < y) + b * (x == y)))

    points = np.array([1.0, 2.0, -1.0]), np.array([1.0, 3.0, -2.0])
    for right in ((0.5, 0.5), (1, 0), (0.3, 0.7)):
        assert check_vjp(np.maximum, vjp(*right), *points).passed
    assert is_wrong(np.maximum, vjp(*share), *points)


def test_two_kinks_at_one_point_that_are_no_tie_are_judged_one_by_one():
    def f(x, y):
        return np.maximum(x, 0) + np.minimum(y, 0)

    zeros = np.array([0.0, 2.0]), np.array([0.0, -3.0])
    assert check_vjp(f, lambda g, x, y: (g * (x > 0), g * (y < 0)), *zeros).passed


# -- memory


def square_by(order):
    return lambda g, x: (2 * g * order(x)).reshape(x.shape)


@pytest.mark.parametrize(
    "x",
    [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6.0).reshape(2, 3).T],
    ids=["Fortran order", "a transpose"],
)
def test_inputs_keep_their_memory_layout(x):
    assert is_wrong(np.square, lambda g, x: 2 * g * x.ravel("K").reshape(x.shape), x)
    assert check_vjp(np.square, lambda g, x: 2 * g * x, x).passed


def test_negative_strides_and_gaps_of_inputs_arrive():
    seen = []

    def vjp(g, x):
        seen.append(x.strides)
        return 2 * g * x

    for x in (np.arange(1.0, 5.0)[::-1], np.arange(1.0, 9.0)[::2]):
        seen.clear()
        assert check_vjp(np.square, vjp, x).passed
        assert set(seen) == {x.strides}


def as_if_contiguous(g):
    """What a kernel reads that takes a pointer and a size."""
    return np.lib.stride_tricks.as_strided(g, g.shape, np.empty(g.shape).strides)


def test_a_cotangent_that_is_read_as_if_it_were_contiguous_is_found():
    x = np.random.default_rng(0).standard_normal((3, 4))
    with pytest.raises(GradientError, match="for the same cotangent with negative strides"):
        check_vjp(np.square, lambda g, x: 2 * as_if_contiguous(g) * x, x)
    x = np.arange(1.0, 5.0)
    with pytest.raises(GradientError, match="strides of 0"):
        check_vjp(np.square, lambda g, x: 2 * as_if_contiguous(g) * x, x)


def test_a_vjp_that_refuses_a_layout_is_not_wrong():
    def vjp(g, x):
        if not g.flags.c_contiguous:
            raise ValueError("contiguous arrays only")
        return 2 * g * x

    report = check_vjp(np.square, vjp, np.ones((2, 3)))
    assert report.passed
    assert "contiguous arrays only" in str(report)


ALIASES = {
    "share memory": lambda g, x, y: [2 * g] * 2,
    "a view of the cotangent": lambda g, x, y: (g, 2 * g),
    "a broadcast whose entries share": lambda g, x, y: (2 * g, np.broadcast_to(g[:1], g.shape)),
    "the gradient is read-only": lambda g, x, y: (2 * g, read_only(2 * g)),
}


def read_only(x):
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("message", ALIASES)
def test_gradients_share_their_memory_with_nothing(message):
    x, y = np.ones((2, 3)), np.ones((2, 3))
    with pytest.raises(GradientError, match=message):
        check_vjp(lambda x, y: 2 * x + 2 * y, ALIASES[message], x, y)
    report = check_vjp(
        lambda x, y: 2 * x + 2 * y, ALIASES[message], x, y, allow_views=True, raises=False
    )
    assert not report.faults


def test_a_buffer_that_every_call_returns_is_found():
    buffer = np.zeros(3)

    def vjp(g, x):
        np.multiply(2 * g, x, out=buffer)
        return buffer

    with pytest.raises(GradientError, match="every call writes its gradient into the same memory"):
        check_vjp(np.square, vjp, np.array([1.0, 2.0, 3.0]))


# -- digits that get lost


@pytest.mark.parametrize("precision", [np.float32, np.float16])
def test_less_precision_inside_of_a_float64_gradient_is_found(precision):
    def vjp(g, x):
        return g * (1 - np.tanh(x.astype(precision)) ** 2).astype(float)

    for x in (np.random.default_rng(0).standard_normal((2, 3)), np.array([0.7])):
        assert is_wrong(np.tanh, vjp, x)
    with pytest.raises(GradientError, match=r"computed in float(32|16)"):
        check_vjp(np.tanh, vjp, np.random.default_rng(1).standard_normal(5))


def test_float16_inside_of_a_float32_gradient_is_found():
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((3, 2)).astype(np.float32)

    def vjp(half):
        def pull(g, x, w):
            return g @ w.T, (x.T.astype(half) @ g.astype(half)).astype(np.float32)

        return pull

    assert check_vjp(np.matmul, vjp(np.float32), x, w).passed
    assert is_wrong(np.matmul, vjp(np.float16), x, w)


def test_a_function_that_is_less_exact_says_so():
    def root(a):  # Newton's iteration, which stops early
        y = np.ones_like(a)
        for _ in range(5):
            y = (y + a / y) / 2
        return y

    def vjp(g, a):
        return g / (2 * root(a)) * (1 + 1e-9 * np.sin(1e6 * np.asarray(a, float)))

    x = np.array([2.0, 3.0])
    assert is_wrong(root, vjp, x, seeds=range(3))
    report = check_vjp(root, vjp, x, accuracy=1e-8)
    assert 5 < report.inputs[0].demanded < 8


def test_results_that_differ_in_the_last_bit_name_the_remedy():
    rng = np.random.default_rng(0)

    def vjp(g, x):
        return 2 * g * x * (1 + 1e-15 * rng.uniform(-1, 1, x.shape))

    with pytest.raises(GradientError, match=r"accuracy=\de-1"):
        check_vjp(np.square, vjp, np.array([1.0, 2.0]))
    assert check_vjp(np.square, vjp, np.array([1.0, 2.0]), accuracy=1e-13).passed


# -- vjps that remember


def test_a_vjp_that_keeps_the_first_input_is_found():
    def fresh():
        saved = []

        def vjp(g, x):
            saved.append(x)
            return g * np.cos(saved[0])

        return vjp

    for seed in SEEDS:
        with pytest.raises(GradientError, match="keep the first input that it saw"):
            check_vjp(np.sin, fresh(), np.array([0.3, -1.0, 2.0]), seed=seed)


def test_one_call_in_four_is_found():
    calls = 0

    def vjp(g, x):
        nonlocal calls
        calls += 1
        return 2 * g * x * (1 if calls % 4 else 0.5)

    with pytest.raises(GradientError, match="two runs of the vjp"):
        check_vjp(np.square, vjp, np.array([1.0, 2.0]))


# -- right gradients where few digits are left


SATURATED = {
    "sigmoid": (
        sigmoid,
        lambda g, x: g * sigmoid(x) * (1 - sigmoid(x)),
        [[25.0], [25.0, 30.0, 36.0, 40.0], [0.3, 30.0], [-300.0, -25.0]],
    ),
    "tanh": (np.tanh, lambda g, x: g * (1 - np.tanh(x) ** 2), [[15.0], [15.0, -16.0, 18.0]]),
    "softmax": (softmax, softmax_vjp, [[0.0, 30.0, 1.0], [0.0, 35.0, 1.0]]),
}


@pytest.mark.parametrize("name", SATURATED)
def test_saturation_is_no_mistake_and_excuses_none(name):
    f, vjp, points = SATURATED[name]
    for x in map(np.array, points):
        for seed in range(8):
            assert check_vjp(f, vjp, x, seed=seed).passed
        assert is_wrong(f, lambda g, x: 2 * vjp(g, x), x, seeds=range(4))


def test_what_is_flat_by_rounding_is_vacuous_and_not_wrong():
    for f, vjp, x in (
        (lambda x: x**3, lambda g, x: 3 * g * x**2, np.zeros(3)),
        (lambda x: softmax(x).sum(), lambda g, x: softmax_vjp(g * np.ones_like(x), x), np.ones(3)),
        (np.tanh, lambda g, x: g * (1 - np.tanh(x) ** 2), np.array([50.0])),
    ):
        for seed in range(8):
            with pytest.raises(Vacuous):
                check_vjp(f, vjp, x, seed=seed)


def test_channels_of_very_different_scales_are_moved_by_their_own_steps():
    def normalise(x):
        centred = x - x.mean(0)
        return centred / np.sqrt((centred**2).mean(0))

    def vjp(g, x):
        s = np.sqrt(((x - x.mean(0)) ** 2).mean(0))
        y = normalise(x)
        return (g - g.mean(0) - y * (g * y).mean(0)) / s

    x = np.random.default_rng(0).standard_normal((6, 3)) * np.array([1e-6, 1.0, 1e6])
    assert check_vjp(normalise, vjp, x).digits > 10
    off = np.array([1, 1, 1.01])
    assert is_wrong(normalise, lambda g, x: off * vjp(g, x), x, seeds=range(4))


def test_a_small_entry_is_judged_by_its_own_size_where_f_is_exact():
    x = np.array([1.0, 1e-14, 2.0])
    assert check_vjp(np.square, lambda g, x: 2 * g * x, x).passed
    assert is_wrong(np.square, lambda g, x: 2 * g * np.where(x < 1e-12, -x, x), x)


def test_an_exact_zero_lowers_no_demand():
    x = np.array([0.0, 1.0, 2.0])
    assert check_vjp(np.sin, lambda g, x: g * np.cos(x), x).inputs[0].demanded > 11
    assert is_wrong(np.sin, lambda g, x: g * np.cos(x) * (1 + 1e-10), x, seeds=range(4))


# -- where many kinks meet, and where numbers are very small or very large


def sort_vjp(g, x):
    d = np.empty_like(x)
    d[np.argsort(x, kind="stable")] = g
    return d


def median(x):
    return np.sort(x)[len(x) // 2]


def median_vjp(g, x):
    d = np.zeros_like(x)
    d[np.argsort(x, kind="stable")[len(x) // 2]] = g
    return d


@pytest.mark.parametrize("values", [[0.0, 0, 0], [1.0, 1, 1, 0, 3], [0.0] * 5])
@pytest.mark.parametrize("f, vjp", [(np.sort, sort_vjp), (median, median_vjp)])
def test_any_order_of_tied_numbers_is_a_right_gradient(f, vjp, values):
    x = np.array(values)
    for seed in range(6):
        assert check_vjp(f, vjp, x, seed=seed).passed
    assert is_wrong(f, lambda g, x: 2 * vjp(g, x), x, seeds=range(6))


@pytest.mark.parametrize("values", [[400.0, 1.0], [300.0, -300.0, 1.0, 600.0], [-700.0, -600.0]])
def test_squares_that_overflow_are_not_taken(values):
    for seed in range(6):
        report = check_vjp(
            np.exp, lambda g, x: g * np.exp(x), np.array(values), seed=seed, raises=False
        )
        assert report.inputs[0].verdict != "wrong"


def test_a_variance_that_is_not_analytic_is_outvoted_at_the_second_point_too():
    def normalise(x):  # np.var takes |·|² of complex numbers
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    def vjp(g, x):
        s = np.sqrt(x.var() + 1e-5)
        y = (x - x.mean()) / s
        return (g - g.mean() - y * (g * y).mean()) / s

    for seed in range(8):
        assert check_vjp(normalise, vjp, np.array([50.0, 50.0, 50.0]), seed=seed).passed


def test_small_numbers_beside_large_ones_are_near_their_kinks():
    x = np.full((3, 3), 1e-12)
    x[0, 0] = 1
    for seed in range(8):
        report = check_vjp(
            lambda x: np.maximum(x, 0), lambda g, x: g * (x > 0), x, seed=seed, raises=False
        )
        assert report.inputs[0].verdict != "wrong"


def test_a_norm_of_tiny_numbers_does_not_underflow_in_the_complex_step():
    x = np.array([8.9e-140, 3e-140])
    assert check_vjp(
        lambda x: np.sqrt((x * x).sum()), lambda g, x: g * x / np.sqrt((x * x).sum()), x
    ).passed
