"""Products, quotients and sums: rules of differentiation, limits at a point, constants."""

import numpy as np

from minibn.testing.strategies import gap_separated, nonzero, positive, within
from suite.functions.function import function, normal


@function(at=[np.array([0.5, -1.5, 2.0])], domains=nonzero)
def sinc(x):
    safe = np.where(x == 0, 1.0, x)
    return np.where(x == 0, 1.0, np.sin(safe) / safe)


@sinc.right
def sinc_vjp(g, x):
    safe = np.where(x == 0, 1.0, x)
    return g * np.where(x == 0, 0.0, (np.cos(safe) - np.sin(safe) / safe) / safe)


@sinc.wrong(at=[np.array([0.0, 1.5, -2.0])])
def sinc_is_not_a_number_at_zero(g, x):
    """The limit at 0 is handled in the forward pass only."""
    return g * (np.cos(x) - np.sin(x) / x) / x


@sinc.wrong()
def sinc_quotient_rule_without_the_second_term(g, x):
    """cos x / x: the derivative of 1/x is missing."""
    return g * np.cos(x) / x


@function(at=[np.array([0.5, 2.0])], domains=positive)
def x_log_x(x):
    return x * np.log(x)


@x_log_x.right
def x_log_x_vjp(g, x):
    return g * (np.log(x) + 1)


@x_log_x.wrong()
def x_log_x_without_the_one(g, x):
    """The product rule's second term, x/x, is missing."""
    return g * np.log(x)


x_log_x.hard("x_log_x_near_zero", np.array([1e-12, 1e-6, 1.0]), why="The slope is -27 there.")
x_log_x.hard("x_log_x_at_its_minimum", np.array([np.exp(-1), 0.5]), why="One slope is 0.")


@function(at=[np.array([1.0, -1.0, 2.5])])
def polynomial(x):
    return ((0.5 * x - 1) * x + 2) * x - 3


@polynomial.right
def polynomial_vjp(g, x):
    return g * ((1.5 * x - 2) * x + 2)


@polynomial.wrong(at=[np.array([1.0, -1.0, 2.5])])
def polynomial_wrong_beyond_two(g, x):
    """Another branch of the code serves x > 2, where a coefficient is wrong."""
    return g * np.where(x > 2, (1.5 * x - 2) * x + 3, (1.5 * x - 2) * x + 2)


@polynomial.wrong()
def polynomial_with_a_wrong_power(g, x):
    """The coefficient of x³ is multiplied by 2."""
    return g * ((1.0 * x - 2) * x + 2)


polynomial.hard("polynomial_with_a_huge_offset", np.array([1e5, 1e5 + 1]), why="Values of 1e15.")


@function(at=[normal(3)])
def offset(x):
    return x * x + 1e8


@offset.right
def offset_vjp(g, x):
    return 2 * g * x


@offset.wrong()
def offset_adds_half(g, x):
    """The constant is taken for a variable."""
    return 2 * g * x + 0.5 * g


@function(at=[np.array([1.0, 2.5])])
def rounded_away(x):
    return x + 0.0 * np.floor(x)


@rounded_away.right
def rounded_away_vjp(g, x):
    return g.copy()


@rounded_away.wrong()
def rounded_away_is_detached(g, x):
    """The result was rebuilt from plain numbers: no gradient comes back."""
    return np.zeros_like(x)


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
