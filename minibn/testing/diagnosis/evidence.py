"""The data of a failed comparison of one gradient, and whether a hypothesis explains it.

A recogniser guesses the mistake, computes what the vjp would have returned had that mistake been
made, and asks `Evidence.explained_by`. The guess counts if it accounts for the error to a
thousandth of it in every entry, or to the tolerance of the oracles where that is larger.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from minibn.errors import ShapeError


@dataclass(frozen=True)
class Evidence:
    """The data of a failed comparison of one input's gradient. Arrays are on the host.

    numeric is NaN where nothing was measured (large inputs are probed in some entries only).
    """

    position: int  # which input
    inputs: tuple[np.ndarray, ...]  # all inputs, in float64 (or as they were, for their dtypes)
    output: np.ndarray  # f(*inputs)
    cotangent: np.ndarray
    analytic: np.ndarray  # what the vjp returned for this input
    numeric: np.ndarray  # what the oracles say, in the shape of the input
    tolerance: np.ndarray  # for each entry, or one for all
    others: Mapping[int, np.ndarray] = field(default_factory=dict)  # numeric, of other inputs
    with_ones: np.ndarray | None = None  # numeric, for a cotangent of ones
    ties: np.ndarray | None = None  # entries at which one-sided derivatives disagree
    jacobian: np.ndarray | None = None  # (outputs, entries), numeric
    pulled: np.ndarray | None = None  # (outputs, entries): the vjp of each output's cotangent of 1
    rotated: np.ndarray | None = None  # what vjp(*inputs, cotangent) returns
    again: "Evidence | None" = field(default=None, repr=False)  # for another cotangent
    wider: "Evidence | None" = None  # at more values of the input, if f takes entry by entry

    def __post_init__(self) -> None:
        def keep(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        keep("inputs", tuple(np.asarray(x) for x in self.inputs))  # host: given by the check
        for name in ("output", "cotangent", "analytic", "numeric"):
            keep(name, _floats(getattr(self, name)))
        shape = self.inputs[self.position].shape
        for name in ("analytic", "numeric"):
            if (actual := getattr(self, name).shape) != shape:
                raise ShapeError(
                    f"Evidence: {name} has shape {actual}, input {self.position} has {shape}. They "
                    "must be equal."
                )
        keep("tolerance", np.broadcast_to(_floats(self.tolerance), shape))
        keep("others", {int(k): _floats(v) for k, v in self.others.items()})
        if self.with_ones is not None:
            keep("with_ones", _floats(self.with_ones))
        if self.ties is not None:
            keep("ties", np.broadcast_to(np.asarray(self.ties, bool), shape))  # host: given

    def beside(self, other: "Evidence") -> "Evidence":
        """This evidence, with the other as `again`, and the reverse."""
        for one, two in ((self, other), (other, self)):
            object.__setattr__(one, "again", two)
        return self

    @property
    def x(self) -> np.ndarray:
        """The input whose gradient is wrong."""
        return _floats(self.inputs[self.position])

    @cached_property
    def measured(self) -> np.ndarray:
        return np.isfinite(self.numeric)

    @cached_property
    def error(self) -> np.ndarray:
        """analytic - numeric; NaN where it was not measured, or is not a number."""
        with np.errstate(all="ignore"):
            return np.asarray(self.analytic - self.numeric)

    @cached_property
    def wrong(self) -> np.ndarray:
        """Entries off by more than the tolerance, and those that are NaN or infinite."""
        with np.errstate(all="ignore"):
            off = self.measured & ~(np.abs(self.error) <= self.tolerance)
        return np.asarray(off | ~np.isfinite(self.analytic))

    @cached_property
    def largest_error(self) -> float:
        return largest(self.error)

    @property
    def few(self) -> bool:
        """Whether fewer than two entries were measured: no pattern of an error can be seen."""
        return int(self.measured.sum()) < 2

    @property
    def doubtful(self) -> bool:
        """Whether there are so few entries that a larger problem may show another pattern."""
        return self.wider is None and int(self.measured.sum()) < 12

    def explained_by(
        self,
        guess: np.ndarray,
        *,
        fitted: int = 0,
        noise: np.ndarray | float = 0.0,
        where: np.ndarray | bool = True,
    ) -> bool:
        """Whether the analytic gradient is `guess`, wherever both are known.

        fitted: how many numbers were fitted to the error; there must be more entries than that.
        noise: the tolerance of the guess itself, on top of the evidence's.
        where: the entries that the guess is about.
        """
        if guess.shape != self.analytic.shape:
            return False
        known = self.measured & np.isfinite(guess) & where
        wrong = self.wrong & known
        if not wrong.any() or known.sum() <= fitted or 2 * wrong.sum() < self.wrong.sum():
            return False
        with np.errstate(all="ignore"):
            left = np.abs(self.analytic - guess)
            rounding = 1e-13 * np.maximum(np.abs(self.numeric), np.abs(guess))
            noisy = np.minimum(self.tolerance + noise, 0.02 * self.largest_error) + rounding
            return bool(np.all((left <= np.maximum(1e-3 * np.abs(self.error), noisy))[known]))


def _floats(x: Any) -> np.ndarray:
    return np.asarray(x, dtype=float)  # host: evidence is kept in NumPy


def largest(x: np.ndarray) -> float:
    """The largest finite magnitude; 0 if there is none."""
    finite = np.abs(x[np.isfinite(x)])
    return float(finite.max(initial=0.0))


def axis_sets(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All non-empty sets of axes longer than 1, the larger ones first (single ones beyond 5)."""
    long = [a for a, n in enumerate(shape) if n > 1]
    most = len(long) if len(long) <= 5 else 1
    return [s for k in range(most, 0, -1) for s in combinations(long, k)]


def names(items: Any) -> str:
    """The items as text: 0, 1 and 2."""
    words = [str(i) for i in items]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def name_axes(axes: Any) -> str:
    """The axes as text: axis 1; axes 0 and 2."""
    return ("axis " if len(axes) == 1 else "axes ") + names(axes)


def name_place(mask: np.ndarray) -> str:
    """Where a mask is set, as text: index 0 of axis 1; (0, 2), (1, 2) and 3 more."""
    for axis, size in enumerate(mask.shape):
        rest = tuple(a for a in range(mask.ndim) if a != axis)
        hit = np.flatnonzero(mask.any(rest))
        if mask.ndim > 1 and len(hit) <= 3 and len(hit) < size and mask.take(hit, axis).all():
            return f"index {names(hit)} of axis {axis}"
    if mask.ndim == 2 and np.array_equal(mask, np.eye(*mask.shape, dtype=bool)):
        return "the diagonal"
    places = [tuple(int(i) for i in at) for at in np.argwhere(mask)]
    more = [f"{len(places) - 3} more"] if len(places) > 4 else []
    return names([*places[: 3 if more else 4], *more]) if places else "nowhere"
