"""Functions with a kink or a step: clip, relu and its relatives, hinge, interpolation, ties.

At a kink the right gradient is any value between the slopes from both sides; where a function
promises one of them, `convention` holds it to that. All wrong ones here are right beside the kink.
"""

import numpy as np

from suite.functions.function import function, normal

AT_ITS_CONVENTION = "A point at the kink, with the value that is documented."
BOTH_BOUNDS = np.array([0.5, -1.0, 1.0])


@function(at=[BOTH_BOUNDS, normal(2, 3)])
def clip(x):
    return np.clip(x, -1, 1)


@clip.right
def clip_vjp(g, x):
    return g * ((x >= -1) & (x <= 1))


@clip.wrong(at=[BOTH_BOUNDS])
def clip_doubles_at_its_bounds(g, x):
    """Both branches of an implementation by two maxima give their gradient at a bound."""
    return g * np.where(np.abs(x) == 1, 2.0, np.abs(x) < 1)


@clip.wrong(at=[np.array([-1.0, 1.0])])
def clip_turns_round_at_its_bounds(g, x):
    """The slope at a bound is -3."""
    return g * np.where(np.abs(x) == 1, -3.0, np.abs(x) < 1)


@clip.wrong(at=[np.array([2.5, 0.5, -4.0])])
def clip_passes_all_beyond_its_bounds(g, x):
    """A straight-through estimator: clipped entries get their gradient all the same."""
    return g.copy()


clip.hard("clip_at_its_bounds", BOTH_BOUNDS, why=AT_ITS_CONVENTION, convention=clip_vjp)
clip.hard("clip_of_only_bounds", np.array([1.0, -1.0, 1.0]), why=AT_ITS_CONVENTION)
clip.hard("clip_half_an_ulp_inside", np.array([1 - 1e-16, 0.3]), why="The kink is one ulp away.")
clip.hard("clip_near_a_bound", np.array([1 - 1e-5, 0.3]), why="A step crosses the kink.")
clip.hard("clip_of_flat_entries", np.array([3.0, -2.0]), why="All is flat.", ends=("vacuous",))


@clip.wrong(at=[BOTH_BOUNDS], convention=clip_vjp)
def clip_excludes_its_bounds(g, x):
    """The documented convention includes the bounds, the code excludes them."""
    return g * ((x > -1) & (x < 1))


@function(at=[np.array([0.0, 1.5, -2.0]), normal(2, 3)])
def relu(x):
    return np.maximum(x, 0)


@relu.right
def relu_vjp(g, x):
    return g * (x > 0)


@relu.wrong(at=[np.array([0.0, 1.5, -2.0])])
def relu_doubles_at_zero(g, x):
    """2 at 0: both comparisons of the code hold there."""
    return g * ((x >= 0) + 1.0 * (x == 0))


@relu.wrong(at=[np.array([0.0, 1.5, -2.0])], convention=relu_vjp)
def relu_passes_at_zero(g, x):
    """The documented relu'(0) is 0, the code compares with >=."""
    return g * (x >= 0)


@relu.wrong()
def relu_by_the_sign_of_its_cotangent(g, x):
    """The mask of guided backpropagation: negative cotangents are cut, too."""
    return g * (x > 0) * (g > 0)


relu.hard("relu_at_zero", np.array([0.0, 1.5, -2.0]), why=AT_ITS_CONVENTION, convention=relu_vjp)
relu.hard("relu_of_zeros", np.zeros(3), why=AT_ITS_CONVENTION, ends=("vacuous",))
relu.hard("relu_of_negative_zero", np.array([-0.0, 2.0]), why=AT_ITS_CONVENTION)
relu.hard("relu_of_tiny_values", np.array([1e-12, -1e-12, 1.0]), why="The kink is 1e-12 away.")


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

KNOTS, HEIGHTS = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0])


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


@function(at=[np.array([0.0, 1.5, -2.0]), normal(4)])
def absolute(x):
    return np.abs(x)


@absolute.right
def absolute_vjp(g, x):
    return g * np.sign(x)


@absolute.wrong()
def absolute_without_the_sign(g, x):
    """1 everywhere."""
    return g.copy()


absolute.hard("absolute_at_zero", np.array([0.0, 1.0]), why=AT_ITS_CONVENTION)
absolute.hard("absolute_of_zeros", np.zeros(2), why=AT_ITS_CONVENTION, ends=("vacuous",))
absolute.hard("absolute_of_both_scales", np.array([1e-6, -1e6]), why="A kink 1e-6 away.")


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


@function(at=[np.array([0.5, -1.0, -2.5]), normal(2, 3)])
def elu(x):
    return np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0)))


@elu.right
def elu_vjp(g, x):
    return g * np.where(x > 0, 1.0, 0.5 * np.exp(np.minimum(x, 0)))


@elu.wrong(at=[np.array([0.5, -1.0, -2.5])])
def elu_uses_output_plus_one(g, x):
    """out + 1 for out + α, with α = 1/2."""
    return g * np.where(x > 0, 1.0, elu(x) + 1)


@function(at=[np.array([1.0, 0.3, -2.5]), 2 * normal(4)])
def huber(x):
    return np.where(np.abs(x) <= 1, x * x / 2, np.abs(x) - 0.5)


@huber.right
def huber_vjp(g, x):
    return g * np.clip(x, -1, 1)


@huber.wrong(at=[np.array([0.3, -2.5])])
def huber_is_never_linear(g, x):
    """x also beyond the joint."""
    return g * x


@huber.wrong(at=[np.array([1.0, -1.0, 0.3])])
def huber_doubles_at_its_joint(g, x):
    """Both branches contribute where |x| = 1."""
    return g * np.where(np.abs(x) == 1, 2 * x, np.clip(x, -1, 1))


huber.hard("huber_at_its_joint", np.array([1.0, -1.0, 0.3]), why="The second derivative jumps.")


@function(at=[np.array([0.5, 1.7, -2.2])], drawn="none", zero_gradient=[0])
def rounding(x):
    return np.round(x)


@rounding.right
def rounding_vjp(g, x):
    return np.zeros_like(x)


@rounding.wrong()
def rounding_straight_through(g, x):
    """A straight-through estimator is no derivative."""
    return g.copy()


rounding.hard("rounding_near_a_step", np.array([0.49999, 1.5001]), why="Steps cross a jump.")


@function(at=[np.array([1.3, -0.6])], drawn="none", zero_gradient=[0])
def floor(x):
    return np.floor(x)


@floor.right
def floor_vjp(g, x):
    return np.zeros_like(x)


@function(at=[np.array([1.3, -0.6, 5.2])], drawn="none")
def remainder(x):
    return x - np.floor(x)


@remainder.right
def remainder_vjp(g, x):
    return g.copy()


@remainder.wrong()
def remainder_keeps_the_whole_part(g, x):
    """The gradient is multiplied by the number of periods."""
    return g * np.floor(x)
