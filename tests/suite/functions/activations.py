"""More activations: gated, learned, scaled."""

import numpy as np

from minibn.testing.strategies import gap_separated, nonzero, within
from suite.functions.elementwise import sigma
from suite.functions.function import function, normal

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@function(at=[normal(2, 3)], domains=nonzero)
def softsign(x):
    return x / (1 + np.abs(x))


@softsign.right
def softsign_vjp(g, x):
    return g / (1 + np.abs(x)) ** 2


@softsign.wrong()
def softsign_without_the_square(g, x):
    """The denominator is not squared."""
    return g / (1 + np.abs(x))


@softsign.wrong(at=[np.array([0.5, -2.0])])
def softsign_for_positive_numbers_only(g, x):
    """|x| is taken for x."""
    return g / (1 + x) ** 2


@function(at=[np.array([0.5, -1.0, -2.5])], domains=nonzero)
def selu(x):
    return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0)))


@selu.right
def selu_vjp(g, x):
    return g * SELU_SCALE * np.where(x > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(x, 0)))


@selu.wrong(at=[np.array([0.5, -1.0, -2.5])])
def selu_without_its_scale(g, x):
    """The scale is missing for positive inputs."""
    return g * np.where(x > 0, 1.0, SELU_SCALE * SELU_ALPHA * np.exp(np.minimum(x, 0)))


@selu.wrong(at=[np.array([0.5, -1.0, -2.5])])
def selu_with_rounded_constants(g, x):
    """1.0507 and 1.6733: five digits."""
    return g * 1.0507 * np.where(x > 0, 1.0, 1.6733 * np.exp(np.minimum(x, 0)))


@function(at=[(normal(4, 3), np.array([0.1, 0.2, 0.3]))], domains=(nonzero, nonzero))
def prelu(x, a):
    return np.where(x > 0, x, a * x)


@prelu.right
def prelu_vjp(g, x, a):
    return g * np.where(x > 0, 1.0, a), (g * np.minimum(x, 0)).sum(0)


@prelu.wrong()
def prelu_with_one_example_for_its_slope(g, x, a):
    """The slope's gradient is that of the first example: the sum over the batch is missing."""
    return g * np.where(x > 0, 1.0, a), (g * np.minimum(x, 0))[0]


@prelu.wrong()
def prelu_counts_positive_inputs_too(g, x, a):
    """The mask is missing in the gradient of the slope."""
    return g * np.where(x > 0, 1.0, a), (g * x).sum(0)


@function(at=[normal(2, 6)], domains=within(5.0))
def gated_linear_unit(x):
    a, b = np.split(x, 2, -1)
    return a * sigma(b)


@gated_linear_unit.right
def gated_linear_unit_vjp(g, x):
    a, b = np.split(x, 2, -1)
    return np.concatenate([g * sigma(b), g * a * sigma(b) * sigma(-b)], -1)


@gated_linear_unit.wrong()
def gated_linear_unit_with_swapped_halves(g, x):
    """The gradients of value and gate are concatenated in the wrong order."""
    a, b = np.split(x, 2, -1)
    return np.concatenate([g * a * sigma(b) * sigma(-b), g * sigma(b)], -1)


@gated_linear_unit.wrong()
def gated_linear_unit_interleaves(g, x):
    """The two halves are woven together."""
    d = gated_linear_unit_vjp(g, x)
    return np.stack(np.split(d, 2, -1), -1).reshape(x.shape)


@function(at=[normal(4)])
def squareplus(x):
    return (x + np.sqrt(x * x + 4)) / 2


@squareplus.right
def squareplus_vjp(g, x):
    return g * (1 + x / np.sqrt(x * x + 4)) / 2


@squareplus.wrong()
def squareplus_without_its_half(g, x):
    """The division by 2 is forgotten for one of two terms."""
    return g * (1 + x / np.sqrt(x * x + 4) / 2)


squareplus.hard("squareplus_far_below", np.array([-1e4, 1.0]), why="x + |x| cancels: 1e-4 is left.")


@function(at=[normal(4)], domains=within(3.0))
def log_cosh(x):
    return np.log(np.cosh(x))


@log_cosh.right
def log_cosh_vjp(g, x):
    return g * np.tanh(x)


@log_cosh.wrong()
def log_cosh_with_the_inverse(g, x):
    """1/tanh."""
    return g / np.tanh(x)


log_cosh.hard("log_cosh_at_zero", np.array([0.0, 0.5]), why="One slope is 0.")
log_cosh.hard(
    "log_cosh_near_zero",
    np.array([1e-8, -2e-9]),
    why="The value is rounded to 0.",
    ends=("inconclusive", "vacuous"),
)


@function(at=[(np.array([1.0, -0.5, 2.0]), np.array(0.7))], domains=(nonzero, nonzero))
def tempered(x, t):
    return np.tanh(x / t)


@tempered.right
def tempered_vjp(g, x, t):
    d = g * (1 - np.tanh(x / t) ** 2)
    return d / t, -(d * x).sum() / t**2


@tempered.wrong()
def tempered_by_a_single_power(g, x, t):
    """t for t² in the gradient of the temperature."""
    d = g * (1 - np.tanh(x / t) ** 2)
    return d / t, -(d * x).sum() / t


@tempered.wrong()
def tempered_averages_over_entries(g, x, t):
    """The temperature's gradient is a mean, not a sum."""
    d = g * (1 - np.tanh(x / t) ** 2)
    return d / t, -(d * x).mean() / t**2


@function(at=[np.array([4.0, 0.25, -1.0])], domains=gap_separated(0.2))
def safe_sqrt(x):
    return np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), 0.0)


@safe_sqrt.right
def safe_sqrt_vjp(g, x):
    return g * np.where(x > 0, 0.5 / np.sqrt(np.where(x > 0, x, 1.0)), 0.0)


@safe_sqrt.wrong(at=[np.array([4.0, 0.25, -1.0])])
def safe_sqrt_multiplies_by_its_mask(g, x):
    """0 · NaN is NaN: the mask comes too late."""
    return g * (x > 0) * 0.5 / np.sqrt(x)


@function(at=[np.array([2.0, -1.0, 3.0]), np.array([0.0, 2.0, -1.0])])
def first_power(x):
    return x**1.0


@first_power.right
def first_power_vjp(g, x):
    return g.copy()


@first_power.wrong(at=[np.array([0.0, 2.0, -1.0])])
def first_power_by_division(g, x):
    """p · y / x, with its NaN at 0 replaced by 0."""
    return g * np.nan_to_num(x / x)
