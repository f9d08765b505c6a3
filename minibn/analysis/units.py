"""The units of a BatchNorm, with the loss's gradient and curvature on both sides of it.

`theorems` is about these. A unit has m values y over the batch (images: m = N·H·W per channel):

    y_hat = (y - mu) / sigma,    sigma² = var + eps,    z = gamma · y_hat + beta,    L̂(y) = L(z)

Arrays are (..., C), one column a unit, and sums run over every axis but the last.

    u = Units(loss, y, gamma, beta, eps)               any loss of z
    with units_at(net, "norm1", (x, labels)) as u:     one BatchNorm of a network
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minibn import ops
from minibn.analysis.state import working_state
from minibn.autograd.backward import grad
from minibn.autograd.tape import set_grad_enabled
from minibn.autograd.tensor import Tensor, value
from minibn.backend import array_module
from minibn.errors import ShapeError
from minibn.nn.module import Module
from minibn.nn.norm import BatchNorm
from minibn.nn.sequential import Sequential
from minibn.ops.batch_normalization import moments

Array = Any  # of any backend
ROUNDING = 1e-9  # relative to the largest term: sides that differ by less are called equal


def total(a: Array) -> Array:
    """Σ a of each unit: (..., C) -> (C,)."""
    return a.sum(axis=tuple(range(a.ndim - 1)))


def dot(a: Array, b: Array) -> Array:
    """⟨a, b⟩ of each unit: (..., C), (..., C) -> (C,)."""
    return total(a * b)


def length(a: Array) -> Array:
    """‖a‖ of each unit: (..., C) -> (C,). Of one number a unit, (C,), its absolute value."""
    return abs(a) if a.ndim == 1 else array_module(a).sqrt(dot(a, a))


def quotient(a: Array, b: Array) -> Array:
    """a / b for b ≥ 0, and a where b is 0."""
    return a / array_module(b).where(b > 0, b, 1)


@dataclass(frozen=True)
class Sides:
    """Both sides of a theorem, for every unit: numbers (C,), or vectors (..., C).

    The right side is the sum of `terms`. `size` (C,) is what the residual is relative to: unless
    given, the largest of the left side and the terms.
    """

    theorem: str
    left: Array
    terms: tuple[Array, ...]
    given_size: Array | None = None

    @property
    def right(self) -> Array:
        return sum(self.terms[1:], start=self.terms[0])

    @property
    def size(self) -> Array:
        if self.given_size is not None:
            return self.given_size
        xp, size = array_module(self.left), length(self.left)
        for term in self.terms:
            size = xp.maximum(size, length(term))
        return size

    @property
    def residual(self) -> Array:
        """‖left - right‖ / size of each unit, (C,); 0 where both sides are."""
        return quotient(length(self.left - self.right), self.size)

    @property
    def is_exceeded(self) -> Array:
        """Where left ≤ right is violated, by more than rounding: booleans (C,)."""
        return self.left - self.right > ROUNDING * self.size


class Units:
    """The C units of one BatchNorm on one batch.

    loss: z -> a scalar Tensor. y (..., C), the norm's input; gamma, beta (C,).
    m: values a unit. mean, var, sigma (C,); y_hat, z (..., C).
    g (..., C): dL/dz at z, the standard network's gradient at the same activations.
    d (..., C): dL̂/dy, by autograd through the norm, without any of the theorems.
    Raises ShapeError for a unit with a single value, ValueError if eps = 0 and a unit is constant.
    """

    def __init__(
        self,
        loss: Callable[[Tensor], Tensor],
        y: Array,
        gamma: Array,
        beta: Array,
        eps: float = 1e-5,
    ) -> None:
        self.loss, self.y, self.gamma, self.beta, self.eps = loss, y, gamma, beta, eps
        self._y = Tensor(y, requires_grad=True)
        with set_grad_enabled(True):
            z = ops.batch_norm(self._y, gamma, beta, eps=eps)
            self._d = _slope(loss(z), self._y)
            self._z = Tensor(z.data, requires_grad=True)
            self._g = _slope(loss(self._z), self._z)
        self.m = y.size // y.shape[-1]
        self.mean, self.var = moments(y)
        if eps == 0 and not bool((self.var > 0).all().item()):
            raise ValueError("Units: a unit is constant over the batch, so eps=0 divides by zero.")
        self.sigma = array_module(y).sqrt(self.var + eps)
        self.y_hat = (y - self.mean) / self.sigma
        self.z, self.g, self.d = z.data, self._g.data, self._d.data

    @property
    def scaling(self) -> Array:
        """gamma² / sigma², (C,)."""
        return (self.gamma / self.sigma) ** 2

    def project(self, v: Array) -> Array:
        """P v = v - ⟨1, v⟩/m - y_hat ⟨y_hat, v⟩/m of each unit, (..., C)."""
        return v - total(v) / self.m - self.y_hat * (dot(self.y_hat, v) / self.m)

    def hessian_z(self, v: Array) -> Array:
        """H v: d²L/dz_j dz_j v_j of each unit j (..., C). One Hessian-vector product a unit."""
        return own_blocks(self._g, self._z, v)

    def hessian_y(self, v: Array) -> Array:
        """d²L̂/dy_j dy_j v_j of each unit j (..., C), by autograd twice through the norm."""
        return own_blocks(self._d, self._y, v)


def _slope(loss: Tensor, leaf: Tensor) -> Tensor:
    if loss.size != 1:
        raise ShapeError(f"Units: loss(z) has shape {loss.shape}; it must be a scalar.")
    return grad(loss, leaf, create_graph=True, unused="zeros")


def own_blocks(slope: Tensor, leaf: Tensor, v: Array) -> Array:
    """The derivatives of `slope`, itself a gradient with respect to `leaf`, along v: of each unit's
    own slope with respect to its own values (..., C)."""
    xp = array_module(v)
    out = xp.zeros_like(v)
    for j in range(v.shape[-1]):
        alone = xp.zeros_like(v)
        alone[..., j] = v[..., j]
        with set_grad_enabled(True):
            along = (slope * alone).sum()
        out[..., j] = grad(along, leaf, retain_graph=True, unused="zeros").data[..., j]
    return out


@contextmanager
def units_at(
    model: Sequential, norm: str, batch: tuple[Any, Any], loss: Callable = ops.softmax_cross_entropy
) -> Iterator[Units]:
    """The units of the BatchNorm called `norm` among the parts of `model`, on batch (x, targets).

    The parts before it give y; everything after it is the downstream loss, with its own batch
    statistics, its noise frozen. Inside the block the model is in training mode, on copies of its
    values; afterwards it is unchanged, bit for bit.
    Raises ValueError if there is no such part, or it is no BatchNorm.

    >>> import numpy as np
    >>> from minibn import nn
    >>> net = nn.Sequential(nn.Linear(2, 3), norm=nn.BatchNorm(3)).initialize(0, np.float64)
    >>> with units_at(net, "norm", (np.eye(4, 2), [0, 1, 2, 0])) as u:
    ...     u.m, u.y.shape, u.d.shape
    (4, (4, 3), (4, 3))
    """
    before, this, behind = _around(model, norm)
    x, targets = batch
    with working_state(model) as state:

        def downstream(z: Tensor) -> Tensor:
            state.reset_buffers()
            return loss(_through(behind, z), targets)

        with set_grad_enabled(False):
            y = value(_through(before, x))
        yield Units(downstream, y, this.gamma.data, this.beta.data, this.eps)


def weight_gradients(
    model: Sequential, norm: str, batch: tuple[Any, Any], u: Units
) -> tuple[Array, Array]:
    """(Xᵀg, Xᵀd), (F, C) each: the gradients of the weights before `norm`, of the standard and of
    the normalised network, where X is the input of their layer.

    Called inside the block of `units_at` that gave u.
    """
    *before, layer = _around(model, norm)[0]
    with set_grad_enabled(False):
        x = _through(before, batch[0])
    weight = dict(layer.named_parameters())["weight"]
    with set_grad_enabled(True):
        y = layer(x)
    g, d = (grad(y, weight, v, retain_graph=True).data for v in (u.g, u.d))
    return g.reshape(-1, g.shape[-1]), d.reshape(-1, d.shape[-1])


def _around(model: Sequential, norm: str) -> tuple[list[Module], BatchNorm, list[Module]]:
    """The parts before the norm, the norm, and the parts after it."""
    parts = dict(model.children())
    this = parts.get(norm)
    if not isinstance(this, BatchNorm):
        known = [name for name, part in parts.items() if isinstance(part, BatchNorm)]
        raise ValueError(
            f"units_at: {norm!r} is no BatchNorm among the parts of this Sequential. "
            f"There are: {', '.join(known) or 'none'}."
        )
    layers, at = list(parts.values()), list(parts).index(norm)
    return layers[:at], this, layers[at + 1 :]


def _through(layers: list[Module], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x
