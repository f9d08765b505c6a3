"""Normalisation by l_p norms over the batch (Santurkar et al. 2018, section 3.3).

The paper gives no formula: schemes "that fix the first order moment of the activations,
as BatchNorm does, and then normalizes them by the average of their l_p-norm (before shifting the
mean), for p = 1, 2, ∞". Read literally, with M values a channel and mu their mean:

    x̂ = (x - mu) / s,   s = ((1/M) Σ |x|^p)^(1/p):   mean |x|,   √(mean x²),   max |x|

The norm is that of x, not of x - mu: a channel's variance is then at most 1 for p = 2 and ∞, while
for p = 1 it may be larger (π/2 for normal values of mean 0). A bias before the norm cancels in
x - mu but changes s. Other readings are options:

    center_first   s is the norm of x - mu (Hoffer et al. 2018): l2 is BatchNorm then
    reduce         "norm_of_mean" as above; "mean_of_norm" is ‖x‖_p / M, smaller by M^(1/p - 1)

eps is added below the root, as in BatchNorm: s = (n^p + eps)^(1/p), and n + eps for p = ∞.
"""

from __future__ import annotations

import math
from typing import Any

from minibn.autograd.tape import Op, apply
from minibn.autograd.tensor import value
from minibn.backend import array_module
from minibn.errors import ShapeError
from minibn.ops.batch_normalization import check_channels, check_eps
from minibn.ops.elementwise import abs, real, sign, sqrt
from minibn.ops.precision import in_float32, to_floating_point
from minibn.ops.reduce import deviations, max, mean, sum

ORDERS = (1, 2, math.inf)
REDUCTIONS = ("norm_of_mean", "mean_of_norm")


class LpBatchNorm(Op):
    """y = gamma · x̂ + beta,   x̂ = (x - mu) / s,   s = (n^p + eps)^(1/p),   n the norm of z

    z is x, or x - mu if that is centred first. With M values a channel, and the weight w = 1/M,
    1/M and 1 for p = 1, 2 and ∞ (for "mean_of_norm" 1/M, 1/M² and 1/M):

        n^p = w Σ |z|^p,   for p = ∞  n = w max |z|
        d = ∂s/∂z = w sign(z),   w z / s,   w sign(z) / ties at the maxima, else 0

    and sums over the values of a channel:

        beta̅  = Σ ȳ
        gamma̅ = Σ ȳ x̂
        x̄     = gamma / s · (ȳ - beta̅ / M - d gamma̅)

    with d - mean(d) for d if centred first. At the kinks sign(0) = 0, and values that tie for the
    maximum share equally.
    """

    needs = (0, 1)

    def __init__(self, p: float, eps: float, center_first: bool, reduce: str) -> None:
        self.p, self.eps, self.center_first, self.reduce = p, eps, center_first, reduce

    def weight(self, M: int) -> float:
        """w, the weight of a channel's Σ |z|^p or max |z|."""
        if self.reduce == "norm_of_mean":
            return 1.0 if self.p == math.inf else 1 / M
        return 1 / M**2 if self.p == 2 else 1 / M

    def norms(self, z) -> tuple[Any, Any]:
        """n^p and s of each channel: z (..., C) -> (C,), (C,)."""
        axes, w = tuple(range(z.ndim - 1)), self.weight(math.prod(z.shape[:-1]))
        if self.p == 2:
            power = sum(z * z, axes) * w
            return power, sqrt(power + self.eps)
        power = (sum(abs(z), axes) if self.p == 1 else max(abs(z), axes)) * w
        return power, power + self.eps

    def slope(self, z, s) -> Any:
        """d, of z's shape."""
        w = self.weight(math.prod(z.shape[:-1]))
        if self.p == 2:
            return z * (w / s)
        if self.p == 1:
            return sign(z) * w
        axes, size = tuple(range(z.ndim - 1)), real(abs(value(z)))
        top = (size == size.max(axis=axes)).astype(size.dtype)
        ties = array_module(top).maximum(top.sum(axis=axes), 1)  # a NaN equals nothing
        return sign(z) * (top * (w / ties))

    def forward(self, x, gamma, beta):
        mu, centred = deviations(x, tuple(range(x.ndim - 1)))
        power, s = self.norms(centred if self.center_first else x)
        self.mean = mu.reshape(-1)  # (C,) each, for the layer
        self.norm = array_module(x).sqrt(power) if self.p == 2 else power
        return centred * (gamma / s) + beta

    def vjp(self, g, out, x, gamma, beta):
        axes = tuple(range(x.ndim - 1))
        M = math.prod(x.shape[:-1])
        centred = deviations(x, axes)[1]  # recomputed as a differentiable function of x
        z = centred if self.center_first else x
        s = self.norms(z)[1]  # (C,)
        g_beta = sum(g, axes)  # (C,)
        g_gamma = sum(g * (centred / s), axes)  # (C,)
        if not self.needs_input_grad[0]:
            return None, g_gamma, g_beta
        d = self.slope(z, s)  # (..., C)
        if self.center_first:
            d = d - mean(d, axes)
        g_x = (g - g_beta * (1 / M) - d * g_gamma) * (gamma / s)
        return g_x, g_gamma, g_beta


def check_order(name: str, p: float, reduce: str) -> None:
    """Raise ValueError for an unknown p or `reduce`."""
    if isinstance(p, bool) or (hasattr(p, "shape") and p.shape) or p not in ORDERS:
        raise ValueError(f"{name}: p={p} is not implemented. Use 1, 2 or float('inf').")
    if reduce not in REDUCTIONS:
        raise ValueError(f"{name}: reduce={reduce!r} is unknown. Use one of {REDUCTIONS}.")


@in_float32
def lp_batch_norm(
    x,
    gamma,
    beta,
    *,
    p: float,
    eps: float = 1e-5,
    center_first: bool = False,
    reduce: str = "norm_of_mean",
    return_moments: bool = False,
) -> Any:
    """Subtract each channel's mean, divide by the l_p norm of its values, then scale and shift.

    x (..., C), gamma (C,), beta (C,) -> (..., C); with `return_moments` also the batch's mean and
    norm n, (C,) plain arrays. p: 1, 2 or float("inf"). center_first, reduce: other readings of the
    paper (see the module).
    Law: f(a·x; a^p·eps) == f(x; eps) for a > 0 (with a·eps for p = ∞); with p = 2 and center_first
    it is batch_norm.
    Raises ValueError for another p or `reduce`, ShapeError for a channel with a single value.
    """
    check_order("lp_batch_norm", p, reduce)
    check_channels("lp_batch_norm", x.shape, gamma=gamma, beta=beta)
    if math.prod(x.shape[:-1]) < 2:
        raise ShapeError(
            f"lp_batch_norm: each channel of x {tuple(x.shape)} has fewer than two values: without "
            "their mean nothing is left. Use a larger batch, or eval mode."
        )
    op = LpBatchNorm(p, check_eps("lp_batch_norm", eps), center_first, reduce)
    y = apply(op, x, gamma, beta)
    return (y, op.mean, op.norm) if return_moments else y


def lp_batch_norm_inference(
    x, gamma, beta, running_mean, running_norm, *, p: float, eps: float = 1e-5
) -> Any:
    """The inference form: an affine map per channel with a fixed mean and norm.

    x (..., C), the rest (C,) -> (..., C). Law: x̄ = ȳ · gamma / (running_norm^p + eps)^(1/p).
    """
    check_order("lp_batch_norm_inference", p, REDUCTIONS[0])
    check_channels(
        "lp_batch_norm_inference",
        x.shape,
        gamma=gamma,
        beta=beta,
        mean=running_mean,
        norm=running_norm,
    )
    eps = check_eps("lp_batch_norm_inference", eps)
    x, gamma, beta, mu, n = to_floating_point(
        x, gamma, beta, value(running_mean), value(running_norm)
    )
    scale = gamma / (sqrt(n * n + eps) if p == 2 else n + eps)
    return x * scale + (beta - mu * scale)
