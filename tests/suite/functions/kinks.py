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
