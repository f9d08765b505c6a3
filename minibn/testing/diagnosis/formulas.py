"""Mistakes in a formula, which change every entry in the same way.

Each recogniser takes the Evidence and returns a sentence, or None. None of them depends on the op
that was differentiated.
"""

from itertools import permutations

import numpy as np

from minibn.testing.diagnosis.evidence import Evidence, axis_sets, largest, name_axes
from minibn.testing.diagnosis.ratios import (
    constant_ratio,
    forgotten_factor,
    ratio_along_axis,
)


def identically_zero(ev: Evidence) -> str | None:
    """analytic = 0 up to rounding, numeric ≠ 0."""
    none = 1e-13 * largest(ev.numeric)
    if not np.all(np.abs(ev.analytic) <= none) or not ev.wrong.any():
        return None
    sentence = "The analytic gradient is zero everywhere, the numeric one is not"
    if ev.with_ones is not None and largest(ev.with_ones) <= 1e4 * none:
        sentence += " (but for a cotangent of ones it is): is the cotangent ignored?"
    return sentence if sentence.endswith("?") else sentence + "."


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
        guess, noise = np.flip(ev.numeric, axes), np.flip(ev.tolerance, axes)
        if ev.explained_by(guess, noise=noise):
            return (
                f"It is the numeric gradient flipped along {name_axes(axes)}: "
                "a kernel or an index that is not reversed (or is, and should not be)?"
            )
        guess, noise = (np.roll(v, [1] * len(axes), axes) for v in (guess, noise))
        if ev.explained_by(guess, noise=noise):
            return (
                f"It is the numeric gradient with the indices of {name_axes(axes)} negated (entry "
                "-k for k): a conjugate that is missing, or a transform for its inverse?"
            )
    return None


SHIFTS = 17  # shifts are tried up to below this


def find_shift(ev: Evidence) -> str | None:
    """analytic = numeric, moved along an axis; what moves in at the edge is ignored."""
    for axis, size in enumerate(ev.x.shape):
        for step in (s for k in range(1, max(2, min(size - 1, SHIFTS))) for s in (k, -k)):
            if size < 3:
                continue
            guess, noise = (np.roll(v, step, axis) for v in (ev.numeric, ev.tolerance))
            inside = np.ones(ev.x.shape, bool)
            edge = slice(0, step) if step > 0 else slice(size + step, size)
            inside[(slice(None),) * axis + (edge,)] = False
            if size - abs(step) < 2 or not ev.explained_by(guess, noise=noise, where=inside):
                continue
            cyclic = ", cyclically" if ev.explained_by(guess, noise=noise) else ""
            return (
                f"It is the numeric gradient shifted by {step:+d} along axis {axis}{cyclic}: "
                "an index, a padding, a stride or an offset that is off?"
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
            what = {1: f"{name} is added.", -1: f"{name} is subtracted."}.get(round(c, 6))
            if what is None and name == f"input {ev.position}":
                what = "a term proportional to it is missing, as of a norm that is no constant?"
            start = f"The error is {c:.6g} times {name}"
            return f"{start}: {what}" if what else f"{start}."
    return None


def in_part(ev: Evidence) -> bool:
    """Whether no more than half of the entries are wrong."""
    return bool(2 * ev.wrong.sum() <= ev.wrong.size)


def find_sum_term(ev: Evidence) -> str | None:
    """error = v · r, where v is the output or the input, and r the same along some axes."""
    known = ev.measured & np.isfinite(ev.analytic)
    sources = {"the output": ev.output, f"input {ev.position}": ev.x}
    for name, v in sources.items():
        if v.shape != ev.x.shape or not known.all() or not np.isfinite(v).all() or in_part(ev):
            continue
        for axes in axis_sets(ev.x.shape):
            squares = (v * v).sum(axes, keepdims=True)
            r = (ev.error * v).sum(axes, keepdims=True) / squares
            if known.sum() < 2 * r.size or not (squares > 0).all():
                continue
            if ev.explained_by(ev.numeric + r * v, fitted=r.size):
                return (
                    f"The error is {name} times a number that is the same along {name_axes(axes)}: "
                    f"the term with the sum over {name_axes(axes)} (of a softmax, or of a division "
                    "by a norm) is missing or wrong."
                )
    return None


def find_outer_product(ev: Evidence) -> str | None:
    """error = a ⊗ b, a matrix of rank 1."""
    if ev.x.ndim != 2 or min(ev.x.shape) < 3 or not np.isfinite(ev.error).all() or in_part(ev):
        return None
    u, s, v = np.linalg.svd(ev.error)
    own = np.linalg.svd(ev.numeric, compute_uv=False)
    if own[1] < 1e-3 * own[0] or not ev.explained_by(ev.numeric + s[0] * np.outer(u[:, 0], v[0])):
        return None
    return (
        "The error is an outer product (a matrix of rank 1), though the gradient is none: one term "
        "is missing or wrong, as of a norm or a scale that is no constant?"
    )


FORMULAS = (
    identically_zero, constant_ratio, another_input, find_transposition, find_flip,
    find_ignored_cotangent, forgotten_factor, ratio_along_axis, find_shift, multiple_of_something,
)  # fmt: skip

MISSING_TERMS = (find_sum_term, find_outer_product)  # if nothing more specific is found
