"""Smooth functions of each entry."""

import math

import numpy as np

from minibn.testing.strategies import nonzero, positive, within
from suite.functions.function import function, normal

_erf = np.vectorize(math.erf, otypes=[float])
_erfc = np.vectorize(math.erfc, otypes=[float])


def sigma(x):
    """1 / (1 + e⁻ˣ), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


@function(at=[normal(2, 3)])
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@sigmoid.right
def sigmoid_vjp(g, x):
    s = sigmoid(x)
    return g * s * (1 - s)


@sigmoid.wrong()
def sigmoid_one_in_ten_thousand_too_high(g, x):
    """A constant in the code has four digits."""
    return g * sigmoid(x) * (1 - sigmoid(x)) * 1.0001


@sigmoid.wrong(at=[np.array([-2.0, -8.0, 0.5])])
def sigmoid_gives_up_in_the_tail(g, x):
    """Where the output is below 0.001 the gradient is taken for zero."""
    s = sigmoid(x)
    return g * np.where(s < 1e-3, 0.0, s * (1 - s))


SATURATED = "1 - s is rounded: few digits of the gradient are left."
sigmoid.hard("sigmoid_at_25", np.array([25.0, -3.0]), why=SATURATED)
sigmoid.hard("sigmoid_at_30", np.array([30.0]), why=SATURATED)
sigmoid.hard("sigmoid_at_33_and_36", np.array([33.0, 36.0, 1.0]), why=SATURATED)
sigmoid.hard("sigmoid_all_saturated", np.array([26.0, 28.0, 34.0]), why=SATURATED)
sigmoid.hard(
    "sigmoid_at_40", np.array([40.0, 38.0]), why="1 - s is 0, all is flat.", ends=("vacuous",)
)
sigmoid.hard("sigmoid_far_below", np.array([-25.0, -40.0]), why="Values of 1e-11 and 1e-18.")


@function(at=[normal(2, 3), np.array([0.7])])
def tanh(x):
    return np.tanh(x)


@tanh.right
def tanh_vjp(g, x):
    return g * (1 - np.tanh(x) ** 2)


@tanh.wrong()
def tanh_of_the_output(g, x):
    """tanh is applied to what is already the output."""
    return g * (1 - np.tanh(np.tanh(x)) ** 2)


tanh.hard("tanh_at_15", np.array([15.0, 0.5]), why=SATURATED)
tanh.hard("tanh_at_17_and_18", np.array([17.0, -18.0]), why=SATURATED, ends=("vacuous",))
tanh.hard("tanh_within_50", np.linspace(-50, 50, 6), why=SATURATED, ends=("vacuous",))
tanh.hard("tanh_of_tiny_values", np.array([1e-12, -3e-12]), why="Steps of 1e-3 are huge here.")


@function(at=[np.array([0.5, 2.0, 5.0])], domains=positive)
def log1p(x):
    return np.log1p(x)


@log1p.right
def log1p_vjp(g, x):
    return g / (1 + x)


@log1p.wrong()
def log1p_taken_for_log(g, x):
    """1 / x for 1 / (1 + x)."""
    return g / x


log1p.hard("log1p_of_tiny_values", np.array([1e-12, 2e-13]), why="The slope is 1 to 12 digits.")
log1p.hard("log1p_near_the_edge", np.array([-1 + 1e-6, 3.0]), why="It ends at -1.")


@function(at=[normal(4)])
def expm1(x):
    return np.expm1(x)


@expm1.right
def expm1_vjp(g, x):
    return g * np.exp(x)


@expm1.wrong()
def expm1_uses_its_output(g, x):
    """The output of exp is its own derivative; that of expm1 is not."""
    return g * np.expm1(x)


expm1.hard("expm1_of_tiny_values", np.array([1e-12, -1e-12]), why="exp(x) - 1 would be noise.")
expm1.hard("expm1_far_below", np.array([-30.0, -20.0, 0.1]), why="The value is -1 to 13 digits.")


@function(at=[np.array([0.3, 2.0, 5.0]), np.array([1.0, 4.0])], domains=positive)
def sqrt(x):
    return np.sqrt(x)


@sqrt.right
def sqrt_vjp(g, x):
    return g * 0.5 / np.sqrt(x)


@sqrt.wrong(at=[np.array([0.3, 2.0, 5.0])])
def sqrt_with_a_clipped_output(g, x):
    """The denominator is kept above 0.7, so small inputs get too little."""
    return g * 0.5 / np.maximum(np.sqrt(x), 0.7)


@sqrt.wrong()
def sqrt_with_an_epsilon(g, x):
    """1e-6 is added to the denominator only in the backward pass."""
    return g * 0.5 / (np.sqrt(x) + 1e-6)


sqrt.hard("sqrt_near_zero", np.array([1e-12, 1e-8, 1.0]), why="The slope is 5e5.")
sqrt.hard("sqrt_of_huge_values", np.array([1e12, 3e12]), why="The slope is 5e-7.")


@function(at=[normal(2, 3)])
def erf(x):
    return _erf(x)


@erf.right
def erf_vjp(g, x):
    return g * 2 / np.sqrt(np.pi) * np.exp(-x * x)


@erf.wrong()
def erf_with_half_its_constant(g, x):
    """1/√π for 2/√π."""
    return g / np.sqrt(np.pi) * np.exp(-x * x)


erf.hard("erf_in_the_tail", np.array([3.5, -4.5, 0.1]), why="The value is 1 to ten digits.")
erf.hard(
    "erf_far_out",
    np.array([5.0, -5.5]),
    why="The slope is 1e-11.",
    ends=("vacuous", "inconclusive"),
)


@function(at=[normal(2, 3)], domains=within(3.0))
def erfc(x):
    return _erfc(x)


@erfc.right
def erfc_vjp(g, x):
    return g * -2 / np.sqrt(np.pi) * np.exp(-x * x)


@erfc.wrong()
def erfc_with_the_sign_of_erf(g, x):
    """The minus is missing."""
    return g * 2 / np.sqrt(np.pi) * np.exp(-x * x)


erfc.hard("erfc_in_the_tail", np.array([5.0, 4.0]), why="Values of 1e-12, exact to every digit.")


@function(
    at=[(np.array([0.5, 2.0, 1.1]), np.array([2.0, -1.0, 0.5]))], domains=(positive, within(3.0))
)
def power(x, p):
    return x**p


@power.right
def power_vjp(g, x, p):
    return g * p * x ** (p - 1), g * x**p * np.log(x)


@power.wrong()
def power_with_an_epsilon_in_the_logarithm(g, x, p):
    """log(x + 1e-8) in the gradient of the exponent: eight digits are right."""
    return g * p * x ** (p - 1), g * x**p * np.log(x + 1e-8)


@power.wrong()
def power_without_the_logarithm(g, x, p):
    """The gradient of the exponent lacks log x."""
    return g * p * x ** (p - 1), g * x**p


@power.wrong()
def power_with_no_gradient_for_the_exponent(g, x, p):
    """The exponent is taken for a constant."""
    return g * p * x ** (p - 1), np.zeros_like(p)


@function(at=[np.array([0.0, 2.0, -1.0])])
def cube(x):
    return x**3


@cube.right
def cube_vjp(g, x):
    return 3 * g * x**2


@cube.wrong()
def cube_by_division(g, x):
    """p · y / x is NaN where x is 0."""
    return 3 * g * x**3 / x


@cube.wrong()
def cube_loses_its_sign(g, x):
    """3 x |x| for 3 x²: wrong for negative inputs only."""
    return 3 * g * x * np.abs(x)


cube.hard("cube_at_zeros", np.zeros(3), why="Gradient and slopes are 0.", ends=("vacuous",))
cube.hard("cube_at_one_zero", np.array([0.0, 1.5]), why="One entry of the gradient is 0.")
cube.hard("cube_of_both_scales", np.array([1e-6, 1e6]), why="Slopes of 3e-12 and 3e12.")


@function(at=[(np.array([0.5, -2.0]), np.array([1.0, -1.0]))], domains=nonzero)
def arctan2(y, x):
    return np.arctan2(y, x)


@arctan2.right
def arctan2_vjp(g, y, x):
    return g * x / (x * x + y * y), -g * y / (x * x + y * y)


@arctan2.wrong()
def arctan2_with_swapped_arguments(g, y, x):
    """The signs are those of arctan2(x, y)."""
    return -g * x / (x * x + y * y), g * y / (x * x + y * y)


@function(at=[(np.array([0.5, -2.0]), np.array([1.0, -1.0]))])
def logaddexp(a, b):
    return np.logaddexp(a, b)


@logaddexp.right
def logaddexp_vjp(g, a, b):
    return g * sigma(a - b), g * sigma(b - a)


@logaddexp.wrong()
def logaddexp_with_swapped_weights(g, a, b):
    """The weight of a goes to b."""
    return g * sigma(b - a), g * sigma(a - b)


logaddexp.hard(
    "logaddexp_of_large_values", (np.array([700.0, -900.0]), np.array([701.0, -899.0])),
    why="Each exponential alone overflows or vanishes.",
)  # fmt: skip
