"""Choices between entries: maxima of two arrays, reductions that choose, sorting, ties."""

import numpy as np

from minibn.testing.strategies import gap_separated, with_ties
from suite.functions.function import function, normal

APART = gap_separated(0.2)
SPLIT = "Two equal entries share the gradient."


@function(at=[(np.array([1.0, 2.0, -1.0]), np.array([1.0, 0.5, 3.0]))], domains=APART)
def maximum(x, y):
    return np.maximum(x, y)


@maximum.right
def maximum_vjp(g, x, y):
    share = (x > y) + 0.5 * (x == y)
    return g * share, g * (1 - share)


@maximum.wrong(at=[(np.array([1.0, 2.0, -1.0]), np.array([1.0, 0.5, 3.0]))])
def maximum_gives_a_tie_to_both(g, x, y):
    """At a tie both inputs get the whole gradient: moving both together, the slope is 1, not 2."""
    return g * (x >= y), g * (y >= x)


@maximum.wrong(at=[(np.array([1.0, 2.0]), np.array([1.0, 0.5]))])
def maximum_gives_a_tie_to_none(g, x, y):
    """At a tie neither input gets anything: moving both together, the slope is 1, not 0."""
    return g * (x > y), g * (y > x)


@maximum.wrong()
def maximum_of_the_other_input(g, x, y):
    """The smaller input gets the gradient."""
    return g * (x < y), g * (x > y)


maximum.hard("maximum_of_ties", (np.array([1.0, 2.0]), np.array([1.0, 2.0])), why=SPLIT)
maximum.hard("maximum_of_equal_zeros", (np.zeros(2), np.zeros(2)), why=SPLIT)
maximum.hard(
    "maximum_of_nearly_equal_entries", (np.array([1.0, 2.0]), np.array([1.0 + 1e-9, 2.0])),
    why="The kink is 1e-9 away.",
)  # fmt: skip


@function(at=[(np.array([1.0, 2.0, -1.0]), np.array([1.0, 0.5, 3.0]))], domains=APART)
def minimum_first(x, y):
    return np.minimum(x, y)


@minimum_first.right
def minimum_first_vjp(g, x, y):
    return g * (x <= y), g * (x > y)


@minimum_first.wrong(at=[(np.array([1.0, 2.0]), np.array([1.0, 0.5]))])
def minimum_gives_a_tie_to_both(g, x, y):
    """At a tie both inputs get the whole gradient."""
    return g * (x <= y), g * (y <= x)


minimum_first.hard(
    "minimum_gives_ties_to_the_first", (np.array([1.0, 2.0]), np.array([1.0, 2.0])),
    why="The first input gets all of a tie.", convention=minimum_first_vjp,
)  # fmt: skip


CHOICE = np.array([False, True, True, False])


@function(at=[(normal(4), normal(4, seed=1))])
def chosen(x, y):
    return np.where(CHOICE, x, y)


@chosen.right
def chosen_vjp(g, x, y):
    return g * CHOICE, g * ~CHOICE


@chosen.wrong()
def chosen_gives_both_everything(g, x, y):
    """The condition is forgotten: both branches get the whole gradient."""
    return g.copy(), g.copy()


@chosen.wrong()
def chosen_by_the_sign_of_x(g, x, y):
    """The mask of another condition."""
    return g * (x > 0), g * (x <= 0)


@function(at=[np.array([1.0, 3.0, 2.0]), normal(5)], domains=APART)
def largest(x):
    return x.max(-1)


@largest.right
def largest_vjp(g, x):
    top = x == x.max(-1, keepdims=True)
    return g[..., None] * top / top.sum(-1, keepdims=True)


@largest.wrong(at=[np.array([3.0, 3.0, 2.0])])
def largest_gives_ties_everything(g, x):
    """Every one of the tied maxima gets the whole gradient."""
    return g[..., None] * (x == x.max(-1, keepdims=True))


@largest.wrong()
def largest_takes_the_first(g, x):
    """The index of the maximum was never computed: entry 0 gets the gradient."""
    d = np.zeros_like(x)
    d[..., 0] = g
    return d


largest.hard("largest_of_ties", np.array([3.0, 3.0, 2.0]), why=SPLIT, convention=largest_vjp)
largest.hard("largest_of_equal_entries", np.full(4, 2.0), why=SPLIT)
largest.hard("largest_of_two_zeros", np.array([0.0, 0.0, -1.0]), why=SPLIT)


@function(at=[np.array([1.0, 0.5, 2.0, 1.5])], domains=APART)
def running_maximum(x):
    return np.maximum.accumulate(x)


@running_maximum.right
def running_maximum_vjp(g, x):
    d, best = np.zeros_like(x), 0
    for i in range(len(x)):
        best = i if x[i] >= x[best] else best
        d[best] += g[i]
    return d


@running_maximum.wrong(at=[np.array([1.0, 0.5, 2.0, 1.5])])
def running_maximum_drops_what_comes_later(g, x):
    """An entry gets the gradient of its own position only, not of those where it still leads."""
    return g * (x == np.maximum.accumulate(x))


@function(at=[normal(4)], domains=APART)
def median(x):
    return np.median(x)


@median.right
def median_vjp(g, x):
    d, order = np.zeros_like(x), np.argsort(x, kind="stable")
    d[order[1]], d[order[2]] = g / 2, g / 2
    return d


@median.wrong()
def median_of_four_goes_to_the_lower(g, x):
    """The lower of the two middle entries gets all; the median is their mean."""
    d = np.zeros_like(x)
    d[np.argsort(x, kind="stable")[1]] = g
    return d


@function(at=[np.array([2.0, -1.0, 3.0, 0.5])], domains=APART)
def ascending(x):
    return np.sort(x)


@ascending.right
def ascending_vjp(g, x):
    d = np.empty_like(x)
    d[np.argsort(x, kind="stable")] = g
    return d


@ascending.wrong(at=[np.array([2.0, -1.0, 3.0, 0.5])])
def ascending_by_the_same_permutation(g, x):
    """g[order] for the inverse permutation."""
    return g[np.argsort(x, kind="stable")]


@ascending.wrong(at=[np.array([2.0, -1.0, 3.0, 0.5])])
def ascending_does_not_move_its_cotangent(g, x):
    """The permutation is forgotten in the backward pass."""
    return g.copy()


ascending.hard(
    "ascending_with_a_tie",
    np.array([2.0, -1.0, 2.0]),
    why="Either of the two permutations is right.",
)


@function(at=[normal(2, 4)], domains=APART)
def two_largest(x):
    return np.take_along_axis(x, np.argsort(-x, -1)[:, :2], -1)


@two_largest.right
def two_largest_vjp(g, x):
    d = np.zeros_like(x)
    np.put_along_axis(d, np.argsort(-x, -1)[:, :2], g, -1)
    return d


@two_largest.wrong(at=[np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])])
def two_largest_with_the_indices_of_the_first_row(g, x):
    """The indices of row 0 serve every row."""
    d = np.zeros_like(x)
    d[:, np.argsort(-x, -1)[0, :2]] = g
    return d


@function(at=[np.array([1.0, 1.5, 3.0, 2.0])], domains=APART)
def max_pool(x):
    return x.reshape(-1, 2).max(1)


@max_pool.right
def max_pool_vjp(g, x):
    pairs = x.reshape(-1, 2)
    d = np.zeros_like(pairs)
    d[np.arange(len(pairs)), pairs.argmax(1)] = g
    return d.reshape(x.shape)


@max_pool.wrong(at=[np.array([1.0, 1.0, 3.0, 2.0])])
def max_pool_gives_ties_to_both(g, x):
    """Both tied entries of a window get the whole gradient."""
    pairs = x.reshape(-1, 2)
    return (g[:, None] * (pairs == pairs.max(1, keepdims=True))).reshape(x.shape)


@max_pool.wrong()
def max_pool_spreads_evenly(g, x):
    """The backward pass of average pooling."""
    return np.repeat(g, 2) / 2


max_pool.hard("max_pool_of_ties", np.array([1.0, 1.0, 3.0, 3.0]), why="The first one gets all.")


@function(at=[normal(5)], domains=APART)
def quantile(x):
    s, t = np.sort(x), 0.3 * (len(x) - 1)
    return s[int(t)] * (1 - t % 1) + s[int(t) + 1] * (t % 1)


@quantile.right
def quantile_vjp(g, x):
    order, t, d = np.argsort(x), 0.3 * (len(x) - 1), np.zeros_like(x)
    d[order[int(t)]], d[order[int(t) + 1]] = g * (1 - t % 1), g * (t % 1)
    return d


@quantile.wrong()
def quantile_with_swapped_weights(g, x):
    """The weights of the two neighbours are swapped."""
    order, t, d = np.argsort(x), 0.3 * (len(x) - 1), np.zeros_like(x)
    d[order[int(t)]], d[order[int(t) + 1]] = g * (t % 1), g * (1 - t % 1)
    return d


@function(at=[normal(4)], domains=with_ties)
def l1_norm(x):
    return np.abs(x).sum()


@l1_norm.right
def l1_norm_vjp(g, x):
    return g * np.sign(x)


@l1_norm.wrong(at=[np.array([0.0, 1.0, -2.0])])
def l1_norm_is_two_at_zero(g, x):
    """sign(0) is taken as 2."""
    return g * (np.sign(x) + 2.0 * (x == 0))


l1_norm.hard("l1_norm_at_zeros", np.array([0.0, 0.0, 1.0]), why="Three kinks in one sum.")
l1_norm.hard("l1_norm_of_nothing_but_zeros", np.zeros(3), why="0 is right.", ends=("vacuous",))
