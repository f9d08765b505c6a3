"""Wrong derivatives of reductions."""

import math

from minibn.autograd.tensor import value
from minibn.ops import elementwise, reduce
from minibn.ops.elementwise import real, sign
from minibn.ops.reduce import keepdims_shape, mean, softmax_over
from minibn.ops.shape import broadcast_to, reshape
from suite.mutants.mutant import wrong


def spread(op, g, x):
    """The right gradient of a sum."""
    return broadcast_to(reshape(g, keepdims_shape(x.shape, op.axes)), x.shape)


def count(op, x) -> int:
    """How many values each sum has."""
    return math.prod(x.shape[a] for a in op.axes)


@wrong(reduce.Sum, "sum")
def sum_forgets_keepdims(self, g, out, x):
    """g is broadcast from the right: the wrong axis in a square array, an error elsewhere."""
    return broadcast_to(g, x.shape)


@wrong(reduce.Sum, "sum")
def sum_over_the_next_axis(self, g, out, x):
    """The axis is off by one."""
    axes = tuple((a + 1) % x.ndim for a in self.axes)
    return broadcast_to(reshape(g, keepdims_shape(x.shape, axes)), x.shape)


@wrong(reduce.Sum, "sum")
def sum_averages(self, g, out, x):
    """The gradient of the mean."""
    return spread(self, g, x) * (1 / count(self, x))


@wrong(reduce.Sum, "mean")
def mean_loses_the_count(self, g, out, x):
    """The gradient of the sum."""
    return spread(self, g, x) * count(self, x)


@wrong(reduce.Sum, "mean")
def mean_counts_everything(self, g, out, x):
    """Divided by the size of x, though the mean runs over some axes only."""
    return spread(self, g, x) * (count(self, x) / x.size)


@wrong(reduce.Sum, "var")
def var_divides_by_one_less(self, g, out, x):
    """The gradient of the unbiased variance for the biased one."""
    n = count(self, x)
    return spread(self, g, x) * (n / max(n - 1, 1))


@wrong("minibn.ops.reduce", "var", "mean", order=2)
def var_detaches_the_mean(x, axis=None, keepdims=False):
    """Σ (x - mean) = 0, so the first derivative is right; the second lacks its -2/n²."""
    return mean(value(x), axis, keepdims)


@wrong(reduce.Max, "max", kink=True)
def max_counts_ties_fully(self, g, out, x):
    """Wrong only at ties: each of them gets the whole gradient."""
    shape = keepdims_shape(x.shape, self.axes)
    return reshape(g, shape) * (real(x) == real(out).reshape(shape))


@wrong(reduce.Max, "max")
def max_of_everything(self, g, out, x):
    """The gradient goes to the largest of all, though there is a maximum for each row."""
    return reshape(g, keepdims_shape(x.shape, self.axes)) * (real(x) == real(x).max())


@wrong(reduce.Max, "max")
def max_remembers_an_old_winner(self, g, out, x):
    """The place of the maximum is kept from the first call with these shapes."""
    shape = keepdims_shape(x.shape, self.axes)
    winners = type(self).__dict__.get("winners") or {}
    type(self).winners = winners
    return reshape(g, shape) * winners.setdefault(
        (x.shape, shape), real(x) == real(out).reshape(shape)
    )


@wrong(reduce.Min, "min")
def min_of_everything(self, g, out, x):
    """The gradient goes to the smallest of all, though there is a minimum for each row."""
    return reshape(g, keepdims_shape(x.shape, self.axes)) * (real(x) == real(x).min())


@wrong(reduce.L2Norm, "std")
def std_forgets_the_root(self, g, out, x):
    """The gradient of half the sum of squares."""
    return reshape(g, keepdims_shape(x.shape, self.axes)) * x


@wrong(reduce.LogSumExp, "logsumexp")
def logsumexp_normalises_over_everything(self, g, out, x):
    """The softmax runs over all axes instead of `axes`."""
    return reshape(g, keepdims_shape(x.shape, self.axes)) * softmax_over(x, tuple(range(x.ndim)))


@wrong(reduce.LogSumExp, "logsumexp", order=2)
def logsumexp_detaches_its_softmax(self, g, out, x):
    """The softmax is a constant of the second derivative."""
    return reshape(g, keepdims_shape(x.shape, self.axes)) * softmax_over(value(x), self.axes)


@wrong(reduce.L2Norm, "norm")
def norm_forgets_to_divide(self, g, out, x):
    """The gradient of half the squared norm."""
    return reshape(g, keepdims_shape(x.shape, self.axes)) * x


@wrong(reduce.L2Norm, "norm")
def norm_guards_against_zero(self, g, out, x):
    """x / (z + 1e-5): a guard that the forward pass does not have."""
    shape = keepdims_shape(x.shape, self.axes)
    return reshape(g, shape) * (x / (reshape(out, shape) + 1e-5))


@wrong(elementwise.Abs, "norm, p=1")
def norm1_takes_the_sign_of_the_output(self, g, out, x):
    """sign(|x|) for sign(x): wrong only for negative values."""
    return g * sign(out)


@wrong(reduce.Max, "norm, p=inf")
def norm_inf_is_shared_by_all(self, g, out, x):
    """Every entry gets its share of the gradient, not the largest alone."""
    return spread(self, g, x) * (1 / count(self, x))
