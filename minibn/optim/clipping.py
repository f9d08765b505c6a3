"""Gradient clipping by the norm of all gradients together (Pascanu et al. 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minibn.autograd.tensor import Tensor
from minibn.backend import array_module


@np.errstate(under="ignore")  # host: as in an optimizer's step
def clip_grad_norm(params: Sequence[Tensor], max_norm: float) -> Any:
    """Scale all gradients so that their joint l2 norm is at most `max_norm`.

    Returns the norm before clipping, a 0-d array of the backend (no transfer).
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: max_norm={max_norm} must not be negative.")
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        raise ValueError("clip_grad_norm: no parameter has a gradient. Call backward() first.")
    xp = array_module(grads[0].data)
    norm = xp.sqrt(sum((g.data * g.data).sum() for g in grads))
    factor = xp.minimum(max_norm / (norm + 1e-6), 1)
    for g in grads:
        g.data = g.data * factor.astype(g.dtype)
    return norm
