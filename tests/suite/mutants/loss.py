"""Wrong derivatives of losses."""

from minibn.autograd.tensor import value
from minibn.ops import arithmetic, elementwise, reduce
from minibn.ops.loss import SoftmaxCrossEntropy, one_hot, softmax
from suite.mutants.mutant import wrong
from suite.mutants.reduce import spread


def residual(op, x, shift=0):
    """softmax(x) - onehot(label)."""
    K = x.shape[1]
    return softmax(x) - one_hot((op.labels + shift) % K, K, value(x).real.dtype)


@wrong(SoftmaxCrossEntropy, "softmax_cross_entropy")
def cross_entropy_averages_over_classes(self, g, out, x):
    """1/K for 1/N."""
    return residual(self, x) * (g * (1 / x.shape[1]))


@wrong(SoftmaxCrossEntropy, "softmax_cross_entropy")
def cross_entropy_loses_the_mean(self, g, out, x):
    """The forward pass takes the mean over the batch, the backward pass the sum."""
    return residual(self, x) * g


@wrong(SoftmaxCrossEntropy, "softmax_cross_entropy")
def cross_entropy_counts_labels_from_one(self, g, out, x):
    """The label is off by one."""
    return residual(self, x, shift=-1) * (g * (1 / len(x)))


@wrong(SoftmaxCrossEntropy, "softmax_cross_entropy")
def cross_entropy_forgets_the_labels(self, g, out, x):
    """softmax(x) alone: the gradient of logsumexp."""
    return softmax(x) * (g * (1 / len(x)))


@wrong(SoftmaxCrossEntropy, "softmax_cross_entropy")
def cross_entropy_ignores_the_cotangent(self, g, out, x):
    """'It is the loss, so g is 1': wrong as soon as the loss has a weight or a second term."""
    return residual(self, x) * (1 / len(x))


@wrong(SoftmaxCrossEntropy, "softmax_cross_entropy")
def cross_entropy_clips_its_probabilities(self, g, out, x):
    """Probabilities are kept above 0.01, in the backward pass only."""
    p = softmax(x)
    clipped = elementwise.where(elementwise.real(p) > 0.01, p, 0.01 + 0 * p)
    return (residual(self, x) - p + clipped) * (g * (1 / len(x)))


@wrong(SoftmaxCrossEntropy, "softmax_cross_entropy", order=2)
def cross_entropy_detaches_its_softmax(self, g, out, x):
    """The softmax is a constant of the second derivative."""
    return residual(self, value(x)) * (g * (1 / len(x)))


@wrong(arithmetic.Divide, "softmax")
def softmax_keeps_the_diagonal(self, g, out, x, y):
    """∂sᵢ/∂xⱼ is 0 for i ≠ j: the normaliser is a constant."""
    return g / y, None


@wrong(arithmetic.Multiply, "mse")
def mse_loses_the_two(self, g, out, x, y):
    """d·d has two factors, and one is forgotten."""
    return g * y, None


@wrong(arithmetic.Subtract, "mse")
def mse_gives_the_target_nothing(self, g, out, x, y):
    """The second input is taken for a constant."""
    return g, None


@wrong(reduce.Sum, "mse")
def mse_counts_twice(self, g, out, x):
    """The gradient of the sum: the mean is lost."""
    return spread(self, g, x) * x.size


@wrong(reduce.LogSumExp, "log_softmax")
def log_softmax_sums_the_whole_batch(self, g, out, x):
    """The softmax in the gradient runs over all axes."""
    return spread(self, g, x) * reduce.softmax_over(x, tuple(range(x.ndim)))
