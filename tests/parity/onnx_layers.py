"""ONNX's convolutions, poolings, norms, softmaxes and losses, each by minibn's ops.

Theirs are channels-first, (N, C, ...); filters are (F, C, Kh, Kw). `images` and `back` convert;
one spatial axis is a picture of height one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from parity.onnx_runner import LeftOut, node, only, text

from minibn import ops
from minibn.autograd.tape import apply
from minibn.autograd.tensor import value
from minibn.ops.conv import Conv2dInputGrad


def images(x):
    """(N, C, H, W) or (N, C, L) -> (N, H, W, C)"""
    if x.ndim not in (3, 4):
        raise LeftOut(f"axes: {x.ndim - 2} of space, ours are images")
    x = x if x.ndim == 4 else ops.reshape(x, (*x.shape[:2], 1, x.shape[2]))
    return ops.transpose(x, (0, 2, 3, 1))


def back(y, ndim: int):
    """(N, H, W, C) -> (N, C, H, W) or (N, C, L)"""
    y = ops.transpose(y, (0, 3, 1, 2))
    return y if ndim == 4 else ops.reshape(y, (*y.shape[:2], y.shape[3]))


def two(setting: Any, ndim: int, default: int = 1) -> tuple[int, ...]:
    """A setting for each of the two directions."""
    given = [default] * (ndim - 2) if setting is None else list(setting)
    return tuple([default] * (4 - ndim) + given)


def frame(x, kernel, strides, auto_pad="NOTSET", pads=None, ceil_mode=0):
    """(before, after) for height and width of images x, so that the windows fit."""
    widths, auto_pad = [], text(auto_pad)
    pads = [0] * 4 if pads is None else list(pads) if len(pads) == 4 else [0, pads[0], 0, pads[1]]
    for i, (n, k, s) in enumerate(zip(x.shape[1:3], kernel, strides, strict=True)):
        before, after = pads[i], pads[i + 2]
        if auto_pad.startswith("SAME"):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            after = total - before
        if ceil_mode:
            out = -(-(n + before + after - k) // s) + 1
            out -= (out - 1) * s >= n + before  # no window starts in the padding behind
            after += max((out - 1) * s + k - (n + before + after), 0)
        widths.append((before, after))
    return widths


def framed(x, widths):
    return ops.pad(x, ((0, 0), *widths, (0, 0)))


def even(widths):
    """The padding of one side, if it is that of the other, else None."""
    return tuple(b for b, _ in widths) if all(b == a for b, a in widths) else None


# -- convolution


def parts(x, n: int):
    """The last axis in n equal parts: ours know no groups."""
    size = x.shape[-1] // n
    return [x[..., i * size : (i + 1) * size] for i in range(n)]


@node("Conv")
def conv(x, w, b=None, *, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None):  # fmt: skip  # noqa: E501  # the attributes of ONNX
    only("Conv dilations", dilations, [1] * (x.ndim - 2))
    z, strides = images(x), two(strides, x.ndim)
    w = ops.transpose(images(w), (1, 2, 3, 0))  # (Kh, Kw, C, F)
    widths = frame(z, w.shape[:2], strides, auto_pad, pads)
    padding = even(widths)
    if padding is None:
        z, padding = framed(z, widths), 0
    y = [
        ops.conv2d(part, filters, stride=strides, padding=padding)
        for part, filters in zip(parts(z, group), parts(w, group), strict=True)
    ]
    y = ops.concatenate(y, 3)
    return back(y if b is None else y + b, x.ndim)


@node("ConvTranspose")
def conv_transpose(x, w, b=None, *, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, output_padding=None, output_shape=None, pads=None, strides=None):  # fmt: skip  # noqa: E501  # the attributes of ONNX
    """The adjoint of the convolution with the same filters: what its input's gradient is."""
    only("ConvTranspose dilations", dilations, [1] * (x.ndim - 2))
    if group > 1:
        only("ConvTranspose group with a bias", b, None)
        size = x.shape[1] // group
        halves = [
            conv_transpose(x[:, i : i + size], w[i : i + size], dilations=dilations, pads=pads)
            for i in range(0, x.shape[1], size)
        ]
        return ops.concatenate(halves, 1)
    c, strides = images(x), two(strides, x.ndim)
    w = ops.transpose(images(w), (1, 2, 3, 0))  # (Kh, Kw, F, C): the roles of C and F exchanged
    extra = two(output_padding, x.ndim, 0)
    pads = [0] * 4 if pads is None else list(pads)
    full, cut = [], []
    for i, (n, k, s) in enumerate(zip(c.shape[1:3], w.shape[:2], strides, strict=True)):
        before, after = pads[i], pads[i + 2]
        total = (n - 1) * s + k + extra[i]
        wanted = two(output_shape, x.ndim)[i] if output_shape else total - before - after
        if output_shape is None and text(auto_pad).startswith("SAME"):
            wanted = n * s
        if output_shape or text(auto_pad).startswith("SAME"):
            before = max(total - wanted, 0) // 2
        full.append(max(total, before + wanted))
        cut.append(slice(before, before + wanted))
    shape = (c.shape[0], *full, w.shape[2])
    y = apply(Conv2dInputGrad(strides, (0, 0), shape, tuple(w.shape)), c, w)[:, *cut]
    return back(y if b is None else y + b, x.ndim)


# -- pooling


@node("MaxPool")
def max_pool(x, *, auto_pad="NOTSET", ceil_mode=0, dilations=None, kernel_shape, pads=None, storage_order=0, strides=None):  # fmt: skip  # noqa: E501  # the attributes of ONNX
    only("MaxPool dilations", dilations, [1] * (x.ndim - 2))
    z, size, strides = images(x), two(kernel_shape, x.ndim), two(strides, x.ndim)
    widths = frame(z, size, strides, auto_pad, pads, ceil_mode)
    padding = even(widths)
    if padding is None or any(2 * p > k for p, k in zip(padding, size, strict=True)):
        # Ours pads evenly, and by half a window at most: pad with what is below everything.
        inside = framed(np.ones(z.shape), widths) > 0
        z, padding = ops.where(inside, framed(z, widths), np.finfo(z.dtype).min), 0
    return back(ops.max_pool2d(z, size, strides, padding), x.ndim)


@node("AveragePool")
def average_pool(x, *, auto_pad="NOTSET", ceil_mode=0, count_include_pad=0, dilations=None, kernel_shape, pads=None, strides=None):  # fmt: skip  # noqa: E501  # the attributes of ONNX
    only("AveragePool dilations", dilations, [1] * (x.ndim - 2))
    if ceil_mode and count_include_pad:
        raise LeftOut("attribute: AveragePool ceil_mode with count_include_pad")
    z, size, strides = images(x), two(kernel_shape, x.ndim), two(strides, x.ndim)
    widths = frame(z, size, strides, auto_pad, pads, ceil_mode)
    y = ops.avg_pool2d(framed(z, widths), size, strides)
    if not count_include_pad:
        y = y / ops.avg_pool2d(framed(np.ones(z.shape, z.dtype), widths), size, strides)
    return back(y, x.ndim)


@node("LpPool")
def lp_pool(x, *, auto_pad="NOTSET", dilations=None, kernel_shape, p=2, pads=None, strides=None):
    """(Σ |x|^p)^(1/p): a mean, times the number of places; padding adds nothing."""
    y = average_pool(
        ops.abs(x) ** p,
        auto_pad=auto_pad,
        count_include_pad=1,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return (y * math.prod(kernel_shape)) ** (1 / p)


@node("GlobalAveragePool")
def global_average_pool(x):
    y = ops.global_avg_pool2d(images(x))
    return ops.reshape(y, (*y.shape, *(1,) * (x.ndim - 2)))


@node("GlobalMaxPool")
def global_max_pool(x):
    return ops.max(x, tuple(range(2, x.ndim)), keepdims=True)


# -- norms: all of them are a BatchNorm of the right columns


@node("BatchNormalization")
def batch_normalization(x, scale, b, mean, var, *, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1):  # fmt: skip  # noqa: E501  # the attributes of ONNX
    """momentum weighs the old statistics; the running variance is of the biased one."""
    z = ops.transpose(x, (0, *range(2, x.ndim), 1))
    there = (0, x.ndim - 1, *range(1, x.ndim - 1))
    if not training_mode:
        y = ops.batch_norm_inference(z, scale, b, mean, var, eps=epsilon)
        return ops.transpose(y, there)
    y, mu, variance = ops.batch_norm(z, scale, b, eps=epsilon, return_moments=True)
    old, new = momentum, 1 - momentum
    return ops.transpose(y, there), mean * old + mu * new, var * old + variance * new


def standardised(rows, eps: float):
    """Each row (M, n) to zero mean and unit variance."""
    M, dtype = rows.shape[0], value(rows).dtype
    return ops.batch_norm(rows.T, np.ones(M, dtype), np.zeros(M, dtype), eps=eps).T


@node("InstanceNormalization")
def instance_normalization(x, scale, b, *, epsilon=1e-5):
    N, C = x.shape[:2]
    along = (1, C) + (1,) * (x.ndim - 2)
    y = standardised(ops.reshape(x, (N * C, -1)), epsilon).reshape(x.shape)
    return y * ops.reshape(scale, along) + ops.reshape(b, along)


@node("GroupNormalization")
def group_normalization(x, scale, b, *, epsilon=1e-5, num_groups, stash_type=1):
    N, C = x.shape[:2]
    along = (1, C) + (1,) * (x.ndim - 2)
    y = standardised(ops.reshape(x, (N * num_groups, -1)), epsilon).reshape(x.shape)
    return y * ops.reshape(scale, along) + ops.reshape(b, along)


@node("LayerNormalization")
def layer_normalization(x, scale, b=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    axis %= x.ndim
    over = tuple(range(axis, x.ndim))
    rows = ops.reshape(x, (math.prod(x.shape[:axis]), -1))
    y = standardised(rows, epsilon).reshape(x.shape) * scale
    inv_std = 1 / ops.sqrt(ops.var(x, over, keepdims=True) + epsilon)
    return (y if b is None else y + b), ops.mean(x, over, keepdims=True), inv_std


@node("RMSNormalization")
def rms_normalization(x, scale, *, axis=-1, epsilon=1e-5, stash_type=1):
    over = tuple(range(axis % x.ndim, x.ndim))
    return x / ops.sqrt(ops.mean(x * x, over, keepdims=True) + epsilon) * scale


@node("MeanVarianceNormalization")
def mean_variance_normalization(x, *, axes=(0, 2, 3)):
    only("MeanVarianceNormalization axes", tuple(axes), (0, 2, 3))
    z = images(x)
    gamma, beta = np.ones(z.shape[-1], z.dtype), np.zeros(z.shape[-1], z.dtype)
    return back(ops.batch_norm_composed(z, gamma, beta, eps=0), x.ndim)


@node("LpNormalization")
def lp_normalization(x, *, axis=-1, p=2):
    length = ops.norm(x, p, axis, keepdims=True)
    return x / (length + (value(length) == 0))  # 0 stays 0


@node("LRN")
def local_response_normalization(x, *, alpha=1e-4, beta=0.75, bias=1.0, size):
    """The mean over neighbouring channels: a pooling of an image of C rows."""
    N, C, H, W = x.shape
    z = ops.pad(ops.reshape(x * x, (N, C, H * W, 1)), ((0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)))  # fmt: skip  # noqa: E501  # a picture (C, H·W)
    return x / (bias + alpha * ops.avg_pool2d(z, (size, 1), 1).reshape(x.shape)) ** beta


# -- softmax and losses


@node("Softmax")
def softmax(x, *, axis=-1):
    order = list(range(x.ndim))
    order[axis], order[-1] = order[-1], order[axis]  # its own inverse
    return ops.transpose(ops.softmax(ops.transpose(x, order)), order)


@node("LogSoftmax")
def log_softmax(x, *, axis=-1):
    x = x - value(x).max(axis, keepdims=True)  # a difference of large numbers loses digits
    return x - ops.logsumexp(x, axis, keepdims=True)


@node("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(x, labels, w=None, *, ignore_index=None, reduction="mean"):
    log_p = log_softmax(x, axis=1)
    if w is None and ignore_index is None and text(reduction) != "none":
        rows = ops.transpose(x, (0, *range(2, x.ndim), 1)).reshape(-1, x.shape[1])
        loss = ops.softmax_cross_entropy(rows, labels.reshape(-1))
        return (loss if text(reduction) == "mean" else loss * labels.size), log_p
    return negative_log_likelihood(log_p, labels, w, ignore_index, reduction), log_p


@node("NegativeLogLikelihoodLoss")
def negative_log_likelihood(x, labels, w=None, ignore_index=None, reduction="mean"):
    counts = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
    chosen = np.where(counts, labels, 0)
    place = np.indices(labels.shape)
    found = ops.getitem(x, (place[0], chosen, *place[1:]))
    weights = counts.astype(value(x).dtype)
    if w is not None:
        weights = ops.getitem(w, chosen) * weights
    loss = -found * weights
    if text(reduction) == "none":
        return loss
    return ops.sum(loss) if text(reduction) == "sum" else ops.sum(loss) / ops.sum(weights)
