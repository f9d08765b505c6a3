"""Losses: scalar means over the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply
from minibn.autograd.tensor import value
from minibn.backend import array_module, backend_of
from minibn.errors import ShapeError, check_integer, with_own_keywords
from minibn.ops.arithmetic import subtract
from minibn.ops.precision import in_float32, to_floating_point
from minibn.ops.reduce import LogSumExp, axes_of, largest, mean, softmax_over
from minibn.ops.shape import reshape


@with_own_keywords
@in_float32
def softmax(x, axis: Any = -1):
    """eˣ / Σ eˣ over `axis`, without overflow. An x without entries gives itself."""
    return softmax_over(x, axes_of(axis, x.ndim, "softmax"))


@with_own_keywords
@in_float32
def log_softmax(x, axis: Any = -1):
    """log softmax(x) = x - log Σ eˣ over `axis`, also where softmax(x) is 0 in floating point.

    An x without entries gives itself.
    """
    axes = axes_of(axis, x.ndim, "log_softmax")
    x = subtract(x, largest(x, axes))  # against cancellation, as in the loss
    return x - apply(LogSumExp(axes, keepdims=True), x)


def one_hot(labels, classes: int, dtype) -> Any:
    """(N,) integers -> (N, classes) of zeros with a one at each label, on the labels' backend.

    Raises TypeError unless labels and `classes` are integers; ValueError for a label outside of
    0..classes-1, which is a row of zeros on a device (to check it would wait for the device).
    """
    labels = value(labels)
    xp, classes = array_module(labels), check_integer(classes, "one_hot: classes", least=1)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels are {labels.dtype}; they are integers.")
    if isinstance(labels, np.ndarray) and labels.size:  # host: no synchronization
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(f"one_hot: labels run from {low} to {high}, classes={classes}.")
    return (labels.reshape(-1, 1) == xp.arange(classes)).astype(dtype)


class SoftmaxCrossEntropy(Op):
    """y = mean_n( logsumexp(x_n) - x_n[label_n] ).    x̄ = ȳ · (softmax(x) - onehot(label)) / N"""

    def __init__(self, labels: Any) -> None:
        self.labels = labels  # (N,) integers, checked

    def forward(self, x):  # x (N, K)
        xp, (N, K), labels = array_module(x), x.shape, self.labels
        x = x - largest(x, (1,))  # against overflow, and against cancellation for large logits
        right = x[xp.arange(N), labels]  # (N,)
        right = xp.where((labels >= 0) & (labels < K), right, xp.nan)  # not checked in a capture
        return (xp.log(xp.exp(x).sum(axis=1)) - right).sum() * (1 / N)

    def vjp(self, g, out, x):
        N, K = x.shape
        hot = one_hot(self.labels, K, value(x).real.dtype)
        return (softmax(x) - hot) * (g * (1 / N))


@in_float32
def softmax_cross_entropy(x, labels):
    """The mean over the batch of -log softmax(x)[label], stable for any logits.

    x (N, K) logits, labels (N,) integers in 0..K-1 (a NumPy array or list, or an array of x's
    backend, whose check costs one transfer) -> a scalar.
    Laws: equal for x and x + c; Σ_k x̄ = 0. Raises ShapeError, and ValueError for a bad label.

    During the capture of a CUDA graph nothing may wait for the device, so labels on the device are
    not checked: check a data set once, when it is copied there. A bad label in a captured step
    makes the loss NaN.
    """
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
        raise ShapeError(
            f"softmax_cross_entropy: x has shape {tuple(x.shape)}; logits are (N, K), not empty."
        )
    if isinstance(labels, (list, tuple)):
        labels = np.asarray(labels)  # host: checked there without a transfer, then moved
    labels = value(labels)
    array_module(labels)  # raises for the array of another library
    if labels.shape != x.shape[:1]:
        raise ShapeError(
            f"softmax_cross_entropy: labels have shape {labels.shape}, x {tuple(x.shape)}: one "
            "integer per row. One-hot labels: use labels.argmax(1)."
        )
    if labels.dtype.kind not in "iu":
        raise ShapeError(f"softmax_cross_entropy: labels are {labels.dtype}; they are integers.")
    if (
        isinstance(labels, np.ndarray) or not backend_of(labels).is_capturing
    ):  # host: no synchronization
        low, high = int(labels.min().item()), int(labels.max().item())
        if low < 0 or high >= x.shape[1]:
            raise ValueError(
                f"softmax_cross_entropy: labels run from {low} to {high}, x has {x.shape[1]} "
                f"columns: labels are 0..{x.shape[1] - 1}. Is the head too small, or do labels "
                "count from 1?"
            )
    labels = labels.astype(np.int64)  # a copy: a reused buffer must not change them
    labels = backend_of(value(x)).asarray(labels)
    return apply(SoftmaxCrossEntropy(labels), x)


@in_float32
def mse(x, target):
    """The mean of (x - target)². x and target of one shape -> a scalar.

    Raises ShapeError if the shapes differ: broadcasting (N, 1) against (N,) is never meant.
    """
    if x.shape != target.shape:
        raise ShapeError(
            f"mse: x has shape {tuple(x.shape)}, target {tuple(target.shape)}; they must be equal. "
            "Reshape one of them."
        )
    difference = reshape(subtract(*to_floating_point(x, target)), (-1,))
    return mean(difference * difference)
