"""The theorems of Santurkar et al. 2018 (arXiv:1805.11604v3, section 4, appendix C), to rounding.

All of them follow from the Jacobian of one unit of a BatchNorm (see `units` for the letters), which
is symmetric (Facts C.1 and C.2):

    dz/dy = gamma/sigma · P,     P = I - 11ᵀ/m - y_hat y_hatᵀ/m

Three points of the paper need care. "The gradient of the standard network", ∇_y L, is that of the
same downstream loss at the same activations: g = dL/dz at z. With the right constants the sides are
equal, not ordered; the forms that are printed with ≤ and other constants fail, and are here as
`printed`. And the paper has no eps, while every layer does: then
‖y_hat‖² = m · var / (var + eps) < m, P is no projection, and 1/m becomes 2/m - ‖y_hat‖²/m².

Every function takes all C units at once, and each side of a theorem is (C,). H is d²L/dz_j dz_j,
one unit's own block of second derivatives.

    with units_at(net, "norm1", (x, labels)) as u:
        theorem_4_1(u).residual
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn import ops
from minibn.analysis.units import (
    Array,
    Sides,
    Units,
    dot,
    length,
    own_blocks,
    quotient,
    total,
)
from minibn.autograd.backward import grad
from minibn.autograd.tape import set_grad_enabled
from minibn.autograd.tensor import Tensor
from minibn.backend import array_module, backend_of
from minibn.errors import ShapeError
from minibn.random import generator

# -- the gradient: Facts C.1 and C.2, Theorem 4.1, Observation 4.3


def fact_c_2(u: Units) -> Sides:
    """dL̂/dy = gamma/sigma · P dL/dz (eq. 8), as a vector, at any eps."""
    return Sides("C.2", u.d, ((u.gamma / u.sigma) * u.project(u.g),))


def _parts(u: Units, weight: Any) -> tuple[Array, ...]:
    """‖g‖², -⟨1, g⟩²/m, -weight · ⟨g, y_hat⟩², (C,) each."""
    return dot(u.g, u.g), -(total(u.g) ** 2) / u.m, -weight * dot(u.g, u.y_hat) ** 2


def _exact_parts(u: Units) -> tuple[Array, ...]:
    return _parts(u, 2 / u.m - dot(u.y_hat, u.y_hat) / u.m**2)


def theorem_4_1(u: Units) -> Sides:
    """‖∇_y L̂‖² = gamma²/sigma² (‖g‖² - ⟨1, g⟩²/m - (2/m - ‖y_hat‖²/m²) ⟨g, y_hat⟩²).

    Printed with ≤ and with 1/√m in the place of the last factor, which is 1/m at eps = 0.
    """
    return Sides("4.1", dot(u.d, u.d), tuple(u.scaling * part for part in _exact_parts(u)))


def theorem_4_1_printed(u: Units) -> Sides:
    """The form of v3: ‖d‖² ≤ gamma²/sigma² (‖g‖² - ⟨1, g⟩²/m - ⟨g, y_hat⟩²/√m). It fails wherever
    ⟨g, y_hat⟩ is not 0, for m > 4 at any eps; its right side may even be negative."""
    parts = _parts(u, 1 / math.sqrt(u.m))
    return Sides("4.1 printed", dot(u.d, u.d), tuple(u.scaling * part for part in parts))


def theorem_4_1_without_eps(u: Units) -> Sides:
    """The form with 1/m, of later versions: an identity at eps = 0; else ≤ holds, and the sides
    differ by eps/(var + eps) of the last term."""
    parts = _parts(u, 1 / u.m)
    return Sides("4.1 without eps", dot(u.d, u.d), tuple(u.scaling * part for part in parts))


@dataclass(frozen=True)
class Shares:
    """The shares of Theorem 4.1 in the change of the gradient, (C,) each:

        ‖∇_y L̂‖² / ‖∇_y L‖² = scaling · (1 - mean - correlation)

    scaling: gamma²/sigma², a factor that may be above 1. mean, correlation: the parts of ‖g‖² along
    1 and along y_hat, which the norm removes. They are also the gradients of its own parameters:
    ⟨1, g⟩ = dL̂/dbeta and ⟨g, y_hat⟩ = dL̂/dgamma, so they vanish where those do.
    """

    scaling: Array
    mean: Array
    correlation: Array

    @property
    def remainder(self) -> Array:
        return 1 - self.mean - self.correlation

    @property
    def reduction(self) -> Array:
        """‖∇_y L̂‖² / ‖∇_y L‖²: below 1 where the norm makes the loss flatter."""
        return self.scaling * self.remainder


def shares(u: Units) -> Shares:
    """The three shares of Theorem 4.1 (mean and correlation are 0 where the gradient is)."""
    size, mean, correlation = _exact_parts(u)
    return Shares(u.scaling, quotient(-mean, size), quotient(-correlation, size))


def observation_4_3(u: Units) -> Sides:
    """With gamma = sigma and beta = mu the norm returns its input: z = y, so every function of
    the standard network, and each of its minima, is one of the normalised network."""
    return Sides("4.3", ops.batch_norm(u.y, u.sigma, u.mean, eps=u.eps), (u.y,))


# -- the curvature: Theorem 4.2


@dataclass(frozen=True)
class Curvature:
    """Theorem 4.2 along d = ∇_y L̂, and the conditions under which it means "smoother".

    hessian: the Hessian of L̂ times d (eqs. 41 and 42), a vector, at any eps.
    exact: dᵀ(d²L̂/dy²)d (4.2a), at any eps. printed: 4.2a as in v3, printed with ≤;
    an identity at eps = 0. bound_b: 4.2b, an inequality that holds in some cases only.
    vanilla: gᵀHg, and along: dᵀHd, positive where the first of the paper's mild conditions holds;
    inner: ⟨g, y_hat⟩, positive where the second does. separation: ⟨g, y_hat⟩ ‖d‖² gamma/(m sigma²),
    by which 4.2a stays below gamma²/sigma² dᵀHd; the paper's κ is sigma²/gamma² of it.
    """

    hessian: Sides
    exact: Sides
    printed: Sides
    bound_b: Sides
    vanilla: Array
    along: Array
    inner: Array
    separation: Array


def hessian_identity(u: Units, v: Array) -> Sides:
    """The Hessian of L̂ with respect to y, times any v (..., C), at any eps (eqs. 41 and 42):

    gamma²/sigma² P H P
        - gamma/(m sigma²) (g_c y_hatᵀ + y_hat g_cᵀ - 3a/m y_hat y_hatᵀ + a (I - 11ᵀ/m))

    with a = ⟨g, y_hat⟩ and g_c = g - mean(g). One Hessian-vector product a unit on either side.
    """
    g_c, v_c = (x - total(x) / u.m for x in (u.g, v))
    a, along = dot(u.g, u.y_hat), dot(u.y_hat, v)
    bent = g_c * along + u.y_hat * (dot(g_c, v) - 3 * a / u.m * along) + a * v_c
    curved = u.scaling * u.project(u.hessian_z(u.project(v)))
    return Sides("4.2 Hessian", u.hessian_y(v), (curved, -u.gamma / (u.m * u.sigma**2) * bent))


def theorem_4_2(u: Units) -> Curvature:
    """Both halves of Theorem 4.2. Four Hessian-vector products a unit."""
    hessian = hessian_identity(u, u.d)
    curvature = dot(u.d, hessian.left)
    inner = dot(u.g, u.y_hat)
    separation = u.gamma / (u.m * u.sigma**2) * inner * dot(u.d, u.d)
    along, vanilla = dot(u.d, u.hessian_z(u.d)), dot(u.g, u.hessian_z(u.g))
    return Curvature(
        hessian,
        Sides("4.2a", curvature, tuple(dot(u.d, term) for term in hessian.terms)),
        Sides("4.2a printed", curvature, (u.scaling * along, -separation)),
        Sides("4.2b", curvature, (u.scaling * vanilla, -separation)),
        vanilla,
        along,
        inner,
        separation,
    )


# -- weight space: Theorems 4.4 and C.1. y = X w, and X ranges over all ‖X‖₂ ≤ lambda


def worst_inputs(u: Units, largest: float, seed: int = 0) -> Array:
    """X (m, m), drawn, with X Xᵀ = lambda² I, so that ‖Xᵀv‖² = lambda² ‖v‖² for every v at once.

    No X with ‖X‖₂ ≤ lambda gives more: both networks are at their worst case, at the same sigma.
    (The paper keeps gamma, sigma and y_hat fixed while X varies.)
    """
    drawn = generator(seed, "inputs").standard_normal((u.m, u.m))
    return backend_of(u.y).asarray(largest * np.linalg.qr(drawn)[0], dtype=u.y.dtype)  # host: drawn


def through_inputs(u: Units, inputs: Array) -> tuple[Array, Array]:
    """(‖∇_w L̂‖², ∇_wᵀ (d²L̂/dw²) ∇_w) of each unit, (C,), by autograd in weight space: y = X w.

    inputs X (m, m), invertible, as from `worst_inputs`; y is (m, C).
    """
    w = Tensor(array_module(inputs).linalg.solve(inputs, u.y), requires_grad=True)
    with set_grad_enabled(True):
        z = ops.batch_norm(inputs @ w, u.gamma, u.beta, eps=u.eps)
        slope = grad(u.loss(z), w, create_graph=True, unused="zeros")
    v = slope.data
    return dot(v, v), dot(v, own_blocks(slope, w, v))


def theorem_4_4(u: Units, largest: float, left: Array | None = None) -> Sides:
    """max ‖∇_w L̂‖² over ‖X‖₂ ≤ lambda = `largest`, where max ‖∇_w L‖² = g_j = lambda² ‖g‖²:

    gamma²/sigma² (g_j - lambda² m mean(g)² - lambda² (2/m - ‖y_hat‖²/m²) ⟨g, y_hat⟩²)

    left: the maximum as measured; by default lambda² ‖∇_y L̂‖², since max ‖Xᵀv‖ = lambda ‖v‖.
    Printed with the square of g_j, which is a square already, and without lambda² and 1/m.
    """
    gradient = theorem_4_1(u)
    left = largest**2 * gradient.left if left is None else left
    return Sides("4.4", left, tuple(largest**2 * term for term in gradient.terms))


def theorem_4_4_printed(u: Units, largest: float) -> Sides:
    """The form of v3: ĝ_j ≤ gamma²/sigma² (g_j² - m mu_g² - lambda² ⟨g, y_hat⟩²). Its terms scale
    differently: whether it holds depends on the units of the loss."""
    size, mean, correlation = _parts(u, largest**2)
    parts = ((largest**2 * size) ** 2, mean, correlation)
    left = largest**2 * dot(u.d, u.d)
    return Sides("4.4 printed", left, tuple(u.scaling * part for part in parts))


def theorem_c_1(u: Units, curvature: Curvature, largest: float, left: Array | None = None) -> Sides:
    """∇_wᵀ(d²L̂/dw²)∇_w = gamma²/sigma² (lambda⁴ dᵀHd - lambda⁴ κ) where X Xᵀ = lambda² I, with the
    eps of 4.2a. left: as measured in weight space; by default lambda⁴ dᵀ(d²L̂/dy²)d.

    C.1 as printed is about maxima over X of both forms: see `theorem_c_1_maxima`.
    """
    exact = curvature.exact
    left = largest**4 * exact.left if left is None else left
    return Sides("C.1", left, tuple(largest**4 * term for term in exact.terms))


def theorem_c_1_maxima(u: Units, curvature: Curvature, largest: float) -> Sides:
    """C.1 as printed: max_X ĝ_wᵀĤ_w ĝ_w < gamma²/sigma² (max_X g_wᵀH_w g_w - lambda⁴ κ).

    An inequality that holds in some cases only, as 4.2b; the maxima are not at X Xᵀ = lambda² I.
    Forms both Hessians, column by column: for single units (C = 1) of small batches.
    Raises ShapeError for more than one unit.
    """
    if u.y.shape != (u.m, 1):
        raise ShapeError(
            f"theorem_c_1_maxima: y has shape {u.y.shape}; the Hessians are formed for one unit: "
            "(m, 1)."
        )
    xp = array_module(u.y)
    columns = [xp.eye(u.m, dtype=u.y.dtype)[:, k : k + 1] for k in range(u.m)]
    worst = [
        _largest_form(xp.concatenate([times(e) for e in columns], axis=1), v[:, 0], largest)
        for times, v in ((u.hessian_y, u.d), (u.hessian_z, u.g))
    ]
    left, vanilla = (xp.reshape(form, (1,)) for form in worst)
    terms = u.scaling * vanilla, -(largest**4) * curvature.separation
    return Sides("C.1 printed", left, terms)


def _largest_form(matrix: Array, v: Array, largest: float) -> Array:
    """max of (X Xᵀ v)ᵀ M (X Xᵀ v) over ‖X‖₂ ≤ lambda: a number, 0-d.

    X Xᵀ is any A with 0 ≤ A ≤ lambda² I, so A v is any point u of the ball around c = lambda² v / 2
    that touches 0. The form is largest where M u = t (u - c) with t at least 0 and M's largest
    eigenvalue (a trust-region problem). ‖u - c‖ falls with t: bisection finds the radius, ‖c‖.
    """
    xp = array_module(matrix)
    eigenvalues, axes = xp.linalg.eigh((matrix + matrix.T) / 2)
    c = axes.T @ (v * (largest**2 / 2))
    low = xp.maximum(eigenvalues.max(), 0)
    above = abs(eigenvalues).max() + low  # t - low, there ‖u - c‖ = ‖(t - M)⁻¹ M c‖ < ‖c‖
    above = xp.where(above > 0, above, 1)
    below = above * 1e-15
    for _ in range(60):
        middle = xp.sqrt(above * below)
        step = eigenvalues * c / (low + middle - eigenvalues)
        inside = (step * step).sum() < (c * c).sum()
        above, below = xp.where(inside, middle, above), xp.where(inside, below, middle)
    step = eigenvalues * c / (low + above - eigenvalues)
    spare = (c * c).sum() - (step * step).sum()  # goes along the top eigenvector, if c does not
    return (eigenvalues * (c + step) ** 2).sum() + low * spare


# -- initialisation: Lemma 4.5


def scale_invariance(u: Units, factor: float) -> Sides:
    """BN(a y) = BN(y) for a > 0, on which Lemma 4.5 relies: exact if eps grows by a²."""
    scaled = ops.batch_norm(u.y * factor, u.gamma, u.beta, eps=u.eps * factor**2)
    return Sides("4.5 scale invariance", scaled, (u.z,))


def orthogonality(u: Units) -> Sides:
    """⟨y, ∇_y L̂⟩ = ⟨w, ∇_w L̂⟩ = gamma ⟨g, y_hat⟩ eps / (var + eps): 0 but for eps, so a gradient
    step never shortens w. The residual is relative to ‖y‖ ‖∇_y L̂‖."""
    right = u.gamma * dot(u.g, u.y_hat) * u.eps / u.sigma**2
    return Sides("4.5 orthogonality", dot(u.y, u.d), (right,), length(u.y) * length(u.d))


def multiple(start: Array, optimum: Array) -> Array:
    """k = ⟨w*, w_0⟩ / ‖w*‖² for each unit: k w* is the point on the ray of optima next to w_0, if k
    is positive (the lemma's condition). (F, C), (F, C) -> (C,)."""
    return dot(optimum, start) / dot(optimum, optimum)


def lemma_4_5(start: Array, optimum: Array) -> Sides:
    """‖w_0 - k w*‖² = ‖w_0 - w*‖² - (‖w*‖² - ⟨w*, w_0⟩)² / ‖w*‖²,  k as in `multiple`.

    Scale invariance makes k w* an optimum of the normalised network wherever w* is one: the nearest
    is no further than the left side says. start, optimum (F, C): a column is a unit's weights.
    """
    near = optimum * multiple(start, optimum) - start
    size = dot(optimum, optimum)
    saved = (size - dot(optimum, start)) ** 2 / size
    return Sides("4.5", dot(near, near), (dot(start - optimum, start - optimum), -saved))
