"""Calling a vjp that nobody trusts yet: is what comes back a gradient by form, the same twice,
linear in the cotangent, and how far do rounding errors move it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minibn.testing.oracles import one_ulp_away, salt_from, smoothed

SAFETY = 10.0  # between a measured error and the tolerance
CEILING = {8: 12.0, 4: 5.0, 2: 2.0}  # digits demanded at most, by the bytes of a number
LEAST = {8: 6.0, 4: 2.0, 2: 0.5}  # digits demanded at least: with fewer, rounding hides everything

Gradients = list[np.ndarray]


@dataclass
class Pulled:
    """What the vjp made of each cotangent for one input.

    spread   how far the gradient's entries move when every number moves to its neighbour
    eps      the rounding of the least exact of the inputs, `bytes` the size of its numbers
    again    (inputs of wrt) -> the gradients of the same cotangents at another point
    """

    gradients: Gradients
    spread: np.ndarray
    eps: float
    bytes: int
    again: Callable[[Sequence[np.ndarray]], Gradients | None]

    def spread_along(self, u: np.ndarray) -> float:
        """Of ⟨gradient, u⟩: the entries' roundings are independent."""
        return float(np.sqrt(((self.spread * u) ** 2).sum()))


@dataclass
class Pulling:
    """A vjp with the inputs at which it is called; what is wrong with it goes to `faults`."""

    vjp: Callable[..., Any]
    given: list[Any]
    wrt: Sequence[int]
    faults: list[str]

    def fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def moved(self, moving: Sequence[np.ndarray]) -> list[Any]:
        """The inputs, with others in the places that are differentiated."""
        whole = list(self.given)
        for i, x in zip(self.wrt, moving, strict=True):
            whole[i] = x
        return whole

    def pull(self, g: np.ndarray, given: Sequence[Any] | None = None) -> Gradients | None:
        """The gradients of `wrt`, or None if they don't have the form of gradients."""
        given = self.given if given is None else given
        arrays = [x.copy() if isinstance(x, np.ndarray) else x for x in given]
        passed = g.copy()
        found = self.vjp(passed, *arrays)
        if passed.tobytes() != g.tobytes():
            self.fault("the vjp modifies its cotangent in place")
        for i, (x, array) in enumerate(zip(given, arrays, strict=True)):
            if isinstance(x, np.ndarray) and x.tobytes() != array.tobytes():
                self.fault(f"the vjp modifies input {i} in place")
        grads = list(found) if isinstance(found, (tuple, list)) else [found]
        if len(grads) == len(given):
            grads = [grads[i] for i in self.wrt]
        if len(grads) != len(self.wrt):
            self.fault(
                f"the vjp returns {len(grads)} gradients for {len(given)} inputs: it must return "
                "one for each, by position (None for one without)"
            )
            return None
        formed = [self._formed(i, gi, given[i]) for i, gi in zip(self.wrt, grads, strict=True)]
        return None if any(gi is None for gi in formed) else formed  # type: ignore[return-value]

    def _formed(self, i: int, grad: Any, x: np.ndarray) -> np.ndarray | None:
        if grad is None:  # "no gradient" is a claim that it is zero
            return np.zeros_like(x)
        grad = np.array(grad)  # a copy: the next call may overwrite it
        if grad.shape != x.shape:
            hint = " (not summed over the axes of broadcasting?)" if grad.size > x.size else ""
            self.fault(f"input {i}: a gradient of shape {grad.shape} for {x.shape}{hint}")
            return None
        if grad.dtype != x.dtype:
            self.fault(f"input {i}: the gradient of {x.dtype} is {grad.dtype}")
        return grad

    def measure(
        self, cotangents: Sequence[np.ndarray], rng: np.random.Generator
    ) -> list[Pulled] | None:
        """Pull every cotangent back, and see that the vjp keeps the laws of all vjps."""
        found = [self.pull(c) for c in cotangents]
        first, second = found[0], found[1]
        if first is None or second is None:
            return None
        again = self.pull(cotangents[0]) or first
        if any(a.tobytes() != b.tobytes() for a, b in zip(first, again, strict=True)):
            self.fault("two runs of the vjp give two gradients: it is random, or keeps state")
        spreads = self._between_neighbours(cotangents[0], rng) or [np.zeros(x.shape) for x in first]
        coarsest = max((self.given[i].dtype for i in self.wrt), key=lambda d: np.finfo(d).eps)

        def elsewhere(k: int) -> Callable[[Sequence[np.ndarray]], Gradients | None]:
            def again(moving: Sequence[np.ndarray]) -> Gradients | None:
                dtypes = (self.given[i].dtype for i in self.wrt)
                at = self.moved([x.astype(d) for x, d in zip(moving, dtypes, strict=True)])
                there = [self.pull(c, at) for c in cotangents]
                return [g[k] for g in there if g is not None] if None not in there else None

            return again

        pulled = [
            Pulled(
                [first[k], second[k]],
                smoothed(spread),
                float(np.finfo(coarsest).eps),
                coarsest.itemsize,
                elsewhere(k),
            )
            for k, spread in enumerate(spreads)
        ]
        self._linear(pulled, cotangents)
        return pulled

    def _between_neighbours(self, g: np.ndarray, rng: np.random.Generator) -> Gradients | None:
        """How far the gradients at three neighbouring points are apart. The point itself is not
        asked: a gradient that is wrong in a single point is not rounding."""
        found = []
        for _ in range(3):
            salt = salt_from(rng)
            at = self.moved([one_ulp_away(self.given[i], salt) for i in self.wrt])
            found.append(self.pull(one_ulp_away(g, salt), at))
        if any(grads is None for grads in found):
            return None
        stacks = [np.stack(grads).astype(float) for grads in zip(*found, strict=True)]  # type: ignore[arg-type]
        return [s.max(axis=0) - s.min(axis=0) for s in stacks]

    def _linear(self, pulled: list[Pulled], cotangents: Sequence[np.ndarray]) -> None:
        zero = self.pull(0 * cotangents[0])
        both = self.pull(cotangents[0] - 2 * cotangents[1])
        if zero is None or both is None:
            return
        for i, p, none, sum_ in zip(self.wrt, pulled, zero, both, strict=True):
            a, b = (g.astype(float) for g in p.gradients)
            scale = float(max(np.abs(a).max(initial=0), np.abs(b).max(initial=0)))
            limit = np.maximum(
                SAFETY * (4 * p.spread + 4 * p.eps * scale), 10 ** -CEILING[p.bytes] * scale
            )
            if none.any():
                self.fault(f"input {i}: the vjp of a cotangent of zeros is not zero")
            elif (np.abs(sum_.astype(float) - (a - 2 * b)) > limit).any():
                self.fault(f"input {i}: the vjp is not linear in the cotangent")
