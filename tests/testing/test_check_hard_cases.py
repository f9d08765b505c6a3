"""check_vjp where it is hard to be right: noise, kinks, domains, state. Each was once wrong."""

import pickle

import numpy as np
import pytest

from minibn.testing import GradientError, check_vjp

SEEDS = range(6)


def points(*shape, low=-2.0, high=2.0):
    return [np.random.default_rng(seed).uniform(low, high, shape) for seed in SEEDS]


# -- what can't be seen is not called right


@pytest.mark.parametrize("factor", [1.1, -1.0])
def test_behind_a_huge_constant_nothing_can_be_judged(factor):
    for x in points(4):
        with pytest.raises(GradientError, match=r"INCONCLUSIVE|WRONG"):
            check_vjp(
                lambda x: 1e10 + 1e-3 * np.abs(x), lambda g, x: factor * 1e-3 * g * np.sign(x), x
            )


def test_a_function_that_computes_in_float32_inside_is_judged_by_that():
    def f(x):
        return np.tanh(x.astype(np.float32)).astype(float) if x.dtype.kind == "f" else None

    for x in points(2, 3):
        assert check_vjp(f, lambda g, x: g * (1 - np.tanh(x) ** 2), x).passed
        with pytest.raises(GradientError):
            check_vjp(f, lambda g, x: g * (1 - np.tanh(x)), x)


def test_small_numbers_are_moved_by_small_steps():
    for x in points(1, low=1e-7, high=1e-6):
        assert check_vjp(lambda x: 1 / x, lambda g, x: -g / x**2, x).digits > 12
        assert check_vjp(lambda x: 1 / np.abs(x), lambda g, x: -g / x**2, x).digits > 6


def test_entries_that_are_too_small_to_be_judged_are_counted():
    x = np.array([1e10, 1e-3, 2.0])
    report = check_vjp(lambda x: np.asarray((x**2).sum()), lambda g, x: 2 * g * x, x)
    assert report.inputs[0].too_small == 1
    assert "1 too small to judge" in str(report)


# -- kinks


def test_kinks_of_both_kinds_in_one_output_are_judged_entry_by_entry():
    def f(x):
        return np.asarray(np.maximum(x[0], 0) - np.maximum(x[1], 0) + x[2] ** 2)

    def vjp(g, x):
        return g * np.array([x[0] > 0, -1.0 * (x[1] > 0), 2 * x[2]])

    for seed in SEEDS:
        assert check_vjp(f, vjp, np.array([0.0, 0.0, 1.5]), seed=seed).inputs[0].kinks == 1


@pytest.mark.parametrize("size", [30, 1000])
def test_kinks_excuse_no_error_elsewhere(size):
    x = np.random.default_rng(0).standard_normal(size)
    x[:10] = 0

    def f(x):
        return np.asarray(np.abs(x).sum())

    assert check_vjp(f, lambda g, x: g * np.sign(x), x).passed
    with pytest.raises(GradientError, match="beside the kinks"):
        check_vjp(f, lambda g, x: 1.1 * g * np.sign(x), x)


# -- f and its vjp beside the point


def test_a_function_that_checks_its_domain_is_not_asked_outside_of_it():
    def log(x):
        if (x.real <= 0).any():
            raise ValueError("x must be positive")
        return np.log(x)

    def vjp(g, x):
        log(x)
        return g / x

    for x in points(3, low=1e-3, high=0.1):
        assert check_vjp(log, vjp, x).passed


def test_cholesky_takes_only_what_is_positive_definite():
    def f(a):
        return np.linalg.cholesky((a + a.T) / 2)

    def vjp(g, a):  # Murray 2016, eq. 10
        low = f(a)
        middle = np.tril(low.T @ g)
        middle[np.diag_indices(3)] /= 2
        inverse = np.linalg.inv(low)
        s = inverse.T @ middle @ inverse
        return (s + s.T) / 2

    for seed in SEEDS:
        m = np.random.default_rng(seed).standard_normal((3, 3))
        assert check_vjp(f, vjp, m @ m.T + 0.05 * np.eye(3)).passed


def test_at_the_very_edge_of_a_domain_nothing_can_be_judged():
    def f(x):
        if (abs(x) > 1).any():
            raise ValueError("outside [-1, 1]")
        return np.real(x) ** 3

    for seed in SEEDS:
        with pytest.raises(GradientError, match="INCONCLUSIVE"):
            check_vjp(f, lambda g, x: 3 * g * x**2, np.array([0.5, 1.0]), seed=seed)


def test_an_error_of_the_function_itself_comes_through():
    with pytest.raises(ZeroDivisionError, match="mine"):
        check_vjp(
            lambda x: (_ for _ in ()).throw(ZeroDivisionError("mine")), lambda g, x: g, np.ones(2)
        )


def test_what_looks_affine_and_is_not_is_noticed():
    for x in points(4):
        assert check_vjp(lambda x: np.real(x) % 1.0, lambda g, x: 1 * g, x).passed
        assert check_vjp(
            lambda x: np.floor(np.real(x)) + 2 * np.real(x), lambda g, x: 2 * g, x
        ).passed


# -- state


class Layer:
    """A layer as most write it: backward uses what the last forward saw."""

    def forward(self, x):
        self.x = x
        return x**3

    def backward(self, g):
        return 3 * g * self.x**2


def test_a_backward_that_uses_the_last_forward_is_told_on():
    layer = Layer()
    x = np.array([0.5, -2.0])
    with pytest.raises(GradientError, match="what the last forward pass left"):
        check_vjp(layer.forward, lambda g, x: layer.backward(g), x)
    assert check_vjp(layer.forward, lambda g, x: (layer.forward(x), layer.backward(g))[1], x).passed


# -- rounding is no mistake


def test_a_softmax_that_is_nearly_certain_is_linear_all_the_same():
    def softmax(x):
        e = np.exp(x - x.real.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def vjp(g, x):
        y = softmax(x)
        return y * (g - (g * y).sum(1, keepdims=True))

    for x in points(3, 5, low=-50, high=50):
        report = check_vjp(softmax, vjp, x, raises=False, zero_gradient=())
        assert "not linear" not in " ".join(report.faults)


# -- arguments


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"wrt": [3]}, r"wrt=\[3\]: name positions from 0 to 0"),
        ({"wrt": [0, 0]}, "each once"),
        ({"wrt": []}, "name positions"),
        ({"zero_gradient": [5]}, r"zero_gradient names \[5\]"),
        ({"convention": lambda g, x: np.zeros(7)}, "a gradient of each input's shape"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check_vjp(lambda x: x**3, lambda g, x: 3 * g * x**2, np.ones(3), **settings)


def test_a_position_may_be_given_from_the_end_or_alone():
    def vjp(g, x, labels):
        return 1 * g, None

    for wrt in (-2, 0, [0], [-2]):
        assert check_vjp(lambda x, labels: x * 1, vjp, np.ones(3), np.arange(3), wrt=wrt).passed


@pytest.mark.parametrize("wrong", ["text", {"a": 1}, np.array([1, None])], ids=str)
def test_a_vjp_that_returns_something_else_is_told_so(wrong):
    with pytest.raises(GradientError, match=r"not an array of floats|a gradient of shape"):
        check_vjp(lambda x: x**3, lambda g, x: wrong, np.ones(2))


def test_an_infinite_entry_is_wrong_and_not_a_warning():
    def vjp(g, x):
        dx = 3 * g * x**2
        dx[1] = np.inf
        return dx

    with pytest.raises(GradientError):
        check_vjp(lambda x: x**3, vjp, np.ones(3))


def test_other_byte_orders_are_read_and_longer_floats_refused():
    x = np.array([0.5, -2.0])
    assert check_vjp(lambda x: x**3, lambda g, x: 3 * g * x**2, x.astype(">f8")).passed
    with pytest.raises(TypeError, match="only float64, float32 and float16"):
        check_vjp(lambda x: x**3, lambda g, x: 3 * g * x**2, x.astype(np.longdouble))


def test_a_failure_can_be_sent_to_another_process():
    with pytest.raises(GradientError) as caught:
        check_vjp(lambda x: x**3, lambda g, x: g, np.array([0.5, -2.0]))
    there = pickle.loads(pickle.dumps(caught.value))
    assert str(there) == str(caught.value)
