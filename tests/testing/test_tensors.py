"""check_gradients: first and second derivatives of functions of Tensors, on every backend.

What it shares with check_vjp is tested in `test_check.py`.
"""

import numpy as np
import pytest

from minibn import Op, Tensor, apply, no_grad, ops
from minibn.autograd.tensor import value
from minibn.backend import get_backend
from minibn.testing import (
    GradientError,
    Problem,
    Vacuous,
    check_gradients,
    check_problem,
    forward_and_vjp,
)

X = np.array([[0.3, -1.2, 2.0], [0.7, 0.1, -0.4]])
TIES = np.array([0.0, 1.0, -2.0, 0.0])


class Exp(Op):
    """exp, with whatever gradient it is given."""

    needs_output = True

    def __init__(self, slope):
        self.slope = slope

    def forward(self, x):
        return np.exp(x)

    def vjp(self, g, out, x):
        return self.slope(g, out, x)


def exp_with(slope):
    return lambda x: apply(Exp(slope), x)


def slightly_wrong(g, out, x):
    return g * out * 1.000001


def blind_to_its_input(g, out, x):
    """Right at first order. The second derivative by x is lost: `out` is a constant here."""
    return g * value(out)


def blind_to_its_cotangent(g, out, x):
    return value(g) * out


def right_at_one_point(g, out, x):
    """The gradient at X and no other point: its derivative is that of another function."""
    return g * out + g * (x - X)


# -- first order


def test_a_right_gradient_agrees_to_nearly_all_digits():
    report = check_gradients(lambda x, y: ops.tanh(x) * y, X, X[0])
    assert report.digits > 14
    assert [x.shape for x in report.inputs] == [(2, 3), (3,)]


def test_a_gradient_that_is_wrong_by_a_millionth_is_found_and_named():
    with pytest.raises(GradientError, match=r"WRONG: 6\.0 digits agree") as found:
        check_gradients(exp_with(slightly_wrong), X, name="exp of mine")
    assert str(found.value).startswith("exp of mine: FAILED")
    assert not check_gradients(exp_with(slightly_wrong), X, raises=False, diagnose=False).screen


def test_tensors_and_arrays_of_a_backend_are_inputs_too_and_stay_as_they_were(backend):
    x, y = (Tensor(backend.asarray(a), requires_grad=True) for a in (X, X + 3))
    (x * y).sum().backward()
    before = x.grad.numpy().copy()
    with no_grad():
        assert check_gradients(lambda x, y: x / y, x, y.data, backend=backend).passed
    np.testing.assert_array_equal(x.numpy(), X)
    np.testing.assert_array_equal(x.grad.numpy(), before)


def test_an_input_that_the_function_ignores_is_vacuous_until_it_is_declared():
    with pytest.raises(Vacuous, match="input 1"):
        check_gradients(lambda x, y: ops.exp(x), X, X)
    report = check_gradients(lambda x, y: ops.exp(x), X, X, zero_gradient=[1])
    assert [x.verdict for x in report.inputs] == ["agrees", "zero"]


def test_arrays_without_entries_have_to_be_allowed():
    with pytest.raises(Vacuous, match="no entries"):
        check_gradients(ops.exp, X[:0])
    for order in (1, 2):
        assert check_gradients(ops.exp, X[:0], order=order, allow_empty=True).passed


def test_a_reference_of_numpy_judges_values_and_derivatives():
    assert check_gradients(ops.exp, X, reference=np.exp).inputs[0].oracles["reference"] > 8
    with pytest.raises(GradientError, match="and the reference"):
        check_gradients(ops.exp, X, reference=np.expm1)


def test_a_promised_convention_is_kept_at_a_kink():
    def promised(g, x):
        return g * (x > 0)

    report = check_gradients(ops.relu, TIES, convention=promised)
    assert report.inputs[0].kinks == 2
    with pytest.raises(GradientError, match="the documented convention promises"):
        check_gradients(ops.relu, TIES, convention=lambda g, x: g * (x >= 0))


@pytest.mark.parametrize("dtype, low, high", [("f8", 14, 16), ("f4", 5, 9), ("f2", 2, 5)])
def test_each_precision_is_judged_by_its_own_rounding(dtype, low, high):
    report = check_gradients(ops.tanh, X.astype(dtype))
    assert report.inputs[0].dtype == np.dtype(dtype)
    assert low < report.digits < high


# -- second order


@pytest.mark.parametrize("slope", [blind_to_its_input, blind_to_its_cotangent])
def test_a_vjp_that_is_right_at_first_order_and_wrong_at_second_is_found(slope):
    assert check_gradients(exp_with(slope), X).passed
    with pytest.raises(GradientError, match="exp of mine, second derivatives: FAILED"):
        check_gradients(exp_with(slope), X, order=2, name="exp of mine")


def test_a_gradient_that_is_right_at_one_point_alone_is_found():
    """Its Hessian belongs to it, and it is right at the point: the values nearby say otherwise."""
    with pytest.raises(GradientError, match="right at this point, and wrong at another"):
        check_gradients(exp_with(right_at_one_point), X)


def test_a_wrong_gradient_is_reported_before_its_derivative_is_looked_at():
    with pytest.raises(GradientError) as found:
        check_gradients(exp_with(slightly_wrong), X, order=2)
    assert "second derivatives" not in found.value.report.name


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * 3 - 1,
        lambda x: x @ np.arange(6.0).reshape(3, 2),
        lambda x: ops.pad(x, ((1, 0), (0, 2))).T,
    ],
    ids=["scale and shift", "matrix product", "moves"],
)
def test_a_linear_function_passes_at_second_order(f):
    """Its Hessian by x is zero, but its gradient depends on the cotangent."""
    report = check_gradients(f, X, order=2)
    assert [x.verdict for x in report.inputs] == ["agrees", "agrees"]  # x, the cotangent


def test_a_flat_function_passes_at_second_order_where_it_is_declared():
    negative = -np.abs(X)
    with pytest.raises(Vacuous):
        check_gradients(ops.relu, negative, order=2)
    assert check_gradients(ops.relu, negative, order=2, zero_gradient=[0]).passed


def test_second_derivatives_across_two_inputs_are_compared():
    def f(x, y):
        return ops.tanh(x) * y + ops.exp(y)

    report = check_gradients(f, X, X[0], order=2)
    assert [x.shape for x in report.inputs] == [(2, 3), (3,), (2, 3)]  # and the cotangent
    assert report.digits > 13


def test_derivatives_are_taken_inside_no_grad_too():
    with no_grad():
        assert check_gradients(ops.tanh, X, order=2).passed


@pytest.mark.parametrize("order", [0, 3, None])
def test_another_order_is_refused(order):
    with pytest.raises(ValueError, match="gradients are 1, second derivatives 2"):
        check_gradients(ops.tanh, X, order=order)


# -- backends


class WrongOnDevices(Op):
    """x², whose derivative of this order is right on NumPy alone."""

    def __init__(self, order):
        self.order = order

    def forward(self, x):
        return x * x

    def vjp(self, g, out, x):
        if isinstance(value(x), np.ndarray):
            return g * x * 2
        return g * x * 3 if self.order == 1 else g * value(x) * 2


def wrong_on_devices(order):
    return lambda x: apply(WrongOnDevices(order), x)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_computed_on_the_backend_that_is_named(order):
    strict = get_backend("strict")
    assert check_gradients(ops.tanh, X, backend="strict", order=order).passed
    assert check_gradients(ops.tanh, X, backend=strict, order=order).passed
    assert check_gradients(wrong_on_devices(order), X, order=order).passed
    with pytest.raises(GradientError, match="WRONG"):
        check_gradients(wrong_on_devices(order), X, backend="strict", order=order)


# -- a problem, and the pair of functions behind it


def test_a_problem_brings_its_seed_and_its_flat_inputs_and_may_be_empty():
    flat = Problem(lambda x, y: ops.exp(x) + 0 * y, (X, X), seed=7, flat=frozenset({1}))
    report = check_problem(flat)
    assert report.seed == 7
    assert report.inputs[1].verdict == "zero"
    assert check_problem(flat, order=2).passed
    assert check_problem(Problem(ops.exp, (X[:0],)), backend="strict", order=2).passed


def test_a_problem_with_a_wrong_gradient_raises_unless_the_report_is_wanted():
    problem = Problem(exp_with(slightly_wrong), (X,))
    with pytest.raises(GradientError):
        check_problem(problem)
    assert not check_problem(problem, raises=False).passed


@pytest.mark.parametrize("order", [1, 2])
def test_a_problem_is_checked_on_the_backend_and_to_the_order_that_are_named(order):
    problem = Problem(wrong_on_devices(order), (X,))
    assert check_problem(problem, order=order).passed
    for backend in ("strict", get_backend("strict")):
        with pytest.raises(GradientError):
            check_problem(problem, backend, order)


def test_a_function_of_tensors_becomes_a_pair_of_functions_on_arrays(backend):
    f, vjp = forward_and_vjp(lambda x, y, z: ops.exp(x) * y, backend)
    g = np.arange(6.0).reshape(2, 3)
    with no_grad():
        dx, dy, dz = vjp(g, X, X[0], X)
    np.testing.assert_allclose(f(X, X[0], X), np.exp(X) * X[0], rtol=1e-15)
    np.testing.assert_allclose(dx, g * np.exp(X) * X[0], rtol=1e-15)
    np.testing.assert_allclose(dy, (g * np.exp(X)).sum(0), rtol=1e-14)
    assert not dz.any()
    assert {type(a) for a in (f(X, X[0], X), dx, dy, dz)} == {np.ndarray}
