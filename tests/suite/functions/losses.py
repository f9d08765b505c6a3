"""Losses: scalars that are averaged, weighted, smoothed."""

import numpy as np

from minibn.testing.strategies import gap_separated, within
from suite.functions.elementwise import sigma
from suite.functions.function import function, normal
from suite.functions.reductions import log_softmax, softmax

LABELS = np.array([0, 2, 1])
ONE_HOT = np.eye(4)[LABELS]
CLASS_WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0])
TARGETS = np.array([1.0, 0.0, 1.0])
SURE = "The loss of a sure prediction is 0 to the last digits."


@function(at=[normal(3, 4)])
def cross_entropy(x):
    return -(ONE_HOT * log_softmax(x)).sum(-1).mean()


@cross_entropy.right
def cross_entropy_vjp(g, x):
    return g * (softmax(x) - ONE_HOT) / len(x)


@cross_entropy.wrong()
def cross_entropy_without_the_mean(g, x):
    """The gradient is not divided by the batch."""
    return g * (softmax(x) - ONE_HOT)


@cross_entropy.wrong()
def cross_entropy_ignores_its_cotangent(g, x):
    """The loss is taken to be the end of the graph: its cotangent is not used."""
    return (softmax(x) - ONE_HOT) / len(x)


@cross_entropy.wrong()
def cross_entropy_of_probabilities(g, x):
    """-1/p at the label: the gradient in the probabilities, not in the logits."""
    return -g * ONE_HOT / softmax(x) / len(x)


@cross_entropy.wrong()
def cross_entropy_with_a_softmax_over_the_batch(g, x):
    """The softmax runs over the wrong axis in the backward pass."""
    return g * (softmax(x, 0) - ONE_HOT) / len(x)


cross_entropy.hard(
    "cross_entropy_of_sure_predictions", 30 * ONE_HOT + normal(3, 4), why=SURE,
    ends=("inconclusive",),
)  # fmt: skip
cross_entropy.hard(
    "cross_entropy_of_wrong_predictions", -30 * ONE_HOT + normal(3, 4), why="A loss of 30."
)
cross_entropy.hard("cross_entropy_of_large_logits", normal(3, 4) + 1e4, why="A shift that cancels.")


@function(at=[normal(3, 4)])
def smoothed_cross_entropy(x):
    return -((0.9 * ONE_HOT + 0.025) * log_softmax(x)).sum(-1).mean()


@smoothed_cross_entropy.right
def smoothed_cross_entropy_vjp(g, x):
    return g * (softmax(x) - 0.9 * ONE_HOT - 0.025) / len(x)


@smoothed_cross_entropy.wrong()
def smoothed_cross_entropy_without_its_smoothing(g, x):
    """The labels are smoothed in the forward pass only."""
    return g * (softmax(x) - ONE_HOT) / len(x)


@function(at=[normal(3, 4)])
def weighted_cross_entropy(x):
    w = CLASS_WEIGHTS[LABELS]
    return -(w * log_softmax(x)[np.arange(3), LABELS]).sum() / w.sum()


@weighted_cross_entropy.right
def weighted_cross_entropy_vjp(g, x):
    w = CLASS_WEIGHTS[LABELS]
    return g * w[:, None] * (softmax(x) - ONE_HOT) / w.sum()


@weighted_cross_entropy.wrong()
def weighted_cross_entropy_divides_by_the_batch(g, x):
    """The forward pass divides by the sum of the weights, the backward pass by N."""
    return g * CLASS_WEIGHTS[LABELS][:, None] * (softmax(x) - ONE_HOT) / len(x)


@function(at=[normal(3)], domains=within(5.0))
def binary_cross_entropy(x):
    return (3 * TARGETS * np.logaddexp(0, -x) + (1 - TARGETS) * np.logaddexp(0, x)).mean()


@binary_cross_entropy.right
def binary_cross_entropy_vjp(g, x):
    return g * (-3 * TARGETS * sigma(-x) + (1 - TARGETS) * sigma(x)) / 3


@binary_cross_entropy.wrong()
def binary_cross_entropy_without_the_weight_of_positives(g, x):
    """σ - y, though positives weigh 3."""
    return g * (sigma(x) - TARGETS) / 3


binary_cross_entropy.hard(
    "binary_cross_entropy_of_sure_ones", np.array([28.0, -30.0, 1.0]), why=SURE
)


@function(at=[(normal(3, 2), normal(3, 2, seed=1))])
def squared_error(x, y):
    return ((x - y) ** 2).mean()


@squared_error.right
def squared_error_vjp(g, x, y):
    d = 2 * g * (x - y) / x.size
    return d, -d


@squared_error.wrong()
def squared_error_divides_by_the_batch(g, x, y):
    """The mean runs over all entries; the backward pass divides by the batch alone."""
    d = 2 * g * (x - y) / len(x)
    return d, -d


@squared_error.wrong()
def squared_error_with_a_sign_lost(g, x, y):
    """The target's gradient has the sign of the prediction's."""
    d = 2 * g * (x - y) / x.size
    return d, d.copy()


squared_error.hard(
    "squared_error_of_equal_arrays", (np.ones((2, 2)), np.ones((2, 2))), why="Its minimum.",
    ends=("vacuous",),
)  # fmt: skip
squared_error.hard(
    "squared_error_far_out",
    (normal(2, 2) + 1e6, normal(2, 2, seed=1) + 1e6),
    why="Six digits cancel.",
)


@function(at=[normal(3, 4)])
def divergence(x):
    """Σ eˣ - x: a Kullback-Leibler divergence, averaged over the batch."""
    return (np.exp(x) - x).sum() / len(x)


@divergence.right
def divergence_vjp(g, x):
    return g * (np.exp(x) - 1) / len(x)


@divergence.wrong()
def divergence_divides_by_all_entries(g, x):
    """x.size for the batch."""
    return g * (np.exp(x) - 1) / x.size


@function(at=[(normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2))], drawn="none")
def triplet(a, p, n):
    return np.maximum(((a - p) ** 2).sum(-1) - ((a - n) ** 2).sum(-1) + 9, 0)


@triplet.right
def triplet_vjp(g, a, p, n):
    g = (g * (triplet(a, p, n) > 0))[:, None]
    return 2 * g * (n - p), -2 * g * (a - p), 2 * g * (a - n)


@triplet.wrong()
def triplet_with_a_constant_negative(g, a, p, n):
    """The negative example is detached."""
    d_a, d_p, d_n = triplet_vjp(g, a, p, n)
    return d_a, d_p, 0 * d_n


@function(at=[np.array([0.4, -1.0, 2.0])], domains=gap_separated(0.2))
def pinball(x):
    return np.where(x > 0, 0.9 * x, -0.1 * x).mean()


@pinball.right
def pinball_vjp(g, x):
    return g * np.where(x > 0, 0.9, -0.1) / x.size


@pinball.wrong()
def pinball_with_swapped_weights(g, x):
    """The two weights are swapped."""
    return g * np.where(x > 0, 0.1, -0.9) / x.size


pinball.hard("pinball_at_zero", np.array([0.0, 1.0]), why="At its kink.")


@function(at=[np.array([1.5, -2.0])], domains=within(3.0), drawn="none")
def log_jacobian(s):
    return np.log(np.abs(s)).sum()


@log_jacobian.right
def log_jacobian_vjp(g, s):
    return g / s


@log_jacobian.wrong(at=[np.array([1.5, -2.0])])
def log_jacobian_without_the_sign(g, s):
    """1/|s|: wrong for negative scales."""
    return g / np.abs(s)


@function(at=[normal(5)])
def trapezoid(y):
    return (y[1:] + y[:-1]).sum() / 2


@trapezoid.right
def trapezoid_vjp(g, y):
    return g * np.array([0.5, *np.ones(len(y) - 2), 0.5])


@trapezoid.wrong()
def trapezoid_with_whole_ends(g, y):
    """The two ends get a whole weight."""
    return g * np.ones(len(y))
