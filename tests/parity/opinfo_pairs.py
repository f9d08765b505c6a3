"""Each op of minibn with the OpInfo of PyTorch that means the same: `PAIRS`.

An OpInfo has samples: arguments that PyTorch's own tests give to the function. A translation takes
a sample's arguments, tensors replaced by minibn's, and calls our op with them. Where ours has no
such setting it raises `Untranslated` with the reason, and the sample is counted under it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minibn import Tensor, ops

Translation = Callable[..., Any]
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # of images: the axes that put the channels there


class Untranslated(Exception):
    """Our op has no such setting. The message is the reason."""


def require(condition: Any, reason: str) -> None:
    if not condition:
        raise Untranslated(reason)


def over(x: Any, dim: Any) -> tuple[int, ...]:
    """The axes that PyTorch means; a scalar has none here."""
    if dim is None or dim == ():
        return tuple(range(x.ndim))
    require(x.ndim, "axis 0 of a scalar: ours raises, as NumPy")
    return tuple(int(a) for a in np.atleast_1d(dim))


def unary(f: Callable[..., Any]) -> Translation:
    return lambda x: f(x)


def scaled(f: Callable[..., Any], x: Any, y: Any, alpha: float = 1) -> Any:
    return f(x, y * alpha if alpha != 1 else y)


def reduction(f: Callable[..., Any]) -> Translation:
    def translate(x, dim=None, keepdim=False):
        return f(x, over(x, dim), keepdim)

    return translate


def spread(f: Callable[..., Any]) -> Translation:
    def translate(x, dim=None, unbiased=True, correction=None, keepdim=False):
        if isinstance(dim, bool):  # var(x, unbiased)
            dim, unbiased = None, dim
        correction = int(unbiased) if correction is None else correction
        count = np.prod([x.shape[a] for a in over(x, dim)])
        require(count > correction, "no degree of freedom is left: ours raises")
        return f(x, over(x, dim), keepdim, correction)

    return translate


def vector_norm(x, ord=2, dim=None, keepdim=False):
    require(ord in (1, 2, np.inf), "norm: p is 1, 2 or infinity here")
    require(all(x.shape[a] for a in over(x, dim)), "a norm of nothing: ours raises for p > 1")
    return ops.norm(x, ord, over(x, dim), keepdim)


def over_an_axis(f: Callable[..., Any]) -> Translation:
    return lambda x, dim, dtype=None: f(x, over(x, dim))  # the dtype is float64, as x's


def logsumexp(x, dim, keepdim=False):
    require(all(x.shape[a] for a in over(x, dim)), "logsumexp of nothing: ours raises")
    return ops.logsumexp(x, over(x, dim), keepdim)


def power(x, exponent):
    require(not isinstance(x, float | int), "a number to the power of a tensor")
    return ops.power(x, exponent)


def clamp(x, low=None, high=None, **bounds):
    low, high = bounds.get("min", low), bounds.get("max", high)
    require(low is not None or high is not None, "clamp without bounds")
    return ops.clip(x, low, high)


def softplus(x, beta, threshold):
    """PyTorch's is x itself where beta·x is above the threshold."""
    return ops.where(x.data * beta > threshold, x, ops.softplus(x * beta) / beta)


def mse(x, target, reduction="mean"):
    require(reduction == "mean", "a loss without its mean")
    return ops.mse(x, target)


def cross_entropy(x, labels, reduction="mean", weight=None, **settings):
    require(reduction == "mean", "a loss without its mean")
    require(weight is None and not settings, "cross-entropy: weights, smoothing, ignored labels")
    require(labels.dtype.kind == "i", "cross-entropy of probabilities")
    if x.ndim > 2:  # (N, K, ...): a label for each pixel
        x = ops.reshape(ops.transpose(x, (0, *range(2, x.ndim), 1)), (-1, x.shape[1]))
        labels = labels.reshape(-1)
    require(x.ndim == 2, "cross-entropy of one example without a batch")
    return ops.softmax_cross_entropy(x, labels)


def pad(x, widths, mode="constant", value=0.0):
    require(min(widths) >= 0, "negative padding crops")
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    return ops.pad(x, pairs) + np.pad(np.zeros(x.shape), pairs, constant_values=value or 0)


def concatenate(tensors, dim=0):
    require(len({x.ndim for x in tensors}) == 1, "cat skips tensors of shape (0,)")
    return ops.concatenate(tensors, dim)


def getitem(x, index):
    return ops.getitem(x, index)


def positions(index: Any, x: Any) -> Any:
    return np.asarray(index % max(1, x.size))  # PyTorch counts from the end, too


def take(x, index):
    return ops.gather(x, positions(index, x))


def put(x, index, source, accumulate):
    require(accumulate, "put that overwrites")
    return x + ops.scatter(ops.reshape(source, index.shape), positions(index, x), x.shape)


def of_images(f: Callable[..., Any], x: Any) -> Any:
    """f of images (N, H, W, C), on images (N, C, H, W) or a single one (C, H, W)."""
    batch = x if x.ndim == 4 else ops.reshape(x, (1, *x.shape))
    y = ops.transpose(f(ops.transpose(batch, LAST)), FIRST)
    return y if x.ndim == 4 else ops.reshape(y, y.shape[1:])


def conv2d(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1):
    require(np.all(np.equal(dilation, 1)), "dilation")
    require(groups == 1, "groups")
    if padding == "same":
        require(all(k % 2 for k in w.shape[2:]), "padding='same' of an even kernel")
        padding = tuple(k // 2 for k in w.shape[2:])
    padding = 0 if padding == "valid" else padding
    filters = ops.transpose(w, (2, 3, 1, 0))  # (Kh, Kw, C, F)
    return of_images(lambda x: ops.conv2d(x, filters, bias, stride=stride, padding=padding), x)


def max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    require(np.all(np.equal(dilation, 1)), "dilation")
    require(not ceil_mode, "ceil_mode")
    require(not return_indices, "the indices of a pooling")
    return of_images(lambda x: ops.max_pool2d(x, kernel_size, stride, padding), x)


def avg_pool2d(x, size, stride=None, padding=0, ceil_mode=False, include=True, divisor=None):
    require(np.all(np.equal(padding, 0)), "average pooling with padding")
    require(not ceil_mode and divisor is None, "ceil_mode, or a divisor")
    return of_images(lambda x: ops.avg_pool2d(x, size, stride or size), x)


def batch_norm(x, mean, var, gamma=None, beta=None, training=False, momentum=0.1, eps=1e-5):
    require(eps > 0, "eps is above 0 here")
    require(x.ndim > 1, "a batch without channels")
    gamma, beta = affine(gamma, beta, (x.shape[1],))
    x = ops.transpose(x, (0, *range(2, x.ndim), 1))
    if training:
        require(x.size > x.shape[-1], "one value a channel: both raise")
        y = ops.batch_norm(x, gamma, beta, eps=eps)
    else:
        y = ops.batch_norm_inference(x, gamma, beta, mean, var, eps=eps)
    return ops.transpose(y, (0, y.ndim - 1, *range(1, y.ndim - 1)))


def affine(gamma: Any, beta: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    return (
        np.ones(shape) if gamma is None else gamma,
        np.zeros(shape) if beta is None else beta,
    )


def channels_last(f: Callable[..., Any], x: Any, gamma: Any, beta: Any, **settings: Any) -> Any:
    gamma, beta = affine(gamma, beta, (x.shape[1],))
    y = f(ops.transpose(x, (0, *range(2, x.ndim), 1)), gamma, beta, **settings)
    return ops.transpose(y, (0, y.ndim - 1, *range(1, y.ndim - 1)))


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    require(eps > 0, "eps is above 0 here")
    require(np.prod(x.shape[1:]) > groups, "one value a group: ours raises")
    return channels_last(ops.group_norm, x, weight, bias, groups=groups, eps=eps)


def instance_norm(x, running_mean=None, running_var=None, weight=None, bias=None, **settings):
    require(settings.pop("use_input_stats", True), "instance norm by running statistics")
    return channels_last(ops.instance_norm, x, weight, bias, eps=settings.get("eps", 1e-5))


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    require(eps > 0, "eps is above 0 here")
    require(np.prod(shape) > 1, "one value to normalise: ours raises")
    axes = tuple(range(-len(shape), 0))
    return ops.layer_norm(x, *affine(weight, bias, shape), axes=axes, eps=eps)


def rms_norm(x, shape, weight=None, eps=None):
    eps = float(np.finfo(float).eps) if eps is None else eps
    require(eps > 0, "eps is above 0 here")
    gamma = affine(weight, None, shape)[0]
    return ops.rms_norm(x, gamma, axes=tuple(range(-len(shape), 0)), eps=eps)


def linear(x, w, bias=None):
    y = ops.matmul(x, ops.transpose(w))
    return y if bias is None else y + bias


def one_hot(labels, num_classes):
    require(num_classes > 0 and labels.ndim == 1, "one_hot of one axis, the classes given")
    return ops.one_hot(labels, num_classes, np.int64)


def divide(x, y, rounding_mode=None):
    return ops.divide(x, y)


def where(x, condition, y):
    return ops.where(condition.data if isinstance(condition, Tensor) else condition, x, y)


def reshape(x, *shape):
    return ops.reshape(x, shape[0] if isinstance(shape[0], list | tuple) else shape)


def stack(tensors, dim=0):
    return ops.stack(tensors, dim)


# An op of minibn -> pairs of an OpInfo's name and the translation.
PAIRS: dict[str, list[tuple[str, Translation]]] = {
    "abs": [("abs", unary(ops.abs))],
    "add": [("add", lambda x, y, alpha=1: scaled(ops.add, x, y, alpha))],
    "avg_pool2d": [("nn.functional.avg_pool2d", avg_pool2d)],
    "batch_norm": [("nn.functional.batch_norm", batch_norm)],
    "broadcast_to": [("broadcast_to", lambda x, shape: ops.broadcast_to(x, shape))],
    "cast": [("double", lambda x, memory_format=None: ops.cast(x, np.float64))],
    "clip": [("clamp", clamp)],
    "concatenate": [("cat", concatenate)],
    "conv2d": [("nn.functional.conv2d", conv2d)],
    "divide": [("div.no_rounding_mode", divide), ("true_divide", divide)],
    "exp": [("exp", unary(ops.exp))],
    "gather": [("take", take)],
    "getitem": [("__getitem__", getitem)],
    "group_norm": [("nn.functional.group_norm", group_norm)],
    "instance_norm": [("nn.functional.instance_norm", instance_norm)],
    "layer_norm": [("nn.functional.layer_norm", layer_norm)],
    "log": [("log", unary(ops.log))],
    "log_softmax": [
        (n, over_an_axis(ops.log_softmax)) for n in ("log_softmax", "log_softmax.with_dtype")
    ],
    "logsumexp": [("logsumexp", logsumexp)],
    "matmul": [
        *((n, lambda x, y: ops.matmul(x, y)) for n in ("matmul", "mm", "bmm", "mv")),
        ("__rmatmul__", lambda x, y: ops.matmul(y, x)),
        ("nn.functional.linear", linear),
    ],
    "max": [("amax", reduction(ops.max))],
    "max_pool2d": [("nn.functional.max_pool2d", max_pool2d)],
    "maximum": [("maximum", ops.maximum), ("max.binary", ops.maximum)],
    "mean": [("mean", reduction(ops.mean))],
    "min": [("amin", reduction(ops.min))],
    "mse": [("nn.functional.mse_loss", mse)],
    "multiply": [("mul", ops.multiply)],
    "negative": [("neg", unary(ops.negative))],
    "norm": [("linalg.vector_norm", vector_norm)],
    "one_hot": [("nn.functional.one_hot", one_hot)],
    "pad": [("nn.functional.pad.constant", pad)],
    "power": [("pow", power)],
    "relu": [("nn.functional.relu", unary(ops.relu))],
    "reshape": [("reshape", reshape), ("view", reshape)],
    "rms_norm": [("nn.functional.rms_norm", rms_norm)],
    "scatter": [("put", put)],
    "sigmoid": [("sigmoid", unary(ops.sigmoid))],
    "sign": [("sign", unary(ops.sign))],
    "softmax": [(n, over_an_axis(ops.softmax)) for n in ("softmax", "softmax.with_dtype")],
    "softmax_cross_entropy": [("nn.functional.cross_entropy", cross_entropy)],
    "softplus": [("nn.functional.softplus", softplus)],
    "split": [
        (n, lambda x, size, dim=0: ops.split(x, size, dim))
        for n in ("split", "split.list_args", "split_with_sizes")
    ],
    "sqrt": [("sqrt", unary(ops.sqrt))],
    "stack": [("stack", stack)],
    "std": [("std", spread(ops.std)), ("std.unbiased", spread(ops.std))],
    "subtract": [
        ("sub", lambda x, y, alpha=1: scaled(ops.subtract, x, y, alpha)),
        ("rsub", lambda x, y, alpha=1: scaled(ops.subtract, y, x, alpha)),
    ],
    "sum": [("sum", reduction(ops.sum))],
    "tanh": [("tanh", unary(ops.tanh))],
    "transpose": [("permute", lambda x, axes: ops.transpose(x, axes))],
    "var": [("var", spread(ops.var)), ("var.unbiased", spread(ops.var))],
    "where": [("where", where)],
}  # fmt: skip

# Ops without an OpInfo of their meaning, and why.
WITHOUT = {
    "batch_norm_composed": "batch_norm in several ops, compared with it",
    "batch_norm_inference": "samples of batch_norm with training=False",
    "dropout": "PyTorch's draws its own mask",
    "global_avg_pool2d": "no sample of adaptive_avg_pool2d pools to one pixel",
    "lp_batch_norm": "PyTorch has none",
    "lp_batch_norm_inference": "PyTorch has none",
    "moments": "samples of batch_norm",
    "weight_standardisation": "PyTorch has none",
}
