"""Mistakes that show when the vjp's whole Jacobian is compared with the numeric one.

The vjp of a cotangent that is 1 at one output and 0 elsewhere is a row of the Jacobian, as the vjp
sees it: `Evidence.pulled`. It says which output's part is wrong, where the gradient alone has only
sums. Each recogniser takes the Evidence and returns a sentence, or None.
"""

from collections.abc import Iterator

import numpy as np

from minibn.testing.diagnosis.evidence import (
    Evidence,
    axis_sets,
    largest,
    name_axes,
    name_place,
)

Pair = tuple[np.ndarray, np.ndarray, np.ndarray]


def jacobians(ev: Evidence) -> Pair | None:
    """(analytic, numeric, where they differ), each (outputs, entries), if both are known."""
    ours, true = ev.pulled, ev.jacobian
    if ours is None or true is None or not (np.isfinite(ours).all() and np.isfinite(true).all()):
        return None
    tolerance = largest(ev.tolerance) / max(largest(ev.numeric), 1e-300)
    wrong = np.abs(ours - true) > max(tolerance, 1e-8) * largest(true)
    return (ours, true, wrong) if wrong.any() else None


def explains(guess: np.ndarray, pair: Pair) -> bool:
    """Whether the analytic Jacobian is `guess`, to a thousandth of its error in every entry."""
    ours, true, _ = pair
    if guess.shape != ours.shape:
        return False
    noise = 1e-8 * float(np.abs(true).max(initial=0))
    return bool(np.all(np.abs(ours - guess) <= np.maximum(1e-3 * np.abs(ours - true), noise)))


def vjp_for_jvp(ev: Evidence) -> str | None:
    """The vjp computes J·g, where Jᵀ·g belongs."""
    pair = jacobians(ev)
    if pair is None or not explains(pair[1].T, pair):
        return None
    return (
        "It is J·g, where Jᵀ·g belongs (J: the derivative of f): a matrix that is not transposed, "
        "a permutation that is not inverted, or a sum or a shift in the direction of f, not "
        "against it?"
    )


def only_own_output(ev: Evidence) -> str | None:
    """Each entry gets the part of the output at its own index alone."""
    pair = jacobians(ev)
    if pair is None or ev.x.shape != ev.output.shape:
        return None
    if not explains(np.diag(np.diag(pair[1])), pair):
        return None
    return (
        "Each entry gets the part from the output at its own index alone: the sum over the other "
        "outputs is missing (as in a softmax, a norm or a cumulative sum)."
    )


def other_cotangent(ev: Evidence) -> str | None:
    """It is the right gradient for a cotangent that was moved, averaged or summed first."""
    pair = jacobians(ev)
    if pair is None or vjp_for_jvp(ev):
        return None
    for rows, text in _cotangents(pair[1], ev.output.shape):
        if explains(rows, pair):
            return f"It is the right gradient for the cotangent {text}"
    return None


def _cotangents(true: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, str]]:
    """(the Jacobian for a cotangent that is changed first, the change)."""
    J = true.reshape(*shape, -1)

    def flat(rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to(rows, J.shape).reshape(true.shape)

    for axes in axis_sets(shape):
        over = name_axes(axes)
        average = f"averaged over {over} first: a mean that should not be there?"
        yield flat(J.mean(axes, keepdims=True)), average
        yield flat(J.sum(axes, keepdims=True)), f"summed over {over} first."
        yield flat(np.flip(J, axes)), f"flipped along {over}."
    for axis, size in enumerate(shape):
        for step in range(1, size):
            why = "an offset, or a shift in the wrong direction?"
            text = f"shifted by {step:+d} along axis {axis}, cyclically: {why}"
            yield flat(np.roll(J, -step, axis)), text
        for k in (0, size - 1) if size > 1 and not _diagonal(true) else ():
            one = np.zeros_like(J)
            place = (slice(None),) * axis + (k,)
            one[place] = J[place]
            why = "is the sum over that axis missing?"
            yield flat(one), f"at index {k} of axis {axis} alone: {why}"
    if len(shape) >= 2 and shape[-1] == shape[-2]:
        yield flat(J.swapaxes(-2, -3)), "with its last two axes transposed."


def parts_of_outputs(ev: Evidence) -> str | None:
    """The part that comes from some outputs is wrong, that of the others right."""
    pair = jacobians(ev)
    if pair is None or _diagonal(pair[1]):
        return None
    ours, true, wrong = pair
    rows = np.asarray(wrong.any(axis=1))
    if 2 * rows.sum() > len(rows):
        return None
    place = name_place(rows.reshape(ev.output.shape))
    return (
        f"Only the part that comes from the output at {place} is wrong"
        f"{_by_how_much(ours, true, rows)}; that of the other {int((~rows).sum())} is right."
    )


def _by_how_much(ours: np.ndarray, true: np.ndarray, rows: np.ndarray) -> str:
    a, b = ours[rows], true[rows]
    r = float((a * b).sum() / (b * b).sum()) if b.any() else np.nan
    if not np.isfinite(r) or np.abs(a - r * b).max() > 1e-6 * np.abs(b).max():
        return ""
    words = {0.0: " (it is dropped)", -1.0: " (its sign)", 2.0: " (counted twice)"}
    return words.get(round(r, 6), f" ({r:.4g} times what it should be)")


def _diagonal(J: np.ndarray) -> bool:
    return J.shape[0] == J.shape[1] and not (J - np.diag(np.diag(J))).any()


def missing_and_extra_parts(ev: Evidence) -> str | None:
    """Pairs of an output and an entry whose part is 0 and should not be, or is not and should."""
    pair = jacobians(ev)
    if pair is None:
        return None
    ours, true, wrong = pair
    none = 1e-9 * float(np.abs(true).max(initial=0))
    zero, no_part = np.abs(ours) <= none, np.abs(true) <= none
    dropped, extra = wrong & zero & ~no_part, wrong & ~zero & no_part
    if _diagonal(true) or dropped.all() or (dropped | extra).sum() == 0:
        return None
    if extra.any():
        k, j = (int(i) for i in np.argwhere(extra)[0])
        y_at = tuple(int(i) for i in np.unravel_index(k, ev.output.shape))
        x_at = tuple(int(i) for i in np.unravel_index(j, ev.x.shape))
        return (
            f"In {int(extra.sum())} cases an entry gets a part of an output that does not depend "
            f"on it, as {x_at} of output {y_at}: a mask, an index or an axis that differs between "
            "f and the vjp?"
        )
    if (wrong & ~dropped).any() or parts_of_outputs(ev):
        return None
    of = int((~no_part).sum())
    return (
        f"The gradient is right but for parts that are dropped: {int(dropped.sum())} of {of} pairs "
        "of an output and an entry that it depends on. A sum, a path or a step that is left out?"
    )


def swapped_arguments(ev: Evidence) -> str | None:
    """The vjp called with its arguments in another order is right."""
    if ev.rotated is None or ev.rotated.shape != ev.numeric.shape:
        return None
    close = np.abs(ev.rotated - ev.numeric) <= np.maximum(ev.tolerance, 1e-3 * np.abs(ev.error))
    if 2 * ev.wrong.sum() <= ev.measured.sum() or not close[ev.measured].all():
        return None
    return (
        "Called as vjp(*inputs, cotangent) it is right: the cotangent is its first argument here. "
        "Pass lambda g, *inputs: vjp(*inputs, g)."
    )


JACOBIANS = (
    vjp_for_jvp, only_own_output, other_cotangent, parts_of_outputs, missing_and_extra_parts,
)  # fmt: skip
