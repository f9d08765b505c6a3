"""Wrong derivatives of the convolution."""

import numpy as np

from minibn.autograd.tape import apply, unbroadcast
from minibn.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from minibn.ops.joining import concatenate
from minibn.ops.shape import reshape, transpose
from suite.mutants.mutant import wrong


def input_grad(op, g, w):
    """The right gradient of x."""
    return apply(Conv2dInputGrad(*op.settings), g, w)


def weight_grad(op, x, g):
    """The right gradient of w."""
    return apply(Conv2dWeightGrad(*op.settings), x, g)


def moved(image, rows):
    """The image with its rows moved down cyclically."""
    rows %= image.shape[1]
    return concatenate([image[:, -rows:], image[:, :-rows]], axis=1) if rows else image


@wrong(Conv2d, "conv2d")
def conv2d_does_not_flip_the_kernel(self, g, out, x, w):
    """x̄ is a correlation with w where it should be a convolution (or the reverse)."""
    return input_grad(self, g, w[::-1, ::-1]), weight_grad(self, x, g)


@wrong(Conv2d, "conv2d")
def conv2d_confuses_its_channels(self, g, out, x, w):
    """w is read as (Kh, Kw, F, C). One channel on either side never shows it."""
    other = reshape(transpose(w, (0, 1, 3, 2)), w.shape)
    return input_grad(self, g, other), weight_grad(self, x, g)


@wrong(Conv2d, "conv2d")
def conv2d_transposes_the_kernel(self, g, out, x, w):
    """Height and width of the kernel are exchanged."""
    other = reshape(transpose(w, (1, 0, 2, 3)), w.shape)
    return input_grad(self, g, other), weight_grad(self, x, g)


@wrong(Conv2d, "conv2d")
def conv2d_aligns_the_remainder_at_the_end(self, g, out, x, w):
    """Where the stride leaves rows over, x̄ is moved to the bottom. Stride 1 never shows it."""
    over = (x.shape[1] + 2 * self.padding[0] - w.shape[0]) % self.stride[0]
    return moved(input_grad(self, g, w), over), weight_grad(self, x, g)


@wrong(Conv2d, "conv2d")
def conv2d_crops_from_the_corner(self, g, out, x, w):
    """The padding is cut off at the bottom only."""
    return moved(input_grad(self, g, w), self.padding[0]), weight_grad(self, x, g)


@wrong(Conv2d, "conv2d")
def conv2d_drops_the_row_beside_the_padding(self, g, out, x, w):
    """The first row of x̄ is taken for padding."""
    first = np.arange(x.shape[1]).reshape(-1, 1, 1) == 0
    return input_grad(self, g, w) * ~(first & (self.padding[0] > 0)), weight_grad(self, x, g)


@wrong(Conv2d, "conv2d")
def conv2d_averages_over_the_batch(self, g, out, x, w):
    """w̄ is a mean over the images: the loss has divided already."""
    return input_grad(self, g, w), weight_grad(self, x, g) * (1 / len(x))


@wrong(Conv2d, "conv2d")
def conv2d_learns_from_the_first_image(self, g, out, x, w):
    """w̄ sees one image of the batch. A batch of one never shows it."""
    first = np.arange(len(x)).reshape(-1, 1, 1, 1) == 0
    return input_grad(self, g, w), weight_grad(self, x, g * first)


@wrong(Conv2d, "conv2d")
def conv2d_gives_x_nothing(self, g, out, x, w):
    """x̄ = 0: not noticed where only the weights are trained."""
    return x * 0, weight_grad(self, x, g)


@wrong("minibn.autograd.backward", "conv2d", "unbroadcast")
def conv2d_averages_the_bias(g, shape):
    """The gradient of the bias is a mean over the pixels, where it should be the sum."""
    summed = unbroadcast(g, shape)
    return summed * (summed.size / g.size)


@wrong(Conv2dInputGrad, "conv2d", order=2)
def conv2d_detaches_the_weights(self, g, out, c, w):
    """The second derivative of x̄ forgets that it depends on w."""
    return apply(Conv2d(*self.settings), g, w), None


@wrong(Conv2dWeightGrad, "conv2d", order=2)
def conv2d_flips_at_second_order(self, g, out, x, c):
    """The second derivative of w̄ flips the kernel once too often."""
    return (
        apply(Conv2dInputGrad(*self.settings), c, g[::-1, ::-1]),
        apply(Conv2d(*self.settings), x, g),
    )
