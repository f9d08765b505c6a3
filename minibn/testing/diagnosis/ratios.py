"""Mistakes by a factor: the ratio of the analytic to the numeric gradient, and what it depends on.

Each recogniser takes the Evidence and returns a sentence, or None.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from math import e, pi, prod, sqrt

import numpy as np

from minibn.testing.diagnosis.evidence import (
    Evidence,
    axis_sets,
    name_axes,
    name_place,
)


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
    for power in (2, 3, 4):
        yield 2.0**power, f"{2**power} = 2^{power} everywhere: counted {2**power} times?"
        yield 0.5**power, f"1/{2**power} = 2^-{power} everywhere: is a power of 2 missing?"
    for p, q in ((2, 3), (3, 2), (3, 4), (4, 3)):
        yield p / q, f"{p}/{q} everywhere: a {p} where a {q} belongs?"
    shapes = {ev.x.shape: "input"}
    shapes.setdefault(ev.output.shape, "output")
    for shape, what in shapes.items():
        for axes in reversed(axis_sets(shape)):
            sides = [shape[a] for a in axes]
            n = prod(sides)
            product = f"{n} = {'·'.join(map(str, sides))}" if len(sides) > 1 else f"{n}"
            size = f"{product} is the size of {name_axes(axes)} of the {what}"
            yield 1 / n, f"1/{n} everywhere, and {size}: a mean where a sum belongs?"
            yield float(n), f"{n} everywhere, and {size}: a sum where a mean belongs?"
            biased = ((n / (n - 1), f"{n}/{n - 1}"), ((n - 1) / n, f"{n - 1}/{n}"))
            for ratio, text in biased if n > 2 else ():
                why = "the biased and the unbiased variance mixed up?"
                yield ratio, f"{text} everywhere, and {size}: {why}"
                yield sqrt(ratio), f"√({text}) everywhere, and {size}: {why}"
            yield sqrt(n), f"√{n} everywhere, and {size}: is a division by √{n} missing?"
            yield 1 / sqrt(n), f"1/√{n} everywhere, and {size}: is a factor √{n} missing?"
    scalars = {f"input {k}": v for k, v in enumerate(ev.inputs) if v.size == 1}
    scalars |= {"the cotangent": ev.cotangent} if ev.cotangent.size == 1 else {}
    for name, v in scalars.items():
        c = float(v.reshape(()))
        if c and np.isfinite(c) and abs(c) != 1:
            yield 1 / c, f"1/({name}) everywhere: the factor {name} is missing"
            yield c, f"{name} everywhere: that factor stands there once too often"
    for name, c in {"π": pi, "2π": 2 * pi, "√π": sqrt(pi), "√(2π)": sqrt(2 * pi), "e": e,
                    "ln 2": float(np.log(2)), "√2": sqrt(2)}.items():  # fmt: skip
        yield c, f"{name} everywhere: that factor stands there once too often"
        yield 1 / c, f"1/{name} everywhere: the factor {name} is missing"


def constant_ratio(ev: Evidence) -> str | None:
    """analytic = r · numeric, with one r for all entries; named if r is a number with a meaning."""
    r = float(least_squares_ratio(ev, tuple(range(ev.x.ndim))).reshape(()))
    if not np.isfinite(r) or r == 0 or not ev.explained_by(r * ev.numeric, noise=ev.tolerance):
        return None
    start = "The ratio analytic/numeric is "
    named = [text for c, text in readings(ev) if abs(r / c - 1) < 1e-4][:3]
    if named:
        doubt = " (One entry only: other explanations fit as well.)" if ev.few else ""
        text = "; or ".join(named)
        return start + text + ("" if text.endswith("?") else ".") + doubt
    if (np.abs(ev.numeric[ev.measured]) > ev.tolerance[ev.measured]).sum() < 2:
        return None
    if (near := Fraction(r).limit_denominator(12)).denominator > 1 and abs(r / near - 1) < 1e-6:
        start += f"{near} = "
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


Factor = Callable[[np.ndarray], np.ndarray]

# what is often a factor of a derivative, as a function of an input or of the output
FACTORS: dict[str, Factor] = {
    "{}": lambda v: v,
    "({})²": lambda v: v * v,
    "({})³": lambda v: v * v * v,
    "√({})": np.sqrt,
    "|{}|": np.abs,
    "1 - {}": lambda v: 1 - v,
    "1 + {}": lambda v: 1 + v,
    "1 - ({})²": lambda v: 1 - v * v,
    "1 + ({})²": lambda v: 1 + v * v,
    "{0} (1 - {0})": lambda v: v * (1 - v),
    "{0} / (1 + {0})": lambda v: v / (1 + v),
    "exp({})": np.exp,
    "cos({})": np.cos,
    "sin({})": np.sin,
}


def forgotten_factor(ev: Evidence) -> str | None:
    """analytic = numeric · h or numeric / h, where h is a function in FACTORS of an input, of the
    output or of the cotangent; perhaps times a number."""
    sources = {f"input {k}": np.asarray(v, float) for k, v in enumerate(ev.inputs)}  # host: given
    sources |= {"the output": ev.output, "the cotangent": ev.cotangent}
    for scaled in (False, True):
        for name, v in sources.items():
            for factor, along in along_axes(v, ev.x.shape):
                for pattern, function in FACTORS.items():
                    simple = pattern in ("{}", "({})²")
                    if name == "the cotangent" and (scaled or not simple):
                        continue
                    if (scaled or not simple) and ev.wrong.sum() < 6:  # fits by chance
                        continue
                    h = pattern.format(name)
                    for missing in (True, False):
                        text = _by_factor(ev, function(factor), h, missing, scaled, along)
                        if text is not None:
                            return text
    return None


def _by_factor(
    ev: Evidence, h: np.ndarray, name: str, missing: bool, scaled: bool, along: str
) -> str | None:
    h = np.asarray(1 / h if missing else h)
    if not np.isfinite(h).any() or not np.ptp(h[np.isfinite(h)]) > 0:
        return None
    guess = ev.numeric * h
    number = 1.0
    if scaled:
        known = ev.measured & np.isfinite(ev.analytic) & np.isfinite(guess)
        number = float((ev.analytic[known] * guess[known]).sum() / (guess[known] ** 2).sum())
        if not np.isfinite(number) or number == 0 or not nice(number):
            return None
        guess = guess * number
    if not ev.explained_by(guess, noise=np.abs(ev.tolerance * h), fitted=int(scaled)):
        return None
    shown = (
        (f"1/{name}" if name[-1] in "²³" and name[0] == "(" else f"1/({name})") if missing else name
    )
    text = f"the factor {name} is missing"
    if not missing:
        text = "that factor stands there once too often"
    if name == "the cotangent" and missing:
        text = "the cotangent is ignored"
    times = "" if number == 1 else f"{number:.6g} times "
    return f"The ratio analytic/numeric is {times}{shown}{along}: {text}."


def nice(r: float) -> bool:
    """Whether r is a fraction of small numbers."""
    return abs(r) <= 64 and abs(r - Fraction(r).limit_denominator(12)) <= 1e-6 * abs(r)


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
            text = f"depends only on the index along axis {axis}: {values}"
            why = "A factor of one number for each is missing or wrong."
            if ev.again is not None:
                other = least_squares_ratio(ev.again, rest)
                if not np.allclose(other, r, rtol=1e-3):
                    why = "It changes with the cotangent: one term, or a matrix product, is wrong."
            return f"The ratio analytic/numeric {text}. {why}"
    return None


def few_ratios(ev: Evidence) -> str | None:
    """analytic = numeric · r, where r takes two or three simple values, one of them 1 perhaps."""
    known = ev.measured & np.isfinite(ev.analytic) & (np.abs(ev.numeric) > ev.tolerance)
    if constant_ratio(ev) or known.sum() < 2 or (ev.wrong & ~known).any() or ratio_along_axis(ev):
        return None
    ratio = np.where(known, ev.analytic / np.where(known, ev.numeric, 1), np.nan)
    values: list[float] = []
    for r in ratio[known]:
        if not any(abs(r - v) <= 1e-4 * max(1, abs(v)) for v in values):
            values.append(float(r))
        if len(values) > 3:
            return None
    if len(values) < 2 or set(np.round(values, 6)) <= {0.0, 1.0, -1.0}:  # dropped, or a sign
        return None
    if ev.again is not None:  # the other cotangent's ratios are the same, entry by entry
        other = np.abs(ev.again.analytic - ratio * ev.again.numeric)[known]
        if (other > np.maximum(ev.again.tolerance, 1e-4 * np.abs(ev.again.numeric))[known]).any():
            return None
    simple = all(nice(v) or abs(v) < 1e-9 for v in values)
    counts = [(np.abs(ratio - v) <= 1e-4 * max(1, abs(v))).sum() for v in values]
    close = min(abs(v - w) for v in values for w in values if v != w) < 1e-3
    if not simple and (min(counts) < 3 or close):
        return None
    parts = []
    for v in sorted(values, key=lambda v: abs(v - 1), reverse=True):
        where = known & (np.abs(ratio - v) <= 1e-4 * max(1, abs(v)))
        parts.append(f"{v + 0.0 if abs(v) > 1e-9 else 0:.4g} at {name_place(where)}")
    return (
        f"The ratio analytic/numeric is {', and '.join(parts)}: a factor or a count that some "
        "entries should not have, or a mask that differs?"
    )
