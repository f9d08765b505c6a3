"""Functions with a kink away from 0: relu6, hinge, soft threshold, knots of an interpolation.

At a kink the right gradient is any value between the slopes from both sides.
"""

import numpy as np

from suite.functions.function import function, normal
from suite.functions.kinks import AT_ITS_CONVENTION

KNOTS, HEIGHTS = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0])


@function(at=[np.array([0.0, 6.0, 3.0, 8.0]), 4 * normal(2, 3)])
def relu6(x):
    return np.minimum(np.maximum(x, 0), 6)


@relu6.right
def relu6_vjp(g, x):
    return g * ((x > 0) & (x < 6))


@relu6.wrong(at=[np.array([0.0, 6.0, 3.0, 8.0])])
def relu6_is_five_at_six(g, x):
    """5 at the upper bound."""
    return g * np.where(x == 6, 5.0, (x > 0) & (x < 6))


@relu6.wrong(at=[np.array([7.0, 3.0, -1.0])])
def relu6_without_its_upper_bound(g, x):
    """Written for relu: large inputs get a gradient."""
    return g * (x > 0)


relu6.hard("relu6_at_six", np.array([6.0, 0.0, 1.0]), why=AT_ITS_CONVENTION, convention=relu6_vjp)


@function(at=[np.array([1.0, 2.0, -1.0]), normal(4)])
def hinge(x):
    return np.maximum(0, 1 - x)


@hinge.right
def hinge_vjp(g, x):
    return -g * (x < 1)


@hinge.wrong(at=[np.array([1.0, 2.0, -1.0])])
def hinge_is_eight_at_its_margin(g, x):
    """8 where the margin is exactly 1."""
    return g * np.where(x == 1, 8.0, -1.0 * (x < 1))


@hinge.wrong(at=[np.array([0.3, 2.0, -1.0])])
def hinge_of_the_perceptron(g, x):
    """The margin is taken as 0."""
    return -g * (x < 0)


hinge.hard("hinge_at_its_margin", np.array([1.0, 0.0]), why=AT_ITS_CONVENTION, convention=hinge_vjp)


@function(at=[np.array([0.5, -0.5, 2.0, -3.0]), normal(4)])
def soft_threshold(x):
    return np.sign(x) * np.maximum(np.abs(x) - 0.5, 0)


@soft_threshold.right
def soft_threshold_vjp(g, x):
    return g * (np.abs(x) > 0.5)


@soft_threshold.wrong(at=[np.array([0.5, -0.5, 2.0, -3.0])])
def soft_threshold_is_two_at_its_threshold(g, x):
    """2 at the threshold."""
    return g * np.where(np.abs(x) == 0.5, 2.0, np.abs(x) > 0.5)


@soft_threshold.wrong(at=[np.array([0.2, -0.3, 2.0])])
def soft_threshold_forgets_its_threshold(g, x):
    """Small entries get their gradient, too."""
    return g.copy()


soft_threshold.hard("soft_threshold_at_its_threshold", np.array([0.5, 1.0]), why=AT_ITS_CONVENTION)


@function(at=[np.array([0.5, 1.0, 1.7]), np.array([0.3, 0.9, 1.4])], drawn="none")
def interpolation(x):
    return np.interp(x, KNOTS, HEIGHTS)


@interpolation.right
def interpolation_vjp(g, x):
    return g * np.where(x < 1, 1.0, -1.0) * ((x > 0) & (x < 2))


@interpolation.wrong(at=[np.array([0.5, 1.0, 1.7])])
def interpolation_is_minus_three_at_a_knot(g, x):
    """-3 at a knot."""
    return np.where(x == 1, -3 * g, interpolation_vjp(g, x))


@interpolation.wrong(at=[np.array([0.5, 1.5])])
def interpolation_takes_the_next_interval(g, x):
    """The slope belongs to the interval on the right."""
    return -interpolation_vjp(g, x)


interpolation.hard("interpolation_at_a_knot", np.array([1.0, 0.5]), why=AT_ITS_CONVENTION)
interpolation.hard(
    "interpolation_at_its_end", np.array([2.0, 0.5]), why="Flat beyond the last knot."
)


@function(at=[np.array([2.0, 1.0, 3.5]), np.array([0.5, 2.5])])
def at_least_two(x):
    return np.maximum(x, 2)


@at_least_two.right
def at_least_two_vjp(g, x):
    return g * (x > 2)


@at_least_two.wrong(at=[np.array([2.0, 1.0, 3.5])])
def at_least_two_is_five_at_two(g, x):
    """5 where the input equals the bound."""
    return g * np.where(x == 2, 5.0, x > 2)


at_least_two.hard("at_least_two_at_two", np.array([2.0, 3.0]), why=AT_ITS_CONVENTION)


@function(at=[np.array([-3.0, 3.0, 1.0]), 3 * normal(4)])
def hardswish(x):
    return x * np.clip(x + 3, 0, 6) / 6


@hardswish.right
def hardswish_vjp(g, x):
    return g * np.where(x < -3, 0.0, np.where(x < 3, (2 * x + 3) / 6, 1.0))


@hardswish.wrong(at=[np.array([-3.0, 3.0, 1.0])])
def hardswish_is_ten_at_its_joints(g, x):
    """10 at both joints."""
    return g * np.where(np.abs(x) == 3, 10.0, (2 * x + 3) / 6 * (np.abs(x) < 3) + (x > 3))


@hardswish.wrong(at=[np.array([1.0, -1.0, 2.0])])
def hardswish_with_a_constant_gate(g, x):
    """The gate's own derivative is missing."""
    return g * np.clip(x + 3, 0, 6) / 6


hardswish.hard("hardswish_at_its_joints", np.array([3.0, -3.0, 0.5]), why=AT_ITS_CONVENTION)


@function(at=[np.array([1.0, 0.3, 2.5]), normal(4)])
def distance_from_one(x):
    return np.abs(x - 1)


@distance_from_one.right
def distance_from_one_vjp(g, x):
    return g * np.sign(x - 1)


@distance_from_one.wrong(at=[np.array([1.0, 0.3, 2.5])])
def distance_from_one_is_two_at_one(g, x):
    """2 at the kink, where -1 to 1 is right."""
    return g * np.where(x == 1, 2.0, np.sign(x - 1))


distance_from_one.hard("distance_from_one_at_one", np.array([1.0, 0.0]), why=AT_ITS_CONVENTION)


@function(at=[np.array([1.0, 0.0, 3.0]), normal(4)])
def leaky_relu_from_one(x):
    return np.where(x > 1, x, 0.1 * x + 0.9)


@leaky_relu_from_one.right
def leaky_relu_from_one_vjp(g, x):
    return g * np.where(x > 1, 1.0, 0.1)


@leaky_relu_from_one.wrong(at=[np.array([1.0, 0.0, 3.0])])
def leaky_relu_adds_both_slopes(g, x):
    """Both branches contribute at the kink: 1.1."""
    return g * ((x >= 1) + 0.1 * (x <= 1))


@leaky_relu_from_one.wrong(at=[np.array([-1.0, 3.0])])
def leaky_relu_from_one_leaks_nothing(g, x):
    """0 for 0.1 below the kink."""
    return g * (x > 1)
