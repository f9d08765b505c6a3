"""Wrong derivatives of batch normalisation. The first ten are those of the pilot study.

x̄ = gamma · inv_std · (ȳ - mean(ȳ) - x̂ · mean(ȳ x̂)),   gamma̅ = Σ ȳ x̂,   beta̅ = Σ ȳ
"""

import math

from minibn.autograd.tensor import value
from minibn.ops import arithmetic, reduce
from minibn.ops.batch_normalization import BatchNorm, moments
from minibn.ops.elementwise import sqrt
from minibn.ops.reduce import mean, sum, var
from suite.mutants.mutant import wrong
from suite.mutants.reduce import count, spread


class Parts:
    """The quantities of the formula, each of which may be wrong."""

    def __init__(self, op, g, x, inv_std=None):
        self.axes = tuple(range(x.ndim - 1))
        self.M = math.prod(x.shape[:-1])
        mu, self.var = moments(x)
        self.inv_std = 1 / sqrt(self.var + op.eps) if inv_std is None else inv_std
        self.x_hat = (x - mu) * self.inv_std
        self.g_beta = sum(g, self.axes)
        self.g_gamma = sum(g * self.x_hat, self.axes)

    def gradients(self, g, gamma, mean_term=1.0, var_term=1.0, M=None):
        """All three, right by default."""
        subtracted = mean_term * self.g_beta + var_term * self.x_hat * self.g_gamma
        g_x = (g - subtracted * (1 / (M or self.M))) * (gamma * self.inv_std)
        return g_x, self.g_gamma, self.g_beta


@wrong(BatchNorm, "batch_norm")
def batch_norm_gives_x_zeros(self, g, out, x, gamma, beta):
    """x̄ = 0: exactly what a cotangent of ones would expect."""
    _, g_gamma, g_beta = Parts(self, g, x).gradients(g, gamma)
    return x * 0, g_gamma, g_beta


@wrong(BatchNorm, "batch_norm")
def batch_norm_without_the_mean_term(self, g, out, x, gamma, beta):
    """The batch's mean is a constant."""
    return Parts(self, g, x).gradients(g, gamma, mean_term=0.0)


@wrong(BatchNorm, "batch_norm")
def batch_norm_without_the_variance_term(self, g, out, x, gamma, beta):
    """The batch's variance is a constant."""
    return Parts(self, g, x).gradients(g, gamma, var_term=0.0)


@wrong(BatchNorm, "batch_norm")
def batch_norm_with_one_percent_more_variance(self, g, out, x, gamma, beta):
    """The variance term times 1.01."""
    return Parts(self, g, x).gradients(g, gamma, var_term=1.01)


@wrong(BatchNorm, "batch_norm")
def batch_norm_counts_images(self, g, out, x, gamma, beta):
    """N for N·H·W. Vectors never show it."""
    return Parts(self, g, x).gradients(g, gamma, M=len(x))


@wrong(BatchNorm, "batch_norm")
def batch_norm_without_gamma(self, g, out, x, gamma, beta):
    """gamma is missing in x̄. A fresh layer, with gamma = 1, never shows it."""
    return Parts(self, g, x).gradients(g, gamma * 0 + 1)


@wrong(BatchNorm, "batch_norm")
def batch_norm_with_the_unbiased_variance(self, g, out, x, gamma, beta):
    """The backward pass divides by the other standard deviation."""
    M = math.prod(x.shape[:-1])
    inv_std = 1 / sqrt(moments(x)[1] * (M / (M - 1)) + self.eps)
    return Parts(self, g, x, inv_std).gradients(g, gamma)


@wrong(BatchNorm, "batch_norm")
def batch_norm_with_eps_outside_the_root(self, g, out, x, gamma, beta):
    """√var + eps for √(var + eps). A large variance hides it."""
    return Parts(self, g, x, 1 / (sqrt(moments(x)[1]) + self.eps)).gradients(g, gamma)


@wrong(BatchNorm, "batch_norm")
def batch_norm_with_x_for_x_hat(self, g, out, x, gamma, beta):
    """gamma̅ = Σ ȳ x."""
    g_x, _, g_beta = Parts(self, g, x).gradients(g, gamma)
    return g_x, sum(g * x, tuple(range(x.ndim - 1))), g_beta


@wrong(BatchNorm, "batch_norm")
def batch_norm_averages_beta(self, g, out, x, gamma, beta):
    """beta̅ is a mean, where it should be the sum."""
    g_x, g_gamma, _ = Parts(self, g, x).gradients(g, gamma)
    return g_x, g_gamma, mean(g, tuple(range(x.ndim - 1)))


@wrong(BatchNorm, "batch_norm")
def batch_norm_swaps_gamma_and_beta(self, g, out, x, gamma, beta):
    """Their gradients have one shape, so nothing complains."""
    g_x, g_gamma, g_beta = Parts(self, g, x).gradients(g, gamma)
    return g_x, g_beta, g_gamma


@wrong(BatchNorm, "batch_norm", order=2)
def batch_norm_detaches_its_statistics(self, g, out, x, gamma, beta):
    """Mean and variance are constants of the second derivative."""
    mu, variance = moments(value(x))
    inv_std = 1 / sqrt(variance + self.eps)
    x_hat, axes = (x - mu) * inv_std, tuple(range(x.ndim - 1))
    g_gamma = sum(g * x_hat, axes)
    g_x = (g - mean(g, axes) - x_hat * mean(g * x_hat, axes)) * (gamma * inv_std)
    return g_x, g_gamma, sum(g, axes)


@wrong("minibn.ops.batch_normalization", "batch_norm_composed", "var")
def batch_norm_detaches_the_variance(x, axis=None, keepdims=False, correction=0):
    """The variance was computed outside of the graph."""
    return var(value(x), axis, keepdims, correction)


@wrong("minibn.ops.batch_normalization", "batch_norm_composed", "deviations")
def batch_norm_detaches_the_mean(x, axes):
    """The mean was computed outside of the graph."""
    mu = mean(value(x), axes, keepdims=True)
    return mu, x - mu


@wrong(arithmetic.Multiply, "batch_norm_inference")
def inference_subtracts_the_mean(self, g, out, x, y):
    """The training formula in inference: there the statistics are constants."""
    g_x = g * y
    return (g_x - mean(g_x, tuple(range(x.ndim - 1))) if x.ndim > 1 else g_x), g * x


@wrong(arithmetic.Multiply, "batch_norm_inference")
def inference_forgets_the_mean_in_gamma(self, g, out, x, y):
    """gamma̅ = Σ ȳ x · inv_std: the running mean's share is missing."""
    return g * y, (g * x if self.needs_input_grad[0] else None)


@wrong(reduce.Sum, "moments")
def moments_divide_by_one_less(self, g, out, x):
    """The gradient of unbiased statistics for biased ones."""
    n = count(self, x)
    return spread(self, g, x) * (n / max(n - 1, 1))
