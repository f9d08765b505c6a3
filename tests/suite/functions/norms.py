"""Lengths, distances and layers that normalise."""

import numpy as np

from minibn.testing.strategies import nonzero
from suite.functions.function import function, normal

ROWS = [normal(3, 4)]


def length(x):
    return np.sqrt((x * x).sum(-1))


@function(at=[np.array([[1.0, -2.0], [3.0, 4.0]]), normal(3, 2)], domains=nonzero)
def lengths(x):
    return length(x)


@lengths.right
def lengths_vjp(g, x):
    n = length(x)
    return (g / np.where(n == 0, 1, n))[:, None] * x


@lengths.wrong(at=[np.array([[0.0, 0.0], [3.0, 4.0]])])
def lengths_are_not_a_number_at_zero(g, x):
    """0/0 in a row of zeros."""
    return (g / length(x))[:, None] * x


@lengths.wrong()
def lengths_without_the_division(g, x):
    """The derivative of half the squared length."""
    return g[:, None] * x


@lengths.wrong()
def lengths_of_the_whole_array(g, x):
    """Divided by the norm of the array, not of the row."""
    return g[:, None] * x / np.sqrt((x * x).sum())


lengths.hard("lengths_at_zero", np.array([[0.0, 0.0], [3.0, 4.0]]), why="The subgradient 0.")
lengths.hard("lengths_of_zeros", np.zeros((2, 2)), why="The subgradient 0.", ends=("vacuous",))
lengths.hard("lengths_of_both_scales", np.array([[1e-6, 2e-6], [3e6, 1e6]]), why="A kink nearby.")


@function(at=[normal(2, 3)], domains=nonzero)
def unit_rows(x):
    return x / length(x)[..., None]


@unit_rows.right
def unit_rows_vjp(g, x):
    u = unit_rows(x)
    return (g - u * (g * u).sum(-1, keepdims=True)) / length(x)[..., None]


@unit_rows.wrong()
def unit_rows_without_the_projection(g, x):
    """The length is treated as a constant."""
    return g / length(x)[..., None]


@function(at=[(normal(2, 3), normal(2, 3, seed=1))], domains=nonzero)
def cosine_similarity(a, b):
    return (a * b).sum(-1) / (length(a) * length(b))


@cosine_similarity.right
def cosine_similarity_vjp(g, a, b):
    la, lb, c, g = (v[..., None] for v in (length(a), length(b), cosine_similarity(a, b), g))
    return g * (b / (la * lb) - c * a / la**2), g * (a / (la * lb) - c * b / lb**2)


@cosine_similarity.wrong()
def cosine_similarity_with_the_length_of_the_other(g, a, b):
    """b's projection is divided by the squared length of a."""
    la, lb, c, g = (v[..., None] for v in (length(a), length(b), cosine_similarity(a, b), g))
    return g * (b / (la * lb) - c * a / la**2), g * (a / (la * lb) - c * b / la**2)


@function(at=ROWS)
def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def normalised_pullback(g, x, axis, eps=1e-5, mean_term=True, variance_term=True):
    """The pullback of (x - mean) / √(var + eps) over `axis`."""
    centred = x - x.mean(axis, keepdims=True)
    std = np.sqrt((centred**2).mean(axis, keepdims=True) + eps)
    x_hat = centred / std
    d = g - g.mean(axis, keepdims=True) * mean_term
    return (d - x_hat * (g * x_hat).mean(axis, keepdims=True) * variance_term) / std


@layer_norm.right
def layer_norm_vjp(g, x):
    return normalised_pullback(g, x, -1)


@layer_norm.wrong()
def layer_norm_with_a_constant_variance(g, x):
    """The variance is treated as a constant."""
    return normalised_pullback(g, x, -1, variance_term=False)


@layer_norm.wrong()
def layer_norm_with_a_constant_mean(g, x):
    """The mean is treated as a constant."""
    return normalised_pullback(g, x, -1, mean_term=False)


@layer_norm.wrong(at=[normal(4, 4)])
def layer_norm_over_the_batch(g, x):
    """The backward pass of BatchNorm: no shape complains."""
    return normalised_pullback(g, x, 0)


layer_norm.hard("layer_norm_of_two_values", normal(3, 2), why="x̂ is ±1: what is left is eps/var.")
layer_norm.hard("layer_norm_with_a_huge_mean", normal(2, 5) + 1e5, why="Five digits cancel.")
layer_norm.hard("layer_norm_of_tiny_values", 1e-5 * normal(2, 5), why="The variance is below eps.")
layer_norm.hard("layer_norm_of_equal_values", np.full((2, 3), 0.3), why="x̂ is 0; the slope is 316.")


@function(at=[normal(6, 2)])
def batch_norm(x):
    centred = x - x.mean(0)
    return centred / np.sqrt((centred**2).mean(0) + 1e-5)


@batch_norm.right
def batch_norm_vjp(g, x):
    return normalised_pullback(g, x, 0)


@batch_norm.wrong()
def batch_norm_without_eps_in_its_backward_pass(g, x):
    """eps is forgotten in the backward pass: five digits are right."""
    return normalised_pullback(g, x, 0, eps=0.0)


@batch_norm.wrong()
def batch_norm_cuts_the_graph(g, x):
    """It computes on plain numbers and returns a fresh array: nothing flows back."""
    return np.zeros_like(x)


batch_norm.hard("batch_norm_of_channels_at_two_scales", normal(6, 2) * [1e-3, 1e3], why="Scales.")


@function(at=[normal(2, 4)])
def rms_norm(x):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)


@rms_norm.right
def rms_norm_vjp(g, x):
    r = np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return g / r - x * (g * x).mean(-1, keepdims=True) / r**3


@rms_norm.wrong()
def rms_norm_without_eps_in_its_backward_pass(g, x):
    """eps is forgotten in the backward pass."""
    r = np.sqrt((x * x).mean(-1, keepdims=True))
    return g / r - x * (g * x).mean(-1, keepdims=True) / r**3


@rms_norm.wrong()
def rms_norm_with_a_square_for_the_cube(g, x):
    """r² for r³ in the second term."""
    r = np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return g / r - x * (g * x).mean(-1, keepdims=True) / r**2


GROUPS = 2


@function(at=[(normal(3, 4), normal(4, seed=1), normal(4, seed=2))])
def group_norm(x, gamma, beta):
    return gamma * layer_norm(x.reshape(len(x), GROUPS, -1)).reshape(x.shape) + beta


def group_norm_pullback(g, x, gamma, split, join):
    x_hat = layer_norm(x.reshape(len(x), GROUPS, -1)).reshape(x.shape)
    d = join(normalised_pullback(split(g * gamma), split(x), -1))
    return d, (g * x_hat).sum(0), g.sum(0)


@group_norm.right
def group_norm_vjp(g, x, gamma, beta):
    def split(a):
        return a.reshape(len(a), GROUPS, -1)

    return group_norm_pullback(g, x, gamma, split, lambda d: d.reshape(x.shape))


@group_norm.wrong()
def group_norm_with_interleaved_groups(g, x, gamma, beta):
    """Every second channel belongs to a group in the backward pass, in the forward pass halves."""

    def split(a):
        return a.reshape(len(a), -1, GROUPS).swapaxes(1, 2)

    return group_norm_pullback(g, x, gamma, split, lambda d: d.swapaxes(1, 2).reshape(x.shape))


@group_norm.wrong()
def group_norm_without_gamma(g, x, gamma, beta):
    """The cotangent is not multiplied by gamma before it goes through the normalisation."""

    def split(a):
        return a.reshape(len(a), GROUPS, -1)

    right = group_norm_vjp(g, x, gamma, beta)
    return normalised_pullback(split(g), split(x), -1).reshape(x.shape), *right[1:]


@group_norm.wrong()
def group_norm_forgets_the_last_channel(g, x, gamma, beta):
    """A loop over channels ends one too early."""
    d, d_gamma, d_beta = group_norm_vjp(g, x, gamma, beta)
    d[:, -1] = 0
    return d, d_gamma, d_beta


@function(at=[(normal(3), np.array(1.5))], domains=nonzero)
def weight_norm(v, s):
    return s * v / np.sqrt((v * v).sum())


@weight_norm.right
def weight_norm_vjp(g, v, s):
    n, u = np.sqrt((v * v).sum()), v / np.sqrt((v * v).sum())
    return s * (g - u * (g * u).sum()) / n, (g * u).sum()


@weight_norm.wrong()
def weight_norm_without_the_projection(g, v, s):
    """The length of v is treated as a constant."""
    n = np.sqrt((v * v).sum())
    return s * g / n, (g * v).sum() / n


MEAN, VARIANCE = np.array([0.3, -1.0]), np.array([2.0, 0.5])


@function(at=[(normal(4, 2), normal(2, seed=1), normal(2, seed=2))])
def batch_norm_inference(x, gamma, beta):
    return gamma * (x - MEAN) / np.sqrt(VARIANCE + 1e-5) + beta


@batch_norm_inference.right
def batch_norm_inference_vjp(g, x, gamma, beta):
    std = np.sqrt(VARIANCE + 1e-5)
    return g * gamma / std, (g * (x - MEAN) / std).sum(0), g.sum(0)


@batch_norm_inference.wrong()
def batch_norm_inference_with_the_statistics_of_the_batch(g, x, gamma, beta):
    """The backward pass divides by the batch's own deviation."""
    right = batch_norm_inference_vjp(g, x, gamma, beta)
    return g * gamma / np.sqrt(x.var(0) + 1e-5), *right[1:]
