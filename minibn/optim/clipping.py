"""Gradient clipping by the norm of all gradients together (Pascanu et al. 2013)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibn.autograd.tensor import Tensor
from minibn.backend import array_module
from minibn.errors import check_real
from minibn.nn.module import Module


@np.errstate(under="ignore")  # host: as in an optimizer's step
def clip_grad_norm(params: Sequence[Tensor], max_norm: float) -> Any:
    """Scale all gradients so that their joint l2 norm is at most `max_norm`.

    Returns the norm before clipping, a 0-d array of the backend (no transfer).
    """
    max_norm = check_real(max_norm, "clip_grad_norm: max_norm")
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: max_norm={max_norm} must not be negative.")
    params = [params] if isinstance(params, Tensor) else params
    tensors = [] if isinstance(params, Module) else list(params)
    if not tensors or not all(isinstance(p, Tensor) for p in tensors):
        raise TypeError("clip_grad_norm: params must be Tensors, as of model.parameters().")
    # Each once: of a parameter that is given twice the gradient counts once.
    grads = [p.grad for p in {id(p): p for p in tensors}.values() if p.grad is not None]
    if not grads:
        raise ValueError("clip_grad_norm: no parameter has a gradient. Call backward() first.")
    xp = array_module(grads[0].data)
    sizes = [xp.abs(g.data).astype(_at_least_float32(g)) for g in grads if g.size]
    top = functools.reduce(xp.maximum, [size.max() for size in sizes])
    top = xp.where((top > 0) & xp.isfinite(top), top, 1)  # so that no square overflows
    norm = xp.sqrt(sum(((size / top) ** 2).sum() for size in sizes)) * top
    factor = xp.minimum(max_norm / (norm + 1e-6), 1)
    for g in grads:
        g.data = g.data * factor.astype(g.dtype)
    return norm


def _at_least_float32(g: Tensor) -> np.dtype:
    """The dtype in which the norm of this gradient is computed."""
    return np.promote_types(g.data.real.dtype, np.float32)
