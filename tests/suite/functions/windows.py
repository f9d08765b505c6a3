"""Convolution, pooling, padding, indexing, resampling: in one dimension, where one can see it."""

import numpy as np

from suite.functions.function import function, normal


def convolve(x, w, stride=1, dilation=1, padding=(0, 0)):
    x = np.concatenate([np.zeros(padding[0]), x, np.zeros(padding[1])])
    n = (len(x) - dilation * (len(w) - 1) - 1) // stride + 1
    return sum(w[k] * x[k * dilation :][: (n - 1) * stride + 1 : stride] for k in range(len(w)))


def convolve_pullback(g, x, w, stride=1, dilation=1, padding=(0, 0)):
    """(gradient of the padded input, gradient of w)"""
    padded = np.concatenate([np.zeros(padding[0]), x, np.zeros(padding[1])])
    d_padded, d_w = np.zeros_like(padded), np.zeros_like(w)
    for i in range(len(g)):
        for k in range(len(w)):
            d_padded[i * stride + k * dilation] += g[i] * w[k]
            d_w[k] += g[i] * padded[i * stride + k * dilation]
    return d_padded, d_w


@function(at=[(normal(7), normal(3, seed=1))])
def convolution(x, w):
    return convolve(x, w)


@convolution.right
def convolution_vjp(g, x, w):
    return convolve_pullback(g, x, w)


@convolution.wrong()
def convolution_does_not_flip_the_filter(g, x, w):
    """The input's gradient correlates with the filter where it has to convolve."""
    d_x, d_w = convolve_pullback(g, x, w[::-1])
    return d_x, d_w


@convolution.wrong()
def convolution_shifted_by_one(g, x, w):
    """The input's gradient starts one position too late."""
    d_x, d_w = convolve_pullback(g, x, w)
    return np.concatenate([[0.0], d_x[:-1]]), d_w


@convolution.wrong()
def convolution_reverses_the_gradient_of_its_filter(g, x, w):
    """The filter's gradient comes back to front."""
    d_x, d_w = convolve_pullback(g, x, w)
    return d_x, d_w[::-1].copy()


@function(at=[(normal(8), normal(3, seed=1))])
def strided_convolution(x, w):
    return convolve(x, w, stride=2)


@strided_convolution.right
def strided_convolution_vjp(g, x, w):
    return convolve_pullback(g, x, w, stride=2)


@strided_convolution.wrong()
def strided_convolution_aligned_at_the_end(g, x, w):
    """The remainder that no window covers is taken to lie at the start."""
    d_x, d_w = convolve_pullback(g, x, w, stride=2)
    used = (len(g) - 1) * 2 + len(w)
    return np.concatenate([np.zeros(len(x) - used), d_x[:used]]), d_w


@function(at=[(normal(7), normal(3, seed=1))])
def dilated_convolution(x, w):
    return convolve(x, w, dilation=2)


@dilated_convolution.right
def dilated_convolution_vjp(g, x, w):
    return convolve_pullback(g, x, w, dilation=2)


@dilated_convolution.wrong()
def dilated_convolution_ignores_it_for_the_filter(g, x, w):
    """The filter's gradient is that of dilation 1."""
    d_x, _ = convolve_pullback(g, x, w, dilation=2)
    return d_x, np.array([(g * x[k : k + len(g)]).sum() for k in range(len(w))])


@function(at=[(normal(6), normal(3, seed=1))])
def padded_convolution(x, w):
    return convolve(x, w, padding=(2, 1))


@padded_convolution.right
def padded_convolution_vjp(g, x, w):
    d_padded, d_w = convolve_pullback(g, x, w, padding=(2, 1))
    return d_padded[2:-1], d_w


@padded_convolution.wrong()
def padded_convolution_crops_by_the_other_side(g, x, w):
    """The padding is 2 on the left and 1 on the right; the backward pass crops 1 and 2."""
    d_padded, d_w = convolve_pullback(g, x, w, padding=(2, 1))
    return d_padded[1:-2], d_w


def average_windows(n):
    """The windows of length 3, stride 2 and padding 1, clipped to the array."""
    count = (n + 2 - 3) // 2 + 1
    return [slice(max(0, 2 * i - 1), min(n, 2 * i + 2)) for i in range(count)]


@function(at=[normal(6)])
def average_pool(x):
    return np.stack([x[w].mean() for w in average_windows(len(x))])


@average_pool.right
def average_pool_vjp(g, x):
    d = np.zeros_like(x)
    for g_i, w in zip(g, average_windows(len(x)), strict=True):
        d[w] += g_i / (w.stop - w.start)
    return d


@average_pool.wrong()
def average_pool_counts_its_padding(g, x):
    """The backward pass divides by 3 everywhere, the forward pass by the entries in the window."""
    d = np.zeros_like(x)
    for g_i, w in zip(g, average_windows(len(x)), strict=True):
        d[w] += g_i / 3
    return d


@average_pool.wrong()
def average_pool_overwrites_overlaps(g, x):
    """= for +=: where windows overlap, the last one wins."""
    d = np.zeros_like(x)
    for g_i, w in zip(g, average_windows(len(x)), strict=True):
        d[w] = g_i / (w.stop - w.start)
    return d


@function(at=[normal(3)])
def nearest_upsampling(x):
    return np.repeat(x, 2)


@nearest_upsampling.right
def nearest_upsampling_vjp(g, x):
    return g.reshape(-1, 2).sum(1)


@nearest_upsampling.wrong()
def nearest_upsampling_averages(g, x):
    """The mean of the copies' gradients for their sum."""
    return g.reshape(-1, 2).mean(1)


@function(at=[(np.array([-0.3, 0.4, 0.7]), normal(6, seed=5))], drawn="none")
def sampling(u, image):
    """Linear interpolation of an image at positions u in [-1, 1]."""
    t = (u + 1) * (len(image) - 1) / 2
    i = np.clip(np.floor(t.real).astype(int), 0, len(image) - 2)
    return image[i] * (1 - (t - i)) + image[i + 1] * (t - i)


def sampling_pullback(g, u, image, scale):
    t = (u + 1) * (len(image) - 1) / 2
    i = np.clip(np.floor(t).astype(int), 0, len(image) - 2)
    d = np.zeros_like(image)
    np.add.at(d, i, g * (1 - (t - i)))
    np.add.at(d, i + 1, g * (t - i))
    return g * (image[i + 1] - image[i]) * scale, d


@sampling.right
def sampling_vjp(g, u, image):
    return sampling_pullback(g, u, image, (len(image) - 1) / 2)


@sampling.wrong()
def sampling_without_its_scale(g, u, image):
    """From [-1, 1] to pixels is a factor, which the gradient of the position lacks."""
    return sampling_pullback(g, u, image, 1.0)


@function(at=[normal(5)])
def reflection_padding(x):
    return np.concatenate([x[2:0:-1], x, x[-2:-4:-1]])


@reflection_padding.right
def reflection_padding_vjp(g, x):
    d = g[2:-2].copy()
    d[2] += g[0]
    d[1] += g[1]
    d[-2] += g[-2]
    d[-3] += g[-1]
    return d


@reflection_padding.wrong()
def reflection_padding_drops_the_mirror(g, x):
    """Only the middle comes back, as if the padding were constant."""
    return g[2:-2].copy()


@function(at=[normal(4)])
def roll(x):
    return np.roll(x, 1)


@roll.right
def roll_vjp(g, x):
    return np.roll(g, -1)


@roll.wrong()
def roll_in_the_same_direction(g, x):
    """The shift is not reversed."""
    return np.roll(g, 1)


WORDS = np.array([0, 2, 2, 0, 1])


@function(at=[normal(3, 2)])
def embedding(w):
    return w[WORDS]


@embedding.right
def embedding_vjp(g, w):
    d = np.zeros_like(w)
    np.add.at(d, WORDS, g)
    return d


@embedding.wrong()
def embedding_overwrites_repeated_words(g, w):
    """d[words] += g adds only the last one of equal words."""
    d = np.zeros_like(w)
    d[WORDS] += g
    return d


@embedding.wrong()
def embedding_takes_the_first_word_for_padding(g, w):
    """Row 0 gets nothing."""
    d = embedding_vjp(g, w)
    d[0] = 0
    return d


@embedding.wrong()
def embedding_divides_by_counts(g, w):
    """The gradient is scaled by each word's frequency."""
    return embedding_vjp(g, w) / np.bincount(WORDS)[:, None]


ROW, COLUMN = np.array([0, 0, 1, 2]), np.array([1, 2, 2, 0])


@function(at=[(normal(4), normal(3, seed=1))])
def sparse_product(data, x):
    y = np.zeros(3, np.result_type(data, x))
    np.add.at(y, ROW, data * x[COLUMN])
    return y


@sparse_product.right
def sparse_product_vjp(g, data, x):
    d = np.zeros_like(x)
    np.add.at(d, COLUMN, data * g[ROW])
    return g[ROW] * x[COLUMN], d


@sparse_product.wrong()
def sparse_product_with_rows_for_columns(g, data, x):
    """The indices of rows and columns are swapped in the gradient of the data."""
    return g[COLUMN] * x[ROW], sparse_product_vjp(g, data, x)[1]


@function(at=[(normal(2, 3), normal(2, 2, seed=1))])
def concatenation(x, y):
    return np.concatenate([x, y], 1)


@concatenation.right
def concatenation_vjp(g, x, y):
    return g[:, :3].copy(), g[:, 3:].copy()


@concatenation.wrong()
def concatenation_cuts_from_the_end(g, x, y):
    """The parts are cut in the order y, x."""
    return g[:, 2:].copy(), g[:, :2].copy()


@function(at=[normal(3, 3)])
def transposition(x):
    return x.T


@transposition.right
def transposition_vjp(g, x):
    return g.T.copy()


@transposition.wrong()
def transposition_forgets_to_go_back(g, x):
    """The cotangent is not transposed: a square shape hides it."""
    return g.copy()
