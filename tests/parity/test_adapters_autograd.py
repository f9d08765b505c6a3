"""check_autograd: functions of HIPS autograd, and the rules that users give to it."""

import numpy as np
import pytest

from minibn.testing import GradientError, check_autograd

autograd = pytest.importorskip("autograd", reason="HIPS autograd is not installed")
anp = pytest.importorskip("autograd.numpy")
extend = pytest.importorskip("autograd.extend")

rng = np.random.default_rng(0)
P = {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2)}
X = rng.standard_normal((4, 3))


@extend.primitive
def cube(x):
    return x**3


def layer(p, x):
    return {"y": anp.tanh(anp.dot(x, p["w"]) + p["b"]), "norm": anp.sum(p["w"] ** 2)}


@pytest.mark.parametrize("factor, right", [(3, True), (2, False)])
def test_the_rule_of_a_primitive_is_checked_under_its_name(factor, right):
    extend.defvjp(cube, lambda ans, x: lambda g: factor * g * x**2)
    report = check_autograd(cube, X, raises=False)
    assert report.passed is right and report.name == "cube"


def test_parameters_in_a_dict_and_several_outputs():
    report = check_autograd(layer, P, X)
    assert [e.label for e in report.inputs] == ["input 0['w']", "input 0['b']", "input 1"]
    assert report.name == "layer"


def test_complex_gradients_are_in_autograds_convention():
    z = X[0] + 1j * X[1]
    for f in (lambda z: z**2, lambda z: anp.sum(anp.abs(z) ** 2), lambda z: anp.real(z) * z):
        assert check_autograd(f, z).passed
        with pytest.raises(GradientError, match="in the other convention"):
            check_autograd(f, z, complex_convention="pytorch")


@pytest.mark.parametrize("x", [0.5, np.float32(0.5), X.astype(np.float32), [0.5, 1.0]], ids=str)
def test_numbers_and_float32_are_checked(x):
    report = check_autograd(anp.sin, x)
    assert report.passed and report.name == "sin"


def test_only_what_is_chosen_is_differentiated():
    def pick(x, index):
        return x[index] * 2

    assert check_autograd(pick, X, np.array([0, 2]), wrt=[0]).passed
