"""More smooth functions of each entry: periodic ones, inverses, those with a limit at a point."""

import numpy as np

from minibn.testing.strategies import nonzero, positive, within
from suite.functions.elementwise import sigma
from suite.functions.function import function, normal


@function(at=[normal(4)])
def sine(x):
    return np.sin(x)


@sine.right
def sine_vjp(g, x):
    return g * np.cos(x)


@sine.wrong()
def sine_of_degrees(g, x):
    """The factor π/180 of another unit."""
    return g * np.cos(x) * np.pi / 180


@sine.wrong()
def sine_by_its_series(g, x):
    """cos x is cut after x⁴: good near 0 only."""
    return g * (1 - x**2 / 2 + x**4 / 24)


sine.hard("sine_at_large_arguments", np.array([1e4, -3e5, 7.0]), why="One ulp of x is visible.")
sine.hard("sine_at_a_maximum", np.array([np.pi / 2, 1.0]), why="One slope is 6e-17.")
sine.hard("sine_of_tiny_values", np.array([1e-12, 1e-9]), why="sin x = x to every digit.")


@function(at=[np.array([1.0, 12.0]), 20 * normal(6)], domains=nonzero)
def arctan(x):
    return np.arctan(x)


@arctan.right
def arctan_vjp(g, x):
    return g / (1 + x * x)


@arctan.wrong(at=[np.array([1.0, 12.0])])
def arctan_stops_beyond_ten(g, x):
    """The gradient of large inputs is cut to 0."""
    return g * np.where(np.abs(x) > 10, 0.0, 1 / (1 + x * x))


@arctan.wrong()
def arctan_taken_for_arsinh(g, x):
    """The square root belongs to another function."""
    return g / np.sqrt(1 + x * x)


arctan.hard("arctan_far_out", np.array([1e6, -1e7, 1.0]), why="Slopes of 1e-12 beside one of 1/2.")


@function(at=[np.array([0.2, 0.9, 0.5])], drawn="none")
def logit(p):
    return np.log(p) - np.log1p(-p)


@logit.right
def logit_vjp(g, p):
    return g / (p * (1 - p))


@logit.wrong()
def logit_of_the_odds(g, p):
    """1/p: the derivative of log(1 - p) is missing."""
    return g / p


logit.hard("logit_near_its_ends", np.array([1e-9, 1 - 1e-9]), why="Slopes of 1e9.")


@function(at=[np.array([0.5, 2.0])], domains=positive)
def log2(x):
    return np.log2(x)


@log2.right
def log2_vjp(g, x):
    return g / (x * np.log(2))


@log2.wrong()
def log2_taken_for_the_natural_logarithm(g, x):
    """log 2 is missing."""
    return g / x


@function(at=[(np.array([3.0, -1.0]), np.array([4.0, 0.5]))], domains=nonzero)
def hypot(x, y):
    return np.sqrt(x * x + y * y)


@hypot.right
def hypot_vjp(g, x, y):
    r = np.hypot(x, y)
    return g * x / r, g * y / r


@hypot.wrong()
def hypot_with_swapped_gradients(g, x, y):
    """Each input gets the gradient of the other one."""
    r = np.hypot(x, y)
    return g * y / r, g * x / r


hypot.hard("hypot_of_two_scales", (np.array([1e6, 1.0]), np.array([1.0, 1e-6])), why="y/r is 1e-6.")


@function(at=[np.array([0.5, -2.0, 8.0])], domains=nonzero)
def cube_root(x):
    return np.cbrt(x)


@cube_root.right
def cube_root_vjp(g, x):
    return g / (3 * np.cbrt(x) ** 2)


@cube_root.wrong(at=[np.array([0.5, -2.0])])
def cube_root_of_negative_numbers(g, x):
    """A fractional power of a negative number, whose NaN was replaced by 0."""
    return g * np.nan_to_num(x ** (-2 / 3)) / 3


@function(at=[np.array([0.5, -2.0])], domains=nonzero)
def reciprocal(x):
    return 1 / x


@reciprocal.right
def reciprocal_vjp(g, x):
    return -g / (x * x)


@reciprocal.wrong()
def reciprocal_keeps_its_sign(g, x):
    """The minus is missing."""
    return g / (x * x)


reciprocal.hard("reciprocal_of_tiny_values", np.array([1e-12, 2e-12]), why="A slope of 1e24.")
reciprocal.hard("reciprocal_of_huge_values", np.array([1e12, -2e12]), why="A slope of 1e-24.")


@function(at=[np.array([1.5, -0.5]), normal(2, 3)], domains=within(5.0))
def log_sigmoid(x):
    return -np.logaddexp(0, -x)


@log_sigmoid.right
def log_sigmoid_vjp(g, x):
    return g * sigma(-x)


@log_sigmoid.wrong()
def log_sigmoid_with_the_sigmoid_of_x(g, x):
    """σ(x) for 1 - σ(x)."""
    return g * sigma(x)


log_sigmoid.hard("log_sigmoid_at_30", np.array([30.0, 1.0]), why="A slope of 1e-13.")
log_sigmoid.hard("log_sigmoid_at_minus_800", np.array([-800.0, 2.0]), why="exp(800) overflows.")


@function(at=[normal(3)], domains=within(3.0))
def gaussian(x):
    return np.exp(-x * x / 2)


@gaussian.right
def gaussian_vjp(g, x):
    return -g * x * np.exp(-x * x / 2)


@gaussian.wrong()
def gaussian_with_twice_the_slope(g, x):
    """The half in the exponent is forgotten in the derivative."""
    return -2 * g * x * np.exp(-x * x / 2)


gaussian.hard("gaussian_at_its_top", np.array([0.0, 1.0]), why="One slope is 0.")
gaussian.hard("gaussian_all_at_the_top", np.zeros(2), why="Every slope is 0.", ends=("vacuous",))
gaussian.hard("gaussian_in_the_tail", np.array([6.0, 7.0]), why="Values of 1e-8 and 1e-11.")
