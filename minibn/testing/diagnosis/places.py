"""Mistakes in a place: the gradient is wrong only in a set of entries that has a name.

That all wrong entries lie in some set says little if most entries do. A place is named only if as
many entries, drawn at random, would all lie in it with a probability below 0.01.
"""

from itertools import combinations
from math import lgamma

import numpy as np

from minibn.testing.diagnosis.evidence import Evidence, name_axes, name_place, names

RARE = float(np.log(0.01))


def log_choose(m: int, k: int) -> float:
    return lgamma(m + 1) - lgamma(k + 1) - lgamma(m - k + 1)


def only_in(ev: Evidence, place: np.ndarray, log_tried: float = 0.0) -> bool:
    """Whether the error is in `place` alone, and not by chance. `log_tried`: the logarithm of the
    number of such places."""
    candidates = ev.measured | ev.wrong
    n, inside, wrong = (int(s.sum()) for s in (candidates, place & candidates, ev.wrong))
    if not wrong or inside == n or (ev.wrong & ~place).any():
        return False
    return log_choose(inside, wrong) - log_choose(n, wrong) + log_tried < RARE


def count_wrong(ev: Evidence) -> str:
    return f"{int(ev.wrong.sum())} of {int((ev.measured | ev.wrong).sum())} entries"


def not_finite(ev: Evidence) -> str | None:
    """NaN or infinite entries, where the numeric gradient is finite."""
    bad = ~np.isfinite(ev.analytic)
    if not bad.any():
        return None
    kinds = [k for k, f in (("NaN", np.isnan), ("infinite", np.isinf)) if f(ev.analytic).any()]
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    text = f"{int(bad.sum())} of {bad.size} entries are {' or '.join(kinds)}, the first at {first}"
    return text + ("; the numeric gradient is finite there." if (bad & ev.measured).any() else ".")


def at_ties(ev: Evidence) -> str | None:
    """Wrong where the one-sided derivatives disagree, right elsewhere."""
    if ev.ties is None or not ev.wrong.any() or (ev.wrong & ~ev.ties).any():
        return None
    return (
        f"The error is only at ties or kinks ({count_wrong(ev)}), where the one-sided derivatives "
        "disagree: which convention is meant there?"
    )


def zero_in_part(ev: Evidence) -> str | None:
    """analytic = 0 ≠ numeric in some entries, right in the others."""
    right = ev.measured & ~ev.wrong
    if not ev.wrong.any() or ev.analytic[ev.wrong].any() or not ev.analytic[right].any():
        return None
    where = f" (at {name_place(ev.wrong)})" if ev.measured.all() else ""
    return (
        f"It is 0 in {count_wrong(ev)} where it should not be{where}, and right elsewhere: dropped?"
    )


def sign_in_part(ev: Evidence) -> str | None:
    """analytic = -numeric in some entries, numeric in the others."""
    right = ev.measured & ~ev.wrong
    if not ev.numeric[right].any():
        return None
    guess = np.where(ev.wrong, -ev.numeric, ev.numeric)
    if not ev.explained_by(guess, noise=ev.tolerance):
        return None
    where = f" (at {name_place(ev.wrong)})" if ev.measured.all() else ""
    return (
        f"The sign is wrong in {count_wrong(ev)}{where}, and right elsewhere. The sizes are right."
    )


def at_border(ev: Evidence) -> str | None:
    """Wrong only next to both ends of some axes."""
    long = [a for a, n in enumerate(ev.x.shape) if n >= 3]
    index = np.indices(ev.x.shape, sparse=True)
    log_tried = (len(long) + 1) * float(np.log(2))  # all sets of axes, two widths
    for width in (1, 2):
        for k in (1, 2, 3):
            for axes in combinations(long, k):
                ends = [
                    (index[a] < width, index[a] >= ev.x.shape[a] - width)
                    for a in axes
                    if ev.x.shape[a] > 2 * width
                ]
                if len(ends) < k or not all((ev.wrong & end).any() for e in ends for end in e):
                    continue
                place = np.zeros(ev.x.shape, bool)
                for low, high in ends:
                    place = place | low | high
                if only_in(ev, place, log_tried):
                    wide = "" if width == 1 else f", {width} entries wide"
                    return f"The error is only at the border of {name_axes(axes)}{wide}: padding?"
    return None


def at_some_index(ev: Evidence) -> str | None:
    """Wrong only at a few indices along an axis."""
    places = []
    for axis, size in enumerate(ev.x.shape):
        rest = tuple(a for a in range(ev.x.ndim) if a != axis)
        hit = np.flatnonzero(ev.wrong.any(rest))
        if not 0 < 2 * len(hit) <= size or len(hit) > 3 or set(hit) == {0, size - 1}:
            continue
        place = np.zeros(ev.x.shape, bool)
        place[(slice(None),) * axis + (hit,)] = True
        if ev.wrong.sum() > 1 and only_in(ev, place, log_choose(size, len(hit))):
            last = " (the last)" if list(hit) == [size - 1] else ""
            places.append(f"{names(hit)}{last} of axis {axis}")
    return f"The error is only at index {', and at index '.join(places)}." if places else None


def by_sign_of_input(ev: Evidence) -> str | None:
    """Wrong only where the input is negative, or only where it is positive."""
    for place, what in ((ev.x < 0, "negative"), (ev.x > 0, "positive"), (ev.x == 0, "zero")):
        if only_in(ev, place):
            return f"The error is only where the input is {what} ({count_wrong(ev)})."
    return None


def at_small_inputs(ev: Evidence) -> str | None:
    """Wrong only where the input is much smaller than elsewhere."""
    size = np.abs(ev.x)
    if not ev.wrong.any() or not np.isfinite(size).all():
        return None
    limit = float(size[ev.wrong].max())
    if 0 < limit <= 0.1 * float(np.median(size)) and only_in(ev, size <= limit):
        return f"The error is only where |input {ev.position}| is small, at most {limit:.2g}."
    return None


def fades(ev: Evidence) -> bool:
    """Whether some error is so small that others may be hidden by the tolerance."""
    return bool((np.abs(ev.error) < 1e-4 * np.abs(ev.numeric))[ev.wrong].any())


def by_threshold(ev: Evidence) -> str | None:
    """Wrong only on one side of a value of the input or of the output, or of their magnitudes."""
    if at_small_inputs(ev) or not ev.measured.all():
        return None
    name = f"input {ev.position}"
    x = ev.x
    sources = {name: x, f"|{name}|": np.abs(x)}
    if ev.output.shape == ev.x.shape:
        sources |= {"the output": ev.output, "|the output|": np.abs(ev.output)}
    right = ~ev.wrong
    if not ev.wrong.any() or not right.any() or fades(ev):
        return None
    for what, v in sources.items():
        for sign, side in ((1, "above"), (-1, "below")):
            last, first = float((sign * v[right]).max()), float((sign * v[ev.wrong]).min())
            if v is x and last <= 0 <= first:
                return None  # by_sign_of_input says it
            if not last < first or not only_in(ev, sign * v >= first, float(np.log(8))):
                continue
            middle = sign * _shortest_between(last, first)
            return (
                f"The error is only where {what} is {side} {middle:.4g} or so (right at "
                f"{sign * last:.4g}, wrong at {sign * first:.4g}): a branch, a clamp or an eps?"
            )
    return None


def _shortest_between(low: float, high: float) -> float:
    """The number with the fewest digits between the two."""
    for digits in range(1, 6):
        size = 10.0 ** (np.floor(np.log10(max(abs(low), abs(high), 1e-300))) + 1 - digits)
        if low < (short := float(np.floor(high / size) * size)) <= high:
            return short
    return (low + high) / 2


def right_at_one_index(ev: Evidence) -> str | None:
    """Right at one index of an axis, and wrong at all others."""
    if not ev.measured.all() or not ev.wrong.any():
        return None
    for axis, size in enumerate(ev.x.shape):
        for k in range(size):
            right = np.zeros(ev.x.shape, bool)
            right[(slice(None),) * axis + (k,)] = True
            if size >= 2 and right.sum() >= 2 and (right == ~ev.wrong).all():
                text = f"It is right at index {k} of axis {axis}, and wrong at all others"
                why = (
                    ": are the values or the sums of that index used for all of them, or is one "
                    "step taken instead of all?"
                )
                return text + (why if k in (0, size - 1) else ".")
    return None


def at_repeated_values(ev: Evidence) -> str | None:
    """Wrong only in entries whose value the input has more than once."""
    _, where, count = np.unique(ev.x, return_inverse=True, return_counts=True)
    if not ev.x.size or not only_in(ev, (count[where] > 1).reshape(ev.x.shape)):
        return None
    return f"The error is only where a value of the input is repeated ({count_wrong(ev)})."


PLACES = (
    not_finite, at_ties, zero_in_part, sign_in_part, at_border, at_some_index, by_sign_of_input,
    at_small_inputs, at_repeated_values, by_threshold, right_at_one_index,
)  # fmt: skip
