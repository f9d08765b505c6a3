"""Activations: smooth ones, gated, learned, scaled."""

import numpy as np

from minibn.testing.strategies import nonzero, within
from suite.functions.elementwise import erf, sigma
from suite.functions.function import function, normal

ROOT_2_OVER_PI = np.sqrt(2 / np.pi)
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def normal_cdf(x):
    return 0.5 * (1 + erf(x / np.sqrt(2)))


def normal_density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


@function(at=[normal(2, 3), np.array([0.1, 0.2])], domains=within(3.0))
def gelu_by_tanh(x):
    return 0.5 * x * (1 + np.tanh(ROOT_2_OVER_PI * (x + 0.044715 * x**3)))


@gelu_by_tanh.right
def gelu_by_tanh_vjp(g, x):
    t = np.tanh(ROOT_2_OVER_PI * (x + 0.044715 * x**3))
    inner = ROOT_2_OVER_PI * (1 + 3 * 0.044715 * x * x)
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner)


@gelu_by_tanh.wrong()
def gelu_by_tanh_with_the_exact_derivative(g, x):
    """The forward pass is the approximation by tanh, the backward pass that of the exact GELU."""
    return g * (normal_cdf(x) + x * normal_density(x))


@function(at=[normal(2, 3), np.array([1.0])], domains=within(3.0))
def gelu(x):
    return x * normal_cdf(x)


@gelu.right
def gelu_vjp(g, x):
    return g * (normal_cdf(x) + x * normal_density(x))


@gelu.wrong()
def gelu_without_the_density(g, x):
    """The second term of the product rule is missing."""
    return g * normal_cdf(x)


@gelu.wrong()
def gelu_with_the_derivative_of_the_approximation(g, x):
    """The forward pass is exact, the backward pass that of the approximation by tanh."""
    return gelu_by_tanh_vjp(g, x)


@function(at=[np.array([0.5, -1.0, 2.5]), normal(2, 3)])
def softplus(x):
    return np.logaddexp(0, x)


@softplus.right
def softplus_vjp(g, x):
    return g * sigma(x)


@softplus.wrong()
def softplus_is_linear_too_early(g, x):
    """The backward pass takes the linear branch from 2 on, the forward pass from 20."""
    return g * np.where(x > 2, 1.0, sigma(x))


@softplus.wrong(at=[np.array([1.0, 800.0])])
def softplus_overflows(g, x):
    """exp(x) / (1 + exp(x)) is ∞/∞ for large x."""
    return g * np.exp(x) / (1 + np.exp(x))


@function(at=[normal(2, 3), np.array([-2.0, 1.5])], domains=within(5.0))
def swish(x):
    return x * sigma(x)


@swish.right
def swish_vjp(g, x):
    s = sigma(x)
    return g * (s + x * s * (1 - s))


@swish.wrong()
def swish_with_a_constant_gate(g, x):
    """The gate is treated as a constant: the second term of the product rule is missing."""
    return g * sigma(x)


@swish.wrong()
def swish_without_the_complement(g, x):
    """σ for σ(1 - σ) in the second term."""
    return g * (sigma(x) + x * sigma(x))


@function(at=[normal(2, 3)], domains=within(3.0))
def mish(x):
    return x * np.tanh(np.log1p(np.exp(x)))


@mish.right
def mish_vjp(g, x):
    t = np.tanh(np.log1p(np.exp(x)))
    return g * (t + x * (1 - t * t) * sigma(x))


@mish.wrong()
def mish_without_the_inner_derivative(g, x):
    """The chain rule stops before the softplus."""
    t = np.tanh(np.log1p(np.exp(x)))
    return g * (t + x * (1 - t * t))


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
