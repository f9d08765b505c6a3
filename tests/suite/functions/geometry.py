"""Batches of matrices, rotations, cross products, images: indices and signs."""

import numpy as np

from minibn.testing.strategies import nonzero
from suite.functions.function import function, normal

TARGETS = np.array([2, 0, 1, 2])


@function(at=[(normal(2, 3, 4), normal(4, 2, seed=1))])
def batched_product(a, b):
    """A batch of matrices times one matrix."""
    return a @ b


@batched_product.right
def batched_product_vjp(g, a, b):
    return g @ b.T, np.einsum("nij,nik->jk", a, g)


@batched_product.wrong()
def batched_product_takes_the_first(g, a, b):
    """The shared matrix gets the gradient of the first of the batch."""
    return g @ b.T, a[0].T @ g[0]


@batched_product.wrong()
def batched_product_averages(g, a, b):
    """The mean over the batch for the sum."""
    return g @ b.T, np.einsum("nij,nik->jk", a, g) / len(a)


@function(at=[(normal(3), normal(4, seed=1))])
def scatter_add(x, s):
    """s is added to x at TARGETS, of which one occurs twice."""
    y = x + 0 * s.sum()
    np.add.at(y, TARGETS, s)
    return y


@scatter_add.right
def scatter_add_vjp(g, x, s):
    return g.copy(), g[TARGETS]


@scatter_add.wrong()
def scatter_add_overwrites(g, x, s):
    """The backward pass of an assignment: x gets nothing where something was added."""
    d = g.copy()
    d[TARGETS] = 0
    return d, g[TARGETS]


@scatter_add.wrong()
def scatter_add_shares_repeated_targets(g, x, s):
    """Two entries that go to one place get half of the gradient each."""
    return g.copy(), g[TARGETS] / np.bincount(TARGETS)[TARGETS]


@function(at=[(normal(2, 3), normal(2, 3, seed=1))])
def cross_product(a, b):
    return np.cross(a, b)


@cross_product.right
def cross_product_vjp(g, a, b):
    return np.cross(b, g), np.cross(g, a)


@cross_product.wrong()
def cross_product_in_the_wrong_order(g, a, b):
    """a × g for g × a: the sign of one gradient."""
    return np.cross(b, g), np.cross(a, g)


@function(at=[(normal(4), normal(4, seed=1))])
def rotation(x, t):
    """Pairs of x, rotated by the angles t[:2], as rotary embeddings."""
    a, b, c, s = x[::2], x[1::2], np.cos(t[:2]), np.sin(t[:2])
    return np.concatenate([a * c - b * s, a * s + b * c])


@rotation.right
def rotation_vjp(g, x, t):
    a, b, c, s = x[::2], x[1::2], np.cos(t[:2]), np.sin(t[:2])
    u, v = np.split(g, 2)
    d_x, d_t = np.zeros_like(x), np.zeros_like(t)
    d_x[::2], d_x[1::2] = u * c + v * s, v * c - u * s
    d_t[:2] = u * (-a * s - b * c) + v * (a * c - b * s)
    return d_x, d_t


@rotation.wrong()
def rotation_in_the_same_direction(g, x, t):
    """The cotangent is rotated by t, not by -t."""
    _, d_t = rotation_vjp(g, x, t)
    return rotation_vjp(g, x, -t)[0], d_t


@function(at=[(np.array([1.0, 2.0]), np.array([0.3, -1.0]))], domains=(nonzero, nonzero))
def polar(r, phi):
    return np.stack([r * np.cos(phi), r * np.sin(phi)])


@polar.right
def polar_vjp(g, r, phi):
    c, s = np.cos(phi), np.sin(phi)
    return g[0] * c + g[1] * s, r * (g[1] * c - g[0] * s)


@polar.wrong()
def polar_without_the_radius(g, r, phi):
    """The gradient of the angle lacks r."""
    c, s = np.cos(phi), np.sin(phi)
    return g[0] * c + g[1] * s, g[1] * c - g[0] * s


@function(at=[normal(3, 3)])
def trace_of_the_square(a):
    return np.trace(a @ a)


@trace_of_the_square.right
def trace_of_the_square_vjp(g, a):
    return 2 * g * a.T


@trace_of_the_square.wrong(at=[normal(3, 3)])
def trace_of_the_square_without_the_transpose(g, a):
    """2A for 2Aᵀ."""
    return 2 * g * a


@function(at=[(normal(2), normal(3, seed=1))])
def kronecker(a, b):
    return np.kron(a, b)


@kronecker.right
def kronecker_vjp(g, a, b):
    g = g.reshape(len(a), len(b))
    return g @ b, g.T @ a


@kronecker.wrong()
def kronecker_reshaped_the_other_way(g, a, b):
    """The blocks are taken for the columns."""
    g = g.reshape(len(b), len(a)).T
    return g @ b, g.T @ a


@function(at=[normal(1, 4, 2, 2)])
def pixel_shuffle(x):
    """(N, 4, H, W) -> (N, 2H, 2W)"""
    N, _, H, W = x.shape
    return x.reshape(N, 2, 2, H, W).transpose(0, 3, 1, 4, 2).reshape(N, 2 * H, 2 * W)


@pixel_shuffle.right
def pixel_shuffle_vjp(g, x):
    N, _, H, W = x.shape
    return g.reshape(N, H, 2, W, 2).transpose(0, 2, 4, 1, 3).reshape(x.shape)


@pixel_shuffle.wrong(at=[normal(2, 4, 2, 2)])
def pixel_shuffle_swaps_rows_and_columns(g, x):
    """The two sub-pixel axes are exchanged on the way back."""
    N, _, H, W = x.shape
    return g.reshape(N, H, 2, W, 2).transpose(0, 4, 2, 1, 3).reshape(x.shape)


@function(at=[(normal(3), normal(3, seed=1))])
def transposed_convolution(x, w):
    """Stride 2: a scatter of windows."""
    y = np.zeros(2 * (len(x) - 1) + len(w), np.result_type(x, w))
    for i in range(len(x)):
        y[2 * i : 2 * i + len(w)] += x[i] * w
    return y


@transposed_convolution.right
def transposed_convolution_vjp(g, x, w):
    windows = np.stack([g[2 * i : 2 * i + len(w)] for i in range(len(x))])
    return windows @ w, x @ windows


@transposed_convolution.wrong()
def transposed_convolution_of_stride_one(g, x, w):
    """The stride is forgotten in the backward pass."""
    windows = np.stack([g[i : i + len(w)] for i in range(len(x))])
    return windows @ w, x @ windows


@function(at=[(normal(2, 5), normal(2, 3, seed=1))])
def depthwise_convolution(x, w):
    windows = np.lib.stride_tricks.sliding_window_view(x, 3, 1)  # (C, n, 3)
    return np.einsum("cnk,ck->cn", windows, w)


@depthwise_convolution.right
def depthwise_convolution_vjp(g, x, w):
    d_x, d_w = np.zeros_like(x), np.zeros_like(w)
    for k in range(3):
        d_x[:, k : k + g.shape[1]] += g * w[:, k : k + 1]
        d_w[:, k] = (g * x[:, k : k + g.shape[1]]).sum(1)
    return d_x, d_w


@depthwise_convolution.wrong()
def depthwise_convolution_mixes_channels(g, x, w):
    """The filter's gradient is summed over the channels, as if they shared it."""
    d_x, d_w = depthwise_convolution_vjp(g, x, w)
    return d_x, np.broadcast_to(d_w.sum(0), d_w.shape).copy()


@depthwise_convolution.wrong()
def depthwise_convolution_with_the_filter_of_channel_zero(g, x, w):
    """Every channel's input gradient uses the filter of channel 0."""
    return depthwise_convolution_vjp(g, x, w[[0, 0]])[0], depthwise_convolution_vjp(g, x, w)[1]


@function(at=[normal(4)])
def linear_upsampling(x):
    """Between every two values their mean."""
    return np.concatenate([np.stack([x[:-1], (x[:-1] + x[1:]) / 2], 1).reshape(-1), x[-1:]])


@linear_upsampling.right
def linear_upsampling_vjp(g, x):
    d, between = g[::2].copy(), g[1::2]
    d[:-1] += between / 2
    d[1:] += between / 2
    return d


@linear_upsampling.wrong()
def linear_upsampling_takes_the_nearest(g, x):
    """The means give their whole gradient to the left neighbour."""
    d = g[::2].copy()
    d[:-1] += g[1::2]
    return d


@linear_upsampling.wrong()
def linear_upsampling_forgets_what_is_between(g, x):
    """Only the values themselves come back."""
    return g[::2].copy()


@function(at=[np.array([[0.2, 0.7], [0.9, 0.4]])], drawn="none")
def dice_loss(p):
    return 1 - 2 * (p[0] * p[1]).sum() / (p[0] ** 2 + p[1] ** 2).sum()


@dice_loss.right
def dice_loss_vjp(g, p):
    overlap, total = (p[0] * p[1]).sum(), (p**2).sum()
    return -2 * g * (p[::-1] * total - overlap * 2 * p) / total**2


@dice_loss.wrong()
def dice_loss_with_a_constant_denominator(g, p):
    """The quotient rule's second term is missing."""
    return -2 * g * p[::-1] / (p**2).sum()


@dice_loss.wrong()
def dice_loss_with_the_wrong_partner(g, p):
    """Each of the two gets itself in the numerator."""
    overlap, total = (p[0] * p[1]).sum(), (p**2).sum()
    return -2 * g * (p * total - overlap * 2 * p) / total**2
