"""Batch normalisation over channels (Ioffe & Szegedy 2015, Alg. 1-2).

Layout is (..., C). Statistics run over every axis but the last, so images (N, H, W, C) and vectors
(N, C) are one case. The variance is biased (divided by M, the number of values per channel).

It is here twice on purpose: `batch_norm_composed` is the definition, composed of primitive ops;
`batch_norm` is one op with the gradient in closed form. A law tests that they agree.
"""

from __future__ import annotations

import math
from typing import Any

from minibn.autograd.tape import Op, apply
from minibn.autograd.tensor import value
from minibn.backend import array_module
from minibn.errors import ShapeError, check_real
from minibn.ops.elementwise import sqrt
from minibn.ops.precision import in_float32, to_floating_point
from minibn.ops.reduce import deviations, mean, sum, var


def moments(x) -> tuple[Any, Any]:
    """Mean and biased variance of each channel: x (..., C) -> (C,), (C,)."""
    axes = tuple(range(x.ndim - 1))
    mu, centred = deviations(x, axes)
    return mu.reshape(x.shape[-1:]), mean(centred * centred, axes)


class BatchNorm(Op):
    """y = gamma · x̂ + beta,   x̂ = (x - mu) · inv_std,   inv_std = 1 / √(var + eps)

    With M values a channel, sums over them, and x̄̂ = ȳ · gamma:

        beta̅  = Σ ȳ
        gamma̅ = Σ ȳ x̂
        x̄     = gamma · inv_std / M · (M ȳ - beta̅ - x̂ gamma̅)

    The two subtracted terms come from the dependence of the mean and the variance on x. They make
    Σ x̄ = 0, and ⟨x̄, x̂⟩ = 0 up to eps.
    """

    needs = (0, 1)

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def forward(self, x, gamma, beta):
        axes = tuple(range(x.ndim - 1))
        mu, centred = deviations(x, axes)
        self.mean, self.var = mu.reshape(-1), mean(centred * centred, axes)  # (C,), for the layer
        return centred * (gamma / array_module(x).sqrt(self.var + self.eps)) + beta

    def vjp(self, g, out, x, gamma, beta):
        axes = tuple(range(x.ndim - 1))
        M = math.prod(x.shape[:-1])
        centred = deviations(x, axes)[1]  # recomputed as a differentiable function of x
        inv_std = 1 / sqrt(mean(centred * centred, axes) + self.eps)  # (C,)
        x_hat = centred * inv_std  # (..., C)
        g_beta = sum(g, axes)  # (C,)
        g_gamma = sum(g * x_hat, axes)  # (C,)
        if not self.needs_input_grad[0]:
            return None, g_gamma, g_beta
        g_x = (g - (g_beta + x_hat * g_gamma) * (1 / M)) * (gamma * inv_std)
        return g_x, g_gamma, g_beta


def check_channels(name: str, shape: tuple[int, ...], **vectors) -> None:
    """Raise ShapeError unless x of this shape is (..., C) and each of the vectors (C,)."""
    if len(shape) < 2:
        raise ShapeError(f"{name}: x has shape {shape}; it must be (..., C) with a batch axis.")
    for which, v in vectors.items():
        if v.shape != (shape[-1],):
            raise ShapeError(
                f"{name}: {which} has shape {v.shape}, x has {shape[-1]} channels "
                f"(x.shape={tuple(shape)}; channels are the last axis)."
            )


def check_batch(shape: tuple[int, ...], gamma, beta) -> None:
    """Raise ShapeError unless x of this shape has at least two values per channel."""
    check_channels("batch_norm", shape, gamma=gamma, beta=beta)
    if math.prod(shape[:-1]) < 2:
        raise ShapeError(
            f"batch_norm: each channel of x {tuple(shape)} has fewer than two values, so it has "
            "no variance. Use a larger batch, or eval mode."
        )


def check_eps(who: str, eps: Any) -> float:
    """eps as a Python number, which adopts the dtype of the arrays. Raises ValueError for one that
    is negative, infinite or nan, TypeError for what is no number."""
    eps = check_real(eps, f"{who}: eps")
    if not 0 <= eps < math.inf:
        raise ValueError(f"{who}: eps={eps} must not be negative or infinite.")
    return eps


@in_float32
def batch_norm(x, gamma, beta, *, eps: float = 1e-5, return_moments: bool = False) -> Any:
    """Normalise each channel of x to zero mean and unit variance, then scale and shift.

    x (..., C), gamma (C,), beta (C,) -> (..., C); with `return_moments` also the batch's mean
    and biased variance, (C,) plain arrays.
    Law: batch_norm(a·x + b) == batch_norm(x) for a > 0, up to eps.
    Raises ShapeError if a channel has a single value: its variance is undefined.
    """
    check_batch(x.shape, gamma, beta)
    op = BatchNorm(check_eps("batch_norm", eps))
    y = apply(op, x, gamma, beta)
    return (y, op.mean, op.var) if return_moments else y


@in_float32
def batch_norm_composed(x, gamma, beta, *, eps: float = 1e-5) -> Any:
    """`batch_norm` composed of primitive ops: its definition. Slower; equal by law."""
    axes = tuple(range(x.ndim - 1))
    eps = check_eps("batch_norm_composed", eps)
    x, gamma, beta = to_floating_point(x, gamma, beta)
    x_hat = deviations(x, axes)[1] / sqrt(var(x, axes) + eps)
    return gamma * x_hat + beta


def batch_norm_inference(x, gamma, beta, running_mean, running_var, *, eps: float = 1e-5) -> Any:
    """The inference form (Alg. 2): an affine map per channel with fixed statistics.

    x (..., C), the rest (C,) -> (..., C). Law: x̄ = ȳ · gamma / √(running_var + eps).
    """
    check_channels(
        "batch_norm_inference", x.shape, gamma=gamma, beta=beta, mean=running_mean, var=running_var
    )
    x, gamma, beta, mu, v = to_floating_point(
        x, gamma, beta, value(running_mean), value(running_var)
    )
    scale = gamma * (1 / sqrt(v + check_eps("batch_norm_inference", eps)))
    return x * scale + (beta - mu * scale)
