"""Sums, means, norms, softmax, cumulative sums and products."""

import numpy as np

from minibn.testing.strategies import nonzero, positive
from suite.functions.function import function, normal


@function(at=[normal(4, 3)])
def deviation(x):
    """The unbiased standard deviation of each column."""
    centred = x - x.mean(0)
    return np.sqrt((centred**2).sum(0) / (len(x) - 1) + 1e-3)


@deviation.right
def deviation_vjp(g, x):
    return g * (x - x.mean(0)) / ((len(x) - 1) * deviation(x))


@deviation.wrong()
def deviation_divides_by_n(g, x):
    """The forward pass divides by n - 1, the backward pass by n."""
    return g * (x - x.mean(0)) / (len(x) * deviation(x))


@function(at=[normal(2, 3, 2)])
def variance(x):
    return ((x - x.mean((0, 1))) ** 2).mean((0, 1))


@variance.right
def variance_vjp(g, x):
    return g * 2 * (x - x.mean((0, 1))) / (x.shape[0] * x.shape[1])


@variance.wrong()
def variance_centred_over_one_axis(g, x):
    """The backward pass subtracts the mean over the first axis only."""
    return g * 2 * (x - x.mean(0)) / (x.shape[0] * x.shape[1])


variance.hard("variance_with_a_huge_mean", normal(2, 3, 2) + 1e6, why="Ten digits cancel.")
variance.hard(
    "variance_of_equal_values", np.full((2, 3, 2), 0.3), why="Its minimum.", ends=("vacuous",)
)


def softmax(x, axis=-1):
    e = np.exp(x - x.real.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def softmax_pullback(p, g):
    return p * (g - (g * p).sum(-1, keepdims=True))


@function(at=[normal(3, 4), normal(4)])
def softmax_of_rows(x):
    return softmax(x)


@softmax_of_rows.right
def softmax_of_rows_vjp(g, x):
    return softmax_pullback(softmax(x), g)


@softmax_of_rows.wrong()
def softmax_by_its_diagonal(g, x):
    """p (1 - p): only the diagonal of the Jacobian."""
    p = softmax(x)
    return g * p * (1 - p)


@softmax_of_rows.wrong(at=[normal(3, 4)])
def softmax_sums_over_everything(g, x):
    """The sum in the backward pass runs over the batch, too."""
    p = softmax(x)
    return p * (g - (g * p).sum())


MARGIN = "Nearly all of the probability is on one entry: 1 - p is rounded."
softmax_of_rows.hard("softmax_with_a_margin_of_30", np.array([[30.0, 0.0, 1.0]]), why=MARGIN)
softmax_of_rows.hard("softmax_with_a_margin_of_20", np.array([20.0, -1.0, 0.5]), why=MARGIN)
softmax_of_rows.hard(
    "softmax_of_one_margin_in_two", np.array([[35.0, 0.0], [0.2, 1.0]]), why=MARGIN
)
softmax_of_rows.hard(
    "softmax_with_a_margin_of_800", np.array([800.0, 0.0]), why=MARGIN, ends=("vacuous",)
)
softmax_of_rows.hard("softmax_of_shifted_logits", normal(3, 4) + 1e5, why="Logits around 1e5.")


@function(at=[normal(3)], zero_gradient=[0])
def sum_of_softmax(x):
    return softmax(x).sum(-1)


@sum_of_softmax.right
def sum_of_softmax_vjp(g, x):
    p = softmax(x)
    return softmax_pullback(p, np.broadcast_to(np.asarray(g)[..., None], p.shape))


sum_of_softmax.hard(
    "sum_of_softmax_undeclared", normal(3), normal(3, 4), zero_gradient=[], ends=("vacuous",),
    why="A sum that is always 1: gradient and slopes are rounding errors.",
)  # fmt: skip


MASK = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]])


@function(at=[normal(3, 4)])
def masked_softmax(x):
    e = np.exp(x - x.real.max(-1, keepdims=True)) * MASK
    return e / e.sum(-1, keepdims=True)


@masked_softmax.right
def masked_softmax_vjp(g, x):
    return softmax_pullback(masked_softmax(x), g)


@masked_softmax.wrong()
def masked_softmax_without_its_mask(g, x):
    """The backward pass uses the softmax over all entries."""
    return softmax_pullback(softmax(x), g)


@function(at=[normal(3, 3)])
def log_softmax(x):
    z = x - x.real.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@log_softmax.right
def log_softmax_vjp(g, x):
    return g - softmax(x) * g.sum(-1, keepdims=True)


@log_softmax.wrong()
def log_softmax_over_the_other_axis(g, x):
    """The softmax of the columns: no shape complains, the input is square."""
    return g - softmax(x, 0) * g.sum(-1, keepdims=True)


@log_softmax.wrong()
def log_softmax_without_the_sum(g, x):
    """The cotangent is multiplied by the softmax before it is summed."""
    return g - softmax(x) * g


log_softmax.hard("log_softmax_with_a_margin_of_40", np.array([[40.0, 0.0, 1.0]]), why=MARGIN)


@function(at=[normal(2, 4)])
def logsumexp(x):
    top = x.real.max(-1, keepdims=True)
    return np.log(np.exp(x - top).sum(-1)) + top[..., 0]


@logsumexp.right
def logsumexp_vjp(g, x):
    return g[..., None] * softmax(x)


@logsumexp.wrong()
def logsumexp_gives_all_to_the_maximum(g, x):
    """The derivative of the shift, as if nothing else depended on x."""
    return g[..., None] * (x == x.max(-1, keepdims=True))


logsumexp.hard("logsumexp_of_large_values", np.array([[1000.0, 999.0]]), why="exp overflows.")
logsumexp.hard("logsumexp_of_far_values", np.array([[-1e4, 0.0, 3.0]]), why="exp vanishes.")


@function(at=[normal(4), normal(3, 2)], domains=nonzero)
def cumulative_sum(x):
    return np.cumsum(x, 0)


@cumulative_sum.right
def cumulative_sum_vjp(g, x):
    return np.cumsum(g[::-1], 0)[::-1]


@cumulative_sum.wrong()
def cumulative_sum_in_the_same_direction(g, x):
    """The sum runs forward in the backward pass."""
    return np.cumsum(g, 0)


@function(at=[normal(4)])
def cumulative_product(x):
    return np.cumprod(x)


@cumulative_product.right
def cumulative_product_vjp(g, x):
    d = np.zeros_like(x)
    for i in range(len(x)):
        others = x.copy()
        others[i] = 1
        d[i] = (g * np.cumprod(others))[i:].sum()
    return d


@cumulative_product.wrong(at=[np.array([2.0, 0.0, 3.0])])
def cumulative_product_by_division(g, x):
    """y / x, with 0 where that is not finite: wrong as soon as one factor is 0."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.cumsum((g * np.cumprod(x))[::-1])[::-1] / x, posinf=0, neginf=0)


cumulative_product.hard("cumulative_product_with_a_zero", np.array([2.0, 0.0, 3.0]), why="0/0.")
cumulative_product.hard("cumulative_product_with_two_zeros", np.array([0.0, 2.0, 0.0]), why="0/0.")


@function(at=[normal(4)])
def product(x):
    return np.prod(x)


@product.right
def product_vjp(g, x):
    return g * np.array([np.prod(np.delete(x, i)) for i in range(x.size)])


@product.wrong(at=[np.array([0.0, 2.0, 3.0])])
def product_by_division(g, x):
    """y / x is NaN where a factor is 0."""
    return g * np.prod(x) / x


product.hard(
    "product_with_a_zero", np.array([0.0, 2.0, 3.0]), why="One entry alone has a gradient."
)
product.hard("product_with_two_zeros", np.array([0.0, 0.0, 3.0]), why="All 0.", ends=("vacuous",))


@function(at=[normal(4, 3)])
def mean_of_columns(x):
    return x.mean(0)


@mean_of_columns.right
def mean_of_columns_vjp(g, x):
    return np.repeat(g[None] / len(x), len(x), 0)


@mean_of_columns.wrong()
def mean_divides_by_all_entries(g, x):
    """x.size for the length of the axis."""
    return np.repeat(g[None] / x.size, len(x), 0)


mean_of_columns.hard(
    "mean_of_huge_and_tiny_columns", normal(4, 3) * [1e-6, 1.0, 1e6], why="Scales."
)


@function(at=[np.abs(normal(2, 3)) + 0.1], domains=positive)
def geometric_mean(x):
    return np.exp(np.log(x).mean(-1))


@geometric_mean.right
def geometric_mean_vjp(g, x):
    return (g * geometric_mean(x))[..., None] / (x * x.shape[-1])


@geometric_mean.wrong()
def geometric_mean_without_its_count(g, x):
    """The derivative of the mean lacks 1/n."""
    return (g * geometric_mean(x))[..., None] / x
