"""Mistakes in a formula, which change every entry in the same way.

Each recogniser takes the Evidence and returns a sentence, or None. None of them depends on the op
that was differentiated.
"""

from collections.abc import Iterator
from itertools import combinations, permutations
from math import prod, sqrt

import numpy as np

from minibn.testing.diagnosis.evidence import Evidence, largest, name_axes


def axis_sets(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All non-empty sets of axes longer than 1, the larger ones first (single ones beyond 5)."""
    long = [a for a, n in enumerate(shape) if n > 1]
    most = len(long) if len(long) <= 5 else 1
    return [s for k in range(most, 0, -1) for s in combinations(long, k)]


def identically_zero(ev: Evidence) -> str | None:
    """analytic = 0 up to rounding, numeric ≠ 0."""
    none = 1e-13 * largest(ev.numeric)
    if not np.all(np.abs(ev.analytic) <= none) or not ev.wrong.any():
        return None
    sentence = "The analytic gradient is zero everywhere, the numeric one is not"
    if ev.with_ones is not None and largest(ev.with_ones) <= 1e4 * none:
        sentence += " (but for a cotangent of ones it is): is the cotangent ignored?"
    return sentence if sentence.endswith("?") else sentence + "."


# -- ratios


def least_squares_ratio(ev: Evidence, axes: tuple[int, ...]) -> np.ndarray:
    """The r with analytic ≈ r · numeric, fitted over `axes`. NaN where nothing can be fitted."""
    known = ev.measured & np.isfinite(ev.analytic)
    a, n = np.where(known, ev.analytic, 0.0), np.where(known, ev.numeric, 0.0)
    scale = np.abs(n).max(axis=axes, keepdims=True, initial=0.0)
    n, a = n / scale, a / scale  # squares of tiny gradients would underflow
    return np.asarray((a * n).sum(axes, keepdims=True) / (n * n).sum(axes, keepdims=True))


def readings(ev: Evidence) -> Iterator[tuple[float, str]]:
    """Ratios with a known cause, and that cause."""
    yield -1.0, "-1 everywhere: the sign is wrong"
    yield 2.0, "2 everywhere: counted twice?"
    yield 0.5, "1/2 everywhere: is a factor of 2 missing?"
    for what, shape in (("input", ev.x.shape), ("output", ev.output.shape)):
        for axes in reversed(axis_sets(shape)):
            sides = [shape[a] for a in axes]
            n = prod(sides)
            product = f"{n} = {'·'.join(map(str, sides))}" if len(sides) > 1 else f"{n}"
            size = f"{product} is the size of {name_axes(axes)} of the {what}"
            yield 1 / n, f"1/{n} everywhere, and {size}: a mean where a sum belongs?"
            yield float(n), f"{n} everywhere, and {size}: a sum where a mean belongs?"
            for ratio, text in ((n / (n - 1), f"{n}/{n - 1}"), ((n - 1) / n, f"{n - 1}/{n}")):
                why = "the biased and the unbiased variance mixed up?"
                yield ratio, f"{text} everywhere, and {size}: {why}"
                yield sqrt(ratio), f"√({text}) everywhere, and {size}: {why}"
    scalars = {f"input {k}": v for k, v in enumerate(ev.inputs) if v.size == 1}
    scalars |= {"the cotangent": ev.cotangent} if ev.cotangent.size == 1 else {}
    for name, v in scalars.items():
        c = float(v.reshape(()))
        if c and np.isfinite(c) and abs(c) != 1:
            yield 1 / c, f"1/({name}) everywhere: the factor {name} is missing"
            yield c, f"{name} everywhere: that factor stands there once too often"


def constant_ratio(ev: Evidence) -> str | None:
    """analytic = r · numeric, with one r for all entries; named if r is a number with a meaning."""
    r = float(least_squares_ratio(ev, tuple(range(ev.x.ndim))).reshape(()))
    if not np.isfinite(r) or r == 0 or not ev.explained_by(r * ev.numeric, noise=ev.tolerance):
        return None
    start = "The ratio analytic/numeric is "
    named = [text for c, text in readings(ev) if abs(r / c - 1) < 1e-4][:2]
    if named:
        doubt = " (One entry only: other explanations fit as well.)" if ev.few else ""
        text = "; or ".join(named)
        return start + text + ("" if text.endswith("?") else ".") + doubt
    if (np.abs(ev.numeric[ev.measured]) > ev.tolerance[ev.measured]).sum() < 2:
        return None
    by = f": {abs(r - 1):.3g} too {'large' if r > 1 else 'small'}, relatively"
    return f"{start}{r:.6g} everywhere" + (by if abs(r - 1) < 0.2 else "") + "."


def along_axes(v: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, str]]:
    """The ways in which v broadcasts to `shape`: by NumPy's rule, and a vector along any axis."""
    ndim = len(shape)
    if v.ndim == 1 and v.size > 1:
        for a in reversed(range(ndim)):
            if shape[a] == v.size:
                where = "the last axis" if a == ndim - 1 else f"axis {a}"
                yield v.reshape(-1, *[1] * (ndim - 1 - a)), f" along {where}"
    elif v.size > 1 and v.ndim <= ndim:
        fits = all(m in (1, n) for m, n in zip(v.shape[::-1], shape[::-1], strict=False))
        if fits:
            yield v, ""


def forgotten_factor(ev: Evidence) -> str | None:
    """analytic = numeric · v^p, where v is an input, the output or the cotangent."""
    sources = {f"input {k}": np.asarray(v, float) for k, v in enumerate(ev.inputs)}  # host: given
    sources |= {"the output": ev.output, "the cotangent": ev.cotangent}
    powers = {
        -1: ("1/({})", "the factor {} is missing"),
        1: ("{}", "that factor stands there once too often"),
        -2: ("1/({})²", "the factor {} is missing twice"),
        2: ("({})²", "that factor stands there twice too often"),
    }
    for name, v in sources.items():
        for factor, along in along_axes(v, ev.x.shape):
            for p, (ratio, text) in powers.items():
                guess, noise = ev.numeric * factor**p, np.abs(ev.tolerance * factor**p)
                if np.ptp(factor) > 0 and ev.explained_by(guess, noise=noise):
                    ratio, text = ratio.format(name), text.format(name)
                    if name == "the cotangent" and p == -1:
                        text = "the cotangent is ignored"
                    return f"The ratio analytic/numeric is {ratio}{along}: {text}."
    return None


def ratio_along_axis(ev: Evidence) -> str | None:
    """analytic = numeric · r, where r depends on the index along one axis."""
    if constant_ratio(ev) or forgotten_factor(ev):
        return None  # these are more specific
    for axis in reversed(range(ev.x.ndim)):
        size = ev.x.shape[axis]
        rest = tuple(a for a in range(ev.x.ndim) if a != axis)
        if size < 2 or ev.measured.sum() < 2 * size:
            continue
        r = least_squares_ratio(ev, rest)
        if ((np.abs(r) < 1e-6) | (np.abs(r - 1) < 1e-6)).all():  # slices that are dropped
            continue
        if ev.explained_by(ev.numeric * r, fitted=size, noise=np.abs(ev.tolerance * r)):
            values = ", ".join(f"{q:.4g}" for q in r.ravel()[:6]) + (", ..." if size > 6 else "")
            return (
                "The ratio analytic/numeric depends only on the index along "
                f"axis {axis}: {values}. A factor of one number for each is missing or wrong."
            )
    return None


# -- right values in wrong entries


def another_input(ev: Evidence) -> str | None:
    """analytic = the numeric gradient of another input."""
    for k, other in ev.others.items():
        if k != ev.position and ev.explained_by(other, noise=largest(ev.tolerance)):
            return (
                f"It is the numeric gradient of input {k}: are the gradients of inputs "
                f"{ev.position} and {k} swapped?"
            )
    return None


def find_transposition(ev: Evidence) -> str | None:
    """analytic = numeric with its axes permuted, or reshaped where a transpose belongs."""
    ndim = ev.x.ndim
    if ndim <= 4:
        orders = list(permutations(range(ndim)))
    else:
        orders = [(*range(ndim - 2), ndim - 1, ndim - 2), tuple(range(ndim))[::-1]]
    for order in sorted(orders, key=lambda o: sum(a != b for a, b in enumerate(o))):
        moved = np.transpose(ev.numeric, order)
        if ev.explained_by(moved.reshape(ev.x.shape), noise=largest(ev.tolerance)):
            if moved.shape != ev.x.shape:
                how = f"in the memory order of its transpose {order}: a reshape for a transpose?"
            elif order == (*range(ndim - 2), ndim - 1, ndim - 2):
                how = "with the last two axes transposed."
            else:
                how = f"with its axes permuted to {order}."
            return f"It is the numeric gradient {how}"
    return None


def find_flip(ev: Evidence) -> str | None:
    """analytic = numeric, reversed along some axes."""
    for axes in reversed(axis_sets(ev.x.shape)):
        if ev.explained_by(np.flip(ev.numeric, axes), noise=np.flip(ev.tolerance, axes)):
            return (
                f"It is the numeric gradient flipped along {name_axes(axes)}: "
                "a kernel or an index that is not reversed (or is, and should not be)?"
            )
    return None


def find_shift(ev: Evidence) -> str | None:
    """analytic = numeric, moved by one along an axis; the entries at the edge are ignored."""
    for axis, size in enumerate(ev.x.shape):
        for step, edge in ((1, 0), (-1, size - 1)):
            if size < 3:
                continue
            inside = np.ones(ev.x.shape, bool)
            inside[(slice(None),) * axis + (edge,)] = False
            guess, noise = (np.roll(v, step, axis) for v in (ev.numeric, ev.tolerance))
            if ev.explained_by(guess, noise=noise, where=inside):
                return (
                    f"It is the numeric gradient shifted by {step:+d} along axis {axis}: "
                    "an index, a padding or a stride that is off by one?"
                )
    return None


def find_ignored_cotangent(ev: Evidence) -> str | None:
    """analytic = the gradient for a cotangent of ones."""
    if ev.with_ones is None or not ev.explained_by(ev.with_ones, noise=ev.tolerance):
        return None
    return "It is the gradient for a cotangent of ones: the cotangent is ignored."


def multiple_of_something(ev: Evidence) -> str | None:
    """error = c · v, where v is an input, the output, the cotangent or another gradient."""
    sources = {f"input {k}": np.asarray(v, float) for k, v in enumerate(ev.inputs)}  # host: given
    sources |= {"the output": ev.output, "the cotangent": ev.cotangent}
    sources |= {f"the gradient of input {k}": v for k, v in ev.others.items() if k != ev.position}
    known = ev.measured & np.isfinite(ev.analytic)
    for name, v in sources.items():
        if v.shape != ev.x.shape or known.sum() < 3 or not np.ptp(v[known]) > 0:
            continue
        c = (ev.error[known] * v[known]).sum() / (v[known] ** 2).sum()
        guess = ev.numeric + c * v
        if c and (v[known] != 0).sum() > 1 and ev.explained_by(guess, fitted=1):
            what = {1: f"{name} is added", -1: f"{name} is subtracted"}.get(round(c, 6))
            return f"The error is {c:.6g} times {name}" + (f": {what}." if what else ".")
    return None


FORMULAS = (
    identically_zero, constant_ratio, another_input, find_transposition, find_flip,
    find_ignored_cotangent, forgotten_factor, ratio_along_axis, find_shift,
    multiple_of_something,
)  # fmt: skip
