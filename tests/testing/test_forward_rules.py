"""check_jvp: forward rules are judged as gradients are; and what an adapter says without its
package."""

import sys

import numpy as np
import pytest

from minibn.testing import (
    GradientError,
    Vacuous,
    check_autograd,
    check_jax,
    check_jvp,
    check_torch,
)  # fmt: skip

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((2, 4, 3))
BIG = rng.standard_normal((50, 40))


def product(x, y):
    return x * y


def product_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return x * dy + dx * y


WRONG = {
    "a factor": lambda p, t: 2 * product_jvp(p, t),
    "one tangent is forgotten": lambda p, t: p[0] * t[1],
    "swapped": lambda p, t: product_jvp(p, t[::-1]),
}


def test_a_right_rule_passes_in_either_form():
    assert check_jvp(product, product_jvp, X, Y).digits > 14
    assert check_jvp(product, lambda p, t: (product(*p), product_jvp(p, t)), X, Y).passed


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_rule_is_found(kind):
    with pytest.raises(GradientError, match="product, forward rule: FAILED") as caught:
        check_jvp(product, WRONG[kind], X, Y)
    assert "WRONG" in str(caught.value)


def test_a_rule_must_be_linear_in_all_tangents_together():
    with pytest.raises(GradientError, match="not linear in the tangents"):
        check_jvp(product, lambda p, t: product_jvp(p, t) + t[0] * t[1], X, Y)
    with pytest.raises(GradientError):
        check_jvp(product, lambda p, t: product_jvp(p, t) + 1.0, X, Y)


def test_the_first_of_a_pair_must_be_the_value():
    with pytest.raises(GradientError, match="first result of the jvp is not f's value"):
        check_jvp(product, lambda p, t: (p[0] + p[1], product_jvp(p, t)), X, Y)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_large_input_is_moved_along_random_directions_and_the_report_says_so(dtype):
    def rule(p, t, power=2):
        return ((1 - np.tanh(p[0]) ** power) * t[0]).sum(0)

    def f(x):
        return np.tanh(x).sum(0)

    report = check_jvp(f, rule, BIG.astype(dtype))
    assert "4 random directions" in str(report) and report.inputs[0].shape == (50, 40)
    with pytest.raises(GradientError, match="WRONG"):
        check_jvp(f, lambda p, t: rule(p, t, power=1), BIG.astype(dtype))


def test_containers_integers_and_complex_numbers_go_in_and_out():
    def f(p, index):
        return {"y": p["w"][index] ** 2, "n": p["n"]}

    def rule(primals, tangents):
        (p, index), (t, nothing) = primals, tangents
        assert nothing is None and t["n"] is None
        return {"n": None, "y": 2 * p["w"][index] * t["w"][index]}

    p = {"w": X[0] + 1j * X[1], "n": 3}
    report = check_jvp(f, rule, p, np.array([0, 2]), wrt=[0])
    assert report.inputs[0].label == "input 0['w']" and report.inputs[0].dtype == "complex128"


FORMS = {
    "a tangent of shape": lambda p, t: product_jvp(p, t).sum(),
    "modifies its tangents in place": lambda p, t: (t[0].__imul__(2), product_jvp(p, t))[1],
    "the vjp modifies input 0 in place": lambda p, t: (p[0].__imul__(2), product_jvp(p, t))[1],
}


@pytest.mark.parametrize("message", FORMS)
def test_a_rule_of_another_form_is_found(message):
    with pytest.raises(GradientError, match=message):
        check_jvp(product, FORMS[message], X, Y)


def test_zeros_are_no_evidence():
    with pytest.raises(Vacuous):
        check_jvp(lambda x: x - x, lambda p, t: 0 * t[0], X)
    assert check_jvp(lambda x: x - x, lambda p, t: 0 * t[0], X, zero_gradient=[0]).passed


@pytest.mark.parametrize(
    "check, module, message",
    [
        (check_torch, "torch", "check_torch needs PyTorch: pip install torch"),
        (check_jax, "jax", "check_jax needs JAX: pip install jax"),
        (check_autograd, "autograd", "check_autograd needs HIPS autograd: pip install autograd"),
    ],
)
def test_without_the_package_its_installation_is_named(check, module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=message):
        check(np.tanh, X)
