"""Mistakes in the mean and the variance term of a gradient, as normalisations have them.

Within a group (a channel of BatchNorm, a row of LayerNorm) the gradient of x̂ = (x - μ)/σ is

    x̄ = (ĝ - mean(ĝ) - x̂ · mean(ĝ x̂)) / σ

A wrong mean term leaves an error that is constant within the group; a wrong variance term leaves
one that is proportional to the centred input.
"""

from math import prod

import numpy as np

from minibn.testing.diagnosis.evidence import Evidence, axis_sets, largest, name_axes
from minibn.testing.diagnosis.formulas import find_sum_term
from minibn.testing.diagnosis.ratios import along_axes, constant_ratio


def mean_over(x: np.ndarray, known: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean of the known entries over `axes`, kept as axes of size 1."""
    total = np.where(known, x, 0.0).sum(axes, keepdims=True)
    return np.asarray(total / known.sum(axes, keepdims=True))


def slope(y: np.ndarray, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The c of y ≈ c · x within each group, by least squares."""
    return np.asarray((y * x).sum(axes, keepdims=True) / (x * x).sum(axes, keepdims=True))


def true_terms(
    ev: Evidence, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The mean, the variance and the direct term of the numeric gradient, if it is a norm's:
    α · ĝ + mean term + (variance term) · (x - μ) in each group, where ĝ is the cotangent, or that
    times another input."""
    if ev.cotangent.shape != ev.x.shape or not ev.measured.all():
        return None

    def centred(v: np.ndarray) -> np.ndarray:
        return np.asarray(v - v.mean(axes, keepdims=True))

    scales = [np.ones(1)]
    for k, v in enumerate(ev.inputs):
        if k != ev.position:
            scales += [s for s, _ in along_axes(np.asarray(v, float), ev.x.shape)]  # host: given
    x, n = centred(ev.x), centred(ev.numeric)
    for scale in scales:
        g_hat = np.broadcast_to(ev.cotangent * scale, ev.x.shape)
        g = centred(g_hat)
        across = g - slope(g, x, axes) * x  # orthogonal to x
        alpha = slope(n, across, axes)
        variance = slope(n - alpha * g, x, axes)
        left = np.abs(n - alpha * g - variance * x)
        if np.all(left <= 10 * largest(ev.tolerance) + 1e-9 * largest(ev.numeric)):
            return -alpha * g_hat.mean(axes, keepdims=True), variance, alpha * g
    return None


def share(wrong_by: np.ndarray, true: np.ndarray) -> str | None:
    """How a term differs from the true one, if by the same factor in every group."""
    ratios = (1 + wrong_by / true).ravel()
    r = float(np.median(ratios))
    if not np.allclose(ratios, r, rtol=1e-2, atol=1e-2 * abs(r - 1)):
        return None
    if abs(r) <= 1e-2:
        return "is missing"
    if abs(r + 1) <= 1e-2:
        return "has the wrong sign"
    if abs(r - 1) < 0.2:
        return f"is {100 * abs(r - 1):.3g} % too {'large' if r > 1 else 'small'}"
    return f"is {r:.4g} times what it should be"


def mean_term(ev: Evidence) -> str | None:
    """error = constant along some axes."""
    if constant_ratio(ev) or ev.measured.sum() < 3:
        return None
    known = ev.measured & np.isfinite(ev.analytic)
    for axes in axis_sets(ev.x.shape):
        offset = mean_over(ev.error, known, axes)
        if known.sum() < 2 * offset.size:
            continue
        if ev.explained_by(ev.numeric + offset, fitted=offset.size):
            true = true_terms(ev, axes)
            how = share(offset, true[0]) if true else None
            if offset.size == 1:
                pattern = f"The error is the same everywhere, {offset.item():.6g}"
                rest = "an added constant, or a mean term that is missing"
            else:
                pattern = f"The error is constant along {name_axes(axes)}"
                rest = "a mean term that is missing or wrong"
            reason = f"the mean term over {name_axes(axes)} {how}" if how else rest
            return f"{pattern}: {reason}."
    return None


def variance_term(ev: Evidence) -> str | None:
    """error = c · (x - mean of x) in each group, perhaps with a constant."""
    if mean_term(ev) or constant_ratio(ev) or not np.isfinite(ev.error).all():
        return None
    for axes in axis_sets(ev.x.shape):
        if prod(ev.x.shape[a] for a in axes) < 3:
            continue
        x = ev.x - ev.x.mean(axes, keepdims=True)
        offset = ev.error.mean(axes, keepdims=True)
        c = slope(ev.error - offset, x, axes)
        pure = ev.explained_by(ev.numeric + c * x, fitted=c.size)
        if not pure and (prod(ev.x.shape[a] for a in axes) < 4 or find_sum_term(ev)):
            continue  # one number for each group explains it, too
        if not pure and not ev.explained_by(ev.numeric + offset + c * x, fitted=2 * c.size):
            continue
        true = true_terms(ev, axes)
        over = name_axes(axes)
        if pure:
            how = share(c, true[1]) if true else None
            reason = f"the variance term {how or 'is missing or wrong'}"
            return f"The error is proportional to the input centred over {over}: {reason}."
        both = [share(e, t) for e, t in zip((offset, c), true[:2], strict=True)] if true else [None]
        reason = "the mean and the variance term are missing or wrong"
        if all(both):
            reason = f"the mean term {both[0]}, the variance term {both[1]}"
        return (
            f"The error is a constant plus a multiple of the input centred over {over}: {reason}."
        )
    return None


def standard_deviation(ev: Evidence) -> str | None:
    """1/σ is off by a factor r in each group: the direct term by r, the variance term by r³."""
    if constant_ratio(ev) or not np.isfinite(ev.error).all():
        return None
    for axes in axis_sets(ev.x.shape):
        if prod(ev.x.shape[a] for a in axes) < 4 or not (true := true_terms(ev, axes)):
            continue
        _, variance, direct = true
        x = ev.x - ev.x.mean(axes, keepdims=True)
        across = direct - slope(direct, x, axes) * x  # orthogonal to x
        p = slope(ev.error, across, axes)
        q = slope(ev.error - p * direct, x, axes)
        guess = ev.numeric + p * direct + q * x
        cubed = np.allclose(1 + q / variance, (1 + p) ** 3, rtol=1e-3 * largest(p))
        if cubed and ev.explained_by(guess, fitted=2 * p.size):
            r = (1 + p).ravel()
            return (
                f"1/σ over {name_axes(axes)} is off by factors of {r.min():.6g} to {r.max():.6g}: "
                "the unbiased variance, or eps in another place?"
            )
    return None


TERMS = (mean_term, variance_term, standard_deviation)
