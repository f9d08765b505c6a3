"""Curvature of a batch's loss: along its gradient, the largest eigenvalues, and the trace.

H is the Hessian of L(w) = loss(model(x), targets) at the model's weights, for one batch, in
training mode: BatchNorm's statistics are functions of w, and differentiated. It is never formed,
only multiplied with. The graph of the gradient is recorded once, and each product H v = ∇⟨∇L, v⟩ is
one backward pass over it, so that noise is drawn once and is the same in all products.

    along the gradient   gᵀH g / gᵀg   with g = ∇L: the curvature along a step of SGD
    largest eigenvalues  Lanczos (1950) with full re-orthogonalisation
    trace                Hutchinson (1990): the mean of zᵀH z over random signs z

All are to be read beside 2/lr: on a quadratic, descent with that rate is stable up to that
curvature. Training with the full batch drives the largest eigenvalue of its Hessian there and keeps
it (the edge of stability: Cohen et al. 2021). With mini-batches it is the mean of gᵀH g / gᵀg, each
batch's H along its own g, that settles at 2/lr (Andreyev & Beneventano, arXiv:2412.20553).

With ReLU or max-pooling, H is the second derivative of the smooth pieces and does not include the
kinks between them, which every step crosses. Measured on VGG-16 early in training, as the length of
Δg - ∫ H d along the step beside ‖Δg‖: with BatchNorm kinks are 42 % of the gradient's change over a
step at lr 0.1, and 98 % over a hundredth of it, where effective beta is 5 times as large; without a
norm 99 % and more of both. So differences (∇L(w + hv) - ∇L(w - hv)) / 2h do not give H v: in
float32 they get worse as h shrinks; in float64 they agree to 3e-8 at h = 1e-8, with no kink in
between.

Cost, in gradients (forward and backward) of VGG-16 at width 1/4 and batch 128, float32, one thread,
with BatchNorm (without): the recording 2 (1.8), a product 2.7 (2), the largest eigenvalue 8 to 14
products, the five largest 26 to 36. The graph takes 0.4 GB (0.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from minibn import ops
from minibn.analysis.state import Batch, Loss, check_decay, loss_of, trainable, working_state
from minibn.autograd.backward import grad
from minibn.autograd.tape import set_grad_enabled
from minibn.backend import array_module, backend_of
from minibn.errors import ShapeError
from minibn.nn.module import Module
from minibn.random import generator

WHICH = ("largest", "magnitude")


@dataclass(frozen=True)
class Eigenvalues:
    """Ritz values of a Lanczos iteration: estimates of the Hessian's eigenvalues.

    values: (k,) float64, in the order of `which`. residuals: (k,); within values[i] ± residuals[i]
    lies an eigenvalue of H, up to rounding, and mostly much nearer: where it is alone within a
    distance d, the error is at most residual² / d. The first of "largest" is never above
    the largest eigenvalue. iterations: products with H. converged: whether the residuals are
    within the tolerance.
    """

    values: np.ndarray
    residuals: np.ndarray
    iterations: int
    converged: bool


@dataclass(frozen=True)
class Trace:
    """Hutchinson's estimate of a trace: the mean over `samples`, and its standard error (nan for
    one sample)."""

    value: float
    error: float
    samples: int


class Hessian:
    """The Hessian of a batch's loss at the model's weights, as a linear operator: H @ v.

    batch: (x, targets) on the model's backend. loss(model(x), targets) -> scalar Tensor.
    weight_decay λ adds λ/2 ‖w‖² over weights of two axes or more, as `decay_groups` does.

    size: P, the number of weights. loss: its value. gradient: (P,) float64, the parameters one
    after another, as the vectors of H @ v. All measurements of one Hessian share the recording. It
    keeps the graph in memory, and stays the Hessian at these weights when the model's change.
    The model is left unchanged, bit for bit. Raises ValueError for a model without parameters,
    a loss that is no scalar or a negative weight_decay; FloatingPointError where the loss or its
    gradient is not finite.

    >>> from minibn import nn
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False)).initialize(seed=0, dtype=np.float64)
    >>> x, y = np.diag([1.0, 2.0]), np.zeros((2, 1))
    >>> H = Hessian(net, (x, y), loss=lambda z, y: ((z - y) ** 2).sum() * 0.5)
    >>> (H @ np.ones(2)).tolist(), H.eigenvalues().values.round(6).tolist(), H.trace().value
    ([1.0, 4.0], [4.0], 5.0)
    """

    def __init__(
        self,
        model: Module,
        batch: Batch,
        *,
        loss: Loss = ops.softmax_cross_entropy,
        weight_decay: float = 0.0,
    ) -> None:
        check_decay("Hessian", weight_decay)
        with working_state(model), set_grad_enabled(True), np.errstate(all="ignore"):  # host: flags
            self._params = list(trainable(model).values())
            y = loss_of(model, batch, loss, "Hessian")
            self._slopes = grad(y, self._params, create_graph=True, unused="zeros")
            w = _flat([p.data for p in self._params])
            xp = array_module(w)
            self._decay = _flat(  # (P,), the diagonal that weight decay adds to H
                [xp.full_like(p.data, weight_decay * (p.ndim > 1)) for p in self._params]
            )
            self.gradient = _flat([g.data for g in self._slopes]) + self._decay * w
            self.loss = float(y.item()) + 0.5 * _dot(self._decay * w, w)
            self.gradient_norm = math.sqrt(_dot(self.gradient, self.gradient))
        if not math.isfinite(self.loss + self.gradient_norm):
            raise FloatingPointError(
                f"Hessian: the loss is {self.loss} and its gradient's norm {self.gradient_norm}; "
                "they must be finite. Has the training diverged?"
            )

    @property
    def size(self) -> int:
        """P, the number of weights."""
        return self.gradient.size

    def __matmul__(self, v: Any) -> Any:
        """H v for a vector v (P,): float64, with the digits of the model's own dtype.

        Raises ShapeError for another shape, FloatingPointError where H v is not finite.
        """
        if getattr(v, "shape", None) != (self.size,):
            raise ShapeError(
                f"Hessian: v has shape {getattr(v, 'shape', ())}; it must be ({self.size},), one "
                "number a weight."
            )
        parts, start = [], 0
        for p in self._params:
            parts.append(v[start : start + p.size].reshape(p.shape).astype(p.dtype))
            start += p.size
        with set_grad_enabled(True), np.errstate(all="ignore"):  # host: flags
            total = sum((g * part).sum() for g, part in zip(self._slopes, parts, strict=True))
            products = grad(total, self._params, retain_graph=True, unused="zeros")
            Hv = _flat([h.data for h in products]) + self._decay * v
        if not array_module(Hv).isfinite(Hv).all().item():
            raise FloatingPointError(
                "Hessian: H v is not finite. Has the training diverged, or is a second derivative "
                "infinite here, as that of a square root at 0?"
            )
        return Hv

    def along_gradient(self) -> float:
        """gᵀH g / gᵀg; nan where the gradient is zero, which has no direction."""
        if self.gradient_norm == 0:
            return math.nan
        u = self.gradient / self.gradient_norm
        return _dot(u, self @ u)

    def eigenvalues(
        self,
        k: int = 1,
        *,
        which: str = "largest",
        iterations: int = 50,
        tolerance: float = 1e-2,
        seed: int = 0,
    ) -> Eigenvalues:
        """The k largest eigenvalues ("largest"), or those of largest magnitude ("magnitude").

        Lanczos from a vector drawn by `seed`, until each residual is below tolerance times the
        largest |eigenvalue| seen, or after `iterations` products (0: never before). A multiple
        eigenvalue counts once, unless tolerance=0 and iterations=size. Memory: a float64 vector
        (P,) an iteration. Raises ValueError for a k that is not in 1..size, or more than
        `iterations`.
        """
        if which not in WHICH:
            raise ValueError(f"hessian_eigenvalues: which={which!r} is none of {', '.join(WHICH)}.")
        if not 1 <= k <= self.size:
            raise ValueError(
                f"hessian_eigenvalues: k={k}, of a Hessian with {self.size} eigenvalues. Use 1 to "
                f"{self.size}."
            )
        if iterations < k:
            raise ValueError(
                f"hessian_eigenvalues: iterations={iterations} find at most as many eigenvalues, "
                f"and k={k}. Use several times k."
            )
        return _lanczos(self, k, which, min(iterations, self.size), tolerance, seed)

    def trace(self, samples: int = 10, seed: int = 0) -> Trace:
        """The mean of zᵀH z over vectors of random signs, and its standard error.

        The variance of one sample is 2 Σ H_ij² over i ≠ j: a diagonal H is exact at once.
        Raises ValueError for fewer samples than one.
        """
        if samples < 1:
            raise ValueError(f"hessian_trace: samples={samples} must be 1 or more.")
        products = []
        for i in range(samples):
            signs = 2.0 * generator(seed, "hutchinson", i).integers(0, 2, self.size) - 1
            z = backend_of(self.gradient).asarray(signs)
            products.append(_dot(z, self @ z))
        error = stdev(products) / math.sqrt(samples) if samples > 1 else math.nan
        return Trace(fmean(products), error, samples)


def curvature_along_gradient(
    model: Module,
    batch: Batch,
    *,
    loss: Loss = ops.softmax_cross_entropy,
    weight_decay: float = 0.0,
) -> float:
    """gᵀH g / gᵀg of one batch; nan where its gradient is zero. See `Hessian`."""
    return Hessian(model, batch, loss=loss, weight_decay=weight_decay).along_gradient()


def hessian_eigenvalues(
    model: Module,
    batch: Batch,
    k: int = 1,
    *,
    loss: Loss = ops.softmax_cross_entropy,
    weight_decay: float = 0.0,
    which: str = "largest",
    iterations: int = 50,
    tolerance: float = 1e-2,
    seed: int = 0,
) -> Eigenvalues:
    """The k largest eigenvalues by Lanczos. See `Hessian` and its `eigenvalues`."""
    H = Hessian(model, batch, loss=loss, weight_decay=weight_decay)
    return H.eigenvalues(k, which=which, iterations=iterations, tolerance=tolerance, seed=seed)


def hessian_trace(
    model: Module,
    batch: Batch,
    *,
    loss: Loss = ops.softmax_cross_entropy,
    weight_decay: float = 0.0,
    samples: int = 10,
    seed: int = 0,
) -> Trace:
    """The trace with its standard error by Hutchinson. See `Hessian` and its `trace`."""
    H = Hessian(model, batch, loss=loss, weight_decay=weight_decay)
    return H.trace(samples, seed)


def _flat(arrays: Any) -> Any:
    """Arrays one after another as a vector of float64."""
    return array_module(*arrays).concatenate([a.reshape(-1).astype("float64") for a in arrays])


def _dot(a: Any, b: Any) -> float:
    return float((a @ b).item())


def _lanczos(
    H: Hessian, k: int, which: str, iterations: int, tolerance: float, seed: int
) -> Eigenvalues:
    """After m steps H Q = Q T + beta_m q_{m+1} e_mᵀ with orthonormal q_1 ... q_m and a tridiagonal
    T (alphas on its diagonal, betas beside it), so that an eigenvector s of T gives the Ritz vector
    Q s, whose residual ‖H Q s - theta Q s‖ is beta_m |s_m| (Parlett 1998, ch. 13)."""
    xp, rng = array_module(H.gradient), generator(seed, "lanczos")
    Q = xp.empty((iterations, H.size), dtype="float64")
    # Below this, beta is the rounding of the products, and what is left of w has no direction.
    floor = max(np.finfo(p.dtype).eps for p in H._params)
    alphas: list[float] = []
    betas: list[float] = []
    w = _draw_vector(rng, H)
    for m in range(1, iterations + 1):
        Q[m - 1] = w / xp.sqrt(w @ w)
        w = H @ Q[m - 1]
        alphas.append(_dot(Q[m - 1], w))
        w = _orthogonal(w, Q[:m])
        beta = math.sqrt(_dot(w, w))
        T = np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1)  # host: a small matrix
        thetas, S = np.linalg.eigh(T)  # host: as T: (m,), (m, m)
        size = np.abs(thetas)  # host: as T
        best = np.argsort(-(thetas if which == "largest" else size))[:k]  # host: as T
        values, residuals = thetas[best], beta * np.abs(S[-1, best])  # host: as T
        converged = m >= k and bool(tolerance and (residuals <= tolerance * size.max()).all())
        if converged:
            break
        if beta <= floor * size.max():  # an invariant subspace: go on in the rest, if there is one
            w, beta = _orthogonal(_draw_vector(rng, H), Q[:m]), 0.0
        betas.append(beta)
    return Eigenvalues(values, residuals, m, converged)


def _draw_vector(rng: np.random.Generator, H: Hessian) -> Any:
    return backend_of(H.gradient).asarray(rng.standard_normal(H.size))


def _orthogonal(w: Any, Q: Any) -> Any:
    """w without its projection on the rows of Q. Twice is enough (Parlett 1998, 6.9)."""
    for _ in range(2):
        w = w - (Q @ w) @ Q
    return w
