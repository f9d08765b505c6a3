"""Norms over each example, and over filters: nothing depends on the rest of the batch.

They differ in the axes of their statistics. Layout is (N, ..., C), channels last:

| function                 | statistics over               | source                   |
|--------------------------|-------------------------------|--------------------------|
| `layer_norm`             | the axes of gamma, or `axes`  | Ba, Kiros & Hinton 2016  |
| `instance_norm`          | the pixels of a channel       | Ulyanov et al. 2016      |
| `group_norm`             | pixels and a group's channels | Wu & He 2018             |
| `rms_norm`               | as `layer_norm`; not centred  | Zhang & Sennrich 2019    |
| `weight_standardisation` | a filter, of weights (..., F) | Qiao et al. 2019         |

Variances are biased and eps is added below the root, as in PyTorch. Statistics of a single value
raise ShapeError: it has no variance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minibn.autograd.tape import Op, apply
from minibn.backend import array_module
from minibn.errors import ShapeError, check_integer
from minibn.ops.batch_normalization import check_channels, check_eps
from minibn.ops.elementwise import sqrt
from minibn.ops.precision import in_float32
from minibn.ops.reduce import axes_of, deviations, mean
from minibn.ops.shape import reshape


class LayerNorm(Op):
    """y = gamma · x̂ + beta,   x̂ = (x - mu) · inv_std,   inv_std = 1 / √(var + eps)

    mu and var are taken over `axes`; gamma and beta broadcast. With means over the same axes:

        u = ȳ gamma
        x̄ = inv_std · (u - mean(u) - x̂ · mean(u x̂)),   gamma̅ = ȳ x̂,   beta̅ = ȳ
    """

    broadcasts = True
    needs = (0, 1)

    def __init__(self, axes: tuple[int, ...], eps: float) -> None:
        self.axes, self.eps = axes, eps

    def forward(self, x, gamma, beta):
        centred = deviations(x, self.axes)[1]
        var = mean(centred * centred, self.axes, keepdims=True)
        return centred * (gamma / array_module(x).sqrt(var + self.eps)) + beta

    def vjp(self, g, out, x, gamma, beta):
        centred = deviations(x, self.axes)[1]
        inv_std = 1 / sqrt(mean(centred * centred, self.axes, keepdims=True) + self.eps)
        x_hat = centred * inv_std
        g_gamma, g_beta = (g * x_hat if self.needs_input_grad[1] else None), g
        if not self.needs_input_grad[0]:
            return None, g_gamma, g_beta
        u = g * gamma
        along = mean(u * x_hat, self.axes, keepdims=True)
        return (u - mean(u, self.axes, keepdims=True) - x_hat * along) * inv_std, g_gamma, g_beta


class RmsNorm(Op):
    """y = gamma · x̂,   x̂ = x · inv_rms,   inv_rms = 1 / √(mean x² + eps),   means over `axes`

    u = ȳ gamma,   x̄ = inv_rms · (u - x̂ · mean(u x̂)),   gamma̅ = ȳ x̂
    """

    broadcasts = True

    def __init__(self, axes: tuple[int, ...], eps: float) -> None:
        self.axes, self.eps = axes, eps

    def forward(self, x, gamma):
        square = mean(x * x, self.axes, keepdims=True)
        return x * (gamma / array_module(x).sqrt(square + self.eps))

    def vjp(self, g, out, x, gamma):
        inv_rms = 1 / sqrt(mean(x * x, self.axes, keepdims=True) + self.eps)
        x_hat = x * inv_rms
        g_gamma = g * x_hat if self.needs_input_grad[1] else None
        if not self.needs_input_grad[0]:
            return None, g_gamma
        u = g * gamma
        return (u - x_hat * mean(u * x_hat, self.axes, keepdims=True)) * inv_rms, g_gamma


def normalised_axes(name: str, x, axes: Any, least: int = 2, **vectors) -> tuple[int, ...]:
    """The axes of the statistics, by default those of the vectors. Raises ShapeError unless the
    vectors fit the last axes of x, and there are `least` values to average over."""
    for which, v in vectors.items():
        if v.ndim < 1 or v.shape != x.shape[x.ndim - v.ndim :]:
            raise ShapeError(
                f"{name}: {which} has shape {v.shape}, which is not that of the last axes of x "
                f"{tuple(x.shape)} (channels are the last axis)."
            )
    own = tuple(range(x.ndim - vectors["gamma"].ndim, x.ndim))
    every = tuple(range(1, x.ndim))
    if isinstance(axes, str) and axes != "example":
        raise ValueError(f"{name}: axes={axes!r}; they are None, 'example', or numbers of axes.")
    by_name = isinstance(axes, str)
    found = own if axes is None else every if by_name else axes_of(axes, x.ndim, name)
    if math.prod(x.shape[a] for a in found) < least:
        raise ShapeError(
            f"{name}: x {tuple(x.shape)} has fewer than {least} values along its axes {found}: "
            "they have no variance. Normalise over more axes, or larger images."
        )
    return found


@in_float32
def layer_norm(x, gamma, beta, *, axes: Any = None, eps: float = 1e-5) -> Any:
    """Normalise the values along `axes` to zero mean and unit variance, then scale and shift.

    x (N, ..., C); gamma and beta have the shape of its last axes, which are the default of `axes`
    (as in PyTorch: gamma (C,) normalises each pixel over its channels). axes="example" means all
    but the first: with gamma (C,), the layer norm of images in Wu & He.
    Law: layer_norm(a·x + b) == layer_norm(x) for a > 0, up to eps.
    Raises ShapeError for vectors of another shape, or a single value to normalise.
    """
    found = normalised_axes("layer_norm", x, axes, gamma=gamma, beta=beta)
    return apply(LayerNorm(found, check_eps("layer_norm", eps)), x, gamma, beta)


@in_float32
def instance_norm(x, gamma, beta, *, eps: float = 1e-5) -> Any:
    """Normalise each channel of each example over its pixels, then scale and shift.

    x (N, ..., C), gamma (C,), beta (C,) -> (N, ..., C). Law: group_norm with as many groups as
    channels. Raises ShapeError for a single pixel, or none at all, as vectors (N, C) have.
    """
    check_channels("instance_norm", x.shape, gamma=gamma, beta=beta)
    pixels = tuple(range(1, x.ndim - 1))
    if math.prod(x.shape[a] for a in pixels) < 2:
        raise ShapeError(
            f"instance_norm: x {tuple(x.shape)} has one value for each channel of an example: it "
            "has no variance. Use larger images, or layer_norm, which also averages over channels."
        )
    return apply(LayerNorm(pixels, check_eps("instance_norm", eps)), x, gamma, beta)


@in_float32
def group_norm(x, gamma, beta, *, groups: int, eps: float = 1e-5) -> Any:
    """Normalise groups of neighbouring channels of each example, then scale and shift.

    x (N, ..., C), gamma (C,), beta (C,) -> (N, ..., C). Laws: one group is layer_norm over all axes
    but the first; C groups are instance_norm.
    Raises ShapeError unless C is a multiple of `groups`, or for groups of a single value.
    """
    check_channels("group_norm", x.shape, gamma=gamma, beta=beta)
    C, groups = x.shape[-1], check_integer(groups, "group_norm: groups")
    if groups < 1 or C % groups:
        raise ShapeError(f"group_norm: {C} channels can't be cut into groups={groups} equal ones.")
    split = (*x.shape[:-1], groups, C // groups)
    axes = (*range(1, x.ndim - 1), x.ndim)
    if math.prod(split[a] for a in axes) < 2:
        raise ShapeError(
            f"group_norm: x {tuple(x.shape)} in groups={groups} has one value a group: it has no "
            "variance. Use fewer groups, or larger images."
        )
    parts = (reshape(v, split[-2:]) for v in (gamma, beta))
    op = LayerNorm(axes, check_eps("group_norm", eps))
    return reshape(apply(op, reshape(x, split), *parts), x.shape)


@in_float32
def rms_norm(x, gamma, *, axes: Any = None, eps: float = 1e-5) -> Any:
    """Divide by the root mean square along `axes`, then scale. Not centred.

    x (N, ..., C); gamma has the shape of its last axes, which are the default of `axes`.
    Law: rms_norm(a·x) == rms_norm(x) for a > 0, up to eps. Raises ShapeError for gamma of another
    shape. (PyTorch's default eps is the dtype's.)
    """
    found = normalised_axes("rms_norm", x, axes, least=1, gamma=gamma)
    return apply(RmsNorm(found, check_eps("rms_norm", eps)), x, gamma)


@in_float32
def weight_standardisation(w, gamma: Any = 1.0, *, eps: float = 1e-5) -> Any:
    """Normalise each filter to zero mean and unit variance, then scale it by gamma.

    w (..., F): filters (Kh, Kw, C, F) or a matrix (in, out); gamma: (F,), or one number for all.
    Law: a filter's shift and scale change nothing, up to eps.
    Raises ShapeError for filters of a single weight, or gamma of another shape.
    """
    if w.ndim < 2 or math.prod(w.shape[:-1]) < 2:
        raise ShapeError(
            f"weight_standardisation: w {tuple(w.shape)} has filters of fewer than two weights, "
            "which have no variance. Filters are the last axis."
        )
    gamma = gamma.item() if isinstance(gamma, np.generic) else gamma
    if hasattr(gamma, "shape") and gamma.shape != w.shape[-1:]:
        raise ShapeError(
            f"weight_standardisation: gamma has shape {gamma.shape}, w {w.shape[-1]} filters."
        )
    op = LayerNorm(tuple(range(w.ndim - 1)), check_eps("weight_standardisation", eps))
    return apply(op, w, gamma, 0.0)
