"""Wrong derivatives of pooling."""

import math

import numpy as np

from minibn import ops
from minibn.autograd.tape import apply
from minibn.ops import pool, reduce
from minibn.ops.indexing import scatter
from minibn.ops.pool import AvgPool2d, AvgPool2dAdjoint, MaxPool2d, _corners, window_argmax
from suite.mutants.mutant import wrong
from suite.mutants.reduce import spread


@wrong("minibn.ops.pool", "max_pool2d", "window_argmax", kink=True)
def max_pool2d_gives_a_tie_to_the_last(x, size, stride):
    """Wrong only at ties: the first of them should win."""
    ramp = np.arange(x.size).reshape(x.shape)  # so small that it decides between equals only
    return window_argmax(x + 1e-9 * ramp, size, stride)


@wrong("minibn.ops.pool", "max_pool2d", "scatter")
def max_pool2d_overwrites_overlaps(x, index, shape, unique=False):
    """A pixel that wins in two windows gets the gradient of one. Windows that tile hide it."""
    return scatter(x, index, shape, unique=True)


right_max_pool2d = MaxPool2d.vjp


@wrong(MaxPool2d, "max_pool2d")
def max_pool2d_counts_from_the_padding(self, g, out, x):
    """The winners' places are those in the padded image."""
    g_x = right_max_pool2d(self, g, out, x)
    ph, pw = self.padding
    g_padded = ops.pad(g_x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    return g_padded[tuple(slice(0, n) for n in x.shape)]


@wrong(MaxPool2d, "max_pool2d")
def max_pool2d_drops_the_last_row(self, g, out, x):
    """The loop over windows stops one row too early."""
    last = np.arange(g.shape[1]).reshape(-1, 1, 1) == g.shape[1] - 1
    return right_max_pool2d(self, g * ~last, out, x)


@wrong(AvgPool2d, "avg_pool2d")
def avg_pool2d_loses_the_average(self, g, out, x):
    """Each pixel of a window gets the whole gradient."""
    return apply(AvgPool2dAdjoint(self.size, self.stride, x.shape), g) * math.prod(self.size)


@wrong(AvgPool2d, "avg_pool2d")
def avg_pool2d_divides_by_a_square(self, g, out, x):
    """1 / Kh² for 1 / (Kh Kw). Square windows never show it."""
    height, width = self.size
    return apply(AvgPool2dAdjoint(self.size, self.stride, x.shape), g) * (width / height)


@wrong(AvgPool2d, "avg_pool2d")
def avg_pool2d_takes_the_stride_for_the_window(self, g, out, x):
    """Each gradient is spread over its stride. Windows that tile hide it."""
    return apply(AvgPool2dAdjoint(self.stride, self.stride, x.shape), g)


@wrong(AvgPool2dAdjoint, "avg_pool2d", "forward")
def avg_pool2d_overwrites_overlaps(self, y):
    """A pixel in two windows gets the share of one. Windows that tile hide it."""
    x = np.zeros(self.x_shape, y.dtype)
    for corner in _corners(x, self.size, self.stride):
        corner[...] = y * (1 / math.prod(self.size))
    return x


@wrong(AvgPool2dAdjoint, "avg_pool2d", order=2)
def avg_pool2d_sums_at_second_order(self, g, out, y):
    """The adjoint of the adjoint lost its division."""
    return apply(pool.AvgPool2d(self.size, self.stride), g) * math.prod(self.size)


@wrong(reduce.Sum, "global_avg_pool2d")
def global_avg_pool2d_divides_by_a_square(self, g, out, x):
    """1 / H² for 1 / (H W). Square images never show it."""
    return spread(self, g, x) * (x.shape[2] / x.shape[1])


@wrong(reduce.Sum, "global_avg_pool2d")
def global_avg_pool2d_divides_by_the_batch(self, g, out, x):
    """1 / N H W for 1 / (H W): the loss has divided already. A batch of one hides it."""
    return spread(self, g, x) * (1 / len(x))
